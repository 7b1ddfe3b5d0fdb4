//! `iolab compare`: compares two runs, or two models of one run, figure by figure.
//!
//! Two models of one run were measured in the same blocks, so their ratio is formed block by block.
//! Two runs have no common block. There the ratio of each model to the reference of its run is
//! compared, epoch by epoch, so that a difference in the speed of the machine cancels. The
//! reference itself cannot be compared in this way.

mod render;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use record::{Environment, Results, Role, Workload};

use crate::failure::Failure;
use crate::report;
use crate::text;
use verdict::statistics::{BlockRatio, Finding};
use verdict::summary::{
    Cell, Figure, Summary, WorkloadSummary, is_judged, ratio, rounds, summarise, trials,
};

/// Exit code if something is significantly worse.
const EXIT_WORSE: u8 = 1;

/// Arguments of `iolab compare`.
#[derive(Args)]
#[command(after_help = "Exit codes: 0: nothing is significantly worse, 1: something is, 2: bad \
input or nothing to compare.\n\n\
Examples:\n  \
iolab compare results/monday results/tuesday\n  \
iolab compare results/monday results/tuesday --models uring --threshold 5%\n  \
iolab compare results/monday --models epoll,uring --format markdown\n  \
iolab compare old new --format benchstat > runs.txt; benchstat -col /run runs.txt")]
pub struct Arguments {
    /// The older run, or the only one: a result folder, or the results.json in it.
    a: PathBuf,
    /// The newer run. Without it, --models names two models of the first.
    b: Option<PathBuf>,
    /// Models, separated by commas. With one run: the two models to compare, the base first. With
    /// two runs: the models to compare [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Workloads to compare, separated by commas [default: all that both sides have].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    workloads: Vec<String>,
    /// Smallest difference that is reported as better or worse (5% or 0.05). It must also be
    /// statistically significant.
    #[arg(long, value_name = "SHARE", default_value = "3%", value_parser = share)]
    threshold: f64,
    /// Format of the output.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for the terminal.
    Table,
    /// A table in Markdown.
    Markdown,
    /// One line for each comparison.
    Csv,
    /// One JSON object.
    Json,
    /// Go benchmark lines of both sides, marked by `/run=`, for benchstat.
    Benchstat,
}

/// Reads a share: `5%` or `0.05`.
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

/// The direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Better,
    Worse,
    /// The ratio is significantly within the threshold.
    Equal,
    Unknown,
}

impl Change {
    /// Of a ratio B : A. A difference must be significant and larger than `threshold`.
    fn of(ratio: &BlockRatio, figure: Figure, threshold: f64) -> Change {
        let beyond = ratio.ratio.max(1.0 / ratio.ratio) > 1.0 + threshold;
        match (ratio.finding(threshold), figure.more_is_better()) {
            (Finding::More, true) | (Finding::Less, false) if beyond => Change::Better,
            (Finding::Less, true) | (Finding::More, false) if beyond => Change::Worse,
            _ if ratio.is_near(threshold) => Change::Equal,
            _ => Change::Unknown,
        }
    }

    fn name(self, figure: Figure) -> &'static str {
        match (self, figure) {
            (Change::Unknown, _) => "~",
            (Change::Equal, _) => "equal",
            (Change::Better, Figure::Rate | Figure::Latency) => "faster",
            (Change::Worse, Figure::Rate | Figure::Latency) => "slower",
            (Change::Better, Figure::Server | Figure::Sum) => "cheaper",
            (Change::Worse, Figure::Server | Figure::Sum) => "dearer",
            (Change::Better, Figure::Memory) => "smaller",
            (Change::Worse, Figure::Memory) => "larger",
        }
    }
}

struct Row {
    workload: String,
    model: String,
    figure: Figure,
    /// The figure; if two runs are compared, its ratio to that of the run's reference.
    a: f64,
    b: f64,
    ratio: BlockRatio,
    change: Change,
}

/// Everything that was compared, and what could not be.
struct Comparison {
    sides: [String; 2],
    /// The reference to which A and B are ratios; `None`: they are figures.
    relative_to: Option<String>,
    rows: Vec<Row>,
    /// What differs between the two runs, as (what, A, B).
    differences: Vec<(String, String, String)>,
    notes: Vec<String>,
}

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
            comparable(&a, &b)?;
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

