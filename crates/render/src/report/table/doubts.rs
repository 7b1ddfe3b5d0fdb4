//! The doubts below a table.

use verdict::doubt::Doubt;
use verdict::summary::{Cell, Figures, Summary, WorkloadSummary};

use super::sorted;

/// One line for each kind of doubt in a table: the models, the sentence, the remedy.
pub fn of_workload(workload: &WorkloadSummary) -> Vec<String> {
    let cells = sorted(workload);
    let mut kinds: Vec<Doubt> = Vec::new();
    for doubt in cells.iter().flat_map(|cell| of_cell(cell)) {
        if !kinds.iter().any(|kind| same_kind(*kind, *doubt)) {
            kinds.push(*doubt);
        }
    }
    let line = |kind: &Doubt| {
        let named = cells.iter().filter_map(|cell| {
            let doubt = of_cell(cell).iter().find(|doubt| same_kind(*kind, **doubt))?;
            let detail = Some(doubt.detail()).filter(|detail| !detail.is_empty());
            Some(detail.map_or_else(|| cell.model.clone(), |d| format!("{} ({d})", cell.model)))
        });
        let named: Vec<String> = named.collect();
        format!("{}: {} {}", named.join(", "), kind.sentence(), kind.remedy())
    };
    kinds.iter().map(line).collect()
}

/// The doubts about the whole run, one line each.
pub fn of_run(summary: &Summary) -> Vec<String> {
    let line = |doubt: &Doubt| {
        let detail = Some(doubt.detail()).filter(|detail| !detail.is_empty());
        let detail = detail.map_or(String::new(), |detail| format!(" ({detail})"));
        format!("The whole run{detail}: {} {}", doubt.sentence(), doubt.remedy())
    };
    summary.doubts.iter().map(line).collect()
}

/// Whether the context switches are a lower bound.
pub fn has_lower_bound(figures: &Figures) -> bool {
    figures.doubts.iter().any(|doubt| matches!(doubt, Doubt::SwitchesLowerBound(_)))
}

fn of_cell(cell: &Cell) -> &[Doubt] {
    cell.state.as_ref().map_or(&[], |figures| &figures.doubts)
}

fn same_kind(one: Doubt, other: Doubt) -> bool {
    std::mem::discriminant(&one) == std::mem::discriminant(&other)
}
