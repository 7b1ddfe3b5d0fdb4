//! Figures of one trial, and of all trials of a cell. Amounts are per request with a complete and
//! correct reply.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use record::{
    Calls, IdleSample, Measured, MemorySample, Outcome, Protocol, Results, Role, Slices,
    TlsOutcome, Trial, Workload,
};

use super::{CallsPerRequest, Cost, FanOutFigures, Memory, OpenFigures, TlsFigures};
use crate::statistics::{BlockRatio, log_ratio, median};

/// Fewest samples above a percentile that is printed.
const SAMPLES_BEYOND_MIN: f64 = 10.0;

/// Size of a kernel stack on x86-64 and arm64 (THREAD_SIZE), in KiB. It is not part of any Pss.
const KERNEL_STACK_KIB: f64 = 16.0;

/// A figure by which models are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Requests per second. More is better.
    Rate,
    /// Server CPU per request, in microseconds. Less is better.
    Server,
    /// CPU of server and client per request, in microseconds. Over loopback the kernel accounts the
    /// receiver's TCP work to the sender, but the sum is not affected. Less is better.
    Sum,
    /// Median latency in an open loop, or of a delivery in a fan-out, in microseconds. Less is
    /// better. The 99th percentile is printed and not compared: on a shared machine it is the
    /// length of the pauses that others make, and more epochs do not decide it.
    Latency,
    /// Memory of the server with all connections open: its own and the kernel stacks of its
    /// threads, in KiB. Less is better.
    Memory,
}

impl Figure {
    /// All figures, in the order of the tables.
    pub const ALL: [Figure; 5] =
        [Figure::Server, Figure::Rate, Figure::Memory, Figure::Latency, Figure::Sum];

    /// The figure of each slice; empty if only a whole epoch has it.
    pub fn of_slices(self, measured: &Measured) -> Vec<Option<f64>> {
        let slices = &measured.slices;
        let of = |at: usize| {
            let requests = slices.requests[at] as f64;
            let (server, client) = (slices.server_cpu_ns.get(at)?, slices.client_cpu_ns.get(at)?);
            let of = match self {
                Figure::Rate => requests * 1e9 / *slices.elapsed_ns.get(at)? as f64,
                Figure::Server => *server as f64 / 1e3 / requests,
                Figure::Sum => (server + client) as f64 / 1e3 / requests,
                Figure::Latency | Figure::Memory => return None,
            };
            (requests > 0.0).then_some(of)
        };
        match self {
            Figure::Latency | Figure::Memory => Vec::new(),
            _ => (0..slices.requests.len()).map(of).collect(),
        }
    }

    /// The figure of one trial; `None` if no request was answered.
    pub fn of(self, measured: &Measured) -> Option<f64> {
        let load = &measured.load;
        match self {
            Figure::Rate => (load.requests > 0).then_some(load.requests_per_s),
            Figure::Server => per_request(measured, measured.server.cpu_us),
            Figure::Sum => per_request(measured, measured.server.cpu_us + load.client_cpu_us),
            Figure::Latency => {
                // In a closed loop of requests it is mostly time in a queue.
                let says = load.open_loop.is_some() || load.fan_out.is_some();
                (says && load.latency.samples > 0).then_some(load.latency.p50_us)
            }
            Figure::Memory => {
                let memory = &measured.server.memory;
                let own_kib = (memory.pss_kib + memory.page_tables_kib) as f64;
                (memory.pss_kib > 0)
                    .then_some(own_kib + f64::from(memory.threads) * KERNEL_STACK_KIB)
            }
        }
    }

    /// Whether a larger value is better.
    pub fn more_is_better(self) -> bool {
        self == Figure::Rate
    }

    /// The printed name, with the unit.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Rate => "req/s",
            Figure::Server => "server CPU us/req",
            Figure::Sum => "server + client CPU us/req",
            Figure::Latency => "p50 us",
            Figure::Memory => "memory KiB",
        }
    }
}

/// The measurements of each round.
pub type Rounds<'a> = BTreeMap<u32, &'a Measured>;

