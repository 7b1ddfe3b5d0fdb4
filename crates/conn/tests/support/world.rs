//! The outside, faked: a clock that stands still, a host that burns nothing, files of letters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Clock, Common, Counters, FileTableBuilder, Limits, Program, Protocol, Service, Totals};
use rustls::ServerConfig;

/// Sun, 06 Nov 1994 08:49:37 GMT: the example of RFC 9110 section 5.6.7, and the date of every
/// reply until a test moves the clock.
pub const STARTED_UNIX_S: u64 = 784_111_777;

/// Does no work and counts nothing.
struct FakeHost;

impl Program for FakeHost {
    fn burn(&self, _duration: Duration) {}

    fn stats_json(&self) -> String {
        "{\"fake\":true}".to_owned()
    }
}

/// A file that exists only as a table entry: byte k of it is the k-th letter, `a` to `z` for ever.
#[derive(Debug, Clone)]
pub struct FakeFile {
    /// Path below the root.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    /// Time of modification, in seconds since the Unix epoch.
    pub modified_unix_s: u64,
    /// Content-Type.
    pub content_type: String,
}

/// Everything that a connection needs around it.
#[derive(Debug)]
pub struct World {
    /// What connections share.
    pub service: Arc<Service>,
    /// What they are counted in.
    pub counters: Arc<Counters>,
    /// When the clock started.
    pub started: Instant,
}

impl World {
    /// `files` in the order of their ids; none means that the server has no document root.
    pub fn new(protocol: Protocol, limits: Limits, files: &[FakeFile]) -> World {
        World::secure(protocol, limits, files, None)
    }

    /// The same behind TLS, if there is a configuration for it.
    pub fn secure(
        protocol: Protocol,
        limits: Limits,
        files: &[FakeFile],
        tls: Option<Arc<ServerConfig>>,
    ) -> World {
        let started = Instant::now();
        let mut table = FileTableBuilder::default();
        for file in files {
            let modified_unix_ns = file.modified_unix_s * 1_000_000_000;
            table.add(&file.path, file.len, modified_unix_ns, &file.content_type);
        }
        let clock = Clock { started, started_unix: Duration::from_secs(STARTED_UNIX_S) };
        let counters = Arc::new(Counters::default());
        let common = Common {
            files: (!files.is_empty()).then(|| Arc::new(table.build())),
            tls,
            ..Common::new(Arc::new(FakeHost), clock)
        };
        let service = Service::new(protocol, limits, Arc::clone(&counters), common);
        World { service: Arc::new(service), counters, started }
    }

    /// A snapshot of the counters.
    pub fn totals(&self) -> Totals {
        Totals::of([&*self.counters])
    }
}

/// Bytes `from..to` of the endless content of every fake file.
pub fn letters(from: u64, to: u64) -> Vec<u8> {
    (from..to).map(|k| b'a' + (k % 26) as u8).collect()
}

/// Bytes `from..to` of what `/bytes/N` sends, written here a second time on purpose.
pub fn pattern(from: u64, to: u64) -> Vec<u8> {
    let line: Vec<u8> =
        (b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z').chain(*b"-\n").collect();
    (from..to).map(|k| line[(k % 64) as usize]).collect()
}
