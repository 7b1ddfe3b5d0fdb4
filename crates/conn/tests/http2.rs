//! HTTP/2 connections with known replies. Each is played with one read, with a read for each byte,
//! split once at every position, with writes of one byte, with handles, with reads first, and with
//! a timeout call on every turn. The reply on each stream must be the same each time.
//!
//! Requests are literal bytes. The frame reader and the HPACK decoder are not those of the server
//! (`support/http2.rs`).

mod support;

use std::time::Duration;

use conn::{Limits, Outcome, Protocol};
use support::driver::{Driver, FileReply, Habits};
use support::http2::{END_HEADERS, END_STREAM, reset, window};
use support::http2::{PREFACE, Reader, block, data, frame, get, greeting, kind, request};
use support::world::{FakeFile, STARTED_UNIX_S, World};

const DATE: &str = "date Sun, 06 Nov 1994 08:49:37 GMT";
const TEXT: &str = "content-type text/plain; charset=utf-8";

/// A window larger than any reply here.
const WIDE: u32 = 1 << 30;

const INITIAL_WINDOW: u16 = 4;

enum Step {
    Send(Vec<u8>),
    Clock(Duration),
    Files(FileReply),
    Drain,
    Eof,
}

struct Case {
    limits: Limits,
    steps: Vec<Step>,
}

impl Case {
    /// A client whose windows never fill.
    fn new() -> Case {
        let hello = [greeting(&[(INITIAL_WINDOW, WIDE)]), window(0, WIDE)].concat();
        Case::raw().send(hello)
    }

    fn raw() -> Case {
        Case { limits: Limits::default(), steps: Vec::new() }
    }

    fn limit(mut self, change: impl FnOnce(&mut Limits)) -> Case {
        change(&mut self.limits);
        self
    }

    fn send(self, bytes: Vec<u8>) -> Case {
        self.step(Step::Send(bytes))
    }

    fn clock(self, seconds: u64) -> Case {
        self.step(Step::Clock(Duration::from_secs(seconds)))
    }

    fn step(mut self, step: Step) -> Case {
        self.steps.push(step);
        self
    }

    /// The client must receive `lines`, and the connection must end with `outcome` (`None`: it must
    /// stay open).
    fn comes_to(self, outcome: Option<Outcome>, lines: &[&str]) {
        let wanted: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let every = Habits { write_max: 1, by_chunks: true, ..Habits::default() };
        let first = Habits { read_first: true, ..Habits::default() };
        let early = Habits { early_timeouts: true, write_max: 7, ..Habits::default() };
        let len = self.sent_len();
        let places = (0..len).step_by(len.div_ceil(300).max(1));
        let cuts = [usize::MAX, 1].into_iter().map(Cut::Every).chain(places.map(Cut::At));
        for cut in cuts {
            let all = [Habits::default(), every, first, early];
            let habits = if let Cut::Every(_) = cut { &all[..] } else { &all[..1] };
            for &habits in habits {
                let (text, ended) = self.replay(cut, habits);
                assert_eq!(
                    (text.as_str(), ended),
                    (wanted.as_str(), outcome),
                    "{cut:?} {habits:?}"
                );
            }
        }
    }

    fn sent_len(&self) -> usize {
        let len = |step: &Step| if let Step::Send(bytes) = step { bytes.len() } else { 0 };
        self.steps.iter().map(len).sum()
    }

    fn replay(&self, cut: Cut, habits: Habits) -> (String, Option<Outcome>) {
        let world = world(&self.limits);
        let mut driver = Driver::new(&world, habits);
        let mut reader = Reader::default();
        let mut sent = 0;
        for step in &self.steps {
            match step {
                Step::Send(bytes) => {
                    cut.pieces(bytes, sent).for_each(|piece| driver.arrive(piece));
                    sent += bytes.len();
                }
                Step::Clock(time) => driver.pass(*time),
                Step::Files(file_reply) => {
                    driver.file_reply = *file_reply;
                    driver.run();
                }
                Step::Drain => driver.drain(),
                Step::Eof => driver.arrive_eof(),
            }
            reader.read(&driver.take_output());
            let pings = std::mem::take(&mut reader.pings);
            pings.iter().for_each(|ping| driver.arrive(&frame(kind::PING, 1, 0, ping)));
            reader.read(&driver.take_output());
        }
        assert!(reader.is_whole(), "half a frame at the end");
        (reader.text(), driver.ended())
    }
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Every(usize),
    /// Two reads, split after this many bytes.
    At(usize),
}

