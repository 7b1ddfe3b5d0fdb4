//! 300 workers, 6 connections for each visitor, 60 visitors: the 51st waits. And three remedies.

use std::time::{Duration, Instant};

use record::{Run, Span};

use crate::client::{Connection, Phase};
use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "visitors",
    question: "A server has 300 workers, each for one connection at a time (serve-pool, as \
        Apache's worker MPM). A browser opens 6 connections, so there are seats for 50 visitors. \
        60 come, one every 4 ms. Each requests one file on each connection, which takes the \
        server less than a millisecond, and keeps the connections for its next click. How long \
        does the 51st visitor wait, and what helps: a shorter keep-alive, more workers, an \
        event loop?",
    predict: Predict {
        question: "Until when does the 51st visitor wait?",
        answer: Answer::Choice(&[
            "it does not wait",
            "until a request of another visitor is done",
            "until the connections of another visitor are closed",
        ]),
    },
    takes_s: 12,
    model: None,
    run,
};

const VISITORS: u32 = 60;
/// What browsers open to one server over HTTP/1.1.
const CONNECTIONS: u32 = 6;
/// So that all have come before the first seat is given up.
const APART: Duration = Duration::from_millis(4);
/// A client's thread does nothing but read.
const STACK_BYTES: usize = 128 * 1024;
const PATH: &str = "/bytes/1000";

/// Name, title, model, threads, idle timeout in milliseconds.
const RUNS: [(&str, &str, &str, Option<u32>, u32); 4] = [
    ("pool", "300 workers, keep-alive 2 s", "pool", Some(300), 2_000),
    ("shorter", "300 workers, keep-alive 0.2 s", "pool", Some(300), 200),
    ("more", "400 workers, keep-alive 2 s", "pool", Some(400), 2_000),
    ("loop", "an event loop (epoll), keep-alive 2 s", "epoll", None, 2_000),
];

fn run(stage: &mut Stage) -> Result<(), Refused> {
    for (name, title, model, threads, idle_timeout_ms) in RUNS {
        let idle = ["--idle-timeout".to_owned(), format!("{idle_timeout_ms}ms")];
        let threads = threads.map(|threads| ["--threads".to_owned(), threads.to_string()]);
        let Some(site) = stage.start(Run {
            run: name.to_owned(),
            title: title.to_owned(),
            model: model.to_owned(),
            arguments: idle.into_iter().chain(threads.into_iter().flatten()).collect(),
            link: None,
        })?
        else {
            continue;
        };
        let seen = visit(&site)?;
        stage.figure(name, "server_threads", f64::from(site.threads()));
        site.stop()?;
        stage.figure(name, "idle_timeout_ms", f64::from(idle_timeout_ms));
        for span in seen {
            stage.span(Span { run: name.to_owned(), ..span });
        }
    }
    Ok(())
}

/// Lets all visitors come. A thread for each connection notes when its reply arrives and when the
/// server closes.
fn visit(site: &Site) -> Result<Vec<Span>, String> {
    let (address, clock, begun) = (site.address(), Clock::start(), Instant::now());
    let mut connections = Vec::new();
    for number in 0..VISITORS * CONNECTIONS {
        let visitor = number / CONNECTIONS;
        std::thread::sleep((APART * visitor).saturating_sub(begun.elapsed()));
        // One thread connects, so that the server accepts in the order of the visitors.
        let (mut connection, connect) = Connection::open(clock, address)?;
        connection.send(PATH, false)?;
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = thread.spawn(move || read(connection, connect, visitor, number));
        connections.push(thread.map_err(|e| format!("the client cannot start a thread: {e}"))?);
    }
    let ended = connections.into_iter().map(|thread| {
        thread.join().unwrap_or_else(|_| Err("a thread of the client panicked".to_owned()))
    });
    Ok(ended.collect::<Result<Vec<_>, String>>()?.into_iter().flatten().collect())
}

fn read(
    mut connection: Connection,
    connect: Phase,
    visitor: u32,
    number: u32,
) -> Result<Vec<Span>, String> {
    let reply = connection.receive()?;
    let close = connection.wait_for_end("kept")?;
    let phases = [connect, reply.wait, reply.transfer, close];
    let span = |phase: Phase| Span {
        lane: (visitor + 1).to_string(),
        kind: phase.kind.to_owned(),
        from_us: phase.from_us,
        to_us: phase.to_us,
        connection: Some(number),
        request: Some(number),
        ..Span::default()
    };
    Ok(phases.map(span).to_vec())
}
