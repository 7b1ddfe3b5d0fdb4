//! A trial of the counting pass: a fresh server whose system calls are counted, verified, loaded
//! for one window, stopped. Its times are not used; what is timed takes turns ([`crate::epoch`]).

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use record::{Doubled, LoadOutcome, Measured, Model, Settings, Slices, Workload};

use super::sample::{Borders, Seen};
use super::server::Server;
use super::{engine, exchange};

/// Idle time that servers are asked to allow: no idle connection may be closed for its age.
const IDLE_TIMEOUT: &str = "600s";

/// Time that servers are given to finish what is in flight when they are stopped. Nothing is in
/// flight then, so a server that needs it all has a fault, which must not eat the time of the run.
const DRAIN_TIMEOUT: &str = "2s";

/// From so many connections on, a server is told to expect them (`--conns-max`).
const MANY_CONNECTIONS: u32 = 512;

/// Connections beyond those of the workload: the verification's, the load generator's probe.
const CONNECTIONS_SPARE: u32 = 64;

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
}

/// Runs a trial. The error is one sentence for the table. Takes bounded time whatever the server
/// does.
pub fn run(setting: &Setting) -> Result<Measured, String> {
    let Setting { workload, model, root, .. } = setting;
    let arguments = server_arguments(workload, model, root, 0);
    let cores = &setting.settings.server_cores;
    let mut server = Server::start_counted(setting.executable, &arguments, cores)?;
    match measure(setting, &server) {
        Ok(seen) => finish(server, seen),
        // A server that has ended is the cause of whatever the client complains about.
        Err(reason) => Err(with_obituary(&mut server, reason)),
    }
}

/// A reason, and how the server ended if it has: then that is the cause.
pub(crate) fn with_obituary(server: &mut Server, reason: String) -> String {
    match server.obituary(DYING_TIME) {
        Some(obituary) => format!("{reason}; {obituary}"),
        None => reason,
    }
}

/// What was measured of a server that still runs, as far as that is known.
struct Loaded {
    load: LoadOutcome,
    seen: Seen,
    /// The idle connections, still open.
    open: Vec<TcpStream>,
    idle_connections_lost: u32,
}

fn measure(setting: &Setting, server: &Server) -> Result<Loaded, String> {
    let Setting { workload, settings, .. } = setting;
    drop(exchange::verify(server.address, workload)?);
    let open = exchange::open_idle(server.address, workload.idle_connections, workload)?;
    let mut borders = Borders::new(server);
    let load = engine::run(server.address, workload, settings, &mut borders)?;
    let seen = borders.finish()?;
    let idle_connections_lost = exchange::count_lost(&open);
    Ok(Loaded { load, seen, open, idle_connections_lost })
}

/// Stops the server. One that has ended by itself is told of, and what was measured is kept.
fn finish(mut server: Server, loaded: Loaded) -> Result<Measured, String> {
    let Loaded { mut load, seen, open, idle_connections_lost } = loaded;
    add_obituary(&mut server, &mut load)?;
    // The server is stopped with its idle connections open: it closes first, so that no port of the
    // client is left in TIME_WAIT, and stopping under connections is exercised in every trial.
    let hanging_up = std::thread::spawn(move || exchange::hang_up_after_server(open));
    let exit = server.stop();
    hanging_up.join().map_err(|_| "closing the idle connections failed")?;
    let Seen { server, machine, calls } = seen;
    Ok(Measured {
        load,
        server,
        machine,
        slices: Slices::default(),
        doubled: Doubled::default(),
        idle: None,
        idle_connections_lost,
        exit,
        calls,
    })
}

/// If the server has ended by itself, what the client saw ends with how. The error: that, where the
/// client saw nothing.
pub(crate) fn add_obituary(server: &mut Server, load: &mut LoadOutcome) -> Result<(), String> {
    let trouble = load.errors > 0 || load.ended_early.is_some();
    if let Some(obituary) = server.obituary(if trouble { DYING_TIME } else { Duration::ZERO }) {
        if load.requests == 0 {
            return Err(format!("no request was completed; {obituary}"));
        }
        let seen_by_client = load.ended_early.take().map(|why| why + "; ").unwrap_or_default();
        load.ended_early = Some(seen_by_client + &obituary);
    }
    Ok(())
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
    use crate::{counting, environment};

    /// A trial of the example server, which has a thread for each connection.
    fn trial(workload: &Workload) -> Result<Measured, String> {
        environment::raise_descriptor_limit();
        let settings = Settings {
            warm_up_s: 0.02,
            window_s: 0.1,
            server_cores: Vec::new(),
            client_cores: Vec::new(),
            ..fixture::results().settings
        };
        run(&Setting {
            executable: &crate::server::example(),
            model: &fixture::model("example"),
            workload,
            settings: &settings,
            root: Path::new("."),
        })
    }

    #[test]
    fn a_counted_trial_has_one_receive_and_one_send_for_each_request() {
        if let Some(reason) = counting::unavailable() {
            eprintln!("SKIP {reason}");
            return;
        }
        for workload in [fixture::small_workload(None), fixture::small_workload(Some("/"))] {
            let measured = trial(&workload).unwrap();
            let (requests, calls) = (measured.load.requests, measured.calls.unwrap());
            // At each border a request may be on its way on each connection.
            let most = u64::from(2 * workload.connections);
            assert!(calls.by_name["recvfrom"].abs_diff(requests) <= most, "{calls:?} {requests}");
            assert!(calls.by_name["sendto"].abs_diff(requests) <= most, "{calls:?} {requests}");
            assert!(calls.total >= calls.by_name.values().sum());
        }
    }
}
