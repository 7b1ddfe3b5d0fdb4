//! Bootstrap intervals of a median (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
//! chapter 13: percentile intervals).
//!
//! For the median the distribution over all n^n resamples has a closed form (Maritz and Jarrett,
//! JASA 73, 1978): a resample's k-th smallest value is at most the a-th smallest of the sample when
//! at least k of its n draws are among the smallest a, which is a binomial tail. So nothing is
//! resampled here: the intervals are those of infinitely many resamples, and depend on no seed.
//!
//! A resample holds nothing but values that were seen, so an interval cannot reach beyond the range
//! of the rounds, whatever confidence is asked for. Where families ask for more than n rounds can
//! show, [`super::rounds_needed`] says so.

use record::SplitMix64;

use super::{Estimate, median, median_absolute_deviation};

/// Fewest rounds that get an interval: two values have a range, no distribution.
const ROUNDS_FOR_INTERVAL: usize = 3;

/// Medians less likely than e^-40 (4e-18) are left out: far below the smallest tail that is asked
/// for, and with a thousand rounds they are nearly all.
const LOG_PROBABILITY_MIN: f64 = -40.0;

/// Resamples behind an unpaired interval: at the level of the tenth of ten comparisons its 0.25 %
/// points are then the 50th value from each end.
const RESAMPLES: usize = 20_000;

/// An interval, of 95 % unless something else is said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Percentile bootstrap interval of the median with this confidence (0.95); `None` with fewer than
/// three values.
pub fn interval_of_median(values: &[f64], confidence: f64) -> Option<Interval> {
    if values.len() < ROUNDS_FOR_INTERVAL {
        return None;
    }
    interval_of(&distribution(values), (1.0 - confidence) / 2.0)
}

/// Twice the probability that a resample's median does not exceed `bound`: the smallest alpha at
/// which the interval of confidence 1 - alpha still reaches down to the bound. At every larger
/// alpha, the interval lies wholly above. 1 with fewer than three values.
pub fn tail_up_to(values: &[f64], bound: f64) -> f64 {
    if values.len() < ROUNDS_FOR_INTERVAL {
        return 1.0;
    }
    let below: f64 = distribution(values).iter().filter(|(v, _)| *v <= bound).map(|(_, p)| p).sum();
    (2.0 * below).min(1.0)
}

/// The medians that a resample can have, ascending, each with its probability.
fn distribution(values: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let mut medians = match n % 2 {
        1 => (1..=n).map(|a| (sorted[a - 1], at_rank(n, n / 2 + 1, a))).collect(),
        _ => even(&sorted),
    };
    medians.sort_by(|one, other| one.0.total_cmp(&other.0));
    medians
}

/// Of a resample of n, the probability that its k-th smallest draw is the sample's a-th smallest.
fn at_rank(n: usize, k: usize, a: usize) -> f64 {
    let up_to = |a: usize| binomial_tail(n, a as f64 / n as f64, k);
    (up_to(a) - up_to(a - 1)).max(0.0)
}

/// An even count: the median is the mean of the two middle draws. They are the a-th and the b-th
/// smallest, a < b, when one half of the draws is at most a and reaches it, the other at least b.
fn even(sorted: &[f64]) -> Vec<(f64, f64)> {
    let n = sorted.len();
    let half = n / 2;
    let share = |count: usize| (count as f64 / n as f64).powi(half as i32);
    // Index a - 1: one half at most a with at least one a. By symmetry it serves the other half.
    let reach: Vec<f64> = (1..=n).map(|a| (share(a) - share(a - 1)).ln()).collect();
    let ways = log_choose(n, half);
    let mut medians = Vec::new();
    for a in 1..=n {
        let mut apart = 0.0;
        for b in a + 1..=n {
            let log = ways + reach[a - 1] + reach[n - b];
            if log > LOG_PROBABILITY_MIN {
                apart += log.exp();
                medians.push(((sorted[a - 1] + sorted[b - 1]) / 2.0, log.exp()));
            }
        }
        medians.push((sorted[a - 1], (at_rank(n, half, a) - apart).max(0.0)));
    }
    medians
}

/// The values at which the distribution reaches `tail` from below and from above.
fn interval_of(ascending: &[(f64, f64)], tail: f64) -> Option<Interval> {
    Some(Interval {
        low: reached(ascending.iter(), tail)?,
        high: reached(ascending.iter().rev(), tail)?,
    })
}

fn reached<'a>(mut items: impl Iterator<Item = &'a (f64, f64)>, tail: f64) -> Option<f64> {
    let mut sum = 0.0;
    let reaches = |(_, probability): &&(f64, f64)| {
        sum += probability;
        sum >= tail
    };
    items.find(reaches).map(|(value, _)| *value)
}

