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
//! answered nothing, or wrongly, is discarded whole, and counted. A server that ends, hangs, or
//! answers wrongly again and again is left out of the blocks that follow; the others go on.

mod entrant;

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use load::Slice;
use record::SplitMix64;

pub use entrant::{Entrant, Spent};
pub(crate) use entrant::{Processes, SILENCE, UNASKED_SHARE, clocks};

/// Blocks at the beginning of an epoch that are not used: caches, branch predictors and TCP windows
/// fill.
const WARM_UP_BLOCKS: usize = 3;

/// The same for an open loop, whose slices are long.
const OPEN_WARM_UP_BLOCKS: usize = 1;

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

/// Lets the entrants take turns for `time`, or until `interrupted`, after their warm-up.
///
/// # Errors
/// What failed in the client.
pub fn epoch(
    entrants: &mut [Entrant],
    time: Duration,
    random: &mut SplitMix64,
    interrupted: &dyn Fn() -> bool,
) -> Result<Epoch, load::Error> {
    warm_up(entrants, random, interrupted)?;
    let each = time / entrants.len().max(1) as u32;
    take_turns(entrants, each, random, interrupted)
}

/// Some blocks that are forgotten: caches, branch predictors and TCP windows fill. They say how
/// long the slices of each must be: one whose round trips take long has longer ones, and the others
/// do not have fewer for that.
///
/// # Errors
/// What failed in the client.
pub fn warm_up(
    entrants: &mut [Entrant],
    random: &mut SplitMix64,
    interrupted: &dyn Fn() -> bool,
) -> Result<(), load::Error> {
    for entrant in entrants.iter_mut() {
        entrant.look_whether_it_rests()?;
    }
    let open_loop = entrants.iter().any(Entrant::is_open_loop);
    for _ in 0..if open_loop { OPEN_WARM_UP_BLOCKS } else { WARM_UP_BLOCKS } {
        let Some(block) = block(entrants, random, interrupted)? else { break };
        for (entrant, slice) in entrants.iter_mut().zip(&block) {
            slice.iter().for_each(|slice| entrant.look_at_warm_up(slice));
        }
    }
    entrants.iter_mut().for_each(Entrant::forget);
    Ok(())
}

/// Lets the entrants take turns until each was given `each` on average (those with longer slices
/// have more), or until `interrupted`. Where one ends, its time is not the others': nor is the time
/// of the block in which it ended, because one that hangs can take longer than all others together.
///
/// # Errors
/// What failed in the client.
pub fn take_turns(
    entrants: &mut [Entrant],
    each: Duration,
    random: &mut SplitMix64,
    interrupted: &dyn Fn() -> bool,
) -> Result<Epoch, load::Error> {
    let (begun, mut lost, mut epoch) = (Instant::now(), Duration::ZERO, Epoch::default());
    let alive = |entrants: &[Entrant]| entrants.iter().filter(|one| one.ended().is_none()).count();
    while begun.elapsed().saturating_sub(lost) < each * alive(entrants) as u32 {
        let (block_begun, alive_before) = (Instant::now(), alive(entrants));
        let Some(block) = block(entrants, random, interrupted)? else { break };
        let with_slices = entrants.iter_mut().zip(&block);
        with_slices.for_each(|(one, slice)| slice.iter().for_each(|slice| one.look_at(slice)));
        match block.iter().flatten().all(is_whole) {
            true => epoch.blocks.push(block),
            false => epoch.discarded += 1,
        }
        if alive(entrants) < alive_before {
            lost += block_begun.elapsed();
        }
    }
    epoch.disturbs = entrants.iter().map(Entrant::disturbs).collect();
    epoch.ended = entrants.iter().map(|one| one.ended().map(str::to_owned)).collect();
    Ok(epoch)
}

/// Everything that was asked was answered, and something was.
pub(crate) fn is_whole(slice: &Slice) -> bool {
    slice.requests > 0 && slice.errors == 0
}

/// Every entrant once, in random order; `None` if it was interrupted.
fn block(
    entrants: &mut [Entrant],
    random: &mut SplitMix64,
    interrupted: &dyn Fn() -> bool,
) -> Result<Option<Vec<Option<Slice>>>, load::Error> {
    let mut order: Vec<usize> = (0..entrants.len()).collect();
    random.shuffle(&mut order);
    let mut block = vec![None; entrants.len()];
    for at in order {
        if interrupted() {
            return Ok(None);
        }
        block[at] = entrants[at].slice()?;
    }
    Ok(Some(block))
}

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
