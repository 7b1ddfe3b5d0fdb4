//! Literal frames of a server, split in any way.

use super::*;
use record::Protocol;

use crate::Error;
use crate::http2_requests::NUMBERS;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame_head(&mut out, payload.len(), kind, flags, stream);
    [out, payload.to_vec()].concat()
}

/// The first frames of a server, and its reply to the priming request.
fn opening(body: &[u8]) -> Vec<u8> {
    let settings = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 128]);
    let ack = frame(kind::SETTINGS, flag::ACK, 0, &[]);
    [settings, ack, reply(1, body)].concat()
}

/// `:status 200` from the static table, and content-length as a literal.
fn head(body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    [&[0x88, 0x0f, 0x0d, length.len() as u8], length.as_bytes()].concat()
}

fn reply(stream: u32, body: &[u8]) -> Vec<u8> {
    [
        frame(kind::HEADERS, flag::END_HEADERS, stream, &head(body)),
        frame(kind::DATA, flag::END_STREAM, stream, body),
    ]
    .concat()
}

fn plan(depth: u32) -> Plan {
    let mut plan = Plan::new("http://127.0.0.1:1/").unwrap_or_else(|error| panic!("{error}"));
    plan.target.protocol = Protocol::Http2;
    Plan { pipelining: depth, ..plan }
}

/// A codec that expects `hello`, and an open connection.
fn open(depth: u32) -> (Http2, Reader) {
    let mut codec = Http2::new(&plan(depth), Expected::Bytes(b"hello"[..].into()));
    let mut reader = codec.reader();
    assert!(!codec.is_open(&reader));
    let step = codec.incoming(0, &mut reader, 0..0, &opening(b"hello"));
    assert_eq!(step, Ok(Step::More));
    assert!(codec.is_open(&reader));
    let mut owed = Vec::new();
    codec.owed(&mut reader, &mut owed);
    assert_eq!(owed, frame(kind::SETTINGS, flag::ACK, 0, &[]));
    (codec, reader)
}

/// Feeds `bytes` in pieces; returns the numbers of the replies, in order.
fn feed(
    codec: &mut Http2,
    reader: &mut Reader,
    awaited: Range<u64>,
    bytes: &[u8],
    piece: usize,
) -> Result<Vec<u64>, Wrong> {
    let mut numbers = Vec::new();
    for mut piece in bytes.chunks(piece) {
        loop {
            match codec.incoming(0, reader, awaited.clone(), piece)? {
                Step::More => break,
                Step::Reply { number, consumed, .. } => {
                    numbers.push(number);
                    piece = &piece[consumed..];
                }
            }
        }
    }
    Ok(numbers)
}

/// The result of a new, open connection with requests 0 to 3 in flight.
fn judge(bytes: &[u8]) -> Result<Vec<u64>, Wrong> {
    let (mut codec, mut reader) = open(4);
    let whole = feed(&mut codec, &mut reader, 0..4, bytes, bytes.len());
    let (mut codec, mut reader) = open(4);
    let singly = feed(&mut codec, &mut reader, 0..4, bytes, 1);
    assert_eq!(whole, singly, "cut into single bytes");
    whole
}

#[test]
fn the_greeting_to_the_byte() {
    let mut codec = Http2::new(&plan(2), Expected::Any);
    let (mut out, mut reader) = (Vec::new(), codec.reader());
    codec.greet(0, &mut reader, &mut out);
    let block = [b"\x82\x86\x41\x0b127.0.0.1:1\x84".as_slice()].concat();
    let expected = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0]),
        frame(kind::WINDOW_UPDATE, 0, 0, &(16_777_216_u32 - 65_535).to_be_bytes()),
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block),
    ];
    assert_eq!(out, expected.concat());
    // Every field of a request is one octet now.
    let request = |stream| {
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, b"\x82\x86\xbe\x84")
    };
    let requests = [request(3 + 2 * 7), request(3 + 2 * 8)].concat();
    assert_eq!(codec.outgoing(0, 7, 9, 0), requests);
    assert_eq!(codec.outgoing(0, 7, 2, 5), &requests[5..]);
    assert_eq!(codec.request_bytes() * 2, requests.len());
}

