//! All connections of one readiness loop: who they are, who may run, who is late.
//!
//! A loop collects a whole batch of events first ([`Peers::ready`]) and acts then
//! ([`Peers::next_runnable`], [`Peers::turn`]). So a descriptor is never closed, and its number
//! never given to another connection, while an event for it is still to be looked at.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Address, Wake};
use slab::Slab;

use crate::inbox::Inbox;
use crate::memory::give_back;
use crate::peer::{Peer, Readiness, Turn};
use crate::turns::bulk_per_round;
use crate::{
    Accepted, EXHAUSTED_PAUSE, SCRATCH_BYTES, TIGHT_PAUSE, Timers, Worker, accepts_per_round,
};

/// Names a connection of a loop; small numbers, reused after the connection has ended.
pub type Token = usize;

/// The connections of one loop, and its listener.
#[derive(Debug)]
pub struct Peers {
    worker: Worker,
    peers: Slab<Peer>,
    /// Where other connections, of this loop or another, ring for one of these.
    inbox: Arc<Inbox>,
    /// Who was rung for, while they are noted.
    rung: Vec<Token>,
    timers: Timers<Token>,
    runnable: Runnable,
    /// Who may still run in this one.
    running: VecDeque<Token>,
    scratch: Box<[u8]>,
    /// Clients that may still be taken from the listener in this round.
    accepts_left: usize,
    /// Connections that had a turn in this round and are open still.
    served: usize,
    /// Set while no descriptors or no memory are left: accept again at this time, or when a
    /// connection ends.
    exhausted_until: Option<Instant>,
    /// Descriptors from this number on cannot be watched.
    descriptor_end: RawFd,
    /// When the server was told to stop.
    stopping: Option<Instant>,
    /// Nobody is accepted any more: those who waited by then are here.
    closed: bool,
}

impl Peers {
    /// An empty loop.
    ///
    /// # Errors
    /// What eventfd(2) says.
    pub fn new(worker: Worker) -> io::Result<Peers> {
        Ok(Peers {
            worker,
            peers: Slab::new(),
            inbox: Arc::new(Inbox::new()?),
            rung: Vec::new(),
            timers: Timers::default(),
            runnable: Runnable::default(),
            running: VecDeque::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            accepts_left: accepts_per_round(0),
            served: 0,
            exhausted_until: None,
            descriptor_end: RawFd::MAX,
            stopping: None,
            closed: false,
        })
    }

    /// For a wait primitive that only knows descriptors below `end`: connections beyond are
    /// closed as soon as they are accepted, and counted as refused.
    pub fn with_descriptors_below(self, end: RawFd) -> Peers {
        Peers { descriptor_end: end, ..self }
    }

    /// True when the server is stopping, nobody waits for it, and the last connection has ended.
    pub fn finished(&self) -> bool {
        self.closed && self.peers.is_empty()
    }

    /// Whether those who wait at the listener are to be accepted without being announced: the
    /// server is stopping, and only accept(2) can tell that nobody is left.
    pub fn empties_queue(&self) -> bool {
        self.stopping.is_some() && self.has_room()
    }

    /// Whether the listener is to be watched: not at the limit, not without descriptors, not once
    /// it is closed. A level-triggered listener that is left armed then spins.
    pub fn wants_listener(&mut self, now: Instant) -> bool {
        if self.exhausted_until.is_some_and(|until| until <= now) {
            self.exhausted_until = None;
        }
        if self.exhausted_until.is_none() && !self.worker.service.common.memory.admits(now) {
            self.exhausted_until = Some(now + TIGHT_PAUSE);
        }
        self.has_room()
    }

    fn has_room(&self) -> bool {
        let full = self.peers.len() >= self.worker.conns_max;
        !self.closed && !full && self.exhausted_until.is_none()
    }

