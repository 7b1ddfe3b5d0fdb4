//! Messages: RFC 9113 section 8.

use suite::http2::code::*;
use suite::http2::{Frame, Http2, hpack};

use super::OpenRow;

/// A request of these fields alone.
#[track_caller]
fn malformed(c: &mut Http2, block: &[u8]) {
    let stream = c.open_stream(block, true);
    c.malformed(stream);
}

/// `GET /` with a field more.
#[track_caller]
fn with(c: &mut Http2, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> u32 {
    let block = [hpack::request("GET", "/"), hpack::literal(name, value)].concat();
    c.open_stream(&block, true)
}

#[track_caller]
fn malformed_with(c: &mut Http2, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    let stream = with(c, name, value);
    c.malformed(stream);
}

/// `POST /echo` with a Content-Length, and DATA that belies it.
#[track_caller]
fn belied(c: &mut Http2, length: &str, pieces: &[&[u8]]) {
    let stream = c.post(&[("content-length", length)]);
    let last = pieces.len() - 1;
    let frames = pieces.iter().enumerate();
    c.send(frames.map(|(at, piece)| Frame::data(stream, *piece, at == last)));
    c.malformed_body(stream);
}

pub const ROWS: &[OpenRow] = &[
    ("8.1 trailers are accepted", |c| {
        let stream = c.post(&[("trailer", "x")]);
        c.send([Frame::data(stream, *b"body", false)]);
        c.send([Frame::headers(stream, hpack::literal("x", "y"), true)]);
        assert_eq!(c.reply(stream).body, b"body");
    }),
    ("8.1 trailers right behind the head", |c| {
        let stream = c.post(&[]);
        c.send([Frame::headers(stream, hpack::literal("x", "y"), true)]);
        assert_eq!(c.reply(stream).body, b"");
    }),
    ("8.1 a second HEADERS frame that does not end the stream", |c| {
        let stream = c.post(&[]);
        c.send([Frame::headers(stream, hpack::literal("x", "y"), false)]);
        c.malformed_body(stream);
    }),
    ("8.3 a pseudo-header field in trailers", |c| {
        let path = hpack::remembered(":path", "/echo");
        for trailer in [hpack::literal(":path", "/"), hpack::indexed(4), hpack::indexed(62)] {
            let stream = c.next_stream();
            let head = hpack::literals(&[
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "suite"),
            ]);
            c.send([Frame::headers(stream, [&head[..], &path].concat(), false)]);
            c.send([Frame::data(stream, *b"body", false)]);
            c.send([Frame::headers(stream, trailer, true)]);
            c.malformed_body(stream);
        }
    }),
    ("8.1 DATA behind trailers", |c| {
        let stream = c.post(&[]);
        let trailers = Frame::headers(stream, hpack::literal("x", "y"), true);
        c.send([trailers, Frame::data(stream, *b"late", true)]);
        // Over before that came, or not: the first reply may have been complete.
        c.until("an end", |c| {
            c.streams[&stream].ended || c.streams[&stream].reset.is_some() || c.goaway.is_some()
        });
        let code = c.streams[&stream].reset.or(c.goaway.map(|goaway| goaway.code));
        assert!([None, Some(STREAM_CLOSED), Some(PROTOCOL_ERROR)].contains(&code), "{}", c.seen());
    }),
    ("8.1.1 Content-Length above the one DATA frame", |c| belied(c, "10", &[b"short"])),
    ("8.1.1 Content-Length below the one DATA frame", |c| belied(c, "1", &[b"long"])),
    ("8.1.1 Content-Length above the sum", |c| belied(c, "10", &[b"1234", b"12345"])),
    ("8.1.1 Content-Length below the sum", |c| belied(c, "10", &[b"1234", b"1234", b"123"])),
    ("8.1.1 Content-Length that an empty DATA frame belies", |c| belied(c, "10", &[b""])),
    ("8.1.1 Content-Length without any DATA", |c| malformed_with(c, "content-length", "1")),
    ("8.1.1 Content-Length that trailers belie", |c| {
        let stream = c.post(&[("content-length", "5")]);
        c.send([Frame::data(stream, *b"1234", false)]);
        c.send([Frame::headers(stream, hpack::literal("x", "y"), true)]);
        c.malformed_body(stream);
    }),
    ("8.1.1 Content-Length that is no number", |c| malformed_with(c, "content-length", "+0")),
    ("8.1.1 two Content-Lengths that differ", |c| {
        let stream = c.post(&[("content-length", "4"), ("content-length", "5")]);
        c.send([Frame::data(stream, *b"1234", true)]);
        c.malformed_body(stream);
    }),
    ("8.1.1 Content-Length that is right", |c| {
        let stream = c.post(&[("content-length", "8")]);
        c.send([Frame::data(stream, *b"1234", false), Frame::data(stream, *b"5678", true)]);
        assert_eq!(c.reply(stream).body, b"12345678");
        let stream = with(c, "content-length", "0");
        c.is_greeted(stream);
    }),
    ("8.1.1 a malformed request leaves the others alone", |c| {
        let other = super::blocked(c);
        let block = [hpack::request("GET", "/"), hpack::literal("Upper", "x")].concat();
        let stream = c.open_stream(&block, true);
        c.until("the refusal", |c| {
            let state = &c.streams[&stream];
            state.ended || state.reset.is_some() || c.goaway.is_some()
        });
        if c.goaway.is_none() {
            c.grant(other, 100);
            assert_eq!(c.reply(other).body.len(), 100);
        }
    }),
];

