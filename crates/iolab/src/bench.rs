//! `iolab bench`: every server found, every workload, in randomised rounds.
//!
//! Phases: find the servers, plan (complete blocks in random order), read the environment, run the
//! trials one by one, write the result folder, print the tables. See method.md for the rules.

mod calibrate;
pub mod cgroup;
pub mod counting;
mod diag;
mod discover;
mod engine;
pub mod environment;
mod exchange;
mod plan;
mod progress;
mod sample;
mod server;
mod trial;
mod unavailable;
mod workload;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use clap::{Args, ValueEnum};
use record::{Outcome, Preset, Results, SCHEMA_VERSION, Slot, Trial};
use tempfile::TempDir;

use crate::failure::{Failure, because};
use crate::report;

pub use discover::{directories, executables};
pub use server::run_briefly;

/// Names of all workloads.
pub fn workload_names() -> Vec<String> {
    workload::all().into_iter().map(|workload| workload.name).collect()
}

/// Name of the raw data in a result folder.
pub const RESULTS_FILE: &str = "results.json";

/// The reference model, if it takes part: what most servers on Linux use today.
const REFERENCE: &str = "epoll";

/// A cell that failed so often is not tried again: every failure may cost its whole time limit.
const FAILURES_MAX: u32 = 2;

/// Exit code after Ctrl-C: 128 + SIGINT, as shells report it.
const EXIT_INTERRUPTED: u8 = 130;

/// Set by the first Ctrl-C (or SIGTERM); the run ends after the trial that is going on.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Arguments of `iolab bench`.
#[derive(Args)]
pub struct Arguments {
    /// How much time to take: quick (under a minute, not for ranking), default, thorough.
    #[arg(long, value_enum, default_value = "default")]
    preset: PresetName,
    /// Servers to measure, by name, with flavours if wanted: epoll,epoll+trigger=edge. All by
    /// default.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Workloads to run. All by default (three of them with --preset quick).
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    workloads: Vec<String>,
    /// Directories with more servers (executables named serve-NAME), separated by colons.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
    /// Seed of the random order; from the clock by default. Stored in the result.
    #[arg(long)]
    seed: Option<u64>,
    /// Rounds, instead of the preset's number.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Folder for the result; results/<date>-<host> by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with an interrupted run: its folder. Models, workloads and order are taken from there.
    #[arg(long, value_name = "DIR")]
    #[arg(conflicts_with_all = ["models", "workloads", "seed", "rounds", "out"])]
    resume: Option<PathBuf>,
}

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