    /// The listening socket.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.worker.listener.as_fd()
    }

    /// Accepts one connection, if one is waiting, there is room for it, and this round has not
    /// taken its share yet. The listener is level-triggered: those who still wait are reported
    /// again.
    ///
    /// # Errors
    /// What accept(2) says and no retry can mend.
    pub fn accept(&mut self, now: Instant) -> io::Result<Option<Token>> {
        if self.worker.stop.is_over(now) {
            self.close();
        }
        while self.accepts_left > 0 && self.wants_listener(now) {
            self.accepts_left -= 1;
            match self.worker.listener.accept()? {
                Accepted::Peer(stream) if stream.as_raw_fd() >= self.descriptor_end => {
                    self.worker.service.counters.refused();
                }
                Accepted::Peer(stream) => {
                    let entry = self.peers.vacant_entry();
                    let token = entry.key();
                    let bell = Arc::clone(&self.inbox) as Arc<dyn Wake>;
                    let address = Address::new(bell, token as u64);
                    let peer = entry.insert(Peer::new(stream, &self.worker, address, now));
                    if let Some(at) = self.stopping {
                        peer.drain(at);
                        self.runnable.add(peer, token);
                    }
                    let deadline = peer.deadline();
                    self.timers.arm(token, &mut peer.armed, deadline);
                    return Ok(Some(token));
                }
                Accepted::Empty if self.stopping.is_some() => self.close(),
                Accepted::Empty => return Ok(None),
                Accepted::Nobody => {}
                Accepted::Exhausted => self.exhausted_until = Some(now + EXHAUSTED_PAUSE),
            }
        }
        Ok(None)
    }

    /// Notes an event. The connection runs when the batch is complete.
    pub fn ready(&mut self, token: Token, readiness: Readiness) {
        if let Some(peer) = self.peers.get_mut(token) {
            peer.ready(readiness);
            self.runnable.add(peer, token);
        }
    }

    /// Notes the same for every connection: for a model that asks nobody what is ready.
    pub fn all_ready(&mut self, readiness: Readiness) {
        for (token, peer) in &mut self.peers {
            peer.ready(readiness);
            self.runnable.add(peer, token);
        }
    }

    /// How long the wait may last: zero while somebody may run, `None` without any deadline. To be
    /// asked right before each wait: from then until [`Peers::begin_round`] the loop counts as
    /// asleep, and [`Peers::bell`] becomes readable when somebody is rung for.
    pub fn wait_timeout(&self, now: Instant) -> Option<Duration> {
        if !self.runnable.is_empty() || !self.inbox.may_sleep() || self.empties_queue() {
            return Some(Duration::ZERO);
        }
        let wake_at = [self.timers.earliest(), self.exhausted_until].into_iter().flatten().min()?;
        Some(wake_at.saturating_duration_since(now))
    }

    /// Begins a round: everybody who is ready, rung for, or late by the clock may run once.
    pub fn begin_round(&mut self, now: Instant) {
        self.accepts_left = accepts_per_round(std::mem::take(&mut self.served));
        if let Some(at) = self.worker.stop.requested_at() {
            self.stop(at);
        }
        self.inbox.collect(&mut self.rung);
        for &token in &self.rung {
            // The place may be empty, or another's by now, who then is woken for nothing.
            if let Some(peer) = self.peers.get_mut(token) {
                peer.rung();
                self.runnable.add(peer, token);
            }
        }
        while let Some((at, token)) = self.timers.pop_due(now) {
            if let Some(peer) = self.peers.get_mut(token)
                && Timers::<Token>::fired(&mut peer.armed, at)
            {
                self.runnable.add(peer, token);
            }
        }
        // Who asks for another turn during the round gets it in the next one.
        self.runnable.take_round(&mut self.running);
    }

    /// The next connection of this round.
    pub fn next_runnable(&mut self) -> Option<Token> {
        loop {
            let token = self.running.pop_front()?;
            if let Some(peer) = self.peers.get_mut(token) {
                peer.queued = false;
                return Some(token);
            }
        }
    }

    /// Lets one connection do what it can. After [`Turn::Closed`] its socket is closed.
    pub fn turn(&mut self, token: Token, now: Instant) -> Turn {
        let Some(peer) = self.peers.get_mut(token) else { return Turn::Closed };
        let turn = peer.turn(now, &mut self.scratch, &self.worker.files);
        match &turn {
            Turn::Waits(wants) => self.timers.arm(token, &mut peer.armed, wants.deadline),
            Turn::More(wants) => {
                self.timers.arm(token, &mut peer.armed, wants.deadline);
                self.runnable.add(peer, token);
            }
            Turn::Closed => {
                self.peers.remove(token);
                give_back(&mut self.peers, &mut self.timers);
                self.exhausted_until = None;
                return turn;
            }
        }
        self.served += 1;
        turn
    }

    /// The socket of a connection, to be watched.
    pub fn socket(&self, token: Token) -> Option<BorrowedFd<'_>> {
        self.peers.get(token).map(Peer::as_fd)
    }

    /// What becomes readable when the server is to stop; `None` once this loop knows.
    pub fn stop_signal(&self) -> Option<BorrowedFd<'_>> {
        self.stopping.is_none().then(|| self.worker.stop.as_fd())
    }

    /// What becomes readable when somebody is rung for while the loop sleeps.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.inbox.as_fd()
    }

    /// Makes it unreadable again. A wait that reports changes only (edge-triggered) needs no such
    /// call: every ring is a change.
    pub fn silence_bell(&self) {
        self.inbox.silence();
    }

    fn stop(&mut self, at: Instant) {
        if self.stopping.is_none() {
            self.stopping = Some(at);
            for (token, peer) in &mut self.peers {
                peer.drain(at);
                self.runnable.add(peer, token);
            }
        }
    }

    /// Turns away whoever comes from now on.
    fn close(&mut self) {
        self.closed = true;
        self.worker.listener.shutdown();
    }
}

