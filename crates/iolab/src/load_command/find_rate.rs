//! `iolab load --find-rate`: finds the highest rate within a latency limit, and prints the probes.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::{Attribute, Cell, CellAlignment, Color};
use load::{Length, Live, Plan, Silent};
use record::{Latency, LoadOutcome};
use serde::Serialize;

use super::arguments::{Budget, LoadArguments};
use super::live::{Display, INTERRUPTED};
use super::search::{Found, Halt, ProbeResult, SEARCH_LIMIT, check_time, search};
use super::{table, tell};
use render::grid;
use render::text::{self, figure, thousands};

/// Samples above a percentile that make it reliable: the 10 that the load generator requires, and
/// 20 % more because Poisson arrivals vary.
const SAMPLES_BEYOND: f64 = 12.0;
/// The longest probe: low rates need long probes for enough samples.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// The lowest first rate. The number of samples alone would begin a search for a median at 24
/// requests/s, which wastes probes.
const START_MIN: f64 = 1_000.0;
/// Shortest warm-up after an overload: the server may still be busy with requests of the last
/// probe.
const RECOVERY: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Probe {
    rate_per_s: f64,
    verdict: ProbeResult,
    why: String,
    outcome: LoadOutcome,
}

#[derive(Serialize)]
struct Report<'a> {
    url: &'a str,
    /// The percentile that is limited, as a fraction.
    quantile: f64,
    latency_us: f64,
    /// The highest rate within the limit, in requests/s.
    rate_per_s: Option<f64>,
    /// The lowest rate that was not, in requests/s.
    missed_rate_per_s: Option<f64>,
    /// Why it was not.
    missed_by: Option<ProbeResult>,
    ended_early: Option<String>,
    /// With --link: what the link did before the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a link::Accuracy>,
    probes: &'a [Probe],
}

pub(super) fn run(
    arguments: &LoadArguments,
    plan: &Plan,
    budget: Budget,
    live: &Arc<Live>,
) -> Result<ExitCode, Box<dyn Error>> {
    plan.check()?;
    let quantile = f64::from(budget.per_mille) / 1e3;
    let samples = SAMPLES_BEYOND / (1.0 - quantile);
    let Length::Window(window) = plan.length else {
        return Err("--find-rate probes for a time, not for a number of requests".into());
    };
    let start = (samples / window.as_secs_f64().max(1e-3)).max(START_MIN);
    let floor = (samples / PROBE_MAX.max(window).as_secs_f64()).min(start);
    let since = Instant::now();
    let mut probes = Vec::new();
    let found = search(start, floor, |rate, overloaded| {
        check_time(since)?;
        let mut plan = plan.clone();
        plan.pace = arguments.open(rate);
        plan.length = Length::Window(window.max(Duration::from_secs_f64(samples / rate)));
        if overloaded {
            plan.warmup = plan.warmup.max(RECOVERY);
        }
        let outcome = one(&plan, live, !arguments.json)?;
        let (verdict, why) = judge(&outcome, budget);
        let at = probes.len() + 1;
        eprintln!("probe {at:2}: {:>9}/s  {}", thousands(rate), described(verdict, &why));
        probes.push(Probe { rate_per_s: rate, verdict, why, outcome });
        Ok(verdict)
    });
    if let (Some(Halt::Failed(why)), true) = (&found.halted, probes.is_empty()) {
        return Err(why.clone().into());
    }
    let text = if arguments.json {
        let (url, latency_us) = (plan.target.url.as_str(), budget.limit.as_secs_f64() * 1e6);
        serde_json::to_string(&Report {
            url,
            quantile,
            latency_us,
            rate_per_s: found.held,
            missed_rate_per_s: found.missed.map(|(rate, _)| rate),
            missed_by: found.missed.map(|(_, verdict)| verdict),
            ended_early: found.halted.as_ref().map(reason),
            link: arguments.over.accuracy.as_ref(),
            probes: &probes,
        })?
    } else {
        format!("{}\n{}", rows(&probes, budget, &plan.target.url), conclusion(&found, budget))
    };
    tell(&text)?;
    Ok(match (&found.halted, found.held) {
        (Some(Halt::Interrupted), _) => ExitCode::from(INTERRUPTED),
        (Some(Halt::Failed(_)), _) | (_, None) => ExitCode::FAILURE,
        (_, Some(_)) => ExitCode::SUCCESS,
    })
}

