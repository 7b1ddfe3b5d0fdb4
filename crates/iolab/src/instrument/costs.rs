//! The cost ledger: who was the limit, who pays, what looking on costs.

use std::io::pipe;
use std::sync::Arc;
use std::time::Duration;

use load::{Live, Silent};
use record::{Calls, Measured, Workload};

use super::lab::{Lab, SHORT, Subject, Times, cpu_of, go_on};
use super::{Seen, Stop, Trap, ratio};
use crate::bench::{counting, environment};
use crate::load_command::Display;
use crate::statistics::median;
use crate::summary::{BUSY, Figure};
use crate::text::{figure, thousands};

/// The checks of this file.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "who-is-the-limit",
        rule: 4,
        claim: "Under a client that is slower than both, two servers of different cost give the \
                same requests/s; CPU per request tells them apart, the client's share says why.",
        expected: "requests/s within 5 %, CPU per request >= 1.15 x, client busy >= 90 % with both",
        takes_s: 5.0,
        check: limit,
    },
    Trap {
        name: "floor-ceiling",
        rule: 4,
        claim: "A server that parses nothing shows where the client and the machine end: a real \
                server that comes near its rate is not measured by its rate.",
        expected: "epoll's CPU per request >= 1.0 x the floor's (within 3 %, medians of 20 \
                   alternating windows)",
        takes_s: 12.0,
        check: ceiling,
    },
    Trap {
        name: "counting-cost",
        rule: 6,
        claim: "Counting system calls makes the server's requests dearer, so it has a pass of its \
                own.",
        expected: "CPU per request with counting on >= 1.02 x off",
        takes_s: 10.0,
        check: counting_cost,
    },
    Trap {
        name: "idle-axis",
        rule: 7,
        claim: "Without idle connections poll and epoll cost nearly the same; with thousands, \
                poll pays for each of them.",
        expected: "poll's CPU per request / epoll's: 0.75-1.25 at 0 idle, >= 3 at 5,000 idle",
        takes_s: 12.0,
        check: idle_axis,
    },
    Trap {
        name: "mechanism-proof",
        rule: 9,
        claim: "The names of the system calls show what a model waits with.",
        expected: "per request: epoll waits with epoll_wait and never poll, poll the other way \
                   round, uring with io_uring_enter and receives nothing by recv or read",
        takes_s: 8.0,
        check: mechanism,
    },
    Trap {
        name: "progress-cost",
        rule: 13,
        claim: "The live line of a run costs next to nothing, since a thread of its own draws it \
                four times a second; drawn by the engine after every reply it would not.",
        expected: "drawing and publishing together <= 0.1 % of the client's CPU in the window \
                   (median of 3 windows)",
        takes_s: 8.0,
        check: progress,
    },
];

/// Medians over the rounds of two servers, measured alternately.
struct Pair {
    rates: [f64; 2],
    server_us: [f64; 2],
    client_busy: [f64; 2],
}

fn pair(lab: &Lab, subjects: [&Subject; 2], load: &Workload, rounds: u32) -> Result<Pair, Stop> {
    let mut seen: [Vec<Measured>; 2] = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // The one that goes first is not always the same.
        for at in [round as usize % 2, (round as usize + 1) % 2] {
            go_on()?;
            seen[at].push(lab.trial(subjects[at], load, SHORT)?);
        }
    }
    let middle = |figure: &dyn Fn(&Measured) -> f64| {
        [0, 1].map(|at| median(&seen[at].iter().map(figure).collect::<Vec<_>>()).unwrap_or(0.0))
    };
    Ok(Pair {
        rates: middle(&|m| m.load.requests_per_s),
        server_us: middle(&|m| Figure::Server.of(m).unwrap_or(0.0)),
        client_busy: middle(&|m| m.load.client_cpu_us as f64 / 1e6 / m.load.duration_s),
    })
}

