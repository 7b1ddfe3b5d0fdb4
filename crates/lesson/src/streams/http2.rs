//! The client of HTTP/2 (RFC 9113): one connection, a stream for each request, and all frames
//! noted as they pass. Of HPACK (RFC 7541) it has what a browser's first requests need: fields
//! enter the table once and are named by their index afterwards.

use std::net::SocketAddr;

use rig::client::Client;
use rig::exchange::http2::opening;
use witness::hpack::{indexed, named};
use witness::http2::{Frame, PREFACE, kind};

use super::{Asked, FIELDS, Fetched, arrivals};
use crate::Clock;
use crate::http2::noted;

/// Streams at once: what RFC 9113 section 6.5.2 recommends a server to allow at least.
const STREAMS_MAX: usize = 100;

/// Indices of HPACK's static table (RFC 7541 appendix A).
const GET: usize = 2;
const HTTP: usize = 6;
const AUTHORITY: usize = 1;
const PATH: usize = 4;
/// Of the names of [`FIELDS`].
const NAMES: [usize; 4] = [58, 19, 16, 32];
/// The newest entry of the dynamic table.
const NEWEST: usize = 62;

/// A request on its stream.
#[derive(Clone, Copy, Default)]
struct Stream {
    sent_us: f64,
    begun_us: Option<f64>,
    body_bytes: usize,
}

struct Session<'a> {
    clock: Clock,
    client: Client,
    asked: &'a [Asked],
    authority: String,
    streams: Vec<Stream>,
    ended: usize,
    fetched: Fetched,
}

pub(super) fn fetch(clock: Clock, address: SocketAddr, asked: &[Asked]) -> Result<Fetched, String> {
    let (client, authority) = (Client::open(address)?, address.to_string());
    let (streams, ended, fetched) = (Vec::new(), 0, Fetched::default());
    let mut session = Session { clock, client, asked, authority, streams, ended, fetched };
    session.send(&opening())?;
    while session.ended < asked.len() {
        session.ask()?;
        session.take_frame()?;
    }
    let Session { client, mut fetched, .. } = session;
    fetched.arrivals = arrivals(clock, &client);
    Ok(fetched)
}

impl Session<'_> {
    /// Asks for as much as may be under way.
    fn ask(&mut self) -> Result<(), String> {
        while self.streams.len() < self.asked.len() && self.streams.len() - self.ended < STREAMS_MAX
        {
            let request = self.streams.len();
            let head = Frame::headers(id(request), self.block(request), true).bytes();
            let sent_us = self.clock.now_us();
            self.streams.push(Stream { sent_us, ..Stream::default() });
            self.fetched.request_head_bytes += head.len() as u64;
            self.send(&head)?;
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
        let mut block = [indexed(GET), indexed(HTTP)].concat();
        // Paths differ: a literal that does not enter the table (section 6.2.2).
        block.extend(named(0, 4, PATH, &self.asked[request].path));
        for (place, (name, value)) in fields().enumerate() {
            block.extend(match request {
                // A literal that enters the table (section 6.2.1).
                0 => named(0x40, 6, name, value),
                _ => indexed(NEWEST + fields().count() - 1 - place),
            });
        }
        block
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.client.send(bytes)?;
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
        while let Some((length, frame)) = Frame::parse(rest)? {
            rest = &rest[length..];
            self.fetched.frames.push(noted(&frame, self.clock.now_us(), false));
        }
        Ok(())
    }

    fn take_frame(&mut self) -> Result<(), String> {
        let frame = self.client.until(Frame::parse)?;
        self.fetched.frames.push(noted(&frame, self.clock.now_us(), true));
        if let Some(answer) = frame.answer()? {
            self.send(&answer)?;
        }
        if [kind::DATA, kind::HEADERS].contains(&frame.kind) {
            self.take_reply(&frame)?;
        }
        Ok(())
    }

    /// A frame of a reply. The server does not pad.
    fn take_reply(&mut self, frame: &Frame) -> Result<(), String> {
        let (now_us, id) = (self.clock.now_us(), frame.stream);
        let request = (id as usize).wrapping_sub(1) / 2;
        let stream = self.streams.get_mut(request);
        let stream = stream.ok_or_else(|| format!("a reply on stream {id}, not asked for"))?;
        stream.begun_us.get_or_insert(now_us);
        match frame.kind {
            kind::DATA => stream.body_bytes += frame.payload.len(),
            _ => self.fetched.reply_head_bytes += frame.wire_bytes() as u64,
        }
        if frame.ends_stream() {
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
