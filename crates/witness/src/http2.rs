//! Frames of HTTP/2 (RFC 9113 sections 4.1, 6 and 7), those among them that neither end may send.

use std::io::Read;

use crate::{Fault, array, front, hpack};

/// What a client says first (RFC 9113 section 3.4); a SETTINGS frame follows.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest window (RFC 9113 section 6.9.1).
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The smallest value of SETTINGS_MAX_FRAME_SIZE, and the one that holds without it.
pub const FRAME_SIZE: usize = 16_384;

/// Bytes of a frame's head (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;

/// Bytes of the deprecated priority in HEADERS (RFC 9113 section 6.2).
const PRIORITY_BYTES: usize = 5;

/// Types of frames (RFC 9113 section 6).
pub mod kind {
    /// Section 6.1.
    pub const DATA: u8 = 0x0;
    /// Section 6.2.
    pub const HEADERS: u8 = 0x1;
    /// Section 6.3.
    pub const PRIORITY: u8 = 0x2;
    /// Section 6.4.
    pub const RST_STREAM: u8 = 0x3;
    /// Section 6.5.
    pub const SETTINGS: u8 = 0x4;
    /// Section 6.6.
    pub const PUSH_PROMISE: u8 = 0x5;
    /// Section 6.7.
    pub const PING: u8 = 0x6;
    /// Section 6.8.
    pub const GOAWAY: u8 = 0x7;
    /// Section 6.9.
    pub const WINDOW_UPDATE: u8 = 0x8;
    /// Section 6.10.
    pub const CONTINUATION: u8 = 0x9;
    /// A type that no standard defines.
    pub const UNKNOWN: u8 = 0xee;

    /// Names of the types that are defined, in their order.
    pub const NAMES: [&str; 10] = [
        "DATA",
        "HEADERS",
        "PRIORITY",
        "RST_STREAM",
        "SETTINGS",
        "PUSH_PROMISE",
        "PING",
        "GOAWAY",
        "WINDOW_UPDATE",
        "CONTINUATION",
    ];
}

