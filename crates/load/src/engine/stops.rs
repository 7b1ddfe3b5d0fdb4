//! Detects when the client itself did not run. Time in which it was stopped (SIGSTOP, a suspended
//! machine) is in the latencies and must not be attributed to the server.
//!
//! The loop wakes at least every [`super::SWEEP_NS`]. If two iterations are much farther apart and
//! the thread used no CPU time in between, it did not run. This costs one comparison per iteration,
//! because the loop reads the clock there anyway.
//!
//! A thread that was ready and had no core was not stopped. The kernel distinguishes the two
//! (`run_delay` of /proc/thread-self/schedstat). On such a busy machine the server waits for a core
//! too: this is reported, and does not make the run invalid.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Engine, SWEEP_NS, thread_cpu_ns};
use crate::Error;
use crate::codec::Codec;

/// A gap of this length is a stop. A scheduler that shares a core among many threads gives it to
/// the next one within some tens of milliseconds; that delay is in the client's send lag.
const STOP_NS: u64 = 100_000_000;
const _: () = assert!(STOP_NS > 4 * SWEEP_NS);

/// A client that did not run for this part of the window measured a rate that is wrong by as much.
const STOPPED_SHARE_MAX: f64 = 0.02;
/// The printed percentiles, and the number of samples from which each is used. If a stop delayed a
/// larger part of the requests than lies beyond a percentile, that percentile is the stop's. (The
/// 99th is always used: with few samples the largest takes its place.)
const PERCENTILES: [(f64, u64); 2] = [(0.99, 0), (0.999, 10_000)];
/// A stop that is shorter than this part of the percentile does not matter.
const LATENCY_SHARE_MIN: f64 = 0.1;

/// The times when the client did not run.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stops {
    pub(crate) count: u32,
    pub(crate) total_ns: u64,
    pub(crate) longest_ns: u64,
    /// When the longest began, from the window's start.
    pub(crate) longest_at_ns: u64,
    pub(crate) in_flight: u64,
    /// Time without a core, in gaps as long as a stop.
    pub(crate) waited_ns: u64,
}

impl Stops {
    /// Adds a stop that began `at_ns` after the window's start with `in_flight` requests.
    fn add(&mut self, at_ns: u64, stop_ns: u64, in_flight: u64) {
        self.count += 1;
        self.total_ns += stop_ns;
        self.in_flight += in_flight;
        if stop_ns > self.longest_ns {
            (self.longest_ns, self.longest_at_ns) = (stop_ns, at_ns);
        }
    }

    /// Combines two threads. A stop of the process stops all its threads, so the figures of the
    /// thread with the longest time are used.
    pub(crate) fn merge(&mut self, other: Stops) {
        let in_flight = self.in_flight + other.in_flight;
        let waited_ns = self.waited_ns.max(other.waited_ns);
        if other.total_ns > self.total_ns {
            *self = other;
        }
        (self.in_flight, self.waited_ns) = (in_flight, waited_ns);
    }

    /// Why the run is invalid, if the client was stopped for too much of it. `delayed` of
    /// `requests` were in flight or due meanwhile; `open`: an open loop.
    pub(crate) fn invalid(
        &self,
        window_ns: u64,
        (delayed, requests): (u64, u64),
        quantile_ns: impl Fn(f64) -> u64,
        open: bool,
    ) -> Option<String> {
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let percentile = PERCENTILES.iter().any(|&(quantile, samples_min)| {
            requests >= samples_min
                && share(delayed, requests) > 1.0 - quantile
                && self.longest_ns as f64 > LATENCY_SHARE_MIN * quantile_ns(quantile) as f64
        });
        // The clock sets the rate of an open loop.
        let rate = !open && share(self.total_ns, window_ns) > STOPPED_SHARE_MAX;
        if self.count == 0 || !(percentile || rate) {
            return None;
        }
        let (longest_ms, at_s) = (self.longest_ns / 1_000_000, self.longest_at_ns as f64 / 1e9);
        let all = match self.count {
            1 => String::new(),
            times => format!(", the longest of {times} times"),
        };
        Some(format!(
            "the client itself was stopped for {longest_ms} ms, {at_s:.1} s into the window{all}: \
             {delayed} of {requests} requests were due or in flight meanwhile, and their \
             latencies are the client's (do not suspend it)"
        ))
    }
}

/// How long a thread has run, and waited for a core.
#[derive(Debug, Default, Clone, Copy)]
struct Ran {
    cpu_ns: u64,
    delay_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When the last iteration ended, and the number of requests in flight then.
    turned_ns: u64,
    in_flight: u64,
    /// The kernel's counters of this thread; `None` if not available.
    schedstat: Option<File>,
    /// How long it had run at the last check of time limits.
    seen: Ran,
    /// When the last stop ended, and its length: time limits do not include it.
    stop_ended_ns: u64,
    stop_ns: u64,
    pub(super) stops: Stops,
}

impl Watch {
    /// How long the calling thread has run; about one read(2).
    fn ran(&self) -> Result<Ran, Error> {
        let mut text = [0; 64];
        let read = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let told = read.and_then(|len| std::str::from_utf8(text.get(..len)?).ok());
        let mut figures = told.into_iter().flat_map(str::split_whitespace);
        let mut figure = || figures.next().and_then(|figure| figure.parse().ok());
        match (figure(), figure()) {
            (Some(cpu_ns), Some(delay_ns)) => Ok(Ran { cpu_ns, delay_ns }),
            _ => Ok(Ran { cpu_ns: thread_cpu_ns()?, delay_ns: 0 }),
        }
    }

