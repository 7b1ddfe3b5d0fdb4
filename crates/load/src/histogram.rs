//! All latencies of a window, with three significant digits (HdrHistogram).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use crate::Error;

/// Ten minutes, more than any request timeout. Longer samples count as this.
const HIGHEST_NS: u64 = 600_000_000_000;
/// Three digits: an error of at most 0.1 %, a tenth of the variation on a quiet machine.
pub(crate) const DIGITS: u8 = 3;
/// A percentile is shown only if so many samples are beyond it.
const SAMPLES_BEYOND: f64 = 10.0;

#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// An empty histogram. It allocates all its memory now: recording does not allocate.
    pub(crate) fn new() -> Result<Self, Error> {
        let created = Histogram::new_with_bounds(1, HIGHEST_NS, DIGITS);
        created.map(Latencies).map_err(|error| Error::Internal(format!("no histogram: {error}")))
    }

    #[inline]
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.0.saturating_record(latency_ns);
    }

    /// The latency below which this part of the samples is, in nanoseconds; 0 without samples.
    pub(crate) fn quantile_ns(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The largest sample, in nanoseconds; 0 without samples.
    pub(crate) fn max_ns(&self) -> u64 {
        self.0.max()
    }

    /// Adds the samples of `other` that are larger than the threshold.
    pub(crate) fn add_above(&mut self, threshold_ns: u64, other: &Latencies) {
        for one in other.0.iter_recorded().filter(|one| one.value_iterated_to() > threshold_ns) {
            self.0.saturating_record_n(one.value_iterated_to(), one.count_at_value());
        }
    }

    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }

    pub(crate) fn merge(&mut self, other: &Latencies) -> Result<(), Error> {
        let added = self.0.add(&other.0);
        added.map_err(|error| Error::Internal(format!("histograms do not fit: {error}")))
    }

    /// The usual figures, and the histogram with so many significant digits.
    pub(crate) fn summary(&self, digits: u8) -> Result<record::Latency, Error> {
        let samples = self.0.len();
        if samples == 0 {
            return Ok(record::Latency::default());
        }
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile: f64| us(self.0.value_at_quantile(quantile));
        let tail = |quantile: f64| {
            let beyond = samples as f64 * (1.0 - quantile);
            // A small tolerance: 1000 samples x (1 - 0.99) is 10.000000000000009, or 9.99...
            (beyond + 1e-6 >= SAMPLES_BEYOND).then(|| at(quantile))
        };
        Ok(record::Latency {
            samples,
            min_us: us(self.0.min()),
            mean_us: self.0.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: tail(0.99),
            p999_us: tail(0.999),
            max_us: us(self.0.max()),
            histogram: self.encoded(digits)?,
        })
    }

    fn encoded(&self, digits: u8) -> Result<String, Error> {
        let failed =
            |error: String| Error::Internal(format!("the histogram cannot be encoded: {error}"));
        let mut kept = Histogram::<u64>::new_with_bounds(1, HIGHEST_NS, digits)
            .map_err(|error| failed(error.to_string()))?;
        for one in self.0.iter_recorded() {
            kept.saturating_record_n(one.value_iterated_to(), one.count_at_value());
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&kept, &mut bytes)
            .map_err(|error| failed(error.to_string()))?;
        Ok(STANDARD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn figures_and_encoding_agree() -> Result<(), Box<dyn std::error::Error>> {
        let (mut one, mut two) = (Latencies::new()?, Latencies::new()?);
        (1..=600).for_each(|k| one.record(k * 1_000));
        (601..=1_000).for_each(|k| two.record(k * 1_000));
        assert_eq!(one.summary(DIGITS)?.p99_us, None, "6 samples beyond are no percentile");
        one.merge(&two)?;
        let summary = one.summary(DIGITS)?;
        assert_eq!(summary.samples, 1_000);
        assert!((summary.p50_us - 500.0).abs() < 1.0 && (summary.mean_us - 500.5).abs() < 1.0);
        assert!(summary.p99_us.is_some_and(|p99| (p99 - 990.0).abs() < 2.0));
        assert_eq!(summary.p999_us, None);
        let bytes = STANDARD.decode(&summary.histogram)?;
        let decoded: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice())?;
        assert_eq!((decoded.len(), decoded.max()), (1_000, one.0.max()));
        let coarse = one.summary(2)?;
        assert_eq!(coarse.p50_us, summary.p50_us, "the figures do not change");
        let bytes = STANDARD.decode(&coarse.histogram)?;
        let decoded: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice())?;
        let of_max = decoded.max() as f64 / one.0.max() as f64;
        assert!(decoded.len() == 1_000 && (1.0..1.01).contains(&of_max), "{of_max}");
        Ok(())
    }
}
