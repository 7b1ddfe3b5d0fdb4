//! Laws of system calls: how many a request takes, and what follows from that.

use std::collections::BTreeMap;
use std::time::Duration;

use record::{Measured as Trial, Workload};
use rig::counting;
use rig::slices::{requests_per_s, server_us};
use rig::trial::{self, Setting};
use verdict::statistics::Finding;

use crate::turns::{self, Length, Seat, decided};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L11",
        claim: "A request takes as many system calls as the model says.",
        expected: "blocking models 2; select, poll and epoll 2 and a part of a wait: 3 with one \
                   connection, fewer with 64; sigio 2 more than these, because it takes each \
                   signal with a call of its own and reads until there is nothing; io_uring 1 with \
                   one connection, at most 0.5 with 64.",
        source: "liburing issue 772; for sigio sigwaitinfo(2) and fcntl(2)",
        shown_by: "iolab trace epoll",
        takes_s: 15.0,
        bounds: &[
            Bound::between("serial, 1 connection", 1.9, 2.1),
            Bound::between("prefork, 1 connection", 1.9, 2.1),
            Bound::between("threads, 1 connection", 1.9, 2.1),
            Bound::between("pool, 1 connection", 1.9, 2.1),
            Bound::between("select, 1 connection", 2.9, 3.1),
            Bound::between("poll, 1 connection", 2.9, 3.1),
            Bound::between("epoll, 1 connection", 2.9, 3.1),
            Bound::between("sigio, 1 connection", 4.9, 5.1),
            Bound::between("uring, 1 connection", 0.9, 1.1),
            Bound::between("threads, 64 connections", 1.9, 2.1),
            Bound::between("select, 64 connections", 1.9, 2.9),
            Bound::between("poll, 64 connections", 1.9, 2.9),
            Bound::between("epoll, 64 connections", 1.9, 2.9),
            Bound::between("sigio, 64 connections", 3.9, 4.9),
            Bound::at_most("uring, 64 connections", 0.5),
        ],
        measure: calls_per_request,
    },
    Law {
        id: "L12",
        claim: "Fewer system calls is not the same as faster.",
        expected: "of threads, poll, epoll and io_uring with 64 connections there is a pair of \
                   which one makes at least 5 % fewer calls for a request and has the lower rate.",
        source: "netbench issue 1 (16 loops/s against 4,364, and the rate 7 % apart)",
        shown_by: "iolab bench --models threads,poll,epoll,uring --workloads http-keepalive",
        takes_s: 12.0,
        bounds: &[Bound::at_least("pairs with fewer calls and a lower rate", 1.0)],
        measure: fewer_is_not_faster,
    },
];

