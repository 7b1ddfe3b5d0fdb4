//! The client's side of HTTP/1.1 (RFC 9112), with its own parser for responses.
//!
//! The parser splits a byte stream into heads, pieces of bodies and ends, however the network has
//! split it. Bodies are not stored; `Http` compares them as they pass.

use std::ops::Range;

use crate::codec::{Codec, Step, Wrong, unasked};
use crate::expected::{Bodies, Body, Expected};
use crate::payload::Wire;
use crate::{Method, Plan};

/// A larger head is an error. Servers send some hundred bytes; curl accepts 64 KiB for one header
/// line.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Enough header fields for nearly all replies. Heads with more are parsed again with room for the
/// maximum.
const FIELDS_USUAL: usize = 64;
/// The shortest field is a name of one byte, a colon and a line end.
const FIELD_BYTES_MIN: usize = 3;
/// Chunk sizes: 16 hexadecimal digits are 64 bits; extensions (RFC 9112, 7.1.1) may have the rest.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    framing: Framing,
    /// The server closes after this response.
    pub(crate) close: bool,
}

/// The result of a parse step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// All bytes were taken; more are needed.
    More,
    Head(Head),
    /// A piece of the body without framing.
    Body(&'a [u8]),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Fixed(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    End,
}

/// The last head parsed on this thread, and its meaning. All replies of one second usually have the
/// same head, and comparing 150 bytes is cheaper than parsing them.
#[derive(Debug, Default)]
pub(crate) struct LastHead {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Debug)]
pub(crate) struct ResponseReader {
    state: State,
    /// The beginning of an incomplete head or line.
    held: Vec<u8>,
}

impl ResponseReader {
    pub(crate) fn new() -> Self {
        ResponseReader { state: State::Head, held: Vec::new() }
    }

