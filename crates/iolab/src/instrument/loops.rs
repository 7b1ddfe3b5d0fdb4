//! Verification, and the two kinds of load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use record::{Arrivals, Measured, Workload};

use super::lab::{Lab, SHORT, Times, go_on};
use super::{Seen, Stop, Trap, ratio};
use crate::doubt::Doubt;
use crate::statistics::median;
use crate::summary::{Figures, summarise};
use crate::text::{figure, thousands};

/// The checks of this file.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "verify-wrong-bytes",
        rule: 1,
        claim: "A server that begins to answer with other bytes, as many as the right ones, is \
                caught, and has no rank.",
        expected: "errors > 0, of the kind `wrong`, and a doubt that takes the rank away",
        takes_s: 3.5,
        check: wrong_bytes,
    },
    Trap {
        name: "starved-connections",
        rule: 1,
        claim: "A server that serves 64 of 1,024 connections and lets the others wait is caught, \
                though its rate looks fine.",
        expected: "960 connections without progress, and a doubt that takes the rank away",
        takes_s: 3.0,
        check: starved,
    },
    Trap {
        name: "littles-law",
        rule: 4,
        claim: "Rate, mean latency and requests on their way, measured apart, agree (Little).",
        expected: "rate x mean latency / requests on their way within 0.95-1.05, closed loop with \
                   1, 16 and 64 connections and open loop (medians of 3 windows)",
        takes_s: 5.0,
        check: little,
    },
    Trap {
        name: "coordinated-omission",
        rule: 5,
        claim: "A server that answers nobody for 1.4 s, once, is seen by latency from the due \
                time and hidden by latency from the send.",
        expected: "p99 from the due time >= 50 x p99 from the send",
        takes_s: 5.0,
        check: omission,
    },
    Trap {
        name: "send-lag",
        rule: 5,
        claim: "A run whose client cannot keep its own schedule says so, instead of calling its \
                own lateness the server's.",
        expected: "the run is declared invalid, with the reason; and most of three windows at a \
                   rate that every server here can do are not",
        takes_s: 3.0,
        check: send_lag,
    },
];

/// Requests due per second where the number only has to be known in advance: a fifth of what any
/// server here can do.
const RATE_KNOWN_PER_S: u32 = 5_000;

fn wrong_bytes(lab: &mut Lab) -> Result<Seen, Stop> {
    // At a known rate: warm-up and probe are right, most of the window is wrong.
    let times = Times { window_s: 0.8, ..SHORT };
    let workload = open(lab.workload("http-keepalive")?, RATE_KNOWN_PER_S);
    let after = f64::from(RATE_KNOWN_PER_S) * (times.warm_up_s + times.window_s / 8.0);
    let subjects = [
        lab.subject("faulty+fault=none")?,
        lab.subject(&format!("faulty+fault=wrong+fault-after={after:.0}"))?,
    ];
    let results = lab.bench(&subjects, &workload, 1, times, lab.seed())?;
    let summary = summarise(&results);
    let label = &subjects[1].model.label;
    let wrong = |m: &Measured| m.load.errors_by_kind.wrong;
    let errors: u64 = measured(&results, label).map(wrong).sum();
    let figures = figures_of(&summary, label)?;
    let unranked = figures.doubts.iter().any(|d| matches!(d, Doubt::Errors(_)) && d.unranks());
    let server = lab.start(&lab.subject("faulty+fault=wrong")?, "http")?;
    let naive_per_s = count_bytes(server.address).map_err(|e| Stop::Wrong(e.to_string()))?;
    server.stop();
    let told = figures.first_error.clone().unwrap_or_default();
    Ok(Seen::new(
        errors > 0 && unranked,
        format!("{} wrong replies, unranked: {unranked}; {told}", thousands(errors as f64)),
    )
    .figure("wrong_replies", errors as f64)
    .figure("naive_requests_per_s", naive_per_s)
    .wrong(
        "a client that counts bytes, one connection",
        format!("{} requests/s, 0 errors", thousands(naive_per_s)),
    )
    .right("every reply compared", format!("{} errors, unranked", thousands(errors as f64))))
}

