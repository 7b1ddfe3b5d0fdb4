//! The environment of a connection: a clock that stands still, a program that uses no CPU, and
//! files of letters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Clock, Common, Counters, FileTableBuilder, Limits, Program, Protocol, Service, Totals};
use rustls::ServerConfig;

/// Longest read of the servers in this workspace, in bytes.
pub const READ_MAX: usize = 64 << 10;

/// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 section 5.6.7: the date of every reply
/// until a test moves the clock.
pub const STARTED_UNIX_S: u64 = 784_111_777;

struct FakeProgram;

impl Program for FakeProgram {
    fn burn(&self, _duration: Duration) {}

    fn stats_json(&self) -> String {
        "{\"fake\":true}".to_owned()
    }
}

/// A file that is only an entry of the table. Its content is the letters `a` to `z`, repeated.
#[derive(Debug, Clone)]
pub struct FakeFile {
    pub path: String,
    pub len: u64,
    pub modified_unix_s: u64,
    pub content_type: String,
}

#[derive(Debug)]
pub struct World {
    pub service: Arc<Service>,
    pub counters: &'static Counters,
    pub started: Instant,
}

impl World {
    /// `files` in the order of their ids. None means that the server has no document root.
    pub fn new(protocol: Protocol, limits: Limits, files: &[FakeFile]) -> World {
        World::secure(protocol, limits, files, None)
    }

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
        let counters: &Counters = Box::leak(Box::default());
        let common = Common {
            files: (!files.is_empty()).then(|| Arc::new(table.build())),
            tls,
            ..Common::new(Arc::new(FakeProgram), clock)
        };
        let service = Service::new(protocol, limits, counters, common);
        World { service: Arc::new(service), counters, started }
    }

    pub fn totals(&self) -> Totals {
        Totals::of([self.counters])
    }
}

pub fn letters(from: u64, to: u64) -> Vec<u8> {
    (from..to).map(|k| b'a' + (k % 26) as u8).collect()
}

/// Bytes `from..to` of `/bytes/N`, independent of the server's code.
pub fn pattern(from: u64, to: u64) -> Vec<u8> {
    let line: Vec<u8> =
        (b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z').chain(*b"-\n").collect();
    (from..to).map(|k| line[(k % 64) as usize]).collect()
}
