//! The bytes that one connection sends, and their order: protocol frames (a greeting,
//! acknowledgements) between whole requests, never inside one.

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::Socket;

use crate::codec::Codec;
use crate::tls::Session;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    /// The send buffer is full, or the connection is not open yet.
    Full,
    Failed(Errno),
}

pub(crate) trait Pipe {
    /// Takes bytes from the front; returns how many. `AGAIN`: none now.
    fn push(&mut self, bytes: &[u8]) -> Result<usize, Errno>;
    /// Whether all bytes taken were sent.
    fn flush(&mut self) -> Result<bool, Errno>;
}

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

pub(crate) struct Encrypted<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) tls: &'a mut Session,
    pub(crate) bytes_sent: &'a mut u64,
}

impl Pipe for Encrypted<'_> {
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

/// The bytes that one connection has to send.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Requests that are admitted and not sent completely.
    pub(crate) unsent: u32,
    /// Sent bytes of the first of them.
    offset: usize,
    pub(crate) next: u64,
    /// Whole protocol frames to be sent.
    pub(crate) owed: Vec<u8>,
    owed_sent: usize,
}

impl Outgoing {
    /// Sends what may be sent, as far as `pipe` takes it. `ready`: requests may be sent.
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
                // The frames wait only for the end of this request.
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
                // A short send means a full buffer; another would only return EAGAIN.
                return Sent::Full;
            }
        }
    }

    /// So many bytes of the frames were sent.
    fn have_paid(&mut self, sent: usize) {
        self.owed_sent += sent;
        if self.owed_sent == self.owed.len() {
            self.owed.clear();
            self.owed_sent = 0;
        }
    }

    /// Drops all bytes, and the requests that were admitted.
    pub(crate) fn forget(&mut self) {
        self.next += u64::from(self.unsent);
        self.unsent = 0;
        self.offset = 0;
        self.owed.clear();
        self.owed_sent = 0;
    }

    /// Drops the requests from number `from` on. One that is sent in part stays, because its end
    /// must be sent before any frame.
    pub(crate) fn forget_from(&mut self, from: u64) {
        let partial = u64::from(self.offset > 0);
        let kept = from.saturating_sub(self.next).max(partial);
        self.unsent = self.unsent.min(u32::try_from(kept).unwrap_or(u32::MAX));
    }
}
