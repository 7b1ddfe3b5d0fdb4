//! Reasons why a run is not a success, one sentence each.

use record::LoadOutcome;

use super::table::time;
use render::text::thousands;

/// Empty for a good run.
pub(super) fn of(outcome: &LoadOutcome) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(why) = &outcome.invalid {
        all.push(format!("this run says nothing about the server: {why}"));
    }
    if outcome.requests == 0 && outcome.errors == 0 {
        all.push(format!(
            "{} sent no reply in {:.1} s and closed no connection: is it stuck, or is the \
             window shorter than a reply takes (--duration)?",
            outcome.url, outcome.duration_s
        ));
    }
    all.extend(unanswered(outcome));
    let starved = outcome.connections_without_progress;
    if starved > 0 && outcome.requests > 0 {
        all.push(format!(
            "{starved} of {} connections completed no request while others were served, so the \
             figures are those of the others (the server may serve fewer connections at once: use \
             fewer with -c, or a connection per request with --reconnect)",
            outcome.connections
        ));
    }
    let (open, asked) = (outcome.idle_connections, outcome.idle_connections_asked);
    if open < asked {
        all.push(format!(
            "only {open} of {asked} idle connections were still open at the end: check the \
             server's idle timeout and its limit of connections"
        ));
    }
    all
}

fn unanswered(outcome: &LoadOutcome) -> Option<String> {
    let count = |count: u64| thousands(count as f64);
    if let Some(open) = outcome.open_loop.as_ref().filter(|open| open.unanswered > 0) {
        let (unanswered, due) = (count(open.unanswered), count(open.due));
        return Some(format!(
            "{unanswered} of {due} due requests were never answered, and count in the \
             latency with their age: the server cannot sustain this rate, or has stopped answering \
             (use a lower --rate; --find-rate finds the highest)"
        ));
    }
    let end = &outcome.at_end;
    (end.overdue > 0).then(|| {
        let (overdue, oldest) = (count(end.overdue), time(end.oldest_unanswered_us));
        format!(
            "the server has stopped answering: {overdue} requests were in flight when the run \
             ended, the oldest for {oldest}, longer than any answered request; they count in the \
             latency with their age (is the server stuck, or are all its workers busy?)"
        )
    })
}

/// Checks Little's law: rate x mean latency is the mean number of requests in flight, except for
/// requests that the window's borders cut. If it does not hold, some requests were not answered in
/// the window.
pub(super) fn little(outcome: &LoadOutcome) -> Option<String> {
    /// Inexactness of both figures: steps of the histogram, borders of a long window.
    const TOLERANCE: f64 = 0.1;
    let answered = outcome.requests_per_s * outcome.latency.mean_us / 1e6;
    let seen = outcome.mean_in_flight;
    // At each border the requests in flight count with half of their latency, on average.
    let at_borders = 2.0 * seen / outcome.requests.max(1) as f64;
    let off = (answered - seen).abs() / seen.max(1e-9);
    let counts = outcome.requests > 0 && outcome.open_loop.is_none();
    (counts && off > TOLERANCE + at_borders).then(|| {
        format!(
            "rate x mean latency is {answered:.1} requests, but {seen:.1} were in flight on \
             average; by Little's law these must be equal, so one of the figures is wrong"
        )
    })
}

/// Warns if the client's send lag is a large part of a percentile. On a shared machine the run is
/// still valid, but its percentiles are less reliable.
pub(super) fn late(outcome: &LoadOutcome) -> Option<String> {
    /// A smaller part is less than the variation of a percentile between runs.
    const SHARE: f64 = 0.2;
    let open = outcome.open_loop.as_ref().filter(|open| open.invalid.is_none())?;
    let (lag_us, p99_us) = open.send_lag.p99_us.zip(outcome.latency.p99_us)?;
    (lag_us > SHARE * p99_us).then(|| {
        format!(
            "the p99 of the client's send lag is {} of a p99 of {}: other processes use the \
             machine, and percentiles below a few times that lag come from the client",
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
        // Some requests are always in flight at the end.
        let at_end = AtEnd { in_flight: 10, unanswered: 3, ..AtEnd::default() };
        assert!(of(&LoadOutcome { at_end, ..good() }).is_empty());
    }

    #[test]
    fn each_way_to_achieve_little_has_its_sentence() {
        let open = OpenLoop { due: 100, unanswered: 99, ..OpenLoop::default() };
        let at_end = AtEnd { overdue: 10, oldest_unanswered_us: 2.4e6, ..AtEnd::default() };
        for (outcome, part) in [
            (LoadOutcome { invalid: Some("stopped".into()), ..good() }, "says nothing"),
            (LoadOutcome { requests: 0, ..good() }, "sent no reply"),
            (LoadOutcome { open_loop: Some(open), ..good() }, "99 of 100 due requests"),
            (LoadOutcome { at_end, ..good() }, "the oldest for 2.40 s"),
            (LoadOutcome { connections_without_progress: 54, ..good() }, "54 of 64 connections"),
            (LoadOutcome { idle_connections_asked: 2, ..good() }, "only 0 of 2 idle"),
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
        assert!(little(&hung).is_some_and(|text| text.contains("10.0 requests, but 50.0")));
        let few = LoadOutcome { requests: 4, mean_in_flight: 13.0, ..good() };
        assert_eq!(little(&few), None, "four replies say nothing");
    }
}
