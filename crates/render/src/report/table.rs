//! Tables: for a terminal (at most 100 columns) and, with the same cells, for REPORT.md.
//!
//! A workload has two: the verdict (rates, ranks, who was the limit) and the ledger (what a request
//! costs). An open loop has one, as its rate is given and its latencies mean something.

pub mod protocols;

use comfy_table::{CellAlignment, Table, presets};
use record::{Preset, Results};

use crate::doubt::Doubt;
use crate::grid;
use crate::statistics::{Estimate, Verdict};
use crate::summary::{Cell, Cost, Figures, Memory, Noise, OpenFigures, Summary, WorkloadSummary};
use crate::text::{columns, figure, thousands, wrap};

/// What the columns mean: printed once under the tables.
pub const LEGEND: &str = "rank: places that the rounds leave open (2-4 is a tie), by req/s, by \
srv us and by sum us. req/s: replies complete and verified, median of the rounds; >= where the \
client was the limit. A ratio to the reference is the median of the per-round ratios; `more`, \
`less`: different at 95 % over all models of the table at once (Holm) and by more than the noise; \
`~`: not shown to differ. srv, cli, sum: CPU microseconds per request of server, client and both. \
csw: context switches of the server per request, voluntary (it waited) and involuntary \
(preempted). queue: time that its threads were runnable without a core, per request. sat. \
p50/p99: at saturation, so mostly queueing and not \"the latency\". KiB/conn: memory per active \
connection, the process's own + the kernel's, what the first requests fault in included. In a \
chat each delivery counts as a request. Open loops: latency from the moment when a request was \
due; lag: what the client itself was late by.";

/// How a table is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For a terminal.
    Terminal,
    /// For a Markdown file.
    Markdown,
}

