//! What the curves are made of: which cells make an axis, and what only the trials can tell.

use std::collections::BTreeSet;

use record::{IdleSample, MemorySample, Outcome, Results, Role, Trial, Workload};

use crate::statistics::{Estimate, estimate};
use crate::summary::{self, Cell, KEPT_MIN, KERNEL_STACK_KIB, Summary, WorkloadSummary, trials};

/// All cells of a workload, the floor's last.
pub fn cells(workload: &WorkloadSummary) -> impl Iterator<Item = &Cell> {
    workload.cells.iter().chain(&workload.floor)
}

/// The cell of a model under a workload.
pub fn cell<'a>(summary: &'a Summary, workload: &str, model: &str) -> Option<&'a Cell> {
    let workload = summary.workloads.iter().find(|w| w.workload.name == workload)?;
    cells(workload).find(|cell| cell.model == model)
}

/// The workloads that differ in nothing but their idle connections, fewest first: `GET /` over
/// keep-alive connections in a closed loop, one request at a time.
pub fn idle_axis(results: &Results) -> Vec<&Workload> {
    let plain = |w: &&Workload| {
        w.protocol == "http"
            && !w.tls
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AtRate {
    /// It kept the rate: median and, with enough samples, 99th percentile, in microseconds.
    Kept {
        /// The median.
        p50_us: f64,
        /// The 99th percentile.
        p99_us: Option<f64>,
    },
    /// It answered this share in time: beyond the knee a latency grows with the window's length,
    /// and is no property of the server.
    Behind(f64),
    /// The client fell behind its own schedule in every round: nothing is known.
    ClientBehind,
}

/// A model under one open loop; `None` when it was not measured.
pub fn at_rate(
    results: &Results,
    summary: &Summary,
    workload: &str,
    model: &str,
) -> Option<AtRate> {
    let figures = cell(summary, workload, model)?.state.as_ref().ok();
    let Some(open) = figures.and_then(|figures| figures.open.as_ref()) else {
        let tried = trials(results, workload, model, Role::Timed).any(
            |trial| matches!(&trial.outcome, Outcome::Measured(m) if m.load.open_loop.is_some()),
        );
        return tried.then_some(AtRate::ClientBehind);
    };
    if open.answered_share < KEPT_MIN {
        return Some(AtRate::Behind(open.answered_share));
    }
    Some(AtRate::Kept { p50_us: open.p50_us?, p99_us: open.p99_us })
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
            estimate(&these().map(grown).collect::<Vec<_>>())
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

/// Those of plain connections: what frames and keys add is told by protocol.
fn idle_samples(results: &Results) -> impl Iterator<Item = (&str, &IdleSample)> {
    let plain = |trial: &&Trial| {
        let mut workloads = results.workloads.iter();
        let plain = |workload: &Workload| {
            workload.name == trial.slot.workload && summary::is_plain(workload)
        };
        trial.slot.role != Role::Counting && workloads.any(plain)
    };
    results.trials.iter().filter(plain).filter_map(|trial| match &trial.outcome {
        Outcome::Measured(measured) => Some((&*trial.slot.model, measured.idle.as_ref()?)),
        Outcome::Failed { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarise;

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
        match at_rate(&results, &summarise(&results), "rate-10000", "epoll") {
            Some(AtRate::Kept { p50_us, p99_us: Some(p99_us) }) => {
                assert!((p50_us - 100.0).abs() < 1.0, "{p50_us}");
                assert!((p99_us - 100.0).abs() < 1.0, "{p99_us}");
            }
            other => panic!("epoll keeps 10,000/s: {other:?}"),
        }
    }

    #[test]
    fn behind_is_told_from_a_client_behind() {
        let mut results = fixture::rich();
        let at =
            |results: &Results, workload| at_rate(results, &summarise(results), workload, "poll");
        let behind = at(&results, "rate-40000");
        assert!(matches!(behind, Some(AtRate::Behind(share)) if (share - 0.75).abs() < 1e-9));
        assert_eq!(at(&results, "http-keepalive"), None);
        // What is answered after the window comes too late.
        for trial in &mut results.trials {
            if let Outcome::Measured(measured) = &mut trial.outcome
                && let Some(open) = &mut measured.load.open_loop
            {
                open.unanswered = 0;
            }
        }
        assert!(matches!(at(&results, "rate-40000"), Some(AtRate::Behind(_))));
        for trial in &mut results.trials {
            if let Outcome::Measured(measured) = &mut trial.outcome
                && let Some(open) = &mut measured.load.open_loop
            {
                open.invalid = Some("late".into());
            }
        }
        assert_eq!(at(&results, "rate-40000"), Some(AtRate::ClientBehind));
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
}
