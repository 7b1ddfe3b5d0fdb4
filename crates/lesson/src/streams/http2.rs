//! The client of HTTP/2 (RFC 9113): one connection, a stream for each request, and all frames
//! noted as they pass. Of HPACK (RFC 7541) it has what a browser's first requests need: fields
//! enter the table once and are named by their index afterwards.

use std::net::SocketAddr;

use record::Frame;

use super::{Asked, FIELDS, Fetched};
use crate::Clock;
use crate::wire::Wire;

/// The connection preface (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head (section 4.1).
const HEAD_BYTES: usize = 9;
/// The largest window (section 6.9.1), so that no reply waits for a WINDOW_UPDATE.
const WINDOW_BYTES: u32 = (1 << 31) - 1;
/// The window of a connection before it is raised.
const WINDOW_BYTES_INITIAL: u32 = 65_535;
/// Streams at once: what RFC 9113 section 6.5.2 recommends a server to allow at least.
const STREAMS_MAX: usize = 100;

const KINDS: [&str; 10] = [
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
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const SETTINGS_ENABLE_PUSH: u16 = 2;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

/// Indices of HPACK's static table (RFC 7541 appendix A).
const GET: u8 = 0x80 | 2;
const HTTP: u8 = 0x80 | 6;
const AUTHORITY: u8 = 1;
const PATH: u8 = 4;
/// Of the names of [`FIELDS`].
const NAMES: [u8; 4] = [58, 19, 16, 32];
/// The newest entry of the dynamic table.
const NEWEST: u8 = 62;

/// A request on its stream.
#[derive(Clone, Copy, Default)]
struct Stream {
    sent_us: f64,
    begun_us: Option<f64>,
    body_bytes: usize,
}

struct Client<'a> {
    clock: Clock,
    wire: Wire,
    asked: &'a [Asked],
    authority: String,
    streams: Vec<Stream>,
    ended: usize,
    fetched: Fetched,
}

pub(super) fn fetch(clock: Clock, address: SocketAddr, asked: &[Asked]) -> Result<Fetched, String> {
    let (wire, authority) = (Wire::open(clock, address)?, address.to_string());
    let (streams, ended, fetched) = (Vec::new(), 0, Fetched::default());
    let mut client = Client { clock, wire, asked, authority, streams, ended, fetched };
    client.open()?;
    while client.ended < asked.len() {
        client.ask()?;
        client.take_frame()?;
    }
    let Client { wire, mut fetched, .. } = client;
    fetched.arrivals = wire.arrivals;
    Ok(fetched)
}

