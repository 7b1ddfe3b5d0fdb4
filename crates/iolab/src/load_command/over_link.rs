//! `iolab load --link`: starts a server at the other end of a link, and loads it over the link.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use link::{Accuracy, Counters, Direction, Link, Profile};
use load::Live;
use rig::discover;
use rig::server::Server;

use super::LoadArguments;
use super::live::INTERRUPTED;

/// Packets of the measurement before the load, unless their smallest take longer than a second.
const PROBE_PACKETS: u64 = 1_000;
/// Bits of a small packet.
const SMALL_PACKET_BITS: u64 = 8 * 40;
/// Requests have ended when the server is stopped; only idle connections are left.
const DRAIN_TIMEOUT: &str = "2s";

const WAYS: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

/// Options of the link.
#[derive(Debug, Args)]
pub(super) struct LinkArguments {
    /// Put client and server at the two ends of a link with this round-trip time, rate and loss;
    /// also queue=100p (packets) or queue=64KiB, and seed=1. iolab starts the server, so the URL
    /// is only a path, or has the host `server`: ws://server/ws/echo, https://server/,
    /// tcp://server.
    #[arg(long, value_name = "rtt=40ms,rate=10mbit,loss=1%")]
    #[arg(conflicts_with_all = ["pid", "source"])]
    link: Option<Profile>,
    /// With --link: the server to start, as in `iolab bench --models`, or the path of a program;
    /// further words are its arguments ('epoll --root DIR').
    #[arg(long, value_name = "NAME|PROGRAM", default_value = "epoll", requires = "link")]
    server: String,
    #[arg(skip)]
    pub(super) accuracy: Option<Accuracy>,
}

impl LinkArguments {
    /// Prepares the process for a link, before its first thread. Returns whether there is to be
    /// one.
    pub(super) fn prepare(&self) -> Result<bool, link::Refused> {
        if self.link.is_some() {
            link::prepare()?;
        }
        Ok(self.link.is_some())
    }
}

/// Measures the link, and loads the server over it.
pub(super) fn run(
    mut arguments: LoadArguments,
    live: &Arc<Live>,
) -> Result<ExitCode, Box<dyn Error>> {
    let profile = arguments.over.link.clone().unwrap_or_default();
    let asked = Asked::parse(&arguments.urls, &profile)?;
    let (program, mut flags) = program(&arguments.over.server, "--server")?;
    let link = Link::up(&profile)?;
    let per_s = profile.rate_bits_per_s.map_or(PROBE_PACKETS, |rate| rate / SMALL_PACKET_BITS);
    let accuracy = Accuracy::measure(&link, per_s.min(PROBE_PACKETS))?;
    eprintln!("iolab: link: {accuracy}");
    let before = WAYS.map(|way| link.counters(way));
    if live.is_stopped() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    flags.splice(0..0, asked.flags(&link));
    let server = link.server().run(|| Server::start(&program, &flags, &[]))?;
    let mut server = server.map_err(|why| format!("{}: {why}", program.display()))?;
    arguments.over.accuracy = Some(accuracy);
    arguments.urls = vec![format!("{}://{}{}", asked.scheme, server.address, asked.path)];
    arguments.pid = vec![server.pid().as_raw()];
    let code = link.client().run(|| super::load(&arguments, live).map_err(|e| e.to_string()))?;
    if let Some(how) = server.how_it_ended(Duration::ZERO) {
        eprintln!("iolab: {how}");
    }
    server.stop();
    tell(&link, &before)?;
    Ok(code?)
}

/// What the link did during the load.
fn tell(link: &Link, before: &[Counters; 2]) -> Result<(), Box<dyn Error>> {
    let [to_server, to_client] = [0, 1].map(|way| {
        let counters = link.counters(WAYS[way]).since(&before[way]);
        let Counters { sent, lost, dropped, .. } = counters;
        format!("{sent} packets ({lost} lost, {dropped} found the queue full)")
    });
    eprintln!("iolab: link: to the server {to_server}, to the client {to_client}");
    if let Some(failure) = link.failure() {
        return Err(failure.into());
    }
    match link.overrun()? {
        0 => {}
        more => eprintln!(
            "iolab: note: {more} packets were dropped beside the link, because its emulator had no \
             core in time: ask for a lower rate or fewer connections"
        ),
    }
    Ok(())
}

