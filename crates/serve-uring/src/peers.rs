//! All connections of the loop: who they are, what each has in flight, who may run, who is late.
//!
//! The readiness models share such a table (`kit::Peers`). This one differs in two things that are
//! the model's: a connection owns operations in flight, and it cannot be forgotten before the last
//! of them has come home; and connections are accepted by the kernel, so some may arrive after
//! the loop has asked it to stop.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conn::{Address, Conn, Wake, Wants};
use kit::{
    ACCEPTS_PER_ROUND, Accepted, Armed, EXHAUSTED_PAUSE, Files, TIGHT_PAUSE, Timers, Turns, Worker,
    accepts_per_round,
};
use slab::Slab;

use crate::mail::{self, Bell, Letter};
use crate::ring::{GENERATIONS, Op, Receive, Token, pack, unpack};

/// The life of an operation that may be cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Request {
    /// Not asked for.
    #[default]
    None,
    /// Asked for; a completion will come.
    Pending,
    /// Asked to end early; the completion will come all the same.
    Cancelled,
}

/// One connection, and what the kernel does for it now.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) conn: Conn,
    stream: TcpStream,
    pub(crate) receiving: Request,
    /// How it receives, if it does.
    pub(crate) receive: Receive,
    pub(crate) sending: Request,
    pub(crate) reading_file: bool,
    /// Bytes have come since the last turn.
    pub(crate) received: bool,
    /// The last of them left the socket empty.
    pub(crate) emptied: bool,
    /// A deadline is due, and the kernel has been given one more round to bring what came in time.
    pub(crate) late: bool,
    /// What it receives between two turns is counted as what others read in one.
    pub(crate) turns: Turns,
    /// What was sent has let it go on since the last turn.
    went_on: bool,
    /// What came of its send, if that is put off: to the connection it is still on its way.
    sent: Option<io::Result<usize>>,
    /// It waits among those that are bulk.
    put_off: bool,
    /// It has waited there, and has not run since.
    has_turn: bool,
    armed: Armed,
    queued: bool,
}

impl Peer {
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Does what is due and what takes no time, and says what the connection then waits for.
    pub(crate) fn wants(&mut self, now: Instant) -> Option<Wants> {
        let mut wants = self.conn.wants()?;
        let due = wants.deadline.is_some_and(|at| at <= now);
        // What has arrived since the wait began to return becomes a completion in the next one,
        // which does not sleep, because the deadline stays due.
        // While it waits for its turn, the kernel has not been asked.
        let asked = !self.put_off && !self.has_turn;
        self.late = due && !(self.late && asked) && self.conn.input_is_late(now);
        if due && !self.late {
            kit::look_at_output(&mut self.conn, &self.stream, now);
            self.conn.timeout(now);
            wants = self.conn.wants()?;
        }
        if wants.shutdown {
            // A call and not an operation: it never waits, while io_uring hands every shutdown to a
            // worker thread of the kernel (io_uring/net.c: REQ_F_FORCE_ASYNC). A peer that is gone
            // already makes it fail; the receive will tell.
            let _ = self.stream.shutdown(Shutdown::Write);
            self.conn.shutdown_done(now);
            wants = self.conn.wants()?;
        }
        if self.received && !wants.write && self.is_reset() {
            self.conn.abort();
            return None;
        }
        Some(wants)
    }

    /// Whether the peer has reset the connection right behind its last bytes, while the request to
    /// receive stays with the kernel. A multishot receive takes these bytes and waits for the next
    /// event, and the reset, which came before it waited, is none. Where something is sent, the
    /// send fails and says so; where nothing is, only a question does.
    fn is_reset(&self) -> bool {
        let asks = self.receiving == Request::Pending && self.sending == Request::None;
        asks && self.stream.take_error().is_ok_and(|error| error.is_some())
    }

    /// The server was told to stop `at` this time. What has come in by completions is with the
    /// connection already, and no other takes bytes out of the socket before the next wait.
    fn drain(&mut self, at: Instant) {
        self.conn.drain(kit::unread(&self.stream), at);
    }

    /// What came of a send.
    fn sent(&mut self, result: io::Result<usize>, now: Instant) {
        self.sending = Request::None;
        self.went_on = true;
        match result {
            Ok(n) => self.conn.sent(n, now),
            Err(_) => self.conn.abort(),
        }
    }

    /// Where to send, and what.
    pub(crate) fn output(&mut self) -> (BorrowedFd<'_>, impl Iterator<Item = Bytes>) {
        (self.stream.as_fd(), self.conn.chunks())
    }

    /// True while the kernel may still complete something for it.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.receiving != Request::None || self.sending != Request::None || self.reading_file
    }
}

