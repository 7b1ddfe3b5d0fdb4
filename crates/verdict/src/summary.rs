//! Summarises raw trials: one cell per workload and model, with findings and doubts. Pure functions
//! of a result file.
//!
//! For each workload and figure, findings compare all models with the reference, and ranks compare
//! all pairs of models. The floor takes part in neither.

mod judge;
mod map;
mod measure;
mod protocols;
mod weigh;

use std::collections::BTreeMap;

use record::{Measured, Model, Outcome, Results, Role, Trial, Workload};

use crate::doubt::Doubt;
use crate::statistics::{BlockRatio, Estimate, Finding, estimate, median};

pub use judge::{Best, Pairs, is_judged, ratio, ratio_of_epochs};
pub use map::{Point, map};
pub use measure::{Figure, Rounds, is_plain, merged, quantile_us, rounds, trials};
pub use protocols::{IDLE_CONNECTIONS, IdlePrice, idle_prices, name_of, prices, steps};

/// From this share of the window on a side counts as busy. The rest is the time of sleeping and
/// waking between batches, which a saturated side has too.
pub const BUSY: f64 = 0.90;

/// A server sustains an offered rate if it answers this share of the due requests in the window.
/// The rest may be in flight at its end: at a latency of 2 ms that is 1 % of a window of 0.2 s.
pub const KEPT_MIN: f64 = 0.98;

/// A server that uses more of a core without traffic does not sleep. Servers that sleep use below 2
/// %; one that spins may get less than a whole core if other processes run.
const SPINS_MIN: f64 = 0.50;

/// All data of the renderers.
#[derive(Debug)]
pub struct Summary {
    /// All workloads, in the order of the file.
    pub workloads: Vec<WorkloadSummary>,
    /// Cost of idle HTTP/1.1 connections, by model label.
    pub costs: BTreeMap<String, Cost>,
    /// Doubts about the whole run.
    pub doubts: Vec<Doubt>,
}

impl Summary {
    /// Whether the kernel's memory is known for all models: from cgroups, and not from /proc.
    pub fn kernel_is_counted(&self) -> bool {
        self.costs.values().all(|cost| cost.memory.kernel_kib.is_some())
    }
}

/// One workload.
#[derive(Debug)]
pub struct WorkloadSummary {
    /// The workload.
    pub workload: Workload,
    /// Label of the reference model.
    pub reference: String,
    /// The models, in the order of the file.
    pub cells: Vec<Cell>,
    /// The floor, which is not ranked. `None`: it did not take part.
    pub floor: Option<Cell>,
    /// The reference's second process relative to its first: the smallest difference that can be
    /// found.
    pub control: BTreeMap<Figure, BlockRatio>,
    /// All pairs of models, by figure.
    pub pairs: BTreeMap<Figure, Pairs>,
}

impl WorkloadSummary {
    /// Whether it is an open loop.
    pub fn is_open(&self) -> bool {
        self.workload.rate_per_s.is_some()
    }
}

/// One model under one workload.
#[derive(Debug)]
pub struct Cell {
    /// Label of the model.
    pub model: String,
    /// The figures, or why there are none.
    pub state: Result<Box<Figures>, String>,
}

/// Which side limited the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The server was busy, the client was not: the rate is the server's capacity.
    Server,
    /// The client was busy and the server was not, or the rate is the floor's: the server could do
    /// more.
    Client,
    /// Both were busy.
    Both,
    /// Neither side was busy: the rate shows waiting.
    Latency,
    /// The schedule of an open loop, which the server kept up with.
    Offered,
}

impl Limit {
    /// The printed name.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Server => "server-bound",
            Limit::Client => "client-bound",
            Limit::Both => "both-bound",
            Limit::Latency => "latency-bound",
            Limit::Offered => "offered",
        }
    }
}

