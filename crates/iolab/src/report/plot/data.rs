//! What the curves are made of, straight from the trials: one estimate over the rounds for each
//! model and place on an axis. Latencies are merged as histograms, never averaged.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use record::{Calls, IdleSample, Measured, MemorySample, Outcome, Results, Role, Workload};

use crate::statistics::{Estimate, estimate, median};

/// A percentile is drawn with at least so many samples beyond it.
const SAMPLES_BEYOND_MIN: u64 = 10;

/// Significant digits of a merged histogram: those of the load generator's.
const DIGITS: u8 = 3;

/// A model keeps an offered rate when it answers at least this share of what fell due in the
/// window. What is on its way at the window's end is less: 64 requests of thousands.
pub const KEPT_MIN: f64 = 0.98;

/// Size of a kernel stack on x86-64 and arm64 (THREAD_SIZE), in KiB.
const KERNEL_STACK_KIB: f64 = 16.0;

/// The measured windows of one cell, in the order of running.
pub fn measured<'a>(
    results: &'a Results,
    workload: &'a str,
    model: &'a str,
    role: Role,
) -> impl Iterator<Item = &'a Measured> {
    let wanted = move |slot: &record::Slot| {
        slot.workload == workload && slot.model == model && slot.role == role
    };
    results.trials.iter().filter(move |trial| wanted(&trial.slot)).filter_map(|trial| match &trial
        .outcome
    {
        Outcome::Measured(measured) => Some(&**measured),
        Outcome::Failed { .. } => None,
    })
}

/// A figure per round of one cell.
pub fn over_rounds(
    results: &Results,
    workload: &str,
    model: &str,
    figure: impl Fn(&Measured) -> f64,
) -> Option<Estimate> {
    let timed = measured(results, workload, model, Role::Timed);
    let values: Vec<f64> = timed.filter(|m| m.load.requests > 0).map(figure).collect();
    estimate(&values, results.settings.seed)
}

/// The workloads that differ in nothing but their idle connections, fewest first: `GET /` over
/// keep-alive connections in a closed loop, one request at a time.
pub fn idle_axis(results: &Results) -> Vec<&Workload> {
    let plain = |w: &&Workload| {
        w.protocol == "http"
            && w.path.as_deref() == Some("/")
            && !w.post
            && !w.connect_per_request
            && w.pipelining == 1
            && w.rate_per_s.is_none()
    };
    let plain: Vec<_> = results.workloads.iter().filter(plain).collect();
    let Some(first) = plain.iter().find(|w| w.idle_connections > 0) else { return Vec::new() };
    let active = first.connections;
    let mut axis: Vec<_> = plain.into_iter().filter(|w| w.connections == active).collect();
    axis.sort_by_key(|w| w.idle_connections);
    axis.dedup_by_key(|w| w.idle_connections);
    axis
}

/// Families of open loops that differ in their rate only, slowest first, in the file's order.
pub fn rate_axes(results: &Results) -> Vec<Vec<&Workload>> {
    let rest = |w: &Workload| Workload {
        name: String::new(),
        description: String::new(),
        rate_per_s: None,
        idle_sample_connections: 0,
        ..w.clone()
    };
    let mut families: Vec<(Workload, Vec<&Workload>)> = Vec::new();
    for workload in results.workloads.iter().filter(|w| w.rate_per_s.is_some()) {
        let key = rest(workload);
        match families.iter_mut().find(|(other, _)| *other == key) {
            Some((_, family)) => family.push(workload),
            None => families.push((key, vec![workload])),
        }
    }
    let mut axes: Vec<Vec<&Workload>> = families.into_iter().map(|(_, family)| family).collect();
    axes.iter_mut().for_each(|axis| axis.sort_by_key(|w| w.rate_per_s));
    axes.retain(|axis| axis.len() > 1);
    axes
}

/// What one offered rate did to a model.
pub enum AtRate {
    /// It kept the rate: median and, with enough samples, 99th percentile, in microseconds.
    Kept {
        /// The median.
        p50_us: f64,
        /// The 99th percentile.
        p99_us: Option<f64>,
    },
    /// It answered this share of what fell due: beyond the knee a latency grows with the window's
    /// length, and is no property of the server.
    Behind(f64),
    /// The client fell behind its own schedule in every round: nothing is known.
    ClientBehind,
}

