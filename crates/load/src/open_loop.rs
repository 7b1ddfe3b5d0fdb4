//! The open loop: requests that are due, connections that are free, and what the times say about
//! server and client.
//!
//! Due times come from the clock alone. The oldest due request is sent on the connection that was
//! free longest. While none is free it waits, and its latency counts from its due time. No sample
//! is made up: a sample is a request, and an unanswered request is a sample with its age, the least
//! that it took.
//!
//! Two figures show whether the client was late itself. *Send lag*: from the moment when a request
//! was due and a connection was free, to its send(2). *Busy share*: the part of the window in which
//! the client neither slept nor waited for the next due time in a spin. Each can make a run
//! invalid, see [`invalid`]. If the server is too slow, requests wait for a free connection: that
//! is a result.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use record::Arrivals;

use crate::Error;
use crate::connection::Pending;
use crate::histogram::Latencies;
use crate::schedule::DueTimes;

/// The warm-up has its own due times, so that those of the window do not depend on its length.
const WARM_UP_SALT: u64 = 0x57A7_0000_0000_0000;

/// The p99 of the send lag that is always accepted. On a busy machine a thread waits for a core for
/// some tens of milliseconds, which one request in a hundred meets, and the server waits in the
/// same way. The lag is shown beside the percentiles. A client with a larger lag does not keep up.
const LAG_P99_MAX_NS: u64 = 50_000_000;
/// The median of the send lag that is always accepted: one time slice of another thread. Half of
/// all requests have a larger lag only if the client has a queue, which then grows during a window.
const LAG_P50_MAX_NS: u64 = 5_000_000;
/// Above these limits the lag must be a small part of the percentile: a tenth. If the server's p99
/// is a second, a lag of 5 ms does not matter.
const LAG_SHARE_MAX: f64 = 0.1;
/// A client that is busy for a larger part of the window has a queue itself: at 95 % the mean wait
/// is nearly ten times the service time (Pollaczek and Khinchine, constant service).
const BUSY_SHARE_MAX: f64 = 0.95;

/// Why the client was too late for the figures to be the server's; `None` if it was not.
pub(crate) fn invalid(counts: &Counts, busy_share: f64) -> Option<String> {
    let (lag, latency) = (&counts.send_lag, &counts.latency);
    for (name, quantile, max_ns) in [("p99", 0.99, LAG_P99_MAX_NS), ("p50", 0.5, LAG_P50_MAX_NS)] {
        let (lag_ns, all_ns) = (lag.quantile_ns(quantile), latency.quantile_ns(quantile));
        if lag_ns > max_ns && lag_ns as f64 > LAG_SHARE_MAX * all_ns as f64 {
            let (lag_us, all_us) = (lag_ns as f64 / 1e3, all_ns as f64 / 1e3);
            return Some(format!(
                "the client fell behind: the {name} of its own send lag is {lag_us:.0} us of a \
                 {name} latency of {all_us:.0} us (lower the rate, give it a core of its own or \
                 more threads)"
            ));
        }
    }
    (busy_share > BUSY_SHARE_MAX).then(|| {
        format!(
            "the client was the limit: it worked for {:.0} % of the window and had no time to \
             wait for replies (lower the rate, give it a core of its own or more threads)",
            busy_share * 100.0
        )
    })
}

#[derive(Debug)]
pub(crate) struct Counts {
    /// Requests that were due in the window.
    pub(crate) due: u64,
    /// Those that were sent in it.
    pub(crate) sent: u64,
    /// Those that were never answered.
    pub(crate) unanswered: u64,
    /// Those that stops of the client delayed.
    pub(crate) delayed: u64,
    /// From due to answered, or to the end of the run.
    pub(crate) latency: Latencies,
    /// From due and free to sent.
    pub(crate) send_lag: Latencies,
    /// From sent to answered.
    pub(crate) from_send: Latencies,
}

