//! HTTP/2 as RFC 9113 and RFC 7541 want it, on two servers for each model and flavour: by prior
//! knowledge and over TLS.
//!
//! A row is a rule with the section that it comes from. Each has a connection of its own and leaves
//! the server as it was, so all rows of a flavour share a server, which the last of them stops:
//! then nothing may be left open. Where the RFC leaves a choice, a row accepts each way that it
//! names (mostly a stream error or a connection error) and no other.

mod connect;
mod frames;
pub mod h2spec;
mod hpack;
mod messages;
mod requests;
mod settings;
mod streams;
mod windows;

pub mod limits;
pub mod stop;
pub mod tools;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::RootCertStore;
use serde_json::Value;
use suite::http2::{Http2, setting};
use suite::{Client, Server, Variant, get, pattern, until};
use tempfile::TempDir;

use crate::Outcome;
use crate::secure::{self, Guarded};

/// What a row does.
#[derive(Clone, Copy)]
pub enum Run {
    /// On a connection whose prefaces are exchanged.
    Open(fn(&mut Http2)),
    /// On connections that it makes itself.
    Raw(fn(&Endpoint)),
    /// On connections without TLS: the client chooses the protocol by what it says first.
    Plain(fn(&Server)),
}

/// Section and rule, and how it is tried.
pub type Row = (&'static str, Run);

/// Rows that start on an open connection.
pub type OpenRow = (&'static str, fn(&mut Http2));

/// Rows that make connections of their own.
pub type RawRow = (&'static str, fn(&Endpoint));

/// Rows that show nothing over TLS.
pub type PlainRow = (&'static str, fn(&Server));

/// All of them.
pub fn rows() -> Vec<Row> {
    let open = [
        frames::ROWS,
        settings::ROWS,
        windows::ROWS,
        streams::ROWS,
        messages::ROWS,
        messages::FIELD_ROWS,
        hpack::ROWS,
        requests::ROWS,
        connect::ROWS,
    ];
    let open = open.concat().into_iter().map(|(name, run)| (name, Run::Open(run)));
    let raw = frames::RAW_ROWS.iter().chain(requests::RAW_ROWS);
    let raw = raw.map(|&(name, run)| (name, Run::Raw(run)));
    let plain = frames::PLAIN_ROWS.iter().map(|&(name, run)| (name, Run::Plain(run)));
    open.chain(raw).chain(plain).collect()
}

/// A server, and what it takes to reach it.
pub struct Endpoint {
    server: Server,
    /// Over TLS: what trusts the certificate.
    trust: Option<Arc<RootCertStore>>,
    /// The document root, and over TLS the directory of the certificate.
    _directories: Vec<TempDir>,
}

impl Endpoint {
    fn start(variant: &Variant, over_tls: bool) -> Endpoint {
        let site = site();
        let root = site.path().to_string_lossy().into_owned();
        let flags = ["--root", &root];
        if over_tls {
            let Guarded { server, trust, state } = secure::start(variant, &flags);
            Endpoint { server, trust: Some(trust), _directories: vec![site, state] }
        } else {
            let server = Server::start(variant, &flags);
            Endpoint { server, trust: None, _directories: vec![site] }
        }
    }

    /// A connection of HTTP/1.1.
    #[track_caller]
    pub fn http1(&self) -> Client {
        self.connect("http/1.1")
    }

    /// A connection of HTTP/2 on which nothing has been said.
    #[track_caller]
    pub fn http2(&self) -> Http2 {
        Http2::over(self.connect("h2"))
    }

    #[track_caller]
    fn connect(&self, alpn: &str) -> Client {
        let client = self.server.connect();
        match &self.trust {
            Some(trust) => client.over(|stream| secure::connect(stream, trust, alpn)),
            None => client,
        }
    }
}

/// What the rows of one flavour share.
pub struct Shared {
    variant: Variant,
    over_tls: bool,
    endpoint: OnceLock<Endpoint>,
    /// Held by a row where a second connection would wait for the first one's end.
    turn: Mutex<()>,
}

impl Shared {
    pub fn new(variant: &Variant, over_tls: bool) -> Arc<Shared> {
        let (endpoint, turn) = (OnceLock::new(), Mutex::new(()));
        Arc::new(Shared { variant: variant.clone(), over_tls, endpoint, turn })
    }

    /// Runs a row; the last one to do so stops the server.
    pub fn run(self: Arc<Shared>, run: Run) -> Outcome {
        if self.over_tls && matches!(run, Run::Plain(_)) {
            return Outcome::skipped("over TLS the protocol is agreed on by ALPN");
        }
        {
            let alone = self.variant.model.one_at_a_time();
            let _turn = alone.then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner));
            let endpoint =
                self.endpoint.get_or_init(|| Endpoint::start(&self.variant, self.over_tls));
            match run {
                Run::Raw(run) => run(endpoint),
                Run::Open(run) => run(&mut endpoint.http2().opened()),
                Run::Plain(run) => run(&endpoint.server),
            }
        }
        let shared = Arc::into_inner(self);
        if let Some(endpoint) = shared.and_then(|shared| shared.endpoint.into_inner()) {
            until("only the one that asks is connected", || {
                stats(&endpoint)["connections_open"] == 1
            });
            let counters = endpoint.server.stop();
            assert_eq!(counters["connections_open"], 0, "{counters}");
        }
        Outcome::Passed
    }
}

#[track_caller]
fn stats(endpoint: &Endpoint) -> Value {
    let mut client = endpoint.http1();
    client.send(&get("/stats"));
    serde_json::from_slice(&client.reply().body).expect("/stats is JSON")
}

/// A document root.
pub fn site() -> TempDir {
    let site = tempfile::tempdir().expect("a temporary directory");
    let write = |path: &str, content: &[u8]| {
        let path: PathBuf = site.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(site.path())).expect("a directory");
        fs::write(path, content).expect("writing a file");
    };
    write("hello.txt", b"hello from a file\n");
    write("empty.bin", b"");
    write("data.txt", &pattern(0, 200_000));
    write("large.bin", &pattern(7, 3_000_000));
    write("sub/page.html", b"<p>a page</p>");
    site
}

/// A stream that has asked, and whose reply waits for a window: half closed (remote).
#[track_caller]
pub fn blocked(c: &mut Http2) -> u32 {
    c.set(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let stream = c.get("/bytes/100");
    assert_eq!(c.head(stream).status, 200);
    stream
}

/// A stream that is over for both sides.
#[track_caller]
pub fn closed(c: &mut Http2) -> u32 {
    let stream = c.get("/");
    c.is_greeted(stream);
    stream
}
