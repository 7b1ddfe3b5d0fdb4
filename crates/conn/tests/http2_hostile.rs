//! HTTP/2 with random clients and with hostile clients. Each request is answered, however reads,
//! writes and windows are split. No connection hangs. Output and heap are bounded, and floods are
//! ended.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use conn::{Limits, Outcome, Protocol};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use support::driver::{Driver, FileReply, Habits};
use support::http2::{END_HEADERS, END_STREAM, Reader, block, data, frame, get, greeting};
use support::http2::{kind, request, reset, window};
use support::world::{FakeFile, READ_MAX, World, letters, pattern};

/// Connections per property: seconds in a debug build. A failure names its seed.
const SEEDS: u64 = 60;

const INITIAL_WINDOW: u16 = 4;

/// The error code of a stream that is cancelled (RFC 9113 section 7).
const CANCEL: u32 = 8;

const FILE_LEN: u64 = 30_000;

fn world(limits: Limits) -> World {
    world_with(limits, FILE_LEN)
}

fn world_with(limits: Limits, len: u64) -> World {
    let file = FakeFile {
        path: "a".to_owned(),
        len,
        modified_unix_s: 0,
        content_type: "text/plain".to_owned(),
    };
    World::new(Protocol::Http, limits, &[file])
}

fn habits(rng: &mut StdRng) -> Habits {
    Habits {
        write_max: *[1, 7, 1000, 20_000, usize::MAX].choose(rng).unwrap_or(&1),
        by_chunks: rng.random(),
        read_first: rng.random(),
        early_timeouts: rng.random(),
    }
}

/// A valid client: it sends requests, returns windows, and answers PING.
struct Client {
    driver: Driver,
    reader: Reader,
    rng: StdRng,
    wanted: BTreeMap<u32, Vec<u8>>,
    /// Bytes of each body whose window was returned; 0: of all bodies.
    given: BTreeMap<u32, usize>,
    /// Frames that wait for the server's window, by stream.
    uploads: BTreeMap<u32, Vec<u8>>,
    /// Bytes of uploads that were sent; 0: of all.
    uploaded: BTreeMap<u32, u64>,
}

impl Client {
    fn new(world: &World, seed: u64) -> Client {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut driver = Driver::new(world, habits(&mut rng));
        driver.file_reply = *[FileReply::Prompt, FileReply::Short(777)]
            .choose(&mut rng)
            .unwrap_or(&FileReply::Prompt);
        let small = *[1, 100, 5_000, 65_535].choose(&mut rng).unwrap_or(&1);
        driver.arrive(&greeting(&[(INITIAL_WINDOW, small)]));
        Client {
            driver,
            reader: Reader::default(),
            rng,
            wanted: BTreeMap::new(),
            given: BTreeMap::new(),
            uploads: BTreeMap::new(),
            uploaded: BTreeMap::new(),
        }
    }

    fn ask(&mut self, stream: u32) {
        let n = self.rng.random_range(0..8_000);
        let path = match self.rng.random_range(0..5) {
            0 => {
                self.wanted.insert(stream, b"Hello, world!".to_vec());
                "/".to_owned()
            }
            1 => {
                self.wanted.insert(stream, pattern(0, n));
                format!("/bytes/{n}")
            }
            2 => {
                self.wanted.insert(stream, letters(0, FILE_LEN));
                "/files/a".to_owned()
            }
            3 => {
                self.wanted.insert(stream, b"waited for 20 ms\n".to_vec());
                "/delay/20".to_owned()
            }
            _ => {
                let body = pattern(0, 1 + n);
                self.wanted.insert(stream, body.clone());
                self.uploads.insert(stream, body);
                return self.cut(&request(stream, "POST", "/echo", &[], false));
            }
        };
        self.cut(&get(stream, &path, &[]));
    }

