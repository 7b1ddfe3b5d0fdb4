//! The statistics behind every printed comparison: medians, their bootstrap intervals, tied ranks.
//!
//! Rounds are few (3 to 20) and noise on a shared machine has a long tail, so everything is built
//! on the median. Intervals are percentile bootstrap intervals (Efron and Tibshirani, 1993, ch.
//! 13): with 6 rounds they are close to the whole range, which is the honest width.

/// Resamples behind each interval: the 2.5 % points are then the 50th of 2,000 values from each
/// end.
const RESAMPLES: usize = 2_000;

/// Fewest rounds that get an interval: two values have a range, no distribution.
const ROUNDS_FOR_INTERVAL: usize = 3;

/// SplitMix64 (Steele, Lea and Flood, 2014). Own code because the order of trials and every
/// interval must come out the same from the same seed in every version; library generators do not
/// promise it.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (Lemire's multiplication; its bias is below bound / 2^64).
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Fisher-Yates: every order is equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The middle value; the mean of the two middle ones for an even count; `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Median absolute deviation from the median, unscaled.
pub fn median_absolute_deviation(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    median(&values.iter().map(|value| (value - centre).abs()).collect::<Vec<_>>())
}

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// An estimate with its spread over rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Median over the rounds.
    pub median: f64,
    /// Median absolute deviation.
    pub deviation: f64,
    /// 95 % interval of the median; `None` with fewer than three rounds.
    pub interval: Option<Interval>,
}

/// Median, deviation and interval of one figure over the rounds; `None` for no values.
pub fn estimate(values: &[f64], seed: u64) -> Option<Estimate> {
    Some(Estimate {
        median: median(values)?,
        deviation: median_absolute_deviation(values)?,
        interval: bootstrap_median(values, seed),
    })
}

/// The ratio of two figures measured in the same rounds: the median of the per-round ratios.
/// Pairing takes out whatever slowed the machine down for a whole round.
///
/// `pairs` holds (figure, reference's figure); pairs with a reference of zero carry no ratio.
pub fn paired_ratio(pairs: &[(f64, f64)], seed: u64) -> Option<Estimate> {
    let ratios: Vec<f64> =
        pairs.iter().filter(|pair| pair.1 > 0.0).map(|pair| pair.0 / pair.1).collect();
    estimate(&ratios, seed)
}

fn bootstrap_median(values: &[f64], seed: u64) -> Option<Interval> {
    if values.len() < ROUNDS_FOR_INTERVAL {
        return None;
    }
    let mut random = Random::new(seed);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let drawn: Vec<f64> =
                (0..values.len()).map(|_| values[random.below(values.len())]).collect();
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40; // 2.5 % on each side
    Some(Interval { low: medians[tail], high: medians[RESAMPLES - 1 - tail] })
}

/// Whether a ratio is different from 1 by more than `threshold` (0.03 = 3 %): its whole interval
/// lies outside. Without an interval nothing is claimed.
pub fn differs(ratio: &Estimate, threshold: f64) -> bool {
    ratio.interval.is_some_and(|i| i.low > 1.0 + threshold || i.high < 1.0 / (1.0 + threshold))
}

/// Ranks with ties, as (best, worst) possible place counted from 1. `better[i][j]` says that i is
/// clearly better than j; what is not clear is a tie, so places overlap: 1, 2-4, 2-4, 2-4, 5.
pub fn tied_ranks(better: &[Vec<bool>]) -> Vec<(usize, usize)> {
    let n = better.len();
    (0..n)
        .map(|i| {
            let above = (0..n).filter(|&j| better[j][i]).count();
            let below = (0..n).filter(|&j| better[i][j]).count();
            (1 + above, n - below)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values worked out by hand or with R 4.2 (`median`, `mad(constant = 1)`).
    #[test]
    fn medians_and_deviations_match_r() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median_absolute_deviation(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(1.0));
        assert_eq!(median_absolute_deviation(&[1.0, 2.0, 3.0, 4.0]), Some(1.0));
    }

    /// The first outputs of the reference implementation of SplitMix64 for seed 1234567.
    #[test]
    fn random_numbers_match_the_reference() {
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn shuffling_reaches_every_order_equally_often() {
        let mut random = Random::new(7);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6_000 {
            let mut items = [0, 1, 2];
            random.shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // 1,000 expected each; 5 standard deviations are 144.
        assert!(counts.values().all(|&count: &i32| (count - 1_000).abs() < 150), "{counts:?}");
    }

    /// For three values the distribution of a resample's median is known exactly: P(smallest) =
    /// P(at least two of three draws are it) = 7/27 = 0.26, far above 2.5 %, so the interval must
    /// be the whole range. For eleven equal values it must be the value.
    #[test]
    fn bootstrap_interval_matches_what_can_be_worked_out() {
        let interval = estimate(&[1.0, 2.0, 4.0], 1).unwrap().interval.unwrap();
        assert_eq!((interval.low, interval.high), (1.0, 4.0));
        let interval = estimate(&[3.0; 11], 1).unwrap().interval.unwrap();
        assert_eq!((interval.low, interval.high), (3.0, 3.0));
        assert_eq!(estimate(&[1.0, 2.0], 1).unwrap().interval, None);
    }

    /// For n = 11 distinct values, P(median of a resample <= k-th smallest) is the binomial tail
    /// P(Bin(11, k/11) >= 6): 0.0072 for k = 2 and 0.0513 for k = 3. So the 2.5 % point is the
    /// third smallest value and, by symmetry, the 97.5 % point the third largest.
    #[test]
    fn bootstrap_interval_of_eleven_values_is_the_third_from_each_end() {
        let values: Vec<f64> = (1..=11).map(f64::from).collect();
        for seed in 0..5 {
            let interval = estimate(&values, seed).unwrap().interval.unwrap();
            assert_eq!((interval.low, interval.high), (3.0, 9.0), "seed {seed}");
        }
    }

    #[test]
    fn a_ratio_is_paired_by_round() {
        // The machine halves its speed in round 2 and 4; the ratio does not notice.
        let pairs = [(110.0, 100.0), (55.0, 50.0), (111.0, 100.0), (54.0, 50.0)];
        let ratio = paired_ratio(&pairs, 3).unwrap();
        assert!((ratio.median - 1.1).abs() < 1e-9);
        assert!(differs(&ratio, 0.03));
        assert!(!differs(&ratio, 0.12));
        assert_eq!(paired_ratio(&[(1.0, 0.0)], 3), None);
    }

    #[test]
    fn different_means_the_whole_interval_is_outside() {
        let ratio = |low, high| Estimate {
            median: (low + high) / 2.0,
            deviation: 0.0,
            interval: Some(Interval { low, high }),
        };
        assert!(differs(&ratio(1.04, 1.2), 0.03));
        assert!(differs(&ratio(0.8, 0.96), 0.03));
        assert!(!differs(&ratio(1.02, 1.5), 0.03));
        assert!(!differs(&ratio(0.9, 1.1), 0.03));
        let unknown = Estimate { interval: None, ..ratio(2.0, 2.0) };
        assert!(!differs(&unknown, 0.03));
    }

    #[test]
    fn ranks_overlap_where_nothing_is_clear() {
        // 0 beats 2 and 3; 1 beats 3; 0 and 1, 1 and 2, 2 and 3 are ties.
        let mut better = vec![vec![false; 4]; 4];
        (better[0][2], better[0][3], better[1][3]) = (true, true, true);
        assert_eq!(tied_ranks(&better), [(1, 2), (1, 3), (2, 4), (3, 4)]);
        assert_eq!(tied_ranks(&[]), []);
    }
}
