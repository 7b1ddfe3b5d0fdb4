//! Tables: for a terminal (at most 100 columns) and, with the same cells, for REPORT.md.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use record::{Preset, Results};

use crate::doubt::Doubt;
use crate::statistics::{Estimate, differs};
use crate::summary::{Cell, Cost, Figures, Summary, WorkloadSummary};
use crate::text::{COLUMNS_MAX, figure, thousands, wrap};

/// What the columns mean: printed once under the tables.
pub const LEGEND: &str = "req/s: replies complete and verified, median of the rounds; >= where the \
client was the limit. p50/p99: at saturation, so queueing and not \"the latency\". srv, cli: CPU \
microseconds per request of server and client. csw: context switches of the server per request. \
KiB/conn: server memory (Pss, page tables, kernel stacks) per idle connection. idle: CPU with \
connections open and no traffic, percent of a core. Ranks that overlap (2-4) are ties.";

/// How a table is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For a terminal.
    Terminal,
    /// For a Markdown file.
    Markdown,
}

/// Everything for a terminal: one table per workload, ratios, doubts, legend.
pub fn terminal(results: &Results, summary: &Summary) -> String {
    let mut out = String::new();
    for workload in &summary.workloads {
        let heading = format!("{}: {}", workload.workload.name, workload.workload.description);
        out += &format!("\n{}\n", wrap(&heading, 2));
        out += &measured(workload, summary, Style::Terminal);
        out += &notes(results, summary, workload, Style::Terminal);
    }
    out += &format!("\n{}\n", wrap(LEGEND, 0));
    let doubts = Marks::of(summary).legend();
    if !doubts.is_empty() {
        out += "\nDoubts:\n";
        out.extend(doubts.iter().map(|doubt| wrap(doubt, 3) + "\n"));
    }
    if results.settings.preset == Preset::Quick {
        out += "\nThis was a quick look: not for ranking.\n";
    }
    if !results.is_complete() {
        let (done, planned) = (results.trials.len(), results.schedule.len());
        out += &format!("\nInterrupted: {done} of {planned} trials were done.\n");
    }
    out
}

/// The table of one workload, without its notes.
pub fn measured(workload: &WorkloadSummary, summary: &Summary, style: Style) -> String {
    let marks = Marks::of(summary);
    let mut table = new_table(style);
    if workload.cells.iter().all(|cell| cell.state.is_err()) {
        return String::new();
    }
    table.set_header([
        "rank",
        "model",
        "req/s",
        "p50/p99 us",
        "srv us",
        "cli us",
        "csw",
        "KiB/conn",
        "idle %",
        "limit",
    ]);
    for cell in sorted(workload) {
        if let Ok(figures) = &cell.state {
            table.add_row(row(cell, figures, summary.costs.get(&cell.model), &marks));
        }
    }
    finish(table, 2..9, style)
}

fn row(cell: &Cell, figures: &Figures, cost: Option<&Cost>, marks: &Marks) -> Vec<String> {
    let bound = figures.doubts.iter().any(|d| matches!(d, Doubt::ClientBound(_)));
    let rate = thousands(figures.rate.median);
    let least = figures.doubts.iter().any(|d| matches!(d, Doubt::SwitchesLowerBound(_)));
    let switches = figure(figures.switches);
    vec![
        figures.rank.map_or("-".into(), rank),
        cell.model.clone(),
        if bound { format!(">= {rate}") } else { rate },
        format!("{}/{}", short(figures.p50_us), figures.p99_us.map_or("-".into(), short)),
        figure(figures.server_us.median),
        figure(figures.client_us.median),
        if least { format!(">={switches}") } else { switches },
        cost.map_or("-".into(), |c| short(c.own_kib + c.kernel_stacks_kib)),
        cost.map_or("-".into(), |c| format!("{:.1}", c.idle_busy * 100.0)),
        format!("{} {}", figures.limit.name(), marks.of_cell(figures)).trim().to_owned(),
    ]
}

/// Ratios to the reference with their intervals: what the ranking rests on.
pub fn ratios(workload: &WorkloadSummary, reference: &str, style: Style) -> String {
    let mut table = new_table(style);
    let (rate, cpu) = (format!("req/s : {reference}"), format!("server CPU/req : {reference}"));
    table.set_header(["model", &rate, "95 %", "", &cpu, "95 %", ""]);
    for cell in sorted(workload) {
        let Ok(figures) = &cell.state else { continue };
        let mut cells = vec![cell.model.clone()];
        for ratio in [&figures.rate_ratio, &figures.cpu_ratio] {
            cells.extend(ratio_cells(ratio.as_ref(), workload.rate_noise.threshold));
        }
        table.add_row(cells);
    }
    finish(table, 1..7, style)
}