impl Counts {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Counts {
            due: 0,
            sent: 0,
            unanswered: 0,
            delayed: 0,
            latency: Latencies::new()?,
            send_lag: Latencies::new()?,
            from_send: Latencies::new()?,
        })
    }

    pub(crate) fn merge(&mut self, other: &Counts) -> Result<(), Error> {
        self.due += other.due;
        self.sent += other.sent;
        self.unanswered += other.unanswered;
        self.delayed += other.delayed;
        self.latency.merge(&other.latency)?;
        self.send_lag.merge(&other.send_lag)?;
        self.from_send.merge(&other.from_send)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ready {
    pub(crate) due_ns: u64,
    /// Since when it waits: since it was due, or since its connection ended.
    pub(crate) since_ns: u64,
}

#[derive(Debug)]
pub(crate) struct OpenLoop {
    arrivals: Arrivals,
    rate_per_s: f64,
    seed: u64,
    thread: (u32, u32),
    times: DueTimes,
    /// The start of the present due times on the engine's clock.
    origin_ns: u64,
    /// No request is due from here on.
    end_ns: u64,
    /// Requests that can still become due.
    left: u64,
    /// The next due time; `u64::MAX` if there is none.
    next_ns: u64,
    /// Requests whose connection ended without an error.
    returned: BinaryHeap<Reverse<Ready>>,
    /// Due times of requests that were lost by an error.
    lost_due_ns: Vec<u64>,
    /// Slots that can take a request; the one that was free longest is first.
    free: VecDeque<u32>,
    /// Since when there is one.
    free_since_ns: u64,
    /// Requests due from here on are counted: those of the window, not of the warm-up.
    counted_from_ns: u64,
    open: bool,
    windows: u64,
    /// The client was stopped: requests due between these times are late because of it, unless all
    /// waiting ones are sent earlier.
    delayed_ns: Option<(u64, u64)>,
    /// Replies per request, each counted as a request.
    each: u64,
    counts: Counts,
}

impl OpenLoop {
    pub(crate) fn new(
        arrivals: Arrivals,
        rate_per_s: f64,
        seed: u64,
        thread: (u32, u32),
        connections: u32,
    ) -> Result<Self, Error> {
        Ok(OpenLoop {
            arrivals,
            rate_per_s,
            seed,
            thread,
            times: DueTimes::new(arrivals, rate_per_s, seed, thread),
            origin_ns: 0,
            end_ns: 0,
            left: 0,
            next_ns: u64::MAX,
            returned: BinaryHeap::new(),
            lost_due_ns: Vec::new(),
            free: VecDeque::with_capacity(connections as usize),
            free_since_ns: 0,
            counted_from_ns: u64::MAX,
            open: false,
            windows: 0,
            delayed_ns: None,
            each: 1,
            counts: Counts::new()?,
        })
    }

    /// Each request has `each` replies: a message that is delivered so often.
    pub(crate) fn counting(self, each: u32) -> Self {
        OpenLoop { each: u64::from(each), ..self }
    }

    /// Begins load that is not counted. Requests that it leaves unsent are dropped when the window
    /// begins.
    pub(crate) fn warm_up(&mut self, now_ns: u64) {
        self.begin(self.seed ^ WARM_UP_SALT, now_ns, u64::MAX, u64::MAX);
    }

    /// Begins a window: until `end_ns`, or until `requests` were due. Each window has its own due
    /// times, the same for every server.
    pub(crate) fn start_window(&mut self, now_ns: u64, end_ns: u64, requests: u64) {
        self.counted_from_ns = now_ns;
        self.open = true;
        self.begin(self.seed.wrapping_add(self.windows), now_ns, end_ns, requests);
        self.windows += 1;
    }

    fn begin(&mut self, seed: u64, now_ns: u64, end_ns: u64, requests: u64) {
        self.times = DueTimes::new(self.arrivals, self.rate_per_s, seed, self.thread);
        self.origin_ns = now_ns;
        self.end_ns = end_ns;
        self.left = requests;
        self.returned.clear();
        self.advance();
    }

    /// Drops the counts so far, which were a warm-up.
    pub(crate) fn forget(&mut self) -> Result<(), Error> {
        self.lost_due_ns.clear();
        self.counts = Counts::new()?;
        Ok(())
    }

    /// No more requests become due, and waiting ones are dropped.
    pub(crate) fn stop(&mut self) {
        self.next_ns = u64::MAX;
        self.left = 0;
        self.returned.clear();
    }

    /// Ends the window: waiting requests may still be sent, but do not count as sent in it. Returns
    /// the sum of their waiting times, in nanoseconds.
    pub(crate) fn end_window(&mut self, now_ns: u64) -> u64 {
        self.open = false;
        self.end_ns = self.end_ns.min(now_ns);
        if self.next_ns >= self.end_ns {
            self.next_ns = u64::MAX;
        }
        let returned = self.returned.iter().map(|Reverse(ready)| now_ns - ready.since_ns);
        let mut waited_ns = returned.sum::<u64>();
        let (mut times, mut due_ns, mut left) = (self.times.clone(), self.next_ns, self.left);
        while due_ns < self.end_ns {
            waited_ns += now_ns - due_ns;
            left -= 1;
            due_ns = if left == 0 { u64::MAX } else { self.origin_ns + times.next_ns() };
        }
        self.each * waited_ns
    }

    fn advance(&mut self) {
        let next_ns = match self.left {
            0 => u64::MAX,
            _ => self.origin_ns.saturating_add(self.times.next_ns()),
        };
        self.next_ns = if next_ns < self.end_ns { next_ns } else { u64::MAX };
    }

    #[inline]
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        self.next_ns <= now_ns || !self.returned.is_empty()
    }

    /// The client did not run between these times. Requests due then are sent late, and those that
    /// become due meanwhile wait behind them, for as long again at most.
    pub(crate) fn stopped(&mut self, from_ns: u64, to_ns: u64) {
        let from_ns = self.delayed_ns.map_or(from_ns, |(earlier_ns, _)| earlier_ns);
        self.delayed_ns = Some((from_ns, to_ns + (to_ns - from_ns)));
    }

    pub(crate) fn caught_up(&mut self) {
        self.delayed_ns = None;
    }

    /// The largest latency so far, in nanoseconds.
    pub(crate) fn max_ns(&self) -> u64 {
        self.counts.latency.max_ns()
    }

    /// Whether no request is due now or later.
    pub(crate) fn is_spent(&self) -> bool {
        self.next_ns == u64::MAX && self.returned.is_empty()
    }

    /// When the client must be awake to send: at the next due time if a connection is free.
    pub(crate) fn wake_ns(&self) -> u64 {
        match (self.free.is_empty(), self.returned.is_empty()) {
            (true, _) => u64::MAX,
            (false, true) => self.next_ns,
            (false, false) => 0,
        }
    }

    pub(crate) fn take(&mut self, now_ns: u64) -> Option<Ready> {
        if let Some(Reverse(ready)) = self.returned.pop() {
            return Some(ready);
        }
        let due_ns = self.next_ns;
        if due_ns > now_ns {
            return None;
        }
        let counted = self.each * u64::from(due_ns >= self.counted_from_ns);
        let delayed = self.delayed_ns.is_some_and(|(from, to)| (from..to).contains(&due_ns));
        self.counts.due += counted;
        self.counts.delayed += if delayed { counted } else { 0 };
        self.left -= 1;
        self.advance();
        Some(Ready { due_ns, since_ns: due_ns })
    }

    pub(crate) fn add_free(&mut self, slot: u32, now_ns: u64) {
        if self.free.is_empty() {
            self.free_since_ns = now_ns;
        }
        self.free.push_back(slot);
    }

    pub(crate) fn take_free(&mut self) -> Option<u32> {
        self.free.pop_front()
    }

    /// Removes a slot whose connection ended while it was free. Seldom, so a search is good enough.
    pub(crate) fn remove_free(&mut self, slot: u32) {
        self.free.retain(|&other| other != slot);
    }

    /// Since when a connection has been free without interruption.
    pub(crate) fn free_since_ns(&self) -> u64 {
        self.free_since_ns
    }

    /// A request is sent on a connection that was free since `free_ns`. Also returns how long it
    /// has waited in all, in nanoseconds.
    pub(crate) fn sending(&mut self, ready: Ready, free_ns: u64, now_ns: u64) -> (Pending, u64) {
        let pending = Pending { due_ns: ready.due_ns, sent_ns: now_ns };
        if !self.counts_due(ready.due_ns) {
            return (pending, 0);
        }
        self.counts.sent += self.each * u64::from(self.open);
        self.counts.send_lag.record(now_ns.saturating_sub(ready.since_ns.max(free_ns)));
        (pending, self.each * now_ns.saturating_sub(ready.since_ns))
    }

    /// A request was answered correctly. Returns whether it counts.
    pub(crate) fn answered(&mut self, pending: Pending, now_ns: u64) -> bool {
        // ANCHOR: latency
        let counts = self.counts_due(pending.due_ns);
        if counts {
            self.counts.latency.record(now_ns.saturating_sub(pending.due_ns));
            self.counts.from_send.record(now_ns.saturating_sub(pending.sent_ns));
        }
        // ANCHOR_END: latency
        counts
    }

    pub(crate) fn lost(&mut self, pending: Pending) {
        if self.counts_due(pending.due_ns) {
            self.lost_due_ns.push(pending.due_ns);
        }
    }

    /// A request lost its connection without an error, and is sent again.
    pub(crate) fn give_back(&mut self, pending: Pending, now_ns: u64) {
        if self.counts_due(pending.due_ns) {
            self.counts.sent -= u64::from(self.open);
            self.returned.push(Reverse(Ready { due_ns: pending.due_ns, since_ns: now_ns }));
        }
    }

    fn counts_due(&self, due_ns: u64) -> bool {
        due_ns >= self.counted_from_ns
    }

    /// Closes the window at `now_ns` with these requests unanswered: every request that was due
    /// becomes a sample.
    pub(crate) fn close(&mut self, unanswered: impl Iterator<Item = Pending>, now_ns: u64) {
        let from_ns = self.counted_from_ns;
        let mut due_ns: Vec<_> = std::mem::take(&mut self.lost_due_ns);
        due_ns.extend(unanswered.map(|pending| pending.due_ns).filter(|&due_ns| due_ns >= from_ns));
        while let Some(ready) = self.take(self.end_ns) {
            due_ns.extend((0..self.each).map(|_| ready.due_ns));
        }
        self.counts.unanswered += due_ns.len() as u64;
        for due_ns in due_ns {
            self.counts.latency.record(now_ns.saturating_sub(due_ns));
        }
    }

    pub(crate) fn into_counts(self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
#[path = "open_loop_tests.rs"]
mod tests;