/// Refuses a name in the arguments that is not in the file.
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

/// Refuses runs that cannot be compared: one with processors kept awake and one without, or with
/// different references.
fn comparable(a: &Side, b: &Side) -> Result<(), Failure> {
    let (of_a, of_b) = (&a.results, &b.results);
    if of_a.settings.awake != of_b.settings.awake {
        let (awake, asleep) = if of_a.settings.awake { (a, b) } else { (b, a) };
        return Err(Failure(format!(
            "{} was measured with the processors kept awake and {} was not: waking a processor \
             costs more than a request; measure one of them again with --awake on, or off",
            awake.name, asleep.name
        )));
    }
    if of_a.reference != of_b.reference {
        let (a, b) = (&of_a.reference, &of_b.reference);
        return Err(Failure(format!(
            "the runs have different references, {a} and {b}, and figures of two runs are \
             compared relative to theirs; measure one of them again with the models of the other"
        )));
    }
    Ok(())
}

fn wanted(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|wanted| wanted == name)
}

/// The figures by which a workload is compared, if any model has them.
fn figures_of(workload: &WorkloadSummary) -> Vec<Figure> {
    let all: &[Figure] = match (workload.is_open(), workload.workload.fan_out) {
        (true, _) => &[Figure::Server, Figure::Latency, Figure::Memory],
        // In a chat the latency of a delivery matters.
        (false, true) => &[Figure::Server, Figure::Rate, Figure::Latency, Figure::Memory],
        (false, false) => &[Figure::Server, Figure::Rate, Figure::Memory],
    };
    let has = |figure: &&Figure| {
        let mut cells = workload.cells.iter().filter_map(|cell| cell.state.as_ref().ok());
        cells.any(|figures| figures.judged(**figure).is_some())
    };
    all.iter().filter(has).copied().collect()
}

