//! One request over HTTP/2 on a new connection (RFC 9113), with the part of HPACK (RFC 7541) that
//! it needs: literals in the request, the status of the reply.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// The connection preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head (section 4.1).
const HEAD_BYTES: usize = 9;
/// Largest frame by default (SETTINGS_MAX_FRAME_SIZE, section 6.5.2).
const FRAME_BYTES_MAX: usize = 16_384;
/// The largest window (section 6.9.1), so that no reply waits for a WINDOW_UPDATE.
const WINDOW_BYTES: u32 = (1 << 31) - 1;
/// The window of a connection before it is raised.
const WINDOW_BYTES_INITIAL: u32 = 65_535;
/// Limit of the body of a reply: far above any workload's.
const BODY_BYTES_MAX: usize = 64 << 20;

const STREAM: u32 = 1;

/// Names of the frame types (section 6), in their order.
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
/// The type of a frame with a part of a body.
pub const DATA: u8 = 0;
/// The type of a frame that begins a request or a reply.
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

const SETTINGS_ENABLE_PUSH: u16 = 2;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

/// Requests `path` and returns status and body. Afterwards the connection is idle: both sides have
/// acknowledged the settings, and nothing is in flight.
///
/// # Errors
/// One sentence: what was received instead.
pub fn ask(
    stream: &mut (impl Read + Write),
    scheme: &str,
    authority: &str,
    path: &str,
) -> Result<(u16, Vec<u8>), String> {
    send(stream, &request(scheme, authority, path))?;
    let (mut status, mut body) = (None, Vec::new());
    let (mut ended, mut acknowledged) = (false, false);
    while !(ended && acknowledged) {
        let frame = read_frame(stream)?;
        if let Some(answer) = frame.answer()? {
            send(stream, &answer)?;
        }
        acknowledged |= frame.kind == SETTINGS && frame.flags & ACK != 0;
        if frame.stream == STREAM {
            status = match status {
                None => frame.status()?,
                known => known,
            };
            if frame.kind == DATA {
                body.extend_from_slice(frame.content()?);
            }
            ended |= frame.ends_stream();
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(format!("a body of more than {BODY_BYTES_MAX} bytes"));
        }
    }
    Ok((status.ok_or("a reply without a status")?, body))
}

/// Requests all of these paths at once, a stream each, and returns how long each took. Each must
/// be answered with 200.
///
/// # Errors
/// One sentence: what was received instead.
pub fn ask_all(
    stream: &mut (impl Read + Write),
    authority: &str,
    paths: &[&str],
) -> Result<Vec<Duration>, String> {
    let begun = Instant::now();
    let mut sent = opening();
    for (at, path) in paths.iter().enumerate() {
        sent.extend(head(STREAM + 2 * at as u32, "http", authority, path));
    }
    send(stream, &sent)?;
    let mut took = vec![None; paths.len()];
    while took.iter().any(Option::is_none) {
        let frame = read_frame(stream)?;
        if let Some(answer) = frame.answer()? {
            send(stream, &answer)?;
        }
        if frame.status()?.is_some_and(|status| status != 200) {
            return Err(format!("stream {} was not answered with 200", frame.stream));
        }
        if frame.ends_stream() {
            let at = (frame.stream.wrapping_sub(STREAM) / 2) as usize;
            *took.get_mut(at).ok_or("a stream that was not opened")? = Some(begun.elapsed());
        }
    }
    Ok(took.into_iter().flatten().collect())
}

/// What a connection begins with, and the request.
fn request(scheme: &str, authority: &str, path: &str) -> Vec<u8> {
    [opening(), head(STREAM, scheme, authority, path)].concat()
}

/// Preface, settings, and the largest window for the connection.
pub fn opening() -> Vec<u8> {
    let setting = |key: u16, value: u32| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let settings =
        [setting(SETTINGS_ENABLE_PUSH, 0), setting(SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES)];
    let more = (WINDOW_BYTES - WINDOW_BYTES_INITIAL).to_be_bytes();
    [
        PREFACE.to_vec(),
        encoded(SETTINGS, 0, 0, &settings.concat()),
        encoded(WINDOW_UPDATE, 0, 0, &more),
    ]
    .concat()
}

/// A request: the frame that opens its stream.
pub fn head(stream: u32, scheme: &str, authority: &str, path: &str) -> Vec<u8> {
    // Indexed fields of the static table (RFC 7541 appendix A): 2 is `:method: GET`, 6 and 7 are
    // `:scheme`. Literals without indexing name their field by its index: 1 is `:authority`, 4 is
    // `:path`.
    // ANCHOR: request
    let mut block = vec![0x82, if scheme == "https" { 0x87 } else { 0x86 }];
    block.extend(literal(1, authority));
    block.extend(literal(4, path));
    request_head(stream, &block)
    // ANCHOR_END: request
}

/// A literal field without indexing, its value not compressed (RFC 7541 section 6.2.2).
fn literal(index: u8, value: &str) -> Vec<u8> {
    let mut field = Vec::new();
    put_literal(&mut field, (0, 4), index, value);
    field
}

