//! Requests over HTTP/2 on a new connection (RFC 9113), with the part of HPACK (RFC 7541) that they
//! need: literals in the request, the status of the reply.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use witness::hpack::named;
use witness::http2::{Frame, PREFACE, WINDOW_MAX, flag, kind, setting};

/// The window of a connection before it is raised.
const WINDOW_BYTES_INITIAL: u32 = 65_535;
/// Limit of the body of a reply: far above any workload's.
const BODY_BYTES_MAX: usize = 64 << 20;

const STREAM: u32 = 1;

/// Requests `path` and returns status and body. Afterwards the connection is idle: both sides have
/// acknowledged the settings, and nothing is in flight.
///
/// # Errors
/// One sentence: what was received instead.
pub fn ask(
    stream: &mut (impl Read + Write),
    scheme: &str,
    authority: &str,
    path: &str,
) -> Result<(u16, Vec<u8>), String> {
    send(stream, &request(scheme, authority, path))?;
    let (mut status, mut body) = (None, Vec::new());
    let (mut ended, mut acknowledged) = (false, false);
    while !(ended && acknowledged) {
        let frame = Frame::read(stream)?;
        if let Some(answer) = frame.answer()? {
            send(stream, &answer)?;
        }
        acknowledged |= frame.kind == kind::SETTINGS && frame.has(flag::ACK);
        if frame.stream == STREAM {
            status = match status {
                None => frame.status()?,
                known => known,
            };
            if frame.kind == kind::DATA {
                body.extend_from_slice(frame.content()?);
            }
            ended |= frame.ends_stream();
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(format!("a body of more than {BODY_BYTES_MAX} bytes"));
        }
    }
    Ok((status.ok_or("a reply without a status")?, body))
}

/// Requests all of these paths at once, a stream each, and returns how long each took. Each must
/// be answered with 200.
///
/// # Errors
/// One sentence: what was received instead.
pub fn ask_all(
    stream: &mut (impl Read + Write),
    authority: &str,
    paths: &[&str],
) -> Result<Vec<Duration>, String> {
    let begun = Instant::now();
    let mut sent = opening();
    for (at, path) in paths.iter().enumerate() {
        sent.extend(head(STREAM + 2 * at as u32, "http", authority, path));
    }
    send(stream, &sent)?;
    let mut took = vec![None; paths.len()];
    while took.iter().any(Option::is_none) {
        let frame = Frame::read(stream)?;
        if let Some(answer) = frame.answer()? {
            send(stream, &answer)?;
        }
        if frame.status()?.is_some_and(|status| status != 200) {
            return Err(format!("stream {} was not answered with 200", frame.stream));
        }
        if frame.ends_stream() {
            let at = (frame.stream.wrapping_sub(STREAM) / 2) as usize;
            *took.get_mut(at).ok_or("a stream that was not opened")? = Some(begun.elapsed());
        }
    }
    Ok(took.into_iter().flatten().collect())
}

/// What a connection begins with, and the request.
fn request(scheme: &str, authority: &str, path: &str) -> Vec<u8> {
    [opening(), head(STREAM, scheme, authority, path)].concat()
}

/// Preface, settings, and the largest window for the connection.
pub fn opening() -> Vec<u8> {
    let settings = [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, WINDOW_MAX)];
    let more = Frame::window_update(0, WINDOW_MAX - WINDOW_BYTES_INITIAL);
    [PREFACE.to_vec(), Frame::settings(&settings).bytes(), more.bytes()].concat()
}

/// A request: the frame that opens its stream.
pub fn head(stream: u32, scheme: &str, authority: &str, path: &str) -> Vec<u8> {
    // Indexed fields of the static table (RFC 7541 appendix A): 2 is `:method: GET`, 6 and 7 are
    // `:scheme`. Literals without indexing name their field by its index: 1 is `:authority`, 4 is
    // `:path`.
    // ANCHOR: request
    let mut block = vec![0x82, if scheme == "https" { 0x87 } else { 0x86 }];
    block.extend(literal(1, authority));
    block.extend(literal(4, path));
    request_head(stream, &block)
    // ANCHOR_END: request
}