/// P(at least k of n draws succeed), each with probability p.
pub fn binomial_tail(n: usize, p: f64, k: usize) -> f64 {
    if k == 0 || p >= 1.0 {
        return 1.0;
    }
    if p <= 0.0 || k > n {
        return 0.0;
    }
    // From one term to the next by their ratio, as logarithms: far terms are too small for an f64.
    let odds = (p / (1.0 - p)).ln();
    let mut log_term = log_choose(n, k) + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln();
    let mut sum = 0.0;
    for i in k..=n {
        sum += log_term.exp();
        log_term += ((n - i) as f64 / (i + 1) as f64).ln() + odds;
    }
    sum.min(1.0)
}

/// Logarithm of the number of ways to choose k of n.
fn log_choose(n: usize, k: usize) -> f64 {
    (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum()
}

/// The ratio of the medians of two runs that share no rounds: B to A.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpaired {
    /// The ratio with its 95 % interval; the deviation is that of the resampled ratios.
    pub ratio: Estimate,
    /// Logarithms of the ratios of resampled medians, ascending.
    log_ratios: Vec<f64>,
}

/// Medians of resamples, drawn from their distribution instead of resample by resample.
struct Drawn {
    /// Each median, and the probability of it or a smaller one.
    cumulated: Vec<(f64, f64)>,
}

impl Drawn {
    fn new(values: &[f64]) -> Drawn {
        let mut sum = 0.0;
        let cumulate = |(value, probability)| {
            sum += probability;
            (value, sum)
        };
        Drawn { cumulated: distribution(values).into_iter().map(cumulate).collect() }
    }

    fn next(&self, random: &mut SplitMix64) -> f64 {
        let last = self.cumulated.len() - 1;
        // What was left out of the distribution is missing from its sum, 1e-12 at most.
        let point = random.unit() * self.cumulated[last].1;
        let index = self.cumulated.partition_point(|(_, sum)| *sum <= point);
        self.cumulated[index.min(last)].0
    }
}

/// Resamples both runs, each on its own. `None` when either has no value or one that is not above
/// zero; the interval is missing when either has fewer than three.
pub fn unpaired_ratio(a: &[f64], b: &[f64], seed: u64) -> Option<Unpaired> {
    let positive = |values: &[f64]| values.iter().all(|v| *v > 0.0);
    if !positive(a) || !positive(b) {
        return None;
    }
    let median_ratio = median(b)? / median(a)?;
    let (of_a, of_b) = (Drawn::new(a), Drawn::new(b));
    let mut random = SplitMix64::new(seed);
    let mut log_ratios: Vec<f64> =
        (0..RESAMPLES).map(|_| (of_b.next(&mut random) / of_a.next(&mut random)).ln()).collect();
    log_ratios.sort_by(f64::total_cmp);
    let ratios: Vec<f64> = log_ratios.iter().map(|log| log.exp()).collect();
    let tail = RESAMPLES / 40; // 2.5 % on each side
    let enough = a.len().min(b.len()) >= ROUNDS_FOR_INTERVAL;
    let interval =
        enough.then(|| Interval { low: ratios[tail], high: ratios[RESAMPLES - 1 - tail] });
    let deviation = median_absolute_deviation(&ratios)?;
    Some(Unpaired { ratio: Estimate { median: median_ratio, deviation, interval }, log_ratios })
}

