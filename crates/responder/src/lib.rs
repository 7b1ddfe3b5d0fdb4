//! A server that parses nothing, for two purposes: `serve-floor`, the physical line under every
//! comparison, and `serve-faulty`, whose known faults the instrument must find. Both keep a server
//! executable's contract (ARCHITECTURE.md), and say in `--describe` by their `role` that they are
//! no model: what looks for all servers leaves them out.
//!
//! It counts the ends of request heads and sends a canned reply for each, or sends back what came.
//! What it saves against a real server is the whole protocol; what it pays is what every server
//! here pays: epoll_wait(2), recv(2), send(2).
//!
//! Reading order: `heads` (what it looks for), `event_loop` (the server), `fault` (how it may err).

mod event_loop;
mod fault;
mod heads;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use event_loop::EventLoop;
use fault::{Fault, FaultArguments};

/// Descriptors beside the connections: standard streams, epoll, signals, listener, room for libc.
const DESCRIPTORS_SPARE: u64 = 16;

/// What `--workers` above 1 is answered with.
const ONE_WORKER: &str = "one loop is the line that one loop of a model is compared with";

/// Sends canned replies and parses nothing: the floor under every server, and not one itself.
///
/// HTTP: each blank line is taken for the end of a request and answered with 13 bytes, whatever was
/// asked for, all replies to one read in one write; a read that ends in `Connection: close` and a
/// blank line ends the connection. Echo: what is read is sent back. There are no files, no bodies
/// of requests, no limits and no timeouts.
#[derive(Parser)]
#[command(name = "serve-floor", bin_name = "serve-floor", version, help_expected = true)]
#[command(args_override_self = true)]
struct Floor {
    #[command(flatten)]
    common: Common,
}

/// serve-floor with one known fault, on which the instrument is tested.
#[derive(Parser)]
#[command(name = "serve-faulty", bin_name = "serve-faulty", version, help_expected = true)]
#[command(args_override_self = true)]
struct Faulty {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    fault: FaultArguments,
}

/// The flags that all servers share, as far as they mean anything here.
#[derive(Args)]
struct Common {
    /// Address to listen on; port 0 picks a free one, and the first line of output names it.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What to speak: echo sends every byte back, http answers each blank line.
    #[arg(long, value_enum, default_value_t = Protocol::Http)]
    protocol: Protocol,
    /// Loops: there is one.
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u16,
    /// Refused: it serves no files.
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
    /// Most connections at once; more wait in the kernel's backlog [default: what descriptors
    /// allow].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    conns_max: Option<u32>,
    /// Accepted, without effect: no connection is closed for its age.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    idle_timeout: String,
    /// Accepted, without effect: nothing is ever in flight between two turns of the loop.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    drain_timeout: String,
    /// Only 0 (never close) is accepted: it counts no requests of a connection.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keepalive_requests: u64,
    /// Print one line of JSON about this server and exit.
    #[arg(long)]
    describe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Echo,
    Http,
}

/// Which of the two executables runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `serve-floor`.
    Floor,
    /// `serve-faulty`.
    Faulty,
}

impl Name {
    /// Its name, and what it is for.
    fn text(self) -> &'static str {
        match self {
            Name::Floor => "floor",
            Name::Faulty => "faulty",
        }
    }
}

/// Runs one of the two as a process.
pub fn run(name: Name) -> ExitCode {
    // clap ends the process on --help and on mistakes, with exit codes 0 and 2.
    let (common, fault) = match name {
        Name::Floor => (Floor::parse().common, Fault::none()),
        Name::Faulty => {
            let Faulty { common, fault } = Faulty::parse();
            (common, fault.into_fault())
        }
    };
    let connections_max = raise_descriptor_limit().saturating_sub(DESCRIPTORS_SPARE);
    let connections_max =
        common.conns_max.map_or(connections_max, |n| connections_max.min(n.into()));
    let done = if common.describe {
        describe(name, &common, connections_max)
    } else {
        refuse(&common).and_then(|()| serve(name, &common, connections_max as usize, fault))
    };
    done.map_or_else(
        |why| {
            eprintln!("serve-{}: {why}", name.text());
            ExitCode::from(2)
        },
        |()| ExitCode::SUCCESS,
    )
}

/// Raises the soft limit of descriptors to the hard one; the limit in force.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard)
}

/// What it cannot do it does not pretend to do.
fn refuse(common: &Common) -> Result<(), String> {
    let complaints = [
        (common.workers != 1, format!("--workers {}: {ONE_WORKER}", common.workers)),
        (common.root.is_some(), "it serves no files: leave --root out".to_owned()),
        (
            common.keepalive_requests != 0,
            "it counts no requests of a connection: leave --keepalive-requests out".to_owned(),
        ),
    ];
    complaints.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, why)| Err(why))
}

fn serve(name: Name, common: &Common, admitted: usize, fault: Fault) -> Result<(), String> {
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(_) => format!("{error}; give --listen an address of this machine and a free port"),
        None => error.to_string(),
    };
    let http = common.protocol == Protocol::Http;
    let mut server = EventLoop::listen(common.listen, http, admitted, fault).map_err(failed)?;
    let (name, pid) = (name.text(), std::process::id());
    let address = server.address().map_err(failed)?;
    say(&format!("listening {address} model={name} pid={pid}"))?;
    server.run().map_err(|error| error.to_string())?;
    let (requests, connections) = server.counters();
    say(&json!({"model": name, "requests": requests, "connections": connections}).to_string())
}

fn say(line: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot write to stdout: {error}"))
}

/// `paths` is what keeps it out of workloads that it would answer with the wrong bytes.
fn describe(name: Name, common: &Common, connections_max: u64) -> Result<(), String> {
    let reason = match common.conns_max {
        Some(_) => "--conns-max",
        None => "descriptors of the process (RLIMIT_NOFILE)",
    };
    let (description, flavours) = match name {
        Name::Floor => {
            ("canned replies, nothing parsed: the physical line, not a server", json!([]))
        }
        Name::Faulty => {
            ("serve-floor with one known fault, to test the instrument", fault::flavours())
        }
    };
    let line = json!({
        "name": name.text(),
        "role": name.text(),
        "description": description,
        "place": {"blocking": false, "synchronous": true},
        "protocols": ["echo", "http"],
        "paths": ["/"],
        "workers": "one",
        "workers_reason": ONE_WORKER,
        "limits": {"connections_max": connections_max, "connections_max_reason": reason},
        "flavours": flavours,
        "unavailable": null,
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
    });
    say(&line.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Floor::command().debug_assert();
        Faulty::command().debug_assert();
    }

    #[test]
    fn what_it_cannot_do_is_refused_in_a_sentence() {
        let why = |flags: &[&str]| {
            let words = ["serve-floor"].iter().chain(flags);
            refuse(&Floor::try_parse_from(words).unwrap().common)
        };
        assert_eq!(why(&["--idle-timeout", "600s", "--drain-timeout", "2s"]), Ok(()));
        assert!(why(&["--root", "."]).unwrap_err().contains("no files"));
        assert!(why(&["--workers", "2"]).unwrap_err().contains("one loop"));
        assert!(why(&["--keepalive-requests", "9"]).unwrap_err().contains("leave"));
        assert!(Floor::try_parse_from(["serve-floor", "--fault", "slow"]).is_err());
    }
}
