//! What one run of the load generator saw.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The outcome of one measured window of load, as the client saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadOutcome {
    /// Requests whose reply arrived complete and correct inside the window.
    pub requests: u64,
    /// Everything that went wrong inside the window, summed. Zero in a valid run.
    pub errors: u64,
    /// The same, by kind.
    pub errors_by_kind: Errors,
    /// Length of the window, in seconds.
    pub duration_s: f64,
    /// `requests / duration_s`.
    pub requests_per_s: f64,
    /// Connections that sent load.
    pub connections: u32,
    /// Connections that completed no request in the window: starvation, a doubt of its own.
    pub connections_without_progress: u32,
    /// Silent connections held open beside the active ones, and still open at the end.
    pub idle_connections: u32,
    /// Connections opened inside the window (more than `connections` when each request connects).
    pub connects: u64,
    /// Bytes sent to the server inside the window.
    pub bytes_sent: u64,
    /// Bytes received from the server inside the window.
    pub bytes_received: u64,
    /// Time from sending a request to its last byte, all connections merged.
    pub latency: Latency,
    /// CPU time of the client's threads inside the window, in microseconds.
    pub client_cpu_us: u64,
}

/// Errors by kind: which promise was broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Errors {
    /// connect(2) failed.
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
