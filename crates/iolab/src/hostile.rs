//! `iolab hostile`: what an honest client notices of a hostile one beside it.
//!
//! Windows of an honest closed loop alone and beside the hostile client take turns on one server,
//! so that what the machine does meanwhile meets both. The hostile client runs on the core of the
//! honest one, at the lowest priority. What it costs there, and what it costs that the kernel works
//! for it, is told apart by a third kind of window, the control: the hostile client's connections
//! go to a second process of the same server, on the same core and at the lowest priority too.
//! That process does all that the first one would do for them, and the two share their processors
//! and nothing else: what the honest client's 99th percentile is beyond the control is the price
//! of being served by one loop, or one pool, together.

mod kinds;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use load::{Length, Plan, Silent};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use record::{LoadOutcome, Model};
use serde::Serialize;
use serde_json::Value;

use crate::bench::discover::{self, Found};
use crate::bench::server::Server;
use crate::bench::{directories, environment};
use crate::failure::{Failure, because};
use crate::summary::{merged, quantile_us};
use rig::sys;

use crate::text;

use kinds::{KINDS, Kind};

/// Connections of the honest client: several, so that one that is forgotten shows.
const HONEST_CONNECTIONS: u32 = 4;

/// Load before each window, until caches are warm and the hostile client has begun.
const WARM_UP: Duration = Duration::from_millis(50);

/// A slowdown of the 99th percentile up to this factor is called bounded.
const FACTOR_MAX: f64 = 2.0;

/// Models in one table: with the names of the hostile clients that fits 80 columns.
const MODELS_PER_TABLE: usize = 4;

/// Arguments of `iolab hostile`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Servers to try, by name, with flavours if wanted: epoll,epoll+trigger=edge. All by default.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Hostile clients to try; --list names them. All by default.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    kinds: Vec<String>,
    /// Print the hostile clients, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Windows (alone, beside, control) of each kind for each server and hostile client.
    #[arg(long, value_name = "N", default_value_t = 7)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of one window.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "200ms")]
    window: Duration,
    /// Directories with more servers (executables named serve-NAME), separated by colons.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// Shown below the flags.
const EXAMPLES: &str = "\
Examples:
  iolab hostile                                        all servers, all hostile clients: 15 minutes
  iolab hostile --models epoll,tokio --kinds pipeline-flood --rounds 20
";

/// The honest client's windows of one kind, all rounds together.
#[derive(Debug, Serialize)]
struct Windows {
    /// Replies, complete and verified.
    replies: u64,
    /// 99th percentile of their latency, in microseconds; `None` with fewer than 1,000 replies.
    p99_us: Option<f64>,
}

/// What came of one server beside one hostile client.
#[derive(Debug, Serialize)]
struct Outcome {
    model: String,
    kind: &'static str,
    alone: Windows,
    beside: Windows,
    /// Beside a hostile client of another process.
    control: Windows,
    /// The 99th percentile beside the hostile client to that alone.
    ratio: Option<f64>,
    /// The 99th percentile of the control to that alone.
    control_ratio: Option<f64>,
    /// What the server says of itself, if it is not made to keep clients apart.
    stated: Option<String>,
}

/// A server that cannot be tried, and why.
type Left = (String, String);

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.list {
        let lines = KINDS.iter().map(|kind| format!("{:<16} {}\n", kind.name, kind.what));
        return text::print(&lines.collect::<String>());
    }
    let kinds = chosen(&arguments.kinds)?;
    let places = directories(arguments.servers.as_deref());
    let (servers, skips) = discover::servers(&places, &arguments.models)?;
    for skip in &skips {
        eprintln!("iolab: serve-{} is left out: {}", skip.model, skip.reason);
    }
    environment::raise_descriptor_limit();
    let (served, left): (Vec<_>, Vec<_>) = servers.iter().partition(|server| {
        server.model.connections_max.is_none_or(|max| max >= HONEST_CONNECTIONS.into())
    });
    let left: Vec<Left> = left.into_iter().map(|server| reason(&server.model)).collect();
    let mut outcomes = Vec::new();
    for server in &served {
        for kind in &kinds {
            eprintln!("{} beside {}", server.model.label, kind.name);
            outcomes.push(try_one(server, kind, arguments)?);
        }
    }
    if arguments.json {
        let json = serde_json::to_string(&outcomes).map_err(because("cannot write JSON"))?;
        return text::print(&format!("{json}\n"));
    }
    let labels: Vec<_> = served.iter().map(|server| &*server.model.label).collect();
    let tables = labels.chunks(MODELS_PER_TABLE).map(|labels| table(&outcomes, &kinds, labels));
    let tables = tables.collect::<Vec<_>>().join("\n");
    text::print(&format!("{tables}\n{}\n", text::wrap(&conclusion(&outcomes, &left), 0)))
}

