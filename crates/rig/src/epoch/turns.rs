//! One workload of an epoch: its servers are loaded in alternation, and each has an outcome.
//!
//! Memory, context switches, threads and the run-queue delay are read after the warm-up and at the
//! end of all slices. A server sleeps between its slices, so the difference belongs to its slices.
//! CPU time is the sum over its slices, as for the client.

use std::time::{Duration, Instant};

use load::{Observer, Plan, Slice};
use nix::time::{ClockId, clock_gettime};
use record::{
    Doubled, LoadOutcome, MachineSample, Model, ServerSample, Settings, Slices, SplitMix64,
    Workload,
};

use crate::sample::{self, Borders, Seen};
use crate::slices::{self, Awake, Entrant, Epoch, Spent};
use crate::{engine, trial};

use super::doubled::{self, Second};
use super::member::{Member, Running};
use super::{Part, Setting};

/// A request without a reply for this long is an error. Longer than a working server takes on a
/// busy machine, but not more, because the other servers wait meanwhile.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// An error of at most 1 %, a third of what counts as equal. A result holds thousands of
/// histograms, and with three digits they would be three times as large.
const HISTOGRAM_DIGITS: u8 = 2;

/// The measurements of a server under one workload.
pub(super) struct Loaded {
    pub(super) load: LoadOutcome,
    pub(super) server: ServerSample,
    pub(super) machine: MachineSample,
    pub(super) slices: Slices,
    pub(super) doubled: Doubled,
    pub(super) idle_connections_lost: u32,
}

/// Measures the members of a workload.
///
/// # Errors
/// A failure of the client.
pub(super) fn measure(
    setting: &Setting,
    part: &Part,
    members: &mut [Member],
    random: &mut SplitMix64,
    due_seed: u64,
) -> Result<Vec<Result<Loaded, String>>, String> {
    let awake = setting.settings.awake && !part.workload.processors_sleep;
    let _held = awake.then(Awake::hold).transpose()?;
    for &at in &part.members {
        members[at].server.iter_mut().for_each(Running::go_on);
    }
    let settings = Settings { seed: due_seed, ..setting.settings.clone() };
    let turns = Turns::open(setting, part, members, &settings);
    let loaded = turns.load(setting, random).map_err(|error| error.to_string())?;
    let with_members = part.members.iter().zip(loaded);
    let complete = |(&at, one): (&usize, Result<Loaded, String>)| {
        // Otherwise it was not loaded.
        enough_places(setting.members[at].model, part.workload)?;
        complete(&mut members[at], one)
    };
    let outcomes = with_members.map(complete).collect();
    for &at in &part.members {
        members[at].server.iter_mut().for_each(Running::rest);
    }
    Ok(outcomes)
}

/// Adds what is known after the load.
fn complete(member: &mut Member, loaded: Result<Loaded, String>) -> Result<Loaded, String> {
    let kept = member.kept();
    let running = member.server.as_mut().map_err(|reason| reason.clone())?;
    let mut loaded = loaded.map_err(|reason| running.with_end(reason))?;
    trial::add_end(&mut running.server, &mut loaded.load)?;
    if loaded.slices.requests.is_empty() {
        let why = loaded.load.ended_early.take();
        let unknown = || "in each block a server sent no reply or a wrong one".to_owned();
        return Err(format!("no slice was measured: {}", why.unwrap_or_else(unknown)));
    }
    loaded.server.congestion_control.clone_from(&running.congestion_control);
    loaded.idle_connections_lost = running.idle_connections_lost(kept)?;
    Ok(loaded)
}

/// The servers of a workload; entries with the same index belong together.
struct Turns<'a> {
    /// By member of the workload: its index, or why it has none.
    places: Vec<Result<usize, String>>,
    entrants: Vec<Entrant>,
    seconds: Vec<Option<Second>>,
    borders: Vec<Borders<'a>>,
}

impl<'a> Turns<'a> {
    /// Opens the connections to all running servers.
    fn open(setting: &Setting, part: &Part, members: &'a [Member], settings: &Settings) -> Self {
        let (mut entrants, mut seconds, mut borders) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = |at: usize| {
            let running = members[at].server.as_ref().map_err(Clone::clone)?;
            enough_places(setting.members[at].model, part.workload)?;
            // The memory is sampled before the first connection of the load.
            let seen = Borders::new(&running.server);
            let plan = engine::plan(running.server.address, part.workload, settings);
            let plan = plan.map_err(|error| error.to_string())?;
            let plan = Plan {
                request_timeout: REQUEST_TIMEOUT,
                histogram_digits: HISTOGRAM_DIGITS,
                ..plan
            };
            let (processes, model) = (running.processes(), setting.members[at].model);
            let second = part.doubled.then(|| Second::new(part.workload, model, &plan, &processes));
            let entrant = Entrant::open(plan, &processes, true);
            entrants.push(entrant.map_err(|error| error.to_string())?);
            seconds.push(second.flatten());
            borders.push(seen);
            Ok(entrants.len() - 1)
        };
        let places = part.members.iter().map(|&at| open(at)).collect();
        Turns { places, entrants, seconds, borders }
    }

