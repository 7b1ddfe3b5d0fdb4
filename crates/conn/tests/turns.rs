//! A read may hold thousands of frames. One event processes a bounded number of them, so that the
//! driver can serve others between two events; and all are processed in the end.

mod support;

use conn::{Address, Conn, Limits, Protocol};
use support::frames::{self, MASK, PONG, TEXT};
use support::http2::{data, frame, get, greeting, request, window};
use support::world::{READ_MAX, World};

/// Frames that one event may process, for WebSocket and HTTP/2.
const MESSAGES_MAX: usize = 128;
const FRAMES_MAX: usize = 64;

/// One more event after `conn` has processed input, and its output; `None`: it waits for input.
fn next_event(conn: &mut Conn, now: std::time::Instant) -> Option<Vec<u8>> {
    let wants = conn.wants()?;
    let output: Vec<u8> = conn.chunks().flat_map(|chunk| chunk.to_vec()).collect();
    match (wants.write, wants.turn) {
        (true, _) => conn.sent(output.len(), now),
        (false, true) => conn.resume(now),
        (false, false) => return None,
    }
    Some(output)
}

fn unprocessed(conn: &Conn) -> usize {
    let text = format!("{conn:?}");
    let digits = text.split_once("unprocessed: ").map_or("", |(_, rest)| rest);
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no unprocessed in {text}"))
}

/// Receives `flood` in one read. No event may use more than `step_max` bytes of it, and all of it
/// must be used.
#[track_caller]
fn is_taken_in_turns(what: &str, greeting: &[u8], flood: &[u8], step_max: usize) {
    let world = World::new(Protocol::Http, Limits::default(), &[]);
    let now = world.started;
    let mut conn = Conn::new(&world.service, Address::alone(), now);
    conn.receive(greeting, now);
    while next_event(&mut conn, now).is_some() {}
    assert_eq!(unprocessed(&conn), 0, "{what}: the greeting");
    conn.receive(flood, now);
    let (mut before, mut events) = (flood.len(), 1);
    loop {
        let left = unprocessed(&conn);
        assert!(before - left <= step_max, "{what}: {} bytes in one event", before - left);
        before = left;
        if next_event(&mut conn, now).is_none() {
            break;
        }
        events += 1;
    }
    assert_eq!(before, 0, "{what}: something is left behind");
    assert!(events >= flood.len().div_ceil(step_max), "{what}: {events} events");
    assert!(conn.wants().is_some_and(|wants| wants.read), "{what}: {:?}", conn.outcome());
}

fn full(piece: &[u8]) -> Vec<u8> {
    piece.repeat(READ_MAX / piece.len())
}

#[test]
fn frames_of_a_websocket() {
    let part = |first: u8, payload: &[u8]| {
        let mut bytes = Vec::new();
        frames::put(&mut bytes, first, payload, Some(MASK));
        bytes
    };
    let whole = |opcode: u8, payload: &[u8]| part(0x80 | opcode, payload);
    for (what, path, frame) in [
        ("messages", "/ws/echo", whole(TEXT, b"ping")),
        ("messages in the chat", "/ws/chat", whole(TEXT, b"ping")),
        ("messages to a clock", "/ws/clock/1000", whole(TEXT, b"")),
        ("pongs", "/ws/echo", whole(PONG, b"")),
        ("fragments", "/ws/echo", [part(TEXT, b""), whole(frames::CONTINUE, b"")].concat()),
    ] {
        let greeting = frames::upgrade((path, "")).expect("a handshake");
        is_taken_in_turns(what, &greeting, &full(&frame), MESSAGES_MAX * frame.len());
    }
}

#[test]
fn frames_of_http2() {
    let ping = frame(6, 0, 0, b"12345678");
    for (what, piece) in [
        ("PING", ping.clone()),
        ("PING and SETTINGS", [ping, frame(4, 0, 0, b"")].concat()),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 16])),
        ("frames of unknown types", frame(0xbe, 0, 0, b"")),
    ] {
        is_taken_in_turns(what, &greeting(&[]), &full(&piece), FRAMES_MAX * piece.len());
    }
    let update = window(0, 1);
    is_taken_in_turns("WINDOW_UPDATE", &greeting(&[]), &full(&update), FRAMES_MAX * update.len());
    let requests: Vec<u8> = (0..1_000).flat_map(|n| get(2 * n + 1, "/", &[])).collect();
    let longest = get(1, "/", &[]).len();
    is_taken_in_turns("requests", &greeting(&[]), &requests, FRAMES_MAX * longest);
}

/// The tunnel has an input and an output of its own (RFC 8441).
#[test]
fn messages_of_a_websocket_over_http2() {
    // A stream may have so many turns that the output is full, and each uses so much.
    const STEP_MAX: usize = 2 * MESSAGES_MAX * 6 + 100;
    let world = World::new(Protocol::Http, Limits::default(), &[]);
    let now = world.started;
    let mut conn = Conn::new(&world.service, Address::alone(), now);
    conn.receive(&greeting(&[]), now);
    let fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    conn.receive(&request(1, "CONNECT", "/ws/echo", &fields, false), now);
    while next_event(&mut conn, now).is_some() {}
    let mut message = Vec::new();
    frames::put(&mut message, 0x80 | TEXT, b"ping", Some(MASK));
    let payload = message.repeat(16_000 / message.len());
    conn.receive(&data(1, &payload, false).repeat(4), now);
    let mut answered = 0;
    while let Some(output) = next_event(&mut conn, now) {
        assert!(output.len() <= STEP_MAX, "{} bytes in one event", output.len());
        answered += output.windows(6).filter(|bytes| *bytes == b"\x81\x04ping").count();
    }
    assert_eq!(answered, 4 * payload.len() / message.len());
    assert!(conn.wants().is_some_and(|wants| wants.read), "{:?}", conn.outcome());
}