/// Calls for a request, by model and number of connections.
type Ledger = BTreeMap<(&'static str, u32), Calls>;

/// Calls for a request.
struct Calls {
    all: f64,
    /// Those with the most, by name.
    names: String,
}

impl Calls {
    /// Names with less than a hundredth of a call for a request are left out.
    fn of(calls: &record::Calls, requests: u64) -> Calls {
        let each = |count: u64| count as f64 / requests as f64;
        let named = calls.by_name.iter().filter(|(_, count)| each(**count) >= 0.01);
        let named = named.map(|(name, count)| format!("{name} {:.2}", each(*count)));
        Calls { all: each(calls.total), names: named.collect::<Vec<_>>().join(", ") }
    }
}

const ONE: [&str; 9] =
    ["serial", "prefork", "threads", "pool", "select", "poll", "epoll", "sigio", "uring"];
const MANY: [&str; 5] = ["threads", "select", "poll", "epoll", "sigio"];
const URING: &str = "uring";

/// How often each of these calls the kernel for a request.
fn ledger(lab: &Lab, models: &[(&'static str, u32)]) -> Result<Ledger, Reason> {
    if let Some(reason) = counting::unavailable() {
        return Err(Reason::Skip(reason.to_string()));
    }
    let base = lab.workload("http-keepalive")?;
    let mut ledger = Ledger::new();
    for &(label, connections) in models {
        let workload = Workload { connections, ..base.clone() };
        let (requests, calls) = counted(lab, label, &workload)?;
        ledger.insert((label, connections), Calls::of(&calls, requests));
    }
    // A tracepoint in use makes every call on the machine slower.
    counting::end_pass();
    Ok(ledger)
}

/// Requests and calls of a window that has enough of them: on a busy machine a longer one.
fn counted(lab: &Lab, label: &str, workload: &Workload) -> Result<(u64, record::Calls), Reason> {
    /// Those that are in flight at the borders are then a hundredth.
    const REQUESTS_EACH: u64 = 100;
    const LONGER: f64 = 4.0;
    const WINDOW_MAX_S: f64 = 5.0;
    let found = lab.found(label)?;
    let not_here = |why: String| Reason::NotHere(format!("{label}: {why}"));
    let mut settings = lab.settings().clone();
    loop {
        lab.go_on()?;
        let counted = trial::run(&Setting {
            executable: &found.executable,
            model: &found.model,
            workload,
            settings: &settings,
            root: lab.folder(),
        });
        let Trial { load, calls, .. } = counted.map_err(not_here)?;
        if load.errors > 0 {
            return Err(not_here(load.first_error.unwrap_or_default()));
        }
        let calls = calls.ok_or_else(|| Reason::Fault("no calls were counted".to_owned()))?;
        match load.requests {
            requests if requests >= REQUESTS_EACH * u64::from(workload.connections) => {
                return Ok((requests, calls));
            }
            _ if settings.window_s < WINDOW_MAX_S => settings.window_s *= LONGER,
            few => {
                return Err(not_here(format!(
                    "{few} requests were answered in {} s",
                    settings.window_s
                )));
            }
        }
    }
}

fn calls_per_request(lab: &Lab) -> Result<Measured, Reason> {
    let one = ONE.iter().map(|label| (*label, 1));
    let many = MANY.iter().chain([&URING]).map(|label| (*label, 64));
    let models: Vec<_> = one.chain(many).collect();
    let ledger = ledger(lab, &models)?;
    let named = |(label, connections): &(&str, u32)| match connections {
        1 => format!("{label}, 1 connection"),
        many => format!("{label}, {many} connections"),
    };
    let measured = models
        .iter()
        .fold(Measured::default(), |all, model| all.figure(named(model), ledger[model].all, ""));
    let names = |model: &(&'static str, u32)| format!("{}: {}", named(model), ledger[model].names);
    let uring = [1, 64].map(|connections| names(&(URING, connections))).join("; ");
    Ok(measured.note(format!("counted by the kernel's tracepoints; by name: {uring}")))
}

fn fewer_is_not_faster(lab: &Lab) -> Result<Measured, Reason> {
    const LABELS: [&str; 4] = ["threads", "poll", "epoll", URING];
    const CONNECTIONS: u32 = 64;
    /// What counts as fewer calls.
    const FEWER: f64 = 0.95;
    let length = Length { epochs: lab.epochs(), each: Duration::from_millis(250) };
    let workload = lab.workload("http-keepalive")?;
    let epochs = turns::take(lab, &LABELS.map(Seat::of), &[workload], length)?.remove(0);
    let ledger = ledger(lab, &LABELS.map(|label| (label, CONNECTIONS)))?;
    let mut measured = Measured::default();
    for (seat, label) in LABELS.iter().enumerate() {
        let calls = ledger[&(*label, CONNECTIONS)].all;
        let typical = |figure| turns::typical(&epochs, seat, figure).unwrap_or(f64::NAN);
        measured = measured
            .figure(format!("{label}: calls for a request"), calls, "")
            .figure(format!("{label}: rate"), typical(requests_per_s), "requests/s")
            .figure(format!("{label}: server CPU for a request"), typical(server_us), "us");
    }
    let mut pairs = Vec::new();
    for (fewer, label) in LABELS.iter().enumerate() {
        for (more, other) in LABELS.iter().enumerate() {
            let calls = |label: &&'static str| ledger[&(*label, CONNECTIONS)].all;
            if calls(label) <= FEWER * calls(other) {
                let rate = decided(&epochs, fewer, more, requests_per_s)?;
                if rate.finding(verdict::statistics::MARGIN) == Finding::Less {
                    pairs.push(format!("{label} against {other}"));
                }
            }
        }
    }
    let note = match pairs.is_empty() {
        true => "no pair has fewer calls and a lower rate".to_owned(),
        false => format!("fewer calls and a lower rate: {}", pairs.join(", ")),
    };
    Ok(measured
        .figure("pairs with fewer calls and a lower rate", pairs.len() as f64, "")
        .note(note))
}
