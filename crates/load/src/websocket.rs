//! The client's side of WebSocket (RFC 6455), with its own frame parser and writer: binary messages
//! of one length. Each comes back, or in a fan-out reaches all other connections.

use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use record::{Protocol, SplitMix64};
use sha1::{Digest, Sha1};

use crate::Plan;
use crate::codec::{Codec, Step, Wrong, unasked};
use crate::http1::read_response;
use crate::payload::{Mirror, Ready, describe_difference, filler, stamps};

/// The server appends this to the client's key before it hashes it (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The answer to the upgrade: as much as the HTTP/1.1 codec accepts for a head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// For keys and masks: a plan has no seed for them, and all runs should send the same bytes.
const SEED: u64 = 0x6455;

/// The highest bits of a frame's first two octets (RFC 6455, section 5.2).
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// Kinds of frames (RFC 6455, section 5.2).
mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    opcode: u8,
    ends: bool,
    /// Bytes of payload that have not come.
    left: u64,
}

impl Frame {
    /// The head at the start of `bytes`, and its length; `None` if it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>, Wrong> {
        let Some(&[first, second]) = bytes.first_chunk() else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Wrong("a frame with reserved bits".to_owned()));
        }
        if second & MASKED != 0 {
            return Err(Wrong("a masked frame from a server (RFC 6455, 5.1)".to_owned()));
        }
        let (left, used) = match second {
            126 => match bytes[2..].first_chunk() {
                Some(len) => (u64::from(u16::from_be_bytes(*len)), 4),
                None => return Ok(None),
            },
            127 => match bytes[2..].first_chunk() {
                Some(len) => (u64::from_be_bytes(*len), 10),
                None => return Ok(None),
            },
            len => (u64::from(len), 2),
        };
        let shortest = head_bytes(left);
        if used != shortest || left > i64::MAX as u64 {
            return Err(Wrong(format!("a length of {left} in a head of {used} bytes")));
        }
        let (opcode, ends) = (first & 0x0f, first & FIN != 0);
        if opcode >= opcode::CLOSE && (!ends || left > CONTROL_BYTES_MAX) {
            return Err(Wrong("a control frame that is too long or fragmented".to_owned()));
        }
        Ok(Some((Frame { opcode, ends, left }, used)))
    }
}

/// Length of the head of an unmasked frame.
fn head_bytes(payload_bytes: u64) -> usize {
    match payload_bytes {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => 10,
    }
}

