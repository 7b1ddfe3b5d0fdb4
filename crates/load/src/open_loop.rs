//! An open loop: what is due, who is free, and what both say about the server and about us.
//!
//! Due times come from the clock alone. The oldest due request goes to the connection that has been
//! free longest; while none is free it waits, and its latency counts from when it was due. Nothing
//! is ever back-filled: a sample is a request, and a request that was not answered is a sample with
//! its age, the least that it took.
//!
//! Two clocks run against the client. *Send lag*: from the moment when a request was due and a
//! connection was free for it, to its send(2). *Busy share*: the part of the window that the client
//! spent neither asleep nor spinning for the next due time. Either can make a run invalid, see
//! [`invalid`]. A server that is too slow makes requests wait for a free connection: that is a
//! result.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use record::Arrivals;

use crate::Error;
use crate::connection::Pending;
use crate::histogram::Latencies;
use crate::schedule::DueTimes;

/// The warm-up has due times of its own, so that the window's do not depend on its length.
const WARM_UP_SALT: u64 = 0x57A7_0000_0000_0000;

/// The p99 of the send lag may be so long without a question. Where others want the cores too, a
/// thread waits for its turn, on a busy machine for some tens of ms, one request in a hundred meets
/// that, and the server waits for its turns alike: the lag is shown beside the percentiles, and
/// they are as good as they can be there. A client that is late by more does not keep up.
const LAG_P99_MAX_NS: u64 = 50_000_000;
/// The median of the send lag may be so long, the turn of one other thread: half of all requests
/// meet no more than that, unless the client has a queue of its own, which grows beyond this in a
/// window.
const LAG_P50_MAX_NS: u64 = 5_000_000;
/// Beyond these limits, the client's part in a percentile must still be small: a tenth. Against a
/// server whose p99 is a second, a lag of 5 ms says nothing.
const LAG_SHARE_MAX: f64 = 0.1;
/// A client that works for more than this share of the window has a queue of its own: at 95 %, the
/// mean wait is nearly ten times the service time (Pollaczek and Khinchine, constant service).
const BUSY_SHARE_MAX: f64 = 0.95;

/// Why the client's own share is too large for the figures to be the server's; `None` if it is not.
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

/// What an open loop counts.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Requests that fell due inside the window.
    pub(crate) due: u64,
    /// Those of them that were sent inside it.
    pub(crate) sent: u64,
    /// Those of them that were never answered.
    pub(crate) unanswered: u64,
    /// Those of them that the client's own stops delayed.
    pub(crate) delayed: u64,
    /// From due to answered, or to the end of the run.
    pub(crate) latency: Latencies,
    /// From due and free to sent.
    pub(crate) send_lag: Latencies,
    /// From sent to answered.
    pub(crate) from_send: Latencies,
}

impl Counts {
    /// All zero.
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

    /// Adds another thread's.
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

/// A request that may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ready {
    /// When it was due.
    pub(crate) due_ns: u64,
    /// Since when it waits: since it was due, or since its connection ended under it.
    pub(crate) since_ns: u64,
}

/// The load of one engine thread.
#[derive(Debug)]
pub(crate) struct OpenLoop {
    arrivals: Arrivals,
    rate_per_s: f64,
    seed: u64,
    thread: (u32, u32),
    times: DueTimes,
    /// When the present due times began, by the engine's clock.
    origin_ns: u64,
    /// Nothing falls due from here on.
    end_ns: u64,
    /// Requests that may still fall due.
    left: u64,
    /// The next due time; `u64::MAX` when nothing is due any more.
    next_ns: u64,
    /// Requests whose connection ended under them through no fault of theirs.
    returned: BinaryHeap<Reverse<Ready>>,
    /// Due times of requests that were lost to an error.
    lost_due_ns: Vec<u64>,
    /// Slots with a free place, the longest free first.
    free: VecDeque<u32>,
    /// Since when there is one.
    free_since_ns: u64,
    /// Requests due from here on count: all of the window's, none of the warm-up's.
    counted_from_ns: u64,
    /// Whether the window goes on.
    open: bool,
    /// Windows begun.
    windows: u64,
    /// The client stood still: what falls due from the first of these times to the second is late
    /// by that, unless nothing waits any more before then.
    delayed_ns: Option<(u64, u64)>,
    /// How many replies each request has, which count as so many requests.
    each: u64,
    counts: Counts,
}

impl OpenLoop {
    /// Nothing is due yet.
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

    /// What falls due has `each` replies: a message that is delivered to so many.
    pub(crate) fn counting(self, each: u32) -> Self {
        OpenLoop { each: u64::from(each), ..self }
    }

    /// Load that is not counted begins. What it leaves unsent is forgotten when the window begins.
    pub(crate) fn warm_up(&mut self, now_ns: u64) {
        self.begin(self.seed ^ WARM_UP_SALT, now_ns, u64::MAX, u64::MAX);
    }

    /// A window begins: until `end_ns`, or until so many `requests` were due. The first, the second
    /// and so on each have due times of their own, the same for every server.
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

