//! HTTP/2 in the hands of somebody who asks too much: bounded, or told so (RFC 9113 section 10.5).

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use suite::http2::code::*;
use suite::http2::kind::HEADERS;
use suite::http2::setting::*;
use suite::http2::{Frame, Http2, PREFACE, WINDOW_MAX, flag, hpack};
use suite::{Server, Variant, guard, until};

/// What a server's peak may grow by for one connection, in KiB; see the echo cases. HTTP/2 has
/// windows and a table besides its output.
const GROWTH_KIB_MAX: u64 = 16 << 10;

/// A time-out for the cases: far below the guard, far above a clock tick.
const SOON: Duration = Duration::from_millis(250);
const SOON_FLAG: &str = "250ms";

/// Runs `attack` on a connection; afterwards the server is no larger than it may be, and serves.
#[track_caller]
fn survives(variant: &Variant, attack: impl FnOnce(&mut Http2)) {
    let server = Server::start(variant, &[]);
    server.serves();
    let before = server.process().memory_peak_kib();
    let mut c = Http2::open(server.address);
    attack(&mut c);
    let growth = server.process().memory_peak_kib() - before;
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB for one connection; {}", c.seen());
    drop(c);
    Http2::open(server.address).still_serves();
    until("the attacker is gone", || server.stats()["connections_open"] == 1);
    server.stop();
}

/// What the attacker gets in the end: service, or one of `codes` and the end of the connection.
/// Where it went on sending behind the server's farewell, the RST that it earns may destroy that.
#[track_caller]
fn calmed(c: &mut Http2, codes: &[u32]) {
    let alive = c.send_if_open([Frame::ping(*b"and now?")]);
    while !(c.ended || alive && c.pongs.contains(b"and now?")) {
        c.read_frame();
    }
    let told = c.goaway.is_none_or(|goaway| codes.contains(&goaway.code));
    assert!(told, "{}", c.seen());
    if !c.ended && c.goaway.is_none() {
        c.still_serves();
    }
}

pub fn rapid_reset(variant: &Variant) {
    survives(variant, |c| {
        for _ in 0..200 {
            let first = c.next_stream();
            let burst = (0..100).flat_map(|n| {
                let stream = first + 2 * n;
                let request = Frame::headers(stream, hpack::request("GET", "/bytes/100000"), true);
                [request, Frame::rst_stream(stream, CANCEL)]
            });
            let burst: Vec<Frame> = burst.collect();
            if !c.send_if_open(burst) {
                break;
            }
        }
        calmed(c, &[ENHANCE_YOUR_CALM, NO_ERROR]);
    });
}

/// Each of these makes the server reset a stream ("MadeYouReset").
pub fn resets_provoked(variant: &Variant) {
    survives(variant, |c| {
        for _ in 0..20 {
            let first = c.next_stream();
            let burst = (0..100).flat_map(|n| {
                let stream = first + 2 * n;
                let request = Frame::headers(stream, hpack::request("POST", "/echo"), false);
                [request, Frame::window_update(stream, 0)]
            });
            let burst: Vec<Frame> = burst.collect();
            if !c.send_if_open(burst) {
                break;
            }
        }
        calmed(c, &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR]);
    });
}

/// A field block that has no end is ended by the server, long before this client would.
#[track_caller]
fn endless_block(c: &mut Http2, piece: &[u8], limit: usize) {
    c.send([Frame::new(HEADERS, flag::END_STREAM, 1, hpack::request("GET", "/"))]);
    let mut sent = 0;
    while sent < limit {
        let pieces = vec![Frame::continuation(1, piece, false); 16];
        sent += pieces.len();
        if !c.send_if_open(pieces) {
            break;
        }
    }
    c.until_end();
    let codes = [ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR];
    assert!(c.goaway.is_none_or(|goaway| codes.contains(&goaway.code)), "{}", c.seen());
    // A server that has said so may drop what still comes for a while, so that its word arrives.
    assert!(c.goaway.is_some() || sent < limit, "{sent} frames were taken; {}", c.seen());
}

