//! A client's view of a server executable: find it, start it, talk to it, watch it, stop it.
//!
//! What the black-box suite in `tests/` stands on. It knows a server by its contract alone (flags,
//! first and last line, sockets) and by what the kernel says of its process, never by its code: a
//! client built from the server's own codecs would agree with its bugs. Helpers panic with what was
//! expected and what came, at the line of the test that asked.
//!
//! Man pages: proc(5), proc_pid_stat(5), signal(7), tcp(7).

mod catalog;
mod client;
pub mod http2;
mod process;
mod server;
mod texts;
mod websocket;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

pub use catalog::{Model, Variant, catalog, describe};
pub use client::{Client, Head, Reply, Session, get, pattern, request};
pub use process::Process;
pub use server::{Ended, NotOffered, Server, run_to_end};
pub use texts::{root, texts};
pub use websocket::WebSocket;
pub use witness::websocket::{Frame, Opcode, client_frame};

/// After so long a wait has failed. A guard against hanging and no measurement: every wait in the
/// suite ends by its own condition, in milliseconds on a machine with nothing else to do, and not
/// within this time only where something is stuck.
pub fn guard() -> Duration {
    Duration::from_secs(GUARD_S.load(Relaxed))
}

/// Makes [`guard`] shorter or longer, for all threads.
pub fn set_guard(secs: u64) {
    GUARD_S.store(secs, Relaxed);
}

static GUARD_S: AtomicU64 = AtomicU64::new(60);

/// From now on, a server whose case fails does not say on stderr what it has said.
pub fn be_quiet() {
    IS_QUIET.store(true, Relaxed);
}

static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Time between two looks at a condition that nothing announces.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Looks at `condition` until it holds.
///
/// # Panics
/// When it does not within [`guard`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < guard(), "still not true after {:?}: {what}", guard());
        thread::sleep(POLL_INTERVAL);
    }
}
