//! Scales: the pixel of a figure, and the ticks of an axis.

/// One axis.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Pixels of `low` and `high`; on a vertical axis they decrease.
    from: i32,
    to: i32,
}

/// Ticks within a decade, from dense to sparse.
const LOG_TICKS: [&[f64]; 3] =
    [&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], &[1.0, 2.0, 5.0], &[1.0]];

/// Fewest ticks that show the scale of an axis.
const TICKS_MIN: usize = 3;

/// Most ticks of a readable axis.
const TICKS_MAX: usize = 10;

impl Scale {
    /// An axis from zero to a little more than `high`.
    pub fn from_zero(high: f64, pixels: (i32, i32)) -> Scale {
        let high = if high > 0.0 { high * 1.02 } else { 1.0 };
        Scale { low: 0.0, high, logarithmic: false, from: pixels.0, to: pixels.1 }
    }

    #[cfg(test)]
    fn linear(low: f64, high: f64, pixels: (i32, i32)) -> Scale {
        Scale { low, high, logarithmic: false, from: pixels.0, to: pixels.1 }
    }

    /// A logarithmic axis for all positive `values`, with a margin; `None` without any.
    pub fn logarithmic(
        values: impl Iterator<Item = f64>,
        margin: f64,
        pixels: (i32, i32),
    ) -> Option<Scale> {
        let range = values.filter(|value| *value > 0.0).fold(None, |range, value| match range {
            None => Some((value, value)),
            Some((low, high)) => Some((value.min(low), value.max(high))),
        });
        let (low, high) = range?;
        let (low, high) = (low / margin, high * margin);
        Some(Scale { low, high, logarithmic: true, from: pixels.0, to: pixels.1 })
    }

    /// The pixels of the lowest and the highest value.
    pub fn ends(&self) -> (i32, i32) {
        (self.from, self.to)
    }

    /// The same axis, `by` pixels further.
    pub fn moved(self, by: i32) -> Scale {
        Scale { from: self.from + by, to: self.to + by, ..self }
    }

    /// The pixel of a value; values outside of the axis are drawn at its nearer end.
    pub fn at(&self, value: f64) -> i32 {
        let share = match self.logarithmic {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + (share.clamp(0.0, 1.0) * f64::from(self.to - self.from)).round() as i32
    }

    /// Round values whose labels are at least `gap` pixels apart.
    pub fn ticks(&self, gap: i32) -> Vec<f64> {
        if self.logarithmic {
            let fitting = LOG_TICKS.iter().map(|multiples| self.decades(multiples));
            if let Some(ticks) = fitting.into_iter().find(|ticks| self.fits(ticks, gap)) {
                return ticks;
            }
        }
        // Steps of 1, 2 and 5 times a power of ten, from fine to coarse.
        let finest = 10f64.powf(((self.high - self.low) / 100.0).log10().floor());
        let steps = (0..12).map(|i| finest * 10f64.powi(i / 3) * [1.0, 2.0, 5.0][i as usize % 3]);
        let ticks = steps.map(|step| self.multiples(step));
        ticks.into_iter().find(|ticks| self.apart(ticks, gap)).unwrap_or_default()
    }

    fn decades(&self, multiples: &[f64]) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades
            .flat_map(|decade| multiples.iter().map(move |multiple| multiple * 10f64.powi(decade)));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }

    fn multiples(&self, step: f64) -> Vec<f64> {
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }

    fn fits(&self, ticks: &[f64], gap: i32) -> bool {
        ticks.len() >= TICKS_MIN && self.apart(ticks, gap)
    }

    fn apart(&self, ticks: &[f64], gap: i32) -> bool {
        let far = |pair: &[f64]| (self.at(pair[1]) - self.at(pair[0])).abs() >= gap;
        ticks.len() <= TICKS_MAX && ticks.windows(2).all(far)
    }
}

/// Moves labels apart: as close as possible to the `wanted` positions (least squares), in the same
/// order, at least `gap` apart, and inside `bounds` if they fit.
///
/// Labels that overlap form a block around their mean position; blocks that overlap are merged (the
/// pool-adjacent-violators algorithm: Ayer and others, 1955).
pub fn spread(wanted: &[i32], gap: i32, bounds: (i32, i32)) -> Vec<i32> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&i| wanted[i]);
    // Without the gaps, "at least `gap` apart" means "not decreasing".
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (rank, &i) in order.iter().enumerate() {
        let mut block = (f64::from(wanted[i] - gap * rank as i32), 1);
        while let Some(last) = blocks.pop_if(|last| last.0 > block.0) {
            let size = last.1 + block.1;
            let sum = last.0 * last.1 as f64 + block.0 * block.1 as f64;
            block = (sum / size as f64, size);
        }
        blocks.push(block);
    }
    let means = blocks.iter().flat_map(|&(mean, size)| std::iter::repeat_n(mean, size));
    let room = f64::from(bounds.1 - gap * (wanted.len() as i32 - 1).max(0));
    let mut places = vec![0; wanted.len()];
    for ((rank, &i), mean) in order.iter().enumerate().zip(means) {
        places[i] = mean.min(room).max(f64::from(bounds.0)).round() as i32 + gap * rank as i32;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_land_in_proportion_and_stay_on_the_axis() {
        let scale = Scale::linear(0.0, 10.0, (100, 200));
        assert_eq!([0.0, 5.0, 10.0, 12.0, -1.0].map(|v| scale.at(v)), [100, 150, 200, 200, 100]);
        let scale = Scale::logarithmic([1.0, 100.0].into_iter(), 1.0, (200, 100)).unwrap();
        assert_eq!([1.0, 10.0, 100.0, 0.0].map(|v| scale.at(v)), [200, 150, 100, 200]);
        assert!(Scale::logarithmic([0.0].into_iter(), 1.0, (0, 1)).is_none());
    }

    #[test]
    fn ticks_are_round_and_apart() {
        let ticks = Scale::linear(0.0, 104.0, (0, 500)).ticks(50);
        assert_eq!(ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let wide = Scale::logarithmic([1.0, 1e6].into_iter(), 1.0, (0, 300)).unwrap();
        assert_eq!(wide.ticks(40), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
        // Less than a decade: with powers of ten alone there would be one tick or none.
        let narrow = Scale::logarithmic([12.0, 19.0].into_iter(), 1.0, (0, 300)).unwrap();
        assert!(narrow.ticks(40).len() >= 3, "{:?}", narrow.ticks(40));
        assert!(narrow.ticks(40).iter().all(|tick| (12.0..=19.0).contains(tick)));
    }

    #[test]
    fn labels_move_as_little_as_they_must() {
        assert_eq!(spread(&[10, 50, 90], 16, (0, 100)), [10, 50, 90]);
        assert_eq!(spread(&[50, 50], 16, (0, 100)), [42, 58]);
        // The order is kept.
        assert_eq!(spread(&[52, 48, 10], 16, (0, 100)), [58, 42, 10]);
        // The bounds hold for a whole block.
        assert_eq!(spread(&[100, 100, 100], 16, (0, 100)), [68, 84, 100]);
        assert_eq!(spread(&[0, 0], 16, (0, 100)), [0, 16]);
        assert!(spread(&[], 16, (0, 100)).is_empty());
    }
}
