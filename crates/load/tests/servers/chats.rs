//! The generator over WebSockets: echo servers, and chats in which each message must reach all
//! other members.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use load::{Error, Pace, Plan, Silent, run};
use record::{Arrivals, FanOut, Protocol};
use sha1::{Digest, Sha1};

use crate::support::{TIME_LIMIT, Test, assert_exact, plan, server};

const TEXT_OR_BINARY: [u8; 2] = [1, 2];
const CLOSE: u8 = 8;

/// Reads the upgrade; returns the answer (RFC 6455, section 4.2.2).
pub fn upgrade(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let hash = Sha1::new()
        .chain_update(key.unwrap_or_default())
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    let accept = BASE64_STANDARD.encode(hash);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Ok(answer.into_bytes())
}

/// A client's next frame, unmasked (RFC 6455, section 5.2).
pub fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let len = match head[1] & 0x7f {
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len)?;
            u64::from(u16::from_be_bytes(len))
        }
        127 => {
            let mut len = [0; 8];
            stream.read_exact(&mut len)?;
            u64::from_be_bytes(len)
        }
        len => u64::from(len),
    };
    let (mut mask, mut payload) = ([0; 4], vec![0; len as usize]);
    stream.read_exact(&mut mask)?;
    stream.read_exact(&mut payload)?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((head[0] & 0x0f, payload))
}

/// A server's frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(len as u8),
        len @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// Sends every message back.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    let answer = upgrade(&mut stream)?;
    stream.write_all(&answer)?;
    loop {
        let (opcode, payload) = read_frame(&mut stream)?;
        stream.write_all(&frame(opcode, &payload))?;
        if opcode == CLOSE {
            return Ok(());
        }
    }
}

/// 8 connections to this server.
fn messages(address: SocketAddr, payload_bytes: usize, count: u64) -> Result<Plan, Error> {
    Ok(Plan { payload_bytes, ..plan("ws", address, "/ws", count)? })
}

#[test]
fn messages_of_all_sizes_and_depths_come_back() -> Test {
    let address = server(|_, stream| echo(stream))?;
    for (payload_bytes, pipelining) in
        [(1, 1), (64, 16), (125, 1), (126, 3), (65_535, 1), (65_536, 2), (300_000, 3)]
    {
        let plan = Plan { pipelining, ..messages(address, payload_bytes, 103)? };
        let outcome = run(&plan, &mut Silent)?;
        assert_exact(&outcome, 103);
        assert_eq!(outcome.protocol, Protocol::WebSocket);
    }
    Ok(())
}

#[test]
fn a_websocket_for_each_message() -> Test {
    let address = server(|_, stream| echo(stream))?;
    let outcome = run(&Plan { reconnect: true, ..messages(address, 64, 100)? }, &mut Silent)?;
    assert_exact(&outcome, 100);
    assert_eq!(outcome.connects, 100);
    Ok(())
}

#[test]
fn idle_websockets_are_open() -> Test {
    let opened = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&opened);
    let address = server(move |number, mut stream| {
        if !(1..=200).contains(&number) {
            return echo(stream);
        }
        let answer = upgrade(&mut stream)?;
        stream.write_all(&answer)?;
        seen.fetch_add(1, SeqCst);
        // Every tenth gets a Close.
        if number % 10 == 0 {
            return stream.write_all(&frame(CLOSE, &1001_u16.to_be_bytes()));
        }
        stream.read(&mut [0; 1]).map(drop)
    })?;
    let plan = Plan { idle_connections: 200, ..messages(address, 64, 500)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_exact(&outcome, 500);
    assert_eq!(opened.load(SeqCst), 200);
    assert_eq!((outcome.idle_connections, outcome.idle_connections_asked), (180, 200));
    Ok(())
}