/// Who may run in the next round, in the order of their events.
#[derive(Debug, Default)]
struct Runnable {
    others: VecDeque<Token>,
    bulk: VecDeque<Token>,
}

impl Runnable {
    fn is_empty(&self) -> bool {
        self.others.is_empty() && self.bulk.is_empty()
    }

    /// Adds a connection, unless it is in.
    fn add(&mut self, peer: &mut Peer, token: Token) {
        if !std::mem::replace(&mut peer.queued, true) {
            self.push(token, peer.is_bulk());
        }
    }

    fn push(&mut self, token: Token, bulk: bool) {
        if bulk { &mut self.bulk } else { &mut self.others }.push_back(token);
    }

    /// Moves those of one round to `running`, which is empty. Where others run, few of the bulk
    /// do: what the others ask for next is looked for before all of these have had their turn.
    fn take_round(&mut self, running: &mut VecDeque<Token>) {
        std::mem::swap(&mut self.others, running);
        let all = self.bulk.len();
        let n = if running.is_empty() { all } else { bulk_per_round(all) };
        running.extend(self.bulk.drain(..n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next round: who is in it runs, and can go on.
    fn round(runnable: &mut Runnable, is_bulk: impl Fn(Token) -> bool) -> Vec<Token> {
        let mut running = VecDeque::new();
        runnable.take_round(&mut running);
        running.iter().for_each(|&token| runnable.push(token, is_bulk(token)));
        running.into()
    }

    #[test]
    fn two_floods_share_the_rounds_of_another() {
        let mut runnable = Runnable::default();
        (0..3).for_each(|token| runnable.push(token, token > 0));
        let rounds: Vec<_> = (0..4).map(|_| round(&mut runnable, |token| token > 0)).collect();
        assert_eq!(rounds, [[0, 1], [0, 2], [0, 1], [0, 2]]);
    }

    #[test]
    fn all_of_a_hundred_floods_have_their_turn_within_some_rounds_of_another() {
        let mut runnable = Runnable::default();
        (0..101).for_each(|token| runnable.push(token, token > 0));
        let mut turns = [0; 101];
        for _ in 0..16 {
            let running = round(&mut runnable, |token| token > 0);
            assert!(running.len() <= 1 + 7, "{running:?}");
            running.iter().for_each(|&token| turns[token] += 1);
        }
        assert!(turns.iter().all(|&turns| turns > 0), "{turns:?}");
    }

    #[test]
    fn where_no_other_runs_all_do() {
        let mut runnable = Runnable::default();
        (0..5).for_each(|token| runnable.push(token, true));
        assert_eq!(round(&mut runnable, |_| true).len(), 5);
        assert!(!runnable.is_empty());
        assert_eq!(round(&mut runnable, |_| true).len(), 5);
    }
}