/// The trials of one cell in one role.
pub fn trials<'a>(
    results: &'a Results,
    workload: &str,
    model: &str,
    role: Role,
) -> impl Iterator<Item = &'a Trial> {
    let wanted = |trial: &&Trial| {
        let slot = &trial.slot;
        slot.workload == workload && slot.model == model && slot.role == role
    };
    results.trials.iter().filter(wanted).collect::<Vec<_>>().into_iter()
}

/// The measured trials, without those whose client was stopped or too slow, which say nothing about
/// the server.
pub fn rounds<'a>(trials: impl Iterator<Item = &'a Trial>) -> Rounds<'a> {
    trials
        .filter_map(|trial| Some((trial.slot.round, measured(trial)?)))
        .filter(|(_, measured)| invalid(measured).is_none())
        .collect()
}

/// The measurements of a trial; `None` if it failed.
pub fn measured(trial: &Trial) -> Option<&Measured> {
    match &trial.outcome {
        Outcome::Measured(measured) => Some(measured),
        Outcome::Failed { .. } => None,
    }
}

/// Why a trial says nothing about the server, if so.
pub fn invalid(measured: &Measured) -> Option<&str> {
    let of_schedule = measured.load.open_loop.as_ref().and_then(|open| open.invalid.as_deref());
    measured.load.invalid.as_deref().or(of_schedule)
}

/// An amount of the window per request.
pub fn per_request(measured: &Measured, amount: u64) -> Option<f64> {
    (measured.load.requests > 0).then(|| amount as f64 / measured.load.requests as f64)
}

/// Share of its cores that the server used.
pub fn server_share(results: &Results, measured: &Measured) -> f64 {
    let cores = results.settings.server_cores.len().max(1) as f64;
    measured.server.cpu_us as f64 / 1e6 / measured.load.duration_s / cores
}

/// Share of its core that the client used.
pub fn client_share(measured: &Measured) -> f64 {
    measured.load.client_cpu_us as f64 / 1e6 / measured.load.duration_s
}

/// Voluntary and involuntary context switches per request. If threads ended, the kernel has
/// forgotten their switches; then the totals of the process (wait4) and the server's own count of
/// requests are used.
pub fn switches(measured: &Measured) -> Option<(f64, f64)> {
    let server = &measured.server;
    let live = || {
        let voluntary = per_request(measured, server.voluntary_switches)?;
        Some((voluntary, per_request(measured, server.involuntary_switches)?))
    };
    whole_life_switches(measured).or_else(live)
}

/// The same from the totals of the process, if those of the window would be lower bounds.
pub fn whole_life_switches(measured: &Measured) -> Option<(f64, f64)> {
    // Over a WebSocket server and client count different things.
    let messages = measured.load.protocol == Protocol::WebSocket;
    if measured.server.threads_changed == 0 || messages {
        return None;
    }
    let exit = &measured.exit;
    let requests = exit.counters.as_ref()?.get("requests")?.as_u64().filter(|&n| n > 0)? as f64;
    Some((exit.voluntary_switches as f64 / requests, exit.involuntary_switches as f64 / requests))
}

/// System calls per request, over all counting passes of a cell; `None` without one.
pub fn calls<'a>(trials: impl Iterator<Item = &'a Trial>) -> Option<CallsPerRequest> {
    let counted: Vec<(&Calls, u64)> = trials
        .filter_map(measured)
        .filter_map(|m| Some((m.calls.as_ref()?, m.load.requests)))
        .filter(|(_, requests)| *requests > 0)
        .collect();
    let requests: u64 = counted.iter().map(|(_, requests)| requests).sum();
    let share = |count: u64| count as f64 / requests as f64;
    let by_name = |names: fn(&Calls) -> &BTreeMap<String, u64>| {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, count) in counted.iter().flat_map(|(calls, _)| names(calls)) {
            *sums.entry(name).or_default() += count;
        }
        let mut shares: Vec<_> =
            sums.into_iter().map(|(name, count)| (name.to_owned(), share(count))).collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares
    };
    (requests > 0).then(|| CallsPerRequest {
        total: share(counted.iter().map(|(calls, _)| calls.total).sum()),
        by_name: by_name(|calls| &calls.by_name),
        ring_operations: share(counted.iter().map(|(calls, _)| calls.ring_operations).sum()),
        ring_by_name: by_name(|calls| &calls.ring_by_name),
    })
}

