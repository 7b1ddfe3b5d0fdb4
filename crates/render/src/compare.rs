//! `iolab compare`: two runs, or two models of one run, figure by figure.
//!
//! Two models of one run share its rounds, so their ratio is paired; two runs share nothing, so it
//! is the ratio of their medians, each resampled on its own. One family per figure: all workloads
//! (and models) together, adjusted by Holm.
//!
//! What a pair of files cannot show: a machine that was in another state on the other day. Rounds
//! of one run all share that state, so no interval has it. The gauges do: where the cost of a
//! round trip without any server moved between the runs, that much is no difference either.

mod render;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use record::{Environment, Results, Role, Workload};

use crate::failure::Failure;
use crate::report;
use crate::statistics::{
    Contrast, Estimate, Verdict, log_ratio, median, paired_ratio, separable, separable_unpaired,
    unpaired_ratio, verdicts,
};
use crate::summary::{
    Arena, Cell, Figure, Rounds, Summary, WorkloadSummary, is_judged, reach, rounds, summarise,
    trials,
};
use crate::text;

/// Exit code when something is clearly worse.
const EXIT_WORSE: u8 = 1;

/// Arguments of `iolab compare`.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 nothing is clearly worse, 1 something is, 2 bad input or \
nothing to compare.\n\n\
Examples:\n  \
iolab compare results/monday results/tuesday\n  \
iolab compare results/monday results/tuesday --models epoll --threshold 5%\n  \
iolab compare results/monday --models epoll,uring --format markdown\n  \
iolab compare old new --format benchstat > runs.txt; benchstat -col /run runs.txt")]
pub struct Arguments {
    /// The older run, or the only one: a result folder, or the results.json in it.
    a: PathBuf,
    /// The newer run. Without it, --models names two models of the first.
    b: Option<PathBuf>,
    /// One run: the two models to compare, the base first. Two runs: the models to look at.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Workloads to look at. All that both have by default.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    workloads: Vec<String>,
    /// Smallest difference that counts: 5% or 0.05. The noise of the runs counts besides.
    #[arg(long, value_name = "SHARE", default_value = "3%", value_parser = share)]
    threshold: f64,
    /// How it is written.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a terminal.
    Table,
    /// For a comment or a page.
    Markdown,
    /// One line per comparison.
    Csv,
    /// For machines.
    Json,
    /// The rounds of both sides as Go benchmarks, told apart by `/run=`, for benchstat to compare.
    Benchstat,
}

/// A share, as `5%` or `0.05`.
fn share(text: &str) -> Result<f64, String> {
    let (digits, unit) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent.trim(), 100.0),
        None => (text.trim(), 1.0),
    };
    match digits.parse::<f64>() {
        Ok(number) if (0.0..=10.0).contains(&(number / unit)) => Ok(number / unit),
        _ => Err("give a share such as 5% or 0.05".into()),
    }
}

/// What a comparison means for who wants it fast and cheap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Better,
    Worse,
    Alike,
}

impl Change {
    fn of(verdict: Verdict, figure: Figure) -> Change {
        match (verdict, figure.more_is_better()) {
            (Verdict::Alike, _) => Change::Alike,
            (Verdict::More, true) | (Verdict::Less, false) => Change::Better,
            (Verdict::Less, true) | (Verdict::More, false) => Change::Worse,
        }
    }

    fn name(self, figure: Figure) -> &'static str {
        let cpu = matches!(figure, Figure::Server | Figure::Sum);
        match (self, cpu) {
            (Change::Alike, _) => "~",
            (Change::Better, false) => "faster",
            (Change::Worse, false) => "slower",
            (Change::Better, true) => "cheaper",
            (Change::Worse, true) => "dearer",
        }
    }
}

/// One comparison.
struct Row {
    workload: String,
    model: String,
    figure: Figure,
    a: f64,
    b: f64,
    ratio: Estimate,
    /// The noise floor that it had to pass.
    threshold: f64,
    change: Change,
}