pub fn continuation_flood(variant: &Variant) {
    let piece: Vec<u8> = (0..300)
        .flat_map(|_| hpack::literal("x-field", "a value of 38 bytes, with its name ."))
        .collect();
    survives(variant, |c| endless_block(c, &piece, 4_000));
    survives(variant, |c| endless_block(c, b"", 100_000));
}

/// Too long a list of fields is 431, a stream error or a connection error; it is not served.
#[track_caller]
fn too_long(c: &mut Http2, block: &[u8]) {
    let stream = c.open_stream(block, true);
    c.until("a verdict", |c| {
        let state = &c.streams[&stream];
        state.ended || state.reset.is_some() || c.goaway.is_some() || c.ended
    });
    let state = c.streams[&stream].clone();
    match (state.head, state.reset.or(c.goaway.map(|goaway| goaway.code))) {
        (Some(head), None | Some(NO_ERROR)) => assert_eq!(head.status, 431),
        (_, code) => {
            let codes = [ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR, REFUSED_STREAM];
            assert!(code.is_some_and(|code| codes.contains(&code)), "{}", c.seen());
        }
    }
    if c.goaway.is_none() {
        c.still_serves();
    }
}

pub fn header_list_too_large(variant: &Variant) {
    survives(variant, |c| {
        let long = hpack::literal("x-long", "y".repeat(20_000));
        too_long(c, &[hpack::request("GET", "/"), long].concat());
    });
    survives(variant, |c| {
        let many: Vec<u8> = (0..2_000).flat_map(|_| hpack::literal("x", "y")).collect();
        too_long(c, &[hpack::request("GET", "/"), many].concat());
    });
}

/// Few bytes that stand for many: one long field, remembered and then named a thousand times.
pub fn hpack_bomb(variant: &Variant) {
    survives(variant, |c| {
        let long = hpack::remembered("x-bomb", "y".repeat(3_900));
        let named = hpack::indexed(62).repeat(10_000);
        too_long(c, &[hpack::request("GET", "/"), long, named].concat());
    });
}

/// Frames that want an answer, and a client that reads none.
#[track_caller]
fn unread(c: &mut Http2, frame: &Frame) {
    const LIMIT: usize = 64 << 20;
    let piece = vec![frame.clone(); 1_000];
    let len = frame.bytes().len() * piece.len();
    c.client().stream().set_write_timeout(Some(SOON)).expect("SO_SNDTIMEO");
    let mut sent = 0;
    while sent < LIMIT && c.send_if_open(piece.clone()) {
        sent += len;
    }
    // What the kernel buffers on both sides is far less than this.
    assert!(sent < LIMIT, "{sent} bytes were taken whose answers nobody reads");
}

pub fn ping_flood_unread(variant: &Variant) {
    survives(variant, |c| unread(c, &Frame::ping(*b"flooding")));
}

pub fn settings_flood_unread(variant: &Variant) {
    survives(variant, |c| {
        let frame = Frame::settings(&[(MAX_CONCURRENT_STREAMS, 100), (ENABLE_PUSH, 0)]);
        unread(c, &frame);
    });
}

/// A client that reads nothing more is cut when its write time-out is over, whether or not there is
/// room for a GOAWAY, and the others are served.
#[track_caller]
fn is_cut(variant: &Variant, ask: impl FnOnce(&mut Http2)) {
    let server = Server::start(variant, &["--write-timeout", SOON_FLAG]);
    let mut c = Http2::open(server.address);
    c.set(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
    c.send([Frame::window_update(0, WINDOW_MAX - 65_535)]);
    ask(&mut c);
    if variant.model.one_at_a_time() {
        // Served as soon as the stuck client is cut, and not before.
        server.serves();
    } else {
        until("the client that does not read is cut", || {
            server.stats()["connections_ended"]["write_timeout"] == 1
        });
    }
    drop(c);
    server.serves();
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["write_timeout"], 1, "{counters}");
}