/// What a client says that takes every 13 bytes behind a head for an answer, in requests/s.
fn count_bytes(address: SocketAddr) -> std::io::Result<f64> {
    const TIME: Duration = Duration::from_millis(200);
    const BODY_BYTES: usize = 13;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_nodelay(true)?;
    let (begin, mut replies) = (Instant::now(), 0_u32);
    let mut reply = Vec::new();
    while begin.elapsed() < TIME {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        reply.clear();
        let ends = |reply: &[u8]| {
            let head = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            head.is_some_and(|head| reply.len() >= head + 4 + BODY_BYTES)
        };
        while !ends(&reply) {
            let mut bytes = [0; 256];
            let read = stream.read(&mut bytes)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            reply.extend_from_slice(&bytes[..read]);
        }
        replies += 1;
    }
    Ok(f64::from(replies) / begin.elapsed().as_secs_f64())
}

fn starved(lab: &mut Lab) -> Result<Seen, Stop> {
    const CONNECTIONS: u32 = 1_024;
    const ADMITTED: u32 = 64;
    let full = lab.subject("floor")?;
    let mut few = full.called("admits-64");
    few.model.arguments.extend(["--conns-max".to_owned(), ADMITTED.to_string()]);
    let workload = Workload { connections: CONNECTIONS, ..lab.workload("http-keepalive")? };
    let results = lab.bench(&[full, few], &workload, 1, SHORT, lab.seed())?;
    let summary = summarise(&results);
    let stuck: Vec<u32> =
        measured(&results, "admits-64").map(|m| m.load.connections_without_progress).collect();
    let (few, full) = (figures_of(&summary, "admits-64")?, figures_of(&summary, "floor")?);
    let unranked =
        few.doubts.iter().any(|d| matches!(d, Doubt::WithoutProgress(..)) && d.unranks());
    let stuck = stuck.first().copied().unwrap_or(0);
    let ratio = ratio(few.rate.median, full.rate.median)?;
    Ok(Seen::new(
        stuck == CONNECTIONS - ADMITTED && unranked,
        format!("{stuck} without progress, unranked: {unranked}"),
    )
    .figure("connections_without_progress", f64::from(stuck))
    .figure("rate_ratio_to_all_served", ratio)
    .wrong(
        "the rate alone",
        format!(
            "{} requests/s, {} x that of the server that serves all",
            thousands(few.rate.median),
            figure(ratio)
        ),
    )
    .right("progress of each connection", format!("{stuck} of {CONNECTIONS} got nothing")))
}

fn little(lab: &mut Lab) -> Result<Seen, Stop> {
    const TOLERANCE: f64 = 0.05;
    const WINDOWS: usize = 3;
    let floor = lab.subject("floor")?;
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
            go_on()?;
            let times = Times { warm_up_s: 0.05, window_s: 0.3 };
            let load = lab.trial(&floor, &workload, times)?.load;
            let in_flight = load.requests_per_s * load.latency.mean_us / 1e6;
            ratios.push(ratio(in_flight, load.mean_in_flight)?);
        }
        seen.push((name, median(&ratios).unwrap_or(0.0)));
    }
    let holds = seen.iter().all(|(_, ratio)| (ratio - 1.0).abs() <= TOLERANCE);
    let told: Vec<_> =
        seen.iter().map(|(name, ratio)| format!("{} {ratio:.3}", name.replace('_', " "))).collect();
    let all = Seen::new(holds, told.join(", "));
    Ok(seen.iter().fold(all, |all, (name, ratio)| all.figure(&format!("{name}_ratio"), *ratio)))
}

