//! A request body as it streams in: by length, or chunked (RFC 9112 sections 6 and 7).
//!
//! The chunked decoder is our own because it must be incremental and strict: an empty size, a bare
//! LF, space after the size and a size that overflows are each a way to make two parsers disagree.

use super::reject::Reject;

/// Most bytes of chunk extensions, trailer fields and leading zeros in one body; they are read and
/// dropped.
const IGNORED_BYTES_MAX: usize = 8 << 10;

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    SizeStart,
    Size(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line after the last chunk: a trailer field or the end.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
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
        Body::Chunked(Chunked { state: State::SizeStart, total: 0, ignored: 0 })
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
            (State::Size(size), b'\r') | (State::Extension(size), b'\r') => State::SizeLf(size),
            (State::Size(size), b';') => State::Extension(size),
            (State::Size(size), _) => {
                let digit = hex_digit(byte)?;
                if size == 0 {
                    // A leading zero says nothing, so zeros without end must be bounded like that.
                    self.ignore_byte()?;
                }
                let size = size.checked_mul(16).ok_or(Reject::BodyTooLarge)? + digit;
                State::Size(size)
            }
            (State::Extension(_) | State::Trailer, b'\n') => {
                return Err(Reject::Malformed("a bare LF in the chunked body"));
            }
            (State::Extension(size), _) => {
                self.ignore_byte()?;
                State::Extension(size)
            }
            (State::SizeLf(0), b'\n') => State::TrailerStart,
            (State::SizeLf(size), b'\n') => {
                self.total = self.total.checked_add(size).ok_or(Reject::BodyTooLarge)?;
                if self.total > bytes_max {
                    return Err(Reject::BodyTooLarge);
                }
                State::Data(size)
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, b'\n') => {
                return Err(Reject::Malformed("a bare LF in the chunked body"));
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, _) => {
                self.ignore_byte()?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(Reject::Malformed("a chunk does not end in CRLF")),
        })
    }

    fn ignore_byte(&mut self) -> Result<(), Reject> {
        self.ignored += 1;
        if self.ignored > IGNORED_BYTES_MAX { Err(Reject::HeadTooLarge) } else { Ok(()) }
    }
}

fn hex_digit(byte: u8) -> Result<u64, Reject> {
    (byte as char)
        .to_digit(16)
        .map(u64::from)
        .ok_or(Reject::Malformed("a chunk size is not a hexadecimal number"))
}
