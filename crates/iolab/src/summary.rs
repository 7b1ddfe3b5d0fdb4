//! From raw trials to what is printed: one cell per workload and model, with verdict and doubts.
//! Pure functions of a result file.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use record::{IdleSample, Measured, Model, Outcome, Preset, Results, Role, Trial, Workload};

use crate::doubt::Doubt;
use crate::statistics::{Estimate, differs, estimate, median, paired_ratio, tied_ranks};

/// From this share of its window on, a side counts as busy. The rest is the price of sleeping and
/// waking between batches, which a saturated side still pays.
pub const BUSY: f64 = 0.90;

/// Smallest difference that is ever called one: placement and alignment alone move figures by that.
const THRESHOLD_MIN: f64 = 0.03;

/// Fewest rounds that are ranked: with fewer, the bootstrap interval is the range of a few values.
pub const ROUNDS_MIN: u32 = 6;

/// A percentile is printed with at least so many samples beyond it.
const SAMPLES_BEYOND_MIN: u64 = 10;

/// Size of a kernel stack on x86-64 and arm64 (THREAD_SIZE), in KiB: not in any process's Pss.
const KERNEL_STACK_KIB: f64 = 16.0;

/// Above these shares the matching doubt is raised.
const SPREAD_MAX: f64 = 0.10;
const LITTLE_MAX: f64 = 0.05;
const STEAL_MAX: f64 = 0.02;
const RUN_QUEUE_MAX: f64 = 0.05;
/// /proc/stat counts whole ticks, and charges a tick to whom it meets: less than this is not seen.
const OTHER_LOAD_MAX: f64 = 0.10;
/// An idle server above this share of a core does not sleep. Those that sleep stay below 2 %; one
/// that spins may get less than the whole core when others want it too.
const SPINS_MIN: f64 = 0.50;

/// Everything that the renderers need.
#[derive(Debug)]
pub struct Summary {
    /// One per workload, in the order of the file.
    pub workloads: Vec<WorkloadSummary>,
    /// What connections cost while nothing happens, per model label.
    pub costs: BTreeMap<String, Cost>,
}

/// One workload: a table.
#[derive(Debug)]
pub struct WorkloadSummary {
    /// The workload.
    pub workload: Workload,
    /// One per model, in the order of the file.
    pub cells: Vec<Cell>,
    /// The A/A comparison: ratio of the reference to itself.
    pub sentinel: Option<Estimate>,
    /// The smallest difference that is called one: 3 % or the sentinel's spread.
    pub threshold: f64,
    /// Why nothing is ranked; `None` when the ranks stand.
    pub unranked: Option<String>,
}

/// One model under one workload.
#[derive(Debug)]
pub struct Cell {
    /// Label of the model.
    pub model: String,
    /// What was measured, or why nothing was.
    pub state: Result<Box<Figures>, String>,
}

/// Who was the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The server was busy, the client was not: the rate is the server's capacity.
    Server,
    /// The client was busy, the server was not: the server could do more.
    Client,
    /// Both were busy.
    Both,
    /// Neither: the rate shows waiting.
    Latency,
}

impl Limit {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Server => "server-bound",
            Limit::Client => "client-bound",
            Limit::Both => "both-bound",
            Limit::Latency => "latency-bound",
        }
    }
}

/// The figures of one cell, over its rounds.
#[derive(Debug)]
pub struct Figures {
    /// Requests per second.
    pub rate: Estimate,
    /// Server CPU per request, in microseconds.
    pub server_us: Estimate,
    /// Client CPU per request, in microseconds.
    pub client_us: Estimate,
    /// Context switches of the server per request.
    pub switches: f64,
    /// Median latency of all rounds merged, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of all rounds merged; `None` with too few samples.
    pub p99_us: Option<f64>,
    /// Share of its cores that the server used.
    pub server_busy: f64,
    /// Share of its core that the client used.
    pub client_busy: f64,
    /// Who was the limit.
    pub limit: Limit,
    /// Rate relative to the reference, paired by round.
    pub rate_ratio: Option<Estimate>,
    /// Server CPU per request relative to the reference, paired by round.
    pub cpu_ratio: Option<Estimate>,
    /// Best and worst place that the intervals leave open; `None` = not ranked.
    pub rank: Option<(usize, usize)>,
    /// The first thing that went wrong in any round, in words.
    pub first_error: Option<String>,
    /// What weakens these figures.
    pub doubts: Vec<Doubt>,
}

