//! The findings of a table in a sentence.

use crate::text::figure;
use verdict::list;
use verdict::statistics::{Finding, MARGIN};
use verdict::summary::{Figure, Figures, WorkloadSummary, is_judged};

/// The verbs of the sentence, for one and for several models: less, equal, more.
fn words(figure: Figure) -> [[&'static str; 2]; 3] {
    match figure {
        Figure::Rate => [
            ["answers fewer requests/s than", "answer fewer requests/s than"],
            ["answers as many as", "answer as many as"],
            ["answers more than", "answer more than"],
        ],
        _ => [
            ["costs less CPU than", "cost less CPU than"],
            ["costs as much as", "cost as much as"],
            ["costs more CPU than", "cost more CPU than"],
        ],
    }
}

/// The findings about CPU per request, as a sentence; `None` if there are none.
pub fn sentence(workload: &WorkloadSummary) -> Option<String> {
    Some(of(workload, Figure::Server)? + ".")
}

/// The findings about CPU per request or requests/s; `None` if there are none.
pub fn of(workload: &WorkloadSummary, figure: Figure) -> Option<String> {
    let [less, equal, more, unknown] = groups(workload, figure);
    let reference = &workload.reference;
    let group = |(names, verbs): (&Vec<&str>, [&str; 2])| {
        let verb = verbs[usize::from(names.len() > 1)];
        (!names.is_empty()).then(|| format!("{} {verb} {reference}", list(names)))
    };
    let groups = [&less, &equal, &more].into_iter().zip(words(figure));
    let mut parts: Vec<String> = groups.filter_map(group).collect();
    if !unknown.is_empty() {
        parts.push(format!("of {} this run cannot tell", list(&unknown)));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// `a request takes 0.1 (uring) to 3.0 system calls (tokio)`: the least and the most of some
/// figures.
pub fn range(
    what: &str,
    unit: &str,
    figures: impl Iterator<Item = (String, f64)> + Clone,
) -> String {
    let least = figures.clone().min_by(|one, other| one.1.total_cmp(&other.1));
    let most = figures.max_by(|one, other| one.1.total_cmp(&other.1));
    let Some(((low_name, low), (high_name, high))) = least.zip(most) else { return String::new() };
    let (low, high) = (figure(low), figure(high));
    if low_name == high_name {
        return format!("{what} {high} {unit} ({high_name})");
    }
    format!("{what} {low} ({low_name}) to {high} {unit} ({high_name})")
}

/// The models that have less than the reference, as much within the margin, more, and the undecided
/// ones.
fn groups(workload: &WorkloadSummary, figure: Figure) -> [Vec<&str>; 4] {
    let mut groups: [Vec<&str>; 4] = Default::default();
    let judged = |cell: &&verdict::summary::Cell| is_judged(cell, figure, workload.is_open());
    for cell in workload.cells.iter().filter(judged) {
        let Ok(figures) = &cell.state else { continue };
        if let Some(group) = group_of(figures, figure) {
            groups[group].push(&cell.model);
        }
    }
    groups
}

fn group_of(figures: &Figures, figure: Figure) -> Option<usize> {
    let judged = figures.judged(figure)?;
    let near = judged.ratio.as_ref().is_some_and(|ratio| ratio.is_near(MARGIN));
    Some(match judged.finding? {
        // It may differ significantly, but within the margin.
        _ if near => 1,
        Finding::Less => 0,
        Finding::Equal => 1,
        Finding::More => 2,
        Finding::Unknown => 3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use verdict::summary::summarise;

    #[test]
    fn a_sentence_names_every_model_that_was_judged() {
        let summary = summarise(&fixture::results());
        let told = sentence(&summary.workloads[0]).unwrap();
        // serial leaves connections without progress, and busy spins, so neither is compared.
        let wanted = "threads costs less CPU than epoll; select costs as much as epoll; poll costs \
                      more CPU than epoll.";
        assert_eq!(told, wanted);
        let mut results = fixture::results();
        results.trials.retain(|trial| trial.slot.round <= 2);
        let told = sentence(&summarise(&results).workloads[0]).unwrap();
        assert_eq!(told, "of threads, select and poll this run cannot tell.");
    }
}
