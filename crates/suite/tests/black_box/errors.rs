//! Requests that must be refused, each in its own way, and nobody else notices.

use nix::sys::signal::Signal;
use suite::{Client, Server, Variant, get, until};

/// Sends `bytes`; the reply has `status`, announces the close, and the server then closes.
#[track_caller]
fn refused(client: &mut Client, bytes: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
    client.send(bytes);
    let reply = client.reply();
    assert_eq!(reply.status, status, "{shown:?} got {:?}", String::from_utf8_lossy(&reply.body));
    assert!(reply.head.closes(), "{shown:?}: {:?}", reply.head);
    assert!(!reply.body.is_empty(), "{shown:?}: a refusal says why");
    client.expect_end();
}

/// A client is refused while another, connected before, is served before and after. One at a time,
/// the other comes after.
#[track_caller]
fn refused_alone(server: &Server, bytes: &[u8], status: u16) {
    if server.variant.model.one_at_a_time() {
        refused(&mut server.connect(), bytes, status);
        return server.serves();
    }
    let mut other = server.connect();
    other.send(&get("/"));
    assert_eq!(other.reply().status, 200);
    refused(&mut server.connect(), bytes, status);
    other.send(&get("/"));
    assert_eq!(other.reply().status, 200);
}

/// Every one a way to make two parsers on one path disagree about where a message ends.
const MALFORMED_HEADS: &[&str] = &[
    // Line ends (RFC 9112 section 2.2).
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\n",
    "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    // Host (section 3.2).
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    // Framing (section 6); more of it below.
    "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    // Fields (section 5).
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\tX: b\r\n\r\n",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\0Y: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n",
    // Request line (section 3).
    "GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /#fragment HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / http/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/11\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET /\r\n\r\n",
    "GET\r\n\r\n",
    "\0\r\n\r\n",
    // What a TLS client would say.
    "\u{16}\u{3}\u{1}\0\r\n\r\n",
];

