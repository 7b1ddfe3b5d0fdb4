//! Tables for a terminal (at most 100 columns) and, with the same cells, for REPORT.md and
//! TABLES.md.
//!
//! The table of a workload has at most eight columns: CPU per request, its ratio to the reference
//! with the finding, requests/s, memory. The title summarises the findings. The details of a
//! request's cost (by part, system calls) are optional.

pub mod doubts;
pub mod end;
pub mod found;
pub mod protocols;

use comfy_table::{CellAlignment, Table, presets};
use record::Results;

use crate::grid;
use crate::text::{columns, figure, thousands, wrap};
use verdict::statistics::{BlockRatio, Finding};
use verdict::summary::{Cell, Cost, Figure, Figures, Summary, WorkloadSummary, is_judged};

/// The meaning of the columns, printed once below the tables.
pub const LEGEND: &str = "CPU us/req: CPU time of the server for each request, in microseconds, \
median of the epochs. A ratio to the reference is formed between slices of the same block; in \
brackets where it lies with 99 % confidence. `more`, `less`: not 1, by that interval; `equal`: \
nearer to 1 than 3 %, by two one-sided tests; `~`: this run cannot tell. The line `again` is a \
second process of the reference: what it differs by is no difference. The floor parses nothing \
and sends canned replies. MiB: the process's own memory and its threads' kernel stacks, with \
all connections open. In a chat each delivery counts as a request. At a fixed rate latency counts \
from the moment when a request was due.";

/// The format of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Terminal,
    Markdown,
}

/// Everything for a terminal: for each workload the findings, the table and the doubts; then the
/// costs of protocols and idle connections. `full`: with the details of each request's cost.
pub fn terminal(results: &Results, summary: &Summary, full: bool) -> String {
    let style = Style::Terminal;
    let mut out = String::new();
    for workload in &summary.workloads {
        let heading = format!("{}: {}", workload.workload.name, workload.workload.description);
        out += &format!("\n{}\n", wrap(&heading, 2));
        out += &measured(workload, style);
        out += &part("deliveries", &protocols::deliveries(workload, style));
        out += &part("handshakes", &protocols::handshakes(workload, style));
        if full {
            out += &part("what a request costs", &ledger(workload, style));
            out += &part("system calls per request", &calls(workload, style));
        }
        out += &notes(results, workload, style, full);
    }
    let prices = protocols::cpu(results, summary, style);
    out += &part("price of each protocol: server CPU us per request", &prices);
    let ratios = protocols::ratios(results, summary, style);
    out += &part("the same, relative to the workload without it", &ratios);
    out += &part("idle connections", &costs(results, summary, style));
    let idle = protocols::idle(results, style);
    out += &part("10,000 idle connections: MiB of the process + the kernel", &idle);
    out += &format!("\n{}\n", wrap(LEGEND, 0));
    out.extend(doubts::of_run(summary).iter().map(|doubt| format!("\n{}\n", wrap(doubt, 0))));
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
            measured(workload, style),
            protocols::deliveries(workload, style),
            protocols::handshakes(workload, style),
            ledger(workload, style),
            calls(workload, style),
        ];
        out.extend(tables.iter().filter(|table| !table.is_empty()).map(|t| format!("{t}\n")));
        out += &format!("{}\n", notes(results, workload, style, true));
    }
    let parts = [
        ("price of each protocol", protocols::cpu(results, summary, style)),
        ("price relative to the workload without it", protocols::ratios(results, summary, style)),
        ("idle connections", costs(results, summary, style)),
        ("10,000 idle connections by protocol, MiB", protocols::idle(results, style)),
    ];
    for (title, table) in parts.into_iter().filter(|(_, table)| !table.is_empty()) {
        out += &format!("## {title}\n\n{table}\n");
    }
    out
}

/// A table under a heading; nothing for an empty table.
fn part(heading: &str, table: &str) -> String {
    if table.is_empty() { String::new() } else { format!("\n{heading}\n{table}") }
}

/// The findings and the table of one workload, without notes.
pub fn measured(workload: &WorkloadSummary, style: Style) -> String {
    if workload.cells.iter().all(|cell| cell.state.is_err()) {
        return String::new();
    }
    let table = match workload.is_open() {
        true => open(workload, style),
        false => closed(workload, style),
    };
    let found = found::sentence(workload);
    let found = found.map_or(String::new(), |found| match style {
        Style::Terminal => wrap(&found, 2) + "\n",
        Style::Markdown => format!("{found}\n\n"),
    });
    found + &table
}