fn one(plan: &Plan, live: &Arc<Live>, show: bool) -> Result<LoadOutcome, Halt> {
    let display = Display::start(live, show);
    let outcome = load::run_live(plan, &mut Silent, live);
    drop(display);
    match outcome {
        // A shortened window is not a valid probe.
        _ if live.is_stopped() => Err(Halt::Interrupted),
        Ok(LoadOutcome { ended_early: Some(why), .. }) => Err(Halt::Failed(why)),
        Ok(outcome) => Ok(outcome),
        Err(error) => Err(Halt::Failed(error.to_string())),
    }
}

/// The limited percentile; `None` with too few samples.
fn percentile(latency: &Latency, budget: Budget) -> Option<f64> {
    match budget.per_mille {
        500 => Some(latency.p50_us).filter(|_| latency.samples > 0),
        990 => latency.p99_us,
        _ => latency.p999_us,
    }
}

fn name(budget: Budget) -> &'static str {
    match budget.per_mille {
        500 => "p50",
        990 => "p99",
        _ => "p99.9",
    }
}

/// Whether the probe was within the limit, and why.
fn judge(outcome: &LoadOutcome, budget: Budget) -> (ProbeResult, String) {
    let invalid = outcome.open_loop.as_ref().and_then(|open| open.invalid.as_ref());
    let missed = if invalid.is_some() { ProbeResult::ClientLimit } else { ProbeResult::Missed };
    if outcome.errors + outcome.errors_in_warmup > 0 {
        let first = outcome.first_error.as_deref().unwrap_or("during warm-up");
        let errors = outcome.errors + outcome.errors_in_warmup;
        return (ProbeResult::Missed, format!("{} ({first})", text::count(errors, "error")));
    }
    let Some(us) = percentile(&outcome.latency, budget) else {
        let samples = outcome.latency.samples;
        return (missed, format!("{samples} samples are too few for a {}", name(budget)));
    };
    let text = format!("{} {}", name(budget), table::time(us));
    match (us <= budget.limit.as_secs_f64() * 1e6, invalid) {
        (true, _) => (ProbeResult::Held, text),
        (false, None) => (missed, text),
        (false, Some(_)) => (missed, format!("{text}, with a send lag of {}", lag(outcome))),
    }
}

/// The p99 of the send lag, or its maximum if there are too few samples for a p99.
fn lag(outcome: &LoadOutcome) -> String {
    let lag = outcome.open_loop.as_ref().map(|open| &open.send_lag);
    match lag.map(|lag| (lag.p99_us, lag.max_us)) {
        Some((Some(p99_us), _)) => table::time(p99_us),
        Some((None, max_us)) => format!("<= {}", table::time(max_us)),
        None => "n/a".to_owned(),
    }
}

fn described(verdict: ProbeResult, why: &str) -> String {
    match verdict {
        ProbeResult::Held => format!("within the limit: {why}"),
        ProbeResult::Missed => format!("above the limit: {why}"),
        ProbeResult::ClientLimit => format!("client too slow: {why}"),
    }
}

fn reason(halt: &Halt) -> String {
    match halt {
        Halt::Time => format!("its time limit of {} s was reached", SEARCH_LIMIT.as_secs()),
        Halt::Interrupted => "stopped".to_owned(),
        Halt::Failed(why) => why.clone(),
    }
}

