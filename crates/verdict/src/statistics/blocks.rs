//! The ratio of two servers that were measured in blocks of slices, its interval, and the finding.
//!
//! In a block each server has one slice, so a disturbance of the machine that lasts longer than a
//! block cancels in the block's ratio. Blocks of one epoch share their processes, and with them the
//! layout of memory and of hash tables. So an interval over the blocks of one epoch would be too
//! narrow. The sample is therefore the set of epochs, each with new processes.
//!
//! The estimate is the trimmed mean of the epochs' medians. Its interval is that of Yuen's t
//! (Biometrika 61, 1974): a sixth of the epochs is trimmed at each end, and counts in the variance
//! with the value of its neighbour. Otherwise a single disturbed epoch would widen the interval.
//! The spread of the epochs already contains the noise of their blocks. To resample blocks within
//! epochs too, as a hierarchical bootstrap may, counts that noise twice, and gives intervals wider
//! than the spread of the estimates (Davison and Hinkley, Bootstrap Methods and their Application,
//! 1997, section 3.8, discuss both ways).
//!
//! A ratio is called more or less if its 99 % interval excludes 1. At 95 % one ratio in twenty
//! would be called different by chance, and a table has dozens. "Not shown to differ" does not mean
//! "equal". Equality is claimed if two one-sided tests at 5 % (Schuirmann, J. Pharmacokinetics and
//! Biopharmaceutics 15, 1987) show that the ratio is within a margin around 1 that was fixed
//! beforehand, which means that its 90 % interval is within the margin.

use super::{Interval, median};

/// Fewer epochs do not give a usable spread.
pub const EPOCHS_MIN: usize = 3;

/// 1/6 of the epochs is trimmed at each end: none of five, one of six.
const TRIMMED_PARTS: usize = 6;

/// Quantiles of Student's t at 99.5 % and 95 %, by degrees of freedom from 1 on (R 4.2, `qt`). For
/// more degrees the last is used.
const STUDENT: [(f64, f64); 20] = [
    (63.657, 6.314),
    (9.925, 2.920),
    (5.841, 2.353),
    (4.604, 2.132),
    (4.032, 2.015),
    (3.707, 1.943),
    (3.499, 1.895),
    (3.355, 1.860),
    (3.250, 1.833),
    (3.169, 1.812),
    (3.106, 1.796),
    (3.055, 1.782),
    (3.012, 1.771),
    (2.977, 1.761),
    (2.947, 1.753),
    (2.921, 1.746),
    (2.898, 1.740),
    (2.878, 1.734),
    (2.861, 1.729),
    (2.845, 1.725),
];

/// The ratio of two servers, from all blocks of all epochs.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockRatio {
    /// The estimate.
    pub ratio: f64,
    /// 99 % confidence interval.
    pub interval: Interval,
    /// 90 % confidence interval, by which equality is decided.
    pub inner: Interval,
    /// The median of each epoch; empty if two runs are compared.
    pub epochs: Vec<f64>,
}

/// What a ratio shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Significantly above 1.
    More,
    /// Significantly below 1.
    Less,
    /// Neither, and significantly within the margin around 1.
    Equal,
    /// Nothing is shown.
    Unknown,
}

impl Finding {
    /// The word for a table.
    pub fn word(self) -> &'static str {
        match self {
            Finding::More => "more",
            Finding::Less => "less",
            Finding::Equal => "equal",
            Finding::Unknown => "~",
        }
    }
}

impl BlockRatio {
    /// From the logarithms of the blocks' ratios, epoch by epoch. `None` with fewer than
    /// [`EPOCHS_MIN`] non-empty epochs.
    pub fn of(epochs: &[Vec<f64>]) -> Option<BlockRatio> {
        let medians: Vec<f64> = epochs.iter().filter_map(|blocks| median(blocks)).collect();
        if medians.len() < EPOCHS_MIN {
            return None;
        }
        let Trimmed { centre, error, kept } = trimmed(&medians);
        let epochs = medians.iter().map(|median| median.exp()).collect();
        Some(BlockRatio { epochs, ..BlockRatio::around(centre, error, kept - 1) })
    }