/// The figures of one cell, over its rounds.
#[derive(Debug)]
pub struct Figures {
    /// Client CPU per request, in microseconds.
    pub client_us: Estimate,
    /// Context switches of the server per request.
    pub switches: f64,
    /// Voluntary context switches per request.
    pub voluntary: f64,
    /// Involuntary context switches per request.
    pub involuntary: f64,
    /// Time for which the server's threads were runnable and waited for a core, per request, in
    /// microseconds.
    pub run_queue_us: f64,
    /// System calls per request, from the counting passes; `None` if they were not counted.
    pub calls: Option<CallsPerRequest>,
    /// Median latency of all rounds merged, in microseconds. In a closed loop it is mostly time in
    /// a queue.
    pub p50_us: f64,
    /// 99th percentile of all rounds merged; `None` with too few samples.
    pub p99_us: Option<f64>,
    /// Rounds that are left out because the client was stopped or too slow.
    pub invalid_rounds: u32,
    /// Figures of an open loop; `None` in a closed loop.
    pub open: Option<OpenFigures>,
    /// Figures of a fan-out; `None` otherwise.
    pub fan_out: Option<FanOutFigures>,
    /// Figures of TLS; `None` without it.
    pub tls: Option<TlsFigures>,
    /// Share of its cores that the server used.
    pub server_busy: f64,
    /// Share of its core that the client used.
    pub client_busy: f64,
    /// Which side limited the rate.
    pub limit: Limit,
    /// The figures by which the cell is compared. [`Figure::Latency`] only if it is meaningful.
    pub by: BTreeMap<Figure, Judged>,
    /// Requests/s with two clients, relative to those with one; `None` if this was not measured.
    pub doubled: Option<BlockRatio>,
    /// The first error of any round, in words.
    pub first_error: Option<String>,
    /// Doubts about these figures.
    pub doubts: Vec<Doubt>,
}

/// One figure of a cell, and its comparison.
#[derive(Debug)]
pub struct Judged {
    /// The figure, over the epochs.
    pub value: Estimate,
    /// Relative to the reference; `None` for the reference itself, or with too few epochs.
    pub ratio: Option<BlockRatio>,
    /// Relative to the floor.
    pub to_floor: Option<BlockRatio>,
    /// The comparison with the reference; `None` for the reference itself, or if it cannot be
    /// compared.
    pub finding: Option<Finding>,
    /// Best and worst possible place; `None`: not ranked.
    pub rank: Option<(usize, usize)>,
}

impl Figures {
    /// Requests per second.
    pub fn rate(&self) -> Estimate {
        self.value(Figure::Rate)
    }

    /// Server CPU per request, in microseconds.
    pub fn server_us(&self) -> Estimate {
        self.value(Figure::Server)
    }

    /// CPU of both sides per request, in microseconds.
    pub fn sum_us(&self) -> Estimate {
        self.value(Figure::Sum)
    }

    /// A figure and its comparison.
    pub fn judged(&self, figure: Figure) -> Option<&Judged> {
        self.by.get(&figure)
    }

    /// The ratio to the reference.
    pub fn ratio(&self, figure: Figure) -> Option<&BlockRatio> {
        self.judged(figure)?.ratio.as_ref()
    }

    /// The ratio to the floor.
    pub fn to_floor(&self, figure: Figure) -> Option<&BlockRatio> {
        self.judged(figure)?.to_floor.as_ref()
    }

    fn value(&self, figure: Figure) -> Estimate {
        let none = Estimate { median: 0.0, deviation: 0.0 };
        self.judged(figure).map_or(none, |judged| judged.value)
    }

    /// Connections that completed no request, and the number of connections; `None` if all
    /// completed some.
    pub fn stuck(&self) -> Option<(u32, u32)> {
        self.doubts.iter().find_map(|doubt| match doubt {
            Doubt::WithoutProgress(stuck, of) => Some((*stuck, *of)),
            _ => None,
        })
    }
}

/// System calls of the server per request.
#[derive(Debug, Clone, PartialEq)]
pub struct CallsPerRequest {
    /// All system calls.
    pub total: f64,
    /// By name, the most frequent first. Only some names are counted, so the sum may be below
    /// `total`.
    pub by_name: Vec<(String, f64)>,
    /// Operations submitted to io_uring rings.
    pub ring_operations: f64,
    /// The same by operation, the most frequent first.
    pub ring_by_name: Vec<(String, f64)>,
}

