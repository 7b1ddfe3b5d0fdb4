//! `iolab export`: converts a result file for other tools. `iolab schema`: the schema of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use record::{Measured, Outcome, Results, Role, Trial};
use serde_json::{Value, json};

use crate::failure::{Failure, because};
use crate::report;
use crate::text;
use verdict::doubt::Doubt;
use verdict::statistics::{BlockRatio, Finding};
use verdict::summary::{
    Cell, FanOutFigures, Figure, Figures, Judged, Summary, TlsFigures, WorkloadSummary, rounds,
    summarise, trials,
};

/// Arguments of `iolab export`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
iolab export results/monday --format csv > rounds.csv\n  \
iolab export results/monday --format benchstat > old.txt; benchstat old.txt new.txt")]
pub struct Arguments {
    /// A result folder, or the results.json in it.
    results: PathBuf,
    /// Format of the output.
    #[arg(long, value_enum)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Raw data, one line per trial.
    Csv,
    /// The tables of the report.
    Markdown,
    /// Medians and ratios with their intervals, for each workload and model.
    Json,
    /// Go benchmark lines for benchstat, one for each workload, model and round.
    Benchstat,
}

/// Arguments of `iolab schema`.
#[derive(Args)]
pub struct SchemaArguments {
    /// Print the schema of instrument.json, which `iolab check-instrument` writes.
    #[arg(long)]
    instrument: bool,
    /// Print the schema of a line of a recording, which `iolab experiment` and `iolab trace`
    /// write.
    #[arg(long, conflicts_with = "instrument")]
    recording: bool,
    /// Print the schema of what `iolab laws --json` prints.
    #[arg(long, conflicts_with_all = ["instrument", "recording"])]
    laws: bool,
}

/// Runs `iolab export`.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let results = report::read(&arguments.results)?;
    let printed = text::print(&match arguments.format {
        Format::Csv => csv(&results),
        Format::Markdown => report::markdown(&results),
        Format::Json => {
            let value = as_json(&results, &summarise(&results));
            let text = serde_json::to_string_pretty(&value);
            text.map_err(because("cannot write JSON"))? + "\n"
        }
        Format::Benchstat => benchmarks(&results, "", &|_, _| true),
    })?;
    report::measured_or_failure(&results, printed)
}

/// Runs `iolab schema`.
pub fn schema(arguments: &SchemaArguments) -> Result<ExitCode, Failure> {
    let schema = match arguments {
        SchemaArguments { instrument: true, .. } => record::instrument_schema(),
        SchemaArguments { recording: true, .. } => record::recording_schema(),
        SchemaArguments { laws: true, .. } => record::laws_schema(),
        _ => record::schema(),
    };
    text::print(&format!("{schema:#}\n"))
}

/// One line of CSV (RFC 4180).
pub fn csv_line(fields: &[String]) -> String {
    let quoted = |field: &String| match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.clone(),
    };
    fields.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