/// Everything that was compared, and what could not be.
struct Comparison {
    /// Names of the two sides.
    sides: [String; 2],
    rows: Vec<Row>,
    /// What differs between the two runs, as (what, A, B).
    differences: Vec<(String, String, String)>,
    notes: Vec<String>,
}

/// One side of a comparison.
struct Side {
    name: String,
    results: Results,
    summary: Summary,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let read = |path: &PathBuf| {
        let results = report::read(path)?;
        let summary = summarise(&results);
        Ok::<_, Failure>(Side { name: path.display().to_string(), results, summary })
    };
    let a = read(&arguments.a)?;
    known(&a, arguments)?;
    let (comparison, benchmarks) = match &arguments.b {
        Some(b) => {
            let b = read(b)?;
            known(&b, arguments)?;
            (two_runs(&a, &b, arguments), render::benchmarks(&[&a, &b], arguments))
        }
        None => (two_models(&a, arguments)?, render::benchmarks(&[&a], arguments)),
    };
    if comparison.rows.is_empty() {
        let why = comparison.notes.iter().map(|note| format!("; {}", note.trim_end_matches('.')));
        return Err(Failure(format!("nothing to compare{}", why.collect::<String>())));
    }
    text::print(&match arguments.format {
        Format::Benchstat => benchmarks,
        format => render::rendered(&comparison, format)?,
    })?;
    let worse = comparison.rows.iter().any(|row| row.change == Change::Worse);
    Ok(if worse { ExitCode::from(EXIT_WORSE) } else { ExitCode::SUCCESS })
}

/// A name that is in the arguments and not in the file is a slip.
fn known(side: &Side, arguments: &Arguments) -> Result<(), Failure> {
    let labels: Vec<&str> = side.results.models.iter().map(|m| m.label.as_str()).collect();
    let names: Vec<&str> = side.results.workloads.iter().map(|w| w.name.as_str()).collect();
    for (what, asked, there) in
        [("model", &arguments.models, labels), ("workload", &arguments.workloads, names)]
    {
        if let Some(name) = asked.iter().find(|name| !there.contains(&name.as_str())) {
            let there = there.join(", ");
            return Err(Failure(format!("{}: no {what} {name}; it has {there}", side.name)));
        }
    }
    Ok(())
}

fn wanted(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|wanted| wanted == name)
}

/// The figures that a workload is compared by.
fn figures_of(workload: &WorkloadSummary) -> &'static [Figure] {
    match (workload.is_open(), workload.workload.fan_out) {
        (true, _) => &[Figure::P99, Figure::Server, Figure::Sum],
        // Its latency is that of a delivery, which is what a chat is for.
        (false, true) => &[Figure::Rate, Figure::P99, Figure::Server, Figure::Sum],
        (false, false) => &[Figure::Rate, Figure::Server, Figure::Sum],
    }
}

/// One comparison before its family is complete: with whether its rounds are enough, even if all
/// were won, for one call in a family of so many.
struct Candidate {
    row: Row,
    contrast: Contrast,
    enough: Box<dyn Fn(usize) -> bool>,
}

/// Verdicts figure by figure: each is a family. Where its rounds are too few to call anything
/// different, a note says so: `~` would pass for an answer.
fn judged(candidates: Vec<Candidate>, notes: &mut Vec<String>) -> Vec<Row> {
    let mut families: BTreeMap<Figure, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        families.entry(candidate.row.figure).or_default().push(candidate);
    }
    let mut rows = Vec::new();
    for (figure, family) in families {
        let size = family.len();
        if !family.iter().any(|candidate| (candidate.enough)(size)) {
            let name = figure.name();
            notes.push(format!(
                "{name}: so few rounds cannot show any difference at 95 % in {size} comparisons; \
                 take more rounds, or compare less at once."
            ));
        }
        let contrasts: Vec<Contrast> = family.iter().map(|one| one.contrast).collect();
        rows.extend(family.into_iter().zip(verdicts(&contrasts)).map(|(candidate, verdict)| Row {
            change: Change::of(verdict, figure),
            ..candidate.row
        }));
    }
    rows
}

