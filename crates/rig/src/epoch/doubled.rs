//! Whether more is answered when the client has twice the connections, on two threads: then it was
//! the client that could do no more, and not the server.

use std::time::{Duration, Instant};

use load::{Plan, Session, Slice};
use nix::unistd::Pid;
use record::{Doubled, Model, SplitMix64, Workload};

use crate::slices::{self, Entrant};

use super::turns::push;

/// The part of the time of a server's slices that is spent on this question beside them.
const SHARE: f64 = 0.25;

/// Load of the second client that is not used.
const WARM_UP: Duration = Duration::from_millis(5);

/// Whether it is asked: of a closed loop, which alone shows what a server can do; not of a chat,
/// where twice the members is another load; and of a server that holds so many.
fn applies(workload: &Workload, model: &Model) -> bool {
    let needed = 2 * u64::from(workload.connections) + u64::from(workload.idle_connections);
    let holds = model.connections_max.is_none_or(|most| most >= needed);
    workload.rate_per_s.is_none() && !workload.fan_out && holds
}

/// Connections with load that a server has at once.
pub(super) fn connections(workload: &Workload, model: &Model) -> u32 {
    workload.connections * if applies(workload, model) { 2 } else { 1 }
}

/// What the second client needs.
pub(super) struct Second {
    /// The plan of the first, but for its core: whichever is free.
    plan: Plan,
    processes: Vec<Pid>,
}

impl Second {
    /// `None` where it is not asked.
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

/// One server's part.
struct Pair<'a> {
    entrant: &'a mut Entrant,
    second: Option<Session>,
    seen: Doubled,
    /// Why there is no more of it.
    ended: Option<String>,
}

/// Blocks, one at least, in each of which every server has a slice with its client alone, and one
/// with a second client at once. The outcomes of the entrants are concluded. What is given is empty
/// where it is not asked; with it comes why it ended before its time, if it did.
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
                    // It fills what the first client's warm-up filled for that one.
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
            // Once is enough: the question is not worth the time of the others.
            let how = fault.ended.clone().unwrap_or_else(|| {
                format!("{} requests were answered wrongly or not at all", fault.errors)
            });
            (self.ended, self.second) = (Some(how), None);
        } else {
            push(&mut self.seen.single, &single);
            push(&mut self.seen.double, &together(&one, &other));
        }
        Ok(())
    }
}

/// Two slices of one server at once: the server's clock was read at the borders of both, and the
/// longer one spans its work.
fn together(one: &Slice, other: &Slice) -> Slice {
    Slice {
        requests: one.requests + other.requests,
        elapsed_ns: one.elapsed_ns.max(other.elapsed_ns),
        client_cpu_ns: one.client_cpu_ns + other.client_cpu_ns,
        server_cpu_ns: one.server_cpu_ns.max(other.server_cpu_ns),
        ..Slice::default()
    }
}
