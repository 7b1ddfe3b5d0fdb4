//! What one run of the load generator saw.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The outcome of one measured window of load, as the client saw it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadOutcome {
    /// Where the load went.
    pub url: String,
    /// The address that it went to: the first of those of the URL's host that can be connected to.
    #[serde(default)]
    pub address: String,
    /// What was spoken: `echo`, `HTTP/1.1`, `HTTP/2` or `WebSocket`.
    pub protocol: String,
    /// What was seen of TLS; `None` without it.
    pub tls: Option<TlsOutcome>,
    /// What a fan-out adds: then each delivery counts as a request, and its latency runs from the
    /// send of the message. `None` elsewhere.
    pub fan_out: Option<FanOut>,
    /// Requests whose reply arrived complete and correct inside the window.
    pub requests: u64,
    /// Everything that went wrong inside the window, summed. Zero in a valid run.
    pub errors: u64,
    /// The same, by kind.
    pub errors_by_kind: Errors,
    /// Errors during warm-up, of all kinds. They are not in `errors`, but they are a reason for
    /// doubt.
    pub errors_in_warmup: u64,
    /// What the first error of the window was, in words.
    pub first_error: Option<String>,
    /// Why the window ended before its time, if it did: the server died, say.
    pub ended_early: Option<String>,
    /// Length of the window, in seconds.
    pub duration_s: f64,
    /// `requests / duration_s`.
    pub requests_per_s: f64,
    /// Connections that sent load.
    pub connections: u32,
    /// Connections that completed no request in the window, nor soon after it, and had been given
    /// one: starvation, a doubt of its own.
    pub connections_without_progress: u32,
    /// Silent connections held open beside the active ones, and still open at the end.
    pub idle_connections: u32,
    /// Silent connections that were opened before the window; the server closed those that are
    /// missing in `idle_connections`.
    pub idle_connections_asked: u32,
    /// Connections opened inside the window (more than `connections` when each request connects).
    pub connects: u64,
    /// Connections that the server ended as it may, between two replies or with the announcement
    /// `Connection: close` (RFC 9112, section 9.6), and that were opened anew. Not errors. Not
    /// counted when each request has its own connection.
    pub closed_by_server: u64,
    /// Bytes sent to the server inside the window.
    pub bytes_sent: u64,
    /// Bytes received from the server inside the window.
    pub bytes_received: u64,
    /// Closed loop: time from sending a request to its last byte, all connections merged; with a
    /// new connection per request it begins at connect(2). Requests that were on their way when the
    /// window ended are in it only if they are older than a tenth of a second and than all that
    /// were answered in it, or the largest sample would hide a stall at the end. Open loop: from
    /// the moment at which the request was due, whether or not it could be sent then; requests
    /// still unanswered at the end are in it with their age, which is the least that they took.
    pub latency: Latency,
    /// What an open loop adds; `None` for a closed one.
    pub open_loop: Option<OpenLoop>,
    /// What was on its way when the window ended, and what became of it.
    #[serde(default)]
    pub at_end: AtEnd,
    /// When the client itself did not run.
    #[serde(default)]
    pub client_stops: ClientStops,
    /// Why this run says nothing about the server, whichever loop it was: the client was stopped,
    /// or fell behind its schedule.
    #[serde(default)]
    pub invalid: Option<String>,
    /// What a reader should know about how the client had to work here.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Requests on their way, averaged over the window's time: the L of Little's law (L = rate x
    /// mean latency), measured apart from both.
    pub mean_in_flight: f64,
    /// CPU time of the client's threads inside the window, in microseconds.
    pub client_cpu_us: u64,
    /// Whether each request had a new connection, instead of keep-alive.
    pub reconnect: bool,
    /// Requests on their way at once on one connection, at most.
    pub pipelining: u32,
    /// Messages flowed without waiting for replies, as far as the window of `pipelining` messages
    /// allowed: what is measured is a stream's throughput, not a conversation's.
    pub streaming: bool,
    /// Bytes of one echo message, or of a POST's body.
    pub payload_bytes: u64,
    /// Engine threads of the client.
    pub threads: u32,
    /// Load before the window that was not counted, in seconds.
    pub warmup_s: f64,
    /// The congestion control in force on the client's sockets (tcp(7), TCP_CONGESTION).
    pub congestion_control: String,
    /// What of each reply was compared with what.
    pub verification: String,
}