/// A literal field whose name is an index and whose value is not compressed, with the first bits
/// of its form and the number of bits that are left for the index (RFC 7541 section 6.2).
pub fn put_literal(block: &mut Vec<u8>, (form, bits): (u8, u32), name: u8, value: &str) {
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

/// The frame that opens a stream with a request without a body. `block`: its fields.
pub fn request_head(stream: u32, block: &[u8]) -> Vec<u8> {
    encoded(HEADERS, END_STREAM | END_HEADERS, stream, block)
}

fn encoded(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends all bytes.
///
/// # Errors
/// One sentence.
pub fn send(stream: &mut impl Write, bytes: &[u8]) -> Result<(), String> {
    let sent = stream.write_all(bytes).and_then(|()| stream.flush());
    sent.map_err(|e| format!("cannot send: {}", super::why(&e)))
}

/// A frame (section 4.1).
#[derive(Debug)]
pub struct Frame {
    /// Its type (section 6).
    pub kind: u8,
    flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The frame at the front of `input`, and its bytes on the wire; `None` if more must come.
    ///
    /// # Errors
    /// A frame that is longer than this side allows.
    pub fn parse(input: &[u8]) -> Result<Option<(usize, Frame)>, String> {
        let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let (frame, length) = Frame::of_head(*head)?;
        let payload = rest.get(..length).map(<[u8]>::to_vec);
        Ok(payload.map(|payload| (HEAD_BYTES + length, Frame { payload, ..frame })))
    }

    /// The frame with this head, without its payload, and the length of the payload.
    fn of_head(head: [u8; HEAD_BYTES]) -> Result<(Frame, usize), String> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(format!(
                "no HTTP/2: a frame of {length} bytes, more than {FRAME_BYTES_MAX}"
            ));
        }
        // The first bit is reserved (section 4.1).
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & WINDOW_BYTES;
        Ok((Frame { kind, flags, stream, payload: Vec::new() }, length))
    }

    /// The frames in bytes that a client sends, without the preface.
    ///
    /// # Errors
    /// As [`Frame::parse`].
    pub fn all(sent: &[u8]) -> Result<Vec<Frame>, String> {
        let mut rest = sent.strip_prefix(PREFACE).unwrap_or(sent);
        let mut frames = Vec::new();
        while let Some((bytes, frame)) = Frame::parse(rest)? {
            frames.push(frame);
            rest = &rest[bytes..];
        }
        Ok(frames)
    }

    /// Name of its type.
    pub fn name(&self) -> &'static str {
        KINDS.get(usize::from(self.kind)).unwrap_or(&"unknown")
    }

    /// Bytes of its payload.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Bytes on the wire.
    pub fn bytes(&self) -> u32 {
        (HEAD_BYTES + self.payload.len()) as u32
    }

    /// Whether it is the last of its stream.
    pub fn ends_stream(&self) -> bool {
        [HEADERS, DATA].contains(&self.kind) && self.flags & END_STREAM != 0
    }

    /// What must be sent in answer to it: an acknowledgement of settings or of a ping.
    ///
    /// # Errors
    /// A frame that ends the connection or its stream.
    pub fn answer(&self) -> Result<Option<Vec<u8>>, String> {
        match self.kind {
            SETTINGS if self.flags & ACK == 0 => Ok(Some(encoded(SETTINGS, ACK, 0, &[]))),
            PING if self.flags & ACK == 0 => Ok(Some(encoded(PING, ACK, 0, &self.payload))),
            GOAWAY => Err(format!("GOAWAY with error {}", error_code(&self.payload, 4))),
            RST_STREAM => Err(format!(
                "stream {} was reset, error {}",
                self.stream,
                error_code(&self.payload, 0)
            )),
            _ => Ok(None),
        }
    }

    /// The status, in the head of a reply; `None` in another frame.
    ///
    /// # Errors
    /// A status that this client cannot read.
    pub fn status(&self) -> Result<Option<u16>, String> {
        match self.kind {
            HEADERS => status_of(self.content()?).map(Some),
            _ => Ok(None),
        }
    }

    /// The payload of HEADERS or DATA without padding and priority (sections 6.1 and 6.2).
    fn content(&self) -> Result<&[u8], String> {
        let mut content = &self.payload[..];
        let mut padding = 0;
        if self.flags & PADDED != 0 {
            let (first, rest) = content.split_first().ok_or("a padded frame without its length")?;
            (padding, content) = (usize::from(*first), rest);
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            content = content.get(5..).ok_or("a priority that is cut short")?;
        }
        let end = content.len().checked_sub(padding).ok_or("more padding than frame")?;
        Ok(&content[..end])
    }
}

/// Reads one frame.
///
/// # Errors
/// One sentence: what was received instead.
pub fn read_frame(stream: &mut impl Read) -> Result<Frame, String> {
    let cut = |e: std::io::Error| format!("no complete reply over HTTP/2: {}", super::why(&e));
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).map_err(cut)?;
    let (mut frame, length) = Frame::of_head(head)?;
    frame.payload = vec![0; length];
    stream.read_exact(&mut frame.payload).map_err(cut)?;
    Ok(frame)
}

