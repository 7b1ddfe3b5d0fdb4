//! The summary at the end of a run, in about a dozen lines.

use std::path::Path;

use record::Results;

use crate::text::{thousands, wrap};
use verdict::list;
use verdict::statistics::{BlockRatio, Finding};
use verdict::summary::{Best, Figure, Figures, Point, Summary, WorkloadSummary, map};

use super::found;
use super::{Style, finish, new_table, times};

/// Maximum number of names in a cell of the map; further ones are counted.
const NAMED_MAX: usize = 2;

const DIFFERENCES: usize = 3;

/// Maximum number of printed workloads if there is no map.
const WORKLOADS_MAX: usize = 8;

/// A large difference has at least this ratio.
const LARGE: f64 = 1.5;

/// `folder`: that of the result, if it could be written.
pub fn screen(results: &Results, summary: &Summary, folder: Option<&Path>) -> String {
    let mut out = format!("\n{}\n", wrap(&machine(results), 2));
    let points = map(summary);
    match points.len() {
        0 | 1 => out.extend(workloads(summary)),
        _ => out += &of_map(&points),
    }
    let lines = [latency(summary), differences(summary), decided(summary)];
    out.extend(lines.into_iter().flatten().map(|line| wrap(&line, 2) + "\n"));
    if !results.is_complete() {
        let (done, planned) = (results.trials.len(), results.schedule.len());
        out += &format!("Interrupted: {done} of {planned} trials were done.\n");
    }
    if let Some(folder) = folder {
        let folder = folder.display();
        out += &format!("Report: {folder}/REPORT.md   All tables: iolab report {folder} --full\n");
    }
    out
}

fn machine(results: &Results) -> String {
    let environment = &results.environment;
    let sleep = if results.settings.awake { "held awake" } else { "free to sleep" };
    format!(
        "What this machine could tell ({}, {} cores, processors {sleep}, {} rounds):",
        environment.cpu_model, environment.cores, results.settings.rounds
    )
}

/// The findings of each table, if there is no map.
fn workloads(summary: &Summary) -> impl Iterator<Item = String> {
    let told = |workload: &WorkloadSummary| {
        let found = found::sentence(workload)?;
        Some(wrap(&format!("{}: {found}", workload.workload.name), 2) + "\n")
    };
    summary.workloads.iter().filter_map(told).take(WORKLOADS_MAX)
}

/// The least CPU per request at each point of the map, then the least memory with the most idle
/// connections.
fn of_map(points: &[Point]) -> String {
    let mut idle: Vec<u32> = points.iter().map(|point| point.idle).collect();
    idle.dedup();
    let mut active: Vec<u32> = points.iter().map(|point| point.active).collect();
    active.sort_unstable();
    active.dedup();
    let mut table = new_table(Style::Terminal);
    let head = idle.iter().map(|idle| format!("{} idle", thousands(f64::from(*idle))));
    table.set_header(["least CPU".to_owned()].into_iter().chain(head));
    for active in active {
        let of = |idle: &u32| {
            let mut points = points.iter();
            let point = points.find(|point| point.active == active && point.idle == *idle);
            point.and_then(|point| point.by_cpu.as_ref()).map_or("-".to_owned(), cell)
        };
        let name = format!("{} active", thousands(f64::from(active)));
        table.add_row([name].into_iter().chain(idle.iter().map(of)));
    }
    let memory = points.iter().rev().find_map(|point| Some((point, point.by_memory.as_ref()?)));
    let memory = memory.map(|(point, best)| {
        let idle = thousands(f64::from(point.idle));
        let line = format!("Least memory with {idle} idle connections: {}.", names(best));
        wrap(&line, 2) + "\n"
    });
    finish(table, &[], Style::Terminal) + &memory.unwrap_or_default()
}

/// `threads, serial +1, ?epoll`: the best models, the number of further ones, and undecided ones.
fn cell(best: &Best) -> String {
    if best.best.is_empty() {
        return "undecided".to_owned();
    }
    let mut told = best.best.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if best.best.len() > NAMED_MAX {
        told += &format!(" +{}", best.best.len() - NAMED_MAX);
    }
    match best.undecided.len() {
        0 => told,
        1 => format!("{told} (or {})", best.undecided[0]),
        others => format!("{told} (or {others} others)"),
    }
}

fn names(best: &Best) -> String {
    if best.best.is_empty() {
        return "undecided".to_owned();
    }
    let told = list(&best.best);
    match best.undecided.is_empty() {
        true => told,
        false => format!("{told} (or {})", list(&best.undecided)),
    }
}

