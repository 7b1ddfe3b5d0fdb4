//! One case: the configuration of a connection, and its events, one per line.
//!
//! ```text
//! conn http tls13 h2 small     echo|http, plain|tls12|tls13, ALPN (- for none), small|default
//! say GET / HTTP/1.1\r\n       bytes from the client, escaped; they are read as far as the
//!                              connection wants to read, and the rest waits
//! frame 1 5 1 \x82\x86         a frame of HTTP/2: type, flags, stream, payload
//! head 5 1 :path=/|te=gzip     HEADERS with flags and stream; `+name=value` is added to the table
//! ws 129 hello                 a masked frame of a WebSocket: first byte, payload
//! on 1 0 129 hello             the same in DATA with flags on a stream
//! wire \x16\x03                bytes on the socket, not encrypted
//! notify                       the client's close_notify
//! reads 7                      from now on a read has at most so many bytes
//! take 10                      at most so many bytes are written; then as `run`
//! run                          everything happens until the connection waits
//! files short 10               prompt, short N, held, failing, truncated
//! pass 300                     milliseconds pass
//! deadline                     the clock moves to the next deadline
//! early, woken, drain, eof, abort
//! ```

use std::fmt;
use std::str::FromStr;

use crate::support::driver::FileReply;
use crate::support::frames;
use crate::support::http2::{frame, kind};
use crate::support::transcript::unescape;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub setting: Setting,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// True: echo. False: HTTP.
    pub echo: bool,
    pub tls: Security,
    pub alpn: Option<&'static str>,
    /// True: limits that a few bytes reach. False: the defaults.
    pub small: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Plain,
    Tls12,
    Tls13,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Say(Vec<u8>),
    Frame { kind: u8, flags: u8, stream: u32, payload: Vec<u8> },
    Head { flags: u8, stream: u32, fields: Vec<Field> },
    Ws { first: u8, payload: Vec<u8> },
    On { stream: u32, flags: u8, first: u8, payload: Vec<u8> },
    Wire(Vec<u8>),
    Notify,
    Reads(usize),
    Take(usize),
    Run,
    Files(FileReply),
    Pass(u64),
    Deadline,
    Early,
    Woken,
    Drain,
    Eof,
    Abort,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The field is added to HPACK's table.
    pub indexed: bool,
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

impl Event {
    pub fn bytes(&self) -> Option<Vec<u8>> {
        Some(match self {
            Event::Say(bytes) => bytes.clone(),
            Event::Frame { kind, flags, stream, payload } => frame(*kind, *flags, *stream, payload),
            Event::Head { flags, stream, fields } => {
                frame(kind::HEADERS, *flags, *stream, &block(fields))
            }
            Event::Ws { first, payload } => websocket(*first, payload),
            Event::On { stream, flags, first, payload } => {
                frame(kind::DATA, *flags, *stream, &websocket(*first, payload))
            }
            _ => return None,
        })
    }

    pub fn payload_mut(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Event::Say(bytes) | Event::Wire(bytes) => Some(bytes),
            Event::Frame { payload, .. }
            | Event::Ws { payload, .. }
            | Event::On { payload, .. } => Some(payload),
            _ => None,
        }
    }
}

fn websocket(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames::put(&mut bytes, first, payload, Some(frames::MASK));
    bytes
}

fn block(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.push(if field.indexed { 0x40 } else { 0x10 });
        for text in [&field.name, &field.value] {
            put_length(&mut bytes, text.len());
            bytes.extend_from_slice(text);
        }
    }
    bytes
}

/// RFC 7541 section 5.1, with a prefix of 7 bits.
fn put_length(bytes: &mut Vec<u8>, len: usize) {
    if len < 127 {
        return bytes.push(len as u8);
    }
    bytes.push(127);
    let mut left = len - 127;
    while left >= 128 {
        bytes.push(0x80 | (left % 128) as u8);
        left /= 128;
    }
    bytes.push(left as u8);
}

