//! The doubts about a cell and about a whole run.

use record::{Measured, Results, Role};

use super::measure::{Rounds, measured, whole_life_switches};
use super::{BUSY, Figure, Figures, Inputs, KEPT_MIN, Limit};
use crate::doubt::Doubt;
use crate::statistics::{BlockRatio, MARGIN, median};

/// Above these shares a doubt is raised.
const LITTLE_MAX: f64 = 0.05;
const STEAL_MAX: f64 = 0.02;
const RUN_QUEUE_MAX: f64 = 0.05;
/// /proc/stat counts whole ticks and charges each to the process that runs then, so less is not
/// detectable.
const OTHER_LOAD_MAX: f64 = 0.10;
/// The first connections have no session to resume.
const OTHER_HANDSHAKES_MAX: f64 = 0.01;
/// A send lag of 1/5 of the latency changes the second digit of the percentile.
const SEND_LAG_MAX: f64 = 0.20;
/// The floor does less than any model, so a lead over it beyond noise needs an explanation.
const FLOOR_MARGIN: f64 = 0.03;
/// A rate within this share of the floor's is the maximum of client and machine.
const CEILING: f64 = 0.05;

/// The doubts about one cell. `tried`: its rounds, including failed and invalid ones. `spins`: the
/// share of a core that it uses without traffic, if it spins.
pub fn of_cell(
    inputs: &Inputs,
    figures: &Figures,
    rounds: &Rounds,
    tried: u32,
    spins: Option<f64>,
) -> Vec<Doubt> {
    let mut doubts = failures(inputs, figures, rounds, tried);
    doubts.extend(limits(figures, spins));
    doubts.extend(of_open_loop(figures));
    doubts.extend(of_tls(inputs, figures));
    doubts.extend(of_machine(inputs, figures, rounds));
    doubts
}

fn failures(inputs: &Inputs, figures: &Figures, rounds: &Rounds, tried: u32) -> Vec<Doubt> {
    let all = || rounds.values();
    let count = |raised: &dyn Fn(&Measured) -> bool| all().filter(|m| raised(m)).count() as u32;
    let mut doubts = Vec::new();
    let mut add = |amount: u64, doubt: Doubt| doubts.extend((amount > 0).then_some(doubt));
    let errors = all().map(|m| m.load.errors).sum();
    add(errors, Doubt::Errors(errors));
    let early = count(&|m| m.load.ended_early.is_some());
    add(early.into(), Doubt::EndedEarly(early));
    // A connection of an open loop may have no request in a window.
    let stuck = match figures.open {
        Some(_) => 0,
        None => all().map(|m| m.load.connections_without_progress).max().unwrap_or(0),
    };
    add(stuck.into(), Doubt::WithoutProgress(stuck, inputs.workload.connections));
    let overdue = all().map(|m| m.load.at_end.overdue).sum();
    add(overdue, Doubt::StoppedAnswering(overdue));
    let invalid = figures.invalid_rounds;
    // An open loop has its own doubt for this.
    if figures.open.is_none() {
        add(invalid.into(), Doubt::ClientStopped(invalid, tried));
    }
    let failed = tried.saturating_sub(rounds.len() as u32 + invalid);
    add(failed.into(), Doubt::FailedRounds(failed));
    let lost = all().map(|m| m.idle_connections_lost).max().unwrap_or(0);
    add(lost.into(), Doubt::IdleLost(lost));
    let bad = count(&|m| m.exit.code != Some(0) || m.exit.counters.is_none());
    add(bad.into(), Doubt::BadEnd(bad));
    let bounded = count(&|m| m.server.threads_changed > 0 && whole_life_switches(m).is_none());
    add(bounded.into(), Doubt::SwitchesLowerBound(bounded));
    let unlike = |m: &Measured| {
        m.server
            .congestion_control
            .as_ref()
            .is_some_and(|server| *server != m.load.congestion_control)
    };
    let unlike = count(&unlike);
    add(unlike.into(), Doubt::OtherCongestionControl(unlike));
    doubts
}

