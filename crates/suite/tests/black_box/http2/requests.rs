//! The routes over HTTP/2: the same as over HTTP/1.1, many at once, and none in the way of another.

use std::collections::BTreeSet;

use suite::http2::code::CANCEL;
use suite::http2::setting::*;
use suite::http2::{FRAME_SIZE, Frame, Http2, hpack};
use suite::{Head, pattern};

use super::{Endpoint, OpenRow, RawRow};
use crate::news::number;

/// Fields that HTTP/1.1 has for its connection, and the time.
const NOT_COMPARED: [&str; 4] = ["connection", "keep-alive", "transfer-encoding", "date"];

/// Method, target, fields and body of a request.
type Asked = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

/// Every route, and every way in which one may answer.
const ASKED: &[Asked] = &[
    ("GET", "/", &[], ""),
    ("HEAD", "/", &[], ""),
    ("OPTIONS", "/", &[], ""),
    ("POST", "/", &[], "a body that nobody reads"),
    ("GET", "/?query", &[], ""),
    ("GET", "/nowhere", &[], ""),
    ("HEAD", "/nowhere", &[], ""),
    ("GET", "/bytes/0", &[], ""),
    ("GET", "/bytes/1", &[], ""),
    ("GET", "/bytes/16384", &[], ""),
    ("GET", "/bytes/65536", &[], ""),
    ("GET", "/bytes/1000000", &[], ""),
    ("HEAD", "/bytes/1000000", &[], ""),
    ("GET", "/bytes/many", &[], ""),
    ("POST", "/echo", &[], "echo"),
    ("POST", "/echo", &[], ""),
    ("GET", "/echo", &[], ""),
    ("PUT", "/echo", &[], "x"),
    ("OPTIONS", "/echo", &[], ""),
    ("DELETE", "/", &[], ""),
    ("GET", "/delay/1", &[], ""),
    ("HEAD", "/delay/1", &[], ""),
    ("GET", "/delay/soon", &[], ""),
    ("GET", "/news/0", &[], ""),
    ("GET", "/news/10/soon", &[], ""),
    ("POST", "/news/10", &[], "x"),
    ("GET", "/events/often", &[], ""),
    ("HEAD", "/events/10", &[], ""),
    ("OPTIONS", "/events/10", &[], ""),
    ("GET", "/work/100", &[], ""),
    ("GET", "/work/hard", &[], ""),
    ("GET", "/files", &[], ""),
    ("GET", "/files/", &[], ""),
    ("GET", "/files/sub", &[], ""),
    ("GET", "/files/hello.txt", &[], ""),
    ("GET", "/files/h%65llo.txt?x", &[], ""),
    ("HEAD", "/files/hello.txt", &[], ""),
    ("POST", "/files/hello.txt", &[], "x"),
    ("OPTIONS", "/files/hello.txt", &[], ""),
    ("GET", "/files/empty.bin", &[], ""),
    ("GET", "/files/large.bin", &[], ""),
    ("GET", "/files/nothing", &[], ""),
    ("GET", "/files/../Cargo.toml", &[], ""),
    ("GET", "/files/%2e%2e/Cargo.toml", &[], ""),
    ("GET", "/files/sub/page.html", &[], ""),
    ("GET", "/files/hello.txt", &[("if-none-match", "*")], ""),
    ("GET", "/files/hello.txt", &[("if-none-match", "\"x\"")], ""),
    ("GET", "/files/hello.txt", &[("if-match", "\"x\"")], ""),
    ("GET", "/files/hello.txt", &[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], ""),
    ("GET", "/files/data.txt", &[("range", "bytes=0-0")], ""),
    ("GET", "/files/data.txt", &[("range", "bytes=65535-65536")], ""),
    ("GET", "/files/data.txt", &[("range", "bytes=100000-")], ""),
    ("GET", "/files/data.txt", &[("range", "bytes=-1")], ""),
    ("GET", "/files/data.txt", &[("range", "bytes=200000-")], ""),
    ("GET", "/files/data.txt", &[("range", "bytes=5-3")], ""),
    ("HEAD", "/files/data.txt", &[("range", "bytes=0-3")], ""),
];

