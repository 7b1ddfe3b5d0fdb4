//! Other load generators, side by side, against a server that is not saturated.
//!
//! All are closed loops, so against a fast server each measures itself. A server that answers after
//! a fixed time makes both figures the server's: with N connections and D seconds, N / D requests a
//! second, whoever asks, as long as nobody is busy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use load::Silent;

use super::lab::{Lab, Times, go_on, pinned};
use super::{Seen, Stop, Trap, ratio};
use crate::bench::run_briefly;
use crate::statistics::median;
use crate::text::{figure, thousands};

/// The checks of this file.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "wrk-agreement",
        rule: 5,
        claim: "wrk and this client say the same of a server that answers after 20 ms.",
        expected: "requests/s within 2 %, p50 and p99 within 5 % (medians of 5 pairs)",
        takes_s: 42.0,
        check: wrk_agreement,
    },
    Trap {
        name: "h2load-agreement",
        rule: 5,
        claim: "h2load --h1 and this client say the same of a server that answers after 20 ms.",
        expected: "requests/s within 2 %, p50 and p99 within 5 % (medians of 5 pairs)",
        takes_s: 47.0,
        check: h2load_agreement,
    },
];

/// The server's route: an answer after so many milliseconds. Long against what a client adds of its
/// own, which is not the server's: for h2load about 10 us times the connections that are answered
/// together, so that 32 of them were 4 % of 5 ms, and 8 are less than half a percent of this.
const PATH: &str = "/delay/20";
const CONNECTIONS: u32 = 8;
const PAIRS: usize = 5;
const RATE_TOLERANCE: f64 = 0.02;
const LATENCY_TOLERANCE: f64 = 0.05;
/// Nearly 200 rounds of all connections: the one that a window cuts off is half a percent of the
/// rate, and 15 requests lie beyond the 99th percentile.
const WINDOW_S: u32 = 4;
/// Time for another tool to end, beyond its window.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a load generator said.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Said {
    requests_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

fn wrk_agreement(lab: &mut Lab) -> Result<Seen, Stop> {
    agreement(lab, "wrk", "wrk", &|url, _| {
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--latency"]);
        command.args(["--connections", &CONNECTIONS.to_string()]);
        command.args(["--duration", &format!("{WINDOW_S}s"), url]);
        parse_wrk(&said_by(command)?)
    })
}

fn h2load_agreement(lab: &mut Lab) -> Result<Seen, Stop> {
    agreement(lab, "h2load", "nghttp2-client", &|url, log| {
        // It adds to a file that is there.
        let _ = std::fs::remove_file(log);
        let mut command = Command::new("h2load");
        command.args(["--h1", "--threads=1", "--warm-up-time=1"]);
        command.arg(format!("--clients={CONNECTIONS}"));
        command.arg(format!("--duration={WINDOW_S}"));
        command.arg(format!("--log-file={}", log.display())).arg(url);
        let text = said_by(command)?;
        let log = std::fs::read_to_string(log).map_err(|e| format!("its log: {e}"))?;
        parse_h2load(&text, &log)
    })
}

/// Alternates the other tool and this client on one running server, and compares the medians.
fn agreement(
    lab: &Lab,
    tool: &str,
    package: &str,
    run: &dyn Fn(&str, &Path) -> Result<Said, String>,
) -> Result<Seen, Stop> {
    if !is_installed(tool) {
        return Err(Stop::Skip(format!("{tool} is not installed: apt-get install {package}")));
    }
    let server = lab.start(&lab.subject("epoll")?, "http")?;
    let url = format!("http://{}{PATH}", server.address);
    let times = Times { warm_up_s: 0.2, window_s: f64::from(WINDOW_S) };
    let log = lab.folder().join("h2load.log");
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..PAIRS {
        for first in [round % 2 == 0, round % 2 != 0] {
            go_on()?;
            if first {
                let said = pinned(lab.client_core(), || run(&url, &log))?;
                theirs.push(said.map_err(|why| Stop::Wrong(format!("{tool}: {why}")))?);
            } else {
                ours.push(our_own(lab, server.address, times)?);
            }
        }
    }
    server.stop();
    compare(tool, &medians(&ours), &medians(&theirs))
}

fn our_own(lab: &Lab, address: std::net::SocketAddr, times: Times) -> Result<Said, Stop> {
    let mut plan = lab.plan(address, PATH, times)?;
    plan.connections = CONNECTIONS;
    let load = load::run(&plan, &mut Silent).map_err(|error| Stop::Wrong(error.to_string()))?;
    if load.errors > 0 {
        return Err(Stop::Wrong(format!("{} errors: {:?}", load.errors, load.first_error)));
    }
    let p99_us = load.latency.p99_us.ok_or_else(|| Stop::Wrong("too few requests".into()))?;
    let (requests_per_s, p50_us) = (load.requests_per_s, load.latency.p50_us);
    Ok(Said { requests_per_s, p50_us, p99_us })
}

fn medians(said: &[Said]) -> Said {
    let of =
        |pick: fn(&Said) -> f64| median(&said.iter().map(pick).collect::<Vec<_>>()).unwrap_or(0.0);
    Said {
        requests_per_s: of(|s| s.requests_per_s),
        p50_us: of(|s| s.p50_us),
        p99_us: of(|s| s.p99_us),
    }
}