/// The connections of the loop.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) worker: Worker,
    pub(crate) accepting: Request,
    peers: Slots<Peer>,
    /// Where other connections, of this loop or another, ring for one of these.
    bell: Arc<Bell>,
    /// What these have for connections of other loops.
    pub(crate) letters: Vec<Letter>,
    timers: Timers<Token>,
    runnable: VecDeque<Token>,
    /// Who may run in the next round too.
    again: Vec<Token>,
    /// Who may run in one of the next rounds, because they are bulk.
    bulk: VecDeque<Token>,
    /// Accepted after the limit was reached, or more than this round may take, and not served yet:
    /// as good as in the backlog.
    accepted: VecDeque<OwnedFd>,
    /// Clients that may still be served in this round for the first time.
    newcomers_left: usize,
    /// Connections that were sent something in this round.
    served: usize,
    /// Those of them that are not bulk, in this round and in the one before it.
    others: [usize; 2],
    /// How connections receive that are not bulk.
    receive: Receive,
    /// Set while no descriptors or no memory are left: accept again at this time, or when a
    /// connection ends.
    exhausted_until: Option<Instant>,
    /// When the server was told to stop.
    stopping: Option<Instant>,
    /// Nobody is accepted any more: those who waited by then are here.
    closed: bool,
}

impl Peers {
    pub(crate) fn new(worker: Worker, bell: Bell, receive: Receive) -> Peers {
        Peers {
            worker,
            accepting: Request::None,
            peers: Slots::default(),
            bell: Arc::new(bell),
            letters: Vec::new(),
            timers: Timers::default(),
            runnable: VecDeque::new(),
            again: Vec::new(),
            bulk: VecDeque::new(),
            accepted: VecDeque::new(),
            newcomers_left: accepts_per_round(0),
            served: 0,
            others: [0; 2],
            receive,
            exhausted_until: None,
            stopping: None,
            closed: false,
        }
    }

    /// True when the server is stopping, nobody waits for it, and the last connection has ended.
    pub(crate) fn finished(&self) -> bool {
        self.closed && self.peers.is_empty()
    }

    /// Whether connections are to be accepted: not at the limit, not without descriptors, not
    /// while stopping.
    pub(crate) fn wants_accept(&mut self, now: Instant) -> bool {
        if self.exhausted_until.is_some_and(|until| until <= now) {
            self.exhausted_until = None;
        }
        if self.exhausted_until.is_none() && !self.worker.service.common.memory.admits(now) {
            self.exhausted_until = Some(now + TIGHT_PAUSE);
        }
        let few = self.accepted.len() < *ACCEPTS_PER_ROUND.end();
        self.stopping.is_none() && self.has_room() && few && self.exhausted_until.is_none()
    }

    fn has_room(&self) -> bool {
        self.peers.len() < self.worker.conns_max
    }

    /// Whether those who wait at the listener are to be accepted: the server is stopping, and what
    /// was accepting has ended.
    fn empties_queue(&self) -> bool {
        let idle = self.accepting == Request::None && self.accepted.is_empty();
        let room = self.has_room() && self.exhausted_until.is_none();
        self.stopping.is_some() && !self.closed && idle && room
    }

    /// The server stops: takes some of those who came before. By plain calls, because only they say
    /// that nobody is left.
    ///
    /// # Errors
    /// What accept(2) says and no retry can mend.
    pub(crate) fn empty_queue(&mut self, now: Instant) -> io::Result<()> {
        if self.empties_queue() {
            self.worker.listener.set_nonblocking()?;
        }
        for _ in 0..*ACCEPTS_PER_ROUND.end() {
            if !self.empties_queue() {
                break;
            }
            let over = self.worker.stop.is_over(now);
            match if over { Accepted::Empty } else { self.worker.listener.accept()? } {
                Accepted::Peer(stream) => self.insert(OwnedFd::from(stream), now),
                Accepted::Exhausted => self.exhausted(now),
                Accepted::Nobody => {}
                Accepted::Empty => {
                    self.closed = true;
                    self.worker.listener.shutdown();
                }
            }
        }
        Ok(())
    }

    /// Takes an accepted connection, or lets it wait until there is room, or the next round: one
    /// request brings all that wait at the listener, and those who are here wait meanwhile.
    pub(crate) fn admit(&mut self, socket: OwnedFd, now: Instant) {
        self.accepted.push_back(socket);
        self.take_accepted(now);
    }

    fn take_accepted(&mut self, now: Instant) {
        while self.newcomers_left > 0
            && self.has_room()
            && let Some(socket) = self.accepted.pop_front()
        {
            self.newcomers_left -= 1;
            self.insert(socket, now);
        }
    }

    /// No descriptor is left.
    pub(crate) fn exhausted(&mut self, now: Instant) {
        self.exhausted_until = Some(now + EXHAUSTED_PAUSE);
    }

