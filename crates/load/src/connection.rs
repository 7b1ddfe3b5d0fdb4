//! One connection of the engine.

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::Socket;
use std::collections::VecDeque;

use crate::codec::{Codec, Step, Wrong};
use crate::outgoing::{Encrypted, Outgoing, Plain, Sent};
use crate::tls::{Client, HELD_BYTES_MAX, Session};

/// Half of an L2 cache, and enough for most replies in one recv(2).
const RECEIVE_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No socket: waits for the schedule to start it.
    Parked,
    /// No socket: waits in `Engine::retries` for its next attempt.
    Waiting,
    /// connect(2) has begun.
    Connecting,
    /// Connected: waits for the TLS handshake, or for the answer to the codec's greeting.
    Opening,
    /// Requests may be sent.
    Open,
    /// The server accepts no more requests, and still answers earlier ones.
    Leaving,
    /// The last reply has come; the server closes next.
    Closing,
    /// An unused place for connections that are set aside (`Engine::set_aside`).
    Spare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The start of its latency, in nanoseconds of the engine's clock. Closed loop: when it was
    /// admitted. Open loop: when it was due.
    pub(crate) due_ns: u64,
    /// When sending began. The same time in a closed loop.
    pub(crate) sent_ns: u64,
}

impl Pending {
    /// Marks a request that was answered before an older one.
    const ANSWERED: Pending = Pending { due_ns: u64::MAX, sent_ns: u64::MAX };
}

/// The requests in flight on one connection, by number. Replies may come in any order: a request
/// that is answered before an older one is marked, and removed when the older ones are. (While one
/// reply is late the list grows; the request timeout limits this.)
#[derive(Debug)]
pub(crate) struct Awaited {
    first: u64,
    ring: VecDeque<Pending>,
    holes: usize,
}

impl Awaited {
    fn new(depth: u32) -> Self {
        Awaited { first: 0, ring: VecDeque::with_capacity(depth as usize), holes: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.ring.len() - self.holes
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // The oldest entry is never a marked one.
        self.ring.is_empty()
    }

    pub(crate) fn oldest(&self) -> Option<&Pending> {
        self.ring.front()
    }

    /// Number of the oldest request, or of the next one if there is none.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Pending> {
        self.ring.iter().copied().filter(|&pending| pending != Pending::ANSWERED)
    }

    /// Continues with this number when no request waits for a reply.
    fn skip_to(&mut self, number: u64) {
        self.first = number;
    }

    #[inline]
    fn push(&mut self, pending: Pending) {
        self.ring.push_back(pending);
    }

    #[inline]
    fn take(&mut self, number: u64) -> Option<Pending> {
        if number == self.first && self.holes == 0 {
            let oldest = self.ring.pop_front();
            self.first += u64::from(oldest.is_some());
            return oldest;
        }
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let pending = std::mem::replace(self.ring.get_mut(at)?, Pending::ANSWERED);
        self.holes += usize::from(pending != Pending::ANSWERED);
        while self.ring.front() == Some(&Pending::ANSWERED) {
            self.ring.pop_front();
            self.first += 1;
            self.holes -= 1;
        }
        Some(pending).filter(|&pending| pending != Pending::ANSWERED)
    }

    /// Removes all requests from number `from` on, oldest first.
    fn cut(&mut self, from: u64) -> Vec<Pending> {
        let at = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut cut: Vec<_> = self.ring.drain(at.min(self.ring.len())..).collect();
        let all = cut.len();
        cut.retain(|&pending| pending != Pending::ANSWERED);
        self.holes -= all - cut.len();
        cut
    }
}

/// Buffers for received bytes, shared by all connections of a thread so that they stay in the
/// cache.
pub(crate) struct Buffers {
    pub(crate) plain: Vec<u8>,
    /// Ciphertext from the sockets, with TLS.
    encrypted: Vec<u8>,
}

