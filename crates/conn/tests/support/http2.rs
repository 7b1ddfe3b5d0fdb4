//! The client's side of HTTP/2: frames of literal bytes, and a reader for the server's frames. It
//! shares no code with the server; another HPACK decoder reads the fields.

use std::collections::BTreeMap;

use httlib_hpack::Decoder;

use super::world::pattern;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames (RFC 9113 section 6).
pub mod kind {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// END_STREAM of DATA and HEADERS; ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn greeting(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in settings {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    [PREFACE, &frame(kind::SETTINGS, 0, 0, &payload)].concat()
}

/// Fields as HPACK literals that are never indexed (RFC 7541 section 6.2.3), without Huffman.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        for text in [name, value] {
            assert!(text.len() < 127, "one byte of length is enough here");
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// HEADERS of a request without a body; `more` follows the usual four fields.
pub fn get(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    request(stream, "GET", path, more, true)
}

pub fn request(
    stream: u32,
    method: &str,
    path: &str,
    more: &[(&str, &str)],
    ends: bool,
) -> Vec<u8> {
    let usual = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
    let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
    frame(kind::HEADERS, flags, stream, &block(&[&usual, more].concat()))
}

pub fn data(stream: u32, bytes: &[u8], ends: bool) -> Vec<u8> {
    frame(kind::DATA, u8::from(ends), stream, bytes)
}

pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reply {
    /// All heads: interim ones, the final one, trailers.
    pub heads: Vec<Vec<(String, String)>>,
    pub body: Vec<u8>,
    pub ended: bool,
    pub reset: Option<u32>,
}

impl Reply {
    pub fn status(&self) -> &str {
        self.field(":status").unwrap_or("none")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.heads.last()?.iter().find(|(other, _)| other == name)?;
        Some(value)
    }
}

/// Reads the server's frames, and checks the rules for every frame.
pub struct Reader {
    decoder: Decoder<'static>,
    unread: Vec<u8>,
    pub replies: BTreeMap<u32, Reply>,
    pub goaways: Vec<(u32, u32)>,
    pub pongs: Vec<Vec<u8>>,
    pub pings: Vec<Vec<u8>>,
    pub settings_acked: usize,
    pub settings: BTreeMap<u16, u32>,
    /// Bytes of window that the server returned, by stream (0: the connection).
    pub windows: BTreeMap<u32, u64>,
    pub data_order: Vec<u32>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            decoder: Decoder::with_dynamic_size(4096),
            unread: Vec::new(),
            replies: BTreeMap::new(),
            goaways: Vec::new(),
            pongs: Vec::new(),
            pings: Vec::new(),
            settings_acked: 0,
            settings: BTreeMap::new(),
            windows: BTreeMap::new(),
            data_order: Vec::new(),
        }
    }
}

impl Reader {
    /// Reads all of `bytes`; keeps an incomplete frame.
    pub fn read(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        while let Some(head) = self.unread.get(..9) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            assert!(len <= 16 << 10, "a frame of {len} bytes");
            if self.unread.len() < 9 + len {
                return;
            }
            let payload: Vec<u8> = self.unread.drain(..9 + len).skip(9).collect();
            self.frame(kind, flags, stream, payload);
        }
    }

    pub fn is_whole(&self) -> bool {
        self.unread.is_empty()
    }

    pub fn reply(&self, stream: u32) -> Reply {
        self.replies.get(&stream).cloned().unwrap_or_default()
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) {
        let word = |at: usize| {
            let bytes = payload.get(at..at + 4).expect("a payload of four bytes");
            u32::from_be_bytes(bytes.try_into().expect("four bytes"))
        };
        match kind {
            kind::DATA => {
                self.data_order.push(stream);
                let reply = self.open(stream);
                assert!(!reply.heads.is_empty(), "DATA before HEADERS");
                reply.body.extend_from_slice(&payload);
                reply.ended = flags & END_STREAM != 0;
            }
            kind::HEADERS => {
                assert!(flags & END_HEADERS != 0, "no reply here needs CONTINUATION");
                let mut fields = Vec::new();
                self.decoder.decode(&mut payload.clone(), &mut fields).expect("HPACK");
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
                let fields = fields.into_iter().map(|(n, v, _)| (text(n), text(v))).collect();
                let reply = self.open(stream);
                reply.heads.push(fields);
                reply.ended = flags & END_STREAM != 0;
            }
            kind::RST_STREAM => {
                let code = word(0);
                let reply = self.replies.entry(stream).or_default();
                assert_eq!(reply.reset, None, "stream {stream} is reset twice");
                reply.reset = Some(code);
            }
            kind::SETTINGS if flags & END_STREAM != 0 => self.settings_acked += 1,
            kind::SETTINGS => {
                for setting in payload.chunks(6) {
                    let id = u16::from_be_bytes([setting[0], setting[1]]);
                    let value = [setting[2], setting[3], setting[4], setting[5]];
                    self.settings.insert(id, u32::from_be_bytes(value));
                }
            }
            kind::PING if flags & END_STREAM != 0 => self.pongs.push(payload),
            kind::PING => self.pings.push(payload),
            kind::GOAWAY => self.goaways.push((word(0), word(4))),
            kind::WINDOW_UPDATE => {
                *self.windows.entry(stream).or_default() += u64::from(word(0));
            }
            _ => panic!("a server sends no frame of kind {kind}"),
        }
    }

    fn open(&mut self, stream: u32) -> &mut Reply {
        let reply = self.replies.entry(stream).or_default();
        assert!(!reply.ended && reply.reset.is_none(), "stream {stream} is over");
        reply
    }

    /// Everything as text, to compare it, without the order between streams.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (stream, reply) in &self.replies {
            text.push_str(&format!("{stream}:"));
            for head in &reply.heads {
                let fields = head.iter().map(|(name, value)| format!("{name} {value}"));
                text.push_str(&format!(" [{}]", fields.collect::<Vec<_>>().join(", ")));
            }
            text.push_str(&format!(" {}", body_text(&reply.body)));
            if reply.ended {
                text.push_str(" end");
            }
            if let Some(code) = reply.reset {
                text.push_str(&format!(" reset {code}"));
            }
            text.push('\n');
        }
        for (last, code) in &self.goaways {
            text.push_str(&format!("goaway {last} {code}\n"));
        }
        text
    }
}

/// A short body as it is, and a long one by its length if it is the pattern of `/bytes/N`.
fn body_text(body: &[u8]) -> String {
    if body.len() > 64 && body == pattern(0, body.len() as u64) {
        return format!("pattern {}", body.len());
    }
    format!("\"{}\"", body.escape_ascii())
}