fn omission(lab: &mut Lab) -> Result<Seen, Stop> {
    const RATE_PER_S: u32 = 2_000;
    const STALL_NS: u32 = 1_400_000_000;
    const FACTOR_MIN: f64 = 50.0;
    let times = Times { warm_up_s: 0.2, window_s: 4.0 };
    // One second into the window.
    let after = f64::from(RATE_PER_S) * (times.warm_up_s + 1.0);
    let label = format!("faulty+fault=stall+fault-after={after:.0}+fault-ns={STALL_NS}");
    let subject = lab.subject(&label)?;
    let workload =
        Workload { connections: 16, ..open(lab.workload("http-keepalive")?, RATE_PER_S) };
    let load = lab.trial(&subject, &workload, times)?.load;
    let open = load.open_loop.ok_or_else(|| Stop::Wrong("it was no open loop".into()))?;
    let (Some(due), Some(send)) = (load.latency.p99_us, open.from_send.p99_us) else {
        return Err(Stop::Wrong("too few requests for a 99th percentile".into()));
    };
    let factor = ratio(due, send)?;
    let ms = |us: f64| format!("{} ms", figure(us / 1e3));
    Ok(Seen::new(
        factor >= FACTOR_MIN,
        format!("p99 {} from the due time, {} from the send: {factor:.0} x", ms(due), ms(send)),
    )
    .figure("due_p99_us", due)
    .figure("send_p99_us", send)
    .figure("factor", factor)
    .wrong("timed from the send", format!("p99 {}", ms(send)))
    .right("timed from when the request was due", format!("p99 {}", ms(due))))
}

fn send_lag(lab: &mut Lab) -> Result<Seen, Stop> {
    /// Requests of a few microseconds each: one core can send no million of them.
    const RATE_IMPOSSIBLE_PER_S: u32 = 1_000_000;
    /// One hiccup of a shared machine may spoil one window, and is rightly told; not most of them.
    const WINDOWS: usize = 3;
    let floor = lab.subject("floor")?;
    let base = lab.workload("http-pipelined")?;
    let times = Times { warm_up_s: 0.1, window_s: 0.4 };
    let run = |rate| {
        let load = lab.trial(&floor, &open(base.clone(), rate), times)?.load;
        load.open_loop.ok_or_else(|| Stop::Wrong("it was no open loop".into()))
    };
    let beyond = run(RATE_IMPOSSIBLE_PER_S)?;
    let lag = |open: &record::OpenLoop| open.send_lag.p99_us.unwrap_or(0.0);
    let mut windows = (0..WINDOWS).map(|_| run(RATE_KNOWN_PER_S)).collect::<Result<Vec<_>, _>>()?;
    windows.sort_by(|a, b| lag(a).total_cmp(&lag(b)));
    let valid = windows.iter().filter(|open| open.invalid.is_none()).count();
    let within = &windows[WINDOWS / 2];
    let holds = beyond.invalid.is_some() && 2 * valid > WINDOWS;
    let told = |open: &record::OpenLoop| match &open.invalid {
        Some(why) => format!("invalid ({why})"),
        None => format!("valid (send lag p99 {} us)", figure(lag(open))),
    };
    Ok(Seen::new(
        holds,
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
pub fn open(workload: Workload, rate_per_s: u32) -> Workload {
    Workload { rate_per_s: Some(rate_per_s), arrivals: Arrivals::Poisson, ..workload }
}

/// What was measured of one model, over the rounds.
pub fn measured<'a>(
    results: &'a record::Results,
    label: &'a str,
) -> impl Iterator<Item = &'a Measured> {
    let of = results.trials.iter().filter(move |trial| trial.slot.model == label);
    of.filter_map(|trial| match &trial.outcome {
        record::Outcome::Measured(measured) => Some(&**measured),
        record::Outcome::Failed { .. } => None,
    })
}

/// The figures of one model of a bench with one workload.
pub fn figures_of<'a>(
    summary: &'a crate::summary::Summary,
    label: &str,
) -> Result<&'a Figures, Stop> {
    let cell = summary.workloads[0].cells.iter().find(|cell| cell.model == label);
    let cell = cell.ok_or_else(|| Stop::Wrong(format!("{label} is missing in the summary")))?;
    cell.state.as_deref().map_err(|why| Stop::Wrong(format!("{label}: {why}")))
}
