//! A socket and its connection, as the readiness models drive them: busy, select, poll, epoll. They
//! differ only in who says what is ready, so what is done then is written once, here.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use conn::{Address, Conn, Wants};

use crate::timers::Armed;
use crate::turns::Turns;
use crate::{Files, SLICES_MAX, Worker, sys, unread};

/// What a wait primitive said about a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read will not block.
    pub read: bool,
    /// A write will not block.
    pub write: bool,
    /// The peer's FIN is queued, so a short read does not mean that nothing is left to read.
    pub peer_closed: bool,
    /// The connection is broken (ERR or HUP): reported whether it was asked for or not.
    pub failed: bool,
}

/// What came of one turn.
#[derive(Debug)]
pub enum Turn {
    /// Nothing to do until the socket is ready for what is wanted, or the deadline.
    Waits(Wants),
    /// The steps of this turn are used up; no event will come for what is left, so ask again soon.
    More(Wants),
    /// The connection is over; the socket is to be closed.
    Closed,
}

/// A non-blocking socket and its connection.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    conn: Conn,
    /// As far as we know, a read would find something.
    readable: bool,
    /// As far as we know, a write would find room.
    writable: bool,
    peer_closed: bool,
    failed: bool,
    /// Another connection has something for it.
    rung: bool,
    turns: Turns,
    pub(crate) armed: Armed,
    pub(crate) queued: bool,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream, worker: &Worker, address: Address, now: Instant) -> Peer {
        Peer {
            stream,
            conn: worker.conn(address, now),
            // A fresh socket has room; whether it has input is for the wait primitive to say.
            readable: false,
            writable: true,
            peer_closed: false,
            failed: false,
            rung: false,
            turns: Turns::default(),
            armed: Armed::default(),
            queued: false,
        }
    }

    pub(crate) fn ready(&mut self, readiness: Readiness) {
        self.readable |= readiness.read || readiness.failed;
        self.writable |= readiness.write || readiness.failed;
        self.peer_closed |= readiness.peer_closed;
        self.failed |= readiness.failed;
    }

    pub(crate) fn rung(&mut self) {
        self.rung = true;
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.conn.wants().and_then(|wants| wants.deadline)
    }

    /// The server was told to stop `at` this time.
    pub(crate) fn drain(&mut self, at: Instant) {
        self.conn.drain(unread(&self.stream), at);
    }

    /// Reads, lets the connection work, writes: until nothing is ready or the steps are used up.
    pub(crate) fn turn(&mut self, mut now: Instant, scratch: &mut [u8], files: &Files) -> Turn {
        if std::mem::take(&mut self.rung) {
            self.conn.resume(now);
        }
        // ANCHOR: turn
        while !self.turns.is_over() {
            let Some(wants) = self.conn.wants() else { return Turn::Closed };
            if wants.deadline.is_some_and(|at| at <= now) {
                if self.conn.input_is_late(now) {
                    // Whatever the wait has said: it may have come since, and still in time.
                    now = self.read(now, scratch);
                }
                look_at_output(&mut self.conn, &self.stream, now);
                self.conn.timeout(now);
            } else if let Some(part) = &wants.file {
                match files.read(part) {
                    Ok(bytes) => self.conn.file_read(bytes, now),
                    Err(_) => self.conn.file_failed(now),
                }
            } else if wants.write && self.writable {
                self.write(now);
            } else if wants.shutdown {
                // A peer that is gone already makes this fail; the read that follows will tell.
                let _ = self.stream.shutdown(Shutdown::Write);
                self.conn.shutdown_done(now);
            } else if wants.turn {
                // A step like others, so that they come between two rounds of these.
                self.conn.resume(now);
            } else if wants.read && self.readable {
                now = self.read(now, scratch);
            } else if self.failed && !wants.read && !wants.write {
                // ERR and HUP cannot be muted: a connection that wants nothing now would spin.
                self.conn.abort();
            } else {
                self.turns.wait();
                return Turn::Waits(wants);
            }
            self.turns.step();
        }
        // ANCHOR_END: turn
        self.turns.use_up();
        self.conn.wants().map_or(Turn::Closed, Turn::More)
    }

    /// Its turns come after those of others.
    pub(crate) fn is_bulk(&self) -> bool {
        self.turns.is_bulk() || self.conn.is_lingering()
    }

    /// One recv(2). Returns the time of what was read: others may have taken long in this round,
    /// and a deadline that these bytes start must not begin before they were here.
    fn read(&mut self, now: Instant, scratch: &mut [u8]) -> Instant {
        let result = self.stream.read(scratch);
        let now = if result.is_ok() { Instant::now() } else { now };
        match result {
            Ok(0) => {
                self.readable = false;
                self.conn.receive_eof(now);
            }
            Ok(n) => {
                // A short read has emptied a stream socket (epoll(7)), unless the peer's FIN is
                // queued behind the bytes: then only another read brings the end of file.
                self.readable = n == scratch.len() || self.peer_closed;
                self.turns.moved(n);
                self.conn.receive(&scratch[..n], now);
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => self.readable = false,
                ErrorKind::Interrupted => {}
                _ => self.conn.abort(),
            },
        }
        now
    }

    fn write(&mut self, now: Instant) {
        match write_output(&self.stream, &self.conn) {
            Ok((n, wanted)) => {
                // A short write has filled the send buffer: another try could only say EAGAIN.
                self.writable = n == wanted;
                self.turns.moved(n);
                self.conn.sent(n, now);
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => self.writable = false,
                ErrorKind::Interrupted => {}
                _ => self.conn.abort(),
            },
        }
    }
}

/// A deadline is due: tells the connection what its peer has acknowledged, if that makes a
/// difference. To be called before [`Conn::timeout`].
pub fn look_at_output(conn: &mut Conn, socket: &impl AsFd, now: Instant) {
    if conn.output_is_late(now) {
        conn.unacknowledged(sys::unacknowledged(socket), now);
    }
}

/// A deadline is due. Bytes may have come in time that the caller has not been told of, so the
/// kernel is asked before the clock decides. Only where no other thread reads from the socket.
pub fn late(conn: &mut Conn, socket: &impl AsFd, scratch: &mut [u8], now: Instant) {
    if conn.input_is_late(now) {
        match sys::receive_now(socket, scratch) {
            Ok(0) => conn.receive_eof(Instant::now()),
            Ok(n) => conn.receive(&scratch[..n], Instant::now()),
            // EAGAIN: it is late. Whatever else it is, the next read will be told.
            Err(_) => {}
        }
    }
    look_at_output(conn, socket, now);
    conn.timeout(now);
}

/// Writes from the front of the connection's output. Returns the bytes written and those offered.
pub(crate) fn write_output(stream: &TcpStream, conn: &Conn) -> io::Result<(usize, usize)> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let filled = conn.slices(&mut slices);
    let slices = &slices[..filled];
    let written = write_slices(stream, slices)?;
    Ok((written, slices.iter().map(|slice| slice.len()).sum()))
}

/// send(2) for one slice, writev(2) for more; the first is the cheaper call for the common reply.
pub(crate) fn write_slices(mut stream: &TcpStream, slices: &[IoSlice]) -> io::Result<usize> {
    match slices {
        [one] => stream.write(one),
        many => stream.write_vectored(many),
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