    /// Additional time for something that began at `since_ns`.
    pub(super) fn grace_ns(&self, since_ns: u64) -> u64 {
        if since_ns < self.stop_ended_ns { self.stop_ns } else { 0 }
    }
}

impl<C: Codec> Engine<'_, C> {
    /// Ends an iteration. Detects whether the client ran since the last one.
    #[inline]
    pub(super) fn watch(&mut self) -> Result<(), Error> {
        let gap_ns = self.now_ns.saturating_sub(self.watch.turned_ns);
        if gap_ns > STOP_NS {
            self.note_gap(gap_ns)?;
        }
        self.watch.turned_ns = self.now_ns;
        self.watch.in_flight = self.tally.in_flight();
        Ok(())
    }

    /// Begins to watch: the time before was not an iteration.
    pub(super) fn begin_watch(&mut self) -> Result<(), Error> {
        self.watch.turned_ns = self.now_ns;
        self.watch.in_flight = self.tally.in_flight();
        if self.watch.schedstat.is_none() {
            // A kernel without schedstat, or a container without /proc, does not distinguish the
            // two.
            self.watch.schedstat = File::open("/proc/thread-self/schedstat").ok();
        }
        self.note_cpu()
    }

    /// Reads the CPU time now and then, so that a long iteration does not count as a stop.
    pub(super) fn note_cpu(&mut self) -> Result<(), Error> {
        self.watch.seen = self.watch.ran()?;
        Ok(())
    }

    /// Long after the last iteration: did the thread work?
    fn note_gap(&mut self, gap_ns: u64) -> Result<(), Error> {
        let (before, now) = (self.watch.seen, self.watch.ran()?);
        let idle_ns = gap_ns.saturating_sub(now.cpu_ns.saturating_sub(before.cpu_ns));
        if idle_ns <= STOP_NS {
            return Ok(());
        }
        (self.watch.stop_ended_ns, self.watch.stop_ns) = (self.now_ns, idle_ns);
        let waited_ns = idle_ns.min(now.delay_ns.saturating_sub(before.delay_ns));
        let (began_ns, stop_ns) = (self.now_ns - gap_ns, idle_ns - waited_ns);
        self.watch.stops.waited_ns += if self.measuring { waited_ns } else { 0 };
        if self.measuring && stop_ns > STOP_NS {
            let at_ns = began_ns.saturating_sub(self.phase_started_ns);
            self.watch.stops.add(at_ns, stop_ns, self.watch.in_flight);
            if let Some(open) = &mut self.open {
                open.stopped(began_ns, self.now_ns);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::SECOND_NS;
    use super::*;

    /// One stop of `milliseconds`, a second after the window's start.
    fn stopped(milliseconds: u64, in_flight: u64) -> Stops {
        let mut stops = Stops::default();
        if milliseconds > 0 {
            stops.add(SECOND_NS, milliseconds * 1_000_000, in_flight);
        }
        stops
    }

    #[test]
    fn a_closed_loop_is_spoilt_by_time_and_by_requests() {
        let invalid = |milliseconds, requests: u64| {
            let stops = stopped(milliseconds, 10);
            stops.invalid(10 * SECOND_NS, (10, requests), |_| 1_000_000, false)
        };
        assert_eq!(invalid(0, 100), None);
        assert_eq!(invalid(150, 1_000_000), None, "1.5 % of the window, 10 of many requests");
        assert!(invalid(300, 1_000_000).is_some_and(|why| why.contains("300 ms, 1.0 s into")));
        assert!(invalid(150, 900).is_some(), "ten of 900 are the 99th percentile");
    }

    #[test]
    fn an_open_loop_is_spoilt_by_what_fell_due() {
        let stops = stopped(300, 1);
        let invalid = |delayed, p99_ns| {
            let requests = (delayed, 100_000);
            stops.invalid(60 * SECOND_NS, requests, |_| p99_ns, true).is_some()
        };
        assert!(invalid(1_500, 200_000_000));
        assert!(invalid(900, 200_000_000), "the p99.9 is that of those");
        assert!(!invalid(90, 200_000_000), "both are among the others");
        assert!(!invalid(1_500, 4 * SECOND_NS), "a server that takes seconds");
        let few = stops.invalid(60 * SECOND_NS, (50, 9_000), |_| 200_000_000, true);
        assert_eq!(few, None, "no p99.9 is printed of 9,000");
    }

    #[test]
    fn waiting_for_a_core_is_told_of_and_spoils_nothing() {
        let mut stops = Stops { waited_ns: SECOND_NS, ..Stops::default() };
        assert_eq!(stops.invalid(2 * SECOND_NS, (9, 10), |_| 1_000_000, false), None);
        stops.merge(Stops { waited_ns: 3 * SECOND_NS, ..Stops::default() });
        assert_eq!((stops.count, stops.waited_ns), (0, 3 * SECOND_NS));
    }

    #[test]
    fn threads_that_stood_still_together_did_so_once() {
        let mut all = stopped(300, 5);
        all.merge(stopped(310, 7));
        all.merge(Stops::default());
        assert_eq!((all.count, all.longest_ns / 1_000_000, all.in_flight), (1, 310, 12));
    }
}