#[test]
fn a_connection_for_one_request_greets_and_asks() {
    let plan = Plan { reconnect: true, ..plan(1) };
    let mut codec = Http2::new(&plan, Expected::Bytes(b"hello"[..].into()));
    let (mut out, mut reader) = (Vec::new(), codec.reader());
    codec.greet(0, &mut reader, &mut out);
    assert!(codec.is_open(&reader) && !out.windows(9).any(|part| part == b"127.0.0.1"));
    let request = codec.outgoing(0, 5, 1, 0).to_vec();
    assert!(request.ends_with(b"\x82\x86\x01\x0b127.0.0.1:1\x84"));
    let settings = frame(kind::SETTINGS, 0, 0, &[]);
    let answer = [settings, reply(13, b"hello")].concat();
    assert_eq!(feed(&mut codec, &mut reader, 5..6, &answer, 4), Ok(vec![5]));
}

#[test]
fn bodies_of_requests_lie_in_frames() {
    for payload_bytes in [1, 300, 16_384, 16_385, 40_000] {
        let target = crate::Target { path: "/echo".to_owned(), ..plan(1).target };
        let plan = Plan { target, method: Method::Post, payload_bytes, ..plan(3) };
        let mut codec = Http2::new(&plan, Expected::Echo);
        let mut mirror = crate::payload::Mirror::new(payload_bytes);
        let mut greeting = Vec::new();
        codec.requests.greet(9, &mut greeting);
        let length = codec.request_bytes();
        let requests = codec.outgoing(9, 4, 1, 0).to_vec();
        assert_eq!(requests.len(), length);
        for (bytes, number, stream) in [(&greeting[24..], PRIMING, 1), (&requests, 4, 11)] {
            let (mut rest, mut body, mut ended) = (bytes, Vec::new(), false);
            while let Some(head) = rest.first_chunk() {
                let frame = Frame::parse(head);
                let payload = &rest[FRAME_HEAD_BYTES..][..frame.len];
                rest = &rest[FRAME_HEAD_BYTES + frame.len..];
                if frame.kind == kind::DATA {
                    assert!((1..=FRAME_BYTES_MAX).contains(&frame.len) && !ended);
                    assert_eq!(frame.stream, stream);
                    ended = frame.has(flag::END_STREAM);
                    body.extend_from_slice(payload);
                }
            }
            assert!(ended && rest.is_empty());
            assert_eq!(body, mirror.payload(9, number), "{payload_bytes} bytes");
        }
    }
}

/// Two interleaved replies, with all frames that may come between.
fn transcript() -> Vec<u8> {
    let flags = flag::PADDED | flag::PRIORITY;
    let padded = [&[3, 0, 0, 0, 0, 9], &head(b"hello")[..2], &[0; 3]].concat();
    let trailer = b"\x00\x01t\x01v";
    [
        frame(kind::HEADERS, flag::END_HEADERS, 9, b"\x08\x03103"),
        frame(kind::HEADERS, flags, 9, &padded),
        frame(kind::CONTINUATION, 0, 9, &head(b"hello")[2..3]),
        frame(kind::CONTINUATION, flag::END_HEADERS, 9, &head(b"hello")[3..]),
        frame(0x42, 0xff, 77, b"who knows"),
        frame(kind::DATA, 0, 9, b"he"),
        frame(kind::HEADERS, flag::END_HEADERS, 5, &head(b"hello")),
        frame(kind::DATA, flag::PADDED, 5, b"\x04hell\0\0\0\0"),
        frame(kind::PRIORITY, 0, 5, &[0; 5]),
        frame(kind::DATA, 0, 9, b""),
        frame(kind::PING, 0, 0, b"12345678"),
        frame(kind::DATA, flag::PADDED, 9, b"\x00llo"),
        frame(kind::DATA, flag::PADDED | flag::END_STREAM, 5, b"\x00o"),
        frame(kind::DATA, flag::PADDED, 9, b"\x02\0\0"),
        frame(kind::RST_STREAM, 0, 5, &[0; 4]),
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 9, trailer),
        frame(kind::WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1]),
    ]
    .concat()
}

