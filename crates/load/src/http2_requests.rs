//! The bytes that an HTTP/2 client sends: the greeting, and requests side by side, ready to be sent
//! (RFC 9113). Within a run only stream numbers and stamps are filled in.

use crate::hpack;
use crate::payload::{Ready, STAMP_EVERY_BYTES, filler, stamps};
use crate::{Method, Plan};

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's head (RFC 9113, section 4.1).
pub(crate) const FRAME_HEAD_BYTES: usize = 9;
/// The longest payload of a frame that every peer must accept, and so the longest from the server
/// (RFC 9113, section 4.2).
pub(crate) const FRAME_BYTES_MAX: usize = 16_384;
/// The window of a stream and of a connection: far more than a loopback connection holds, so that
/// TCP limits the server, and not this window.
pub(crate) const WINDOW_BYTES: u32 = 16 << 20;
/// A window before any setting (RFC 9113, section 6.9.2).
pub(crate) const FIRST_WINDOW_BYTES: u32 = 65_535;
/// The largest body of a request. The first request of a connection is sent before the server's
/// settings come.
const BODY_BYTES_MAX: usize = FIRST_WINDOW_BYTES as usize;
/// The number of the request on stream 1, which fills the server's header table and is not counted.
pub(crate) const PRIMING: u64 = u64::MAX;
/// Numbers from here on have no stream (RFC 9113, section 5.1.1: 31 bits).
pub(crate) const NUMBERS: u64 = (1 << 30) - 1;

/// Types of frames (RFC 9113, section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames (RFC 9113, section 6).
pub(crate) mod flag {
    /// For SETTINGS and PING.
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113, section 6.5.2).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
}

/// Why HTTP/2 cannot carry out a plan, in one sentence.
pub(crate) fn complaint(plan: &Plan) -> Option<String> {
    const FORBIDDEN: [&str; 4] = ["keep-alive", "proxy-connection", "upgrade", "te"];
    if plan.method == Method::Post && plan.payload_bytes > BODY_BYTES_MAX {
        return Some(format!(
            "over HTTP/2 a request's body must be at most {BODY_BYTES_MAX} bytes, not {}",
            plan.payload_bytes
        ));
    }
    let forbidden = |name: &str| FORBIDDEN.iter().any(|one| name.eq_ignore_ascii_case(one));
    if let Some((name, _)) = plan.headers.iter().find(|(name, _)| forbidden(name)) {
        return Some(format!(
            "{name} is no header field of HTTP/2 (RFC 9113, 8.2.2): leave it out"
        ));
    }
    let block_bytes = hpack::alone(&fields(plan)).len();
    (block_bytes > FRAME_BYTES_MAX).then(|| {
        format!(
            "the header fields of a request are {block_bytes} bytes: send {FRAME_BYTES_MAX} \
                 at most"
        )
    })
}

/// The fields of each request (RFC 9113, section 8.3.1), with names in lower case.
fn fields(plan: &Plan) -> Vec<(String, String)> {
    let scheme = if plan.target.tls { "https" } else { "http" };
    let pseudo = [
        (":method", plan.method.as_str()),
        (":scheme", scheme),
        (":authority", &plan.target.authority),
        (":path", &plan.target.path),
    ];
    let mut fields: Vec<_> = pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    if plan.method == Method::Post {
        fields.push(("content-length".to_owned(), plan.payload_bytes.to_string()));
    }
    let own = plan.headers.iter();
    // Space around a value is malformed (RFC 9113, section 8.2.1).
    fields.extend(own.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())));
    fields
}

pub(crate) fn frame_head(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Appends WINDOW_UPDATE for a stream, or for the connection (0).
pub(crate) fn window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    frame_head(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&bytes.to_be_bytes());
}

/// One request: HEADERS, and a body in DATA frames.
fn request(block: &[u8], body: &[u8]) -> Vec<u8> {
    let end = |last: bool| if last { flag::END_STREAM } else { 0 };
    let mut out = Vec::new();
    let flags = flag::END_HEADERS | end(body.is_empty());
    frame_head(&mut out, block.len(), kind::HEADERS, flags, 1);
    out.extend_from_slice(block);
    let pieces = body.chunks(FRAME_BYTES_MAX);
    let last = pieces.len().saturating_sub(1);
    for (at, piece) in pieces.enumerate() {
        frame_head(&mut out, piece.len(), kind::DATA, end(at == last), 1);
        out.extend_from_slice(piece);
    }
    out
}