/// What fields there may be: sections 8.2 and 8.3.
pub const FIELD_ROWS: &[OpenRow] = &[
    ("8.2.1 a name in upper case", |c| malformed_with(c, "X-Upper", "x")),
    ("8.2.1 a name with a space", |c| malformed_with(c, "x y", "x")),
    ("8.2.1 a name with a control character", |c| malformed_with(c, b"x\x01", "x")),
    ("8.2.1 a name with DEL", |c| malformed_with(c, b"x\x7f", "x")),
    ("8.2.1 a name beyond ASCII", |c| malformed_with(c, b"x\xfc", "x")),
    ("8.2.1 a name with a colon inside", |c| malformed_with(c, "x:y", "x")),
    ("8.2.1 a name that is empty", |c| malformed_with(c, "", "x")),
    ("8.2.1 a value with NUL", |c| malformed_with(c, "x", b"a\0b")),
    ("8.2.1 a value with LF", |c| malformed_with(c, "x", "a\nb")),
    ("8.2.1 a value with CR", |c| malformed_with(c, "x", "a\rb")),
    ("8.2.1 a value that begins with a space", |c| malformed_with(c, "x", " a")),
    ("8.2.1 a value that ends with a tab", |c| malformed_with(c, "x", "a\t")),
    ("8.2.1 a value that is empty, or beyond ASCII", |c| {
        for value in [b"".as_slice(), b"\xfc", b"a \t b"] {
            let stream = with(c, "x", value);
            c.is_greeted(stream);
        }
    }),
    ("8.2.2 Connection", |c| malformed_with(c, "connection", "close")),
    ("8.2.2 Proxy-Connection", |c| malformed_with(c, "proxy-connection", "keep-alive")),
    ("8.2.2 Keep-Alive", |c| malformed_with(c, "keep-alive", "timeout=5")),
    ("8.2.2 Transfer-Encoding", |c| malformed_with(c, "transfer-encoding", "chunked")),
    ("8.2.2 Upgrade", |c| malformed_with(c, "upgrade", "websocket")),
    ("8.2.2 TE other than trailers", |c| malformed_with(c, "te", "trailers, deflate")),
    ("8.2.2 TE: trailers", |c| {
        let stream = with(c, "te", "trailers");
        c.is_greeted(stream);
    }),
    ("8.2.3 a cookie in crumbs", |c| {
        let stream = c.request("GET", "/", &[("cookie", "a=b"), ("cookie", "c=d")]);
        c.is_greeted(stream);
    }),
    ("8.3 a pseudo-header field that nobody defined", |c| malformed_pseudo(c, ":test", "x")),
    ("8.3 a pseudo-header field of replies", |c| malformed_pseudo(c, ":status", "200")),
    ("8.3 a pseudo-header field behind a regular one", |c| {
        let get = [(":method", "GET"), (":scheme", "http"), ("x", "y"), (":path", "/")];
        malformed(c, &hpack::literals(&get));
    }),
    ("8.3 :method twice", |c| malformed_pseudo(c, ":method", "GET")),
    ("8.3 :scheme twice", |c| malformed_pseudo(c, ":scheme", "http")),
    ("8.3 :path twice", |c| malformed_pseudo(c, ":path", "/")),
    ("8.3 :authority twice", |c| malformed_pseudo(c, ":authority", "suite")),
    ("8.3.1 no :method", |c| {
        malformed(c, &hpack::literals(&[(":scheme", "http"), (":path", "/")]));
    }),
    ("8.3.1 no :scheme", |c| {
        malformed(c, &hpack::literals(&[(":method", "GET"), (":path", "/")]));
    }),
    ("8.3.1 no :path", |c| {
        malformed(c, &hpack::literals(&[(":method", "GET"), (":scheme", "http")]));
    }),
    ("8.3.1 an empty :path", |c| malformed(c, &hpack::request("GET", ""))),
    ("8.3.1 a :path without its slash", |c| malformed(c, &hpack::request("GET", "bytes/1"))),
    ("8.3.1 no field at all", |c| malformed(c, &[])),
    ("8.3.1 OPTIONS *", |c| {
        let stream = c.request("OPTIONS", "*", &[]);
        assert_eq!(c.reply(stream).status, 204);
    }),
    ("8.3.1 Host instead of :authority", |c| {
        let get = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "suite")];
        let stream = c.open_stream(&hpack::literals(&get), true);
        c.is_greeted(stream);
    }),
    ("8.5 CONNECT with :scheme and :path", |c| malformed(c, &hpack::request("CONNECT", "/"))),
    ("8.5 CONNECT without :authority", |c| {
        malformed(c, &hpack::literals(&[(":method", "CONNECT")]));
    }),
    ("8.5 CONNECT to somewhere is refused", |c| {
        let connect = [(":method", "CONNECT"), (":authority", "elsewhere.example:1")];
        let stream = c.open_stream(&hpack::literals(&connect), false);
        c.until("the refusal", |c| {
            let state = &c.streams[&stream];
            state.head.is_some() || state.reset.is_some() || c.goaway.is_some()
        });
        let status = c.streams[&stream].head.as_ref().map(|head| head.status);
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "{}", c.seen());
        assert_eq!(c.goaway, None);
    }),
];

/// A request in which a pseudo-header field is one too many.
#[track_caller]
fn malformed_pseudo(c: &mut Http2, name: &str, value: &str) {
    let block = [hpack::literal(name, value), hpack::request("GET", "/")].concat();
    malformed(c, &block);
}
