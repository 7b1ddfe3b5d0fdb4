//! What became of the bytes that were handed to the kernel: progress of a peer is what it
//! acknowledges. That a send buffer has room again says it too late: the kernel reports room when a
//! third of the buffer is free, which is a megabyte, and minutes for an honest slow reader.

use std::time::{Duration, Instant};

/// Looks at a peer that owes a read, in one write timeout. Each is a system call, and the last
/// acknowledgement may be older by the time between two.
pub(crate) const LOOKS: u32 = 4;

/// As far as the driver has told.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Bytes handed to the kernel.
    sent: u64,
    /// Those of them that are acknowledged.
    acknowledged: u64,
    /// There was something to acknowledge at the last look, or at the one before it.
    under_way: [bool; 2],
    /// The last look that saw progress, or the beginning of the wait for it.
    since: Instant,
}

impl Delivery {
    pub(crate) fn new(now: Instant) -> Delivery {
        Delivery { sent: 0, acknowledged: 0, under_way: [false; 2], since: now }
    }

    pub(crate) fn sent(&mut self, n: usize) {
        self.sent += n as u64;
    }

    /// The wait for progress begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// A look: `n` bytes are with the kernel that the peer has not acknowledged.
    pub(crate) fn look(&mut self, n: usize, now: Instant) {
        self.under_way = [n > 0, self.under_way[0]];
        let acknowledged = self.sent.saturating_sub(n as u64);
        // The kernel counts our FIN too, so it may seem to fall by one.
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.since = now;
        }
    }

    /// When a peer that goes on acknowledging nothing is given up.
    pub(crate) fn ends_at(&self, timeout: Duration) -> Instant {
        self.since + timeout
    }

    /// The peer is still taking what it was sent.
    pub(crate) fn goes_on(&self, timeout: Duration, now: Instant) -> bool {
        self.under_way.contains(&true) && self.ends_at(timeout) > now
    }
}