fn two_runs(a: &Side, b: &Side, arguments: &Arguments) -> Comparison {
    let mut notes = Vec::new();
    let mut candidates = Vec::new();
    for of_a in &a.summary.workloads {
        let name = &of_a.workload.name;
        if !wanted(&arguments.workloads, name) {
            continue;
        }
        let Some(of_b) = b.summary.workloads.iter().find(|w| w.workload.name == *name) else {
            notes.push(format!("{name}: only in {}.", a.name));
            continue;
        };
        if !same_load(&of_a.workload, &of_b.workload) {
            notes.push(format!("{name}: another load under the same name, not compared."));
            continue;
        }
        for cell in of_a.cells.iter().chain(&of_a.floor) {
            let model = &cell.model;
            if !wanted(&arguments.models, model) {
                continue;
            }
            let other = of_b.cells.iter().chain(&of_b.floor).find(|c| c.model == *model);
            for &figure in figures_of(of_a) {
                match unpaired(a, b, of_a, (cell, other), figure, arguments) {
                    Ok(candidate) => candidates.push(candidate),
                    Err(why) => notes.push(format!("{name}, {model}, {}: {why}.", figure.name())),
                }
            }
        }
    }
    let only_b = b.summary.workloads.iter().map(|w| &w.workload.name).filter(|name| {
        wanted(&arguments.workloads, name)
            && a.summary.workloads.iter().all(|w| w.workload.name != **name)
    });
    notes.extend(only_b.map(|name| format!("{name}: only in {}.", b.name)));
    let rows = judged(candidates, &mut notes);
    let sides = [a.name.clone(), b.name.clone()];
    Comparison { sides, rows, differences: differences(&a.results, &b.results), notes }
}

/// The description is for readers; everything else is the load.
fn same_load(a: &Workload, b: &Workload) -> bool {
    *a == Workload { description: a.description.clone(), ..b.clone() }
}

fn values(side: &Side, workload: &str, model: &str, figure: Figure) -> Vec<f64> {
    let rounds = rounds(trials(&side.results, workload, model, Role::Timed));
    rounds.values().filter_map(|measured| figure.of(measured)).collect()
}

/// Why a cell cannot be compared by a figure; `None` when it can.
fn spoilt(cell: &Cell, figure: Figure, open: bool) -> Option<String> {
    let figures = match &cell.state {
        Ok(figures) => figures,
        Err(why) => return Some(format!("not measured ({})", why.trim_end_matches('.'))),
    };
    if figure == Figure::P99 || is_judged(cell, figure, open) {
        return None;
    }
    let sentence = figures.doubts.iter().find(|doubt| doubt.unranks()).or(figures.doubts.first());
    sentence.map(|doubt| doubt.sentence().trim_end_matches('.').to_owned())
}

fn unpaired(
    a: &Side,
    b: &Side,
    workload: &WorkloadSummary,
    (of_a, of_b): (&Cell, Option<&Cell>),
    figure: Figure,
    arguments: &Arguments,
) -> Result<Candidate, String> {
    let of_b = of_b.ok_or_else(|| format!("only in {}", a.name))?;
    let (name, model) = (&workload.workload.name, &of_a.model);
    for (cell, side) in [(of_a, a), (of_b, b)] {
        if let Some(why) = spoilt(cell, figure, workload.is_open()) {
            return Err(format!("{}: {why}", side.name));
        }
    }
    let (values_a, values_b) = (values(a, name, model, figure), values(b, name, model, figure));
    let ratio = unpaired_ratio(&values_a, &values_b, a.results.settings.seed)
        .ok_or("a round without the figure")?;
    let noise = |side: &Side| sentinel_reach(side, name, figure);
    let threshold =
        arguments.threshold.max(noise(a)).max(noise(b)).max(gauge_shift(&a.results, &b.results));
    let contrast = Contrast::unpaired(&values_a, &values_b, &ratio, threshold);
    let row = Row {
        workload: name.clone(),
        model: model.clone(),
        figure,
        a: median(&values_a).unwrap_or(0.0),
        b: median(&values_b).unwrap_or(0.0),
        ratio: ratio.ratio,
        threshold,
        change: Change::Alike,
    };
    let (a, b) = (values_a.len(), values_b.len());
    Ok(Candidate { row, contrast, enough: Box::new(move |size| separable_unpaired(a, b, size)) })
}

