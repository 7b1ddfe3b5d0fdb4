//! The text format of HdrHistogram's percentile distributions (`outputPercentileDistribution` of
//! the Java original), which its plotter and wrk2 use. Values are milliseconds.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use record::Latency;

/// Lines for each halving of the distance to 100 %: the original's default.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
const NS_PER_MS: f64 = 1e6;

/// The output file. It is opened before the measurement, so that a failure costs no time.
pub(super) struct Output(PathBuf);

impl Output {
    /// Creates or opens the file without changing its content.
    pub(super) fn open(path: &Path) -> Result<Output, String> {
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        opened.map_err(|error| {
            format!("nothing was measured, because {} cannot be written: {error}", path.display())
        })?;
        Ok(Output(path.to_owned()))
    }

    /// Replaces the content by the distribution of `latency`.
    pub(super) fn write(self, latency: &Latency) -> Result<(), String> {
        let written = std::fs::write(&self.0, distribution(latency)?);
        written.map_err(|error| format!("cannot write {}: {error}", self.0.display()))
    }
}

fn distribution(latency: &Latency) -> Result<String, String> {
    let mut histogram: Histogram<u64> =
        Histogram::new(3).map_err(|error| format!("no histogram: {error}"))?;
    if latency.samples > 0 {
        let bytes = STANDARD.decode(&latency.histogram).map_err(|error| error.to_string())?;
        histogram = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("the histogram cannot be decoded: {error:?}"))?;
    }
    let ms = |ns: f64| ns / NS_PER_MS;
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for at in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += at.count_since_last_iteration();
        let value = ms(histogram.highest_equivalent(at.value_iterated_to()) as f64);
        let quantile = at.quantile_iterated_to();
        let inverse = match quantile < 1.0 {
            true => format!(" {:14.2}", 1.0 / (1.0 - quantile)),
            false => String::new(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{value:12.6} {quantile:2.12} {total:10}{inverse}");
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n\
         #[Max     = {:12.6}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n\
         #[Unit    =           ms]\n",
        ms(histogram.mean()),
        ms(histogram.stdev()),
        ms(histogram.max() as f64),
        histogram.len(),
        histogram.buckets(),
        sub_buckets(histogram.sigfig()),
    );
    Ok(text)
}

/// Steps in one bucket: the power of two that resolves twice this many significant digits.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10_u64.pow(digits.into())).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

    fn latency(
        values_ns: impl Iterator<Item = u64>,
    ) -> Result<Latency, Box<dyn std::error::Error>> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000_000, 3)?;
        values_ns.for_each(|value| histogram.saturating_record(value));
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut bytes)?;
        let samples = histogram.len();
        Ok(Latency { samples, histogram: STANDARD.encode(bytes), ..Latency::default() })
    }

    /// Value, percentile and count of every line, and the four numbers of the footer's first two.
    type Parsed = (Vec<(f64, f64, u64)>, Vec<f64>);

    fn parse(text: &str) -> Result<Parsed, Box<dyn std::error::Error>> {
        let mut lines = text.lines();
        let header: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(header, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        assert_eq!(lines.next(), Some(""));
        let (mut rows, mut footer) = (Vec::new(), Vec::new());
        for line in lines {
            if let Some(rest) = line.strip_prefix("#[") {
                let numbers = rest.trim_end_matches(']').split([',', '=']);
                footer.extend(numbers.filter_map(|text| text.trim().parse::<f64>().ok()));
                continue;
            }
            let columns: Vec<_> = line.split_whitespace().collect();
            let (value, quantile) = (columns[0].parse()?, columns[1].parse::<f64>()?);
            match columns.get(3) {
                Some(inverse) => {
                    let expected = 1.0 / (1.0 - quantile);
                    let inverse: f64 = inverse.parse()?;
                    assert!((inverse / expected - 1.0).abs() < 0.01, "{line}");
                }
                None => assert!(quantile == 1.0, "{line}"),
            }
            rows.push((value, quantile, columns[2].parse()?));
        }
        Ok((rows, footer))
    }

    #[test]
    fn what_is_written_can_be_read_back() -> Result<(), Box<dyn std::error::Error>> {
        // 1 to 10,000 us, each once.
        let (rows, footer) = parse(&distribution(&latency((1..=10_000).map(|us| us * 1_000))?)?)?;
        assert!(rows.len() > 20, "{rows:?}");
        assert!(rows.is_sorted_by(|one, two| one.0 <= two.0 && one.2 <= two.2));
        for &(value, quantile, total) in &rows {
            // The k-th of 10,000 is k us, to three digits.
            assert!((total as f64 / 10_000.0 - quantile).abs() < 0.001 || total == 1, "{quantile}");
            assert!((value * 1_000.0 / total as f64 - 1.0).abs() < 0.001, "{value} {total}");
        }
        assert_eq!(rows.last().map(|row| (row.1, row.2)), Some((1.0, 10_000)));
        let [mean, _, max, count, buckets, steps] = footer[..] else { panic!("{footer:?}") };
        assert!((mean - 5.0005).abs() < 0.005 && (max - 10.0).abs() < 0.01, "{footer:?}");
        assert_eq!((count, steps), (10_000.0, 2_048.0));
        assert!(buckets > 1.0);
        Ok(())
    }

    #[test]
    fn no_samples_are_no_lines() -> Result<(), Box<dyn std::error::Error>> {
        let (rows, footer) = parse(&distribution(&Latency::default())?)?;
        assert_eq!((rows.len(), footer.get(3)), (0, Some(&0.0)));
        Ok(())
    }

    #[test]
    fn a_file_is_replaced_only_when_there_is_something_to_write()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("latency.hgrm");
        std::fs::write(&path, "a longer text than nothing ".repeat(1_000))?;
        let output = Output::open(&path)?;
        assert!(std::fs::read_to_string(&path)?.starts_with("a longer"));
        output.write(&latency([5_000_000].into_iter())?)?;
        let (rows, _) = parse(&std::fs::read_to_string(&path)?)?;
        assert_eq!(rows.first().map(|row| row.2), Some(1));
        let nowhere = folder.path().join("no/such/folder");
        assert!(Output::open(&nowhere).is_err_and(|text| text.contains("nothing was measured")));
        Ok(())
    }
}