pub const ROWS: &[OpenRow] = &[
    ("requests: 100 streams at once", |c| {
        let streams: Vec<u32> = (0..100).map(|n| c.get(&format!("/bytes/{}", 4_970 + n))).collect();
        for (n, stream) in streams.into_iter().enumerate() {
            assert!(c.reply(stream).body == pattern(0, 4_970 + n), "stream {stream}");
        }
    }),
    ("requests: 50 uploads at once come back unmixed", |c| {
        let streams: Vec<u32> = (0..50).map(|_| c.post(&[])).collect();
        for round in 0..10 {
            for (n, &stream) in streams.iter().enumerate() {
                c.until("a window opens", |c| c.may_send(stream) >= 200);
                c.send_data(stream, &pattern(n + 200 * round, 200), round == 9);
            }
        }
        for (n, stream) in streams.into_iter().enumerate() {
            assert!(c.reply(stream).body == pattern(n, 2_000), "stream {stream}");
        }
    }),
    ("requests: an echo of many small frames", |c| {
        let stream = c.post(&[]);
        let body = pattern(3, 20_000);
        c.send_body(stream, &body, 3);
        assert!(c.reply(stream).body == body);
    }),
    ("requests: an echo of small frames in one write", |c| {
        let stream = c.post(&[]);
        let body = pattern(9, 8_000);
        let frames = body.chunks(1).map(|byte| Frame::data(stream, byte, false));
        c.send(frames.chain([Frame::data(stream, [], true)]));
        assert!(c.reply(stream).body == body);
    }),
    ("requests: an echo of 1 MB", |c| {
        let stream = c.post(&[("content-length", "1000000")]);
        let body = pattern(1, 1_000_000);
        c.send_body(stream, &body, FRAME_SIZE);
        let reply = c.reply(stream);
        assert!(reply.body == body);
        assert_eq!(reply.status, 200);
    }),
    ("requests: an echo begins before the upload ends", |c| {
        let stream = c.post(&[]);
        for byte in pattern(0, 20) {
            let before = c.streams[&stream].body.len();
            c.send_data(stream, &[byte], false);
            c.until("this byte is back", |c| c.streams[&stream].body.len() == before + 1);
        }
        c.send_data(stream, b"", true);
        assert_eq!(c.reply(stream).body, pattern(0, 20));
    }),
    ("requests: a slow client gets a large body in small sips", |c| {
        const LEN: usize = 200_000;
        c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
        c.refill = false;
        let stream = c.get(&format!("/bytes/{LEN}"));
        let mut sum = 0;
        for sip in (1..).map(|n: u32| n * 7) {
            if c.streams[&stream].ended {
                break;
            }
            c.grant(stream, sip);
            c.grant(0, sip);
            sum = LEN.min(sum + usize::try_from(sip).unwrap_or(0));
            c.until("this sip", |c| c.streams[&stream].body.len() >= sum);
            assert_eq!(c.streams[&stream].body.len(), sum);
            if sum == LEN {
                c.until("its end", |c| c.streams[&stream].ended);
            }
        }
        assert!(c.reply(stream).body == pattern(0, LEN));
    }),
    ("requests: a slow stream does not hold back its siblings", |c| {
        let slow = c.get("/delay/60000");
        for _ in 0..10 {
            c.still_serves();
        }
        let (later, sooner) = (c.get("/delay/59000"), c.get("/delay/50"));
        let bytes = c.get("/bytes/100000");
        let file = c.get("/files/data.txt");
        assert!(c.reply(bytes).body == pattern(0, 100_000));
        assert!(c.reply(file).body == pattern(0, 200_000));
        assert_eq!(c.reply(sooner).body, b"waited for 50 ms\n");
        assert!(!c.streams[&slow].ended && !c.streams[&later].ended, "a delay of 60 s is over");
        c.send([Frame::rst_stream(slow, CANCEL), Frame::rst_stream(later, CANCEL)]);
        c.still_serves();
    }),
    ("requests: many delays are due in their own order of time", |c| {
        let streams: Vec<u32> = (0..50).map(|n| c.get(&format!("/delay/{}", 50 - n))).collect();
        for (n, stream) in streams.into_iter().enumerate() {
            let waited = format!("waited for {} ms\n", 50 - n);
            assert_eq!(c.reply(stream).body, waited.as_bytes());
        }
    }),
    ("requests: events come on one stream, and replies on others meanwhile", |c| {
        let events = c.get("/events/10");
        assert_eq!(c.head(events).field("content-type"), Some("text/event-stream"));
        for n in 1..5 {
            c.still_serves();
            let count = |body: &[u8]| body.windows(2).filter(|end| end == b"\n\n").count();
            c.until("another event", |c| count(&c.streams[&events].body) >= n);
        }
        let text = String::from_utf8_lossy(&c.streams[&events].body).into_owned();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let numbers: Vec<u64> = data.map(number).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{text}");
        let waiting = c.get(&format!("/news/10/{}", u64::MAX));
        assert!(number(&String::from_utf8_lossy(&c.reply(waiting).body)) >= numbers[0]);
        c.send([Frame::rst_stream(events, CANCEL)]);
        c.still_serves();
    }),
    ("requests: stuck streams do not hold back their siblings", |c| {
        c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
        let stuck = ["/bytes/3000000", "/files/large.bin"].map(|path| c.get(path));
        for stream in stuck {
            assert_eq!(c.head(stream).status, 200);
        }
        for _ in 0..10 {
            let (bytes, file) = (c.get("/bytes/50000"), c.get("/files/data.txt"));
            c.grant(bytes, 50_000);
            c.grant(file, 200_000);
            assert!(c.reply(bytes).body == pattern(0, 50_000));
            assert!(c.reply(file).body == pattern(0, 200_000));
        }
        assert!(stuck.iter().all(|stream| c.streams[stream].body.is_empty()), "{}", c.seen());
        c.grant(stuck[0], 3_000_000);
        c.grant(stuck[1], 3_000_000);
        assert!(c.reply(stuck[1]).body == pattern(7, 3_000_000));
        assert!(c.reply(stuck[0]).body == pattern(0, 3_000_000));
    }),
    ("requests: two large bodies share the connection", |c| interleave(c, "/bytes/3000000")),
    ("requests: two large files share the connection", |c| interleave(c, "/files/large.bin")),
    ("requests: 20 files at once are not mixed up", |c| {
        let files = [("data.txt", 0, 200_000), ("hello.txt", 0, 18), ("large.bin", 7, 3_000_000)];
        let asked: Vec<_> =
            (0..20).map(|n| (n % 3, c.get(&format!("/files/{}", files[n % 3].0)))).collect();
        for (file, stream) in asked {
            let (name, from, len) = files[file];
            let body = c.reply(stream).body;
            let same =
                if file == 1 { body == b"hello from a file\n" } else { body == pattern(from, len) };
            assert!(same, "{name} on stream {stream}: {} bytes", body.len());
        }
    }),
    ("requests: cancelled downloads leave nothing behind", |c| {
        for n in 0..200 {
            let path = if n % 2 == 0 { "/bytes/1000000000" } else { "/files/large.bin" };
            let stream = c.get(path);
            c.until("it has begun", |c| !c.streams[&stream].body.is_empty());
            c.send([Frame::rst_stream(stream, CANCEL)]);
        }
        c.still_serves();
    }),
    ("requests: Expect: 100-continue", |c| {
        let stream = c.post(&[("expect", "100-continue"), ("content-length", "5")]);
        // The interim reply is the server's choice (RFC 9110 section 10.1.1); the body is not.
        c.send_data(stream, b"hello", true);
        assert_eq!(c.reply(stream).body, b"hello");
        assert!(c.streams[&stream].interim.iter().all(|&status| status == 100));
    }),
    ("requests: a path beyond the limit", |c| {
        let stream = c.get(&format!("/{}", "x".repeat(9_000)));
        assert_eq!(c.reply(stream).status, 414);
        c.still_serves();
    }),
];

