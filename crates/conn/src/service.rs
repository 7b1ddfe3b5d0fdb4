//! What all connections of a worker share: limits, files, counters, the date, and two functions of
//! the program that the core cannot have itself.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::{Chat, Counters, FileTable, Limits, Memory};
use bytes::Bytes;

/// The protocol of the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Every byte is sent back (RFC 862).
    Echo,
    /// HTTP/1.1 (RFC 9112), HTTP/2 (RFC 9113) and WebSocket (RFC 6455); the client chooses.
    Http,
}

/// What the core needs from the program that contains it.
pub trait Program: Send + Sync {
    /// Uses the CPU for `duration` on the calling thread (`/work/US`).
    fn burn(&self, duration: Duration);
    /// The server's counters as one JSON object (`/stats`).
    fn stats_json(&self) -> String;
}

/// No program: it uses no CPU and has no counters. For tests and benchmarks that ask for neither.
impl Program for () {
    fn burn(&self, _: Duration) {}

    fn stats_json(&self) -> String {
        String::new()
    }
}

/// Both clocks, read at the same moment, so that the date follows from the `now` of each call. If
/// the wall clock is set later, the date does not follow.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The monotonic clock at start.
    pub started: Instant,
    /// The time since the Unix epoch at the same moment.
    pub started_unix: Duration,
}

/// What all workers of a server share.
#[derive(Clone)]
pub struct Common {
    /// The files under `/files/`; `None` without a document root.
    pub files: Option<Arc<FileTable>>,
    /// The program that contains the core.
    pub program: Arc<dyn Program>,
    /// The clocks at start.
    pub clock: Clock,
    /// The members of the chat.
    pub chat: Arc<Chat>,
    /// `Some`: each connection begins with a TLS handshake.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Origins whose pages may open a WebSocket, besides the server's own; `*` is any (RFC 6455
    /// section 10.2).
    pub origins_allowed: Arc<[String]>,
    /// The memory account.
    pub memory: Arc<Memory>,
}

impl Common {
    /// The minimum: no files, no TLS, no foreign origins, an empty chat, and no limit on memory.
    pub fn new(program: Arc<dyn Program>, clock: Clock) -> Common {
        Common {
            files: None,
            program,
            clock,
            chat: Arc::default(),
            tls: None,
            origins_allowed: Arc::default(),
            memory: Arc::new(Memory::new(usize::MAX)),
        }
    }
}

/// What the connections of one worker share.
pub struct Service {
    /// The protocol of the listener.
    pub protocol: Protocol,
    /// The limits in force.
    pub limits: Limits,
    /// This worker's counters. They may be in memory that processes share.
    pub counters: &'static Counters,
    /// What it shares with the other workers.
    pub common: Common,
    pub(crate) pattern: Bytes,
    date: Mutex<CachedDate>,
}

/// Output of one connection above the soft memory limit, in bytes: one TLS record.
const LOW_MEMORY_OUTPUT_BYTES: usize = 16 << 10;

/// Length of an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
const DATE_LEN: usize = 29;

struct CachedDate {
    unix_s: u64,
    text: [u8; DATE_LEN],
}

/// The body of `/bytes/N`: byte k is `ALPHABET[k % 64]`.
const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";

/// A multiple of the alphabet, and the size of one file read: `/bytes/N` and a file of N bytes then
/// need the same output operations.
pub(crate) const PATTERN_BYTES: usize = 64 << 10;

impl Service {
    /// `counters` belong to one worker, the rest to all.
    pub fn new(
        protocol: Protocol,
        limits: Limits,
        counters: &'static Counters,
        common: Common,
    ) -> Service {
        Service {
            protocol,
            limits,
            counters,
            common,
            pattern: Bytes::from(ALPHABET.repeat(PATTERN_BYTES / ALPHABET.len())),
            date: Mutex::new(CachedDate { unix_s: u64::MAX, text: [0; DATE_LEN] }),
        }
    }

    /// Bytes of output above which a connection reads and produces no more.
    pub(crate) fn output_high_water_bytes(&self) -> usize {
        let high_water = self.limits.output_high_water_bytes;
        if self.common.memory.is_above_soft_limit() {
            high_water.min(LOW_MEMORY_OUTPUT_BYTES)
        } else {
            high_water
        }
    }

    pub(crate) fn put_date(&self, now: Instant, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.date(now).text);
    }

    /// The second since the Unix epoch that [`Service::put_date`] writes.
    pub(crate) fn unix_s(&self, now: Instant) -> u64 {
        let clock = &self.common.clock;
        (clock.started_unix + now.saturating_duration_since(clock.started)).as_secs()
    }

    /// The date of `now`, formatted once a second: formatting costs as much as parsing a small
    /// request.
    fn date(&self, now: Instant) -> MutexGuard<'_, CachedDate> {
        let unix_s = self.unix_s(now);
        // A formatter may have panicked under the lock; the cache is then written again below.
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if date.unix_s != unix_s {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s));
            if let Ok(text) = text.as_bytes().try_into() {
                *date = CachedDate { unix_s, text };
            }
        }
        date
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}
