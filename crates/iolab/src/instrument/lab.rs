//! How the situations of the checks are made: servers, windows of load, servers that take turns.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use load::{Clocks, Session, Silent};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use record::{LoadOutcome, Measured, Preset, Settings, Workload};
use rig::discover::{self, Found, directories};
use rig::{engine, environment, trial};
use scenario::workload;
use tempfile::TempDir;

use super::Stop;
use crate::bench;
use crate::bench::contest::{self, Rules};
use crate::bench::plan;
use render::failure::{Failure, because};
use rig::server::Server;
use rig::slices::Epoch;

/// Warm-up and window of one load, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Load that is not counted.
    pub warm_up_s: f64,
    /// Load that is.
    pub window_s: f64,
}

/// Enough for figures that are counted rather than timed.
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
        (settings.server_cores, settings.client_cores) = environment::server_and_client_cores();
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
        find(&directories(None), label, "cargo build --release")
    }

    /// Epochs of servers that take turns, each epoch with fresh processes.
    pub fn epochs(
        &self,
        servers: &[&Found],
        workload: &Workload,
        (epochs, epoch): (usize, Duration),
        run: u64,
    ) -> Result<Vec<Epoch>, Stop> {
        go_on()?;
        let rules = Rules { epochs, epoch, seed: self.seed() + run };
        let seen = contest::run(servers, workload, self.folder(), &rules)?;
        go_on()?;
        Ok(seen)
    }

    /// A workload that comes with iolab.
    pub fn workload(&self, name: &str) -> Result<Workload, Stop> {
        let found = workload::BUILT_IN.iter().find(|scenario| scenario.name == name);
        let scenario = found.ok_or_else(|| Stop::Wrong(format!("there is no workload {name}")))?;
        let check = bench::own::check;
        Ok(scenario::parse(scenario.name, scenario.name, scenario.text, check)?)
    }

    /// One window of load on a running server.
    pub fn load(
        &self,
        server: &Server,
        workload: &Workload,
        times: Times,
    ) -> Result<LoadOutcome, Stop> {
        let settings = self.timed(times);
        engine::run(server.address, workload, &settings, &mut Silent).map_err(Stop::Wrong)
    }

    /// The same on a fresh server.
    pub fn window(
        &self,
        found: &Found,
        workload: &Workload,
        times: Times,
    ) -> Result<LoadOutcome, Stop> {
        go_on()?;
        let server = self.start(found, workload)?;
        let load = self.load(&server, workload, times)?;
        server.stop();
        Ok(load)
    }

    /// The same with the system calls counted. Call [`rig::counting::end_pass`] afterwards.
    pub fn counted(&self, found: &Found, workload: &Workload) -> Result<Measured, Stop> {
        let settings = self.timed(SHORT);
        let counted = trial::run(&trial::Setting {
            executable: &found.executable,
            model: &found.model,
            workload,
            settings: &settings,
            root: self.place.path(),
        });
        counted.map_err(Stop::Wrong)
    }

    fn timed(&self, times: Times) -> Settings {
        let Times { warm_up_s, window_s } = times;
        Settings { warm_up_s, window_s, ..self.settings.clone() }
    }

    /// Starts a server that stays for several loads.
    pub fn start(&self, found: &Found, workload: &Workload) -> Result<Server, Stop> {
        let arguments = trial::server_arguments(workload, &found.model, self.folder(), 0);
        let cores = &self.settings.server_cores;
        Server::start(&found.executable, &arguments, cores).map_err(Stop::Wrong)
    }

    /// The connections of a workload, open and warm, for slices.
    pub fn session(
        &self,
        server: &Server,
        workload: &Workload,
        clocks: Clocks,
    ) -> Result<Session, Stop> {
        Session::open(engine::plan(server.address, workload, &self.settings)?, clocks)
            .map_err(Stop::from)
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

fn find(places: &[PathBuf], label: &str, remedy: &str) -> Result<Found, Stop> {
    let (mut found, _) = discover::servers(places, &[label.to_owned()])
        .map_err(|failure| Stop::Skip(format!("{failure} ({remedy})")))?;
    found.pop().ok_or_else(|| Stop::Wrong(format!("no server {label}")))
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