#[test]
fn interleaved_replies_cut_anywhere() {
    let bytes = transcript();
    assert_eq!(judge(&bytes), Ok(vec![1, 3]));
    for cut in 0..bytes.len() {
        let (mut codec, mut reader) = open(4);
        let mut numbers = Vec::new();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            let found = feed(&mut codec, &mut reader, 0..4, piece, bytes.len());
            numbers.extend(found.unwrap_or_else(|wrong| panic!("cut at {cut}: {wrong:?}")));
        }
        assert_eq!(numbers, [1, 3], "cut at {cut}");
        let mut owed = Vec::new();
        codec.owed(&mut reader, &mut owed);
        assert_eq!(owed, frame(kind::PING, flag::ACK, 0, b"12345678"), "cut at {cut}");
    }
}

#[test]
fn a_wrong_byte_of_a_body_is_caught() {
    let right = reply(3, b"hello");
    assert_eq!(judge(&right), Ok(vec![0]));
    for at in right.len() - 5..right.len() {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        assert!(judge(&wrong).is_err(), "byte {at} passed");
    }
}

/// Each has one error, which the message names.
#[test]
fn what_a_server_must_not_send() {
    let ends = flag::END_HEADERS | flag::END_STREAM;
    let headers = |block: &[u8]| frame(kind::HEADERS, flag::END_HEADERS, 3, block);
    let update = |stream, bytes: u32| frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    let setting = |name: u8, value: u32| {
        frame(kind::SETTINGS, 0, 0, &[&[0, name][..], &value.to_be_bytes()].concat())
    };
    let cut = |code: u32| [&[0, 0, 0, 9][..], &code.to_be_bytes(), b"too bad"].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("status 404, expected 200", headers(b"\x8d")),
        (
            "content-length is 4, the body has 5",
            [headers(b"\x88\x0f\x0d\x014"), frame(kind::DATA, flag::END_STREAM, 3, b"hello")]
                .concat(),
        ),
        ("the body has 4 bytes, expected 5", reply(3, b"hell")),
        ("more than the expected 5", reply(3, b"hello!")),
        ("the body has 0 bytes", frame(kind::HEADERS, ends, 3, b"\x88")),
        ("on stream 11", reply(11, b"hello")),
        ("on stream 1,", reply(1, b"hello")),
        ("on stream 4", reply(4, b"hello")),
        ("on stream 0", reply(0, b"hello")),
        ("without a head", frame(kind::DATA, 0, 3, b"hello")),
        ("without END_STREAM", [headers(&head(b"hello")), headers(b"\x00\x01t\x01v")].concat()),
        (":status", [headers(&head(b"hello")), frame(kind::HEADERS, ends, 3, b"\x88")].concat()),
        ("begin with :status", headers(b"\x0f\x0d\x015")),
        ("invalid :status", headers(b"\x08\x0320x")),
        ("not one number", headers(b"\x88\x0f\x0d\x02+5")),
        ("not one number", headers(b"\x88\x0f\x0d\x015\x0f\x0d\x015")),
        ("\"X\"", headers(b"\x88\x00\x01X\x01v")),
        ("\"connection\"", headers(b"\x88\x00\x0aconnection\x05close")),
        ("after status 103", frame(kind::HEADERS, ends, 3, b"\x08\x03103")),
        ("cannot be read", headers(b"\x80")),
        (
            "more padding",
            [headers(b"\x88"), frame(kind::DATA, flag::PADDED, 3, b"\x05abcd")].concat(),
        ),
        ("PADDED", [headers(b"\x88"), frame(kind::DATA, flag::PADDED, 3, b"")].concat()),
        ("malformed HEADERS", frame(kind::HEADERS, 0xd, 3, b"\x05\x88")),
        ("malformed HEADERS", frame(kind::HEADERS, 0x25, 3, b"\x88")),
        ("interrupted", [frame(kind::HEADERS, 0, 3, b"\x88"), reply(5, b"hello")].concat()),
        ("CONTINUATION without a header block", frame(kind::CONTINUATION, 4, 3, b"\x88")),
        ("CANCEL", [headers(b"\x88"), frame(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8])].concat()),
        ("NO_ERROR", [headers(b"\x88"), frame(kind::RST_STREAM, 0, 3, &[0; 4])].concat()),
        ("REFUSED_STREAM", frame(kind::RST_STREAM, 0, 5, &[0, 0, 0, 7])),
        ("malformed RST_STREAM", frame(kind::RST_STREAM, 0, 5, &[0, 0, 0])),
        ("ENHANCE_YOUR_CALM too bad", frame(kind::GOAWAY, 0, 0, &cut(11))),
        ("error 99", frame(kind::GOAWAY, 0, 0, &cut(99))),
        ("malformed GOAWAY", frame(kind::GOAWAY, 0, 0, &[0; 7])),
        ("pushes", frame(kind::PUSH_PROMISE, 4, 3, &[0, 0, 0, 2, 0x88])),
        ("malformed PING", frame(kind::PING, 0, 0, b"1234567")),
        ("malformed PING", frame(kind::PING, flag::ACK, 0, b"12345678")),
        ("malformed SETTINGS", frame(kind::SETTINGS, 0, 0, &[0; 5])),
        ("malformed SETTINGS", frame(kind::SETTINGS, 0, 3, &[])),
        ("not sent", frame(kind::SETTINGS, flag::ACK, 0, &[])),
        ("allows 3 streams at once, and 4", setting(3, 3)),
        ("1000 bytes of header table", setting(1, 1_000)),
        ("ENABLE_PUSH", setting(2, 1)),
        ("a window of", setting(4, 1 << 31)),
        ("a largest frame", setting(5, 16_383)),
        ("WINDOW_UPDATE of 0", update(0, 0)),
        ("2^31-1", update(0, (1 << 31) - 65_535)),
        ("a frame of 16385", frame(0x42, 0, 0, &[0; 16_385])),
    ];
    for (reason, bytes) in cases {
        let wrong = judge(&bytes);
        assert!(matches!(&wrong, Err(Wrong(text)) if text.contains(reason)), "{reason}: {wrong:?}");
    }
}

