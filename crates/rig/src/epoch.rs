//! One epoch: fresh processes of several servers, all alive at once, each with silent connections
//! of its own, which take turns in slices of load under one workload after the other. It replaces a
//! trial of its own for each server: what slows the machine down meets them alike
//! ([`crate::slices`]).
//!
//! A server that cannot start, answers wrongly, hangs or dies costs its own cells and no other's.
//! Whatever it does, the epoch takes bounded time. One that uses its core while it is not asked is
//! stopped (SIGSTOP) whenever the core is another's.

mod doubled;
mod member;
mod turns;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use record::{Measured, Model, Settings, SplitMix64, Workload};

use crate::{counting, hold};
use member::Member;
use turns::Loaded;
pub use turns::enough_places;

/// What an epoch needs to know.
pub struct Setting<'a> {
    /// The servers. The reference may be in it twice, and is then two processes.
    pub members: Vec<Entry<'a>>,
    /// What is asked of them, in this order. Processes and silent connections are the same for all:
    /// these may differ in what the client alone does (connections, pipelining, rate).
    pub workloads: Vec<Part<'a>>,
    /// How the run is set up.
    pub settings: &'a Settings,
    /// Document root with the file of the file workload.
    pub root: &'a Path,
    /// Seed of the order of turns and of due times.
    pub seed: u64,
    /// Whether the user wants the end.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// A server, as a result file knows it.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Its executable.
    pub executable: &'a Path,
    /// What is known of it.
    pub model: &'a Model,
}

/// A workload of an epoch.
pub struct Part<'a> {
    /// What the client does.
    pub workload: &'a Workload,
    /// Who takes part: places in [`Setting::members`].
    pub members: Vec<usize>,
    /// Whether its cells have the idle sample. It is taken once for all workloads, before the
    /// first.
    pub idle_sample: bool,
    /// Whether it is asked if twice the client gets more answers.
    pub doubled: bool,
}

/// What was measured, by workload and by its members; or one sentence for the table.
pub type Outcomes = Vec<Vec<Result<Measured, String>>>;

/// Why an epoch was not carried out.
#[derive(Debug)]
pub enum Stop {
    /// It was interrupted. These are the workloads that were over by then.
    Interrupted(Outcomes),
    /// What failed on this side, and what to do, in a sentence: no other epoch would fare better.
    Failed(String),
}

/// Servers that are started, opened and stopped at the same time: on two cores, one works while the
/// other waits for its client. More would only wait for one another.
const AT_ONCE: usize = 2;

/// Carries out an epoch.
///
/// # Errors
/// See [`Stop`].
pub fn run(setting: &Setting) -> Result<Outcomes, Stop> {
    counting::end_pass();
    let holder = match setting.workloads.iter().any(|part| sampled(part) > 0) {
        true => Some(hold::executable().map_err(Stop::Failed)?),
        false => None,
    };
    let mut random = SplitMix64::new(setting.seed);
    // Far from those of other epochs, whatever their seeds are.
    let due_seed = random.next_u64();
    let mut members: Vec<Member> =
        (0..setting.members.len()).map(|at| Member::start(setting, at)).collect();
    if let Some(holder) = &holder {
        each(&mut members, |member| member.open_silent(holder));
        member::sample_idle(&mut members, setting.settings);
        each(&mut members, Member::part_from_sampled);
    }
    let mut loaded = Vec::new();
    let mut failed = None;
    for part in &setting.workloads {
        match turns::measure(setting, part, &mut members, &mut random, due_seed) {
            Ok(outcomes) if !(setting.interrupted)() => loaded.push(outcomes),
            Ok(_) => break,
            Err(reason) => {
                failed = Some(reason);
                break;
            }
        }
    }
    each(&mut members, Member::stop);
    let whole = loaded.len() == setting.workloads.len();
    let outcomes = measured(setting, &members, loaded);
    match (failed, whole) {
        (Some(reason), _) => Err(Stop::Failed(reason)),
        (None, true) => Ok(outcomes),
        (None, false) => Err(Stop::Interrupted(outcomes)),
    }
}

/// Silent connections that a workload asks for at most.
fn sampled(part: &Part) -> u32 {
    let Workload { idle_connections, idle_sample_connections, .. } = *part.workload;
    if part.idle_sample { idle_sample_connections.max(idle_connections) } else { idle_connections }
}

/// Does something for every member, [`AT_ONCE`] at a time.
fn each(members: &mut [Member], act: impl Fn(&mut Member) + Sync) {
    let members = Mutex::new(members.iter_mut());
    let next = || members.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(member) = next() {
                    act(member);
                }
            });
        }
    });
}

/// What was measured, together with how each server ended.
fn measured(
    setting: &Setting,
    members: &[Member],
    loaded: Vec<Vec<Result<Loaded, String>>>,
) -> Outcomes {
    let whole = |loaded: Loaded, member: &Member, part: &Part| Measured {
        load: loaded.load,
        server: loaded.server,
        machine: loaded.machine,
        slices: loaded.slices,
        doubled: loaded.doubled,
        idle: member.idle.filter(|_| part.idle_sample),
        idle_connections_lost: loaded.idle_connections_lost,
        exit: member.exit.clone().unwrap_or_default(),
        calls: None,
    };
    let of_part = |(part, outcomes): (&Part, Vec<Result<Loaded, String>>)| {
        let members = part.members.iter().map(|&at| &members[at]);
        let with_members = outcomes.into_iter().zip(members);
        with_members.map(|(one, member)| one.map(|one| whole(one, member, part))).collect()
    };
    setting.workloads.iter().zip(loaded).map(of_part).collect()
}
