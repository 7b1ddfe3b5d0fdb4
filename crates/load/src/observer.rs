//! Who may look on while a run is going, and when.

use std::time::Duration;

/// Looks on while a run is going. The engine calls it on the thread that called [`crate::run`].
///
/// The two border calls are made outside the client's own CPU account, so what the observer does in
/// them (reading the server's CPU clock, say) is not billed to the client.
pub trait Observer {
    /// The measured window begins now: the counters were just set to zero.
    fn window_started(&mut self) {}
    /// The measured window is over: nothing that happens from now on is counted.
    fn window_ended(&mut self) {}
    /// At most once a second, between two batches of events. Drawing is allowed, but it is billed
    /// to the client's CPU time when it happens inside the window.
    fn tick(&mut self, _progress: &Progress) {}
}

/// The observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Whether the measured window has begun; before it the run is warming up.
    pub measuring: bool,
    /// Time since the warm-up began or, when `measuring`, since the window began.
    pub elapsed: Duration,
    /// Requests completed since then, all threads (each thread reports once a second).
    pub requests: u64,
    /// Errors since then, all threads.
    pub errors: u64,
}
