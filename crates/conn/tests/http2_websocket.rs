//! WebSockets on streams of HTTP/2 (RFC 8441): opened by an extended CONNECT, beside other streams.

mod support;

use std::time::Duration;

use conn::{Limits, Outcome, Protocol};
use support::driver::{Driver, Habits};
use support::frames::{CLOSE, TEXT, client, put};
use support::http2::{END_HEADERS, Reader, block, data, frame, get, greeting, kind, window};
use support::world::World;

/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW: u16 = 4;

fn connect(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("sec-websocket-version", "13"),
    ];
    frame(kind::HEADERS, END_HEADERS, stream, &block(&[&usual, more].concat()))
}

/// A client with its connection.
struct Talk {
    driver: Driver,
    reader: Reader,
    /// Bytes of each read.
    cut: usize,
}

impl Talk {
    fn new(habits: Habits, cut: usize, window: u32) -> Talk {
        let world = World::new(Protocol::Http, Limits::default(), &[]);
        let driver = Driver::new(&world, habits);
        let mut talk = Talk { driver, reader: Reader::default(), cut };
        talk.send(&greeting(&[(INITIAL_WINDOW, window)]));
        talk
    }

    fn send(&mut self, bytes: &[u8]) {
        bytes.chunks(self.cut).for_each(|piece| self.driver.arrive(piece));
        self.hear();
    }

    fn hear(&mut self) {
        self.reader.read(&self.driver.take_output());
    }

    fn body(&self, stream: u32) -> String {
        self.reader.reply(stream).body.escape_ascii().to_string()
    }
}

/// Frames of the server, as text.
fn server(frames: &[(u8, &[u8])]) -> String {
    let mut bytes = Vec::new();
    frames.iter().for_each(|(opcode, payload)| put(&mut bytes, 0x80 | opcode, payload, None));
    bytes.escape_ascii().to_string()
}

/// The ways in which a test is had.
fn each(test: impl Fn(Habits, usize)) {
    let slow = Habits { write_max: 1, by_chunks: true, early_timeouts: true, ..Habits::default() };
    for habits in [Habits::default(), slow] {
        for cut in [usize::MAX, 7, 1] {
            test(habits, cut);
        }
    }
}

#[test]
fn an_echo_beside_another_stream() {
    each(|habits, cut| {
        let mut talk = Talk::new(habits, cut, 1 << 20);
        assert_eq!(talk.reader.settings.get(&ENABLE_CONNECT_PROTOCOL), Some(&1));
        talk.send(&connect(1, "/ws/echo", &[("origin", "http://a")]));
        assert_eq!(talk.reader.reply(1).status(), "200");
        talk.send(&data(1, &client(TEXT, b"one"), false));
        talk.send(&get(3, "/", &[]));
        // A frame of WebSocket may lie across frames of HTTP/2.
        let two = client(TEXT, b"two");
        talk.send(&[data(1, &two[..3], false), data(1, &two[3..], false)].concat());
        talk.send(&data(1, &client(CLOSE, &1000u16.to_be_bytes()), false));
        let close = 1000u16.to_be_bytes();
        let wanted = server(&[(TEXT, b"one"), (TEXT, b"two"), (CLOSE, &close)]);
        assert_eq!(talk.body(1), wanted);
        assert!(talk.reader.reply(1).ended);
        assert_eq!(talk.reader.reply(3).body, b"Hello, world!");
        talk.send(&data(1, b"", true));
        assert!(talk.driver.conn.is_idle());
    });
}

#[test]
fn a_clock_and_its_silence() {
    each(|habits, cut| {
        let mut talk = Talk::new(habits, cut, 1 << 20);
        talk.send(&connect(1, "/ws/clock/100", &[]));
        for _ in 0..3 {
            talk.driver.pass(Duration::from_millis(100));
        }
        talk.hear();
        let ticks: [(u8, &[u8]); 3] = [(TEXT, b"tick 1"), (TEXT, b"tick 2"), (TEXT, b"tick 3")];
        assert_eq!(talk.body(1), server(&ticks));
    });
}