/// Merges the histograms of all rounds, because percentiles cannot be averaged. `None` if one
/// cannot be read, since the rest would be another distribution.
pub fn merged<'a>(histograms: impl Iterator<Item = &'a str>) -> Option<Histogram<u64>> {
    let mut merged: Option<Histogram<u64>> = None;
    for encoded in histograms {
        let bytes = STANDARD.decode(encoded).ok()?;
        let mut one: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).ok()?;
        // A decoded histogram has the range of its own values; a later one may exceed it.
        one.auto(true);
        match &mut merged {
            Some(sum) => sum.add(one).ok()?,
            None => merged = Some(one),
        }
    }
    merged
}

/// A quantile of a histogram of nanoseconds, in microseconds; `None` with fewer than ten samples
/// above it.
pub fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    let beyond = histogram.len() as f64 * (1.0 - quantile);
    // The tolerance is needed because 0.999 has no exact binary form.
    (beyond >= SAMPLES_BEYOND_MIN - 1e-6)
        .then(|| histogram.value_at_quantile(quantile) as f64 / 1_000.0)
}

/// Figures of an open loop; `None` for a closed loop.
pub fn open_figures(valid: &Rounds, invalid_rounds: u32) -> Option<OpenFigures> {
    let open: Vec<_> =
        valid.values().filter_map(|m| Some((&m.load, m.load.open_loop.as_ref()?))).collect();
    let due: u64 = open.iter().map(|(_, open)| open.due).sum();
    let answered: u64 = open.iter().map(|(load, _)| load.requests).sum();
    let unanswered: u64 = open.iter().map(|(_, open)| open.unanswered).sum();
    let latency = merged(open.iter().map(|(load, _)| load.latency.histogram.as_str()));
    let lag = merged(open.iter().map(|(_, open)| open.send_lag.histogram.as_str()));
    let from_send = merged(open.iter().map(|(_, open)| open.from_send.histogram.as_str()));
    let of = |histogram: &Option<Histogram<u64>>, quantile| {
        histogram.as_ref().and_then(|h| quantile_us(h, quantile))
    };
    Some(OpenFigures {
        offered_per_s: open.first()?.1.rate_per_s,
        answered_share: answered as f64 / due.max(1) as f64,
        unanswered,
        p50_us: of(&latency, 0.5),
        p99_us: of(&latency, 0.99),
        p999_us: of(&latency, 0.999),
        send_lag_p99_us: of(&lag, 0.99),
        from_send_p99_us: of(&from_send, 0.99),
        valid_rounds: open.len() as u32,
        invalid_rounds,
    })
}

/// Requests/s with two clients, relative to those with one.
pub fn doubled(rounds: &Rounds) -> Option<BlockRatio> {
    let rates = |slices: &Slices| -> Vec<f64> {
        let both = slices.requests.iter().zip(&slices.elapsed_ns);
        both.map(|(requests, elapsed_ns)| *requests as f64 / *elapsed_ns as f64).collect()
    };
    let logs = |measured: &&Measured| -> Vec<f64> {
        let (single, double) = (rates(&measured.doubled.single), rates(&measured.doubled.double));
        let blocks = double.into_iter().zip(single);
        blocks.filter_map(|(double, single)| log_ratio(double, single)).collect()
    };
    BlockRatio::of(&rounds.values().map(logs).collect::<Vec<_>>())
}

