//! HTTP/1.1 as it should be: keep-alive, pipelining, bodies, routes (RFC 9112, RFC 9110).

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use suite::{Client, Server, Variant, get, pattern, request, until};

/// What a server's peak may grow by for one connection, in KiB; see the echo cases.
const GROWTH_KIB_MAX: u64 = 8 << 10;

const HELLO: &[u8] = b"Hello, world!";

/// `POST /echo` with the body's length.
fn post(body: &[u8], fields: &str) -> Vec<u8> {
    let fields = format!("Content-Length: {}\r\n{fields}", body.len());
    [request("POST", "/echo", &fields).as_slice(), body].concat()
}

pub fn hello(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    client.send(&get("/"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.body.as_slice()), (200, HELLO));
    assert_eq!(reply.head.field("content-length"), Some("13"));
    assert!(reply.head.field("content-type").is_some_and(|t| t.starts_with("text/plain")));
    // IMF-fixdate (RFC 9110 section 5.6.7): Sun, 06 Nov 1994 08:49:37 GMT.
    let date = reply.head.field("date").expect("a Date field");
    assert!(date.len() == 29 && &date[3..5] == ", " && date.ends_with(" GMT"), "{date}");
    assert!(!reply.head.closes());
    drop(client);
    server.stop();
}

pub fn keep_alive(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    for n in 0..100 {
        let fields = if n == 99 { "Connection: close\r\n" } else { "" };
        client.send(&request("GET", &format!("/bytes/{n}"), fields));
        let reply = client.reply();
        assert_eq!(reply.body, pattern(0, n));
        assert_eq!(reply.head.closes(), n == 99);
    }
    client.expect_end();
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["connections_accepted"], 1);
    assert_eq!(counters["requests"], 100);
    assert_eq!(counters["connections_ended"]["completed"], 1, "{counters}");
}

pub fn connection_close(variant: &Variant) {
    let server = Server::start(variant, &[]);
    for options in ["close", "Close", "keep-alive, close", "x, close ,y"] {
        let mut client = server.connect();
        let asks = request("GET", "/bytes/70000", &format!("Connection: {options}\r\n"));
        // What is behind a close is not answered.
        client.send(&[asks, get("/")].concat());
        let reply = client.reply();
        assert_eq!(reply.body, pattern(0, 70_000));
        assert!(reply.head.closes(), "{options}: {:?}", reply.head);
        // What was behind it was not read, so an RST may follow the FIN.
        assert!(client.read_until_cut().is_empty(), "{options}: something after the last reply");
    }
    let counters = server.stop();
    assert_eq!(counters["requests"], 4);
}

pub fn http_1_0(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.0\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.status, reply.body.as_slice()), (200, HELLO));
    assert!(reply.head.closes());
    client.expect_end();

    let mut client = server.connect();
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let reply = client.reply();
        assert_eq!(reply.body, HELLO);
        assert_eq!(reply.head.field("connection"), Some("keep-alive"));
    }
    client.send(b"POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.reply().body, b"hello");
    client.expect_end();
    drop(client);
    server.stop();
}

pub fn head_has_no_body(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    for (target, length) in [("/", "13"), ("/bytes/1000000", "1000000"), ("/bytes/0", "0")] {
        client.send(&request("HEAD", target, ""));
        let head = client.head();
        assert_eq!((head.status, head.field("content-length")), (200, Some(length)));
    }
    client.send(&[request("HEAD", "/delay/1", ""), request("HEAD", "/nowhere", "")].concat());
    assert_eq!(client.head().status, 200);
    assert_eq!(client.head().status, 404);
    // A body after any of these would be read as the next head.
    client.send(&get("/"));
    assert_eq!(client.reply().body, HELLO);
    drop(client);
    server.stop();
}

pub fn byte_at_a_time(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    let chunked = request("POST", "/echo", "Transfer-Encoding: chunked\r\n");
    let body = b"5;ext=\"x\"\r\nhello\r\nA\r\n, and more.\r\n0\r\nTrailer: x\r\n\r\n";
    let body = String::from_utf8_lossy(body).replace(", and more.", ", and more");
    for byte in [chunked, body.into_bytes(), get("/")].concat() {
        client.send(&[byte]);
    }
    assert_eq!(client.reply().body, b"hello, and more");
    assert_eq!(client.reply().body, HELLO);
    drop(client);
    server.stop();
}

