//! How the situations of the checks are made: servers, windows of load, small benches.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use record::{
    Environment, Measured, Model, Outcome, Preset, Results, Role, SCHEMA_VERSION, Settings, Trial,
    Workload,
};
use rig::discover::Found;
use scenario::workload;
use tempfile::TempDir;

use super::Stop;
use crate::bench::plan::{self, Cells};
use crate::bench::server::Server;
use crate::bench::{self, directories, discover, environment, trial};
use crate::failure::{Failure, because};

/// A server that can be started: what it says of itself, and where it is.
#[derive(Debug, Clone)]
pub struct Subject {
    /// As a result file knows it.
    pub model: Model,
    executable: PathBuf,
}

impl Subject {
    /// The same server under another name, for comparisons with itself.
    pub fn called(&self, label: &str) -> Subject {
        let model = Model { label: label.to_owned(), ..self.model.clone() };
        Subject { model, executable: self.executable.clone() }
    }
}

/// Warm-up and window of one trial, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Load that is not counted.
    pub warm_up_s: f64,
    /// Load that is.
    pub window_s: f64,
}

/// Enough for a comparison of two figures; longer windows buy less than more rounds do.
pub const SHORT: Times = Times { warm_up_s: 0.05, window_s: 0.2 };

/// Where the situations are made.
pub struct Lab {
    place: TempDir,
    settings: Settings,
}

impl Lab {
    /// Finds the cores.
    pub fn new(seed: u64) -> Result<Lab, Failure> {
        environment::raise_descriptor_limit();
        let place = tempfile::tempdir().map_err(because("cannot make a temporary folder"))?;
        let mut settings = plan::settings(Preset::Default, seed);
        if let [server, client, ..] = environment::cores()[..] {
            (settings.server_cores, settings.client_cores) = (vec![server], vec![client]);
        }
        Ok(Lab { place, settings })
    }

    /// A temporary folder.
    pub fn folder(&self) -> &Path {
        self.place.path()
    }

    /// Seed of everything random.
    pub fn seed(&self) -> u64 {
        self.settings.seed
    }

    /// Core of the servers; `None` where there is only one.
    pub fn server_core(&self) -> Option<u32> {
        self.settings.server_cores.first().copied()
    }

    /// Core of the client; `None` where there is only one.
    pub fn client_core(&self) -> Option<u32> {
        self.settings.client_cores.first().copied()
    }

    /// A server by its label, found as `iolab bench` finds it. One that is not built or cannot run
    /// here is a reason to skip.
    pub fn found(&self, label: &str) -> Result<Found, Stop> {
        let (mut found, _) = discover::servers(&directories(None), &[label.to_owned()])
            .map_err(|failure| Stop::Skip(format!("{failure} (cargo build --release)")))?;
        found.pop().ok_or_else(|| Stop::Wrong(format!("no server {label}")))
    }

    /// The same, for trials.
    pub fn subject(&self, label: &str) -> Result<Subject, Stop> {
        let server = self.found(label)?;
        Ok(Subject { model: server.model, executable: server.executable })
    }

    /// A workload that comes with iolab.
    pub fn workload(&self, name: &str) -> Result<Workload, Stop> {
        let found = workload::BUILT_IN.iter().find(|scenario| scenario.name == name);
        let scenario = found.ok_or_else(|| Stop::Wrong(format!("there is no workload {name}")))?;
        let check = bench::own::check;
        Ok(scenario::parse(scenario.name, scenario.name, scenario.text, check)?)
    }

    /// One trial, as `iolab bench` makes it: a fresh server, verified, loaded for one window.
    pub fn trial(
        &self,
        subject: &Subject,
        workload: &Workload,
        times: Times,
    ) -> Result<Measured, Stop> {
        let settings = self.timed(times);
        self.trial_as(subject, workload, &settings, Role::Timed).map_err(Stop::Wrong)
    }

    /// The same with the system calls counted. Call [`bench::counting::end_pass`] afterwards.
    pub fn counted(
        &self,
        subject: &Subject,
        workload: &Workload,
        times: Times,
    ) -> Result<Measured, Stop> {
        let settings = self.timed(times);
        self.trial_as(subject, workload, &settings, Role::Counting).map_err(Stop::Wrong)
    }

    fn timed(&self, times: Times) -> Settings {
        let Times { warm_up_s, window_s } = times;
        Settings { warm_up_s, window_s, ..self.settings.clone() }
    }