fn limit(lab: &mut Lab) -> Result<Seen, Stop> {
    const ROUNDS: u32 = 5;
    const RATE_TOLERANCE: f64 = 0.05;
    const CPU_RATIO_MIN: f64 = 1.15;
    // A connection per request costs the client half as much again as the server, so that there is
    // room for a dearer server below it.
    let workload = lab.workload("http-connect")?;
    let (cheap, dear) = (lab.subject("floor")?, lab.subject("faulty+fault=slow+fault-ns=8000")?);
    let seen = pair(lab, [&cheap, &dear], &workload, ROUNDS)?;
    let rate_ratio = ratio(seen.rates[1], seen.rates[0])?;
    let cpu_ratio = ratio(seen.server_us[1], seen.server_us[0])?;
    let holds = (rate_ratio - 1.0).abs() <= RATE_TOLERANCE
        && cpu_ratio >= CPU_RATIO_MIN
        && seen.client_busy.iter().all(|&busy| busy >= BUSY);
    Ok(Seen::new(
        holds,
        format!(
            "requests/s {} x, CPU per request {} x, client busy {:.0} % and {:.0} %",
            figure(rate_ratio),
            figure(cpu_ratio),
            seen.client_busy[0] * 100.0,
            seen.client_busy[1] * 100.0
        ),
    )
    .figure("rate_ratio", rate_ratio)
    .figure("cpu_ratio", cpu_ratio)
    .figure("client_busy_share", seen.client_busy[0].min(seen.client_busy[1]))
    .wrong(
        "requests/s alone",
        format!("{} and {}: equal", thousands(seen.rates[0]), thousands(seen.rates[1])),
    )
    .right(
        "server CPU per request",
        format!("{} and {} us", figure(seen.server_us[0]), figure(seen.server_us[1])),
    ))
}

fn ceiling(lab: &mut Lab) -> Result<Seen, Stop> {
    /// The difference is a tenth, and a window's CPU per request moves by as much (client and
    /// server fall into step, or out of it), so the medians are of many windows.
    const ROUNDS: u32 = 20;
    const CPU_RATIO_MIN: f64 = 0.97;
    let workload = lab.workload("http-keepalive")?;
    let (floor, epoll) = (lab.subject("floor")?, lab.subject("epoll")?);
    let seen = pair(lab, [&floor, &epoll], &workload, ROUNDS)?;
    let rate_ratio = ratio(seen.rates[1], seen.rates[0])?;
    let cpu_ratio = ratio(seen.server_us[1], seen.server_us[0])?;
    Ok(Seen::new(
        cpu_ratio >= CPU_RATIO_MIN,
        format!(
            "epoll: requests/s {} x the floor's, CPU per request {} x; client busy {:.0} %",
            figure(rate_ratio),
            figure(cpu_ratio),
            seen.client_busy[1] * 100.0
        ),
    )
    .figure("rate_ratio", rate_ratio)
    .figure("cpu_ratio", cpu_ratio)
    .wrong("requests/s alone", format!("{} x of doing nothing", figure(rate_ratio)))
    .right("CPU per request", format!("{} x the floor's", figure(cpu_ratio))))
}

fn can_count() -> Result<(), Stop> {
    counting::unavailable().map_or(Ok(()), |why| Err(Stop::Skip(why.to_string())))
}