impl Cut {
    fn pieces(self, bytes: &[u8], before: usize) -> impl Iterator<Item = &[u8]> {
        let (front, back) = match self {
            Cut::Every(_) => (bytes, &[][..]),
            Cut::At(at) => bytes.split_at(at.saturating_sub(before).min(bytes.len())),
        };
        let len = if let Cut::Every(len) = self { len } else { usize::MAX };
        front.chunks(len).chain(back.chunks(len))
    }
}

fn world(limits: &Limits) -> World {
    let file = FakeFile {
        path: "a.txt".to_owned(),
        len: 100_000,
        modified_unix_s: STARTED_UNIX_S,
        content_type: "text/plain".to_owned(),
    };
    World::new(Protocol::Http, limits.clone(), &[file])
}

fn hello(stream: u32) -> String {
    let head = format!("[:status 200, {DATE}, {TEXT}, content-length 13]");
    format!("{stream}: {head} \"Hello, world!\" end")
}

#[test]
fn one_request() {
    Case::new().send(get(1, "/", &[])).comes_to(None, &[&hello(1)]);
}

#[test]
fn many_requests_and_an_end() {
    let requests: Vec<u8> = (0..5).flat_map(|n| get(2 * n + 1, "/?q", &[])).collect();
    let replies: Vec<String> = (0..5).map(|n| hello(2 * n + 1)).collect();
    let lines: Vec<&str> = replies.iter().map(String::as_str).collect();
    Case::new().send(requests).step(Step::Eof).comes_to(Some(Outcome::Completed), &lines);
}

#[test]
fn head_options_and_what_is_not_there() {
    let ask = [
        request(1, "HEAD", "/bytes/70", &[], true),
        request(3, "OPTIONS", "*", &[], true),
        request(5, "DELETE", "/", &[], true),
        request(7, "BREW", "/", &[], true),
        get(9, "/nope", &[]),
        get(11, "/bytes/x", &[]),
    ];
    let bytes_wanted = "/bytes/N wants a number of bytes within limits";
    Case::new().send(ask.concat()).comes_to(
        None,
        &[
            &format!("1: [:status 200, {DATE}, {TEXT}, content-length 70] \"\" end"),
            &format!("3: [:status 204, {DATE}, allow GET, HEAD, POST, OPTIONS] \"\" end"),
            &format!(
                "5: [:status 405, {DATE}, allow GET, HEAD, OPTIONS, content-length 0] \"\" end"
            ),
            &format!(
                "7: [:status 501, {DATE}, {TEXT}, content-length 29] \
                 \"the method is not known here\\n\" end"
            ),
            &format!(
                "9: [:status 404, {DATE}, {TEXT}, content-length 30] \
                 \"no such route; try / or /stats\" end"
            ),
            &format!("11: [:status 400, {DATE}, {TEXT}, content-length 46] \"{bytes_wanted}\" end"),
        ],
    );
}

#[test]
fn long_replies_and_a_late_one_at_once() {
    let ask = [get(1, "/bytes/300000", &[]), get(3, "/delay/1500", &[]), get(5, "/bytes/100", &[])];
    let long = |n: u32| format!("[:status 200, {DATE}, {TEXT}, content-length {n}]");
    let later = DATE.replace(":37", ":39");
    Case::new().send(ask.concat()).clock(2).comes_to(
        None,
        &[
            &format!("1: {} pattern 300000 end", long(300_000)),
            &format!(
                "3: [:status 200, {later}, {TEXT}, content-length 19] \
                 \"waited for 1500 ms\\n\" end"
            ),
            &format!("5: {} pattern 100 end", long(100)),
        ],
    );
}

