//! Notification of the beginning and the end of the window.

/// Is called when the window begins and when it ends, on the thread that called [`crate::run`] (the
/// first engine thread).
///
/// Both calls are outside the client's CPU time, so the observer's work (such as reading the
/// server's CPU clock) does not count. For the progress of a run see [`crate::Live`].
pub trait Observer {
    /// The window begins now: the counters were just set to zero.
    fn window_started(&mut self) {}
    /// The window is over: what happens later is not counted.
    fn window_ended(&mut self) {}
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
