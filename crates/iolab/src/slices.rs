//! Servers take turns in slices of some milliseconds, and so are told apart on a machine whose
//! speed changes from second to second.
//!
//! All servers are alive at once, each with its own open and warm connections. The client loads one
//! of them for a slice, lets what is on its way come back, reads the CPU clocks at both borders,
//! and goes to the next. A *block* is every server once, in an order drawn anew; a ratio is formed
//! within a block. An *epoch* is a number of blocks with the same processes and connections.
//! Related: duet benchmarking (Bulej et al., ICPE 2020), randomised multiple interleaved trials
//! (Abedi and Brecht, ICPE 2017).
//!
//! A server that uses its core while it is not asked (it polls, or its kernel does) would take it
//! from the others: it is stopped (SIGSTOP) outside of its slices. A block in which a server
//! answered nothing, or wrongly, is discarded whole, and counted. A server that ends is left out of
//! the blocks that follow; the others go on.

pub mod standing;

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use load::{Clocks, Plan, Session, Slice};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use record::SplitMix64;

use crate::statistics::{BlockRatio, log_ratio, median};

/// The shortest slice. Shorter ones are more in the same time, and tell better, down to here: below
/// it the first and the last requests, which find nothing to wait behind, are no longer few.
const SLICE_MIN: Duration = Duration::from_millis(5);

/// The longest: where a round trip takes longer than this, fewer fit.
const SLICE_MAX: Duration = Duration::from_millis(100);

/// Round trips of all connections that a slice holds at least, for the same reason.
const ROUND_TRIPS_MIN: f64 = 2.0;

/// Blocks at the beginning of an epoch that are not used: caches, branch predictors and TCP windows
/// fill.
const WARM_UP_BLOCKS: usize = 3;

/// After it was stopped, a server has so long to fill its caches before its slice begins.
const AFTER_STOP: Duration = Duration::from_millis(1);

/// Silence in which a server is looked at for using its core unasked, and the part of the time from
/// which it does: a loop that sleeps uses some microseconds.
const SILENCE: Duration = Duration::from_millis(10);
const UNASKED_SHARE: f64 = 0.2;

/// Holds processors awake while it exists. A halted virtual processor takes tens of microseconds to
/// wake, and with few connections that is most of a figure. The kernel's documentation:
/// power/pm_qos_interface (/dev/cpu_dma_latency).
#[derive(Debug)]
pub struct Awake {
    _held: File,
}

impl Awake {
    /// Asks the kernel for a wake-up latency of 0. The error says why not; what to do is for the
    /// caller to say.
    pub fn hold() -> Result<Awake, String> {
        let path = "/dev/cpu_dma_latency";
        let write = || {
            let mut file = File::options().write(true).open(path)?;
            file.write_all(&0_i32.to_ne_bytes())?;
            Ok(file)
        };
        write().map(|held| Awake { _held: held }).map_err(|error: std::io::Error| {
            format!("the processors may sleep: {path} cannot be written ({error})")
        })
    }
}

/// A server that takes part in an epoch.
#[derive(Debug)]
pub struct Entrant {
    session: Session,
    /// What may be stopped.
    processes: Vec<Pid>,
    /// It uses its core while nothing is asked.
    restless: bool,
    /// It is stopped outside of its slices.
    stopped: bool,
    /// Why it takes part no more.
    ended: Option<String>,
}

impl Entrant {
    /// Opens the connections of `plan`. `processes`: those of the server, the first one its own;
    /// none: its CPU time is not known. Only one that is `ours` is ever stopped.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open(plan: Plan, processes: &[Pid], ours: bool) -> Result<Entrant, load::Error> {
        let ids: Vec<i32> = processes.iter().map(|process| process.as_raw()).collect();
        let session = Session::open(plan, Clocks::of(&ids)?)?;
        let processes = if ours { processes.to_vec() } else { Vec::new() };
        Ok(Entrant { session, processes, restless: false, stopped: false, ended: None })
    }

    fn signal(&self, signal: Signal) {
        for &process in &self.processes {
            // Fails only where it has ended, which its slice will say.
            let _ = kill(process, signal);
        }
    }

    /// One slice; `None` when the server takes part no more.
    fn slice(&mut self, length: Duration) -> Result<Option<Slice>, load::Error> {
        if self.ended.is_some() {
            return Ok(None);
        }
        if self.stopped {
            self.signal(Signal::SIGCONT);
            self.session.slice(AFTER_STOP)?;
        }
        let slice = self.session.slice(length)?;
        if self.stopped {
            self.signal(Signal::SIGSTOP);
        }
        self.ended.clone_from(&slice.ended);
        Ok(Some(slice))
    }

    /// One that leaves requests unanswered takes part no more: each of its slices would last as
    /// long as the time limit of a request.
    fn look_at(&mut self, slice: &Option<Slice>) {
        if let Some(slice) = slice
            && slice.errors > 0
            && self.ended.is_none()
        {
            self.ended = Some(format!(
                "{} of the requests in its first slices were answered wrongly or not at all; ask \
                 with fewer connections if it serves fewer at once",
                slice.errors
            ));
        }
    }

    /// Stops it, if it uses its core while nothing is asked.
    fn look_whether_it_rests(&mut self) -> Result<(), load::Error> {
        let before = Instant::now();
        let used = self.session.rest(SILENCE)?.server_cpu_ns;
        let share = used.map(|used| used as f64 / before.elapsed().as_nanos() as f64);
        self.restless = share.is_some_and(|share| share > UNASKED_SHARE);
        self.stopped = self.restless && !self.processes.is_empty();
        if self.stopped {
            self.signal(Signal::SIGSTOP);
        }
        Ok(())
    }
}

