//! The failure of a subcommand: one sentence on stderr and exit code 2.

use std::fmt;
use std::process::ExitCode;

/// One sentence: what failed, where, and how to mend it.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// Prints the sentence to stderr and returns the exit code.
    pub fn tell(&self) -> ExitCode {
        eprintln!("iolab: {self}");
        ExitCode::from(2)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure(sentence)
    }
}

/// For `map_err`: puts `what` in front of the error.
pub fn because<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}
