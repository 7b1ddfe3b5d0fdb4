//! The ratio of two servers that took turns in blocks of slices, its interval, and the verdict.
//!
//! In a block each server has one slice, so the logarithm of a block's ratio has nothing in it of
//! what slowed the machine down for longer than a block. Blocks of one epoch share their processes:
//! where the allocator put things, how connections fell into hash tables. So an interval over the
//! blocks of one epoch promises too much, and epochs, each with processes started anew, are what is
//! counted. The estimate is the mean of the epochs' medians; its standard error comes from a
//! hierarchical bootstrap (epochs are drawn, then blocks within each that was drawn: Davison and
//! Hinkley, Bootstrap Methods and their Application, 1997, section 3.8), and since epochs are few,
//! the interval is that of Student's t with a degree of freedom less than there are epochs.
//!
//! "Not shown to differ" is not "equal". A ratio is called equal where two one-sided tests at 5 %
//! (Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987) show that it is nearer to 1 than
//! a margin fixed beforehand, which is where its 90 % interval lies within the margin.

use record::SplitMix64;

use super::{Interval, median};

/// Fewer epochs have no spread to speak of.
pub const EPOCHS_MIN: usize = 3;

/// Resamples: a standard error from so many is itself wrong by some 4 %.
const RESAMPLES: usize = 400;

/// Quantiles of Student's t at 97.5 % and 95 %, by degrees of freedom from 1 on (R 4.2, `qt`); a
/// larger number of epochs has the last.
const STUDENT: [(f64, f64); 20] = [
    (12.706, 6.314),
    (4.303, 2.920),
    (3.182, 2.353),
    (2.776, 2.132),
    (2.571, 2.015),
    (2.447, 1.943),
    (2.365, 1.895),
    (2.306, 1.860),
    (2.262, 1.833),
    (2.228, 1.812),
    (2.201, 1.796),
    (2.179, 1.782),
    (2.160, 1.771),
    (2.145, 1.761),
    (2.131, 1.753),
    (2.120, 1.746),
    (2.110, 1.740),
    (2.101, 1.734),
    (2.093, 1.729),
    (2.086, 1.725),
];

/// A ratio of two servers, from all blocks of all epochs.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockRatio {
    /// The estimate.
    pub ratio: f64,
    /// Where the true ratio lies with 95 % confidence.
    pub interval: Interval,
    /// The same with 90 %: what equality is judged by.
    pub inner: Interval,
    /// The median of each epoch.
    pub epochs: Vec<f64>,
    /// Blocks of all epochs.
    pub blocks: usize,
}

/// What is said of a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Above 1, beyond chance.
    More,
    /// Below 1, beyond chance.
    Less,
    /// Nearer to 1 than the margin, beyond chance.
    Equal,
    /// None of these was shown.
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
    /// [`EPOCHS_MIN`] epochs that have blocks. The same `random` gives the same interval.
    pub fn of(epochs: &[Vec<f64>], random: &mut SplitMix64) -> Option<BlockRatio> {
        let epochs: Vec<&[f64]> =
            epochs.iter().map(Vec::as_slice).filter(|blocks| !blocks.is_empty()).collect();
        let count = epochs.len();
        let (wide, narrow) = STUDENT[(count.max(2) - 2).min(STUDENT.len() - 1)];
        if count < EPOCHS_MIN {
            return None;
        }
        let medians: Vec<f64> = epochs.iter().filter_map(|blocks| median(blocks)).collect();
        let centre = mean(&medians);
        let error = standard_error(&epochs, random);
        let within = |quantile: f64| Interval {
            low: (centre - quantile * error).exp(),
            high: (centre + quantile * error).exp(),
        };
        Some(BlockRatio {
            ratio: centre.exp(),
            interval: within(wide),
            inner: within(narrow),
            epochs: medians.iter().map(|median| median.exp()).collect(),
            blocks: epochs.iter().map(|blocks| blocks.len()).sum(),
        })
    }

    /// What is to be said, where a difference of less than `margin` (0.03: 3 %) does not matter.
    pub fn finding(&self, margin: f64) -> Finding {
        if self.inner.low > 1.0 / (1.0 + margin) && self.inner.high < 1.0 + margin {
            return Finding::Equal;
        }
        match (self.interval.low > 1.0, self.interval.high < 1.0) {
            (true, _) => Finding::More,
            (_, true) => Finding::Less,
            _ => Finding::Unknown,
        }
    }
}

/// The standard error of the mean of the epochs' medians, by the hierarchical bootstrap.
fn standard_error(epochs: &[&[f64]], random: &mut SplitMix64) -> f64 {
    let count = epochs.len();
    let mut drawn = Vec::new();
    let means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let medians = (0..count).map(|_| {
                let blocks = epochs[random.below(count)];
                drawn.clear();
                drawn.extend((0..blocks.len()).map(|_| blocks[random.below(blocks.len())]));
                middle(&mut drawn)
            });
            medians.sum::<f64>() / count as f64
        })
        .collect();
    let centre = mean(&means);
    let variance = means.iter().map(|one| (one - centre).powi(2)).sum::<f64>() / RESAMPLES as f64;
    // Drawn with replacement, n epochs vary by (n - 1) / n of what they vary by in truth.
    (variance * count as f64 / (count - 1) as f64).sqrt()
}