/// How far the reference's second runs are from its first.
fn sentinel_reach(side: &Side, workload: &str, figure: Figure) -> f64 {
    let of = |role| rounds(trials(&side.results, workload, &side.results.reference, role));
    reach(paired_ratio(&log_ratios(&of(Role::Sentinel), &of(Role::Timed), figure)))
}

fn log_ratios(a: &Rounds, b: &Rounds, figure: Figure) -> Vec<f64> {
    let log = |(round, a): (&u32, &&record::Measured)| {
        log_ratio(figure.of(a)?, figure.of(b.get(round)?)?)
    };
    a.iter().filter_map(log).collect()
}

/// By how much the machine itself moved between two runs: the cost of a round trip in which no
/// server takes part. 0 where it was not taken.
fn gauge_shift(a: &Results, b: &Results) -> f64 {
    let echo = |results: &Results| {
        let costs: Vec<f64> = results.gauges.iter().map(|g| g.echo_one_thread_us).collect();
        median(&costs).filter(|cost| *cost > 0.0)
    };
    match (echo(a), echo(b)) {
        (Some(a), Some(b)) => (a / b).max(b / a) - 1.0,
        _ => 0.0,
    }
}

fn two_models(side: &Side, arguments: &Arguments) -> Result<Comparison, Failure> {
    let [base, other] = &arguments.models[..] else {
        return Err(Failure(
            "one run: name two of its models (--models epoll,uring), or give a second run".into(),
        ));
    };
    let (mut notes, mut candidates) = (Vec::new(), Vec::new());
    for workload in &side.summary.workloads {
        let name = &workload.workload.name;
        if !wanted(&arguments.workloads, name) {
            continue;
        }
        for &figure in figures_of(workload) {
            match paired(side, workload, (base, other), figure, arguments) {
                Ok(candidate) => candidates.push(candidate),
                Err(why) => notes.push(format!("{name}, {}: {why}.", figure.name())),
            }
        }
    }
    let rows = judged(candidates, &mut notes);
    Ok(Comparison { sides: [base.clone(), other.clone()], rows, differences: Vec::new(), notes })
}

