//! The checks of a soak, as pure functions.

use render::text::{count, thousands};

/// In this time pools, tables and allocators grow to what the traffic needs.
const SETTLE_S: f64 = 60.0;

/// Fewest samples in a third of the time for a useful median.
const SAMPLES_MIN: usize = 3;

/// Growth up to this is no leak: an allocator keeps more or fewer pages if the order of requests
/// changes. In ten minutes a server has dozens of turns with hundreds of connections and thousands
/// of requests each, so a leak of 200 bytes per connection is larger.
const GROWTH_KIB_MAX: u64 = 2 << 10;

/// Also up to 1/10 of the memory: a pool of hundreds of threads keeps more or less memory,
/// depending on how many were busy together.
const GROWTH_PARTS: u64 = 10;

/// Memory of a server after its clients have closed.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub at_s: f64,
    /// Proportional set size and page tables.
    pub kib: u64,
}

/// Memory after the first minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    Unknown,
    /// Medians of the first and the last third, in KiB.
    Seen {
        early: u64,
        late: u64,
    },
}

impl Growth {
    /// `samples`: in the order of time.
    pub fn of(samples: &[Sample]) -> Growth {
        let settled: Vec<u64> =
            samples.iter().filter(|sample| sample.at_s > SETTLE_S).map(|s| s.kib).collect();
        let third = settled.len() / 3;
        if third < SAMPLES_MIN {
            return Growth::Unknown;
        }
        let (early, late) = (&settled[..third], &settled[settled.len() - third..]);
        Growth::Seen { early: median(early), late: median(late) }
    }

    pub fn is_unknown(&self) -> bool {
        *self == Growth::Unknown
    }

    fn complaint(self) -> Option<String> {
        let Growth::Seen { early, late } = self else { return None };
        let allowed = early + GROWTH_KIB_MAX.max(early / GROWTH_PARTS);
        (late > allowed).then(|| {
            let told = |kib: u64| thousands(kib as f64);
            format!(
                "its memory grew from {} to {} KiB after the first minute",
                told(early),
                told(late)
            )
        })
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The result of one model. The server without TLS is first, then that with TLS.
#[derive(Debug)]
pub struct SoakResult {
    pub label: String,
    pub turns: u32,
    /// Requests of the clients; all were answered unless `wrong` says otherwise.
    pub requests: u64,
    pub growth: Vec<Growth>,
    /// Descriptors of each server at the start and at the end.
    pub descriptors: Vec<(usize, usize)>,
    pub wrong: Vec<String>,
}

pub fn complaints(outcome: &SoakResult) -> impl Iterator<Item = String> + '_ {
    let memory = outcome.growth.iter().filter_map(|growth| growth.complaint());
    let all = outcome.wrong.iter().cloned().chain(memory);
    all.map(|complaint| format!("{}: {complaint}", outcome.label))
}

pub fn line(outcome: &SoakResult) -> String {
    let verdict = if complaints(outcome).next().is_none() { "HOLDS" } else { "FAILS" };
    let memory = outcome.growth.iter().map(|growth| match growth {
        Growth::Unknown => "-".to_owned(),
        Growth::Seen { early, late } => {
            format!("{} -> {} KiB", thousands(*early as f64), thousands(*late as f64))
        }
    });
    let descriptors = outcome.descriptors.iter().map(|(start, end)| format!("{start} -> {end}"));
    format!(
        "{verdict}  {:<18} {}, {} requests; memory {}; descriptors {}",
        outcome.label,
        count(outcome.turns, "turn"),
        thousands(outcome.requests as f64),
        memory.collect::<Vec<_>>().join(", with TLS "),
        descriptors.collect::<Vec<_>>().join(", with TLS "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(kib: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..60).map(|n| Sample { at_s: n as f64 * 10.0, kib: kib(n) }).collect()
    }

    #[test]
    fn growth_in_the_first_minute_is_none() {
        let settles = samples(|n| if n <= 6 { n * 1_000 } else { 6_000 + n % 3 });
        let growth = Growth::of(&settles);
        assert_eq!(growth, Growth::Seen { early: 6_001, late: 6_001 });
        assert_eq!(growth.complaint(), None);
    }

    #[test]
    fn a_leak_is_seen() {
        let told = Growth::of(&samples(|n| 6_000 + 100 * n)).complaint().unwrap();
        assert!(told.contains("from 7,500 to 11,"), "{told}");
    }

    #[test]
    fn a_short_soak_says_nothing_about_memory() {
        let growth = Growth::of(&samples(|n| 100 * n)[..9]);
        assert!(growth.is_unknown() && growth.complaint().is_none());
    }

    #[test]
    fn what_went_wrong_is_told_with_the_model_s_name() {
        let outcome = SoakResult {
            label: "epoll".into(),
            turns: 3,
            requests: 5_000,
            growth: vec![Growth::Unknown],
            descriptors: vec![(7, 8)],
            wrong: vec!["it is gone".into()],
        };
        assert_eq!(complaints(&outcome).collect::<Vec<_>>(), ["epoll: it is gone"]);
        assert!(line(&outcome).starts_with("FAILS  epoll "), "{}", line(&outcome));
        let well = SoakResult { wrong: vec![], ..outcome };
        assert!(line(&well).starts_with("HOLDS  epoll ") && line(&well).contains("5,000 requests"));
    }
}