/// Everything for a terminal: per workload noise, verdict, ledger and notes; then costs when idle,
/// doubts, legend.
pub fn terminal(results: &Results, summary: &Summary) -> String {
    let style = Style::Terminal;
    let mut out = String::new();
    for workload in &summary.workloads {
        let heading = format!("{}: {}", workload.workload.name, workload.workload.description);
        out += &format!("\n{}\n", wrap(&heading, 2));
        out += &measured(workload, summary, style);
        out += &part("deliveries", &protocols::deliveries(workload, summary, style));
        out += &part("handshakes", &protocols::handshakes(workload, summary, style));
        out += &part("ledger", &ledger(workload, style));
        out += &part("system calls per request", &calls(workload, style));
        out += &notes(results, summary, workload, style);
    }
    let prices = protocols::cpu(results, summary, style);
    out += &part("price of each protocol: server CPU us per request", &prices);
    let ratios = protocols::ratios(results, summary, style);
    out += &part("the same, relative to the workload without it", &ratios);
    out += &part("idle connections", &costs(summary, style));
    let idle = protocols::idle(results, style);
    out += &part("10,000 idle connections: MiB of the process + the kernel", &idle);
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

/// All tables with their notes, in Markdown.
pub fn markdown(results: &Results, summary: &Summary) -> String {
    let style = Style::Markdown;
    let mut out = String::new();
    for workload in &summary.workloads {
        let title = (&workload.workload.name, &workload.workload.description);
        out += &format!("## {}\n\n{}\n\n", title.0, title.1);
        let tables = [
            measured(workload, summary, style),
            protocols::deliveries(workload, summary, style),
            protocols::handshakes(workload, summary, style),
            ledger(workload, style),
            calls(workload, style),
        ];
        out.extend(tables.iter().filter(|table| !table.is_empty()).map(|t| format!("{t}\n")));
        out += &format!("{}\n", notes(results, summary, workload, style));
    }
    let parts = [
        ("price of each protocol", protocols::cpu(results, summary, style)),
        ("price relative to the workload without it", protocols::ratios(results, summary, style)),
        ("idle connections", costs(summary, style)),
        ("10,000 idle connections by protocol, MiB", protocols::idle(results, style)),
    ];
    for (title, table) in parts.into_iter().filter(|(_, table)| !table.is_empty()) {
        out += &format!("## {title}\n\n{table}\n");
    }
    out += &format!("{LEGEND}\n\n");
    out.extend(Marks::of(summary).legend().iter().map(|line| format!("- {line}\n")));
    out
}

/// A table under a heading of its own; nothing for an empty one.
fn part(heading: &str, table: &str) -> String {
    if table.is_empty() { String::new() } else { format!("\n{heading}\n{table}") }
}

/// The noise floor, and below it the table of one workload, without its notes.
pub fn measured(workload: &WorkloadSummary, summary: &Summary, style: Style) -> String {
    if workload.cells.iter().all(|cell| cell.state.is_err()) {
        return String::new();
    }
    let marks = Marks::of(summary);
    let table = match workload.is_open() {
        true => open(workload, &marks, style),
        false => verdict(workload, &marks, style),
    };
    let above = noise(workload).into_iter().chain(refusals(workload));
    let above: String = match style {
        Style::Terminal => above.map(|line| wrap(&line, 3) + "\n").collect(),
        Style::Markdown => above.collect::<Vec<_>>().join(" ") + "\n\n",
    };
    let floor = floor(workload).map(|line| match style {
        Style::Terminal => wrap(&line, 3) + "\n",
        Style::Markdown => format!("\n{line}\n"),
    });
    above + &table + &floor.unwrap_or_default()
}

/// The figures that a workload is judged by, with their names.
fn noises(workload: &WorkloadSummary) -> Vec<(&'static str, &Noise)> {
    let cpu = [("server CPU", &workload.cpu_noise), ("CPU of both sides", &workload.sum_noise)];
    let rate = (!workload.is_open()).then_some(("req/s", &workload.rate_noise));
    rate.into_iter().chain(cpu).collect()
}

/// How much the reference differs from itself: less is no difference.
fn noise(workload: &WorkloadSummary) -> Option<String> {
    let one = |(name, noise): (&str, &Noise)| {
        let sentinel = noise.sentinel?;
        let interval = sentinel.interval.map_or("too few rounds".to_owned(), between);
        let least = noise.threshold * 100.0;
        Some(format!("{name} {:.2} ({interval}; floor {least:.0} %)", sentinel.median))
    };
    let all: Vec<String> = noises(workload).into_iter().filter_map(one).collect();
    let reference = &workload.reference;
    (!all.is_empty()).then(|| format!("Noise: {reference} against itself: {}.", all.join(", ")))
}

/// Why there are no ranks, by figure; one sentence when all have the same reason.
fn refusals(workload: &WorkloadSummary) -> Vec<String> {
    let mut reasons: Vec<(Vec<&str>, &str)> = Vec::new();
    let noises = noises(workload);
    for (name, noise) in &noises {
        let Some(why) = noise.refused.as_deref() else { continue };
        match reasons.iter_mut().find(|(_, known)| *known == why) {
            Some((names, _)) => names.push(name),
            None => reasons.push((vec![name], why)),
        }
    }
    let sentence = |(names, why): (Vec<&str>, &str)| match names.len() == noises.len() {
        true => format!("Not ranked: {why}."),
        false => format!("Not ranked by {}: {why}.", names.join(" and ")),
    };
    reasons.into_iter().map(sentence).collect()
}

/// The line of the model that parses nothing.
fn floor(workload: &WorkloadSummary) -> Option<String> {
    let cell = workload.floor.as_ref()?;
    let said = match &cell.state {
        Ok(figures) => format!(
            "{} req/s, srv {} us, cli {} us, sum {} us ({})",
            thousands(figures.rate.median),
            figure(figures.server_us.median),
            figure(figures.client_us.median),
            figure(figures.sum_us.median),
            figures.limit.name(),
        ),
        Err(why) => format!("not measured: {}", without_stop(why)),
    };
    Some(format!("Floor: {} parses nothing and sends canned replies: {said}.", cell.model))
}

fn verdict(workload: &WorkloadSummary, marks: &Marks, style: Style) -> String {
    let mut table = new_table(style);
    let to = format!(": {}", workload.reference);
    table.set_header([
        "rank", "model", "req/s", &to, "rank", "srv us", &to, "rank", "sum us", "limit",
    ]);
    for (cell, figures) in measured_cells(workload) {
        let bound = figures.doubts.iter().any(|d| matches!(d, Doubt::ClientBound(_)));
        let rate = thousands(figures.rate.median);
        table.add_row([
            rank(figures.rank),
            cell.model.clone(),
            if bound { format!(">= {rate}") } else { rate },
            judged(figures.rate_ratio, figures.rate_verdict),
            rank(figures.cpu_rank),
            figure(figures.server_us.median),
            judged(figures.cpu_ratio, figures.cpu_verdict),
            rank(figures.sum_rank),
            figure(figures.sum_us.median),
            format!("{} {}", figures.limit.name(), marks.of_cell(figures)).trim().to_owned(),
        ]);
    }
    finish(table, &[2, 5, 8], style)
}

/// The table of an open loop.
fn open(workload: &WorkloadSummary, marks: &Marks, style: Style) -> String {
    let mut table = new_table(style);
    let to = format!(": {}", workload.reference);
    table.set_header([
        "rank",
        "model",
        "offered/s",
        "answered",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "lag p99",
        "srv us",
        &to,
        "unans.",
        "rounds",
        "",
    ]);
    let or_none = |value: Option<f64>| value.map_or("-".to_owned(), short);
    for (cell, figures) in measured_cells(workload) {
        let Some(open) = &figures.open else { continue };
        table.add_row([
            rank(figures.cpu_rank),
            cell.model.clone(),
            thousands(open.offered_per_s),
            format!("{:.1} %", open.answered_share * 100.0),
            or_none(open.p50_us),
            or_none(open.p99_us),
            or_none(open.p999_us),
            or_none(open.send_lag_p99_us),
            figure(figures.server_us.median),
            judged(figures.cpu_ratio, figures.cpu_verdict),
            thousands(open.unanswered as f64),
            rounds(open),
            marks.of_cell(figures),
        ]);
    }
    finish(table, &[2, 3, 4, 5, 6, 7, 8, 10], style)
}

/// Valid rounds, of how many if some were not.
fn rounds(open: &OpenFigures) -> String {
    match open.invalid_rounds {
        0 => open.valid_rounds.to_string(),
        behind => format!("{} of {}", open.valid_rounds, open.valid_rounds + behind),
    }
}

/// What a request costs, by part.
pub fn ledger(workload: &WorkloadSummary, style: Style) -> String {
    let mut table = new_table(style);
    let mut header = vec!["model", "srv us", "cli us", "sum us", ": floor", "csw vol", "invol"];
    header.extend(["queue us", "KiB/conn"]);
    header.extend((!workload.is_open()).then_some("sat. p50/p99 us"));
    table.set_header(header);
    let floor = workload.floor.iter().filter_map(|cell| Some((cell, cell.state.as_deref().ok()?)));
    let mut empty = true;
    for (cell, figures) in measured_cells(workload).chain(floor) {
        let least = figures.doubts.iter().any(|d| matches!(d, Doubt::SwitchesLowerBound(_)));
        let least = if least { ">=" } else { "" };
        let mut row = vec![
            cell.model.clone(),
            figure(figures.server_us.median),
            figure(figures.client_us.median),
            figure(figures.sum_us.median),
            figures.floor_cpu_ratio.map_or("n/a".into(), |r| format!("{:.2}", r.median)),
            format!("{least}{}", figure(figures.voluntary)),
            format!("{least}{}", figure(figures.involuntary)),
            figure(figures.run_queue_us),
            figures.active_memory.as_ref().map_or("n/a".into(), memory),
        ];
        let p99 = figures.p99_us.map_or("-".into(), short);
        row.extend((!workload.is_open()).then(|| format!("{}/{p99}", short(figures.p50_us))));
        table.add_row(row);
        empty = false;
    }
    if empty { String::new() } else { finish(table, &[1, 2, 3, 4, 5, 6, 7, 8, 9], style) }
}

/// The process's part + the kernel's; `>=` where only a part of the latter is seen.
fn memory(memory: &Memory) -> String {
    let least = if memory.kernel_kib.is_none() { ">=" } else { "" };
    format!("{}+{least}{}", short(memory.user_kib), short(memory.kernel_part_kib()))
}

/// System calls and ring operations per request, by name; nothing where none were counted.
pub fn calls(workload: &WorkloadSummary, style: Style) -> String {
    let mut table = new_table(style);
    table.set_header(["model", "calls", "by name", "ring ops", "by operation"]);
    let named = |names: &[(String, f64)]| {
        // What rounds to 0.00 happened at the start of the window, not per request.
        let names = names.iter().filter(|(_, share)| *share >= 0.005);
        names.map(|(name, share)| format!("{name} {share:.2}")).collect::<Vec<_>>().join(" ")
    };
    let floor = workload.floor.iter().filter_map(|cell| Some((cell, cell.state.as_deref().ok()?)));
    let mut empty = true;
    for (cell, figures) in measured_cells(workload).chain(floor) {
        let Some(calls) = &figures.calls else { continue };
        let ring = calls.ring_operations > 0.0;
        table.add_row([
            cell.model.clone(),
            format!("{:.2}", calls.total),
            named(&calls.by_name),
            if ring { format!("{:.2}", calls.ring_operations) } else { String::new() },
            named(&calls.ring_by_name),
        ]);
        empty = false;
    }
    if empty { String::new() } else { finish(table, &[1, 3], style) }
}

/// Ratios to the reference with their intervals: what the verdicts rest on.
pub fn ratios(workload: &WorkloadSummary, reference: &str, style: Style) -> String {
    let mut table = new_table(style);
    let (rate, cpu) = (format!("req/s : {reference}"), format!("server CPU/req : {reference}"));
    let sum = format!("CPU of both : {reference}");
    table.set_header(["model", &rate, "95 %", "", &cpu, "95 %", "", &sum, "95 %", ""]);
    for (cell, figures) in measured_cells(workload) {
        let mut cells = vec![cell.model.clone()];
        cells.extend(ratio_cells(figures.rate_ratio, figures.rate_verdict));
        cells.extend(ratio_cells(figures.cpu_ratio, figures.cpu_verdict));
        cells.extend(ratio_cells(figures.sum_ratio, figures.sum_verdict));
        table.add_row(cells);
    }
    finish(table, &[1, 2, 4, 5, 7, 8], style)
}

fn ratio_cells(ratio: Option<Estimate>, verdict: Option<Verdict>) -> [String; 3] {
    let Some(ratio) = ratio else { return ["-".into(), "-".into(), String::new()] };
    let verdict = verdict.map_or("", Verdict::name);
    [format!("{:.2}", ratio.median), ratio.interval.map_or("-".into(), between), verdict.to_owned()]
}

/// A ratio and what it came to, short: `0.90 less`.
fn judged(ratio: Option<Estimate>, verdict: Option<Verdict>) -> String {
    let [ratio, _, verdict] = ratio_cells(ratio, verdict);
    format!("{ratio} {verdict}").trim_end().to_owned()
}

fn between(interval: crate::statistics::Interval) -> String {
    format!("{:.2}-{:.2}", interval.low, interval.high)
}

/// What goes under a workload's tables: cells without figures, what is not available, figures of
/// the doubts.
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
    lines.extend(unavailable(results, workload));
    lines.extend(Marks::of(summary).details(workload));
    let line = |line: String| match style {
        Style::Terminal => wrap(&line, 3) + "\n",
        Style::Markdown => format!("- {line}\n"),
    };
    lines.into_iter().map(line).collect()
}

