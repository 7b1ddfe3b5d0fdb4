//! Findings and ranks of one workload: all models against the reference, and all pairs.

use record::{Measured, Results, Role};

use super::measure::{Figure, Rounds, rounds, trials};
use super::{Cell, WorkloadSummary};
use crate::doubt::Doubt;
use crate::statistics::{BlockRatio, Finding, MARGIN, log_ratio, tied_ranks};

/// Fewest models that are ranked: a single one needs no rank.
const RANKED_MIN: usize = 2;

/// The ratio of two cells over the epochs that have both: slice by slice, or epoch by epoch for a
/// figure that only whole epochs have.
pub fn ratio(one: &Rounds, other: &Rounds, figure: Figure) -> Option<BlockRatio> {
    let logs = |(round, one): (&u32, &&Measured)| {
        let other = other.get(round)?;
        let blocks = figure.of_slices(one).into_iter().zip(figure.of_slices(other));
        let logs: Vec<f64> = blocks.filter_map(|(one, other)| log_ratio(one?, other?)).collect();
        match logs.is_empty() {
            true => Some(vec![log_ratio(figure.of(one)?, figure.of(other)?)?]),
            false => Some(logs),
        }
    };
    BlockRatio::of(&one.iter().filter_map(logs).collect::<Vec<_>>())
}

/// The ratio of two cells that were measured in different epochs.
pub fn ratio_of_epochs(one: &Rounds, other: &Rounds, figure: Figure) -> Option<BlockRatio> {
    let log = |(round, one): (&u32, &&Measured)| {
        Some(vec![log_ratio(figure.of(one)?, figure.of(other.get(round)?)?)?])
    };
    BlockRatio::of(&one.iter().filter_map(log).collect::<Vec<_>>())
}

/// Whether a cell may be compared by a figure. A rate with failures, or with a busy client, is not
/// the server's. CPU per request stays valid with a busy client, but not if the server spins. In an
/// open loop the rate is given.
pub fn is_judged(cell: &Cell, figure: Figure, open: bool) -> bool {
    let Ok(figures) = &cell.state else { return false };
    let spoilt = |doubt: &Doubt| match figure {
        Figure::Rate => doubt.unranks(),
        Figure::Server | Figure::Sum => {
            (doubt.unranks() && !doubt.is_of_client()) || matches!(doubt, Doubt::Spins(_))
        }
        Figure::Latency | Figure::Memory => doubt.unranks() && !doubt.is_of_client(),
    };
    let of_schedule = open && figure == Figure::Rate;
    let measured = figures.by.contains_key(&figure);
    measured && !of_schedule && !figures.doubts.iter().any(spoilt)
}

/// All pairs of the models that are compared by one figure.
#[derive(Debug, Default)]
pub struct Pairs {
    /// The models.
    pub labels: Vec<String>,
    /// `ratios[i][j]`: model i relative to model j. `None` for a model and itself, or with too few
    /// epochs.
    pub ratios: Vec<Vec<Option<BlockRatio>>>,
}

/// The best models by a figure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Best {
    /// The best model, and those within the margin. Empty if nothing was decided.
    pub best: Vec<String>,
    /// Models that may be as good, or not.
    pub undecided: Vec<String>,
}

impl Pairs {
    fn of(results: &Results, summary: &WorkloadSummary, figure: Figure) -> Pairs {
        let judged = |cell: &&Cell| is_judged(cell, figure, summary.is_open());
        let labels: Vec<String> =
            summary.cells.iter().filter(judged).map(|cell| cell.model.clone()).collect();
        let name = &summary.workload.name;
        let timed = |label: &String| rounds(trials(results, name, label, Role::Timed));
        let rounds: Vec<Rounds> = labels.iter().map(timed).collect();
        let row = |at: usize| {
            let of = |other: usize| (at != other).then(|| (&rounds[at], &rounds[other]));
            let ratios =
                (0..labels.len()).map(|other| of(other).and_then(|(a, b)| ratio(a, b, figure)));
            ratios.collect()
        };
        Pairs { ratios: (0..labels.len()).map(row).collect(), labels }
    }

    fn finding(&self, one: usize, other: usize) -> Finding {
        let ratio = self.ratios[one][other].as_ref();
        ratio.map_or(Finding::Unknown, |ratio| ratio.finding(MARGIN))
    }

    /// The possible places; `None` if there are too few models.
    fn places(&self, figure: Figure) -> Option<Vec<(usize, usize)>> {
        let better = if figure.more_is_better() { Finding::More } else { Finding::Less };
        let all = 0..self.labels.len();
        let row = |one| all.clone().map(|other| self.finding(one, other) == better).collect();
        let table: Vec<Vec<bool>> = all.clone().map(row).collect();
        (all.len() >= RANKED_MIN).then(|| tied_ranks(&table))
    }

