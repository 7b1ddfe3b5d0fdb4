//! Servers that stop answering, refuse connections, or serve only some of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use load::{Error, Length, Pace, Plan, Silent, run};
use record::{Arrivals, LoadOutcome};

use crate::chats;
use crate::streams::{self, HELLO, Peer, reply};
use crate::support::{TIME_LIMIT, Test, echo, hang, http, ok, plan, server};

/// Most connections of the generator before those that carry load.
const PROBES: u64 = 3;
/// Replies before a server stalls.
const ANSWERED: u64 = 40;

/// A window that ends long after so many replies, on any machine that does not stall itself.
fn window(plan: Plan) -> Plan {
    Plan { length: Length::Window(Duration::from_millis(700)), ..plan }
}

/// Requests in flight when the server stalled are in the result, and in its largest latency.
fn assert_stuck(outcome: &LoadOutcome) {
    assert_eq!((outcome.errors, &outcome.first_error), (0, &None), "{outcome:?}");
    assert!(outcome.requests > 0, "{outcome:?}");
    let end = &outcome.at_end;
    assert!(end.in_flight > 0 && end.unanswered > 0, "{outcome:?}");
    // Replies may come for a second after the window.
    assert!(end.oldest_unanswered_us >= 1e6, "{outcome:?}");
    if outcome.open_loop.is_none() {
        assert!(end.overdue > 0, "{outcome:?}");
        let max_us = outcome.latency.max_us;
        // The histogram has three digits.
        assert!((max_us / end.oldest_unanswered_us - 1.0).abs() < 0.01, "{outcome:?}");
        assert_eq!(outcome.latency.samples, outcome.requests + end.overdue, "{outcome:?}");
    }
}

/// Counts a reply under load; never returns after the last.
fn count(number: u64, replies: &AtomicU64) {
    if number >= PROBES && replies.fetch_add(1, SeqCst) >= ANSWERED {
        hang()
    }
}

fn stuck_echo() -> io::Result<SocketAddr> {
    let replies = AtomicU64::new(0);
    server(move |number, mut stream| {
        let mut message = [0; 64];
        for own in 0_u64.. {
            stream.read_exact(&mut message)?;
            // Every connection has one reply, also if the others have had all of theirs by then.
            if own > 0 {
                count(number + PROBES - 1, &replies);
            }
            stream.write_all(&message)?;
        }
        Ok(())
    })
}

#[test]
fn a_stall_at_the_end_is_in_the_result_of_every_echo() -> Test {
    for (streaming, pipelining) in [(false, 1), (false, 8), (true, 1)] {
        let plan = Plan { streaming, pipelining, ..plan("tcp", stuck_echo()?, "", 1)? };
        assert_stuck(&run(&window(plan), &mut Silent)?);
    }
    let pace = Pace::Open { rate_per_s: 2_000.0, arrivals: Arrivals::Constant, seed: 1 };
    let outcome = run(&window(Plan { pace, ..plan("tcp", stuck_echo()?, "", 1)? }), &mut Silent)?;
    assert_stuck(&outcome);
    let open = outcome.open_loop.ok_or("no open loop")?;
    assert_eq!(open.due, 1_400, "{open:?}");
    // Eight connections have one more each.
    assert!(open.unanswered >= 1_400 - ANSWERED - 8, "{open:?}");
    Ok(())
}

#[test]
fn a_stall_at_the_end_is_in_the_result_of_http() -> Test {
    for reconnect in [false, true] {
        let replies = AtomicU64::new(0);
        let address = server(move |number, stream| {
            http(stream, |_, _, _| {
                count(number, &replies);
                Some(ok(b"ok"))
            })
        })?;
        let plan = Plan { reconnect, ..plan("http", address, "/", 1)? };
        let outcome = run(&window(plan), &mut Silent)?;
        match reconnect {
            false => assert_stuck(&outcome),
            // Each request has its own connection, and some were answered before.
            true => assert!(outcome.at_end.overdue > 0, "{outcome:?}"),
        }
    }
    let replies = AtomicU64::new(0);
    let address = streams::after_probes(move |stream| {
        let mut peer = Peer::meet(stream, 100)?;
        loop {
            let asked = peer.requests()?;
            for &stream in &asked {
                count(PROBES, &replies);
                peer.stream.write_all(&reply(stream, HELLO))?;
            }
            if asked.is_empty() {
                return Ok(());
            }
        }
    })?;
    assert_stuck(&run(&window(streams::streams(address, 4, 1)?), &mut Silent)?);
    Ok(())
}