#[test]
fn parts_of_files() {
    let range = [("range", "bytes=26-29")];
    let known = [("if-none-match", "*")];
    let validators = "last-modified Sun, 06 Nov 1994 08:49:37 GMT, accept-ranges bytes";
    let etag = format!("etag \"{:x}-186a0\"", STARTED_UNIX_S * 1_000_000_000);
    Case::new()
        .send([get(1, "/files/a.txt", &range), get(3, "/files/a.txt", &known)].concat())
        .comes_to(
            None,
            &[
                &format!(
                    "1: [:status 206, {DATE}, {etag}, {validators}, content-range \
                     bytes 26-29/100000, content-type text/plain, content-length 4] \"abcd\" end"
                ),
                &format!("3: [:status 304, {DATE}, {etag}, {validators}] \"\" end"),
            ],
        );
}

#[test]
fn a_file_that_fails_ends_its_own_stream_only() {
    let etag = format!("etag \"{:x}-186a0\"", STARTED_UNIX_S * 1_000_000_000);
    Case::new()
        .step(Step::Files(FileReply::Failing))
        .send([get(1, "/files/a.txt", &[]), get(3, "/", &[])].concat())
        .comes_to(
            None,
            &[
                &format!(
                    "1: [:status 200, {DATE}, {etag}, last-modified Sun, 06 Nov 1994 08:49:37 \
                     GMT, accept-ranges bytes, content-type text/plain, content-length 100000] \
                     \"\" reset 2"
                ),
                &hello(3),
            ],
        );
}

#[test]
fn bodies_come_back() {
    let echo = "content-type application/octet-stream";
    let ask = [
        request(1, "POST", "/echo", &[], false),
        request(3, "POST", "/echo", &[("content-length", "5")], false),
        data(1, b"one ", false),
        data(3, b"three", true),
        data(1, b"", false),
        data(1, b"more", false),
        // Trailers end a body too.
        frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", "y")])),
        request(5, "POST", "/echo", &[], true),
    ];
    Case::new().send(ask.concat()).comes_to(
        None,
        &[
            &format!("1: [:status 200, {DATE}, {echo}] \"one more\" end"),
            &format!("3: [:status 200, {DATE}, {echo}, content-length 5] \"three\" end"),
            &format!("5: [:status 200, {DATE}, {echo}, content-length 0] \"\" end"),
        ],
    );
}

#[test]
fn a_body_that_no_route_reads_is_taken() {
    let ask = [
        request(1, "GET", "/", &[], false),
        data(1, &[b'x'; 16_000], false),
        data(1, &[b'x'; 16_000], true),
        get(3, "/", &[]),
    ];
    Case::new().send(ask.concat()).comes_to(None, &[&hello(1), &hello(3)]);
}

#[test]
fn expectations() {
    let expect = [("expect", "100-continue")];
    let ask = [
        request(1, "POST", "/echo", &expect, false),
        data(1, b"body", true),
        request(3, "POST", "/", &expect, false),
        request(5, "POST", "/echo", &[("expect", "x")], true),
        // A list (RFC 9110 section 5.6.1.2), and an empty one.
        request(7, "POST", "/echo", &[("expect", "100-Continue, ,100-continue")], false),
        data(7, b"body", true),
        request(9, "POST", "/echo", &[("expect", ",")], false),
        data(9, b"body", true),
    ];
    Case::new().send(ask.concat()).comes_to(
        None,
        &[
            &format!(
                "1: [:status 100] [:status 200, {DATE}, content-type application/octet-stream] \
                 \"body\" end"
            ),
            &format!(
                "3: [:status 405, {DATE}, allow GET, HEAD, OPTIONS, content-length 0] \"\" end \
                 reset 0"
            ),
            &format!(
                "5: [:status 417, {DATE}, {TEXT}, content-length 43] \
                 \"the only expectation known is 100-continue\\n\" end"
            ),
            &format!(
                "7: [:status 100] [:status 200, {DATE}, content-type application/octet-stream] \
                 \"body\" end"
            ),
            &format!(
                "9: [:status 200, {DATE}, content-type application/octet-stream] \"body\" end"
            ),
        ],
    );
}