fn latency(summary: &Summary) -> Option<String> {
    let one = |workload: &WorkloadSummary| {
        let rate = thousands(f64::from(workload.workload.rate_per_s?));
        let best = workload.pairs.get(&Figure::Latency)?.best(Figure::Latency)?;
        Some(format!("at {rate}/s {}", cell(&best)))
    };
    let told: Vec<String> = summary.workloads.iter().filter_map(one).collect();
    (!told.is_empty()).then(|| format!("Least latency (median): {}.", told.join("; ")))
}

/// Ratios of CPU per request to the reference that were decided.
fn cpu_ratios(summary: &Summary) -> impl Iterator<Item = (&WorkloadSummary, &str, &BlockRatio)> {
    summary.workloads.iter().flat_map(|workload| {
        workload.cells.iter().filter_map(move |cell| {
            let figures = cell.state.as_ref().ok()?;
            let ratio = figures.ratio(Figure::Server)?;
            let finding = figures.judged(Figure::Server)?.finding?;
            let differs = matches!(finding, Finding::More | Finding::Less);
            differs.then_some((workload, cell.model.as_str(), ratio))
        })
    })
}

/// The largest differences of CPU per request, one for each model.
fn differences(summary: &Summary) -> Option<String> {
    let mut all: Vec<_> = cpu_ratios(summary).collect();
    let size = |ratio: &BlockRatio| ratio.ratio.ln().abs();
    all.sort_by(|one, other| size(other.2).total_cmp(&size(one.2)));
    let mut told: Vec<(&str, String)> = Vec::new();
    for (workload, model, ratio) in all {
        let is_large = size(ratio) >= LARGE.ln();
        if is_large && told.len() < DIFFERENCES && told.iter().all(|(known, _)| *known != model) {
            let (times, of) = (times(ratio.ratio), &workload.reference);
            told.push((model, format!("{model} {times} x {of} ({})", workload.workload.name)));
        }
    }
    let told: Vec<String> = told.into_iter().map(|(_, told)| told).collect();
    (!told.is_empty())
        .then(|| format!("Largest differences of CPU per request: {}.", told.join("; ")))
}

/// The number of decided ratios, and the width of the intervals.
fn decided(summary: &Summary) -> Option<String> {
    let cells = || {
        let cells = summary.workloads.iter().flat_map(|workload| &workload.cells);
        cells.filter_map(|cell| Some((cell.model.as_str(), cell.state.as_deref().ok()?)))
    };
    let findings = |of: Figure| {
        let finding = move |(_, figures): (&str, &Figures)| figures.judged(of)?.finding;
        let all: Vec<Finding> = cells().filter_map(finding).collect();
        let known = all.iter().filter(|finding| **finding != Finding::Unknown).count();
        (known, all.len())
    };
    let ((cpu, of_cpu), (rate, of_rate)) = (findings(Figure::Server), findings(Figure::Rate));
    let half = |(_, figures): (&str, &Figures)| {
        let interval = figures.ratio(Figure::Server)?.interval;
        Some((interval.high / interval.low).sqrt() - 1.0)
    };
    let halves: Vec<f64> = cells().filter_map(half).collect();
    let wide = verdict::statistics::median(&halves)?;
    let open = |(model, figures): (&'_ str, &Figures)| {
        let finding = figures.judged(Figure::Server)?.finding?;
        (finding == Finding::Unknown).then(|| model.to_owned())
    };
    let mut undecided: Vec<String> = cells().filter_map(open).collect();
    undecided.sort_unstable();
    undecided.dedup();
    let undecided = match undecided.is_empty() {
        true => String::new(),
        false => format!(", the rest of {}: their epochs differ too much", list(&undecided)),
    };
    Some(format!(
        "Decided: {cpu} of {of_cpu} ratios of CPU per request (intervals of +-{:.1} % in the \
         median) and {rate} of {of_rate} of requests/s{undecided}.",
        100.0 * wide
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::COLUMNS_MAX;
    use verdict::summary::summarise;

    #[test]
    fn the_screen_fits_and_ends_with_where_the_rest_is() {
        let folder = Path::new("results/2026-01-02-host");
        for results in [fixture::rich(), fixture::results(), fixture::open_loop()] {
            let text = screen(&results, &summarise(&results), Some(folder));
            assert!(text.lines().count() <= 20, "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{text}");
            assert!(text.ends_with("iolab report results/2026-01-02-host --full\n"), "{text}");
            assert!(text.contains("Decided: "), "{text}");
        }
    }

    #[test]
    fn the_map_names_the_best_of_each_point() {
        let results = fixture::rich();
        let text = screen(&results, &summarise(&results), None);
        assert!(text.contains("1,000 idle") && text.contains("64 active"), "{text}");
        assert!(text.contains("poll 2.86 x epoll (idle-1000)"), "{text}");
        assert!(text.contains("Least latency (median): at 10,000/s epoll"), "{text}");
        assert!(!text.contains("Report:"), "{text}");
    }
}
