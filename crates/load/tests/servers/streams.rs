//! The generator over HTTP/2, with servers that answer out of order, answer wrongly, or leave.

use std::io::{self, Read, Write};
use std::time::Duration;

use load::{Error, Length, Pace, Plan, Silent, run};
use record::{Arrivals, LoadOutcome, Protocol};

use crate::support::{TIME_LIMIT, Test, assert_exact, plan, server};

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
const PREFACE_BYTES: usize = 24;

/// A frame (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A server's settings, with so many streams.
fn settings(streams: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 3], streams.to_be_bytes().as_slice()].concat())
}

/// Status 200 (an indexed field of the static table, RFC 7541, appendix A) and this body.
pub fn reply(stream: u32, body: &[u8]) -> Vec<u8> {
    [head(stream), body_of(stream, body)].concat()
}

fn head(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0x4, stream, &[0x88])
}

fn body_of(stream: u32, body: &[u8]) -> Vec<u8> {
    frame(DATA, 0x1, stream, body)
}

pub const HELLO: &[u8] = b"Hello, world!";

/// A server's connection to the client.
pub struct Peer<S> {
    pub stream: S,
    held: Vec<u8>,
}

impl<S: Read + Write> Peer<S> {
    /// Reads the preface and sends the number of streams.
    pub fn meet(mut stream: S, streams: u32) -> io::Result<Self> {
        stream.read_exact(&mut [0; PREFACE_BYTES])?;
        stream.write_all(&settings(streams))?;
        Ok(Peer { stream, held: Vec::new() })
    }

