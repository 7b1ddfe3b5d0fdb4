//! Responses split at every byte; bodies with an error at every byte in turn.

use super::*;
use crate::Plan;
use crate::expected::ALPHABET;

/// One parsed response.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Read {
    status: u16,
    body: Vec<u8>,
    close: bool,
}

/// Parses `pieces` in order, then the end of the stream.
fn read_all(pieces: &[&[u8]], to_head: bool) -> Result<Vec<Read>, Wrong> {
    let (mut reader, mut last) = (ResponseReader::new(), LastHead::default());
    let (mut all, mut current) = (Vec::new(), None::<Read>);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, event) = reader.read(rest, to_head, &mut last)?;
            rest = &rest[used..];
            match (event, &mut current) {
                (Event::More, _) => break,
                (Event::Head(head), _) => {
                    current =
                        Some(Read { status: head.status, body: Vec::new(), close: head.close });
                }
                (Event::Body(bytes), Some(current)) => current.body.extend_from_slice(bytes),
                (Event::End, current) => all.extend(current.take()),
                (event, None) => panic!("{event:?} before a head"),
            }
        }
    }
    if reader.end() {
        all.extend(current.take());
    }
    assert!(current.is_none() && reader.is_at_start(), "incomplete: {current:?}");
    Ok(all)
}

const TRANSCRIPTS: [(&str, &str, u16); 14] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", 200),
    ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nno", "no", 404),
    ("HTTP/1.1 204 No Content\r\n\r\n", "", 204),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", "", 304),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\
         0006;x=y\r\n world\r\n0\r\nT: v\r\n\r\n",
        "hello world",
        200,
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n0\r\n\r\n", "", 200),
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n\
         HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
        "ok",
        200,
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x, Close\r\n\r\n!", "!", 200),
    // A folded field, and a folded length.
    ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length:\r\n\t5\r\n\r\nhello", "hello", 200),
    ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "hello", 200),
    ("HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", "", 200),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: , chunked,\r\n\r\n\
         1\r\n!\r\n0\r\nT: v\r\nU: w\r\n\r\n",
        "!",
        200,
    ),
    // No reason, and not the space before it.
    ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", 200),
];

#[test]
fn the_same_in_two_pieces_cut_anywhere_and_byte_by_byte() {
    for (text, body, status) in TRANSCRIPTS {
        let bytes = text.as_bytes();
        let close = text.contains("Close");
        let expected = Ok(vec![Read { status, body: body.as_bytes().to_vec(), close }]);
        for cut in 0..=bytes.len() {
            let (one, two) = bytes.split_at(cut);
            assert_eq!(read_all(&[one, two], false), expected, "{text:?} cut at {cut}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(read_all(&single, false), expected, "{text:?} byte by byte");
    }
}

#[test]
fn pipelined_responses_cut_anywhere() {
    let text: String = TRANSCRIPTS.iter().map(|(text, _, _)| *text).collect();
    let bytes = text.as_bytes();
    for cut in 0..=bytes.len() {
        let (one, two) = bytes.split_at(cut);
        let all =
            read_all(&[one, two], false).unwrap_or_else(|wrong| panic!("cut {cut}: {wrong:?}"));
        let found: Vec<_> = all.iter().map(|read| (read.status, read.body.clone())).collect();
        let expected: Vec<_> = TRANSCRIPTS
            .iter()
            .map(|(_, body, status)| (*status, body.as_bytes().to_vec()))
            .collect();
        assert_eq!(found, expected, "cut at {cut}");
    }
}

#[test]
fn a_body_without_length_lasts_until_the_end() {
    let read = read_all(&[b"HTTP/1.0 200 OK\r\n\r\nabc", b"def"], false);
    assert_eq!(read, Ok(vec![Read { status: 200, body: b"abcdef".to_vec(), close: true }]));
}

#[test]
fn a_coding_that_is_not_chunked_in_the_end_lasts_until_the_end() {
    for coding in ["chunked, deflate", "gzip", "chunked\r\nTransfer-Encoding: gzip"] {
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n");
        let read = read_all(&[head.as_bytes(), b"Wor", b"ld"], false);
        let expected = Read { status: 200, body: b"World".to_vec(), close: false };
        assert_eq!(read, Ok(vec![expected]), "{coding}");
    }
}

#[test]
fn an_old_version_closes_unless_it_says_otherwise_and_has_no_codings() {
    for (fields, close) in [
        ("Content-Length: 0", true),
        ("Content-Length: 0\r\nConnection: Keep-Alive", false),
        ("Transfer-Encoding: chunked\r\nConnection: keep-alive", true),
    ] {
        let text = format!("HTTP/1.0 200 OK\r\n{fields}\r\n\r\n0\r\n\r\n");
        let parsed = parse_head(text.as_bytes());
        assert!(matches!(parsed, Ok(Some((head, _))) if head.close == close), "{fields}");
    }
}

#[test]
fn a_head_may_have_as_many_fields_as_it_has_room_for() {
    for count in [63, 64, 65, 1_000, 10_000] {
        let fields = "a:\r\n".repeat(count);
        let text = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
        let read = read_all(&[text.as_bytes()], false);
        let expected = Read { status: 200, body: b"ok".to_vec(), close: false };
        assert_eq!(read, Ok(vec![expected]), "{count} fields");
    }
}

#[test]
fn only_408_may_come_unasked_and_ends_the_connection() {
    let end = "HTTP/1.0 408 Request Time-out\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye";
    for piece in [1, 7, end.len()] {
        let mut codec = codec(Expected::Any);
        let mut reader = codec.reader();
        for piece in end.as_bytes().chunks(piece) {
            assert_eq!(codec.incoming(0, &mut reader, 7..7, piece), Ok(Step::More));
        }
        assert_eq!(codec.refused_from(&reader), Some(0), "in pieces of {piece}");
    }
    for wrong in ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "x\r\n\r\n"] {
        let mut codec = codec(Expected::Any);
        let mut reader = codec.reader();
        assert!(codec.incoming(0, &mut reader, 7..7, wrong.as_bytes()).is_err(), "{wrong}");
    }
    // For the first request of a connection it is an ordinary reply, and a wrong one.
    assert!(judge(&mut codec(Expected::Any), end.as_bytes(), end.len()).is_err());
}

#[test]
fn a_408_that_closes_an_answered_connection_crossed_the_request() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let second = |text: &str, piece: usize| {
        let mut codec = codec(Expected::Any);
        let mut reader = codec.reader();
        let first = codec.incoming(0, &mut reader, 0..2, ok.as_bytes())?;
        assert!(matches!(first, Step::Reply { number: 0, last: false, .. }), "{first:?}");
        for piece in text.as_bytes().chunks(piece) {
            assert_eq!(codec.incoming(0, &mut reader, 1..2, piece)?, Step::More);
            if codec.refused_from(&reader).is_some() {
                return Ok(true);
            }
        }
        Ok::<_, Wrong>(false)
    };
    let end = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye";
    for piece in [1, 7, end.len()] {
        assert_eq!(second(end, piece), Ok(true), "in pieces of {piece}");
    }
    for wrong in [end.replace("408", "503"), end.replace("close", "keep-alive")] {
        assert!(second(&wrong, wrong.len()).is_err(), "{wrong}");
    }
}