    /// The best models; `None` if there are too few. The first is that with the best estimate: most
    /// others have a worse one.
    pub fn best(&self, figure: Figure) -> Option<Best> {
        let all = 0..self.labels.len();
        let better = |ratio: &BlockRatio| (ratio.ratio > 1.0) == figure.more_is_better();
        let won =
            |one: usize| self.ratios[one].iter().flatten().filter(|ratio| better(ratio)).count();
        let first = all.clone().max_by_key(|&one| won(one)).filter(|_| all.len() >= RANKED_MIN)?;
        let mut best = Best { best: vec![self.labels[first].clone()], ..Best::default() };
        for other in all.filter(|&other| other != first) {
            let label = self.labels[other].clone();
            let ratio = self.ratios[other][first].as_ref();
            // It may be significantly worse, but by less than the margin.
            let near = ratio.is_some_and(|ratio| ratio.is_near(MARGIN));
            match self.finding(other, first) {
                _ if near => best.best.push(label),
                Finding::Unknown => best.undecided.push(label),
                Finding::Equal | Finding::More | Finding::Less => {}
            }
        }
        // A model that is not shown to be better than any other is not the best.
        if best.undecided.len() + 1 == self.labels.len() {
            best.undecided.splice(0..0, std::mem::take(&mut best.best));
        }
        Some(best)
    }
}

/// Adds pairs, findings and ranks to the summary.
pub fn judge(results: &Results, summary: &mut WorkloadSummary) {
    for figure in Figure::ALL {
        let pairs = Pairs::of(results, summary, figure);
        let reference = pairs.labels.iter().position(|label| *label == results.reference);
        let places = pairs.places(figure);
        for (at, label) in pairs.labels.iter().enumerate() {
            let cell = summary.cells.iter_mut().find(|cell| cell.model == *label);
            let figures = cell.and_then(|cell| cell.state.as_mut().ok());
            let Some(of) = figures.and_then(|figures| figures.by.get_mut(&figure)) else {
                continue;
            };
            let other = reference.filter(|&other| other != at);
            of.finding = other.map(|other| pairs.finding(at, other));
            of.rank = places.as_ref().map(|places| places[at]);
        }
        summary.pairs.insert(figure, pairs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs of models with these figures; `half`: half-width of the spread on the log scale.
    fn pairs(figures: &[(&str, f64)], half: f64) -> Pairs {
        let ratio = |one: f64, other: f64| {
            let log = (one / other).ln();
            BlockRatio::of(&[vec![log - half], vec![log], vec![log + half]])
        };
        let row = |(at, one): (usize, &(&str, f64))| {
            let others = figures.iter().enumerate();
            others.map(|(to, other)| (to != at).then(|| ratio(one.1, other.1)).flatten()).collect()
        };
        Pairs {
            labels: figures.iter().map(|(label, _)| (*label).to_owned()).collect(),
            ratios: figures.iter().enumerate().map(row).collect(),
        }
    }

    #[test]
    fn models_as_good_as_the_best_are_best_and_undecided_ones_are_undecided() {
        let figures = [("poll", 1.2), ("epoll", 1.0), ("uring", 1.01)];
        let sure = pairs(&figures, 0.001);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let best = Best { best: names(&["epoll", "uring"]), undecided: Vec::new() };
        assert_eq!(sure.best(Figure::Server), Some(best));
        let best = Best { best: names(&["poll"]), undecided: Vec::new() };
        assert_eq!(sure.best(Figure::Rate), Some(best));
        let unsure = pairs(&figures, 0.1);
        let best = Best { best: Vec::new(), undecided: names(&["epoll", "poll", "uring"]) };
        assert_eq!(unsure.best(Figure::Server), Some(best));
        assert_eq!(pairs(&figures[..1], 0.001).best(Figure::Server), None);
    }

    #[test]
    fn places_are_shared_by_those_that_were_not_told_apart() {
        let figures = [("poll", 1.2), ("epoll", 1.0), ("uring", 1.3)];
        let places = |half, figure| pairs(&figures, half).places(figure);
        assert_eq!(places(0.001, Figure::Server), Some(vec![(2, 2), (1, 1), (3, 3)]));
        assert_eq!(places(0.001, Figure::Rate), Some(vec![(2, 2), (3, 3), (1, 1)]));
        assert_eq!(places(0.1, Figure::Server), Some(vec![(1, 3), (1, 3), (1, 3)]));
        assert_eq!(pairs(&figures[..1], 0.001).places(Figure::Server), None);
    }
}
