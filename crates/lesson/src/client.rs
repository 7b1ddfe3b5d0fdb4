//! The client of an experiment over HTTP/1.1: it notes the phases of a request. RFC 9112.

use std::collections::VecDeque;
use std::net::SocketAddr;

use rig::client::Client;

use crate::Clock;

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
    client: Client,
    clock: Clock,
    /// When each request without a reply was sent.
    sent_us: VecDeque<f64>,
    /// When the last reply was complete.
    since_us: f64,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// One sentence.
    pub fn open(clock: Clock, address: SocketAddr) -> Result<(Connection, Phase), String> {
        let (client, phase) = connect(clock, address)?;
        let (sent_us, since_us) = (VecDeque::new(), phase.to_us);
        Ok((Connection { client, clock, sent_us, since_us }, phase))
    }

    /// Sends a request for `path`. With `close` it asks the server to close after the reply.
    ///
    /// # Errors
    /// One sentence.
    pub fn send(&mut self, path: &str, close: bool) -> Result<(), String> {
        self.sent_us.push_back(self.clock.now_us());
        Ok(self.client.ask(path, if close { "Connection: close\r\n" } else { "" })?)
    }

    /// Reads the next reply.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn receive(&mut self) -> Result<Reply, String> {
        let from_us = self.sent_us.pop_front().ok_or("no request was sent")?;
        self.client.wait_for_bytes()?;
        let first_us = self.clock.now_us();
        let head = self.client.head()?;
        let (status, closes) = (head.status, head.closes);
        let body_bytes = head.length.ok_or("a reply without Content-Length")?;
        self.client.body(body_bytes)?;
        self.since_us = self.clock.now_us();
        let wait = Phase { kind: "wait", from_us, to_us: first_us };
        let transfer = Phase { kind: "transfer", from_us: first_us, to_us: self.since_us };
        match status {
            200 => Ok(Reply { status, body_bytes, closes, wait, transfer }),
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

    /// Waits until the server closes, then closes. Returns when the FIN arrived, in microseconds,
    /// and the whole wait as a phase of this kind.
    ///
    /// # Errors
    /// One sentence, if the server does not close or sends something.
    pub fn wait_for_end(mut self, kind: &'static str) -> Result<Phase, String> {
        self.client.wait_for_end()?;
        Ok(Phase { kind, from_us: self.since_us, to_us: self.clock.now_us() })
    }
}

/// Connects, and says how long that took.
///
/// # Errors
/// One sentence.
pub(crate) fn connect(clock: Clock, address: SocketAddr) -> Result<(Client, Phase), String> {
    let from_us = clock.now_us();
    let client = Client::open(address)?;
    Ok((client, Phase { kind: "connect", from_us, to_us: clock.now_us() }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_phases_of_a_request_follow_each_other() {
        let clock = Clock::start();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 1024]).unwrap() > 0);
            let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
            socket.write_all(reply).unwrap();
        });
        let (mut connection, connect) = Connection::open(clock, address).unwrap();
        let reply = connection.ask("/", true).unwrap();
        assert!(connect.to_us <= reply.wait.from_us && reply.wait.to_us <= reply.transfer.to_us);
        assert_eq!((reply.status, reply.body_bytes, reply.closes), (200, 2, true));
        let close = connection.wait_for_end("close").unwrap();
        assert_eq!((close.kind, close.from_us), ("close", reply.transfer.to_us));
    }
}
