//! A request body as it arrives: with a length, or chunked (RFC 9112 sections 6 and 7).
//!
//! The chunked decoder is incremental and strict. An empty size, a bare LF, a size that overflows,
//! a malformed extension or a malformed trailer field could each make two parsers disagree about
//! the end of the message.

use super::reject::Reject;
use crate::websocket::INPUT_KEPT_MAX;

/// Most bytes of chunk extensions, trailer fields and leading zeros in one body. They are read and
/// dropped.
const IGNORED_BYTES_MAX: usize = 8 << 10;

/// A chunk of at most so many bytes is used only when all of it, with its CRLF, has arrived. So a
/// small chunk with a wrong size is refused before any of it is echoed. A larger chunk is streamed.
const WHOLE_CHUNK_BYTES_MAX: u64 = 128;

// Such a chunk fits into the input that a connection keeps.
const _: () = assert!(WHOLE_CHUNK_BYTES_MAX as usize + b"\r\n".len() <= INPUT_KEPT_MAX);

const NO_CRLF: &str = "a chunk does not end in CRLF";

/// A size above 64 bits serves only to overflow another parser's number.
const SIZE_OVERFLOWS: &str = "a chunk size does not fit into 64 bits";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Bytes left; 0 = the body is complete.
    Length(u64),
    Chunked(Chunked),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) used: usize,
    pub(super) data: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunked {
    state: ChunkedState,
    total: u64,
    /// Bytes of extensions, trailers and leading zeros so far.
    ignored: usize,
    streams: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkedState {
    SizeStart,
    Size(u64),
    Extension(u64, Extension),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line after the last chunk: either a trailer field or the end.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// Position in the extensions of a chunk (RFC 9112 section 7.1.1). Blanks are allowed only around
/// `;` and `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// After blanks, before the `;` of another extension.
    Semicolon,
    NameStart,
    Name,
    NameEnd,
    ValueStart,
    Token,
    Quoted,
    Escaped,
    Unquoted,
}

impl Body {
    /// Whether all of `input` belongs to the rest of this body, so that no other request follows.
    /// Chunked: only if `input` is empty, because the end is not known.
    pub(super) fn covers(&self, input: &[u8]) -> bool {
        match self {
            Body::Length(left) => input.len() as u64 <= *left,
            Body::Chunked(_) => input.is_empty(),
        }
    }

    pub(super) fn chunked() -> Body {
        Body::Chunked(Chunked {
            state: ChunkedState::SizeStart,
            total: 0,
            ignored: 0,
            streams: false,
        })
    }

    pub(super) fn is_complete(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.state == ChunkedState::End,
        }
    }

    /// Takes the next piece of `input`: framing bytes and at most one run of body bytes. `used ==
    /// 0` means that more input is needed.
    pub(super) fn step<'a>(
        &mut self,
        input: &'a [u8],
        bytes_max: u64,
    ) -> Result<Piece<'a>, Reject> {
        match self {
            Body::Length(left) => {
                let take = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                Ok(Piece { used: take, data: &input[..take] })
            }
            Body::Chunked(chunked) => chunked.step(input, bytes_max),
        }
    }
}

