//! The counters of a worker, and how its connections ended.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The peer closed, or asked the server to close.
    Completed,
    /// The server closed after a complete reply: it was draining, or the limit of requests per
    /// connection was reached.
    Retired,
    /// No request came within the idle timeout.
    IdleTimeout,
    /// A request was begun and not finished in time (408).
    RequestTimeout,
    /// The peer did not receive its reply in time.
    WriteTimeout,
    /// The peer violated the protocol, and was told so.
    Rejected,
    /// The peer sent FIN in the middle of a request.
    Truncated,
    /// The TLS handshake failed: not TLS, no common version or cipher, or not in time.
    HandshakeFailed,
    /// The socket failed, or the model closed the connection before its end.
    Reset,
    /// A file could not be read to the length that the head had announced.
    FileFailed,
    /// Still busy at the end of the drain timeout.
    DrainTimeout,
    /// The connection needed a thread and none was left, or memory was exhausted and it held more
    /// than others.
    Exhausted,
}

const OUTCOMES: usize = Outcome::Exhausted as usize + 1;

/// One worker's counters. The atomics are relaxed, because they are only displayed. The alignment
/// keeps the counters of two workers on different cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    closed: [AtomicU64; OUTCOMES],
    handshakes_full: AtomicU64,
    handshakes_resumed: AtomicU64,
    requests: AtomicU64,
    chat_members_dropped: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    signal_queue_overflows: AtomicU64,
}

/// The sum of the workers' counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Connections open now.
    pub connections_open: u64,
    /// Connections accepted and served.
    pub connections_accepted: u64,
    /// Connections accepted and closed at once, because the model cannot hold more.
    pub connections_refused: u64,
    /// Ended connections by outcome.
    pub connections_ended: Ended,
    /// TLS handshakes completed in full. Failed ones are in `connections_ended`.
    pub handshakes_full: u64,
    /// TLS handshakes that resumed an earlier session (RFC 8446 section 2.2).
    pub handshakes_resumed: u64,
    /// Requests answered. For echo: reads answered. For WebSocket: messages received.
    pub requests: u64,
    /// Members that were removed from the chat because they were too slow.
    pub chat_members_dropped: u64,
    /// Bytes read from sockets.
    pub bytes_received: u64,
    /// Bytes written to sockets.
    pub bytes_sent: u64,
    /// Times that signals of sockets were lost (RLIMIT_SIGPENDING), so that all sockets were looked
    /// at. 0 where sockets send no signals.
    pub signal_queue_overflows: u64,
}

/// Ended connections by [`Outcome`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each field is the Outcome of its name")]
pub struct Ended {
    pub completed: u64,
    pub retired: u64,
    pub idle_timeout: u64,
    pub request_timeout: u64,
    pub write_timeout: u64,
    pub rejected: u64,
    pub truncated: u64,
    pub handshake_failed: u64,
    pub reset: u64,
    pub file_failed: u64,
    pub drain_timeout: u64,
    pub exhausted: u64,
}

impl Counters {
    /// A connection was accepted and closed at once, because the model cannot hold more.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// The process that served the connections of these counters is gone: those that it had open
    /// have ended with it.
    pub fn abandoned(&self) {
        let ended: u64 = self.closed.iter().map(|count| count.load(Relaxed)).sum();
        let open = self.accepted.load(Relaxed).saturating_sub(ended);
        self.closed[Outcome::Reset as usize].fetch_add(open, Relaxed);
    }

    /// Signals of sockets were lost, because the queue was full.
    pub fn signal_queue_overflowed(&self) {
        self.signal_queue_overflows.fetch_add(1, Relaxed);
    }

    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(crate) fn closed(&self, outcome: Outcome) {
        self.closed[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn handshake(&self, resumed: bool) {
        let count = if resumed { &self.handshakes_resumed } else { &self.handshakes_full };
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn chat_dropped(&self, members: u64) {
        self.chat_members_dropped.fetch_add(members, Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Relaxed);
    }
}

impl Totals {
    /// The sum of the counters of several workers.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> Totals {
        let mut sum = Totals::default();
        for worker in workers {
            sum.add(worker);
        }
        sum
    }

    fn add(&mut self, worker: &Counters) {
        let closed = |outcome: Outcome| worker.closed[outcome as usize].load(Relaxed);
        // Ended are read before accepted, so that a connection that ends meanwhile is not counted
        // as open.
        let ended_before: u64 = worker.closed.iter().map(|count| count.load(Relaxed)).sum();
        let accepted = worker.accepted.load(Relaxed);
        self.connections_open += accepted.saturating_sub(ended_before);
        self.connections_accepted += accepted;
        self.connections_refused += worker.refused.load(Relaxed);
        self.connections_ended.completed += closed(Outcome::Completed);
        self.connections_ended.retired += closed(Outcome::Retired);
        self.connections_ended.idle_timeout += closed(Outcome::IdleTimeout);
        self.connections_ended.request_timeout += closed(Outcome::RequestTimeout);
        self.connections_ended.write_timeout += closed(Outcome::WriteTimeout);
        self.connections_ended.rejected += closed(Outcome::Rejected);
        self.connections_ended.truncated += closed(Outcome::Truncated);
        self.connections_ended.handshake_failed += closed(Outcome::HandshakeFailed);
        self.connections_ended.reset += closed(Outcome::Reset);
        self.connections_ended.file_failed += closed(Outcome::FileFailed);
        self.connections_ended.drain_timeout += closed(Outcome::DrainTimeout);
        self.connections_ended.exhausted += closed(Outcome::Exhausted);
        self.handshakes_full += worker.handshakes_full.load(Relaxed);
        self.handshakes_resumed += worker.handshakes_resumed.load(Relaxed);
        self.requests += worker.requests.load(Relaxed);
        self.chat_members_dropped += worker.chat_members_dropped.load(Relaxed);
        self.bytes_received += worker.bytes_received.load(Relaxed);
        self.bytes_sent += worker.bytes_sent.load(Relaxed);
        self.signal_queue_overflows += worker.signal_queue_overflows.load(Relaxed);
    }
}