    /// The next part of `bytes`, and how many bytes it has. `to_head`: the request was HEAD. Call
    /// it with the rest until it returns [`Event::More`]. [`Event::End`] may take no bytes.
    pub(crate) fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        to_head: bool,
        last: &mut LastHead,
    ) -> Result<(usize, Event<'a>), Wrong> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            if self.state == State::End {
                self.state = State::Head;
                return Ok((taken, Event::End));
            }
            if rest.is_empty() {
                return Ok((taken, Event::More));
            }
            match self.state {
                State::Head => {
                    let (used, head) = self.read_head(rest, to_head, last)?;
                    taken += used;
                    if let Some(head) = head {
                        return Ok((taken, Event::Head(head)));
                    }
                }
                State::Fixed(left) => {
                    let (used, left) = split(rest, left);
                    self.state = if left == 0 { State::End } else { State::Fixed(left) };
                    return Ok((taken + used, Event::Body(&rest[..used])));
                }
                State::Chunk(left) => {
                    let (used, left) = split(rest, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok((taken + used, Event::Body(&rest[..used])));
                }
                State::UntilClose => return Ok((bytes.len(), Event::Body(rest))),
                State::ChunkSize | State::ChunkEnd | State::Trailer => {
                    taken += self.read_line(rest)?;
                }
                State::End => {}
            }
        }
    }

    /// The server has closed. Returns whether that ends the body: not for a head or a body with a
    /// length.
    pub(crate) fn end(&mut self) -> bool {
        let ended = self.state == State::UntilClose;
        if ended {
            self.state = State::Head;
        }
        ended
    }

    /// Whether no byte of a response has arrived yet.
    #[cfg(test)]
    fn is_at_start(&self) -> bool {
        self.state == State::Head && self.held.is_empty()
    }

    /// Takes bytes of a head; returns it if it is complete and final.
    fn read_head(
        &mut self,
        bytes: &[u8],
        to_head: bool,
        last: &mut LastHead,
    ) -> Result<(usize, Option<Head>), Wrong> {
        if let (true, Some(head)) = (self.held.is_empty(), last.head)
            && bytes.starts_with(&last.bytes)
        {
            self.begin_body(head, to_head);
            return Ok((last.bytes.len(), Some(head)));
        }
        let held = self.held.len();
        let room = (HEAD_BYTES_MAX - held).min(bytes.len());
        let parsed = if held == 0 {
            parse_head(&bytes[..room])?
        } else {
            self.held.extend_from_slice(&bytes[..room]);
            parse_head(&self.held)?
        };
        let Some((head, len)) = parsed else {
            if held == 0 {
                self.held.extend_from_slice(&bytes[..room]);
            }
            if self.held.len() >= HEAD_BYTES_MAX {
                return Err(Wrong(format!("the head is longer than {HEAD_BYTES_MAX} bytes")));
            }
            return Ok((room, None));
        };
        let used = len - held;
        if head.status >= 200 {
            last.bytes.clear();
            last.bytes.extend_from_slice(if held == 0 { &bytes[..len] } else { &self.held[..len] });
            last.head = Some(head);
        }
        self.held = Vec::new();
        if head.status < 200 {
            return Ok((used, None));
        }
        self.begin_body(head, to_head);
        Ok((used, Some(head)))
    }

    fn begin_body(&mut self, head: Head, to_head: bool) {
        self.state = match head.framing {
            _ if to_head || head.status == 204 || head.status == 304 => State::End,
            Framing::Length(0) => State::End,
            Framing::Length(len) => State::Fixed(len),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
    }

    /// Takes bytes of a line of the chunked coding, and acts on the line when it is complete.
    fn read_line(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(bytes.len(), |end| end + 1);
        self.held.extend_from_slice(&bytes[..used]);
        if self.held.len() > CHUNK_LINE_BYTES_MAX {
            return Err(Wrong("a line of the chunked coding is too long".to_owned()));
        }
        if end.is_none() {
            return Ok(used);
        }
        let Some(line) = self.held.strip_suffix(b"\r\n") else {
            return Err(Wrong("a line of the chunked coding does not end with CR LF".to_owned()));
        };
        self.state = match self.state {
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::ChunkEnd => {
                return Err(Wrong("a chunk is longer than its size says".to_owned()));
            }
            State::Trailer if line.is_empty() => State::End,
            State::Trailer => State::Trailer,
            _ => match chunk_size(line)? {
                0 => State::Trailer,
                size => State::Chunk(size),
            },
        };
        self.held.clear();
        Ok(used)
    }
}

/// How many of `bytes` belong to the `left` bytes of a body, and how many are left then.
fn split(bytes: &[u8], left: u64) -> (usize, u64) {
    let used = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (used, left - used as u64)
}

/// The size in a chunk's first line (RFC 9112, section 7.1).
fn chunk_size(line: &[u8]) -> Result<u64, Wrong> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let size = std::str::from_utf8(digits)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|text| u64::from_str_radix(text, 16).ok());
    size.ok_or_else(|| Wrong("a chunk has no size that could be read".to_owned()))
}

/// Parses the response head at the start of `bytes`; returns the result of `read`, and its length.
/// `None` if it is incomplete. A folded field is one field, as RFC 9112, section 5.2, requires of a
/// user agent.
pub(crate) fn read_response<T>(
    bytes: &[u8],
    read: impl FnOnce(&httparse::Response<'_, '_>) -> Result<T, Wrong>,
) -> Result<Option<(T, usize)>, Wrong> {
    let mut usual = [httparse::EMPTY_HEADER; FIELDS_USUAL];
    let mut config = httparse::ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true);
    let mut response = httparse::Response::new(&mut usual);
    let mut parsed = config.parse_response(&mut response, bytes);
    let mut many;
    if parsed == Err(httparse::Error::TooManyHeaders) {
        many = vec![httparse::EMPTY_HEADER; bytes.len() / FIELD_BYTES_MIN];
        response = httparse::Response::new(&mut many);
        parsed = config.parse_response(&mut response, bytes);
    }
    match parsed {
        Ok(httparse::Status::Complete(len)) => Ok(Some((read(&response)?, len))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(Wrong(format!("the head is not HTTP/1.1: {error}"))),
    }
}

