//! A raw client of HTTP/2 (RFC 9113): it sends any bytes, the illegal ones too, and holds the
//! server to the rules for whoever sends.
//!
//! Every frame that comes is checked as it comes: size, stream, order, both windows, field names,
//! the body's length. So each case of the suite, whatever it asks, also tests these. What came is
//! state to look at (`streams`, `goaway`, `arrivals`); a case waits until that state is as it
//! expects.

mod check;
mod expect;
pub mod hpack;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

pub use expect::Refusal;
pub use witness::http2::{
    FRAME_SIZE, Frame, PREFACE, WINDOW_MAX, code, code_name, flag, kind, setting,
};

use crate::{Client, Head, Reply, guard};

/// Windows and settings before anybody has said otherwise (RFC 9113 sections 6.5.2 and 6.9.2).
const WINDOW: i64 = 65_535;

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    client: Client,
    decoder: hpack::Decoder,
    /// By identifier: every stream that a HEADERS frame of ours has opened.
    pub streams: BTreeMap<u32, Stream>,
    /// What the server has set, the newest value of each.
    pub settings: BTreeMap<u16, u32>,
    /// The server's last GOAWAY.
    pub goaway: Option<Goaway>,
    /// FIN or RST has come.
    pub ended: bool,
    /// Stream and length of each DATA frame, in the order of their arrival.
    pub arrivals: Vec<(u32, usize)>,
    /// Payloads of PING frames that the server sent as an answer.
    pub pongs: VecDeque<[u8; 8]>,
    /// Acknowledgements of our SETTINGS so far.
    pub settings_acks: usize,
    /// Give back at once what a DATA frame took from the windows.
    pub refill: bool,
    /// The server's preface, its first SETTINGS, has come.
    pub greeted: bool,
    /// SETTINGS of ours that the server has not acknowledged.
    unacked: VecDeque<Vec<(u16, u32)>>,
    /// A field block that goes on in CONTINUATION frames: the HEADERS frame, payload so far.
    block: Option<Frame>,
    /// What the server may still send, in bytes: on the connection, on a new stream, in one frame.
    receive_window: i64,
    receive_initial: i64,
    receive_frame: usize,
    /// What we may still send on the connection, in bytes.
    pub send_window: i64,
    next_stream: u32,
    pings: u64,
}

/// One request and what has come of it.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Statuses of interim replies (1xx).
    pub interim: Vec<u16>,
    /// The reply's fields.
    pub head: Option<Head>,
    /// Its body so far.
    pub body: Vec<u8>,
    /// Fields behind the body.
    pub trailers: Vec<(String, String)>,
    /// END_STREAM has come.
    pub ended: bool,
    /// The code of the server's RST_STREAM.
    pub reset: Option<u32>,
    /// What we may still send, in bytes.
    pub send_window: i64,
    receive_window: i64,
    head_only: bool,
}

/// The server's farewell (RFC 9113 section 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goaway {
    /// The highest stream that was or may be processed.
    pub last_stream: u32,
    /// See [`code`].
    pub code: u32,
}

