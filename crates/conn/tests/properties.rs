//! Properties for every client, tested with many random clients: no panic, output that does not
//! depend on how reads and writes are split, replies in order, bounded queues, and an end.
//!
//! The driver (`support/driver.rs`) checks the contract on every turn: early timeouts change
//! nothing, a due deadline is handled, a waiting connection has a deadline, a closed one stays
//! closed.

mod support;

use std::time::Duration;

use conn::{Address, Conn, Limits, Outcome, Protocol};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use support::driver::{Driver, FileReply, Habits};
use support::transcript::merge_chunks;
use support::world::{FakeFile, READ_MAX, World};

/// Connections per property: seconds in a debug build. A failure names its seed.
const SEEDS: u64 = 200;

/// Heads, bodies and parts of them: they find a parser's edge cases sooner than random bytes.
const FRAGMENTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /bytes/7 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /bytes/3000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /delay/0 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /delay/20 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /files/a HTTP/1.1\r\nHost: a\r\nRange: bytes=10-\r\n\r\n",
    b"GET /files/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /bytes/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /bytes/5000 HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n",
    b"GET /bytes/5000 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5\r\nhello\r\n",
    b"1;x=y\r\n!\r\n",
    b"0\r\n\r\n",
    b"0\r\nTrailer: x\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/2.0\r\n",
    b"BREW / HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Connection: close\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b":",
    b"\x00",
];

/// Small, so that a short connection reaches every limit.
fn limits() -> Limits {
    Limits {
        head_bytes_max: 300,
        target_bytes_max: 100,
        body_bytes_max: 100,
        output_high_water_bytes: 2_000,
        file_read_bytes_max: 700,
        ..Limits::default()
    }
}

fn world(limits: Limits) -> World {
    let file = FakeFile {
        path: "a".to_owned(),
        len: 2_500,
        modified_unix_s: 0,
        content_type: "text/plain".to_owned(),
    };
    World::new(Protocol::Http, limits, &[file])
}

fn fragments(rng: &mut StdRng, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        if rng.random_ratio(1, 20) {
            let from = bytes.len();
            bytes.resize(from + rng.random_range(1..50), 0);
            rng.fill_bytes(&mut bytes[from..]);
        } else {
            bytes.extend_from_slice(FRAGMENTS.choose(rng).copied().unwrap_or(b""));
        }
    }
    bytes
}

fn habits(rng: &mut StdRng) -> Habits {
    Habits {
        write_max: *[1, 7, 1000, usize::MAX].choose(rng).unwrap_or(&1),
        by_chunks: rng.random(),
        read_first: rng.random(),
        early_timeouts: rng.random(),
    }
}

fn piece<'a>(rng: &mut StdRng, rest: &mut &'a [u8]) -> &'a [u8] {
    let most = 1usize << rng.random_range(0..10);
    let (piece, left) = rest.split_at(rng.random_range(1..=most).min(rest.len()));
    *rest = left;
    piece
}

#[test]
fn output_does_not_depend_on_cuts() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let sent = fragments(&mut rng, 12);
        let play = |driver: &mut Driver| {
            driver.arrive_eof();
            driver.pass(Duration::from_secs(1));
            (merge_chunks(&driver.take_output()), driver.ended())
        };
        let world = world(limits());
        let mut whole = Driver::new(&world, Habits::default());
        whole.arrive(&sent);
        let wanted = play(&mut whole);
        for _ in 0..3 {
            let mut cut = Driver::new(&world, habits(&mut rng));
            let mut rest = &sent[..];
            while !rest.is_empty() {
                cut.arrive(piece(&mut rng, &mut rest));
            }
            let got = play(&mut cut);
            let text = |output: &[u8]| output.escape_ascii().to_string();
            assert_eq!(
                (text(&got.0), got.1),
                (text(&wanted.0), wanted.1),
                "seed {seed}: {}",
                sent.escape_ascii()
            );
        }
    }
}

/// A client that does anything at any time, and then sends no more.
fn random_client(world: &World, seed: u64, noise: bool) -> Driver {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut driver = Driver::new(world, habits(&mut rng));
    for _ in 0..rng.random_range(1..40) {
        match rng.random_range(0..12) {
            0 => driver.peer_reads(Some(rng.random_range(0..500))),
            1 => driver.peer_reads(None),
            2 => driver.pass(Duration::from_millis(rng.random_range(0..40_000))),
            3 => {
                let file_replies = [
                    FileReply::Prompt,
                    FileReply::Short(100),
                    FileReply::Held,
                    FileReply::Failing,
                    FileReply::Truncated,
                ];
                driver.file_reply = *file_replies.choose(&mut rng).unwrap_or(&FileReply::Prompt);
                driver.run();
            }
            4 if rng.random_ratio(1, 10) => driver.drain(),
            5 if rng.random_ratio(1, 10) => driver.arrive_eof(),
            6 if rng.random_ratio(1, 50) => driver.reset(),
            _ if noise => {
                let mut bytes = vec![0; rng.random_range(1..2_000)];
                rng.fill_bytes(&mut bytes);
                driver.arrive(&bytes);
            }
            _ => {
                let count = rng.random_range(1..10);
                driver.arrive(&fragments(&mut rng, count));
            }
        }
    }
    driver
}