/// Figures of an open loop, over its valid rounds. Percentiles are from the merged histograms and
/// count from the due time.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenFigures {
    /// Requests that fell due per second.
    pub offered_per_s: f64,
    /// Share of the due requests that were answered in the window. Replies after the window, when
    /// no new requests fall due, do not show that the server sustains the rate.
    pub answered_share: f64,
    /// Due requests that were not answered when the run ended.
    pub unanswered: u64,
    /// Median latency, in microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile, in microseconds; `None` with fewer than ten samples beyond it.
    pub p99_us: Option<f64>,
    /// 99.9th percentile, in microseconds; `None` with fewer than ten samples beyond it.
    pub p999_us: Option<f64>,
    /// 99th percentile of the client's send lag, in microseconds.
    pub send_lag_p99_us: Option<f64>,
    /// 99th percentile from the send ("coordinated omission"), in microseconds.
    pub from_send_p99_us: Option<f64>,
    /// Rounds in these figures.
    pub valid_rounds: u32,
    /// Rounds in which the client was too slow for its schedule, which are left out.
    pub invalid_rounds: u32,
}

/// Figures of a fan-out. Percentiles are from the merged histograms of the rounds and are those of
/// a delivery, from the send of the message to its last byte at a receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct FanOutFigures {
    /// Connections in the chat, including the sender.
    pub members: u32,
    /// Messages per second that all receivers got.
    pub messages_per_s: f64,
    /// Median latency of a delivery, in microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile, in microseconds; `None` with fewer than ten samples beyond it.
    pub p99_us: Option<f64>,
    /// 99.9th percentile, in microseconds; `None` with fewer than ten samples beyond it.
    pub p999_us: Option<f64>,
}

/// Figures of TLS. Rates are medians of the rounds. With keep-alive they are zero, because the
/// handshakes are made before the window.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsFigures {
    /// Protocol version.
    pub version: String,
    /// Cipher suite.
    pub cipher_suite: String,
    /// Application protocol (ALPN), if any.
    pub alpn: Option<String>,
    /// Handshakes per second with a certificate and a signature.
    pub full_per_s: f64,
    /// Handshakes per second that resumed a session.
    pub resumed_per_s: f64,
    /// Median time of a handshake, from connect(2), in microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile, in microseconds; `None` with fewer than ten samples beyond it.
    pub p99_us: Option<f64>,
}

impl TlsFigures {
    /// Share of the handshakes that resumed a session; `None` without a handshake in the window.
    pub fn resumed_share(&self) -> Option<f64> {
        let all = self.full_per_s + self.resumed_per_s;
        (all > 0.0).then(|| self.resumed_per_s / all)
    }
}

/// Memory per connection, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Memory {
    /// Proportional set size of the process.
    pub user_kib: f64,
    /// Page tables.
    pub page_tables_kib: f64,
    /// Kernel stacks of threads.
    pub kernel_stacks_kib: f64,
    /// All kernel memory charged to the server's cgroup: page tables, stacks, sockets and their
    /// buffers, epoll items. `None`: no cgroup could be made.
    pub kernel_kib: Option<f64>,
}

impl Memory {
    /// Kernel memory. If it was not `counted` for all models, page tables and stacks.
    pub fn kernel_part_kib(&self, counted: bool) -> f64 {
        let kib = self.kernel_kib.filter(|_| counted);
        kib.unwrap_or(self.page_tables_kib + self.kernel_stacks_kib)
    }
}

/// Cost of idle connections for a model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Number of connections.
    pub connections: u32,
    /// Memory per idle connection, by part.
    pub memory: Memory,
    /// CPU without traffic, as a share of one core.
    pub idle_busy: f64,
    /// Wake-ups per second without traffic.
    pub wake_ups_per_s: f64,
}

/// Summarises a result file.
pub fn summarise(results: &Results) -> Summary {
    let costs: BTreeMap<String, Cost> = results
        .models
        .iter()
        .filter_map(|model| Some((model.label.clone(), measure::cost(results, &model.label)?)))
        .collect();
    let one = |workload| summarise_workload(results, workload, &costs);
    let workloads: Vec<_> = results.workloads.iter().map(one).collect();
    let doubts = weigh::of_run(results);
    Summary { workloads, costs, doubts }
}