impl Figures {
    /// Connections that completed nothing, and of how many; `None` when all made progress.
    pub fn stuck(&self) -> Option<(u32, u32)> {
        self.doubts.iter().find_map(|doubt| match doubt {
            Doubt::WithoutProgress(stuck, of) => Some((*stuck, *of)),
            _ => None,
        })
    }
}

/// What connections cost a model while nothing happens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Connections behind `own_kib` and `kernel_stacks_kib`.
    pub connections: u32,
    /// Pss and page tables per connection, in KiB.
    pub own_kib: f64,
    /// Kernel stacks of threads per connection, in KiB.
    pub kernel_stacks_kib: f64,
    /// CPU with connections open and no traffic, as a share of one core.
    pub idle_busy: f64,
}

/// Summarises a result file.
pub fn summarise(results: &Results) -> Summary {
    let costs: BTreeMap<String, Cost> = results
        .models
        .iter()
        .filter_map(|model| Some((model.label.clone(), cost(results, &model.label)?)))
        .collect();
    let one = |workload| summarise_workload(results, workload, &costs);
    Summary { workloads: results.workloads.iter().map(one).collect(), costs }
}

fn trials<'a>(
    results: &'a Results,
    workload: &str,
    model: &str,
    role: Role,
) -> std::vec::IntoIter<&'a Trial> {
    let wanted = |trial: &&Trial| {
        let slot = &trial.slot;
        slot.workload == workload && slot.model == model && slot.role == role
    };
    results.trials.iter().filter(wanted).collect::<Vec<_>>().into_iter()
}

/// Round -> measured, leaving failures out.
fn rounds<'a>(trials: impl Iterator<Item = &'a Trial>) -> BTreeMap<u32, &'a Measured> {
    trials
        .filter_map(|trial| match &trial.outcome {
            Outcome::Measured(measured) => Some((trial.slot.round, &**measured)),
            Outcome::Failed { .. } => None,
        })
        .collect()
}

fn summarise_workload(
    results: &Results,
    workload: &Workload,
    costs: &BTreeMap<String, Cost>,
) -> WorkloadSummary {
    let by_round = |model: &str, role| rounds(trials(results, &workload.name, model, role));
    let reference = by_round(&results.reference, Role::Timed);
    let seed = results.settings.seed;
    let sentinel = ratio(&by_round(&results.reference, Role::Sentinel), &reference, rate, seed);
    let spread = sentinel.and_then(|s| s.interval).map_or(0.0, |i| (i.high - 1.0).max(1.0 - i.low));
    let cell = |model: &Model| Cell {
        model: model.label.clone(),
        state: figures(results, workload, &model.label, &reference, costs).map(Box::new),
    };
    let mut summary = WorkloadSummary {
        workload: workload.clone(),
        cells: results.models.iter().map(cell).collect(),
        sentinel,
        threshold: spread.max(THRESHOLD_MIN),
        unranked: unranked(results, sentinel),
    };
    if summary.unranked.is_none() {
        rank(results, &mut summary);
    }
    summary
}

fn unranked(results: &Results, sentinel: Option<Estimate>) -> Option<String> {
    let rounds = results.trials.iter().map(|trial| trial.slot.round).max().unwrap_or(0);
    if results.settings.preset == Preset::Quick || rounds < ROUNDS_MIN {
        return Some(format!("{rounds} rounds are not for ranking (at least {ROUNDS_MIN} are)"));
    }
    let sentinel = sentinel?;
    differs(&sentinel, THRESHOLD_MIN).then(|| {
        format!(
            "the reference differs from itself ({:.2} times): the machine was too unsteady to rank",
            sentinel.median
        )
    })
}

fn rate(measured: &Measured) -> Option<f64> {
    (measured.load.requests > 0).then_some(measured.load.requests_per_s)
}

fn server_us(measured: &Measured) -> Option<f64> {
    per_request(measured, measured.server.cpu_us)
}

fn per_request(measured: &Measured, amount: u64) -> Option<f64> {
    (measured.load.requests > 0).then(|| amount as f64 / measured.load.requests as f64)
}

type Rounds<'a> = BTreeMap<u32, &'a Measured>;