/// Why a server that serves so few at once is left out.
fn reason(model: &Model) -> Left {
    let reason = model.connections_max_reason.clone();
    (model.label.clone(), reason.unwrap_or_else(|| "it serves too few connections".to_owned()))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Kind>, Failure> {
    if names.is_empty() {
        return Ok(KINDS.iter().collect());
    }
    let find = |name: &String| {
        KINDS.iter().find(|kind| kind.name == *name).ok_or_else(|| {
            let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            Failure(format!(
                "--kinds: there is no hostile client {name}; there are {}",
                known.join(", ")
            ))
        })
    };
    names.iter().map(find).collect()
}

/// All windows of one server and one hostile client, on a fresh process.
fn try_one(found: &Found, kind: &'static Kind, arguments: &Arguments) -> Result<Outcome, Failure> {
    let model = &found.model;
    let cores = environment::cores();
    let (server_cores, client_core) = match cores[..] {
        [server, client, ..] => (vec![server], Some(client)),
        _ => (Vec::new(), None),
    };
    let start = || {
        Server::start(&found.executable, &model.arguments, &server_cores)
            .map_err(|why| Failure(format!("serve-{}: {why}", model.name)))
    };
    let server = start()?;
    let other = at_lowest_priority(start)?;
    let mut plan = Plan::new(&format!("http://{}/", server.address))
        .map_err(because("cannot make the honest load"))?;
    plan.connections = HONEST_CONNECTIONS;
    plan.length = Length::Window(arguments.window);
    plan.warmup = WARM_UP;
    plan.core = client_core.map(|core| core as usize);
    let honest = || {
        let what = format!("the honest client of {} beside {}", model.label, kind.name);
        load::run(&plan, &mut Silent).map_err(because(what))
    };
    let (mut alone, mut beside, mut control) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        alone.push(honest()?);
        beside.push(with_company(kind, server.address, client_core, honest)?);
        control.push(with_company(kind, other.address, client_core, honest)?);
    }
    server.stop();
    other.stop();
    let [alone, beside, control] = [alone, beside, control].map(|loads| windows(&loads));
    let to_alone = |of: &Windows| of.p99_us.zip(alone.p99_us).map(|(of, alone)| of / alone);
    Ok(Outcome {
        model: model.label.clone(),
        kind: kind.name,
        ratio: to_alone(&beside),
        control_ratio: to_alone(&control),
        alone,
        beside,
        control,
        stated: stated(model),
    })
}

/// Runs `start` on a thread of the lowest priority, which a process that it starts inherits.
fn at_lowest_priority<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let starter = scope.spawn(move || {
            sys::lower_priority();
            start()
        });
        starter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The sentence of `cannot` in `--describe` that begins with fairness, if there is one.
fn stated(model: &Model) -> Option<String> {
    let cannot = model.describe.get("cannot").and_then(Value::as_array).into_iter().flatten();
    let mut cannot = cannot.filter_map(Value::as_str);
    cannot.find(|words| words.starts_with("fairness")).map(str::to_owned)
}

/// The histograms of all windows in one.
fn windows(loads: &[LoadOutcome]) -> Windows {
    let with_samples = loads.iter().filter(|load| load.latency.samples > 0);
    let merged = merged(with_samples.map(|load| load.latency.histogram.as_str()));
    Windows {
        replies: loads.iter().map(|load| load.requests).sum(),
        p99_us: merged.and_then(|histogram| quantile_us(&histogram, 0.99)),
    }
}

/// Runs `honest` while the hostile client runs.
fn with_company<T>(
    kind: &Kind,
    address: SocketAddr,
    core: Option<u32>,
    honest: impl Fn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut set = CpuSet::new();
            // Not pinned is less exact, and no reason to stop.
            if let Some(core) = core
                && set.set(core as usize).is_ok()
            {
                let _ = sched_setaffinity(Pid::from_raw(0), &set);
            }
            sys::lower_priority();
            kinds::run(&kind.way, address, &over);
        });
        // Its connections are open and its first bytes are with the server.
        std::thread::sleep(WARM_UP);
        let result = honest();
        over.store(true, SeqCst);
        result
    })
}