/// The head at the start of `bytes` and its length; `None` if it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Wrong> {
    read_response(bytes, |response| {
        let status = response.code.unwrap_or_default();
        if status == 101 {
            return Err(Wrong(
                "the server switched to a protocol that was not requested".to_owned(),
            ));
        }
        let (mut length, mut coding, mut close, mut keep_alive) = (None, None, false, false);
        for field in response.headers.iter() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let value = content_length(field.value)?;
                if length.is_some_and(|earlier| earlier != value) {
                    return Err(Wrong("two Content-Length fields disagree".to_owned()));
                }
                length = Some(value);
            } else if is("transfer-encoding") {
                coding = items(field.value).last().or(coding);
            } else if is("connection") {
                close |= has_token(field.value, b"close");
                keep_alive |= has_token(field.value, b"keep-alive");
            }
        }
        let framing = match (coding, length) {
            (Some(_), Some(_)) => {
                return Err(Wrong(
                    "both Content-Length and Transfer-Encoding are given".to_owned(),
                ));
            }
            (Some(last), None) if last.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length),
            // If the last coding is not chunked, the end of the connection ends the body.
            (Some(_), None) | (None, None) => Framing::UntilClose,
        };
        // HTTP/1.0 has no Transfer-Encoding: the rest of the stream is not usable (RFC 9112,
        // section 6.1).
        let old = response.version == Some(0) && (!keep_alive || coding.is_some());
        Ok(Head { status, framing, close: close || old })
    })
}