/// The ratio of a figure to the reference's, over the rounds that have both.
fn ratio(
    rounds: &Rounds,
    reference: &Rounds,
    figure: fn(&Measured) -> Option<f64>,
    seed: u64,
) -> Option<Estimate> {
    let pair = |(round, measured): (&u32, &&Measured)| {
        Some((figure(measured)?, figure(reference.get(round)?)?))
    };
    paired_ratio(&rounds.iter().filter_map(pair).collect::<Vec<_>>(), seed)
}

fn figures(
    results: &Results,
    workload: &Workload,
    model: &str,
    reference: &Rounds,
    costs: &BTreeMap<String, Cost>,
) -> Result<Figures, String> {
    let all: Vec<_> = trials(results, &workload.name, model, Role::Timed).collect();
    let measured = rounds(all.iter().copied());
    let seed = results.settings.seed;
    let values = |figure: &dyn Fn(&Measured) -> Option<f64>| -> Vec<f64> {
        measured.values().filter_map(|m| figure(m)).collect()
    };
    let over = |figure: &dyn Fn(&Measured) -> Option<f64>| estimate(&values(figure), seed);
    let (Some(rate_estimate), Some(server), Some(client), Some(switches)) = (
        over(&rate),
        over(&server_us),
        over(&|m| per_request(m, m.load.client_cpu_us)),
        over(&switches_per_request),
    ) else {
        return Err(why_nothing(results, workload, model, &all));
    };
    let merged = merged_latency(measured.values());
    let middle =
        |figure: &dyn Fn(&Measured) -> f64| median(&values(&|m| Some(figure(m)))).unwrap_or(0.0);
    let server_busy = middle(&|m| server_share(results, m));
    let client_busy = middle(&client_share);
    let spins = costs.get(model).map(|cost| cost.idle_busy).filter(|&busy| busy >= SPINS_MIN);
    let limit = limit(server_busy, client_busy, spins.is_some());
    let mut figures = Figures {
        rate: rate_estimate,
        server_us: server,
        client_us: client,
        switches: switches.median,
        p50_us: merged.as_ref().map_or(0.0, |h| h.value_at_quantile(0.5) as f64 / 1_000.0),
        p99_us: merged.as_ref().and_then(p99_us),
        server_busy,
        client_busy,
        limit,
        rate_ratio: ratio(&measured, reference, rate, seed),
        cpu_ratio: ratio(&measured, reference, server_us, seed),
        rank: None,
        first_error: measured
            .values()
            .find_map(|m| m.load.first_error.clone().or_else(|| m.load.ended_early.clone())),
        doubts: Vec::new(),
    };
    figures.doubts = doubts(results, workload, &figures, &measured, all.len(), spins);
    Ok(figures)
}

/// Busy polling is always busy, so its share says nothing: if the client is not busy either, the
/// server's sweep is what everybody waits for.
fn limit(server_busy: f64, client_busy: f64, spins: bool) -> Limit {
    match (server_busy >= BUSY, client_busy >= BUSY) {
        (true, true) if spins => Limit::Client,
        (true, true) => Limit::Both,
        (true, false) => Limit::Server,
        (false, true) => Limit::Client,
        (false, false) => Limit::Latency,
    }
}

fn server_share(results: &Results, measured: &Measured) -> f64 {
    let cores = results.settings.server_cores.len().max(1) as f64;
    measured.server.cpu_us as f64 / 1e6 / measured.load.duration_s / cores
}

fn client_share(measured: &Measured) -> f64 {
    measured.load.client_cpu_us as f64 / 1e6 / measured.load.duration_s
}

/// Context switches per request. When threads came and went, the kernel has forgotten the switches
/// of the ended ones; the whole life of the process (wait4) has them all, and the server's own
/// counter of requests belongs to the same span.
fn switches_per_request(measured: &Measured) -> Option<f64> {
    let server = &measured.server;
    let live = per_request(measured, server.voluntary_switches + server.involuntary_switches);
    whole_life_switches(measured).or(live)
}

fn whole_life_switches(measured: &Measured) -> Option<f64> {
    if measured.server.threads_changed == 0 {
        return None;
    }
    let exit = &measured.exit;
    let requests = exit.counters.as_ref()?.get("requests")?.as_u64().filter(|&n| n > 0)?;
    Some((exit.voluntary_switches + exit.involuntary_switches) as f64 / requests as f64)
}