#[test]
fn a_server_that_does_not_begin_with_settings() {
    for bytes in [b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), reply(1, b"hello")] {
        let mut codec = Http2::new(&plan(1), Expected::Any);
        let mut reader = codec.reader();
        let wrong = codec.incoming(0, &mut reader, 0..0, &bytes);
        assert!(matches!(&wrong, Err(Wrong(text)) if text.contains("SETTINGS")), "{wrong:?}");
    }
}

#[test]
fn a_wrong_reply_to_the_priming_request() {
    let mut codec = Http2::new(&plan(1), Expected::Bytes(b"hello"[..].into()));
    let mut reader = codec.reader();
    assert!(codec.incoming(0, &mut reader, 0..0, &opening(b"hallo")).is_err());
}

/// The meaning of an index depends on the table: a block that was right is decoded again after a
/// change.
#[test]
fn a_known_block_is_read_again_when_the_table_has_changed() {
    let (mut codec, mut reader) = open(8);
    let end = |stream| frame(kind::DATA, flag::END_STREAM, stream, b"hello");
    let headers = |stream, block: &[u8]| frame(kind::HEADERS, flag::END_HEADERS, stream, block);
    // content-length: 5 becomes entry 62, and a later insertion moves it to 63.
    let first = [headers(3, b"\x88\x5c\x015"), end(3), headers(5, b"\x88\xbe"), end(5)].concat();
    assert_eq!(feed(&mut codec, &mut reader, 0..8, &first, 1_000), Ok(vec![0, 1]));
    let known = [headers(7, b"\x88\xbe"), end(7)].concat();
    assert_eq!(feed(&mut codec, &mut reader, 0..8, &known, 1_000), Ok(vec![2]));
    let (mut codec, mut reader) = open(8);
    let insert = headers(7, b"\x88\xbe\x40\x0econtent-length\x014");
    let lie = [first, insert].concat();
    assert!(feed(&mut codec, &mut reader, 0..8, &lie, 1_000).is_err());
    let (mut codec, mut reader) = open(8);
    let trailers = [
        headers(3, b"\x88\x5c\x015"),
        end(3),
        headers(5, b"\x88\xbe"),
        frame(kind::DATA, 0, 5, b"hello"),
        frame(kind::HEADERS, 5, 5, b"\x5c\x014"),
        headers(7, b"\x88\xbe"),
        end(7),
    ];
    let wrong = feed(&mut codec, &mut reader, 0..8, &trailers.concat(), 1_000);
    assert!(matches!(&wrong, Err(Wrong(text)) if text.contains("is 4, the body")), "{wrong:?}");
}