impl Http2 {
    /// A connection on which nothing has been said.
    ///
    /// # Panics
    /// When there is nobody.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Http2 {
        Http2::over(Client::connect(address))
    }

    /// The same on a connection that exists.
    pub fn over(client: Client) -> Http2 {
        Http2 {
            client,
            decoder: hpack::Decoder::default(),
            streams: BTreeMap::new(),
            settings: BTreeMap::new(),
            goaway: None,
            ended: false,
            arrivals: Vec::new(),
            pongs: VecDeque::new(),
            settings_acks: 0,
            refill: true,
            greeted: false,
            unacked: VecDeque::new(),
            block: None,
            receive_window: WINDOW,
            receive_initial: WINDOW,
            receive_frame: FRAME_SIZE,
            send_window: WINDOW,
            next_stream: 1,
            pings: 0,
        }
    }

    /// A connection whose prefaces have been exchanged and acknowledged.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Http2 {
        Http2::connect(address).opened()
    }

    /// The same on a connection on which nothing has been said.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn opened(mut self) -> Http2 {
        self.send_bytes(PREFACE);
        self.set(&[]);
        self
    }

    /// The connection below.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The connection below, for what is not HTTP/2.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the server does not take them.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
    }

    /// Sends frames in one write.
    ///
    /// # Panics
    /// When the server does not take them.
    #[track_caller]
    pub fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let bytes = self.bytes_of(frames);
        self.client.send(&bytes);
    }

    /// The same where the server may have had enough; false when it takes no more. A server that
    /// neither reads nor closes is stuck, or waits for us to read: that is false too.
    pub fn send_if_open(&mut self, frames: impl IntoIterator<Item = Frame>) -> bool {
        let bytes = self.bytes_of(frames);
        self.client.send_if_open(&bytes)
    }

    /// The bytes of frames that the caller will send in its own way. HEADERS open their stream,
    /// SETTINGS wait for their acknowledgement, WINDOW_UPDATE gives room; nothing else is noted.
    pub fn bytes_of(&mut self, frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            let stream = frame.stream & WINDOW_MAX;
            if frame.kind == kind::HEADERS {
                let set = self.settings.get(&setting::INITIAL_WINDOW_SIZE);
                let new = Stream {
                    send_window: set.map_or(WINDOW, |&set| i64::from(set)),
                    receive_window: self.receive_initial,
                    ..Stream::default()
                };
                self.streams.entry(stream).or_insert(new);
                self.next_stream = self.next_stream.max(stream.saturating_add(2));
            } else if frame.kind == kind::SETTINGS && !frame.has(flag::ACK) {
                let values = frame.values();
                self.apply(&values, true);
                self.unacked.push_back(values);
            } else if frame.kind == kind::WINDOW_UPDATE
                && let Some(increment) = frame.number(0).filter(|_| frame.payload.len() == 4)
            {
                let increment = i64::from(increment & WINDOW_MAX);
                match self.streams.get_mut(&stream) {
                    _ if stream == 0 => self.receive_window += increment,
                    Some(stream) => stream.receive_window += increment,
                    None => {}
                }
            }
            bytes.extend(frame.bytes());
        }
        bytes
    }

    /// Sends SETTINGS and waits until they are acknowledged.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn set(&mut self, values: &[(u16, u32)]) {
        self.send([Frame::settings(values)]);
        self.until("our SETTINGS are acknowledged", |c| c.unacked.is_empty() && c.greeted);
    }

    /// Limits on the server grow at once and shrink when it has acknowledged that.
    fn apply(&mut self, values: &[(u16, u32)], growing: bool) {
        for &(id, value) in values {
            match id {
                setting::INITIAL_WINDOW_SIZE => {
                    let difference = i64::from(value) - self.receive_initial;
                    if (difference > 0) == growing {
                        self.receive_initial += difference;
                        for stream in self.streams.values_mut() {
                            stream.receive_window += difference;
                        }
                    }
                }
                setting::MAX_FRAME_SIZE => {
                    let value = usize::try_from(value).unwrap_or(usize::MAX);
                    if (value > self.receive_frame) == growing {
                        self.receive_frame = value;
                    }
                }
                setting::HEADER_TABLE_SIZE if !growing => self.decoder.set_size_max(value),
                _ => {}
            }
        }
    }

    /// The next stream of ours (RFC 9113 section 5.1.1), which no frame has opened yet.
    pub fn next_stream(&self) -> u32 {
        self.next_stream
    }

    /// Opens a stream with a field block, in CONTINUATION frames where it is long.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn open_stream(&mut self, block: &[u8], last: bool) -> u32 {
        let stream = self.next_stream;
        let frames = block_frames(stream, block, last);
        self.send(frames);
        stream
    }

    /// A request without a body, with more fields than it needs; returns its stream.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> u32 {
        let block = [hpack::request(method, path), hpack::literals(fields)].concat();
        let stream = self.open_stream(&block, true);
        let opened = self.streams.entry(stream).or_default();
        opened.head_only = method == "HEAD";
        stream
    }

    /// GET; returns its stream.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> u32 {
        self.request("GET", path, &[])
    }

    /// The head of `POST /echo`; the body is to follow. Returns its stream.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn post(&mut self, fields: &[(&str, &str)]) -> u32 {
        let block = [hpack::request("POST", "/echo"), hpack::literals(fields)].concat();
        self.open_stream(&block, false)
    }

    /// Sends a body and its end in frames of `frame_len` bytes at most, as the windows allow;
    /// reads what comes meanwhile.
    ///
    /// # Panics
    /// When the server stops taking it.
    #[track_caller]
    pub fn send_body(&mut self, stream: u32, body: &[u8], frame_len: usize) {
        let mut rest = body;
        while !rest.is_empty() {
            self.until("a window opens", |c| c.may_send(stream) > 0);
            let len = rest.len().min(frame_len).min(self.may_send(stream));
            let (piece, after) = rest.split_at(len);
            self.send_data(stream, piece, false);
            rest = after;
        }
        self.send([Frame::data(stream, [], true)]);
    }

    /// Sends one DATA frame and takes it from the windows.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn send_data(&mut self, stream: u32, bytes: &[u8], last: bool) {
        let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.send_window -= len;
        self.streams.entry(stream).or_default().send_window -= len;
        self.send([Frame::data(stream, bytes, last)]);
    }

    /// What the windows of a stream and of the connection let us send, in bytes.
    pub fn may_send(&self, stream: u32) -> usize {
        let window = self.streams.get(&stream).map_or(0, |stream| stream.send_window);
        usize::try_from(window.min(self.send_window)).unwrap_or(0)
    }

    /// Gives the server more room; stream 0 is the connection.
    ///
    /// # Panics
    /// When the server does not take it.
    #[track_caller]
    pub fn grant(&mut self, stream: u32, increment: u32) {
        self.send([Frame::window_update(stream, increment)]);
    }

    /// Reads until `condition` holds.
    ///
    /// # Panics
    /// When the connection ends before, or nothing brings it about.
    #[track_caller]
    pub fn until(&mut self, what: &str, condition: impl Fn(&Http2) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(!self.ended, "the connection ended before {what}; {}", self.seen());
            let guard = guard();
            assert!(begun.elapsed() < guard, "not within {guard:?}: {what}; {}", self.seen());
            self.read_frame();
        }
    }

    /// A PING there and back: the server has processed everything that was sent before it.
    ///
    /// # Panics
    /// When it is not answered, or the server says farewell.
    #[track_caller]
    pub fn barrier(&mut self) {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        self.send([Frame::ping(payload)]);
        self.until("PING is answered", |c| c.pongs.back() == Some(&payload));
        assert_eq!(self.goaway, None, "a farewell; {}", self.seen());
    }

    /// The reply to a request, whole.
    ///
    /// # Panics
    /// When it is reset, or does not come.
    #[track_caller]
    pub fn reply(&mut self, stream: u32) -> Reply {
        self.until("the reply is whole", |c| {
            c.streams.get(&stream).is_some_and(|stream| stream.ended || stream.reset.is_some())
        });
        let Some(Stream { head: Some(head), ended: true, body, .. }) = self.streams.get(&stream)
        else {
            panic!("stream {stream} has no whole reply; {}", self.seen());
        };
        Reply { status: head.status, head: head.clone(), body: body.clone() }
    }

    /// The head of a reply; its body may follow.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn head(&mut self, stream: u32) -> Head {
        self.until("the head of the reply", |c| {
            c.streams.get(&stream).is_some_and(|s| s.head.is_some() || s.reset.is_some())
        });
        let head = self.streams.get(&stream).and_then(|stream| stream.head.clone());
        head.unwrap_or_else(|| panic!("stream {stream} was reset; {}", self.seen()))
    }

    /// Reads until the server has closed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn until_end(&mut self) {
        let begun = Instant::now();
        while !self.ended {
            let guard = guard();
            assert!(begun.elapsed() < guard, "not closed within {guard:?}; {}", self.seen());
            self.read_frame();
        }
    }

    /// What has come, in short, for whoever reads a failure.
    pub fn seen(&self) -> String {
        let streams = self.streams.iter().rev().take(4).map(|(id, stream)| {
            let status = stream.head.as_ref().map_or(0, |head| head.status);
            let reset = stream
                .reset
                .map_or_else(String::new, |code| format!(" reset with {}", code_name(code)));
            let ended = if stream.ended { " ended" } else { "" };
            format!("stream {id}: status {status}, {} bytes{ended}{reset}", stream.body.len())
        });
        let streams = streams.collect::<Vec<_>>().join("; ");
        let goaway = self.goaway.map_or_else(
            || "no GOAWAY".to_owned(),
            |goaway| format!("GOAWAY {} after {}", code_name(goaway.code), goaway.last_stream),
        );
        let ended = if self.ended { "closed" } else { "open" };
        format!("seen: {goaway}, connection {ended}; {streams}")
    }
}

/// HEADERS, and CONTINUATION frames for what does not fit.
pub fn block_frames(stream: u32, block: &[u8], last: bool) -> Vec<Frame> {
    let mut pieces = block.chunks(FRAME_SIZE).collect::<Vec<_>>();
    let first = if pieces.is_empty() { &[] } else { pieces.remove(0) };
    let end_stream = if last { flag::END_STREAM } else { 0 };
    let end_headers = if pieces.is_empty() { flag::END_HEADERS } else { 0 };
    let headers = Frame::new(kind::HEADERS, end_stream | end_headers, stream, first);
    let count = pieces.len();
    let rest = pieces.into_iter().enumerate();
    let rest = rest.map(|(at, piece)| Frame::continuation(stream, piece, at + 1 == count));
    std::iter::once(headers).chain(rest).collect()
}
