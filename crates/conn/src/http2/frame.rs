//! Frames (RFC 9113 section 4.1): nine bytes of head, then the payload. And the rules that each
//! type has by itself (sections 6.1 to 6.10), before any stream is looked at.

use super::error::{Code, Fault};

pub(super) const HEAD_LEN: usize = 9;

/// The longest payload: the value of SETTINGS_MAX_FRAME_SIZE before SETTINGS change it (section
/// 6.5.2). Larger frames save nothing, so this server does not allow them.
pub(super) const PAYLOAD_LEN_MAX: usize = 1 << 14;

/// Stream identifiers have 31 bits; the reserved bit is ignored (section 4.1).
pub(super) const STREAM_MAX: u32 = u32::MAX >> 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    Goaway,
    WindowUpdate,
    Continuation,
    /// Ignored (section 4.1).
    Unknown,
}

/// The types by their numbers.
const KINDS: [Kind; 10] = [
    Kind::Data,
    Kind::Headers,
    Kind::Priority,
    Kind::RstStream,
    Kind::Settings,
    Kind::PushPromise,
    Kind::Ping,
    Kind::Goaway,
    Kind::WindowUpdate,
    Kind::Continuation,
];

pub(super) mod flag {
    pub(in crate::http2) const END_STREAM: u8 = 0x1;
    /// Of SETTINGS and PING.
    pub(in crate::http2) const ACK: u8 = 0x1;
    pub(in crate::http2) const END_HEADERS: u8 = 0x4;
    pub(in crate::http2) const PADDED: u8 = 0x8;
    pub(in crate::http2) const PRIORITY: u8 = 0x20;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) len: usize,
    pub(super) kind: Kind,
    flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// `None`: fewer than nine bytes have come.
    #[inline]
    pub(super) fn parse(input: &[u8]) -> Option<Head> {
        let &[a, b, c, kind, flags, d, e, f, g] = input.first_chunk()?;
        Some(Head {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind: KINDS.get(usize::from(kind)).copied().unwrap_or(Kind::Unknown),
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & STREAM_MAX,
        })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The frame's length and stream fit its type.
    pub(super) fn check(&self) -> Result<(), Fault> {
        // Section 4.2: a frame that may change the connection's state ends the connection. All do.
        if self.len > PAYLOAD_LEN_MAX {
            return Err(Fault::Connection(Code::FrameSize));
        }
        let of_connection = self.stream == 0;
        let stream_fits = match self.kind {
            Kind::Data | Kind::Headers | Kind::Continuation => !of_connection,
            Kind::Priority | Kind::RstStream => !of_connection,
            Kind::Settings | Kind::Ping | Kind::Goaway => of_connection,
            // Section 8.4: a client cannot push.
            Kind::PushPromise => false,
            Kind::WindowUpdate | Kind::Unknown => true,
        };
        if !stream_fits {
            return Err(Fault::Connection(Code::Protocol));
        }
        let len_fits = match self.kind {
            // Section 6.3: an error of the stream.
            Kind::Priority if self.len != 5 => return Err(Fault::Stream(Code::FrameSize)),
            Kind::RstStream | Kind::WindowUpdate => self.len == 4,
            Kind::Ping => self.len == 8,
            Kind::Goaway => self.len >= 8,
            Kind::Settings if self.has(flag::ACK) => self.len == 0,
            Kind::Settings => self.len.is_multiple_of(6),
            _ => true,
        };
        if len_fits { Ok(()) } else { Err(Fault::Connection(Code::FrameSize)) }
    }
}

pub(super) fn put_head(out: &mut Vec<u8>, len: usize, kind: Kind, flags: u8, stream: u32) {
    let [_, a, b, c] = (len as u32).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind as u8, flags, d, e, f, g]);
}

/// Section 6.4.
pub(super) fn put_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    put_head(out, 4, Kind::RstStream, 0, stream);
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// Section 6.7.
pub(super) fn put_ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    put_head(out, payload.len(), Kind::Ping, flags, 0);
    out.extend_from_slice(&payload);
}

/// Section 6.8.
pub(super) fn put_goaway(out: &mut Vec<u8>, last: u32, code: Code) {
    put_head(out, 8, Kind::Goaway, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// Section 6.9.
pub(super) fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put_head(out, 4, Kind::WindowUpdate, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, len: u8, flags: u8, stream: u8) -> Head {
        Head::parse(&[0, 0, len, kind, flags, 0x80, 0, 0, stream]).expect("nine bytes")
    }

    #[test]
    fn a_head_is_read_as_it_is_put() {
        let mut out = Vec::new();
        put_head(&mut out, 0x01_0203, Kind::Continuation, flag::END_HEADERS, 0x0405_0607);
        assert_eq!(out, [1, 2, 3, 9, 4, 4, 5, 6, 7]);
        let head = Head::parse(&out).expect("nine bytes");
        assert_eq!(
            (head.len, head.kind, head.stream),
            (0x01_0203, Kind::Continuation, 0x0405_0607)
        );
        assert!(head.has(flag::END_HEADERS) && !head.has(flag::PADDED));
        assert!(Head::parse(&out[..8]).is_none());
        for (number, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn each_type_has_its_length_and_its_stream() {
        let (protocol, size) = (Code::Protocol, Code::FrameSize);
        for (kind, len, flags, stream, wanted) in [
            (0, 1, 0, 1, None),
            (0, 1, 0, 0, Some(Fault::Connection(protocol))),
            (1, 1, 0, 0, Some(Fault::Connection(protocol))),
            (2, 4, 0, 1, Some(Fault::Stream(size))),
            (2, 5, 0, 0, Some(Fault::Connection(protocol))),
            (3, 3, 0, 1, Some(Fault::Connection(size))),
            (3, 4, 0, 0, Some(Fault::Connection(protocol))),
            (4, 6, 0, 0, None),
            (4, 5, 0, 0, Some(Fault::Connection(size))),
            (4, 6, flag::ACK, 0, Some(Fault::Connection(size))),
            (4, 0, 0, 1, Some(Fault::Connection(protocol))),
            (5, 4, 0, 1, Some(Fault::Connection(protocol))),
            (6, 7, 0, 0, Some(Fault::Connection(size))),
            (7, 7, 0, 0, Some(Fault::Connection(size))),
            (7, 9, 0, 0, None),
            (8, 3, 0, 0, Some(Fault::Connection(size))),
            (9, 0, 0, 0, Some(Fault::Connection(protocol))),
            (0xee, 3, 0xff, 0, None),
        ] {
            assert_eq!(head(kind, len, flags, stream).check().err(), wanted, "{kind} {len}");
        }
        let long = Head { len: PAYLOAD_LEN_MAX + 1, ..head(0xee, 0, 0, 0) };
        assert_eq!(long.check(), Err(Fault::Connection(size)));
    }
}