pub const RAW_ROWS: &[RawRow] = &[("requests: all routes are as in HTTP/1.1", |endpoint| {
    let over_http1: Vec<_> = ASKED.iter().map(|asked| over_http1(endpoint, asked)).collect();
    let mut c = endpoint.http2().opened();
    for (asked, told) in ASKED.iter().zip(over_http1) {
        let (method, target, fields, body) = *asked;
        let stream = if body.is_empty() {
            c.request(method, target, fields)
        } else {
            let block = [
                hpack::request(method, target),
                hpack::literals(fields),
                hpack::literal("content-length", body.len().to_string()),
            ];
            let stream = c.open_stream(&block.concat(), false);
            c.send_data(stream, body.as_bytes(), true);
            stream
        };
        let reply = c.reply(stream);
        assert_eq!(
            (reply.status, compared(&reply.head)),
            (told.0.status, compared(&told.0)),
            "{asked:?}"
        );
        assert!(reply.body == told.1, "{asked:?}: other bytes than HTTP/1.1");
    }
})];

/// The reply to one request over a connection of HTTP/1.1.
fn over_http1(endpoint: &Endpoint, asked: &Asked) -> (Head, Vec<u8>) {
    let (method, target, fields, body) = *asked;
    let mut lines: String =
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // A POST without a body says so, or has none by its framing; the length says it for all.
    if !body.is_empty() || method == "POST" {
        lines += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut client = endpoint.http1();
    client.send(&[suite::request(method, target, &lines).as_slice(), body.as_bytes()].concat());
    let head = client.head();
    let body = if method == "HEAD" { Vec::new() } else { client.body(&head) };
    (head, body)
}

fn compared(head: &Head) -> BTreeSet<(String, String)> {
    let fields = head.fields.iter();
    fields.filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str())).cloned().collect()
}

/// Both have room for all of their bodies, so whose frames come when is the server's choice alone.
fn interleave(c: &mut Http2, path: &str) {
    c.set(&[(INITIAL_WINDOW_SIZE, 4_000_000)]);
    c.grant(0, 8_000_000);
    c.refill = false;
    // In one write: sockets hold megabytes, so one reply could be out before the other request.
    let (one, other) = (c.next_stream(), c.next_stream() + 2);
    c.send([one, other].map(|stream| Frame::headers(stream, hpack::request("GET", path), true)));
    assert!(c.reply(one).body == c.reply(other).body, "two replies to one request");
    let of_them = c.arrivals.iter().map(|&(stream, _)| stream);
    let mut turns: Vec<u32> = of_them.filter(|stream| [one, other].contains(stream)).collect();
    turns.dedup();
    assert!(turns.len() >= 20, "{} turns in two bodies of 3 MB", turns.len());
}