/// A model under one open loop; `None` when it was not measured.
pub fn at_rate(results: &Results, workload: &str, model: &str) -> Option<AtRate> {
    let all: Vec<_> = measured(results, workload, model, Role::Timed).collect();
    let open = |m: &&Measured| m.load.open_loop.clone();
    all.iter().find_map(open)?;
    let valid: Vec<&Measured> =
        all.iter().filter(|m| open(m).is_some_and(|o| o.invalid.is_none())).copied().collect();
    if valid.is_empty() {
        return Some(AtRate::ClientBehind);
    }
    let share = |m: &&Measured| {
        open(m).filter(|open| open.due > 0).map(|open| m.load.requests as f64 / open.due as f64)
    };
    let kept = median(&valid.iter().filter_map(share).collect::<Vec<_>>())?;
    if kept < KEPT_MIN {
        return Some(AtRate::Behind(kept));
    }
    let latency = merged(valid.into_iter())?;
    let us = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    let p99_us = (latency.len() / 100 >= SAMPLES_BEYOND_MIN).then(|| us(0.99));
    Some(AtRate::Kept { p50_us: us(0.5), p99_us })
}

/// The latencies of all rounds in one histogram, in nanoseconds; `None` without any sample, or with
/// one that cannot be read.
fn merged<'a>(rounds: impl Iterator<Item = &'a Measured>) -> Option<Histogram<u64>> {
    // One that grows: what was read back has the bounds of its own round.
    let mut sum = Histogram::new(DIGITS).ok()?;
    for measured in rounds {
        let bytes = STANDARD.decode(&measured.load.latency.histogram).ok()?;
        let one: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).ok()?;
        sum.add(one).ok()?;
    }
    (!sum.is_empty()).then_some(sum)
}

/// What a model's memory grew by while connections were opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Connections open.
    pub connections: u32,
    /// Its own pages (proportional set size), in KiB.
    pub user: Estimate,
    /// The kernel's memory for it, in KiB.
    pub kernel: Estimate,
}

/// Whether the kernel's part was read from cgroups, rather than put together from what /proc shows.
pub fn kernel_is_counted(results: &Results) -> bool {
    let samples = idle_samples(results).map(|(_, sample)| sample);
    let mut known = samples.map(|s| s.memory.kernel_kib.is_some());
    known.next().is_some_and(|first| first && known.all(|one| one))
}

/// Growth at every number of connections that was sampled, fewest first.
pub fn growth(results: &Results, model: &str) -> Vec<Growth> {
    let counted = kernel_is_counted(results);
    let samples = || idle_samples(results).filter(|(label, _)| *label == model);
    let counts: BTreeSet<u32> = samples().map(|(_, s)| s.connections).collect();
    let at = |connections: u32| {
        let these = || samples().map(|(_, s)| s).filter(|s| s.connections == connections);
        let over = |figure: &dyn Fn(MemorySample) -> f64| {
            let grown = |s: &IdleSample| figure(s.memory) - figure(s.memory_before);
            estimate(&these().map(grown).collect::<Vec<_>>(), results.settings.seed)
        };
        let user = over(&|m| m.pss_kib as f64)?;
        let kernel = over(&|m| match m.kernel_kib.filter(|_| counted) {
            Some(kib) => kib as f64,
            None => m.page_tables_kib as f64 + f64::from(m.threads) * KERNEL_STACK_KIB,
        })?;
        Some(Growth { connections, user, kernel })
    };
    counts.into_iter().filter(|&count| count > 0).filter_map(at).collect()
}

fn idle_samples(results: &Results) -> impl Iterator<Item = (&str, &IdleSample)> {
    results.trials.iter().filter(|trial| trial.slot.role != Role::Counting).filter_map(|trial| {
        match &trial.outcome {
            Outcome::Measured(measured) => Some((&*trial.slot.model, measured.idle.as_ref()?)),
            Outcome::Failed { .. } => None,
        }
    })
}

/// System calls and ring operations of one request.
#[derive(Debug, Default, PartialEq)]
pub struct CallsPerRequest {
    /// All system calls.
    pub total: f64,
    /// By name; calls that are followed by no name are missing.
    pub by_name: BTreeMap<String, f64>,
    /// All operations that were handed to a ring.
    pub ring_total: f64,
    /// By operation.
    pub ring_by_name: BTreeMap<String, f64>,
}

