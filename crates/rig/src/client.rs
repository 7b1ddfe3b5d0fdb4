//! A blocking client with one connection, for what a handful of requests shows: experiments and
//! laws. It notes when bytes arrive and how many, and reads whatever it is told to parse. RFC 9112.
//!
//! The load generator has clients of its own, which do not block and verify every byte.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::exchange;

/// The longest that a client waits for a byte, or for its connection. An experiment or a law waits
/// two seconds at most, and on a link that loses packets connect(2) sends a SYN again after 1, 3
/// and 7 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest head of a reply that is read, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Why a client cannot go on, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Failed {
        Failed(why)
    }
}

impl From<Failed> for String {
    fn from(failed: Failed) -> String {
        failed.0
    }
}

/// The head of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its own length.
    pub bytes: usize,
    /// The status.
    pub status: u16,
    /// Length of the body, if the server says it.
    pub length: Option<usize>,
    /// Whether the server said `Connection: close`.
    pub closes: bool,
    /// Whether a page of another origin may read it (Access-Control-Allow-Origin).
    pub allows_origin: bool,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    address: SocketAddr,
    /// Bytes read and not used yet.
    input: Vec<u8>,
    bytes_sent: u64,
    arrivals: Vec<(Instant, usize)>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// One sentence, with a remedy if there is one.
    pub fn open(address: SocketAddr) -> Result<Client, Failed> {
        let socket = exchange::open_within(address, PATIENCE)?;
        let (input, arrivals) = (Vec::new(), Vec::new());
        Ok(Client { socket, address, input, bytes_sent: 0, arrivals })
    }

    /// Sends a GET, with these further fields (`Name: value` and CRLF each).
    ///
    /// # Errors
    /// One sentence.
    pub fn ask(&mut self, path: &str, fields: &str) -> Result<(), Failed> {
        let host = self.address;
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n").as_bytes())
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// One sentence.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.bytes_sent += bytes.len() as u64;
        let sent = self.socket.write_all(bytes);
        sent.map_err(|error| Failed(format!("cannot send: {error}")))
    }

    /// Waits until there are bytes that were not used.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn wait_for_bytes(&mut self) -> Result<(), Failed> {
        if self.input.is_empty() { self.read() } else { Ok(()) }
    }

    fn read(&mut self) -> Result<(), Failed> {
        let mut buffer = [0; 64 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => Err(Failed("the server closed before the end of its reply".to_owned())),
            Ok(bytes) => {
                self.arrivals.push((Instant::now(), bytes));
                self.input.extend_from_slice(&buffer[..bytes]);
                Ok(())
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// Reads until `parse` finds something at the front of the input: its length and what it is.
    ///
    /// # Errors
    /// That of `parse`, or one sentence: what was received instead.
    pub fn until<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Option<(usize, T)>, String>,
    ) -> Result<T, Failed> {
        loop {
            if let Some((length, found)) = parse(&self.input)? {
                self.input.drain(..length);
                return Ok(found);
            }
            self.read()?;
        }
    }

    /// Reads the head of a reply.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn head(&mut self) -> Result<Head, Failed> {
        self.until(head)
    }

    /// Reads a body of this length.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn body(&mut self, length: usize) -> Result<Vec<u8>, Failed> {
        self.until(|input| Ok(input.get(..length).map(|body| (length, body.to_vec()))))
    }

    /// Reads a reply, which must have the status 200 and say its length. Returns its body.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn answer(&mut self) -> Result<Vec<u8>, Failed> {
        let head = self.head()?;
        let length = head.length.ok_or_else(|| Failed("a reply without Content-Length".into()))?;
        match head.status {
            200 => self.body(length),
            status => Err(Failed(format!("the server answered with status {status}"))),
        }
    }

    /// Sends a GET, waits for its reply, and says how long that took.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn get(&mut self, path: &str) -> Result<Duration, Failed> {
        let begun = Instant::now();
        self.ask(path, "")?;
        self.answer()?;
        Ok(begun.elapsed())
    }

    /// Waits until the server closes.
    ///
    /// # Errors
    /// One sentence, if it does not, or sends something.
    pub fn wait_for_end(&mut self) -> Result<(), Failed> {
        match self.socket.read(&mut [0]) {
            Ok(0) if self.input.is_empty() => Ok(()),
            Ok(_) => Err(Failed("the server sent bytes that were not asked for".to_owned())),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Whether anything comes within this time; with no time, whether it is there.
    ///
    /// # Errors
    /// One sentence, if the server closes or the connection fails.
    pub fn hears_within(&mut self, time: Duration) -> Result<bool, Failed> {
        if !self.input.is_empty() {
            return Ok(true);
        }
        self.wait_at_most(time)?;
        let peeked = self.socket.peek(&mut [0]);
        self.wait_at_most(PATIENCE)?;
        match peeked {
            Ok(0) => Err(Failed("the server closed".to_owned())),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Sends a GET. Whether its whole reply arrives within this time; with no time, whether it is
    /// there at once.
    pub fn is_served_within(&mut self, path: &str, time: Duration) -> bool {
        let asked = self.ask(path, "").is_ok();
        let served = asked && self.wait_at_most(time).is_ok() && self.answer().is_ok();
        served && self.wait_at_most(PATIENCE).is_ok()
    }

    fn wait_at_most(&self, time: Duration) -> Result<(), Failed> {
        // A read timeout of zero would be none (socket(7), SO_RCVTIMEO).
        let time = time.max(Duration::from_millis(1));
        let set = self.socket.set_read_timeout(Some(time));
        set.map_err(|error| Failed(format!("cannot set up a socket: {error}")))
    }

    /// Another handle of the socket, to write from a second thread.
    ///
    /// # Errors
    /// One sentence.
    pub fn writer(&self) -> Result<TcpStream, Failed> {
        let other = self.socket.try_clone();
        other.map_err(|error| Failed(format!("cannot share a socket: {error}")))
    }

    /// Bytes sent since the begin, or since [`Client::forget`].
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// When bytes arrived, and how many, since the begin or since [`Client::forget`].
    pub fn arrivals(&self) -> &[(Instant, usize)] {
        &self.arrivals
    }

    /// Forgets what was sent and what has arrived.
    pub fn forget(&mut self) {
        self.bytes_sent = 0;
        self.arrivals.clear();
    }
}

/// Closes connections, and waits until the server has closed its ends too.
pub fn part(clients: Vec<Client>) {
    exchange::part(clients.into_iter().map(|client| client.socket).collect());
}

fn failed(error: &std::io::Error) -> Failed {
    Failed(match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("nothing came from the server within {} s", PATIENCE.as_secs())
        }
        _ => format!("the connection failed: {error}"),
    })
}

/// The head at the front of `input`, and its length; `None` if it is not complete.
///
/// # Errors
/// One sentence: what is there instead.
pub fn head(input: &[u8]) -> Result<Option<(usize, Head)>, String> {
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
    use std::net::TcpListener;

    use super::*;

    /// A server that reads a request and says this.
    fn asked(says: &'static [u8]) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 1024]).unwrap() > 0);
            socket.write_all(says).unwrap();
        });
        let mut client = Client::open(address).unwrap();
        client.ask("/", "").unwrap();
        client
    }

    #[test]
    fn bytes_after_a_reply_belong_to_the_next() {
        const REPLIES: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi\
            HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyou";
        let mut client = asked(REPLIES);
        assert_eq!(client.answer().unwrap(), b"hi");
        let head = client.head().unwrap();
        assert_eq!((head.status, head.length, head.closes), (200, Some(3), true));
        assert_eq!(client.body(3).unwrap(), b"you");
        client.wait_for_end().unwrap();
        let arrived: usize = client.arrivals().iter().map(|(_, bytes)| bytes).sum();
        assert_eq!((arrived, client.bytes_sent() > 0), (REPLIES.len(), true));
        client.forget();
        assert_eq!((client.arrivals().len(), client.bytes_sent()), (0, 0));
    }

    #[test]
    fn a_wrong_reply_says_what_it_is() {
        for (reply, said) in [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "status 404"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", "before the end"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "without Content-Length"),
            (b"SSH-2.0-x\r\n", "malformed"),
        ] {
            let told = asked(reply).answer().unwrap_err().to_string();
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn what_is_there_is_heard_without_a_wait_and_the_end_is_no_message() {
        let mut client = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert!(client.hears_within(PATIENCE).unwrap());
        assert_eq!(client.answer().unwrap(), b"");
        assert!(client.hears_within(PATIENCE).unwrap_err().to_string().contains("closed"));
        assert!(!client.is_served_within("/", Duration::ZERO));
    }
}