impl Buffers {
    /// Buffers for one read. `tls`: of ciphertext.
    pub(crate) fn new(tls: bool) -> Self {
        let (more, encrypted) = if tls { (HELD_BYTES_MAX, RECEIVE_BYTES) } else { (0, 0) };
        Buffers { plain: vec![0; RECEIVE_BYTES + more], encrypted: vec![0; encrypted] }
    }
}

pub(crate) enum Received {
    /// So many bytes for the codec, possibly none with TLS. `drained`: the socket is empty.
    Bytes {
        count: usize,
        drained: bool,
    },
    Nothing,
    End,
    /// A system call failed: the connection is lost.
    Failed(Errno),
    /// The bytes are not TLS, or not as negotiated.
    Broken(String),
}

/// One connection that carries load, or its place while it has no socket.
pub(crate) struct Connection<R> {
    pub(crate) number: u32,
    pub(crate) phase: Phase,
    pub(crate) socket: Option<Socket>,
    pub(crate) tls: Option<Session>,
    /// Whether the TLS handshake is complete and its result was recorded.
    shaken: bool,
    /// Whether requests may be sent: handshake and greeting are complete, or there are none.
    pub(crate) ready: bool,
    pub(crate) awaited: Awaited,
    pub(crate) outgoing: Outgoing,
    /// Whether the send buffer is full. EPOLLOUT reports when it has room.
    pub(crate) waits_for_room: bool,
    /// When the present phase began, for time limits; while the connection opens, when connect(2)
    /// began.
    pub(crate) since_ns: u64,
    /// Whether it is in the open loop's list of free connections.
    pub(crate) listed: bool,
    pub(crate) completed: u64,
    /// The first number whose reply counts in this window.
    pub(crate) window_from: u64,
    /// The first number on this socket.
    begun_from: u64,
    pub(crate) reader: R,
}

impl<R> Connection<R> {
    /// A place without a socket, for up to `depth` requests in flight.
    pub(crate) fn new(number: u32, depth: u32, reader: R) -> Self {
        Connection {
            number,
            phase: Phase::Parked,
            socket: None,
            tls: None,
            shaken: false,
            ready: false,
            awaited: Awaited::new(depth),
            outgoing: Outgoing::default(),
            waits_for_room: false,
            since_ns: 0,
            listed: false,
            completed: 0,
            window_from: 0,
            begun_from: 0,
            reader,
        }
    }

    /// Takes a socket whose connect(2) has begun, and prepares its first bytes.
    pub(crate) fn begin<C: Codec<Reader = R>>(
        &mut self,
        codec: &mut C,
        socket: Socket,
        tls: Option<Session>,
    ) {
        self.phase = Phase::Connecting;
        // A request with a connection of its own is admitted before there is a socket.
        self.begun_from = self.awaited.first();
        self.socket = Some(socket);
        self.ready = tls.is_none() && codec.is_open(&self.reader);
        self.tls = tls;
        codec.greet(self.number, &mut self.reader, &mut self.outgoing.owed);
    }

    /// Whether no request was sent on this socket.
    pub(crate) fn is_unused(&self) -> bool {
        self.awaited.end() == self.begun_from
    }

    #[inline]
    pub(crate) fn admit(&mut self, pending: Pending) {
        self.awaited.push(pending);
        self.outgoing.unsent += 1;
    }

    /// Awaits a message that another connection sends.
    #[inline]
    pub(crate) fn expect(&mut self, pending: Pending) {
        self.awaited.push(pending);
        self.outgoing.next += 1;
    }

    /// Continues with this number when no request waits for a reply.
    pub(crate) fn skip_to(&mut self, number: u64) {
        self.awaited.skip_to(number);
        self.outgoing.next = number;
    }

    #[inline]
    pub(crate) fn has_to_send(&self) -> bool {
        (self.ready && self.outgoing.unsent > 0)
            || !self.outgoing.owed.is_empty()
            || self.tls.as_ref().is_some_and(Session::wants_write)
    }

