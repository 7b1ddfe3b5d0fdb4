//! HTTP/2 as RFC 9113 and RFC 7541 want it, on one server for each model and flavour.
//!
//! A row is a rule with the section that it comes from. Each has a connection of its own and leaves
//! the server as it was, so all rows of a flavour share one server, which the last of them stops:
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

use suite::http2::{Http2, setting};
use suite::{Server, Variant, pattern, until};
use tempfile::TempDir;

use crate::Outcome;

/// What a row does.
#[derive(Clone, Copy)]
pub enum Run {
    /// On a connection whose prefaces are exchanged.
    Open(fn(&mut Http2)),
    /// With the server alone.
    Raw(fn(&Server)),
}

/// Section and rule, and how it is tried.
pub type Row = (&'static str, Run);

/// Rows that start on an open connection.
pub type OpenRow = (&'static str, fn(&mut Http2));

/// Rows that make connections of their own.
pub type RawRow = (&'static str, fn(&Server));

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
    open.chain(raw.map(|&(name, run)| (name, Run::Raw(run)))).collect()
}

/// What the rows of one flavour share.
pub struct Shared {
    variant: Variant,
    site: Mutex<Option<TempDir>>,
    server: OnceLock<Server>,
    /// Held by a row where a second connection would wait for the first one's end.
    turn: Mutex<()>,
}

impl Shared {
    pub fn new(variant: &Variant) -> Arc<Shared> {
        let (site, server, turn) = (Mutex::new(None), OnceLock::new(), Mutex::new(()));
        Arc::new(Shared { variant: variant.clone(), site, server, turn })
    }

    /// Runs a row; the last one to do so stops the server.
    pub fn run(self: Arc<Shared>, run: Run) -> Outcome {
        {
            let alone = self.variant.model.one_at_a_time();
            let _turn = alone.then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner));
            let server = self.server.get_or_init(|| self.start());
            match run {
                Run::Raw(run) => run(server),
                Run::Open(run) => run(&mut Http2::open(server.address)),
            }
        }
        if let Some(server) = Arc::into_inner(self).and_then(|shared| shared.server.into_inner()) {
            until("only the one that asks is connected", || {
                server.stats()["connections_open"] == 1
            });
            let counters = server.stop();
            assert_eq!(counters["connections_open"], 0, "{counters}");
        }
        Outcome::Passed
    }

    fn start(&self) -> Server {
        let site = site();
        let root = site.path().to_string_lossy().into_owned();
        *self.site.lock().unwrap_or_else(PoisonError::into_inner) = Some(site);
        Server::start(&self.variant, &["--root", &root])
    }
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