/// Columns that this machine does not allow, and why.
fn unavailable(results: &Results, workload: &WorkloadSummary) -> Vec<String> {
    let environment = &results.environment;
    let mut lines = Vec::new();
    let figures = || measured_cells(workload).map(|(_, figures)| figures);
    if figures().all(|f| f.calls.is_none()) && figures().next().is_some() {
        let why = environment.counting_unavailable.as_deref();
        let why = why.unwrap_or("the run has no counting pass of this workload");
        lines.push(format!("System calls: n/a: {}.", without_stop(why)));
    }
    let unseen = |f: &Figures| f.active_memory.is_some_and(|m| m.kernel_kib.is_none());
    if figures().any(unseen) {
        let why = environment.kernel_memory_unavailable.as_deref();
        let why = why.unwrap_or("the run did not take it");
        let seen = "page tables and kernel stacks only, sockets n/a";
        lines.push(format!("Kernel memory: {seen}: {}.", without_stop(why)));
    }
    lines
}

/// What connections cost while nothing happens, per model; nothing when it was not sampled.
pub fn costs(summary: &Summary, style: Style) -> String {
    let mut table = new_table(style);
    table.set_header([
        "model",
        "idle connections",
        "own KiB/conn",
        "page tables",
        "kernel stacks",
        "kernel in all",
        "CPU %",
        "wake-ups/s",
    ]);
    let mut models: Vec<&str> = Vec::new();
    for workload in &summary.workloads {
        for cell in workload.cells.iter().chain(&workload.floor) {
            if !models.contains(&cell.model.as_str()) {
                models.push(&cell.model);
            }
        }
    }
    let mut empty = true;
    for (model, cost) in models.into_iter().filter_map(|m| Some((m, summary.costs.get(m)?))) {
        table.add_row(cost_row(model, cost));
        empty = false;
    }
    if empty { String::new() } else { finish(table, &[1, 2, 3, 4, 5, 6, 7], style) }
}