fn closed(workload: &WorkloadSummary, style: Style) -> String {
    let mut table = new_table(style);
    let to = format!(": {}", workload.reference);
    table.set_header(["model", "CPU us/req", &to, "req/s", &to, "MiB", "limit"]);
    for (cell, figures) in measured_cells(workload).chain(floor(workload)) {
        let limited = figures.doubts.iter().any(|doubt| doubt.is_of_client());
        let rate = thousands(figures.rate().median);
        table.add_row([
            cell.model.clone(),
            figure(figures.server_us().median),
            with_interval(workload, cell, figures, Figure::Server),
            if limited { format!(">= {rate}") } else { rate },
            in_a_word(workload, cell, figures, Figure::Rate),
            figures.judged(Figure::Memory).map_or("-".into(), |memory| mib(memory.value.median)),
            figures.limit.name().to_owned(),
        ]);
    }
    if let Some(row) = again(workload) {
        let [name, cpu, rate] = row;
        let none = String::new;
        table.add_row([name, none(), cpu, none(), rate, none(), none()]);
    }
    finish(table, &[1, 3, 5], style)
}

fn open(workload: &WorkloadSummary, style: Style) -> String {
    let mut table = new_table(style);
    let to = format!(": {}", workload.reference);
    table.set_header([
        "model",
        "CPU us/req",
        &to,
        "answered",
        "p50 us",
        &to,
        "p99 us",
        "client late us",
    ]);
    let or_none = |value: Option<f64>| value.map_or("-".to_owned(), short);
    for (cell, figures) in measured_cells(workload).chain(floor(workload)) {
        let Some(open) = &figures.open else { continue };
        table.add_row([
            cell.model.clone(),
            figure(figures.server_us().median),
            with_interval(workload, cell, figures, Figure::Server),
            format!("{:.1} %", open.answered_share * 100.0),
            or_none(open.p50_us),
            in_a_word(workload, cell, figures, Figure::Latency),
            or_none(open.p99_us),
            or_none(open.send_lag_p99_us),
        ]);
    }
    if let Some([name, cpu, _]) = again(workload) {
        let none = String::new;
        let latency = workload.control.get(&Figure::Latency);
        let latency = latency.map_or(none(), |r| format!("{:.2}", r.ratio));
        table.add_row([name, none(), cpu, none(), none(), latency, none(), none()]);
    }
    finish(table, &[1, 3, 4, 6, 7], style)
}

/// The floor, if it was measured.
fn floor(workload: &WorkloadSummary) -> Option<(&Cell, &Figures)> {
    let cell = workload.floor.as_ref()?;
    Some((cell, cell.state.as_deref().ok()?))
}

/// The second process of the reference, relative to the first: CPU and requests/s.
fn again(workload: &WorkloadSummary) -> Option<[String; 3]> {
    let cpu = workload.control.get(&Figure::Server)?;
    let rate = workload.control.get(&Figure::Rate);
    Some([
        format!("{} again", workload.reference),
        format!("{:.2} ({})", cpu.ratio, between(cpu)),
        rate.filter(|_| !workload.is_open()).map_or(String::new(), |r| format!("{:.2}", r.ratio)),
    ])
}

/// `0.87 less (0.85-0.89)`: the ratio to the reference, the finding, and the interval.
fn with_interval(workload: &WorkloadSummary, cell: &Cell, figures: &Figures, of: Figure) -> String {
    let word = in_a_word(workload, cell, figures, of);
    match figures.ratio(of) {
        Some(ratio) => format!("{word} ({})", between(ratio)),
        None => word,
    }
}

/// `0.87 less`: the ratio to the reference, and the finding if there is one.
fn in_a_word(workload: &WorkloadSummary, cell: &Cell, figures: &Figures, of: Figure) -> String {
    let Some(ratio) = figures.ratio(of) else {
        let is_reference = cell.model == workload.reference;
        return if is_reference { "1" } else { "-" }.to_owned();
    };
    let judged = is_judged(cell, of, workload.is_open());
    let finding = figures.judged(of).and_then(|judged| judged.finding).filter(|_| judged);
    let word = finding.map_or("", Finding::word);
    format!("{} {word}", times(ratio.ratio)).trim_end().to_owned()
}

/// Two decimals; for large ratios three significant digits.
fn times(ratio: f64) -> String {
    if ratio < 9.995 { format!("{ratio:.2}") } else { figure(ratio) }
}

fn between(ratio: &BlockRatio) -> String {
    format!("{}-{}", times(ratio.interval.low), times(ratio.interval.high))
}