#[test]
fn a_server_that_does_not_upgrade_is_refused_in_a_sentence() -> Test {
    let address = server(|_, mut stream| {
        upgrade(&mut stream)?;
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    })?;
    let refused = run(&messages(address, 64, 1)?, &mut Silent);
    assert!(
        matches!(&refused, Err(Error::Probe { reason, .. }) if reason.contains("status 404")),
        "{refused:?}"
    );
    let silent = server(|_, mut stream| io::copy(&mut stream, &mut io::sink()).map(drop))?;
    let request_timeout = Duration::from_millis(50);
    let refused = run(&Plan { request_timeout, ..messages(silent, 64, 1)? }, &mut Silent);
    assert!(
        matches!(&refused, Err(Error::NoReply { missing, .. }) if missing.contains("greeting")),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn a_greeting_that_is_never_answered_is_an_error_of_its_own() -> Test {
    let address = server(|number, mut stream| match number {
        0 => echo(stream),
        _ => io::copy(&mut stream, &mut io::sink()).map(drop),
    })?;
    let plan = Plan { request_timeout: TIME_LIMIT, reconnect: true, ..messages(address, 64, 8)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors_by_kind.connect), (0, 8), "{outcome:?}");
    assert!(outcome.first_error.is_some_and(|text| text.contains("greeting")));
    Ok(())
}

/// The members of a chat.
type Members = Arc<Mutex<Vec<(u64, TcpStream)>>>;

/// A chat. `deliver(message's number, member's number, payload)` returns the bytes that this member
/// gets, if any.
fn chat<F>(deliver: F) -> io::Result<SocketAddr>
where
    F: Fn(u64, u64, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    let (members, said) = (Members::default(), AtomicU64::new(0));
    server(move |number, mut stream| {
        let answer = upgrade(&mut stream)?;
        let all = || members.lock().unwrap_or_else(PoisonError::into_inner);
        let own = stream.try_clone()?;
        {
            let mut all = all();
            all.push((number, own));
            stream.write_all(&answer)?;
        }
        while let Ok((opcode, payload)) = read_frame(&mut stream) {
            if !TEXT_OR_BINARY.contains(&opcode) {
                break;
            }
            let message = said.fetch_add(1, SeqCst);
            for (member, stream) in all().iter_mut().filter(|(member, _)| *member != number) {
                if let Some(bytes) = deliver(message, *member, &payload) {
                    // A member that has left is removed from the list soon.
                    let _gone = stream.write_all(&bytes);
                }
            }
        }
        all().retain(|(member, _)| *member != number);
        stream.shutdown(Shutdown::Both)
    })
}

fn whole(_: u64, _: u64, payload: &[u8]) -> Option<Vec<u8>> {
    Some(frame(2, payload))
}

/// A chat in which only so many messages are delivered.
pub fn stalled_chat(messages: u64) -> io::Result<SocketAddr> {
    chat(move |number, _, payload| (number < messages).then(|| frame(2, payload)))
}

/// So many messages to 7 members.
fn fan_out(address: SocketAddr, messages: u64) -> Result<Plan, Error> {
    Ok(Plan { fan_out: true, ..plan("ws", address, "/ws/chat", messages)? })
}

#[test]
fn every_message_reaches_all_others() -> Test {
    let address = chat(whole)?;
    for (payload_bytes, pipelining) in [(64, 1), (64, 5), (70_000, 2)] {
        let plan = Plan { pipelining, payload_bytes, ..fan_out(address, 50)? };
        let outcome = run(&plan, &mut Silent)?;
        assert_exact(&outcome, 7 * 50);
        assert_eq!(outcome.fan_out, Some(FanOut { members: 8, messages: 50 }));
        assert_eq!(outcome.connections_without_progress, 0);
        assert!(outcome.mean_in_flight <= 7.0 * f64::from(pipelining) + 1e-6, "{outcome:?}");
        assert!(outcome.verification.contains("other connection"), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn an_open_loop_sends_by_the_clock() -> Test {
    let address = chat(whole)?;
    let pace = Pace::Open { rate_per_s: 500.0, arrivals: Arrivals::Poisson, seed: 5 };
    let warmup = Duration::from_millis(20);
    let outcome = run(&Plan { pace, warmup, ..fan_out(address, 50)? }, &mut Silent)?;
    assert_exact(&outcome, 7 * 50);
    let open = outcome.open_loop.ok_or("no open loop")?;
    assert_eq!((open.due, open.sent, open.unanswered), (350, 350, 0), "{open:?}");
    assert_eq!((open.send_lag.samples, open.from_send.samples), (50, 350));
    Ok(())
}

#[test]
fn a_delivery_that_is_dropped_runs_into_the_time_limit() -> Test {
    // Connections 0 and 1 are the probe's, with message 0. Member 5 does not receive message 10.
    let address = chat(|message, member, payload| {
        let dropped = (message, member) == (10, 5);
        (!dropped).then(|| frame(2, payload))
    })?;
    let plan = Plan { request_timeout: TIME_LIMIT, ..fan_out(address, 50)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors), (7 * 50 - 1, 1), "{outcome:?}");
    assert_eq!(outcome.errors_by_kind.timeout, 1);
    assert_eq!(outcome.fan_out, Some(FanOut { members: 8, messages: 49 }));
    Ok(())
}

#[test]
fn a_delivery_with_a_wrong_byte_is_caught() -> Test {
    let address = chat(|message, member, payload| {
        let mut payload = payload.to_vec();
        if (message, member) == (10, 5) {
            payload[33] ^= 1;
        }
        Some(frame(2, &payload))
    })?;
    let outcome = run(&Plan { pipelining: 3, ..fan_out(address, 50)? }, &mut Silent)?;
    // Messages that the member has not received are lost with its connection: at most three.
    assert!((1..=3).contains(&outcome.errors), "{outcome:?}");
    assert_eq!(
        (outcome.errors_by_kind.wrong, outcome.requests),
        (outcome.errors, 350 - outcome.errors)
    );
    assert_eq!(outcome.fan_out.map(|fan_out| fan_out.messages), Some(50 - outcome.errors));
    assert!(outcome.first_error.is_some_and(|text| text.contains("byte 33")));
    Ok(())
}

#[test]
fn a_member_that_is_closed_is_an_error_and_joins_again() -> Test {
    let address = chat(|message, member, payload| {
        Some(match (message, member) {
            (10, 5) => frame(CLOSE, &1013_u16.to_be_bytes()),
            _ => frame(2, payload),
        })
    })?;
    let outcome = run(&fan_out(address, 50)?, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors), (7 * 50 - 1, 1), "{outcome:?}");
    assert!(outcome.first_error.is_some_and(|text| text.contains("1013")));
    Ok(())
}

#[test]
fn a_chat_that_echoes_is_refused() -> Test {
    let address = server(|_, stream| echo(stream))?;
    let plan = Plan { request_timeout: TIME_LIMIT, ..fan_out(address, 1)? };
    let refused = run(&plan, &mut Silent);
    assert!(
        matches!(&refused, Err(Error::Probe { reason, .. }) if reason.contains("no request")),
        "{refused:?}"
    );
    Ok(())
}
