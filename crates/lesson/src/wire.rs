//! One connection of the experiment: it counts its bytes, and reads replies, events and messages.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use witness::websocket::{Frame, Opcode, client_frame, opening_fields};

use crate::Clock;

/// Longer than any message of the experiment is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a reply that is read, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Largest frame of a message that is read, in bytes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// A connection.
pub(crate) struct Wire {
    socket: TcpStream,
    address: SocketAddr,
    /// The clock of its times.
    pub clock: Clock,
    /// Bytes read and not used yet.
    input: Vec<u8>,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// When bytes arrived, in microseconds, and how many.
    pub arrivals: Vec<(f64, usize)>,
}

/// The head of a reply.
pub(crate) struct Head {
    /// Its own length.
    pub bytes: usize,
    pub status: u16,
    pub length: Option<usize>,
    /// Whether the server said `Connection: close`.
    pub closes: bool,
    /// Whether a page of another origin may read it (Access-Control-Allow-Origin).
    pub allows_origin: bool,
}

impl Wire {
    pub fn open(clock: Clock, address: SocketAddr) -> Result<Wire, String> {
        let socket = TcpStream::connect_timeout(&address, TIMEOUT);
        let socket = socket.map_err(|e| format!("cannot connect to {address}: {e}"))?;
        let set = socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(TIMEOUT)));
        set.map_err(|e| format!("cannot set up a socket: {e}"))?;
        let (input, arrivals) = (Vec::new(), Vec::new());
        Ok(Wire { socket, address, clock, input, bytes_sent: 0, arrivals })
    }

    /// Another handle of the socket, to write from a second thread.
    pub fn writer(&self) -> Result<TcpStream, String> {
        self.socket.try_clone().map_err(|e| format!("cannot share a socket: {e}"))
    }

    /// Sends a GET with these further fields, `Name: value` and CRLF each.
    pub fn get(&mut self, path: &str, fields: &str) -> Result<(), String> {
        let host = self.address;
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n").as_bytes())
    }

    /// Asks for a WebSocket, with these further fields. Returns the status.
    pub fn upgrade(&mut self, path: &str, fields: &str) -> Result<u16, String> {
        self.get(path, &format!("{}{fields}", opening_fields()))?;
        Ok(self.head()?.status)
    }

    /// As [`Wire::upgrade`], where nothing but a WebSocket will do.
    pub fn websocket(mut self, path: &str) -> Result<Wire, String> {
        match self.upgrade(path, "")? {
            101 => Ok(self),
            status => Err(format!("{path} was answered with status {status}")),
        }
    }

    /// Sends a text over the WebSocket.
    pub fn say(&mut self, text: &str) -> Result<(), String> {
        self.send(&client_frame(Opcode::Text, text.as_bytes()))
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes_sent += bytes.len() as u64;
        self.socket.write_all(bytes).map_err(|e| format!("cannot send: {e}"))
    }

    /// Reads until `parse` finds something at the front of the input: its length and what it is.
    pub fn until<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Option<(usize, T)>, String>,
    ) -> Result<T, String> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some((length, found)) = parse(&self.input)? {
                self.input.drain(..length);
                return Ok(found);
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err("the server closed before the end of its reply".to_owned()),
                Ok(bytes) => {
                    self.arrivals.push((self.clock.now_us(), bytes));
                    self.input.extend_from_slice(&buffer[..bytes]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(format!("nothing came within {} s", TIMEOUT.as_secs()));
                }
                Err(error) => return Err(format!("the connection failed: {error}")),
            }
        }
    }

    pub fn head(&mut self) -> Result<Head, String> {
        self.until(head)
    }

    /// A body of this length.
    pub fn body(&mut self, length: usize) -> Result<Vec<u8>, String> {
        self.until(|input| Ok(input.get(..length).map(|body| (length, body.to_vec()))))
    }

    /// A whole reply: its status, and the number of the message in its body, if there is one.
    pub fn news(&mut self) -> Result<(u16, Option<u64>), String> {
        let head = self.head()?;
        let length = head.length.filter(|_| head.status != 304).unwrap_or(0);
        let body = self.body(length)?;
        Ok((head.status, number(&body)))
    }

    /// The number of the next event, a chunk of its own (RFC 9112 section 7.1).
    pub fn event(&mut self) -> Result<u64, String> {
        let end = |input: &[u8]| input.windows(4).position(|bytes| bytes == b"\n\n\r\n");
        let chunk = self.until(|input| Ok(end(input).map(|at| (at + 4, input[..at].to_vec()))))?;
        let data = chunk.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let data = data.strip_prefix(b"data: ").unwrap_or_default();
        number(data).ok_or_else(|| format!("no event: {}", chunk.escape_ascii()))
    }

    /// The next text of the WebSocket.
    pub fn message(&mut self) -> Result<String, String> {
        let frame = self.until(|input| Frame::parse(input, MESSAGE_BYTES_MAX))?;
        match frame.opcode {
            Opcode::Text if frame.is_final => {
                Ok(String::from_utf8_lossy(&frame.payload).into_owned())
            }
            other => Err(format!("no text in one frame came but {other:?}")),
        }
    }

    /// Whether anything comes within this time.
    pub fn hears_within(&mut self, time: Duration) -> Result<bool, String> {
        let set = |time| {
            let set = self.socket.set_read_timeout(Some(time));
            set.map_err(|e| format!("cannot set up a socket: {e}"))
        };
        set(time)?;
        let peeked = self.socket.peek(&mut [0]);
        set(TIMEOUT)?;
        match peeked {
            Ok(0) => Err("the server closed".to_owned()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(!self.input.is_empty()),
            Err(error) => Err(format!("the connection failed: {error}")),
        }
    }
}

/// The number of a message.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.trim_end().strip_prefix("tick ")?.parse().ok()
}

/// The head at the front of `input`, and its length; `None` if it is not complete.
pub(crate) fn head(input: &[u8]) -> Result<Option<(usize, Head)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut reply = httparse::Response::new(&mut fields);
    let parsed = reply.parse(input).map_err(|e| format!("a malformed reply: {e}"))?;
    let httparse::Status::Complete(bytes) = parsed else {
        return match input.len() > HEAD_BYTES_MAX {
            true => Err(format!("the head of a reply has more than {HEAD_BYTES_MAX} bytes")),
            false => Ok(None),
        };
    };
    let field = |name: &str| {
        let field = reply.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(field.value).ok().map(str::trim)
    };
    let length = field("content-length").and_then(|length| length.parse().ok());
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let allows_origin = field("access-control-allow-origin").is_some();
    let status = reply.code.unwrap_or(0);
    Ok(Some((bytes, Head { bytes, status, length, closes, allows_origin })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_message_is_behind_its_word() {
        assert_eq!(number(b"tick 17\n"), Some(17));
        assert_eq!(number(b"tack 17"), None);
    }
}