fn frame(out: &mut Vec<u8>, opcode: u8, mask: [u8; 4], payload: &[u8]) {
    out.push(FIN | opcode);
    match head_bytes(payload.len() as u64) {
        2 => out.push(MASKED | payload.len() as u8),
        4 => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Messages ready to be sent, masked; only stamps are filled in.
///
/// Each place keeps its masking key. A new key for each frame protects proxies from bytes chosen by
/// a page's script (RFC 6455, section 10.3). There is no script here, and the server's work is the
/// same.
struct Wire {
    ready: Ready,
    /// Position of the payload in a frame.
    payload_at: usize,
}

impl Wire {
    fn new(payload_bytes: usize, depth: u32, random: &mut SplitMix64) -> Self {
        let payload_at = head_bytes(payload_bytes as u64) + 4;
        let payload = filler(payload_bytes);
        let ready = Ready::new(payload_at + payload_bytes, depth, |bytes| {
            frame(bytes, opcode::BINARY, mask(random), &payload);
        });
        Wire { ready, payload_at }
    }

    /// See [`Ready::outgoing`].
    fn outgoing(&mut self, connection: u32, number: u64, messages: u32, offset: usize) -> &[u8] {
        let payload_at = self.payload_at;
        self.ready.outgoing((connection, number), messages, offset, |message, number| {
            let (head, payload) = message.split_at_mut(payload_at);
            stamp_masked(head, payload, connection, number);
        })
    }
}

/// Stamps a payload, masked with the key at the end of its frame's head. Stamps and mask begin at
/// multiples of four.
fn stamp_masked(head: &[u8], payload: &mut [u8], connection: u32, number: u64) {
    let Some(&[a, b, c, d]) = head.last_chunk() else { return };
    let mask = u64::from_le_bytes([a, b, c, d, a, b, c, d]);
    for (at, tag) in stamps(payload.len(), connection, number) {
        let tag = (u64::from_le_bytes(tag) ^ mask).to_le_bytes();
        let len = tag.len().min(payload.len() - at);
        payload[at..at + len].copy_from_slice(&tag[..len]);
    }
}

/// A masking key.
fn mask(random: &mut SplitMix64) -> [u8; 4] {
    (random.next_u64() as u32).to_be_bytes()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The answer to the upgrade is awaited.
    Opening,
    Open,
    /// The server has sent Close.
    Closed,
}

pub(crate) struct Reader {
    state: State,
    /// The required value of `Sec-WebSocket-Accept`.
    accept: String,
    /// The beginning of an incomplete answer or frame head.
    held: Vec<u8>,
    frame: Option<Frame>,
    /// The payload of an incomplete control frame.
    control: Vec<u8>,
    /// Bytes of the current message that have come; `None` between messages.
    position: Option<usize>,
    said_farewell: bool,
    owed: Vec<u8>,
}

pub(crate) struct WebSocket {
    upgrade: String,
    wire: Wire,
    mirror: Mirror,
    random: SplitMix64,
    fan_out: bool,
}

impl WebSocket {
    pub(crate) fn new(plan: &Plan) -> Self {
        debug_assert_eq!(plan.target.protocol, Protocol::WebSocket);
        let mut random = SplitMix64::new(SEED);
        WebSocket {
            upgrade: upgrade(plan),
            wire: Wire::new(plan.payload_bytes, plan.depth(), &mut random),
            mirror: Mirror::new(plan.payload_bytes),
            random,
            fan_out: plan.fan_out,
        }
    }

    /// Takes bytes of the answer to the upgrade; returns how many, and whether it is complete.
    fn open(&self, reader: &mut Reader, bytes: &[u8]) -> Result<(usize, bool), Wrong> {
        let held = reader.held.len();
        reader.held.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX - held)]);
        match read_answer(&reader.held, &reader.accept)? {
            Some(len) => {
                reader.held.clear();
                reader.state = State::Open;
                Ok((len - held, true))
            }
            None if reader.held.len() < HEAD_BYTES_MAX => Ok((bytes.len(), false)),
            None => Err(Wrong(format!("the head is longer than {HEAD_BYTES_MAX} bytes"))),
        }
    }

    /// Takes bytes of a data frame; returns how many, and whether they complete a message.
    fn message(
        &mut self,
        at: (u32, u64),
        reader: &mut Reader,
        frame: Frame,
        bytes: &[u8],
    ) -> Result<(usize, bool), Wrong> {
        let from = reader.position.unwrap_or_default();
        let expected = &self.mirror.payload(at.0, at.1)[from..];
        if frame.left > expected.len() as u64 {
            let len = self.mirror.len();
            return Err(Wrong(format!("the body has more than the expected {len} bytes")));
        }
        let taken = bytes.len().min(frame.left as usize);
        let (found, expected) = (&bytes[..taken], &expected[..taken]);
        if found != expected {
            return Err(Wrong(describe_difference(from as u64, found, expected)));
        }
        let (position, left) = (from + taken, frame.left - taken as u64);
        if left > 0 {
            reader.position = Some(position);
            reader.frame = Some(Frame { left, ..frame });
            return Ok((taken, false));
        }
        reader.frame = None;
        reader.position = (!frame.ends).then_some(position);
        if frame.ends && position < self.mirror.len() {
            let len = self.mirror.len();
            return Err(Wrong(format!("the body has {position} bytes, expected {len}")));
        }
        Ok((taken, frame.ends))
    }

    fn control(&mut self, reader: &mut Reader, opcode: u8, payload: &[u8]) -> Result<(), Wrong> {
        match opcode {
            opcode::PING => {
                frame(&mut reader.owed, opcode::PONG, mask(&mut self.random), payload);
                Ok(())
            }
            // Unsolicited ones are allowed (RFC 6455, section 5.5.3).
            opcode::PONG => Ok(()),
            _ => {
                check_close(payload)?;
                reader.state = State::Closed;
                if !reader.said_farewell {
                    let code = &payload[..payload.len().min(2)];
                    frame(&mut reader.owed, opcode::CLOSE, mask(&mut self.random), code);
                }
                Ok(())
            }
        }
    }

    /// Takes the head of the next frame; `None` if it is incomplete.
    fn begin(
        &self,
        reader: &mut Reader,
        awaited: &Range<u64>,
        bytes: &[u8],
    ) -> Result<Option<usize>, Wrong> {
        let held = reader.held.len();
        let parsed = if held == 0 {
            Frame::parse(bytes)?
        } else {
            // The longest head, with 64 bits of length, has ten bytes.
            reader.held.extend_from_slice(&bytes[..bytes.len().min(10 - held)]);
            Frame::parse(&reader.held)?
        };
        let Some((frame, used)) = parsed else {
            if held == 0 {
                reader.held.extend_from_slice(bytes);
            }
            return Ok(None);
        };
        reader.held.clear();
        let began = reader.position.is_some();
        match frame.opcode {
            opcode::CLOSE | opcode::PING | opcode::PONG => reader.control.clear(),
            opcode::CONTINUATION if began => {}
            opcode::BINARY if !began && awaited.is_empty() => return Err(unasked(bytes)),
            opcode::BINARY if !began => reader.position = Some(0),
            opcode::CONTINUATION => {
                return Err(Wrong("a continuation frame without a message".to_owned()));
            }
            opcode::BINARY | opcode::TEXT if began => {
                return Err(Wrong("a message begins inside another".to_owned()));
            }
            opcode::TEXT => return Err(Wrong("a text for a binary message".to_owned())),
            opcode => return Err(Wrong(format!("a frame of the unknown kind {opcode}"))),
        }
        reader.frame = Some(frame);
        Ok(Some(used - held))
    }

    /// One step: returns the number of bytes taken, and whether a message is complete. `None`: more
    /// bytes are needed.
    fn step(
        &mut self,
        at: (u32, u64),
        reader: &mut Reader,
        awaited: &Range<u64>,
        bytes: &[u8],
    ) -> Result<Option<(usize, bool)>, Wrong> {
        let Some(frame) = reader.frame else {
            return match (reader.state, bytes.is_empty()) {
                (_, true) => Ok(None),
                (State::Closed, false) => Err(Wrong("bytes after Close".to_owned())),
                (State::Opening, false) => {
                    let (taken, complete) = self.open(reader, bytes)?;
                    Ok(complete.then_some((taken, false)))
                }
                (State::Open, false) => {
                    Ok(self.begin(reader, awaited, bytes)?.map(|taken| (taken, false)))
                }
            };
        };
        if frame.opcode < opcode::CLOSE {
            let (taken, complete) = self.message(at, reader, frame, bytes)?;
            return Ok((reader.frame.is_none() || taken > 0).then_some((taken, complete)));
        }
        let taken = bytes.len().min(frame.left as usize - reader.control.len());
        reader.control.extend_from_slice(&bytes[..taken]);
        if reader.control.len() < frame.left as usize {
            return Ok(None);
        }
        reader.frame = None;
        let payload = std::mem::take(&mut reader.control);
        self.control(reader, frame.opcode, &payload)?;
        reader.control = payload;
        Ok(Some((taken, false)))
    }
}