/// A column of the raw table: its name, which ends in its unit, and its value.
type Column = (&'static str, fn(&Measured) -> String);

/// A missing figure is empty, not zero.
fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

/// The columns of a measured trial.
const COLUMNS: &[Column] = &[
    ("requests", |m| m.load.requests.to_string()),
    ("errors", |m| m.load.errors.to_string()),
    ("duration_s", |m| m.load.duration_s.to_string()),
    ("requests_per_s", |m| m.load.requests_per_s.to_string()),
    ("bytes_received", |m| m.load.bytes_received.to_string()),
    ("server_cpu_us", |m| m.server.cpu_us.to_string()),
    ("client_cpu_us", |m| m.load.client_cpu_us.to_string()),
    ("voluntary_switches", |m| m.server.voluntary_switches.to_string()),
    ("involuntary_switches", |m| m.server.involuntary_switches.to_string()),
    ("run_queue_delay_us", |m| m.server.run_queue_delay_us.to_string()),
    ("slices", |m| m.slices.requests.len().to_string()),
    ("pss_kib", |m| m.server.memory.pss_kib.to_string()),
    ("page_tables_kib", |m| m.server.memory.page_tables_kib.to_string()),
    ("kernel_kib", |m| optional(m.server.memory.kernel_kib)),
    ("threads", |m| m.server.memory.threads.to_string()),
    ("p50_us", |m| m.load.latency.p50_us.to_string()),
    ("p99_us", |m| optional(m.load.latency.p99_us)),
    ("p999_us", |m| optional(m.load.latency.p999_us)),
    ("protocol", |m| m.load.protocol.to_string()),
    ("tls_version", |m| optional(m.load.tls.as_ref().map(|tls| tls.version.clone()))),
    ("handshakes_full", |m| optional(m.load.tls.as_ref().map(|tls| tls.handshakes_full))),
    ("handshakes_resumed", |m| optional(m.load.tls.as_ref().map(|tls| tls.handshakes_resumed))),
    ("handshake_p50_us", |m| optional(m.load.tls.as_ref().map(|tls| tls.handshake.p50_us))),
    ("fan_out_members", |m| optional(m.load.fan_out.as_ref().map(|chat| chat.members))),
    ("fan_out_messages", |m| optional(m.load.fan_out.as_ref().map(|chat| chat.messages))),
    ("due", |m| optional(m.load.open_loop.as_ref().map(|open| open.due))),
    ("unanswered", |m| optional(m.load.open_loop.as_ref().map(|open| open.unanswered))),
    ("invalid", |m| optional(m.load.open_loop.as_ref().and_then(|open| open.invalid.clone()))),
    ("system_calls", |m| optional(m.calls.as_ref().map(|calls| calls.total))),
    ("ring_operations", |m| optional(m.calls.as_ref().map(|calls| calls.ring_operations))),
];

fn csv(results: &Results) -> String {
    let slot = ["workload", "model", "role", "round", "position", "started_s", "failed"];
    let names = slot.into_iter().chain(COLUMNS.iter().map(|column| column.0));
    let mut out = csv_line(&names.map(str::to_owned).collect::<Vec<_>>());
    for trial in &results.trials {
        out += &csv_line(&csv_row(trial));
    }
    out
}

fn csv_row(trial: &Trial) -> Vec<String> {
    let slot = &trial.slot;
    let role = match slot.role {
        Role::Timed => "timed",
        Role::Sentinel => "sentinel",
        Role::Counting => "counting",
    };
    let (failed, measured) = match &trial.outcome {
        Outcome::Failed { reason } => (reason.clone(), None),
        Outcome::Measured(measured) => (String::new(), Some(measured)),
    };
    let mut row = vec![
        slot.workload.clone(),
        slot.model.clone(),
        role.to_owned(),
        slot.round.to_string(),
        slot.position.to_string(),
        trial.started_s.to_string(),
        failed,
    ];
    let value = |column: &Column| measured.map_or(String::new(), |measured| (column.1)(measured));
    row.extend(COLUMNS.iter().map(value));
    row
}

/// Units of the benchmark lines besides Go's own, and whether more is better (benchfmt's unit
/// metadata, golang.org/x/perf).
const UNITS: [(&str, &str); 4] = [
    ("req/s", "higher"),
    ("cpu-ns/req", "lower"),
    ("both-cpu-ns/req", "lower"),
    ("p50-ns", "lower"),
];

/// The valid rounds of a run as Go benchmark lines (golang.org/design/14313-benchmark-format). An
/// operation is a request, so `ns/op` is the length of the window divided by its requests. `name`
/// is appended to each name; `chosen` selects workloads and models.
pub fn benchmarks(results: &Results, name: &str, chosen: &dyn Fn(&str, &str) -> bool) -> String {
    let environment = &results.environment;
    let mut out = String::new();
    for (key, value) in [
        ("goos", "linux"),
        ("goarch", goarch()),
        ("pkg", "iolab"),
        ("cpu", &environment.cpu_model),
        ("kernel", &environment.kernel),
        ("commit", environment.commit.as_deref().unwrap_or("unknown")),
    ] {
        out += &format!("{key}: {}\n", value.replace('\n', " "));
    }
    for (unit, better) in UNITS {
        out += &format!("Unit {unit} better={better}\n");
    }
    for workload in &results.workloads {
        for model in results.models.iter().filter(|m| chosen(&workload.name, &m.label)) {
            let title = format!("{}/model={}{name}", title(&workload.name), model.label);
            let timed = trials(results, &workload.name, &model.label, Role::Timed);
            out.extend(rounds(timed).values().filter_map(|m| benchmark(&title, m)));
        }
    }
    out
}

/// Go's name of this architecture.
fn goarch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `http-keepalive` -> `BenchmarkHttpKeepalive`: the letter after `Benchmark` must not be lower
/// case.
fn title(workload: &str) -> String {
    let mut title = "Benchmark".to_owned();
    for word in workload.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let mut letters = word.chars();
        title.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        title.extend(letters);
    }
    title
}

fn benchmark(title: &str, measured: &Measured) -> Option<String> {
    let load = &measured.load;
    let requests = load.requests as f64;
    let per_request = |us: u64| us as f64 * 1_000.0 / requests;
    let p50 = Figure::Latency.of(measured);
    (load.requests > 0).then(|| {
        let p50 = p50.map_or(String::new(), |us| format!("\t{:.0} p50-ns", us * 1_000.0));
        format!(
            "{title}\t{}\t{:.1} ns/op\t{:.1} req/s\t{:.0} B/s\t{:.1} cpu-ns/req\t\
             {:.1} both-cpu-ns/req{p50}\n",
            load.requests,
            load.duration_s * 1e9 / requests,
            load.requests_per_s,
            load.bytes_received as f64 / load.duration_s,
            per_request(measured.server.cpu_us),
            per_request(measured.server.cpu_us + load.client_cpu_us),
        )
    })
}