pub(crate) struct Requests {
    greeting: Vec<u8>,
    /// The request on stream 1; `None` if a connection carries only one request.
    priming: Option<Vec<u8>>,
    ready: Ready,
    headers_bytes: usize,
    body_bytes: usize,
}

impl Requests {
    pub(crate) fn new(plan: &Plan) -> Self {
        let body = filler(if plan.method == Method::Post { plan.payload_bytes } else { 0 });
        let fields = fields(plan);
        let (priming, block) = match plan.reconnect {
            true => (None, hpack::alone(&fields)),
            false => {
                let (first, following) = hpack::first_and_following(&fields);
                (Some(request(&first, &body)), following)
            }
        };
        let one = request(&block, &body);
        Requests {
            greeting: greeting(),
            priming,
            ready: Ready::new(one.len(), plan.depth(), |bytes| bytes.extend_from_slice(&one)),
            headers_bytes: FRAME_HEAD_BYTES + block.len(),
            body_bytes: body.len(),
        }
    }

    pub(crate) fn request_bytes(&self) -> usize {
        self.ready.request_bytes()
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Whether a connection begins with a request that is not counted.
    pub(crate) fn are_primed(&self) -> bool {
        self.priming.is_some()
    }

    /// Appends what `connection` sends first.
    pub(crate) fn greet(&self, connection: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.greeting);
        let Some(priming) = &self.priming else { return };
        let start = out.len();
        out.extend_from_slice(priming);
        let headers_bytes = priming.len() - (self.request_bytes() - self.headers_bytes);
        stamp(&mut out[start + headers_bytes..], self.body_bytes, connection, PRIMING);
    }

    /// See [`crate::codec::Codec::outgoing`].
    pub(crate) fn outgoing(
        &mut self,
        connection: u32,
        number: u64,
        requests: u32,
        offset: usize,
    ) -> &[u8] {
        let (headers_bytes, body_bytes) = (self.headers_bytes, self.body_bytes);
        self.ready.outgoing((connection, number), requests, offset, |request, number| {
            number_frames(request, headers_bytes, stream_of(number));
            stamp(&mut request[headers_bytes..], body_bytes, connection, number);
        })
    }
}

/// The stream of request `number`.
pub(crate) fn stream_of(number: u64) -> u32 {
    ((number << 1) + 3) as u32 & 0x7fff_ffff
}

/// Preface, settings, and a WINDOW_UPDATE for the connection, which no setting changes.
fn greeting() -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    let settings = [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, WINDOW_BYTES)];
    frame_head(&mut out, 6 * settings.len(), kind::SETTINGS, 0, 0);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    window_update(&mut out, 0, WINDOW_BYTES - FIRST_WINDOW_BYTES);
    out
}

/// Writes a stream's number into each frame of a request.
fn number_frames(request: &mut [u8], headers_bytes: usize, stream: u32) {
    let (headers, mut data) = request.split_at_mut(headers_bytes);
    headers[5..FRAME_HEAD_BYTES].copy_from_slice(&stream.to_be_bytes());
    while !data.is_empty() {
        data[5..FRAME_HEAD_BYTES].copy_from_slice(&stream.to_be_bytes());
        let frame_bytes = data.len().min(FRAME_HEAD_BYTES + FRAME_BYTES_MAX);
        data = &mut data[frame_bytes..];
    }
}

/// Stamps a body in DATA frames. No stamp is split, because each frame but the last has a length
/// that is a multiple of the distance.
fn stamp(data: &mut [u8], body_bytes: usize, connection: u32, number: u64) {
    const { assert!(FRAME_BYTES_MAX.is_multiple_of(STAMP_EVERY_BYTES)) };
    for (at, tag) in stamps(body_bytes, connection, number) {
        let len = tag.len().min(body_bytes - at);
        let place = at + (at / FRAME_BYTES_MAX + 1) * FRAME_HEAD_BYTES;
        data[place..place + len].copy_from_slice(&tag[..len]);
    }
}