fn counting_cost(lab: &mut Lab) -> Result<Seen, Stop> {
    const ROUNDS: usize = 5;
    const RATIO_MIN: f64 = 1.02;
    can_count()?;
    let subject = lab.subject("epoll")?;
    let workload = lab.workload("http-keepalive")?;
    let us = |measured: &Measured| Figure::Server.of(measured).unwrap_or(0.0);
    let (mut off, mut on, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    // Between the two kinds the kernel takes the tracepoints out, which takes two seconds: so they
    // come in the order off, on, off.
    for counted in [false, true, false] {
        for _ in 0..if counted { 2 * ROUNDS } else { ROUNDS } {
            go_on()?;
            if !counted {
                off.push(us(&lab.trial(&subject, &workload, SHORT)?));
                continue;
            }
            let measured = lab.counted(&subject, &workload, SHORT)?;
            on.push(us(&measured));
            calls.extend(per_request(&measured, |calls| calls.total));
        }
        counting::end_pass();
    }
    let (off, on) = (median(&off).unwrap_or(0.0), median(&on).unwrap_or(0.0));
    let (ratio, calls) = (ratio(on, off)?, median(&calls).unwrap_or(0.0));
    let each_ns = (on - off) / calls.max(f64::MIN_POSITIVE) * 1e3;
    Ok(Seen::new(
        ratio >= RATIO_MIN,
        format!(
            "{} us off, {} us on: {ratio:.3} x, {each_ns:.0} ns for each of {} calls a request",
            figure(off),
            figure(on),
            figure(calls)
        ),
    )
    .figure("off_us", off)
    .figure("on_us", on)
    .figure("per_call_ns", each_ns)
    .wrong("counted while timed", format!("{} us per request", figure(on)))
    .right("counted in a pass of its own", format!("{} us per request", figure(off))))
}

fn per_request(measured: &Measured, pick: impl Fn(&Calls) -> u64) -> Option<f64> {
    let calls = measured.calls.as_ref()?;
    Some(pick(calls) as f64 / measured.load.requests.max(1) as f64)
}

fn idle_axis(lab: &mut Lab) -> Result<Seen, Stop> {
    const IDLE: u32 = 5_000;
    const ROUNDS: u32 = 3;
    const DESCRIPTORS_SPARE: u64 = 200;
    let descriptors = environment::raise_descriptor_limit();
    if descriptors < u64::from(IDLE) + DESCRIPTORS_SPARE {
        return Err(Stop::Skip(format!(
            "{IDLE} idle connections need more than {descriptors} descriptors: raise `ulimit -n`"
        )));
    }
    let (poll, epoll) = (lab.subject("poll")?, lab.subject("epoll")?);
    let base = lab.workload("http-keepalive")?;
    let mut ratios = Vec::new();
    for idle_connections in [0, IDLE] {
        let workload = Workload { idle_connections, ..base.clone() };
        let seen = pair(lab, [&epoll, &poll], &workload, ROUNDS)?;
        ratios.push(ratio(seen.server_us[1], seen.server_us[0])?);
    }
    let holds = (0.75..=1.25).contains(&ratios[0]) && ratios[1] >= 3.0;
    Ok(Seen::new(
        holds,
        format!("{} x at 0 idle, {} x at {IDLE} idle", figure(ratios[0]), figure(ratios[1])),
    )
    .figure("at_0_ratio", ratios[0])
    .figure("at_5000_ratio", ratios[1])
    .wrong("64 clients, all active", format!("poll costs {} x epoll", figure(ratios[0])))
    .right("64 among 5,000 idle ones", format!("poll costs {} x epoll", figure(ratios[1]))))
}

fn mechanism(lab: &mut Lab) -> Result<Seen, Stop> {
    can_count()?;
    let workload = lab.workload("http-keepalive")?;
    let mut told = Vec::new();
    let mut holds = true;
    let mut seen = Seen::new(false, "");
    for (model, has, has_not) in [
        ("epoll", &["epoll_wait", "epoll_pwait", "epoll_pwait2"][..], &["poll", "ppoll"][..]),
        ("poll", &["poll", "ppoll"], &["epoll_wait", "epoll_pwait", "epoll_pwait2"]),
        ("uring", &["io_uring_enter"], &["recvfrom", "recv", "read", "recvmsg", "epoll_wait"]),
    ] {
        go_on()?;
        let subject = match lab.subject(model) {
            Ok(subject) => subject,
            Err(Stop::Skip(why)) => {
                told.push(format!("{model}: left out, {why}"));
                continue;
            }
            Err(stop) => return Err(stop),
        };
        let measured = lab.counted(&subject, &workload, SHORT)?;
        let calls = |names: &[&str]| {
            let of = |calls: &Calls| names.iter().filter_map(|n| calls.by_name.get(*n)).sum();
            per_request(&measured, of).unwrap_or(0.0)
        };
        let (waits, others) = (calls(has), calls(has_not));
        // Not a single call per thousand requests: a start may look at something once.
        holds &= waits > 0.0 && others < 0.001;
        told.push(format!("{model}: {waits:.3} {}, {others:.3} of {}", has[0], has_not[0]));
        seen = seen.figure(&format!("{model}_waits_per_request"), waits);
    }
    counting::end_pass();
    (seen.holds, seen.measured) = (holds, told.join("; "));
    Ok(seen)
}

/// Time between two publications of the engine's counters: `load::Progress` is a tenth of a second
/// old at most.
const PUBLISHED_EVERY_S: f64 = 0.1;

fn progress(lab: &mut Lab) -> Result<Seen, Stop> {
    const WINDOWS: usize = 3;
    const SHARE_MAX: f64 = 0.001;
    let server = lab.start(&lab.subject("floor")?, "http")?;
    let mut seen = Vec::new();
    for _ in 0..WINDOWS {
        go_on()?;
        seen.push(drawn_window(lab, server.address)?);
    }
    server.stop();
    let middle =
        |pick: fn(&Drawn) -> f64| median(&seen.iter().map(pick).collect::<Vec<_>>()).unwrap_or(0.0);
    let (draw_us, cpu_us) = (middle(|d| d.draw_us), middle(|d| d.client_cpu_us));
    let (publish_us, each_us) = (middle(|d| d.publish_us), middle(|d| d.each_us));
    let share = middle(|d| (d.draw_us + d.publish_us) / d.client_cpu_us);
    ratio(draw_us * publish_us, cpu_us)?;
    let of_a_core = each_us / 1e6 * middle(|d| d.requests_per_s);
    Ok(Seen::new(
        share <= SHARE_MAX,
        format!(
            "drawing {} us and publishing {} us, of {} ms of the client's CPU: {:.4} %",
            figure(draw_us),
            figure(publish_us),
            figure(cpu_us / 1e3),
            share * 100.0
        ),
    )
    .figure("draw_us", draw_us)
    .figure("publish_us", publish_us)
    .figure("share", share)
    .figure("one_draw_us", each_us)
    .wrong(
        "drawn by the engine after every reply",
        format!("{} us each, {:.0} % of a core", figure(each_us), of_a_core * 100.0),
    )
    .right("drawn by a thread of its own", format!("{:.4} % of the client's CPU", share * 100.0)))
}

/// What the line cost in one window.
struct Drawn {
    /// CPU of the thread that drew, in its whole life.
    draw_us: f64,
    /// CPU of the engine for the publications of a window.
    publish_us: f64,
    /// CPU for drawing the line once.
    each_us: f64,
    client_cpu_us: f64,
    requests_per_s: f64,
}

fn drawn_window(lab: &Lab, server: std::net::SocketAddr) -> Result<Drawn, Stop> {
    const TIMES: Times = Times { warm_up_s: 0.1, window_s: 2.0 };
    /// Enough for the clock's own cost to vanish.
    const PUBLICATIONS: u32 = 1_000_000;
    const DRAWS: u32 = 20_000;
    let plan = lab.plan(server, "/", TIMES)?;
    let live = Arc::new(Live::default());
    let (mut read, mut write) = pipe().map_err(|error| Stop::Wrong(error.to_string()))?;
    let drawn_to = write.try_clone().map_err(|error| Stop::Wrong(error.to_string()))?;
    // A terminal that takes whatever comes, on the other side of the kernel.
    let terminal = std::thread::spawn(move || std::io::copy(&mut read, &mut std::io::sink()));
    let display = Display::draw(&live, drawn_to);
    let load = load::run_live(&plan, &mut Silent, &live);
    let drew = display.end().ok_or_else(|| Stop::Wrong("the line was not drawn".into()))?;
    let load = load.map_err(|error| Stop::Wrong(error.to_string()))?;
    let draws = cpu_of(|| {
        (0..DRAWS).try_for_each(|_| Display::redraw(&mut write, &live, Duration::from_secs(2)))
    })?;
    drop(write);
    let bytes = terminal.join().map_err(|_| Stop::Wrong("the terminal ended".into()))?;
    (draws.0.and(bytes)).map_err(|error| Stop::Wrong(format!("the terminal: {error}")))?;
    let publications = cpu_of(|| (0..PUBLICATIONS).for_each(|n| live.add(n.into(), n.into())))?;
    let each_us = |cpu: Duration, times: u32| cpu.as_secs_f64() * 1e6 / f64::from(times);
    Ok(Drawn {
        draw_us: drew.as_secs_f64() * 1e6,
        publish_us: each_us(publications.1, PUBLICATIONS) * load.duration_s / PUBLISHED_EVERY_S,
        each_us: each_us(draws.1, DRAWS),
        client_cpu_us: load.client_cpu_us as f64,
        requests_per_s: load.requests_per_s,
    })
}
