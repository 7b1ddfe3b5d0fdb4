//! Errors (RFC 9113 sections 5.4 and 7): what they end, and the code that says why.

/// Codes that this server sends (section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    No = 0x0,
    Protocol = 0x1,
    Internal = 0x2,
    FlowControl = 0x3,
    StreamClosed = 0x5,
    FrameSize = 0x6,
    Refused = 0x7,
    Cancel = 0x8,
    Compression = 0x9,
    EnhanceYourCalm = 0xb,
}

/// A mistake of the peer, by what it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// GOAWAY, then the end (section 5.4.1).
    Connection(Code),
    /// RST_STREAM; other streams continue (section 5.4.2).
    Stream(Code),
}

/// An error ends the connection where nothing says that it ends only a stream.
impl From<Code> for Fault {
    fn from(code: Code) -> Fault {
        Fault::Connection(code)
    }
}