/// Bytes as text, with spaces at the ends, `|` and `=` escaped.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b' ' | b'|' | b'=' | b'{' | b'+' => write!(f, "\\x{byte:02x}")?,
                // escape_ascii() escapes quotes, unescape() does not know them, and they need no
                // escape here.
                b'"' | b'\'' => write!(f, "{}", byte as char)?,
                _ => write!(f, "{}", byte.escape_ascii())?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = self.setting;
        let protocol = if setting.echo { "echo" } else { "http" };
        let tls = match setting.tls {
            Security::Plain => "plain",
            Security::Tls12 => "tls12",
            Security::Tls13 => "tls13",
        };
        let limits = if setting.small { "small" } else { "default" };
        writeln!(f, "conn {protocol} {tls} {} {limits}", setting.alpn.unwrap_or("-"))?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Say(bytes) => write!(f, "say {}", Text(bytes)),
            Event::Frame { kind, flags, stream, payload } => {
                write!(f, "frame {kind} {flags} {stream} {}", Text(payload))
            }
            Event::Head { flags, stream, fields } => {
                write!(f, "head {flags} {stream} ")?;
                for (at, field) in fields.iter().enumerate() {
                    let between = if at > 0 { "|" } else { "" };
                    let plus = if field.indexed { "+" } else { "" };
                    write!(f, "{between}{plus}{}={}", Text(&field.name), Text(&field.value))?;
                }
                Ok(())
            }
            Event::Ws { first, payload } => write!(f, "ws {first} {}", Text(payload)),
            Event::On { stream, flags, first, payload } => {
                write!(f, "on {stream} {flags} {first} {}", Text(payload))
            }
            Event::Wire(bytes) => write!(f, "wire {}", Text(bytes)),
            Event::Notify => write!(f, "notify"),
            Event::Reads(n) => write!(f, "reads {n}"),
            Event::Take(n) => write!(f, "take {n}"),
            Event::Run => write!(f, "run"),
            Event::Files(FileReply::Prompt) => write!(f, "files prompt"),
            Event::Files(FileReply::Short(n)) => write!(f, "files short {n}"),
            Event::Files(FileReply::Held) => write!(f, "files held"),
            Event::Files(FileReply::Failing) => write!(f, "files failing"),
            Event::Files(FileReply::Truncated) => write!(f, "files truncated"),
            Event::Pass(millis) => write!(f, "pass {millis}"),
            Event::Deadline => write!(f, "deadline"),
            Event::Early => write!(f, "early"),
            Event::Woken => write!(f, "woken"),
            Event::Drain => write!(f, "drain"),
            Event::Eof => write!(f, "eof"),
            Event::Abort => write!(f, "abort"),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    /// Empty lines and those that begin with `#` are comments.
    fn from_str(text: &str) -> Result<Case, String> {
        let mut lines =
            text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let setting = setting(lines.next().ok_or("an empty file")?)?;
        let events = lines.map(|line| event(line).map_err(|error| format!("{error}: {line}")));
        Ok(Case { setting, events: events.collect::<Result<_, _>>()? })
    }
}

fn setting(line: &str) -> Result<Setting, String> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["conn", protocol, tls, alpn, limits] = words[..] else {
        return Err(format!("no line of a connection: {line}"));
    };
    let tls = match tls {
        "plain" => Security::Plain,
        "tls12" => Security::Tls12,
        "tls13" => Security::Tls13,
        _ => return Err(format!("no such layer: {tls}")),
    };
    let alpn = match alpn {
        "h2" => Some("h2"),
        "http/1.1" => Some("http/1.1"),
        _ => None,
    };
    Ok(Setting { echo: protocol == "echo", tls, alpn, small: limits == "small" })
}

fn event(line: &str) -> Result<Event, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = rest.split(' ');
    let mut next = || words.next().unwrap_or("");
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(match word {
        "say" => Event::Say(unescape(rest)?),
        "wire" => Event::Wire(unescape(rest)?),
        "frame" => Event::Frame {
            kind: number(next())? as u8,
            flags: number(next())? as u8,
            stream: number(next())? as u32,
            payload: unescape(next())?,
        },
        "head" => Event::Head {
            flags: number(next())? as u8,
            stream: number(next())? as u32,
            fields: fields(next())?,
        },
        "ws" => Event::Ws { first: number(next())? as u8, payload: unescape(next())? },
        "on" => Event::On {
            stream: number(next())? as u32,
            flags: number(next())? as u8,
            first: number(next())? as u8,
            payload: unescape(next())?,
        },
        "reads" => Event::Reads(number(rest)?.max(1) as usize),
        "take" => Event::Take(number(rest)? as usize),
        "pass" => Event::Pass(number(rest)?),
        "files" => Event::Files(match next() {
            "prompt" => FileReply::Prompt,
            "short" => FileReply::Short(number(next())?.max(1) as usize),
            "held" => FileReply::Held,
            "failing" => FileReply::Failing,
            "truncated" => FileReply::Truncated,
            file_reply => return Err(format!("unknown file reply {file_reply}")),
        }),
        "notify" => Event::Notify,
        "run" => Event::Run,
        "deadline" => Event::Deadline,
        "early" => Event::Early,
        "woken" => Event::Woken,
        "drain" => Event::Drain,
        "eof" => Event::Eof,
        "abort" => Event::Abort,
        _ => return Err("no such event".to_owned()),
    })
}

fn fields(text: &str) -> Result<Vec<Field>, String> {
    let field = |text: &str| {
        let (indexed, text) = text.strip_prefix('+').map_or((false, text), |text| (true, text));
        let (name, value) = text.split_once('=').ok_or("a field without =")?;
        Ok(Field { indexed, name: unescape(name)?, value: unescape(value)? })
    };
    text.split('|').filter(|text| !text.is_empty()).map(field).collect()
}

pub fn head(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Event {
    let field = |&(name, value): &(&str, &str)| Field {
        indexed: false,
        name: name.as_bytes().to_vec(),
        value: value.as_bytes().to_vec(),
    };
    Event::Head { flags, stream, fields: fields.iter().map(field).collect() }
}