#[test]
fn windows_are_topped_up_when_half_of_them_is_used() {
    let len = u64::from(WINDOW_BYTES) + 1_000;
    let mut codec = Http2::new(&plan(2), Expected::Alphabet(len));
    let mut reader = codec.reader();
    reader.primed = true;
    reader.settings_came = true;
    let body = codec_alphabet(FRAME_BYTES_MAX);
    let piece = frame(kind::DATA, 0, 3, &body);
    let head = frame(kind::HEADERS, flag::END_HEADERS, 3, b"\x88");
    assert_eq!(feed(&mut codec, &mut reader, 0..2, &head, 1_000), Ok(Vec::new()));
    let half = WINDOW_BYTES as usize / 2 / FRAME_BYTES_MAX;
    let mut owed = Vec::new();
    for count in 1..=2 * half {
        assert_eq!(feed(&mut codec, &mut reader, 0..2, &piece, 1 << 20), Ok(Vec::new()));
        codec.owed(&mut reader, &mut owed);
        let mut expected = Vec::new();
        for _ in 0..count / half {
            window_update(&mut expected, 0, WINDOW_BYTES / 2);
            window_update(&mut expected, 3, WINDOW_BYTES / 2);
        }
        assert!(owed == expected, "after {count} frames: {} bytes owed", owed.len());
    }
    let rest = frame(kind::DATA, flag::END_STREAM, 3, &body[..1_000]);
    assert_eq!(feed(&mut codec, &mut reader, 0..2, &rest, 100), Ok(vec![0]));
}

fn codec_alphabet(len: usize) -> Vec<u8> {
    let alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";
    alphabet.iter().copied().cycle().take(len).collect()
}

#[test]
fn bodies_wait_for_the_servers_window() {
    let post = Plan { method: Method::Post, payload_bytes: 10_000, ..plan(100) };
    let mut codec = Http2::new(&post, Expected::Any);
    let mut reader = codec.reader();
    let step = codec.incoming(0, &mut reader, 20..20, &opening(b"hello"));
    assert_eq!(step, Ok(Step::More));
    // 65,535 bytes, of which the priming request took 10,000.
    assert_eq!((codec.credit(&reader, 20), codec.credit(&reader, 25)), (5, 0));
    let update = frame(kind::WINDOW_UPDATE, 0, 0, &30_000_u32.to_be_bytes());
    assert_eq!(codec.incoming(0, &mut reader, 20..25, &update), Ok(Step::More));
    assert_eq!(codec.credit(&reader, 25), 3);
    let get = open(4);
    assert_eq!(get.0.credit(&get.1, 1_000_000), u32::MAX);
}

