//! Literal frames of a server, split in any way.

use super::*;

/// A server's frame.
fn server(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(len as u8),
        len @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    [out, payload.to_vec()].concat()
}

/// Parses the masked frames in `bytes`: first octets and payloads.
fn unmask(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[1] & MASKED, MASKED, "a client's frame is masked");
        let (len, at) = match bytes[1] & 0x7f {
            126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 => (u64::from_be_bytes(std::array::from_fn(|at| bytes[2 + at])) as usize, 10),
            len => (usize::from(len), 2),
        };
        let mask = &bytes[at..at + 4];
        let payload = &bytes[at + 4..at + 4 + len];
        let plain = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        frames.push((bytes[0], plain.collect()));
        bytes = &bytes[at + 4 + len..];
    }
    frames
}

fn plan(payload_bytes: usize) -> Plan {
    let plan = Plan::new("ws://127.0.0.1:1/ws/echo").unwrap_or_else(|error| panic!("{error}"));
    Plan { payload_bytes, pipelining: 8, ..plan }
}

/// The answer that opens a WebSocket.
fn answer(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, \
         Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A codec for messages of this length, and an open connection.
fn open(payload_bytes: usize) -> (WebSocket, Reader) {
    let mut codec = WebSocket::new(&plan(payload_bytes));
    let mut reader = codec.reader();
    codec.greet(3, &mut reader, &mut Vec::new());
    assert!(!codec.is_open(&reader));
    let bytes = answer(&reader.accept);
    assert_eq!(codec.incoming(3, &mut reader, 0..0, bytes.as_bytes()), Ok(Step::More));
    assert!(codec.is_open(&reader));
    (codec, reader)
}

/// Feeds `bytes` to connection 3 in pieces; returns how many of the messages from `awaited` on
/// came.
fn feed(
    codec: &mut WebSocket,
    reader: &mut Reader,
    mut awaited: Range<u64>,
    bytes: &[u8],
    piece: usize,
) -> Result<u64, Wrong> {
    let mut count = 0;
    for mut piece in bytes.chunks(piece) {
        while let Step::Reply { number, consumed, .. } =
            codec.incoming(3, reader, awaited.clone(), piece)?
        {
            assert_eq!(number, awaited.start);
            awaited.start += 1;
            count += 1;
            piece = &piece[consumed..];
        }
    }
    Ok(count)
}

/// Message `number` of connection 3.
fn payload(payload_bytes: usize, number: u64) -> Vec<u8> {
    Mirror::new(payload_bytes).payload(3, number).to_vec()
}

#[test]
fn the_upgrade_as_in_the_rfc() {
    // RFC 6455, section 1.3.
    assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let plan = Plan { headers: vec![("Origin".into(), "http://a".into())], ..plan(1) };
    let mut codec = WebSocket::new(&plan);
    let mut greet = || {
        let (mut reader, mut out) = (codec.reader(), Vec::new());
        codec.greet(0, &mut reader, &mut out);
        (String::from_utf8_lossy(&out).into_owned(), reader.accept)
    };
    let (text, accept) = greet();
    let expected = "GET /ws/echo HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nOrigin: http://a\r\n\
                    Sec-WebSocket-Key: ";
    let key = text.strip_prefix(expected).and_then(|rest| rest.strip_suffix("\r\n\r\n"));
    let key = key.unwrap_or_else(|| panic!("{text}"));
    assert_eq!(BASE64_STANDARD.decode(key).map(|key| key.len()), Ok(16));
    assert_eq!(accept_of(key), accept);
    assert_ne!(greet().0, text, "each connection has a key of its own");
}

#[test]
fn answers_that_open_nothing() {
    let (codec, mut reader) = (WebSocket::new(&plan(1)), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let right = answer(reader);
    assert_eq!(read_answer(right.as_bytes(), reader), Ok(Some(right.len())));
    for cut in 0..right.len() {
        assert_eq!(read_answer(&right.as_bytes()[..cut], reader), Ok(None), "cut at {cut}");
    }
    // Interim responses may come before it, and it may have many fields.
    let long = right.replace("\r\n\r\n", &format!("\r\n{}\r\n", "A: b\r\n".repeat(300)));
    let late =
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n{long}");
    assert_eq!(read_answer(late.as_bytes(), reader), Ok(Some(late.len())));
    for cut in 0..late.len() {
        assert_eq!(read_answer(&late.as_bytes()[..cut], reader), Ok(None), "cut at {cut}");
    }
    let accept = "\r\nSec-WebSocket-Accept: ";
    for (wrong, why) in [
        (right.replace("101", "200"), "status 200"),
        (right.replace("101 Switching Protocols", "403 Forbidden"), "status 403"),
        (right.replace("s3pP", "s3pp"), "Accept"),
        (right.replace(accept, "\r\nAccept: "), "Accept"),
        (right.replace(accept, &format!("{accept}x{accept}")), "Accept"),
        (right.replace("WebSocket\r", "h2c\r"), "Upgrade"),
        (right.replace(", Upgrade", ""), "Upgrade"),
        (right.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n"), "extension"),
        (right.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n"), "protocol"),
        ("SSH-2.0\r\n\r\n".to_owned(), "not HTTP"),
    ] {
        let found = read_answer(wrong.as_bytes(), reader);
        assert!(matches!(&found, Err(Wrong(text)) if text.contains(why)), "{wrong}: {found:?}");
    }
    let mut endless = codec.reader();
    reader = "";
    let head = [b"HTTP/1.1 101 X\r\nA: ", "x".repeat(HEAD_BYTES_MAX).as_bytes()].concat();
    let found = feed(&mut WebSocket::new(&plan(1)), &mut endless, 0..0, &head, 1_000);
    assert!(reader.is_empty() && found.is_err());
}

#[test]
fn what_is_sent_is_masked_and_what_is_expected_back() {
    for len in [1, 3, 7, 8, 64, 125, 126, 256, 257, 65_535, 65_536, 70_001] {
        let mut codec = WebSocket::new(&plan(len));
        for (number, messages) in [(0, 8), (8, 3), (8, 1), (1, 1)] {
            let bytes = codec.outgoing(3, number, messages, 0).to_vec();
            assert_eq!(bytes.len() % codec.request_bytes(), 0);
            let frames = unmask(&bytes);
            assert!((1..=messages as usize).contains(&frames.len()));
            for (frame, number) in frames.into_iter().zip(number..) {
                assert_eq!(frame, (0x82, payload(len, number)), "{len} bytes");
            }
            assert_eq!(codec.outgoing(3, number, messages, 5), &bytes[5..]);
        }
    }
    let mut codec = WebSocket::new(&plan(64));
    let bytes = codec.outgoing(3, 0, 2, 0);
    assert_ne!(bytes[2..6], bytes[72..76], "two places have two masking keys");
}

/// All frames that may come between two messages.
fn transcript(len: usize) -> Vec<u8> {
    let (zero, one, two) = (payload(len, 0), payload(len, 1), payload(len, 2));
    [
        server(0x8a, b"unasked"),
        server(0x82, &zero),
        server(0x89, b"between"),
        server(0x02, &one[..len / 3]),
        server(0x89, b""),
        server(0x00, b""),
        server(0x00, &one[len / 3..len / 2]),
        server(0x8a, b""),
        server(0x80, &one[len / 2..]),
        server(0x02, b""),
        server(0x00, &two),
        server(0x80, b""),
        server(0x82, &payload(len, 3)),
        server(0x88, b"\x03\xe8bye"),
    ]
    .concat()
}

#[test]
fn messages_cut_anywhere() {
    for len in [1, 20, 300] {
        let bytes = transcript(len);
        for cut in 0..bytes.len() {
            let (mut codec, mut reader) = open(len);
            let first = feed(&mut codec, &mut reader, 0..4, &bytes[..cut], bytes.len());
            let first = first.unwrap_or_else(|wrong| panic!("cut at {cut}: {wrong:?}"));
            let rest = feed(&mut codec, &mut reader, first..4, &bytes[cut..], bytes.len());
            assert_eq!(rest.map(|rest| rest + first), Ok(4), "cut at {cut}");
            let mut owed = Vec::new();
            codec.owed(&mut reader, &mut owed);
            let expected =
                [(0x8a, b"between".to_vec()), (0x8a, Vec::new()), (0x88, vec![0x03, 0xe8])];
            assert_eq!(unmask(&owed), expected, "cut at {cut}");
            assert_eq!(codec.refused_from(&reader), Some(0));
        }
    }
}

#[test]
fn long_messages_byte_by_byte_and_at_once() {
    for len in [125, 126, 65_535, 65_536, 100_000] {
        let bytes = server(0x82, &payload(len, 0));
        for piece in [1, 1_000, bytes.len()] {
            let (mut codec, mut reader) = open(len);
            assert_eq!(feed(&mut codec, &mut reader, 0..1, &bytes, piece), Ok(1));
        }
    }
}

#[test]
fn frames_right_behind_the_answer_to_the_upgrade() {
    let mut codec = WebSocket::new(&plan(5));
    let mut greeting = Vec::new();
    let fresh = codec.reader();
    let mut greeted = fresh;
    codec.greet(3, &mut greeted, &mut greeting);
    let bytes = [answer(&greeted.accept).into_bytes(), server(0x89, b"already")].concat();
    for piece in [1, bytes.len()] {
        let mut reader = codec.reader();
        reader.accept.clone_from(&greeted.accept);
        assert_eq!(feed(&mut codec, &mut reader, 0..0, &bytes, piece), Ok(0));
        let mut owed = Vec::new();
        codec.owed(&mut reader, &mut owed);
        assert_eq!(unmask(&owed), [(0x8a, b"already".to_vec())]);
    }
}

#[test]
fn a_wrong_byte_is_caught_wherever_it_is() {
    let right = server(0x82, &payload(300, 0));
    for at in 4..right.len() {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        let (mut codec, mut reader) = open(300);
        let found = feed(&mut codec, &mut reader, 0..1, &wrong, 64);
        let expected = format!("byte {} of", at - 4);
        assert!(matches!(&found, Err(Wrong(text)) if text.contains(&expected)), "{found:?}");
    }
    let (mut codec, mut reader) = open(300);
    assert!(feed(&mut codec, &mut reader, 1..2, &right, 64).is_err(), "an earlier message passed");
}

#[test]
fn what_a_server_must_not_send() {
    let zero = payload(8, 0);
    let masked = [&[0x82, 0x88, 0, 0, 0, 0], zero.as_slice()].concat();
    let cases = [
        ("masked", masked),
        ("reserved bits", server(0xc2, &zero)),
        ("reserved bits", server(0xa2, &zero)),
        ("unknown kind 3", server(0x83, &zero)),
        ("unknown kind 11", server(0x8b, &[])),
        ("a text", server(0x81, &zero)),
        ("a continuation frame without", server(0x80, &zero)),
        ("inside another", [server(0x02, &zero[..4]), server(0x82, &zero)].concat()),
        ("inside another", [server(0x02, &zero[..4]), server(0x81, &zero)].concat()),
        ("has 7 bytes, expected 8", server(0x82, &zero[..7])),
        ("has 0 bytes, expected 8", server(0x82, &[])),
        ("more than the expected 8", server(0x82, &[0; 9])),
        ("more than", [server(0x02, &zero), server(0x80, &[0])].concat()),
        ("too long or fragmented", server(0x09, b"x")),
        ("too long or fragmented", server(0x89, &[0; 126])),
        ("a length of 8 in a head of 4", [&[0x82, 126, 0, 8], zero.as_slice()].concat()),
        ("a length of 8 in a head of 10", vec![0x82, 127, 0, 0, 0, 0, 0, 0, 0, 8]),
        ("in a head of 10", vec![0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("Close 1002 bad", server(0x88, b"\x03\xeabad")),
        ("Close 1013", server(0x88, b"\x03\xf5")),
        ("half a code", server(0x88, b"\x03")),
        ("is not text", server(0x88, b"\x03\xe8\xff")),
        ("after Close", [server(0x88, b""), server(0x89, b"")].concat()),
    ];
    for (reason, bytes) in cases {
        for piece in [1, bytes.len()] {
            let (mut codec, mut reader) = open(8);
            let wrong = feed(&mut codec, &mut reader, 0..2, &bytes, piece);
            let named = matches!(&wrong, Err(Wrong(text)) if text.contains(reason));
            assert!(named, "{reason}: {wrong:?}");
        }
    }
    let (mut codec, mut reader) = open(8);
    assert!(feed(&mut codec, &mut reader, 0..0, &server(0x82, &zero), 100).is_err());
}

#[test]
fn a_farewell_is_said_once_and_answered() {
    let (mut codec, mut reader) = open(8);
    let mut out = Vec::new();
    codec.farewell(&mut reader, &mut out);
    codec.farewell(&mut reader, &mut out);
    assert_eq!(unmask(&out), [(0x88, vec![0x03, 0xe8])]);
    assert_eq!(feed(&mut codec, &mut reader, 0..0, &server(0x88, b"\x03\xe8"), 1), Ok(0));
    out.clear();
    codec.owed(&mut reader, &mut out);
    assert!(out.is_empty(), "Close is not answered twice");
}

#[test]
fn in_a_fan_out_all_hear_what_the_first_says() {
    let room = Plan { fan_out: true, ..plan(64) };
    let mut codec = WebSocket::new(&room);
    let said = unmask(codec.outgoing(0, 5, 1, 0)).remove(0).1;
    for listener in [1, 2, 99] {
        let mut reader = codec.reader();
        reader.state = State::Open;
        let bytes = server(0x82, &said);
        let expected = Step::Reply { number: 5, consumed: bytes.len(), last: false };
        assert_eq!(codec.incoming(listener, &mut reader, 5..6, &bytes), Ok(expected));
        assert!(codec.incoming(listener, &mut reader, 6..7, &bytes).is_err());
    }
}