    fn cut(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let most = 1usize << self.rng.random_range(0..16);
            let len = self.rng.random_range(1..=most).min(bytes.len());
            self.driver.arrive(&bytes[..len]);
            bytes = &bytes[len..];
        }
    }

    /// Sends as much of the uploads as the server's windows allow; true if that was anything.
    fn upload(&mut self) -> bool {
        let window_of = |reader: &Reader, uploaded: &BTreeMap<u32, u64>, stream: u32| {
            let more = reader.windows.get(&stream).copied().unwrap_or(0);
            65_535 + more - uploaded.get(&stream).copied().unwrap_or(0)
        };
        let streams: Vec<u32> = self.uploads.keys().copied().collect();
        let mut any = false;
        for stream in streams {
            let room = window_of(&self.reader, &self.uploaded, stream).min(window_of(
                &self.reader,
                &self.uploaded,
                0,
            ));
            let rest = self.uploads.get_mut(&stream).expect("a key of the map");
            let most = (1usize << self.rng.random_range(0..15)).min(room as usize);
            let part: Vec<u8> = rest.drain(..most.min(rest.len())).collect();
            let ends = rest.is_empty();
            if part.is_empty() {
                continue;
            }
            any = true;
            if ends {
                self.uploads.remove(&stream);
            }
            *self.uploaded.entry(stream).or_default() += part.len() as u64;
            *self.uploaded.entry(0).or_default() += part.len() as u64;
            self.cut(&data(stream, &part, ends));
        }
        any
    }

    /// Reads output and returns the window; true if there was output.
    fn read(&mut self) -> bool {
        let output = self.driver.take_output();
        self.reader.read(&output);
        let mut bytes = Vec::new();
        let mut all = 0;
        // More than was read, so that a small window grows.
        let extra = self.rng.random_range(0..2_000);
        for (&stream, reply) in &self.reader.replies {
            let given = self.given.entry(stream).or_default();
            let more = reply.body.len() - *given;
            all += more;
            *given += more;
            if more > 0 && !reply.ended {
                bytes.extend(window(stream, more as u32 + extra));
            }
        }
        if all > 0 {
            bytes.extend(window(0, all as u32));
        }
        for ping in std::mem::take(&mut self.reader.pings) {
            bytes.extend(frame(kind::PING, END_STREAM, 0, &ping));
        }
        self.cut(&bytes);
        !output.is_empty()
    }

    fn missing(&self) -> Vec<u32> {
        let whole = |(stream, body): (&u32, &Vec<u8>)| {
            let reply = self.reader.reply(*stream);
            let is_whole = reply.ended && reply.body == *body && reply.status() == "200";
            (!is_whole).then_some(*stream)
        };
        self.wanted.iter().filter_map(whole).collect()
    }
}

#[test]
fn everything_asked_is_answered_whatever_the_cuts_and_windows() {
    for seed in 0..SEEDS {
        let limits = Limits { output_high_water_bytes: 5_000, ..Limits::default() };
        let world = world(limits.clone());
        let mut client = Client::new(&world, seed);
        let requests = client.rng.random_range(1..20);
        for number in 0..requests {
            client.ask(2 * number + 1);
            if client.rng.random() {
                client.read();
                client.upload();
            }
        }
        for _ in 0..1_000_000 {
            if client.missing().is_empty() {
                break;
            }
            let moved = client.read() | client.upload();
            if !moved {
                // Only a deadline can bring the rest.
                client.driver.pass(Duration::from_millis(20));
                let moved = client.read();
                assert!(moved, "seed {seed} hangs: {:?}", client.missing());
            }
        }
        assert_eq!(client.missing(), [0; 0], "seed {seed}");
        assert_eq!(world.totals().requests, u64::from(requests), "seed {seed}");
        let most = limits.output_high_water_bytes;
        assert!(client.driver.output_peak <= most, "seed {seed}: {}", client.driver.output_peak);
        client.driver.arrive_eof();
        assert_eq!(client.driver.ended(), Some(Outcome::Completed), "seed {seed}");
    }
}

