//! The arithmetic of the notes: each file takes three steps of equal length. Over one connection
//! and over several, over HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use record::Span;

use crate::client::{Connection, Phase, Reply};
use crate::http2::Session;
use crate::{Answer, Clock, Experiment, Predict, Refused, Site, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "staircase",
    question: "Each of seven files takes three steps of equal length: to connect (a round trip), \
        to be processed by the server (/delay/100), and the way of request and reply (a round \
        trip). Over one connection at a time, file a is complete after 3 steps and file b after 6. \
        What changes with keep-alive, with pipelining, with six connections, with HTTP/2? It is \
        the same server with the same requests each time.",
    predict: Predict {
        question: "With keep-alive over one connection, after how many steps is file b complete?",
        answer: Answer::Number("steps"),
    },
    takes_s: 8,
    model: Some("epoll"),
    run,
};

const FILES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const STEP_MS: u32 = 100;
/// The server's step.
const PATH: &str = "/delay/100";
/// The network's two steps.
const LINK: &str = "rtt=100ms";
/// What browsers open to one server over HTTP/1.1.
const CONNECTIONS: usize = 6;

/// How the files are fetched.
type Fetch = fn(Clock, SocketAddr) -> Result<Vec<Span>, String>;

const WAYS: [(&str, &str, Fetch); 5] = [
    ("close", "without keep-alive", |clock, address| one_by_one(clock, address, false)),
    ("keep-alive", "with keep-alive", |clock, address| one_by_one(clock, address, true)),
    ("pipelined", "pipelined", pipelined),
    ("six", "over 6 connections", six),
    ("h2", "over HTTP/2, 1 connection", over_http2),
];

fn run(stage: &mut Stage) -> Result<(), Refused> {
    let link = stage.link_or_skip("the steps of the network (100 ms of round trip)", LINK)?;
    for (name, title, fetch) in WAYS {
        let run = stage.arrangement(name, title, link.as_deref());
        let Some(site) = stage.start(run)? else { continue };
        let seen = fetch_all(&site, fetch)?;
        let ended = site.stop()?;
        for span in seen {
            stage.span(Span { run: name.to_owned(), ..span });
        }
        stage.figure(name, "step_ms", f64::from(STEP_MS));
        stage.figure(name, "connections_accepted", ended.counter("connections_accepted")?);
        stage.figure(name, "requests_answered", ended.counter("requests")?);
    }
    Ok(())
}

fn fetch_all(site: &Site, fetch: Fetch) -> Result<Vec<Span>, Refused> {
    let address = site.address();
    Ok(site.as_client(|| fetch(Clock::start(), address))??)
}

/// A phase of a file.
fn span(file: usize, connection: usize, phase: Phase) -> Span {
    Span {
        lane: FILES[file].to_owned(),
        kind: phase.kind.to_owned(),
        from_us: phase.from_us,
        to_us: phase.to_us,
        connection: Some(connection as u32),
        request: Some(file as u32),
        ..Span::default()
    }
}

/// The time before anything is done for a file.
fn queued(file: usize, connection: usize, to_us: f64) -> Span {
    span(file, connection, Phase { kind: "queued", from_us: 0.0, to_us })
}

fn replied(file: usize, connection: usize, reply: Reply) -> [Span; 2] {
    [reply.wait, reply.transfer].map(|phase| span(file, connection, phase))
}

fn one_by_one(clock: Clock, address: SocketAddr, keeps: bool) -> Result<Vec<Span>, String> {
    let (mut seen, mut open, mut connections) = (Vec::new(), None, 0);
    for file in 0..FILES.len() {
        seen.push(queued(file, connections, clock.now_us()));
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => {
                let (connection, connect) = Connection::open(clock, address)?;
                connections += 1;
                seen.push(span(file, connections - 1, connect));
                connection
            }
        };
        let reply = connection.ask(PATH, !keeps)?;
        open = (keeps && !reply.closes).then_some(connection);
        seen.extend(replied(file, connections - 1, reply));
    }
    Ok(seen)
}

/// All requests are sent at once; the replies come in their order (RFC 9112 section 9.3.2).
fn pipelined(clock: Clock, address: SocketAddr) -> Result<Vec<Span>, String> {
    let (mut connection, connect) = Connection::open(clock, address)?;
    let mut seen = vec![span(0, 0, connect)];
    for file in 0..FILES.len() {
        if file > 0 {
            seen.push(queued(file, 0, connect.to_us));
        }
        connection.send(PATH, false)?;
    }
    for file in 0..FILES.len() {
        seen.extend(replied(file, 0, connection.receive()?));
    }
    Ok(seen)
}

/// A thread for each connection takes the next file when it has received one, as a browser does.
fn six(clock: Clock, address: SocketAddr) -> Result<Vec<Span>, String> {
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let fetch = |number: usize| {
        let mut open = None;
        loop {
            let file = next.fetch_add(1, Relaxed);
            if file >= FILES.len() {
                return Ok(());
            }
            let mut own = vec![queued(file, number, clock.now_us())];
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => {
                    let (connection, connect) = Connection::open(clock, address)?;
                    own.push(span(file, number, connect));
                    connection
                }
            };
            own.extend(replied(file, number, connection.ask(PATH, false)?));
            open = Some(connection);
            seen.lock().map_err(|_| "a thread of the client panicked")?.extend(own);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..CONNECTIONS).map(|number| scope.spawn(move || fetch(number))).collect();
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err("a thread of the client panicked".to_owned()))
        });
        ended.collect::<Result<Vec<()>, String>>()
    })?;
    let mut seen = seen.into_inner().map_err(|_| "a thread of the client panicked")?;
    seen.sort_by_key(|span| span.request);
    Ok(seen)
}

fn over_http2(clock: Clock, address: SocketAddr) -> Result<Vec<Span>, String> {
    let (mut session, connect) = Session::open(clock, address)?;
    let mut seen = vec![span(0, 0, connect)];
    let mut streams = Vec::new();
    for file in 0..FILES.len() {
        if file > 0 {
            seen.push(queued(file, 0, connect.to_us));
        }
        let sent_us = clock.now_us();
        streams.push((session.send(PATH)?, sent_us, None));
    }
    let mut left = FILES.len();
    while left > 0 {
        let frame = session.receive()?;
        let found = streams.iter_mut().enumerate().find(|(_, (id, ..))| *id == frame.stream);
        let Some((file, (_, sent_us, first_us))) = found else { continue };
        let first = *first_us.get_or_insert(frame.at_us);
        if frame.ends_stream {
            let wait = Phase { kind: "wait", from_us: *sent_us, to_us: first };
            let transfer = Phase { kind: "transfer", from_us: first, to_us: frame.at_us };
            seen.extend([wait, transfer].map(|phase| span(file, 0, phase)));
            left -= 1;
        }
    }
    seen.sort_by_key(|span| span.request);
    Ok(seen)
}