fn ratio_cells(ratio: Option<&Estimate>, threshold: f64) -> [String; 3] {
    let Some(ratio) = ratio else { return ["-".into(), "-".into(), String::new()] };
    let interval = ratio.interval.map_or("-".into(), |i| format!("{:.2}-{:.2}", i.low, i.high));
    let verdict = match (differs(ratio, threshold), ratio.median > 1.0) {
        (true, true) => "more",
        (true, false) => "less",
        (false, _) => "~",
    };
    [format!("{:.2}", ratio.median), interval, verdict.into()]
}

/// What goes under a workload's table: cells without figures, noise floor, figures of the doubts.
pub fn notes(
    results: &Results,
    summary: &Summary,
    workload: &WorkloadSummary,
    style: Style,
) -> String {
    let mut lines = Vec::new();
    for cell in &workload.cells {
        match &cell.state {
            Err(why) => lines.push(format!("{}: not measured: {}.", cell.model, without_stop(why))),
            Ok(figures) => {
                let why = figures.first_error.iter();
                lines.extend(why.map(|why| format!("{}: {}.", cell.model, without_stop(why))));
            }
        }
    }
    for skip in results.skips.iter().filter(|skip| skip.workload.is_none()) {
        lines.push(format!("SKIP {}: {}.", skip.model, without_stop(&skip.reason)));
    }
    if let Some(sentinel) = &workload.rate_noise.sentinel {
        let spread = match sentinel.interval {
            Some(i) => format!(
                "({:.2}-{:.2}); less than {:.0} % is no difference",
                i.low,
                i.high,
                workload.rate_noise.threshold * 100.0
            ),
            None => "(too few rounds for an interval)".to_owned(),
        };
        let median = sentinel.median;
        lines.push(format!("Noise: {} against itself {median:.2} {spread}.", results.reference));
    }
    if let Some(reason) = &workload.rate_noise.refused {
        lines.push(format!("Not ranked: {reason}."));
    }
    lines.extend(Marks::of(summary).details(workload));
    let line = |line: String| match style {
        Style::Terminal => wrap(&line, 3) + "\n",
        Style::Markdown => format!("- {line}\n"),
    };
    lines.into_iter().map(line).collect()
}

/// What connections cost while nothing happens, per model.
pub fn costs(summary: &Summary, style: Style) -> String {
    let mut table = new_table(style);
    table.set_header([
        "model",
        "idle connections",
        "own KiB/conn",
        "kernel stacks KiB/conn",
        "CPU when idle %",
    ]);
    let order = summary.workloads.first().map(|w| &w.cells);
    for cell in order.into_iter().flatten() {
        let Some(cost) = summary.costs.get(&cell.model) else { continue };
        table.add_row([
            cell.model.clone(),
            thousands(f64::from(cost.connections)),
            figure(cost.own_kib),
            figure(cost.kernel_stacks_kib),
            format!("{:.1}", cost.idle_busy * 100.0),
        ]);
    }
    finish(table, 1..5, style)
}

/// Ranked cells first, by rank; then the others, by rate.
fn sorted(workload: &WorkloadSummary) -> Vec<&Cell> {
    let mut cells: Vec<&Cell> = workload.cells.iter().collect();
    let key = |cell: &Cell| match &cell.state {
        Ok(figures) => (figures.rank.is_none(), -figures.rate.median),
        Err(_) => (true, 0.0),
    };
    cells.sort_by(|a, b| {
        let ((a_last, a_rate), (b_last, b_rate)) = (key(a), key(b));
        a_last.cmp(&b_last).then(a_rate.total_cmp(&b_rate))
    });
    cells
}

fn new_table(style: Style) -> Table {
    let mut table = Table::new();
    match style {
        Style::Terminal => {
            table.load_style(presets::NOTHING);
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(COLUMNS_MAX as u16);
        }
        Style::Markdown => {
            table.load_style(presets::ASCII_MARKDOWN);
        }
    }
    table
}

