//! Frames (RFC 9113 sections 4.1, 6 and 7), those that nobody may send among them.

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
    /// A type that nobody defined.
    pub const UNKNOWN: u8 = 0xee;
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

    /// The 32 bits at byte `at` of the payload.
    ///
    /// # Panics
    /// When it is shorter.
    #[track_caller]
    pub fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let Some(bytes) = bytes else { panic!("a frame that is too short: {self:?}") };
        u32::from_be_bytes(bytes)
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