    fn trial_as(
        &self,
        subject: &Subject,
        workload: &Workload,
        settings: &Settings,
        role: Role,
    ) -> Result<Measured, String> {
        trial::run(&trial::Setting {
            executable: &subject.executable,
            model: &subject.model,
            workload,
            settings,
            root: self.place.path(),
            idle_sample: false,
            role,
        })
    }

    /// A small bench: randomised complete blocks, the first subject twice a round as sentinel. The
    /// result is what a result file holds, for the summary to judge.
    pub fn bench(
        &self,
        subjects: &[Subject],
        workload: &Workload,
        rounds: u32,
        times: Times,
        seed: u64,
    ) -> Result<Results, Stop> {
        let settings = Settings { rounds, seed, counting_rounds: 0, ..self.timed(times) };
        let models: Vec<_> = subjects.iter().map(|subject| subject.model.clone()).collect();
        let (workloads, reference) = (vec![workload.clone()], models[0].label.clone());
        let cells =
            Cells { models: &models, workloads: &workloads, skips: &[], reference: &reference };
        let schedule = plan::schedule(cells, &settings);
        let mut trials = Vec::new();
        for slot in &schedule {
            go_on()?;
            let subject = subjects.iter().find(|subject| subject.model.label == slot.model);
            let subject = subject.ok_or_else(|| Stop::Wrong("the schedule is not ours".into()))?;
            let outcome = match self.trial_as(subject, workload, &settings, slot.role) {
                Ok(measured) => Outcome::Measured(Box::new(measured)),
                Err(reason) => Outcome::Failed { reason },
            };
            trials.push(Trial { slot: slot.clone(), started_s: 0.0, took_s: 0.0, outcome });
        }
        Ok(Results {
            schema_version: SCHEMA_VERSION,
            environment: Environment::default(),
            settings,
            workloads,
            models,
            reference,
            floor: None,
            skips: Vec::new(),
            schedule,
            trials,
            gauges: Vec::new(),
        })
    }

    /// Starts a server that stays for several windows.
    pub fn start(&self, subject: &Subject, protocol: &str) -> Result<Server, Stop> {
        let common = ["--listen", "127.0.0.1:0", "--protocol", protocol, "--idle-timeout", "600s"];
        let mut arguments: Vec<_> = common.map(str::to_owned).to_vec();
        arguments.extend(subject.model.arguments.iter().cloned());
        let cores = &self.settings.server_cores;
        Server::start(&subject.executable, &arguments, cores).map_err(Stop::Wrong)
    }

    /// The plan of one window of load on a running server, from the client's core.
    pub fn plan(&self, address: SocketAddr, path: &str, times: Times) -> Result<load::Plan, Stop> {
        let url = format!("http://{address}{path}");
        let mut plan = load::Plan::new(&url).map_err(|error| Stop::Wrong(error.to_string()))?;
        plan.warmup = Duration::from_secs_f64(times.warm_up_s);
        plan.length = load::Length::Window(Duration::from_secs_f64(times.window_s));
        plan.core = self.client_core().map(|core| core as usize);
        Ok(plan)
    }
}

/// Ends a check between two of its windows after Ctrl-C.
pub fn go_on() -> Result<(), Stop> {
    if bench::interrupted() { Err(Stop::Interrupted) } else { Ok(()) }
}

/// Pins the calling thread; a machine that refuses gets the unpinned figure.
pub fn pin(core: Option<u32>) {
    let mut set = CpuSet::new();
    if core.is_some_and(|core| set.set(core as usize).is_ok()) {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// Does something, such as to start a process, on a core.
pub fn pinned<T>(core: Option<u32>, work: impl FnOnce() -> T) -> Result<T, Stop> {
    let wrong = |errno: nix::Error| Stop::Wrong(format!("cannot go back to all cores: {errno}"));
    let before = sched_getaffinity(Pid::from_raw(0)).map_err(wrong)?;
    pin(core);
    let done = work();
    sched_setaffinity(Pid::from_raw(0), &before).map_err(wrong)?;
    Ok(done)
}

/// Does something, and says how much CPU time the calling thread used for it
/// (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).
pub fn cpu_of<T>(work: impl FnOnce() -> T) -> Result<(T, Duration), Stop> {
    let clock = || {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
        time.map_err(|errno| Stop::Wrong(format!("the thread has no CPU clock: {errno}")))
    };
    let before = clock()?;
    let done = work();
    Ok((done, clock()?.saturating_sub(before)))
}