/// The server that the option `option` names, such as `epoll --trigger edge`: its program and its
/// own flags.
pub(crate) fn program(server: &str, option: &str) -> Result<(PathBuf, Vec<String>), String> {
    let mut words = server.split_whitespace().map(str::to_owned);
    let name = words.next().ok_or_else(|| format!("{option} names no server"))?;
    if name.contains('/') {
        return Ok((Path::new(&name).to_owned(), words.collect()));
    }
    let found = discover::servers(&discover::directories(None), &[name]);
    let (mut found, _) = found.map_err(|why| why.replacen("--models", option, 1))?;
    let found = found.pop().ok_or_else(|| format!("{option} names no server"))?;
    Ok((found.executable, found.model.arguments.into_iter().chain(words).collect()))
}

/// What is asked for of the server that iolab starts.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    scheme: String,
    /// Path and query; empty for an echo server.
    path: String,
}

impl Asked {
    fn parse(urls: &[String], profile: &Profile) -> Result<Asked, String> {
        let url = match urls {
            [] => "/",
            [url] => url,
            _ => return Err("--link leads to one server: name one URL".to_owned()),
        };
        if url.starts_with('/') {
            return Ok(Asked { scheme: "http".to_owned(), path: url.to_owned() });
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if host == "server" && url.contains("://") {
            return Ok(Asked { scheme: scheme.to_owned(), path: path.to_owned() });
        }
        let server = match (scheme, path) {
            ("http", "") => "/".to_owned(),
            ("http", path) => path.to_owned(),
            (scheme, path) => format!("{scheme}://server{path}"),
        };
        Err(format!(
            "{url} cannot be reached over a link, which leads into a network namespace of its own: \
             let iolab start the server there: iolab load --link {profile} --server epoll {server}"
        ))
    }

    fn flags(&self, link: &Link) -> Vec<String> {
        let protocol = if self.scheme == "tcp" { "echo" } else { "http" };
        let listen = format!("{}:0", link.server().address());
        let flags = ["--listen", &listen, "--protocol", protocol, "--drain-timeout", DRAIN_TIMEOUT];
        let tls = ["https", "wss"].contains(&&*self.scheme).then_some("--tls");
        flags.into_iter().chain(tls).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str) -> Result<Asked, String> {
        Asked::parse(&[url.to_owned()], &Profile::default())
    }

    #[test]
    fn a_path_or_the_host_server_is_asked_for() {
        let read = |url| asked(url).map(|asked| (asked.scheme, asked.path)).unwrap();
        let wanted = |scheme: &str, path: &str| (scheme.to_owned(), path.to_owned());
        assert_eq!(read("/bytes/100"), wanted("http", "/bytes/100"));
        assert_eq!(read("tcp://server"), wanted("tcp", ""));
        assert_eq!(read("wss://server/ws/echo"), wanted("wss", "/ws/echo"));
        assert_eq!(read("https://server?a"), wanted("https", "?a"));
        assert_eq!(Asked::parse(&[], &Profile::default()), asked("/"));
    }

    #[test]
    fn another_url_is_answered_with_what_to_type() {
        for (url, hint) in [
            ("http://127.0.0.1:8080/bytes/5", "--server epoll /bytes/5"),
            ("http://127.0.0.1:8080", "--server epoll /"),
            ("tcp://127.0.0.1:7", "--server epoll tcp://server"),
            ("ws://localhost:7/ws/echo", "--server epoll ws://server/ws/echo"),
            ("localhost/x", "--server epoll /x"),
        ] {
            let told = asked(url).unwrap_err();
            assert!(told.starts_with(url) && told.ends_with(hint), "{told}");
        }
        let both = ["/".to_owned(), "/".to_owned()];
        assert!(Asked::parse(&both, &Profile::default()).unwrap_err().contains("one URL"));
    }
}
