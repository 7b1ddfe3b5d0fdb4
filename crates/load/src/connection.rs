//! What the engine remembers of one connection.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use socket2::Socket;

use crate::codec::Codec;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has no socket and waits for the schedule to start it.
    Parked,
    /// It has no socket and waits for its time to try again, in `Engine::retries`.
    Waiting,
    /// connect(2) has begun.
    Connecting,
    /// Requests and replies may pass.
    Open,
    /// The last reply has come; the server is about to close.
    Closing,
}

/// One connection that carries load, or its place while it has no socket.
pub(crate) struct Connection<R> {
    pub(crate) phase: Phase,
    pub(crate) socket: Option<Socket>,
    /// When each request on its way was admitted, oldest first, in nanoseconds of the engine's
    /// clock.
    pub(crate) admitted_at_ns: VecDeque<u64>,
    /// How many of these, from the youngest on, are not completely sent.
    pub(crate) unsent: u32,
    /// Bytes of the first unsent one that are sent.
    pub(crate) offset: usize,
    /// Number of the oldest request on its way.
    pub(crate) number: u64,
    /// Whether EPOLLOUT is asked for: only while the socket's send buffer is full.
    pub(crate) waits_for_room: bool,
    /// When the present phase began, for time limits.
    pub(crate) since_ns: u64,
    /// Replies counted in this window.
    pub(crate) completed: u64,
    /// What the codec remembers.
    pub(crate) reader: R,
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing is left to send.
    All,
    /// The send buffer is full (or the connection not yet made).
    Full,
    /// The connection is lost.
    Failed(Errno),
}

impl<R> Connection<R> {
    /// A place without a socket, for up to `depth` requests on their way.
    pub(crate) fn new(depth: u32, reader: R) -> Self {
        Connection {
            phase: Phase::Parked,
            socket: None,
            admitted_at_ns: VecDeque::with_capacity(depth as usize),
            unsent: 0,
            offset: 0,
            number: 0,
            waits_for_room: false,
            since_ns: 0,
            completed: 0,
            reader,
        }
    }

    /// Admits one request.
    #[inline]
    pub(crate) fn admit(&mut self, now_ns: u64) {
        self.admitted_at_ns.push_back(now_ns);
        self.unsent += 1;
    }

    /// Takes the oldest request off the list, for its reply is complete. `None` when it was not
    /// sent completely: nobody can answer rightly what he has not read.
    #[inline]
    pub(crate) fn answered(&mut self) -> Option<u64> {
        if self.admitted_at_ns.len() <= self.unsent as usize {
            return None;
        }
        self.number += 1;
        self.admitted_at_ns.pop_front()
    }

    /// Sends what is admitted, as far as the socket takes it. Adds the bytes to `bytes_sent`.
    pub(crate) fn send<C: Codec>(
        &mut self,
        slot: u32,
        codec: &mut C,
        bytes_sent: &mut u64,
    ) -> Sent {
        let Some(fd) = self.socket.as_ref().map(AsRawFd::as_raw_fd) else { return Sent::All };
        while self.unsent > 0 {
            let first = self.number + self.admitted_at_ns.len() as u64 - u64::from(self.unsent);
            let bytes = codec.outgoing(slot, first, self.unsent, self.offset);
            let asked = bytes.len();
            let sent = match send(fd, bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::EAGAIN) => return Sent::Full,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Sent::Failed(errno),
            };
            *bytes_sent += sent as u64;
            let (len, done) = (codec.request_bytes(), self.offset + sent);
            self.unsent -= (done / len) as u32;
            self.offset = done % len;
            if sent < asked {
                // A short send means a full buffer: asking again at once would only cost an EAGAIN.
                return Sent::Full;
            }
        }
        Sent::All
    }

    /// Drops the socket and all that was on its way; how many requests that were.
    pub(crate) fn close(&mut self, phase: Phase, reader: R) -> u64 {
        let lost = self.admitted_at_ns.len() as u64;
        self.socket = None;
        self.phase = phase;
        self.admitted_at_ns.clear();
        self.unsent = 0;
        self.offset = 0;
        self.number += lost;
        self.waits_for_room = false;
        self.reader = reader;
        lost
    }
}
