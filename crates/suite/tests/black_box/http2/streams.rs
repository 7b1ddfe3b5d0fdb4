//! Streams: RFC 9113 sections 5.1 to 5.4.

use suite::http2::code::*;
use suite::http2::setting::*;
use suite::http2::{Frame, Http2, hpack};

use super::{OpenRow, blocked, closed};

fn hello(stream: u32) -> Frame {
    Frame::headers(stream, hpack::request("GET", "/"), true)
}

/// A stream that the client has taken back.
fn cancelled(c: &mut Http2) -> u32 {
    let stream = c.post(&[]);
    c.send([Frame::rst_stream(stream, CANCEL)]);
    stream
}

pub const ROWS: &[OpenRow] = &[
    ("5.1 idle: DATA", |c| {
        c.send([Frame::data(1, *b"early", true)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("5.1 idle: CONTINUATION", |c| {
        c.send([Frame::continuation(1, hpack::request("GET", "/"), true)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("5.1 half closed (remote): DATA", |c| {
        let stream = blocked(c);
        c.send([Frame::data(stream, *b"late", true)]);
        c.stream_error(stream, &[STREAM_CLOSED]);
    }),
    ("5.1 half closed (remote): HEADERS", |c| {
        let stream = blocked(c);
        c.send([hello(stream)]);
        c.stream_error(stream, &[STREAM_CLOSED]);
    }),
    ("5.1 half closed (remote): CONTINUATION", |c| {
        let stream = blocked(c);
        c.send([Frame::continuation(stream, hpack::request("GET", "/"), true)]);
        // It continues no field block either (section 6.10).
        c.stream_error(stream, &[STREAM_CLOSED, PROTOCOL_ERROR]);
    }),
    ("5.1 half closed (remote): PRIORITY and RST_STREAM are welcome", |c| {
        let stream = blocked(c);
        c.send([Frame::priority(stream, 0), Frame::rst_stream(stream, CANCEL)]);
        c.still_serves();
    }),
    ("5.1 closed by RST_STREAM: DATA", |c| {
        let stream = cancelled(c);
        c.send([Frame::data(stream, *b"late", true)]);
        late(c, stream);
    }),
    ("5.1 closed by RST_STREAM: HEADERS", |c| {
        let stream = cancelled(c);
        c.send([hello(stream)]);
        late(c, stream);
    }),
    ("5.1 closed by RST_STREAM: CONTINUATION", |c| {
        let stream = cancelled(c);
        c.send([Frame::continuation(stream, hpack::request("GET", "/"), true)]);
        c.connection_error(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    }),
    ("5.1 closed: DATA", |c| {
        let stream = closed(c);
        c.send([Frame::data(stream, *b"late", true)]);
        late(c, stream);
        // Not to be passed over (section 6.1).
        assert!(c.streams[&stream].reset.is_some() || c.goaway.is_some(), "{}", c.seen());
    }),
    ("5.1 closed: HEADERS", |c| {
        let stream = closed(c);
        c.send([hello(stream)]);
        // Its identifier is not a new one either (section 5.1.1).
        c.connection_error(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    }),
    ("5.1 closed: CONTINUATION", |c| {
        let stream = closed(c);
        c.send([Frame::continuation(stream, hpack::request("GET", "/"), true)]);
        c.connection_error(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    }),
    ("5.1 closed: PRIORITY and RST_STREAM are no errors", |c| {
        let stream = closed(c);
        c.send([Frame::priority(stream, 0), Frame::rst_stream(stream, CANCEL)]);
        c.still_serves();
    }),
    ("5.1.1 an even identifier", |c| {
        c.send([hello(2)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("5.1.1 an identifier below one that was used", |c| {
        c.send([hello(5)]);
        c.is_greeted(5);
        c.send([hello(3)]);
        // Opening 5 has closed 3.
        c.connection_error(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    }),
    ("5.1.1 identifiers may leave gaps, up to the last one", |c| {
        for stream in [7, 1001, (1 << 31) - 1] {
            c.send([hello(stream)]);
            c.is_greeted(stream);
        }
        c.barrier();
    }),
    ("5.1.2 more streams than allowed", concurrency),
    ("5.1.2 a stream that is over makes room", |c| {
        let allowed = c.settings[&MAX_CONCURRENT_STREAMS];
        for _ in 0..2 * allowed {
            let stream = c.get("/");
            c.is_greeted(stream);
        }
    }),
    ("5.1.2 a cancelled stream makes room", |c| {
        let allowed = c.settings[&MAX_CONCURRENT_STREAMS];
        for _ in 0..allowed + 20 {
            let stream = cancelled(c);
            c.barrier();
            assert_eq!(c.streams[&stream].reset, None, "{}", c.seen());
        }
        c.still_serves();
    }),
    ("5.3 HEADERS that depend on their own stream", |c| {
        // An error in RFC 7540, deprecated and to be ignored in RFC 9113: either.
        let block = [&1_u32.to_be_bytes()[..], &[15], &hpack::request("GET", "/")].concat();
        c.send([Frame::headers(1, block, true).with_flags(0x25)]);
        own_parent(c, true);
    }),
    ("5.3 PRIORITY that depends on its own stream", |c| {
        let stream = blocked(c);
        assert_eq!(stream, 1);
        c.send([Frame::priority(1, 1)]);
        c.grant(stream, 100);
        own_parent(c, false);
    }),
    ("5.4.1 a connection error names the last stream and closes", |c| {
        let stream = closed(c);
        c.send([Frame::ping([0; 8]).with_flags(0), Frame::data(0, [], false)]);
        c.connection_error(&[PROTOCOL_ERROR]);
        assert_eq!(c.goaway.map(|goaway| goaway.last_stream), Some(stream));
    }),
    ("5.4.1 nothing is answered behind a connection error", |c| {
        c.send([Frame::data(0, [], false), Frame::ping(*b"too late"), hello(1)]);
        c.connection_error(&[PROTOCOL_ERROR]);
        assert!(c.pongs.is_empty() && c.streams[&1].head.is_none(), "{}", c.seen());
    }),
    ("5.4.2 RST_STREAM is not answered by RST_STREAM", |c| {
        let stream = blocked(c);
        c.send([Frame::rst_stream(stream, CANCEL)]);
        c.barrier();
        assert_eq!(c.streams[&stream].reset, None);
        c.still_serves();
    }),
    ("5.4.2 the server's RST_STREAM leaves the others alone", |c| {
        let other = blocked(c);
        let stream = c.get("/bytes/100");
        c.send([Frame::window_update(stream, 0)]);
        c.until("the error", |c| c.streams[&stream].reset.is_some() || c.goaway.is_some());
        if c.goaway.is_none() {
            c.grant(other, 100);
            assert_eq!(c.reply(other).body.len(), 100);
        }
    }),
];

/// "An endpoint MAY treat receipt of any other type of frame on a closed stream as a connection
/// error of type STREAM_CLOSED" (section 5.1); DATA there is a stream error (section 6.1). A server
/// that has just closed the stream may also discard what is on its way.
///
/// A second reply on the stream would be against the rules for senders, which are always checked.
#[track_caller]
fn late(c: &mut Http2, stream: u32) {
    c.send([Frame::ping(*b"verdict?")]);
    let done = |c: &Http2| c.pongs.contains(b"verdict?") || c.goaway.is_some() || c.ended;
    while !done(c) {
        c.read_frame();
    }
    let reset = c.streams[&stream].reset.is_none_or(|code| [STREAM_CLOSED, CANCEL].contains(&code));
    assert!(reset, "{}", c.seen());
    if c.goaway.is_some() || c.ended {
        c.connection_error(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    } else {
        c.still_serves();
    }
}

#[track_caller]
fn own_parent(c: &mut Http2, hello: bool) {
    c.until("reply or error", |c| {
        let state = &c.streams[&1];
        state.ended || state.reset.is_some() || c.goaway.is_some()
    });
    if c.streams[&1].ended {
        assert_eq!(c.streams[&1].body.len(), if hello { 13 } else { 100 });
        c.still_serves();
    } else {
        c.stream_error(1, &[PROTOCOL_ERROR]);
    }
}

/// One too many is refused; the others are finished.
fn concurrency(c: &mut Http2) {
    let allowed = c.settings[&MAX_CONCURRENT_STREAMS];
    c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
    let streams: Vec<u32> = (0..allowed).map(|_| c.get("/bytes/10")).collect();
    for &stream in &streams {
        assert_eq!(c.head(stream).status, 200);
    }
    let refused = c.get("/bytes/10");
    c.until("the refusal", |c| {
        c.streams[&refused].reset.is_some() || c.streams[&refused].head.is_some() || c.ended
    });
    let code = c.streams[&refused].reset.or(c.goaway.map(|goaway| goaway.code));
    assert!([Some(REFUSED_STREAM), Some(PROTOCOL_ERROR)].contains(&code), "{}", c.seen());
    if c.goaway.is_none() {
        c.set(&[(INITIAL_WINDOW_SIZE, 10)]);
        for stream in streams {
            assert_eq!(c.reply(stream).body.len(), 10);
        }
        c.still_serves();
    }
}