#[test]
fn every_connection_ends_when_its_peer_sends_no_more() {
    for seed in 0..SEEDS {
        let world = world(limits());
        let mut driver = random_client(&world, seed, seed % 4 == 0);
        driver.file_reply = FileReply::Prompt;
        driver.run();
        // Delayed replies may queue up behind each other, as many as the unprocessed input holds.
        for _ in 0..limits().head_bytes_max {
            let Some(wants) = driver.conn.wants() else { break };
            let at = wants.deadline.expect("a connection that waits has a deadline");
            driver.pass(at.saturating_duration_since(driver.now()));
        }
        assert!(driver.ended().is_some(), "seed {seed}: {:?}", driver.conn);
        let outcome = driver.conn.outcome();
        after_close(&mut driver, outcome);
        drop(driver);
        let totals = world.totals();
        assert_eq!((totals.connections_accepted, totals.connections_open), (1, 0), "seed {seed}");
    }
}

fn after_close(driver: &mut Driver, outcome: Outcome) {
    let now = driver.now() + Duration::from_secs(3600);
    let conn = &mut driver.conn;
    conn.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", now);
    conn.receive_eof(now);
    conn.timeout(now);
    conn.sent(0, now);
    conn.shutdown_done(now);
    conn.file_read(bytes::Bytes::from_static(b"late"), now);
    conn.file_failed(now);
    conn.resume(now);
    conn.drain(0, now);
    conn.abort();
    assert!(conn.wants().is_none());
    assert_eq!(conn.outcome(), outcome);
}

#[test]
fn output_is_bounded_whatever_the_client_does() {
    for seed in 0..SEEDS {
        let world = world(limits());
        let driver = random_client(&world, seed, false);
        let limits = limits();
        // One run of the pattern; or one read (at most 10 fragments of 100 bytes and 50 random
        // ones), echoed in chunks of one byte with six around each; and a few heads.
        let piece = 64 << 10;
        let most = limits.output_high_water_bytes + piece + 1_000;
        assert!(driver.output_peak <= most, "seed {seed}: {} bytes", driver.output_peak);
    }
}

#[test]
fn a_writer_that_never_reads_is_stopped() {
    for (protocol, what) in [
        (Protocol::Echo, &b"x"[..]),
        (Protocol::Http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Protocol::Http, b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Protocol::Http, b"GET /delay/60000 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Protocol::Http, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n"),
    ] {
        let limits = Limits::default();
        let world = World::new(protocol, limits.clone(), &[]);
        let mut driver = Driver::new(&world, Habits::default());
        driver.peer_reads(Some(0));
        let read = what.repeat(READ_MAX / what.len());
        for _ in 0..1_000 {
            driver.arrive(&read);
        }
        let taken = world.totals().bytes_received as usize;
        let what = what.escape_ascii();
        if what.to_string().contains("60000000") {
            // A body that is dropped takes no memory; a limit of its own bounds it.
            assert!(taken > 50_000_000, "{what}: {taken}");
            assert!(driver.output_peak < 1_000);
            continue;
        }
        // Each read adds output (beyond the limit after two or three) or unprocessed input.
        assert!(taken <= limits.head_bytes_max + 3 * READ_MAX, "{what}: {taken} bytes were read");
        let most = limits.output_high_water_bytes + 6 * READ_MAX;
        assert!(driver.output_peak <= most, "{what}: {} bytes of output", driver.output_peak);
    }
}

#[test]
fn a_close_with_more_input_behind_it_lingers() {
    // The only thing that depends on reads: input behind a last request must be read to its end. If
    // the connection closed at once, RST would answer it and destroy the reply in flight.
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let world = world(limits());
    for (more, fin) in [("", false), ("GET / HTTP/1.1\r\n", true)] {
        let mut driver = Driver::new(&world, Habits::default());
        driver.arrive(format!("{last}{more}").as_bytes());
        assert_eq!(driver.fin_sent(), fin, "{more}");
        assert_eq!(driver.ended().is_none(), fin, "{more}");
        driver.arrive_eof();
        assert_eq!(driver.ended(), Some(Outcome::Completed));
    }
}

