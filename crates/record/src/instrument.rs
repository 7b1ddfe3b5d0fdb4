//! What `iolab check-instrument` found: the instrument tested on itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Environment, ParseError};

/// The file that `iolab check-instrument` writes (`instrument.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Instrument {
    /// Version of this format: [`crate::SCHEMA_VERSION`] when written.
    pub schema_version: u32,
    /// The machine.
    pub environment: Environment,
    /// Seed of everything random.
    pub seed: u64,
    /// What was tried, in the order in which it is told.
    pub checks: Vec<Check>,
}

/// One thing that an instrument can get wrong, tried on a server made for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Short name: `coordinated-omission`.
    pub name: String,
    /// The rule of measuring that it belongs to (REPORT.md numbers them).
    pub rule: u32,
    /// What should be seen, in one sentence, fixed before measuring.
    pub claim: String,
    /// The bounds that decide, in words and figures: `corrected p99 >= 50 x uncorrected`.
    pub expected: String,
    /// What an instrument has that does not pass, in one sentence.
    #[serde(default)]
    pub fails_if: String,
    /// What was seen, in words and figures.
    pub measured: String,
    /// The figures behind the words, by name; names end in their unit.
    pub figures: BTreeMap<String, f64>,
    /// What the wrong way of measuring said, where there is one.
    pub wrong: Option<Way>,
    /// What the right way said about the same server.
    pub right: Option<Way>,
    /// What follows.
    pub verdict: Verdict,
}

/// One way of measuring, and what it said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Way {
    /// The way, in a few words: `timed from the send`.
    pub how: String,
    /// The figure that it gives, with its unit, as it would be printed.
    pub figure: String,
}

/// What follows from a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The bounds held.
    Holds,
    /// They did not.
    Fails,
    /// It could not be tried here; one sentence says why.
    Skipped(String),
    /// They did not, on a machine that others were busy on: so nothing follows. One sentence says
    /// how busy.
    CannotTell(String),
}

impl Instrument {
    /// Reads the file from its text, the version first.
    pub fn from_json(text: &str) -> Result<Instrument, ParseError> {
        crate::results::versioned(text)
    }

    /// The text of the file.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }
}
