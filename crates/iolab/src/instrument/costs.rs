//! The cost ledger: who was the limit, who pays, what looking on costs.

use std::io::pipe;
use std::sync::Arc;
use std::time::Duration;

use load::{Clocks, Live, Silent};
use nix::unistd::Pid;
use record::{Calls, Measured, Workload};
use rig::discover::Found;

use super::lab::{Lab, Times, cpu_of, go_on};
use super::{Seen, Stop, Trap, quiet, ratio};
use crate::load_command::Display;
use crate::slices::standing::{self, Standing, Told};
use render::text::{figure, thousands};
use rig::slices::Awake;
use rig::{counting, environment};
use verdict::statistics::{Finding, MARGIN, median};

/// The checks of this file.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "who-is-the-limit",
        rule: 4,
        claim: "Under a client that is slower than both, two servers of different cost give the \
                same requests/s, and the client is named as the limit; CPU per request tells them \
                apart.",
        expected: "requests/s within 5 %, CPU per request `more`, the client named with both, and \
                   not with a server that needs 20 us for each request; the client is the slowest \
                   of the three: its CPU per request is above that of both servers",
        fails_if: "the client's share of a core is not what it was, or is looked at for one side \
                   only",
        takes_s: 20.0,
        check: limit,
    },
    Trap {
        name: "two-clocks",
        rule: 6,
        claim: "What slices bill to the server and to the client is what the kernel says of the \
                two processes when asked in another way.",
        expected: "CPU time of a second of slices / that of getrusage(2), of the server and of the \
                   client, within 0.98-1.02; with the clock of another process < 0.98",
        fails_if: "the clock is that of another process, the last replies of a slice are in no \
                   slice, or threads are left out",
        takes_s: 3.0,
        check: clocks,
    },
    Trap {
        name: "idle-axis",
        rule: 7,
        claim: "Without idle connections poll and epoll cost nearly the same; with thousands, \
                poll pays for each of them.",
        expected: "poll's CPU per request / epoll's: 0.6-1.25 at 0 idle; `more`, and >= 3 x, at \
                   5,000 idle",
        fails_if: "the idle connections are not there, or their cost is not the server's",
        takes_s: 12.0,
        check: idle_axis,
    },
    Trap {
        name: "mechanism-proof",
        rule: 9,
        claim: "The names of the system calls show what a model waits with.",
        expected: "per request: epoll waits with epoll_wait and never poll, poll the other way \
                   round, uring with io_uring_enter and receives nothing by recv or read",
        fails_if: "calls of another process are counted, or names are mixed up",
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
        fails_if: "the line is drawn more often, or by the engine",
        takes_s: 8.0,
        check: progress,
    },
];

/// Epochs of the comparisons here, and each server's part of one: differences are large.
const EPOCHS: usize = 6;

/// Epochs where the difference is a sixth.
const EPOCHS_MANY: usize = 18;

const EPOCH_OF_ONE: Duration = Duration::from_millis(100);

fn compare(
    lab: &Lab,
    servers: &[&Found],
    workload: &Workload,
    epochs: usize,
) -> Result<Vec<Standing>, Stop> {
    let time = EPOCH_OF_ONE * servers.len() as u32;
    let epochs = lab.epochs(servers, workload, (epochs, time), 0)?;
    let labels: Vec<String> = servers.iter().map(|found| found.model.label.clone()).collect();
    Ok(standing::standings(&labels, &epochs, MARGIN))
}

fn told(ratio: &Option<Told>) -> Result<&Told, Stop> {
    ratio.as_ref().ok_or_else(|| Stop::Wrong("a comparison came to nothing".into()))
}

fn limit(lab: &mut Lab) -> Result<Seen, Stop> {
    const RATE_TOLERANCE: f64 = 0.05;
    /// Of a deep pipeline, to compare the replies is dearer than to send them, so there is room for
    /// a dearer server below the client. With 16 there is not: what is paid for each read is then
    /// most of the cost, on both sides.
    const DEPTH: u32 = 64;
    let workload = Workload { pipelining: DEPTH, ..lab.workload("http-pipelined")? };
    let _awake = Awake::hold().ok();
    let slow = |ns: f64| lab.found(&format!("faulty+fault=slow+fault-ns={ns:.0}"));
    let cheap = lab.found("floor")?;
    let room = compare(lab, &[&cheap, &cheap], &workload, EPOCHS)?;
    let [client_us, cheap_us] = [room[0].client_us, room[0].server_us].map(|us| us.unwrap_or(0.0));
    // Half way up to the client: far from both.
    let dear = slow(1e3 * (client_us - cheap_us).max(0.0) / 2.0)?;
    let seen = compare(lab, &[&cheap, &dear, &slow(20_000.0)?], &workload, EPOCHS_MANY)?;
    let (rate, cpu) = (told(&seen[1].rate)?, told(&seen[1].cpu)?);
    let named: Vec<bool> = seen.iter().map(|one| one.client_bound).collect();
    let slowest = |one: &Standing| one.client_us > one.server_us;
    let holds = (rate.ratio - 1.0).abs() <= RATE_TOLERANCE
        && cpu.is(Finding::More)
        && named == [true, true, false]
        && seen[..2].iter().all(slowest);
    let shown = |at: usize, figure: fn(&Standing) -> Option<f64>| figure(&seen[at]).unwrap_or(0.0);
    let rates = [0, 1].map(|at| shown(at, |one| one.requests_per_s));
    let server_us = [0, 1].map(|at| shown(at, |one| one.server_us));
    let client_us = [0, 1].map(|at| shown(at, |one| one.client_us));
    Ok(Seen::new(
        holds,
        format!(
            "the client needs {} and {} us, the servers {} and {}: requests/s {:.3} x, CPU per \
             request {:.3} x; the client named: {}, {}, and at 20 us {}",
            figure(client_us[0]),
            figure(client_us[1]),
            figure(server_us[0]),
            figure(server_us[1]),
            rate.ratio,
            cpu.ratio,
            named[0],
            named[1],
            named[2]
        ),
    )
    .figure("rate_ratio", rate.ratio)
    .figure("cpu_ratio", cpu.ratio)
    .figure("client_us", client_us[0])
    .wrong(
        "requests/s alone",
        format!("{} and {}: equal", thousands(rates[0]), thousands(rates[1])),
    )
    .right(
        "server CPU per request",
        format!("{} and {} us", figure(server_us[0]), figure(server_us[1])),
    ))
}

