//! One request that makes the server compute, and what the other clients notice of it, per model.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use record::{Run, Span};

use crate::client::Connection;
use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "stall",
    question: "Three clients ask for a short text every few milliseconds, on a new connection each \
        time. Then another one sends a single request that makes the server compute for 300 ms \
        (/work/300000). In which models do the three wait for it?",
    predict: Predict {
        question: "Whose clients wait for the computation?",
        answer: Answer::Choice(&[
            "those of all models",
            "those of models with one thread for all clients",
            "those of models with a thread for each client",
            "those of no model",
        ]),
    },
    takes_s: 12,
    model: None,
    run,
};

const OTHERS: u32 = 3;
const WORK_MS: u32 = 300;
const LONG: &str = "/work/300000";
const SHORT: &str = "/";
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(5);
/// The clients ask for so long before the long request, and after its reply.
const AROUND: Duration = Duration::from_millis(100);

fn run(stage: &mut Stage) -> Result<(), Refused> {
    for model in stage.models()? {
        let run = Run {
            run: model.clone(),
            title: model.clone(),
            model: model.clone(),
            arguments: Vec::new(),
            link: None,
        };
        let Some(site) = stage.start(run)? else { continue };
        let seen = ask(&site)?;
        site.stop()?;
        for span in seen {
            stage.span(Span { run: model.clone(), ..span });
        }
        stage.figure(&model, "work_ms", f64::from(WORK_MS));
    }
    Ok(())
}

/// The spans of all clients.
fn ask(site: &Site) -> Result<Vec<Span>, String> {
    let (address, clock, ended) = (site.address(), Clock::start(), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..OTHERS)
            .map(|number| scope.spawn(move || other(clock, address, number, ended)))
            .collect();
        std::thread::sleep(AROUND);
        let computed = one(clock, address, "computes", LONG);
        std::thread::sleep(AROUND);
        ended.store(true, Relaxed);
        let mut seen = Vec::new();
        for other in others {
            seen.extend(joined(other.join())?);
        }
        seen.push(computed?);
        Ok(seen)
    })
}

fn joined<T>(ended: std::thread::Result<Result<T, String>>) -> Result<T, String> {
    ended.unwrap_or_else(|_| Err("a thread of the client panicked".to_owned()))
}

/// Asks until it is told to end.
fn other(
    clock: Clock,
    address: SocketAddr,
    number: u32,
    ended: &AtomicBool,
) -> Result<Vec<Span>, String> {
    let mut seen = Vec::new();
    while !ended.load(Relaxed) {
        seen.push(one(clock, address, &format!("client {}", number + 1), SHORT)?);
        std::thread::sleep(PAUSE);
    }
    Ok(seen)
}

/// One request on a connection of its own, from the connect to the last byte.
fn one(clock: Clock, address: SocketAddr, lane: &str, path: &str) -> Result<Span, String> {
    let (mut connection, connect) = Connection::open(clock, address)?;
    let reply = connection.ask(path, true)?;
    Ok(Span {
        lane: lane.to_owned(),
        kind: "waits".to_owned(),
        from_us: connect.from_us,
        to_us: reply.transfer.to_us,
        ..Span::default()
    })
}
