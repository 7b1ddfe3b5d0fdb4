//! The statistics of all printed comparisons.
//!
//! Noise on a shared machine has a long tail, so an epoch is represented by a median. Ratios are
//! formed between slices of one block, so that a longer disturbance of the machine affects both,
//! and on a log scale, on which twice and half are equally far from one.

mod blocks;

pub use blocks::{BlockRatio, EPOCHS_MIN, Finding};

/// Differences below 3 % are considered irrelevant: the placement of code and data in memory
/// changes figures by as much.
pub const MARGIN: f64 = 0.03;

/// An interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// The median; `None` for no values.
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

/// A figure with its spread over epochs. Epochs of a machine whose speed changes differ widely, so
/// two estimates are not comparable; ratios are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Median over the epochs.
    pub median: f64,
    /// Median absolute deviation.
    pub deviation: f64,
}

/// Median and deviation of one figure over the epochs; `None` for no values.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let deviation = median_absolute_deviation(values)?;
    Some(Estimate { median: median(values)?, deviation })
}

/// The logarithm of a ratio; `None` unless both figures are positive.
pub fn log_ratio(figure: f64, reference: f64) -> Option<f64> {
    (figure > 0.0 && reference > 0.0).then(|| (figure / reference).ln())
}

/// Best and worst possible place (1: first) of each model. `better[i][j]`: model i was shown to be
/// better than model j.
pub fn tied_ranks(better: &[Vec<bool>]) -> Vec<(usize, usize)> {
    let n = better.len();
    let place = |i: usize| {
        let above = (0..n).filter(|&j| better[j][i]).count();
        let below = (0..n).filter(|&j| better[i][j]).count();
        (1 + above, n - below)
    };
    (0..n).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values computed by hand or with R 4.2 (`median`, `mad(constant = 1)`).
    #[test]
    fn medians_and_deviations_match_r() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median_absolute_deviation(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(1.0));
        assert_eq!(median_absolute_deviation(&[1.0, 2.0, 3.0, 4.0]), Some(1.0));
        assert_eq!(log_ratio(1.0, 0.0), None);
    }

    #[test]
    fn what_was_not_told_apart_shares_its_places() {
        let better = [[false, true, true], [false, false, false], [false, false, false]];
        let better = better.map(|row| row.to_vec());
        assert_eq!(tied_ranks(&better), [(1, 1), (2, 3), (2, 3)]);
    }
}
