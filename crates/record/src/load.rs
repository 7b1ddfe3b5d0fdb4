//! The outcome of a run of the load generator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Protocol;
use crate::protocol::Named;

/// The outcome of a measured window of load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadOutcome {
    /// URL of the server.
    pub url: String,
    /// Address of the server: the first of the URL's host that accepts a connection.
    #[serde(default)]
    pub address: String,
    /// Protocol.
    #[serde(with = "Named")]
    #[schemars(with = "Named")]
    pub protocol: Protocol,
    /// TLS handshakes; `None` without TLS.
    pub tls: Option<TlsOutcome>,
    /// Figures of a fan-out. In a fan-out each delivery counts as a request, and its latency begins
    /// with the send of the message. `None` otherwise.
    pub fan_out: Option<FanOut>,
    /// Requests with a complete and correct reply in the window.
    pub requests: u64,
    /// Errors in the window. Zero in a valid run.
    pub errors: u64,
    /// The errors by kind.
    pub errors_by_kind: Errors,
    /// Errors during warm-up, which are not in `errors`.
    pub errors_in_warmup: u64,
    /// The first error of the window, in words.
    pub first_error: Option<String>,
    /// Why the window ended early, if it did: for example because the server ended.
    pub ended_early: Option<String>,
    /// Length of the window, in seconds.
    pub duration_s: f64,
    /// `requests / duration_s`.
    pub requests_per_s: f64,
    /// Active connections.
    pub connections: u32,
    /// Connections that were given a request but completed none in the window nor soon after it
    /// (starvation).
    pub connections_without_progress: u32,
    /// Idle connections that were still open at the end.
    pub idle_connections: u32,
    /// Idle connections that were opened before the window. The server has closed those that are
    /// missing in `idle_connections`.
    pub idle_connections_asked: u32,
    /// Connections opened in the window (more than `connections` if each request has a new one).
    pub connects: u64,
    /// Connections that the server closed as it may, between two replies or with `Connection:
    /// close` (RFC 9112 section 9.6), and that were opened again. Not errors. Not counted if each
    /// request has a new connection.
    pub closed_by_server: u64,
    /// Bytes sent in the window.
    pub bytes_sent: u64,
    /// Bytes received in the window.
    pub bytes_received: u64,
    /// Latency of all connections together. Closed loop: from the send of a request to the last
    /// byte of its reply; with a connection per request from connect(2). Requests in flight at the
    /// end of the window are included only if they are older than a tenth of a second and than all
    /// requests answered in the window; otherwise a stall at the end would not show in the maximum.
    /// Open loop: from the due time of a request, also if it was sent later. Requests without a
    /// reply are included with their age at the end, which is a lower bound.
    pub latency: Latency,
    /// Figures of an open loop; `None` for a closed loop.
    pub open_loop: Option<OpenLoop>,
    /// Requests in flight at the end of the window.
    #[serde(default)]
    pub at_end: AtEnd,
    /// Times at which the client did not run.
    #[serde(default)]
    pub client_stops: ClientStops,
    /// Why the run says nothing about the server, if so: the client was stopped, or was too slow
    /// for its schedule.
    #[serde(default)]
    pub invalid: Option<String>,
    /// Notes on the client's work in this run.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Mean number of requests in flight over the window: the L of Little's law (L = rate x mean
    /// latency), measured independently of both.
    pub mean_in_flight: f64,
    /// CPU time of the client's threads in the window, in microseconds.
    pub client_cpu_us: u64,
    /// Whether each request had a new connection.
    pub reconnect: bool,
    /// Maximum number of requests in flight on a connection.
    pub pipelining: u32,
    /// Whether messages were sent without waiting for replies, up to `pipelining` messages ahead:
    /// the result is the throughput of a stream.
    pub streaming: bool,
    /// Size of an echo message or of a POST's body, in bytes.
    pub payload_bytes: u64,
    /// Client threads.
    pub threads: u32,
    /// Length of the warm-up, in seconds.
    pub warmup_s: f64,
    /// Congestion control of the client's sockets (tcp(7), TCP_CONGESTION).
    pub congestion_control: String,
    /// How replies were verified.
    pub verification: String,
}