#[test]
fn the_reply_to_head_has_no_body() {
    let read = read_all(&[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"], true);
    assert_eq!(read, Ok(vec![Read { status: 200, body: Vec::new(), close: false }]));
}

#[test]
fn broken_messages_are_refused() {
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\n x: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        assert!(read_all(&[text.as_bytes()], false).is_err(), "{text:?} was accepted");
    }
    let endless = [b'x'; HEAD_BYTES_MAX + 1];
    let head = [b"HTTP/1.1 200 OK\r\nA: ", endless.as_slice()].concat();
    assert!(read_all(&[&head], false).is_err());
}

/// A codec for GET, and the state of its connection.
fn codec(expected: Expected) -> Http {
    let plan = Plan::new("http://127.0.0.1:1/").unwrap_or_else(|error| panic!("{error}"));
    Http::new(&plan, expected)
}

/// The codec's result for `reply` in pieces of `piece` bytes: whether it was complete.
fn judge(codec: &mut Http, reply: &[u8], piece: usize) -> Result<bool, Wrong> {
    let mut reader = codec.reader();
    for piece in reply.chunks(piece) {
        match codec.incoming(0, &mut reader, 0..1, piece)? {
            Step::More => {}
            Step::Reply { .. } => return Ok(true),
        }
    }
    Ok(false)
}

#[test]
fn a_wrong_byte_is_caught_at_every_position() {
    let body: Vec<u8> = ALPHABET.iter().copied().cycle().take(200).collect();
    let crc = crc32fast::hash(&body);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n".as_slice();
    let right = [head, &body].concat();
    let kinds = [
        Expected::Alphabet(200),
        Expected::Bytes(body.into()),
        Expected::Checksum { len: 200, crc },
    ];
    for expected in kinds {
        let mut codec = codec(expected.clone());
        for piece in [1, 7, right.len()] {
            assert_eq!(judge(&mut codec, &right, piece), Ok(true));
            for at in head.len()..right.len() {
                let mut wrong = right.clone();
                wrong[at] ^= 1;
                assert!(judge(&mut codec, &wrong, piece).is_err(), "{expected:?}, byte {at}");
            }
        }
    }
}

#[test]
fn wrong_lengths_and_statuses_are_caught() {
    let mut bytes = codec(Expected::Bytes(b"hello"[..].into()));
    let reply = |status: u16, body: &str| {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    assert_eq!(judge(&mut bytes, reply(200, "hello").as_bytes(), 100), Ok(true));
    for wrong in [reply(200, "hell"), reply(200, "hello!"), reply(200, ""), reply(500, "hello")] {
        assert!(judge(&mut bytes, wrong.as_bytes(), 100).is_err(), "{wrong:?} passed");
    }
    let mut any = codec(Expected::Any);
    assert_eq!(judge(&mut any, reply(200, "whatever").as_bytes(), 3), Ok(true));
    assert!(judge(&mut any, reply(404, "whatever").as_bytes(), 3).is_err());
}

#[test]
fn a_head_that_changes_is_read_again() {
    let mut codec = codec(Expected::Bytes(b"hello"[..].into()));
    let reply = |extra: &str| {
        format!("HTTP/1.1 200 OK\r\n{extra}Content-Length: 5\r\n\r\nhello").into_bytes()
    };
    for extra in ["", "", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "X: y\r\n", ""] {
        assert_eq!(judge(&mut codec, &reply(extra), 1_000), Ok(true));
    }
    let lie = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello";
    assert!(judge(&mut codec, lie, 1_000).is_err());
}