    /// The ratio between two runs with different epochs, from the logarithms of both runs' epochs.
    /// The degrees of freedom are Welch's (Biometrika 34, 1947). `None` if either has fewer than
    /// [`EPOCHS_MIN`].
    pub fn between(one: &[f64], other: &[f64]) -> Option<BlockRatio> {
        if one.len().min(other.len()) < EPOCHS_MIN {
            return None;
        }
        let (one, other) = (trimmed(one), trimmed(other));
        let variance = one.error.powi(2) + other.error.powi(2);
        let part = |of: &Trimmed| of.error.powi(4) / (of.kept - 1) as f64;
        let parts = part(&one) + part(&other);
        // Without any spread the degrees of freedom do not matter.
        let freedom = if parts > 0.0 { (variance.powi(2) / parts) as usize } else { 1 };
        Some(BlockRatio::around(one.centre - other.centre, variance.sqrt(), freedom))
    }

    fn around(centre: f64, error: f64, freedom: usize) -> BlockRatio {
        let (wide, narrow) = STUDENT[freedom.clamp(1, STUDENT.len()) - 1];
        let within = |quantile: f64| Interval {
            low: (centre - quantile * error).exp(),
            high: (centre + quantile * error).exp(),
        };
        let (ratio, epochs) = (centre.exp(), Vec::new());
        BlockRatio { ratio, interval: within(wide), inner: within(narrow), epochs }
    }

    /// Whether the ratio is significantly within `margin` around 1. It may differ significantly
    /// from 1 nevertheless.
    pub fn is_near(&self, margin: f64) -> bool {
        self.inner.low > 1.0 / (1.0 + margin) && self.inner.high < 1.0 + margin
    }

    /// The finding. A difference of less than `margin` (0.03: 3 %) is irrelevant.
    pub fn finding(&self, margin: f64) -> Finding {
        match (self.interval.low > 1.0, self.interval.high < 1.0) {
            (true, _) => Finding::More,
            (_, true) => Finding::Less,
            _ if self.is_near(margin) => Finding::Equal,
            _ => Finding::Unknown,
        }
    }
}

/// A trimmed mean.
struct Trimmed {
    centre: f64,
    error: f64,
    /// Number of values that are not trimmed.
    kept: usize,
}

