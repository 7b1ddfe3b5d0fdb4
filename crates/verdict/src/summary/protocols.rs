//! The cost of a protocol, per request and per idle connection: one model under two workloads that
//! differ only in the protocol.

use std::collections::BTreeSet;

use record::{Protocol, Results, Role, Workload};

use super::judge::ratio_of_epochs;
use super::measure::{self, Figure, rounds, trials};
use super::{Cost, Memory, Summary, WorkloadSummary};
use crate::statistics::BlockRatio;

/// Number of connections for which the memory is given.
pub const IDLE_CONNECTIONS: f64 = 10_000.0;

/// Fewest connections of a usable sample: with fewer, their memory is less than the variation of
/// the process's own.
const IDLE_SAMPLED_MIN: u32 = 100;

const KIB_PER_MIB: f64 = 1024.0;

/// A protocol and the workload that measures it.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Short name, for the head of a column.
    pub name: &'static str,
    /// The workload.
    pub workload: &'static str,
}

const fn step(name: &'static str, workload: &'static str) -> Step {
    Step { name, workload }
}

/// In order of growing complexity: TCP alone, HTTP/1.1, HTTP/2, WebSocket, TLS.
pub const STEPS: [Step; 11] = [
    step("TCP echo", "echo-64"),
    step("HTTP/1.1", "http-keepalive"),
    step("HTTP/2 x 1", "h2-one"),
    step("HTTP/2 x 32", "h2-streams"),
    step("WebSocket", "ws-echo"),
    step("chat", "ws-chat"),
    step("HTTPS", "https-keepalive"),
    step("h2 TLS x 32", "h2-tls-streams"),
    step("connect", "http-connect"),
    step("TLS full", "tls-handshake"),
    step("TLS resumed", "tls-resume"),
];

/// The pairs that are compared: they differ in one thing.
const PAIRS: [(&str, &str); 8] = [
    ("http-keepalive", "echo-64"),
    ("h2-one", "http-keepalive"),
    ("h2-streams", "http-keepalive"),
    ("ws-echo", "echo-64"),
    ("https-keepalive", "http-keepalive"),
    ("h2-tls-streams", "h2-streams"),
    ("tls-handshake", "http-connect"),
    ("tls-resume", "tls-handshake"),
];

/// The short name of a step.
pub fn name_of(workload: &str) -> &str {
    let step = STEPS.iter().find(|step| step.workload == workload);
    step.map_or(workload, |step| step.name)
}

/// The protocol of a workload, for the head of a column.
pub fn protocol_name(workload: &Workload) -> &'static str {
    match (workload.protocol, workload.tls) {
        (Protocol::Echo, _) => "TCP echo",
        (Protocol::Http1, false) => "HTTP/1.1",
        (Protocol::Http1, true) => "HTTP/1.1, TLS",
        (Protocol::Http2, false) => "HTTP/2",
        (Protocol::Http2, true) => "HTTP/2, TLS",
        (Protocol::WebSocket, false) => "WebSocket",
        (Protocol::WebSocket, true) => "WebSocket, TLS",
    }
}

/// The measured steps with their workloads.
pub fn steps(summary: &Summary) -> Vec<(Step, &WorkloadSummary)> {
    let find = |step: Step| {
        let mut workloads = summary.workloads.iter();
        Some((step, workloads.find(|w| w.workload.name == step.workload)?))
    };
    STEPS.into_iter().filter_map(find).collect()
}

/// Server CPU per request of one model under one workload, relative to another.
#[derive(Debug, Clone)]
pub struct Price {
    /// The workload with the protocol whose cost is given.
    pub workload: &'static str,
    /// The workload for comparison.
    pub base: &'static str,
    /// Paired by round, because the two were measured in different epochs.
    pub ratio: BlockRatio,
}

/// The cost of protocols for this model, from workloads in which all connections were served.
pub fn prices(results: &Results, summary: &Summary, model: &str) -> Vec<Price> {
    let fair = |name: &str| {
        let workload = summary.workloads.iter().find(|w| w.workload.name == name);
        let mut cells = workload.into_iter().flat_map(|w| w.cells.iter().chain(&w.floor));
        let cell = cells.find(|cell| cell.model == model);
        let figures = cell.and_then(|cell| cell.state.as_ref().ok());
        figures.is_some_and(|figures| figures.stuck().is_none())
    };
    let timed = |name: &str| rounds(trials(results, name, model, Role::Timed));
    let price = |(workload, base): (&'static str, &'static str)| {
        if !fair(workload) || !fair(base) {
            return None;
        }
        let ratio = ratio_of_epochs(&timed(workload), &timed(base), Figure::Server)?;
        Some(Price { workload, base, ratio })
    };
    PAIRS.into_iter().filter_map(price).collect()
}

