//! All limits of a server. `--describe` prints them, and each result file holds them.

use std::time::Duration;

use serde::Serialize;

/// The limits of a server. Each default names its reason or a precedent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Largest request head (request line and fields), in bytes; a larger one is answered with 431.
    /// h11 has 16 KiB, nginx 8 + 4 x 8 KiB, Tomcat 8 KiB.
    pub head_bytes_max: usize,
    /// Longest request target, in bytes; a longer one is answered with 414. RFC 9112 section 3
    /// recommends at least 8,000.
    pub target_bytes_max: usize,
    /// Largest request body, in bytes; a larger one is answered with 413. Bodies are streamed, so
    /// this limits time and bandwidth, not memory.
    pub body_bytes_max: u64,
    /// Bytes of output above which a connection reads and produces no more. Two full file reads, so
    /// that one can be sent while the next is read.
    pub output_high_water_bytes: usize,
    /// Largest single file read, in bytes. A loop that waits for read(2) serves no other connection
    /// meanwhile.
    pub file_read_bytes_max: usize,
    /// HTTP/2 streams that one connection may have open at once. nginx has 128, h2o 100; RFC 9113
    /// section 6.5.2 recommends at least 100.
    pub streams_max: u32,
    /// Largest WebSocket message, in bytes, over all its fragments; a larger one is answered with
    /// Close 1009.
    pub message_bytes_max: usize,
    /// Bytes of output above which no unrequested message is pushed (`/ws/clock`, the chat). More
    /// than [`Limits::output_high_water_bytes`], because a client that floods would otherwise never
    /// get a push.
    pub push_high_water_bytes: usize,
    /// Bytes that may wait for one member of the chat; a member that is further behind is removed
    /// (Close 1013). Several full reads of other members' messages, because one loop may read so
    /// many before this member's turn.
    pub chat_backlog_bytes_max: usize,
    /// Requests answered on one connection before it is closed; 0 = no limit.
    pub keepalive_requests_max: u64,
    /// Longest `/delay/MS`, in milliseconds.
    pub delay_ms_max: u64,
    /// Longest `/work/US`, in microseconds. Such a request stops an event loop for that time.
    pub work_us_max: u64,
    /// Largest `/bytes/N`, in bytes.
    pub reply_bytes_max: u64,
    /// Time between two requests, in milliseconds. nginx has 75 s, Apache 5 s.
    pub idle_timeout_ms: u64,
    /// Time for a TLS handshake, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// Time for a request head, in milliseconds, from its first byte to its last.
    pub head_timeout_ms: u64,
    /// Time between two reads of a request body, in milliseconds.
    pub body_timeout_ms: u64,
    /// Time in which a peer must acknowledge some bytes of the output, in milliseconds. On loopback
    /// with default buffers the receiver's kernel opens its window in steps of 95,232 bytes
    /// (measured with SIOCOUTQ), so at 1 KB/s 95 s pass between two acknowledgements.
    pub write_timeout_ms: u64,
    /// Time for the peer to close after our FIN, in milliseconds.
    pub linger_timeout_ms: u64,
    /// Time to finish requests when the server stops, in milliseconds.
    pub drain_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes_max: 16 << 10,
            target_bytes_max: 8 << 10,
            body_bytes_max: 64 << 20,
            output_high_water_bytes: 128 << 10,
            file_read_bytes_max: 64 << 10,
            streams_max: 128,
            message_bytes_max: 1 << 20,
            push_high_water_bytes: 256 << 10,
            chat_backlog_bytes_max: 1 << 20,
            keepalive_requests_max: 0,
            delay_ms_max: 60_000,
            work_us_max: 1_000_000,
            reply_bytes_max: 1 << 40,
            idle_timeout_ms: 30_000,
            handshake_timeout_ms: 10_000,
            head_timeout_ms: 10_000,
            body_timeout_ms: 10_000,
            write_timeout_ms: 120_000,
            linger_timeout_ms: 1_000,
            drain_timeout_ms: 5_000,
        }
    }
}

impl Limits {
    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    pub(crate) fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }

    pub(crate) fn linger_timeout(&self) -> Duration {
        Duration::from_millis(self.linger_timeout_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}
