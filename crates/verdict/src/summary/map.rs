//! The map: which model is best for each number of active and of idle connections.

use record::{Protocol, Workload};

use super::judge::Best;
use super::{Figure, Summary, WorkloadSummary, is_plain};

/// One point of the map.
#[derive(Debug)]
pub struct Point<'a> {
    /// Active connections.
    pub active: u32,
    /// Idle connections.
    pub idle: u32,
    /// The workload of this point.
    pub workload: &'a WorkloadSummary,
    /// The best by CPU per request; `None` if too few models could be compared.
    pub by_cpu: Option<Best>,
    /// The best by requests/s.
    pub by_rate: Option<Best>,
    /// The best by memory.
    pub by_memory: Option<Best>,
}

/// Whether a workload is a point of the map: a closed loop of short requests over HTTP/1.1 with
/// keep-alive.
fn is_point(workload: &Workload) -> bool {
    let plain = is_plain(workload) && workload.protocol == Protocol::Http1 && !workload.post;
    let steady = !workload.connect_per_request && workload.pipelining == 1;
    let closed = workload.rate_per_s.is_none() && !workload.processors_sleep;
    plain && steady && closed && workload.path.as_deref() == Some("/")
}

/// The measured points, ordered by idle, then by active connections.
pub fn map(summary: &Summary) -> Vec<Point<'_>> {
    let point = |workload: &'_ WorkloadSummary| {
        let best = |figure: Figure| workload.pairs.get(&figure)?.best(figure);
        (best(Figure::Server), best(Figure::Rate), best(Figure::Memory))
    };
    let points = summary.workloads.iter().filter(|of| is_point(&of.workload));
    let mut points: Vec<Point> = points
        .map(|workload| {
            let (by_cpu, by_rate, by_memory) = point(workload);
            let (active, idle) =
                (workload.workload.connections, workload.workload.idle_connections);
            Point { active, idle, workload, by_cpu, by_rate, by_memory }
        })
        .collect();
    points.sort_by_key(|point| (point.idle, point.active));
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarise;

    #[test]
    fn the_points_are_the_plain_closed_loops_and_each_has_its_best() {
        let results = fixture::rich();
        let summary = summarise(&results);
        let points = map(&summary);
        let places: Vec<_> = points.iter().map(|point| (point.active, point.idle)).collect();
        assert_eq!(places, [(64, 0), (64, 1_000), (64, 10_000)]);
        let best = points[1].by_cpu.as_ref().unwrap();
        assert_eq!((best.best.as_slice(), best.undecided.len()), (&["epoll".to_owned()][..], 0));
    }
}