#[test]
fn a_stall_at_the_end_is_in_the_result_of_websockets_and_chats() -> Test {
    let replies = AtomicU64::new(0);
    let address = server(move |number, mut stream: TcpStream| {
        let answer = chats::upgrade(&mut stream)?;
        stream.write_all(&answer)?;
        loop {
            let (opcode, payload) = chats::read_frame(&mut stream)?;
            count(number + PROBES - 1, &replies);
            stream.write_all(&chats::frame(opcode, &payload))?;
        }
    })?;
    assert_stuck(&run(&window(plan("ws", address, "/ws", 1)?), &mut Silent)?);
    let chat = chats::stalled_chat(ANSWERED)?;
    let plan = Plan { fan_out: true, ..plan("ws", chat, "/ws/chat", 1)? };
    assert_stuck(&run(&window(plan), &mut Silent)?);
    Ok(())
}

#[test]
fn a_server_that_turns_connections_away_is_given_up_in_time() -> Test {
    let begin = Instant::now();
    let request_timeout = TIME_LIMIT;
    // Exactly so many: the others are closed as soon as they are accepted.
    let address = server(|number, mut stream: TcpStream| match number {
        0..8 => {
            let answer = chats::upgrade(&mut stream)?;
            stream.write_all(&answer)?;
            let (_, payload) = chats::read_frame(&mut stream)?;
            stream.write_all(&chats::frame(2, &payload))?;
            chats::read_frame(&mut stream).map(drop)
        }
        _ => Ok(()),
    })?;
    let plan = Plan { connections: 64, request_timeout, ..plan("ws", address, "/ws", 1)? };
    let refused = run(&plan, &mut Silent);
    let Err(Error::Ramp { opened, asked, reason }) = refused else {
        return Err(format!("it went on: {refused:?}").into());
    };
    assert!(opened < 8 && asked == 64 && reason.contains("before the greeting"), "{reason}");
    // Without a greeting the kernel has opened the connections before the server closes them, so
    // for a moment all may be open.
    let address = server(|number, stream| match number {
        0..3 => http(stream, |_, _, _| Some(ok(b"ok"))),
        _ => Ok(()),
    })?;
    let plan = Plan { request_timeout, ..crate::support::plan("http", address, "/", 1)? };
    match run(&window(plan), &mut Silent) {
        Err(Error::Ramp { reason, .. }) => assert!(reason.contains("just accepted"), "{reason}"),
        Ok(outcome) => assert!(outcome.requests == 0, "{outcome:?}"),
        Err(error) => return Err(error.into()),
    }
    // Each takes a few seconds, and more on a busy machine.
    assert!(begin.elapsed() < Duration::from_secs(60));
    Ok(())
}

#[test]
fn a_handshake_that_never_ends_obeys_the_time_limit() -> Test {
    // The first connection, the probe, is never answered.
    for scheme in ["https", "ws", "http2"] {
        let address = server(|_, _stream| hang())?;
        let http2 = scheme == "http2";
        let scheme = if http2 { "http" } else { scheme };
        let request_timeout = Duration::from_millis(300);
        let mut plan = Plan { request_timeout, ..plan(scheme, address, "/", 1)? };
        if http2 {
            plan.target.use_http2()?;
        }
        let begin = Instant::now();
        let refused = run(&plan, &mut Silent);
        assert!(matches!(&refused, Err(Error::NoReply { .. })), "{refused:?}");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
    Ok(())
}

#[test]
fn connections_that_are_never_served_are_reported() -> Test {
    // Two of eight are served; the others are accepted and never read.
    let address = server(|number, stream| match number {
        0..3 => echo(number, stream),
        _ => hang(),
    })?;
    let outcome = run(&window(plan("tcp", address, "", 1)?), &mut Silent)?;
    assert_eq!(outcome.connections_without_progress, 6, "{outcome:?}");
    // A connection without a request did not stall.
    let outcome = run(&plan("tcp", server(echo)?, "", 3)?, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.connections_without_progress), (3, 0), "{outcome:?}");
    Ok(())
}

#[test]
fn every_address_of_a_name_is_tried() -> Test {
    // Two ports that are bound and not listening, and one that is listening.
    let closed = || -> Result<(socket2::Socket, SocketAddr), Box<dyn std::error::Error>> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        let address = socket.local_addr()?.as_socket().ok_or("no address")?;
        Ok((socket, address))
    };
    let ((_one, first), (_two, second), open) = (closed()?, closed()?, server(echo)?);
    let mut plan = plan("tcp", first, "", 10)?;
    plan.target.others = vec![second, open];
    let outcome = run(&plan, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.address), (10, open.to_string()));
    plan.target.others = vec![second];
    let refused = run(&plan, &mut Silent).err().ok_or("it was reached")?.to_string();
    assert!(refused.contains(&first.to_string()) && refused.contains(&second.to_string()));
    Ok(())
}
