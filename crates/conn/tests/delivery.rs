//! A peer that acknowledges output is not late, however slow it is.

mod support;

use std::time::{Duration, Instant};

use conn::{Address, Conn, Limits, Outcome, Protocol};
use support::frames::{BINARY, client};
use support::http2::{data, greeting, request};
use support::world::World;

const TIMEOUT: Duration = Duration::from_secs(4);
/// Four checks per timeout.
const CHECK: Duration = Duration::from_secs(1);

fn limits() -> Limits {
    Limits { write_timeout_ms: 4_000, idle_timeout_ms: 10_000, ..Limits::default() }
}

/// A connection that has written `taken` bytes of a reply to a socket that is now full.
fn stalled(protocol: Protocol, asked: &[&[u8]], taken: usize) -> (Conn, Instant) {
    let world = World::new(protocol, limits(), &[]);
    let mut conn = Conn::new(&world.service, Address::alone(), world.started);
    for bytes in asked {
        conn.receive(bytes, world.started);
    }
    conn.sent(taken, world.started);
    assert!(conn.wants().is_some_and(|wants| wants.write), "all of it was taken");
    (conn, world.started)
}

fn protocols() -> [(Protocol, Vec<&'static [u8]>); 4] {
    const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff";
    const WINDOW: &[u8] = b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0";
    const GET: &[u8] = b"\0\0\x15\x01\x05\0\0\0\x01\x82\x86\x04\x0e/bytes/9000000\x41\x01a";
    let upgrade = b"GET /ws/echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: \
        Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
        dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    [
        (Protocol::Echo, vec![b"0123456789".repeat(1_000).leak()]),
        (Protocol::Http, vec![b"GET /bytes/9000000 HTTP/1.1\r\nHost: a\r\n\r\n"]),
        (Protocol::Http, vec![b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SETTINGS, WINDOW, GET]),
        (Protocol::Http, vec![upgrade, b"\x82\x85\0\0\0\0hello".repeat(1_000).leak()]),
    ]
}

#[test]
fn a_peer_that_acknowledges_is_not_closed() {
    for (protocol, asked) in protocols() {
        let what = asked.concat()[..10].escape_ascii().to_string();
        let (mut conn, started) = stalled(protocol, &asked, 1_000);
        // One byte in nearly every timeout, many times.
        for check in 1..40 {
            let now = started + CHECK * check;
            if conn.output_is_late(now) {
                conn.unacknowledged(999 - check as usize / 3, now);
            }
            conn.timeout(now);
            assert!(conn.wants().is_some(), "{what}: cut at {check}: {:?}", conn.outcome());
        }
    }
}

#[test]
fn a_peer_that_acknowledges_nothing_is_closed_after_the_timeout() {
    for (protocol, asked) in protocols() {
        let what = asked.concat()[..10].escape_ascii().to_string();
        let (mut conn, started) = stalled(protocol, &asked, 1_000);
        let mut looks = 0;
        let mut now = started;
        while let Some(wants) = conn.wants() {
            now = wants.deadline.expect("a deadline");
            if conn.output_is_late(now) {
                looks += 1;
                conn.unacknowledged(1_000, now);
            }
            conn.timeout(now);
        }
        assert_eq!(conn.outcome(), Outcome::WriteTimeout, "{what}");
        assert_eq!(now, started + TIMEOUT, "{what}");
        assert_eq!(looks, 4, "{what}");
    }
}

fn flush(conn: &mut Conn, now: Instant) -> usize {
    let sent = conn.chunks().map(|chunk| chunk.len()).sum::<usize>();
    conn.sent(sent, now);
    sent
}

/// At the next deadline the peer has acknowledged one byte, and `left` more than one are
/// unacknowledged. Returns the time.
fn takes_one(conn: &mut Conn, left: usize) -> Instant {
    let now = conn.wants().and_then(|wants| wants.deadline).expect("a deadline");
    assert!(conn.output_is_late(now));
    conn.unacknowledged(1 + left, now);
    conn.timeout(now);
    now
}

/// The reply is written: the idle timeout and the wait for the peer's FIN begin when the peer has
/// it.
#[test]
fn a_peer_that_receives_the_last_bytes_is_not_idle_or_late_to_close() {
    for last in [&b""[..], b"nonsense\r\n\r\n"] {
        let world = World::new(Protocol::Http, limits(), &[]);
        let mut conn = Conn::new(&world.service, Address::alone(), world.started);
        conn.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", world.started);
        conn.receive(last, world.started);
        flush(&mut conn, world.started);
        if conn.wants().is_some_and(|wants| wants.shutdown) {
            conn.shutdown_done(world.started);
        }
        let mut now = world.started;
        for left in (0..20).rev() {
            now = takes_one(&mut conn, left);
        }
        for _ in 0..2 {
            assert!(conn.wants().is_some(), "{last:?}");
            now = conn.wants().and_then(|wants| wants.deadline).unwrap_or(now);
            conn.unacknowledged(0, now);
            conn.timeout(now);
        }
        assert!(conn.wants().is_none(), "{last:?}");
    }
}

/// The same for a WebSocket on a stream of HTTP/2: it sends no ping while the peer is still
/// receiving output, and sends one afterwards.
#[test]
fn a_tunnel_whose_peer_receives_bytes_is_not_idle() {
    let world = World::new(Protocol::Http, limits(), &[]);
    let mut conn = Conn::new(&world.service, Address::alone(), world.started);
    let fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    conn.receive(&greeting(&[]), world.started);
    conn.receive(&request(1, "CONNECT", "/ws/echo", &fields, false), world.started);
    conn.receive(&data(1, &client(BINARY, &[b'x'; 1_000]), false), world.started);
    flush(&mut conn, world.started);
    let mut now = world.started;
    for left in (0..20).rev() {
        now = takes_one(&mut conn, left);
        assert_eq!(flush(&mut conn, now), 0, "{left} left");
    }
    assert!(now > world.started + 10 * TIMEOUT);
    let mut said = 0;
    for _ in 0..3 {
        now = conn.wants().and_then(|wants| wants.deadline).expect("a deadline");
        conn.unacknowledged(0, now);
        conn.timeout(now);
        said += flush(&mut conn, now);
    }
    assert!(said > 0, "it asks now");
}

/// A stream of HTTP/2 waits for the peer's window; everything that the window allowed is written.
fn waits_for_a_window() -> (Conn, Instant, usize) {
    let world = World::new(Protocol::Http, limits(), &[]);
    let mut conn = Conn::new(&world.service, Address::alone(), world.started);
    conn.receive(&greeting(&[]), world.started);
    conn.receive(&request(1, "GET", "/bytes/9000000", &[], true), world.started);
    let mut sent = 0;
    while conn.wants().is_some_and(|wants| wants.write) {
        sent += flush(&mut conn, world.started);
    }
    (conn, world.started, sent)
}

/// RST_STREAM with CANCEL on stream 1 (RFC 9113 section 6.4).
const CANCELLED: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";

fn output(conn: &mut Conn) -> Vec<u8> {
    conn.chunks().flat_map(|chunk| chunk.to_vec()).collect()
}

#[test]
fn a_peer_that_receives_a_window_is_not_late_with_the_next() {
    let (mut conn, started, sent) = waits_for_a_window();
    let mut now = started;
    for taken in 1..20 {
        now = takes_one(&mut conn, sent - 1 - taken);
        assert_eq!(output(&mut conn), b"", "cut after {taken} bytes");
    }
    assert!(now >= started + TIMEOUT * 19, "{:?}", now - started);
    // A frame other than WINDOW_UPDATE is not progress.
    let after = now + TIMEOUT;
    conn.receive(b"\0\0\x08\x06\x01\0\0\0\0pingpong", after);
    assert_eq!(output(&mut conn), b"", "the kernel was not asked");
    assert!(conn.output_is_late(after));
    conn.unacknowledged(sent - 19, after);
    conn.timeout(after);
    assert_eq!(output(&mut conn), CANCELLED, "it takes nothing any more");
}

#[test]
fn a_peer_that_receives_nothing_of_a_window_is_closed_after_the_timeout() {
    let (mut conn, started, sent) = waits_for_a_window();
    let at = conn.wants().and_then(|wants| wants.deadline).expect("a deadline");
    assert_eq!(at, started + TIMEOUT);
    assert!(conn.output_is_late(at));
    conn.unacknowledged(sent, at);
    conn.timeout(at);
    assert_eq!(output(&mut conn), CANCELLED);
}

/// All bytes are acknowledged: this does not show whether the peer reads them.
#[test]
fn a_peer_that_received_all_has_the_whole_timeout_for_its_next_window() {
    let (mut conn, started, _) = waits_for_a_window();
    conn.unacknowledged(0, started);
    let mut now = started;
    for _ in 0..2 {
        assert_eq!(output(&mut conn), b"");
        now = conn.wants().and_then(|wants| wants.deadline).expect("a deadline");
        conn.unacknowledged(0, now);
        conn.timeout(now);
        if !output(&mut conn).is_empty() {
            break;
        }
    }
    assert_eq!(output(&mut conn), CANCELLED);
    assert_eq!(now, started + TIMEOUT);
}
