//! A request body as it streams in: by length, or chunked (RFC 9112 sections 6 and 7).
//!
//! The chunked decoder is our own because it must be incremental and strict: an empty size, a bare
//! LF, a size that overflows, an extension or a trailer field that is none are each a way to make
//! two parsers disagree.

use super::reject::Reject;
use crate::websocket::INPUT_KEPT_MAX;

/// Most bytes of chunk extensions, trailer fields and leading zeros in one body; they are read and
/// dropped.
const IGNORED_BYTES_MAX: usize = 8 << 10;

/// A chunk of up to so many bytes is taken when all of it is there, with its CRLF: so one whose
/// size is wrong is refused, and not answered with what it seemed to hold. A larger one streams.
const WHOLE_CHUNK_BYTES_MAX: u64 = 128;

// What is waited for has room in the input that a connection keeps.
const _: () = assert!(WHOLE_CHUNK_BYTES_MAX as usize + b"\r\n".len() <= INPUT_KEPT_MAX);

const NO_CRLF: &str = "a chunk does not end in CRLF";

/// No honest chunk has such a size. It is how another parser's number is made to overflow.
const SIZE_OVERFLOWS: &str = "a chunk size does not fit into 64 bits";

/// Where in its body a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// This many bytes are left; 0 = the body is complete.
    Length(u64),
    Chunked(Chunked),
}

/// One step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Bytes of input that are done with.
    pub(super) used: usize,
    /// Body bytes among them.
    pub(super) data: &'a [u8],
}

/// State of the chunked decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunked {
    state: State,
    /// Body bytes so far, for the limit.
    total: u64,
    /// Bytes of extensions, trailers and leading zeros so far.
    ignored: usize,
    /// The chunk is too large to be waited for as a whole.
    streams: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    SizeStart,
    Size(u64),
    /// In the extensions of a chunk of this size.
    Extension(u64, Extension),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line after the last chunk: a trailer field or the end.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// Where in the extensions of a chunk (RFC 9112 section 7.1.1). Blanks may stand around `;` and
/// `=`, and only there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// After blanks that only another extension may follow.
    Semicolon,
    NameStart,
    Name,
    /// After blanks behind a name.
    NameEnd,
    ValueStart,
    Token,
    Quoted,
    /// After a backslash in quotes.
    Escaped,
    /// After the closing quote.
    Unquoted,
}

impl Body {
    /// Whether all of `input`, which begins with what is left of this body, belongs to it, so that
    /// no other request is behind it. Where that cannot be known the answer is no.
    pub(super) fn reaches_over(&self, input: &[u8]) -> bool {
        match self {
            Body::Length(left) => input.len() as u64 <= *left,
            Body::Chunked(_) => input.is_empty(),
        }
    }

    pub(super) fn chunked() -> Body {
        Body::Chunked(Chunked { state: State::SizeStart, total: 0, ignored: 0, streams: false })
    }

    pub(super) fn is_complete(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.state == State::End,
        }
    }

    /// Takes the next piece from `input`: framing bytes and at most one run of body bytes.
    /// A piece with `used == 0` means that there is nothing more to take now.
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
        while used < input.len() && self.state != State::End {
            if let State::Data(left) = self.state {
                let rest = &input[used..];
                if !self.streams && !ends_in_crlf(rest, left)? {
                    break;
                }
                let take = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - take as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                return Ok(Piece { used: used + take, data: &rest[..take] });
            }
            self.state = self.framing_byte(input[used], bytes_max)?;
            used += 1;
        }
        Ok(Piece { used, data: &[] })
    }

    fn framing_byte(&mut self, byte: u8, bytes_max: u64) -> Result<State, Reject> {
        Ok(match (self.state, byte) {
            (State::SizeStart, _) => State::Size(hex_digit(byte)?),
            (State::Size(size), b'\r') => State::SizeLf(size),
            (State::Size(size), b';') => State::Extension(size, Extension::NameStart),
            (State::Size(size), b' ' | b'\t') => {
                self.ignore_byte()?;
                State::Extension(size, Extension::Semicolon)
            }
            (State::Size(size), _) => {
                let digit = hex_digit(byte)?;
                if size == 0 {
                    // A leading zero says nothing, so zeros without end must be bounded like that.
                    self.ignore_byte()?;
                }
                let size = size.checked_mul(16).ok_or(Reject::Malformed(SIZE_OVERFLOWS))? + digit;
                State::Size(size)
            }
            (State::Extension(..) | State::TrailerStart | State::TrailerValue, b'\n') => {
                return Err(Reject::Malformed("a bare LF in the chunked body"));
            }
            (State::Extension(size, extension), _) => {
                self.ignore_byte()?;
                match extension.after(byte)? {
                    Some(extension) => State::Extension(size, extension),
                    None => State::SizeLf(size),
                }
            }
            (State::SizeLf(0), b'\n') => State::TrailerStart,
            (State::SizeLf(size), b'\n') => {
                self.total =
                    self.total.checked_add(size).ok_or(Reject::Malformed(SIZE_OVERFLOWS))?;
                if self.total > bytes_max {
                    return Err(Reject::BodyTooLarge);
                }
                self.streams = size > WHOLE_CHUNK_BYTES_MAX;
                State::Data(size)
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => {
                self.trailer_byte(byte)?
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(Reject::Malformed(NO_CRLF)),
        })
    }

    /// A trailer field has the form of any field (RFC 9112 section 5), and is not folded.
    fn trailer_byte(&mut self, byte: u8) -> Result<State, Reject> {
        self.ignore_byte()?;
        match (self.state, byte) {
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_text(byte) => Ok(State::TrailerValue),
            _ => Err(Reject::Malformed("a trailer field is malformed")),
        }
    }

    fn ignore_byte(&mut self) -> Result<(), Reject> {
        self.ignored += 1;
        if self.ignored > IGNORED_BYTES_MAX { Err(Reject::HeadTooLarge) } else { Ok(()) }
    }
}

impl Extension {
    /// Where `byte` leads; `None` if it is the CR at the end of the line.
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

/// True when the data of a chunk, of which `left` bytes are still to be taken, and the CRLF behind
/// it are at the front of `input`; false when they have not all arrived yet.
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

/// `tchar` of RFC 9110 section 5.6.2: of what names are made.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field's value and a quoted string may hold (RFC 9110 sections 5.5 and 5.6.4): no control
/// byte but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
