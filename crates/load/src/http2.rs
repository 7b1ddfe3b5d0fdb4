//! The client's side of HTTP/2 (RFC 9113), with its own parser for frames.
//!
//! The first request of a connection, on stream 1, adds all fields of a request to the server's
//! header table. It is part of the greeting: verified and not counted. Each counted request is then
//! one short HEADERS frame of the same length.
//!
//! Replies come in any order and in any pieces. Bodies are not stored; only an incomplete frame of
//! another type is.

use std::ops::Range;

use crate::Method;
use crate::Plan;
use crate::codec::{Codec, Step, Wrong};
use crate::expected::{Bodies, Body, Expected};
use crate::hpack::{Decoder, Field, TABLE_BYTES};
use crate::http2_requests::{
    FIRST_WINDOW_BYTES, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, NUMBERS, PRIMING, Requests,
    WINDOW_BYTES, flag, frame_head, kind, setting, stream_of, window_update,
};

/// All fragments of one header block: as much as the HTTP/1.1 codec accepts for a head.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// The largest window (RFC 9113, section 6.9.1).
const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;
/// Names of errors, by code (RFC 9113, section 7).
const ERRORS: [&str; 14] = [
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

/// The head of a frame (RFC 9113, section 4.1).
#[derive(Debug, Clone, Copy)]
struct Frame {
    len: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn parse(head: &[u8; FRAME_HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *head;
        Frame {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The highest bit is reserved.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    content_length: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Data {
    /// Bytes of its payload that have not come, with padding and its length.
    left: usize,
    /// How many of those are padding; `None` before the octet with the length has come.
    padding: Option<usize>,
    /// The index of its stream in `streams`.
    place: usize,
    ends: bool,
}

struct Stream {
    number: u64,
    content_length: Option<u64>,
    body: Body,
    body_bytes: u64,
    /// Bytes that came since the stream's last WINDOW_UPDATE.
    used: u32,
}

pub(crate) struct Reader {
    /// The first number on this connection, once known.
    first: Option<u64>,
    answered: u64,
    primed: bool,
    settings_came: bool,
    settings_acknowledged: bool,
    /// The sum of all windows that the server has given to this connection.
    window: i64,
    /// Bytes that came since the connection's last WINDOW_UPDATE.
    used: u32,
    refused_from: Option<u64>,
    /// The beginning of an incomplete frame, without the payload of DATA.
    held: Vec<u8>,
    frame: Option<Frame>,
    data: Option<Data>,
    /// A header block that continues in CONTINUATION frames, and its HEADERS frame.
    block: Vec<u8>,
    continued: Option<Frame>,
    decoder: Decoder,
    /// The last block that did not change the table, and its meaning. Until a block changes the
    /// table, the same octets have the same meaning ([`crate::hpack::Block`]).
    known: Vec<u8>,
    known_head: Option<Head>,
    /// Incomplete replies: few, because servers rarely interleave small ones.
    streams: Vec<Stream>,
    owed: Vec<u8>,
}

pub(crate) struct Http2 {
    requests: Requests,
    to_head: bool,
    status: u16,
    depth: u32,
    bodies: Bodies,
}

impl Http2 {
    /// The requests of `plan`, whose replies must have the body `expected`.
    pub(crate) fn new(plan: &Plan, expected: Expected) -> Self {
        let requests = Requests::new(plan);
        Http2 {
            to_head: plan.method == Method::Head,
            status: plan.expected_status,
            depth: plan.depth(),
            bodies: Bodies::new(expected, requests.body_bytes()),
            requests,
        }
    }

    /// The last body, for [`Expected::Learn`].
    pub(crate) fn learnt(&self) -> Option<Expected> {
        self.bodies.learnt()
    }

    /// Handles a complete frame that is not DATA; returns the number of the reply that it
    /// completes.
    fn frame(
        &mut self,
        reader: &mut Reader,
        awaited: &Range<u64>,
        frame: Frame,
        payload: &[u8],
    ) -> Result<Option<u64>, Wrong> {
        match frame.kind {
            kind::HEADERS => {
                let fragment = fragment(frame, payload)?;
                if frame.has(flag::END_HEADERS) {
                    return self.headers(reader, awaited, frame, fragment);
                }
                reader.block.extend_from_slice(fragment);
                reader.continued = Some(frame);
            }
            kind::CONTINUATION => return self.continuation(reader, awaited, frame, payload),
            kind::SETTINGS => self.settings(reader, frame, payload)?,
            kind::PING => reader.ping(frame, payload)?,
            kind::GOAWAY => {
                reader.goaway(frame, payload)?;
                // A stream's number is one more than twice its request's, counted from 1.
                if self.requests.are_primed() && !reader.primed && payload.starts_with(&[0; 4]) {
                    return Err(Wrong("the server leaves before its first reply".to_owned()));
                }
            }
            kind::WINDOW_UPDATE => {
                let sent = self.sent_bytes(reader, awaited.end);
                reader.window_update(frame, payload, sent)?;
            }
            kind::RST_STREAM => reader.reset(frame, payload)?,
            kind::PUSH_PROMISE => {
                return Err(Wrong("the server pushes although that was forbidden".to_owned()));
            }
            // Deprecated and to be ignored (RFC 9113, section 5.3.2), as are unknown types (5.5).
            kind::PRIORITY => {}
            _ => {}
        }
        Ok(None)
    }

    fn continuation(
        &mut self,
        reader: &mut Reader,
        awaited: &Range<u64>,
        frame: Frame,
        payload: &[u8],
    ) -> Result<Option<u64>, Wrong> {
        let Some(began) = reader.continued else {
            return Err(Wrong("CONTINUATION without a header block".to_owned()));
        };
        reader.block.extend_from_slice(payload);
        if reader.block.len() > BLOCK_BYTES_MAX {
            return Err(Wrong(format!("a header block is longer than {BLOCK_BYTES_MAX} bytes")));
        }
        if !frame.has(flag::END_HEADERS) {
            return Ok(None);
        }
        reader.continued = None;
        let block = std::mem::take(&mut reader.block);
        self.headers(reader, awaited, began, &block)
    }

    /// A complete header block: a reply's head, or trailers.
    fn headers(
        &mut self,
        reader: &mut Reader,
        awaited: &Range<u64>,
        frame: Frame,
        block: &[u8],
    ) -> Result<Option<u64>, Wrong> {
        let ends = frame.has(flag::END_STREAM);
        let number = self.number(reader, awaited, frame)?;
        if let Some(place) = reader.place_of(number) {
            check_trailers(&reader.decode(block)?)?;
            if !ends {
                return Err(Wrong("a second head, or trailers without END_STREAM".to_owned()));
            }
            return self.conclude(reader, place).map(Some);
        }
        let head = reader.head(block)?;
        if head.status < 200 {
            return match ends {
                true => Err(Wrong(format!("no reply after status {}", head.status))),
                false => Ok(None),
            };
        }
        if head.status != self.status {
            return Err(Wrong(format!("status {}, expected {}", head.status, self.status)));
        }
        let content_length = head.content_length;
        let (body, body_bytes, used) = (Body::default(), 0, 0);
        reader.streams.push(Stream { number, content_length, body, body_bytes, used });
        match ends {
            true => self.conclude(reader, reader.streams.len() - 1).map(Some),
            false => Ok(None),
        }
    }

    /// The request that a frame's stream answers.
    fn number(&self, reader: &Reader, awaited: &Range<u64>, frame: Frame) -> Result<u64, Wrong> {
        let stream = frame.stream;
        if stream == 1 && self.requests.are_primed() && !reader.primed {
            return Ok(PRIMING);
        }
        let number = u64::from(stream.wrapping_sub(3)) / 2;
        let ours = stream >= 3 && stream % 2 == 1;
        match ours && awaited.contains(&number) {
            true => Ok(number),
            false => Err(Wrong(format!("a reply on stream {stream}, which has no request"))),
        }
    }

    fn begin_data(
        &mut self,
        reader: &mut Reader,
        awaited: &Range<u64>,
        frame: Frame,
    ) -> Result<(), Wrong> {
        let number = self.number(reader, awaited, frame)?;
        let Some(place) = reader.place_of(number) else {
            return Err(Wrong(format!("DATA without a head on stream {}", frame.stream)));
        };
        reader.account(place, frame)?;
        let padding = if frame.has(flag::PADDED) { None } else { Some(0) };
        let ends = frame.has(flag::END_STREAM);
        reader.data = Some(Data { left: frame.len, padding, place, ends });
        Ok(())
    }

    /// Takes a piece of a DATA frame; returns its length, and the reply that it completes.
    fn data(
        &mut self,
        connection: u32,
        reader: &mut Reader,
        mut data: Data,
        bytes: &[u8],
    ) -> Result<(usize, Option<u64>), Wrong> {
        let mut taken = 0;
        if data.padding.is_none() {
            match bytes.first() {
                _ if data.left == 0 => return Err(Wrong("PADDED without a length".to_owned())),
                None => return Ok((0, None)),
                Some(&padding) => data.padding = Some(usize::from(padding)),
            }
            (taken, data.left) = (1, data.left - 1);
        }
        let padding = data.padding.unwrap_or_default();
        if padding > data.left {
            return Err(Wrong("a DATA frame has more padding than payload".to_owned()));
        }
        let piece = &bytes[taken..][..(data.left - padding).min(bytes.len() - taken)];
        let stream = &mut reader.streams[data.place];
        if !piece.is_empty() {
            stream.body_bytes += piece.len() as u64;
            if self.to_head {
                return Err(Wrong("a body in the reply to HEAD".to_owned()));
            }
            self.bodies.compare((connection, stream.number), &mut stream.body, piece)?;
        }
        (taken, data.left) = (taken + piece.len(), data.left - piece.len());
        if data.left <= padding {
            // Only padding is left.
            let skipped = data.left.min(bytes.len() - taken);
            (taken, data.left) = (taken + skipped, data.left - skipped);
            data.padding = Some(data.left);
        }
        if data.left > 0 {
            reader.data = Some(data);
            return Ok((taken, None));
        }
        reader.data = None;
        let number = if data.ends { Some(self.conclude(reader, data.place)?) } else { None };
        Ok((taken, number))
    }

    /// A reply is complete: checks its body.
    fn conclude(&mut self, reader: &mut Reader, place: usize) -> Result<u64, Wrong> {
        let mut stream = reader.streams.swap_remove(place);
        if !self.to_head {
            if let Some(promised) = stream.content_length
                && promised != stream.body_bytes
                && self.status != 304
            {
                return Err(Wrong(format!(
                    "content-length is {promised}, the body has {} bytes",
                    stream.body_bytes
                )));
            }
            self.bodies.conclude(&mut stream.body)?;
        }
        if stream.number == PRIMING {
            reader.primed = true;
            self.check_window(reader)?;
        } else {
            reader.answered += 1;
        }
        Ok(stream.number)
    }

    /// The server's settings, or its acknowledgement of ours.
    fn settings(&self, reader: &mut Reader, frame: Frame, payload: &[u8]) -> Result<(), Wrong> {
        let (entries, rest) = payload.as_chunks::<6>();
        if frame.stream != 0 || !rest.is_empty() {
            return Err(malformed("SETTINGS"));
        }
        if frame.has(flag::ACK) {
            if !payload.is_empty() || std::mem::replace(&mut reader.settings_acknowledged, true) {
                return Err(Wrong("an acknowledgement of SETTINGS that were not sent".to_owned()));
            }
            return Ok(());
        }
        for &[a, b, value @ ..] in entries {
            self.setting(u16::from_be_bytes([a, b]), u32::from_be_bytes(value))?;
        }
        reader.settings_came = true;
        frame_head(&mut reader.owed, 0, kind::SETTINGS, flag::ACK, 0);
        Ok(())
    }

    fn setting(&self, name: u16, value: u32) -> Result<(), Wrong> {
        let (depth, body) = (self.depth, self.requests.body_bytes());
        let wrong = match name {
            setting::HEADER_TABLE_SIZE if value < TABLE_BYTES && self.requests.are_primed() => {
                format!(
                    "the server keeps {value} bytes of header table, and these requests need the \
                     usual {TABLE_BYTES}: ask with a connection per request"
                )
            }
            setting::ENABLE_PUSH if value != 0 => "ENABLE_PUSH from a server".to_owned(),
            setting::MAX_CONCURRENT_STREAMS if value < depth => {
                format!("the server allows {value} streams at once, and {depth} were asked for")
            }
            setting::INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW_BYTES_MAX => {
                format!("a window of {value} bytes")
            }
            setting::INITIAL_WINDOW_SIZE if (value as usize) < body => {
                format!("the server allows {value} bytes of a body, and requests have {body}")
            }
            setting::MAX_FRAME_SIZE if (value as usize) < FRAME_BYTES_MAX || value >= 1 << 24 => {
                format!("a largest frame of {value} bytes")
            }
            _ => return Ok(()),
        };
        Err(Wrong(wrong))
    }

    /// Body bytes that this connection has sent when request `end` is next.
    fn sent_bytes(&self, reader: &Reader, end: u64) -> i64 {
        let requests = end - reader.first.unwrap_or(end) + u64::from(self.requests.are_primed());
        (requests * self.requests.body_bytes() as u64) as i64
    }

    /// Whether bodies can always be sent. A server updates a window when half of it is used, so a
    /// body larger than the other half might wait for ever.
    fn check_window(&self, reader: &Reader) -> Result<(), Wrong> {
        let body = self.requests.body_bytes() as i64;
        match body > reader.window / 2 {
            true => Err(Wrong(format!(
                "the server lets {} bytes flow on a connection: bodies must be half of that at \
                 most, and these have {body}",
                reader.window
            ))),
            false => Ok(()),
        }
    }

    /// One frame head, or one step in a payload. Returns the number of bytes taken, and the reply
    /// that is complete now. `None`: more bytes are needed.
    fn step(
        &mut self,
        connection: u32,
        reader: &mut Reader,
        awaited: &Range<u64>,
        bytes: &[u8],
    ) -> Result<Option<(usize, Option<u64>)>, Wrong> {
        if let Some(data) = reader.data {
            let (taken, number) = self.data(connection, reader, data, bytes)?;
            return Ok((reader.data.is_none() || taken > 0).then_some((taken, number)));
        }
        let Some(frame) = reader.frame else {
            let Some((taken, frame)) = reader.frame_head(bytes)? else { return Ok(None) };
            match frame.kind {
                kind::DATA => self.begin_data(reader, awaited, frame)?,
                _ => reader.frame = Some(frame),
            }
            return Ok(Some((taken, None)));
        };
        if reader.held.is_empty() && bytes.len() >= frame.len {
            reader.frame = None;
            let number = self.frame(reader, awaited, frame, &bytes[..frame.len])?;
            return Ok(Some((frame.len, number)));
        }
        let taken = (frame.len - reader.held.len()).min(bytes.len());
        reader.held.extend_from_slice(&bytes[..taken]);
        if reader.held.len() < frame.len {
            return Ok(None);
        }
        reader.frame = None;
        let mut payload = std::mem::take(&mut reader.held);
        let number = self.frame(reader, awaited, frame, &payload)?;
        payload.clear();
        reader.held = payload;
        Ok(Some((taken, number)))
    }
}

impl Reader {
    /// Takes the head of the next frame; `None` if it is incomplete.
    fn frame_head(&mut self, bytes: &[u8]) -> Result<Option<(usize, Frame)>, Wrong> {
        let taken = (FRAME_HEAD_BYTES - self.held.len()).min(bytes.len());
        let frame = match bytes.first_chunk() {
            Some(head) if self.held.is_empty() => Frame::parse(head),
            _ => {
                self.held.extend_from_slice(&bytes[..taken]);
                let Some(head) = self.held.first_chunk() else { return Ok(None) };
                let frame = Frame::parse(head);
                self.held.clear();
                frame
            }
        };
        if !self.settings_came && (frame.kind != kind::SETTINGS || frame.has(flag::ACK)) {
            return Err(Wrong("the server does not begin with SETTINGS: no HTTP/2?".to_owned()));
        }
        if frame.len > FRAME_BYTES_MAX {
            return Err(Wrong(format!("a frame of {} bytes", frame.len)));
        }
        if let Some(began) = self.continued
            && (frame.kind != kind::CONTINUATION || frame.stream != began.stream)
        {
            return Err(Wrong("a header block is interrupted by another frame".to_owned()));
        }
        Ok(Some((taken, frame)))
    }

    /// The index of the reply to this request among the incomplete ones.
    fn place_of(&self, number: u64) -> Option<usize> {
        // From the youngest, because it is the one that usually continues.
        self.streams.iter().rposition(|stream| stream.number == number)
    }

    fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, Wrong> {
        let decoded = self.decoder.decode(block)?;
        if decoded.changes_table {
            self.known_head = None;
        }
        Ok(decoded.fields)
    }

    fn head(&mut self, block: &[u8]) -> Result<Head, Wrong> {
        if let Some(head) = self.known_head
            && block == self.known
        {
            return Ok(head);
        }
        let decoded = self.decoder.decode(block)?;
        let head = read_head(&decoded.fields)?;
        // A block that changed the table has another meaning next time.
        self.known_head = (!decoded.changes_table).then_some(head);
        self.known.clear();
        self.known.extend_from_slice(block);
        Ok(head)
    }

    /// Flow control of received bytes (RFC 9113, section 6.9): a DATA frame counts as a whole.
    fn account(&mut self, place: usize, frame: Frame) -> Result<(), Wrong> {
        let stream = &mut self.streams[place];
        stream.used += frame.len as u32;
        self.used += frame.len as u32;
        if self.used > WINDOW_BYTES || stream.used > WINDOW_BYTES {
            return Err(Wrong("more bytes of bodies than the window allows".to_owned()));
        }
        if self.used >= WINDOW_BYTES / 2 {
            window_update(&mut self.owed, 0, std::mem::take(&mut self.used));
        }
        if stream.used >= WINDOW_BYTES / 2 && !frame.has(flag::END_STREAM) {
            window_update(&mut self.owed, frame.stream, std::mem::take(&mut stream.used));
        }
        Ok(())
    }

    fn ping(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Wrong> {
        if frame.stream != 0 || payload.len() != 8 || frame.has(flag::ACK) {
            return Err(malformed("PING"));
        }
        frame_head(&mut self.owed, 8, kind::PING, flag::ACK, 0);
        self.owed.extend_from_slice(payload);
        Ok(())
    }

    /// The server is about to close, with or without an error (RFC 9113, section 6.8).
    fn goaway(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Wrong> {
        let (Some((last, rest)), 0) = (payload.split_first_chunk(), frame.stream) else {
            return Err(malformed("GOAWAY"));
        };
        let Some((code, debug)) = rest.split_first_chunk() else {
            return Err(malformed("GOAWAY"));
        };
        let (last, code) = (u32::from_be_bytes(*last) & 0x7fff_ffff, u32::from_be_bytes(*code));
        if code != 0 {
            let debug = String::from_utf8_lossy(debug);
            return Err(Wrong(format!(
                "the server ends the connection: {} {debug}",
                error_name(code)
            )));
        }
        let from = u64::from(last.saturating_sub(1)) / 2;
        self.refused_from = Some(self.refused_from.map_or(from, |earlier| earlier.min(from)));
        Ok(())
    }

    fn window_update(&mut self, frame: Frame, payload: &[u8], sent: i64) -> Result<(), Wrong> {
        let Ok(increment) = payload.try_into() else { return Err(malformed("WINDOW_UPDATE")) };
        let increment = i64::from(u32::from_be_bytes(increment) & 0x7fff_ffff);
        if increment == 0 {
            return Err(Wrong("a WINDOW_UPDATE of 0".to_owned()));
        }
        // Bodies fit into a stream's first window.
        if frame.stream == 0 {
            self.window += increment;
            if self.window - sent > WINDOW_BYTES_MAX {
                return Err(Wrong("a window of more than 2^31-1 bytes".to_owned()));
            }
        }
        Ok(())
    }

    /// A stream was reset. After a complete reply NO_ERROR means that the rest of the request is
    /// not needed (RFC 9113, section 8.1).
    fn reset(&self, frame: Frame, payload: &[u8]) -> Result<(), Wrong> {
        let (Ok(code), 1..) = (payload.try_into(), frame.stream) else {
            return Err(malformed("RST_STREAM"));
        };
        let (code, stream) = (u32::from_be_bytes(code), frame.stream);
        let arriving = self.streams.iter().any(|one| match one.number {
            PRIMING => stream == 1,
            number => stream_of(number) == stream,
        });
        match code {
            0 if !arriving => Ok(()),
            _ => Err(Wrong(format!("the server resets stream {stream}: {}", error_name(code)))),
        }
    }

    /// Whether the server closes now: it has said so, and no reply is due.
    fn is_last(&self, awaited: &Range<u64>) -> bool {
        self.refused_from.is_some_and(|refused| {
            let first = self.first.unwrap_or(awaited.start);
            awaited.end.min(refused).saturating_sub(first) <= self.answered
        })
    }
}

fn malformed(name: &str) -> Wrong {
    Wrong(format!("a malformed {name} frame"))
}

fn error_name(code: u32) -> String {
    match ERRORS.get(code as usize) {
        Some(name) => (*name).to_owned(),
        None => format!("error {code}"),
    }
}

/// The fragment of a header block in a HEADERS frame, without padding and priority (RFC 9113,
/// section 6.2).
fn fragment(frame: Frame, payload: &[u8]) -> Result<&[u8], Wrong> {
    let (padding, mut rest) = match payload.split_first() {
        _ if !frame.has(flag::PADDED) => (0, payload),
        Some((&padding, rest)) => (usize::from(padding), rest),
        None => return Err(malformed("HEADERS")),
    };
    if frame.has(flag::PRIORITY) {
        rest = rest.get(5..).ok_or_else(|| malformed("HEADERS"))?;
    }
    let len = rest.len().checked_sub(padding);
    len.map(|len| &rest[..len]).ok_or_else(|| malformed("HEADERS"))
}

/// The fields of a reply's head (RFC 9113, sections 8.2 and 8.3).
fn read_head(fields: &[Field]) -> Result<Head, Wrong> {
    let Some(((b":status", status), rest)) =
        fields.split_first().map(|((name, value), rest)| ((name.as_slice(), value), rest))
    else {
        return Err(Wrong("a reply does not begin with :status".to_owned()));
    };
    let status = match status.as_slice() {
        &[a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        _ => return Err(Wrong("an invalid :status".to_owned())),
    };
    check_trailers(rest)?;
    let mut content_length = None;
    for (_, value) in rest.iter().filter(|(name, _)| name == b"content-length") {
        let found = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'));
        let found: Option<u64> = found.and_then(|text| text.parse().ok());
        if found.is_none() || content_length.is_some() {
            return Err(Wrong("content-length is not one number".to_owned()));
        }
        content_length = found;
    }
    Ok(Head { status, content_length })
}

/// Refuses fields that no message may have, and pseudo-header fields.
fn check_trailers(fields: &[Field]) -> Result<(), Wrong> {
    const FORBIDDEN: [&[u8]; 5] =
        [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
    let bad = fields.iter().find(|(name, _)| {
        name.is_empty()
            || name[0] == b':'
            || name.iter().any(|byte| byte.is_ascii_uppercase() || *byte <= b' ')
            || FORBIDDEN.contains(&name.as_slice())
    });
    match bad {
        None => Ok(()),
        Some((name, _)) => Err(Wrong(format!(
            "the field {:?} must not stand there",
            String::from_utf8_lossy(name)
        ))),
    }
}

impl Codec for Http2 {
    type Reader = Reader;

    fn reader(&self) -> Reader {
        Reader {
            first: None,
            answered: 0,
            primed: false,
            settings_came: false,
            settings_acknowledged: false,
            window: i64::from(FIRST_WINDOW_BYTES),
            used: 0,
            refused_from: None,
            held: Vec::new(),
            frame: None,
            data: None,
            block: Vec::new(),
            continued: None,
            decoder: Decoder::new(),
            known: Vec::new(),
            known_head: None,
            streams: Vec::new(),
            owed: Vec::new(),
        }
    }

    fn greet(&mut self, connection: u32, _: &mut Reader, out: &mut Vec<u8>) {
        self.requests.greet(connection, out);
    }

    /// A connection for one request does not wait: a client may send before it has the server's
    /// settings (RFC 9113, section 3.4).
    fn is_open(&self, reader: &Reader) -> bool {
        !self.requests.are_primed() || (reader.settings_came && reader.primed)
    }

    fn owed(&mut self, reader: &mut Reader, out: &mut Vec<u8>) {
        out.append(&mut reader.owed);
    }

    fn credit(&self, reader: &Reader, next: u64) -> u32 {
        let body = self.requests.body_bytes() as i64;
        if body == 0 {
            return u32::MAX;
        }
        let room = reader.window - self.sent_bytes(reader, next);
        u32::try_from(room.max(0) / body).unwrap_or(u32::MAX)
    }

    fn refused_from(&self, reader: &Reader) -> Option<u64> {
        reader.refused_from
    }

    fn request_bytes(&self) -> usize {
        self.requests.request_bytes()
    }

    fn outgoing(&mut self, connection: u32, number: u64, requests: u32, offset: usize) -> &[u8] {
        self.requests.outgoing(connection, number, requests, offset)
    }

    fn incoming(
        &mut self,
        connection: u32,
        reader: &mut Reader,
        awaited: Range<u64>,
        bytes: &[u8],
    ) -> Result<Step, Wrong> {
        reader.first.get_or_insert(awaited.start);
        if awaited.end > NUMBERS {
            return Err(Wrong("the numbers of streams are used up (2^30 requests)".to_owned()));
        }
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let Some((taken, number)) = self.step(connection, reader, &awaited, rest)? else {
                return Ok(Step::More);
            };
            consumed += taken;
            if let Some(number) = number.filter(|&number| number != PRIMING) {
                let last = reader.is_last(&awaited);
                return Ok(Step::Reply { number, consumed, last });
            }
        }
    }

    fn verification(&self) -> String {
        match self.to_head {
            true => format!("status {} and fields of the head", self.status),
            false => self.bodies.verification(self.status),
        }
    }
}

#[cfg(test)]
#[path = "http2_tests.rs"]
mod tests;
