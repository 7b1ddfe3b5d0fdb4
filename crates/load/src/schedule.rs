//! Who decides when the next request is sent.
//!
//! The server does, by answering: that is a *closed loop*, [`ClosedLoop`]. A connection asks again
//! as soon as it was answered, so a slow server is asked less. It measures capacity. It does not
//! measure the latency that users of a busy server see, for users do not wait politely for one
//! another (Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI
//! 2006).
//!
//! Or the clock does: that is an *open loop*, whose due times are made here, [`DueTimes`], and kept
//! in `open_loop`.

use record::{Arrivals, SplitMix64};

/// A closed loop: every free place in a connection's pipeline is filled at once, until the budget
/// of requests (if there is one) is spent.
#[derive(Debug)]
pub(crate) struct ClosedLoop {
    /// Requests that may still be sent.
    left: u64,
    /// Whether lost requests may be sent again: not when the loop was stopped for good.
    running: bool,
}

impl ClosedLoop {
    /// No request may be sent.
    pub(crate) const fn stopped() -> Self {
        ClosedLoop { left: 0, running: false }
    }

    /// Requests may be sent until the window ends.
    pub(crate) const fn endless() -> Self {
        ClosedLoop { left: u64::MAX, running: true }
    }

    /// `requests` may be sent.
    pub(crate) const fn budget(requests: u64) -> Self {
        ClosedLoop { left: requests, running: true }
    }

    /// May one more request be sent now? If so it is taken from the budget.
    #[inline]
    pub(crate) fn take(&mut self) -> bool {
        let may = self.left > 0;
        self.left -= u64::from(may);
        may
    }

    /// Gives back requests that were taken but lost their connection through no fault of anybody's.
    pub(crate) fn give_back(&mut self, requests: u64) {
        if self.running {
            self.left = self.left.saturating_add(requests);
        }
    }

    /// Whether nothing is left to send.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// When the requests of one engine thread fall due: nanoseconds from the start of the load, in
/// order, without end. They depend on nothing but these five numbers, so every server is asked at
/// the same moments.
#[derive(Debug, Clone)]
pub(crate) struct DueTimes {
    arrivals: Arrivals,
    /// Mean gap between two requests of this thread.
    gap_ns: f64,
    /// Where this thread's metronome begins: the threads' beats lie evenly between one another.
    phase: f64,
    /// Due times given so far.
    given: u64,
    /// The last one of them.
    at_ns: f64,
    random: SplitMix64,
}

impl DueTimes {
    /// Thread `thread` of `threads`, each with an equal share of the rate. Shares of a Poisson
    /// process that are drawn apart add up to one of the whole rate.
    pub(crate) fn new(
        arrivals: Arrivals,
        rate_per_s: f64,
        seed: u64,
        (thread, threads): (u32, u32),
    ) -> Self {
        // Far apart in the generator's cycle of 2^64, however many numbers a thread takes.
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
            // Multiplied, not added up: no error grows.
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
        // A third of a second at a rate that is no whole number of nanoseconds: no drift.
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

    /// Kolmogorov's statistic: the largest distance between the gaps' distribution and the
    /// exponential one of this mean.
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
        // Independence of the gaps, which their distribution alone does not show: 10,000 slices of
        // 10 expected arrivals each.
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
