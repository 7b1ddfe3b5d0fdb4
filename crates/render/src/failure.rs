//! The one way in which a subcommand fails: one clear sentence on stderr and exit code 2.

use std::fmt;
use std::process::ExitCode;

/// One sentence: what went wrong, where, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// Tells the user, and gives the exit code of bad input.
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

/// A sentence as it came from where the fault was found.
impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure(sentence)
    }
}

/// Puts "what we were doing" in front of an error, for `map_err`.
pub fn because<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}
