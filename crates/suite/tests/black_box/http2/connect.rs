//! Extended CONNECT: a WebSocket in a stream (RFC 8441).

use suite::http2::setting::ENABLE_CONNECT_PROTOCOL;
use suite::http2::{Http2, hpack};

use super::OpenRow;

/// Asks for a protocol on a path.
#[track_caller]
fn connect(c: &mut Http2, protocol: &str, path: &str) -> u32 {
    let block = hpack::literals(&[
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":path", path),
        (":authority", "suite"),
        ("sec-websocket-version", "13"),
    ]);
    c.open_stream(&block, false)
}

/// The reply to a CONNECT that leads nowhere: a status that says so, or a stream error.
#[track_caller]
fn refused(c: &mut Http2, stream: u32) {
    c.until("a refusal", |c| {
        let state = &c.streams[&stream];
        state.head.is_some() || state.reset.is_some() || c.goaway.is_some()
    });
    let status = c.streams[&stream].head.as_ref().map(|head| head.status);
    assert!(status.is_none_or(|status| (400..600).contains(&status)), "{}", c.seen());
    if c.goaway.is_none() {
        c.still_serves();
    }
}

/// A masked frame of at most 125 bytes (RFC 6455 section 5.2).
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let len = u8::try_from(payload.len()).expect("a short frame");
    let hidden = payload.iter().enumerate().map(|(at, byte)| byte ^ KEY[at % 4]);
    [0x80 | opcode, 0x80 | len].into_iter().chain(KEY).chain(hidden).collect()
}

pub const ROWS: &[OpenRow] = &[
    ("8441 3 the server announces extended CONNECT", |c| {
        assert_eq!(c.settings.get(&ENABLE_CONNECT_PROTOCOL), Some(&1));
        let stream = connect(c, "websocket", "/ws/echo");
        assert_eq!(c.head(stream).status, 200);
    }),
    ("8441 5 a WebSocket echoes in its stream", |c| {
        let stream = connect(c, "websocket", "/ws/echo");
        let head = c.head(stream);
        assert_eq!((head.status, head.field("sec-websocket-accept")), (200, None));
        let text = masked(1, b"hello");
        let (first, rest) = text.split_at(3);
        c.send_data(stream, first, false);
        c.barrier();
        c.send_data(stream, rest, false);
        c.until("the echo", |c| c.streams[&stream].body.len() >= 7);
        assert_eq!(c.streams[&stream].body, b"\x81\x05hello");
        // Others go on beside it.
        c.still_serves();
        c.send_data(stream, &masked(8, &1000_u16.to_be_bytes()), false);
        c.until("the answer to Close", |c| c.streams[&stream].body.len() >= 11);
        assert_eq!(c.streams[&stream].body[7..], *b"\x88\x02\x03\xe8");
    }),
    ("8441 5 another protocol is refused", |c| {
        let stream = connect(c, "carrier-pigeon", "/ws/echo");
        refused(c, stream);
    }),
    ("8441 5 a WebSocket where there is none is refused", |c| {
        let stream = connect(c, "websocket", "/nowhere");
        refused(c, stream);
    }),
];
