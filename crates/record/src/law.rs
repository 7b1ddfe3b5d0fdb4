//! The result of `iolab laws`: for each law, what was expected, what was measured, and whether it
//! holds here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What `iolab laws --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Laws {
    /// Seed of all orders and of packet loss.
    pub seed: u64,
    /// The laws that were measured, in the order of their numbers.
    pub laws: Vec<LawOutcome>,
}

/// A law, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LawOutcome {
    /// Its number, such as `L10`.
    pub id: String,
    /// What it says, in one sentence.
    pub claim: String,
    /// What was expected, in words, fixed before measuring.
    pub expected: String,
    /// Who says so.
    pub source: String,
    /// The command that shows it to a reader.
    pub shown_by: String,
    /// The figures, those that decide first.
    pub figures: Vec<LawFigure>,
    /// How it was measured, where the figures do not say it.
    pub note: Option<String>,
    /// Whether it holds here.
    pub standing: Standing,
    /// CPU time that others used meanwhile, in cores; `None` if unknown.
    pub others_cores: Option<f64>,
    /// How long the measurement took, in seconds.
    pub took_s: f64,
}

/// A figure of a law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LawFigure {
    /// What it is, in words.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit; empty for a ratio or a count.
    pub unit: String,
    /// Its 90 % interval over the epochs; `None` if it was counted, or timed once.
    pub interval: Option<(f64, f64)>,
    /// The lower bound, if there is one.
    pub at_least: Option<f64>,
    /// The upper bound, if there is one.
    pub at_most: Option<f64>,
}

/// Whether a law holds on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Every figure is within its bounds.
    Holds,
    /// It does not hold here: which figures are out of their bounds, or which server failed.
    NotHere(String),
    /// The machine lacks what the measurement needs: what, and the remedy.
    Skip(String),
    /// The measurement itself failed.
    Fault(String),
}

/// The JSON schema of what `iolab laws --json` prints.
pub fn laws_schema() -> Value {
    schemars::schema_for!(Laws).to_value()
}