fn refused(stream: u32, status: u16, sentence: &str) -> String {
    let length = sentence.len() + 1;
    format!(
        "{stream}: [:status {status}, {DATE}, {TEXT}, content-length {length}] \
         \"{sentence}\\n\" end"
    )
}

#[test]
fn heads_that_name_no_host_or_path() {
    let pseudo = |stream, fields: &[(&str, &str)]| {
        frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
    };
    let get = [(":method", "GET"), (":scheme", "http")];
    let ask = [
        pseudo(1, &[&get[..], &[(":path", "/"), ("host", "a")]].concat()),
        pseudo(3, &[&get[..], &[(":path", "/")]].concat()),
        pseudo(5, &[&get[..], &[(":path", "/"), (":authority", "a"), ("host", "b")]].concat()),
        pseudo(7, &[&get[..], &[(":path", "/"), (":authority", "me@a")]].concat()),
        pseudo(9, &[&get[..], &[(":path", "*"), (":authority", "a")]].concat()),
        // A malformed request is a stream error.
        pseudo(11, &[&get[..], &[(":authority", "a")]].concat()),
        pseudo(13, &[&get[..], &[(":path", ""), (":authority", "a")]].concat()),
        pseudo(15, &[&get[..], &[(":path", "/"), ("connection", "close")]].concat()),
        pseudo(17, &[&get[..], &[(":path", "/"), ("te", "gzip")]].concat()),
    ];
    Case::new().send(ask.concat()).comes_to(
        None,
        &[
            &hello(1),
            &refused(3, 400, "there is neither :authority nor Host"),
            &refused(5, 400, "the Host field and :authority differ"),
            &refused(7, 400, "the host is not one host"),
            &refused(9, 400, "the path must begin with /"),
            "11: \"\" reset 1",
            "13: \"\" reset 1",
            "15: \"\" reset 1",
            "17: \"\" reset 1",
        ],
    );
}

#[test]
fn bodies_that_are_not_as_long_as_they_say() {
    let ask = [
        request(1, "POST", "/echo", &[("content-length", "3")], false),
        data(1, b"four", true),
        request(3, "POST", "/echo", &[("content-length", "1000")], false),
        request(5, "POST", "/echo", &[("content-length", "3"), ("content-length", "3")], true),
    ];
    Case::new().limit(|limits| limits.body_bytes_max = 100).send(ask.concat()).comes_to(
        None,
        &[
            "1: \"\" reset 1",
            &format!("{} reset 0", refused(3, 413, "the request body is too large")),
            "5: \"\" reset 1",
        ],
    );
}