/// Memory that `connections` added to a server, per connection.
fn added(before: &MemorySample, after: &MemorySample, connections: u32) -> Option<Memory> {
    if connections == 0 {
        return None;
    }
    let per = |before: f64, after: f64| (after - before) / f64::from(connections);
    let kib = |before: u64, after: u64| per(before as f64, after as f64);
    let kernel = before.kernel_kib.zip(after.kernel_kib);
    Some(Memory {
        user_kib: kib(before.pss_kib, after.pss_kib),
        page_tables_kib: kib(before.page_tables_kib, after.page_tables_kib),
        kernel_stacks_kib: per(f64::from(before.threads), f64::from(after.threads))
            * KERNEL_STACK_KIB,
        kernel_kib: kernel.map(|(before, after)| kib(before, after)),
    })
}

/// The median of each part; kernel memory only if all samples have it.
fn median_memory(samples: &[Memory]) -> Option<Memory> {
    let of = |part: fn(&Memory) -> f64| median(&samples.iter().map(part).collect::<Vec<_>>());
    let kernel: Option<Vec<f64>> = samples.iter().map(|memory| memory.kernel_kib).collect();
    Some(Memory {
        user_kib: of(|memory| memory.user_kib)?,
        page_tables_kib: of(|memory| memory.page_tables_kib)?,
        kernel_stacks_kib: of(|memory| memory.kernel_stacks_kib)?,
        kernel_kib: kernel.and_then(|kib| median(&kib)),
    })
}

/// The idle samples of a model under the workloads that `of` selects.
pub fn idle_samples<'a>(
    results: &'a Results,
    model: &str,
    of: &dyn Fn(&Workload) -> bool,
) -> impl Iterator<Item = IdleSample> + use<'a> {
    let names: Vec<&str> =
        results.workloads.iter().filter(|w| of(w)).map(|w| w.name.as_str()).collect();
    let model = model.to_owned();
    let wanted = move |trial: &&Trial| {
        let slot = &trial.slot;
        slot.model == model
            && slot.role != Role::Counting
            && names.contains(&slot.workload.as_str())
    };
    results.trials.iter().filter(wanted).filter_map(|trial| measured(trial)?.idle)
}

/// Cost of idle connections over HTTP/1.1 (or echo) without TLS: memory from the samples with the
/// most connections, CPU and wake-ups from all.
pub fn cost(results: &Results, model: &str) -> Option<Cost> {
    let samples = idle_samples(results, model, &is_plain);
    let connections = samples.map(|sample| sample.connections).max()?;
    cost_at(results, model, &is_plain, connections)
}

/// Whether a workload has neither frames nor TLS.
pub fn is_plain(workload: &Workload) -> bool {
    !workload.tls && matches!(workload.protocol, Protocol::Echo | Protocol::Http1)
}

/// The same of the workloads that `of` selects; memory from the samples with this number of
/// connections.
pub fn cost_at(
    results: &Results,
    model: &str,
    of: &dyn Fn(&Workload) -> bool,
    connections: u32,
) -> Option<Cost> {
    let samples: Vec<IdleSample> = idle_samples(results, model, of).collect();
    let these = samples.iter().filter(|sample| sample.connections == connections);
    let memory = these.filter_map(|s| added(&s.memory_before, &s.memory, connections));
    let memory = median_memory(&memory.collect::<Vec<_>>())?;
    let per_second = |amount: fn(&IdleSample) -> f64| {
        median(&samples.iter().map(|s| amount(s) / s.duration_s).collect::<Vec<_>>())
    };
    Some(Cost {
        connections,
        memory,
        idle_busy: per_second(|s| s.cpu_us as f64 / 1e6)?,
        wake_ups_per_s: per_second(|s| s.wake_ups as f64)?,
    })
}

/// Figures of a fan-out; `None` otherwise.
pub fn fan_out(rounds: &Rounds) -> Option<FanOutFigures> {
    let loads = || rounds.values().filter_map(|m| Some((&m.load, m.load.fan_out.as_ref()?)));
    let members = loads().next()?.1.members;
    let rates: Vec<f64> =
        loads().map(|(load, chat)| chat.messages as f64 / load.duration_s).collect();
    let latency = merged(loads().map(|(load, _)| load.latency.histogram.as_str()));
    let of = |quantile| latency.as_ref().and_then(|h| quantile_us(h, quantile));
    Some(FanOutFigures {
        members,
        messages_per_s: median(&rates)?,
        p50_us: of(0.5),
        p99_us: of(0.99),
        p999_us: of(0.999),
    })
}