/// A thousand requests before the first reply is read; other lengths show other order.
pub fn pipelined_in_order(variant: &Variant) {
    const REQUESTS: usize = 1000;
    /// Lengths around the server's own buffers, and none twice in a row.
    const LENGTHS: [usize; 7] = [0, 13, 1, 5000, 64, 70_001, 4096];
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    let mut writer = client.second_handle();
    let writing = thread::spawn(move || {
        let mut all = Vec::new();
        for n in 0..REQUESTS {
            match n % 10 {
                3 => all.extend(post(format!("body of request {n}").as_bytes(), "")),
                5 => all.extend(request("HEAD", "/bytes/77", "")),
                7 => all.extend(get("/delay/1")),
                _ => all.extend(get(&format!("/bytes/{}", LENGTHS[n % LENGTHS.len()]))),
            }
        }
        writer.write_all(&all).expect("the server takes a thousand requests");
    });
    for n in 0..REQUESTS {
        let head = client.head();
        assert_eq!(head.status, 200, "request {n}");
        match n % 10 {
            3 => assert_eq!(client.body(&head), format!("body of request {n}").as_bytes()),
            5 => assert_eq!(head.field("content-length"), Some("77"), "request {n}"),
            7 => assert_eq!(client.body(&head), b"waited for 1 ms\n", "request {n}"),
            _ => assert_eq!(client.body(&head), pattern(0, LENGTHS[n % LENGTHS.len()]), "{n}"),
        }
    }
    writing.join().expect("the writer");
    assert!(client.is_silent(), "something behind the last reply");
    drop(client);
    assert_eq!(server.stop()["requests"], REQUESTS);
}

/// What RFC 9112 and 9110 ask a server to accept.
pub fn lenient_where_the_rfc_is(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    for accepted in [
        "\r\n\r\nGET / HTTP/1.1\r\nHost: suite\r\n\r\n",
        "GET http://suite.example/ HTTP/1.1\r\nHost: suite\r\n\r\n",
        "GET http://suite.example HTTP/1.1\r\nHost: suite\r\n\r\n",
        "GET /?query=1&more HTTP/1.1\r\nHost: suite\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: suite\r\n\r\n",
        "GET / HTTP/1.1\r\nhOsT:suite\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \t suite \t\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: suite\r\nX-Empty:\r\nX-High: \u{fc}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: suite\r\nContent-Length: 4\r\n\r\nbody",
        "GET / HTTP/1.1\r\nHost: suite\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
    ] {
        client.send(accepted.as_bytes());
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_slice()), (200, HELLO), "{accepted:?}");
    }
    drop(client);
    server.stop();
}

pub fn post_by_length(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    for len in [0, 1, 13, 4096, 65_536, 65_537] {
        client.send(&post(&pattern(len, len), ""));
        let reply = client.reply();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.head.field("content-length"), Some(len.to_string().as_str()));
        assert_eq!(reply.body, pattern(len, len));
    }
    drop(client);
    server.stop();
}

pub fn post_chunked(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    for (body, meant) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!"),
        ("005;name=value;flag\r\nhello\r\n00;last\r\n\r\n", "hello"),
        ("5;q=\"a;b\"\r\nhello\r\n0\r\nExpires: never\r\nX: y\r\n\r\n", "hello"),
        ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
    ] {
        let head = request("POST", "/echo", "Transfer-Encoding: chunked\r\n");
        client.send(&[head.as_slice(), body.as_bytes()].concat());
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_slice()), (200, meant.as_bytes()), "{body:?}");
    }
    client.send(&get("/"));
    assert_eq!(client.reply().body, HELLO);
    drop(client);
    server.stop();
}

/// A body that comes back while it is still being sent, by length and chunked.
pub fn post_streams(variant: &Variant) {
    const LEN: usize = 5_000_000;
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    client.send(&get("/"));
    client.reply();
    let before = server.process().memory_peak_kib();
    for chunked in [false, true] {
        let mut writer = client.second_handle();
        let writing = thread::spawn(move || {
            let framing = if chunked {
                "Transfer-Encoding: chunked\r\n".to_owned()
            } else {
                format!("Content-Length: {LEN}\r\n")
            };
            let mut send = |bytes: &[u8]| writer.write_all(bytes).expect("the server takes it");
            send(&request("POST", "/echo", &framing));
            for at in (0..LEN).step_by(50_000) {
                let bytes = pattern(at, 50_000);
                if chunked {
                    send(&[b"c350\r\n", bytes.as_slice(), b"\r\n"].concat());
                } else {
                    send(&bytes);
                }
            }
            if chunked {
                send(b"0\r\n\r\n");
            }
        });
        let reply = client.reply();
        writing.join().expect("the writer");
        assert_eq!(reply.status, 200);
        assert!(reply.body == pattern(0, LEN), "other bytes came back, chunked {chunked}");
    }
    let growth = server.process().memory_peak_kib() - before;
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB for a body that streams");
    drop(client);
    server.stop();
}

