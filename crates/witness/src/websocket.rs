//! WebSocket (RFC 6455) as a client sees it: the opening handshake, and frames, as strict about the
//! server as the RFC is.

use std::io::Read;

use crate::{Fault, array, front};

/// The key of the example in RFC 6455 section 1.3. A fixed key finds a wrong server too, and it is
/// no secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The answer to [`KEY`]: the value of `Sec-WebSocket-Accept`.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The mask of all frames. Random masks protect against proxies (RFC 6455 section 10.3), of which
/// there are none.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// Largest payload of a control frame (RFC 6455 section 5.5), and the largest whose length has one
/// byte.
const CONTROL_BYTES_MAX: u64 = 125;

/// What a frame is (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The rest of a message.
    Continuation = 0x0,
    /// UTF-8.
    Text = 0x1,
    /// Any bytes.
    Binary = 0x2,
    /// The end, perhaps with a code and a reason.
    Close = 0x8,
    /// To be answered with the same bytes.
    Ping = 0x9,
    /// The answer.
    Pong = 0xa,
}

/// One frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The last one of its message.
    pub is_final: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Not masked: a server never does.
    pub payload: Vec<u8>,
}

/// The fields of the opening handshake of a client (RFC 6455 section 4.1), behind `GET` and `Host`.
pub fn opening_fields() -> String {
    format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n"
    )
}

/// The opening handshake of a client (RFC 6455 section 4.1).
pub fn opening(authority: &str, path: &str) -> Vec<u8> {
    let fields = opening_fields();
    format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n").into_bytes()
}

/// The bytes of one final frame of a client: masked (RFC 6455 section 5.2).
pub fn client_frame(kind: Opcode, payload: &[u8]) -> Vec<u8> {
    let kind = kind as u8;
    let mut frame = vec![FIN | kind];
    match payload.len() {
        length @ 0..=125 => frame.push(MASKED | length as u8),
        length @ 126..=0xffff => {
            frame.push(MASKED | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(MASKED | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

impl Frame {
    /// Reads one frame of a server, of at most `size_max` bytes of payload.
    ///
    /// # Errors
    /// One sentence: what did not come, or what is wrong with the frame (RFC 6455 sections 5.2 and
    /// 5.5).
    pub fn read(stream: &mut impl Read, size_max: u64) -> Result<Frame, String> {
        Frame::take(stream, size_max).map_err(String::from)
    }

    /// The frame at the front of `input`, and its bytes on the wire; `None` if more must come.
    ///
    /// # Errors
    /// As [`Frame::read`].
    pub fn parse(input: &[u8], size_max: u64) -> Result<Option<(usize, Frame)>, String> {
        front(input, |input| Frame::take(input, size_max))
    }

    fn take(stream: &mut impl Read, size_max: u64) -> Result<Frame, Fault> {
        let head: [u8; 2] = array(stream)?;
        let wrong = |why: &str| Err(Fault::Wrong(why.to_owned()));
        let opcode = match head[0] & 0xf {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            other => return wrong(&format!("a frame with the reserved opcode {other:#x}")),
        };
        if head[0] & RESERVED != 0 {
            return wrong("a frame with a reserved bit, without an extension");
        }
        if head[1] & MASKED != 0 {
            return wrong("the server masked a frame");
        }
        let (length, shortest) = match head[1] {
            126 => (u64::from(u16::from_be_bytes(array(stream)?)), CONTROL_BYTES_MAX + 1),
            127 => (u64::from_be_bytes(array(stream)?), 1 << 16),
            length => (u64::from(length), 0),
        };
        let is_final = head[0] & FIN != 0;
        let is_control = opcode as u8 >= Opcode::Close as u8;
        if length < shortest {
            return wrong(&format!("a length of {length} in a longer form than it needs"));
        }
        if is_control && !(is_final && length <= CONTROL_BYTES_MAX) {
            return wrong(&format!("a {opcode:?} frame that is long or not final"));
        }
        if length > size_max {
            return wrong(&format!("a frame of {length} bytes, more than {size_max}"));
        }
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        Ok(Frame { is_final, opcode, payload })
    }

    /// The code of a close frame, if it has one (RFC 6455 section 5.5.1).
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk()?;
        (self.opcode == Opcode::Close).then(|| u16::from_be_bytes(*code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 section 5.7: "Hello", masked with this very mask.
    #[test]
    fn frames_are_those_of_the_standard() {
        let masked = [0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let hello = client_frame(Opcode::Text, b"Hello");
        assert_eq!(hello, [&[0x81, 0x85], &masked[..]].concat());
        let long = client_frame(Opcode::Binary, &[0; 126]);
        assert_eq!(long[..4], [0x82, 0x80 | 126, 0, 126]);
        let longer = client_frame(Opcode::Binary, &[0; 65_536]);
        assert_eq!(longer[..10], [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_frame_is_read_or_says_what_is_wrong() {
        let read = |bytes: &[u8]| Frame::read(&mut &bytes[..], 1 << 20);
        let long = read(&[&[0x82, 126, 1, 0][..], &[7; 256]].concat()).unwrap();
        assert_eq!(
            (long.is_final, long.opcode, long.payload),
            (true, Opcode::Binary, vec![7; 256])
        );
        assert_eq!(read(&[0x88, 2, 3, 245]).unwrap().close_code(), Some(1013));
        assert_eq!(read(&[0x88, 0]).unwrap().close_code(), None);
        for (bytes, why) in [
            (&[0x83, 0][..], "reserved opcode 0x3"),
            (&[0xc2, 0], "reserved bit"),
            (&[0x82, 0x80], "masked"),
            (&[0x82, 126, 0, 125], "longer form"),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], "longer form"),
            (&[0x82, 127, 0, 0, 0, 9, 0, 0, 0, 0], "more than 1048576"),
            (&[0x09, 0], "not final"),
            (&[0x89, 126, 0, 126], "long"),
            (&[0x82, 3, 1], "ended"),
            (&[0x82], "ended"),
        ] {
            let told = read(bytes).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        let parse = |bytes: &[u8]| Frame::parse(bytes, 9).map(|found| found.map(|(at, _)| at));
        assert_eq!(parse(&[0x82, 1]), Ok(None));
        assert_eq!(parse(&[0x82, 1, 7, 0x82]), Ok(Some(3)));
        assert!(parse(&[0x82, 10]).is_err());
    }
}