/// Right-aligns the columns of figures, and takes blanks off the ends of lines.
fn finish(mut table: Table, figures: std::ops::Range<usize>, style: Style) -> String {
    for index in figures {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if style == Style::Terminal {
        for column in table.column_iter_mut() {
            column.set_padding((0, 1));
        }
    }
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A reason as it was given may end in a full stop or not.
fn without_stop(sentence: &str) -> &str {
    sentence.trim_end_matches('.')
}

fn rank(rank: (usize, usize)) -> String {
    if rank.0 == rank.1 { rank.0.to_string() } else { format!("{}-{}", rank.0, rank.1) }
}

/// Three significant digits in little room: `0.41`, `12`, `1,234`.
fn short(value: f64) -> String {
    if value.abs() >= 9.95 { thousands(value) } else { format!("{value:.1}") }
}

/// Letters of the doubts: one per kind, the same in all tables, in the order of appearance.
pub struct Marks(Vec<Doubt>);

impl Marks {
    /// The letters of all doubts of a result.
    pub fn of(summary: &Summary) -> Marks {
        let mut kinds: Vec<Doubt> = Vec::new();
        for cell in summary.workloads.iter().flat_map(sorted) {
            for doubt in cell.state.iter().flat_map(|figures| &figures.doubts) {
                if !kinds.iter().any(|kind| same_kind(*kind, *doubt)) {
                    kinds.push(*doubt);
                }
            }
        }
        Marks(kinds)
    }

    fn lettered(&self) -> impl Iterator<Item = (char, Doubt)> {
        (b'a'..).map(char::from).zip(self.0.iter().copied())
    }

    fn of_cell(&self, figures: &Figures) -> String {
        let has = |kind| figures.doubts.iter().any(|doubt| same_kind(kind, *doubt));
        self.lettered().filter(|(_, kind)| has(*kind)).map(|(letter, _)| letter).collect()
    }

    /// The figures behind the letters of one table.
    fn details(&self, workload: &WorkloadSummary) -> Vec<String> {
        let of_cell = |kind: Doubt, cell: &Cell| {
            let doubts = &cell.state.as_ref().ok()?.doubts;
            let doubt = doubts.iter().find(|doubt| same_kind(kind, **doubt))?;
            Some(format!("{} {}", cell.model, doubt.detail()).trim().to_owned())
        };
        let line = |(letter, kind): (char, Doubt)| {
            let cells = sorted(workload).into_iter().filter_map(|cell| of_cell(kind, cell));
            (letter, cells.collect::<Vec<_>>().join("; "))
        };
        self.lettered()
            .map(line)
            .filter(|(_, cells)| !cells.is_empty())
            .map(|(letter, cells)| format!("{letter}: {cells}"))
            .collect()
    }

    /// What the letters mean and what to do, one line each.
    pub fn legend(&self) -> Vec<String> {
        self.lettered()
            .map(|(letter, kind)| format!("{letter}: {} {}", kind.sentence(), kind.remedy()))
            .collect()
    }
}

fn same_kind(a: Doubt, b: Doubt) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::summary::summarise;

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let mut results = fixture::results();
        // The widest that is to be expected: a flavour's label and seven-digit rates.
        for trial in &mut results.trials {
            if let record::Outcome::Measured(measured) = &mut trial.outcome {
                measured.load.requests_per_s *= 10.0;
            }
        }
        let text = terminal(&results, &summarise(&results));
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
        }
    }

    #[test]
    fn the_table_says_what_there_is_to_know() {
        let results = fixture::results();
        let text = terminal(&results, &summarise(&results));
        let row = |model: &str| {
            let mut lines =
                text.lines().filter(|line| line.split_whitespace().nth(1) == Some(model));
            lines.next().unwrap_or_default().to_owned()
        };
        assert!(row("epoll").starts_with("1-2 "), "{text}");
        assert!(row("poll").contains("server-bound"), "{text}");
        assert!(row("threads").contains(">= 63,000"), "{text}");
        assert!(text.contains("SKIP uring: io_uring is not permitted."), "{text}");
        assert!(text.contains("select: not measured: holds 1000"), "{text}");
        assert!(text.contains("serial 63 of 64"), "{text}");
        assert!(text.contains("Noise: epoll against itself 1.00"), "{text}");
    }

    #[test]
    fn an_interrupted_or_quick_run_says_so() {
        let mut results = fixture::results();
        results.trials.truncate(5);
        results.settings.preset = Preset::Quick;
        let text = terminal(&results, &summarise(&results));
        assert!(text.contains("Interrupted: 5 of 78 trials") && text.contains("not for ranking"));
    }

    #[test]
    fn markdown_has_the_same_cells() {
        let results = fixture::results();
        let summary = summarise(&results);
        let table = measured(&summary.workloads[0], &summary, Style::Markdown);
        assert!(table.lines().all(|line| line.starts_with('|') && line.ends_with('|')), "{table}");
        assert_eq!(table.lines().count(), 2 + 6);
        let ratios = ratios(&summary.workloads[0], "epoll", Style::Markdown);
        assert!(ratios.contains("less"), "{ratios}");
        assert!(costs(&summary, Style::Markdown).contains("| threads"));
    }
}