pub fn expect_continue(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    // The client waits, so the server must speak first.
    for framing in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let fields = format!("{framing}Expect: 100-continue\r\n");
        client.send(&request("POST", "/echo", &fields));
        assert_eq!(client.head().status, 100);
        let chunked = framing.starts_with('T');
        client.send(if chunked { b"5\r\nhello\r\n0\r\n\r\n" } else { b"hello" });
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_slice()), (200, b"hello".as_slice()));
    }
    // One that does not wait may be told or not (RFC 9110 section 10.1.1).
    client.send(&post(b"hello", "Expect: 100-Continue\r\n"));
    let mut head = client.head();
    if head.status == 100 {
        head = client.head();
    }
    assert_eq!((head.status, client.body(&head).as_slice()), (200, b"hello".as_slice()));
    // HTTP/1.0 has no 100: it would be taken for the reply.
    drop(client);
    let mut old = server.connect();
    old.send(b"POST /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert_eq!(old.reply().status, 200);
    server.stop();
}

pub fn routes(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    for (method, target, status, allow) in [
        ("GET", "/nowhere", 404, None),
        ("GET", "/bytes", 404, None),
        ("GET", "/bytes/", 400, None),
        ("GET", "/bytes/x", 400, None),
        ("GET", "/bytes/-1", 400, None),
        ("GET", "/bytes/99999999999999999999", 400, None),
        ("GET", "/delay/1000000000", 400, None),
        ("GET", "/work/1000000000", 400, None),
        ("GET", "/files/x", 404, None),
        ("DELETE", "/", 405, Some("GET, HEAD, OPTIONS")),
        ("PUT", "/bytes/1", 405, Some("GET, HEAD, OPTIONS")),
        ("POST", "/", 405, Some("GET, HEAD, OPTIONS")),
        ("GET", "/echo", 405, Some("POST, OPTIONS")),
        ("OPTIONS", "/echo", 204, Some("POST, OPTIONS")),
        ("OPTIONS", "*", 204, Some("GET, HEAD, POST, OPTIONS")),
    ] {
        client.send(&request(method, target, ""));
        let reply = client.reply();
        assert_eq!(reply.status, status, "{method} {target}");
        assert_eq!(reply.head.field("allow"), allow, "{method} {target}");
        assert!(!reply.head.closes(), "{method} {target}: a wrong path is no wrong framing");
    }
    drop(client);
    server.stop();
}

pub fn stats_count(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    let stats = |client: &mut Client| -> Value {
        client.send(&get("/stats"));
        let reply = client.reply();
        assert_eq!(reply.head.field("content-type"), Some("application/json"));
        serde_json::from_slice(&reply.body).expect("/stats is JSON")
    };
    let first = stats(&mut client);
    assert_eq!(first["model"], variant.model.name.as_str());
    assert_eq!((&first["connections_open"], &first["requests"]), (&1.into(), &0.into()));
    client.send(&get("/bytes/100000"));
    client.reply();
    let number = |stats: &Value, field: &str| stats[field].as_u64().expect("a number");
    // A reply counts as sent when send(2) has returned. Where one thread reads and another writes,
    // the next request may be read before the writer has said so: then the count is behind, and
    // only for that moment. So it is asked for again, and each question is a request too.
    let mut asked = 0;
    until("what the server has sent is what the client has read", || {
        let read = client.bytes_read();
        let second = stats(&mut client);
        asked += 1;
        assert_eq!(second["requests"], 1 + asked, "{second}");
        let received = number(&second, "bytes_received") - number(&first, "bytes_received");
        let written = get("/bytes/100000").len() + asked * get("/stats").len();
        assert_eq!(received, written as u64, "{second}");
        let sent = number(&second, "bytes_sent");
        assert!(sent <= read, "the server counts {sent} bytes, and {read} have come");
        sent == read
    });
    drop(client);
    server.stop();
}

pub fn work_burns(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    let before = server.process().cpu();
    client.send(&get("/work/200000"));
    assert_eq!(client.reply().body, b"worked for 200000 us\n");
    // Less a clock tick at either end.
    let burnt = server.process().cpu() - before;
    assert!(burnt >= Duration::from_millis(180), "burnt {burnt:?}");
    drop(client);
    server.stop();
}

/// Fifty megabytes for a client that takes small sips: made as they leave, never held.
pub fn bytes_to_a_slow_reader(variant: &Variant) {
    const LEN: usize = 50_000_000;
    let server = Server::start(variant, &[]);
    let mut client = server.connect();
    client.send(&get("/"));
    client.reply();
    let before = server.process().memory_peak_kib();
    client.send(&get(&format!("/bytes/{LEN}")));
    let head = client.head();
    assert_eq!(head.field("content-length"), Some(LEN.to_string().as_str()));
    // The alphabet has 64 letters: every 6,400 bytes the expected text begins anew.
    let expected = pattern(0, 6400);
    let mut left = LEN;
    while left > 0 {
        let len = left.min(expected.len());
        assert!(client.read_exact(len) == expected[..len], "wrong bytes {left} before the end");
        left -= len;
    }
    let growth = server.process().memory_peak_kib() - before;
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB for a reply that streams");
    client.send(&get("/"));
    assert_eq!(client.reply().body, HELLO);
    drop(client);
    server.stop();
}