/// The cost of idle connections of one protocol for one model.
#[derive(Debug, Clone, Copy)]
pub struct IdlePrice {
    /// The protocol, as named by [`protocol_name`].
    pub protocol: &'static str,
    /// The cost per connection.
    pub cost: Cost,
}

impl IdlePrice {
    /// Memory of [`IDLE_CONNECTIONS`] connections, in MiB: of the process and of the kernel.
    pub fn mib(&self) -> (f64, f64) {
        let many = |kib: f64| kib * IDLE_CONNECTIONS / KIB_PER_MIB;
        let memory: &Memory = &self.cost.memory;
        (many(memory.user_kib), many(memory.kernel_part_kib(true)))
    }
}

/// The cost of idle connections by protocol, for one model. Tables grow in steps, so the cost per
/// connection depends on their number. If there is a number that was sampled for all protocols it
/// is used for all, else the largest of each.
pub fn idle_prices(results: &Results, model: &str) -> Vec<IdlePrice> {
    let mut protocols: Vec<&'static str> = Vec::new();
    for protocol in results.workloads.iter().map(protocol_name) {
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    let counts = |protocol: &str| -> BTreeSet<u32> {
        let is_it = |workload: &Workload| protocol_name(workload) == protocol;
        let samples = measure::idle_samples(results, model, &is_it);
        samples.map(|sample| sample.connections).filter(|&n| n >= IDLE_SAMPLED_MIN).collect()
    };
    let sampled: Vec<_> =
        protocols.into_iter().map(|p| (p, counts(p))).filter(|(_, c)| !c.is_empty()).collect();
    let mut common = sampled.iter().map(|(_, counts)| counts.clone());
    let first = common.next().unwrap_or_default();
    let common = common.fold(first, |a, b| a.intersection(&b).copied().collect());
    let price = |(protocol, counts): &(&'static str, BTreeSet<u32>)| {
        let at = common.last().or(counts.last()).copied()?;
        let is_it = |workload: &Workload| protocol_name(workload) == *protocol;
        let cost = measure::cost_at(results, model, &is_it, at)?;
        Some(IdlePrice { protocol, cost })
    };
    sampled.iter().filter_map(price).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarise;

    #[test]
    fn every_step_and_every_pair_is_a_workload_that_comes_with_iolab() {
        let names = scenario::workload::names();
        let known = |name: &str| names.iter().any(|known| known == name);
        assert!(STEPS.iter().all(|step| known(step.workload)));
        assert!(PAIRS.iter().all(|(one, other)| known(one) && known(other)));
    }

    #[test]
    fn a_price_is_the_median_of_the_ratios_within_each_round() {
        let results = fixture::protocols();
        let summary = summarise(&results);
        let of = |model: &str, workload: &str| {
            let prices = prices(&results, &summary, model);
            prices.iter().find(|price| price.workload == workload).map(|price| price.ratio.ratio)
        };
        assert!((of("epoll", "ws-echo").unwrap() - 1.1).abs() < 1e-3);
        assert!((of("epoll", "h2-streams").unwrap() - 0.25).abs() < 1e-3);
        // Neither side of this pair was measured.
        assert_eq!(of("epoll", "tls-resume"), None);
        assert_eq!(of("unknown", "ws-echo"), None);
        let steps: Vec<_> = steps(&summary).iter().map(|(step, _)| step.name).collect();
        assert_eq!(steps, ["TCP echo", "HTTP/1.1", "HTTP/2 x 32", "WebSocket", "chat", "TLS full"]);
    }

    #[test]
    fn idle_connections_are_priced_at_a_number_that_all_protocols_have() {
        let results = fixture::protocols();
        let prices = idle_prices(&results, "epoll");
        let told: Vec<_> = prices.iter().map(|p| (p.protocol, p.cost.connections)).collect();
        let names = ["HTTP/1.1", "HTTP/2", "WebSocket", "HTTP/1.1, TLS"];
        assert_eq!(told, names.map(|name| (name, 1_000)));
        // 30 KiB each of its own and 2 of the kernel's, ten thousand times, in MiB.
        let (own, kernel) = prices[1].mib();
        assert!((own - 30.0 * 10_000.0 / 1024.0).abs() < 1.0, "{own}");
        assert!((kernel - 2.0 * 10_000.0 / 1024.0).abs() < 1.0, "{kernel}");
        assert!(idle_prices(&results, "unknown").is_empty());
    }
}
