//! Claims in the report that are checked against the data, up to `{{end}}`:
//! `{{claim WORKLOAD MODEL FIGURE RELATION OTHER}}`.
//!
//! FIGURE is compared with an interval (`cpu`, `rate`, `memory`, `latency`), or it is a count per
//! request (`calls`, `calls:NAME` for one system call, `waits`: voluntary context switches), or
//! `floor-share`: the floor's CPU per request as a share of the model's.
//! RELATION is `more`, `less` (significant and beyond the margin) or `equal` (significantly within
//! it). OTHER is a model, or another workload: then the model is compared with itself there.
//! A count or a share can also be `above` or `below` a number.
//!
//! `{{claim shown EXPERIMENT WORD}}`: the sentences with this word in the conclusion of an
//! experiment hold, or with the word `finding` its finding.

use super::Context;
use crate::text::figure as shown;
use record::Role;
use verdict::statistics::{BlockRatio, Finding, MARGIN};
use verdict::summary::{
    Cell, Figure, Figures, Summary, WorkloadSummary, ratio_of_epochs, rounds, trials,
};

/// The result of a claim.
pub enum Answer {
    /// It holds.
    Holds,
    /// The workload or one of the models was not measured.
    NotMeasured,
    /// It does not hold; with the data.
    Fails(String),
}

/// What is compared.
enum Of<'a> {
    /// A figure with an interval.
    Judged(Figure),
    /// System calls per request; with a name, those of this name.
    Calls(Option<&'a str>),
    /// Voluntary context switches per request.
    Waits,
    /// CPU per request of the floor, as a share of the model's.
    FloorShare,
}

impl Of<'_> {
    fn named(name: &str) -> Result<Of<'_>, String> {
        Ok(match name {
            "cpu" => Of::Judged(Figure::Server),
            "rate" => Of::Judged(Figure::Rate),
            "memory" => Of::Judged(Figure::Memory),
            "latency" => Of::Judged(Figure::Latency),
            "calls" => Of::Calls(None),
            "waits" => Of::Waits,
            "floor-share" => Of::FloorShare,
            _ => match name.strip_prefix("calls:") {
                Some(call) => Of::Calls(Some(call)),
                None => return Err(format!("no figure is called {name:?}")),
            },
        })
    }

    /// The value of a figure that has no interval.
    fn count(&self, figures: &Figures) -> Option<f64> {
        match self {
            Of::Judged(_) => None,
            Of::Calls(None) => Some(figures.calls.as_ref()?.total),
            Of::Calls(Some(call)) => {
                let calls = figures.calls.as_ref()?;
                // A call that is not in the list was not made.
                let found = calls.by_name.iter().find(|(name, _)| name == call);
                Some(found.map_or(0.0, |(_, count)| *count))
            }
            Of::Waits => Some(figures.voluntary),
            Of::FloorShare => Some(1.0 / figures.to_floor(Figure::Server)?.ratio),
        }
    }
}

/// Checks a claim. `words`: the arguments of `claim`.
pub fn ask(words: &[&str], context: &Context) -> Result<Answer, String> {
    let Context { summary, lessons, .. } = context;
    if let ["shown", experiment, word] = *words {
        return Ok(match lessons.holds(experiment, word) {
            None => Answer::NotMeasured,
            Some(Ok(())) => Answer::Holds,
            Some(Err(why)) => Answer::Fails(why),
        });
    }
    let [workload, model, figure, relation, other] = *words else {
        return Err("a claim is: claim WORKLOAD MODEL FIGURE RELATION OTHER".into());
    };
    super::known_workload(workload)?;
    let of = Of::named(figure)?;
    if matches!(relation, "above" | "below") {
        let bound: f64 = other.parse().map_err(|_| format!("{other:?} is not a number"))?;
        if let Of::Judged(_) = of {
            return Err(format!("{figure} has an interval: compare it with another model's"));
        }
        let Some(figures) = measured(summary, workload, model) else {
            return Ok(Answer::NotMeasured);
        };
        return Ok(match of.count(figures) {
            Some(seen) if (relation == "above") == (seen > bound) => Answer::Holds,
            Some(seen) => Answer::Fails(format!("{figure} of {model} is {seen:.2}")),
            None => Answer::NotMeasured,
        });
    }
    if !matches!(relation, "more" | "less" | "equal") {
        return Err(format!("no relation is called {relation:?}"));
    }
    let elsewhere = super::known_workload(other).is_ok();
    let (there, against) = if elsewhere { (other, model) } else { (workload, other) };
    let sides = (measured(summary, workload, model), measured(summary, there, against));
    let (Some(one), Some(second)) = sides else { return Ok(Answer::NotMeasured) };
    let Of::Judged(judged) = of else {
        let counts = (of.count(one), of.count(second));
        let (Some(one), Some(second)) = counts else { return Ok(Answer::NotMeasured) };
        return Ok(match count_is(relation, one, second) {
            true => Answer::Holds,
            false => {
                Answer::Fails(format!("{figure} of {model} : {other} is {one:.2} : {second:.2}"))
            }
        });
    };
    let ratio = between(context, [workload, model, figure, other], judged, elsewhere);
    Ok(match ratio {
        Some(ratio) if is(relation, &ratio) => Answer::Holds,
        Some(BlockRatio { ratio, interval, .. }) => Answer::Fails(format!(
            "{} of {model} : {other} is {ratio:.2} ({:.2}-{:.2})",
            judged.name(),
            interval.low,
            interval.high
        )),
        None => Answer::Fails(format!("{} of {model} and {other} is not judged", judged.name())),
    })
}