    fn insert(&mut self, socket: OwnedFd, now: Instant) {
        let token = self.peers.next_token();
        // The name under which a message comes in is the one that other loops are given.
        let bell = Arc::clone(&self.bell) as Arc<dyn Wake>;
        let address = Address::new(bell, pack(Op::Rung, token));
        self.peers.insert(Peer {
            conn: self.worker.conn(address, now),
            stream: TcpStream::from(socket),
            receiving: Request::None,
            receive: self.receive,
            sending: Request::None,
            reading_file: false,
            received: true,
            emptied: false,
            late: false,
            turns: Turns::default(),
            went_on: false,
            sent: None,
            put_off: false,
            has_turn: false,
            armed: Armed::default(),
            queued: false,
        });
        self.runs(token);
        if let (Some(at), Some(peer)) = (self.stopping, self.get(token)) {
            peer.drain(at);
        }
    }

    /// What was sent may let the connection go on, which is a turn of it: one that is bulk has it
    /// after others.
    pub(crate) fn sent(&mut self, token: Token, result: io::Result<usize>, now: Instant) {
        let alone = self.is_alone();
        let Some(peer) = self.get(token) else { return };
        if peer.turns.is_bulk() && !alone {
            peer.sent = Some(result);
            self.put_off(token);
        } else {
            peer.sent(result, now);
            self.runs(token);
        }
    }

    /// Where others run, few of the bulk do in each round.
    fn let_bulk_run(&mut self, now: Instant) {
        let n =
            if self.is_alone() { self.bulk.len() } else { kit::bulk_per_round(self.bulk.len()) };
        for token in self.bulk.drain(..n).collect::<Vec<_>>() {
            let Some(peer) = self.get(token) else { continue };
            peer.put_off = false;
            peer.has_turn = true;
            if let Some(result) = peer.sent.take() {
                peer.sent(result, now);
            }
            self.runs(token);
        }
    }

    /// It waits for its turn among those that are bulk.
    pub(crate) fn put_off(&mut self, token: Token) {
        if let Some(peer) = self.get(token)
            && !std::mem::replace(&mut peer.put_off, true)
        {
            self.bulk.push_back(token);
        }
    }

    /// Only bulk connections were sent something lately.
    fn is_alone(&self) -> bool {
        self.others == [0; 2]
    }

    /// A turn of it ends, and it waits for this: how it is to receive from now on, and whether now.
    pub(crate) fn end_turn(&mut self, token: Token, wants: &Wants) -> (Receive, bool) {
        let (usual, alone) = (self.receive, self.is_alone());
        let Some(peer) = self.get(token) else { return (usual, true) };
        let went_on = std::mem::take(&mut peer.went_on);
        if peer.turns.is_over() || went_on && wants.write || wants.turn {
            peer.turns.use_up();
        } else if peer.emptied && !wants.write && (peer.received || went_on) {
            peer.turns.wait();
        }
        let has_turn = std::mem::take(&mut peer.has_turn);
        match peer.turns.is_bulk() {
            true => (Receive::OneShot, has_turn || alone),
            false => (usual, true),
        }
    }

    /// The connection of this name, unless its slot has another tenant.
    pub(crate) fn get(&mut self, token: Token) -> Option<&mut Peer> {
        self.peers.get(token)
    }

    /// The same, and the files that it may ask for.
    pub(crate) fn get_with_files(&mut self, token: Token) -> Option<(&mut Peer, &Files)> {
        self.peers.get(token).map(|peer| (peer, &*self.worker.files))
    }

    /// Notes that something was done for a connection: it runs when the batch is complete.
    pub(crate) fn completed(&mut self, token: Token) -> Option<&mut Peer> {
        self.runs(token);
        self.get(token)
    }

    fn runs(&mut self, token: Token) {
        if let Some(peer) = self.get(token)
            && !std::mem::replace(&mut peer.queued, true)
        {
            self.runnable.push_back(token);
        }
    }

    /// Looks through the outbox: wakes those of this loop, and keeps the letters for others.
    pub(crate) fn sort_mail(&mut self, now: Instant) {
        for letter in mail::collect() {
            match unpack(letter.name) {
                Some((_, token)) if self.bell.is_of(&letter) => self.woken(token, now),
                _ => self.letters.push(letter),
            }
        }
    }

    /// Somebody has something for a connection.
    pub(crate) fn woken(&mut self, token: Token, now: Instant) {
        if let Some(peer) = self.completed(token) {
            peer.conn.resume(now);
        }
    }

    /// How long the wait may last: zero while somebody may run, `None` without any deadline.
    pub(crate) fn wait_timeout(&self, now: Instant) -> Option<Duration> {
        if !self.runnable.is_empty()
            || !self.again.is_empty()
            || !self.bulk.is_empty()
            || self.empties_queue()
            || self.finished()
        {
            return Some(Duration::ZERO);
        }
        if !self.accepted.is_empty() && self.has_room() {
            return Some(Duration::ZERO);
        }
        let wake_at = [self.timers.earliest(), self.exhausted_until].into_iter().flatten().min()?;
        Some(wake_at.saturating_duration_since(now))
    }

