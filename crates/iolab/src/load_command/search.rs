//! The highest rate at which a server keeps to a latency: probes of an open loop.
//!
//! The rate doubles from a low one until the server misses the latency, then the gap is halved (on
//! a scale of ratios) down to a few percent. At each rate two of three probes decide, so that one
//! hiccup of the machine does not. A probe that keeps to the latency counts even if the client was
//! late in it, for its lateness is in the latency; one that misses it because of the client says
//! that the client is the limit, which is told apart.

use std::time::{Duration, Instant};

use serde::Serialize;

/// The rate grows by this factor until it is missed.
const GROWTH: f64 = 2.0;
/// And shrinks by this one where the first rate is too high already.
const RETREAT: f64 = 4.0;
/// The gap between the rate that held and the one that did not, at the end: as good as such a
/// figure can be repeated on a quiet machine.
const PRECISION: f64 = 1.04;
/// All probes together.
pub(super) const SEARCH_LIMIT: Duration = Duration::from_secs(120);
/// No server can be asked faster from one process.
const RATE_MAX: f64 = 5_000_000.0;

/// What a probe said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The server kept to the latency.
    Held,
    /// It did not.
    Missed,
    /// The latency was missed in a run whose client was too slow: the server may well be faster.
    ClientLimit,
}

/// Why the search ended before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Halt {
    /// The time was up.
    Time,
    /// Ctrl-C.
    Interrupted,
    /// The server cannot be measured (any more).
    Failed(String),
}

/// What the search has found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// The highest rate that held.
    pub(super) held: Option<f64>,
    /// The lowest rate that did not, and what was in the way.
    pub(super) missed: Option<(f64, Verdict)>,
    /// Why the search ended early.
    pub(super) halted: Option<Halt>,
}

/// Searches from `start` on, never below `floor`. `probe` sends one probe of a rate; it is told
/// whether the server was overloaded just before.
pub(super) fn search(
    start: f64,
    floor: f64,
    mut probe: impl FnMut(f64, bool) -> Result<Verdict, Halt>,
) -> Found {
    let mut found = Found::default();
    let mut rate = start;
    let mut overloaded = false;
    loop {
        match decide(rate, &mut overloaded, &mut probe) {
            Ok(Verdict::Held) => found.held = Some(rate),
            Ok(verdict) => found.missed = Some((rate, verdict)),
            Err(halt) => {
                found.halted = Some(halt);
                return found;
            }
        }
        rate = match (found.held, found.missed) {
            (Some(held), Some((missed, _))) if missed <= held * PRECISION => return found,
            (Some(held), Some((missed, _))) => (held * missed).sqrt(),
            (Some(held), None) if held * GROWTH > RATE_MAX => return found,
            (Some(held), None) => held * GROWTH,
            (None, Some((missed, _))) if missed <= floor => return found,
            (None, Some((missed, _))) => (missed / RETREAT).max(floor),
            (None, None) => return found,
        };
    }
}

/// Two of three probes of one rate.
fn decide(
    rate: f64,
    overloaded: &mut bool,
    probe: &mut impl FnMut(f64, bool) -> Result<Verdict, Halt>,
) -> Result<Verdict, Halt> {
    let (mut held, mut missed) = (0, Vec::new());
    loop {
        let verdict = probe(rate, *overloaded)?;
        *overloaded = verdict != Verdict::Held;
        match verdict {
            Verdict::Held => held += 1,
            other => missed.push(other),
        }
        if held == 2 {
            return Ok(Verdict::Held);
        }
        if missed.len() == 2 {
            // Had only the client been in the way, the server might have held.
            let client = missed.contains(&Verdict::ClientLimit);
            return Ok(if client { Verdict::ClientLimit } else { Verdict::Missed });
        }
    }
}

/// Whether the time for all probes is up.
pub(super) fn check_time(since: Instant) -> Result<(), Halt> {
    if since.elapsed() > SEARCH_LIMIT { Err(Halt::Time) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that holds every rate up to `limit`.
    fn server(limit: f64) -> impl FnMut(f64, bool) -> Result<Verdict, Halt> {
        move |rate, _| Ok(if rate <= limit { Verdict::Held } else { Verdict::Missed })
    }

    #[test]
    fn the_limit_is_found_within_its_precision() {
        for limit in [1_300.0, 16_000.0, 60_000.0, 1_234_567.0, 150.0] {
            let found = search(1_200.0, 100.0, server(limit));
            let held = found.held.unwrap_or_default();
            assert!(held <= limit && held * PRECISION >= limit, "{limit}: {found:?}");
        }
    }

    #[test]
    fn a_server_that_holds_nothing_is_given_up_at_the_floor() {
        let found = search(1_200.0, 100.0, server(50.0));
        assert_eq!((found.held, found.missed), (None, Some((100.0, Verdict::Missed))));
        let mut probes = 0;
        let found = search(1_200.0, 100.0, |_, _| {
            probes += 1;
            Ok(Verdict::Held)
        });
        assert!(found.held.is_some_and(|rate| rate > 1e6) && found.missed.is_none() && probes > 20);
    }

    #[test]
    fn one_bad_probe_of_three_does_not_decide() {
        let mut probes = 0;
        let mut server = server(20_000.0);
        // The first probe of every third is bad, whatever the rate.
        let found = search(1_200.0, 100.0, |rate, overloaded| {
            probes += 1;
            if probes % 3 == 1 { Ok(Verdict::Missed) } else { server(rate, overloaded) }
        });
        assert!(found.held.is_some_and(|rate| rate > 19_000.0), "{found:?}");
    }

    #[test]
    fn the_client_is_named_when_it_is_the_limit() {
        let found = search(1_200.0, 100.0, |rate, _| {
            Ok(if rate <= 9_000.0 { Verdict::Held } else { Verdict::ClientLimit })
        });
        assert!(found.missed.is_some_and(|(_, verdict)| verdict == Verdict::ClientLimit));
    }

    #[test]
    fn what_was_found_survives_a_halt() {
        let mut probes = 0;
        let found = search(1_200.0, 100.0, |_, overloaded| {
            probes += 1;
            assert!(!overloaded);
            if probes > 4 { Err(Halt::Interrupted) } else { Ok(Verdict::Held) }
        });
        assert_eq!((found.held, found.halted), (Some(2_400.0), Some(Halt::Interrupted)));
    }

    #[test]
    fn a_probe_after_an_overload_is_told_so() {
        let mut told = Vec::new();
        let mut server = server(1_300.0);
        search(1_200.0, 100.0, |rate, overloaded| {
            told.push(overloaded);
            server(rate, overloaded)
        });
        assert_eq!(told[..5], [false, false, false, true, true]);
    }
}
