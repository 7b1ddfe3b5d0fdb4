//! Servers that take turns in slices of some milliseconds ([`rig::slices`]), in epochs with fresh
//! processes each.

use std::time::Duration;

use load::Slice;
use record::{SplitMix64, Workload};
use rig::hold::{self, Holder, Opening};
use rig::server::Server;
use rig::slices::{self, Awake, Entrant, Epoch};
use rig::{engine, exchange, trial};
use verdict::statistics::{BlockRatio, log_ratio, median};

use crate::{Lab, Reason};

/// A server that takes turns, with idle connections of its own.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// Its label.
    pub label: &'static str,
    /// Idle connections, open all the time.
    pub idle: u32,
}

impl Seat {
    /// Without idle connections.
    pub const fn of(label: &'static str) -> Seat {
        Seat { label, idle: 0 }
    }

    /// With idle connections.
    pub const fn with_idle(label: &'static str, idle: u32) -> Seat {
        Seat { label, idle }
    }
}

/// A figure of a slice: the cost of a request, or the requests per second.
pub type SliceFigure = fn(&Slice) -> Option<f64>;

/// The epochs of each workload.
pub type Seen = Vec<Vec<Epoch>>;

/// How long is measured.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Epochs, each with fresh processes.
    pub epochs: usize,
    /// Time of each server in an epoch, for each workload.
    pub each: Duration,
}

/// Lets the servers of these seats take turns under one workload after the other. The workloads
/// must have the same protocol.
///
/// # Errors
/// A server that does not start, answers wrongly or ends is not here.
pub fn take(
    lab: &Lab,
    seats: &[Seat],
    workloads: &[Workload],
    length: Length,
) -> Result<Seen, Reason> {
    let mut random = SplitMix64::new(lab.seed());
    let mut seen: Seen = workloads.iter().map(|_| Vec::new()).collect();
    for _ in 0..length.epochs {
        let crew = crew(lab, seats, workloads)?;
        for (workload, epochs) in workloads.iter().zip(&mut seen) {
            epochs.push(turns(lab, &crew, workload, lab.time(length.each), &mut random)?);
        }
        crew.into_iter().for_each(Member::stop);
    }
    Ok(seen)
}

/// A running server with its idle connections.
struct Member {
    label: &'static str,
    server: Server,
    holder: Option<Holder>,
}

impl Member {
    /// The server closes first, so that no client port stays in TIME_WAIT.
    fn stop(mut self) {
        self.holder.iter_mut().for_each(Holder::leave);
        self.server.stop();
    }
}

/// Starts the servers and opens their idle connections.
fn crew(lab: &Lab, seats: &[Seat], workloads: &[Workload]) -> Result<Vec<Member>, Reason> {
    let first = workloads.first().ok_or_else(|| Reason::Fault("no workload".into()))?;
    let most = workloads.iter().map(|workload| workload.connections).max().unwrap_or(0);
    let mut members = Vec::new();
    for seat in seats {
        lab.go_on()?;
        let found = lab.found(seat.label)?;
        let asked = Workload { connections: most, idle_connections: seat.idle, ..first.clone() };
        let arguments = trial::server_arguments(&asked, &found.model, lab.folder(), 0);
        let cores = &lab.settings().server_cores;
        let not_here = |why: String| Reason::NotHere(format!("{}: {why}", seat.label));
        let server = Server::start(&found.executable, &arguments, cores).map_err(not_here)?;
        drop(exchange::verify(server.address, first).map_err(not_here)?);
        members.push(Member { label: seat.label, server, holder: None });
    }
    let holder = hold::executable().map_err(Reason::Skip)?;
    // One after the other: all servers have one core, and a server that waits for it while others
    // fill their tables would count as one that does not answer.
    for (member, seat) in members.iter_mut().zip(seats).filter(|(_, seat)| seat.idle > 0) {
        lab.go_on()?;
        let (address, connections) = (member.server.address, seat.idle);
        let opening = Opening { address, connections, workload: first.clone() };
        let held = Holder::open(&holder, &opening);
        let not_here = |why| Reason::NotHere(format!("{}: {why}", member.label));
        member.holder = Some(held.map_err(not_here)?);
    }
    Ok(members)
}