fn two_runs(a: &Side, b: &Side, arguments: &Arguments) -> Comparison {
    let (mut notes, mut rows) = (Vec::new(), Vec::new());
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
            if !wanted(&arguments.models, model) || *model == of_a.reference {
                continue;
            }
            let other = of_b.cells.iter().chain(&of_b.floor).find(|c| c.model == *model);
            for figure in figures_of(of_a) {
                match unpaired(a, b, of_a, (cell, other), figure, arguments) {
                    Ok(row) => rows.push(row),
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
    let reference = &a.results.reference;
    if arguments.models.contains(reference) {
        notes.push(format!("{reference} is the reference of both runs: 1 on either side."));
    }
    by_figure(&mut rows);
    let sides = [a.name.clone(), b.name.clone()];
    let relative_to = Some(reference.clone());
    let differences = differences(&a.results, &b.results);
    Comparison { sides, relative_to, rows, differences, notes }
}

/// Sorts by figure, in the order of importance.
fn by_figure(rows: &mut [Row]) {
    rows.sort_by_key(|row| Figure::ALL.iter().position(|figure| *figure == row.figure));
}

/// Whether two workloads are the same apart from their descriptions.
fn same_load(a: &Workload, b: &Workload) -> bool {
    *a == Workload { description: a.description.clone(), ..b.clone() }
}

/// Why a cell cannot be compared by a figure; `None` if it can.
fn spoilt(cell: &Cell, figure: Figure, open: bool) -> Option<String> {
    let figures = match &cell.state {
        Ok(figures) => figures,
        Err(why) => return Some(format!("not measured ({})", why.trim_end_matches('.'))),
    };
    if is_judged(cell, figure, open) {
        return None;
    }
    let sentence = figures.doubts.iter().find(|doubt| doubt.unranks()).or(figures.doubts.first());
    sentence.map(|doubt| doubt.sentence().trim_end_matches('.').to_owned())
}

/// Fails if a cell cannot be compared by a figure.
fn fit(side: &Side, cell: &Cell, figure: Figure, open: bool) -> Result<(), String> {
    spoilt(cell, figure, open).map_or(Ok(()), |why| Err(format!("{}: {why}", side.name)))
}

fn unpaired(
    a: &Side,
    b: &Side,
    workload: &WorkloadSummary,
    (of_a, of_b): (&Cell, Option<&Cell>),
    figure: Figure,
    arguments: &Arguments,
) -> Result<Row, String> {
    let of_b = of_b.ok_or_else(|| format!("only in {}", a.name))?;
    let (name, model) = (&workload.workload.name, &of_a.model);
    for (cell, side) in [(of_a, a), (of_b, b)] {
        fit(side, cell, figure, workload.is_open())?;
    }
    let (logs_a, logs_b) = (logs(a, name, model, figure), logs(b, name, model, figure));
    let ratio = BlockRatio::between(&logs_b, &logs_a).ok_or(TOO_FEW)?;
    let relative = |side: &Side| {
        let cell = side.summary.workloads.iter().find(|w| w.workload.name == *name);
        let mut cells = cell.into_iter().flat_map(|w| w.cells.iter().chain(&w.floor));
        let figures = cells.find(|cell| cell.model == *model)?.state.as_ref().ok()?;
        Some(figures.ratio(figure)?.ratio)
    };
    Ok(Row {
        workload: name.clone(),
        model: model.clone(),
        figure,
        a: relative(a).unwrap_or_default(),
        b: relative(b).unwrap_or_default(),
        change: Change::of(&ratio, figure, arguments.threshold),
        ratio,
    })
}

/// Why there is no ratio.
const TOO_FEW: &str = "too few rounds; measure again with more";

/// The logarithms of the ratios of a model to its run's reference, epoch by epoch.
fn logs(side: &Side, workload: &str, model: &str, figure: Figure) -> Vec<f64> {
    let of = |model: &str| rounds(trials(&side.results, workload, model, Role::Timed));
    let ratio = ratio(&of(model), &of(&side.results.reference), figure);
    ratio.map_or_else(Vec::new, |ratio| ratio.epochs.iter().map(|epoch| epoch.ln()).collect())
}

fn two_models(side: &Side, arguments: &Arguments) -> Result<Comparison, Failure> {
    let [base, other] = &arguments.models[..] else {
        return Err(Failure(
            "one run: name two of its models (--models epoll,uring), or give a second run".into(),
        ));
    };
    let (mut notes, mut rows) = (Vec::new(), Vec::new());
    for workload in &side.summary.workloads {
        let name = &workload.workload.name;
        if !wanted(&arguments.workloads, name) {
            continue;
        }
        for figure in figures_of(workload) {
            match paired(side, workload, (base, other), figure, arguments) {
                Ok(row) => rows.push(row),
                Err(why) => notes.push(format!("{name}, {}: {why}.", figure.name())),
            }
        }
    }
    by_figure(&mut rows);
    let sides = [base.clone(), other.clone()];
    Ok(Comparison { sides, relative_to: None, rows, differences: Vec::new(), notes })
}

fn paired(
    side: &Side,
    workload: &WorkloadSummary,
    (base, other): (&str, &str),
    figure: Figure,
    arguments: &Arguments,
) -> Result<Row, String> {
    let name = &workload.workload.name;
    let of = |model: &str| {
        let mut cells = workload.cells.iter().chain(&workload.floor);
        let cell = cells.find(|cell| cell.model == model).ok_or("not in this run")?;
        if let Some(why) = spoilt(cell, figure, workload.is_open()) {
            return Err(format!("{model}: {why}"));
        }
        let figures = cell.state.as_ref().map_err(String::clone)?;
        let value = figures.judged(figure).ok_or("not measured")?.value.median;
        Ok((rounds(trials(&side.results, name, model, Role::Timed)), value))
    };
    let ((rounds_a, a), (rounds_b, b)) = (of(base)?, of(other)?);
    let ratio = ratio(&rounds_b, &rounds_a, figure).ok_or(TOO_FEW)?;
    Ok(Row {
        workload: name.clone(),
        model: format!("{other} : {base}"),
        figure,
        a,
        b,
        change: Change::of(&ratio, figure, arguments.threshold),
        ratio,
    })
}

/// The differences between two runs that may explain a difference in their figures.
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

    /// The fixture with `factor` times the requests of one model in the same CPU time.
    fn changed(model: &str, factor: f64) -> Results {
        let mut results = fixture::results();
        for trial in results.trials.iter_mut().filter(|trial| trial.slot.model == model) {
            if let Outcome::Measured(measured) = &mut trial.outcome {
                let requests = &mut measured.slices.requests;
                requests.iter_mut().for_each(|of| *of = (*of as f64 * factor) as u64);
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
    fn a_dearer_model_is_found_between_two_runs_and_the_others_are_not() {
        let (a, b) = (side("a", changed("poll", 1.0)), side("b", changed("poll", 0.8)));
        let comparison = two_runs(&a, &b, &arguments("compare a b"));
        for figure in [Figure::Rate, Figure::Server] {
            assert_eq!(change(&comparison, "poll", figure), Change::Worse);
            assert_eq!(change(&comparison, "select", figure), Change::Equal);
        }
        let back = two_runs(&b, &a, &arguments("compare b a"));
        assert_eq!(change(&back, "poll", Figure::Rate), Change::Better);
        // 20 % is not more than 30 %.
        let lenient = two_runs(&a, &b, &arguments("compare a b --threshold 30%"));
        assert_eq!(change(&lenient, "poll", Figure::Rate), Change::Equal);
        // A busy client limits the rate, which a note says.
        let note = comparison.notes.iter().find(|note| note.contains("threads, req/s"));
        assert!(note.unwrap().contains("The client was the limit"), "{note:?}");
        let all = arguments("compare a b --models epoll");
        let comparison = two_runs(&a, &b, &all);
        assert!(comparison.rows.is_empty());
        assert!(comparison.notes[0].contains("epoll is the reference"), "{:?}", comparison.notes);
    }

    #[test]
    fn a_machine_that_was_slower_on_the_other_day_is_in_neither_side() {
        let mut slow = fixture::results();
        for trial in &mut slow.trials {
            if let Outcome::Measured(measured) = &mut trial.outcome {
                measured.slices.server_cpu_ns.iter_mut().for_each(|of| *of *= 2);
            }
        }
        let (a, b) = (side("a", fixture::results()), side("b", slow));
        let comparison = two_runs(&a, &b, &arguments("compare a b"));
        assert_eq!(change(&comparison, "poll", Figure::Server), Change::Equal);
    }

    #[test]
    fn what_cannot_be_set_side_by_side_is_refused_with_the_remedy() {
        let mut asleep = fixture::results();
        asleep.settings.awake = false;
        let (a, b) = (side("a", fixture::results()), side("b", asleep));
        let why = comparable(&a, &b).unwrap_err().0;
        assert!(why.starts_with("a was measured with the processors kept awake and b"), "{why}");
        assert_eq!(comparable(&b, &a).unwrap_err().0, why);
        let mut other = fixture::results();
        other.reference = "poll".into();
        let why = comparable(&a, &side("b", other)).unwrap_err().0;
        assert!(why.contains("different references, epoll and poll"), "{why}");
        assert_eq!(comparable(&a, &a), Ok(()));
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
        assert_eq!(comparison.rows.len(), 0);
        assert!(comparison.notes.iter().any(|note| note.contains("too slow for its schedule")));
        let mut results = fixture::open_loop();
        results.trials.retain(|trial| trial.slot.round != 3);
        let one = side("run", results);
        let comparison = two_models(&one, &arguments("compare run --models epoll,poll")).unwrap();
        let figures: Vec<Figure> = comparison.rows.iter().map(|row| row.figure).collect();
        assert_eq!(figures, [Figure::Server, Figure::Latency], "{:?}", comparison.notes);
    }

    #[test]
    fn rounds_that_can_show_nothing_are_told() {
        let few = |mut results: Results| {
            results.trials.retain(|trial| trial.slot.round <= 2);
            side("few", results)
        };
        let (a, b) = (few(fixture::results()), few(changed("poll", 0.5)));
        let comparison = two_runs(&a, &b, &arguments("compare a b"));
        assert!(comparison.rows.is_empty());
        assert!(comparison.notes.iter().any(|note| note.contains("too few rounds")));
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