fn as_json(results: &Results, summary: &Summary) -> Value {
    let cell = |cell: &Cell| {
        let what = match &cell.state {
            Ok(figures) => figures_json(figures),
            Err(why) => json!({ "not_measured": why }),
        };
        json!({ "model": cell.model, "figures": what })
    };
    let workload = |workload: &WorkloadSummary| {
        json!({
            "workload": workload.workload.name,
            "control": by_figure(&workload.control, &ratio),
            "cells": workload.cells.iter().map(cell).collect::<Vec<_>>(),
            "floor": workload.floor.as_ref().map(cell),
        })
    };
    json!({
        "commit": results.environment.commit,
        "kernel": results.environment.kernel,
        "reference": results.reference,
        "doubts": summary.doubts.iter().map(|doubt| doubt.sentence()).collect::<Vec<_>>(),
        "workloads": summary.workloads.iter().map(workload).collect::<Vec<_>>(),
    })
}

/// The name of a figure as a key, with its unit last.
fn key(figure: Figure) -> &'static str {
    match figure {
        Figure::Rate => "requests_per_s",
        Figure::Server => "server_cpu_us",
        Figure::Sum => "both_cpu_us",
        Figure::Latency => "p50_us",
        Figure::Memory => "memory_kib",
    }
}

fn by_figure<T>(by: &BTreeMap<Figure, T>, show: &dyn Fn(&T) -> Value) -> Value {
    by.iter().map(|(figure, value)| (key(*figure).to_owned(), show(value))).collect()
}

fn ratio(ratio: &BlockRatio) -> Value {
    json!({ "ratio": ratio.ratio, "low": ratio.interval.low, "high": ratio.interval.high })
}

fn judged(judged: &Judged) -> Value {
    let value = &judged.value;
    json!({
        "median": value.median,
        "median_absolute_deviation": value.deviation,
        "to_reference": judged.ratio.as_ref().map(ratio),
        "to_floor": judged.to_floor.as_ref().map(ratio),
        "finding": judged.finding.map(Finding::word),
        "rank": judged.rank.map(|(best, worst)| [best, worst]),
    })
}

fn figures_json(figures: &Figures) -> Value {
    let doubt = |doubt: &Doubt| {
        let (sentence, figure, remedy) = (doubt.sentence(), doubt.detail(), doubt.remedy());
        json!({ "doubt": sentence, "figure": figure, "remedy": remedy })
    };
    let open = figures.open.as_ref();
    let open = open.map(|open| {
        json!({
            "offered_per_s": open.offered_per_s,
            "answered_share": open.answered_share,
            "p50_us": open.p50_us,
            "p99_us": open.p99_us,
            "p999_us": open.p999_us,
            "send_lag_p99_us": open.send_lag_p99_us,
            "valid_rounds": open.valid_rounds,
            "invalid_rounds": open.invalid_rounds,
        })
    });
    let calls = figures.calls.as_ref().map(|calls| {
        let named = |names: &[(String, f64)]| {
            names.iter().map(|(n, v)| (n.clone(), json!(v))).collect::<serde_json::Map<_, _>>()
        };
        json!({
            "total": calls.total,
            "by_name": named(&calls.by_name),
            "ring_operations": calls.ring_operations,
            "ring_by_name": named(&calls.ring_by_name),
        })
    });
    json!({
        "by": by_figure(&figures.by, &judged),
        "client_cpu_us": figures.client_us.median,
        "twice_the_client": figures.doubled.as_ref().map(ratio),
        "limit": figures.limit.name(),
        "voluntary_switches": figures.voluntary,
        "involuntary_switches": figures.involuntary,
        "run_queue_us": figures.run_queue_us,
        "calls": calls,
        "open_loop": open,
        "fan_out": figures.fan_out.as_ref().map(fan_out_json),
        "tls": figures.tls.as_ref().map(tls_json),
        "doubts": figures.doubts.iter().map(doubt).collect::<Vec<_>>(),
    })
}

fn fan_out_json(chat: &FanOutFigures) -> Value {
    json!({
        "members": chat.members,
        "messages_per_s": chat.messages_per_s,
        "p50_us": chat.p50_us,
        "p99_us": chat.p99_us,
        "p999_us": chat.p999_us,
    })
}