#[test]
fn bodies_that_might_never_flow_are_refused() {
    let post = Plan { method: Method::Post, payload_bytes: 40_000, ..plan(1) };
    let open = |settings: &[u8], update: u32| {
        let mut codec = Http2::new(&post, Expected::Any);
        let mut reader = codec.reader();
        let bytes = [
            frame(kind::SETTINGS, 0, 0, settings),
            frame(kind::WINDOW_UPDATE, 0, 0, &update.to_be_bytes()),
            reply(1, b"hello"),
        ];
        codec.incoming(0, &mut reader, 0..0, &bytes.concat())
    };
    assert_eq!(open(&[], 14_465), Ok(Step::More));
    assert!(open(&[], 14_464).is_err());
    assert!(open(&[0, 4, 0, 0, 0x9c, 0x3f], 1 << 20).is_err());
    assert_eq!(open(&[0, 4, 0, 0, 0x9c, 0x40], 1 << 20), Ok(Step::More));
}

#[test]
fn a_server_that_says_goodbye() {
    let (mut codec, mut reader) = open(4);
    let goaway =
        |last: u32| frame(kind::GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 4], b"bye"].concat());
    let soon = goaway((1 << 31) - 1);
    assert_eq!(codec.incoming(0, &mut reader, 0..4, &soon), Ok(Step::More));
    assert_eq!(codec.refused_from(&reader), Some(NUMBERS));
    assert_eq!(codec.incoming(0, &mut reader, 0..4, &goaway(5)), Ok(Step::More));
    // Streams 3 and 5 are numbers 0 and 1.
    assert_eq!(codec.refused_from(&reader), Some(2));
    for (stream, number, last) in [(5, 1, false), (3, 0, true)] {
        let bytes = reply(stream, b"hello");
        let expected = Step::Reply { number, consumed: bytes.len(), last };
        assert_eq!(codec.incoming(0, &mut reader, 0..4, &bytes), Ok(expected));
    }
}

#[test]
fn replies_to_head_have_no_body() {
    let plan = Plan { method: Method::Head, ..plan(1) };
    let open = || {
        let mut codec = Http2::new(&plan, Expected::Any);
        let mut reader = codec.reader();
        let ends = flag::END_HEADERS | flag::END_STREAM;
        let settings = frame(kind::SETTINGS, 0, 0, &[]);
        let bytes = [settings, frame(kind::HEADERS, ends, 1, b"\x88\x0f\x0d\x015")].concat();
        assert_eq!(codec.incoming(0, &mut reader, 0..0, &bytes), Ok(Step::More));
        (codec, reader)
    };
    let (mut codec, mut reader) = open();
    let right = frame(kind::HEADERS, 5, 3, b"\x88\x0f\x0d\x015");
    assert_eq!(feed(&mut codec, &mut reader, 0..1, &right, 3), Ok(vec![0]));
    let (mut codec, mut reader) = open();
    assert!(feed(&mut codec, &mut reader, 0..1, &reply(3, b"hello"), 100).is_err());
}

#[test]
fn what_http2_cannot_say_is_refused_before_a_run() -> Result<(), Error> {
    let complaint = crate::http2_requests::complaint;
    let good = Plan { method: Method::Post, payload_bytes: 65_535, ..plan(1) };
    assert_eq!(complaint(&good), None);
    let header = |name: &str, value: String| Plan {
        headers: vec![(name.to_owned(), value)],
        ..good.clone()
    };
    for bad in [
        Plan { payload_bytes: 65_536, ..good.clone() },
        header("Upgrade", "x".to_owned()),
        header("TE", "trailers".to_owned()),
        header("x", "x".repeat(17_000)),
    ] {
        assert!(complaint(&bad).is_some() && bad.check().is_err(), "{bad:?} passed");
    }
    header("Accept", "*/*".to_owned()).check()
}
