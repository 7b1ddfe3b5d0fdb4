//! Preface and frames: RFC 9113 sections 3.4, 4, 5.5, 6.1 to 6.4, 6.6 to 6.8, 6.10, 7.

use suite::http2::code::*;
use suite::http2::kind::*;
use suite::http2::{FRAME_SIZE, Frame, Http2, PREFACE, block_frames, flag, hpack, setting};
use suite::{get, request};

use super::{Endpoint, OpenRow, PlainRow, RawRow, blocked};

/// Five bytes of priority, then a field block.
fn with_priority(parent: u32, block: &[u8]) -> Vec<u8> {
    [&parent.to_be_bytes()[..], &[200], block].concat()
}

/// A HEADERS frame of `GET /` without its end, which is to follow in CONTINUATION frames.
fn begun(stream: u32) -> Frame {
    let block = hpack::request("GET", "/");
    Frame::new(HEADERS, flag::END_STREAM, stream, &block[..10])
}

/// The rest of [`begun`].
fn rest(stream: u32) -> Frame {
    Frame::continuation(stream, &hpack::request("GET", "/")[10..], true)
}

pub const ROWS: &[OpenRow] = &[
    ("4.1 a frame of unknown type is ignored", |c| {
        c.send([Frame::new(UNKNOWN, 0xff, 0, *b"what is this"), Frame::new(0xff, 0, 1, [])]);
        c.still_serves();
    }),
    ("4.1 a flag that nobody defined is ignored", |c| {
        c.send([Frame::ping(*b"flagged?").with_flags(0xfe)]);
        c.until("PING is answered", |c| c.pongs.contains(b"flagged?"));
        c.still_serves();
    }),
    ("4.1 the reserved bit is ignored", |c| {
        c.send([Frame::new(PING, 0, 1 << 31, *b"reserved")]);
        c.until("PING is answered", |c| c.pongs.contains(b"reserved"));
        let stream = c.next_stream();
        c.send([Frame::headers(stream | 1 << 31, hpack::request("GET", "/"), true)]);
        c.is_greeted(stream);
    }),
    ("4.2 a frame of 16384 bytes is accepted", |c| {
        let stream = c.post(&[]);
        c.send_data(stream, &[b'x'; FRAME_SIZE], true);
        assert_eq!(c.reply(stream).body, [b'x'; FRAME_SIZE]);
    }),
    ("4.2 DATA larger than MAX_FRAME_SIZE", |c| {
        let stream = c.post(&[]);
        let len = largest(c) + 1;
        c.send([Frame::data(stream, vec![0; len], true)]);
        c.stream_error(stream, &[FRAME_SIZE_ERROR]);
    }),
    ("4.2 HEADERS larger than MAX_FRAME_SIZE", |c| {
        let block = [hpack::request("GET", "/"), hpack::literal("x", vec![b'y'; largest(c)])];
        c.send([Frame::headers(1, block.concat(), true)]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("4.2 CONTINUATION larger than MAX_FRAME_SIZE", |c| {
        let len = largest(c) + 1;
        c.send([begun(1), Frame::continuation(1, vec![0; len], true)]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("4.2 SETTINGS larger than MAX_FRAME_SIZE", |c| {
        let len = (largest(c) / 6 + 1) * 6;
        c.send([Frame::new(SETTINGS, 0, 0, vec![0xee; len])]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("4.2 an unknown frame larger than MAX_FRAME_SIZE", |c| {
        let len = largest(c) + 1;
        c.send([Frame::new(UNKNOWN, 0, 0, vec![0; len])]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("4.3 a field block that is none", |c| {
        c.send([Frame::headers(1, [0xff; 5], true)]);
        c.connection_error(&[COMPRESSION_ERROR]);
    }),
    ("4.3 a field block that is cut short", |c| {
        let block = hpack::request("GET", "/");
        c.send([Frame::headers(1, &block[..block.len() - 1], true)]);
        c.connection_error(&[COMPRESSION_ERROR]);
    }),
    ("4.3 PRIORITY inside of a field block", |c| {
        c.send([begun(1), Frame::priority(3, 0), rest(1)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("4.3 HEADERS inside of a field block", |c| {
        c.send([begun(1), Frame::headers(3, hpack::request("GET", "/"), true), rest(1)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("4.3 PING inside of a field block", |c| {
        c.send([begun(1), Frame::ping([0; 8]), rest(1)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("5.5 an unknown frame on a stream is ignored", |c| {
        let stream = c.post(&[]);
        c.send([Frame::new(UNKNOWN, 0, stream, *b"ignored"), Frame::data(stream, *b"x", true)]);
        assert_eq!(c.reply(stream).body, b"x");
    }),
    ("5.5 an unknown frame inside of a field block", |c| {
        c.send([begun(1), Frame::new(UNKNOWN, 0, 1, []), rest(1)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.1 DATA on stream 0", |c| {
        c.send([Frame::data(0, *b"nowhere", false)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.1 padding is taken off", |c| {
        let stream = c.post(&[]);
        let flags = flag::PADDED | flag::END_STREAM;
        c.send([Frame::new(DATA, flags, stream, *b"\x03bodyPPP")]);
        assert_eq!(c.reply(stream).body, b"body");
    }),
    ("6.1 padding as long as the payload", |c| {
        let stream = c.post(&[]);
        let flags = flag::PADDED | flag::END_STREAM;
        c.send([Frame::new(DATA, flags, stream, *b"\x08bodyPPP")]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.1 padding without its length", |c| {
        let stream = c.post(&[]);
        c.send([Frame::new(DATA, flag::PADDED | flag::END_STREAM, stream, [])]);
        c.stream_error(stream, &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
    }),
    ("6.1 empty DATA in between is nothing", |c| {
        let stream = c.post(&[]);
        let empty = Frame::data(stream, [], false);
        let (a, b) = (Frame::data(stream, *b"a", false), Frame::data(stream, *b"b", false));
        c.send([empty.clone(), a, empty.clone(), b, empty, Frame::data(stream, [], true)]);
        assert_eq!(c.reply(stream).body, b"ab");
    }),
    ("6.2 HEADERS on stream 0", |c| {
        c.send([Frame::headers(0, hpack::request("GET", "/"), true)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.2 HEADERS with padding and priority", |c| {
        let flags = flag::END_STREAM | flag::END_HEADERS | flag::PADDED | flag::PRIORITY;
        let block = with_priority(0, &hpack::request("GET", "/"));
        let payload = [&[9], block.as_slice(), &[0; 9]].concat();
        c.send([Frame::new(HEADERS, flags, 1, payload)]);
        c.is_greeted(1);
    }),
    ("6.2 padding as long as the payload", |c| {
        let flags = flag::END_STREAM | flag::END_HEADERS | flag::PADDED;
        let block = hpack::request("GET", "/");
        let padding = u8::try_from(block.len() + 1).expect("a short block");
        c.send([Frame::new(HEADERS, flags, 1, [&[padding], block.as_slice()].concat())]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.2 HEADERS too short for its priority", |c| {
        let flags = flag::END_STREAM | flag::END_HEADERS | flag::PRIORITY;
        c.send([Frame::new(HEADERS, flags, 1, [0; 4])]);
        c.connection_error(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
    }),
    ("6.3 PRIORITY on stream 0", |c| {
        c.send([Frame::priority(0, 1)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.3 PRIORITY of 4 bytes", |c| {
        let stream = blocked(c);
        c.send([Frame::new(PRIORITY, 0, stream, [0; 4])]);
        c.stream_error(stream, &[FRAME_SIZE_ERROR]);
    }),
    ("6.3 PRIORITY of every weight and kind is no error", |c| {
        let stream = blocked(c);
        let (of_another, exclusive) = (7_u32.to_be_bytes(), (1 << 31 | 7_u32).to_be_bytes());
        for parent in [[0; 4], of_another, exclusive] {
            // The weight is one more than what stands there: 1, 16, 256.
            for weight in [0, 15, 255] {
                let payload = [&parent[..], &[weight]].concat();
                c.send([Frame::new(PRIORITY, 0, stream, payload)]);
            }
        }
        c.grant(stream, 100);
        assert_eq!(c.reply(stream).body.len(), 100);
    }),
    ("6.3 PRIORITY on an idle stream changes nothing", |c| {
        c.send([Frame::priority(7, 5), Frame::priority(5, 0)]);
        let stream = c.get("/");
        c.is_greeted(stream);
    }),
    ("6.4 RST_STREAM on stream 0", |c| {
        c.send([Frame::rst_stream(0, CANCEL)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.4 RST_STREAM on an idle stream", |c| {
        c.send([Frame::rst_stream(1, CANCEL)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.4 RST_STREAM of 3 bytes", |c| {
        let stream = blocked(c);
        c.send([Frame::new(RST_STREAM, 0, stream, [0; 3])]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("6.4 RST_STREAM ends a stream and no other", |c| {
        let (cancelled, other) = (blocked(c), c.get("/bytes/200"));
        c.send([Frame::rst_stream(cancelled, CANCEL)]);
        c.grant(other, 200);
        assert_eq!(c.reply(other).body.len(), 200);
        // A window for the one that is over brings nothing.
        c.grant(cancelled, 100);
        c.barrier();
        assert!(c.streams[&cancelled].body.is_empty(), "{}", c.seen());
    }),
    ("6.6 PUSH_PROMISE from a client", |c| {
        let stream = blocked(c);
        let payload = [&[0, 0, 0, 2], hpack::request("GET", "/").as_slice()].concat();
        c.send([Frame::new(PUSH_PROMISE, flag::END_HEADERS, stream, payload)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.7 PING is answered with its own bytes", |c| {
        c.send([Frame::ping(*b"12345678"), Frame::ping(*b"abcdefgh")]);
        c.until("two answers", |c| c.pongs.len() == 2);
        assert_eq!(c.pongs, [*b"12345678", *b"abcdefgh"]);
    }),
    ("6.7 an answer to PING is not answered", |c| {
        c.send([Frame::ping(*b"unasked!").with_flags(flag::ACK)]);
        c.barrier();
        assert_eq!(c.pongs.len(), 1, "{:?}", c.pongs);
    }),
    ("6.7 PING on a stream", |c| {
        c.send([Frame::new(PING, 0, 1, [0; 8])]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.7 PING of 6 bytes", |c| {
        c.send([Frame::new(PING, 0, 0, [0; 6])]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("6.8 GOAWAY on a stream", |c| {
        c.send([Frame { stream: 1, ..Frame::goaway(0, NO_ERROR) }]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.8 GOAWAY of 7 bytes", |c| {
        c.send([Frame::new(GOAWAY, 0, 0, [0; 7])]);
        c.connection_error(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
    }),
    ("6.8 what is under way when the client says GOAWAY is finished", |c| {
        let stream = blocked(c);
        c.send([Frame::goaway(0, NO_ERROR)]);
        c.grant(stream, 100);
        assert_eq!(c.reply(stream).body.len(), 100);
        c.until_end();
    }),
    ("6.10 a field block in five pieces", |c| {
        // Many more may be taken for a flood.
        let block = hpack::request("GET", "/");
        let mut pieces = block.chunks(block.len() / 3 + 1);
        let first = pieces.next().unwrap_or_default();
        let mut frames = vec![Frame::new(HEADERS, flag::END_STREAM, 1, first)];
        frames.push(Frame::continuation(1, [], false));
        frames.extend(pieces.map(|piece| Frame::continuation(1, piece, false)));
        frames.push(Frame::continuation(1, [], true));
        c.send(frames);
        c.is_greeted(1);
    }),
    ("6.10 HEADERS that are empty, and all in CONTINUATION", |c| {
        let headers = Frame::new(HEADERS, flag::END_STREAM, 1, []);
        c.send([headers, Frame::continuation(1, hpack::request("GET", "/"), true)]);
        c.is_greeted(1);
    }),
    ("6.10 CONTINUATION behind the end of the block", |c| {
        let mut frames = block_frames(1, &hpack::request("POST", "/echo"), false);
        frames.push(Frame::continuation(1, hpack::literal("x", "y"), true));
        c.send(frames);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.10 a second CONTINUATION behind the end of the block", |c| {
        c.send([begun(1).with_flags(0), rest(1), Frame::continuation(1, [], true)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.10 CONTINUATION on stream 0", |c| {
        c.send([begun(1), Frame { stream: 0, ..rest(1) }]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.10 CONTINUATION on another stream", |c| {
        c.send([begun(1), rest(3)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.10 DATA instead of CONTINUATION", |c| {
        c.send([begun(1).with_flags(0), Frame::data(1, *b"data", true)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.10 DATA behind a CONTINUATION that does not end the block", |c| {
        c.send([begun(1).with_flags(0), rest(1).with_flags(0), Frame::data(1, *b"data", true)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.10 CONTINUATION behind DATA", |c| {
        let stream = c.post(&[]);
        c.send([Frame::data(stream, *b"x", false), Frame::continuation(stream, [], true)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("7 RST_STREAM with a code that nobody defined", |c| {
        let stream = blocked(c);
        c.send([Frame::rst_stream(stream, 0xdead_beef)]);
        c.still_serves();
    }),
    ("7 GOAWAY with a code that nobody defined", |c| {
        let stream = blocked(c);
        c.send([Frame::goaway(0, 0xdead_beef)]);
        c.grant(stream, 100);
        // May be taken for INTERNAL_ERROR, which gives the server no reason to hurry either.
        assert_eq!(c.reply(stream).body.len(), 100);
    }),
];

/// The largest payload that the server takes. None of this workspace's wants more than it must
/// take; where the largest possible is allowed, no frame is too large.
#[track_caller]
fn largest(c: &Http2) -> usize {
    let set = c.settings.get(&setting::MAX_FRAME_SIZE).copied().unwrap_or(1 << 14);
    assert!(set < (1 << 24) - 6, "MAX_FRAME_SIZE is {set}: nothing is larger");
    usize::try_from(set).unwrap_or(FRAME_SIZE)
}

pub const RAW_ROWS: &[RawRow] = &[
    ("3.4 the server begins with SETTINGS and acknowledges ours", |endpoint| {
        let mut c = endpoint.http2();
        c.send_bytes(PREFACE);
        c.set(&[]);
        c.still_serves();
    }),
    ("3.4 a client need not wait for the server's preface", |endpoint| {
        let mut c = endpoint.http2();
        let request = Frame::headers(1, hpack::request("GET", "/"), true);
        let ours = c.bytes_of([Frame::settings(&[]), request]);
        c.send_bytes(&[PREFACE, &ours].concat());
        c.is_greeted(1);
    }),
    ("3.4 a preface that goes wrong", |endpoint| {
        // Every prefix of the preface that HTTP/1.1 cannot begin with, and then something else.
        for right in [4, 14, 16, 18, 20, 23] {
            let mut client = endpoint.http2().into_client();
            client.send(&[&PREFACE[..right], b"wrong, and now?\r\n\r\n"].concat());
            refused_in_its_own_words(&client.read_until_cut());
        }
    }),
    ("3.4 SETTINGS that are not the first frame", |endpoint| {
        not_a_preface(endpoint, Frame::ping([0; 8]));
    }),
    ("3.4 an acknowledgement instead of SETTINGS", |endpoint| {
        not_a_preface(endpoint, Frame::settings(&[]).with_flags(flag::ACK));
    }),
    ("3.4 preface and request in odd pieces", |endpoint| {
        for len in [1, 2, 3, 5, 23, 25, 33] {
            let mut c = endpoint.http2();
            let request = Frame::headers(1, hpack::request("GET", "/"), true);
            let frames = c.bytes_of([Frame::settings(&[]), request]);
            let all = [PREFACE, &frames].concat();
            for piece in all.chunks(len) {
                c.send_bytes(piece);
            }
            c.is_greeted(1);
        }
    }),
];

pub const PLAIN_ROWS: &[PlainRow] = &[
    ("3.3 HTTP/1.1 on the same port", |server| {
        let mut client = server.connect();
        client.send(&get("/"));
        assert_eq!(client.reply().body, b"Hello, world!");
        // PRI is no method of HTTP/1.1, and this is no preface.
        client.send(b"PRI /x HTTP/1.1\r\nHost: suite\r\n\r\n");
        assert!((400..600).contains(&client.reply().status));
    }),
    ("3.1 Upgrade: h2c is ignored", |server| {
        let mut client = server.connect();
        let fields =
            ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"];
        client.send(&request("GET", "/", &(fields.join("\r\n") + "\r\n")));
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_slice()), (200, b"Hello, world!".as_slice()));
        client.send(&get("/bytes/5"));
        assert_eq!(client.reply().body.len(), 5);
    }),
];

/// A frame comes before the client's SETTINGS: a connection error PROTOCOL_ERROR, whose GOAWAY may
/// be left out (section 3.4). What follows would be right and may not be served.
#[track_caller]
fn not_a_preface(endpoint: &Endpoint, first: Frame) {
    let mut c = endpoint.http2();
    c.send_bytes(PREFACE);
    let request = Frame::headers(1, hpack::request("GET", "/"), true);
    c.send([first, Frame::settings(&[]), request]);
    while !c.ended && !c.streams[&1].ended {
        c.read_frame();
    }
    assert!(c.streams[&1].head.is_none(), "served without a preface; {}", c.seen());
    assert!(c.goaway.is_none_or(|goaway| goaway.code == PROTOCOL_ERROR), "{}", c.seen());
}

/// No preface: HTTP/1.1 refuses with a status, HTTP/2 with GOAWAY; either may just close.
#[track_caller]
fn refused_in_its_own_words(told: &[u8]) {
    let text = String::from_utf8_lossy(told);
    if told.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5") {
        return;
    }
    let mut frames = told;
    let mut last = UNKNOWN;
    while let [l0, l1, l2, kind, _, _, _, _, _, after @ ..] = frames {
        let length = usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2);
        last = *kind;
        frames = after.get(length..).unwrap_or_default();
    }
    // Over TLS the server's SETTINGS may be out already, and GOAWAY may be left out (section 3.4).
    assert!([GOAWAY, SETTINGS].contains(&last), "neither a refusal nor the end: {text:?}");
}