fn trimmed(values: &[f64]) -> Trimmed {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (count, cut) = (sorted.len(), sorted.len() / TRIMMED_PARTS);
    let kept = count - 2 * cut;
    let centre = mean(&sorted[cut..count - cut]);
    let (low, high) = (sorted[cut], sorted[count - 1 - cut]);
    let drawn_in: Vec<f64> = sorted.iter().map(|value| value.clamp(low, high)).collect();
    let middle = mean(&drawn_in);
    let squares: f64 = drawn_in.iter().map(|value| (value - middle).powi(2)).sum();
    Trimmed { centre, error: (squares / (kept * (kept - 1)) as f64).sqrt(), kept }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use record::SplitMix64;

    use super::*;

    /// A standard normal random number (Box and Muller).
    fn normal(random: &mut SplitMix64) -> f64 {
        let (radius, angle) = (1.0 - random.unit(), random.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Logarithms of ratios of a noisy machine: each epoch deviates by some percent, each block by
    /// more, and one block in ten by five times that.
    fn runs(truth: f64, epochs: usize, random: &mut SplitMix64) -> Vec<Vec<f64>> {
        const BETWEEN: f64 = 0.008;
        const WITHIN: f64 = 0.04;
        let one = |random: &mut SplitMix64| {
            let centre = truth.ln() + BETWEEN * normal(random);
            let block = |random: &mut SplitMix64| {
                let far = if random.below(10) == 0 { 5.0 } else { 1.0 };
                centre + far * WITHIN * normal(random)
            };
            (0..40).map(|_| block(random)).collect()
        };
        (0..epochs).map(|_| one(random)).collect()
    }

    /// The number of each finding in [`RUNS`] runs.
    fn findings(truth: f64, epochs: usize) -> [usize; 4] {
        let mut random = SplitMix64::new(7);
        let mut counts = [0; 4];
        for _ in 0..RUNS {
            let runs = runs(truth, epochs, &mut random);
            let ratio = BlockRatio::of(&runs).unwrap();
            counts[ratio.finding(0.03) as usize] += 1;
        }
        counts
    }

    const RUNS: usize = 1_000;

    #[test]
    fn two_equal_servers_are_called_equal_and_seldom_different() {
        let [more, less, equal, _] = findings(1.0, 8);
        // One in a hundred, plus three standard deviations.
        assert!(more + less <= 20, "{more} more, {less} less");
        assert!(equal >= RUNS * 15 / 20, "{equal} equal");
    }

    #[test]
    fn a_server_that_is_dearer_by_the_margin_is_called_so() {
        let [more, less, equal, _] = findings(1.03, 8);
        assert!(more >= RUNS * 17 / 20 && less == 0, "{more} more, {less} less");
        assert!(equal <= RUNS / 20, "{equal} equal");
    }

    /// The interval has its confidence level for each number of epochs.
    #[test]
    fn an_interval_holds_the_truth_as_often_as_it_promises() {
        for epochs in [3, 5, 10] {
            let mut random = SplitMix64::new(11);
            let held = (0..RUNS).filter(|_| {
                let runs = runs(1.2, epochs, &mut random);
                let interval = BlockRatio::of(&runs).unwrap().interval;
                interval.low <= 1.2 && 1.2 <= interval.high
            });
            let held = held.count();
            // 99 % of 1,000, within three standard deviations.
            assert!((980..=999).contains(&held), "{epochs} epochs: {held} of {RUNS}");
        }
    }

    /// Welch's t without trimming, computed by hand for {0, 2, 4} and {1, 1, 4}: a difference of 0,
    /// a standard error of sqrt(4/3 + 1), and 3.9 degrees of freedom, taken as 3.
    #[test]
    fn two_runs_are_set_beside_each_other_as_welch_does() {
        let ratio = BlockRatio::between(&[0.0, 2.0, 4.0], &[1.0, 1.0, 4.0]).unwrap();
        assert!((ratio.ratio - 1.0).abs() < 1e-12);
        assert!((ratio.interval.high.ln() - 5.841 * (7.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert_eq!(BlockRatio::between(&[0.0; 3], &[0.0; 2]), None);
        let apart = BlockRatio::between(&[0.1; 3], &[0.0; 3]).unwrap();
        assert_eq!(apart.finding(0.03), Finding::More);
    }

    #[test]
    fn the_inverse_ratio_has_the_inverse_interval_and_the_opposite_finding() {
        let mut random = SplitMix64::new(3);
        let runs = runs(1.3, 6, &mut random);
        let inverse: Vec<Vec<f64>> =
            runs.iter().map(|blocks| blocks.iter().map(|log| -log).collect()).collect();
        let there = BlockRatio::of(&runs).unwrap();
        let back = BlockRatio::of(&inverse).unwrap();
        assert!((there.ratio * back.ratio - 1.0).abs() < 1e-12);
        assert_eq!((there.finding(0.03), back.finding(0.03)), (Finding::More, Finding::Less));
        assert!((there.interval.low * back.interval.high - 1.0).abs() < 1e-12);
    }

    #[test]
    fn too_few_epochs_have_no_interval() {
        let epoch = || vec![0.1, 0.2];
        assert_eq!(BlockRatio::of(&[epoch(), epoch()]), None);
        assert_eq!(BlockRatio::of(&[epoch(), epoch(), Vec::new()]), None);
        assert!(BlockRatio::of(&[epoch(), epoch(), epoch()]).is_some());
    }

    #[test]
    fn what_is_shown_to_differ_is_not_called_equal() {
        let ratio = |ratio: f64, half: f64| BlockRatio {
            ratio,
            interval: Interval { low: ratio - half, high: ratio + half },
            inner: Interval { low: ratio - half / 2.0, high: ratio + half / 2.0 },
            epochs: Vec::new(),
        };
        assert_eq!(ratio(1.02, 0.01).finding(0.03), Finding::More);
        assert_eq!(ratio(1.01, 0.02).finding(0.03), Finding::Equal);
        assert_eq!(ratio(1.01, 0.02).finding(0.01), Finding::Unknown);
        assert_eq!(ratio(0.9, 0.05).finding(0.03), Finding::Less);
        assert_eq!(ratio(1.05, 0.1).finding(0.03), Finding::Unknown);
    }
}