    /// Makes the load. Returns the measurements of each member.
    fn load(
        mut self,
        setting: &Setting,
        random: &mut SplitMix64,
    ) -> Result<Vec<Result<Loaded, String>>, load::Error> {
        let window = Duration::from_secs_f64(setting.settings.window_s);
        let interrupted = setting.interrupted;
        slices::warm_up(&mut self.entrants, random, interrupted)?;
        self.borders.iter_mut().for_each(Observer::window_started);
        let machine = Machine::begin();
        let in_warm_up: Vec<_> = self.entrants.iter().map(|one| one.ended().is_some()).collect();
        let epoch = slices::take_turns(&mut self.entrants, window, random, interrupted)?;
        let spent: Vec<_> = self.entrants.iter().map(Entrant::spent).collect();
        let passed = machine.end();
        self.borders.iter_mut().for_each(Observer::window_ended);
        let seen: Vec<_> = self.borders.into_iter().map(Borders::finish).collect();
        let used_us = seen.iter().flatten().map(|seen| seen.server.cpu_us).sum();
        let others = passed.without(used_us);
        let doubled =
            doubled::measure(&mut self.entrants, self.seconds, window, random, interrupted)?;
        let columns = self.entrants.into_iter().zip(seen).zip(spent).zip(doubled).zip(in_warm_up);
        let mut loaded: Vec<_> = columns
            .enumerate()
            .map(|(at, ((((entrant, seen), spent), doubled), in_warm_up))| match entrant.ended() {
                Some(why) if in_warm_up => Some(Err(why.to_owned())),
                _ => Some(one(entrant, seen, spent, doubled, columns_of(&epoch, at), &others)),
            })
            .collect();
        let unknown = || Err("it was not measured".to_owned());
        let of = |place: Result<usize, String>| match place {
            Ok(at) => Option::take(&mut loaded[at]).unwrap_or_else(unknown),
            Err(reason) => Err(reason),
        };
        Ok(self.places.into_iter().map(of).collect())
    }
}

/// Checks that the server can have the connections of a workload, according to its own limit. With
/// keep-alive all are open at once; a connection per request is closed after its reply. A server
/// with a lower limit would serve only some, and delay all its slices. One that does not state its
/// limit is detected in its first slices.
pub fn enough_places(model: &Model, workload: &Workload) -> Result<(), String> {
    let active = if workload.connect_per_request { 0 } else { workload.connections };
    let needed = u64::from(active) + u64::from(workload.idle_connections);
    let Some(most) = model.connections_max.filter(|&most| most < needed) else { return Ok(()) };
    let connections = if most == 1 { "connection" } else { "connections" };
    let why = model.connections_max_reason.as_deref().unwrap_or("its own limit");
    Err(format!("holds {most} {connections} at once ({why}); this workload needs {needed}"))
}

fn one(
    entrant: Entrant,
    seen: Result<Seen, String>,
    spent: Spent,
    (doubled, not_doubled): (Doubled, Option<String>),
    slices: Slices,
    others: &Passed,
) -> Result<Loaded, String> {
    let mut load = entrant.finish().map_err(|error| error.to_string())?;
    load.notes.extend(not_doubled.map(|why| format!("the client was not doubled: {why}")));
    let server = ServerSample { cpu_us: spent.server_cpu_ns / 1_000, ..seen?.server };
    let machine = others.share_of(&spent);
    Ok(Loaded { load, server, machine, slices, doubled, idle_connections_lost: 0 })
}

fn columns_of(epoch: &Epoch, at: usize) -> Slices {
    let mut columns = Slices::default();
    let slices = epoch.blocks.iter().filter_map(|block| block[at].as_ref());
    slices.for_each(|slice| push(&mut columns, slice));
    columns
}

pub(super) fn push(columns: &mut Slices, slice: &Slice) {
    columns.requests.push(slice.requests);
    columns.elapsed_ns.push(slice.elapsed_ns);
    // The servers of an epoch were started here, so their clocks are known.
    columns.server_cpu_ns.push(slice.server_cpu_ns.unwrap_or(0));
    columns.client_cpu_ns.push(slice.client_cpu_ns);
}

/// The usage of the machine at the start of the slices.
struct Machine {
    begun: Instant,
    client_s: f64,
    sample: MachineSample,
}

/// The usage of the machine since then.
struct Passed {
    duration_s: f64,
    client_s: f64,
    machine: MachineSample,
}

impl Machine {
    fn begin() -> Machine {
        let sample = sample::machine().unwrap_or_default();
        Machine { begun: Instant::now(), client_s: client_s(), sample }
    }

    fn end(&self) -> Passed {
        let sample = sample::machine().unwrap_or_default();
        Passed {
            duration_s: self.begun.elapsed().as_secs_f64(),
            client_s: client_s() - self.client_s,
            machine: MachineSample {
                busy_s: sample.busy_s - self.sample.busy_s,
                steal_s: sample.steal_s - self.sample.steal_s,
            },
        }
    }
}

impl Passed {
    /// Subtracts the usage of the servers and of this process: the rest is that of other processes.
    fn without(mut self, servers_us: u64) -> Passed {
        let ours_s = servers_us as f64 / 1e6 + self.client_s;
        self.machine.busy_s = (self.machine.busy_s - ours_s).max(0.0);
        self
    }

    /// The usage in the slices of one server: its share of the other processes' usage by time, and
    /// its own and its client's.
    fn share_of(&self, spent: &Spent) -> MachineSample {
        let share = spent.elapsed_ns as f64 / 1e9 / self.duration_s;
        let ours_s = (spent.server_cpu_ns + spent.client_cpu_ns) as f64 / 1e9;
        MachineSample {
            busy_s: self.machine.busy_s * share + ours_s,
            steal_s: self.machine.steal_s * share,
        }
    }
}

fn client_s() -> f64 {
    let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    used.map_or(0.0, |used| used.tv_sec() as f64 + used.tv_nsec() as f64 / 1e9)
}
