//! The client's side of WebSocket (RFC 6455), independent of the server's code: requests, frames,
//! and a strict parser for the server's frames.

use super::transcript::unescape;

pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The reply to the handshake of RFC 6455 section 1.3.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub const CONTINUE: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const FIN: u8 = 0x80;

/// The handshake of RFC 6455 section 1.3 for (path, more fields).
pub fn upgrade((path, fields): (&str, &str)) -> Result<Vec<u8>, String> {
    let mut bytes = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
    .into_bytes();
    bytes.extend(unescape(fields)?);
    bytes.extend_from_slice(b"\r\n");
    Ok(bytes)
}

/// A frame. `first` holds FIN, RSV and opcode.
pub fn put(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    out.push(first);
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ ..126 => out.push(bit | len as u8),
        len @ ..0x1_0000 => {
            out.push(bit | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(bit | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

pub fn client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, FIN | opcode, payload, Some(MASK));
    out
}

/// A client's frame that is not the last of its message.
pub fn client_part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, opcode, payload, Some(MASK));
    out
}

/// A frame in the notation of a transcript: `[more] [rsv1|rsv2|rsv3|bare] KIND PAYLOAD`.
pub fn frame(text: &str, mut mask: Option<[u8; 4]>) -> Result<Vec<u8>, String> {
    let mut first = FIN;
    let mut rest = text;
    let (opcode, payload) = loop {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        match word {
            "more" => first &= !FIN,
            "rsv1" => first |= 0x40,
            "rsv2" => first |= 0x20,
            "rsv3" => first |= 0x10,
            "bare" => mask = None,
            "continue" => break (CONTINUE, unescape(after)?),
            "text" => break (TEXT, unescape(after)?),
            "binary" => break (BINARY, unescape(after)?),
            "ping" => break (PING, unescape(after)?),
            "pong" => break (PONG, unescape(after)?),
            "close" => break (CLOSE, close(after)?),
            _ => {
                let number = word.strip_prefix("op").ok_or("no such kind of frame")?;
                break (number.parse().map_err(|e| format!("{word}: {e}"))?, unescape(after)?);
            }
        }
    };
    let mut out = Vec::new();
    put(&mut out, first | opcode, &payload, mask);
    Ok(out)
}

/// `text` begins with a code in digits, if there is one.
fn close(text: &str) -> Result<Vec<u8>, String> {
    let (word, reason) = text.split_once(' ').unwrap_or((text, ""));
    match word.parse::<u16>() {
        Ok(code) => Ok([&code.to_be_bytes()[..], &unescape(reason)?].concat()),
        Err(_) => unescape(text),
    }
}

/// Takes a server's complete frames from the front of `bytes`: (opcode, payload). Panics if a
/// server must not send them: with a mask, a reserved bit, a fragment, or a length that is not the
/// shortest.
pub fn take_frames(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some((first, payload, len)) = split_frame(&bytes[at..]) {
        assert_eq!(first & 0xf0, FIN, "bits of a server's frame: {first:#x}");
        frames.push((first & 0x0f, payload.to_vec()));
        at += len;
    }
    bytes.drain(..at);
    frames
}

fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let &[first, second, ref rest @ ..] = bytes else { return None };
    let (head, len) = match second {
        126 => (4, u16::from_be_bytes(rest.get(..2)?.try_into().ok()?) as usize),
        127 => (10, u64::from_be_bytes(rest.get(..8)?.try_into().ok()?) as usize),
        len => (2, usize::from(len)),
    };
    let shortest = [(2, 0), (4, 126), (10, 0x1_0000)];
    assert!(second <= 127, "a server's frame is masked");
    assert!(shortest.iter().any(|&(h, least)| h == head && len >= least), "{head}, {len}");
    Some((first, bytes.get(head..head + len)?, head + len))
}

pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}
