//! The search for the highest rate within a latency limit, by probes of an open loop.
//!
//! The rate doubles from a low one until the latency is above the limit. Then the interval is
//! bisected (geometrically) down to a few percent. At each rate two of three probes decide, so that
//! one disturbance of the machine does not. A probe within the limit counts even if the client was
//! late, because the delay is part of the latency. A probe above the limit because of the client
//! says nothing about the server and is repeated. After three of these at one rate the client
//! counts as the limit.

use std::time::{Duration, Instant};

use serde::Serialize;

/// The rate grows by this factor until it is missed.
const GROWTH: f64 = 2.0;
/// And shrinks by this factor if the first rate is too high.
const RETREAT: f64 = 4.0;
/// Ratio of the two rates at which the search ends: on a quiet machine such a figure repeats to
/// about 4 %.
const PRECISION: f64 = 1.04;
/// Time limit of all probes together.
pub(super) const SEARCH_LIMIT: Duration = Duration::from_secs(120);
/// More than one client process can send, in requests/s.
const RATE_MAX: f64 = 5_000_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProbeResult {
    /// The latency was within the limit.
    Held,
    /// It was above the limit.
    Missed,
    /// It was above the limit, and the client was too slow: the server may be faster.
    ClientLimit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Halt {
    /// The time limit was reached.
    Time,
    Interrupted,
    Failed(String),
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) held: Option<f64>,
    /// The lowest rate above the limit, and why.
    pub(super) missed: Option<(f64, ProbeResult)>,
    pub(super) halted: Option<Halt>,
}

/// Searches from `start`, but not below `floor`. `probe` runs one probe of a rate. Its second
/// argument says whether the previous probe overloaded the server.
pub(super) fn search(
    start: f64,
    floor: f64,
    mut probe: impl FnMut(f64, bool) -> Result<ProbeResult, Halt>,
) -> Found {
    let mut found = Found::default();
    let mut rate = start;
    let mut overloaded = false;
    loop {
        match decide(rate, &mut overloaded, &mut probe) {
            Ok(ProbeResult::Held) => found.held = Some(rate),
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

/// Probes of one rate in which the client was too slow, before it counts as the limit.
const CLIENT_LIMITS_MAX: u32 = 3;

/// Decides a rate by two of three probes, not counting those in which the client was too slow.
fn decide(
    rate: f64,
    overloaded: &mut bool,
    probe: &mut impl FnMut(f64, bool) -> Result<ProbeResult, Halt>,
) -> Result<ProbeResult, Halt> {
    let (mut held, mut missed, mut late) = (0, 0, 0);
    loop {
        let verdict = probe(rate, *overloaded)?;
        *overloaded = verdict != ProbeResult::Held;
        let (votes, needed) = match verdict {
            ProbeResult::Held => (&mut held, 2),
            ProbeResult::Missed => (&mut missed, 2),
            ProbeResult::ClientLimit => (&mut late, CLIENT_LIMITS_MAX),
        };
        *votes += 1;
        if *votes == needed {
            return Ok(verdict);
        }
    }
}

pub(super) fn check_time(since: Instant) -> Result<(), Halt> {
    if since.elapsed() > SEARCH_LIMIT { Err(Halt::Time) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that is within the limit up to the rate `limit`.
    fn server(limit: f64) -> impl FnMut(f64, bool) -> Result<ProbeResult, Halt> {
        move |rate, _| Ok(if rate <= limit { ProbeResult::Held } else { ProbeResult::Missed })
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
        assert_eq!((found.held, found.missed), (None, Some((100.0, ProbeResult::Missed))));
        let mut probes = 0;
        let found = search(1_200.0, 100.0, |_, _| {
            probes += 1;
            Ok(ProbeResult::Held)
        });
        assert!(found.held.is_some_and(|rate| rate > 1e6) && found.missed.is_none() && probes > 20);
    }

    #[test]
    fn one_bad_probe_of_three_does_not_decide() {
        let mut probes = 0;
        let mut server = server(20_000.0);
        // Every third probe is bad.
        let found = search(1_200.0, 100.0, |rate, overloaded| {
            probes += 1;
            if probes % 3 == 1 { Ok(ProbeResult::Missed) } else { server(rate, overloaded) }
        });
        assert!(found.held.is_some_and(|rate| rate > 19_000.0), "{found:?}");
    }

    #[test]
    fn the_client_is_named_when_it_is_the_limit() {
        let found = search(1_200.0, 100.0, |rate, _| {
            Ok(if rate <= 9_000.0 { ProbeResult::Held } else { ProbeResult::ClientLimit })
        });
        assert!(found.missed.is_some_and(|(_, verdict)| verdict == ProbeResult::ClientLimit));
    }

    #[test]
    fn what_the_client_spoilt_is_repeated() {
        let mut probes = 0;
        let mut server = server(20_000.0);
        let found = search(1_200.0, 100.0, |rate, overloaded| {
            probes += 1;
            if probes % 2 == 1 { Ok(ProbeResult::ClientLimit) } else { server(rate, overloaded) }
        });
        assert!(found.held.is_some_and(|rate| rate > 19_000.0), "{found:?}");
        assert!(
            found.missed.is_some_and(|(_, verdict)| verdict == ProbeResult::Missed),
            "{found:?}"
        );
    }

    #[test]
    fn what_was_found_survives_a_halt() {
        let mut probes = 0;
        let found = search(1_200.0, 100.0, |_, overloaded| {
            probes += 1;
            assert!(!overloaded);
            if probes > 4 { Err(Halt::Interrupted) } else { Ok(ProbeResult::Held) }
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
