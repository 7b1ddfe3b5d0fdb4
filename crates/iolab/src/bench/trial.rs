//! One trial: a fresh server, verified, sampled while idle, loaded for one window, stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use record::{IdleSample, Measured, MemorySample, Model, Role, Settings, Workload};

use super::sample::{self, Borders, Seen};
use super::server::Server;
use super::{counting, engine, exchange};

/// Idle time that servers are asked to allow: no idle connection may be closed for its age.
const IDLE_TIMEOUT: &str = "600s";

/// Time that servers are given to finish what is in flight when they are stopped. Nothing is in
/// flight then, so a server that needs it all has a fault, which must not eat the time of the run.
const DRAIN_TIMEOUT: &str = "2s";

/// From so many connections on, a server is told to expect them (`--conns-max`).
const MANY_CONNECTIONS: u32 = 512;

/// Connections beyond those of the workload: the verification's, the load generator's probe.
const CONNECTIONS_SPARE: u32 = 64;

/// Time in which a server finishes what the opening of idle connections left to do (accepting,
/// first growth of its tables), before it is sampled as idle.
const SETTLE: Duration = Duration::from_millis(20);

/// What a trial needs to know.
pub struct Setting<'a> {
    /// The server's executable.
    pub executable: &'a Path,
    /// The server, as the result file knows it.
    pub model: &'a Model,
    /// What the client does.
    pub workload: &'a Workload,
    /// How the run is set up.
    pub settings: &'a Settings,
    /// Document root with the file of the file workload.
    pub root: &'a Path,
    /// Whether this trial takes the idle sample.
    pub idle_sample: bool,
    /// What the trial is for: [`Role::Counting`] has its system calls counted.
    pub role: Role,
}

/// Runs a trial. The error is one sentence for the table. Takes bounded time whatever the server
/// does.
pub fn run(setting: &Setting) -> Result<Measured, String> {
    let Setting { workload, settings, .. } = setting;
    let arguments = arguments(setting);
    let start = match setting.role {
        Role::Counting => Server::start_counted,
        Role::Timed | Role::Sentinel => {
            counting::end_pass();
            Server::start
        }
    };
    let server = start(setting.executable, &arguments, &settings.server_cores)?;
    exchange::verify(server.address, workload)?;

    let held = match (setting.idle_sample, workload.idle_connections) {
        (true, _) => workload.idle_sample_connections.max(workload.idle_connections),
        (false, kept) => kept,
    };
    let memory_before = setting.idle_sample.then(|| sample::memory(&server));
    let mut open = exchange::open_idle(server.address, held, workload)?;
    let idle = memory_before.map(|before| idle_sample(&server, held, before, settings));
    open.truncate(workload.idle_connections as usize);

    let mut borders = Borders::new(&server);
    let load = engine::run(server.address, workload, settings, &mut borders)?;
    let Seen { server: server_sample, machine, calls } = borders.finish()?;
    let idle_connections_lost = exchange::count_lost(&open);
    // The server is stopped with its idle connections open: it closes first, so that no port of the
    // client is left in TIME_WAIT, and stopping under connections is exercised in every trial.
    let hanging_up = std::thread::spawn(move || exchange::hang_up_after_server(open));
    let exit = server.stop();
    hanging_up.join().map_err(|_| "closing the idle connections failed")?;
    Ok(Measured { load, server: server_sample, machine, idle, idle_connections_lost, exit, calls })
}

/// The server with `held` connections open and silent.
fn idle_sample(
    server: &Server,
    held: u32,
    memory_before: MemorySample,
    settings: &Settings,
) -> IdleSample {
    std::thread::sleep(SETTLE);
    let begin = Instant::now();
    let wait = || std::thread::sleep(Duration::from_secs_f64(settings.idle_sample_s));
    let used = sample::quiet(server, wait);
    IdleSample {
        connections: held,
        duration_s: begin.elapsed().as_secs_f64(),
        cpu_us: used.cpu_us,
        wake_ups: used.wake_ups,
        memory_before,
        memory: sample::memory(server),
    }
}

fn arguments(setting: &Setting) -> Vec<String> {
    let workload = setting.workload;
    let mut arguments = Vec::new();
    let mut push = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    push("--listen", "127.0.0.1:0".into());
    push("--protocol", workload.protocol.clone());
    push("--idle-timeout", IDLE_TIMEOUT.into());
    push("--drain-timeout", DRAIN_TIMEOUT.into());
    if workload.path.as_ref().is_some_and(|path| path.starts_with("/files/")) {
        push("--root", setting.root.display().to_string());
    }
    let connections = workload.connections + workload.idle_connections;
    if connections > MANY_CONNECTIONS {
        push("--conns-max", (connections + CONNECTIONS_SPARE).to_string());
    }
    arguments.extend(setting.model.arguments.iter().cloned());
    arguments
}
