//! A trial of the counting pass: a new server is verified, loaded for one window with its system
//! calls counted, and stopped. Its times are not used; timed measurements are made in slices
//! ([`crate::epoch`]).

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use record::{Doubled, LoadOutcome, Measured, Model, Settings, Slices, Workload};

use super::sample::{Borders, Seen};
use super::server::Server;
use super::{engine, exchange};

/// Idle timeout of servers: longer than a run needs, so that no idle connection is closed.
const IDLE_TIMEOUT: &str = "600s";

/// Drain timeout of servers. No request is in flight when they are stopped, so a server that needs
/// all of it has a fault, which must not delay the run.
const DRAIN_TIMEOUT: &str = "2s";

/// With more connections the server gets `--conns-max`.
const MANY_CONNECTIONS: u32 = 512;

/// Connections beyond the workload's: those of verification and of the load generator's probe.
const CONNECTIONS_SPARE: u32 = 64;

/// Time from the first error on a connection until the server's process has ended: its threads,
/// memory and sockets are released in between. Waited for only after an error.
const ENDING_TIME: Duration = Duration::from_millis(200);

/// The setting of a trial.
pub struct Setting<'a> {
    /// Path of the server's executable.
    pub executable: &'a Path,
    /// The server's entry in the result file.
    pub model: &'a Model,
    /// The workload.
    pub workload: &'a Workload,
    /// Settings of the run.
    pub settings: &'a Settings,
    /// The document root.
    pub root: &'a Path,
}

/// Runs a trial, in bounded time.
///
/// # Errors
/// One sentence for the table.
pub fn run(setting: &Setting) -> Result<Measured, String> {
    let Setting { workload, model, root, .. } = setting;
    let arguments = server_arguments(workload, model, root, 0);
    let cores = &setting.settings.server_cores;
    let mut server = Server::start_counted(setting.executable, &arguments, cores)?;
    match measure(setting, &server) {
        Ok(seen) => finish(server, seen),
        // If the server has ended, that is the cause of the client's error.
        Err(reason) => Err(with_end(&mut server, reason)),
    }
}

/// Adds to the reason how the server ended, if it has.
pub(crate) fn with_end(server: &mut Server, reason: String) -> String {
    match server.how_it_ended(ENDING_TIME) {
        Some(end) => format!("{reason}; {end}"),
        None => reason,
    }
}

/// The measurements of a server that still runs.
struct Loaded {
    load: LoadOutcome,
    seen: Seen,
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

/// Stops the server. If it has ended by itself that is recorded, and the measurements are kept.
fn finish(mut server: Server, loaded: Loaded) -> Result<Measured, String> {
    let Loaded { mut load, seen, open, idle_connections_lost } = loaded;
    add_end(&mut server, &mut load)?;
    // The server is stopped with its idle connections open. So it closes first and no client port
    // stays in TIME_WAIT, and each trial tests a stop with open connections.
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

/// If the server has ended by itself, adds this to the client's result.
///
/// # Errors
/// How it ended, if no request was completed.
pub(crate) fn add_end(server: &mut Server, load: &mut LoadOutcome) -> Result<(), String> {
    let trouble = load.errors > 0 || load.ended_early.is_some();
    if let Some(end) = server.how_it_ended(if trouble { ENDING_TIME } else { Duration::ZERO }) {
        if load.requests == 0 {
            return Err(format!("no request was completed; {end}"));
        }
        let seen_by_client = load.ended_early.take().map(|why| why + "; ").unwrap_or_default();
        load.ended_early = Some(seen_by_client + &end);
    }
    Ok(())
}

/// The flags of a server for a workload. `sampled`: connections of the idle sample.
pub fn server_arguments(
    workload: &Workload,
    model: &Model,
    root: &Path,
    sampled: u32,
) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut push = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    push("--listen", "127.0.0.1:0".into());
    push("--protocol", workload.protocol.of_server().to_owned());
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
        // With its self-signed certificate: the client does not verify it.
        arguments.push("--tls".to_owned());
    }
    arguments.extend(model.arguments.iter().cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counting, environment};

    /// A trial of the example server, which has a thread per connection.
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
            // At each border a request may be in flight on each connection.
            let most = u64::from(2 * workload.connections);
            assert!(calls.by_name["recvfrom"].abs_diff(requests) <= most, "{calls:?} {requests}");
            assert!(calls.by_name["sendto"].abs_diff(requests) <= most, "{calls:?} {requests}");
            assert!(calls.total >= calls.by_name.values().sum());
        }
    }
}