    /// The streams of the requests in one read; none at the end.
    pub fn requests(&mut self) -> io::Result<Vec<u32>> {
        let (mut streams, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        while streams.is_empty() {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            self.held.extend_from_slice(&buffer[..count]);
            while let Some(&[a, b, c, kind, flags, e, f, g, h]) = self.held.first_chunk() {
                let len = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
                if self.held.len() < len {
                    break;
                }
                self.held.drain(..len);
                match kind {
                    HEADERS => streams.push(u32::from_be_bytes([e, f, g, h])),
                    SETTINGS if flags == 0 => self.stream.write_all(&frame(4, 1, 0, &[]))?,
                    _ => {}
                }
            }
        }
        Ok(streams)
    }
}

/// So many streams on each of 8 connections.
pub fn streams(address: std::net::SocketAddr, streams: u32, requests: u64) -> Result<Plan, Error> {
    let mut plan = Plan { pipelining: streams, ..plan("http", address, "/", requests)? };
    plan.target.use_http2()?;
    Ok(plan)
}

/// Answers in order.
fn in_order(stream: impl Read + Write) -> io::Result<()> {
    let mut peer = Peer::meet(stream, 100)?;
    loop {
        let asked = peer.requests()?;
        if asked.is_empty() {
            return Ok(());
        }
        let replies: Vec<_> = asked.iter().flat_map(|&stream| reply(stream, HELLO)).collect();
        peer.stream.write_all(&replies)?;
    }
}

/// Answers the youngest first, heads before bodies, and delays one request until eight others were
/// answered.
fn out_of_order(stream: impl Read + Write) -> io::Result<()> {
    let mut peer = Peer::meet(stream, 100)?;
    let (mut late, mut since) = (None, 0);
    loop {
        let mut asked = peer.requests()?;
        if asked.is_empty() {
            return Ok(());
        }
        if late.is_none() && asked.len() > 1 {
            late = Some(asked.remove(0));
        }
        asked.reverse();
        since += asked.len();
        if since >= 8 || asked.is_empty() {
            asked.extend(late.take());
            since = 0;
        }
        let heads: Vec<_> = asked.iter().flat_map(|&stream| head(stream)).collect();
        peer.stream.write_all(&heads)?;
        for stream in asked {
            peer.stream.write_all(&body_of(stream, HELLO))?;
        }
    }
}

/// A server that is correct on its first three connections, the probes, and then uses `serve`.
pub fn after_probes<F>(serve: F) -> io::Result<std::net::SocketAddr>
where
    F: Fn(std::net::TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    server(move |number, stream| if number < 3 { in_order(stream) } else { serve(stream) })
}

#[test]
fn replies_in_any_order_are_matched() -> Test {
    let address = server(|_, stream| out_of_order(stream))?;
    for depth in [2, 8, 32] {
        // A window, because with a number of requests this server would delay the last one for
        // ever.
        let length = Length::Window(Duration::from_millis(300));
        let outcome = run(&Plan { length, ..streams(address, depth, 1)? }, &mut Silent)?;
        assert_eq!((outcome.errors, &outcome.first_error), (0, &None), "{outcome:?}");
        assert!(outcome.requests > 0, "{outcome:?}");
        // The delayed request is a sample too, if it was long enough.
        let samples = outcome.requests + outcome.at_end.overdue;
        assert_eq!((outcome.latency.samples, outcome.pipelining), (samples, depth));
        assert!(outcome.mean_in_flight <= 8.0 * f64::from(depth) + 1e-6, "{outcome:?}");
    }
    Ok(())
}

#[test]
fn every_latency_is_that_of_its_own_request() -> Test {
    // The first request is delayed while six times seven others are answered, each time after a
    // pause: it takes six pauses.
    const PAUSE: Duration = Duration::from_millis(10);
    let address = after_probes(|stream| {
        let (mut peer, mut waiting, mut answered) = (Peer::meet(stream, 100)?, Vec::new(), 0);
        loop {
            let asked = peer.requests()?;
            if asked.is_empty() {
                return Ok(());
            }
            if asked.contains(&1) {
                peer.stream.write_all(&reply(1, HELLO))?;
            }
            waiting.extend(asked.into_iter().filter(|&stream| stream > 3));
            if waiting.len() == 7 {
                std::thread::sleep(PAUSE);
                for stream in waiting.drain(..) {
                    peer.stream.write_all(&reply(stream, HELLO))?;
                    answered += 1;
                }
            }
            if answered == 42 {
                peer.stream.write_all(&reply(3, HELLO))?;
            }
        }
    })?;
    let outcome = run(&Plan { connections: 1, ..streams(address, 8, 43)? }, &mut Silent)?;
    assert_exact(&outcome, 43);
    assert!(outcome.latency.max_us >= 6.0 * PAUSE.as_micros() as f64, "{outcome:?}");
    Ok(())
}

#[test]
fn exactly_as_many_requests_as_asked_for() -> Test {
    let address = server(|_, stream| in_order(stream))?;
    for (depth, threads, reconnect) in [(1, 1, false), (7, 1, false), (32, 3, false), (1, 1, true)]
    {
        let warmup = Duration::from_millis(20);
        let plan = Plan { threads, reconnect, warmup, ..streams(address, depth, 1_003)? };
        let outcome = run(&plan, &mut Silent)?;
        assert_exact(&outcome, 1_003);
        assert_eq!(outcome.protocol, Protocol::Http2);
    }
    Ok(())
}

#[test]
fn an_open_loop_over_streams_sends_what_is_due() -> Test {
    let address = server(|_, stream| in_order(stream))?;
    let pace = Pace::Open { rate_per_s: 4_000.0, arrivals: Arrivals::Poisson, seed: 5 };
    let outcome = run(&Plan { pace, ..streams(address, 8, 203)? }, &mut Silent)?;
    assert_exact(&outcome, 203);
    let open = outcome.open_loop.ok_or("no open loop")?;
    assert_eq!((open.due, open.sent, open.unanswered), (203, 203, 0), "{open:?}");
    Ok(())
}

#[test]
fn a_wrong_reply_among_many_costs_one_request() -> Test {
    // The body of every stream 21 is wrong: the others on its connection are sent again.
    let address = after_probes(|stream| {
        let mut peer = Peer::meet(stream, 100)?;
        loop {
            let asked = peer.requests()?;
            for &stream in &asked {
                let body: &[u8] = if stream == 21 { b"Hello, worlD!" } else { HELLO };
                peer.stream.write_all(&reply(stream, body))?;
            }
            if asked.is_empty() {
                return Ok(());
            }
        }
    })?;
    let outcome = run(&Plan { connections: 1, ..streams(address, 4, 50)? }, &mut Silent)?;
    // One connection, whose numbers continue: stream 21 is used once.
    assert_eq!((outcome.requests, outcome.errors_by_kind.wrong), (49, 1), "{outcome:?}");
    assert!(outcome.first_error.is_some_and(|text| text.contains("byte 11 of the body")));
    Ok(())
}

#[test]
fn a_reply_without_a_request_or_a_second_one_is_wrong() -> Test {
    for twice in [true, false] {
        let address = after_probes(move |stream| {
            let mut peer = Peer::meet(stream, 100)?;
            loop {
                let asked = peer.requests()?;
                for &stream in &asked {
                    let again = if twice { stream } else { stream + 1_000 };
                    peer.stream.write_all(&reply(stream, HELLO))?;
                    if stream > 1 {
                        peer.stream.write_all(&reply(again, HELLO))?;
                    }
                }
                if asked.is_empty() {
                    return Ok(());
                }
            }
        })?;
        let outcome = run(&streams(address, 4, 40)?, &mut Silent)?;
        assert!(outcome.errors_by_kind.wrong > 0, "{outcome:?}");
    }
    Ok(())
}

#[test]
fn a_stream_that_is_never_answered_runs_into_the_time_limit() -> Test {
    let address = after_probes(|stream| {
        let mut peer = Peer::meet(stream, 100)?;
        loop {
            let asked = peer.requests()?;
            for &stream in asked.iter().filter(|&&stream| stream != 3) {
                peer.stream.write_all(&reply(stream, HELLO))?;
            }
            if asked.is_empty() {
                return Ok(());
            }
        }
    })?;
    let plan = Plan { request_timeout: TIME_LIMIT, connections: 1, ..streams(address, 4, 40)? };
    let outcome = run(&plan, &mut Silent)?;
    // The others are answered before it, until its connection is given up.
    assert_eq!((outcome.requests, outcome.errors_by_kind.timeout), (39, 1), "{outcome:?}");
    Ok(())
}

#[test]
fn a_server_that_leaves_has_its_last_requests_sent_again() -> Test {
    // After 10 replies it sends GOAWAY, answers what it has accepted, and waits for the client.
    let address = server(|_, stream| {
        let (mut peer, mut answered, mut last) = (Peer::meet(stream, 100)?, 0, None);
        loop {
            let asked = peer.requests()?;
            for &stream in &asked {
                if last.is_some_and(|last| stream > last) {
                    continue;
                }
                peer.stream.write_all(&reply(stream, HELLO))?;
                answered += 1;
                if answered == 10 {
                    let payload = [stream.to_be_bytes(), [0; 4]].concat();
                    peer.stream.write_all(&frame(GOAWAY, 0, 0, &payload))?;
                    last = Some(stream);
                }
            }
            if asked.is_empty() {
                return Ok(());
            }
        }
    })?;
    let outcome = run(&streams(address, 4, 300)?, &mut Silent)?;
    assert_exact(&outcome, 300);
    assert!(outcome.closed_by_server >= 20, "{outcome:?}");
    let pace = Pace::Open { rate_per_s: 4_000.0, arrivals: Arrivals::Poisson, seed: 5 };
    let outcome: LoadOutcome = run(&Plan { pace, ..streams(address, 4, 300)? }, &mut Silent)?;
    assert_exact(&outcome, 300);
    Ok(())
}

#[test]
fn too_many_streams_are_refused_in_a_sentence() -> Test {
    let address = server(|_, stream| {
        let mut peer = Peer::meet(stream, 4)?;
        peer.requests().map(drop)
    })?;
    let refused = run(&streams(address, 5, 1)?, &mut Silent);
    assert!(
        matches!(&refused, Err(Error::Probe { reason, .. }) if reason.contains("4 streams")),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn silent_connections_have_been_asked_once() -> Test {
    let address = server(|_, stream| in_order(stream))?;
    let plan = Plan { idle_connections: 300, ..streams(address, 4, 100)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_exact(&outcome, 100);
    assert_eq!((outcome.idle_connections, outcome.idle_connections_asked), (300, 300));
    Ok(())
}
