//! What all connections of a worker share: limits, files, counters, the date, and the outside's
//! answers to the two things that a core without I/O and clock cannot do itself.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;

use crate::{Chat, Counters, FileTable, Limits, Memory};

/// Which protocol the listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Every byte back (RFC 862).
    Echo,
    /// HTTP/1.1 (RFC 9112), HTTP/2 (RFC 9113) and WebSocket (RFC 6455), as the client likes.
    Http,
}

/// What the core asks of the program around it.
pub trait Program: Send + Sync {
    /// Burns CPU on the calling thread for `duration` (`/work/US`).
    fn burn(&self, duration: Duration);
    /// The server's own counters as one JSON object (`/stats`).
    fn stats_json(&self) -> String;
}

/// One pair of simultaneous readings, so that the date follows from the `now` of every call.
/// A step of the wall clock after start is not seen: the date then stays off by that step.
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
    /// What the core asks of the program around it.
    pub program: Arc<dyn Program>,
    /// The time at start.
    pub clock: Clock,
    /// Who is in the chat.
    pub chat: Arc<Chat>,
    /// `Some`: every connection begins with a TLS handshake.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Origins whose pages may open a WebSocket, besides the server's own; `*` is any
    /// (RFC 6455 section 10.2).
    pub origins_allowed: Arc<[String]>,
    /// What all connections hold, and may.
    pub memory: Arc<Memory>,
}

impl Common {
    /// The least that there must be: no files, no TLS, no foreign origins, an empty chat, and no
    /// bound on memory.
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

/// Shared by the connections of one worker.
pub struct Service {
    /// What the listener speaks.
    pub protocol: Protocol,
    /// The limits in force.
    pub limits: Limits,
    /// This worker's counters.
    pub counters: Arc<Counters>,
    /// What it shares with the other workers.
    pub common: Common,
    pub(crate) pattern: Bytes,
    date: Mutex<CachedDate>,
}

/// The same, at most, while there is little memory left for all: a record of TLS.
const TIGHT_OUTPUT_BYTES: usize = 16 << 10;

/// Length of an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
const DATE_LEN: usize = 29;

struct CachedDate {
    unix_s: u64,
    text: [u8; DATE_LEN],
    /// The same as HTTP/2's library wants it; a clone is a counted handle.
    value: HeaderValue,
}

/// What `/bytes/N` is made of: byte k of the reply is `ALPHABET[k % 64]`.
const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";

/// A multiple of the alphabet, and one file read long: `/bytes/N` and a file of N bytes then cost
/// the same output operations.
pub(crate) const PATTERN_BYTES: usize = 64 << 10;

impl Service {
    /// Everything that connections share. `counters` belong to one worker, the rest to all.
    pub fn new(
        protocol: Protocol,
        limits: Limits,
        counters: Arc<Counters>,
        common: Common,
    ) -> Service {
        Service {
            protocol,
            limits,
            counters,
            common,
            pattern: Bytes::from(ALPHABET.repeat(PATTERN_BYTES / ALPHABET.len())),
            date: Mutex::new(CachedDate {
                unix_s: u64::MAX,
                text: [0; DATE_LEN],
                value: HeaderValue::from_static(""),
            }),
        }
    }

    /// Output of one connection, in bytes, above which no more is read or produced.
    pub(crate) fn output_high_water_bytes(&self) -> usize {
        let high_water = self.limits.output_high_water_bytes;
        if self.common.memory.is_above_soft_limit() {
            high_water.min(TIGHT_OUTPUT_BYTES)
        } else {
            high_water
        }
    }

    /// Appends the date of `now` as an IMF-fixdate.
    pub(crate) fn put_date(&self, now: Instant, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.date(now).text);
    }

    /// The date of `now` as a field's value.
    pub(crate) fn date_value(&self, now: Instant) -> HeaderValue {
        self.date(now).value.clone()
    }

    /// The date of `now`. Formatted once a second, because formatting costs as much as parsing a
    /// small request.
    fn date(&self, now: Instant) -> MutexGuard<'_, CachedDate> {
        let clock = &self.common.clock;
        let since_start = now.saturating_duration_since(clock.started);
        let unix = clock.started_unix + since_start;
        // A poisoned lock means that a formatter panicked; the cache is then rewritten below.
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if date.unix_s != unix.as_secs() {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix.as_secs()));
            let value = HeaderValue::from_str(&text);
            if let (Ok(text), Ok(value)) = (text.as_bytes().try_into(), value) {
                *date = CachedDate { unix_s: unix.as_secs(), text, value };
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