#[test]
fn every_connection_ends_when_its_peer_sends_no_more() {
    for seed in 0..SEEDS {
        let world = world(Limits::default());
        let mut client = Client::new(&world, seed);
        for number in 0..client.rng.random_range(1..10) {
            client.ask(2 * number + 1);
            client.upload();
            match client.rng.random_range(0..8) {
                0 => client.driver.peer_reads(Some(0)),
                1 => client.driver.peer_reads(None),
                2 => client.driver.file_reply = FileReply::Truncated,
                3 => client.driver.file_reply = FileReply::Held,
                4 if seed % 3 == 0 => client.driver.drain(),
                5 => client.driver.arrive(&reset(2 * number + 1, 8)),
                6 => client.driver.arrive(&get(2 * number + 101, "/bytes/100000", &[])[..12]),
                _ => {}
            }
        }
        client.driver.file_reply = FileReply::Prompt;
        client.driver.run();
        for _ in 0..1_000 {
            let Some(wants) = client.driver.conn.wants() else { break };
            let at = wants.deadline.expect("a connection that waits has a deadline");
            client.driver.pass(at.saturating_duration_since(client.driver.now()));
        }
        assert!(client.driver.ended().is_some(), "seed {seed}: {:?}", client.driver.conn);
    }
}

#[test]
fn streams_take_turns() {
    // Two long files and two long patterns share one small window: none may starve.
    let world = world_with(Limits::default(), 300_000);
    let mut driver = Driver::new(&world, Habits::default());
    let mut reader = Reader::default();
    let ask = ["/files/a", "/files/a", "/bytes/300000", "/bytes/300000"];
    driver.arrive(&greeting(&[(INITIAL_WINDOW, 1 << 20)]));
    for (number, path) in ask.iter().enumerate() {
        driver.arrive(&get(2 * number as u32 + 1, path, &[]));
    }
    while reader.replies.values().filter(|reply| reply.ended).count() < ask.len() {
        let before: usize = reader.replies.values().map(|reply| reply.body.len()).sum();
        reader.read(&driver.take_output());
        let after: usize = reader.replies.values().map(|reply| reply.body.len()).sum();
        assert!(after > before, "no progress at {after} bytes");
        driver.arrive(&window(0, (after - before) as u32));
    }
    let first_end = reader.data_order.iter().rposition(|&stream| stream == 1);
    let begun = reader.data_order.iter().position(|&stream| stream == 7);
    assert!(begun < first_end, "the last began before the first was over: {begun:?}");
}

#[test]
fn a_body_that_comes_while_a_file_is_read_does_not_disturb_it() {
    let limits = Limits { output_high_water_bytes: 5_000, ..Limits::default() };
    let world = world(limits);
    let mut driver = Driver::new(&world, Habits { write_max: 100, ..Habits::default() });
    let mut reader = Reader::default();
    driver.arrive(&greeting(&[(INITIAL_WINDOW, 1 << 20)]));
    driver.file_reply = FileReply::Held;
    driver.arrive(&request(1, "GET", "/files/a", &[], false));
    driver.arrive(&data(1, b"x", false));
    driver.file_reply = FileReply::Short(10_000);
    driver.peer_reads(Some(2_000));
    driver.arrive(&data(1, b"x", false));
    driver.peer_reads(None);
    reader.read(&driver.take_output());
    assert_eq!(reader.reply(1).body, letters(0, FILE_LEN));
}

#[test]
fn the_more_urgent_stream_is_served_first() {
    let world = world(Limits::default());
    let mut driver = Driver::new(&world, Habits::default());
    let mut reader = Reader::default();
    let ask = |stream, priority| get(stream, "/bytes/100000", &[("priority", priority)]);
    driver.arrive(&greeting(&[(INITIAL_WINDOW, 1 << 20)]));
    // The connection's window holds all of them back.
    driver.arrive(&get(1, "/bytes/65535", &[]));
    driver.arrive(&[ask(3, "u=7"), ask(5, "u=2"), ask(7, "u=0, i"), ask(9, "u=2")].concat());
    reader.read(&driver.take_output());
    reader.data_order.clear();
    driver.arrive(&window(0, 1 << 20));
    reader.read(&driver.take_output());
    reader.data_order.dedup();
    assert_eq!(reader.data_order, [7, 5, 9, 3]);
}