fn limits(figures: &Figures, spins: Option<f64>) -> Vec<Doubt> {
    let (server, client) = (figures.server_busy, figures.client_busy);
    let (rate, cpu) = (figures.to_floor(Figure::Rate), figures.to_floor(Figure::Server));
    let faster = rate.is_some_and(|ratio| ratio.interval.low > 1.0 + FLOOR_MARGIN);
    let cheaper = cpu.is_some_and(|ratio| ratio.interval.high < 1.0 / (1.0 + FLOOR_MARGIN));
    let ratio = |ratio: Option<&BlockRatio>| ratio.map_or(1.0, |ratio| ratio.ratio);
    let at_ceiling = figures.open.is_none() && !faster && rate.is_some();
    let at_ceiling = at_ceiling && ratio(rate) >= 1.0 - CEILING;
    let more = figures.doubled.as_ref().filter(|ratio| ratio.interval.low > 1.0 + MARGIN);
    [
        (figures.limit == Limit::Client).then_some(Doubt::ClientBound(client)),
        (figures.limit == Limit::Latency).then_some(Doubt::LatencyBound(server, client)),
        spins.map(Doubt::Spins),
        more.map(|ratio| Doubt::MoreWithTwice(ratio.ratio)),
        (faster || cheaper).then(|| Doubt::BeatsFloor(ratio(rate), ratio(cpu))),
        at_ceiling.then(|| Doubt::AtCeiling(ratio(rate))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_open_loop(figures: &Figures) -> Vec<Doubt> {
    let Some(open) = &figures.open else { return Vec::new() };
    let rounds = open.valid_rounds + open.invalid_rounds;
    let lag = open.send_lag_p99_us.zip(open.p99_us);
    let lag = lag.filter(|(lag, p99)| lag > &(SEND_LAG_MAX * p99)).map(|(lag, _)| lag);
    [
        (open.invalid_rounds > 0).then_some(Doubt::ClientBehind(open.invalid_rounds, rounds)),
        (open.answered_share < KEPT_MIN).then_some(Doubt::Overload(open.answered_share)),
        lag.map(Doubt::SendLag),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A server may refuse to resume a session, or resume where full handshakes are measured.
fn of_tls(inputs: &Inputs, figures: &Figures) -> Option<Doubt> {
    let resumed = figures.tls.as_ref()?.resumed_share()?;
    let other = if inputs.workload.tls_resume { 1.0 - resumed } else { resumed };
    let counts = inputs.workload.connect_per_request && other > OTHER_HANDSHAKES_MAX;
    counts.then_some(Doubt::OtherHandshakes(other))
}

fn of_machine(inputs: &Inputs, figures: &Figures, rounds: &Rounds) -> Vec<Doubt> {
    let middle = |figure: &dyn Fn(&Measured) -> f64| {
        median(&rounds.values().map(|m| figure(m)).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let mut doubts = Vec::new();
    let mut add = |raised: bool, doubt: Doubt| doubts.extend(raised.then_some(doubt));
    let little = middle(&little);
    // With stuck connections, which wait for ever, the law cannot hold inside a window; in an open
    // loop a request's time begins before it is on its way.
    let holds = figures.open.is_some()
        || rounds.values().any(|m| m.load.connections_without_progress > 0)
        || (little - 1.0).abs() <= LITTLE_MAX;
    add(!holds, Doubt::LittlesLaw(little));
    let queue = middle(&|m| m.server.run_queue_delay_us as f64 / 1e6 / m.load.duration_s);
    add(queue > RUN_QUEUE_MAX && figures.server_busy < BUSY, Doubt::RunQueue(queue));
    let cores = f64::from(inputs.results.environment.cores.max(1));
    let steal = middle(&|m| m.machine.steal_s / m.load.duration_s / cores);
    add(steal > STEAL_MAX, Doubt::Steal(steal));
    let other = middle(&|m| {
        let ours = (m.server.cpu_us + m.load.client_cpu_us) as f64 / 1e6;
        (m.machine.busy_s - ours) / m.load.duration_s / cores
    });
    add(other > OTHER_LOAD_MAX, Doubt::OtherLoad(other));
    doubts
}

/// Little's law, L = lambda x W (Operations Research 9, 1961): rate x mean latency, divided by the
/// mean number of requests in flight. The three are measured independently; the result should be 1.
fn little(measured: &Measured) -> f64 {
    let load = &measured.load;
    load.requests_per_s * load.latency.mean_us / 1e6 / load.mean_in_flight.max(1e-9)
}

/// The doubts about a whole run.
pub fn of_run(results: &Results) -> Vec<Doubt> {
    let counted = |trial: &record::Trial| {
        trial.slot.role == Role::Counting && measured(trial).is_some_and(|m| m.calls.is_some())
    };
    let none = !results.trials.iter().any(counted);
    none.then_some(Doubt::NotCounted).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarise;

    /// The queue M/M/1 in closed form: with 800 arrivals per second and a service time of 1 ms, L =
    /// rho / (1 - rho) = 4 and W = 1 / (mu - lambda) = 5 ms.
    #[test]
    fn littles_law_holds_for_a_queue_with_a_known_answer() {
        let mut measured = fixture::measured(800, 1.0, 0.1);
        (measured.load.mean_in_flight, measured.load.latency.mean_us) = (4.0, 5_000.0);
        assert!((little(&measured) - 1.0).abs() < 1e-12);
        // Measured from the send instead of the arrival, the wait of 4 ms is missing.
        measured.load.latency.mean_us = 1_000.0;
        assert!((little(&measured) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn a_client_that_miscounts_is_told_by_littles_law() {
        let doubted = |in_flight: f64| {
            let mut results = fixture::results();
            for trial in &mut results.trials {
                if let record::Outcome::Measured(measured) = &mut trial.outcome {
                    measured.load.mean_in_flight = in_flight;
                }
            }
            let summary = summarise(&results);
            let poll = summary.workloads[0].cells.iter().find(|cell| cell.model == "poll");
            let doubts = &poll.unwrap().state.as_ref().unwrap().doubts;
            doubts.iter().any(|doubt| matches!(doubt, Doubt::LittlesLaw(_)))
        };
        // 64 connections with one request each: a deviation of 4 % comes from the borders of the
        // window, 8 % does not.
        assert!(!doubted(64.0) && !doubted(61.5) && doubted(59.0));
    }
}