fn tls_json(tls: &TlsFigures) -> Value {
    json!({
        "version": tls.version,
        "cipher_suite": tls.cipher_suite,
        "alpn": tls.alpn,
        "full_per_s": tls.full_per_s,
        "resumed_per_s": tls.resumed_per_s,
        "handshake_p50_us": tls.p50_us,
        "handshake_p99_us": tls.p99_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_one_line_per_trial_and_quotes_what_it_must() {
        let mut results = fixture::results();
        results.trials[0].outcome = Outcome::Failed { reason: "said \"no\", twice".into() };
        let text = csv(&results);
        assert_eq!(text.lines().count(), 1 + results.trials.len());
        assert!(text.contains(r#","said ""no"", twice","#), "{text}");
        let names = text.lines().next().unwrap().split(',').count();
        assert_eq!(text.lines().nth(2).unwrap().split(',').count(), names);
        assert!(text.lines().nth(2).unwrap().starts_with("http-keepalive,threads,timed,1,1,"));
    }

    /// Checks the rules of the format: a configuration line is `key: value`, with a key that begins
    /// with a lower-case letter and has neither blanks nor capitals. A result line begins with
    /// `Benchmark`, not followed by a lower-case letter, then a count and pairs of value and unit.
    #[test]
    fn benchmark_lines_follow_the_format() {
        let results = fixture::results();
        let text = benchmarks(&results, "", &|_, _| true);
        let mut lines = 0;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("Unit ") {
                assert_eq!(rest.split_whitespace().count(), 2, "{line}");
                continue;
            }
            let Some(rest) = line.strip_prefix("Benchmark") else {
                let key = line.split_once(": ").unwrap().0;
                assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{line}");
                continue;
            };
            assert!(!rest.starts_with(char::is_lowercase), "{line}");
            let fields: Vec<&str> = rest.split_whitespace().collect();
            assert!(fields.len().is_multiple_of(2) && fields.len() >= 4, "{line}");
            assert!(fields[1].parse::<u64>().unwrap() > 0);
            assert!(fields[2..].chunks(2).all(|pair| pair[0].parse::<f64>().is_ok()), "{line}");
            lines += 1;
        }
        // Six rounds of six models in one workload and of four (serial fails) in the other.
        assert_eq!(lines, 6 * (6 + 4));
        assert!(text.contains("BenchmarkHttpKeepalive/model=epoll\t100000\t10000.0 ns/op\t"));
        assert!(text.contains("BenchmarkIdle10000/model=poll\t"), "{text}");
    }

    #[test]
    fn what_protocols_add_is_in_every_format() {
        let results = fixture::protocols();
        let text = csv(&results);
        let names: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let column = |name: &str| names.iter().position(|other| *other == name).unwrap();
        let line = text.lines().find(|line| line.starts_with("tls-handshake,epoll,")).unwrap();
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!((fields[column("tls_version")], fields[column("due")]), ("TLSv1.3", ""));
        assert_eq!(fields[column("handshakes_full")], fields[column("requests")]);
        let value = as_json(&results, &summarise(&results));
        let chat = |cell: &Value| cell["figures"]["fan_out"]["members"] == 100;
        let workloads = value["workloads"].as_array().unwrap();
        let cells = workloads.iter().flat_map(|w| w["cells"].as_array().unwrap());
        assert_eq!(cells.filter(|cell| chat(cell)).count(), 3);
        // The latency of a delivery is exported; that of a saturated closed loop is not.
        let lines = benchmarks(&results, "", &|_, model| model == "epoll");
        let with_p50 = |line: &&str| line.contains("p50-ns");
        assert_eq!(lines.lines().filter(with_p50).filter(|l| l.starts_with("Bench")).count(), 6);
    }

    #[test]
    fn json_tells_medians_findings_and_doubts() {
        let results = fixture::results();
        let value = as_json(&results, &summarise(&results));
        let cells = value["workloads"][0]["cells"].as_array().unwrap();
        let of = |model: &str| &cells.iter().find(|c| c["model"] == model).unwrap()["figures"];
        let rate = &of("poll")["by"]["requests_per_s"];
        assert_eq!((&rate["finding"], &rate["rank"]), (&json!("less"), &json!([4, 4])));
        assert!((rate["to_reference"]["ratio"].as_f64().unwrap() - 0.9).abs() < 0.001, "{rate}");
        assert_eq!(of("epoll")["by"]["requests_per_s"]["to_reference"], Value::Null);
        assert_eq!(value["workloads"][0]["control"]["server_cpu_us"]["ratio"], 1.0);
        assert_eq!(of("threads")["limit"], "client-bound");
        assert_eq!(of("serial")["doubts"].as_array().unwrap().len(), 1);
    }
}