/// Ratios of some models, a row per hostile client.
fn table(outcomes: &[Outcome], kinds: &[&Kind], labels: &[&str]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let header = std::iter::once("p99 : alone").chain(labels.iter().copied());
    table.set_header(header);
    for kind in kinds {
        let cell = |label: &&str| {
            let found = outcomes.iter().find(|o| o.kind == kind.name && o.model == **label);
            found.map_or_else(String::new, cell)
        };
        table.add_row(std::iter::once(kind.name.to_owned()).chain(labels.iter().map(cell)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// The ratio, or what there is in its place; in brackets that of the control.
fn cell(outcome: &Outcome) -> String {
    let told = |ratio: Option<f64>, windows: &Windows| match ratio {
        Some(ratio) => text::figure(ratio),
        None => format!("{} replies", windows.replies),
    };
    let control = told(outcome.control_ratio, &outcome.control);
    format!("{} ({control})", told(outcome.ratio, &outcome.beside))
}

/// Beyond the bound, and beyond it also when measured by the control.
fn is_the_servers(outcome: &Outcome) -> bool {
    let times = outcome.ratio.zip(outcome.control_ratio).map(|(ratio, control)| ratio / control);
    times.is_none_or(|times| times > FACTOR_MAX)
}

/// What was found, in a few sentences.
fn conclusion(outcomes: &[Outcome], left: &[Left]) -> String {
    let is_beyond = |o: &&Outcome| o.ratio.is_none_or(|ratio| ratio > FACTOR_MAX);
    let beyond: Vec<_> = outcomes.iter().filter(is_beyond).collect();
    let mut all = format!(
        "An honest client's 99th percentile stayed within {FACTOR_MAX:.0} times of what it was \
         alone in {} of {} cases.",
        outcomes.len() - beyond.len(),
        outcomes.len()
    );
    let (servers, shared): (Vec<_>, Vec<_>) = beyond.iter().partition(|o| is_the_servers(o));
    let told = |those: &[&&Outcome]| {
        let told = those.iter().map(|o| format!("{} beside {}: {}", o.model, o.kind, cell(o)));
        told.collect::<Vec<_>>().join(", ")
    };
    if !servers.is_empty() {
        all.push_str(&format!(" Beyond: {}.", told(&servers)));
    }
    if !shared.is_empty() {
        all.push_str(&format!(
            " Beyond too, but within {FACTOR_MAX:.0} times of the control, so that most of it is \
             the processors' that all share: {}.",
            told(&shared)
        ));
    }
    all.push_str(
        " In brackets stands the control: the same hostile client at a second process of the same \
         server on the same core, at the lowest priority.",
    );
    let mut stated: Vec<_> =
        beyond.iter().filter_map(|o| Some((&*o.model, o.stated.as_deref()?))).collect();
    stated.dedup();
    for (model, words) in stated {
        all.push_str(&format!(
            " That is no fault of {model}: it says that it cannot give {words}."
        ));
    }
    if beyond.iter().any(|outcome| outcome.ratio.is_none()) {
        all.push_str(
            " A number of replies stands where there were fewer than 1,000, too few for a 99th \
             percentile: try more --rounds or a longer --window.",
        );
    }
    for (model, why) in left {
        all.push_str(&format!(" {model} is not in the table: {why}."));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(model: &str, ratio: Option<f64>) -> Outcome {
        let windows = || Windows { replies: 7, p99_us: None };
        Outcome {
            model: model.to_owned(),
            kind: "slow-head",
            alone: windows(),
            beside: windows(),
            control: windows(),
            ratio,
            control_ratio: Some(2.0),
            stated: (model == "c").then(|| "fairness: it is made so".to_owned()),
        }
    }

    #[test]
    fn the_conclusion_counts_and_names() {
        let of = |model, ratio| outcome(model, Some(ratio));
        let outcomes = [of("a", 1.5), of("b", 4.5), outcome("c", None), of("e", 3.5)];
        let told = conclusion(&outcomes, &[("d".to_owned(), "it is full".to_owned())]);
        assert!(told.contains("in 1 of 4 cases"), "{told}");
        assert!(
            told.contains(
                "Beyond: b beside slow-head: 4.50 (2.00), c beside slow-head: 7 replies (2.00)."
            ),
            "{told}"
        );
        assert!(told.contains("all share: e beside slow-head: 3.50 (2.00)."), "{told}");
        let stated = "That is no fault of c: it says that it cannot give fairness: it is made so.";
        assert!(told.contains(stated), "{told}");
        assert!(told.ends_with("d is not in the table: it is full."), "{told}");
    }

    #[test]
    fn an_unknown_kind_is_told_with_the_known_ones() {
        let Err(failure) = chosen(&["slow-hand".to_owned()]) else { panic!("it was taken") };
        assert!(failure.0.contains("slow-head, slow-body"), "{failure}");
    }
}
