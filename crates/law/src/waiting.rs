//! Laws of waiting: what it costs to wait for many connections.

use std::time::{Duration, Instant};

use record::Workload;
use rig::client::{self, Client};
use rig::sample::Idling;
use rig::server::Server;
use rig::slices::{requests_per_s, server_us};
use verdict::statistics::{BlockRatio, Finding, MARGIN};

use crate::turns::{self, Length, Seat, decided, within};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L3",
        claim: "Without idle connections there is no clear winner among select, poll and epoll.",
        expected: "with 1, 8 and 50 active connections the rates of select and poll are within \
                   15 % of epoll's.",
        source: "Gammo, Brecht, Shukla, Pariag, OLS 2004",
        shown_by: "iolab experiment crowd",
        takes_s: 14.0,
        bounds: &[
            Bound::between("select : epoll, 1 connection", 0.85, 1.15),
            Bound::between("poll : epoll, 1 connection", 0.85, 1.15),
            Bound::between("select : epoll, 8 connections", 0.85, 1.15),
            Bound::between("poll : epoll, 8 connections", 0.85, 1.15),
            Bound::between("select : epoll, 50 connections", 0.85, 1.15),
            Bound::between("poll : epoll, 50 connections", 0.85, 1.15),
        ],
        measure: no_clear_winner,
    },
    Law {
        id: "L5",
        claim: "select ends at descriptor 1023.",
        expected: "of 1,100 clients 900 to 1,023 are served, the others are not, and the server \
                   goes on serving those that it has.",
        source: "select(2), FD_SETSIZE",
        shown_by: "iolab experiment crowd",
        takes_s: 1.0,
        bounds: &[
            Bound::between("clients served at once", 900.0, 1_023.0),
            Bound::at_least("clients not served", 77.0),
            Bound::exactly("clients served again", 10.0),
        ],
        measure: the_limit_of_select,
    },
    Law {
        id: "L10",
        claim: "Busy polling burns a core when idle; every other model sleeps.",
        expected: "with 10 open connections and no traffic, busy uses (or waits for) more than \
                   95 % of a core, and every other model less than 2 %.",
        source: "liburing issue 772",
        shown_by: "iolab experiment idle",
        takes_s: 3.0,
        bounds: &[
            Bound::at_least("busy", 95.0),
            Bound::at_most("serial", 2.0),
            Bound::at_most("prefork", 2.0),
            Bound::at_most("threads", 2.0),
            Bound::at_most("pool", 2.0),
            Bound::at_most("select", 2.0),
            Bound::at_most("poll", 2.0),
            Bound::at_most("epoll", 2.0),
            Bound::at_most("sigio", 2.0),
            Bound::at_most("uring", 2.0),
            Bound::at_most("tokio", 2.0),
        ],
        measure: idle_cores,
    },
    Law {
        id: "L13",
        claim: "Between io_uring and epoll there is no difference beyond the noise with one \
                connection, and no universal winner.",
        expected: "with one connection the intervals of the ratio and of the control (epoll \
                   against itself) overlap; of four loads neither has the higher rate in all.",
        source: "frevib, joakimthun and PhotonLibOS (echo servers on GitHub)",
        shown_by: "iolab bench --models epoll,uring",
        takes_s: 14.0,
        bounds: &[
            Bound::at_most("beyond the control, 1 connection", 0.0),
            Bound::at_most("loads with one winner", 3.0),
        ],
        measure: no_universal_winner,
    },
];

