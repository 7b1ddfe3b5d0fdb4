//! Claims in the report that are checked against the data: `{{claim WORKLOAD MODEL FIGURE RELATION
//! OTHER}}` up to `{{end}}`. FIGURE: `cpu`, `rate`, `memory` or `latency`. RELATION: `more`, `less`
//! (significant and beyond the margin) or `equal` (significantly within the margin).

use verdict::statistics::{BlockRatio, Finding, MARGIN};
use verdict::summary::{Figure, Summary};

/// The result of a claim.
pub enum Answer {
    /// It holds.
    Holds,
    /// The workload or one of the models was not measured.
    NotMeasured,
    /// It does not hold; with the data.
    Fails(String),
}

/// Checks a claim. `words`: the arguments of `claim`.
pub fn ask(words: &[&str], summary: &Summary) -> Result<Answer, String> {
    let [workload, model, figure, relation, other] = *words else {
        return Err("a claim is: claim WORKLOAD MODEL FIGURE RELATION OTHER".into());
    };
    super::known_workload(workload)?;
    let of = match figure {
        "cpu" => Figure::Server,
        "rate" => Figure::Rate,
        "memory" => Figure::Memory,
        "latency" => Figure::Latency,
        _ => return Err(format!("no figure is called {figure:?}")),
    };
    let holds: fn(&BlockRatio) -> bool = match relation {
        "more" => |ratio| ratio.finding(MARGIN) == Finding::More && !ratio.is_near(MARGIN),
        "less" => |ratio| ratio.finding(MARGIN) == Finding::Less && !ratio.is_near(MARGIN),
        "equal" => |ratio| ratio.is_near(MARGIN),
        _ => return Err(format!("no relation is called {relation:?}")),
    };
    let Some(workload) = summary.workloads.iter().find(|w| w.workload.name == workload) else {
        return Ok(Answer::NotMeasured);
    };
    let measured = |label: &str| {
        let mut cells = workload.cells.iter();
        cells.any(|cell| cell.model == label && cell.state.is_ok())
    };
    if !measured(model) || !measured(other) {
        return Ok(Answer::NotMeasured);
    }
    let pairs = workload.pairs.get(&of);
    let ratio = pairs.and_then(|pairs| {
        let at = |label: &str| pairs.labels.iter().position(|of| of == label);
        pairs.ratios[at(model)?][at(other)?].as_ref()
    });
    Ok(match ratio {
        Some(ratio) if holds(ratio) => Answer::Holds,
        Some(ratio) => Answer::Fails(format!(
            "{} of {model} : {other} is {:.2} ({:.2}-{:.2})",
            of.name(),
            ratio.ratio,
            ratio.interval.low,
            ratio.interval.high
        )),
        None => Answer::Fails(format!("{} of {model} and {other} is not judged", of.name())),
    })
}