/// Framing (RFC 9112 section 6): the fields of a POST, and the body behind them.
const MALFORMED_FRAMINGS: &[(&str, &str)] = &[
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    ("Content-Length: +5", "hello"),
    ("Content-Length: -5", "hello"),
    ("Content-Length: 5, 5", "hello"),
    ("Content-Length: 5\r\nContent-Length: 5", "hello"),
    ("Content-Length: 5\r\nContent-Length: 6", "hello"),
    ("Content-Length: 0x5", "hello"),
    ("Content-Length: 5 5", "hello"),
    ("Content-Length:", "hello"),
    ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
    ("Transfer-Encoding: identity", "hello"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding:", "hello"),
];

pub fn malformed_heads(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let mut heads: Vec<Vec<u8>> = MALFORMED_HEADS.iter().map(|h| h.as_bytes().to_vec()).collect();
    for (fields, body) in MALFORMED_FRAMINGS {
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
        heads.push(head.into_bytes());
    }
    heads.push(b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: b\r\n\r\n".to_vec());
    for head in &heads {
        refused_alone(&server, head, 400);
    }
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["rejected"], heads.len(), "{counters}");
}

/// The first chunk is bad, so the reply has not begun and can still be a refusal.
pub fn malformed_chunks(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bad_size = [
        "\r\n",
        "5 \r\nhello\r\n",
        " 5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "5\nhello\r\n",
        "5\rhello\r\n",
        "g\r\nhello\r\n",
        ";x\r\nhello\r\n",
        "5;a=\"\n\"\r\nhello\r\n",
        "5\0\r\nhello\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\nX: y\n\r\n",
        "5;\r\nhello\r\n",
        "5;bad[=x\r\nhello\r\n",
        "5;a=\r\nhello\r\n",
        "5;a=\"b\r\nhello\r\n",
        "5;a\0\r\nhello\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "0\r\nX\0: y\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\r\n folded\r\n\r\n",
    ];
    for body in bad_size {
        refused_alone(&server, format!("{head}{body}").as_bytes(), 400);
    }
    let sizes = [("FFFFFFFFFFFFFFFF", 413), ("FFFFFFFFFFFFFFFFF", 400), ("10000000000000005", 400)];
    for (size, status) in sizes {
        refused_alone(&server, format!("{head}{size}\r\nhello\r\n").as_bytes(), status);
    }
    // Behind a good chunk the reply has begun: no second status line, and no end that looks like
    // one, so that the client knows that it was cut.
    for rest in ["x\r\nhello\r\n", "5\r\nhello!\r\n", "5\r\nhello\n0\r\n\r\n"] {
        let mut client = server.connect();
        client.send(format!("{head}4\r\ngood\r\n{rest}").as_bytes());
        let told = client.read_until_cut();
        let told = String::from_utf8_lossy(&told);
        assert_eq!(told.matches("HTTP/1.1").count(), 1, "{rest:?}: {told:?}");
        assert!(!told.ends_with("0\r\n\r\n"), "{rest:?} looks complete: {told:?}");
        drop(client);
        server.serves();
    }
    server.stop();
}

/// Every other status.
pub fn refusals(variant: &Variant) {
    let flags =
        ["--body-bytes-max", "100", "--head-bytes-max", "1000", "--target-bytes-max", "200"];
    let server = Server::start(variant, &flags);
    let long = "x".repeat(300);
    let longer = "x".repeat(2000);
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\n";
    for (request, status) in [
        (format!("{post}Content-Length: 101\r\n\r\n"), 413),
        (format!("{post}Content-Length: 99999999999999999999999\r\n\r\n"), 400),
        (format!("{post}Content-Length: 101\r\nHost: b\r\n\r\n"), 400),
        ("BREW / HTTP/1.1\r\n\r\n".to_owned(), 400),
        // A method without end is no line of a request.
        (longer.clone(), 400),
        (format!("{post}Expect: 100-continue\r\nContent-Length: 101\r\n\r\n"), 413),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n65\r\n"), 413),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        // Not even a line end: the answer does not wait for one.
        (format!("GET /{longer}"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {longer}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {longer}"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:\r\n".repeat(120)), 431),
        (format!("{post}Expect: tea\r\nContent-Length: 1\r\n\r\n"), 417),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n"), 501),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
    ] {
        refused_alone(&server, request.as_bytes(), status);
    }
    // The limits themselves are still within.
    let mut client = server.connect();
    let body = "y".repeat(100);
    client.send(format!("{post}Content-Length: 100\r\n\r\n{body}").as_bytes());
    assert_eq!(client.reply().body, body.as_bytes());
    client.send(
        format!("{post}Transfer-Encoding: chunked\r\n\r\n64\r\n{body}\r\n0\r\n\r\n").as_bytes(),
    );
    assert_eq!(client.reply().body, body.as_bytes());
    client.send(&get(&format!("/{}", "x".repeat(199))));
    assert_eq!(client.reply().status, 404);
    drop(client);
    server.stop();
}

/// A server that closed with unread bytes in its socket would send RST, and RST destroys the reply
/// that waits at the client (RFC 9112 section 9.6).
pub fn reply_reaches_a_client_that_keeps_sending(variant: &Variant) {
    let server = Server::start(variant, &["--body-bytes-max", "1000"]);
    for (head, status) in [
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", 413),
        ("nonsense\r\n\r\n", 400),
    ] {
        let mut client = server.connect();
        client.send(head.as_bytes());
        // All of it before the reply is looked at.
        client.send(&vec![b'x'; 1_000_000]);
        let reply = client.reply();
        assert_eq!(reply.status, status);
        client.expect_end();
    }
    server.serves();
    server.stop();
}

/// Clients that leave in the middle of a request, by FIN and by RST.
pub fn unfinished_requests(variant: &Variant) {
    let server = Server::start(variant, &[]);
    let unfinished: [&[u8]; 5] = [
        b"GET",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ];
    for request in unfinished {
        let mut client = server.connect();
        client.send(request);
        client.finish_sending();
        let told = client.read_until_cut();
        assert!(!told.ends_with(b"0\r\n\r\n"), "half a request got a whole reply: {told:?}");
        let mut client = server.connect();
        client.send(request);
        client.reset();
        server.serves();
    }
    // A whole request with a FIN right behind it is answered.
    let mut client = server.connect();
    client.send(&[get("/"), get("/delay/50"), get("/bytes/70000")].concat());
    client.finish_sending();
    assert_eq!(client.reply().status, 200);
    assert_eq!(client.reply().body, b"waited for 50 ms\n");
    assert_eq!(client.reply().body.len(), 70_000);
    client.expect_end();
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["truncated"], 5, "{counters}");
}

/// A client resets the connection right behind a part of a request: the server hears of both at
/// once, and no deadline has to end the connection.
pub fn reset_right_behind_bytes(variant: &Variant) {
    let timeouts = ["--idle-timeout", "10m", "--head-timeout", "10m", "--body-timeout", "10m"];
    let server = Server::start(variant, &timeouts);
    let clients = if variant.model.one_at_a_time() { 1 } else { 8 };
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    for (before, last) in [(&b""[..], &b"GET / HT"[..]), (b"GET / HT", b"TP/1."), (head, b"hello")]
    {
        let mut open: Vec<_> = (0..clients).map(|_| server.connect()).collect();
        for client in &mut open {
            client.send(&get("/"));
            assert_eq!(client.reply().status, 200);
            client.send(before);
        }
        // The server finds both when it goes on.
        server.signal(Signal::SIGSTOP);
        for mut client in open {
            client.send(last);
            client.reset();
        }
        server.signal(Signal::SIGCONT);
        until("the connections have ended", || server.stats()["connections_open"] == 1);
    }
    server.stop();
}
