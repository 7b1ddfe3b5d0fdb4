//! A blocking HTTP/1.1 client that notes the phases of a request. RFC 9112.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Clock;
use crate::wire::{self, Head};

/// Time limit of one step. The longest reply of an experiment takes two seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of connect(2): less than that of a retransmitted SYN after 1, 3 and 7 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A part of a request, in microseconds of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// `name`, `connect`, `wait`, `transfer`, `idle` or `close`.
    pub kind: &'static str,
    /// Begin.
    pub from_us: f64,
    /// End.
    pub to_us: f64,
}

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Status of the head.
    pub status: u16,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Whether the server said `Connection: close`.
    pub closes: bool,
    /// From the request to the first byte of the reply.
    pub wait: Phase,
    /// From there to the last byte.
    pub transfer: Phase,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    clock: Clock,
    address: SocketAddr,
    /// When each request without a reply was sent.
    sent_us: VecDeque<f64>,
    /// When the last reply was complete.
    since_us: f64,
    /// Bytes after the last reply.
    input: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// One sentence.
    pub fn open(clock: Clock, address: SocketAddr) -> Result<(Connection, Phase), String> {
        let (socket, phase) = connect(clock, address)?;
        let (sent_us, since_us) = (VecDeque::new(), phase.to_us);
        Ok((Connection { socket, clock, address, sent_us, since_us, input: Vec::new() }, phase))
    }

    /// Sends a request for `path`. With `close` it asks the server to close after the reply.
    ///
    /// # Errors
    /// One sentence.
    pub fn send(&mut self, path: &str, close: bool) -> Result<(), String> {
        let end = if close { "Connection: close\r\n\r\n" } else { "\r\n" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{end}", self.address);
        self.sent_us.push_back(self.clock.now_us());
        self.socket.write_all(request.as_bytes()).map_err(|e| format!("cannot send: {e}"))
    }

    /// Reads the next reply.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn receive(&mut self) -> Result<Reply, String> {
        let from_us = self.sent_us.pop_front().ok_or("no request was sent")?;
        if self.input.is_empty() {
            self.read()?;
        }
        let first_us = self.clock.now_us();
        let (head_bytes, Head { status, length, closes, .. }) = loop {
            if let Some(head) = wire::head(&self.input)? {
                break head;
            }
            self.read()?;
        };
        let length = length.ok_or("a reply without Content-Length")?;
        while self.input.len() < head_bytes + length {
            self.read()?;
        }
        self.input.drain(..head_bytes + length);
        self.since_us = self.clock.now_us();
        let wait = Phase { kind: "wait", from_us, to_us: first_us };
        let transfer = Phase { kind: "transfer", from_us: first_us, to_us: self.since_us };
        match status {
            200 => Ok(Reply { status, body_bytes: length, closes, wait, transfer }),
            _ => Err(format!("the server answered with status {status}")),
        }
    }

    /// Sends a request and reads its reply.
    ///
    /// # Errors
    /// One sentence.
    pub fn ask(&mut self, path: &str, close: bool) -> Result<Reply, String> {
        self.send(path, close)?;
        self.receive()
    }

    fn read(&mut self) -> Result<(), String> {
        let mut buffer = [0; 64 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => Err("the server closed before the end of its reply".to_owned()),
            Ok(bytes) => {
                self.input.extend_from_slice(&buffer[..bytes]);
                Ok(())
            }
            Err(error) => Err(told(&error)),
        }
    }

    /// Waits until the server closes, then closes. Returns when the FIN arrived, in microseconds,
    /// and the whole wait as a phase of this kind.
    ///
    /// # Errors
    /// One sentence, if the server does not close or sends something.
    pub fn wait_for_end(mut self, kind: &'static str) -> Result<Phase, String> {
        let mut buffer = [0; 1];
        match self.socket.read(&mut buffer) {
            Ok(0) => {}
            Ok(_) => return Err("the server sent bytes that were not asked for".to_owned()),
            Err(error) => return Err(told(&error)),
        }
        Ok(Phase { kind, from_us: self.since_us, to_us: self.clock.now_us() })
    }
}

/// Connects a socket.
///
/// # Errors
/// One sentence.
pub(crate) fn connect(clock: Clock, address: SocketAddr) -> Result<(TcpStream, Phase), String> {
    let from_us = clock.now_us();
    let socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
    let socket = socket.map_err(|e| format!("cannot connect to {address}: {e}"))?;
    let phase = Phase { kind: "connect", from_us, to_us: clock.now_us() };
    let set = socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(TIMEOUT)));
    set.map_err(|e| format!("cannot set up a socket: {e}"))?;
    Ok((socket, phase))
}

fn told(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("nothing came from the server within {} s", TIMEOUT.as_secs())
        }
        _ => format!("the connection failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn says(reply: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(socket.read(&mut request).unwrap() > 0);
            socket.write_all(reply).unwrap();
        });
        address
    }

    fn asked(reply: &'static [u8]) -> (Result<Reply, String>, Connection) {
        let (mut connection, _) = Connection::open(Clock::start(), says(reply)).unwrap();
        (connection.ask("/", false), connection)
    }

    #[test]
    fn the_phases_of_a_request_follow_each_other() {
        let clock = Clock::start();
        let address = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        let (mut connection, connect) = Connection::open(clock, address).unwrap();
        let reply = connection.ask("/", true).unwrap();
        assert!(connect.to_us <= reply.wait.from_us && reply.wait.to_us <= reply.transfer.to_us);
        assert_eq!((reply.status, reply.body_bytes, reply.closes), (200, 2, true));
        let close = connection.wait_for_end("close").unwrap();
        assert_eq!((close.kind, close.from_us), ("close", reply.transfer.to_us));
    }

    #[test]
    fn a_wrong_reply_says_what_it_is() {
        for (reply, said) in [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "status 404"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", "before the end"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "without Content-Length"),
            (b"SSH-2.0-x\r\n", "malformed"),
        ] {
            let told = asked(reply).0.unwrap_err();
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn bytes_after_a_reply_belong_to_the_next() {
        let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let two = Box::leak(format!("{one}{one}").into_boxed_str());
        let (first, mut connection) = asked(two.as_bytes());
        assert_eq!(first.unwrap().body_bytes, 2);
        connection.sent_us.push_back(0.0);
        assert_eq!(connection.receive().unwrap().body_bytes, 2);
    }
}
