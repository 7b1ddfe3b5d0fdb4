//! Laws that a suite of servers must be able to show. Each has a claim, bounds that were fixed
//! before anything was measured, and a measurement on the real servers.
//!
//! A measurement returns figures; whether they are within the bounds is decided in one place
//! ([`decide()`]), and no law has an answer of its own. The servers are found by name, and any of
//! them can be replaced ([`Lab::with_model`]): with a server that waits in another way in its
//! place, a law must not hold.
//!
//! Reading order: [`Law`], `decide`, `lab` (servers), then one file for each group of laws.

mod calls;
mod cold;
mod cost;
mod crowd;
mod decide;
mod http;
mod instrument;
mod kernel;
mod lab;
pub mod omission;
mod place;
mod probe;
mod threads;
pub mod turns;
mod waiting;
mod websocket;

use record::LawFigure;
use rig::client::Failed;

pub use decide::{Bound, decide};
pub use lab::{Lab, Pace};

/// A law.
pub struct Law {
    /// Its number, such as `L10`.
    pub id: &'static str,
    /// What it says, in one sentence.
    pub claim: &'static str,
    /// What is expected, in words.
    pub expected: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// The command that shows it to a reader.
    pub shown_by: &'static str,
    /// About how long the measurement takes, in seconds.
    pub takes_s: f64,
    /// The bounds of the figures that decide.
    pub bounds: &'static [Bound],
    /// The measurement.
    pub measure: fn(&Lab) -> Result<Measured, Reason>,
}

/// What was measured.
#[derive(Debug, Default, PartialEq)]
pub struct Measured {
    /// The figures, without bounds.
    pub figures: Vec<LawFigure>,
    /// How it was measured, where the figures do not say it.
    pub note: Option<String>,
}

impl Measured {
    /// Adds a figure that was counted, or timed once.
    #[must_use]
    pub fn figure(self, name: impl Into<String>, value: f64, unit: &str) -> Measured {
        self.figure_within(name, value, unit, None)
    }

    /// Adds a figure with its 90 % interval.
    #[must_use]
    pub fn figure_within(
        mut self,
        name: impl Into<String>,
        value: f64,
        unit: &str,
        interval: Option<(f64, f64)>,
    ) -> Measured {
        let (name, unit) = (name.into(), unit.to_owned());
        self.figures.push(LawFigure { name, value, unit, interval, at_least: None, at_most: None });
        self
    }

    /// Adds a sentence on how it was measured.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Measured {
        self.note = Some(note.into());
        self
    }
}

/// Why nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The machine lacks something: what, and the remedy.
    Skip(String),
    /// A server did not do what the law says, so that there are no figures: it refused, answered
    /// wrongly, or ended.
    NotHere(String),
    /// The measurement failed: a fault of this side.
    Fault(String),
    /// The user wants the end.
    Interrupted,
}

impl From<load::Error> for Reason {
    fn from(error: load::Error) -> Reason {
        Reason::Fault(error.to_string())
    }
}

impl From<std::io::Error> for Reason {
    fn from(error: std::io::Error) -> Reason {
        Reason::Fault(error.to_string())
    }
}

/// A server that does not answer as it should.
impl From<Failed> for Reason {
    fn from(why: Failed) -> Reason {
        Reason::NotHere(why.into())
    }
}

/// All laws, in the order of their numbers.
pub fn all() -> Vec<&'static Law> {
    let groups = [
        crowd::LAWS,
        waiting::LAWS,
        calls::LAWS,
        cost::LAWS,
        threads::LAWS,
        http::LAWS,
        websocket::LAWS,
        kernel::LAWS,
        cold::LAWS,
        place::LAWS,
        instrument::LAWS,
    ];
    let mut laws: Vec<_> = groups.into_iter().flatten().collect();
    laws.sort_by_key(|law| number(law.id));
    laws
}

/// `L10` -> 10.
fn number(id: &str) -> u32 {
    id.trim_start_matches('L').parse().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_law_has_its_number_and_bounds_that_can_fail() {
        let laws = all();
        for (law, next) in laws.iter().zip(&laws[1..]) {
            assert!(number(law.id) < number(next.id), "{} and {}", law.id, next.id);
        }
        for law in laws {
            assert!(law.bounds.iter().any(Bound::can_fail), "{} cannot fail", law.id);
            assert!(law.claim.ends_with('.') && law.expected.ends_with('.'), "{}", law.id);
            assert!(law.shown_by.starts_with("iolab "), "{}", law.id);
        }
    }
}
