//! One trial: a fresh server, verified, sampled while idle, loaded for one window, stopped.

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use record::{IdleSample, LoadOutcome, Measured, MemorySample, Model, Role, Settings, Workload};

use super::sample::{self, Borders, Seen};
use super::server::Server;
use super::{counting, diag, engine, exchange};

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
/// first growth of its tables) before it is sampled as idle, and what their end left to do (ending
/// threads) before the load.
const SETTLE: Duration = Duration::from_millis(20);

/// Time from the first error that a dying server causes to its end: its threads, memory and sockets
/// are taken apart in between. Spent only where something went wrong.
const DYING_TIME: Duration = Duration::from_millis(200);

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
    let start = match setting.role {
        Role::Counting => Server::start_counted,
        Role::Timed | Role::Sentinel => {
            counting::end_pass();
            Server::start
        }
    };
    let cores = &setting.settings.server_cores;
    let mut server = start(setting.executable, &arguments(setting), cores)?;
    match measure(setting, &server) {
        Ok(seen) => finish(server, seen),
        // A server that has ended is the cause of whatever the client complains about.
        Err(reason) => Err(match server.obituary(DYING_TIME) {
            Some(obituary) => format!("{reason}; {obituary}"),
            None => reason,
        }),
    }
}

/// What was measured of a server that still runs, as far as that is known.
struct Loaded {
    load: LoadOutcome,
    seen: Seen,
    idle: Option<IdleSample>,
    /// The idle connections, still open.
    open: Vec<TcpStream>,
    idle_connections_lost: u32,
}

fn measure(setting: &Setting, server: &Server) -> Result<Loaded, String> {
    let Setting { workload, settings, .. } = setting;
    let verified = exchange::verify(server.address, workload)?;
    let congestion_control = verified
        .local_addr()
        .ok()
        .and_then(|client| diag::congestion_control(server.address, client));
    drop(verified);
    let held = match (setting.idle_sample, workload.idle_connections) {
        (true, kept) => workload.idle_sample_connections.max(kept),
        (false, kept) => kept,
    };
    let memory_before = setting.idle_sample.then(|| sample::memory(server));
    let mut open = exchange::open_idle(server.address, held, workload)?;
    let idle = memory_before.map(|before| idle_sample(server, held, before, settings));
    exchange::part(open.split_off(workload.idle_connections as usize));
    if setting.idle_sample {
        std::thread::sleep(SETTLE);
    }

    let mut borders = Borders::new(server);
    let load = engine::run(server.address, workload, settings, &mut borders)?;
    let mut seen = borders.finish()?;
    seen.server.congestion_control = congestion_control;
    let idle_connections_lost = exchange::count_lost(&open);
    Ok(Loaded { load, seen, idle, open, idle_connections_lost })
}

/// Stops the server. One that has ended by itself is told of, and what was measured is kept.
fn finish(mut server: Server, loaded: Loaded) -> Result<Measured, String> {
    let Loaded { mut load, seen, idle, open, idle_connections_lost } = loaded;
    let trouble = load.errors > 0 || load.ended_early.is_some();
    if let Some(obituary) = server.obituary(if trouble { DYING_TIME } else { Duration::ZERO }) {
        if load.requests == 0 {
            return Err(format!("no request was completed; {obituary}"));
        }
        let seen_by_client = load.ended_early.map(|why| why + "; ").unwrap_or_default();
        load.ended_early = Some(seen_by_client + &obituary);
    }
    // The server is stopped with its idle connections open: it closes first, so that no port of the
    // client is left in TIME_WAIT, and stopping under connections is exercised in every trial.
    let hanging_up = std::thread::spawn(move || exchange::hang_up_after_server(open));
    let exit = server.stop();
    hanging_up.join().map_err(|_| "closing the idle connections failed")?;
    let Seen { server, machine, calls } = seen;
    Ok(Measured { load, server, machine, idle, idle_connections_lost, exit, calls })
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
    let sampled = if setting.idle_sample { setting.workload.idle_sample_connections } else { 0 };
    server_arguments(setting.workload, setting.model, setting.root, sampled)
}

