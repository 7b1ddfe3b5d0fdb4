//! WebSockets on streams of HTTP/2 (RFC 8441), beside other streams.

mod support;

use std::time::Duration;

use conn::{Limits, Outcome, Protocol};
use support::driver::{Driver, Habits};
use support::frames::{CLOSE, TEXT, client, put};
use support::http2::{END_HEADERS, Reader, block, data, frame, get, greeting, kind, window};
use support::world::World;

/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

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

struct Session {
    driver: Driver,
    reader: Reader,
    cut: usize,
}

impl Session {
    fn new(habits: Habits, cut: usize, window: u32) -> Session {
        let world = World::new(Protocol::Http, Limits::default(), &[]);
        let driver = Driver::new(&world, habits);
        let mut session = Session { driver, reader: Reader::default(), cut };
        session.send(&greeting(&[(INITIAL_WINDOW, window)]));
        session
    }

    fn send(&mut self, bytes: &[u8]) {
        bytes.chunks(self.cut).for_each(|piece| self.driver.arrive(piece));
        self.read_output();
    }

    fn read_output(&mut self) {
        self.reader.read(&self.driver.take_output());
    }

    fn body(&self, stream: u32) -> String {
        self.reader.reply(stream).body.escape_ascii().to_string()
    }
}

fn server(frames: &[(u8, &[u8])]) -> String {
    let mut bytes = Vec::new();
    frames.iter().for_each(|(opcode, payload)| put(&mut bytes, 0x80 | opcode, payload, None));
    bytes.escape_ascii().to_string()
}

/// Runs `test` with several ways of reading and writing.
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
        let mut session = Session::new(habits, cut, 1 << 20);
        assert_eq!(session.reader.settings.get(&ENABLE_CONNECT_PROTOCOL), Some(&1));
        session.send(&connect(1, "/ws/echo", &[("origin", "http://a")]));
        assert_eq!(session.reader.reply(1).status(), "200");
        session.send(&data(1, &client(TEXT, b"one"), false));
        session.send(&get(3, "/", &[]));
        // A WebSocket frame may be split over two HTTP/2 frames.
        let two = client(TEXT, b"two");
        session.send(&[data(1, &two[..3], false), data(1, &two[3..], false)].concat());
        session.send(&data(1, &client(CLOSE, &1000u16.to_be_bytes()), false));
        let close = 1000u16.to_be_bytes();
        let wanted = server(&[(TEXT, b"one"), (TEXT, b"two"), (CLOSE, &close)]);
        assert_eq!(session.body(1), wanted);
        assert!(session.reader.reply(1).ended);
        assert_eq!(session.reader.reply(3).body, b"Hello, world!");
        session.send(&data(1, b"", true));
        assert!(session.driver.conn.is_idle());
    });
}

#[test]
fn a_clock_and_its_silence() {
    each(|habits, cut| {
        let mut session = Session::new(habits, cut, 1 << 20);
        session.send(&connect(1, "/ws/clock/100", &[]));
        for _ in 0..3 {
            session.driver.pass(Duration::from_millis(100));
        }
        session.read_output();
        let ticks: [(u8, &[u8]); 3] = [(TEXT, b"tick 1"), (TEXT, b"tick 2"), (TEXT, b"tick 3")];
        assert_eq!(session.body(1), server(&ticks));
    });
}

#[test]
fn a_chat_between_two_streams() {
    each(|habits, cut| {
        let mut session = Session::new(habits, cut, 1 << 20);
        session.send(&[connect(1, "/ws/chat", &[]), connect(3, "/ws/chat", &[])].concat());
        session.send(&data(1, &client(TEXT, b"hello"), false));
        let now = session.driver.now();
        session.driver.conn.resume(now);
        session.driver.run();
        session.read_output();
        assert_eq!(
            (session.body(1), session.body(3)),
            (String::new(), server(&[(TEXT, b"hello")]))
        );
    });
}

#[test]
fn flow_control_holds_for_them_too() {
    let mut session = Session::new(Habits::default(), usize::MAX, 0);
    session.send(&connect(1, "/ws/echo", &[]));
    session.send(&data(1, &client(TEXT, b"0123456789"), false));
    assert_eq!(session.body(1), "");
    session.send(&window(1, 4));
    assert_eq!(session.reader.reply(1).body, b"\x81\n01");
    session.send(&window(1, 100));
    assert_eq!(session.body(1), server(&[(TEXT, b"0123456789")]));
    // A client that opens no window is given up; the connection continues.
    session.send(&data(1, &client(TEXT, &[b'x'; 200]), false));
    session.driver.pass(Duration::from_secs(119));
    session.read_output();
    assert_eq!(session.reader.reply(1).reset, None);
    session.driver.pass(Duration::from_secs(1));
    session.read_output();
    assert_eq!(session.reader.reply(1).reset, Some(8));
    assert_eq!(session.driver.ended(), None);
}

#[test]
fn what_is_refused() {
    let mut session = Session::new(Habits::default(), usize::MAX, 1 << 20);
    session.send(&connect(1, "/ws/nope", &[]));
    session.send(&connect(3, "/ws/echo", &[("origin", "http://evil.example")]));
    let plain = [(":method", "CONNECT"), (":authority", "a")];
    session.send(&frame(kind::HEADERS, END_HEADERS, 5, &block(&plain)));
    // The first of the two origins would be allowed.
    session.send(&connect(7, "/ws/echo", &[("origin", "http://a"), ("origin", "http://b")]));
    for (stream, status) in [(1, "404"), (3, "403"), (5, "501"), (7, "400")] {
        assert_eq!(session.reader.reply(stream).status(), status, "stream {stream}");
        assert_eq!(session.reader.reply(stream).field("sec-websocket-version"), None);
    }
    assert!(session.driver.conn.is_idle());
}

/// RFC 6455 sections 4.4 and 11.3.5, which apply here too (RFC 8441 section 5).
#[test]
fn another_version_is_told_the_right_one() {
    let mut session = Session::new(Habits::default(), usize::MAX, 1 << 20);
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
        session.send(&frame(kind::HEADERS, END_HEADERS, stream, &block(&fields)));
        let reply = session.reader.reply(stream);
        assert_eq!(reply.status(), "400", "stream {stream}");
        assert_eq!(reply.field("sec-websocket-version"), Some("13"), "stream {stream}");
    }
}

#[test]
fn a_server_that_stops_says_goodbye() {
    let mut session = Session::new(Habits::default(), usize::MAX, 1 << 20);
    session.send(&connect(1, "/ws/echo", &[]));
    session.driver.drain();
    session.read_output();
    let mut goodbye = 1001u16.to_be_bytes().to_vec();
    goodbye.extend_from_slice(b"the server stops");
    assert_eq!(session.body(1), server(&[(CLOSE, &goodbye)]));
    let pings = std::mem::take(&mut session.reader.pings);
    pings.iter().for_each(|ping| session.send(&frame(kind::PING, 1, 0, ping)));
    session.send(&data(1, &client(CLOSE, &1001u16.to_be_bytes()), true));
    session.driver.arrive_eof();
    session.read_output();
    assert!(session.reader.reply(1).ended);
    assert_eq!(session.driver.ended(), Some(Outcome::Retired));
}