    /// Begins a round: whoever is rung for or late by the clock may run too.
    pub(crate) fn begin_round(&mut self, now: Instant) {
        self.newcomers_left = accepts_per_round(std::mem::take(&mut self.served));
        self.others = [0, self.others[0]];
        self.let_bulk_run(now);
        self.take_accepted(now);
        self.sort_mail(now);
        for token in std::mem::take(&mut self.again) {
            self.woken(token, now);
        }
        if let Some(at) = self.worker.stop.requested_at()
            && self.stopping.is_none()
        {
            self.stopping = Some(at);
            self.drain(at);
        }
        while let Some((at, token)) = self.timers.pop_due(now) {
            if let Some(peer) = self.get(token)
                && Timers::<Token>::fired(&mut peer.armed, at)
            {
                self.runs(token);
            }
        }
    }

    fn drain(&mut self, at: Instant) {
        for token in self.peers.tokens() {
            if let Some(peer) = self.completed(token) {
                peer.drain(at);
            }
        }
    }

    /// The next connection of this round.
    pub(crate) fn next_runnable(&mut self) -> Option<Token> {
        loop {
            let token = self.runnable.pop_front()?;
            if let Some(peer) = self.get(token) {
                peer.queued = false;
                return Some(token);
            }
        }
    }

    /// Makes sure that a connection runs at its deadline, and in the next round if it could go on.
    pub(crate) fn waits(&mut self, token: Token, wants: &Wants) {
        if let Some(peer) = self.peers.get(token) {
            self.timers.arm(token, &mut peer.armed, wants.deadline);
            let served = usize::from(peer.sending == Request::Pending);
            self.served += served;
            self.others[0] += if peer.turns.is_bulk() { 0 } else { served };
            if wants.turn {
                self.again.push(token);
            }
        }
    }

    /// Forgets a connection that has nothing in flight, and lets the next one in. Its socket is to
    /// be closed.
    pub(crate) fn remove(&mut self, token: Token, now: Instant) -> Option<OwnedFd> {
        let peer = self.peers.remove(token)?;
        self.exhausted_until = None;
        self.take_accepted(now);
        kit::give_back(&mut self.peers.slab, &mut self.timers);
        Some(OwnedFd::from(peer.stream))
    }
}

/// A table whose places are given out again, under names that are not: a completion or a timer of a
/// former tenant finds nobody.
#[derive(Debug)]
struct Slots<T> {
    slab: Slab<(u32, T)>,
    /// Of the next tenant. It comes round after [`GENERATIONS`] tenants of the whole table, and
    /// nothing of a tenant is in flight by the time that its place is given away.
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { slab: Slab::new(), generation: 0 }
    }
}

impl<T> Slots<T> {
    /// The name of the next tenant.
    fn next_token(&self) -> Token {
        // Places never outnumber descriptors, which are positive i32s.
        Token { slot: self.slab.vacant_key() as u32, generation: self.generation }
    }

    fn insert(&mut self, tenant: T) -> Token {
        let token = self.next_token();
        self.generation = (token.generation + 1) % GENERATIONS;
        self.slab.insert((token.generation, tenant));
        token
    }

    fn get(&mut self, token: Token) -> Option<&mut T> {
        let (generation, tenant) = self.slab.get_mut(token.slot as usize)?;
        (*generation == token.generation).then_some(tenant)
    }

    fn remove(&mut self, token: Token) -> Option<T> {
        self.get(token)?;
        self.slab.try_remove(token.slot as usize).map(|(_, tenant)| tenant)
    }

    fn tokens(&self) -> Vec<Token> {
        let token = |(slot, (generation, _)): (usize, &(u32, T))| Token {
            slot: slot as u32,
            generation: *generation,
        };
        self.slab.iter().map(token).collect()
    }

    fn len(&self) -> usize {
        self.slab.len()
    }

    fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_tenants_name_finds_nobody() {
        let mut slots = Slots::default();
        let first = slots.insert("first");
        let other = slots.insert("other");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.slot, first.slot, "the place is used again");
        assert_ne!(second, first);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&mut "second"));
        assert_eq!(slots.get(other), Some(&mut "other"));
        assert_eq!(slots.len(), 2);
        assert_eq!(slots.tokens(), [second, other]);
    }

    #[test]
    fn generations_fit_their_24_bits() {
        let mut slots = Slots { slab: Slab::new(), generation: GENERATIONS - 1 };
        let last = slots.insert(());
        slots.remove(last);
        let first = slots.insert(());
        assert_eq!((last.generation, first.generation), (GENERATIONS - 1, 0));
    }
}