impl Client<'_> {
    fn open(&mut self) -> Result<(), String> {
        let setting =
            |key: u16, value: u32| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let settings =
            [setting(SETTINGS_ENABLE_PUSH, 0), setting(SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES)];
        let more = (WINDOW_BYTES - WINDOW_BYTES_INITIAL).to_be_bytes();
        self.wire.send(PREFACE)?;
        self.send(SETTINGS, 0, 0, &settings.concat())?;
        self.send(WINDOW_UPDATE, 0, 0, &more)
    }

    /// Asks for as much as may be under way.
    fn ask(&mut self) -> Result<(), String> {
        while self.streams.len() < self.asked.len() && self.streams.len() - self.ended < STREAMS_MAX
        {
            let request = self.streams.len();
            let block = self.block(request);
            let sent_us = self.clock.now_us();
            self.streams.push(Stream { sent_us, ..Stream::default() });
            self.fetched.request_head_bytes += (HEAD_BYTES + block.len()) as u64;
            self.send(HEADERS, END_STREAM | END_HEADERS, id(request), &block)?;
        }
        Ok(())
    }

    /// The head of a request.
    fn block(&self, request: usize) -> Vec<u8> {
        let fields = || {
            [(AUTHORITY, self.authority.as_str())]
                .into_iter()
                .chain(NAMES.into_iter().zip(FIELDS.map(|(_, value)| value)))
        };
        let mut block = vec![GET, HTTP];
        // Paths differ: a literal that does not enter the table (section 6.2.2).
        put_literal(&mut block, (0, 4), PATH, &self.asked[request].path);
        for (place, (name, value)) in fields().enumerate() {
            match request {
                // A literal that enters the table (section 6.2.1).
                0 => put_literal(&mut block, (0x40, 6), name, value),
                _ => block.push(0x80 | (NEWEST + (fields().count() - 1 - place) as u8)),
            }
        }
        block
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), String> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.wire.send(&frame)?;
        self.note(false, (kind, flags), stream, payload.len());
        Ok(())
    }

    fn note(&mut self, from_server: bool, (kind, flags): (u8, u8), stream: u32, length: usize) {
        let name = KINDS.get(usize::from(kind)).copied().unwrap_or("unknown");
        self.fetched.frames.push(Frame {
            run: String::new(),
            connection: 0,
            at_us: self.clock.now_us(),
            from_server,
            kind: name.to_owned(),
            stream,
            bytes: (HEAD_BYTES + length) as u32,
            ends_stream: matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0,
        });
    }

    fn take_frame(&mut self) -> Result<(), String> {
        let (head, payload) = self.wire.until(frame)?;
        let [_, _, _, kind, flags, s0, s1, s2, s3] = head;
        // The first bit is reserved (section 4.1).
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & WINDOW_BYTES;
        self.note(true, (kind, flags), stream, payload.len());
        match kind {
            SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload)?,
            GOAWAY | RST_STREAM => {
                let name = KINDS[usize::from(kind)];
                return Err(format!("the server sent {name}: {}", payload.escape_ascii()));
            }
            HEADERS | DATA => self.take_reply(kind, flags, stream, payload.len())?,
            _ => {}
        }
        Ok(())
    }

    /// A frame of a reply. The server does not pad.
    fn take_reply(&mut self, kind: u8, flags: u8, id: u32, length: usize) -> Result<(), String> {
        let now_us = self.clock.now_us();
        let request = (id as usize).wrapping_sub(1) / 2;
        let stream = self.streams.get_mut(request);
        let stream = stream.ok_or_else(|| format!("a reply on stream {id}, not asked for"))?;
        stream.begun_us.get_or_insert(now_us);
        match kind {
            DATA => stream.body_bytes += length,
            _ => self.fetched.reply_head_bytes += (HEAD_BYTES + length) as u64,
        }
        if flags & END_STREAM != 0 {
            let Asked { path, bytes } = &self.asked[request];
            if stream.body_bytes != *bytes {
                return Err(format!("{path} was answered with {} bytes", stream.body_bytes));
            }
            let times = [stream.sent_us, stream.begun_us.unwrap_or(now_us), now_us];
            self.fetched.note(request, 0, times);
            self.ended += 1;
        }
        Ok(())
    }
}

/// The stream of a request: a client's are odd (section 5.1.1).
fn id(request: usize) -> u32 {
    2 * request as u32 + 1
}

type RawFrame = ([u8; HEAD_BYTES], Vec<u8>);

/// The frame at the front of the input, with its length.
fn frame(input: &[u8]) -> Result<Option<(usize, RawFrame)>, String> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let payload = rest.get(..length);
    Ok(payload.map(|payload| (HEAD_BYTES + length, (*head, payload.to_vec()))))
}

/// A literal field whose name is an index, with the first bits of its form and the bits that are
/// left for the index.
fn put_literal(block: &mut Vec<u8>, (form, bits): (u8, u32), name: u8, value: &str) {
    put_integer(block, (form, bits), usize::from(name));
    put_integer(block, (0, 7), value.len());
    block.extend_from_slice(value.as_bytes());
}

/// An integer behind the bits of `form` (RFC 7541 section 5.1).
fn put_integer(block: &mut Vec<u8>, (form, bits): (u8, u32), value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return block.push(form | value as u8);
    }
    block.push(form | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        block.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7541 appendix C.1.
    #[test]
    fn integers_are_those_of_the_rfc() {
        let put = |bits, value| {
            let mut block = Vec::new();
            put_integer(&mut block, (0, bits), value);
            block
        };
        assert_eq!(put(5, 10), [10]);
        assert_eq!(put(5, 1337), [31, 154, 10]);
        assert_eq!(put(8, 42), [42]);
    }
}
