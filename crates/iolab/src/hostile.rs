//! `iolab hostile`: how much a hostile client slows a well-behaved client of the same server.
//!
//! Three kinds of windows alternate, so that a disturbance of the machine affects all alike. In
//! each a closed loop of the well-behaved client is measured: alone, beside a hostile client, and
//! as control. The hostile client runs on the core of the well-behaved one at the lowest priority,
//! so both the client and the kernel's work for it take CPU time from the well-behaved one. The
//! control has the same cost: there the hostile client loads a second process of the same server,
//! on the same core and also at the lowest priority. So a 99th percentile above that of the control
//! is the cost of sharing one server process.

mod kinds;

use std::collections::BTreeSet;
use std::io::ErrorKind;
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

use render::failure::{Failure, because};
use rig::discover::{self, Found, directories};
use rig::server::Server;
use rig::{environment, sys};
use verdict::summary::{merged, quantile_us};

use render::text;

use kinds::{KINDS, Kind};

/// Connections of the well-behaved client: several, so that a server that neglects one is found.
const WELL_BEHAVED_CONNECTIONS: u32 = 4;

/// Warm-up of each window: caches fill and the hostile client opens its connections.
const WARM_UP: Duration = Duration::from_millis(50);

/// Up to this factor a slowdown of the 99th percentile counts as bounded.
const FACTOR_MAX: f64 = 2.0;

/// Models in one table: more do not fit into 80 columns.
const MODELS_PER_TABLE: usize = 4;

/// A server that does not answer the well-behaved client for so long does not serve it. As long as
/// a lost SYN takes to be sent again (tcp(7)), and thousands of times as long as a reply takes.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Arguments of `iolab hostile`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Servers to measure, separated by commas, each with a flavour if wanted:
    /// epoll,epoll+trigger=edge [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Hostile clients, separated by commas; --list prints them [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    kinds: Vec<String>,
    /// Print the hostile clients with their descriptions, and exit.
    #[arg(long)]
    list: bool,
    /// Number of rounds for each server and hostile client. A round has three windows: the
    /// well-behaved client alone, beside the hostile client, and the control.
    #[arg(long, value_name = "N", default_value_t = 7)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of one window.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "200ms")]
    window: Duration,
    /// Further directories with servers (executables named serve-NAME), separated by colons.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  iolab hostile                                        everything, in about 15 minutes
  iolab hostile --models epoll,tokio --kinds pipeline-flood --rounds 20

EXIT STATUS. 0: everything was measured, whatever the figures say; a server that does not serve the
well-behaved client beside a hostile one is a figure too. 2: something could not be measured.
";

/// All windows of one kind: figures of the well-behaved client.
#[derive(Debug, Serialize)]
struct Windows {
    replies: u64,
    /// Windows in which the server did not serve the client: no reply within [`REPLY_TIMEOUT`].
    unserved: usize,
    /// 99th percentile of the latency, in microseconds; `None` with fewer than 1,000 replies, or
    /// with a window that was not served.
    p99_us: Option<f64>,
}

/// The result for one server and one hostile client.
#[derive(Debug, Serialize)]
struct Case {
    model: String,
    kind: &'static str,
    alone: Windows,
    beside: Windows,
    control: Windows,
    /// The 99th percentile beside the hostile client, divided by that alone.
    ratio: Option<f64>,
    /// The 99th percentile of the control, divided by that alone.
    control_ratio: Option<f64>,
    /// What the server's `--describe` says of such a case, after "says that".
    stated: Option<String>,
}

/// A server that is left out, and why.
type Left = (String, String);

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
        server.model.connections_max.is_none_or(|max| max >= WELL_BEHAVED_CONNECTIONS.into())
    });
    let left: Vec<Left> = left.into_iter().map(|server| reason(&server.model)).collect();
    let mut cases = Vec::new();
    for server in &served {
        for kind in &kinds {
            eprintln!("{} beside {}", server.model.label, kind.name);
            cases.push(try_one(server, kind, arguments)?);
        }
    }
    if arguments.json {
        let json = serde_json::to_string(&cases).map_err(because("cannot write JSON"))?;
        return text::print(&format!("{json}\n"));
    }
    let labels: Vec<_> = served.iter().map(|server| &*server.model.label).collect();
    let tables = labels.chunks(MODELS_PER_TABLE).map(|labels| table(&cases, &kinds, labels));
    let tables = tables.collect::<Vec<_>>().join("\n");
    text::print(&format!("{tables}\n{}\n", text::wrap(&conclusion(&cases, &left), 0)))
}

