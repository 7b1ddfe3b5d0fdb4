//! What cannot be measured on this machine.

use std::fmt;

/// Why something cannot be measured here, and how to enable it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// The reason.
    pub why: String,
    /// How to enable it.
    pub remedy: String,
}

impl Unavailable {
    /// From reason and remedy.
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Unavailable {
        Unavailable { why: why.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.remedy)
    }
}
