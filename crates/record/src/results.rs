//! The result file: the plan, the machine, and every trial. It holds raw data only; figures are
//! derived from it when they are printed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Arrivals, Environment, Instrument, Protocol, Trial};

/// Version of the file format. Raised if an older reader would misread a newer file.
pub const SCHEMA_VERSION: u32 = 4;

/// A result file (`results.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    /// Version of this format ([`SCHEMA_VERSION`]).
    pub schema_version: u32,
    /// The machine.
    pub environment: Environment,
    /// Settings of the run.
    pub settings: Settings,
    /// The workloads, in the order in which they are shown.
    pub workloads: Vec<Workload>,
    /// The models, in the order in which they are shown.
    pub models: Vec<Model>,
    /// Label of the reference model. All ratios are to this model, and in each epoch it has two
    /// processes.
    pub reference: String,
    /// Label of the floor, a server that sends canned replies without parsing requests. `None`: it
    /// did not take part.
    pub floor: Option<String>,
    /// Cells that are not measured, and why; known before the first trial.
    pub skips: Vec<Skip>,
    /// All planned trials, in their order.
    pub schedule: Vec<Slot>,
    /// All trials done. Shorter than `schedule` if the run was interrupted.
    pub trials: Vec<Trial>,
}

/// Settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// The preset of the run.
    pub preset: Preset,
    /// Seed of the order of trials and of all resampling.
    pub seed: u64,
    /// Number of rounds. A round has one epoch of each workload, in which all models are measured.
    pub rounds: u32,
    /// Length of the warm-up, whose load is not counted, in seconds.
    pub warm_up_s: f64,
    /// Time for which each server is loaded in an epoch, all its slices together, in seconds.
    pub window_s: f64,
    /// Length of the idle sample, in seconds.
    pub idle_sample_s: f64,
    /// Number of rounds with an idle sample (the first ones).
    pub idle_sample_rounds: u32,
    /// Number of counting passes, in which each cell is measured once more with its system calls
    /// counted.
    pub counting_rounds: u32,
    /// Maximum time of the run (`--budget`), in seconds.
    pub budget_s: Option<f64>,
    /// Whether the processors were kept out of idle states (/dev/cpu_dma_latency held at 0), except
    /// under workloads with `processors_sleep`.
    pub awake: bool,
    /// Cores to which the server is pinned; empty: not pinned.
    pub server_cores: Vec<u32>,
    /// Cores to which the client is pinned; empty: not pinned.
    pub client_cores: Vec<u32>,
}

/// The length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// About a minute.
    Quick,
    /// Some minutes: enough rounds to rank clear differences.
    Default,
    /// 20 rounds.
    Thorough,
}

/// The load of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// Short name, such as `http-keepalive`.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Protocol. A server is started with `--protocol echo` for echo and `--protocol http` for the
    /// others.
    pub protocol: Protocol,
    /// Whether TLS is used; the server is then started with `--tls`.
    pub tls: bool,
    /// With TLS and a connection per request: whether handshakes resume a session (RFC 8446 section
    /// 2.2).
    pub tls_resume: bool,
    /// A chat (`websocket`): one connection sends, and each delivery to another counts as a
    /// request.
    pub fan_out: bool,
    /// Path of the request; none for echo.
    pub path: Option<String>,
    /// Size of an echo message, or of the reply's body (and, with `post`, of the request's), in
    /// bytes.
    pub payload_bytes: u64,
    /// Whether the request is a POST to `/echo`, whose reply has the same body, not a GET.
    pub post: bool,
    /// Number of active connections.
    pub connections: u32,
    /// Whether each request has a new connection.
    pub connect_per_request: bool,
    /// Maximum number of requests in flight on a connection; with HTTP/2: of open streams.
    pub pipelining: u32,
    /// Whether echo messages are sent without waiting for replies: the throughput of a stream.
    pub streaming: bool,
    /// Requests that fall due per second (open loop); without it, a closed loop.
    pub rate_per_s: Option<u32>,
    /// Distribution of the gaps between due times of an open loop.
    pub arrivals: Arrivals,
    /// Number of idle keep-alive connections.
    pub idle_connections: u32,
    /// Number of open connections while CPU and memory are sampled without traffic; 0: no such
    /// sample.
    pub idle_sample_connections: u32,
    /// Whether processors may enter idle states between requests, as on a machine without other
    /// load.
    pub processors_sleep: bool,
}