/// CPU time that slices billed, of the server and of the client, in parts of what getrusage(2) says
/// of the whole life of the one and of this process meanwhile.
fn billed(lab: &Lab, clock_of: Option<Pid>) -> Result<[f64; 2], Stop> {
    const SLICES: u32 = 40;
    const SLICE: Duration = Duration::from_millis(25);
    go_on()?;
    let workload = lab.workload("http-keepalive")?;
    let server = lab.start(&lab.found("floor")?, &workload)?;
    let clock = clock_of.unwrap_or(server.pid()).as_raw();
    let mut session = lab.session(&server, &workload, Clocks::of(&[clock])?)?;
    let own_s = quiet::own_cpu_s();
    let (mut server_ns, mut client_ns) = (0, 0);
    for _ in 0..SLICES {
        let slice = session.slice(SLICE)?;
        server_ns += slice.server_cpu_ns.unwrap_or(0);
        client_ns += slice.client_cpu_ns;
    }
    let own_s = quiet::own_cpu_s() - own_s;
    drop(session);
    let exit = server.stop();
    Ok([server_ns as f64 / 1e3 / exit.cpu_us as f64, client_ns as f64 / 1e9 / own_s])
}

fn clocks(lab: &mut Lab) -> Result<Seen, Stop> {
    const TOLERANCE: f64 = 0.02;
    let near = |ratio: f64| (ratio - 1.0).abs() <= TOLERANCE;
    let other = lab.start(&lab.found("floor")?, &lab.workload("http-keepalive")?)?;
    let (right, wrong) = (billed(lab, None)?, billed(lab, Some(other.pid()))?);
    other.stop();
    Ok(Seen::new(
        right.into_iter().all(near) && !near(wrong[0]),
        format!(
            "server {:.3}, client {:.3}; with the clock of another process {:.3}",
            right[0], right[1], wrong[0]
        ),
    )
    .figure("server_ratio", right[0])
    .figure("client_ratio", right[1])
    .figure("wrong_clock_ratio", wrong[0])
    .wrong("the clock of another process", format!("{:.3} of what the server used", wrong[0]))
    .right("the server's own clock", format!("{:.3} of what the server used", right[0])))
}

fn can_count() -> Result<(), Stop> {
    counting::unavailable().map_or(Ok(()), |why| Err(Stop::Skip(why.to_string())))
}

fn per_request(measured: &Measured, pick: impl Fn(&Calls) -> u64) -> Option<f64> {
    let calls = measured.calls.as_ref()?;
    Some(pick(calls) as f64 / measured.load.requests.max(1) as f64)
}

fn idle_axis(lab: &mut Lab) -> Result<Seen, Stop> {
    const IDLE: u32 = 5_000;
    const RATIO_MIN: f64 = 3.0;
    /// Two servers' idle and active connections.
    const DESCRIPTORS: u64 = 2 * (IDLE as u64 + 100);
    let descriptors = environment::raise_descriptor_limit();
    if descriptors < DESCRIPTORS {
        return Err(Stop::Skip(format!(
            "{DESCRIPTORS} connections need more than {descriptors} descriptors: raise `ulimit -n`"
        )));
    }
    let (poll, epoll) = (lab.found("poll")?, lab.found("epoll")?);
    let base = lab.workload("http-keepalive")?;
    let seen = [0, IDLE].map(|idle_connections| {
        compare(lab, &[&epoll, &poll], &Workload { idle_connections, ..base.clone() }, EPOCHS)
    });
    let [without, among] = seen;
    let (without, among) = (without?, among?);
    let (without, among) = (told(&without[1].cpu)?, told(&among[1].cpu)?);
    let holds = (0.6..=1.25).contains(&without.ratio)
        && among.ratio >= RATIO_MIN
        && among.is(Finding::More);
    let costs = |told: &Told| format!("poll costs {} x epoll", figure(told.ratio));
    Ok(Seen::new(
        holds,
        format!("{} x at 0 idle, {} x at {IDLE} idle", figure(without.ratio), figure(among.ratio)),
    )
    .figure("at_0_ratio", without.ratio)
    .figure("at_5000_ratio", among.ratio)
    .wrong("64 clients, all active", costs(without))
    .right("64 among 5,000 idle ones", costs(among)))
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
        let found = match lab.found(model) {
            Ok(found) => found,
            Err(Stop::Skip(why)) => {
                told.push(format!("{model}: left out, {why}"));
                continue;
            }
            Err(stop) => return Err(stop),
        };
        let measured = lab.counted(&found, &workload)?;
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
    let server = lab.start(&lab.found("floor")?, &lab.workload("http-keepalive")?)?;
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
