//! Measures whether a server answers more requests with a second client on a second thread. If so,
//! a single client is the limit.

use std::time::{Duration, Instant};

use load::{Plan, Session, Slice};
use nix::unistd::Pid;
use record::{Doubled, Model, SplitMix64, Workload};

use crate::slices::{self, Entrant};

use super::turns::push;

/// Time for this, as a share of the time of a server's slices.
const SHARE: f64 = 0.25;

const WARM_UP: Duration = Duration::from_millis(5);

/// Whether this is measured: for a closed loop, which shows capacity; not for a chat, where twice
/// the members is another workload; and only if the server's limit allows the connections.
fn applies(workload: &Workload, model: &Model) -> bool {
    let needed = 2 * u64::from(workload.connections) + u64::from(workload.idle_connections);
    let holds = model.connections_max.is_none_or(|most| most >= needed);
    workload.rate_per_s.is_none() && !workload.fan_out && holds
}

/// Number of active connections of a server.
pub(super) fn connections(workload: &Workload, model: &Model) -> u32 {
    workload.connections * if applies(workload, model) { 2 } else { 1 }
}

pub(super) struct Second {
    /// The plan of the first client, but not pinned.
    plan: Plan,
    processes: Vec<Pid>,
}

impl Second {
    /// `None`: not measured.
    pub(super) fn new(
        workload: &Workload,
        model: &Model,
        plan: &Plan,
        processes: &[Pid],
    ) -> Option<Second> {
        let plan = Plan { core: None, ..plan.clone() };
        applies(workload, model).then(|| Second { plan, processes: processes.to_vec() })
    }

    fn open(self) -> Result<Session, load::Error> {
        let clocks = slices::clocks(&self.processes)?;
        Session::open(self.plan, clocks)
    }
}

struct Pair<'a> {
    entrant: &'a mut Entrant,
    second: Option<Session>,
    seen: Doubled,
    /// Why it ended early, if it did.
    ended: Option<String>,
}

/// Measures at least one block, in which each server has a slice with one client and a slice with
/// two. Concludes the outcomes of the entrants. Returns the slices, and why the measurement ended
/// early if it did.
pub(super) fn measure(
    entrants: &mut [Entrant],
    seconds: Vec<Option<Second>>,
    window: Duration,
    random: &mut SplitMix64,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<(Doubled, Option<String>)>, load::Error> {
    let mut pairs = Vec::new();
    for (entrant, second) in entrants.iter_mut().zip(seconds) {
        let (mut session, mut ended) = (None, None);
        if let Some(second) = second.filter(|_| entrant.ended().is_none()) {
            entrant.conclude();
            match entrant.in_its_turn(|_| Ok(second.open()))? {
                Ok(mut open) => {
                    // Fills caches, as the first client's warm-up did.
                    entrant.in_its_turn(|_| open.slice(WARM_UP))?;
                    session = Some(open);
                }
                Err(error) => ended = Some(error.to_string()),
            }
        }
        pairs.push(Pair { entrant, second: session, seen: Doubled::default(), ended });
    }
    let taking = |pairs: &[Pair]| pairs.iter().filter(|one| one.second.is_some()).count() as u32;
    let begun = Instant::now();
    while taking(&pairs) > 0 && !interrupted() {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        random.shuffle(&mut order);
        for at in order {
            pairs[at].turn(random.below(2) == 0)?;
        }
        if begun.elapsed() >= window.mul_f64(SHARE) * taking(&pairs) {
            break;
        }
    }
    Ok(pairs.into_iter().map(|pair| (pair.seen, pair.ended)).collect())
}

impl Pair<'_> {
    fn turn(&mut self, double_first: bool) -> Result<(), load::Error> {
        let Some(second) = &mut self.second else { return Ok(()) };
        let slices = self.entrant.single_and_double(second, double_first)?;
        let (single, [one, other]) = slices;
        if let Some(fault) = [&single, &one, &other].into_iter().find(|s| !slices::is_whole(s)) {
            // No further attempt, to save time.
            let how = fault.ended.clone().unwrap_or_else(|| {
                format!("{} requests had wrong or missing replies", fault.errors)
            });
            (self.ended, self.second) = (Some(how), None);
        } else {
            push(&mut self.seen.single, &single);
            push(&mut self.seen.double, &together(&one, &other));
        }
        Ok(())
    }
}

/// Two simultaneous slices of one server. The server's clock was read at the borders of both, and
/// the longer one includes all its work.
fn together(one: &Slice, other: &Slice) -> Slice {
    Slice {
        requests: one.requests + other.requests,
        elapsed_ns: one.elapsed_ns.max(other.elapsed_ns),
        client_cpu_ns: one.client_cpu_ns + other.client_cpu_ns,
        server_cpu_ns: one.server_cpu_ns.max(other.server_cpu_ns),
        ..Slice::default()
    }
}