fn cost_row(model: &str, cost: &Cost) -> [String; 8] {
    let memory = &cost.memory;
    [
        model.to_owned(),
        thousands(f64::from(cost.connections)),
        figure(memory.user_kib),
        figure(memory.page_tables_kib),
        figure(memory.kernel_stacks_kib),
        memory.kernel_kib.map_or("n/a".into(), figure),
        format!("{:.1}", cost.idle_busy * 100.0),
        figure(cost.wake_ups_per_s),
    ]
}

/// Cells with figures, as they are sorted.
fn measured_cells(workload: &WorkloadSummary) -> impl Iterator<Item = (&Cell, &Figures)> {
    sorted(workload).into_iter().filter_map(|cell| Some((cell, cell.state.as_deref().ok()?)))
}

/// Ranked cells first, by rate; then the others, by rate. Open loops by server CPU per request.
fn sorted(workload: &WorkloadSummary) -> Vec<&Cell> {
    let mut cells: Vec<&Cell> = workload.cells.iter().collect();
    let key = |cell: &Cell| match &cell.state {
        Ok(figures) if workload.is_open() => (figures.cpu_rank.is_none(), figures.server_us.median),
        Ok(figures) => (figures.rank.is_none(), -figures.rate.median),
        Err(_) => (true, f64::INFINITY),
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
        // Drawn by `grid`, as wide as the terminal.
        Style::Terminal => {}
        Style::Markdown => {
            table.load_style(presets::ASCII_MARKDOWN);
        }
    }
    table
}

