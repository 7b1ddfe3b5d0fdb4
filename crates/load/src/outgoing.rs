//! What one connection has to send, and in which order: what this side owes (a greeting,
//! acknowledgements) between whole requests, never inside one.

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::Socket;

use crate::codec::Codec;
use crate::tls::Session;

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing is left that may be sent.
    All,
    /// The send buffer is full (or the connection not yet made).
    Full,
    /// The connection is lost.
    Failed(Errno),
}

/// A way for bytes to the server.
pub(crate) trait Pipe {
    /// Takes bytes from the first on; how many. `AGAIN`: none just now.
    fn push(&mut self, bytes: &[u8]) -> Result<usize, Errno>;
    /// Whether all that was taken has left for the server.
    fn flush(&mut self) -> Result<bool, Errno>;
}

/// The socket itself.
pub(crate) struct Plain<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) bytes_sent: &'a mut u64,
}

impl Pipe for Plain<'_> {
    #[inline]
    fn push(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        loop {
            match send(self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    *self.bytes_sent += sent as u64;
                    return Ok(sent);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    #[inline]
    fn flush(&mut self) -> Result<bool, Errno> {
        Ok(true)
    }
}

/// The socket behind TLS.
pub(crate) struct Sealed<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) tls: &'a mut Session,
    pub(crate) bytes_sent: &'a mut u64,
}

impl Pipe for Sealed<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.tls.is_handshaking() {
            return Err(Errno::AGAIN);
        }
        self.tls.push(self.socket, bytes, self.bytes_sent)
    }

    fn flush(&mut self) -> Result<bool, Errno> {
        self.tls.flush(self.socket, self.bytes_sent)
    }
}

/// What one connection has to send.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Requests that are admitted and not completely sent.
    pub(crate) unsent: u32,
    /// Bytes of the first of them that are sent.
    offset: usize,
    /// The number of the first of them.
    pub(crate) next: u64,
    /// What this side owes, whole frames.
    pub(crate) owed: Vec<u8>,
    /// Bytes of it that are sent.
    owed_sent: usize,
}

impl Outgoing {
    /// Sends what may be sent, as far as `pipe` takes it. `ready`: requests may be.
    #[inline]
    pub(crate) fn send<C: Codec>(
        &mut self,
        mut pipe: impl Pipe,
        connection: u32,
        codec: &mut C,
        ready: bool,
    ) -> Sent {
        let pushed = self.push(&mut pipe, connection, codec, ready);
        match (pushed, pipe.flush()) {
            (_, Err(errno)) => Sent::Failed(errno),
            (Sent::All, Ok(false)) => Sent::Full,
            (pushed, Ok(_)) => pushed,
        }
    }

    #[inline]
    fn push<C: Codec>(
        &mut self,
        pipe: &mut impl Pipe,
        connection: u32,
        codec: &mut C,
        ready: bool,
    ) -> Sent {
        loop {
            let owes = !self.owed.is_empty();
            let (bytes, is_owed) = if owes && self.offset == 0 {
                (self.owed.get(self.owed_sent..).unwrap_or_default(), true)
            } else if self.unsent > 0 && ready {
                // What is owed waits for the end of this one request only.
                let requests = if owes { 1 } else { self.unsent };
                (codec.outgoing(connection, self.next, requests, self.offset), false)
            } else {
                return Sent::All;
            };
            let asked = bytes.len();
            let sent = match pipe.push(bytes) {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => return Sent::Full,
                Err(errno) => return Sent::Failed(errno),
            };
            if is_owed {
                self.have_paid(sent);
            } else {
                let (len, done) = (codec.request_bytes(), self.offset + sent);
                self.unsent -= (done / len) as u32;
                self.next += (done / len) as u64;
                self.offset = done % len;
            }
            if sent < asked {
                // A short send means a full buffer: asking again at once would only cost an EAGAIN.
                return Sent::Full;
            }
        }
    }

    /// So many bytes of what is owed were sent.
    fn have_paid(&mut self, sent: usize) {
        self.owed_sent += sent;
        if self.owed_sent == self.owed.len() {
            self.owed.clear();
            self.owed_sent = 0;
        }
    }

    /// Nothing is left to send; requests that were admitted are forgotten.
    pub(crate) fn forget(&mut self) {
        self.next += u64::from(self.unsent);
        self.unsent = 0;
        self.offset = 0;
        self.owed.clear();
        self.owed_sent = 0;
    }

    /// Forgets the requests from number `from` on, but for one that is sent in part: its end must
    /// follow, for what is owed to be understood.
    pub(crate) fn forget_from(&mut self, from: u64) {
        let partial = u64::from(self.offset > 0);
        let kept = from.saturating_sub(self.next).max(partial);
        self.unsent = self.unsent.min(u32::try_from(kept).unwrap_or(u32::MAX));
    }
}
