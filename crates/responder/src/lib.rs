//! A server that parses nothing, for two purposes: `serve-floor`, the lower bound of all
//! comparisons, and `serve-faulty`, with known faults that `iolab check-instrument` must find. Both
//! follow the contract of server executables (ARCHITECTURE.md). Their `role` in `--describe` says
//! that they are no models, so they do not take part where all models do.
//!
//! It counts the ends of request heads and sends a canned reply for each, or echoes its input. It
//! has no protocol, but the system calls of all servers here: epoll_wait(2), recv(2), send(2).
//!
//! Reading order: `heads` (the ends of heads), `event_loop` (the server), `fault` (the faults).

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
use fault::{Fault, FaultArguments, Reading};

/// Descriptors beside the connections: standard streams, epoll, signals, listener, a margin for
/// libc.
const DESCRIPTORS_SPARE: u64 = 16;

/// Why `--workers` above 1 is refused.
const ONE_WORKER: &str = "it has one loop, for the comparison with one loop of a model";

/// Sends canned replies without parsing requests: the lower bound of all servers.
///
/// HTTP: each blank line counts as the end of a request and is answered with 13 bytes; the replies
/// to one read are sent in one write. A read that ends in `Connection: close` and a blank line
/// closes the connection. Echo: the input is sent back. There are no files, no request bodies, no
/// limits and no timeouts.
#[derive(Parser)]
#[command(name = "serve-floor", bin_name = "serve-floor", version, help_expected = true)]
#[command(args_override_self = true)]
struct Floor {
    #[command(flatten)]
    common: Common,
}

/// serve-floor with one known fault, to test `iolab check-instrument`.
#[derive(Parser)]
#[command(name = "serve-faulty", bin_name = "serve-faulty", version, help_expected = true)]
#[command(args_override_self = true)]
struct Faulty {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    fault: FaultArguments,
}

/// The flags of all servers that apply here.
#[derive(Args)]
struct Common {
    /// Address to listen on. With port 0 the kernel picks a free port; the first line of output
    /// names it.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Protocol: echo sends every byte back, http answers each blank line.
    #[arg(long, value_enum, default_value_t = Protocol::Http)]
    protocol: Protocol,
    /// Number of workers: only 1 is accepted.
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u16,
    /// Refused: this server has no files.
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
    /// Maximum number of connections at once. Further ones wait in the listener's backlog [default:
    /// as many as the limit of descriptors allows].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    conns_max: Option<u32>,
    /// Accepted without effect: idle connections are not closed.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    idle_timeout: String,
    /// Accepted without effect: no request is in progress between two iterations of the loop.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    drain_timeout: String,
    /// Only 0 (no limit) is accepted: requests of a connection are not counted.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keepalive_requests: u64,
    /// Print a description of this server as one line of JSON, and exit.
    #[arg(long)]
    describe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Echo,
    Http,
}

/// The two executables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `serve-floor`.
    Floor,
    /// `serve-faulty`.
    Faulty,
}

impl Name {
    /// Name and role.
    fn text(self) -> &'static str {
        match self {
            Name::Floor => "floor",
            Name::Faulty => "faulty",
        }
    }
}

/// Runs one of the two executables.
pub fn run(name: Name) -> ExitCode {
    // clap exits on --help and on mistakes, with codes 0 and 2.
    let (common, fault) = match name {
        Name::Floor => (Floor::parse().common, (Reading::USUAL, Fault::none())),
        Name::Faulty => {
            let Faulty { common, fault } = Faulty::parse();
            (common, (fault.reading(), fault.into_fault()))
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

/// Raises the soft limit of descriptors to the hard one. Returns the limit in force.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard)
}

/// Refuses flags that it does not support.
fn refuse(common: &Common) -> Result<(), String> {
    let complaints = [
        (common.workers != 1, format!("--workers {}: {ONE_WORKER}", common.workers)),
        (common.root.is_some(), "it serves no files: omit --root".to_owned()),
        (
            common.keepalive_requests != 0,
            "it does not count the requests of a connection: omit --keepalive-requests".to_owned(),
        ),
    ];
    complaints.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, why)| Err(why))
}

fn serve(
    name: Name,
    common: &Common,
    admitted: usize,
    fault: (Reading, Fault),
) -> Result<(), String> {
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

/// `paths` excludes it from workloads that it would answer with wrong bytes.
fn describe(name: Name, common: &Common, connections_max: u64) -> Result<(), String> {
    let reason = match common.conns_max {
        Some(_) => "--conns-max",
        None => "descriptors of the process (RLIMIT_NOFILE)",
    };
    let (description, flavours) = match name {
        Name::Floor => {
            ("canned replies without parsing: the lower bound of all servers", json!([]))
        }
        Name::Faulty => {
            ("serve-floor with one known fault, to test the measurements", fault::flavours())
        }
    };
    let line = json!({
        "name": name.text(),
        "role": name.text(),
        "description": description,
        "place": {"blocks_in": ["epoll_wait"], "copied_by": "the thread"},
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
        assert!(why(&["--keepalive-requests", "9"]).unwrap_err().contains("omit"));
        assert!(Floor::try_parse_from(["serve-floor", "--fault", "slow"]).is_err());
    }
}
