//! Questions to the kernel before a peer counts as late.

mod support;

use std::time::{Duration, Instant};

use conn::{Address, Conn, Limits, Outcome, Protocol};
use support::world::World;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BODY: &[u8] = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345";
const UPGRADE: &[u8] = b"GET /ws/echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
    dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// POST `/echo` with a literal path and an authority, without its body.
const H2_POST: &[u8] = b"\0\0\x0c\x01\x04\0\0\0\x01\x83\x86\x04\x05/echo\x41\x01a";

/// The write timeout passes before the idle timeout.
fn limits() -> Limits {
    Limits { write_timeout_ms: 1_000, ..Limits::default() }
}

fn conn(protocol: Protocol, sent: &[&[u8]]) -> (Conn, Instant) {
    let world = World::new(protocol, limits(), &[]);
    let mut conn = Conn::new(&world.service, Address::alone(), world.started);
    for bytes in sent {
        conn.receive(bytes, world.started);
        flush(&mut conn, world.started);
    }
    (conn, world.started)
}

fn flush(conn: &mut Conn, now: Instant) -> Vec<u8> {
    let chunks: Vec<_> = conn.chunks().collect();
    let bytes = chunks.concat();
    conn.sent(bytes.len(), now);
    bytes
}

#[test]
fn input_that_came_in_time_is_read_before_the_clock_decides() {
    for (protocol, sent, rest) in [
        (Protocol::Http, &[][..], GET),
        (Protocol::Http, &[GET], GET),
        (Protocol::Http, &[&GET[..7]], &GET[7..]),
        (Protocol::Http, &[BODY], b"67890"),
        (Protocol::Http, &[UPGRADE], b"\x81\x82\0\0\0\0hi"),
        (Protocol::Http, &[PREFACE], b"\0\0\x08\x06\0\0\0\0\0pingping"),
        (Protocol::Http, &[PREFACE, H2_POST], b"\0\0\x02\0\x01\0\0\0\x01hi"),
        (Protocol::Echo, &[b"hello"], b"again"),
    ] {
        let what = sent.concat().escape_ascii().to_string();
        let (mut conn, started) = conn(protocol, sent);
        assert!(!conn.input_is_late(started), "{what}: nothing is due");
        let at = conn.wants().and_then(|wants| wants.deadline).expect("a deadline");
        let now = at + Duration::from_millis(1);
        assert!(conn.input_is_late(now), "{what}");
        conn.receive(rest, now);
        conn.timeout(now);
        let reply = flush(&mut conn, now);
        assert!(!reply.is_empty(), "{what}");
        assert!(!reply.starts_with(b"HTTP/1.1 408"), "{what}");
        assert!(conn.wants().is_some_and(|wants| wants.read), "{what}: {:?}", conn.outcome());
    }
}

/// A read would not move the deadline, so the driver does not need one.
#[test]
fn what_does_not_wait_for_input_is_due_by_the_clock_alone() {
    let (mut conn, started) = conn(Protocol::Http, &[b"GET /delay/50 HTTP/1.1\r\nHost: a\r\n\r\n"]);
    let now = started + Duration::from_millis(50);
    assert!(!conn.input_is_late(now), "a delayed reply");
    conn.timeout(now);
    assert!(conn.wants().is_some_and(|wants| wants.write));
    let stalled = now + Duration::from_secs(1);
    assert!(!conn.input_is_late(stalled), "the peer is to read");
    conn.timeout(stalled);
    assert_eq!(conn.outcome(), Outcome::WriteTimeout);
    assert!(!conn.input_is_late(stalled), "closed");
}

/// More bytes of a head do not move its deadline, even if they are read first.
#[test]
fn a_head_that_is_late_stays_late() {
    let (mut conn, started) = conn(Protocol::Http, &[b"GET /"]);
    let now = started + Duration::from_millis(limits().head_timeout_ms);
    assert!(conn.input_is_late(now));
    conn.receive(b"x", now);
    conn.timeout(now);
    assert!(flush(&mut conn, now).starts_with(b"HTTP/1.1 408"));
}
