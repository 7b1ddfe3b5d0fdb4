//! Decides when the next request is sent.
//!
//! A *closed loop* ([`ClosedLoop`]) sends the next request when a reply arrives, so a slow server
//! gets fewer requests. It measures capacity. It does not measure the latency that users of a busy
//! server see, because users do not wait for each other (Schroeder, Wierman, Harchol-Balter, "Open
//! Versus Closed: A Cautionary Tale", NSDI 2006).
//!
//! An *open loop* sends by the clock. Its due times are made here ([`DueTimes`]); `open_loop` uses
//! them.

use record::{Arrivals, SplitMix64};

/// A closed loop fills every free place of a connection's pipeline at once, until the budget of
/// requests (if there is one) is used.
#[derive(Debug)]
pub(crate) struct ClosedLoop {
    left: u64,
    /// Whether lost requests may be sent again. False after the loop was stopped.
    running: bool,
}

impl ClosedLoop {
    pub(crate) const fn stopped() -> Self {
        ClosedLoop { left: 0, running: false }
    }

    /// Requests may be sent until the window ends.
    pub(crate) const fn endless() -> Self {
        ClosedLoop { left: u64::MAX, running: true }
    }

    pub(crate) const fn budget(requests: u64) -> Self {
        ClosedLoop { left: requests, running: true }
    }

    #[inline]
    pub(crate) fn take(&mut self) -> bool {
        let may = self.left > 0;
        self.left -= u64::from(may);
        may
    }

