//! The statistics behind every printed comparison: medians, their intervals, families of verdicts.
//!
//! Rounds are few (3 to 20) and noise on a shared machine has a long tail, so everything is built
//! on the median. Ratios are taken within a round, which takes out whatever slowed the machine down
//! for the whole round, and on the log scale, where twice and half are equally far from one.

mod blocks;
mod bootstrap;
mod family;

pub use blocks::{BlockRatio, EPOCHS_MIN, Finding};
pub use bootstrap::{Interval, Unpaired, interval_of_median, unpaired_ratio};
pub use family::{
    Contrast, Match, Verdict, rounds_needed, separable, separable_unpaired, tied_ranks, verdicts,
};

/// Confidence of a printed interval. Verdicts use stricter ones: see [`verdicts`].
pub const CONFIDENCE: f64 = 0.95;

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

/// Median, deviation and 95 % interval of one figure over the rounds; `None` for no values.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    Some(Estimate {
        median: median(values)?,
        deviation: median_absolute_deviation(values)?,
        interval: interval_of_median(values, CONFIDENCE),
    })
}

/// The logarithm of a ratio; `None` unless both figures are above zero.
pub fn log_ratio(figure: f64, reference: f64) -> Option<f64> {
    (figure > 0.0 && reference > 0.0).then(|| (figure / reference).ln())
}

/// The ratio of two figures measured in the same rounds, from the logarithms of the per-round
/// ratios: the median and its interval, taken back from the log scale. So the ratio of B to A is
/// exactly the inverse of that of A to B.
pub fn paired_ratio(log_ratios: &[f64]) -> Option<Estimate> {
    let logs = estimate(log_ratios)?;
    let ratios: Vec<f64> = log_ratios.iter().map(|log| log.exp()).collect();
    Some(Estimate {
        median: logs.median.exp(),
        deviation: median_absolute_deviation(&ratios)?,
        interval: logs.interval.map(|i| Interval { low: i.low.exp(), high: i.high.exp() }),
    })
}

/// Whether a ratio is different from 1 by more than `threshold` (0.03 = 3 %): its whole 95 %
/// interval lies outside. For one comparison that stands alone; families go through [`verdicts`].
/// Without an interval nothing is claimed.
pub fn differs(ratio: &Estimate, threshold: f64) -> bool {
    ratio.interval.is_some_and(|i| i.low > 1.0 + threshold || i.high < 1.0 / (1.0 + threshold))
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

    #[test]
    fn a_ratio_is_paired_by_round_and_inverts_exactly() {
        // The machine halves its speed in round 2 and 4; the ratio does not notice.
        let pairs = [(110.0, 100.0), (55.0, 50.0), (111.0, 100.0), (54.0, 50.0)];
        let logs: Vec<f64> = pairs.iter().filter_map(|p| log_ratio(p.0, p.1)).collect();
        let ratio = paired_ratio(&logs).unwrap();
        assert!((ratio.median - 1.1).abs() < 1e-9);
        assert!(differs(&ratio, 0.03));
        assert!(!differs(&ratio, 0.12));
        let back: Vec<f64> = pairs.iter().filter_map(|p| log_ratio(p.1, p.0)).collect();
        let back = paired_ratio(&back).unwrap();
        assert!((ratio.median * back.median - 1.0).abs() < 1e-12);
        let (one, other) = (ratio.interval.unwrap(), back.interval.unwrap());
        assert!((one.low * other.high - 1.0).abs() < 1e-12);
        assert_eq!(log_ratio(1.0, 0.0), None);
        assert_eq!(paired_ratio(&[]), None);
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
}