/// The value of Content-Length (RFC 9110, section 8.6). A list of equal numbers is that number (RFC
/// 9112, section 6.3).
fn content_length(value: &[u8]) -> Result<u64, Wrong> {
    let number = |item: &[u8]| -> Option<u64> {
        let text = std::str::from_utf8(item).ok()?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    let mut numbers = value.split(|&byte| byte == b',').map(|item| number(item.trim_ascii()));
    let first = numbers.next().flatten();
    first
        .filter(|_| numbers.all(|number| number == first))
        .ok_or_else(|| Wrong("Content-Length is not a number".to_owned()))
}

/// The items of a comma-separated list, without empty ones (RFC 9110, section 5.6.1).
fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Whether a comma-separated list has a token, in any case.
fn has_token(list: &[u8], token: &[u8]) -> bool {
    items(list).any(|item| item.eq_ignore_ascii_case(token))
}

pub(crate) struct Reader {
    response: ResponseReader,
    close: bool,
    answered: bool,
    /// The server has ended an idle connection with a message, before or across a request.
    ended: bool,
    body: Body,
}

impl Reader {
    /// Whether the reply says that the connection was idle for too long, and crossed the request
    /// that it seems to answer: RFC 9112, section 9.5, then has the request sent again. On a
    /// connection without a reply no idle time has passed, so 408 is an ordinary reply there;
    /// otherwise a server that sends only 408 would seem to be right.
    fn is_crossed(&self, head: &Head) -> bool {
        self.answered && head.close && head.status == 408
    }
}

pub(crate) struct Http {
    wire: Wire,
    to_head: bool,
    one_per_connection: bool,
    status: u16,
    bodies: Bodies,
    last_head: LastHead,
}

impl Http {
    /// The requests of `plan`, whose replies must have the body `expected`.
    pub(crate) fn new(plan: &Plan, expected: Expected) -> Self {
        let payload_bytes = if plan.method == Method::Post { plan.payload_bytes } else { 0 };
        let head = request_head(plan, plan.reconnect);
        Http {
            wire: Wire::new(head.as_bytes(), payload_bytes, plan.pipelining),
            to_head: plan.method == Method::Head,
            one_per_connection: plan.reconnect,
            status: plan.expected_status,
            bodies: Bodies::new(expected, payload_bytes),
            last_head: LastHead::default(),
        }
    }

    /// The last body, for [`Expected::Learn`].
    pub(crate) fn learnt(&self) -> Option<Expected> {
        self.bodies.learnt()
    }

    /// Bytes came after every request was answered. A server may say in this way that it ends a
    /// connection that was idle for too long (408, RFC 9110, section 15.5.9); only its head is
    /// read.
    fn unasked(&mut self, reader: &mut Reader, bytes: &[u8]) -> Result<Step, Wrong> {
        if reader.ended || bytes.is_empty() {
            return Ok(Step::More);
        }
        match reader.response.read(bytes, false, &mut self.last_head) {
            Ok((_, Event::More)) => Ok(Step::More),
            Ok((_, Event::Head(Head { status: 408, .. }))) => {
                reader.ended = true;
                Ok(Step::More)
            }
            _ => Err(unasked(bytes)),
        }
    }

    /// Whether a complete body is right; a reply to HEAD has none.
    fn conclude(&mut self, reader: &mut Reader) -> Result<(), Wrong> {
        if self.to_head { Ok(()) } else { self.bodies.conclude(&mut reader.body) }
    }
}

/// The head of each request of `plan`. `close` asks the server to close after its reply, so that
/// the port is in TIME_WAIT on the server's side (RFC 9293, section 3.6.1).
pub(crate) fn request_head(plan: &Plan, close: bool) -> String {
    let method = plan.method.as_str();
    let mut head =
        format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", plan.target.path, plan.target.authority);
    for (name, value) in &plan.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if plan.method == Method::Post {
        head.push_str(&format!("Content-Length: {}\r\n", plan.payload_bytes));
    }
    if close {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head
}

impl Codec for Http {
    type Reader = Reader;

    fn reader(&self) -> Reader {
        Reader {
            response: ResponseReader::new(),
            close: false,
            answered: false,
            ended: false,
            body: Body::default(),
        }
    }

    fn request_bytes(&self) -> usize {
        self.wire.request_bytes()
    }

    fn outgoing(&mut self, connection: u32, number: u64, requests: u32, offset: usize) -> &[u8] {
        self.wire.outgoing(connection, number, requests, offset)
    }

    fn incoming(
        &mut self,
        connection: u32,
        reader: &mut Reader,
        awaited: Range<u64>,
        bytes: &[u8],
    ) -> Result<Step, Wrong> {
        if awaited.is_empty() {
            return self.unasked(reader, bytes);
        }
        let number = awaited.start;
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let (used, event) = reader.response.read(rest, self.to_head, &mut self.last_head)?;
            consumed += used;
            match event {
                Event::More => return Ok(Step::More),
                Event::Head(head) if head.status != self.status && reader.is_crossed(&head) => {
                    reader.ended = true;
                    return Ok(Step::More);
                }
                Event::Head(head) if head.status != self.status => {
                    let status = self.status;
                    return Err(Wrong(format!("status {}, expected {status}", head.status)));
                }
                Event::Head(head) => reader.close = head.close || self.one_per_connection,
                Event::Body(piece) => {
                    self.bodies.compare((connection, number), &mut reader.body, piece)?;
                }
                Event::End => {
                    self.conclude(reader)?;
                    reader.answered = true;
                    return Ok(Step::Reply { number, consumed, last: reader.close });
                }
            }
        }
    }

    fn end(&mut self, _: u32, reader: &mut Reader, _: u64) -> Result<bool, Wrong> {
        let ended = reader.response.end();
        if ended {
            self.conclude(reader)?;
        }
        Ok(ended)
    }

    fn refused_from(&self, reader: &Reader) -> Option<u64> {
        reader.ended.then_some(0)
    }

    fn server_closes_first(&self) -> bool {
        true
    }

    fn verification(&self) -> String {
        match self.to_head {
            true => format!("status {} and framing of the head", self.status),
            false => self.bodies.verification(self.status),
        }
    }
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
