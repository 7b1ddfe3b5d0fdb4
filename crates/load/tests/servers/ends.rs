//! Connections that the server ends without an error: announced, unannounced, or by GOAWAY.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use load::{Length, Pace, Plan, Silent, run};
use record::Arrivals;

use crate::streams::{GOAWAY, HELLO, Peer, after_probes, frame, reply, streams};
use crate::support::{TIME_LIMIT, Test, assert_exact, http, ok, plan, server};

/// Answers each request with `reply`, and does not close.
fn never_closing(mut stream: TcpStream, reply: &[u8]) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer)? > 0 {
        stream.write_all(reply)?;
    }
    Ok(())
}

#[test]
fn the_client_closes_where_the_server_has_announced_its_end() -> Test {
    for reply in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nok\r\n0\r\n\r\n",
    ] {
        let address = server(move |_, stream| never_closing(stream, reply.as_bytes()))?;
        for (pipelining, pace) in [(1, Pace::Closed), (3, Pace::Closed), (1, open(2_000.0))] {
            let plan = Plan { pipelining, pace, ..plan("http", address, "/", 100)? };
            let outcome = run(&plan, &mut Silent)?;
            assert_exact(&outcome, 100);
            // Each reply but those to the last requests led to a new connection.
            assert!(outcome.closed_by_server >= 92, "{outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn a_server_that_was_asked_to_close_and_does_not_is_at_fault() -> Test {
    let address = server(|_, stream| never_closing(stream, &ok(b"ok")))?;
    let length = Length::Window(TIME_LIMIT + TIME_LIMIT / 2);
    let plan =
        Plan { reconnect: true, request_timeout: TIME_LIMIT, ..plan("http", address, "/", 1)? };
    let outcome = run(&Plan { length, ..plan }, &mut Silent)?;
    assert!(outcome.requests > 0 && outcome.errors_by_kind.timeout > 0, "{outcome:?}");
    Ok(())
}

#[test]
fn status_408_on_an_idle_connection_is_an_end() -> Test {
    // Each connection has one request and gets 408 at once, in one write with the reply. A slow
    // server's 408 could cross the next request.
    let late =
        b"HTTP/1.0 408 Request Time-out\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye";
    let address = server(|_, mut stream| match stream.read(&mut [0; 4096])? {
        0 => Ok(()),
        _ => stream.write_all(&[ok(b"ok").as_slice(), late].concat()),
    })?;
    for pace in [open(1_000.0), Pace::Closed] {
        let outcome = run(&Plan { pace, ..plan("http", address, "/", 40)? }, &mut Silent)?;
        assert_exact(&outcome, 40);
        assert!(outcome.closed_by_server >= 32, "{outcome:?}");
    }
    Ok(())
}

/// Answers `first` requests of each connection, and the next one with a 408 that closes.
fn late_after(first: usize, mut stream: TcpStream) -> io::Result<()> {
    let late = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye";
    let mut buffer = [0; 4096];
    for _ in 0..first {
        if stream.read(&mut buffer)? == 0 {
            return Ok(());
        }
        stream.write_all(&ok(b"ok"))?;
    }
    match stream.read(&mut buffer)? {
        0 => Ok(()),
        _ => stream.write_all(late),
    }
}

#[test]
fn status_408_that_crosses_a_request_is_an_end() -> Test {
    let address = server(|_, stream| late_after(3, stream))?;
    for pace in [open(1_000.0), Pace::Closed] {
        let outcome = run(&Plan { pace, ..plan("http", address, "/", 40)? }, &mut Silent)?;
        assert_exact(&outcome, 40);
        assert!(outcome.closed_by_server > 0, "{outcome:?}");
    }
    Ok(())
}

#[test]
fn a_server_that_answers_nothing_but_408_is_at_fault() -> Test {
    // The probes are answered; otherwise there would be no load.
    let address = server(|number, stream| late_after(usize::from(number < 3), stream))?;
    let length = Length::Window(Duration::from_millis(200));
    let outcome = run(&Plan { length, ..plan("http", address, "/", 40)? }, &mut Silent)?;
    let kinds = &outcome.errors_by_kind;
    assert!(outcome.requests == 0 && kinds.wrong > 0 && kinds.closed == 0, "{outcome:?}");
    assert_eq!(outcome.closed_by_server, 0, "{outcome:?}");
    Ok(())
}

#[test]
fn new_requests_go_on_a_new_connection_while_the_old_one_ends() -> Test {
    // The first connection under load does not answer stream 3 and sends GOAWAY. It answers when
    // the second one has answered 50, so the client must not wait.
    let (told, tell) = channel();
    let tell = std::sync::Mutex::new((Some(told), Some(tell)));
    let address = after_probes(move |stream| {
        let mut ends = tell.lock().map_err(|_| io::ErrorKind::Other)?;
        let (sender, first) = (ends.0.clone(), ends.1.take());
        drop(ends);
        let mut peer = Peer::meet(stream, 100)?;
        if let Some(wait) = first {
            return first_of_two(&mut peer, &wait);
        }
        let mut answered = 0;
        loop {
            let asked = peer.requests()?;
            for &stream in &asked {
                peer.stream.write_all(&reply(stream, HELLO))?;
                answered += 1;
                if let (50, Some(sender)) = (answered, &sender) {
                    sender.send(()).map_err(|_| io::ErrorKind::Other)?;
                }
            }
            if asked.is_empty() {
                return Ok(());
            }
        }
    })?;
    let request_timeout = Duration::from_secs(60);
    let plan = Plan { connections: 1, request_timeout, ..streams(address, 4, 200)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_exact(&outcome, 200);
    assert_eq!((outcome.closed_by_server, outcome.connections_without_progress), (1, 0));
    Ok(())
}

/// Answers the first requests, and those that it has accepted once `told` says so.
fn first_of_two(peer: &mut Peer<TcpStream>, told: &Receiver<()>) -> io::Result<()> {
    let first = peer.requests()?;
    first.iter().try_for_each(|&stream| peer.stream.write_all(&reply(stream, HELLO)))?;
    let taken = peer.requests()?;
    // The first GOAWAY names no number, as from a server that drains (RFC 9113, section 6.8).
    let last = (1_u32 << 31) - 1;
    for last in [last, taken.iter().copied().max().unwrap_or(last)] {
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        peer.stream.write_all(&frame(GOAWAY, 0, 0, &payload))?;
    }
    told.recv().map_err(|_| io::ErrorKind::Other)?;
    taken.iter().try_for_each(|&stream| peer.stream.write_all(&reply(stream, HELLO)))?;
    peer.requests().map(drop)
}

#[test]
fn a_server_that_leaves_at_once_is_reported_in_a_sentence() -> Test {
    let address = server(|_, stream| {
        let mut peer = Peer::meet(stream, 100)?;
        peer.stream.write_all(&frame(GOAWAY, 0, 0, &[0; 8]))?;
        while !peer.requests()?.is_empty() {}
        Ok(())
    })?;
    let refused = run(&streams(address, 4, 1)?, &mut Silent);
    assert!(refused.is_err_and(|error| error.to_string().contains("leaves before")));
    Ok(())
}

#[test]
fn unusual_replies_that_are_legal_are_right() -> Test {
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "A: b\r\n".repeat(500));
    let replies = [
        many.as_str(),
        "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\r\n  b\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n2;a=b\r\nok\r\n0\r\n\
         T: v\r\nU: w\r\n\r\n",
    ];
    for reply in replies.map(str::to_owned) {
        let address =
            server(move |_, stream| http(stream, |_, _, _| Some(reply.clone().into_bytes())))?;
        assert_exact(&run(&plan("http", address, "/", 50)?, &mut Silent)?, 50);
    }
    // Until the end of the connection, after a coding that is not chunked.
    let address = server(|_, mut stream| {
        if stream.read(&mut [0; 4096])? > 0 {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, deflate\r\n\r\nWorld",
            )?;
        }
        Ok(())
    })?;
    assert_exact(&run(&plan("http", address, "/", 50)?, &mut Silent)?, 50);
    Ok(())
}

/// An open loop with this rate and equal gaps.
fn open(rate_per_s: f64) -> Pace {
    Pace::Open { rate_per_s, arrivals: Arrivals::Constant, seed: 1 }
}
