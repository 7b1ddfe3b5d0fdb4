//! What this machine does not allow.

use std::fmt;

/// Why something cannot be measured here, and what would change that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// What was found.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl Unavailable {
    /// Puts the two together.
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Unavailable {
        Unavailable { why: why.into(), remedy: remedy.into() }
    }
}

/// One sentence.
impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.remedy)
    }
}