    /// Returns requests that lost their connection without an error.
    pub(crate) fn give_back(&mut self, requests: u64) {
        if self.running {
            self.left = self.left.saturating_add(requests);
        }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// The due times of one engine thread's requests: nanoseconds from the start of the load, in order,
/// without end. They depend only on these five numbers, so every server gets requests at the same
/// times.
#[derive(Debug, Clone)]
pub(crate) struct DueTimes {
    arrivals: Arrivals,
    /// Mean gap between two requests of this thread, in nanoseconds.
    gap_ns: f64,
    /// Offset of this thread's due times, so that those of all threads are evenly spaced.
    phase: f64,
    given: u64,
    at_ns: f64,
    random: SplitMix64,
}

impl DueTimes {
    /// Thread `thread` of `threads`, each with an equal part of the rate. Independent Poisson
    /// processes add up to one with the whole rate.
    pub(crate) fn new(
        arrivals: Arrivals,
        rate_per_s: f64,
        seed: u64,
        (thread, threads): (u32, u32),
    ) -> Self {
        // The seeds of two threads are far apart in the generator's cycle of 2^64.
        let seed = SplitMix64::new(seed.wrapping_add(u64::from(thread) << 48)).next_u64();
        DueTimes {
            arrivals,
            gap_ns: 1e9 * f64::from(threads) / rate_per_s,
            phase: f64::from(thread) / f64::from(threads),
            given: 0,
            at_ns: 0.0,
            random: SplitMix64::new(seed),
        }
    }

    /// The next due time.
    pub(crate) fn next_ns(&mut self) -> u64 {
        self.at_ns = match self.arrivals {
            // Multiplied and not added, so that no error accumulates.
            Arrivals::Constant => (self.given as f64 + self.phase) * self.gap_ns,
            // The inverse of the exponential distribution.
            Arrivals::Poisson => self.at_ns - self.random.next_unit().ln() * self.gap_ns,
        };
        self.given += 1;
        self.at_ns.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_exactly() {
        let mut schedule = ClosedLoop::budget(2);
        assert!(schedule.take() && schedule.take() && !schedule.take());
        schedule.give_back(1);
        assert!(schedule.take() && !schedule.take() && schedule.is_spent());
    }

    #[test]
    fn a_stopped_loop_stays_stopped() {
        let mut schedule = ClosedLoop::stopped();
        schedule.give_back(1);
        assert!(!schedule.take());
    }

    fn due(arrivals: Arrivals, rate_per_s: f64, thread: (u32, u32), count: usize) -> Vec<u64> {
        let mut times = DueTimes::new(arrivals, rate_per_s, 7, thread);
        (0..count).map(|_| times.next_ns()).collect()
    }

    #[test]
    fn a_metronome_is_exact() {
        let times = due(Arrivals::Constant, 8_000.0, (0, 1), 10_000);
        assert!((0..).zip(&times).all(|(k, &at)| at == k * 125_000));
        // The gap is not a whole number of nanoseconds: no drift.
        let times = due(Arrivals::Constant, 3.0, (0, 1), 3_000_001);
        assert_eq!(times.last(), Some(&1_000_000_000_000_000));
    }

    #[test]
    fn the_threads_of_a_metronome_beat_in_turn() {
        let mut all: Vec<_> =
            (0..4).flat_map(|thread| due(Arrivals::Constant, 1_000.0, (thread, 4), 100)).collect();
        all.sort_unstable();
        assert!((0..).zip(&all).all(|(k, &at)| at == k * 1_000_000));
    }

    /// Kolmogorov's statistic: the largest distance between the distribution of the gaps and the
    /// exponential one with this mean.
    fn distance_from_exponential(times: &[u64], gap_ns: f64) -> f64 {
        let before = std::iter::once(&0).chain(times);
        let mut gaps: Vec<_> = before.zip(times).map(|(from, to)| (to - from) as f64).collect();
        gaps.sort_unstable_by(f64::total_cmp);
        let count = gaps.len() as f64;
        let distance = |(k, gap): (usize, &f64)| {
            let expected = 1.0 - (-gap / gap_ns).exp();
            let (below, above) = (k as f64 / count, (k as f64 + 1.0) / count);
            (expected - below).abs().max((above - expected).abs())
        };
        gaps.iter().enumerate().map(distance).fold(0.0, f64::max)
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        const COUNT: usize = 100_000;
        for thread in [(0, 1), (0, 3), (2, 3)] {
            let times = due(Arrivals::Poisson, 20_000.0, thread, COUNT);
            let gap_ns = 50_000.0 * f64::from(thread.1);
            // The critical value of Kolmogorov's test at 1 %: 1.63 / sqrt(n).
            let distance = distance_from_exponential(&times, gap_ns);
            assert!(distance < 1.63 / (COUNT as f64).sqrt(), "{thread:?}: {distance}");
            // The mean of n gaps has a standard error of 1 / sqrt(n) of itself.
            let mean_ns = times[COUNT - 1] as f64 / COUNT as f64;
            assert!((mean_ns / gap_ns - 1.0).abs() < 3.0 / (COUNT as f64).sqrt(), "{mean_ns}");
        }
        let metronome = due(Arrivals::Constant, 20_000.0, (0, 1), COUNT);
        assert!(distance_from_exponential(&metronome, 50_000.0) > 0.3, "the test can fail");
    }

    #[test]
    fn poisson_counts_in_equal_slices_have_the_variance_of_their_mean() {
        // The gaps are independent, which their distribution does not show: 10,000 slices of 10
        // expected arrivals each.
        let times = due(Arrivals::Poisson, 1e6, (0, 1), 110_000);
        let mut counts = vec![0_u32; 10_000];
        for at in times {
            if let Some(count) = counts.get_mut((at / 10_000) as usize) {
                *count += 1;
            }
        }
        let mean = counts.iter().map(|&count| f64::from(count)).sum::<f64>() / 1e4;
        let variance =
            counts.iter().map(|&count| (f64::from(count) - mean).powi(2)).sum::<f64>() / 1e4;
        // The index of dispersion of n slices has a standard error of sqrt(2 / n), here 0.014.
        assert!((variance / mean - 1.0).abs() < 0.045, "{mean} {variance}");
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let same = || due(Arrivals::Poisson, 1_000.0, (1, 2), 100);
        assert_eq!(same(), same());
        assert_ne!(same(), due(Arrivals::Poisson, 1_000.0, (0, 2), 100));
    }
}