#[test]
fn trailers_that_are_malformed_reset_their_stream() {
    let trailers = |stream: u32, payload: &[u8]| {
        frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, payload)
    };
    let path = block(&[(":path", "/x")]);
    let (front, back) = path.split_at(4);
    let padded = [&[2, 0, 0, 0, 0, 16][..], &path, &[0, 0]].concat();
    let fields: &[(&str, &str)] = &[("connection", "close")];
    let ways = [
        trailers(1, &path),
        trailers(1, b"\x84"),
        trailers(1, b"\x04\x02/x"),
        trailers(1, b"\x44\x02/x"),
        // `:path` in Huffman's code.
        trailers(1, b"\x00\x84\xb9\x58\xd3\x3f\x02/x"),
        trailers(1, &block(&[("x", "y"), (":status", "200")])),
        // An index of the table, at which the path of the next request was put.
        [
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 3, b"\x82\x86\x44\x05/nope\x01\x01a"),
            trailers(1, b"\xbe"),
        ]
        .concat(),
        [
            frame(kind::HEADERS, END_STREAM, 1, front),
            frame(kind::CONTINUATION, END_HEADERS, 1, back),
        ]
        .concat(),
        frame(kind::HEADERS, END_HEADERS | END_STREAM | 8 | 32, 1, &padded),
        trailers(1, &block(&[(":unknown", "y")])),
        trailers(1, &block(&[(":", "y")])),
        trailers(1, &block(fields)),
        trailers(1, &block(&[("te", "gzip")])),
        trailers(1, &block(&[("transfer-encoding", "chunked")])),
        trailers(1, &block(&[("X", "y")])),
        trailers(1, &block(&[("x", "y\nz")])),
        frame(kind::HEADERS, END_HEADERS, 1, &block(&[("x", "y")])),
    ];
    for way in &ways {
        // Whether the head and the body were read before.
        for waits in [true, false] {
            let world = world(&Limits::default());
            let mut driver = Driver::new(&world, Habits::default());
            let mut reader = Reader::default();
            driver.arrive(&greeting(&[]));
            let begun =
                [request(1, "POST", "/echo", &[], false), data(1, b"hello", false)].concat();
            if waits {
                driver.arrive(&begun);
                driver.arrive(way);
            } else {
                driver.arrive(&[&begun[..], way].concat());
            }
            driver.arrive(&get(5, "/", &[]));
            reader.read(&driver.take_output());
            let reply = reader.reply(1);
            assert_eq!((reply.reset, reply.ended), (Some(1), false), "{}", way.escape_ascii());
            assert_eq!(reader.reply(5).status(), "200", "{}", way.escape_ascii());
        }
    }
}

#[test]
fn trailers_that_are_in_order_are_taken_whatever_the_table_holds() {
    let ask = [
        // Adds a path to the table, then a field.
        frame(kind::HEADERS, END_HEADERS, 1, b"\x83\x86\x44\x05/echo\x01\x01a\x40\x01x\x01y"),
        data(1, b"hello", false),
        frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, b"\xbe"),
    ];
    Case::new().send(ask.concat()).comes_to(
        None,
        &[&format!(
            "1: [:status 200, {DATE}, content-type application/octet-stream] \"hello\" end"
        )],
    );
}

#[test]
fn a_body_that_grows_too_long_is_cut() {
    let ask = [request(1, "POST", "/echo", &[], false), data(1, &[b'a'; 10], false)];
    let echo = "content-type application/octet-stream";
    Case::new()
        .limit(|limits| limits.body_bytes_max = 100)
        .send(ask.concat())
        // In a read of its own, because a reset drops queued bytes.
        .send(data(1, &[b'b'; 100], false))
        .comes_to(None, &[&format!("1: [:status 200, {DATE}, {echo}] \"aaaaaaaaaa\" reset 8")]);
}

#[test]
fn bodies_that_do_not_come_in_time() {
    let ask = [
        request(1, "POST", "/echo", &[], false),
        request(3, "POST", "/echo", &[], false),
        data(3, b"x", false),
        request(5, "GET", "/", &[], false),
    ];
    let later = DATE.replace(":37", ":47");
    Case::new().send(ask.concat()).clock(10).comes_to(
        None,
        &[
            &format!(
                "{} reset 0",
                refused(1, 408, "the request did not arrive in time").replace(DATE, &later)
            ),
            &format!(
                "3: [:status 200, {DATE}, content-type application/octet-stream] \"x\" reset 8"
            ),
            &format!("{} reset 0", hello(5)),
        ],
    );
}

#[test]
fn a_stream_that_its_client_resets_is_forgotten() {
    let ask = [get(1, "/delay/5000", &[]), reset(1, 8), get(3, "/", &[])];
    Case::new().send(ask.concat()).clock(6).comes_to(None, &[&hello(3)]);
}