/// Requests in flight at the end of the window. They began in the window, and their replies are not
/// counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AtEnd {
    /// Their number.
    pub in_flight: u64,
    /// Age of the oldest of them, in microseconds.
    pub oldest_us: f64,
    /// Those without a reply when the run ended.
    pub unanswered: u64,
    /// Age of the oldest of these at that time, in microseconds.
    pub oldest_unanswered_us: f64,
    /// Those of them that were older than a tenth of a second and than all requests answered in the
    /// window, on connections with earlier replies: the server has stopped answering.
    pub overdue: u64,
}

/// Times in the window at which the client had work but did not run for a tenth of a second or
/// more: it was stopped (SIGSTOP), or the machine was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClientStops {
    /// Their number, for the thread with the longest total.
    pub count: u32,
    /// Their total, in microseconds.
    pub total_us: f64,
    /// The longest of them, in microseconds.
    pub longest_us: f64,
    /// Start of the longest, in seconds after the start of the window.
    pub longest_at_s: f64,
    /// Requests that were in flight or fell due meanwhile, or waited for these: their latencies are
    /// caused by the client.
    pub requests: u64,
    /// Time for which the client was runnable but had no core, in periods of a tenth of a second or
    /// more, in microseconds: other processes used all cores, and the server waited for them too.
    /// Not in the figures above.
    pub waited_for_core_us: f64,
}

/// TLS in the window, as seen by the client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TlsOutcome {
    /// Protocol version, such as `TLSv1.3`.
    pub version: String,
    /// Cipher suite.
    pub cipher_suite: String,
    /// Application protocol (ALPN, RFC 7301), if any.
    pub alpn: Option<String>,
    /// Full handshakes, with a certificate and a signature.
    pub handshakes_full: u64,
    /// Handshakes that resumed a session (RFC 8446 section 2.2).
    pub handshakes_resumed: u64,
    /// Time of a handshake, from connect(2) to the end of the client's part.
    pub handshake: Latency,
}

/// A fan-out: one connection sends, all others receive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FanOut {
    /// Connections in the chat, including the sender.
    pub members: u32,
    /// Messages that all others received.
    pub messages: u64,
}

/// An open loop: requests fall due by the clock, independently of replies (Schroeder, Wierman,
/// Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenLoop {
    /// Distribution of the gaps between due times.
    pub arrivals: Arrivals,
    /// Requests that fall due per second, all threads together.
    pub rate_per_s: f64,
    /// Seed of the gaps; the same seed gives the same due times.
    pub seed: u64,
    /// Requests that fell due in the window.
    pub due: u64,
    /// Those of them that were sent before the end of the window.
    pub sent: u64,
    /// Those of them without a reply when the run ended: overload, or loss.
    pub unanswered: u64,
    /// Delay of the client itself: from the time when a request was due and a connection was free
    /// until its send(2). The wait for a free connection is caused by the server and not included.
    pub send_lag: Latency,
    /// Latency from the actual send. Tools with this latency let a slow server delay the next
    /// request ("coordinated omission", Tene 2013). For comparison only.
    pub from_send: Latency,
    /// Why the run says nothing about the server, if so: the client was too slow for its schedule.
    pub invalid: Option<String>,
}

/// Distribution of the gaps between the due times of an open loop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Exponential gaps, as from independent clients.
    #[default]
    Poisson,
    /// Equal gaps.
    Constant,
}

/// Errors by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Errors {
    /// connect(2), the TLS handshake, or the opening of the protocol failed.
    pub connect: u64,
    /// The connection was closed or reset before the reply was complete.
    pub closed: u64,
    /// A complete reply with a wrong status, length or body.
    pub wrong: u64,
    /// No reply within the time limit.
    pub timeout: u64,
}

/// A latency distribution: the histogram and its main figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Number of samples.
    pub samples: u64,
    /// Minimum, in microseconds.
    pub min_us: f64,
    /// Mean, in microseconds.
    pub mean_us: f64,
    /// 50th percentile, in microseconds.
    pub p50_us: f64,
    /// 90th percentile, in microseconds.
    pub p90_us: f64,
    /// 99th percentile, in microseconds; `None` with fewer than 10 samples above it.
    pub p99_us: Option<f64>,
    /// 99.9th percentile, in microseconds; `None` with fewer than 10 samples above it.
    pub p999_us: Option<f64>,
    /// Maximum, in microseconds.
    pub max_us: f64,
    /// The histogram in nanoseconds, in HdrHistogram's format V2 + DEFLATE, in base64. Merge
    /// histograms; do not average percentiles.
    pub histogram: String,
}