#[test]
fn a_chat_between_two_streams() {
    each(|habits, cut| {
        let mut talk = Talk::new(habits, cut, 1 << 20);
        talk.send(&[connect(1, "/ws/chat", &[]), connect(3, "/ws/chat", &[])].concat());
        talk.send(&data(1, &client(TEXT, b"hello"), false));
        // What the model does when the bell was rung.
        let now = talk.driver.now();
        talk.driver.conn.resume(now);
        talk.driver.run();
        talk.hear();
        assert_eq!((talk.body(1), talk.body(3)), (String::new(), server(&[(TEXT, b"hello")])));
    });
}

#[test]
fn flow_control_holds_for_them_too() {
    let mut talk = Talk::new(Habits::default(), usize::MAX, 0);
    talk.send(&connect(1, "/ws/echo", &[]));
    talk.send(&data(1, &client(TEXT, b"0123456789"), false));
    assert_eq!(talk.body(1), "");
    talk.send(&window(1, 4));
    assert_eq!(talk.reader.reply(1).body, b"\x81\n01");
    talk.send(&window(1, 100));
    assert_eq!(talk.body(1), server(&[(TEXT, b"0123456789")]));
    // One that opens no window is given up, and the connection goes on.
    talk.send(&data(1, &client(TEXT, &[b'x'; 200]), false));
    talk.driver.pass(Duration::from_secs(119));
    talk.hear();
    assert_eq!(talk.reader.reply(1).reset, None);
    talk.driver.pass(Duration::from_secs(1));
    talk.hear();
    assert_eq!(talk.reader.reply(1).reset, Some(8));
    assert_eq!(talk.driver.ended(), None);
}

#[test]
fn what_is_refused() {
    let mut talk = Talk::new(Habits::default(), usize::MAX, 1 << 20);
    talk.send(&connect(1, "/ws/nope", &[]));
    talk.send(&connect(3, "/ws/echo", &[("origin", "http://evil.example")]));
    let plain = [(":method", "CONNECT"), (":authority", "a")];
    talk.send(&frame(kind::HEADERS, END_HEADERS, 5, &block(&plain)));
    // The first of two would be let in.
    talk.send(&connect(7, "/ws/echo", &[("origin", "http://a"), ("origin", "http://b")]));
    for (stream, status) in [(1, "404"), (3, "403"), (5, "501"), (7, "400")] {
        assert_eq!(talk.reader.reply(stream).status(), status, "stream {stream}");
        assert_eq!(talk.reader.reply(stream).field("sec-websocket-version"), None);
    }
    assert!(talk.driver.conn.is_idle());
}

/// RFC 6455 sections 4.4 and 11.3.5, which hold here too (RFC 8441 section 5).
#[test]
fn another_version_is_told_the_right_one() {
    let mut talk = Talk::new(Habits::default(), usize::MAX, 1 << 20);
    let versions: [&[&str]; 6] = [&[], &["8"], &["14"], &["13, 8"], &["13", "8"], &["13", "13"]];
    for (stream, versions) in (1..).step_by(2).zip(versions) {
        let usual = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/ws/echo"),
            (":authority", "a"),
        ];
        let versions = versions.iter().map(|&version| ("sec-websocket-version", version));
        let fields: Vec<_> = usual.into_iter().chain(versions).collect();
        talk.send(&frame(kind::HEADERS, END_HEADERS, stream, &block(&fields)));
        let reply = talk.reader.reply(stream);
        assert_eq!(reply.status(), "400", "stream {stream}");
        assert_eq!(reply.field("sec-websocket-version"), Some("13"), "stream {stream}");
    }
}

#[test]
fn a_server_that_stops_says_goodbye() {
    let mut talk = Talk::new(Habits::default(), usize::MAX, 1 << 20);
    talk.send(&connect(1, "/ws/echo", &[]));
    talk.driver.drain();
    talk.hear();
    let mut goodbye = 1001u16.to_be_bytes().to_vec();
    goodbye.extend_from_slice(b"the server stops");
    assert_eq!(talk.body(1), server(&[(CLOSE, &goodbye)]));
    let pings = std::mem::take(&mut talk.reader.pings);
    pings.iter().for_each(|ping| talk.send(&frame(kind::PING, 1, 0, ping)));
    talk.send(&data(1, &client(CLOSE, &1001u16.to_be_bytes()), true));
    talk.driver.arrive_eof();
    talk.hear();
    assert!(talk.reader.reply(1).ended);
    assert_eq!(talk.driver.ended(), Some(Outcome::Retired));
}