/// A figure of one cell as text; `None` if it was not measured.
pub fn value(
    summary: &Summary,
    workload: &str,
    model: &str,
    figure: &str,
) -> Result<Option<String>, String> {
    super::known_workload(workload)?;
    let of = Of::named(figure)?;
    let value = measured(summary, workload, model).and_then(|figures| match of {
        Of::Judged(judged) => Some(figures.judged(judged)?.value.median),
        _ => of.count(figures),
    });
    Ok(value.map(shown))
}

/// The ratio to another model, or of a model to itself in another workload, as text; `None` if it
/// was not measured. `words`: workload, model, figure, other.
pub fn ratio(words: [&str; 4], context: &Context) -> Result<Option<String>, String> {
    let [workload, model, figure, other] = words;
    super::known_workload(workload)?;
    let summary = context.summary;
    let elsewhere = super::known_workload(other).is_ok();
    let (there, against) = if elsewhere { (other, model) } else { (workload, other) };
    let ratio = match Of::named(figure)? {
        Of::Judged(judged) => between(context, words, judged, elsewhere).map(|r| r.ratio),
        of => {
            let one = measured(summary, workload, model).and_then(|figures| of.count(figures));
            let other = measured(summary, there, against).and_then(|figures| of.count(figures));
            one.zip(other).map(|(one, other)| one / other)
        }
    };
    Ok(ratio.map(shown))
}

/// The ratio of a judged figure between two models, or between two workloads of one.
fn between(
    context: &Context,
    [workload, model, _, other]: [&str; 4],
    figure: Figure,
    elsewhere: bool,
) -> Option<BlockRatio> {
    if !elsewhere {
        return pair(context.summary, workload, figure, model, other);
    }
    let timed = |name: &str| rounds(trials(context.results, name, model, Role::Timed));
    ratio_of_epochs(&timed(workload), &timed(other), figure)
}

fn is(relation: &str, ratio: &BlockRatio) -> bool {
    match relation {
        "more" => ratio.finding(MARGIN) == Finding::More && !ratio.is_near(MARGIN),
        "less" => ratio.finding(MARGIN) == Finding::Less && !ratio.is_near(MARGIN),
        _ => ratio.is_near(MARGIN),
    }
}

/// Counts have no interval; they are equal within the margin.
fn count_is(relation: &str, one: f64, other: f64) -> bool {
    match relation {
        "more" => one > other * (1.0 + MARGIN),
        "less" => one * (1.0 + MARGIN) < other,
        _ => one <= other * (1.0 + MARGIN) && other <= one * (1.0 + MARGIN),
    }
}

fn of_workload<'a>(summary: &'a Summary, name: &str) -> Option<&'a WorkloadSummary> {
    summary.workloads.iter().find(|w| w.workload.name == name)
}

fn measured<'a>(summary: &'a Summary, workload: &str, model: &str) -> Option<&'a Figures> {
    let mut cells = of_workload(summary, workload)?.cells.iter();
    let cell: &Cell = cells.find(|cell| cell.model == model)?;
    cell.state.as_deref().ok()
}

fn pair(
    summary: &Summary,
    workload: &str,
    figure: Figure,
    model: &str,
    other: &str,
) -> Option<BlockRatio> {
    let pairs = of_workload(summary, workload)?.pairs.get(&figure)?;
    let at = |label: &str| pairs.labels.iter().position(|of| of == label);
    pairs.ratios[at(model)?][at(other)?].clone()
}