    /// Sends what may be sent, as far as the socket takes it. Adds the bytes to `bytes_sent`.
    #[inline]
    pub(crate) fn send<C: Codec>(&mut self, codec: &mut C, bytes_sent: &mut u64) -> Sent {
        let number = self.number;
        let Some(socket) = &self.socket else { return Sent::All };
        match &mut self.tls {
            None => self.outgoing.send(Plain { socket, bytes_sent }, number, codec, self.ready),
            Some(tls) => {
                self.outgoing.send(Encrypted { socket, tls, bytes_sent }, number, codec, self.ready)
            }
        }
    }

    /// One read of the socket. Adds the bytes to `bytes_received`.
    #[inline]
    pub(crate) fn receive(&mut self, buffers: &mut Buffers, bytes_received: &mut u64) -> Received {
        let Some(socket) = &self.socket else { return Received::Nothing };
        let buffer = match &self.tls {
            None => &mut buffers.plain,
            Some(tls) if tls.has_ended() => return Received::End,
            Some(_) => &mut buffers.encrypted,
        };
        let count = loop {
            match recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((0, _)) => return Received::End,
                Ok((count, _)) => break count,
                Err(Errno::AGAIN) => return Received::Nothing,
                Err(Errno::INTR) => {}
                Err(errno) => return Received::Failed(errno),
            }
        };
        *bytes_received += count as u64;
        let drained = count < buffer.len();
        let Some(tls) = &mut self.tls else { return Received::Bytes { count, drained } };
        let encrypted = buffers.encrypted.get(..count).unwrap_or_default();
        match tls.open(encrypted, &mut buffers.plain) {
            // The next read reports the end.
            Ok(count) => Received::Bytes { count, drained: drained && !tls.has_ended() },
            Err(what) => Received::Broken(what),
        }
    }

    /// Whether FIN may come now without being a truncation: over TLS, after close_notify (RFC 8446,
    /// section 6.1).
    pub(crate) fn may_end_here(&self) -> bool {
        self.tls.as_ref().is_none_or(Session::has_ended)
    }

    /// Continues handshake and greeting with the bytes that have arrived. Returns whether requests
    /// may be sent. `shaken` is called once when the TLS handshake is complete.
    pub(crate) fn open<C: Codec<Reader = R>>(
        &mut self,
        codec: &C,
        client: Option<&Client>,
        shaken: impl FnOnce(&Session),
    ) -> Result<bool, String> {
        if let (Some(tls), Some(client), false) = (&self.tls, client, self.shaken) {
            if tls.is_handshaking() {
                return Ok(false);
            }
            client.check_protocol(tls)?;
            self.shaken = true;
            shaken(tls);
        }
        self.ready = codec.is_open(&self.reader);
        Ok(self.ready)
    }

    /// Passes received bytes to the codec. `replied` gets the number of each complete reply, its
    /// request, and whether the server closes after it.
    #[inline]
    pub(crate) fn take<C: Codec<Reader = R>>(
        &mut self,
        codec: &mut C,
        mut bytes: &[u8],
        mut replied: impl FnMut(u64, Pending),
    ) -> Result<(), Wrong> {
        while !bytes.is_empty() {
            let end = self.awaited.end();
            let waits = self.ready && self.phase != Phase::Closing;
            let awaited = if waits { self.awaited.first()..end } else { end..end };
            let step = codec.incoming(self.number, &mut self.reader, awaited, bytes)?;
            let Step::Reply { number, consumed, last } = step else { break };
            bytes = bytes.get(consumed..).unwrap_or_default();
            replied(number, self.answered(number)?);
            if last {
                self.phase = Phase::Closing;
            }
        }
        codec.owed(&mut self.reader, &mut self.outgoing.owed);
        Ok(())
    }

    /// Removes a request whose reply is complete. A reply to a request that was not sent completely
    /// cannot be right.
    #[inline]
    pub(crate) fn answered(&mut self, number: u64) -> Result<Pending, Wrong> {
        if number >= self.outgoing.next {
            return Err(Wrong("a reply to a request that was not sent completely".to_owned()));
        }
        let pending = self.awaited.take(number);
        pending.ok_or_else(|| Wrong("a second reply to one request".to_owned()))
    }

    /// The server answers no request from this number on. They are returned, oldest first.
    pub(crate) fn leave(&mut self, from: u64) -> Vec<Pending> {
        self.phase = Phase::Leaving;
        self.outgoing.forget_from(from);
        self.awaited.cut(from)
    }

    /// Tells the server in every layer but TCP that this side sends no more.
    pub(crate) fn send_farewell<C: Codec<Reader = R>>(
        &mut self,
        codec: &mut C,
        bytes_sent: &mut u64,
    ) {
        if self.ready {
            codec.farewell(&mut self.reader, &mut self.outgoing.owed);
        }
        if self.tls.is_none() && self.outgoing.owed.is_empty() {
            return;
        }
        let _as_far_as_it_goes = self.send(codec, bytes_sent);
        if let (Some(tls), Some(socket)) = (&mut self.tls, &self.socket) {
            tls.finish();
            let _as_far_as_it_goes = tls.flush(socket, bytes_sent);
        }
    }

    /// Drops the socket and all requests in flight, which are returned, oldest first.
    pub(crate) fn close(&mut self, phase: Phase, reader: R) -> Vec<Pending> {
        let end = self.awaited.end();
        let lost = self.awaited.cut(0);
        self.outgoing.forget();
        // Numbers that `leave` has returned are not used again.
        self.outgoing.next = self.outgoing.next.max(end);
        self.awaited.skip_to(self.outgoing.next);
        self.socket = None;
        self.tls = None;
        self.shaken = false;
        self.ready = false;
        self.phase = phase;
        self.waits_for_room = false;
        self.reader = reader;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(due_ns: u64) -> Pending {
        Pending { due_ns, sent_ns: due_ns }
    }

    /// Requests 0 to 5, due at ten times their number.
    fn six() -> Awaited {
        let mut awaited = Awaited::new(4);
        (0..6).for_each(|number| awaited.push(pending(number * 10)));
        awaited
    }

    #[test]
    fn replies_in_any_order_find_their_requests() {
        let mut awaited = six();
        for number in [3, 0, 5, 1, 4, 2] {
            assert_eq!(awaited.take(number), Some(pending(number * 10)));
            assert_eq!(awaited.take(number), None, "a second reply to {number}");
        }
        assert!(awaited.is_empty());
        assert_eq!((awaited.len(), awaited.first(), awaited.end()), (0, 6, 6));
        assert_eq!((awaited.take(6), awaited.take(u64::MAX)), (None, None));
    }

    #[test]
    fn the_oldest_is_never_a_hole() {
        let mut awaited = six();
        for (number, oldest, len) in [(1, 0, 5), (2, 0, 4), (0, 3, 3), (4, 3, 2), (3, 5, 1)] {
            awaited.take(number);
            assert_eq!(awaited.oldest(), Some(&pending(oldest * 10)));
            assert_eq!((awaited.first(), awaited.len()), (oldest, len));
            assert_eq!(awaited.iter().count(), len);
        }
    }

    #[test]
    fn what_is_given_back_has_no_holes_in_it() {
        let mut awaited = six();
        awaited.take(1);
        awaited.take(4);
        assert_eq!(awaited.cut(3), [pending(30), pending(50)]);
        assert_eq!((awaited.len(), awaited.end()), (2, 3));
        assert_eq!(awaited.cut(0), [pending(0), pending(20)]);
        assert!(awaited.is_empty() && awaited.holes == 0);
        assert_eq!(awaited.cut(100), []);
    }
}