/// The flags that a server is started with for a workload. `sampled`: silent connections of the
/// idle sample.
pub fn server_arguments(
    workload: &Workload,
    model: &Model,
    root: &Path,
    sampled: u32,
) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut push = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    push("--listen", "127.0.0.1:0".into());
    // HTTP/2 and WebSocket are spoken on the port of HTTP/1.1.
    let protocol = if workload.protocol == "echo" { "echo" } else { "http" };
    push("--protocol", protocol.to_owned());
    push("--idle-timeout", IDLE_TIMEOUT.into());
    push("--drain-timeout", DRAIN_TIMEOUT.into());
    if workload.path.as_ref().is_some_and(|path| path.starts_with("/files/")) {
        push("--root", root.display().to_string());
    }
    let connections = workload.connections + workload.idle_connections.max(sampled);
    if connections > MANY_CONNECTIONS {
        push("--conns-max", (connections + CONNECTIONS_SPARE).to_string());
    }
    if workload.tls {
        // Its own certificate, self-signed: nobody's identity is measured, and the client looks at
        // no chain of trust.
        arguments.push("--tls".to_owned());
    }
    arguments.extend(model.arguments.iter().cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cgroup, environment};

    /// A trial of the example server, which has a thread for each connection.
    fn trial(fault: &str, workload: &Workload, role: Role) -> Result<Measured, String> {
        environment::raise_descriptor_limit();
        let executable = crate::server::example();
        let arguments = vec!["--fault".to_owned(), fault.to_owned()];
        let settings = Settings {
            warm_up_s: 0.02,
            window_s: 0.1,
            idle_sample_s: 0.02,
            server_cores: Vec::new(),
            client_cores: Vec::new(),
            ..fixture::results().settings
        };
        run(&Setting {
            executable: &executable,
            model: &Model { arguments, ..fixture::model("example") },
            workload,
            settings: &settings,
            root: Path::new("."),
            idle_sample: workload.idle_sample_connections > 0,
            role,
        })
    }

    #[test]
    fn a_counted_trial_has_one_receive_and_one_send_for_each_request() {
        if let Some(reason) = counting::unavailable() {
            eprintln!("SKIP {reason}");
            return;
        }
        for workload in [fixture::small_workload(None), fixture::small_workload(Some("/"))] {
            let measured = trial("none", &workload, Role::Counting).unwrap();
            let (requests, calls) = (measured.load.requests, measured.calls.unwrap());
            // At each border a request may be on its way on each connection.
            let most = u64::from(2 * workload.connections);
            assert!(calls.by_name["recvfrom"].abs_diff(requests) <= most, "{calls:?} {requests}");
            assert!(calls.by_name["sendto"].abs_diff(requests) <= most, "{calls:?} {requests}");
            assert!(calls.total >= calls.by_name.values().sum());
        }
    }

    #[test]
    fn a_timed_trial_has_memory_before_and_after_and_an_idle_sample() {
        let workload = Workload {
            idle_connections: 20,
            idle_sample_connections: 50,
            ..fixture::small_workload(Some("/"))
        };
        let measured = trial("none", &workload, Role::Timed).unwrap();
        let idle = measured.idle.unwrap();
        assert_eq!((idle.connections, measured.idle_connections_lost), (50, 0));
        assert!(idle.memory.threads >= idle.memory_before.threads + 49, "{idle:?}");
        // The example ends a connection's thread when the client has closed it: 20 are kept.
        assert!(measured.server.memory_before.threads >= 20, "{:?}", measured.server);
        assert!(measured.server.memory.threads >= 20 + workload.connections);
        assert!(measured.calls.is_none() && measured.server.cpu_us > 0);
        // The example chooses none, so its end has the machine's default; the client's has reno.
        let default = environment::sysctl("net.ipv4.tcp_congestion_control").unwrap();
        assert!(measured.server.congestion_control.is_none_or(|name| name == default));
        assert_eq!(measured.load.congestion_control, "reno");
        match cgroup::unavailable() {
            Some(reason) => eprintln!("SKIP {reason}"),
            None => {
                let (before, with) = (idle.memory_before.kernel_kib, idle.memory.kernel_kib);
                // A kernel stack has 16 KiB on every 64-bit Linux (8 on some others).
                assert!(with.unwrap() >= before.unwrap() + 50 * 8, "{idle:?}");
            }
        }
    }

    #[test]
    fn a_server_that_dies_is_named_as_the_cause_and_nothing_is_lost() {
        let workload = fixture::small_workload(Some("/"));
        // It dies after 500 requests: in the window, or before it on a machine that is fast.
        match trial("die", &workload, Role::Timed) {
            Ok(measured) => {
                let why = measured.load.ended_early.unwrap();
                assert!(why.contains("exit code 9") && why.contains("was too much"), "{why}");
                assert!(measured.load.requests > 0 && measured.exit.code == Some(9));
            }
            Err(reason) => assert!(reason.contains("exit code 9"), "{reason}"),
        }
        let held = Workload { idle_connections: 64, ..workload };
        let reason = trial("die-idle", &held, Role::Timed).unwrap_err();
        assert!(reason.contains("of the 64 idle connections, then: "), "{reason}");
        assert!(reason.contains("; the server ended by itself with exit code 9: "), "{reason}");
    }
}