/// Right-aligns the columns of figures, and takes blanks off the ends of lines.
fn finish(mut table: Table, figures: &[usize], style: Style) -> String {
    if style == Style::Terminal {
        let named = |row: &comfy_table::Row| row.cell_iter().position(|c| c.content() == "model");
        let key = table.header().and_then(named).unwrap_or(0);
        return grid::plain(&table, figures, key, columns());
    }
    for index in figures {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A reason as it was given may end in a full stop or not.
fn without_stop(sentence: &str) -> &str {
    sentence.trim_end_matches('.')
}

fn rank(rank: Option<(usize, usize)>) -> String {
    match rank {
        None => "-".into(),
        Some((best, worst)) if best == worst => best.to_string(),
        Some((best, worst)) => format!("{best}-{worst}"),
    }
}

/// Three significant digits in little room: `0.41`, `12`, `1,234`.
fn short(value: f64) -> String {
    if value.abs() >= 9.95 { thousands(value) } else { format!("{value:.1}") }
}

/// Letters of the doubts: one per kind, the same in all tables, in the order of appearance.
pub struct Marks {
    kinds: Vec<Doubt>,
    of_run: Vec<Doubt>,
}

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
        Marks { kinds, of_run: summary.doubts.clone() }
    }

    fn lettered(&self) -> impl Iterator<Item = (char, Doubt)> {
        (b'a'..).map(char::from).zip(self.kinds.iter().copied())
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

    /// What weakens the run as a whole; then what the letters mean and what to do. One line each.
    pub fn legend(&self) -> Vec<String> {
        let of_run = self.of_run.iter().map(|doubt| {
            let detail = Some(doubt.detail()).filter(|detail| !detail.is_empty());
            let detail = detail.map_or(String::new(), |detail| format!(" ({detail})"));
            format!("The whole run{detail}: {} {}", doubt.sentence(), doubt.remedy())
        });
        let lettered = self
            .lettered()
            .map(|(letter, kind)| format!("{letter}: {} {}", kind.sentence(), kind.remedy()));
        of_run.chain(lettered).collect()
    }
}

fn same_kind(a: Doubt, b: Doubt) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarise;
    use crate::text::COLUMNS_MAX;

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
            let mut rows = text.lines().filter(|line| !line.starts_with("Noise"));
            let row = rows.find(|line| line.split_whitespace().nth(1) == Some(model));
            row.unwrap_or_default().to_owned()
        };
        assert!(row("epoll").starts_with("1-2 "), "{text}");
        assert!(row("poll").contains("server-bound"), "{text}");
        assert!(row("threads").contains(">= 63,000"), "{text}");
        assert!(text.contains("SKIP uring: io_uring is not permitted."), "{text}");
        assert!(text.contains("select: not measured: holds 1000"), "{text}");
        assert!(text.contains("serial 63 of 64"), "{text}");
        assert!(text.contains("Noise: epoll against itself: req/s 1.00 (1.00-1.00; floor 3 %)"));
        // The noise is known before a figure is seen.
        assert!(text.find("Noise:").unwrap() < text.find("90,000").unwrap());
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
        let rows: Vec<&str> = table.lines().skip_while(|line| !line.starts_with('|')).collect();
        assert!(rows.iter().all(|line| line.ends_with('|')), "{table}");
        assert!(rows.len() == 2 + 6 && table.starts_with("Noise: epoll"), "{table}");
        let ratios = ratios(&summary.workloads[0], "epoll", Style::Markdown);
        assert!(ratios.contains("less"), "{ratios}");
        assert!(costs(&summary, Style::Markdown).contains("| threads"));
    }

    #[test]
    fn the_ledger_tells_calls_floor_and_what_is_not_available() {
        let mut results = fixture::with_counts(fixture::with_floor(fixture::results()));
        results.environment.kernel_memory_unavailable = Some("no cgroup can be made".into());
        let text = terminal(&results, &summarise(&results));
        assert!(text.contains("recvfrom 1.00 sendto 1.00 epoll_wait 0.04"), "{text}");
        assert!(!text.contains("mmap"), "{text}");
        assert!(text.contains("Floor: floor parses nothing and sends canned replies: 91,800"));
        assert!(text.contains("sockets n/a: no cgroup can be made."), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{text}");
        results.environment.counting_unavailable = Some("no tracepoints".into());
        results.trials.retain(|trial| trial.slot.role != record::Role::Counting);
        let text = terminal(&results, &summarise(&results));
        assert!(text.contains("System calls: n/a: no tracepoints."), "{text}");
    }

    #[test]
    fn an_open_loop_has_a_table_of_its_own() {
        let results = fixture::open_loop();
        let text = terminal(&results, &summarise(&results));
        let row = |model: &str| {
            let mut rows = text.lines().filter(|line| !line.starts_with("Noise"));
            rows.find(|line| line.split_whitespace().nth(1) == Some(model)).unwrap().to_owned()
        };
        assert!(row("poll").contains("5 of 6") && row("busy").contains("90.0 %"), "{text}");
        assert!(row("epoll").contains("2,000") && row("epoll").contains("900"), "{text}");
        assert!(!text.contains("sat. p50/p99 us"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{text}");
        let markdown = markdown(&results, &summarise(&results));
        assert!(markdown.contains("| offered/s |"), "{markdown}");
    }
}
