//! `iolab bench`: every server under every workload, in rounds of random order.
//!
//! Steps: find the servers, plan the epochs, read the environment, measure, write the result
//! folder, print the tables.

pub mod against;
mod budget;
mod conduct;
pub mod contest;
mod keep;
pub mod own;
pub mod plan;
mod progress;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use record::{Model, Preset, Results, SCHEMA_VERSION, Settings, Skip, Workload};
use scenario::workload;
use tempfile::TempDir;

use crate::awake::When;
use render::failure::{Failure, because};
use render::report::{self, RESULTS_FILE};
use render::{packed, text};

use conduct::Run;
use keep::{Keeper, Kept};
use plan::Cells;
use rig::discover::{self, Found, directories};
use rig::executable::Watched;
use rig::{environment, others};

pub use progress::remaining;

/// The reference model, if it takes part: most servers on Linux use epoll.
const REFERENCE: &str = "epoll";

/// Exit code after Ctrl-C: 128 + SIGINT, as in shells.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Exit code when the result could not be written to its folder.
const EXIT_NOT_WRITTEN: u8 = 2;

/// Set by the first Ctrl-C (or SIGTERM). The run then ends after the current epoch.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Arguments of `iolab bench`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", own::keys_help()))]
pub struct Arguments {
    /// How long to measure: quick (about a minute: few workloads, wide intervals), default (about
    /// 15 minutes), thorough (about an hour).
    #[arg(long, value_enum, default_value = "default")]
    preset: PresetName,
    /// Servers to measure, separated by commas, each with a flavour if wanted:
    /// epoll,epoll+trigger=edge [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Workloads to run, separated by commas [default: those that --list does not mark "by name
    /// only"; with --preset quick those that it marks "quick"].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    workloads: Vec<String>,
    /// A TOML file with a workload of your own; the file's name without .toml is its name. Only
    /// these workloads are run, and those that --workloads names. May be repeated.
    #[arg(long, value_name = "FILE")]
    scenario: Vec<PathBuf>,
    /// Compare the servers with those of another commit. The other commit's servers are built under
    /// target/, and both are loaded in alternation. Exit code 1 if any server now uses more CPU per
    /// request.
    #[arg(long, value_name = "GITREF")]
    #[arg(conflicts_with_all = ["preset", "rounds", "seed", "out", "resume", "budget", "list"])]
    #[arg(conflicts_with = "full")]
    against: Option<String>,
    /// With --against: ignore differences of CPU per request up to this.
    #[arg(long, value_name = "PERCENT", default_value = "2%", requires = "against")]
    #[arg(value_parser = against::margin)]
    margin: f64,
    /// Print the workloads with their descriptions, and exit.
    #[arg(long)]
    list: bool,
    /// Print the TOML file of a workload, as a start for your own, and exit.
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    show: Option<String>,
    /// Further directories with servers (executables named serve-NAME), separated by colons.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
    /// Leave out the floor: a server that sends a fixed reply without parsing the request. It shows
    /// the least that any server can cost.
    #[arg(long)]
    no_floor: bool,
    /// Seed of the random order; the result file records it [default: from the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// Number of rounds, in place of the preset's. In each round every workload is measured once,
    /// with new server processes. Three is the least that can show a difference.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Maximum time of the run (5m, 90s, 1h); as many rounds are made as fit.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(conflicts_with = "rounds")]
    budget: Option<Duration>,
    /// Whether to keep processors out of idle states (needs root). Leaving an idle state takes tens
    /// of microseconds, which with few connections is most of a latency. A run with this cannot be
    /// compared with a run without.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    awake: When,
    /// Also print the tables of all workloads, with the system calls per request.
    #[arg(long)]
    full: bool,
    /// Folder for the result [default: results/<date>-<host>].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Continue the interrupted run in this folder, with its models, workloads and order.
    #[arg(long, value_name = "DIR")]
    #[arg(conflicts_with_all = ["models", "workloads", "scenario", "no_floor", "seed", "rounds"])]
    #[arg(conflicts_with_all = ["budget", "out", "awake"])]
    resume: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  iolab bench --preset quick                     all servers, in about a minute
  iolab bench --models epoll,uring --workloads http-keepalive --rounds 20
  iolab bench --models epoll --workloads http-keepalive,h2-one,ws-echo,https-keepalive
  iolab bench --budget 5m                        as many rounds as fit into five minutes
  iolab bench --show http-keepalive > mine.toml  a start for a workload of your own
  iolab bench --scenario mine.toml               measures it
  iolab bench --against HEAD~1 --models epoll    what the last commit changed in CPU per request
";

#[derive(Clone, Copy, ValueEnum)]
enum PresetName {
    Quick,
    Default,
    Thorough,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Preset {
        match name {
            PresetName::Quick => Preset::Quick,
            PresetName::Default => Preset::Default,
            PresetName::Thorough => Preset::Thorough,
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.list {
        return text::print(&list(&own::workloads(&arguments.scenario)?)?);
    }
    if let Some(name) = &arguments.show {
        return text::print(show(name)?);
    }
    if let Some(commit) = &arguments.against {
        return against::run(commit, arguments);
    }
    let mut run = match &arguments.resume {
        Some(folder) => resume(folder, arguments)?,
        None => prepare(arguments)?,
    };
    handle_interrupts()?;
    run.keeper.begin(&run.results)?;
    announce(&run);
    let measured = run.measure();
    let code = finish(&run, arguments.full)?;
    measured.map(|()| code).map_err(Failure)
}

/// Writes and prints the result. If one step fails the other steps are done nevertheless.
fn finish(run: &Run, full: bool) -> Result<ExitCode, Failure> {
    let kept = run.keeper.finish(&run.results);
    let folder = match &kept {
        Kept::InFolder => Some(run.keeper.folder()),
        Kept::Elsewhere(folder, _) => Some(&**folder),
        Kept::Nowhere(_) => None,
    };
    let rendered = folder.map_or(Ok(()), |folder| report::write_folder(&run.results, folder));
    let tables = if full { report::terminal(&run.results, true) + "\n" } else { String::new() };
    let end = report::terminal_end(&run.results, folder);
    let printed = text::print(&format!("{tables}{end}"));
    if INTERRUPTED.load(Ordering::SeqCst) && !run.results.is_complete() {
        let folder = folder.unwrap_or(run.keeper.folder());
        eprintln!("interrupted; continue with: iolab bench --resume {}", folder.display());
    }
    match kept {
        Kept::InFolder => {}
        Kept::Elsewhere(folder, failure) => {
            eprintln!("iolab: {failure}; the result is in {} instead", folder.display());
            return Ok(ExitCode::from(EXIT_NOT_WRITTEN));
        }
        Kept::Nowhere(failure) => {
            return Err(Failure(format!(
                "{failure}, nor to any other place: only the output above is left; free some \
                 space, or set TMPDIR to a writable directory"
            )));
        }
    }
    rendered?;
    printed?;
    if let Some(why) = report::unmeasured(&run.results) {
        eprintln!("iolab: {why}");
        if !INTERRUPTED.load(Ordering::SeqCst) {
            return Ok(ExitCode::FAILURE);
        }
    }
    let code = if INTERRUPTED.load(Ordering::SeqCst) { EXIT_INTERRUPTED } else { 0 };
    Ok(ExitCode::from(code))
}

fn list(own: &[Workload]) -> Result<String, Failure> {
    let all: Vec<_> = workload::all()?.into_iter().chain(own.iter().cloned()).collect();
    let width = all.iter().map(|workload| workload.name.len()).max().unwrap_or(0);
    let line = |workload: &Workload| {
        let among = |names: &[&str]| names.contains(&workload.name.as_str());
        let mark = match (among(&workload::QUICK), among(&workload::ON_DEMAND)) {
            (true, _) => " (quick)",
            (_, true) => " (by name only)",
            _ => "",
        };
        // Wrapping counts the name as one word of the column's width.
        let name = format!("{:~<column$}", workload.name, column = width + 1);
        let told = text::wrap(&format!("{name} {}{mark}", workload.description), width + 2);
        format!("{:column$}{}\n", workload.name, &told[name.len()..], column = width + 1)
    };
    Ok(all.iter().map(line).collect())
}

fn show(name: &str) -> Result<&'static str, Failure> {
    let found = workload::BUILT_IN.iter().find(|scenario| scenario.name == name);
    found.map(|scenario| scenario.text).ok_or_else(|| {
        Failure(format!(
            "--show: iolab has no workload {name:?}; it has {}",
            workload::names().join(", ")
        ))
    })
}

fn prepare(arguments: &Arguments) -> Result<Run, Failure> {
    let preset = Preset::from(arguments.preset);
    let workloads =
        plan::workloads(preset, own::workloads(&arguments.scenario)?, &arguments.workloads)?;
    // Before the servers are asked for `connections_max`: they inherit the limit.
    let descriptors = environment::raise_descriptor_limit();
    let place = temporary_place(&workloads)?;
    let servers = find_servers(arguments)?;
    let cannot = plan::skips(&servers.models, &workloads, descriptors);
    let repeated = match arguments.models.is_empty() {
        true => plan::repeated(&servers.models, &workloads),
        false => Vec::new(),
    };
    let skips = [servers.skips, cannot, repeated].concat();
    let mut settings = plan::settings(preset, arguments.seed.unwrap_or_else(clock_seed));
    (settings.server_cores, settings.client_cores) = environment::server_and_client_cores();
    let environment = environment::read(
        settings.server_cores.first().copied(),
        settings.client_cores.first().copied(),
    );
    if environment.counting_unavailable.is_some() {
        settings.counting_rounds = 0;
    }
    settings.awake = arguments.awake.hold()?.is_some();
    let (models, reference) = (servers.models, servers.reference);
    let cells =
        Cells { models: &models, workloads: &workloads, skips: &skips, reference: &reference };
    let settings = rounds(arguments, cells, settings)?;
    let schedule = plan::schedule(cells, &settings);
    if schedule.is_empty() {
        let reasons: Vec<_> = skips.iter().map(|skip| skip.reason.as_str()).collect();
        return Err(Failure(format!("there is nothing to measure: {}", reasons.join("; "))));
    }
    let results = Results {
        schema_version: SCHEMA_VERSION,
        environment,
        settings,
        workloads,
        models,
        reference,
        floor: servers.floor,
        skips,
        schedule,
        trials: Vec::new(),
    };
    let keeper = Keeper::new(new_folder(arguments.out.as_deref())?);
    Ok(Run { results, executables: servers.executables, keeper, place })
}

/// The settings with the number of rounds of `--rounds`, or as many as fit into `--budget`.
fn rounds(arguments: &Arguments, cells: Cells, preset: Settings) -> Result<Settings, Failure> {
    let Some(budget) = arguments.budget else {
        return Ok(Settings { rounds: arguments.rounds.unwrap_or(preset.rounds), ..preset });
    };
    let chosen = budget::fit(cells, preset, budget.as_secs_f64())?;
    eprintln!("{}", budget::explain(&chosen, budget::total_s(cells, &chosen)));
    Ok(chosen)
}

struct Servers {
    models: Vec<Model>,
    executables: BTreeMap<String, Watched>,
    reference: String,
    skips: Vec<Skip>,
    floor: Option<String>,
}

/// Finds the servers of `--models`, and the floor.
fn find_servers(arguments: &Arguments) -> Result<Servers, Failure> {
    let places = directories(arguments.servers.as_deref());
    let (mut found, mut skips) = discover::servers(&places, &arguments.models)?;
    found.retain(|server| arguments.no_floor || !server.is_floor);
    if found.is_empty() && !arguments.models.is_empty() {
        return Err(Failure(
            "--models names only the floor, with which models are compared: name a model too"
                .into(),
        ));
    }
    let reference = found.iter().find(|s| s.model.label == REFERENCE).or(found.first());
    let Some(reference) = reference.map(|server| server.model.label.clone()) else {
        let reasons: Vec<_> =
            skips.iter().map(|skip| format!("{}: {}", skip.model, skip.reason)).collect();
        return Err(Failure(format!("no server can run here ({})", reasons.join("; "))));
    };
    let mut floor = None;
    if !arguments.no_floor {
        match discover::floor(&places) {
            Ok(server) => {
                floor = Some(server.model.label.clone());
                found.push(server);
            }
            Err(reason) => {
                let model = "floor".to_owned();
                skips.push(Skip { model, workload: None, reason, by_design: false });
            }
        }
    }
    let models = found.iter().map(|server| server.model.clone()).collect();
    let executables = watched(found);
    Ok(Servers { models, executables, reference, skips, floor })
}

fn watched(servers: Vec<Found>) -> BTreeMap<String, Watched> {
    servers.into_iter().map(|server| (server.model.label.clone(), server.watched())).collect()
}

/// Whether this is the server of the interrupted run. Older results hold no executable.
fn is_the_same(server: &Found, of_run: &Model) -> bool {
    let executable = match &of_run.executable {
        Some(_) => server.model.executable.clone(),
        None => None,
    };
    Model { executable, ..server.model.clone() } == *of_run
}

/// An interrupted run. Its file holds everything but the paths of the servers.
fn resume(folder: &Path, arguments: &Arguments) -> Result<Run, Failure> {
    let mut results = report::read(folder)?;
    if results.is_complete() {
        return Err(Failure(format!("{} is complete: nothing to resume", folder.display())));
    }
    let Results { schedule, trials, workloads, .. } = &mut results;
    trials.truncate(plan::whole_epochs(schedule, trials.len(), workloads));
    environment::raise_descriptor_limit();
    let is_floor = |model: &&Model| results.floor.as_ref() == Some(&model.label);
    let others = results.models.iter().filter(|model| !is_floor(model));
    let labels: Vec<_> = others.map(|model| model.label.clone()).collect();
    let places = directories(arguments.servers.as_deref());
    let (mut servers, _) = discover::servers(&places, &labels)?;
    let place = temporary_place(&results.workloads)?;
    if results.floor.is_some() {
        servers.push(discover::floor(&places).map_err(because("the floor cannot be used"))?);
    }
    let known = |server: &&Found| results.models.iter().any(|model| is_the_same(server, model));
    if let Some(server) = servers.iter().find(|server| !known(server)) {
        return Err(Failure(format!(
            "{} or its description has changed since the run began: start a new run",
            server.executable.display()
        )));
    }
    let executables = watched(servers);
    let keeper = Keeper::new(report::folder_of(folder));
    Ok(Run { results, executables, keeper, place })
}

fn announce(run: &Run) {
    let results = &run.results;
    for skip in results.skips.iter().filter(|skip| skip.workload.is_none()) {
        eprintln!("SKIP {}: {}", skip.model, skip.reason);
    }
    if let Some(reason) = &results.environment.counting_unavailable {
        eprintln!("SKIP counting pass: {reason}");
    }
    if let Some(busy) = others::busy() {
        eprintln!(
            "iolab: note: {busy}; intervals will be wider, and doubtful figures will be marked"
        );
    }
    let (settings, floor) = (&results.settings, usize::from(results.floor.is_some()));
    let expected_s: f64 = run.expected_s()[results.trials.len()..].iter().sum();
    eprintln!(
        "{}{}, {}, {}, processors {}, seed {}, {}",
        text::count((results.models.len() - floor) as u64, "model"),
        if floor > 0 { " and the floor" } else { "" },
        text::count(results.workloads.len() as u64, "workload"),
        text::count(settings.rounds, "round"),
        if settings.awake { "held awake" } else { "free to sleep" },
        settings.seed,
        progress::remaining(expected_s),
    );
}

/// Makes the folder of a run: that of `--out`, or `results/<date>-<host>`, with a number from the
/// second run of a day on.
fn new_folder(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    let folder = match asked {
        Some(folder) if packed::find(&folder.join(RESULTS_FILE)).is_some() => {
            return Err(Failure(format!(
                "--out {} already holds a result: name another folder, or continue with --resume",
                folder.display()
            )));
        }
        Some(folder) => folder.to_owned(),
        None => {
            let base = format!("results/{}-{}", environment::today(), environment::host());
            let numbered = (2..).map(|n| PathBuf::from(format!("{base}-{n}")));
            std::iter::once(PathBuf::from(&base))
                .chain(numbered)
                .find(|folder| !folder.exists())
                .unwrap_or_else(|| PathBuf::from(base))
        }
    };
    std::fs::create_dir_all(&folder)
        .map_err(because(format!("cannot make the result folder {}", folder.display())))?;
    Ok(folder)
}

/// A temporary directory, with the document root if a workload asks for a file.
fn temporary_place(workloads: &[Workload]) -> Result<TempDir, Failure> {
    let place = tempfile::tempdir().map_err(because("cannot make a temporary directory"))?;
    if workloads.iter().any(workload::is_file) {
        let documents = place.path().join(workload::DOCUMENTS);
        let path = documents.join(workload::FILE_NAME);
        std::fs::create_dir(&documents)
            .and_then(|()| std::fs::write(&path, workload::pattern(workload::FILE_BYTES)))
            .map_err(because(format!("cannot write {}", path.display())))?;
    }
    Ok(place)
}

fn clock_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64)
}

/// The first Ctrl-C ends the run after the current epoch. The second ends the program at once, and
/// the kernel ends its servers with it (PR_SET_PDEATHSIG).
pub fn handle_interrupts() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
    })
    .map_err(because("cannot handle Ctrl-C"))
}