#[test]
fn what_is_under_way_to_a_refused_stream_is_ignored_and_its_window_returned() {
    let world = world(Limits::default());
    let mut driver = Driver::new(&world, Habits::default());
    let mut reader = Reader::default();
    let expect = [("expect", "100-continue")];
    driver.arrive(&greeting(&[]));
    for round in 0..100 {
        let stream = 2 * round + 1;
        driver.arrive(&request(stream, "POST", "/", &expect, false));
        reader.read(&driver.take_output());
        assert_eq!(reader.reply(stream).reset, Some(0));
        // The reader fails if the stream is reset again.
        for _ in 0..3 {
            driver.arrive(&data(stream, &[b'x'; 1_000], false));
        }
        let trailers = block(&[("x", "y")]);
        driver.arrive(&frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &trailers));
        driver.arrive(&window(stream, 1));
        driver.arrive(&reset(stream, CANCEL));
    }
    reader.read(&driver.take_output());
    let returned = reader.windows.get(&0).copied().unwrap_or(0);
    assert!(returned >= 3 * 100_000 - 32_768, "{returned} bytes");
    assert!(reader.goaways.is_empty() && driver.conn.is_idle(), "{:?}", reader.goaways);
}

#[test]
fn errors_have_the_codes_of_the_rfc() {
    let begun = frame(kind::HEADERS, END_STREAM, 1, &block(&[(":method", "GET")]));
    let closed = get(1, "/", &[]);
    let long = vec![0; 16_385];
    for (bytes, code) in [
        (frame(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), 3),
        (frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), 1),
        (frame(kind::SETTINGS, 1, 0, &[0; 6]), 6),
        (frame(kind::HEADERS, END_HEADERS, 1, &long), 6),
        (frame(kind::HEADERS, END_HEADERS, 2, &block(&[(":method", "GET")])), 1),
        (frame(kind::HEADERS, END_HEADERS | 8, 1, &[2, 0]), 1),
        (frame(kind::HEADERS, END_HEADERS | 32, 1, &[0; 4]), 6),
        (frame(kind::HEADERS, END_HEADERS | 32, 1, &[0, 0, 0, 1, 0]), 1),
        (frame(kind::PING, 0, 0, &[0; 7]), 6),
        (frame(kind::RST_STREAM, 0, 1, &[0; 4]), 1),
        (frame(kind::RST_STREAM, 0, 1, &[0; 3]), 6),
        (frame(kind::GOAWAY, 0, 0, &[0; 7]), 6),
        (frame(kind::CONTINUATION, END_HEADERS, 1, b""), 1),
        (frame(5, END_HEADERS, 1, &[0; 4]), 1),
        (window(0, (1 << 31) - 1), 3),
        (window(3, 1), 1),
        ([&begun[..], &frame(kind::PING, 0, 0, &[0; 8])].concat(), 1),
        ([&begun[..], &frame(kind::CONTINUATION, END_HEADERS, 3, b"")].concat(), 1),
        ([&closed[..], &closed].concat(), 5),
        ([get(5, "/", &[]), get(3, "/", &[])].concat(), 5),
    ] {
        for cut in [usize::MAX, 1] {
            let world = world(Limits::default());
            let mut driver = Driver::new(&world, Habits::default());
            let mut reader = Reader::default();
            driver.arrive(&greeting(&[]));
            bytes.chunks(cut).for_each(|piece| driver.arrive(piece));
            driver.arrive(&frame(kind::PING, 0, 0, &[0; 8]));
            reader.read(&driver.take_output());
            let codes: Vec<u32> = reader.goaways.iter().map(|&(_, code)| code).collect();
            assert_eq!(codes, [code], "{}", bytes[..bytes.len().min(99)].escape_ascii());
            assert!(reader.pongs.is_empty() && driver.fin_sent());
        }
    }
}

/// Frames that a client may send without end and that are no progress of a stream: none, PING,
/// SETTINGS, PRIORITY, and requests that are answered at once.
fn chatter(kind: usize, round: u32) -> Vec<u8> {
    match kind {
        0 => Vec::new(),
        1 => frame(kind::PING, 0, 0, &[1; 8]),
        2 => frame(kind::SETTINGS, 0, 0, &[]),
        3 => frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 5]),
        _ => request(2 * round + 3, "HEAD", "/", &[], true),
    }
}