/// The request for the upgrade (RFC 6455, section 4.1), up to the key.
fn upgrade(plan: &Plan) -> String {
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n",
        plan.target.path, plan.target.authority
    );
    for (name, value) in &plan.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Sec-WebSocket-Key: ");
    head
}

/// The server's answer to a key (RFC 6455, section 4.2.2).
fn accept_of(key: &str) -> String {
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    BASE64_STANDARD.encode(hash)
}

/// Length of the answer to an upgrade, once it is complete and right. Interim responses before it
/// are skipped (RFC 9110, section 15.2).
fn read_answer(bytes: &[u8], accept: &str) -> Result<Option<usize>, Wrong> {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..).unwrap_or_default();
        match read_response(rest, |response| is_answer(response, accept))? {
            None => return Ok(None),
            Some((true, len)) => return Ok(Some(from + len)),
            Some((false, len)) => from += len,
        }
    }
}

/// Whether this is the right answer, or an interim response.
fn is_answer(response: &httparse::Response<'_, '_>, accept: &str) -> Result<bool, Wrong> {
    match response.code.unwrap_or_default() {
        101 => {}
        100..200 => return Ok(false),
        code => return Err(Wrong(format!("the server does not open a WebSocket: status {code}"))),
    }
    let all = |name: &'static str| {
        let fields = response.headers.iter();
        let found = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| field.value.trim_ascii())
    };
    let has = |name, token: &[u8]| {
        let mut items = all(name).flat_map(|value| value.split(|&byte| byte == b','));
        items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
    };
    if !has("upgrade", b"websocket") || !has("connection", b"upgrade") {
        return Err(Wrong("status 101 without Upgrade: websocket".to_owned()));
    }
    if all("sec-websocket-extensions").chain(all("sec-websocket-protocol")).next().is_some() {
        return Err(Wrong("an extension or a protocol that was not asked for".to_owned()));
    }
    match all("sec-websocket-accept").eq([accept.as_bytes()]) {
        true => Ok(true),
        false => Err(Wrong("Sec-WebSocket-Accept does not answer the key".to_owned())),
    }
}