/// The cost of a request by part.
pub fn ledger(workload: &WorkloadSummary, style: Style) -> String {
    let mut table = new_table(style);
    let header = ["model", "client us", "both us", ": floor", "waits", "preempted", "queued us"];
    table.set_header(header.into_iter().chain(["p50/p99 us"]));
    let mut empty = true;
    for (cell, figures) in measured_cells(workload).chain(floor(workload)) {
        let least = if doubts::has_lower_bound(figures) { ">=" } else { "" };
        let p99 = figures.p99_us.map_or("-".into(), short);
        table.add_row([
            cell.model.clone(),
            figure(figures.client_us.median),
            figure(figures.sum_us().median),
            figures.to_floor(Figure::Server).map_or("-".into(), |r| times(r.ratio)),
            format!("{least}{}", figure(figures.voluntary)),
            format!("{least}{}", figure(figures.involuntary)),
            figure(figures.run_queue_us),
            format!("{}/{p99}", short(figures.p50_us)),
        ]);
        empty = false;
    }
    if empty { String::new() } else { finish(table, &[1, 2, 3, 4, 5, 6, 7], style) }
}

fn mib(kib: f64) -> String {
    figure(kib / 1024.0)
}

/// System calls and ring operations per request by name; empty if they were not counted.
pub fn calls(workload: &WorkloadSummary, style: Style) -> String {
    let mut table = new_table(style);
    table.set_header(["model", "calls", "by name", "ring ops", "by operation"]);
    let named = |names: &[(String, f64)]| {
        // Calls that round to 0.00 are made at the start of the window, not per request.
        let names = names.iter().filter(|(_, share)| *share >= 0.005);
        names.map(|(name, share)| format!("{name} {share:.2}")).collect::<Vec<_>>().join(" ")
    };
    let mut empty = true;
    for (cell, figures) in measured_cells(workload).chain(floor(workload)) {
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

/// The notes below a workload's tables: cells without figures, unavailable columns, and doubts.
pub fn notes(results: &Results, workload: &WorkloadSummary, style: Style, full: bool) -> String {
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
        lines.push(format!("{}: cannot run here: {}.", skip.model, without_stop(&skip.reason)));
    }
    if full {
        lines.extend(unavailable(results, workload));
    }
    lines.extend(doubts::of_workload(workload));
    let line = |line: String| match style {
        Style::Terminal => wrap(&line, 3) + "\n",
        Style::Markdown => format!("- {line}\n"),
    };
    lines.into_iter().map(line).collect()
}

/// Columns that are unavailable on this machine, and why.
fn unavailable(results: &Results, workload: &WorkloadSummary) -> Vec<String> {
    let environment = &results.environment;
    let mut lines = Vec::new();
    let figures = || measured_cells(workload).map(|(_, figures)| figures);
    if figures().all(|f| f.calls.is_none()) && figures().next().is_some() {
        let why = environment.counting_unavailable.as_deref();
        let why = why.unwrap_or("the run has no counting pass of this workload");
        lines.push(format!("System calls: n/a: {}.", without_stop(why)));
    }
    lines
}

/// The cost of idle connections for each model; empty if there was no idle sample.
pub fn costs(results: &Results, summary: &Summary, style: Style) -> String {
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
    let mut unknown: Vec<&str> = Vec::new();
    let mut empty = true;
    for (model, cost) in models.into_iter().filter_map(|m| Some((m, summary.costs.get(m)?))) {
        table.add_row(cost_row(model, cost));
        unknown.extend(cost.memory.kernel_kib.is_none().then_some(model));
        empty = false;
    }
    if empty {
        return String::new();
    }
    let table = finish(table, &[1, 2, 3, 4, 5, 6, 7], style);
    if unknown.is_empty() {
        return table;
    }
    let why = results.environment.kernel_memory_unavailable.as_deref();
    let why = without_stop(why.unwrap_or("not all of its samples have it"));
    let why = format!("Kernel memory of {}: n/a: {why}.", verdict::list(&unknown));
    match style {
        Style::Terminal => format!("{table}{}\n", wrap(&why, 2)),
        Style::Markdown => format!("{table}\n{why}\n"),
    }
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

/// Cells with figures, sorted.
fn measured_cells(workload: &WorkloadSummary) -> impl Iterator<Item = (&Cell, &Figures)> {
    sorted(workload).into_iter().filter_map(|cell| Some((cell, cell.state.as_deref().ok()?)))
}

/// Sorts by CPU per request; cells that are not compared come last.
fn sorted(workload: &WorkloadSummary) -> Vec<&Cell> {
    let mut cells: Vec<&Cell> = workload.cells.iter().collect();
    let key = |cell: &Cell| match &cell.state {
        Ok(figures) => {
            let ratio = figures.ratio(Figure::Server).map_or(1.0, |ratio| ratio.ratio);
            (!is_judged(cell, Figure::Server, workload.is_open()), ratio)
        }
        Err(_) => (true, f64::INFINITY),
    };
    cells.sort_by(|one, other| {
        let ((one_last, one), (other_last, other)) = (key(one), key(other));
        one_last.cmp(&other_last).then(one.total_cmp(&other))
    });
    cells
}

fn new_table(style: Style) -> Table {
    let mut table = Table::new();
    match style {
        // `grid` fits it to the terminal.
        Style::Terminal => {}
        Style::Markdown => {
            table.load_style(presets::ASCII_MARKDOWN);
        }
    }
    table
}

/// Aligns the columns of figures right and removes trailing blanks.
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

/// Removes a full stop at the end.
fn without_stop(sentence: &str) -> &str {
    sentence.trim_end_matches('.')
}

/// Three significant digits, short: `0.41`, `12`, `1,234`.
fn short(value: f64) -> String {
    if value.abs() >= 9.95 { thousands(value) } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::COLUMNS_MAX;
    use verdict::summary::summarise;

    fn text_of(results: &Results) -> String {
        terminal(results, &summarise(results), true)
    }

    fn row(text: &str, model: &str) -> String {
        let is_it = |line: &&str| line.split_whitespace().next() == Some(model);
        text.lines().find(is_it).unwrap_or_default().to_owned()
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let mut results = fixture::results();
        // The widest expected cells: a flavour's label and rates of seven digits.
        for trial in &mut results.trials {
            if let record::Outcome::Measured(measured) = &mut trial.outcome {
                measured.load.requests_per_s *= 10.0;
            }
        }
        for text in [text_of(&results), text_of(&fixture::rich()), text_of(&fixture::open_loop())] {
            for line in text.lines() {
                assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
            }
        }
    }

    #[test]
    fn the_table_says_what_there_is_to_know() {
        let text = text_of(&fixture::results());
        assert!(text.contains("poll costs more CPU than epoll"), "{text}");
        assert!(row(&text, "poll").contains("1.11 more (1.11-1.11)"), "{text}");
        assert!(row(&text, "poll").contains("0.90 less"), "{text}");
        assert!(text.contains(">= 63,000"), "{text}");
        assert!(text.contains("uring: cannot run here: io_uring is not permitted."), "{text}");
        assert!(text.contains("select: not measured: holds 1000"), "{text}");
        assert!(
            text.contains("serial (63 of 64): Some connections completed no request"),
            "{text}"
        );
        assert!(text.contains("epoll again"), "{text}");
    }

    #[test]
    fn an_interrupted_run_says_so() {
        let mut results = fixture::results();
        results.trials.truncate(5);
        assert!(text_of(&results).contains("Interrupted: 5 of 78 trials"));
    }

    #[test]
    fn markdown_has_the_same_cells_in_at_most_eight_columns() {
        for results in [fixture::results(), fixture::open_loop(), fixture::rich()] {
            let summary = summarise(&results);
            let text = markdown(&results, &summary);
            for line in text.lines().filter(|line| line.starts_with('|')) {
                assert!(line.matches('|').count() <= 9 || line.contains("TCP echo"), "{line}");
            }
        }
        let mut results = fixture::results();
        let table = measured(&summarise(&results).workloads[0], Style::Markdown);
        let rows = table.lines().filter(|line| line.starts_with('|')).count();
        assert_eq!(rows, 2 + 6 + 1, "{table}");
        let costs = |results: &Results| costs(results, &summarise(results), Style::Markdown);
        assert!(costs(&results).contains("| threads"));
        // A figure that is missing has its reason.
        assert!(costs(&results).contains(": n/a: not all of its samples have it."));
        results.environment.kernel_memory_unavailable = Some("no cgroup can be made.".into());
        let text = costs(&results);
        assert!(text.contains("Kernel memory of threads, ") && text.contains("n/a: no cgroup can"));
        assert!(!costs(&fixture::rich()).contains("n/a"));
    }

    #[test]
    fn the_details_come_when_they_are_asked_for() {
        let mut results = fixture::with_counts(fixture::with_floor(fixture::results()));
        let text = text_of(&results);
        assert!(text.contains("recvfrom 1.00 sendto 1.00 epoll_wait 0.04"), "{text}");
        assert!(!text.contains("mmap"), "{text}");
        assert!(row(&text, "floor").contains("7.00"), "{text}");
        let short = terminal(&results, &summarise(&results), false);
        assert!(!short.contains("recvfrom") && short.contains("poll costs more"), "{short}");
        results.environment.counting_unavailable = Some("no tracepoints".into());
        results.trials.retain(|trial| trial.slot.role != record::Role::Counting);
        assert!(text_of(&results).contains("System calls: n/a: no tracepoints."));
    }

    #[test]
    fn an_open_loop_has_a_table_of_its_own() {
        let text = text_of(&fixture::open_loop());
        assert!(row(&text, "busy").contains("90.0 %") && row(&text, "epoll").contains("900"));
        assert!(row(&text, "poll").contains("1.30 (1.30-1.30)"), "not judged: {text}");
        assert!(text.contains("poll (1 of 6 rounds): The client was too slow"), "{text}");
    }
}