/// The rates of two models relative to the third, with few active connections and no idle ones.
fn no_clear_winner(lab: &Lab) -> Result<Measured, Reason> {
    const SEATS: [Seat; 3] = [Seat::of("select"), Seat::of("poll"), Seat::of("epoll")];
    let length = Length { epochs: lab.epochs(), each: Duration::from_millis(150) };
    let base = lab.workload("http-keepalive")?;
    let loads = [1, 8, 50].map(|connections| Workload { connections, ..base.clone() });
    let seen = turns::take(lab, &SEATS, &loads, length)?;
    let mut measured = Measured::default();
    for (load, epochs) in loads.iter().zip(&seen) {
        for (seat, Seat { label, .. }) in SEATS[..2].iter().enumerate() {
            let rate = decided(epochs, seat, 2, requests_per_s)?;
            let cpu = decided(epochs, seat, 2, server_us)?;
            let pair = format!("{label} : epoll, {}", connections(load.connections));
            measured = measured
                .figure_within(pair.clone(), rate.ratio, "", within(&rate))
                .figure_within(format!("CPU, {pair}"), cpu.ratio, "", within(&cpu));
        }
    }
    Ok(measured.note("requests/s relative to epoll, in slices; CPU: of the server for a request"))
}

fn connections(number: u32) -> String {
    if number == 1 { "1 connection".to_owned() } else { format!("{number} connections") }
}

fn no_universal_winner(lab: &Lab) -> Result<Measured, Reason> {
    const SEATS: [Seat; 3] = [Seat::of("uring"), Seat::of("epoll"), Seat::of("epoll")];
    let length = Length { epochs: lab.epochs(), each: Duration::from_millis(150) };
    let many = lab.workload("http-keepalive")?;
    let few = |connections| Workload { connections, ..many.clone() };
    let pipelined = Workload { pipelining: 16, ..many.clone() };
    let loads = [
        ("1 connection", few(1)),
        ("8 connections", few(8)),
        ("64 connections", many.clone()),
        ("64 connections, 16 requests ahead", pipelined),
    ];
    let workloads: Vec<_> = loads.iter().map(|(_, workload)| workload.clone()).collect();
    let seen = turns::take(lab, &SEATS, &workloads, length)?;
    let mut measured = Measured::default();
    let (mut uring, mut epoll) = (0, 0);
    for (at, ((name, _), epochs)) in loads.iter().zip(&seen).enumerate() {
        let rate = decided(epochs, 0, 1, requests_per_s)?;
        let control = decided(epochs, 2, 1, requests_per_s)?;
        match rate.finding(MARGIN) {
            Finding::More => uring += 1,
            Finding::Less => epoll += 1,
            Finding::Equal | Finding::Unknown => {}
        }
        if at == 0 {
            let beyond = beyond(&rate, &control);
            measured = measured.figure("beyond the control, 1 connection", beyond, "%");
        }
        measured = measured
            .figure_within(format!("rate, uring : epoll, {name}"), rate.ratio, "", within(&rate))
            .figure_within(format!("control, {name}"), control.ratio, "", within(&control));
    }
    Ok(measured
        .figure("loads with one winner", f64::from(uring.max(epoll)), "")
        .figure("loads that io_uring wins", f64::from(uring), "")
        .figure("loads that epoll wins", f64::from(epoll), ""))
}

/// How far apart the 99 % intervals of two ratios are, in per cent; 0 if they overlap.
fn beyond(ratio: &BlockRatio, control: &BlockRatio) -> f64 {
    let above = ratio.interval.low / control.interval.high;
    let below = control.interval.low / ratio.interval.high;
    100.0 * (above.max(below) - 1.0).max(0.0)
}

/// More than select(2) can watch, and fewer than the accept queue of a listener holds.
const VISITORS: usize = 1_100;

/// Time in which a client that is served at all is served: the loop is idle.
const SERVED_WITHIN: Duration = Duration::from_millis(300);

