//! SETTINGS: RFC 9113 section 6.5.

use suite::http2::code::*;
use suite::http2::kind::*;
use suite::http2::setting::*;
use suite::http2::{FRAME_SIZE, Frame, flag};

use super::OpenRow;

pub const ROWS: &[OpenRow] = &[
    ("6.5 an acknowledgement with a payload", |c| {
        c.send([Frame::new(SETTINGS, flag::ACK, 0, [0; 6])]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("6.5 SETTINGS on a stream", |c| {
        c.send([Frame { stream: 1, ..Frame::settings(&[]) }]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.5 SETTINGS of 5 bytes", |c| {
        c.send([Frame::new(SETTINGS, 0, 0, [0; 5])]);
        c.connection_error(&[FRAME_SIZE_ERROR]);
    }),
    ("6.5.2 ENABLE_PUSH of 2", |c| {
        c.send([Frame::settings(&[(ENABLE_PUSH, 2)])]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.5.2 ENABLE_PUSH of 0 and 1", |c| {
        c.set(&[(ENABLE_PUSH, 0)]);
        c.set(&[(ENABLE_PUSH, 1)]);
        c.still_serves();
    }),
    ("6.5.2 INITIAL_WINDOW_SIZE above the largest window", |c| {
        c.send([Frame::settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)])]);
        c.connection_error(&[FLOW_CONTROL_ERROR]);
    }),
    ("6.5.2 MAX_FRAME_SIZE below 2^14", |c| {
        c.send([Frame::settings(&[(MAX_FRAME_SIZE, (1 << 14) - 1)])]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.5.2 MAX_FRAME_SIZE above 2^24-1", |c| {
        c.send([Frame::settings(&[(MAX_FRAME_SIZE, 1 << 24)])]);
        c.connection_error(&[PROTOCOL_ERROR]);
    }),
    ("6.5.2 MAX_FRAME_SIZE at its bounds", |c| {
        for size in [(1 << 24) - 1, 1 << 14] {
            c.set(&[(MAX_FRAME_SIZE, size)]);
            let stream = c.get("/bytes/300000");
            assert_eq!(c.reply(stream).body.len(), 300_000);
        }
        let longest = c.arrivals.iter().map(|&(_, len)| len).max();
        assert!(longest.is_some_and(|longest| longest > 0), "no DATA");
        // The second reply came after 16384 was acknowledged, and each frame is checked for it.
        assert!(c.arrivals.last().is_some_and(|&(_, len)| len <= FRAME_SIZE));
    }),
    ("6.5.2 a setting that nobody defined is ignored", |c| {
        c.set(&[(0xeeee, 1), (0x7, 0), (0x0, u32::MAX)]);
        c.still_serves();
    }),
    ("6.5.2 MAX_CONCURRENT_STREAMS of 0 does not concern requests", |c| {
        c.set(&[(MAX_CONCURRENT_STREAMS, 0)]);
        c.still_serves();
    }),
    ("6.5.2 the server allows 100 streams at least", |c| {
        let allowed = c.settings.get(&MAX_CONCURRENT_STREAMS).copied();
        // No value is no limit; this project has one for everything.
        assert!(allowed.is_some_and(|allowed| allowed >= 100), "{:?}", c.settings);
    }),
    ("6.5.2 the server says how long a list of fields may be", |c| {
        assert!(c.settings.contains_key(&MAX_HEADER_LIST_SIZE), "{:?}", c.settings);
    }),
    ("6.5.3 the last of two values counts", |c| {
        c.set(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]);
        c.refill = false;
        let stream = c.get("/bytes/50");
        c.until("the one byte", |c| c.streams[&stream].body.len() == 1);
        c.barrier();
        assert_eq!(c.streams[&stream].body.len(), 1);
    }),
    ("6.5.3 each SETTINGS is acknowledged, and once", |c| {
        let before = c.settings_acks;
        c.send((0..10).map(|_| Frame::settings(&[(ENABLE_PUSH, 0)])));
        c.until("ten acknowledgements", |c| c.settings_acks == before + 10);
        c.barrier();
        assert_eq!(c.settings_acks, before + 10);
    }),
    ("6.5.3 an acknowledgement is not acknowledged", |c| {
        let before = c.settings_acks;
        c.send([Frame::ping(*b"in order")]);
        c.barrier();
        assert_eq!(c.settings_acks, before);
    }),
    ("6.5.2 HEADER_TABLE_SIZE of 0: no dynamic table", |c| {
        c.set(&[(HEADER_TABLE_SIZE, 0)]);
        for _ in 0..3 {
            let stream = c.get("/bytes/10");
            assert_eq!(c.reply(stream).body.len(), 10);
        }
    }),
    ("6.5.2 HEADER_TABLE_SIZE that shrinks under way", |c| {
        for size in [4096, 100, 40, 0, 4096] {
            c.set(&[(HEADER_TABLE_SIZE, size)]);
            for path in ["/", "/nowhere", "/bytes/10", "/"] {
                let stream = c.get(path);
                c.reply(stream);
            }
        }
    }),
];