impl Unpaired {
    /// As [`tail_up_to`], of the logarithm of the ratio (`upwards`) or of its inverse.
    pub fn tail_up_to(&self, bound: f64, upwards: bool) -> f64 {
        if self.ratio.interval.is_none() {
            return 1.0;
        }
        let short = |log: &&f64| if upwards { **log <= bound } else { -**log <= bound };
        (2.0 * self.log_ratios.iter().filter(short).count() as f64 / RESAMPLES as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(values: &[f64], confidence: f64) -> (f64, f64) {
        let interval = interval_of_median(values, confidence).unwrap();
        (interval.low, interval.high)
    }

    /// For three values the distribution of a resample's median is known exactly: P(smallest) =
    /// P(at least two of three draws are it) = 7/27 = 0.26, far above 2.5 %, so the interval must
    /// be the whole range. For eleven equal values it must be the value.
    #[test]
    fn intervals_match_what_can_be_worked_out_by_hand() {
        let distribution = distribution(&[4.0, 1.0, 2.0]);
        let wanted = [(1.0, 7.0 / 27.0), (2.0, 13.0 / 27.0), (4.0, 7.0 / 27.0)];
        for (got, wanted) in distribution.iter().zip(wanted) {
            assert!(got.0 == wanted.0 && (got.1 - wanted.1).abs() < 1e-12, "{distribution:?}");
        }
        assert_eq!(bounds(&[1.0, 2.0, 4.0], 0.95), (1.0, 4.0));
        assert_eq!(bounds(&[3.0; 11], 0.95), (3.0, 3.0));
        assert_eq!(interval_of_median(&[1.0, 2.0], 0.95), None);
    }

    /// For n = 11 distinct values, P(median of a resample <= k-th smallest) is the binomial tail
    /// P(Bin(11, k/11) >= 6): 0.0072 for k = 2 and 0.0512 for k = 3. So the 2.5 % point is the
    /// third smallest value and, by symmetry, the 97.5 % point the third largest. At 99 % it is
    /// the second from each end (0.0072 > 0.005).
    #[test]
    fn the_interval_of_eleven_values_is_the_third_from_each_end() {
        let values: Vec<f64> = (1..=11).map(f64::from).collect();
        assert!((binomial_tail(11, 2.0 / 11.0, 6) - 0.0072).abs() < 5e-5);
        assert!((binomial_tail(11, 3.0 / 11.0, 6) - 0.0512).abs() < 5e-5);
        assert_eq!(bounds(&values, 0.95), (3.0, 9.0));
        assert_eq!(bounds(&values, 0.99), (2.0, 10.0));
    }

    /// Every resample of four values, all 256 of them, against the closed form.
    #[test]
    fn the_closed_form_is_the_count_over_all_resamples() {
        let values = [1.0, 2.0, 4.0, 8.0];
        let mut counts = std::collections::BTreeMap::new();
        for code in 0..256_usize {
            let drawn: Vec<f64> = (0..4).map(|i| values[code >> (2 * i) & 3]).collect();
            *counts.entry((median(&drawn).unwrap() * 10.0) as u64).or_insert(0) += 1;
        }
        let mut closed = std::collections::BTreeMap::new();
        for (value, p) in distribution(&values) {
            *closed.entry((value * 10.0) as u64).or_insert(0.0) += p * 256.0;
        }
        assert_eq!(counts.len(), closed.len());
        for (value, count) in counts {
            assert!((closed[&value] - f64::from(count)).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn probabilities_sum_to_one_for_few_and_for_many_rounds() {
        for n in [3, 4, 8, 9, 20, 101, 400, 1000] {
            let values: Vec<f64> = (0..n).map(f64::from).collect();
            let sum: f64 = distribution(&values).iter().map(|(_, p)| p).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{n}: {sum}");
        }
    }

    /// The closed form and 20,000 resamples drawn by hand agree within the noise of the latter.
    #[test]
    fn the_closed_form_is_what_resampling_approaches() {
        let values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.3, 5.8];
        let mut random = SplitMix64::new(5);
        let mut below = 0;
        for _ in 0..20_000 {
            let drawn: Vec<f64> = (0..8).map(|_| values[random.below(8)]).collect();
            below += u32::from(median(&drawn).unwrap() <= 2.6);
        }
        let tail = tail_up_to(&values, 2.6) / 2.0;
        assert!((f64::from(below) / 20_000.0 - tail).abs() < 0.012, "{below} {tail}");
    }

    #[test]
    fn the_tail_says_at_which_level_an_interval_is_clear_of_a_bound() {
        let values: Vec<f64> = (1..=11).map(f64::from).collect();
        for bound in [0.5, 1.5, 2.5, 3.5] {
            let alpha = tail_up_to(&values, bound);
            assert!(interval_of_median(&values, 1.0 - alpha - 1e-6).unwrap().low > bound);
            if alpha > 1e-6 {
                assert!(interval_of_median(&values, 1.0 - alpha + 1e-6).unwrap().low <= bound);
            }
        }
        assert_eq!(tail_up_to(&values, 6.0), 1.0);
    }

    #[test]
    fn an_unpaired_ratio_covers_the_truth() {
        let a = [100.0, 104.0, 98.0, 101.0, 99.0, 103.0, 97.0];
        let b = a.map(|value| value * 1.2);
        let unpaired = unpaired_ratio(&a, &b, 1).unwrap();
        let interval = unpaired.ratio.interval.unwrap();
        assert!((unpaired.ratio.median - 1.2).abs() < 1e-9);
        assert_eq!(unpaired.tail_up_to(0.03, true), 0.0);
        assert_eq!(unpaired.tail_up_to(0.03, false), 1.0);
        assert!(interval.low < 1.2 && interval.high > 1.2 && interval.low > 1.1, "{interval:?}");
        assert_eq!(unpaired_ratio(&a, &[], 1), None);
        assert_eq!(unpaired_ratio(&a[..2], &b, 1).unwrap().ratio.interval, None);
    }
}
