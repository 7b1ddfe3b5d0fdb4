//! Verdicts and ranks of one workload: the families of comparisons, and when they are refused.

use record::{Measured, Preset, Results, Role, Workload};

use super::measure::{Figure, Rounds, rounds, trials};
use super::{Cell, Figures, WorkloadSummary, ratio};
use crate::doubt::Doubt;
use crate::statistics::{
    Contrast, Estimate, Match, Verdict, differs, log_ratio, rounds_needed, separable, tied_ranks,
    verdicts,
};

/// Smallest difference that is ever called one: placement and alignment alone move figures by that.
pub const THRESHOLD_MIN: f64 = 0.03;

/// Fewest rounds that are ranked: with fewer, the bootstrap interval is the range of a few values.
pub const ROUNDS_MIN: u32 = 6;

/// The noise of one figure in one workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Noise {
    /// The A/A comparison: ratio of the reference's second run in a round to its first.
    pub sentinel: Option<Estimate>,
    /// The smallest difference that is called one: 3 %, or the reach of the sentinel's interval.
    pub threshold: f64,
    /// Why nothing is ranked by this figure; `None` when the ranks stand.
    pub refused: Option<String>,
    /// The reason is that so few rounds cannot tell so many models apart.
    pub inseparable: bool,
}

/// How far an interval reaches from 1, as a ratio above it: 0.9-1.02 reaches 0.11.
pub fn reach(sentinel: Option<Estimate>) -> f64 {
    let interval = sentinel.and_then(|sentinel| sentinel.interval);
    interval.map_or(0.0, |i| (i.high - 1.0).max(1.0 / i.low - 1.0))
}

/// The noise of a figure, and whether it allows a ranking.
pub fn noise(results: &Results, workload: &Workload, figure: Figure) -> Noise {
    let of = |role| rounds(trials(results, &workload.name, &results.reference, role));
    let timed = of(Role::Timed);
    let sentinel = ratio(&of(Role::Sentinel), &timed, figure);
    let refused = refused(results, timed.len(), sentinel);
    Noise { sentinel, threshold: reach(sentinel).max(THRESHOLD_MIN), refused, inseparable: false }
}

fn refused(results: &Results, rounds: usize, sentinel: Option<Estimate>) -> Option<String> {
    if results.settings.preset == Preset::Quick || rounds < ROUNDS_MIN as usize {
        return Some(format!("{rounds} rounds are not for ranking (at least {ROUNDS_MIN} are)"));
    }
    let sentinel = sentinel?;
    differs(&sentinel, THRESHOLD_MIN).then(|| {
        format!(
            "the reference differs from itself ({:.2} times): the machine was too unsteady to rank",
            sentinel.median
        )
    })
}

/// Fills in verdicts and ranks.
pub fn judge(results: &Results, summary: &mut WorkloadSummary) {
    for figure in [Figure::Rate, Figure::Server, Figure::Sum] {
        against_reference(results, summary, figure);
        rank(results, summary, figure);
    }
}

fn noise_of(summary: &mut WorkloadSummary, figure: Figure) -> &mut Noise {
    match figure {
        Figure::Rate => &mut summary.rate_noise,
        Figure::Server => &mut summary.cpu_noise,
        Figure::Sum | Figure::P99 => &mut summary.sum_noise,
    }
}

/// Whether a cell may be judged by a figure. The rate of a server with failures, or of a client at
/// its end, is not the server's; CPU per request stays its own under a busy client, unless it is
/// the price of spinning. In an open loop the rate is the schedule's.
pub fn is_judged(cell: &Cell, figure: Figure, open: bool) -> bool {
    let Ok(figures) = &cell.state else { return false };
    let spoilt = |doubt: &Doubt| match figure {
        Figure::Rate => doubt.unranks(),
        _ => {
            (doubt.unranks() && !matches!(doubt, Doubt::ClientBound(_)))
                || matches!(doubt, Doubt::Spins(_))
        }
    };
    let of_schedule = open && figure == Figure::Rate;
    !of_schedule && !figures.doubts.iter().any(spoilt)
}

/// The reference's two runs of each round: what others are compared beside.
pub struct Arena<'a> {
    reference: Rounds<'a>,
    second: Rounds<'a>,
    figure: Figure,
    threshold: f64,
}

impl<'a> Arena<'a> {
    /// Of one workload and figure; `threshold` is the noise floor.
    pub fn new(results: &'a Results, workload: &str, figure: Figure, threshold: f64) -> Arena<'a> {
        let of = |role| rounds(trials(results, workload, &results.reference, role));
        Arena { reference: of(Role::Timed), second: of(Role::Sentinel), figure, threshold }
    }

    /// What else ran in the rounds of a comparison.
    pub fn kind(&self, has_reference: bool) -> Match {
        match (self.second.is_empty(), has_reference) {
            (true, _) => Match::Two,
            (false, true) => Match::WithReference,
            (false, false) => Match::BesideReference,
        }
    }

    /// `a` against `b`, in the rounds that have both and, if there is a second run of the
    /// reference at all, that too. Where one is the reference, it is `b`.
    pub fn contrast(&self, a: &Rounds, b: &Rounds, kind: Match) -> Contrast {
        let log = |a: &Measured, b: &Measured| log_ratio(self.figure.of(a)?, self.figure.of(b)?);
        let control = |round: &u32| log(self.second.get(round)?, self.reference.get(round)?);
        let pair = |(round, a): (&u32, &&Measured)| {
            let control = if kind == Match::Two { 0.0 } else { control(round)? };
            Some((log(a, b.get(round)?)?, control))
        };
        let rounds: Vec<(f64, f64)> = a.iter().filter_map(pair).collect();
        Contrast::paired(&rounds, kind, self.threshold)
    }
}

/// Those who compete in one workload and figure.
struct Field<'a> {
    arena: Arena<'a>,
    labels: Vec<String>,
    competitors: Vec<Rounds<'a>>,
}

