//! Bytes handed to the kernel, and how many of them the peer has acknowledged. A peer makes
//! progress when it acknowledges. Room in the send buffer shows that too late: the kernel reports
//! room when a third of the buffer is free, which may be a megabyte, and minutes for a slow client
//! that reads.

use std::time::{Duration, Instant};

/// Checks per write timeout. Each is a system call. The last acknowledgement may be older by the
/// time between two checks.
pub(crate) const CHECKS: u32 = 4;

#[derive(Debug)]
pub(crate) struct Acknowledged {
    sent: u64,
    acknowledged: u64,
    /// Whether bytes were unacknowledged at the last check, and at the one before it.
    pending: [bool; 2],
    /// When a check last saw progress, or the wait for it began.
    last_progress: Instant,
}

impl Acknowledged {
    pub(crate) fn new(now: Instant) -> Acknowledged {
        Acknowledged { sent: 0, acknowledged: 0, pending: [false; 2], last_progress: now }
    }

    pub(crate) fn sent(&mut self, n: usize) {
        self.sent += n as u64;
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        self.last_progress = now;
    }

    /// The kernel holds `n` bytes that the peer has not acknowledged.
    pub(crate) fn check(&mut self, n: usize, now: Instant) {
        self.pending = [n > 0, self.pending[0]];
        let acknowledged = self.sent.saturating_sub(n as u64);
        // The kernel counts our FIN too, so the number may seem to fall by one.
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.last_progress = now;
        }
    }

    /// When the peer is given up if it acknowledges nothing more.
    pub(crate) fn ends_at(&self, timeout: Duration) -> Instant {
        self.last_progress + timeout
    }

    pub(crate) fn is_advancing(&self, timeout: Duration, now: Instant) -> bool {
        self.pending.contains(&true) && self.ends_at(timeout) > now
    }
}