fn rows(probes: &[Probe], budget: Budget, url: &str) -> String {
    let mut table = table::empty();
    let other = if name(budget) == "p50" { "p90" } else { "p50" };
    let heads = ["rate/s", "answered/s", other, name(budget), "send lag p99", "verdict"];
    table.set_header(heads.map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
    for probe in probes {
        let outcome = &probe.outcome;
        let shown = |us: Option<f64>| us.map_or_else(|| "n/a".to_owned(), table::time);
        let (verdict, colour) = match probe.verdict {
            ProbeResult::Held => ("within limit".to_owned(), Color::Green),
            ProbeResult::Missed if outcome.errors > 0 => (probe.why.clone(), Color::Red),
            ProbeResult::Missed => ("above limit".to_owned(), Color::Red),
            ProbeResult::ClientLimit => ("client too slow".to_owned(), Color::Yellow),
        };
        table.add_row([
            Cell::new(figure(probe.rate_per_s)),
            Cell::new(figure(outcome.requests_per_s)),
            Cell::new(table::time(match other {
                "p90" => outcome.latency.p90_us,
                _ => outcome.latency.p50_us,
            })),
            Cell::new(shown(percentile(&outcome.latency, budget))),
            Cell::new(lag(outcome)),
            Cell::new(verdict).fg(colour),
        ]);
    }
    for column in 0..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid::fit(&mut table, text::columns());
    format!("{url}\n{table}")
}

fn conclusion(found: &Found, budget: Budget) -> String {
    let limit = table::time(budget.limit.as_secs_f64() * 1e6);
    let wanted = format!("{} <= {limit}", name(budget));
    let mut text = match (found.held, found.missed) {
        (Some(held), Some((missed, ProbeResult::ClientLimit))) => format!(
            "At least {} requests/s with {wanted}. At {} the client was the limit, not the \
             server:\ngive it a core of its own (--core) or more threads (--threads).",
            thousands(held),
            thousands(missed)
        ),
        (Some(held), Some((missed, _))) => format!(
            "{} requests/s with {wanted}; at {} the latency was above the limit.",
            thousands(held),
            thousands(missed)
        ),
        (Some(held), None) => {
            format!("At least {} requests/s with {wanted}.", thousands(held))
        }
        (None, _) => format!("No rate was found with {wanted}."),
    };
    if let Some(halt) = &found.halted {
        text.push_str(&format!("\nThe search ended early: {}.", reason(halt)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::OpenLoop;

    const BUDGET: Budget = Budget { per_mille: 990, limit: Duration::from_millis(5) };

    fn outcome(p99_us: Option<f64>, invalid: bool) -> LoadOutcome {
        let invalid = invalid.then(|| "the client fell behind".to_owned());
        LoadOutcome {
            latency: Latency { samples: 2_000, p99_us, ..Latency::default() },
            open_loop: Some(OpenLoop { invalid, ..OpenLoop::default() }),
            ..LoadOutcome::default()
        }
    }

    #[test]
    fn a_probe_is_judged_by_its_percentile_and_by_the_cause() {
        let verdict = |outcome: &LoadOutcome| judge(outcome, BUDGET).0;
        assert_eq!(verdict(&outcome(Some(4_999.0), false)), ProbeResult::Held);
        assert_eq!(verdict(&outcome(Some(4_999.0), true)), ProbeResult::Held);
        assert_eq!(verdict(&outcome(Some(5_001.0), false)), ProbeResult::Missed);
        assert_eq!(verdict(&outcome(Some(5_001.0), true)), ProbeResult::ClientLimit);
        assert_eq!(verdict(&outcome(None, false)), ProbeResult::Missed);
        let wrong = LoadOutcome { errors: 1, ..outcome(Some(1.0), false) };
        assert_eq!(verdict(&wrong), ProbeResult::Missed);
    }

    #[test]
    fn the_conclusion_names_the_limit() {
        let found = |verdict| Found {
            held: Some(60_000.0),
            missed: Some((62_000.0, verdict)),
            halted: Some(Halt::Time),
        };
        let text = conclusion(&found(ProbeResult::Missed), BUDGET);
        assert!(text.starts_with("60,000 requests/s with p99 <= 5.00 ms; at 62,000"), "{text}");
        assert!(text.contains("time limit of 120 s"), "{text}");
        let text = conclusion(&found(ProbeResult::ClientLimit), BUDGET);
        assert!(text.contains("At least 60,000") && text.contains("client was the limit"));
        let text = conclusion(&Found::default(), BUDGET);
        assert!(text.starts_with("No rate was found"), "{text}");
    }

    #[test]
    fn the_table_is_at_most_100_columns_wide() {
        let mut outcome = outcome(Some(123_456.7), true);
        outcome.errors = 3;
        let why = "3 errors (byte 1 of the body is 0x00, expected 0x01)".repeat(3);
        let probe = Probe { rate_per_s: 1_234_567.8, verdict: ProbeResult::Missed, why, outcome };
        let text = rows(&[probe], BUDGET, "http://127.0.0.1:8080/");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
