//! The thread that accepts.

use std::io;
use std::time::Instant;

use kit::{Tracked, Worker};

/// The right to accept, on one thread. It is tracked, because it may be blocked in accept(2) when
/// the server stops. When it is dropped, clients are refused.
#[derive(Debug)]
pub struct Accepting<'w> {
    worker: &'w Worker,
    tracked: Tracked,
}

impl<'w> Accepting<'w> {
    /// Begins to accept, on the calling thread.
    pub fn new(worker: &'w Worker) -> Accepting<'w> {
        Accepting { worker, tracked: worker.stop.track(None) }
    }

    /// Waits until there is memory for another connection. Then says whether to call accept(2)
    /// again. While the server stops it does not block: it returns the clients that were in the
    /// accept queue by then, and EAGAIN after the last of them. False when the time to drain is
    /// over.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn goes_on(&self) -> io::Result<bool> {
        self.worker.wait_for_memory();
        if self.worker.stop.requested() {
            self.tracked.told();
            self.worker.listener.set_nonblocking()?;
        }
        Ok(!self.worker.stop.is_over(Instant::now()))
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        self.worker.listener.shutdown();
    }
}
