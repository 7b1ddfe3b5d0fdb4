//! The result of `iolab check-instrument`, which tests the measurements.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Environment, ParseError};

/// The file that `iolab check-instrument` writes (`instrument.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Instrument {
    /// Version of this format ([`crate::SCHEMA_VERSION`]).
    pub schema_version: u32,
    /// The machine.
    pub environment: Environment,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The checks, in their order.
    pub checks: Vec<Check>,
}

/// One possible error of measurement, tested on a server made for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Short name, such as `coordinated-omission`.
    pub name: String,
    /// The rule of measuring that it tests (REPORT.md numbers them).
    pub rule: u32,
    /// What should be found, in one sentence, fixed before measuring.
    pub claim: String,
    /// The bounds that decide, such as `corrected p99 >= 50 x uncorrected`.
    pub expected: String,
    /// What is wrong with an instrument that fails, in one sentence.
    #[serde(default)]
    pub fails_if: String,
    /// What was found.
    pub measured: String,
    /// The figures by name; a name ends in its unit.
    pub figures: BTreeMap<String, f64>,
    /// The result of a wrong way of measuring, if there is one.
    pub wrong: Option<Way>,
    /// The result of the right way for the same server.
    pub right: Option<Way>,
    /// The verdict.
    pub verdict: Verdict,
}

/// A way of measuring, and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Way {
    /// The way, in a few words, such as `timed from the send`.
    pub how: String,
    /// The figure with its unit, as printed.
    pub figure: String,
}

/// The verdict of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The result is within the bounds.
    Holds,
    /// The result is not within the bounds.
    Fails,
    /// The check could not be made here, for this reason.
    Skipped(String),
    /// The result is not within the bounds, but other processes used the machine, so nothing
    /// follows. One sentence says how much.
    CannotTell(String),
}

impl Instrument {
    /// Reads the file. The version is checked first.
    pub fn from_json(text: &str) -> Result<Instrument, ParseError> {
        crate::results::versioned(text)
    }

    /// The text of the file.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }
}