/// The counting passes of one cell, summed and divided by the requests in them; `None` without any.
pub fn calls(results: &Results, workload: &str, model: &str) -> Option<CallsPerRequest> {
    let mut sum = Calls::default();
    let mut requests = 0;
    for one in measured(results, workload, model, Role::Counting) {
        let Some(calls) = &one.calls else { continue };
        requests += one.load.requests;
        sum.total += calls.total;
        sum.ring_operations += calls.ring_operations;
        let add = |into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>| {
            for (name, count) in from {
                *into.entry(name.clone()).or_default() += count;
            }
        };
        add(&mut sum.by_name, &calls.by_name);
        add(&mut sum.ring_by_name, &calls.ring_by_name);
    }
    if requests == 0 {
        return None;
    }
    let each = |count: u64| count as f64 / requests as f64;
    let names = |counts: BTreeMap<String, u64>| {
        counts.into_iter().map(|(name, count)| (name, each(count))).collect()
    };
    Some(CallsPerRequest {
        total: each(sum.total),
        by_name: names(sum.by_name),
        ring_total: each(sum.ring_operations),
        ring_by_name: names(sum.ring_by_name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_idle_axis_begins_without_idle_connections() {
        let results = fixture::rich();
        let names: Vec<_> = idle_axis(&results).iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["http-keepalive", "idle-1000", "idle-10000"]);
        let mut without = results.clone();
        without.workloads.retain(|w| w.idle_connections == 0);
        assert!(idle_axis(&without).is_empty());
    }

    #[test]
    fn a_family_of_rates_is_one_axis() {
        let results = fixture::rich();
        let axes = rate_axes(&results);
        assert_eq!(axes.len(), 1);
        let rates: Vec<_> = axes[0].iter().filter_map(|w| w.rate_per_s).collect();
        assert_eq!(rates, [10_000, 20_000, 40_000]);
    }

    #[test]
    fn percentiles_come_from_merged_histograms() {
        // In round 6 alone 3 % are slow: 5 ms. Of all six rounds together that is less than 1 %, so
        // the merged 99th percentile is 100 us; the mean of the six would be near a millisecond.
        let mut results = fixture::rich();
        fixture::slow_replies(&mut results, ("rate-10000", "epoll", 6), 0.03, 5_000);
        match at_rate(&results, "rate-10000", "epoll") {
            Some(AtRate::Kept { p50_us, p99_us: Some(p99_us) }) => {
                assert!((p50_us - 100.0).abs() < 1.0, "{p50_us}");
                assert!((p99_us - 100.0).abs() < 1.0, "{p99_us}");
            }
            _ => panic!("epoll keeps 10,000/s"),
        }
    }

    #[test]
    fn behind_is_told_from_a_client_behind() {
        let mut results = fixture::rich();
        let behind = at_rate(&results, "rate-40000", "poll");
        assert!(matches!(behind, Some(AtRate::Behind(share)) if (share - 0.75).abs() < 1e-9));
        assert!(at_rate(&results, "http-keepalive", "poll").is_none());
        for trial in &mut results.trials {
            if let Outcome::Measured(measured) = &mut trial.outcome
                && let Some(open) = &mut measured.load.open_loop
            {
                open.invalid = Some("late".into());
            }
        }
        let client = at_rate(&results, "rate-40000", "poll");
        assert!(matches!(client, Some(AtRate::ClientBehind)));
    }

    #[test]
    fn memory_grows_by_what_was_opened() {
        let results = fixture::rich();
        let threads = growth(&results, "threads");
        let counts: Vec<_> = threads.iter().map(|g| g.connections).collect();
        assert_eq!(counts, [1_000, 10_000]);
        assert_eq!(threads[1].user.median, 200_000.0);
        assert!(kernel_is_counted(&results));
        assert_eq!(threads[1].kernel.median, 30_000.0);
        // One sample without a cgroup, and all are put together from /proc.
        let mut results = results;
        let sample = results.trials.iter_mut().find_map(|trial| match &mut trial.outcome {
            Outcome::Measured(measured) => measured.idle.as_mut(),
            Outcome::Failed { .. } => None,
        });
        sample.unwrap().memory.kernel_kib = None;
        assert!(!kernel_is_counted(&results));
        assert_eq!(growth(&results, "threads")[1].kernel.median, 0.0);
    }

    #[test]
    fn calls_are_divided_by_the_requests_of_their_own_pass() {
        let results = fixture::rich();
        let epoll = calls(&results, "http-keepalive", "epoll").unwrap();
        assert!((epoll.total - 2.1).abs() < 1e-9);
        assert!((epoll.by_name["read"] - 1.0).abs() < 1e-9);
        assert!(calls(&fixture::results(), "http-keepalive", "epoll").is_none());
    }
}