impl<'a> Field<'a> {
    fn new(results: &'a Results, summary: &WorkloadSummary, figure: Figure, of: &Noise) -> Self {
        let name = &summary.workload.name;
        let judged = |cell: &&Cell| is_judged(cell, figure, summary.is_open());
        let labels: Vec<String> =
            summary.cells.iter().filter(judged).map(|cell| cell.model.clone()).collect();
        let timed = |label: &String| rounds(trials(results, name, label, Role::Timed));
        Field {
            arena: Arena::new(results, name, figure, of.threshold),
            competitors: labels.iter().map(timed).collect(),
            labels,
        }
    }
}

fn figures_of<'a>(summary: &'a mut WorkloadSummary, label: &str) -> Option<&'a mut Figures> {
    let cell = summary.cells.iter_mut().find(|cell| cell.model == label)?;
    cell.state.as_mut().ok().map(|figures| &mut **figures)
}

/// All models against the reference.
fn against_reference(results: &Results, summary: &mut WorkloadSummary, figure: Figure) {
    let noise = noise_of(summary, figure).clone();
    let field = Field::new(results, summary, figure, &noise);
    let others =
        || field.labels.iter().zip(&field.competitors).filter(|(l, _)| **l != results.reference);
    let (arena, kind) = (&field.arena, field.arena.kind(true));
    let family: Vec<Contrast> =
        others().map(|(_, rounds)| arena.contrast(rounds, &arena.reference, kind)).collect();
    for ((label, _), verdict) in others().zip(verdicts(&family)) {
        if let Some(figures) = figures_of(summary, label) {
            let place = match figure {
                Figure::Rate => &mut figures.rate_verdict,
                Figure::Server => &mut figures.cpu_verdict,
                Figure::Sum | Figure::P99 => &mut figures.sum_verdict,
            };
            *place = Some(verdict);
        }
    }
}

/// All pairs, for the ranks.
fn rank(results: &Results, summary: &mut WorkloadSummary, figure: Figure) {
    let noise = noise_of(summary, figure).clone();
    if noise.refused.is_some() {
        return;
    }
    let field = Field::new(results, summary, figure, &noise);
    let models = field.labels.len();
    let pairs: Vec<(usize, usize)> =
        (0..models).flat_map(|i| (i + 1..models).map(move |j| (i, j))).collect();
    if let Some(why) = too_few(&field, pairs.len()) {
        let noise = noise_of(summary, figure);
        (noise.refused, noise.inseparable) = (Some(why), true);
        return;
    }
    let is_reference = |i: usize| field.labels[i] == results.reference;
    let contrast = |&(i, j): &(usize, usize)| {
        let kind = field.arena.kind(is_reference(i) || is_reference(j));
        let (one, other) = match is_reference(i) {
            true => (j, i),
            false => (i, j),
        };
        field.arena.contrast(&field.competitors[one], &field.competitors[other], kind)
    };
    let calls = verdicts(&pairs.iter().map(contrast).collect::<Vec<_>>());
    let mut better = vec![vec![false; models]; models];
    for (&(i, j), verdict) in pairs.iter().zip(calls) {
        // A comparison with the reference is that of the other one to it.
        let (one, other) = if is_reference(i) { (j, i) } else { (i, j) };
        match (verdict, figure.more_is_better()) {
            (Verdict::Alike, _) => {}
            (Verdict::More, true) | (Verdict::Less, false) => better[one][other] = true,
            (Verdict::Less, true) | (Verdict::More, false) => better[other][one] = true,
        }
    }
    for (label, place) in field.labels.iter().zip(tied_ranks(&better)) {
        if let Some(figures) = figures_of(summary, label) {
            let rank = match figure {
                Figure::Rate => &mut figures.rank,
                Figure::Server => &mut figures.cpu_rank,
                Figure::Sum | Figure::P99 => &mut figures.sum_rank,
            };
            *rank = Some(place);
        }
    }
}

/// Why so many models cannot be told apart in so few rounds, if they cannot: even where one wins
/// every round, chance would do that too often in so large a family.
fn too_few(field: &Field, pairs: usize) -> Option<String> {
    let rounds = field.arena.reference.len();
    let kind = field.arena.kind(field.labels.len() <= 2);
    (pairs > 0 && !separable(rounds, pairs, kind)).then(|| {
        let (models, needed) = (field.labels.len(), rounds_needed(pairs, kind));
        format!("{rounds} rounds cannot separate {models} models at 95 % ({needed} can)")
    })
}