fn turns(
    lab: &Lab,
    crew: &[Member],
    workload: &Workload,
    each: Duration,
    random: &mut SplitMix64,
) -> Result<Epoch, Reason> {
    // Without the right to do this, the processors sleep for all servers alike.
    let _held = if workload.processors_sleep { None } else { Awake::hold().ok() };
    let mut entrants = Vec::new();
    for member in crew {
        let plan = engine::plan(member.server.address, workload, lab.settings())?;
        let entrant = Entrant::open(plan, &member.server.processes(), true);
        let not_here = |why| Reason::NotHere(format!("{}: {why}", member.label));
        entrants.push(entrant.map_err(not_here)?);
    }
    let time = each * entrants.len() as u32;
    let epoch = slices::epoch(&mut entrants, time, random, &lab.interrupted())?;
    lab.go_on()?;
    let ended = crew.iter().zip(&epoch.ended).find_map(|(one, why)| Some((one, why.as_ref()?)));
    match ended {
        Some((member, why)) => Err(Reason::NotHere(format!("{}: {why}", member.label))),
        None => Ok(epoch),
    }
}

/// The median of a figure of one server over all slices.
pub fn typical(epochs: &[Epoch], seat: usize, figure: SliceFigure) -> Option<f64> {
    let blocks = epochs.iter().flat_map(|epoch| &epoch.blocks);
    let slices = blocks.filter_map(|block| block[seat].as_ref());
    median(&slices.filter_map(figure).collect::<Vec<_>>())
}

/// The ratio of a figure of one server to that of another, formed within the blocks. `None`: there
/// are too few epochs.
pub fn ratio(
    epochs: &[Epoch],
    seat: usize,
    reference: usize,
    figure: SliceFigure,
) -> Option<BlockRatio> {
    let log = |block: &Vec<Option<Slice>>| {
        let of = |at: usize| block[at].as_ref().and_then(figure);
        log_ratio(of(seat)?, of(reference)?)
    };
    let logs: Vec<Vec<f64>> =
        epochs.iter().map(|epoch| epoch.blocks.iter().filter_map(log).collect()).collect();
    BlockRatio::of(&logs)
}

/// As [`ratio`]; without one there is no law to decide.
///
/// # Errors
/// If there are too few epochs with whole blocks.
pub fn decided(
    epochs: &[Epoch],
    seat: usize,
    reference: usize,
    figure: SliceFigure,
) -> Result<BlockRatio, Reason> {
    ratio(epochs, seat, reference, figure).ok_or_else(|| {
        Reason::Fault("too few blocks in which every server answered everything".to_owned())
    })
}

/// The 90 % interval.
pub fn within(ratio: &BlockRatio) -> Option<(f64, f64)> {
    Some((ratio.inner.low, ratio.inner.high))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two servers, the second of which costs twice as much.
    fn epochs() -> Vec<Epoch> {
        let slice = |cost: u64| Slice {
            requests: 100,
            elapsed_ns: 1_000_000,
            server_cpu_ns: Some(cost * 100_000),
            ..Slice::default()
        };
        let block = |cost| vec![Some(slice(cost)), Some(slice(2 * cost))];
        let epoch = |cost| Epoch { blocks: vec![block(cost), block(cost + 1)], ..Epoch::default() };
        (5..8).map(epoch).collect()
    }

    #[test]
    fn a_ratio_is_formed_within_the_blocks() {
        let ratio = decided(&epochs(), 1, 0, slices::server_us).unwrap();
        assert!((ratio.ratio - 2.0).abs() < 1e-9 && within(&ratio) == Some((2.0, 2.0)));
        assert_eq!(typical(&epochs(), 0, slices::server_us), Some(6.5));
        assert!(decided(&epochs()[..2], 1, 0, slices::server_us).is_err());
    }
}
