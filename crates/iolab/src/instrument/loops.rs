//! Verification, and the two kinds of load.

use std::ops::RangeInclusive;
use std::time::Duration;

use law::omission::{P99, Stall};
use record::{Arrivals, LoadOutcome, OpenLoop, Workload};

use super::lab::{Lab, SHORT, Times};
use super::{Seen, Stop, Trap, ratio};
use render::text::{figure, thousands};
use verdict::statistics::median;
use verdict::summary::{merged, quantile_us};

/// The checks of this file.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "verify-wrong-bytes",
        rule: 1,
        claim: "A server that begins to answer with other bytes, as many as the right ones, is \
                caught at the first of them.",
        expected: "of 40,000 requests, answered rightly by a server until its 20,000th: as many \
                   right replies as it gave, and all others are errors of the kind `wrong`",
        fails_if: "one reply is counted that was not right, or one that was right is not",
        takes_s: 1.0,
        check: wrong_bytes,
    },
    Trap {
        name: "starved-connections",
        rule: 1,
        claim: "A server that serves 64 of 1,024 connections and lets the others wait is caught, \
                though its rate looks fine.",
        expected: "960 connections without progress; none at a server that serves all",
        fails_if: "a connection that got nothing is missed, or one that was served is not",
        takes_s: 2.0,
        check: starved,
    },
    Trap {
        name: "littles-law",
        rule: 4,
        claim: "Rate, mean latency and requests on their way, measured apart, agree (Little), and \
                with the truth where a server answers after 20 ms.",
        expected: "rate x mean latency / requests on their way within 0.97-1.03, closed loop with \
                   1, 16 and 64 connections and open loop (medians of 3 windows); 8 connections at \
                   20 ms: p50 and p99 of 20-22 ms (a server's timer has steps of 1 ms), and as \
                   many requests/s as 8 connections have in that time",
        fails_if: "requests are counted that have no latency or the other way round, 3 % of either \
                   are lost, or a clock runs 5 % wrong",
        takes_s: 8.0,
        check: little,
    },
    Trap {
        name: "coordinated-omission",
        rule: 5,
        claim: "A server that answers nobody for 0.7 s, once, is seen by latency from the due \
                time and hidden by latency from the send.",
        expected: "p99 from the due time 0.6-0.75 s, as the length of the stall has it; from the \
                   send < 0.1 s",
        fails_if: "latency counts from the send, or what falls due in a stall is not asked",
        takes_s: 3.0,
        check: omission,
    },
    Trap {
        name: "send-lag",
        rule: 5,
        claim: "A run whose client cannot keep its own schedule says so, instead of calling its \
                own lateness the server's.",
        expected: "at a million requests/s the run is declared invalid, with the reason; at 5,000 \
                   most of three windows are not",
        fails_if: "a client that falls behind is not noticed, or one that does not is accused",
        takes_s: 3.0,
        check: send_lag,
    },
    Trap {
        name: "percentile-merge",
        rule: 11,
        claim: "The mean of several 99th percentiles is no 99th percentile; that of the merged \
                histograms is.",
        expected: "of eight windows, in one of which the server stalls: 0.8-1.2 % of all requests \
                   lie beyond the merged p99, and not beyond the p99s' mean",
        fails_if: "percentiles are averaged, or histograms lose samples when they are merged",
        takes_s: 5.0,
        check: percentiles,
    },
];

/// Requests due per second where the number only has to be known in advance: a fifth of what any
/// server here can do.
const RATE_KNOWN_PER_S: u32 = 5_000;

fn wrong_bytes(lab: &mut Lab) -> Result<Seen, Stop> {
    const RIGHT: u64 = 20_000;
    const ASKED: u64 = 40_000;
    let server = lab.found(&format!("faulty+fault=wrong+fault-after={RIGHT}"))?;
    let workload = lab.workload("http-keepalive")?;
    let server = lab.start(&server, &workload)?;
    let mut plan = lab.plan(server.address, "/", Times { warm_up_s: 0.0, ..SHORT })?;
    plan.length = load::Length::Requests(ASKED);
    let load = load::run(&plan, &mut load::Silent)?;
    let counters = server.stop().counters.unwrap_or_default();
    let answered = counters["requests"].as_u64().unwrap_or(0);
    let wrong = load.errors_by_kind.wrong;
    // The client asks some times before it begins, to learn the right answer.
    let probes = answered.saturating_sub(ASKED);
    let holds =
        load.requests == RIGHT - probes && wrong == load.errors && load.requests + wrong == ASKED;
    let n = |count: u64| thousands(count as f64);
    Ok(Seen::new(
        holds,
        format!(
            "{} right and {} wrong of {} replies; the first error: {}",
            n(load.requests),
            n(wrong),
            n(answered),
            load.first_error.unwrap_or_default()
        ),
    )
    .figure("right_replies", load.requests as f64)
    .figure("wrong_replies", wrong as f64)
    .wrong("replies counted, whatever they say", format!("{} requests, 0 errors", n(answered)))
    .right("every reply compared", format!("{} errors", n(wrong))))
}