/// A server under test: an executable and its flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// Name in tables: the model's name, and the flavour if one was chosen (`epoll+trigger=edge`).
    pub label: String,
    /// Name, from `--describe`.
    pub name: String,
    /// Description in one line, from `--describe`.
    pub description: String,
    /// Protocols, those of `--describe` that are known here.
    pub protocols: Vec<Protocol>,
    /// Flags beyond the common ones (`--trigger edge`).
    pub arguments: Vec<String>,
    /// Maximum number of connections, from `--describe`; `None`: limited by descriptors only.
    pub connections_max: Option<u64>,
    /// Why there is this maximum.
    pub connections_max_reason: Option<String>,
    /// The complete answer to `--describe`.
    pub describe: Value,
    /// The file that was measured; `None` in older result files.
    pub executable: Option<Executable>,
}

/// The file of a server. It shows whether two results are of the same build. It is the same in all
/// trials of a run, because a run ends if it is replaced. Of a script only the script itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Executable {
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// The build, from `--describe`: `release` or `debug`; `None` if it does not say.
    pub build: Option<String>,
}

/// A cell that was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skip {
    /// Label of the model.
    pub model: String,
    /// Name of the workload; `None`: the model cannot run at all.
    pub workload: Option<String>,
    /// One sentence.
    pub reason: String,
    /// Whether the cell was left out because it would repeat another, although the server could
    /// have run it. Such a cell is in no table.
    pub by_design: bool,
}

/// One planned trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slot {
    /// Round, counted from 1.
    pub round: u32,
    /// Place in the schedule, counted from 0.
    pub position: u32,
    /// Name of the workload.
    pub workload: String,
    /// Label of the model.
    pub model: String,
    /// Purpose of the trial.
    pub role: Role,
}

/// The purpose of a trial.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is timed.
    Timed,
    /// The second process of the reference model in this epoch, as control (an A/A comparison).
    Sentinel,
    /// Its system calls are counted; its times are not used.
    Counting,
}

/// Why a text cannot be read as a result file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseError {
    /// Not JSON, or JSON of another form; with the parser's message (line and column).
    Malformed(String),
    /// Its version is unknown here.
    UnknownVersion(u64),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Malformed(why) => {
                write!(f, "not a complete result file ({why}); give a file that iolab bench wrote")
            }
            ParseError::UnknownVersion(version) => write!(
                f,
                "its schema_version is {version} and this iolab reads {SCHEMA_VERSION}; \
                 render it with the iolab that wrote it"
            ),
        }
    }
}

impl std::error::Error for ParseError {}

impl Results {
    /// Reads a result file. The version is checked first, so that a newer file does not fail on an
    /// unknown field.
    pub fn from_json(text: &str) -> Result<Results, ParseError> {
        versioned(text)
    }

    /// The text of a result file.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }

    /// Whether all planned trials were done.
    pub fn is_complete(&self) -> bool {
        self.trials.len() == self.schedule.len()
    }
}

/// Reads a file with a `schema_version`.
pub(crate) fn versioned<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ParseError> {
    let malformed = |error: serde_json::Error| ParseError::Malformed(error.to_string());
    let value: Value = serde_json::from_str(text).map_err(malformed)?;
    match value.get("schema_version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(SCHEMA_VERSION) => {}
        Some(version) => return Err(ParseError::UnknownVersion(version)),
        None => return Err(ParseError::Malformed("schema_version is missing".into())),
    }
    serde_json::from_value(value).map_err(malformed)
}

/// The JSON schema of a result file.
pub fn schema() -> Value {
    schemars::schema_for!(Results).to_value()
}

/// The JSON schema of the file of `iolab check-instrument`.
pub fn instrument_schema() -> Value {
    schemars::schema_for!(Instrument).to_value()
}
