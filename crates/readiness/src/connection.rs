//! A non-blocking socket and its protocol state, and what a loop does with them in one turn.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use conn::{Conn, Wants};
use kit::{Armed, Files, Turns, look_at_output, unread, write_output};

use crate::{Answer, InterestList};

/// How a turn has ended.
#[derive(Debug)]
pub(crate) enum TurnEnd {
    /// There is nothing to do until the socket is ready for what is wanted, or until the deadline.
    Waits(Wants),
    /// The steps of the turn are used up, and it could go on. No event will come for that.
    Unfinished(Wants),
    /// The connection is over; the socket is to be closed.
    Closed,
}

/// A connection of a loop.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    conn: Conn,
    /// A read would find something, as far as is known.
    readable: bool,
    /// A write would find room, as far as is known.
    writable: bool,
    peer_closed: bool,
    failed: bool,
    /// Another connection has something for this one.
    woken: bool,
    turns: Turns,
    pub(crate) armed: Armed,
    pub(crate) queued: bool,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, conn: Conn) -> Connection {
        Connection {
            stream,
            conn,
            // A new socket has room for output. Whether it has input is for the wait to say.
            readable: false,
            writable: true,
            peer_closed: false,
            failed: false,
            woken: false,
            turns: Turns::default(),
            armed: Armed::default(),
            queued: false,
        }
    }

    pub(crate) fn ready(&mut self, answer: Answer) {
        self.readable |= answer.read || answer.failed;
        self.writable |= answer.write || answer.failed;
        self.peer_closed |= answer.peer_closed;
        self.failed |= answer.failed;
    }

    pub(crate) fn wake(&mut self) {
        self.woken = true;
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.conn.wants().and_then(|wants| wants.deadline)
    }

    /// The server was told to stop `at` this time.
    pub(crate) fn drain(&mut self, at: Instant) {
        self.conn.drain(unread(&self.stream), at);
    }

    /// Its turns come after those of others.
    pub(crate) fn is_bulk(&self) -> bool {
        self.turns.is_bulk() || self.conn.is_lingering()
    }

    /// Reads, lets the connection work, writes: until nothing is ready or the steps are used up.
    pub(crate) fn turn(
        &mut self,
        mut now: Instant,
        scratch: &mut [u8],
        files: &Files,
        list: &impl InterestList,
    ) -> TurnEnd {
        if std::mem::take(&mut self.woken) {
            self.conn.resume(now);
        }
        while !self.turns.is_over() {
            let Some(wants) = self.conn.wants() else { return TurnEnd::Closed };
            if wants.deadline.is_some_and(|at| at <= now) {
                if self.conn.input_is_late(now) {
                    // Bytes may have arrived since the wait, and still in time.
                    now = self.read(now, scratch, list);
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
                // Fails if the peer has reset the connection; the next read reports that.
                let _ = self.stream.shutdown(Shutdown::Write);
                self.conn.shutdown_done(now);
                if self.readable {
                    // The rest of a flood, probably: others come before it.
                    break;
                }
            } else if wants.turn {
                // A step like others, so that other connections come between two parts of the
                // work.
                self.conn.resume(now);
            } else if wants.read && self.readable {
                now = self.read(now, scratch, list);
            } else if self.failed && !wants.read && !wants.write {
                // ERR and HUP are always reported: a connection that wants nothing would spin.
                self.conn.abort();
            } else {
                self.turns.wait();
                return TurnEnd::Waits(wants);
            }
            self.turns.step();
        }
        self.turns.use_up();
        self.conn.wants().map_or(TurnEnd::Closed, TurnEnd::Unfinished)
    }

    /// One recv(2). Returns the time of the read: others may have taken long in this iteration,
    /// and a deadline that these bytes start must not begin before they were here.
    fn read(&mut self, now: Instant, scratch: &mut [u8], list: &impl InterestList) -> Instant {
        let result = self.stream.read(scratch);
        let now = if result.is_ok() { Instant::now() } else { now };
        match result {
            Ok(0) => {
                self.readable = false;
                self.conn.receive_eof(now);
            }
            Ok(n) => {
                self.readable = list.read_again(n, scratch.len(), self.peer_closed);
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

    /// One send(2) or writev(2).
    fn write(&mut self, now: Instant) {
        match write_output(&self.stream, &self.conn) {
            Ok((n, offered)) => {
                // A short write has filled the send buffer: another one could only say EAGAIN.
                self.writable = n == offered;
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

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use conn::{Address, Clock, Common, Counters, Limits, Protocol, Service};

    use super::*;

    /// An echo connection, and its peer's socket.
    fn echo() -> (Connection, TcpStream) {
        let now = Instant::now();
        let common =
            Common::new(Arc::new(()), Clock { started: now, started_unix: Duration::ZERO });
        let counters: &Counters = Box::leak(Box::default());
        let service = Service::new(Protocol::Echo, Limits::default(), counters, common);
        let conn = Conn::new(&Arc::new(service), Address::alone(), now);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("its address")).expect("a peer");
        let (stream, _) = listener.accept().expect("the peer");
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        (Connection::new(stream, conn), peer)
    }

    /// Bytes that one read can bring here.
    const ROOM: usize = 16;

    /// Bytes that a turn has read.
    fn turn(connection: &mut Connection) -> usize {
        let before = unread(&connection.stream);
        let end = connection.turn(Instant::now(), &mut [0; ROOM], &Files::default(), &());
        assert!(matches!(end, TurnEnd::Unfinished(_)), "{end:?}");
        before - unread(&connection.stream)
    }

    #[test]
    fn a_connection_that_uses_up_its_turns_has_turns_of_one_step() {
        let (mut connection, mut peer) = echo();
        let message = [7; 64 * ROOM];
        peer.write_all(&message).expect("a message");
        while unread(&connection.stream) < message.len() {
            std::thread::yield_now();
        }
        connection.ready(Answer { read: true, write: true, ..Answer::default() });
        for _ in 0..4 {
            assert!(!connection.is_bulk());
            assert_eq!(turn(&mut connection), 2 * ROOM, "two reads and two writes");
        }
        assert!(connection.is_bulk());
        assert_eq!(turn(&mut connection), ROOM, "a read");
        assert_eq!(turn(&mut connection), 0, "a write");
        assert_eq!(turn(&mut connection), ROOM, "a read");
    }
}