/// Whether a Close frame has a code without an error (RFC 6455, section 7.4).
fn check_close(payload: &[u8]) -> Result<(), Wrong> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload.is_empty() {
            true => Ok(()),
            false => Err(Wrong("half a code in Close".to_owned())),
        };
    };
    match (u16::from_be_bytes(*code), std::str::from_utf8(reason)) {
        (1000 | 1001, Ok(_)) => Ok(()),
        (code, Ok(reason)) => {
            let text = format!("the server ends the connection: Close {code} {reason}");
            Err(Wrong(text.trim_end().to_owned()))
        }
        (_, Err(_)) => Err(Wrong("the reason in Close is not text".to_owned())),
    }
}

impl Codec for WebSocket {
    type Reader = Reader;

    fn reader(&self) -> Reader {
        Reader {
            state: State::Opening,
            accept: String::new(),
            held: Vec::new(),
            frame: None,
            control: Vec::new(),
            position: None,
            said_farewell: false,
            owed: Vec::new(),
        }
    }

    fn greet(&mut self, _: u32, reader: &mut Reader, out: &mut Vec<u8>) {
        let mut key = [0; 16];
        for half in key.chunks_exact_mut(8) {
            half.copy_from_slice(&self.random.next_u64().to_be_bytes());
        }
        let key = BASE64_STANDARD.encode(key);
        reader.accept = accept_of(&key);
        out.extend_from_slice(self.upgrade.as_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
    }

    fn is_open(&self, reader: &Reader) -> bool {
        reader.state != State::Opening
    }

    fn owed(&mut self, reader: &mut Reader, out: &mut Vec<u8>) {
        out.append(&mut reader.owed);
    }

    fn farewell(&mut self, reader: &mut Reader, out: &mut Vec<u8>) {
        if reader.state == State::Open && !std::mem::replace(&mut reader.said_farewell, true) {
            frame(out, opcode::CLOSE, mask(&mut self.random), &1000_u16.to_be_bytes());
        }
    }

    /// After Close the server answers no request.
    fn refused_from(&self, reader: &Reader) -> Option<u64> {
        (reader.state == State::Closed).then_some(0)
    }

    fn request_bytes(&self) -> usize {
        self.wire.ready.request_bytes()
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
        let number = awaited.start;
        let speaker = if self.fan_out { 0 } else { connection };
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let Some((taken, complete)) = self.step((speaker, number), reader, &awaited, rest)?
            else {
                return Ok(Step::More);
            };
            consumed += taken;
            if complete {
                return Ok(Step::Reply { number, consumed, last: false });
            }
        }
    }

    fn verification(&self) -> String {
        match self.fan_out {
            true => "every byte on every other connection, against the message that was sent",
            false => "every byte, against the message that was sent",
        }
        .to_owned()
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