/// Sends `ask`, and then one chatter per second for `millis` milliseconds. Stream 1 must not end
/// before. Returns what came.
fn stalls(ask: &[u8], millis: u64, kind: usize) -> (Reader, Driver) {
    let world = world(Limits::default());
    let mut driver = Driver::new(&world, Habits::default());
    let mut reader = Reader::default();
    driver.arrive(&greeting(&[(INITIAL_WINDOW, 0)]));
    driver.arrive(ask);
    let seconds = (millis / 1_000) as u32;
    for round in 0..seconds {
        driver.pass(Duration::from_secs(1) - Duration::from_nanos(1));
        reader.read(&driver.take_output());
        let reply = reader.reply(1);
        assert!(!reply.ended && reply.reset.is_none() && driver.ended().is_none(), "early");
        driver.pass(Duration::from_nanos(1));
        driver.arrive(&chatter(kind, round));
    }
    reader.read(&driver.take_output());
    (reader, driver)
}

#[test]
fn a_stream_whose_window_stays_closed_is_reset_despite_other_frames() {
    for path in ["/", "/bytes/100000", "/files/a"] {
        for kind in 0..5 {
            let millis = Limits::default().write_timeout_ms;
            let (mut reader, mut driver) = stalls(&get(1, path, &[]), millis, kind);
            assert_eq!(reader.reply(1).reset, Some(CANCEL), "{path} {kind}");
            driver.arrive(&request(1_001, "HEAD", "/", &[], true));
            reader.read(&driver.take_output());
            assert!(reader.reply(1_001).ended, "{path} {kind}");
        }
    }
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_whatever_else_is_said() {
    for kind in 0..5 {
        let millis = Limits::default().body_timeout_ms;
        let ask = request(1, "POST", "/echo", &[], false);
        let (reader, _) = stalls(&ask, millis, kind);
        assert_eq!(reader.reply(1).status(), "408", "{kind}");
    }
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_not_waited_for() {
    let delay = get(3, "/delay/60000", &[]);
    let whole = get(5, "/", &[]);
    let part = frame(kind::HEADERS, END_STREAM, 5, &block(&[(":method", "GET")]));
    for begun in [&whole[..20], &part, &[&part, &frame(kind::CONTINUATION, 0, 5, &[])[..]].concat()]
    {
        let world = world(Limits::default());
        let mut driver = Driver::new(&world, Habits::default());
        let mut reader = Reader::default();
        driver.arrive(&[&greeting(&[]), &delay, begun].concat());
        driver.pass(Duration::from_millis(Limits::default().head_timeout_ms - 1));
        reader.read(&driver.take_output());
        assert!(reader.goaways.is_empty() && driver.ended().is_none(), "early");
        driver.pass(Duration::from_millis(1));
        reader.read(&driver.take_output());
        assert_eq!(reader.goaways.len(), 1);
        driver.arrive_eof();
        assert_eq!(driver.ended(), Some(Outcome::RequestTimeout));
    }
}

#[test]
fn a_frame_of_data_that_trickles_in_is_progress() {
    let world = world(Limits::default());
    let mut driver = Driver::new(&world, Habits::default());
    let mut reader = Reader::default();
    let body = data(1, &[b'x'; 20], true);
    let head = request(1, "POST", "/echo", &[], false);
    driver.arrive(&[&greeting(&[]), &head, &body[..9]].concat());
    for piece in body[9..].chunks(1) {
        driver.pass(Duration::from_millis(Limits::default().body_timeout_ms - 1));
        driver.arrive(piece);
    }
    reader.read(&driver.take_output());
    assert_eq!(reader.reply(1).body, [b'x'; 20]);
}

#[test]
fn a_reply_that_waits_for_a_window_outlives_its_unread_request_and_its_connection() {
    let expect = [("expect", "100-continue")];
    for (method, path) in [("GET", "/bytes/100"), ("BREW", "/"), ("GET", "/"), ("POST", "/nope")] {
        for fields in [&expect[..], &[]] {
            for passed in [0, Limits::default().body_timeout_ms] {
                let world = world(Limits::default());
                let mut driver = Driver::new(&world, Habits::default());
                let mut reader = Reader::default();
                driver.arrive(&greeting(&[(INITIAL_WINDOW, 0)]));
                driver.arrive(&request(1, method, path, fields, false));
                driver.pass(Duration::from_millis(passed));
                reader.read(&driver.take_output());
                assert!(reader.reply(1).reset.is_none(), "{method} {path} {fields:?}");
                driver.arrive(&window(1, 10));
                driver.reset();
                drop(driver);
                assert_eq!(world.totals().connections_open, 0);
            }
        }
    }
}

/// Sends `unit` up to `count` times; returns after how many the server ended the connection, if it
/// did.
fn flood(mut unit: impl FnMut(u32) -> Vec<u8>, count: u32, reads: bool) -> (Option<u32>, Driver) {
    let world = world(Limits::default());
    let mut driver = Driver::new(&world, Habits::default());
    driver.arrive(&greeting(&[]));
    driver.peer_reads(if reads { None } else { Some(0) });
    for number in 0..count {
        driver.arrive(&unit(number));
        driver.take_output();
        let going = driver.conn.wants().is_some_and(|wants| wants.shutdown) || driver.fin_sent();
        if going || driver.ended().is_some() {
            return (Some(number), driver);
        }
    }
    (None, driver)
}

#[test]
fn a_client_that_does_not_read_is_not_read() {
    let ping = frame(kind::PING, 0, 0, &[1; 8]).repeat(READ_MAX / 17);
    let settings = frame(kind::SETTINGS, 0, 0, &[]).repeat(READ_MAX / 9);
    let limits = Limits::default();
    for unit in [ping, settings] {
        let (_, driver) = flood(|_| unit.clone(), 1_000, false);
        let most = limits.output_high_water_bytes;
        assert!(driver.output_peak <= most, "{} bytes of output", driver.output_peak);
        assert!(
            driver.unread() > 900 * unit.len() || driver.fin_sent() || driver.ended().is_some()
        );
    }
}

#[test]
fn floods_are_ended() {
    let fields: Vec<(&str, &str)> = vec![("x", "y"); 100];
    let part = block(&fields);
    let continuation = frame(kind::CONTINUATION, 0, 1, &part);
    // Adds a large field to HPACK's table once, and then names it many times.
    let mut bomb = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4_000]);
    bomb.extend([0xbe; 10_000]);
    let (end, _) = flood(
        |number| match number {
            0 => frame(kind::HEADERS, 0, 1, &part),
            _ => continuation.clone(),
        },
        2_000,
        true,
    );
    assert!(end.is_some_and(|units| units < 200), "CONTINUATION: {end:?}");
    let (end, _) = flood(
        |number| frame(kind::HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &bomb),
        2_000,
        true,
    );
    assert!(end.is_some_and(|units| units < 20), "HPACK bomb: {end:?}");
    let (end, _) = flood(|number| made_you_reset(2 * number + 1), 5_000, true);
    assert!(end.is_some_and(|units| units < 2_000), "MadeYouReset: {end:?}");
    let (end, _) = flood(
        |number| match number {
            0 => request(1, "POST", "/echo", &[], false),
            _ => data(1, b"", false).repeat(100),
        },
        2_000,
        true,
    );
    assert!(end.is_some_and(|units| units < 20), "empty DATA: {end:?} times 100");
    let (end, driver) = flood(|number| get(2 * number + 1, "/delay/60000", &[]), 5_000, true);
    assert!(end.is_some_and(|units| units < 2_000), "streams beyond the limit: {end:?}");
    assert!(driver.output_peak < 10_000);
}

/// A request, and a WINDOW_UPDATE of 0, for which the server must reset the stream.
fn made_you_reset(stream: u32) -> Vec<u8> {
    [get(stream, "/delay/60000", &[]), window(stream, 0)].concat()
}

#[test]
fn rapid_reset() {
    let one = |stream| [get(stream, "/delay/60000", &[]), reset(stream, 8)].concat();
    // In one read, so that the server has not seen the streams before.
    let burst = |number: u32| (0..64).flat_map(|k| one(2 * (64 * number + k) + 1)).collect();
    let (end, _) = flood(burst, 100, true);
    assert!(end.is_some_and(|bursts| bursts <= 2), "{end:?} bursts");
    // One at a time, each is begun and cancelled: this costs the client as much as the server.
    let (end, driver) = flood(|number| one(2 * number + 1), 5_000, true);
    assert_eq!(end, None);
    assert!(driver.conn.is_idle(), "nothing is left of them");
}
