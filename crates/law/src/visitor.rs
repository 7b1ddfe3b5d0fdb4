//! A client of one request at a time, for what is counted or timed by a handful of requests.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rig::exchange;

use crate::Reason;

/// The longest that a visitor waits for a byte: longer than any law has to wait, and short enough
/// for a server that never answers.
const PATIENCE: Duration = Duration::from_secs(8);

/// A connection to a server.
#[derive(Debug)]
pub struct Visitor {
    stream: TcpStream,
}

impl Visitor {
    /// Connects.
    pub fn arrive(address: SocketAddr) -> Result<Visitor, Reason> {
        let stream = exchange::open(address).map_err(Reason::NotHere)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Visitor { stream })
    }

    /// Sends a GET, with these further fields (`Name: value` and CRLF each).
    pub fn ask(&mut self, path: &str, fields: &str) -> Result<(), Reason> {
        exchange::send_get(&mut self.stream, path, fields).map_err(Reason::NotHere)
    }

    /// Waits for a reply, which must have the status 200.
    pub fn answer(&mut self) -> Result<Vec<u8>, Reason> {
        match exchange::read_reply(&mut self.stream).map_err(Reason::NotHere)? {
            (200, body) => Ok(body),
            (status, _) => Err(Reason::NotHere(format!("a reply has the status {status}"))),
        }
    }

    /// Waits for the head of a reply, and says its status. The connection is of no further use.
    pub fn status(&mut self) -> Result<u16, Reason> {
        let cut = |error: std::io::Error| Reason::NotHere(format!("no head of a reply: {error}"));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).map_err(cut)?;
            head.extend(byte);
        }
        // `HTTP/1.1 101 Switching Protocols` (RFC 9112 section 4).
        let text = String::from_utf8_lossy(&head);
        let status = text.split(' ').nth(1).and_then(|digits| digits.parse().ok());
        status.ok_or_else(|| Reason::NotHere(format!("no status in {:?}", text.lines().next())))
    }

    /// Sends a GET, waits for its reply, and says how long that took.
    pub fn get(&mut self, path: &str) -> Result<Duration, Reason> {
        let begun = Instant::now();
        self.ask(path, "")?;
        self.answer()?;
        Ok(begun.elapsed())
    }

    /// Sends a GET. Whether its reply arrives within this time; with no time, whether it is there.
    pub fn is_served_within(&mut self, path: &str, time: Duration) -> bool {
        // A read timeout of zero would be none (setsockopt(2), SO_RCVTIMEO).
        let time = time.max(Duration::from_millis(1));
        let asked = self.ask(path, "").is_ok();
        let limited = self.stream.set_read_timeout(Some(time)).is_ok();
        let served = asked && limited && self.answer().is_ok();
        served && self.stream.set_read_timeout(Some(PATIENCE)).is_ok()
    }

    /// Whether the server has sent something, or closed the connection.
    pub fn has_news(&self) -> Result<bool, Reason> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        Ok(!peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
    }
}

/// Closes connections, and waits until the server has closed its ends too.
pub fn leave(visitors: Vec<Visitor>) {
    exchange::part(visitors.into_iter().map(|visitor| visitor.stream).collect());
}
