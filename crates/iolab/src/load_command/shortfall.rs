//! What a run did not achieve: a sentence each, and then it is no success.

use record::LoadOutcome;

use super::table::time;
use crate::text::thousands;

/// Why these figures are not what was asked for; empty after a run that is good.
pub(super) fn of(outcome: &LoadOutcome) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(why) = &outcome.invalid {
        all.push(format!("this run says nothing about the server: {why}"));
    }
    if outcome.requests == 0 && outcome.errors == 0 {
        all.push(format!(
            "{} answered nothing in {:.1} s, and broke no connection: is it stuck, or is the \
             window shorter than a reply takes (--duration)?",
            outcome.url, outcome.duration_s
        ));
    }
    all.extend(unanswered(outcome));
    let starved = outcome.connections_without_progress;
    if starved > 0 && outcome.requests > 0 {
        all.push(format!(
            "{starved} of {} connections completed nothing while the others were served: the \
             figures are those of the others (does the server serve so many at once? compare with \
             fewer, -c, or with a connection per request, --reconnect)",
            outcome.connections
        ));
    }
    let (open, asked) = (outcome.idle_connections, outcome.idle_connections_asked);
    if open < asked {
        all.push(format!(
            "only {open} of {asked} silent connections were still open at the end: look at the \
             server's idle time-out and at its limit of connections"
        ));
    }
    all
}

/// Requests that a run has sent, or should have, and that were not answered.
fn unanswered(outcome: &LoadOutcome) -> Option<String> {
    let count = |count: u64| thousands(count as f64);
    if let Some(open) = outcome.open_loop.as_ref().filter(|open| open.unanswered > 0) {
        let (unanswered, due) = (count(open.unanswered), count(open.due));
        return Some(format!(
            "{unanswered} of {due} requests that fell due were never answered, and are in the \
             latency with their age: the server cannot hold this rate, or has stopped answering \
             (offer a lower one; --find-rate finds the highest)"
        ));
    }
    let end = &outcome.at_end;
    (end.overdue > 0).then(|| {
        let (overdue, oldest) = (count(end.overdue), time(end.oldest_unanswered_us));
        format!(
            "the server has stopped answering: {overdue} requests were on their way when the run \
             ended, the oldest for {oldest}, longer than any that was answered; they are in the \
             latency with their age (look at the server: is it stuck, or out of workers?)"
        )
    })
}

/// Rate x mean latency is the mean number of requests on their way (Little's law), but for those
/// that a window's borders cut. Where it is not, part of them was not answered in the window.
pub(super) fn little(outcome: &LoadOutcome) -> Option<String> {
    /// What is not exact about either: the histogram's steps, and the borders of a long window.
    const TOLERANCE: f64 = 0.1;
    let answered = outcome.requests_per_s * outcome.latency.mean_us / 1e6;
    let seen = outcome.mean_in_flight;
    // Each border cuts what is on its way there: half of what it takes, on average.
    let at_borders = 2.0 * seen / outcome.requests.max(1) as f64;
    let off = (answered - seen).abs() / seen.max(1e-9);
    let counts = outcome.requests > 0 && outcome.open_loop.is_none();
    (counts && off > TOLERANCE + at_borders).then(|| {
        format!(
            "rate x mean latency is {answered:.1} requests, and {seen:.1} were on their way on \
             average (Little's law): believe neither before you know why"
        )
    })
}

/// What the client was late by, where it is a large part of a percentile: on a shared machine that
/// is no reason to throw the run away, and one to read its percentiles with care.
pub(super) fn late(outcome: &LoadOutcome) -> Option<String> {
    /// Less than this part is lost in what percentiles differ by from run to run.
    const SHARE: f64 = 0.2;
    let open = outcome.open_loop.as_ref().filter(|open| open.invalid.is_none())?;
    let (lag_us, p99_us) = open.send_lag.p99_us.zip(outcome.latency.p99_us)?;
    (lag_us > SHARE * p99_us).then(|| {
        format!(
            "the p99 of the client's own send lag is {} of a p99 of {}: the machine is shared, and \
             percentiles below a few times that lag are its own",
            time(lag_us),
            time(p99_us)
        )
    })
}

#[cfg(test)]
mod tests {
    use record::{AtEnd, Latency, OpenLoop};

    use super::*;

    fn good() -> LoadOutcome {
        LoadOutcome {
            requests: 1_000,
            requests_per_s: 1_000.0,
            connections: 64,
            mean_in_flight: 10.0,
            latency: Latency { mean_us: 10_000.0, ..Latency::default() },
            ..LoadOutcome::default()
        }
    }

    #[test]
    fn a_good_run_falls_short_of_nothing() {
        assert_eq!((of(&good()), little(&good())), (Vec::new(), None));
        // Some on their way at the end, as always.
        let at_end = AtEnd { in_flight: 10, unanswered: 3, ..AtEnd::default() };
        assert!(of(&LoadOutcome { at_end, ..good() }).is_empty());
    }

    #[test]
    fn each_way_to_achieve_little_has_its_sentence() {
        let open = OpenLoop { due: 100, unanswered: 99, ..OpenLoop::default() };
        let at_end = AtEnd { overdue: 10, oldest_unanswered_us: 2.4e6, ..AtEnd::default() };
        for (outcome, part) in [
            (LoadOutcome { invalid: Some("stopped".into()), ..good() }, "says nothing"),
            (LoadOutcome { requests: 0, ..good() }, "answered nothing"),
            (LoadOutcome { open_loop: Some(open), ..good() }, "99 of 100 requests that fell due"),
            (LoadOutcome { at_end, ..good() }, "the oldest for 2.40 s"),
            (LoadOutcome { connections_without_progress: 54, ..good() }, "54 of 64 connections"),
            (LoadOutcome { idle_connections_asked: 2, ..good() }, "only 0 of 2 silent"),
        ] {
            let all = of(&outcome);
            assert!(all.len() == 1 && all.iter().all(|why| why.contains(part)), "{all:?}");
        }
    }

    #[test]
    fn a_client_that_was_late_is_doubted() {
        let of = |lag_us| {
            let lag = Latency { p99_us: Some(lag_us), ..Latency::default() };
            let latency = Latency { p99_us: Some(10_000.0), ..Latency::default() };
            let open_loop = Some(OpenLoop { send_lag: lag, ..OpenLoop::default() });
            late(&LoadOutcome { open_loop, latency, ..good() })
        };
        assert_eq!(of(1_900.0), None);
        assert!(of(3_000.0).is_some_and(|text| text.contains("3.00 ms of a p99 of 10.00 ms")));
    }

    #[test]
    fn what_is_on_its_way_must_be_what_was_answered() {
        let hung = LoadOutcome { mean_in_flight: 50.0, ..good() };
        assert!(little(&hung).is_some_and(|text| text.contains("10.0 requests, and 50.0")));
        let few = LoadOutcome { requests: 4, mean_in_flight: 13.0, ..good() };
        assert_eq!(little(&few), None, "four replies say nothing");
    }
}
