//! How connections begin and end: made, made again, closed by the server, lost, given up.

use rustix::event::epoll;
use rustix::io::Errno;

use crate::codec::{Codec, Wrong};
use crate::connection::{Pending, Phase, Sent};
use crate::socket::connect_error;
use crate::tally::Fault;

use super::{Engine, SWEEP_NS, WATCHED, WATCHED_FOR_READING, count_reply};

/// Pause after a failed connect(2): a dead server must not be hammered.
const RECONNECT_PAUSE_NS: u64 = 20_000_000;

impl<C: Codec> Engine<'_, C> {
    /// Gives a place a new connection. With one request per connection, the request is admitted
    /// now: its latency includes the handshake.
    pub(super) fn connect(&mut self, slot: usize) {
        if self.share.plan.reconnect {
            let Some(pending) = self.next_of_its_own() else {
                self.connections[slot].phase = Phase::Parked;
                return;
            };
            self.connections[slot].admit(pending);
            self.tally.admitted(1, self.now_ns);
        }
        let index = self.share.first + slot as u32;
        let socket = match self.share.sockets.connect(index) {
            Ok(socket) => socket,
            Err(error) => return self.lost(slot, Fault::Connect, format!("connect: {error}")),
        };
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Connecting;
        connection.since_ns = self.now_ns;
        connection.socket = Some(socket);
        // On loopback the connection is usually made by now, so the request can follow at once.
        let mut flags = WATCHED;
        if connection.unsent > 0 {
            match connection.send(slot as u32, &mut self.codec, &mut self.tally.bytes_sent) {
                Sent::All => {
                    flags = WATCHED_FOR_READING;
                    connection.phase = Phase::Open;
                    self.failing_since_ns = None;
                    self.tally.connects += 1;
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

    /// A connecting socket has an event: it is connected, or has failed.
    pub(super) fn connected(&mut self, slot: usize) {
        self.clock();
        let connection = &mut self.connections[slot];
        if let Some(error) = connection.socket.as_ref().and_then(connect_error) {
            return self.lost(slot, Fault::Connect, format!("connect: {error}"));
        }
        connection.phase = Phase::Open;
        connection.since_ns = self.now_ns;
        connection.waits_for_room = false;
        self.failing_since_ns = None;
        self.tally.connects += 1;
        self.refill(slot);
    }

    /// The server's FIN has come.
    pub(super) fn closed_by_server(&mut self, slot: usize) {
        self.clock();
        let connection = &mut self.connections[slot];
        if connection.phase != Phase::Closing && !connection.pending.is_empty() {
            match self.codec.end(slot as u32, &mut connection.reader, connection.number) {
                Err(Wrong(what)) => return self.lost(slot, Fault::Wrong, what),
                Ok(false) => {
                    let what = "the server closed the connection before its reply was complete";
                    return self.lost(slot, Fault::Closed, what.to_owned());
                }
                Ok(true) => {}
            }
            let Some(pending) = connection.answered() else {
                let what = "a reply to a request that was not sent completely".to_owned();
                return self.lost(slot, Fault::Wrong, what);
            };
            connection.completed += 1;
            count_reply(&mut self.tally, &mut self.open, pending, self.now_ns);
            self.last_reply_ns = self.now_ns;
            self.failing_since_ns = None;
        }
        self.tally.closed_by_server += u64::from(!self.share.plan.reconnect);
        self.reopen(slot);
    }

    /// A system call says that the connection is gone.
    pub(super) fn failed(&mut self, slot: usize, errno: Errno) {
        if self.connections[slot].phase == Phase::Closing {
            // The last reply was complete: a server that then resets has lost nothing of ours.
            return self.closed_by_server(slot);
        }
        if self.connections[slot].pending.is_empty() {
            return self.closed_by_server(slot);
        }
        self.lost(slot, Fault::Closed, format!("the connection broke before the reply: {errno}"));
    }

    /// The server ended a connection as it may: what was still on its way is sent on a new one.
    pub(super) fn reopen(&mut self, slot: usize) {
        let lost = self.close(slot, Phase::Parked);
        self.give_back(&lost);
        self.begin(slot);
    }

    /// Gives a place a new connection, or says that it is free for one when a request is due.
    pub(super) fn begin(&mut self, slot: usize) {
        if self.open.is_some() && self.share.plan.reconnect {
            self.connections[slot].phase = Phase::Parked;
            return self.list_if_free(slot);
        }
        self.connect(slot);
    }

    /// Drops a connection and all that was on its way, which is handed over.
    pub(super) fn close(&mut self, slot: usize, phase: Phase) -> Vec<Pending> {
        let connection = &mut self.connections[slot];
        let lost = connection.close(phase, self.codec.reader());
        self.tally.lost(lost.len() as u64, self.now_ns);
        if let Some(open) = &mut self.open
            && std::mem::take(&mut connection.listed)
        {
            open.remove_free(slot as u32);
        }
        lost
    }

    /// Requests lost their connection through no fault of theirs: they are sent again.
    pub(super) fn give_back(&mut self, requests: &[Pending]) {
        match &mut self.open {
            Some(open) => requests.iter().for_each(|&one| open.give_back(one, self.now_ns)),
            None => self.schedule.give_back(requests.len() as u64),
        }
    }

    /// A promise was broken: one request is lost to it, the others on this connection are sent
    /// again, on a new one. That one is opened after the batch, so that errors cannot recurse.
    pub(super) fn lost(&mut self, slot: usize, fault: Fault, what: String) {
        let lost = self.close(slot, Phase::Waiting);
        if let Some((&first, others)) = lost.split_first() {
            if let Some(open) = &mut self.open {
                open.lost(first);
            }
            self.give_back(others);
        }
        self.tally.error(fault, what);
        let pause_ns = match fault {
            Fault::Connect => {
                self.failing_since_ns.get_or_insert(self.now_ns);
                RECONNECT_PAUSE_NS
            }
            _ => 0,
        };
        self.retries.push((self.now_ns + pause_ns, slot));
    }

    /// Opens the connections whose time to try again has come.
    pub(super) fn retry(&mut self) {
        let now_ns = self.now_ns;
        for (due_ns, slot) in std::mem::take(&mut self.retries) {
            if due_ns <= now_ns {
                self.begin(slot);
            } else {
                self.retries.push((due_ns, slot));
            }
        }
    }

    /// Starts every connection that is not at work: open and silent, or without a socket.
    pub(super) fn kick(&mut self) {
        for slot in 0..self.connections.len() {
            self.clock();
            match self.connections[slot].phase {
                Phase::Parked => self.begin(slot),
                Phase::Open => self.refill(slot),
                Phase::Waiting | Phase::Connecting | Phase::Closing => {}
            }
        }
    }

    /// Gives up what has taken too long.
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
                Phase::Open => match connection.pending.front() {
                    Some(pending) => (pending.sent_ns, Fault::Timeout, "no complete reply in time"),
                    None => continue,
                },
                Phase::Parked | Phase::Waiting => continue,
            };
            if self.now_ns.saturating_sub(since_ns) > limit_ns {
                self.lost(slot, fault, what.to_owned());
            }
        }
    }
}