/// Why a server with fewer than [`WELL_BEHAVED_CONNECTIONS`] connections at once is left out.
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
                "--kinds: unknown hostile client {name}; known are {}",
                known.join(", ")
            ))
        })
    };
    names.iter().map(find).collect()
}

/// Measures one server with one hostile client, on new processes.
fn try_one(found: &Found, kind: &'static Kind, arguments: &Arguments) -> Result<Case, Failure> {
    let model = &found.model;
    let (server_cores, client_cores) = environment::server_and_client_cores();
    let client_core = client_cores.first().copied();
    let start = || {
        Server::start(&found.executable, &model.arguments, &server_cores)
            .map_err(|why| Failure(format!("serve-{}: {why}", model.name)))
    };
    let server = start()?;
    let other = at_lowest_priority(start)?;
    let mut plan = Plan::new(&format!("http://{}/", server.address))
        .map_err(because("cannot plan the load of the well-behaved client"))?;
    plan.connections = WELL_BEHAVED_CONNECTIONS;
    plan.length = Length::Window(arguments.window);
    plan.warmup = WARM_UP;
    plan.request_timeout = REPLY_TIMEOUT;
    plan.core = client_core.map(|core| core as usize);
    let well_behaved = || {
        let what = format!("the well-behaved client of {} beside {}", model.label, kind.name);
        served(load::run(&plan, &mut Silent)).map_err(because(what))
    };
    let (mut alone, mut beside, mut control) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        alone.push(well_behaved()?);
        beside.push(beside_hostile(kind, server.address, client_core, well_behaved)?);
        control.push(beside_hostile(kind, other.address, client_core, well_behaved)?);
    }
    server.stop();
    other.stop();
    let [alone, beside, control] = [alone, beside, control].map(|loads| windows(&loads));
    let to_alone = |of: &Windows| of.p99_us.zip(alone.p99_us).map(|(of, alone)| of / alone);
    Ok(Case {
        model: model.label.clone(),
        kind: kind.name,
        ratio: to_alone(&beside),
        control_ratio: to_alone(&control),
        alone,
        beside,
        control,
        stated: stated(model, kind),
    })
}

/// `None` if the server did not serve the client in time: it is there, but others are before it.
fn served(run: Result<LoadOutcome, load::Error>) -> Result<Option<LoadOutcome>, load::Error> {
    match run {
        Ok(outcome) => Ok(Some(outcome)),
        Err(load::Error::NoReply { .. } | load::Error::Ramp { .. }) => Ok(None),
        // The accept queue is full: the kernel drops the SYN.
        Err(load::Error::Unreachable { source, .. }) if source.kind() == ErrorKind::TimedOut => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Runs `start` on a thread of the lowest priority. A process that it starts inherits it.
fn at_lowest_priority<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let starter = scope.spawn(move || {
            sys::lower_priority();
            start()
        });
        starter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What `--describe` says: that the server has no room for all connections of both clients, or the
/// entry of `cannot` that begins with "fairness".
fn stated(model: &Model, kind: &Kind) -> Option<String> {
    let clients = kind.way.connections() + u64::from(WELL_BEHAVED_CONNECTIONS);
    if let Some(max) = model.connections_max.filter(|&max| max < clients) {
        let reason = model.connections_max_reason.as_deref().unwrap_or("its own limit");
        return Some(format!("it serves at most {max} clients at once: {reason}"));
    }
    let cannot = model.describe.get("cannot").and_then(Value::as_array).into_iter().flatten();
    let mut cannot = cannot.filter_map(Value::as_str);
    let fairness = cannot.find(|words| words.starts_with("fairness"));
    fairness.map(|words| format!("it cannot provide {words}"))
}

fn windows(windows: &[Option<LoadOutcome>]) -> Windows {
    let loads = || windows.iter().flatten();
    let with_samples = loads().filter(|load| load.latency.samples > 0);
    let merged = merged(with_samples.map(|load| load.latency.histogram.as_str()));
    let unserved = windows.len() - loads().count();
    let p99_us = merged.and_then(|histogram| quantile_us(&histogram, 0.99));
    Windows {
        replies: loads().map(|load| load.requests).sum(),
        unserved,
        p99_us: p99_us.filter(|_| unserved == 0),
    }
}

fn beside_hostile<T>(
    kind: &Kind,
    address: SocketAddr,
    core: Option<u32>,
    well_behaved: impl Fn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut set = CpuSet::new();
            // Without pinning the result is less exact, but still valid.
            if let Some(core) = core
                && set.set(core as usize).is_ok()
            {
                let _ = sched_setaffinity(Pid::from_raw(0), &set);
            }
            sys::lower_priority();
            kinds::run(&kind.way, address, &over);
        });
        // Time to open its connections and to send its first bytes.
        std::thread::sleep(WARM_UP);
        let result = well_behaved();
        over.store(true, SeqCst);
        result
    })
}

