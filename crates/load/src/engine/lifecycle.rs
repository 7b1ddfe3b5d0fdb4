//! How connections begin and end: opened, reopened, closed by the server, lost, given up.

use rustix::event::epoll;
use rustix::io::Errno;

use crate::codec::{Codec, Wrong};
use crate::connection::{Connection, Pending, Phase};
use crate::outgoing::Sent;
use crate::socket::connect_error;
use crate::tally::Fault;
use crate::tls::{Client, Session};

use super::fan_out::Members;
use super::{Engine, SWEEP_NS, WATCHED, WATCHED_FOR_READING, count_reply};

/// Pause after a failed connect(2), so that a dead server does not get a flood of connects.
const RECONNECT_PAUSE_NS: u64 = 20_000_000;
/// A server that closes an unused connection within this time has refused it; later, it has an idle
/// timeout.
const TURNED_AWAY_NS: u64 = 100_000_000;

impl<C: Codec> Engine<'_, C> {
    /// Opens a connection in this place. With a connection per request the request is admitted now:
    /// its latency includes the handshake.
    pub(super) fn connect(&mut self, slot: usize) {
        if self.share.plan.reconnect {
            let Some(pending) = self.next_of_its_own() else {
                self.connections[slot].phase = Phase::Parked;
                return;
            };
            self.connections[slot].admit(pending);
            self.tally.admitted(1, self.now_ns);
        }
        let index = self.share.first + self.connections[slot].number;
        let socket = match self.share.sockets.connect(index) {
            Ok(socket) => socket,
            Err(error) => return self.lost(slot, Fault::Connect, format!("connect: {error}")),
        };
        let tls = match self.client.as_ref().map(Client::begin).transpose() {
            Ok(tls) => tls,
            Err(what) => return self.lost(slot, Fault::Connect, what),
        };
        let connection = &mut self.connections[slot];
        connection.since_ns = self.now_ns;
        connection.begin(&mut self.codec, socket, tls);
        // On loopback the connection is usually open by now, so the first bytes can be sent at
        // once.
        let mut flags = WATCHED;
        if connection.has_to_send() {
            match connection.send(&mut self.codec, &mut self.tally.bytes_sent) {
                Sent::All if !connection.ready => connection.phase = Phase::Opening,
                Sent::All => {
                    if self.share.plan.reconnect {
                        flags = WATCHED_FOR_READING;
                    }
                    self.opened(slot);
                }
                Sent::Full => {}
                Sent::Failed(errno) => {
                    return self.lost(slot, Fault::Connect, format!("connect: {errno}"));
                }
            }
        }
        let Some(socket) = &self.connections[slot].socket else { return };
        let data = epoll::EventData::new_u64(slot as u64);
        if let Err(errno) = epoll::add(&self.epoll, socket, data, flags) {
            self.lost(slot, Fault::Connect, format!("epoll_ctl failed: {errno}"));
        }
    }

    /// An event of a connecting socket: it is connected, or has failed.
    pub(super) fn connected(&mut self, slot: usize) {
        self.clock();
        let connection = &mut self.connections[slot];
        if let Some(error) = connection.socket.as_ref().and_then(connect_error) {
            return self.lost(slot, Fault::Connect, format!("connect: {error}"));
        }
        connection.waits_for_room = false;
        match connection.ready {
            true => {
                connection.since_ns = self.now_ns;
                self.opened(slot);
                self.refill(slot);
            }
            false => {
                connection.phase = Phase::Opening;
                self.send_if_any(slot);
            }
        }
    }

    /// Continues handshake and greeting with the bytes that have arrived.
    pub(super) fn open_further(&mut self, slot: usize) -> Result<(), String> {
        let connection = &mut self.connections[slot];
        let (tally, agreed) = (&mut self.tally, &mut self.agreed);
        let since_ns = connection.since_ns;
        let took_ns = self.now_ns.saturating_sub(since_ns);
        let open = connection.open(&self.codec, self.client.as_ref(), |tls| {
            tally.shaken(tls.is_resumed(), took_ns);
            agreed.get_or_insert_with(|| tls.agreed());
        })?;
        if open {
            self.opened(slot);
        }
        Ok(())
    }

    /// From now on requests may be sent.
    fn opened(&mut self, slot: usize) {
        self.connections[slot].phase = Phase::Open;
        self.failing_since_ns = None;
        self.tally.connects += 1;
        if let Some(members) = &mut self.members {
            self.connections[slot].skip_to(members.next());
            members.joined();
        }
    }

    /// The server has sent FIN or close_notify.
    pub(super) fn closed_by_server(&mut self, slot: usize) {
        self.clock();
        let connection = &mut self.connections[slot];
        if connection.phase == Phase::Opening {
            let what = opening(connection.tls.as_ref(), "the server closed the connection");
            return self.lost(slot, Fault::Connect, what);
        }
        if connection.phase != Phase::Closing && !connection.awaited.is_empty() {
            let number = connection.awaited.first();
            let ended = match connection.may_end_here() {
                true => self.codec.end(connection.number, &mut connection.reader, number),
                false => Ok(false),
            };
            match ended {
                Err(Wrong(what)) => return self.lost(slot, Fault::Wrong, what),
                Ok(false) => {
                    let what = "the server closed the connection before its reply was complete";
                    return self.lost(slot, Fault::Closed, what.to_owned());
                }
                Ok(true) => {}
            }
            let pending = match connection.answered(number) {
                Ok(pending) => pending,
                Err(Wrong(what)) => return self.lost(slot, Fault::Wrong, what),
            };
            connection.completed += 1;
            count_reply(&mut self.tally, &mut self.open, pending, self.now_ns);
            self.last_reply_ns = self.now_ns;
            (self.failing_since_ns, self.turned_away_since_ns) = (None, None);
        }
        self.left(slot);
    }

    /// Whether this place belongs to a connection that was set aside, and not to the plan.
    pub(super) fn is_aside(&self, slot: usize) -> bool {
        slot >= self.share.connections as usize
    }

    /// The server accepts no more requests on this connection (GOAWAY) and still has some to
    /// answer. The connection is set aside until it has, and its place gets a new connection, on
    /// which requests are sent at once. So more requests may be in flight than the plan says, until
    /// the old ones are answered.
    pub(super) fn set_aside(&mut self, slot: usize) {
        let number = self.connections[slot].number;
        let mut fresh = Connection::new(number, self.depth as u32, self.codec.reader());
        fresh.skip_to(self.connections[slot].awaited.end());
        let aside = self.spare.pop().unwrap_or(self.connections.len());
        match self.connections.get_mut(aside) {
            Some(place) => *place = fresh,
            None => self.connections.push(fresh),
        }
        self.connections.swap(slot, aside);
        self.connections[slot].completed = std::mem::take(&mut self.connections[aside].completed);
        self.connections[slot].window_from = self.connections[aside].window_from;
        let old = &mut self.connections[aside];
        if let Some(open) = &mut self.open
            && std::mem::take(&mut old.listed)
        {
            open.remove_free(slot as u32);
        }
        let data = epoll::EventData::new_u64(aside as u64);
        let modified = old.socket.as_ref().map_or(Ok(()), |socket| {
            // epoll reports readiness again under the new slot.
            epoll::modify(&self.epoll, socket, data, WATCHED)
        });
        match modified {
            Ok(()) => self.send_if_any(aside),
            Err(errno) => self.lost(aside, Fault::Closed, format!("epoll_ctl failed: {errno}")),
        }
        self.connect(slot);
    }

    /// A connection that was set aside has ended. Its replies count for the place that it came
    /// from.
    fn retire(&mut self, slot: usize) {
        let old = &mut self.connections[slot];
        old.phase = Phase::Spare;
        let (home, completed) = (old.number as usize, std::mem::take(&mut old.completed));
        self.connections[home].completed += completed;
        self.spare.push(slot);
    }

    /// Whether the server, which accepts no more requests, has answered all that it accepted; then
    /// the connection is reopened.
    pub(super) fn has_left(&mut self, slot: usize) -> bool {
        let connection = &mut self.connections[slot];
        let has_left = connection.phase == Phase::Leaving && connection.awaited.is_empty();
        if has_left {
            connection.send_farewell(&mut self.codec, &mut self.tally.bytes_sent);
            self.left(slot);
        }
        has_left
    }

    /// The server has ended a connection without an error.
    fn left(&mut self, slot: usize) {
        if self.members.is_some() {
            let what = "the server closed the connection of a member".to_owned();
            return self.lost(slot, Fault::Closed, what);
        }
        self.tally.closed_by_server += u64::from(!self.share.plan.reconnect);
        let connection = &self.connections[slot];
        let age_ns = self.now_ns.saturating_sub(connection.since_ns);
        if connection.is_unused() && !self.is_aside(slot) {
            // The server has too many connections already; connecting again at once would add load.
            if age_ns < TURNED_AWAY_NS {
                self.turned_away_since_ns.get_or_insert(self.now_ns);
            }
            self.close(slot, Phase::Waiting);
            return self.retries.push((self.now_ns + RECONNECT_PAUSE_NS, slot));
        }
        self.reopen(slot);
    }

    /// The bytes are not TLS, or not as negotiated. An alert tells the server.
    pub(super) fn broken(&mut self, slot: usize, what: String) {
        let connection = &mut self.connections[slot];
        let fault = match connection.phase {
            Phase::Opening => Fault::Connect,
            _ => Fault::Wrong,
        };
        connection.ready = false;
        let _as_far_as_it_goes = connection.send(&mut self.codec, &mut self.tally.bytes_sent);
        self.lost(slot, fault, what);
    }

    /// A system call failed: the connection is lost.
    pub(super) fn failed(&mut self, slot: usize, errno: Errno) {
        let connection = &self.connections[slot];
        match connection.phase {
            Phase::Opening => {
                let what = opening(connection.tls.as_ref(), "the connection broke");
                return self.lost(slot, Fault::Connect, format!("{what}: {errno}"));
            }
            // The last reply was complete, so a reset loses nothing.
            Phase::Closing => return self.closed_by_server(slot),
            _ if connection.awaited.is_empty() => return self.closed_by_server(slot),
            _ => {}
        }
        self.lost(slot, Fault::Closed, format!("the connection broke before the reply: {errno}"));
    }

    /// The server ended a connection without an error: requests in flight are sent on a new one.
    pub(super) fn reopen(&mut self, slot: usize) {
        let lost = self.close(slot, Phase::Parked);
        self.give_back(&lost);
        self.begin(slot);
    }

    /// Opens a new connection in this place, or marks it as free for one when a request is due.
    pub(super) fn begin(&mut self, slot: usize) {
        if self.is_aside(slot) {
            return self.retire(slot);
        }
        if self.open.is_some() && self.share.plan.reconnect {
            self.connections[slot].phase = Phase::Parked;
            return self.list_if_free(slot);
        }
        self.connect(slot);
    }

    /// Drops a connection and returns its requests in flight.
    pub(super) fn close(&mut self, slot: usize, phase: Phase) -> Vec<Pending> {
        let connection = &mut self.connections[slot];
        if let Some(members) = &mut self.members
            && connection.phase == Phase::Open
        {
            members.left();
        }
        let lost = connection.close(phase, self.codec.reader());
        self.tally.lost(lost.len() as u64, self.now_ns);
        if let Some(open) = &mut self.open
            && std::mem::take(&mut connection.listed)
        {
            open.remove_free(slot as u32);
        }
        lost
    }

    /// Requests lost their connection without an error: they are sent again.
    pub(super) fn give_back(&mut self, requests: &[Pending]) {
        match &mut self.open {
            Some(open) => requests.iter().for_each(|&one| open.give_back(one, self.now_ns)),
            None => self.schedule.give_back(requests.len() as u64),
        }
    }

    /// An error: one request is lost by it, and the others on this connection are sent again on a
    /// new one. That one is opened after the batch, so that errors do not recurse.
    pub(super) fn lost(&mut self, slot: usize, fault: Fault, what: String) {
        let before = self.connections[slot].phase;
        let first = self.connections[slot].awaited.first();
        let lost = self.close(slot, Phase::Waiting);
        if self.members.is_some() {
            self.undelivered(first, fault, &what, &lost);
        } else if let Some((&oldest, others)) = lost.split_first() {
            match &mut self.open {
                Some(open) => open.lost(oldest),
                None if self.ending => self.lost_late_ns.push(oldest.due_ns),
                None => {}
            }
            self.give_back(others);
        }
        self.tally.error(fault, what);
        if self.is_aside(slot) {
            return self.retire(slot);
        }
        let pause_ns = match (fault, before) {
            (Fault::Connect, _) | (_, Phase::Opening) => {
                self.failing_since_ns.get_or_insert(self.now_ns);
                RECONNECT_PAUSE_NS
            }
            _ => 0,
        };
        self.retries.push((self.now_ns + pause_ns, slot));
    }

    /// Whether a connection may be reopened now. In a fan-out only while no message is in flight.
    pub(super) fn may_retry(&self) -> bool {
        !self.retries.is_empty() && self.members.as_ref().is_none_or(Members::has_none_in_flight)
    }

    /// Reopens connections whose pause has passed.
    pub(super) fn retry(&mut self) {
        if !self.may_retry() {
            return;
        }
        let now_ns = self.now_ns;
        for (due_ns, slot) in std::mem::take(&mut self.retries) {
            if due_ns <= now_ns {
                self.begin(slot);
            } else {
                self.retries.push((due_ns, slot));
            }
        }
    }

    /// Starts every connection that carries no load: an open one without requests, or one without a
    /// socket.
    pub(super) fn start_unused(&mut self) {
        for slot in 0..self.connections.len() {
            self.clock();
            match self.connections[slot].phase {
                Phase::Parked => self.begin(slot),
                Phase::Open => self.refill(slot),
                Phase::Waiting
                | Phase::Connecting
                | Phase::Opening
                | Phase::Leaving
                | Phase::Closing
                | Phase::Spare => {}
            }
        }
    }

    /// Gives up connections and requests that took too long.
    pub(super) fn sweep(&mut self) {
        self.next_sweep_ns = self.now_ns + SWEEP_NS.min(self.timeout_ns());
        let limit_ns = self.timeout_ns();
        for slot in 0..self.connections.len() {
            let connection = &self.connections[slot];
            let (since_ns, fault, what) = match connection.phase {
                Phase::Connecting => {
                    (connection.since_ns, Fault::Connect, "connect: no answer in time")
                }
                Phase::Closing => (
                    connection.since_ns,
                    Fault::Timeout,
                    "the server did not close a connection that it was to close",
                ),
                Phase::Opening => {
                    let what = opening(connection.tls.as_ref(), "no answer in time");
                    let limit_ns = limit_ns + self.watch.grace_ns(connection.since_ns);
                    if self.now_ns.saturating_sub(connection.since_ns) > limit_ns {
                        self.lost(slot, Fault::Connect, what);
                    }
                    continue;
                }
                Phase::Open | Phase::Leaving => match connection.awaited.oldest() {
                    Some(pending) => (pending.sent_ns, Fault::Timeout, "no complete reply in time"),
                    None => continue,
                },
                Phase::Parked | Phase::Waiting | Phase::Spare => continue,
            };
            if self.now_ns.saturating_sub(since_ns) > limit_ns + self.watch.grace_ns(since_ns) {
                self.lost(slot, fault, what.to_owned());
            }
        }
    }
}

/// The error while a connection opened, and the part of the opening.
fn opening(tls: Option<&Session>, what: &str) -> String {
    match tls {
        Some(tls) if tls.is_handshaking() => format!("{what} during the TLS handshake"),
        _ => format!("{what} before the greeting was answered"),
    }
}
