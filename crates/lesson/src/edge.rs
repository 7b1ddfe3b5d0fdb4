//! Level- and edge-triggered epoll: what is forgotten when a reader stops early.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use record::{Run, Span};
use rig::queues;
use rig::trace::Visit;

use crate::{Answer, Experiment, Predict, Refused, Stage};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "edge",
    question: "A client sends 64 bytes, and the server reads 16 at a time. Level-triggered, \
        epoll_wait(2) reports a socket as long as it has bytes. Edge-triggered, it reports it when \
        bytes arrive, once. So how often does epoll_wait return for these 64 bytes? And what \
        becomes of a reader that is told of an edge, reads once, and goes back to wait?",
    predict: Predict {
        question: "A server is told of an edge, reads 16 of 64 bytes and waits again. How many of \
            the other 48 does it read?",
        answer: Answer::Number("bytes"),
    },
    takes_s: 4,
    model: None,
    run,
};

/// Name and title of a run, its model and arguments, and the length of the message.
type Case = (&'static str, &'static str, &'static str, &'static [&'static str], usize);

const SMALL: &[&str] = &["--read-bytes", "16"];
/// Sent at once, it arrives at once: a segment on loopback has up to 64 KiB.
const MESSAGE_BYTES: usize = 64;
/// More than the buffer of serve-epoll, so that it reads in parts.
const LONG_BYTES: usize = 100_000;

const CASES: &[Case] = &[
    ("level", "level, one read for each report", "faulty", &["--trigger", "level"], MESSAGE_BYTES),
    ("edge", "edge, reads until EAGAIN", "faulty", &["--trigger", "edge"], MESSAGE_BYTES),
    (
        "stops-early",
        "edge, one read for each report",
        "faulty",
        &["--trigger", "edge", "--fault", "stop-early"],
        MESSAGE_BYTES,
    ),
    ("epoll-level", "serve-epoll, level", "epoll", &["--trigger", "level"], LONG_BYTES),
    ("epoll-edge", "serve-epoll, edge", "epoll", &["--trigger", "edge"], LONG_BYTES),
];

/// What a client has seen of its echo.
#[derive(Default)]
struct Seen {
    /// Bytes of the echo after the message, and after one more byte.
    echo: usize,
    echo_after_more: usize,
    /// Bytes that the server has not read, at these times.
    unread: u64,
    unread_after_more: u64,
    /// Whether the server has closed after the client had.
    closed: bool,
}

fn run(stage: &mut Stage) -> Result<(), Refused> {
    for &(name, title, model, flags, bytes) in CASES {
        let small = if model == "faulty" { SMALL } else { &[] };
        let arguments = flags.iter().chain(small).map(|flag| (*flag).to_owned()).collect();
        let run = Run {
            run: name.to_owned(),
            title: title.to_owned(),
            model: model.to_owned(),
            arguments,
            link: None,
        };
        let mut seen = None;
        stage.trace(run, "echo", |visit| {
            let (spans, what) = talk(visit, bytes).map_err(|e| format!("a client failed: {e}"))?;
            seen = Some(what);
            Ok(spans)
        })?;
        let Some(seen) = seen else { continue };
        stage.figure(name, "message_bytes", bytes as f64);
        stage.figure(name, "echo_bytes", seen.echo as f64);
        stage.figure(name, "unread_bytes", seen.unread as f64);
        stage.figure(name, "echo_bytes_after_more", seen.echo_after_more as f64);
        stage.figure(name, "unread_bytes_after_more", seen.unread_after_more as f64);
        stage.figure(name, "closed_by_server", f64::from(u8::from(seen.closed)));
    }
    Ok(())
}

/// Sends a message, waits for its echo until the server does nothing more, sends one byte more, and
/// closes.
fn talk(visit: &mut Visit, bytes: usize) -> io::Result<(Vec<Span>, Seen)> {
    let mut socket = TcpStream::connect(visit.address())?;
    visit.register(&socket).map_err(io::Error::other)?;
    visit.until_quiet(Duration::ZERO);
    let (mut seen, mut spans) = (Seen::default(), Vec::new());
    let unread = |socket: &TcpStream| -> io::Result<u64> {
        let (own, peer) = (socket.peer_addr()?, socket.local_addr()?);
        Ok(queues::of(own, peer).map_or(0, |queues| queues.unread))
    };
    let mut step = |kind: &str, from_us: f64| {
        let (lane, kind) = ("client".to_owned(), kind.to_owned());
        spans.push(Span { lane, kind, from_us, to_us: visit.now_us(), ..Span::default() });
    };
    let from_us = visit.now_us();
    socket.write_all(&vec![b'm'; bytes])?;
    seen.echo = visit.hear(&socket, bytes)?.bytes;
    seen.unread = unread(&socket)?;
    step("message", from_us);
    let from_us = visit.now_us();
    socket.write_all(b"+")?;
    let missing = bytes + 1 - seen.echo;
    seen.echo_after_more = seen.echo + visit.hear(&socket, missing)?.bytes;
    seen.unread_after_more = unread(&socket)?;
    step("one byte more", from_us);
    let from_us = visit.now_us();
    socket.shutdown(Shutdown::Write)?;
    // One byte more than can come, so that the end is seen.
    seen.closed = visit.hear(&socket, bytes + 2 - seen.echo_after_more)?.ended;
    step("close", from_us);
    Ok((spans, seen))
}