/// The inputs of the cells of one workload.
struct Inputs<'a> {
    results: &'a Results,
    workload: &'a Workload,
    reference: Rounds<'a>,
    floor: Rounds<'a>,
    costs: &'a BTreeMap<String, Cost>,
}

fn summarise_workload(
    results: &Results,
    workload: &Workload,
    costs: &BTreeMap<String, Cost>,
) -> WorkloadSummary {
    let timed = |model: &str| rounds(trials(results, &workload.name, model, Role::Timed));
    let floor = results.floor.as_deref();
    let inputs = Inputs {
        results,
        workload,
        reference: timed(&results.reference),
        floor: floor.map(timed).unwrap_or_default(),
        costs,
    };
    let cell = |model: &Model| Cell {
        model: model.label.clone(),
        state: figures(&inputs, &model.label).map(Box::new),
    };
    let wanted = |model: &&Model| {
        !results.skips.iter().any(|skip| {
            skip.by_design
                && skip.model == model.label
                && skip.workload.as_ref() == Some(&workload.name)
        })
    };
    let (floors, models): (Vec<_>, Vec<_>) =
        results.models.iter().filter(wanted).partition(|model| Some(model.label.as_str()) == floor);
    let second = rounds(trials(results, &workload.name, &results.reference, Role::Sentinel));
    let control = |figure| Some((figure, judge::ratio(&second, &inputs.reference, figure)?));
    let mut summary = WorkloadSummary {
        workload: workload.clone(),
        reference: results.reference.clone(),
        cells: models.into_iter().map(cell).collect(),
        floor: floors.into_iter().map(cell).next(),
        control: Figure::ALL.into_iter().filter_map(control).collect(),
        pairs: BTreeMap::new(),
    };
    judge::judge(results, &mut summary);
    summary
}

fn figures(inputs: &Inputs, model: &str) -> Result<Figures, String> {
    let (results, name) = (inputs.results, &inputs.workload.name);
    let all: Vec<_> = trials(results, name, model, Role::Timed).collect();
    let measured = rounds(all.iter().copied());
    let values = |figure: &dyn Fn(&Measured) -> Option<f64>| -> Vec<f64> {
        measured.values().filter_map(|m| figure(m)).collect()
    };
    let over = |figure: &dyn Fn(&Measured) -> Option<f64>| estimate(&values(figure));
    let Some(client_us) = over(&|m| measure::per_request(m, m.load.client_cpu_us)) else {
        return Err(why_nothing(inputs, model, &all));
    };
    let latency = measure::merged(measured.values().map(|m| m.load.latency.histogram.as_str()));
    let middle = |figure: &dyn Fn(&Measured) -> Option<f64>| median(&values(figure)).unwrap_or(0.0);
    let invalid = all.iter().filter_map(|t| measure::invalid(measure::measured(t)?)).count() as u32;
    let judged = |figure: Figure| {
        let against = |other: &Rounds| judge::ratio(&measured, other, figure);
        let judged = Judged {
            value: over(&|m| figure.of(m))?,
            ratio: (model != results.reference).then(|| against(&inputs.reference)).flatten(),
            to_floor: against(&inputs.floor),
            finding: None,
            rank: None,
        };
        Some((figure, judged))
    };
    let mut figures = Figures {
        client_us,
        switches: middle(&|m| measure::switches(m).map(|(a, b)| a + b)),
        voluntary: middle(&|m| Some(measure::switches(m)?.0)),
        involuntary: middle(&|m| Some(measure::switches(m)?.1)),
        run_queue_us: middle(&|m| measure::per_request(m, m.server.run_queue_delay_us)),
        calls: measure::calls(trials(results, name, model, Role::Counting)),
        p50_us: latency.as_ref().map_or(0.0, |h| h.value_at_quantile(0.5) as f64 / 1_000.0),
        p99_us: latency.as_ref().and_then(|h| measure::quantile_us(h, 0.99)),
        open: measure::open_figures(&measured, invalid),
        invalid_rounds: invalid,
        fan_out: measure::fan_out(&measured),
        tls: measure::tls(&measured),
        server_busy: middle(&|m| Some(measure::server_share(results, m))),
        client_busy: middle(&|m| Some(measure::client_share(m))),
        limit: Limit::Latency,
        by: Figure::ALL.into_iter().filter_map(judged).collect(),
        doubled: measure::doubled(&measured),
        first_error: measured
            .values()
            .find_map(|m| m.load.first_error.clone().or_else(|| m.load.ended_early.clone())),
        doubts: Vec::new(),
    };
    let spins = inputs.costs.get(model).map(|cost| cost.idle_busy).filter(|&b| b >= SPINS_MIN);
    figures.limit = limit(&figures, spins.is_some());
    figures.doubts = weigh::of_cell(inputs, &figures, &measured, all.len() as u32, spins);
    Ok(figures)
}

