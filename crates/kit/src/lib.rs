//! What every server needs and no model is about: command line, listener, limits, shutdown, timers,
//! counters.
//!
//! A library, not a framework: each model owns its loop and calls these objects. A model's `main`
//! is one call of [`run`]; what is left in its crate is its way of waiting.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "iolab needs Linux: epoll, io_uring and the accounting it shows exist nowhere else."
);

use std::ops::RangeInclusive;
use std::time::Duration;

mod args;
mod describe;
mod files;
mod listener;
mod machine;
mod memory;
mod model;
mod run;
mod slots;
mod socket;
mod stop;
mod sys;
mod timers;
mod tls;
mod turns;
mod usage;
mod worker;

pub use files::Files;
pub use listener::{AcceptError, Accepted, Listener};
pub use memory::give_back;
pub use model::{Flavour, Model, Place, Serves, Values, Workers};
pub use run::run;
pub use slots::{Slot, Slots};
pub use socket::{late, look_at_output, write_output, write_slices};
pub use stop::{Stop, Tracked, WAKE_INTERVAL};
pub use sys::{receive_now, unread};
pub use timers::{Armed, Timers};
pub use turns::{STEPS_PER_TURN_MAX, Turns, bulk_per_round, steps};
pub use worker::Worker;

/// Size of a receive buffer, in bytes: one per thread, shared by all its connections. One read may
/// then take a whole default TCP receive window's worth of small requests; only the part that is
/// filled is ever touched, so the size itself costs nothing.
pub const SCRATCH_BYTES: usize = 64 << 10;

/// Chunks of output that one writev(2) or sendmsg(2) may carry; more wait for the next. A reply is
/// one or two.
pub const SLICES_MAX: usize = 8;

/// Clients that a loop takes from its listener per round: as many as it has served in the round
/// before, within these bounds, so that a burst of newcomers at most doubles the round of those who
/// are here. A fixed number that is small would let a loop with ten thousand connections, whose
/// round takes milliseconds, accept only some hundreds a second; one that is large costs a client
/// that is alone beside a flood many times its own reply.
pub const ACCEPTS_PER_ROUND: RangeInclusive<usize> = 4..=64;

/// How many that are after a round that served `served` connections.
pub fn accepts_per_round(served: usize) -> usize {
    served.clamp(*ACCEPTS_PER_ROUND.start(), *ACCEPTS_PER_ROUND.end())
}

/// How long a listener is left alone when descriptors have run out and none is given back.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long it is left alone when connections hold too much memory: those that must go for it go at
/// once, and what waits at the listener is let in some fifty at a time.
pub const TIGHT_PAUSE: Duration = Duration::from_millis(20);