/// Dropped input costs the other connections. So a flood behind our FIN is read in portions with
/// pauses, and ends with the linger timeout.
#[test]
fn a_flood_behind_a_refusal_is_read_slowly() {
    let world = world(limits());
    let mut driver = Driver::new(&world, Habits::default());
    driver.arrive(b"GET / HTTP/1.1\r\n\r\n");
    assert!(driver.fin_sent() && driver.ended().is_none());
    let begin = driver.now();
    let mut passed = 0;
    while driver.ended().is_none() {
        driver.arrive(&[b'x'; 8 << 10].repeat(16));
        passed += 1;
        driver.pass(Duration::from_millis(1));
        assert!(passed < 10_000, "it never ends");
    }
    let taken = world.totals().bytes_received as f64;
    let seconds = (driver.now() - begin).as_secs_f64();
    assert!(driver.unread() > 0 && taken / seconds < 14e6, "{taken} bytes in {seconds} s");

    // Flow control bounds what a valid HTTP/2 client has in flight, so more is never read.
    let mut driver = Driver::new(&world, Habits::default());
    driver.arrive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x09\0\0\0\0\0");
    assert!(driver.fin_sent() && driver.ended().is_none());
    let before = world.totals().bytes_received;
    while driver.ended().is_none() {
        driver.arrive(&[0; 16 << 10]);
        driver.pass(Duration::from_millis(1));
    }
    let taken = world.totals().bytes_received - before;
    assert!(driver.unread() > 0 && taken <= (64 << 10) + READ_MAX as u64, "{taken} bytes");

    // A small amount is read at once, and the FIN behind it is seen.
    let mut driver = Driver::new(&world, Habits::default());
    driver.arrive(b"GET / HTTP/1.1\r\n\r\n");
    driver.arrive(&[b'x'; 60 << 10]);
    assert_eq!(driver.unread(), 0);
    driver.arrive_eof();
    assert!(driver.ended().is_some());
}

#[test]
fn replies_are_in_the_order_of_requests() {
    for seed in 0..SEEDS / 4 {
        let mut rng = StdRng::seed_from_u64(seed);
        let limits = Limits { output_high_water_bytes: 2_000, ..Limits::default() };
        let world = world(limits);
        let mut driver = Driver::new(&world, habits(&mut rng));
        let mut sent = Vec::new();
        let mut wanted = Vec::new();
        for _ in 0..rng.random_range(1..60) {
            let n: usize = rng.random_range(0..3_000);
            wanted.push(n);
            let request = match rng.random_range(0..3) {
                0 => format!("GET /bytes/{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
                1 => format!("GET /bytes/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
                _ => format!(
                    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{}",
                    "x".repeat(n)
                ),
            };
            sent.extend(request.into_bytes());
        }
        let mut rest = &sent[..];
        let mut got = Vec::new();
        while !rest.is_empty() {
            driver.arrive(piece(&mut rng, &mut rest));
            got.extend(driver.take_output());
        }
        assert_eq!(content_lengths(&got), wanted, "seed {seed}");
        assert_eq!(world.totals().requests, wanted.len() as u64, "seed {seed}");
    }
}

/// Reads replies with Content-Length; panics if a body is too short.
fn content_lengths(mut replies: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !replies.is_empty() {
        let end = replies.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head") + 4;
        let head = std::str::from_utf8(&replies[..end]).expect("a head in ASCII");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let length = head.split_once("Content-Length: ").expect("a length").1;
        let length = length.split("\r\n").next().unwrap_or("").parse().expect("a number");
        lengths.push(length);
        replies = &replies[end + length..];
    }
    lengths
}

/// A read may hold thousands of pipelined requests. They are answered in portions, so that the
/// driver can serve others between two; the next one follows when a portion is written.
#[test]
fn a_long_pipeline_is_answered_in_parts() {
    const REQUESTS: usize = 1_000;
    const REPLIES_MAX: usize = 32;
    let world = World::new(Protocol::Http, Limits::default(), &[]);
    let now = world.started;
    let mut conn = Conn::new(&world.service, Address::alone(), now);
    conn.receive(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS), now);
    let (mut replies, mut parts) = (0, 0);
    while conn.wants().is_some_and(|wants| wants.write) {
        let output: Vec<u8> = conn.chunks().flat_map(|chunk| chunk.to_vec()).collect();
        let part = output.windows(15).filter(|bytes| *bytes == b"HTTP/1.1 200 OK").count();
        assert!(part <= REPLIES_MAX, "{part} replies in one part");
        (replies, parts) = (replies + part, parts + 1);
        conn.sent(output.len(), now);
    }
    assert_eq!((replies, parts), (REQUESTS, REQUESTS.div_ceil(REPLIES_MAX)));
}
