//! Flow control: RFC 9113 section 6.9 and 5.2.

use suite::http2::code::*;
use suite::http2::kind::*;
use suite::http2::setting::*;
use suite::http2::{FRAME_SIZE, Frame, Http2, WINDOW_MAX, flag};
use suite::pattern;

use super::{OpenRow, blocked, closed};

/// Exactly `len` bytes of a body have come, and no more come although the server has had its turn.
#[track_caller]
fn stops_at(c: &mut Http2, stream: u32, len: usize) {
    c.until("what the window allows", |c| c.streams[&stream].body.len() >= len);
    c.barrier();
    assert_eq!(c.streams[&stream].body.len(), len, "{}", c.seen());
}

pub const ROWS: &[OpenRow] = &[
    ("6.9 WINDOW_UPDATE of 0 on the connection", |c| {
        c.send([Frame::window_update(0, 0)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.9 WINDOW_UPDATE of 0 on a stream", |c| {
        let stream = blocked(c);
        c.send([Frame::window_update(stream, 0)]);
        c.stream_error(stream, &[PROTOCOL_ERROR]);
    }),
    ("6.9 WINDOW_UPDATE of 3 bytes", |c| {
        c.send([Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 1])]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("6.9 WINDOW_UPDATE on an idle stream", |c| {
        c.send([Frame::window_update(1, 1)]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.9 WINDOW_UPDATE on a half-closed stream is welcome", |c| {
        let stream = blocked(c);
        c.grant(stream, 100);
        assert_eq!(c.reply(stream).body, pattern(0, 100));
    }),
    ("6.9 WINDOW_UPDATE on a closed stream is no error", |c| {
        let stream = closed(c);
        c.send([Frame::window_update(stream, 1)]);
        c.still_serves();
    }),
    ("6.9 the highest bit of the increment is ignored", |c| {
        let stream = blocked(c);
        c.refill = false;
        c.send([Frame::window_update(stream, 1 << 31 | 60)]);
        stops_at(c, stream, 60);
    }),
    ("6.9.1 the connection's window beyond 2^31-1", |c| {
        c.send([Frame::window_update(0, WINDOW_MAX), Frame::window_update(0, WINDOW_MAX)]);
        c.connection_error(&[FLOW_CONTROL_ERROR]);
    }),
    ("6.9.1 a stream's window beyond 2^31-1", |c| {
        let stream = blocked(c);
        let update = Frame::window_update(stream, WINDOW_MAX);
        // The connection's window holds the body back, so that the stream is still there.
        c.refill = false;
        c.send([update.clone(), update]);
        c.stream_error(stream, &[FLOW_CONTROL_ERROR]);
    }),
    ("6.9.1 the largest windows are accepted", |c| {
        c.set(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
        c.grant(0, WINDOW_MAX - 65_535);
        c.refill = false;
        let stream = c.get("/bytes/300000");
        assert_eq!(c.reply(stream).body.len(), 300_000);
    }),
    ("6.9.1 no more comes than the stream's window", |c| {
        c.set(&[(INITIAL_WINDOW_SIZE, 1_000)]);
        c.refill = false;
        let stream = c.get("/bytes/5000");
        stops_at(c, stream, 1_000);
        for sum in [1_001, 1_002, 1_003] {
            c.grant(stream, 1);
            stops_at(c, stream, sum);
        }
        c.grant(stream, 3_000);
        stops_at(c, stream, 4_003);
        c.grant(stream, 100_000);
        assert_eq!(c.reply(stream).body, pattern(0, 5_000));
    }),
    ("6.9.1 no more comes than the connection's window", |c| {
        c.set(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
        c.refill = false;
        let stream = c.get("/bytes/100000");
        stops_at(c, stream, 65_535);
        // The other stream has a window of its own and waits for the connection all the same.
        let other = c.get("/bytes/10");
        assert_eq!(c.head(other).status, 200);
        c.barrier();
        assert!(c.streams[&other].body.is_empty(), "{}", c.seen());
        c.grant(0, 1_000_000);
        assert_eq!(c.reply(stream).body, pattern(0, 100_000));
        assert_eq!(c.reply(other).body, pattern(0, 10));
    }),
    ("6.9.1 an empty DATA frame passes a window of 0", |c| {
        c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
        let stream = c.get("/bytes/0");
        assert_eq!(c.reply(stream).body, b"");
    }),
    ("6.9.1 more DATA than the server's window", overrun),
    ("6.9.1 padding is given back", |c| {
        let stream = c.post(&[]);
        // Four times what a window of the default holds.
        for byte in pattern(0, 1_000) {
            c.until("a window opens", |c| c.may_send(stream) >= 257);
            c.send_window -= 257;
            c.streams.entry(stream).or_default().send_window -= 257;
            let payload = [&[255, byte][..], &[0; 255]].concat();
            c.send([Frame::new(DATA, flag::PADDED, stream, payload)]);
        }
        c.send([Frame::data(stream, [], true)]);
        assert_eq!(c.reply(stream).body, pattern(0, 1_000));
    }),
    ("6.9.1 DATA of cancelled streams is given back to the connection", |c| {
        let whole = usize::try_from(c.send_window).unwrap_or(0);
        let mut sent = 0;
        while sent < 4 * whole {
            let stream = c.post(&[]);
            c.until("the connection's window opens", |c| c.may_send(stream) >= FRAME_SIZE);
            c.send_data(stream, &[0; FRAME_SIZE], false);
            c.send([Frame::rst_stream(stream, CANCEL)]);
            c.barrier();
            sent += FRAME_SIZE;
        }
    }),
    ("6.9.1 DATA that no route reads is given back to the connection", |c| {
        let whole = usize::try_from(c.send_window).unwrap_or(0);
        let mut sent = 0;
        while sent < 4 * whole {
            let block = suite::http2::hpack::request("POST", "/");
            let stream = c.open_stream(&block, false);
            c.until("the connection's window opens", |c| c.may_send(stream) >= FRAME_SIZE);
            c.send_data(stream, &[0; FRAME_SIZE], true);
            assert_eq!(c.head(stream).status, 405);
            sent += FRAME_SIZE;
        }
        c.still_serves();
    }),
    ("6.9.2 a new initial window is one for open streams too", |c| {
        let stream = blocked(c);
        c.refill = false;
        stops_at(c, stream, 0);
        c.set(&[(INITIAL_WINDOW_SIZE, 1)]);
        stops_at(c, stream, 1);
        c.set(&[(INITIAL_WINDOW_SIZE, 60)]);
        stops_at(c, stream, 60);
        c.set(&[(INITIAL_WINDOW_SIZE, 1_000)]);
        assert_eq!(c.reply(stream).body, pattern(0, 100));
    }),
    ("6.9.2 a window may become negative", |c| {
        c.set(&[(INITIAL_WINDOW_SIZE, 30)]);
        c.refill = false;
        let stream = c.get("/bytes/100");
        stops_at(c, stream, 30);
        // Now -20: 20 more change nothing, and the next one does.
        c.set(&[(INITIAL_WINDOW_SIZE, 10)]);
        c.grant(stream, 20);
        stops_at(c, stream, 30);
        c.grant(stream, 1);
        stops_at(c, stream, 31);
        c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
        c.grant(stream, 11);
        stops_at(c, stream, 32);
        c.grant(stream, 1_000);
        assert_eq!(c.reply(stream).body, pattern(0, 100));
    }),
    ("6.9.2 SETTINGS do not touch the connection's window", |c| {
        c.refill = false;
        let stream = c.get("/bytes/65535");
        assert_eq!(c.reply(stream).body.len(), 65_535);
        c.set(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
        let stream = c.get("/bytes/10");
        assert_eq!(c.head(stream).status, 200);
        stops_at(c, stream, 0);
        c.grant(0, 10);
        assert_eq!(c.reply(stream).body.len(), 10);
    }),
    ("6.9.2 an initial window that lifts a stream's beyond 2^31-1", |c| {
        // Without windows on the connection nothing is sent, so nothing is taken off the stream's.
        c.refill = false;
        let empty = c.get("/bytes/65535");
        assert_eq!(c.reply(empty).body.len(), 65_535);
        let stream = blocked(c);
        c.send([Frame::window_update(stream, WINDOW_MAX)]);
        c.send([Frame::settings(&[(INITIAL_WINDOW_SIZE, 1)])]);
        c.connection_error(&[FLOW_CONTROL_ERROR]);
    }),
];

/// The echo cannot leave, so the server cannot make room for ever.
fn overrun(c: &mut Http2) {
    /// More than a server holds for a stream whose client reads nothing, many times over.
    const LIMIT: usize = 16 << 20;
    c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
    let stream = c.post(&[]);
    let mut sent = 0;
    while c.goaway.is_none() && !c.ended && c.streams[&stream].reset.is_none() {
        assert!(sent < LIMIT, "{sent} bytes were taken from a client that reads nothing");
        let window = c.may_send(stream);
        let mut body = vec![0; window + 1];
        sent += body.len();
        while !body.is_empty() {
            let rest = body.split_off(body.len().min(FRAME_SIZE));
            if !c.send_if_open([Frame::data(stream, body, false)]) {
                break;
            }
            body = rest;
        }
        let taken = i64::try_from(window).unwrap_or(0) + 1;
        c.send_window -= taken;
        c.streams.entry(stream).or_default().send_window -= taken;
        // The answer, or the verdict.
        let pongs = c.pongs.len();
        c.send_if_open([Frame::ping(*b"well now")]);
        while c.pongs.len() == pongs && c.goaway.is_none() && !c.ended {
            c.read_frame();
        }
    }
    // A stream error is checked against new requests, which have nothing to wait for.
    c.stream_error(stream, &[FLOW_CONTROL_ERROR]);
}