#[test]
fn silence_is_told_to_go() {
    let case = Case::new().send(get(1, "/", &[])).clock(29).send(frame(kind::PING, 0, 0, &[7; 8]));
    let case = case.clock(1).step(Step::Eof);
    case.comes_to(Some(Outcome::IdleTimeout), &[&hello(1), "goaway 1 0"]);
}

#[test]
fn the_last_of_the_requests_that_a_connection_may_have() {
    let ask = [get(1, "/", &[]), get(3, "/bytes/70", &[])];
    let pattern = format!("3: [:status 200, {DATE}, {TEXT}, content-length 70] pattern 70 end");
    Case::new()
        .limit(|limits| limits.keepalive_requests_max = 2)
        .send(ask.concat())
        .step(Step::Eof)
        .comes_to(
            Some(Outcome::Retired),
            &[&hello(1), &pattern, "goaway 2147483647 0", "goaway 3 0"],
        );
}

#[test]
fn draining_finishes_what_is_open() {
    let later = DATE.replace(":37", ":38");
    Case::new()
        .send([get(1, "/", &[]), get(3, "/delay/1000", &[])].concat())
        .step(Step::Drain)
        .clock(1)
        .step(Step::Eof)
        .comes_to(
            Some(Outcome::Retired),
            &[
                &hello(1),
                &format!(
                    "3: [:status 200, {later}, {TEXT}, content-length 19] \
                     \"waited for 1000 ms\\n\" end"
                ),
                "goaway 2147483647 0",
                "goaway 3 0",
            ],
        );
}

#[test]
fn draining_an_idle_connection() {
    let lines = [&hello(1), "goaway 2147483647 0", "goaway 1 0"];
    let case = Case::new().send(get(1, "/", &[])).step(Step::Drain).step(Step::Eof);
    case.comes_to(Some(Outcome::Retired), &lines);
}

#[test]
fn what_the_end_of_the_input_leaves_undone() {
    let later = DATE.replace(":37", ":38");
    let ask = [get(1, "/delay/1000", &[]), request(3, "POST", "/echo", &[], false)];
    Case::new().send(ask.concat()).step(Step::Eof).clock(1).comes_to(
        Some(Outcome::Truncated),
        &[&format!(
            "1: [:status 200, {later}, {TEXT}, content-length 19] \"waited for 1000 ms\\n\" end"
        )],
    );
}

#[test]
fn what_is_no_http2_is_told_why() {
    // DATA on a stream that is not open; a frame above the maximal size; a malformed WINDOW_UPDATE.
    for (bytes, code) in [
        (data(5, b"x", true), 1),
        (frame(kind::DATA, 0, 1, &[0; 16_385]), 6),
        (window(0, 0), 1),
        (frame(kind::SETTINGS, 0, 0, &[0; 5]), 6),
        (frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 3]), 9),
    ] {
        let goaway = format!("goaway 0 {code}");
        let case = Case::new().send(bytes).step(Step::Eof);
        case.comes_to(Some(Outcome::Rejected), &[&goaway]);
    }
}

#[test]
fn a_head_that_is_too_long() {
    let many: Vec<(&str, &str)> = vec![("x", "0123456789"); 30];
    let case = Case::new().limit(|limits| limits.head_bytes_max = 1_000);
    case.send(get(1, "/", &many))
        .comes_to(None, &[&refused(1, 431, "the request head is too large")]);
}

#[test]
fn a_preface_that_comes_late() {
    let late = Case::raw().send(PREFACE[..10].to_vec()).clock(10).replay_output();
    assert!(late.starts_with(b"HTTP/1.1 408 Request Timeout\r\n"), "{}", late.escape_ascii());
}

impl Case {
    fn replay_output(&self) -> Vec<u8> {
        let mut driver = Driver::new(&world(&self.limits), Habits::default());
        for step in &self.steps {
            match step {
                Step::Send(bytes) => driver.arrive(bytes),
                Step::Clock(time) => driver.pass(*time),
                _ => unreachable!("only what is used here"),
            }
        }
        driver.take_output()
    }
}
