//! Laws of waiting: what it costs to wait for many connections.

use std::time::{Duration, Instant};

use rig::sample::Idling;
use rig::server::Server;

use crate::visitor::{self, Visitor};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
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
        expected: "with 10 open connections and no traffic, busy uses more than 95 % of a core, \
                   and every other model less than 2 %.",
        source: "liburing issue 772",
        shown_by: "iolab experiment idle",
        takes_s: 3.0,
        bounds: &[
            Bound::at_least("busy", 95.0),
            Bound::at_most("serial", 2.0),
            Bound::at_most("threads", 2.0),
            Bound::at_most("pool", 2.0),
            Bound::at_most("select", 2.0),
            Bound::at_most("poll", 2.0),
            Bound::at_most("epoll", 2.0),
            Bound::at_most("uring", 2.0),
            Bound::at_most("tokio", 2.0),
        ],
        measure: idle_cores,
    },
];

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
        let mut visitor = Visitor::arrive(server.address)?;
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
    visitor::leave(served);
    server.stop();
    Ok(measured)
}

/// Models of which all but the first sleep when they have nothing to do.
const IDLE_MODELS: [&str; 9] =
    ["busy", "serial", "threads", "pool", "select", "poll", "epoll", "uring", "tokio"];

/// The sleepers are sampled together: they do not disturb each other. busy has its core alone.
fn idle_cores(lab: &Lab) -> Result<Measured, Reason> {
    let (alone, together) = IDLE_MODELS.split_at(1);
    let mut shares = idle_shares(lab, alone)?;
    shares.extend(idle_shares(lab, together)?);
    let with_names = IDLE_MODELS.iter().zip(shares);
    Ok(with_names.fold(Measured::default(), |all, (name, share)| all.figure(*name, share, "%")))
}

/// The share of a core, in per cent, that each of these uses without traffic.
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
            let mut visitor = Visitor::arrive(server.address)?;
            visitor.get("/")?;
            visitors.push(visitor);
        }
        servers.push(server);
    }
    std::thread::sleep(SETTLE);
    let begun = Instant::now();
    let idling: Vec<_> = servers.iter().map(|server| Idling::begin(server)).collect();
    std::thread::sleep(lab.time(WATCHED));
    let used_us: Vec<_> = idling.iter().map(|idling| idling.end().cpu_us).collect();
    let passed_us = begun.elapsed().as_micros() as f64;
    drop(idling);
    visitor::leave(visitors);
    servers.into_iter().for_each(|server| drop(server.stop()));
    Ok(used_us.into_iter().map(|used| 100.0 * used as f64 / passed_us).collect())
}