fn compare(tool: &str, ours: &Said, theirs: &Said) -> Result<Seen, Stop> {
    let rate = ratio(ours.requests_per_s, theirs.requests_per_s)?;
    let (p50, p99) = (ratio(ours.p50_us, theirs.p50_us)?, ratio(ours.p99_us, theirs.p99_us)?);
    let within = |ratio: f64, tolerance: f64| (ratio - 1.0).abs() <= tolerance;
    let told = |said: &Said| {
        format!(
            "{} requests/s, p50 {} us, p99 {} us",
            thousands(said.requests_per_s),
            figure(said.p50_us),
            figure(said.p99_us)
        )
    };
    Ok(Seen::new(
        within(rate, RATE_TOLERANCE)
            && within(p50, LATENCY_TOLERANCE)
            && within(p99, LATENCY_TOLERANCE),
        format!(
            "here {}; {tool} {}; ratios {rate:.3}, {p50:.3}, {p99:.3}",
            told(ours),
            told(theirs)
        ),
    )
    .figure("requests_ratio", rate)
    .figure("p50_ratio", p50)
    .figure("p99_ratio", p99))
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

fn said_by(command: Command) -> Result<String, String> {
    let said = run_briefly(command, Duration::from_secs(u64::from(2 * WINDOW_S)) + PATIENCE)?;
    match said.code {
        Some(0) => Ok(said.stdout),
        _ => Err(format!("it failed: {}{}", said.stdout.trim(), said.stderr.trim())),
    }
}

/// wrk's summary; times carry their unit: `50%    5.07ms`.
fn parse_wrk(text: &str) -> Result<Said, String> {
    let after = |word: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(word));
        line.and_then(|line| line.split_whitespace().nth(1)).ok_or(format!("no {word} in: {text}"))
    };
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("it saw errors: {text}"));
    }
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    let time_us = |text: &str| {
        let digits = text.trim_end_matches(char::is_alphabetic);
        let unit_us = match &text[digits.len()..] {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            _ => return Err(format!("{text:?} is no time")),
        };
        number(digits).map(|value: f64| value * unit_us)
    };
    Ok(Said {
        requests_per_s: number(after("Requests/sec:")?)?,
        p50_us: time_us(after("50%")?)?,
        p99_us: time_us(after("99%")?)?,
    })
}

/// h2load's summary (`finished in 1.00s, 6250.00 req/s, ...`) and its log: per request the start in
/// microseconds, the status, the time taken in microseconds.
fn parse_h2load(text: &str, log: &str) -> Result<Said, String> {
    let line = text.lines().find(|line| line.starts_with("finished in"));
    let rate = line.and_then(|line| line.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok());
    let requests_per_s = rate.ok_or(format!("no req/s in: {text}"))?;
    let mut times_us = Vec::new();
    for line in log.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        match fields[..] {
            [_, "200", time] => {
                times_us.push(time.parse().map_err(|_| format!("{time:?} is no time"))?);
            }
            _ => return Err(format!("its log says {line:?}")),
        }
    }
    times_us.sort_unstable_by(f64::total_cmp);
    // Nearest rank: the smallest value with at least so many below or equal.
    let rank = |quantile: f64| (quantile * times_us.len() as f64).ceil() as usize;
    let at = |quantile: f64| times_us.get(rank(quantile).max(1) - 1).copied();
    let (Some(p50_us), Some(p99_us)) = (at(0.5), at(0.99)) else {
        return Err("its log is empty".into());
    };
    Ok(Said { requests_per_s, p50_us, p99_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n  \
                    Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
                    Latency     5.20ms  300.00us   8.00ms   90.00%\n  Latency Distribution\n     \
                    50%    5.07ms\n     75%    5.20ms\n     90%  950.00us\n     99%    1.01s\n  \
                    6321 requests in 1.01s, 0.90MB read\nRequests/sec:   6258.41\n";
        let said = parse_wrk(text).unwrap();
        assert!((said.p50_us - 5_070.0).abs() < 1e-6 && (said.p99_us - 1_010_000.0).abs() < 1e-6);
        assert_eq!(said.requests_per_s, 6258.41);
        assert!(parse_wrk(&text.replace("6321", "Socket errors: 1")).is_err());
        assert!(parse_wrk("unable to connect").is_err());
    }

    #[test]
    fn h2load_is_read() {
        let text = "starting benchmark...\nfinished in 1.00s, 6250.00 req/s, 1.00MB/s\n";
        let log: String = (1..=200).rev().map(|us| format!("17\t200\t{us}\n")).collect();
        let said = parse_h2load(text, &log).unwrap();
        assert_eq!((said.requests_per_s, said.p50_us, said.p99_us), (6250.0, 100.0, 198.0));
        assert!(parse_h2load(text, "17\t500\t3\n").is_err());
        assert!(parse_h2load(text, "").is_err());
    }

    #[test]
    fn agreement_is_judged_by_its_bounds() {
        let said = |rate, p99_us| Said { requests_per_s: rate, p50_us: 5_000.0, p99_us };
        assert!(compare("wrk", &said(1.01, 104.0), &said(1.0, 100.0)).unwrap().holds);
        assert!(!compare("wrk", &said(1.03, 100.0), &said(1.0, 100.0)).unwrap().holds);
        assert!(!compare("wrk", &said(1.0, 94.0), &said(1.0, 100.0)).unwrap().holds);
    }
}