pub fn wide_windows_unread(variant: &Variant) {
    is_cut(variant, |c| {
        c.get("/bytes/1000000000");
    });
}

/// It needs no request. What the client sends is not read to its end, so its end is a RST.
pub fn answers_unread(variant: &Variant) {
    for frame in [Frame::ping(*b"flooding"), Frame::settings(&[(ENABLE_PUSH, 0)])] {
        is_cut(variant, |c| {
            let piece = frame.bytes().repeat(1_000);
            let mut stream = c.client().stream();
            stream.set_write_timeout(Some(SOON)).expect("SO_SNDTIMEO");
            let (begun, mut at) = (Instant::now(), 0);
            loop {
                match stream.write(&piece[at..]) {
                    Ok(n) => at = (at + n) % piece.len(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
                assert!(begun.elapsed() < guard(), "a client that reads nothing is not cut");
            }
        });
    }
}

/// Answers that are read come one for one.
pub fn ping_flood_read(variant: &Variant) {
    survives(variant, |c| {
        for round in 1..=100 {
            c.send(vec![Frame::ping(*b"pingpong"); 100]);
            c.until("all answers", |c| c.pongs.len() == round * 100);
        }
    });
}

pub fn frames_without_effect(variant: &Variant) {
    survives(variant, |c| {
        let stream = c.post(&[]);
        for frame in [
            Frame::data(stream, [], false),
            Frame::priority(stream, 0),
            Frame::new(0xee, 0, stream, []),
            Frame::window_update(0, 1),
        ] {
            for _ in 0..20 {
                if !c.send_if_open(vec![frame.clone(); 1_000]) {
                    break;
                }
            }
        }
        calmed(c, &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR]);
    });
}

/// As many streams as are allowed, each with a large body and no window for it.
pub fn stuck_streams(variant: &Variant) {
    survives(variant, |c| {
        let allowed = c.settings[&MAX_CONCURRENT_STREAMS];
        c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
        let streams: Vec<u32> = (0..allowed).map(|_| c.get("/bytes/100000000")).collect();
        for stream in streams {
            assert_eq!(c.head(stream).status, 200);
        }
        c.barrier();
    });
}

/// A stream that does not go on is given up, whatever else is said on its connection.
pub fn stalled_streams(variant: &Variant) {
    let server =
        Server::start(variant, &["--write-timeout", SOON_FLAG, "--body-timeout", SOON_FLAG]);
    let mut c = Http2::open(server.address);
    let is_over = |c: &Http2, stream| {
        let state = &c.streams[&stream];
        state.ended || state.reset.is_some()
    };
    // `begun`: before the stream was opened, so that a pause of this client's own is counted too.
    let until_over = |c: &mut Http2, stream, begun: Instant| {
        while !is_over(c, stream) {
            assert!(begun.elapsed() < guard(), "it is kept; {}", c.seen());
            // A PING and its answer.
            c.barrier();
        }
        assert!(begun.elapsed() >= SOON, "early: {:?}", begun.elapsed());
    };
    c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
    let begun = Instant::now();
    let stuck = c.get("/bytes/1000");
    until_over(&mut c, stuck, begun);
    assert_eq!(c.streams[&stuck].reset, Some(CANCEL), "{}", c.seen());
    c.set(&[(INITIAL_WINDOW_SIZE, 65_535)]);
    let begun = Instant::now();
    let silent = c.post(&[]);
    until_over(&mut c, silent, begun);
    assert_eq!(c.head(silent).status, 408);
    c.still_serves();
    drop(c);
    server.stop();
}

/// Bodies go in and nothing may come out: flow control holds the uploads back.
pub fn stuck_uploads(variant: &Variant) {
    survives(variant, |c| {
        c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
        let streams: Vec<u32> = (0..50).map(|_| c.post(&[])).collect();
        let mut sent = 0;
        loop {
            c.barrier();
            let open = streams.iter().copied().find(|&stream| c.may_send(stream) > 0);
            let Some(stream) = open else { break };
            let len = c.may_send(stream).min(16_384);
            c.send_data(stream, &vec![0; len], false);
            sent += len;
            assert!(sent < 64 << 20, "{sent} bytes were taken that cannot come back");
        }
    });
}

/// A connection whose first request was in time, the head of its reply, and how many connections
/// before it were closed because this process was not given a core within the idle time.
#[track_caller]
fn asked_in_time(server: &Server, path: &str) -> (Http2, u64) {
    let mut late = 0;
    loop {
        let mut c = Http2::connect(server.address);
        let request = Frame::headers(1, hpack::request("GET", path), true);
        let frames = c.bytes_of([Frame::settings(&[]), request]);
        c.send_bytes(&[PREFACE, &frames].concat());
        while c.streams[&1].head.is_none() && !c.ended {
            c.read_frame();
        }
        if c.streams[&1].head.is_some() {
            return (c, late);
        }
        late += 1;
    }
}

pub fn idle_timeout(variant: &Variant) {
    let server = Server::start(variant, &["--idle-timeout", SOON_FLAG]);
    let begun = Instant::now();
    let mut c = Http2::connect(server.address);
    let settings = c.bytes_of([Frame::settings(&[])]);
    c.send_bytes(&[PREFACE, &settings].concat());
    c.farewell_without_error();
    assert!(begun.elapsed() >= SOON, "early: {:?}", begun.elapsed());
    drop(c);
    let (mut c, late) = asked_in_time(&server, "/");
    c.farewell_without_error();
    assert_eq!(c.goaway.map(|goaway| goaway.last_stream), Some(1));
    drop(c);
    // Whoever waits for a reply is not idle.
    let (mut c, later) = asked_in_time(&server, "/delay/600");
    assert_eq!(c.reply(1).status, 200);
    drop(c);
    let counters = server.stop();
    let ended = counters["connections_ended"]["idle_timeout"].as_u64().unwrap_or(0);
    // The last one may be closed for the same reason before the case drops it.
    let expected = 2 + late + later;
    assert!((expected..=expected + 1).contains(&ended), "{counters}");
}

/// A preface that stays incomplete is a head that stays incomplete.
pub fn preface_timeout(variant: &Variant) {
    let server = Server::start(variant, &["--head-timeout", SOON_FLAG, "--idle-timeout", "1s"]);
    for sent in [&b"PRI * HT"[..], b"PRI * HTTP/2.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let begun = Instant::now();
        let mut client = server.connect();
        client.send(sent);
        client.read_until_cut();
        assert!(begun.elapsed() >= SOON, "early: {:?}", begun.elapsed());
    }
    server.stop();
}

pub fn keepalive_requests(variant: &Variant) {
    let server = Server::start(variant, &["--keepalive-requests", "3"]);
    let mut c = Http2::open(server.address);
    for n in 0..3 {
        assert_eq!(c.goaway, None, "before request {n}");
        let stream = c.get("/bytes/50000");
        assert_eq!(c.reply(stream).body.len(), 50_000);
    }
    c.farewell_without_error();
    assert_eq!(c.goaway.map(|goaway| goaway.last_stream), Some(5));
    drop(c);
    // Ten at once: as many as GOAWAY covers are answered, whole; the others may be asked again.
    let mut c = Http2::open(server.address);
    let streams: Vec<u32> = (0..10).map(|_| c.get("/bytes/50000")).collect();
    c.farewell_without_error();
    let last = c.goaway.map_or(0, |goaway| goaway.last_stream);
    assert!(last >= 5, "{}", c.seen());
    for stream in streams {
        let state = &c.streams[&stream];
        assert_eq!(state.ended && state.reset.is_none(), stream <= last, "{stream}; {}", c.seen());
    }
    drop(c);
    server.stop();
}