fn paired(
    side: &Side,
    workload: &WorkloadSummary,
    (base, other): (&str, &str),
    figure: Figure,
    arguments: &Arguments,
) -> Result<Candidate, String> {
    let name = &workload.workload.name;
    let rounds_of = |model: &str| {
        let mut cells = workload.cells.iter().chain(&workload.floor);
        let cell = cells.find(|cell| cell.model == model).ok_or("not in this run")?;
        match spoilt(cell, figure, workload.is_open()) {
            Some(why) => Err(format!("{model}: {why}")),
            None => Ok(rounds(trials(&side.results, name, model, Role::Timed))),
        }
    };
    let (a, b) = (rounds_of(base)?, rounds_of(other)?);
    let ratio = paired_ratio(&log_ratios(&b, &a, figure)).ok_or("no round has both")?;
    let threshold = arguments.threshold.max(sentinel_reach(side, name, figure));
    let arena = Arena::new(&side.results, name, figure, threshold);
    let reference = &side.results.reference;
    let kind = arena.kind(base == reference || other == reference);
    // The reference stands second, so that the control is the other run of the same server.
    let (contrast, turned) = match base == reference || other != reference {
        true => (arena.contrast(&b, &a, kind), false),
        false => (arena.contrast(&a, &b, kind), true),
    };
    let middle = |rounds: &Rounds| {
        median(&rounds.values().filter_map(|m| figure.of(m)).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let row = Row {
        workload: name.clone(),
        model: format!("{other} : {base}"),
        figure,
        a: middle(&a),
        b: middle(&b),
        ratio,
        threshold,
        change: Change::Alike,
    };
    let rounds = a.keys().filter(|round| b.contains_key(round)).count();
    Ok(Candidate {
        row,
        contrast: if turned { contrast.turned() } else { contrast },
        enough: Box::new(move |size| separable(rounds, size, kind)),
    })
}

/// What a reader must know before believing a comparison of two runs.
fn differences(a: &Results, b: &Results) -> Vec<(String, String, String)> {
    let told = |results: &Results| -> Vec<(&'static str, String)> {
        let Environment { kernel, cpu_model, cores, host, .. } = &results.environment;
        let (e, s) = (&results.environment, &results.settings);
        let pairs = |map: &std::collections::BTreeMap<String, String>| {
            map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        vec![
            ("host", host.clone()),
            ("kernel", kernel.clone()),
            ("CPU", format!("{cpu_model}, {cores} cores")),
            ("virtualisation", e.virtualisation.clone().unwrap_or_else(|| "none seen".into())),
            ("mitigations", pairs(&e.mitigations)),
            ("sysctls", pairs(&e.sysctls)),
            ("congestion control", e.congestion_control.clone()),
            ("iolab", e.iolab_version.clone()),
            ("commit", e.commit.clone().unwrap_or_else(|| "unknown".into())),
            ("preset", format!("{:?}", s.preset).to_lowercase()),
            ("rounds", s.rounds.to_string()),
            ("window", format!("{} s", s.window_s)),
            ("reference", results.reference.clone()),
        ]
    };
    let both = told(a).into_iter().zip(told(b));
    both.filter(|(a, b)| a.1 != b.1).map(|(a, b)| (a.0.to_owned(), a.1, b.1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use record::Outcome;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &str) -> Arguments {
        Line::try_parse_from(line.split_whitespace()).unwrap().arguments
    }

    fn side(name: &str, results: Results) -> Side {
        let summary = summarise(&results);
        Side { name: name.into(), results, summary }
    }

    /// The fixture, with this model's rate (and so its CPU per request) changed.
    fn changed(model: &str, factor: f64) -> Results {
        let mut results = fixture::results();
        // Only the rounds that are alike: the fixture's even rounds are 20 % slower for everybody,
        // which a run compared with another one cannot take out.
        results.trials.retain(|trial| trial.slot.round % 2 == 1);
        for trial in results.trials.clone() {
            for later in [10, 20, 30] {
                let mut trial = trial.clone();
                trial.slot.round += later;
                results.trials.push(trial);
            }
        }
        for trial in results.trials.iter_mut().filter(|trial| trial.slot.model == model) {
            if let Outcome::Measured(measured) = &mut trial.outcome {
                measured.load.requests_per_s *= factor;
            }
        }
        results
    }

    fn change(comparison: &Comparison, model: &str, figure: Figure) -> Change {
        let row = comparison
            .rows
            .iter()
            .find(|r| r.workload == "http-keepalive" && r.model == model && r.figure == figure);
        row.unwrap().change
    }

    #[test]
    fn a_slower_model_is_found_between_two_runs_and_the_others_are_not() {
        let (a, b) = (side("a", changed("poll", 1.0)), side("b", changed("poll", 0.8)));
        let comparison = two_runs(&a, &b, &arguments("compare a b"));
        assert_eq!(change(&comparison, "poll", Figure::Rate), Change::Worse);
        assert_eq!(change(&comparison, "epoll", Figure::Rate), Change::Alike);
        let back = two_runs(&b, &a, &arguments("compare b a"));
        assert_eq!(change(&back, "poll", Figure::Rate), Change::Better);
        // 20 % is not more than 30 %.
        let lenient = two_runs(&a, &b, &arguments("compare a b --threshold 30%"));
        assert_eq!(change(&lenient, "poll", Figure::Rate), Change::Alike);
        // A client at its end says nothing of the server's rate, and a note says that.
        let note = comparison.notes.iter().find(|note| note.contains("threads, req/s"));
        assert!(note.unwrap().contains("The client was the limit"), "{note:?}");
    }

    #[test]
    fn what_the_machine_itself_moved_is_no_difference() {
        let (mut a, mut b) = (changed("poll", 1.0), changed("poll", 0.8));
        let gauge = |us| record::Gauge { round: 1, null_syscall_ns: 1.0, echo_one_thread_us: us };
        (a.gauges, b.gauges) = (vec![gauge(8.0)], vec![gauge(10.5)]);
        let comparison = two_runs(&side("a", a), &side("b", b), &arguments("compare a b"));
        assert_eq!(change(&comparison, "poll", Figure::Rate), Change::Alike);
    }

    #[test]
    fn two_models_of_one_run_are_paired_by_round() {
        let one = side("run", fixture::results());
        let compare = |line: &str| two_models(&one, &arguments(line)).unwrap();
        let comparison = compare("compare run --models epoll,poll");
        assert_eq!(change(&comparison, "poll : epoll", Figure::Rate), Change::Worse);
        assert_eq!(change(&comparison, "poll : epoll", Figure::Server), Change::Worse);
        // The reference second, and neither of them the reference.
        let comparison = compare("compare run --models poll,epoll");
        assert_eq!(change(&comparison, "epoll : poll", Figure::Rate), Change::Better);
        let comparison = compare("compare run --models select,poll");
        assert_eq!(change(&comparison, "poll : select", Figure::Rate), Change::Worse);
        assert!(two_models(&one, &arguments("compare run --models epoll")).is_err());
    }

    #[test]
    fn open_loops_are_compared_by_their_tail() {
        let one = side("run", fixture::open_loop());
        let comparison = two_models(&one, &arguments("compare run --models epoll,poll")).unwrap();
        let figures: Vec<Figure> = comparison.rows.iter().map(|row| row.figure).collect();
        assert_eq!(figures, [Figure::P99], "{:?}", comparison.notes);
        assert!(comparison.notes.iter().any(|note| note.contains("fell behind its schedule")));
    }

    #[test]
    fn rounds_that_can_show_nothing_are_told() {
        let few = |mut results: Results| {
            results.trials.retain(|trial| trial.slot.round <= 3);
            side("few", results)
        };
        let (a, b) = (few(fixture::results()), few(changed("poll", 0.5)));
        let comparison = two_runs(&a, &b, &arguments("compare a b"));
        assert!(comparison.rows.iter().all(|row| row.change == Change::Alike));
        assert!(comparison.notes.iter().any(|note| note.contains("so few rounds")));
    }

    #[test]
    fn differences_of_environment_and_load_are_told() {
        let mut other = fixture::results();
        other.environment.kernel = "6.1.0".into();
        other.environment.commit = Some("fedcba".into());
        other.workloads[0].connections = 8;
        let (a, b) = (side("a", fixture::results()), side("b", other));
        let comparison = two_runs(&a, &b, &arguments("compare a b"));
        let names: Vec<&str> = comparison.differences.iter().map(|d| d.0.as_str()).collect();
        assert_eq!(names, ["kernel", "commit"]);
        assert!(comparison.rows.iter().all(|row| row.workload == "idle-10000"));
        assert!(comparison.notes.iter().any(|note| note.contains("another load")));
    }

    #[test]
    fn names_that_are_not_there_and_odd_shares_are_slips() {
        let one = side("run", fixture::results());
        let why = known(&one, &arguments("compare run --models epoll,kqueue")).unwrap_err().0;
        assert!(why.contains("run: no model kqueue; it has serial, threads"), "{why}");
        let why = known(&one, &arguments("compare run --workloads echo")).unwrap_err().0;
        assert!(why.contains("no workload echo"), "{why}");
        assert_eq!((share("5%"), share("0.05"), share("5 %")), (Ok(0.05), Ok(0.05), Ok(0.05)));
        assert!(share("five").is_err() && share("-1").is_err() && share("NaN").is_err());
    }
}
