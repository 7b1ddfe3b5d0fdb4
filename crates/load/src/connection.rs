//! What the engine remembers of one connection.

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::Socket;
use std::collections::VecDeque;

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

/// A request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// From when on its latency counts, in nanoseconds of the engine's clock. Closed loop: when it
    /// was admitted. Open loop: when it was due.
    pub(crate) due_ns: u64,
    /// When its sending began. Closed loop: the same moment.
    pub(crate) sent_ns: u64,
}

/// One connection that carries load, or its place while it has no socket.
pub(crate) struct Connection<R> {
    pub(crate) phase: Phase,
    pub(crate) socket: Option<Socket>,
    /// The requests on their way, oldest first.
    pub(crate) pending: VecDeque<Pending>,
    /// How many of these, from the youngest on, are not completely sent.
    pub(crate) unsent: u32,
    /// Bytes of the first unsent one that are sent.
    pub(crate) offset: usize,
    /// Number of the oldest request on its way.
    pub(crate) number: u64,
    /// Whether the socket's send buffer is full: EPOLLOUT will say when it is not.
    pub(crate) waits_for_room: bool,
    /// When the present phase began, for time limits.
    pub(crate) since_ns: u64,
    /// Whether it stands in the open loop's list of free connections.
    pub(crate) listed: bool,
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
            pending: VecDeque::with_capacity(depth as usize),
            unsent: 0,
            offset: 0,
            number: 0,
            waits_for_room: false,
            since_ns: 0,
            listed: false,
            completed: 0,
            reader,
        }
    }

    /// Admits one request.
    #[inline]
    pub(crate) fn admit(&mut self, pending: Pending) {
        self.pending.push_back(pending);
        self.unsent += 1;
    }

    /// Takes the oldest request off the list, for its reply is complete. `None` when it was not
    /// sent completely: nobody can answer rightly what he has not read.
    #[inline]
    pub(crate) fn answered(&mut self) -> Option<Pending> {
        if self.pending.len() <= self.unsent as usize {
            return None;
        }
        self.number += 1;
        self.pending.pop_front()
    }

    /// Sends what is admitted, as far as the socket takes it. Adds the bytes to `bytes_sent`.
    pub(crate) fn send<C: Codec>(
        &mut self,
        slot: u32,
        codec: &mut C,
        bytes_sent: &mut u64,
    ) -> Sent {
        let Some(socket) = &self.socket else { return Sent::All };
        while self.unsent > 0 {
            let first = self.number + self.pending.len() as u64 - u64::from(self.unsent);
            let bytes = codec.outgoing(slot, first, self.unsent, self.offset);
            let asked = bytes.len();
            let sent = match send(socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => return Sent::Full,
                Err(Errno::INTR) => continue,
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

    /// Drops the socket and all that was on its way, which is given back, oldest first.
    pub(crate) fn close(&mut self, phase: Phase, reader: R) -> Vec<Pending> {
        let lost: Vec<_> = self.pending.drain(..).collect();
        self.socket = None;
        self.phase = phase;
        self.unsent = 0;
        self.offset = 0;
        self.number += lost.len() as u64;
        self.waits_for_room = false;
        self.reader = reader;
        lost
    }
}