/// A literal field without indexing, its value not compressed (RFC 7541 section 6.2.2).
fn literal(index: usize, value: &str) -> Vec<u8> {
    named(0, 4, index, value)
}

/// The frame that opens a stream with a request without a body. `block`: its fields.
fn request_head(stream: u32, block: &[u8]) -> Vec<u8> {
    Frame::headers(stream, block, true).bytes()
}

/// Sends all bytes.
///
/// # Errors
/// One sentence.
pub fn send(stream: &mut impl Write, bytes: &[u8]) -> Result<(), String> {
    let sent = stream.write_all(bytes).and_then(|()| stream.flush());
    sent.map_err(|e| format!("cannot send: {}", super::why(&e)))
}

#[cfg(test)]
mod tests {
    use super::super::canned::Canned;
    use super::*;

    use flag::{ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY};
    use kind::{DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS};

    fn encoded(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        Frame::new(kind, flags, stream, payload).bytes()
    }

    type Answer = Result<(u16, Vec<u8>), String>;

    fn answered(frames: &[Vec<u8>]) -> (Answer, Vec<u8>) {
        let mut server = Canned::new(&frames.concat());
        (ask(&mut server, "http", "x", "/"), server.told)
    }

    #[test]
    fn a_reply_in_pieces_is_put_together_and_settings_are_acknowledged() {
        // Padding's length, priority, a size update of two bytes, the status, padding.
        let head = [1, 0, 0, 0, 0, 0, 0x3f, 1, 0x88, 0];
        let (reply, told) = answered(&[
            encoded(SETTINGS, 0, 0, &[]),
            encoded(PING, 0, 0, b"12345678"),
            encoded(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &head),
            encoded(DATA, PADDED, 1, b"\x02hel\0\0"),
            encoded(DATA, 0, 3, b"another stream's"),
            encoded(DATA, END_STREAM, 1, b"lo"),
            encoded(SETTINGS, ACK, 0, &[]),
        ]);
        assert_eq!(reply, Ok((200, b"hello".to_vec())));
        assert!(told.starts_with(PREFACE));
        let answers = [encoded(SETTINGS, ACK, 0, &[]), encoded(PING, ACK, 0, b"12345678")];
        assert!(told.ends_with(&answers.concat()));
    }

    #[test]
    fn streams_end_in_any_order_and_one_that_was_not_opened_is_an_error() {
        let head = |stream| encoded(HEADERS, END_HEADERS, stream, &[0x88]);
        let data = |stream| encoded(DATA, END_STREAM, stream, b"x");
        let all = |frames: &[Vec<u8>]| {
            let mut server = Canned::new(&frames.concat());
            ask_all(&mut server, "x", &["/a", "/b"])
        };
        let took = all(&[head(3), data(3), head(1), data(1)]).unwrap();
        assert!(took[1] <= took[0]);
        assert!(all(&[head(1), data(5)]).unwrap_err().contains("not opened"));
        let missing = encoded(HEADERS, END_HEADERS | END_STREAM, 1, &[0x8d]);
        assert!(all(&[missing]).unwrap_err().contains("200"));
        assert!(all(&[encoded(RST_STREAM, 0, 3, &[0; 4])]).unwrap_err().contains("stream 3"));
    }

    #[test]
    fn what_is_no_reply_says_what_it_is() {
        let told = |frames: &[Vec<u8>]| answered(frames).0.unwrap_err();
        assert!(
            told(&[encoded(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1])]).contains("PROTOCOL_ERROR")
        );
        assert!(told(&[encoded(RST_STREAM, 0, 1, &[0, 0, 0, 8])]).contains("reset, CANCEL"));
        assert!(
            told(&[b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]).contains("no frame of HTTP/2")
        );
        assert!(told(&[]).contains("ended"));
        let cut = encoded(HEADERS, END_HEADERS | PADDED, 1, &[9, 0x88]);
        assert!(told(&[cut]).contains("padding"));
    }
}