/// Clients arrive one after the other, and each stays. Once one was not served, the others have no
/// time to wait: they were refused already, or they are in the accept queue behind it.
fn the_limit_of_select(lab: &Lab) -> Result<Measured, Reason> {
    const AGAIN: usize = 10;
    let server = lab.start("select", &["--idle-timeout", "600s"])?;
    let (mut served, mut others) = (Vec::new(), Vec::new());
    for _ in 0..VISITORS {
        let mut visitor = Client::open(server.address)?;
        let patience = if others.is_empty() { SERVED_WITHIN } else { Duration::ZERO };
        match visitor.is_served_within("/", lab.time(patience)) {
            true => served.push(visitor),
            false => others.push(visitor),
        }
    }
    let again = served.iter_mut().take(AGAIN).filter_map(|visitor| visitor.get("/").ok()).count();
    let measured = Measured::default()
        .figure("clients served at once", served.len() as f64, "")
        .figure("clients not served", others.len() as f64, "")
        .figure("clients served again", again as f64, "");
    drop(others);
    client::part(served);
    server.stop();
    Ok(measured)
}

/// Models of which all but the first sleep when they have nothing to do.
const IDLE_MODELS: [&str; 11] = [
    "busy", "serial", "prefork", "threads", "pool", "select", "poll", "epoll", "sigio", "uring",
    "tokio",
];

/// The sleepers are sampled together: they do not disturb each other. busy has its core alone.
fn idle_cores(lab: &Lab) -> Result<Measured, Reason> {
    let (alone, together) = IDLE_MODELS.split_at(1);
    let mut shares = idle_shares(lab, alone)?;
    shares.extend(idle_shares(lab, together)?);
    let with_names = IDLE_MODELS.iter().zip(shares);
    Ok(with_names.fold(Measured::default(), |all, (name, share)| all.figure(*name, share, "%")))
}

/// The share of a core, in per cent, that each of these uses or waits for without traffic.
fn idle_shares(lab: &Lab, models: &[&str]) -> Result<Vec<f64>, Reason> {
    const CONNECTIONS: usize = 10;
    const WATCHED: Duration = Duration::from_millis(800);
    /// Time to finish the work of accepting.
    const SETTLE: Duration = Duration::from_millis(50);
    let mut servers: Vec<Server> = Vec::new();
    let mut visitors = Vec::new();
    for model in models {
        let server = lab.start(model, &["--idle-timeout", "600s"])?;
        let most = lab.found(model)?.connections_max() as usize;
        for _ in 0..CONNECTIONS.min(most) {
            let mut visitor = Client::open(server.address)?;
            visitor.get("/")?;
            visitors.push(visitor);
        }
        servers.push(server);
    }
    std::thread::sleep(SETTLE);
    let begun = Instant::now();
    let idling: Vec<_> = servers.iter().map(|server| Idling::begin(server)).collect();
    std::thread::sleep(lab.time(WATCHED));
    // One that is ready to run while others have its core does not sleep either.
    let awake_us = |idling: &Idling| {
        let used = idling.end();
        used.cpu_us + used.run_queue_delay_us
    };
    let used_us: Vec<_> = idling.iter().map(awake_us).collect();
    let passed_us = begun.elapsed().as_micros() as f64;
    drop(idling);
    client::part(visitors);
    servers.into_iter().for_each(|server| drop(server.stop()));
    Ok(used_us.into_iter().map(|used| 100.0 * used as f64 / passed_us).collect())
}

#[cfg(test)]
mod tests {
    use verdict::statistics::Interval;

    use super::*;

    fn ratio(low: f64, high: f64) -> BlockRatio {
        let interval = Interval { low, high };
        BlockRatio { ratio: (low * high).sqrt(), interval, inner: interval, epochs: Vec::new() }
    }

    #[test]
    fn only_intervals_that_do_not_meet_are_beyond_the_noise() {
        let control = ratio(0.95, 1.05);
        assert_eq!(beyond(&ratio(1.0, 1.3), &control), 0.0);
        assert!((beyond(&ratio(1.26, 1.4), &control) - 20.0).abs() < 1e-9);
        assert!((beyond(&ratio(0.5, 0.76), &control) - 25.0).abs() < 1e-9);
    }
}