fn starved(lab: &mut Lab) -> Result<Seen, Stop> {
    const CONNECTIONS: u32 = 1_024;
    const ADMITTED: u32 = 64;
    let workload = Workload { connections: CONNECTIONS, ..lab.workload("http-keepalive")? };
    let mut found = lab.found("floor")?;
    let full = lab.window(&found, &workload, SHORT)?;
    found.model.arguments.extend(["--conns-max".to_owned(), ADMITTED.to_string()]);
    let few = lab.window(&found, &workload, SHORT)?;
    let (stuck, none) = (few.connections_without_progress, full.connections_without_progress);
    let rates = ratio(few.requests_per_s, full.requests_per_s)?;
    Ok(Seen::new(
        stuck == CONNECTIONS - ADMITTED && none == 0,
        format!("{stuck} without progress, and {none} where all are served"),
    )
    .figure("connections_without_progress", f64::from(stuck))
    .figure("rate_ratio_to_all_served", rates)
    .wrong(
        "the rate alone",
        format!(
            "{} requests/s, {} x that of the server that serves all",
            thousands(few.requests_per_s),
            figure(rates)
        ),
    )
    .right("progress of each connection", format!("{stuck} of {CONNECTIONS} got nothing")))
}

fn little(lab: &mut Lab) -> Result<Seen, Stop> {
    const TOLERANCE: f64 = 0.03;
    const WINDOWS: usize = 3;
    let floor = lab.found("floor")?;
    let base = lab.workload("http-keepalive")?;
    let closed = |connections| Workload { connections, ..base.clone() };
    let cases = [
        ("closed_1", closed(1)),
        ("closed_16", closed(16)),
        ("closed_64", closed(64)),
        ("open_20000_per_s", open(base.clone(), 20_000)),
    ];
    let mut seen = Vec::new();
    for (name, workload) in cases {
        let mut ratios = Vec::new();
        for _ in 0..WINDOWS {
            let load = lab.window(&floor, &workload, Times { warm_up_s: 0.05, window_s: 0.3 })?;
            let in_flight = load.requests_per_s * load.latency.mean_us / 1e6;
            ratios.push(ratio(in_flight, load.mean_in_flight)?);
        }
        seen.push((name, median(&ratios).unwrap_or(0.0)));
    }
    let (delayed, told) = at_20_ms(lab, &base)?;
    let holds = delayed && seen.iter().all(|(_, ratio)| (ratio - 1.0).abs() <= TOLERANCE);
    let ratios: Vec<_> =
        seen.iter().map(|(name, ratio)| format!("{} {ratio:.3}", name.replace('_', " "))).collect();
    let all = Seen::new(holds, format!("{}; at 20 ms {told}", ratios.join(", ")));
    Ok(seen.iter().fold(all, |all, (name, ratio)| all.figure(&format!("{name}_ratio"), *ratio)))
}

/// A server that answers after 20 ms: whether what the client says is that, and what it says.
fn at_20_ms(lab: &Lab, base: &Workload) -> Result<(bool, String), Stop> {
    const CONNECTIONS: u32 = 8;
    /// What the server says, and a step of its timer and a wake-up more.
    const DELAY_US: RangeInclusive<f64> = 20_000.0..=22_000.0;
    let path = Some("/delay/20".to_owned());
    let delayed = Workload { connections: CONNECTIONS, path, ..base.clone() };
    let times = Times { warm_up_s: 0.1, window_s: 4.0 };
    let load = lab.window(&lab.found("epoll")?, &delayed, times)?;
    let p99_us = load.latency.p99_us.unwrap_or(0.0);
    let near = |us: f64| DELAY_US.contains(&us);
    let each_us = f64::from(CONNECTIONS) * 1e6 / load.requests_per_s;
    let told = format!(
        "{} requests/s, p50 {} us, p99 {} us",
        figure(load.requests_per_s),
        figure(load.latency.p50_us),
        figure(p99_us)
    );
    Ok((near(each_us) && near(load.latency.p50_us) && near(p99_us), told))
}

fn omission(lab: &mut Lab) -> Result<Seen, Stop> {
    let times = Times { warm_up_s: 0.2, window_s: 2.0 };
    let Times { warm_up_s, window_s } = times;
    let length = Duration::from_millis(700);
    let stall = Stall { rate_per_s: 2_000, length, warm_up_s, window_s };
    let workload = stall.workload(lab.workload("http-keepalive")?);
    let load = lab.window(&lab.found(&stall.label())?, &workload, times)?;
    let P99 { due_us: due, send_us: send } = Stall::p99(&load).map_err(Stop::Wrong)?;
    let ms = |us: f64| format!("{} ms", figure(us / 1e3));
    // A third of what was due fell into the stall, evenly: of the hundredth that waited longest
    // each has waited for 97 % of it.
    Ok(Seen::new(
        (600e3..=750e3).contains(&due) && send < 100e3,
        format!("p99 {} from the due time, {} from the send", ms(due), ms(send)),
    )
    .figure("due_p99_us", due)
    .figure("send_p99_us", send)
    .wrong("timed from the send", format!("p99 {}", ms(send)))
    .right("timed from when the request was due", format!("p99 {}", ms(due))))
}