/// The latencies of all rounds in one histogram: percentiles are never averaged.
fn merged_latency<'a>(rounds: impl Iterator<Item = &'a &'a Measured>) -> Option<Histogram<u64>> {
    let mut merged: Option<Histogram<u64>> = None;
    for measured in rounds {
        let bytes = STANDARD.decode(&measured.load.latency.histogram).ok()?;
        let one: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).ok()?;
        match &mut merged {
            Some(sum) => sum.add(one).ok()?,
            None => merged = Some(one),
        }
    }
    merged
}

fn p99_us(histogram: &Histogram<u64>) -> Option<f64> {
    (histogram.len() / 100 >= SAMPLES_BEYOND_MIN)
        .then(|| histogram.value_at_quantile(0.99) as f64 / 1_000.0)
}

fn why_nothing(results: &Results, workload: &Workload, model: &str, all: &[&Trial]) -> String {
    let skipped = results.skips.iter().find(|skip| {
        skip.model == model && skip.workload.as_ref().is_none_or(|name| *name == workload.name)
    });
    if let Some(skip) = skipped {
        return skip.reason.clone();
    }
    let failed = all.iter().find_map(|trial| match &trial.outcome {
        Outcome::Failed { reason } => Some(reason.clone()),
        Outcome::Measured(_) => None,
    });
    match (failed, all.len()) {
        (Some(reason), _) => reason,
        (None, 0) => "the run was interrupted before its turn".into(),
        (None, rounds) => format!("no request was completed in {rounds} rounds"),
    }
}

