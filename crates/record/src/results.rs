//! The result file: what was planned, on what machine, and every trial. Raw data only; each figure
//! that is printed is derived from it when it is printed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Arrivals, Environment, Instrument, Trial};

/// Version of the file format. Raised when an older reader would misread a newer file.
pub const SCHEMA_VERSION: u32 = 4;

/// A result file (`results.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    /// Version of this format: [`SCHEMA_VERSION`] when written.
    pub schema_version: u32,
    /// The machine.
    pub environment: Environment,
    /// How the run was set up.
    pub settings: Settings,
    /// The workloads, in the order in which they are shown.
    pub workloads: Vec<Workload>,
    /// The models, in the order in which they are shown.
    pub models: Vec<Model>,
    /// Label of the reference model: every ratio is to this one, and in each epoch two processes of
    /// it take part.
    pub reference: String,
    /// Label of the model that parses nothing and sends canned replies: the physical line, not a
    /// competitor. `None` when it did not take part.
    pub floor: Option<String>,
    /// Cells that were not measured, and why: known before the first trial.
    pub skips: Vec<Skip>,
    /// Every trial planned, in the order of running.
    pub schedule: Vec<Slot>,
    /// Every trial done. Shorter than `schedule` when the run was interrupted.
    pub trials: Vec<Trial>,
}

/// How a run was set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// The preset that the figures below came from.
    pub preset: Preset,
    /// Seed of the order of trials and of every resampling.
    pub seed: u64,
    /// Rounds: each has one epoch of every workload, in which all models take turns.
    pub rounds: u32,
    /// Load before what is measured, discarded, in seconds.
    pub warm_up_s: f64,
    /// How long each server is loaded in an epoch, all of its slices together, in seconds.
    pub window_s: f64,
    /// Length of the idle sample, in seconds.
    pub idle_sample_s: f64,
    /// Rounds that take the idle sample (the first ones).
    pub idle_sample_rounds: u32,
    /// Rounds that are followed by a counting pass: every cell once more, its system calls counted.
    pub counting_rounds: u32,
    /// Time that the run was to fit into (`--budget`), in seconds.
    pub budget_s: Option<f64>,
    /// The processors were kept awake (/dev/cpu_dma_latency held at 0), except under workloads with
    /// `processors_sleep`.
    pub awake: bool,
    /// Cores that the server is pinned to; empty when nothing is pinned.
    pub server_cores: Vec<u32>,
    /// Cores that the client is pinned to; empty when nothing is pinned.
    pub client_cores: Vec<u32>,
}

/// How much time a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// About a minute; not for ranking.
    Quick,
    /// Some minutes; enough rounds to rank clear differences.
    Default,
    /// 20 rounds.
    Thorough,
}

/// What the client does to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// Short name: `http-keepalive`.
    pub name: String,
    /// One sentence for a reader.
    pub description: String,
    /// What the client speaks: `echo`, `http` (HTTP/1.1), `h2` (HTTP/2) or `websocket`. The server
    /// is started with `--protocol echo` for the first and `--protocol http` for the others.
    pub protocol: String,
    /// Under TLS: the server is started with `--tls`.
    pub tls: bool,
    /// With a connection per request under TLS: sessions are resumed (RFC 8446 section 2.2) instead
    /// of begun anew.
    pub tls_resume: bool,
    /// A chat (`websocket`): one connection speaks, and what is counted is what the others hear.
    pub fan_out: bool,
    /// Path of the request; `None` for echo.
    pub path: Option<String>,
    /// Bytes of one echo, or of the reply's body (and, with `post`, of the request's).
    pub payload_bytes: u64,
    /// The request is a POST whose body must come back (`/echo`), not a GET.
    pub post: bool,
    /// Connections that send load.
    pub connections: u32,
    /// Each request has a connection of its own.
    pub connect_per_request: bool,
    /// Requests on their way at once on one connection, at most; with HTTP/2: open streams.
    pub pipelining: u32,
    /// Echo messages flow without waiting for replies: throughput of a stream.
    pub streaming: bool,
    /// Requests that fall due per second (open loop); `None` = closed loop.
    pub rate_per_s: Option<u32>,
    /// How they are spread; without meaning in a closed loop.
    pub arrivals: Arrivals,
    /// Silent keep-alive connections beside the active ones.
    pub idle_connections: u32,
    /// Connections open while CPU and memory are sampled without traffic; 0 = no such sample.
    pub idle_sample_connections: u32,
    /// The processors may sleep between two requests, as they do on a machine that nothing keeps
    /// awake.
    pub processors_sleep: bool,
}

/// One server under test: an executable and its flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// Name in tables: the model's name, and its flavour if one was asked for
    /// (`epoll+trigger=edge`).
    pub label: String,
    /// Name that the executable gives itself.
    pub name: String,
    /// One line about it, from `--describe`.
    pub description: String,
    /// Protocols that it speaks, from `--describe`.
    pub protocols: Vec<String>,
    /// Flags beyond the common ones (`--trigger edge`).
    pub arguments: Vec<String>,
    /// Connections that it can hold at once, from `--describe`; `None` = bounded by descriptors
    /// only.
    pub connections_max: Option<u64>,
    /// Why it can hold no more.
    pub connections_max_reason: Option<String>,
    /// The whole answer to `--describe`.
    pub describe: Value,
    /// The file that was measured; `None` in files that are older than this field.
    pub executable: Option<Executable>,
}

/// A server's file, so that two results can be told to be of one build. The same in every trial of
/// a run: a run ends where it is replaced. Of a server that is a script it is the script alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Executable {
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// How it was built, in its own words (`build` of `--describe`): `release` or `debug`; `None`
    /// when it does not say.
    pub build: Option<String>,
}

/// A cell that was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skip {
    /// Label of the model.
    pub model: String,
    /// Name of the workload; `None` when the model cannot run at all.
    pub workload: Option<String>,
    /// One sentence.
    pub reason: String,
    /// The run did not want this cell, which would repeat another; the server could have had it.
    /// Such a cell is in no table.
    pub by_design: bool,
}

/// One planned trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slot {
    /// Round, counted from 1.
    pub round: u32,
    /// Place in the whole run, counted from 0.
    pub position: u32,
    /// Name of the workload.
    pub workload: String,
    /// Label of the model.
    pub model: String,
    /// What the trial is for.
    pub role: Role,
}

/// What a trial is for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is timed.
    Timed,
    /// The second process of the reference model in this epoch: an A/A comparison.
    Sentinel,
    /// Its system calls are counted, and its times are not used.
    Counting,
}

/// Why a text is not a result file that can be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseError {
    /// No JSON, or JSON of another shape. Carries the parser's words (line and column).
    Malformed(String),
    /// Written in a format that this reader does not know.
    UnknownVersion(u64),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Malformed(why) => {
                write!(f, "not a complete result file ({why}); render the file that bench wrote")
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
    /// Reads a result file from its text. The version is looked at first, so that a newer file is
    /// named as such instead of failing on its first unknown field.
    pub fn from_json(text: &str) -> Result<Results, ParseError> {
        versioned(text)
    }

    /// The text of a result file.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }

    /// Whether every planned trial was done.
    pub fn is_complete(&self) -> bool {
        self.trials.len() == self.schedule.len()
    }
}

/// Reads a file that carries its `schema_version`.
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

/// The JSON schema of what `iolab check-instrument` writes.
pub fn instrument_schema() -> Value {
    schemars::schema_for!(Instrument).to_value()
}
