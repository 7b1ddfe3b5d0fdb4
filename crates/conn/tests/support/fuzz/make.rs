//! Makes cases from a seed and from other cases. A case consists of events, so a frame has the
//! right length and a block of fields decodes, unless the case tests the opposite.

use conn::Limits;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};

use super::case::{Case, Event, Field, Security, Setting};
use crate::support::driver::FileReply;
use crate::support::frames::{self, BINARY, CLOSE, CONTINUE, PING, PONG, TEXT};
use crate::support::http2::{END_HEADERS, END_STREAM, PREFACE, kind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseKind {
    Echo,
    Http1,
    Http2,
    WebSocket,
    /// A WebSocket on a stream of HTTP/2.
    Tunnel,
}

pub const CASE_KINDS: [CaseKind; 5] =
    [CaseKind::Echo, CaseKind::Http1, CaseKind::Http2, CaseKind::WebSocket, CaseKind::Tunnel];

pub const SECURITIES: [Security; 3] = [Security::Plain, Security::Tls12, Security::Tls13];

const PATHS: [&str; 17] = [
    "/",
    "/bytes/0",
    "/bytes/100",
    "/bytes/5000",
    "/bytes/1000000000",
    "/delay/0",
    "/delay/20",
    "/delay/40000",
    "/events/1",
    "/events/50",
    "/events/45000",
    "/news/50",
    "/news/50/1",
    "/files/a",
    "/files/",
    "/nope",
    "*",
];

const SOCKETS: [&str; 4] = ["/ws/echo", "/ws/clock/50", "/ws/clock/45000", "/ws/chat"];

const PIECES: [&str; 34] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /bytes/5000 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /bytes/1000000000 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /delay/0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /delay/20 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /delay/40000 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    "GET /events/1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /events/50 HTTP/1.0\r\n\r\n",
    "GET /events/45000 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    "GET /news/50/1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /files/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /files/a HTTP/1.1\r\nHost: a\r\nRange: bytes=10-\r\n\r\n",
    "HEAD /files/a HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "GET /bytes/5000 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nhello\r\n",
    "1;x=y\r\n!\r\n",
    "0\r\n\r\n",
    "0\r\nTrailer: x\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "BREW / HTTP/1.1\r\n",
    "Host: a\r\n",
    "Connection: close\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "\r",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// Fields that a head may have or must not have.
const FIELDS: [(&str, &str); 16] = [
    ("content-length", "5"),
    ("content-length", "0"),
    ("expect", "100-continue"),
    ("range", "bytes=10-"),
    ("if-none-match", "*"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("connection", "close"),
    ("transfer-encoding", "chunked"),
    ("host", "a"),
    ("x", "y"),
    ("X", "y"),
    (":path", "/"),
    (":status", "200"),
    ("", ""),
    ("cookie", "a=b"),
];

/// Windows and other numbers at the limits of a frame's values.
const NUMBERS: [u32; 10] =
    [0, 1, 100, 16_384, 65_535, 65_536, 1 << 30, i32::MAX as u32, 1 << 31, u32::MAX];

pub struct Maker<'a> {
    pub rng: &'a mut StdRng,
    case_kind: CaseKind,
    next_stream: u32,
    /// It sends nothing that is a connection error.
    valid: bool,
    /// It sometimes reads its output.
    reads: bool,
}

/// A case of `count` events after the opening.
pub fn case(rng: &mut StdRng, case_kind: CaseKind, tls: Security, count: usize) -> Case {
    let alpn = match case_kind {
        CaseKind::Http2 | CaseKind::Tunnel if rng.random() => Some("h2"),
        CaseKind::Http1 | CaseKind::WebSocket if rng.random() => Some("http/1.1"),
        _ => None,
    };
    let small = rng.random_ratio(2, 3);
    let setting = Setting { echo: case_kind == CaseKind::Echo, tls, alpn, small };
    let (valid, reads) = (rng.random_ratio(3, 4), rng.random_ratio(2, 3));
    let mut maker = Maker { rng, case_kind, next_stream: 1, valid, reads };
    let mut events = maker.opening();
    for _ in 0..count {
        maker.event(&mut events);
    }
    Case { setting, events }
}

/// The protocol of a case, from its first bytes.
pub fn kind_of(case: &Case) -> CaseKind {
    let first = case.events.iter().find_map(Event::bytes).unwrap_or_default();
    let tunnels = |event: &Event| matches!(event, Event::On { .. });
    let frames = |event: &Event| matches!(event, Event::Ws { .. });
    match () {
        () if case.setting.echo => CaseKind::Echo,
        () if case.events.iter().any(tunnels) => CaseKind::Tunnel,
        () if first.starts_with(&PREFACE[..5]) => CaseKind::Http2,
        () if case.events.iter().any(frames) => CaseKind::WebSocket,
        () => CaseKind::Http1,
    }
}

/// A case made from others: `base` with a few changes, and with parts of `other`.
pub fn mutate(rng: &mut StdRng, base: &Case, other: &Case) -> Case {
    let mut case = base.clone();
    if rng.random_ratio(1, 10) {
        case.setting.tls = *SECURITIES.choose(rng).unwrap_or(&Security::Plain);
        case.setting.small = rng.random();
    }
    let case_kind = kind_of(&case);
    let last = case.events.iter().filter_map(stream_of).max().unwrap_or(0);
    let next_stream = (last | 1).saturating_add(2);
    let (valid, reads) = (rng.random(), rng.random());
    let mut maker = Maker { rng, case_kind, next_stream, valid, reads };
    for _ in 0..maker.rng.random_range(1..6) {
        maker.change(&mut case.events, other);
    }
    // A long case finds no more than its parts, and takes longer.
    case.events.truncate(60);
    case
}

fn stream_of(event: &Event) -> Option<u32> {
    match event {
        Event::Frame { stream, .. } | Event::Head { stream, .. } | Event::On { stream, .. } => {
            Some(*stream & (i32::MAX as u32)).filter(|&stream| stream < 1 << 16)
        }
        _ => None,
    }
}

impl Maker<'_> {
    fn opening(&mut self) -> Vec<Event> {
        match self.case_kind {
            CaseKind::Echo | CaseKind::Http1 => Vec::new(),
            CaseKind::WebSocket => {
                let path = *SOCKETS.choose(self.rng).unwrap_or(&"");
                vec![Event::Say(frames::upgrade((path, "")).unwrap_or_default())]
            }
            CaseKind::Http2 => {
                let mut events = vec![Event::Say(PREFACE.to_vec()), self.settings()];
                if self.rng.random() {
                    events.push(self.window(0));
                }
                events
            }
            CaseKind::Tunnel => {
                let mut events = vec![Event::Say(PREFACE.to_vec()), self.settings()];
                events.push(self.connect());
                events
            }
        }
    }

    fn event(&mut self, events: &mut Vec<Event>) {
        if self.rng.random_ratio(3, 5) {
            return self.add_events(events);
        }
        let file_replies = [
            FileReply::Prompt,
            FileReply::Short(100),
            FileReply::Short(1),
            FileReply::Held,
            FileReply::Failing,
            FileReply::Truncated,
        ];
        let limits = Limits::default();
        let edge = [limits.idle_timeout_ms, limits.head_timeout_ms, limits.write_timeout_ms];
        let edge = *edge.choose(self.rng).unwrap_or(&1);
        events.push(match self.rng.random_range(0..40) {
            0..6 => Event::Pass(self.rng.random_range(0..40_000)),
            6..9 => Event::Pass(self.rng.random_range(0..100)),
            9..11 => Event::Pass(edge),
            11..16 => Event::Deadline,
            16..28 if !self.reads => Event::Pass(edge / 2),
            16..21 => Event::Take(*[0, 1, 9, 300, 5_000].choose(self.rng).unwrap_or(&1)),
            21..28 => Event::Run,
            28..30 => Event::Woken,
            30..32 => Event::Early,
            32..34 => Event::Reads(*[1, 7, 100, 65_536].choose(self.rng).unwrap_or(&1)),
            34..37 => Event::Files(*file_replies.choose(self.rng).unwrap_or(&FileReply::Held)),
            37 if self.rng.random_ratio(1, 2) => Event::Drain,
            38 if self.rng.random_ratio(1, 3) => Event::Eof,
            39 if self.rng.random_ratio(1, 10) => Event::Abort,
            39 if self.rng.random_ratio(1, 4) => Event::Notify,
            _ => Event::Early,
        });
    }

    fn add_events(&mut self, events: &mut Vec<Event>) {
        match self.case_kind {
            CaseKind::Echo => {
                let len = 1 << self.rng.random_range(0..12);
                events.push(Event::Say(self.noise(len)));
            }
            CaseKind::Http1 => {
                let piece = PIECES.choose(self.rng).copied().unwrap_or_default();
                events.push(Event::Say(piece.as_bytes().to_vec()));
            }
            CaseKind::WebSocket => {
                let (first, payload) = self.message();
                events.push(Event::Ws { first, payload });
            }
            CaseKind::Http2 => self.frame(events),
            CaseKind::Tunnel if self.rng.random_ratio(1, 3) => self.frame(events),
            CaseKind::Tunnel if self.rng.random_ratio(1, 8) => {
                let connect = self.connect();
                events.push(connect);
            }
            CaseKind::Tunnel => {
                let (first, payload) = self.message();
                let flags = u8::from(self.rng.random_ratio(1, 20));
                events.push(Event::On { stream: self.known_stream(), flags, first, payload });
            }
        }
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![b'x'; len];
        if self.rng.random() {
            self.rng.fill_bytes(&mut bytes);
        }
        bytes
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        let opcodes = [CONTINUE, TEXT, TEXT, BINARY, BINARY, CLOSE, PING, PONG, 3];
        let opcode = *opcodes.choose(self.rng).unwrap_or(&TEXT);
        let fin = if self.rng.random_ratio(3, 4) { 0x80 } else { 0 };
        let reserved = if !self.valid && self.rng.random_ratio(1, 20) { 0x40 } else { 0 };
        let len = *[0, 1, 2, 125, 126, 300, 600, 70_000].choose(self.rng).unwrap_or(&0);
        let payload = match opcode {
            CLOSE if len >= 2 => [&1_000u16.to_be_bytes()[..], b"bye"].concat(),
            TEXT | CONTINUE => vec![b'x'; len],
            PING | PONG | CLOSE => self.noise(len.min(126)),
            _ => self.noise(len),
        };
        (fin | reserved | opcode, payload)
    }

    fn frame(&mut self, events: &mut Vec<Event>) {
        let stream = self.known_stream();
        let ends = u8::from(self.rng.random_ratio(1, 2));
        let simple = |kind, flags, stream, payload: &[u8]| Event::Frame {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        };
        let event = match self.rng.random_range(0..if self.valid { 25 } else { 32 }) {
            0..10 => self.request(),
            10..15 => {
                let len = *[0, 1, 5, 100, 3_000, 16_384].choose(self.rng).unwrap_or(&0);
                simple(kind::DATA, ends, stream, &self.noise(len))
            }
            15..17 => simple(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            17..20 => self.window(stream),
            20 => self.window(0),
            21..23 => self.settings(),
            23 => simple(kind::SETTINGS, 1, 0, &[]),
            24 => simple(kind::PING, self.rng.random_range(0..2), 0, b"12345678"),
            25 => simple(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, 16]),
            26 => simple(kind::GOAWAY, 0, 0, &[0; 8]),
            27 => {
                // Trailers, or other HEADERS on an open stream.
                let fields = self.fields();
                Event::Head { flags: END_HEADERS | ends, stream, fields }
            }
            28 => {
                let request = self.request();
                return self.split(events, request);
            }
            29 => simple(kind::CONTINUATION, END_HEADERS, stream, &[]),
            30 => {
                let len = self.rng.random_range(0..20);
                let payload = self.noise(len);
                simple(self.rng.random_range(0..12), self.rng.random(), stream, &payload)
            }
            _ => simple(kind::DATA, 8 | ends, stream, &[&[3][..], b"hello", &[0; 3]].concat()),
        };
        events.push(event);
    }

    /// HEADERS with the rest in CONTINUATION; sometimes without the end.
    fn split(&mut self, events: &mut Vec<Event>, request: Event) {
        let Event::Head { flags, stream, .. } = request else { return };
        let block = request.bytes().unwrap_or_default().split_off(9);
        let at = self.rng.random_range(0..=block.len());
        let flags = flags & !END_HEADERS;
        let (front, back) = block.split_at(at);
        let payload = front.to_vec();
        events.push(Event::Frame { kind: kind::HEADERS, flags, stream, payload });
        if self.rng.random_ratio(3, 4) {
            let (flags, payload) = (END_HEADERS, back.to_vec());
            events.push(Event::Frame { kind: kind::CONTINUATION, flags, stream, payload });
        }
    }

    fn request(&mut self) -> Event {
        let method = *["GET", "GET", "GET", "POST", "HEAD", "BREW"].choose(self.rng).unwrap_or(&"");
        let path = if method == "POST" { "/echo" } else { PATHS.choose(self.rng).unwrap_or(&"/") };
        let ends = if self.rng.random_ratio(2, 3) { END_STREAM } else { 0 };
        let mut fields = self.literals(&[
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
        ]);
        if self.rng.random_ratio(1, 3) {
            fields.extend(self.fields());
        }
        Event::Head { flags: END_HEADERS | ends, stream: self.new_stream(), fields }
    }

    fn connect(&mut self) -> Event {
        let path = *SOCKETS.choose(self.rng).unwrap_or(&"");
        let fields = self.literals(&[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
        ]);
        Event::Head { flags: END_HEADERS, stream: self.new_stream(), fields }
    }

    fn fields(&mut self) -> Vec<Field> {
        let count = self.rng.random_range(0..3);
        let fields: Vec<_> = (0..count).filter_map(|_| FIELDS.choose(self.rng).copied()).collect();
        self.literals(&fields)
    }

    fn literals(&mut self, fields: &[(&str, &str)]) -> Vec<Field> {
        let indexed = self.rng.random_ratio(1, 3);
        let field = |&(name, value): &(&str, &str)| Field {
            indexed,
            name: name.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
        };
        fields.iter().map(field).collect()
    }

    fn settings(&mut self) -> Event {
        let mut payload = Vec::new();
        for _ in 0..self.rng.random_range(0..3) {
            let id = *[1u16, 3, 4, 4, 4, 6, 99, 2, 5, 8].choose(self.rng).unwrap_or(&4);
            let wrong = !self.valid && self.rng.random_ratio(1, 4);
            let value = match id {
                2 | 8 if !wrong => 0,
                5 if !wrong => 16_384,
                _ => self.number() & if wrong { u32::MAX } else { i32::MAX as u32 },
            };
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        Event::Frame { kind: kind::SETTINGS, flags: 0, stream: 0, payload }
    }

    fn window(&mut self, stream: u32) -> Event {
        let more = if self.valid { self.rng.random_range(1..100_000) } else { self.number() };
        let payload = more.to_be_bytes().to_vec();
        Event::Frame { kind: kind::WINDOW_UPDATE, flags: 0, stream, payload }
    }

    fn number(&mut self) -> u32 {
        *NUMBERS.choose(self.rng).unwrap_or(&0)
    }

    fn new_stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Mostly a stream that was opened.
    fn known_stream(&mut self) -> u32 {
        if !self.valid && self.rng.random_ratio(1, 20) {
            return self.rng.random_range(0..20);
        }
        let opened = self.next_stream / 2;
        2 * self.rng.random_range(0..opened.max(1)) + 1
    }

    fn change(&mut self, events: &mut Vec<Event>, other: &Case) {
        let at = self.rng.random_range(0..=events.len());
        let some = at < events.len();
        match self.rng.random_range(0..10) {
            0 if some => {
                events.remove(at);
            }
            1 if some => events.insert(at, events[at].clone()),
            2 if some => {
                let to = self.rng.random_range(0..events.len());
                events.swap(at, to);
            }
            3 | 4 if some => self.touch(&mut events[at]),
            5 if !other.events.is_empty() => {
                let from = self.rng.random_range(0..other.events.len());
                let to = (from + self.rng.random_range(1..6)).min(other.events.len());
                events.splice(at..at, other.events[from..to].iter().cloned());
            }
            6 if some => {
                events.truncate(at);
            }
            _ => {
                let mut made = Vec::new();
                self.event(&mut made);
                events.splice(at..at, made);
            }
        }
    }

    fn touch(&mut self, event: &mut Event) {
        let stream_before = self.known_stream();
        let (bit, number) = (1u8 << self.rng.random_range(0..8), self.number());
        match event {
            Event::Frame { kind, flags, stream, payload } => match self.rng.random_range(0..6) {
                0 => *kind = (*kind + 1) % 11,
                1 => *flags ^= bit,
                2 => *stream = stream_before,
                3 if payload.len() >= 4 => {
                    let at = payload.len() - 4;
                    payload[at..].copy_from_slice(&number.to_be_bytes());
                }
                _ => self.touch_bytes(payload),
            },
            Event::Head { flags, stream, fields } => match self.rng.random_range(0..5) {
                0 => *flags ^= bit,
                1 => *stream = stream_before,
                2 => fields.extend(self.fields()),
                3 if !fields.is_empty() => {
                    fields.remove(self.rng.random_range(0..fields.len()));
                }
                _ => {
                    if let Some(field) = fields.last_mut() {
                        self.touch_bytes(&mut field.value);
                    }
                }
            },
            Event::Ws { first, payload } | Event::On { first, payload, .. } => {
                if self.rng.random() { *first ^= bit } else { self.touch_bytes(payload) }
            }
            Event::Say(bytes) | Event::Wire(bytes) => self.touch_bytes(bytes),
            Event::Take(n) | Event::Reads(n) => *n = (number as usize % 70_000).max(1),
            Event::Pass(millis) => *millis = u64::from(number % 100_000),
            _ => {}
        }
    }

    fn touch_bytes(&mut self, bytes: &mut Vec<u8>) {
        let at = self.rng.random_range(0..=bytes.len());
        match self.rng.random_range(0..4) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.rng.random_range(0..8),
            1 if at < bytes.len() => {
                bytes.remove(at);
            }
            2 => bytes.truncate(at),
            _ => bytes.insert(at, self.rng.random()),
        }
    }
}