/// A run that is going on.
struct Run {
    results: Results,
    /// Label -> executable.
    executables: BTreeMap<String, PathBuf>,
    folder: PathBuf,
    root: TempDir,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut run = match &arguments.resume {
        Some(folder) => resume(folder, arguments)?,
        None => prepare(arguments)?,
    };
    handle_interrupts()?;
    announce(&run);
    measure(&mut run)?;
    save(&run)?;
    let rendered = report::write_folder(&run.results, &run.folder);
    let interrupted = INTERRUPTED.load(Ordering::SeqCst);
    crate::text::print(&report::terminal(&run.results))?;
    eprintln!("\nwritten to {}", run.folder.display());
    rendered?;
    if interrupted {
        eprintln!("interrupted; go on with: iolab bench --resume {}", run.folder.display());
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// A new run: finds the servers, plans, reads the environment.
fn prepare(arguments: &Arguments) -> Result<Run, Failure> {
    let preset = Preset::from(arguments.preset);
    let workloads = plan::workloads(preset, &arguments.workloads)?;
    // Before the servers are asked what they can hold: they inherit the limit.
    let descriptors = environment::raise_descriptor_limit();
    let places = directories(arguments.servers.as_deref());
    let (servers, mut skips) = discover::servers(&places, &arguments.models)?;
    if servers.is_empty() {
        let reasons: Vec<_> =
            skips.iter().map(|skip| format!("{}: {}", skip.model, skip.reason)).collect();
        return Err(Failure(format!("no server can run here ({})", reasons.join("; "))));
    }
    let folder = new_folder(arguments.out.as_deref())?;
    let mut settings = plan::settings(preset, arguments.seed.unwrap_or_else(clock_seed));
    settings.rounds = arguments.rounds.unwrap_or(settings.rounds);
    if let [server, client, ..] = environment::cores()[..] {
        (settings.server_cores, settings.client_cores) = (vec![server], vec![client]);
    }
    let environment = environment::read(
        settings.server_cores.first().copied(),
        settings.client_cores.first().copied(),
    );
    let models: Vec<_> = servers.iter().map(|server| server.model.clone()).collect();
    let executables = servers.into_iter().map(|s| (s.model.label, s.executable)).collect();
    let reference = models.iter().find(|m| m.label == REFERENCE).unwrap_or(&models[0]);
    let reference = reference.label.clone();
    skips.extend(plan::skips(&models, &workloads, descriptors));
    let schedule = plan::schedule(&models, &workloads, &skips, &reference, &settings);
    let results = Results {
        schema_version: SCHEMA_VERSION,
        environment,
        settings,
        workloads,
        models,
        reference,
        floor: None,
        skips,
        schedule,
        trials: Vec::new(),
        gauges: Vec::new(),
    };
    Ok(Run { results, executables, folder, root: document_root()? })
}

/// An interrupted run: everything is in its file except where the servers are.
fn resume(folder: &Path, arguments: &Arguments) -> Result<Run, Failure> {
    let results = report::read(folder)?;
    if results.is_complete() {
        return Err(Failure(format!("{} is complete: nothing to resume", folder.display())));
    }
    environment::raise_descriptor_limit();
    let labels: Vec<_> = results.models.iter().map(|model| model.label.clone()).collect();
    let places = directories(arguments.servers.as_deref());
    let (servers, _) = discover::servers(&places, &labels)?;
    if let Some(server) = servers.iter().find(|s| !results.models.contains(&s.model)) {
        return Err(Failure(format!(
            "{} describes itself differently now: start a new run",
            server.executable.display()
        )));
    }
    let executables = servers.into_iter().map(|s| (s.model.label, s.executable)).collect();
    Ok(Run { results, executables, folder: folder.to_owned(), root: document_root()? })
}

fn announce(run: &Run) {
    let results = &run.results;
    for skip in results.skips.iter().filter(|skip| skip.workload.is_none()) {
        eprintln!("SKIP {}: {}", skip.model, skip.reason);
    }
    let expected: f64 = expected_s(results)[results.trials.len()..].iter().sum();
    eprintln!(
        "{} models x {} workloads, {} rounds, {} trials, seed {}, {}",
        results.models.len(),
        results.workloads.len(),
        results.settings.rounds,
        results.schedule.len(),
        results.settings.seed,
        progress::remaining(expected),
    );
    if results.settings.preset == Preset::Quick {
        eprintln!("quick: a first look, not for ranking");
    }
}

fn expected_s(results: &Results) -> Vec<f64> {
    let expect = |slot| plan::expected_s(slot, &results.workloads, &results.settings);
    results.schedule.iter().map(expect).collect()
}

/// Runs what is left of the schedule. The file is written after every round, so that nothing that
/// happens to this process loses more than one.
fn measure(run: &mut Run) -> Result<(), Failure> {
    let begin = Instant::now();
    let began_s = run.results.trials.last().map_or(0.0, |trial| trial.started_s + trial.took_s);
    let first = run.results.trials.len();
    let mut progress = progress::Progress::new(expected_s(&run.results), first);
    for at in first..run.results.schedule.len() {
        if INTERRUPTED.load(Ordering::SeqCst) {
            break;
        }
        let slot = run.results.schedule[at].clone();
        if at > first && slot.round != run.results.schedule[at - 1].round {
            save(run)?;
        }
        if run.results.gauges.iter().all(|gauge| gauge.round != slot.round) {
            let core = run.results.settings.server_cores.first().copied();
            run.results.gauges.push(calibrate::gauge(slot.round, core).map_err(Failure)?);
        }
        progress.show(at, &slot, run.results.settings.rounds);
        let started = Instant::now();
        let outcome = outcome_of(run, &slot);
        run.results.trials.push(Trial {
            slot,
            started_s: began_s + (started - begin).as_secs_f64(),
            took_s: started.elapsed().as_secs_f64(),
            outcome,
        });
    }
    progress.finish();
    Ok(())
}

fn outcome_of(run: &Run, slot: &Slot) -> Outcome {
    let results = &run.results;
    let failed = |reason: String| Outcome::Failed { reason };
    let same_cell = |t: &&Trial| t.slot.model == slot.model && t.slot.workload == slot.workload;
    let mut failures = results.trials.iter().filter(same_cell).filter_map(|t| match &t.outcome {
        Outcome::Failed { reason } => Some(reason),
        Outcome::Measured(_) => None,
    });
    if let Some(reason) = failures.nth(FAILURES_MAX as usize - 1) {
        return failed(reason.clone());
    }
    let model = results.models.iter().find(|m| m.label == slot.model);
    let workload = results.workloads.iter().find(|w| w.name == slot.workload);
    let (Some(model), Some(workload), Some(executable)) =
        (model, workload, run.executables.get(&slot.model))
    else {
        return failed("the schedule names a model or workload that the file does not hold".into());
    };
    let idle_sample =
        workload.idle_sample_connections > 0 && slot.round <= results.settings.idle_sample_rounds;
    let setting = trial::Setting {
        executable,
        model,
        workload,
        settings: &results.settings,
        root: run.root.path(),
        idle_sample,
        role: slot.role,
    };
    trial::run(&setting).map_or_else(failed, |measured| Outcome::Measured(Box::new(measured)))
}

/// Writes the raw data: to a file beside it first, so that a full disk or a kill in the middle
/// leaves the last complete one.
fn save(run: &Run) -> Result<(), Failure> {
    let text = run.results.to_json().map_err(because("cannot write the result as JSON"))?;
    write_safely(&run.folder.join(RESULTS_FILE), text.as_bytes())
}

/// Writes a file whole or not at all.
pub fn write_safely(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map(drop).map_err(because(format!("cannot write {}", path.display())))
}

/// Makes the folder of a run: the one asked for, or `results/<date>-<host>`, numbered from the
/// second run of a day on.
fn new_folder(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    let folder = match asked {
        Some(folder) if folder.join(RESULTS_FILE).exists() => {
            return Err(Failure(format!(
                "--out {} holds a result already: name another folder, or --resume it",
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

fn document_root() -> Result<TempDir, Failure> {
    let root = tempfile::tempdir().map_err(because("cannot make a temporary document root"))?;
    let path = root.path().join(workload::FILE_NAME);
    std::fs::write(&path, workload::pattern(workload::FILE_BYTES))
        .map_err(because(format!("cannot write {}", path.display())))?;
    Ok(root)
}

fn clock_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64)
}

/// The first Ctrl-C ends the run after the trial that is going on (two seconds or so); the second
/// ends the program at once, and the kernel ends its server with it.
fn handle_interrupts() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
    })
    .map_err(because("cannot handle Ctrl-C"))
}