fn error_code(payload: &[u8], at: usize) -> u32 {
    let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

/// Reads `:status`, the first field: an entry of the static table (8 to 14), or a literal in
/// digits.
fn status_of(block: &[u8]) -> Result<u16, String> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let mut block = block;
    // The server may first change the size of its table (RFC 7541 section 6.3): an integer with a
    // prefix of 5 bits, whose further bytes except the last have their first bit set.
    while let [first, rest @ ..] = block
        && first & 0xe0 == 0x20
    {
        block = rest;
        if first & 0x1f == 0x1f {
            let last = block.iter().position(|byte| byte & 0x80 == 0);
            block = last.map_or(&[][..], |last| &block[last + 1..]);
        }
    }
    match *block {
        [field, ..] if (0x88..=0x8e).contains(&field) => Ok(STATIC[usize::from(field - 0x88)]),
        [0x48 | 0x08 | 0x18, 3, a, b, c, ..] => {
            let digits = [a, b, c].map(char::from).iter().collect::<String>();
            digits.parse().map_err(|_| format!("{digits:?} is no status"))
        }
        _ => Err(format!("a status that is none of {STATIC:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

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

    /// A stream with fixed input; it records the output.
    struct Canned {
        says: Cursor<Vec<u8>>,
        told: Vec<u8>,
    }

    impl Read for Canned {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.told.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    type Answer = Result<(u16, Vec<u8>), String>;

    fn answered(frames: &[Vec<u8>]) -> (Answer, Vec<u8>) {
        let mut server = Canned { says: Cursor::new(frames.concat()), told: Vec::new() };
        (ask(&mut server, "http", "x", "/"), server.told)
    }

    #[test]
    fn a_reply_in_pieces_is_put_together_and_settings_are_acknowledged() {
        // Padding's length, priority, a size update of two bytes, the status, padding.
        let head = [1, 0, 0, 0, 0, 0, 0x3f, 1, 0x88, 0];
        let (reply, told) = answered(&[
            encoded(SETTINGS, 0, 0, &[]),
            encoded(PING, 0, 0, b"12345678"),
            encoded(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &head),
            encoded(DATA, PADDED, 1, b"\x02hel\0\0"),
            encoded(DATA, 0, 3, b"another stream's"),
            encoded(DATA, END_STREAM, 1, b"lo"),
            encoded(SETTINGS, ACK, 0, &[]),
        ]);
        assert_eq!(reply, Ok((200, b"hello".to_vec())));
        assert!(told.starts_with(PREFACE));
        let answers = [encoded(SETTINGS, ACK, 0, &[]), encoded(PING, ACK, 0, b"12345678")];
        assert!(told.ends_with(&answers.concat()));
    }

    #[test]
    fn streams_end_in_any_order_and_one_that_was_not_opened_is_an_error() {
        let head = |stream| encoded(HEADERS, END_HEADERS, stream, &[0x88]);
        let data = |stream| encoded(DATA, END_STREAM, stream, b"x");
        let all = |frames: &[Vec<u8>]| {
            let mut server = Canned { says: Cursor::new(frames.concat()), told: Vec::new() };
            ask_all(&mut server, "x", &["/a", "/b"])
        };
        let took = all(&[head(3), data(3), head(1), data(1)]).unwrap();
        assert!(took[1] <= took[0]);
        assert!(all(&[head(1), data(5)]).unwrap_err().contains("not opened"));
        let missing = encoded(HEADERS, END_HEADERS | END_STREAM, 1, &[0x8d]);
        assert!(all(&[missing]).unwrap_err().contains("200"));
        assert!(all(&[encoded(RST_STREAM, 0, 3, &[0; 4])]).unwrap_err().contains("stream 3"));
    }

    #[test]
    fn what_is_no_reply_says_what_it_is() {
        let told = |frames: &[Vec<u8>]| answered(frames).0.unwrap_err();
        assert!(told(&[encoded(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1])]).contains("error 1"));
        assert!(told(&[encoded(RST_STREAM, 0, 1, &[0, 0, 0, 8])]).contains("reset, error 8"));
        assert!(told(&[b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]).contains("no HTTP/2"));
        assert!(told(&[]).contains("no complete reply"));
        let cut = encoded(HEADERS, END_HEADERS | PADDED, 1, &[9, 0x88]);
        assert!(told(&[cut]).contains("padding"));
    }

    #[test]
    fn a_status_is_read_from_the_table_or_from_digits() {
        assert_eq!(status_of(&[0x88]), Ok(200));
        assert_eq!(status_of(&[0x20, 0x8d, 0x76]), Ok(404));
        assert_eq!(status_of(b"\x48\x03426"), Ok(426));
        assert!(status_of(&[0x48, 0x82, 0x10, 0x20]).is_err());
        assert!(status_of(&[]).is_err());
    }

    #[test]
    fn long_values_have_their_length_in_more_than_one_byte() {
        assert_eq!(literal(4, "/a"), b"\x04\x02/a");
        let long = literal(4, &"a".repeat(127 + 300));
        assert_eq!(long[..4], [4, 127, (300 % 128 + 128) as u8, 2]);
    }
}