/// The ratios of some models, with a row for each hostile client.
fn table(cases: &[Case], kinds: &[&Kind], labels: &[&str]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let header = std::iter::once("p99 : alone").chain(labels.iter().copied());
    table.set_header(header);
    for kind in kinds {
        let cell = |label: &&str| {
            let found = cases.iter().find(|o| o.kind == kind.name && o.model == **label);
            found.map_or_else(String::new, cell)
        };
        table.add_row(std::iter::once(kind.name.to_owned()).chain(labels.iter().map(cell)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// The ratio, or the number of replies if there is no ratio; the same of the control in brackets.
fn cell(case: &Case) -> String {
    let told = |ratio: Option<f64>, windows: &Windows| match ratio {
        Some(ratio) => text::figure(ratio),
        None => format!("{} replies", windows.replies),
    };
    let control = told(case.control_ratio, &case.control);
    format!("{} ({control})", told(case.ratio, &case.beside))
}

/// Whether the slowdown is above the bound relative to the control too.
fn is_the_servers(case: &Case) -> bool {
    let times = case.ratio.zip(case.control_ratio).map(|(ratio, control)| ratio / control);
    times.is_none_or(|times| times > FACTOR_MAX)
}

fn conclusion(cases: &[Case], left: &[Left]) -> String {
    let is_beyond = |o: &&Case| o.ratio.is_none_or(|ratio| ratio > FACTOR_MAX);
    let beyond: Vec<_> = cases.iter().filter(is_beyond).collect();
    let mut all = format!(
        "In {} of {} cases the well-behaved client's 99th percentile was at most \
         {FACTOR_MAX:.0} times that without a hostile client.",
        cases.len() - beyond.len(),
        cases.len()
    );
    let (servers, shared): (Vec<_>, Vec<_>) = beyond.iter().partition(|o| is_the_servers(o));
    let told = |those: &[&&Case]| {
        let told = those.iter().map(|o| format!("{} beside {}: {}", o.model, o.kind, cell(o)));
        told.collect::<Vec<_>>().join(", ")
    };
    if !servers.is_empty() {
        all.push_str(&format!(" Above: {}.", told(&servers)));
    }
    if !shared.is_empty() {
        all.push_str(&format!(
            " Above, but at most {FACTOR_MAX:.0} times the control, so that most of it comes from \
             sharing the processors: {}.",
            told(&shared)
        ));
    }
    all.push_str(
        " In brackets: the control, where the same hostile client loads a second process of the \
         same server on the same core at the lowest priority.",
    );
    let told = |o: &&Case| Some((o.model.clone(), o.stated.clone()?));
    for (model, words) in beyond.iter().filter_map(told).collect::<BTreeSet<_>>() {
        let is_told = |o: &&&Case| o.model == model && o.stated.as_deref() == Some(&words);
        let kinds: Vec<_> = beyond.iter().filter(is_told).map(|o| o.kind).collect();
        let kinds = kinds.join(", ");
        all.push_str(&format!(
            " For {model} this is expected beside {kinds}: its --describe says that {words}."
        ));
    }
    if let Some(unserved) = unserved(&beyond) {
        all.push_str(&unserved);
    }
    if beyond.iter().any(|o| o.ratio.is_none() && o.beside.unserved == 0) {
        all.push_str(
            " A number of replies is printed where there were fewer than 1,000, which are too few \
             for a 99th percentile; use more --rounds or a longer --window.",
        );
    }
    for (model, why) in left {
        all.push_str(&format!(" {model} is not in the table: {why}."));
    }
    all
}

/// Says in how many windows the server did not serve the well-behaved client.
fn unserved(cases: &[&Case]) -> Option<String> {
    let some = cases.iter().filter(|o| o.beside.unserved > 0);
    let told = some.map(|o| format!("{} beside {}: {}", o.model, o.kind, o.beside.unserved));
    let told = told.collect::<Vec<_>>().join(", ");
    let seconds = REPLY_TIMEOUT.as_secs();
    (!told.is_empty()).then(|| {
        format!(
            " Windows in which the well-behaved client had no reply within {seconds} s (then the \
             table has the number of replies in all windows): {told}."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(model: &str, ratio: Option<f64>) -> Case {
        let windows = || Windows { replies: 7, unserved: 0, p99_us: None };
        Case {
            model: model.to_owned(),
            kind: "slow-head",
            alone: windows(),
            beside: windows(),
            control: windows(),
            ratio,
            control_ratio: Some(2.0),
            stated: (model == "c").then(|| "it cannot provide fairness".to_owned()),
        }
    }

    #[test]
    fn the_conclusion_counts_and_names() {
        let of = |model, ratio| case(model, Some(ratio));
        let cases = [of("a", 1.5), of("b", 4.5), case("c", None), of("e", 3.5)];
        let told = conclusion(&cases, &[("d".to_owned(), "it is full".to_owned())]);
        assert!(told.contains("In 1 of 4 cases"), "{told}");
        assert!(
            told.contains(
                "Above: b beside slow-head: 4.50 (2.00), c beside slow-head: 7 replies (2.00)."
            ),
            "{told}"
        );
        assert!(told.contains("the processors: e beside slow-head: 3.50 (2.00)."), "{told}");
        let stated = "For c this is expected beside slow-head: its --describe says that it cannot \
                      provide fairness.";
        assert!(told.contains(stated), "{told}");
        assert!(told.ends_with("d is not in the table: it is full."), "{told}");
    }

    #[test]
    fn a_server_without_room_for_another_client_is_a_row_with_its_limit() {
        let model = Model {
            connections_max: Some(64),
            connections_max_reason: Some("a process each".to_owned()),
            ..fixture::model("prefork")
        };
        let [slow, flood] = ["slow-head", "upload-flood"]
            .map(|name| KINDS.iter().find(|kind| kind.name == name).expect("a kind"));
        let stated_slow = stated(&model, slow);
        assert_eq!(
            stated_slow.as_deref(),
            Some("it serves at most 64 clients at once: a process each")
        );
        assert_eq!(stated(&model, flood), None);

        let missing = "no complete reply in time".to_owned();
        let url = "http://[::1]/".to_owned();
        let unserved = [served(Err(load::Error::NoReply { url, missing })).expect("a window")];
        let beside = windows(&unserved);
        assert_eq!((beside.replies, beside.unserved, beside.p99_us), (0, 1, None));
        let case = Case { beside, stated: stated_slow, ..case("prefork", None) };
        assert_eq!(cell(&case), "0 replies (2.00)");
        let told = conclusion(&[case], &[]);
        let of = |words: &str| told.contains(words);
        assert!(of("Above: prefork beside slow-head: 0 replies (2.00)."), "{told}");
        assert!(of("beside slow-head: its --describe says that it serves at most 64"), "{told}");
        assert!(of("no reply within 1 s") && of("prefork beside slow-head: 1."), "{told}");
        assert!(!of("use more --rounds"), "{told}");
    }

    #[test]
    fn a_server_that_is_gone_or_answers_wrongly_is_no_row() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let source = ErrorKind::ConnectionRefused.into();
        assert!(served(Err(load::Error::Unreachable { address, source })).is_err());
        let (url, reason) = ("http://[::1]/".to_owned(), "status 404".to_owned());
        assert!(served(Err(load::Error::Probe { url, reason })).is_err());
    }

    #[test]
    fn an_unknown_kind_is_told_with_the_known_ones() {
        let Err(failure) = chosen(&["slow-hand".to_owned()]) else { panic!("it was taken") };
        assert!(failure.0.contains("slow-head, slow-body"), "{failure}");
    }
}