/// The median, found without sorting all: half of the work of a resample. The upper one of an even
/// number's two, which for a standard error is as good.
fn middle(values: &mut [f64]) -> f64 {
    let at = values.len() / 2;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number with the standard normal distribution (Box and Muller).
    fn normal(random: &mut SplitMix64) -> f64 {
        let (radius, angle) = (1.0 - random.unit(), random.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Logarithms of ratios as a noisy machine gives them: each epoch is off by some percent, and
    /// so is each block by more, one in ten of them by five times that.
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

    /// How often each finding comes of so many runs.
    fn findings(truth: f64, epochs: usize) -> [usize; 4] {
        let mut random = SplitMix64::new(7);
        let mut counts = [0; 4];
        for _ in 0..RUNS {
            let runs = runs(truth, epochs, &mut random);
            let ratio = BlockRatio::of(&runs, &mut random).unwrap();
            counts[ratio.finding(0.03) as usize] += 1;
        }
        counts
    }

    const RUNS: usize = 100;

    #[test]
    fn two_equal_servers_are_called_equal_and_seldom_different() {
        let [more, less, equal, _] = findings(1.0, 8);
        assert!(more + less <= RUNS / 20, "{more} more, {less} less");
        assert!(equal >= RUNS * 15 / 20, "{equal} equal");
    }

    #[test]
    fn a_server_that_is_dearer_by_the_margin_is_called_so() {
        let [more, less, equal, _] = findings(1.03, 8);
        assert!(more >= RUNS * 17 / 20 && less == 0, "{more} more, {less} less");
        // At the margin itself a one-sided test at 5 % errs in one of twenty.
        assert!(equal <= RUNS / 20, "{equal} equal");
    }

    /// Whatever the number of epochs: the interval holds the truth as often as it says.
    #[test]
    fn an_interval_holds_the_truth_as_often_as_it_promises() {
        for epochs in [3, 5, 10] {
            let mut random = SplitMix64::new(11);
            let held = (0..RUNS).filter(|_| {
                let runs = runs(1.2, epochs, &mut random);
                let interval = BlockRatio::of(&runs, &mut random).unwrap().interval;
                interval.low <= 1.2 && 1.2 <= interval.high
            });
            let held = held.count();
            // 95 % of 100, less two standard deviations of that number.
            assert!(held >= RUNS * 19 / 20 - 4, "{epochs} epochs: {held} of {RUNS}");
        }
    }

    #[test]
    fn the_inverse_ratio_has_the_inverse_interval_and_the_opposite_finding() {
        let mut random = SplitMix64::new(3);
        let runs = runs(1.3, 6, &mut random);
        let inverse: Vec<Vec<f64>> =
            runs.iter().map(|blocks| blocks.iter().map(|log| -log).collect()).collect();
        let there = BlockRatio::of(&runs, &mut SplitMix64::new(1)).unwrap();
        let back = BlockRatio::of(&inverse, &mut SplitMix64::new(1)).unwrap();
        assert!((there.ratio * back.ratio - 1.0).abs() < 1e-12);
        assert_eq!((there.finding(0.03), back.finding(0.03)), (Finding::More, Finding::Less));
        // The same but for a resample's median, which is the upper one of two.
        assert!((there.interval.low * back.interval.high - 1.0).abs() < 0.003);
    }

    #[test]
    fn too_few_epochs_have_no_interval() {
        let epoch = || vec![0.1, 0.2];
        assert_eq!(BlockRatio::of(&[epoch(), epoch()], &mut SplitMix64::new(1)), None);
        assert_eq!(BlockRatio::of(&[epoch(), epoch(), Vec::new()], &mut SplitMix64::new(1)), None);
        assert!(BlockRatio::of(&[epoch(), epoch(), epoch()], &mut SplitMix64::new(1)).is_some());
    }

    #[test]
    fn a_difference_within_the_margin_is_equal_however_sure_it_is() {
        let exact = |ratio: f64| BlockRatio {
            ratio,
            interval: Interval { low: ratio - 0.001, high: ratio + 0.001 },
            inner: Interval { low: ratio - 0.001, high: ratio + 0.001 },
            epochs: Vec::new(),
            blocks: 0,
        };
        assert_eq!(exact(1.02).finding(0.03), Finding::Equal);
        assert_eq!(exact(1.02).finding(0.01), Finding::More);
        assert_eq!(exact(0.9).finding(0.03), Finding::Less);
        let wide = BlockRatio { interval: Interval { low: 0.9, high: 1.1 }, ..exact(1.05) };
        assert_eq!(wide.finding(0.03), Finding::Unknown);
    }
}