impl Chunked {
    fn step<'a>(&mut self, input: &'a [u8], bytes_max: u64) -> Result<Piece<'a>, Reject> {
        let mut used = 0;
        while used < input.len() && self.state != ChunkedState::End {
            if let ChunkedState::Data(left) = self.state {
                let rest = &input[used..];
                if !self.streams && !ends_in_crlf(rest, left)? {
                    break;
                }
                let take = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - take as u64;
                self.state =
                    if left == 0 { ChunkedState::DataCr } else { ChunkedState::Data(left) };
                return Ok(Piece { used: used + take, data: &rest[..take] });
            }
            self.state = self.framing_byte(input[used], bytes_max)?;
            used += 1;
        }
        Ok(Piece { used, data: &[] })
    }

    fn framing_byte(&mut self, byte: u8, bytes_max: u64) -> Result<ChunkedState, Reject> {
        Ok(match (self.state, byte) {
            (ChunkedState::SizeStart, _) => ChunkedState::Size(hex_digit(byte)?),
            (ChunkedState::Size(size), b'\r') => ChunkedState::SizeLf(size),
            (ChunkedState::Size(size), b';') => ChunkedState::Extension(size, Extension::NameStart),
            (ChunkedState::Size(size), b' ' | b'\t') => {
                self.ignore_byte()?;
                ChunkedState::Extension(size, Extension::Semicolon)
            }
            (ChunkedState::Size(size), _) => {
                let digit = hex_digit(byte)?;
                if size == 0 {
                    // Leading zeros do not change the size, so their number must be limited.
                    self.ignore_byte()?;
                }
                let size = size.checked_mul(16).ok_or(Reject::Malformed(SIZE_OVERFLOWS))? + digit;
                ChunkedState::Size(size)
            }
            (
                ChunkedState::Extension(..)
                | ChunkedState::TrailerStart
                | ChunkedState::TrailerValue,
                b'\n',
            ) => {
                return Err(Reject::Malformed("a bare LF in the chunked body"));
            }
            (ChunkedState::Extension(size, extension), _) => {
                self.ignore_byte()?;
                match extension.after(byte)? {
                    Some(extension) => ChunkedState::Extension(size, extension),
                    None => ChunkedState::SizeLf(size),
                }
            }
            (ChunkedState::SizeLf(0), b'\n') => ChunkedState::TrailerStart,
            (ChunkedState::SizeLf(size), b'\n') => {
                self.total =
                    self.total.checked_add(size).ok_or(Reject::Malformed(SIZE_OVERFLOWS))?;
                if self.total > bytes_max {
                    return Err(Reject::BodyTooLarge);
                }
                self.streams = size > WHOLE_CHUNK_BYTES_MAX;
                ChunkedState::Data(size)
            }
            (ChunkedState::DataCr, b'\r') => ChunkedState::DataLf,
            (ChunkedState::DataLf, b'\n') => ChunkedState::SizeStart,
            (ChunkedState::TrailerStart, b'\r') => ChunkedState::EndLf,
            (
                ChunkedState::TrailerStart | ChunkedState::TrailerName | ChunkedState::TrailerValue,
                _,
            ) => self.trailer_byte(byte)?,
            (ChunkedState::TrailerLf, b'\n') => ChunkedState::TrailerStart,
            (ChunkedState::EndLf, b'\n') => ChunkedState::End,
            _ => return Err(Reject::Malformed(NO_CRLF)),
        })
    }

    /// A trailer field has the form of a header field (RFC 9112 section 5). Folding is refused.
    fn trailer_byte(&mut self, byte: u8) -> Result<ChunkedState, Reject> {
        self.ignore_byte()?;
        match (self.state, byte) {
            (ChunkedState::TrailerStart | ChunkedState::TrailerName, _) if is_token_byte(byte) => {
                Ok(ChunkedState::TrailerName)
            }
            (ChunkedState::TrailerName, b':') => Ok(ChunkedState::TrailerValue),
            (ChunkedState::TrailerValue, b'\r') => Ok(ChunkedState::TrailerLf),
            (ChunkedState::TrailerValue, _) if is_text(byte) => Ok(ChunkedState::TrailerValue),
            _ => Err(Reject::Malformed("a trailer field is malformed")),
        }
    }

    fn ignore_byte(&mut self) -> Result<(), Reject> {
        self.ignored += 1;
        if self.ignored > IGNORED_BYTES_MAX { Err(Reject::HeadTooLarge) } else { Ok(()) }
    }
}

impl Extension {
    /// The position after `byte`; `None` after the CR at the end of the line.
    fn after(self, byte: u8) -> Result<Option<Extension>, Reject> {
        use Extension::*;
        Ok(Some(match (self, byte) {
            (Name | Token | Unquoted, b'\r') => return Ok(None),
            (Semicolon | Name | NameEnd | Token | Unquoted, b';') => NameStart,
            (Semicolon | Token | Unquoted, b' ' | b'\t') => Semicolon,
            (Name | NameEnd, b' ' | b'\t') => NameEnd,
            (Name | NameEnd, b'=') => ValueStart,
            (NameStart | ValueStart, b' ' | b'\t') => self,
            (NameStart | Name, _) if is_token_byte(byte) => Name,
            (ValueStart, b'"') => Quoted,
            (ValueStart | Token, _) if is_token_byte(byte) => Token,
            (Quoted, b'"') => Unquoted,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, _) if is_text(byte) => Quoted,
            _ => return Err(Reject::Malformed("a chunk extension is malformed")),
        }))
    }
}

/// True if the last `left` bytes of a chunk and their CRLF are at the front of `input`; false if
/// some have not arrived yet.
fn ends_in_crlf(input: &[u8], left: u64) -> Result<bool, Reject> {
    let end = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    match &input[end..] {
        [] | [b'\r'] => Ok(false),
        [b'\r', b'\n', ..] => Ok(true),
        _ => Err(Reject::Malformed(NO_CRLF)),
    }
}

fn hex_digit(byte: u8) -> Result<u64, Reject> {
    (byte as char)
        .to_digit(16)
        .map(u64::from)
        .ok_or(Reject::Malformed("a chunk size is not a hexadecimal number"))
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The bytes of a field value and of a quoted string (RFC 9110 sections 5.5 and 5.6.4): tab is the
/// only control byte.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
