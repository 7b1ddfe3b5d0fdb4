//! The contract of a server executable (ARCHITECTURE.md) for peers that are Rust libraries: command
//! line, `--describe`, first line, last line, signals. What a peer's own file holds is its way of
//! serving.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, ValueEnum};
use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

/// Body of `/`: what every server here answers.
pub const HELLO: &[u8] = b"Hello, world!";

/// Connections that may wait to be accepted: the models' number.
pub const BACKLOG: i32 = 4_096;

/// Requests answered.
pub static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// One peer.
pub struct Peer {
    /// `NAME` of `serve-NAME`.
    pub name: &'static str,
    /// One line: the library, and how it waits.
    pub description: &'static str,
    /// Whether it closes a connection that was asked to be closed (`Connection: close`).
    pub closes_when_asked: bool,
    /// Whether it can speak HTTP/2 (by prior knowledge) instead of HTTP/1.1.
    pub can_http2: bool,
    /// Listens on the address, serves on threads of its own, and says which port it got.
    pub start: fn(SocketAddr, Version) -> io::Result<SocketAddr>,
}

/// What a peer speaks: it is one of the two from its start, so that nothing is spent on telling
/// them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 9112.
    Http1,
    /// RFC 9113, without TLS.
    Http2,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    Off,
    On,
}

/// A peer behind the contract of ARCHITECTURE.md. It answers / only, over HTTP.
#[derive(Parser)]
#[command(version, about, help_expected = true)]
struct Arguments {
    /// Address to listen on; port 0 picks a free one, and the first line of output names it.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// http.
    #[arg(long, default_value = "http", value_parser = ["http"])]
    protocol: String,
    /// 1: a loop is compared with a loop.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1))]
    workers: u16,
    /// Accepted, without effect: only descriptors limit it.
    #[arg(long, value_name = "N")]
    conns_max: Option<u32>,
    /// Accepted, without effect: no connection is closed for its age.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    idle_timeout: String,
    /// Accepted, without effect: it ends at once.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    drain_timeout: String,
    /// 0: a connection is never closed for the number of its requests.
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=0))]
    keepalive_requests: u64,
    /// Speak HTTP/2 by prior knowledge instead of HTTP/1.1, where the peer can.
    #[arg(long, value_enum, default_value = "off")]
    http2: Switch,
    /// Print one line of JSON about this server and exit.
    #[arg(long)]
    describe: bool,
}

/// Runs the peer until SIGTERM or SIGINT.
pub fn run(peer: &Peer) -> ExitCode {
    let arguments = Arguments::parse();
    let version = match arguments.http2 {
        Switch::Off => Version::Http1,
        Switch::On => Version::Http2,
    };
    let done = match (version, arguments.describe) {
        (Version::Http2, _) if !peer.can_http2 => {
            Err(io::Error::other("it speaks HTTP/1.1 only; leave --http2 out"))
        }
        (_, true) => describe(peer, version),
        (_, false) => serve(peer, arguments.listen, version),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("serve-{}: {error}", peer.name);
            ExitCode::from(2)
        }
    }
}

fn describe(peer: &Peer, version: Version) -> io::Result<()> {
    let http2 = json!({
        "flag": "http2",
        "values": ["off", "on"],
        "default": "off",
        "help": "Speak HTTP/2 by prior knowledge instead of HTTP/1.1",
    });
    say(&json!({
        "name": peer.name,
        "description": peer.description,
        "place": {"blocks_in": ["epoll_wait"], "copied_by": "the thread"},
        "protocols": [if version == Version::Http2 { "h2" } else { "http" }],
        "paths": ["/"],
        "closes_when_asked": peer.closes_when_asked,
        "workers": "one",
        "workers_reason": "a loop is compared with a loop",
        "limits": {},
        "flavours": if peer.can_http2 { vec![http2] } else { Vec::new() },
        "unavailable": null,
    }))
}

fn serve(peer: &Peer, listen: SocketAddr, version: Version) -> io::Result<()> {
    // Blocked before any thread exists, so that only the wait below sees them.
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.add(Signal::SIGINT);
    stop.thread_block()?;
    let address = (peer.start)(listen, version)
        .map_err(|error| io::Error::other(format!("cannot listen on {listen}: {error}")))?;
    say_line(&format!("listening {address} model={} pid={}", peer.name, std::process::id()))?;
    stop.wait()?;
    // The threads that serve end with the process.
    say(&json!({"model": peer.name, "requests": REQUESTS.load(Ordering::Relaxed)}))
}

fn say(value: &serde_json::Value) -> io::Result<()> {
    say_line(&value.to_string())
}

fn say_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
