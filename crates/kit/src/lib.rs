//! What every server needs and no model is about: command line, listener, limits, shutdown,
//! timers, counters.
//!
//! A library, not a framework: each model owns its loop and calls these objects. A model's `main`
//! is one call of [`run`]; what is left in its crate is its way of waiting.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "iolab needs Linux: epoll, io_uring and the accounting it shows exist nowhere else."
);

use std::ops::RangeInclusive;

mod accept_pause;
mod args;
mod describe;
mod files;
mod listener;
mod machine;
mod memory;
mod model;
mod processes;
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

pub use accept_pause::{AcceptPause, EXHAUSTED_PAUSE, TIGHT_PAUSE};
pub use files::Files;
pub use listener::{AcceptError, Accepted, Listener};
pub use memory::give_back;
pub use model::{CopiedBy, Flavour, Model, Place, Serves, Values, Workers};
pub use processes::{Processes, Role};
pub use run::{run, run_processes};
pub use slots::{Slot, Slots};
pub use socket::{late, look_at_output, write_output, write_slices};
pub use stop::{Stop, Tracked, WAKE_INTERVAL};
pub use sys::{receive_now, unread};
pub use timers::{Armed, Timers};
pub use turns::{BYTES_PER_TURN, Turns, bulk_per_iteration};
pub use worker::Worker;

/// Size of a receive buffer, in bytes: one per thread, shared by all its connections. One read can
/// then take as many small requests as a default TCP receive window holds. Only pages that are
/// filled take memory.
pub const SCRATCH_BYTES: usize = 64 << 10;

/// Most chunks of output in one writev(2) or sendmsg(2); the rest follows in the next. A reply is
/// one chunk or two; 100 KiB over HTTP/2 are seven frames of two chunks each.
pub const SLICES_MAX: usize = 16;

/// How many clients a loop accepts in one iteration: as many as it served in the iteration before,
/// within these bounds. So a burst of new connections at most doubles the length of an iteration.
/// With a small fixed number a loop with ten thousand connections, whose iterations take
/// milliseconds, would accept some hundreds a second. With a large one a single client would wait
/// much longer for its reply while many others connect.
pub const ACCEPTS_PER_ITERATION: RangeInclusive<usize> = 4..=64;

/// That number, after an iteration that served `served` connections.
pub fn accepts_per_iteration(served: usize) -> usize {
    served.clamp(*ACCEPTS_PER_ITERATION.start(), *ACCEPTS_PER_ITERATION.end())
}