fn send_lag(lab: &mut Lab) -> Result<Seen, Stop> {
    /// Requests of a few microseconds each: one core can send no million of them.
    const RATE_IMPOSSIBLE_PER_S: u32 = 1_000_000;
    /// One hiccup of a shared machine may spoil one window, and is rightly told; not most of them.
    const WINDOWS: usize = 3;
    let floor = lab.found("floor")?;
    let base = lab.workload("http-pipelined")?;
    let times = Times { warm_up_s: 0.1, window_s: 0.4 };
    let run = |rate| open_loop(&lab.window(&floor, &open(base.clone(), rate), times)?);
    let beyond = run(RATE_IMPOSSIBLE_PER_S)?;
    let lag = |open: &OpenLoop| open.send_lag.p99_us.unwrap_or(0.0);
    let mut windows = (0..WINDOWS).map(|_| run(RATE_KNOWN_PER_S)).collect::<Result<Vec<_>, _>>()?;
    windows.sort_by(|a, b| lag(a).total_cmp(&lag(b)));
    let valid = windows.iter().filter(|open| open.invalid.is_none()).count();
    let within = &windows[WINDOWS / 2];
    let told = |open: &OpenLoop| match &open.invalid {
        Some(why) => format!("invalid ({why})"),
        None => format!("valid (send lag p99 {} us)", figure(lag(open))),
    };
    Ok(Seen::new(
        beyond.invalid.is_some() && 2 * valid > WINDOWS,
        format!(
            "{} requests/s: {}; {} requests/s, {valid} of {WINDOWS} windows valid: {}",
            thousands(RATE_IMPOSSIBLE_PER_S.into()),
            told(&beyond),
            thousands(RATE_KNOWN_PER_S.into()),
            told(within)
        ),
    )
    .figure("beyond_send_lag_p99_us", lag(&beyond))
    .figure("within_send_lag_p99_us", lag(within)))
}

/// The same workload as an open loop.
fn open(workload: Workload, rate_per_s: u32) -> Workload {
    Workload { rate_per_s: Some(rate_per_s), arrivals: Arrivals::Poisson, ..workload }
}

fn open_loop(load: &LoadOutcome) -> Result<OpenLoop, Stop> {
    load.open_loop.clone().ok_or_else(|| Stop::Wrong("it was no open loop".into()))
}

/// Windows at a known rate, in one of which the server stalls for a moment.
fn percentiles(lab: &mut Lab) -> Result<Seen, Stop> {
    const WINDOWS: usize = 8;
    const STALL_NS: u32 = 60_000_000;
    let times = Times { warm_up_s: 0.1, window_s: 0.4 };
    let after = f64::from(RATE_KNOWN_PER_S) * (times.warm_up_s + times.window_s / 2.0);
    let stalls = format!("faulty+fault=stall+fault-after={after:.0}+fault-ns={STALL_NS}");
    let (good, stalls) = (lab.found("floor")?, lab.found(&stalls)?);
    let workload = open(lab.workload("http-keepalive")?, RATE_KNOWN_PER_S);
    let window = |at| {
        let found = if at == WINDOWS / 2 { &stalls } else { &good };
        Ok(lab.window(found, &workload, times)?.latency)
    };
    let windows = (0..WINDOWS).map(window).collect::<Result<Vec<_>, Stop>>()?;
    let sum_us: f64 = windows.iter().filter_map(|latency| latency.p99_us).sum();
    let mean_us = sum_us / WINDOWS as f64;
    let all = merged(windows.iter().map(|latency| latency.histogram.as_str()))
        .ok_or_else(|| Stop::Wrong("the histograms cannot be read".into()))?;
    let merged_us = quantile_us(&all, 0.99).unwrap_or(0.0);
    // Counted apart from the quantile, in the histogram of each window.
    let beyond = |us: f64| {
        let of = |latency: &record::Latency| merged([latency.histogram.as_str()].into_iter());
        let each = windows
            .iter()
            .filter_map(of)
            .map(|one| (one.count_between((us * 1e3) as u64 + 1, u64::MAX), one.len()));
        let (over, all) = each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        over as f64 / all.max(1) as f64
    };
    let (of_merged, of_mean) = (beyond(merged_us), beyond(mean_us));
    let is_one_percent = |share: f64| (0.008..=0.012).contains(&share);
    let told = |us: f64, share: f64| format!("({} us) lie {:.2} %", figure(us), share * 100.0);
    Ok(Seen::new(
        is_one_percent(of_merged) && !is_one_percent(of_mean),
        format!(
            "beyond the merged p99 {}, beyond the p99s' mean {}",
            told(merged_us, of_merged),
            told(mean_us, of_mean)
        ),
    )
    .figure("merged_p99_us", merged_us)
    .figure("mean_of_p99_us", mean_us)
    .figure("beyond_merged_share", of_merged)
    .figure("beyond_mean_share", of_mean)
    .wrong("mean of the windows' p99s", format!("{} us", figure(mean_us)))
    .right("p99 of the merged histograms", format!("{} us", figure(merged_us))))
}
