//! The data of the plots: the cells of an axis.

use record::{Protocol, Results, Workload};

use verdict::statistics::Interval;
use verdict::summary::{Cell, Figure, Figures, KEPT_MIN, Summary, WorkloadSummary};

/// A figure in a plot with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value {
    /// The figure.
    pub at: f64,
    /// See [`interval`].
    pub interval: Option<Interval>,
}

impl Value {
    /// A figure of a cell.
    pub fn of(figures: &Figures, figure: Figure) -> Value {
        let at = figures.judged(figure).map_or(0.0, |judged| judged.value.median);
        Value { at, interval: interval(figures, figure) }
    }

    /// The figure and the ends of its interval.
    pub fn heights(&self) -> impl Iterator<Item = f64> + use<> {
        let ends = self.interval.map(|interval| [interval.low, interval.high]);
        std::iter::once(self.at).chain(ends.into_iter().flatten())
    }
}

/// The interval of a figure in the comparison with the reference: the interval of its ratio, in the
/// figure's unit. `None` for the reference itself. It does not include disturbances that affected
/// all models.
pub fn interval(figures: &Figures, figure: Figure) -> Option<Interval> {
    let judged = figures.judged(figure)?;
    let ratio = judged.ratio.as_ref()?;
    let unit = judged.value.median / ratio.ratio;
    Some(Interval { low: ratio.interval.low * unit, high: ratio.interval.high * unit })
}

/// All cells of a workload, the floor's last.
pub fn cells(workload: &WorkloadSummary) -> impl Iterator<Item = &Cell> {
    workload.cells.iter().chain(&workload.floor)
}

/// The figures of a model under a workload.
pub fn figures<'a>(summary: &'a Summary, workload: &str, model: &str) -> Option<&'a Figures> {
    let workload = summary.workloads.iter().find(|w| w.workload.name == workload)?;
    cells(workload).find(|cell| cell.model == model)?.state.as_deref().ok()
}

/// A workload without its name, its samples, and what `of` removes.
fn rest(workload: &Workload, of: &dyn Fn(&mut Workload)) -> Workload {
    let mut rest = workload.clone();
    (rest.name, rest.description, rest.idle_sample_connections) = Default::default();
    of(&mut rest);
    rest
}

/// The largest group of workloads that differ only in what `of` removes; of equally large groups
/// the first.
fn family<'a>(
    workloads: impl Iterator<Item = &'a Workload>,
    of: &dyn Fn(&mut Workload),
) -> Vec<&'a Workload> {
    let mut families: Vec<(Workload, Vec<&Workload>)> = Vec::new();
    for workload in workloads {
        let key = rest(workload, of);
        match families.iter_mut().find(|(other, _)| *other == key) {
            Some((_, family)) => family.push(workload),
            None => families.push((key, vec![workload])),
        }
    }
    let largest = families.into_iter().rev().max_by_key(|(_, family)| family.len());
    largest.map(|(_, family)| family).unwrap_or_default()
}

/// The workloads that differ only in idle connections, fewest first: `GET /` over keep-alive
/// connections in a closed loop, one request at a time.
pub fn idle_axis(results: &Results) -> Vec<&Workload> {
    let plain = |w: &&Workload| {
        let one = w.protocol == Protocol::Http1 && !w.tls && !w.post && w.pipelining == 1;
        let steady = !w.connect_per_request && w.rate_per_s.is_none() && !w.processors_sleep;
        one && steady && w.path.as_deref() == Some("/")
    };
    let plain = results.workloads.iter().filter(plain);
    let mut axis = family(plain, &|workload| workload.idle_connections = 0);
    axis.sort_by_key(|w| w.idle_connections);
    axis
}

/// The open loops that differ only in their rate, slowest first, and the same closed loop.
pub fn rate_axis(results: &Results) -> (Vec<&Workload>, Option<&Workload>) {
    let without = |workload: &mut Workload| workload.rate_per_s = None;
    let open = results.workloads.iter().filter(|w| w.rate_per_s.is_some());
    let mut axis = family(open, &without);
    axis.sort_by_key(|w| w.rate_per_s);
    let key = axis.first().map(|first| rest(first, &without));
    let closed = |w: &&Workload| w.rate_per_s.is_none() && Some(rest(w, &without)) == key;
    let closed = results.workloads.iter().find(closed);
    (axis, closed)
}

/// Whether a server kept up with the rate; otherwise a figure depends on the length of the window.
pub fn keeps(figures: &Figures) -> bool {
    figures.open.as_ref().is_some_and(|open| open.answered_share >= KEPT_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_axis_begins_without_idle_connections() {
        let results = fixture::rich();
        let names: Vec<_> = idle_axis(&results).iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["http-keepalive", "idle-1000", "idle-10000"]);
        let mut without = results.clone();
        without.workloads.retain(|w| w.idle_connections == 0);
        assert_eq!(idle_axis(&without).len(), 1);
    }

    #[test]
    fn a_family_of_rates_is_one_axis() {
        let results = fixture::rich();
        let (axis, closed) = rate_axis(&results);
        let rates: Vec<_> = axis.iter().filter_map(|w| w.rate_per_s).collect();
        assert_eq!(rates, [10_000, 20_000, 40_000]);
        assert_eq!(closed.unwrap().name, "http-keepalive");
    }
}