/// Flags (RFC 9113 section 6).
pub mod flag {
    /// DATA and HEADERS: the sender's last one on the stream.
    pub const END_STREAM: u8 = 0x1;
    /// SETTINGS and PING: an answer.
    pub const ACK: u8 = 0x1;
    /// HEADERS and CONTINUATION: the field block is complete.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA and HEADERS: the payload begins with the length of what it ends with.
    pub const PADDED: u8 = 0x8;
    /// HEADERS: five deprecated bytes come first.
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes (RFC 9113 section 7).
pub mod code {
    /// No error: a graceful end.
    pub const NO_ERROR: u32 = 0x0;
    /// Unspecific breach of the protocol.
    pub const PROTOCOL_ERROR: u32 = 0x1;
    /// The server's own fault.
    pub const INTERNAL_ERROR: u32 = 0x2;
    /// A window exceeded, or grown beyond 2^31-1.
    pub const FLOW_CONTROL_ERROR: u32 = 0x3;
    /// A frame on a stream that is half closed or closed.
    pub const STREAM_CLOSED: u32 = 0x5;
    /// A frame of a size that it cannot have.
    pub const FRAME_SIZE_ERROR: u32 = 0x6;
    /// Not processed at all: may be tried again.
    pub const REFUSED_STREAM: u32 = 0x7;
    /// Not wanted any more.
    pub const CANCEL: u32 = 0x8;
    /// The state of HPACK is lost.
    pub const COMPRESSION_ERROR: u32 = 0x9;
    /// The peer asks too much.
    pub const ENHANCE_YOUR_CALM: u32 = 0xb;
}

/// Settings (RFC 9113 section 6.5.2, RFC 8441 section 3).
pub mod setting {
    /// Bytes of HPACK's dynamic table.
    pub const HEADER_TABLE_SIZE: u16 = 0x1;
    /// 0 or 1.
    pub const ENABLE_PUSH: u16 = 0x2;
    /// Streams that the receiver of the setting may have open.
    pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    /// What each stream's window begins with, in bytes.
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
    /// Largest payload of a frame, in bytes.
    pub const MAX_FRAME_SIZE: u16 = 0x5;
    /// Largest list of fields, in bytes (each field counts 32 more than it is long).
    pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    /// Extended CONNECT (RFC 8441).
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
}

/// Any frame. Nothing is checked: length, flags and payload may contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Stream identifier; the highest bit is the reserved one and is sent as it stands here.
    pub stream: u32,
    /// What follows the nine bytes of the head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame as it is told.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { kind, flags, stream, payload: payload.into() }
    }

    /// DATA.
    pub fn data(stream: u32, payload: impl Into<Vec<u8>>, last: bool) -> Frame {
        Frame::new(kind::DATA, if last { flag::END_STREAM } else { 0 }, stream, payload)
    }

    /// HEADERS with a whole field block.
    pub fn headers(stream: u32, block: impl Into<Vec<u8>>, last: bool) -> Frame {
        let last = if last { flag::END_STREAM } else { 0 };
        Frame::new(kind::HEADERS, flag::END_HEADERS | last, stream, block)
    }

    /// CONTINUATION.
    pub fn continuation(stream: u32, block: impl Into<Vec<u8>>, last: bool) -> Frame {
        Frame::new(kind::CONTINUATION, if last { flag::END_HEADERS } else { 0 }, stream, block)
    }

    /// PRIORITY: depends on `parent`, not exclusively, with weight 16.
    pub fn priority(stream: u32, parent: u32) -> Frame {
        Frame::new(kind::PRIORITY, 0, stream, [&parent.to_be_bytes()[..], &[15]].concat())
    }

    /// RST_STREAM.
    pub fn rst_stream(stream: u32, code: u32) -> Frame {
        Frame::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    /// SETTINGS.
    pub fn settings(values: &[(u16, u32)]) -> Frame {
        let bytes = |&(id, value): &(u16, u32)| {
            [id.to_be_bytes().as_slice(), value.to_be_bytes().as_slice()].concat()
        };
        Frame::new(kind::SETTINGS, 0, 0, values.iter().flat_map(bytes).collect::<Vec<u8>>())
    }

    /// PING.
    pub fn ping(payload: [u8; 8]) -> Frame {
        Frame::new(kind::PING, 0, 0, payload)
    }

    /// GOAWAY without debug data.
    pub fn goaway(last_stream: u32, code: u32) -> Frame {
        let payload = [last_stream.to_be_bytes(), code.to_be_bytes()].concat();
        Frame::new(kind::GOAWAY, 0, 0, payload)
    }

    /// WINDOW_UPDATE; stream 0 is the connection.
    pub fn window_update(stream: u32, increment: u32) -> Frame {
        Frame::new(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
    }

    /// The same frame with other flags.
    pub fn with_flags(self, flags: u8) -> Frame {
        Frame { flags, ..self }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes on the wire.
    pub fn wire_bytes(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }

    /// As it goes over the wire.
    ///
    /// # Panics
    /// When the length does not fit its three bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).ok().filter(|length| *length < 1 << 24);
        let length = length.expect("a payload fits a length of 24 bits").to_be_bytes();
        let stream = self.stream.to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &stream].concat();
        [head, self.payload.clone()].concat()
    }

    /// Of SETTINGS: identifiers and values, as far as they are whole.
    pub fn values(&self) -> Vec<(u16, u32)> {
        let whole = self.payload.chunks_exact(6);
        let value = |six: &[u8]| {
            let id = u16::from_be_bytes([six[0], six[1]]);
            (id, u32::from_be_bytes([six[2], six[3], six[4], six[5]]))
        };
        whole.map(value).collect()
    }

    /// The 32 bits at byte `at` of the payload; `None` if it is shorter.
    pub fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.payload.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    }

    /// Name of its type.
    pub fn name(&self) -> &'static str {
        kind::NAMES.get(usize::from(self.kind)).unwrap_or(&"unknown")
    }

    /// Whether it is the last of its stream from its sender.
    pub fn ends_stream(&self) -> bool {
        [kind::HEADERS, kind::DATA].contains(&self.kind) && self.has(flag::END_STREAM)
    }

    /// The payload of HEADERS or DATA without padding and priority (sections 6.1 and 6.2).
    ///
    /// # Errors
    /// Padding or a priority that does not fit.
    pub fn content(&self) -> Result<&[u8], String> {
        let mut content = &self.payload[..];
        let mut padding = 0;
        if self.has(flag::PADDED) {
            let (first, rest) = content.split_first().ok_or("a padded frame without its length")?;
            (padding, content) = (usize::from(*first), rest);
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(PRIORITY_BYTES..).ok_or("a priority that is cut short")?;
        }
        let end = content.len().checked_sub(padding).ok_or("more padding than frame")?;
        Ok(&content[..end])
    }

    /// The status, in the head of a reply; `None` in another frame.
    ///
    /// # Errors
    /// As [`hpack::status`].
    pub fn status(&self) -> Result<Option<u16>, String> {
        match self.kind {
            kind::HEADERS => hpack::status(self.content()?).map(Some),
            _ => Ok(None),
        }
    }

    /// What must be sent in answer to it: an acknowledgement of settings or of a ping.
    ///
    /// # Errors
    /// A frame that ends the connection or its stream.
    pub fn answer(&self) -> Result<Option<Vec<u8>>, String> {
        let acknowledged = self.has(flag::ACK);
        let code = |at| self.number(at).unwrap_or(0);
        match self.kind {
            kind::SETTINGS | kind::PING if !acknowledged => {
                let payload = if self.kind == kind::PING { &self.payload[..] } else { &[] };
                Ok(Some(Frame::new(self.kind, flag::ACK, 0, payload).bytes()))
            }
            kind::GOAWAY => Err(format!("GOAWAY with {}", code_name(code(4)))),
            kind::RST_STREAM => {
                Err(format!("stream {} was reset, {}", self.stream, code_name(code(0))))
            }
            _ => Ok(None),
        }
    }

    /// The frame with this head, its payload to come, and the length of that. A frame may have
    /// `size_max` bytes of payload.
    ///
    /// # Errors
    /// A longer one, or one with the reserved bit.
    pub fn of_head(head: [u8; HEAD_BYTES], size_max: usize) -> Result<(Frame, usize), String> {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > size_max {
            return Err(format!("a frame of {length} bytes, more than {size_max} (section 4.2)"));
        }
        let stream = u32::from_be_bytes(stream);
        if stream > WINDOW_MAX {
            return Err("a frame with the reserved bit (section 4.1)".to_owned());
        }
        Ok((Frame::new(kind, flags, stream, []), length))
    }

    /// The frame at the front of `input`, and its bytes on the wire; `None` if more must come.
    ///
    /// # Errors
    /// As [`Frame::read`].
    pub fn parse(input: &[u8]) -> Result<Option<(usize, Frame)>, String> {
        front(input, |input| Frame::take(input))
    }

    /// Reads one frame of at most [`FRAME_SIZE`].
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn read(stream: &mut impl Read) -> Result<Frame, String> {
        Frame::take(stream).map_err(|fault| format!("no frame of HTTP/2: {}", String::from(fault)))
    }

    fn take(stream: &mut impl Read) -> Result<Frame, Fault> {
        let (mut frame, length) =
            Frame::of_head(array(stream)?, FRAME_SIZE).map_err(Fault::Wrong)?;
        frame.payload.resize(length, 0);
        stream.read_exact(&mut frame.payload)?;
        Ok(frame)
    }
}

/// An error code as RFC 9113 section 7 calls it.
pub fn code_name(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| format!("{code:#x}"), ToString::to_string)
}
