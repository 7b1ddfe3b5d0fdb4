//! Who is told of the borders of the measured window.

/// Is told when the measured window begins and when it ends, by the thread that called
/// [`crate::run`], which is the first engine thread.
///
/// Both calls are made outside the client's own CPU account, so what the observer does in them
/// (reading the server's CPU clock, say) is not billed to the client. How far a run has come is
/// another matter, see [`crate::Live`].
pub trait Observer {
    /// The measured window begins now: the counters were just set to zero.
    fn window_started(&mut self) {}
    /// The measured window is over: nothing that happens from now on is counted.
    fn window_ended(&mut self) {}
}

/// The observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