    /// What was counted so far was a warm-up's.
    pub(crate) fn forget(&mut self) -> Result<(), Error> {
        self.lost_due_ns.clear();
        self.counts = Counts::new()?;
        Ok(())
    }

    /// Nothing falls due any more, and what waits is forgotten.
    pub(crate) fn stop(&mut self) {
        self.next_ns = u64::MAX;
        self.left = 0;
        self.returned.clear();
    }

    /// The window is over: what waits may still be sent, but not as sent inside it. Gives the sum
    /// of how long all that wait have waited, in nanoseconds.
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

    /// Finds the next due time.
    fn advance(&mut self) {
        let next_ns = match self.left {
            0 => u64::MAX,
            _ => self.origin_ns.saturating_add(self.times.next_ns()),
        };
        self.next_ns = if next_ns < self.end_ns { next_ns } else { u64::MAX };
    }

    /// Whether a request is due at `now_ns`.
    #[inline]
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        self.next_ns <= now_ns || !self.returned.is_empty()
    }

    /// The client did not run from the first of these times to the second. What fell due then is
    /// sent late, and what falls due while it is sent waits behind it: as long again at most.
    pub(crate) fn stopped(&mut self, from_ns: u64, to_ns: u64) {
        let from_ns = self.delayed_ns.map_or(from_ns, |(earlier_ns, _)| earlier_ns);
        self.delayed_ns = Some((from_ns, to_ns + (to_ns - from_ns)));
    }

    /// Nothing that is due waits any more.
    pub(crate) fn caught_up(&mut self) {
        self.delayed_ns = None;
    }

    /// The largest latency so far, in nanoseconds.
    pub(crate) fn max_ns(&self) -> u64 {
        self.counts.latency.max_ns()
    }

    /// Whether nothing is due, nor ever will be.
    pub(crate) fn is_spent(&self) -> bool {
        self.next_ns == u64::MAX && self.returned.is_empty()
    }

    /// When the client must be awake to send: at the next due time if a connection is free for it.
    pub(crate) fn wake_ns(&self) -> u64 {
        match (self.free.is_empty(), self.returned.is_empty()) {
            (true, _) => u64::MAX,
            (false, true) => self.next_ns,
            (false, false) => 0,
        }
    }

    /// Takes the oldest request that is due.
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

    /// A slot has a free place, seen at `now_ns`.
    pub(crate) fn add_free(&mut self, slot: u32, now_ns: u64) {
        if self.free.is_empty() {
            self.free_since_ns = now_ns;
        }
        self.free.push_back(slot);
    }

    /// The slot that has been free longest leaves the list.
    pub(crate) fn take_free(&mut self) -> Option<u32> {
        self.free.pop_front()
    }

    /// A slot is free no more. A search: seldom, a connection that ended while it was free.
    pub(crate) fn remove_free(&mut self, slot: u32) {
        self.free.retain(|&other| other != slot);
    }

    /// Since when a connection has been free, without a gap, if one is.
    pub(crate) fn free_since_ns(&self) -> u64 {
        self.free_since_ns
    }

    /// A request is about to be sent on a connection that was free since `free_ns`. The second
    /// figure is how long it has waited in all, in nanoseconds.
    pub(crate) fn sending(&mut self, ready: Ready, free_ns: u64, now_ns: u64) -> (Pending, u64) {
        let pending = Pending { due_ns: ready.due_ns, sent_ns: now_ns };
        if !self.counts_due(ready.due_ns) {
            return (pending, 0);
        }
        self.counts.sent += self.each * u64::from(self.open);
        self.counts.send_lag.record(now_ns.saturating_sub(ready.since_ns.max(free_ns)));
        (pending, self.each * now_ns.saturating_sub(ready.since_ns))
    }

    /// A request was answered, rightly. Whether it counts.
    pub(crate) fn answered(&mut self, pending: Pending, now_ns: u64) -> bool {
        let counts = self.counts_due(pending.due_ns);
        if counts {
            self.counts.latency.record(now_ns.saturating_sub(pending.due_ns));
            self.counts.from_send.record(now_ns.saturating_sub(pending.sent_ns));
        }
        counts
    }

    /// A request was lost to an error.
    pub(crate) fn lost(&mut self, pending: Pending) {
        if self.counts_due(pending.due_ns) {
            self.lost_due_ns.push(pending.due_ns);
        }
    }

    /// A request lost its connection through no fault of anybody's, and is sent again.
    pub(crate) fn give_back(&mut self, pending: Pending, now_ns: u64) {
        if self.counts_due(pending.due_ns) {
            self.counts.sent -= u64::from(self.open);
            self.returned.push(Reverse(Ready { due_ns: pending.due_ns, since_ns: now_ns }));
        }
    }

    fn counts_due(&self, due_ns: u64) -> bool {
        due_ns >= self.counted_from_ns
    }

    /// The window is closed at `now_ns`, with these still unanswered: all that was due becomes a
    /// sample.
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

    /// What was counted, in all windows.
    pub(crate) fn into_counts(self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
#[path = "open_loop_tests.rs"]
mod tests;