/// Requests on their way when a window ended. Each was admitted in it, and its reply is not
/// counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AtEnd {
    /// How many there were.
    pub in_flight: u64,
    /// How old the oldest of them was, in microseconds.
    pub oldest_us: f64,
    /// Those that were still not answered when the run ended.
    pub unanswered: u64,
    /// How old the oldest of those was then, in microseconds.
    pub oldest_unanswered_us: f64,
    /// Those of them that were older than a tenth of a second and than all that were answered in
    /// the window, on connections that had been answered before: the server has stopped answering.
    pub overdue: u64,
}

/// Times in the window at which the client did not run for a tenth of a second or more although it
/// had work: it was stopped (SIGSTOP), or the machine was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClientStops {
    /// How many, of the thread that did not run for the longest time in all.
    pub count: u32,
    /// All of them together, in microseconds.
    pub total_us: f64,
    /// The longest, in microseconds.
    pub longest_us: f64,
    /// When that one began, in seconds from the window's start.
    pub longest_at_s: f64,
    /// Requests that were on their way or fell due meanwhile, or waited for those that did: their
    /// latencies are the client's own.
    pub requests: u64,
    /// Time in which it could run and had no core, in pieces of a tenth of a second or more, in
    /// microseconds: other processes had them all, and the server waited in the same queue. Not in
    /// the figures above.
    pub waited_for_core_us: f64,
}

/// TLS as the client saw it, inside the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TlsOutcome {
    /// Protocol version that was agreed on: `TLSv1.3`, say.
    pub version: String,
    /// Cipher suite that was agreed on.
    pub cipher_suite: String,
    /// Application protocol that was agreed on (ALPN, RFC 7301), if any.
    pub alpn: Option<String>,
    /// Handshakes with a certificate and a signature.
    pub handshakes_full: u64,
    /// Handshakes that resumed an earlier session (RFC 8446 section 2.2).
    pub handshakes_resumed: u64,
    /// Time of a handshake, from connect(2) to the end of the client's part.
    pub handshake: Latency,
}

/// One speaker, many listeners.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FanOut {
    /// Connections in the room, the speaker's among them.
    pub members: u32,
    /// Messages that the speaker sent and all others heard.
    pub messages: u64,
}

/// An open loop: requests fall due by the clock, not by the server's answers (Schroeder, Wierman,
/// Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenLoop {
    /// How the gaps between due times are distributed.
    pub arrivals: Arrivals,
    /// Requests that fall due per second, all threads.
    pub rate_per_s: f64,
    /// Seed of the gaps; the same seed gives every server the same due times.
    pub seed: u64,
    /// Requests that fell due inside the window.
    pub due: u64,
    /// Those of them that had been sent when the window ended.
    pub sent: u64,
    /// Those of them that had not been answered when the run ended: overload, or loss.
    pub unanswered: u64,
    /// What the client itself was late by: from the moment when a request was due and a connection
    /// was free for it, to its send(2). The client's fault only: waiting for a free connection is
    /// the server's.
    pub send_lag: Latency,
    /// The same replies timed from their actual send, as tools do that let a slow server delay the
    /// next request ("coordinated omission", Tene 2013). For comparison only.
    pub from_send: Latency,
    /// Why this run says nothing about the server: the client fell behind its schedule.
    pub invalid: Option<String>,
}

/// How the gaps between the due times of an open loop are distributed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Exponentially: independent clients, as on the open Internet.
    #[default]
    Poisson,
    /// All equal: a metronome.
    Constant,
}

/// Errors by kind: which promise was broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Errors {
    /// connect(2) failed, or the TLS handshake, or what a protocol says first.
    pub connect: u64,
    /// The connection was closed or reset in the middle of a reply.
    pub closed: u64,
    /// A complete reply with other bytes than the scenario promises (status, length or body).
    pub wrong: u64,
    /// A reply that did not arrive within the time limit.
    pub timeout: u64,
}

/// A latency distribution: the histogram itself, and the figures that people read first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Number of samples.
    pub samples: u64,
    /// Smallest sample, in microseconds.
    pub min_us: f64,
    /// Mean, in microseconds.
    pub mean_us: f64,
    /// 50th percentile, in microseconds.
    pub p50_us: f64,
    /// 90th percentile, in microseconds.
    pub p90_us: f64,
    /// 99th percentile, in microseconds; `None` with fewer than 10 samples beyond it.
    pub p99_us: Option<f64>,
    /// 99.9th percentile, in microseconds; `None` with fewer than 10 samples beyond it.
    pub p999_us: Option<f64>,
    /// Largest sample, in microseconds.
    pub max_us: f64,
    /// The histogram of nanoseconds, V2 + DEFLATE as HdrHistogram defines it, in base64.
    /// Merge histograms; never average percentiles.
    pub histogram: String,
}