/// A server that spins is always busy, so its share says nothing: then a busy client counts as the
/// limit.
fn limit(figures: &Figures, spins: bool) -> Limit {
    if figures.open.is_some() {
        return match figures.server_busy >= BUSY {
            true => Limit::Server,
            false => Limit::Offered,
        };
    }
    match (figures.server_busy >= BUSY, figures.client_busy >= BUSY) {
        (true, true) if spins => Limit::Client,
        (true, true) => Limit::Both,
        (true, false) => Limit::Server,
        (false, true) => Limit::Client,
        (false, false) => Limit::Latency,
    }
}

fn why_nothing(inputs: &Inputs, model: &str, all: &[&Trial]) -> String {
    let skipped = inputs.results.skips.iter().find(|skip| {
        let here = |name: &String| *name == inputs.workload.name;
        skip.model == model && skip.workload.as_ref().is_none_or(here)
    });
    if let Some(skip) = skipped {
        return skip.reason.clone();
    }
    let failed = all.iter().find_map(|trial| match &trial.outcome {
        Outcome::Failed { reason } => Some(reason.clone()),
        Outcome::Measured(measured) => {
            measure::invalid(measured).map(|why| format!("every round was invalid: {why}"))
        }
    });
    match (failed, all.len()) {
        (Some(reason), _) => reason,
        (None, 0) => "the run was interrupted before its turn".into(),
        (None, rounds) => format!("no request was completed in {rounds} rounds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell<'a>(summary: &'a Summary, workload: &str, model: &str) -> &'a Cell {
        let workload = summary.workloads.iter().find(|w| w.workload.name == workload).unwrap();
        workload.cells.iter().find(|cell| cell.model == model).unwrap()
    }

    fn figures<'a>(summary: &'a Summary, model: &str) -> &'a Figures {
        cell(summary, "http-keepalive", model).state.as_ref().unwrap()
    }

    fn rank(figures: &Figures, figure: Figure) -> Option<(usize, usize)> {
        figures.judged(figure)?.rank
    }

    #[test]
    fn a_steady_difference_is_ranked_and_a_small_one_is_a_tie() {
        let summary = summarise(&fixture::results());
        let ranks =
            ["select", "epoll", "busy", "poll"].map(|m| rank(figures(&summary, m), Figure::Rate));
        // select is 1 % faster than epoll, give or take: a tie; busy 5 % and poll 10 % slower.
        assert_eq!(ranks, [Some((1, 2)), Some((1, 2)), Some((3, 3)), Some((4, 4))]);
        let poll = figures(&summary, "poll").judged(Figure::Rate).unwrap();
        assert!((poll.ratio.as_ref().unwrap().ratio - 0.9).abs() < 1e-3, "{poll:?}");
        assert_eq!(poll.finding, Some(Finding::Less));
        let select = figures(&summary, "select").judged(Figure::Rate).unwrap();
        assert_eq!(select.finding, Some(Finding::Equal));
        let control = &summary.workloads[0].control[&Figure::Server];
        assert!((control.ratio - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_the_servers_rate_has_no_rank() {
        let summary = summarise(&fixture::results());
        let threads = figures(&summary, "threads");
        assert_eq!((threads.limit, rank(threads, Figure::Rate)), (Limit::Client, None));
        assert!(rank(threads, Figure::Server).is_some(), "its CPU per request is its own");
        assert!(threads.doubts.iter().any(|d| matches!(d, Doubt::ClientBound(_))));
        let serial = figures(&summary, "serial");
        assert_eq!(rank(serial, Figure::Rate), None);
        assert!(serial.doubts.contains(&Doubt::WithoutProgress(63, 64)));
        assert_eq!(figures(&summary, "poll").limit, Limit::Server);
    }

    #[test]
    fn per_request_figures_are_amounts_over_requests() {
        let summary = summarise(&fixture::results());
        let epoll = figures(&summary, "epoll");
        // 98 % of a second for 100,000 requests in odd rounds and 80,000 in even ones.
        assert!((epoll.server_us().median - (9.8 + 12.25) / 2.0).abs() < 0.01);
        assert!((epoll.switches - 0.1).abs() < 1e-3);
        assert!((epoll.rate().median - 90_000.0).abs() < 1.0);
    }

    #[test]
    fn busy_polling_is_told_by_its_idle_cpu() {
        let summary = summarise(&fixture::results());
        assert!(summary.costs["busy"].idle_busy > 0.99);
        assert!(figures(&summary, "busy").doubts.iter().any(|d| matches!(d, Doubt::Spins(_))));
        assert!(!figures(&summary, "epoll").doubts.iter().any(|d| matches!(d, Doubt::Spins(_))));
    }

    #[test]
    fn memory_per_connection_is_the_slope() {
        let summary = summarise(&fixture::results());
        assert!((summary.costs["threads"].memory.user_kib - 20.0).abs() < 1e-9);
        assert!((summary.costs["epoll"].memory.user_kib - 1.0).abs() < 1e-9);
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
    fn too_few_epochs_decide_nothing() {
        let mut results = fixture::results();
        results.trials.retain(|trial| trial.slot.round <= 2);
        let summary = summarise(&results);
        let poll = figures(&summary, "poll").judged(Figure::Server).unwrap();
        assert_eq!((poll.finding, poll.rank), (Some(Finding::Unknown), Some((1, 4))));
        assert!(summary.workloads[0].control.is_empty());
    }

    #[test]
    fn where_twice_the_client_gets_more_the_rate_is_not_ranked_and_the_cpu_is() {
        let mut results = fixture::results();
        let slices = |requests| record::Slices {
            requests: vec![requests; 4],
            elapsed_ns: vec![5_000_000; 4],
            ..record::Slices::default()
        };
        for trial in results.trials.iter_mut().filter(|trial| trial.slot.model == "poll") {
            if let Outcome::Measured(measured) = &mut trial.outcome {
                measured.doubled.single = slices(100);
                measured.doubled.double = slices(120);
            }
        }
        let summary = summarise(&results);
        let poll = figures(&summary, "poll");
        assert!(poll.doubts.iter().any(|doubt| matches!(doubt, Doubt::MoreWithTwice(_))));
        assert_eq!(rank(poll, Figure::Rate), None);
        assert!(rank(poll, Figure::Server).is_some());
    }

    #[test]
    fn the_floor_is_no_competitor_and_its_rate_is_the_ceiling() {
        let mut results = fixture::with_floor(fixture::results());
        let busy_client = |results: &mut Results| {
            for trial in results.trials.iter_mut().filter(|t| t.slot.model == "epoll") {
                if let Outcome::Measured(measured) = &mut trial.outcome {
                    measured.load.client_cpu_us = 950_000;
                }
            }
        };
        let summary = summarise(&results);
        assert!(summary.workloads[0].cells.iter().all(|cell| cell.model != "floor"));
        let floor = summary.workloads[0].floor.as_ref().unwrap().state.as_ref().unwrap();
        assert_eq!((floor.limit, rank(floor, Figure::Rate)), (Limit::Client, None));
        assert!(summary.workloads[1].floor.as_ref().unwrap().state.is_err());
        let epoll = figures(&summary, "epoll");
        assert!((epoll.to_floor(Figure::Server).unwrap().ratio - 1.565).abs() < 0.02);
        assert_eq!(epoll.limit, Limit::Server);
        // Both sides are busy, at 98 % of the floor's rate: both are the limit. Without a floor
        // this is not known.
        let at_ceiling = |results: &Results| {
            let summary = summarise(results);
            let epoll = figures(&summary, "epoll");
            assert_eq!(epoll.limit, Limit::Both);
            epoll.doubts.iter().any(|doubt| matches!(doubt, Doubt::AtCeiling(_)))
        };
        busy_client(&mut results);
        assert!(at_ceiling(&results));
        results.floor = None;
        assert!(!at_ceiling(&results));
    }

    #[test]
    fn who_beats_the_floor_gets_a_doubt() {
        let mut results = fixture::with_floor(fixture::results());
        let beaten = |results: &Results| {
            let summary = summarise(results);
            let doubts = &figures(&summary, "epoll").doubts;
            doubts.iter().any(|doubt| matches!(doubt, Doubt::BeatsFloor(..)))
        };
        assert!(!beaten(&results));
        for trial in results.trials.iter_mut().filter(|t| t.slot.model == "floor") {
            if let Outcome::Measured(measured) = &mut trial.outcome {
                measured.slices.elapsed_ns.iter_mut().for_each(|ns| *ns = *ns / 9 * 10);
            }
        }
        assert!(beaten(&results));
    }

    #[test]
    fn calls_are_per_request_of_the_counting_pass() {
        let summary = summarise(&fixture::with_counts(fixture::results()));
        let calls = figures(&summary, "epoll").calls.clone().unwrap();
        assert!((calls.total - 2.0401).abs() < 1e-9);
        let wanted = [("recvfrom", 1.0), ("sendto", 1.0), ("epoll_wait", 0.04), ("mmap", 0.0001)];
        assert_eq!(calls.by_name, wanted.map(|(name, share)| (name.to_owned(), share)));
        assert_eq!(figures(&summary, "poll").calls, None);
        // Times of a counting pass are not used.
        assert!((figures(&summary, "epoll").rate().median - 90_000.0).abs() < 1.0);
        assert!(!summary.doubts.contains(&Doubt::NotCounted));
        assert!(summarise(&fixture::results()).doubts.contains(&Doubt::NotCounted));
    }

    #[test]
    fn open_loops_merge_their_valid_rounds_and_rank_by_cpu() {
        let summary = summarise(&fixture::open_loop());
        let of = |model: &str| cell(&summary, "open-2k", model).state.as_ref().unwrap();
        let (epoll, poll, busy) = (of("epoll"), of("poll"), of("busy"));
        let open = epoll.open.as_ref().unwrap();
        // One round of six took 900 us: that is the 99th percentile of all requests, although the
        // mean of the rounds' percentiles would say 233 us.
        assert!((open.p50_us.unwrap() - 100.0).abs() < 0.2);
        assert!((open.p99_us.unwrap() - 900.0).abs() < 1.0);
        assert!((open.send_lag_p99_us.unwrap() - 5.0).abs() < 0.1);
        assert_eq!((epoll.limit, rank(epoll, Figure::Rate)), (Limit::Offered, None));
        // Its client was too slow in one round, which is left out and makes the cell doubtful.
        let open = poll.open.as_ref().unwrap();
        assert_eq!((open.valid_rounds, open.invalid_rounds), (5, 1));
        assert_eq!(rank(poll, Figure::Server), None);
        assert!(poll.doubts.contains(&Doubt::ClientBehind(1, 6)));
        assert!((poll.ratio(Figure::Server).unwrap().ratio - 1.3).abs() < 1e-3);
        assert!(!poll.doubts.iter().any(|doubt| matches!(doubt, Doubt::FailedRounds(_))));
        let overload = busy.doubts.iter().any(|doubt| matches!(doubt, Doubt::Overload(_)));
        assert!(overload && rank(busy, Figure::Server).is_none());
    }

    #[test]
    fn a_cell_without_a_valid_round_is_empty_and_says_why() {
        let mut results = fixture::open_loop();
        for trial in results.trials.iter_mut().filter(|t| t.slot.model == "poll") {
            if let Outcome::Measured(measured) = &mut trial.outcome {
                let open = measured.load.open_loop.as_mut().unwrap();
                open.invalid = Some("12 % of the requests were sent late".into());
            }
        }
        let summary = summarise(&results);
        let why = cell(&summary, "open-2k", "poll").state.as_ref().unwrap_err();
        assert!(why.contains("every round was invalid: 12 %"), "{why}");
    }
}