impl Drop for Entrant {
    fn drop(&mut self) {
        if self.stopped {
            self.signal(Signal::SIGCONT);
        }
    }
}

/// What came of one epoch.
#[derive(Debug, Default)]
pub struct Epoch {
    /// The slices of each block, by entrant; `None` from where on one took part no more.
    pub blocks: Vec<Vec<Option<Slice>>>,
    /// Blocks in which something was not answered.
    pub discarded: u32,
    /// Why an entrant ended, by entrant.
    pub ended: Vec<Option<String>>,
    /// By entrant: it used its core unasked and could not be stopped, so that the others were
    /// measured beside it.
    pub disturbs: Vec<bool>,
}

/// Lets the entrants take turns for `time`, or until `interrupted`.
///
/// # Errors
/// What failed in the client.
pub fn epoch(
    entrants: &mut [Entrant],
    time: Duration,
    random: &mut SplitMix64,
    interrupted: &dyn Fn() -> bool,
) -> Result<Epoch, load::Error> {
    for entrant in entrants.iter_mut() {
        entrant.look_whether_it_rests()?;
    }
    let mut length = SLICE_MIN;
    for _ in 0..WARM_UP_BLOCKS {
        let block = block(entrants, length, random)?;
        length = block.iter().flatten().map(length_for).fold(SLICE_MIN, Duration::max);
        entrants.iter_mut().zip(&block).for_each(|(entrant, slice)| entrant.look_at(slice));
    }
    entrants.iter_mut().for_each(|entrant| entrant.session.forget());
    let (begun, mut epoch) = (Instant::now(), Epoch::default());
    while begun.elapsed() < time && !interrupted() {
        let block = block(entrants, length, random)?;
        match block.iter().flatten().all(is_whole) {
            true => epoch.blocks.push(block),
            false => epoch.discarded += 1,
        }
        if entrants.iter().all(|entrant| entrant.ended.is_some()) {
            break;
        }
    }
    epoch.disturbs = entrants.iter().map(|one| one.restless && !one.stopped).collect();
    epoch.ended = entrants.iter().map(|entrant| entrant.ended.clone()).collect();
    Ok(epoch)
}

/// How long slices must be where one came to this.
fn length_for(slice: &Slice) -> Duration {
    let round_trip_ns = slice.round_trip_ns();
    Duration::from_nanos((ROUND_TRIPS_MIN * round_trip_ns) as u64).clamp(SLICE_MIN, SLICE_MAX)
}

/// Everything that was asked was answered, and something was.
fn is_whole(slice: &Slice) -> bool {
    slice.requests > 0 && slice.errors == 0
}

/// Every entrant once, in random order.
fn block(
    entrants: &mut [Entrant],
    length: Duration,
    random: &mut SplitMix64,
) -> Result<Vec<Option<Slice>>, load::Error> {
    let mut order: Vec<usize> = (0..entrants.len()).collect();
    random.shuffle(&mut order);
    let mut block = vec![None; entrants.len()];
    for at in order {
        block[at] = entrants[at].slice(length)?;
    }
    Ok(block)
}

/// A figure of a slice: what one request costs, or what is done in a second.
type Figure = fn(&Slice) -> Option<f64>;

/// CPU time of the server for each request, in microseconds.
pub fn server_us(slice: &Slice) -> Option<f64> {
    Some(slice.server_cpu_ns? as f64 / 1e3 / slice.requests as f64)
}

/// CPU time of the client for each request, in microseconds.
pub fn client_us(slice: &Slice) -> Option<f64> {
    Some(slice.client_cpu_ns as f64 / 1e3 / slice.requests as f64)
}

/// Requests in a second.
pub fn requests_per_s(slice: &Slice) -> Option<f64> {
    Some(slice.requests as f64 * 1e9 / slice.elapsed_ns as f64)
}

/// The share of the slice in which the server worked.
pub fn server_share(slice: &Slice) -> Option<f64> {
    Some(slice.server_cpu_ns? as f64 / slice.elapsed_ns as f64)
}

/// The share of the slice in which the client worked.
pub fn client_share(slice: &Slice) -> Option<f64> {
    Some(slice.client_cpu_ns as f64 / slice.elapsed_ns as f64)
}

/// The median of a figure of one entrant over all blocks.
pub fn typical(epochs: &[Epoch], entrant: usize, figure: Figure) -> Option<f64> {
    let blocks = epochs.iter().flat_map(|epoch| &epoch.blocks);
    let slices = blocks.filter_map(|block| block[entrant].as_ref());
    median(&slices.filter_map(figure).collect::<Vec<_>>())
}

/// The ratio of a figure of one entrant to that of another. `None`: too few epochs.
pub fn ratio(
    epochs: &[Epoch],
    entrant: usize,
    reference: usize,
    figure: Figure,
) -> Option<BlockRatio> {
    let log = |block: &Vec<Option<Slice>>| {
        let of = |at: usize| block[at].as_ref().and_then(figure);
        log_ratio(of(entrant)?, of(reference)?)
    };
    let logs: Vec<Vec<f64>> =
        epochs.iter().map(|epoch| epoch.blocks.iter().filter_map(log).collect()).collect();
    BlockRatio::of(&logs)
}