/// What TLS adds to a cell; `None` without it.
pub fn tls(rounds: &Rounds) -> Option<TlsFigures> {
    let loads = || rounds.values().filter_map(|m| Some((m.load.duration_s, m.load.tls.as_ref()?)));
    let first = loads().next()?.1;
    let per_second = |count: fn(&TlsOutcome) -> u64| {
        let rates: Vec<f64> = loads().map(|(s, tls)| count(tls) as f64 / s).collect();
        median(&rates)
    };
    let handshakes = merged(loads().map(|(_, tls)| tls.handshake.histogram.as_str()));
    let of = |quantile| handshakes.as_ref().and_then(|h| quantile_us(h, quantile));
    Some(TlsFigures {
        version: first.version.clone(),
        cipher_suite: first.cipher_suite.clone(),
        alpn: first.alpn.clone(),
        full_per_s: per_second(|tls| tls.handshakes_full)?,
        resumed_per_s: per_second(|tls| tls.handshakes_resumed)?,
        p50_us: of(0.5),
        p99_us: of(0.99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_of_ended_threads_come_from_the_whole_life() {
        let mut measured = fixture::measured(1_000, 5.0, 0.5);
        assert_eq!(switches(&measured), Some((0.1, 0.0)));
        measured.server.threads_changed = 3;
        measured.exit.voluntary_switches = 4_000;
        measured.exit.involuntary_switches = 1_000;
        measured.exit.counters = Some(serde_json::json!({ "requests": 2_000 }));
        assert_eq!(switches(&measured), Some((2.0, 0.5)));
        measured.exit.counters = None;
        assert_eq!(switches(&measured), Some((0.1, 0.0)));
    }

    #[test]
    fn percentiles_need_ten_samples_beyond_and_come_from_the_merged_histogram() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        histogram.record_n(1_000, 999).unwrap();
        assert_eq!(quantile_us(&histogram, 0.99), None);
        histogram.record_n(1_000_000, 1).unwrap();
        assert_eq!(quantile_us(&histogram, 0.99), Some(1.0));
        assert_eq!(quantile_us(&histogram, 0.999), None);
        // One round at 10 us, one at 1,000 us with as many requests: the mean of the two medians
        // would be 505 us, which no request took.
        let (fast, slow) = (fixture::latency(10.0, 5_000), fixture::latency(1_000.0, 5_000));
        let both = merged([fast.histogram.as_str(), slow.histogram.as_str()].into_iter()).unwrap();
        assert_eq!(both.len(), 10_000);
        assert!((quantile_us(&both, 0.5).unwrap() - 10.0).abs() < 0.1);
        assert!((quantile_us(&both, 0.99).unwrap() - 1_000.0).abs() < 2.0);
        assert_eq!(merged(["no histogram"].into_iter()), None);
    }

    #[test]
    fn kernel_memory_is_what_the_cgroup_saw_and_nothing_where_it_saw_nothing() {
        let before =
            MemorySample { pss_kib: 100, page_tables_kib: 10, threads: 1, kernel_kib: Some(50) };
        let after =
            MemorySample { pss_kib: 300, page_tables_kib: 20, threads: 11, kernel_kib: Some(350) };
        let memory = added(&before, &after, 10).unwrap();
        assert_eq!((memory.user_kib, memory.kernel_kib), (20.0, Some(30.0)));
        assert_eq!((memory.page_tables_kib, memory.kernel_stacks_kib), (1.0, 16.0));
        let unseen = MemorySample { kernel_kib: None, ..before };
        assert_eq!(added(&unseen, &after, 10).unwrap().kernel_kib, None);
        assert_eq!(added(&before, &after, 0), None);
    }
}