fn doubts(
    results: &Results,
    workload: &Workload,
    figures: &Figures,
    measured: &Rounds,
    rounds_tried: usize,
    spins: Option<f64>,
) -> Vec<Doubt> {
    let all = || measured.values();
    let middle = |figure: &dyn Fn(&Measured) -> f64| {
        median(&all().map(|m| figure(m)).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let mut doubts = Vec::new();
    let mut add = |raised: bool, doubt: Doubt| doubts.extend(raised.then_some(doubt));
    let errors = all().map(|m| m.load.errors).sum();
    add(errors > 0, Doubt::Errors(errors));
    let early = all().filter(|m| m.load.ended_early.is_some()).count() as u32;
    add(early > 0, Doubt::EndedEarly(early));
    let stuck = all().map(|m| m.load.connections_without_progress).max().unwrap_or(0);
    add(stuck > 0, Doubt::WithoutProgress(stuck, workload.connections));
    let failed = (rounds_tried - measured.len()) as u32;
    add(failed > 0, Doubt::FailedRounds(failed));
    let lost = all().map(|m| m.idle_connections_lost).max().unwrap_or(0);
    add(lost > 0, Doubt::IdleLost(lost));
    let bad = all().filter(|m| m.exit.code != Some(0) || m.exit.counters.is_none()).count() as u32;
    add(bad > 0, Doubt::BadEnd(bad));
    let (server, client) = (figures.server_busy, figures.client_busy);
    add(figures.limit == Limit::Client, Doubt::ClientBound(client));
    add(figures.limit == Limit::Latency, Doubt::LatencyBound(server, client));
    add(spins.is_some(), Doubt::Spins(spins.unwrap_or(0.0)));
    let spread = figures.rate.deviation / figures.rate.median;
    add(spread > SPREAD_MAX, Doubt::Spread(spread));
    let little = middle(&|m| {
        m.load.requests_per_s * m.load.latency.mean_us / 1e6 / m.load.mean_in_flight.max(1e-9)
    });
    // With stuck connections, which wait for ever, the law cannot hold inside a window.
    let holds = stuck > 0 || (little - 1.0).abs() <= LITTLE_MAX;
    add(!holds, Doubt::LittlesLaw(little));
    let queue = middle(&|m| m.server.run_queue_delay_us as f64 / 1e6 / m.load.duration_s);
    add(queue > RUN_QUEUE_MAX && figures.server_busy < BUSY, Doubt::RunQueue(queue));
    let cores = f64::from(results.environment.cores.max(1));
    let steal = middle(&|m| m.machine.steal_s / m.load.duration_s / cores);
    add(steal > STEAL_MAX, Doubt::Steal(steal));
    let other = middle(&|m| {
        let ours = (m.server.cpu_us + m.load.client_cpu_us) as f64 / 1e6;
        (m.machine.busy_s - ours) / m.load.duration_s / cores
    });
    add(other > OTHER_LOAD_MAX, Doubt::OtherLoad(other));
    let bounded = all().any(|m| m.server.threads_changed > 0 && whole_life_switches(m).is_none());
    add(bounded, Doubt::SwitchesLowerBound);
    doubts
}

/// Ranks the cells that can be ranked by their rate.
fn rank(results: &Results, summary: &mut WorkloadSummary) {
    let name = summary.workload.name.clone();
    let rankable =
        |cell: &Cell| matches!(&cell.state, Ok(f) if !f.doubts.iter().any(|d| d.unranks()));
    let labels: Vec<String> =
        summary.cells.iter().filter(|c| rankable(c)).map(|c| c.model.clone()).collect();
    let measured: Vec<Rounds> =
        labels.iter().map(|label| rounds(trials(results, &name, label, Role::Timed))).collect();
    let faster = |a: &Rounds, b: &Rounds| {
        let ratio = ratio(a, b, rate, results.settings.seed);
        ratio.is_some_and(|r| r.median > 1.0 && differs(&r, summary.threshold))
    };
    let better: Vec<Vec<bool>> =
        measured.iter().map(|a| measured.iter().map(|b| faster(a, b)).collect()).collect();
    for (label, rank) in labels.iter().zip(tied_ranks(&better)) {
        if let Some(Ok(figures)) =
            summary.cells.iter_mut().find(|c| c.model == *label).map(|c| &mut c.state)
        {
            figures.rank = Some(rank);
        }
    }
}

/// Memory from the samples with the most connections, CPU when idle from all.
fn cost(results: &Results, model: &str) -> Option<Cost> {
    let samples: Vec<IdleSample> = results
        .trials
        .iter()
        .filter(|trial| trial.slot.model == model)
        .filter_map(|trial| match &trial.outcome {
            Outcome::Measured(measured) => measured.idle,
            Outcome::Failed { .. } => None,
        })
        .collect();
    let connections = samples.iter().map(|s| s.connections).max()?;
    let largest: Vec<_> = samples.iter().filter(|s| s.connections == connections).collect();
    let per_connection = |figure: &dyn Fn(&IdleSample) -> f64| {
        let values: Vec<_> = largest.iter().map(|s| figure(s) / f64::from(connections)).collect();
        median(&values).unwrap_or(0.0)
    };
    let own = |s: &IdleSample| {
        let kib = |m: record::MemorySample| (m.pss_kib + m.page_tables_kib) as f64;
        kib(s.memory) - kib(s.memory_before)
    };
    let stacks = |s: &IdleSample| {
        (f64::from(s.memory.threads) - f64::from(s.memory_before.threads)) * KERNEL_STACK_KIB
    };
    let busy: Vec<f64> = samples.iter().map(|s| s.cpu_us as f64 / 1e6 / s.duration_s).collect();
    Some(Cost {
        connections,
        own_kib: per_connection(&own),
        kernel_stacks_kib: per_connection(&stacks),
        idle_busy: median(&busy)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn cell<'a>(summary: &'a Summary, workload: &str, model: &str) -> &'a Cell {
        let workload = summary.workloads.iter().find(|w| w.workload.name == workload).unwrap();
        workload.cells.iter().find(|cell| cell.model == model).unwrap()
    }

    fn figures<'a>(summary: &'a Summary, model: &str) -> &'a Figures {
        cell(summary, "http-keepalive", model).state.as_ref().unwrap()
    }

    #[test]
    fn a_steady_difference_is_ranked_and_a_small_one_is_a_tie() {
        let summary = summarise(&fixture::results());
        let ranks = ["select", "epoll", "busy", "poll"].map(|m| figures(&summary, m).rank);
        // select is 1 % faster than epoll: a tie; busy 5 % and poll 10 % slower: clear.
        assert_eq!(ranks, [Some((1, 2)), Some((1, 2)), Some((3, 3)), Some((4, 4))]);
        let ratio = figures(&summary, "poll").rate_ratio.unwrap();
        assert!((ratio.median - 0.9).abs() < 1e-3, "{ratio:?}");
    }

    #[test]
    fn what_is_not_the_servers_rate_has_no_rank() {
        let summary = summarise(&fixture::results());
        let threads = figures(&summary, "threads");
        assert_eq!((threads.limit, threads.rank), (Limit::Client, None));
        assert!(threads.doubts.iter().any(|d| matches!(d, Doubt::ClientBound(_))));
        let serial = figures(&summary, "serial");
        assert_eq!(serial.rank, None);
        assert!(serial.doubts.contains(&Doubt::WithoutProgress(63, 64)));
        assert_eq!(figures(&summary, "poll").limit, Limit::Server);
    }

    #[test]
    fn per_request_figures_are_amounts_over_requests() {
        let summary = summarise(&fixture::results());
        let epoll = figures(&summary, "epoll");
        // 98 % of a second for 100,000 requests in odd rounds and 80,000 in even ones.
        assert!((epoll.server_us.median - (9.8 + 12.25) / 2.0).abs() < 0.01);
        assert!((epoll.switches - 0.1).abs() < 1e-3);
        assert!((epoll.rate.median - 90_000.0).abs() < 1.0);
    }

    #[test]
    fn busy_polling_is_told_by_its_idle_cpu() {
        let summary = summarise(&fixture::results());
        assert!(summary.costs["busy"].idle_busy > 0.99);
        assert!(figures(&summary, "busy").doubts.iter().any(|d| matches!(d, Doubt::Spins(_))));
        assert!(!figures(&summary, "epoll").doubts.iter().any(|d| matches!(d, Doubt::Spins(_))));
        assert_eq!(limit(1.0, 0.95, true), Limit::Client);
        assert_eq!(limit(1.0, 0.95, false), Limit::Both);
        assert_eq!(limit(0.5, 0.5, false), Limit::Latency);
    }

    #[test]
    fn memory_per_connection_is_the_slope() {
        let summary = summarise(&fixture::results());
        assert!((summary.costs["threads"].own_kib - 20.0).abs() < 1e-9);
        assert!((summary.costs["epoll"].own_kib - 1.0).abs() < 1e-9);
        assert!(!summary.costs.contains_key("serial"));
    }

    #[test]
    fn an_empty_cell_says_why() {
        let mut results = fixture::results();
        let why = |results: &Results, model: &str| {
            let summary = summarise(results);
            cell(&summary, "idle-10000", model).state.as_ref().unwrap_err().clone()
        };
        assert!(why(&results, "select").contains("FD_SETSIZE"));
        assert!(why(&results, "serial").contains("answered 1"));
        results.trials.clear();
        assert!(why(&results, "epoll").contains("interrupted"));
    }

    #[test]
    fn a_reference_that_differs_from_itself_refuses_the_ranking() {
        let mut results = fixture::results();
        for trial in results.trials.iter_mut().filter(|t| t.slot.role == Role::Sentinel) {
            if let Outcome::Measured(measured) = &mut trial.outcome {
                measured.load.requests_per_s *= 0.9;
            }
        }
        let summary = summarise(&results);
        assert!(summary.workloads[0].unranked.as_ref().unwrap().contains("unsteady"));
        assert!(summary.workloads[0].cells.iter().flat_map(|c| &c.state).all(|f| f.rank.is_none()));
    }

    #[test]
    fn few_rounds_and_the_quick_preset_are_not_ranked() {
        let mut results = fixture::results();
        results.settings.preset = Preset::Quick;
        assert!(summarise(&results).workloads[0].unranked.is_some());
        let mut results = fixture::results();
        results.trials.retain(|trial| trial.slot.round <= 3);
        assert!(summarise(&results).workloads[0].unranked.as_ref().unwrap().contains("3 rounds"));
    }

    #[test]
    fn switches_of_ended_threads_come_from_the_whole_life() {
        let mut measured = fixture::measured(1_000, 5.0, 0.5);
        assert_eq!(switches_per_request(&measured), Some(0.1));
        measured.server.threads_changed = 3;
        measured.exit.voluntary_switches = 4_000;
        measured.exit.counters = Some(serde_json::json!({ "requests": 2_000 }));
        assert_eq!(switches_per_request(&measured), Some(2.0));
        measured.exit.counters = None;
        assert_eq!(switches_per_request(&measured), Some(0.1));
    }
}
