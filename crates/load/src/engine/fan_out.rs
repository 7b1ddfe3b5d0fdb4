//! One speaks, all others listen: how fast a server can hand one message to many, and how late the
//! last of them hears it.
//!
//! Connection 0 sends messages, numbered from 0 on; every other one awaits each of them, under its
//! number, from the moment when it is sent. So a delivery is a request that another connection has
//! sent: its latency, its time limit and its place in Little's law are those of any other.
//!
//! Nobody speaks unless all members are in the room, and nobody comes (back) while a message is
//! under way: who joins then may hear it or not, and both would be right.

use std::collections::VecDeque;

use super::Engine;
use crate::codec::Codec;
use crate::connection::{Pending, Phase};
use crate::tally::Fault;

/// The connection that speaks.
pub(super) const SPEAKER: usize = 0;
/// An open loop speaks by the clock, however many messages are under way; but a server that
/// delivers none must not fill this side's memory with what is awaited.
const UNDER_WAY_MAX: usize = 1_024;

/// Who has heard what.
#[derive(Debug)]
pub(super) struct Room {
    members: u32,
    /// Members whose connection is open.
    joined: u32,
    /// The number of the oldest message under way.
    first: u64,
    /// Messages from that one on.
    messages: VecDeque<Message>,
    /// How many of them have not been heard by all.
    under_way: usize,
}

/// One message.
#[derive(Debug, Clone, Copy)]
struct Message {
    /// Members who have still to hear it.
    left: u32,
    /// Whether one of them never will.
    missed: bool,
}

impl Room {
    /// An empty room for `members`.
    pub(super) fn new(members: u32) -> Self {
        Room { members, joined: 0, first: 0, messages: VecDeque::new(), under_way: 0 }
    }

    /// A member has come.
    pub(super) fn joined(&mut self) {
        self.joined += 1;
    }

    /// A member has gone.
    pub(super) fn left(&mut self) {
        self.joined -= 1;
    }

    /// Whether all members are there.
    pub(super) fn is_complete(&self) -> bool {
        self.joined == self.members
    }

    /// Whether no message is under way.
    pub(super) fn is_silent(&self) -> bool {
        self.under_way == 0
    }

    /// The number of the next message.
    pub(super) fn next(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// A message is sent to all others.
    fn said(&mut self) {
        self.messages.push_back(Message { left: self.members - 1, missed: false });
        self.under_way += 1;
    }

    /// One member has heard a message; whether all others have, too.
    pub(super) fn heard(&mut self, number: u64) -> bool {
        self.settle(number, false)
    }

    /// One member will never hear a message.
    fn missed(&mut self, number: u64) {
        self.settle(number, true);
    }

    fn settle(&mut self, number: u64, missed: bool) -> bool {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(message) = at.and_then(|at| self.messages.get_mut(at)) else { return false };
        message.left -= 1;
        message.missed |= missed;
        let Message { left, missed } = *message;
        if left > 0 {
            return false;
        }
        self.under_way -= 1;
        while self.messages.front().is_some_and(|message| message.left == 0) {
            self.messages.pop_front();
            self.first += 1;
        }
        !missed
    }
}

impl<C: Codec> Engine<'_, C> {
    /// Sends as many messages as may be under way now.
    pub(super) fn speak(&mut self) {
        if self.open.is_some() {
            return self.list_if_free(SPEAKER);
        }
        let mut spoken = false;
        while self.may_speak() && self.schedule.take() {
            self.say(Pending { due_ns: self.now_ns, sent_ns: self.now_ns });
            spoken = true;
        }
        if spoken {
            self.send(SPEAKER);
        }
    }

    /// Whether a message may be sent now.
    pub(super) fn may_speak(&self) -> bool {
        let at_once = if self.open.is_some() { UNDER_WAY_MAX } else { self.depth };
        self.connections[SPEAKER].phase == Phase::Open
            && self.room.as_ref().is_some_and(|room| room.is_complete() && room.under_way < at_once)
    }

    /// Admits a message, which all others await from now on.
    pub(super) fn say(&mut self, pending: Pending) {
        let Some(room) = &mut self.room else { return };
        room.said();
        self.connections[SPEAKER].outgoing.unsent += 1;
        let listeners = self.connections.get_mut(SPEAKER + 1..).unwrap_or_default();
        listeners.iter_mut().for_each(|listener| listener.expect(pending));
        self.tally.admitted(listeners.len() as u64, self.now_ns);
    }

    /// A member is lost, and with it what it had still to hear, from message `first` on: an error
    /// each.
    pub(super) fn unheard(&mut self, first: u64, fault: Fault, what: &str, missed: &[Pending]) {
        let Some(room) = &mut self.room else { return };
        for (number, &pending) in (first..).zip(missed) {
            room.missed(number);
            if let Some(open) = &mut self.open {
                open.lost(pending);
            }
        }
        for _ in 1..missed.len() {
            self.tally.error(fault, what.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_over_when_all_others_have_heard_it() {
        let mut room = Room::new(3);
        (0..3).for_each(|_| room.joined());
        assert!(room.is_complete() && room.is_silent());
        room.said();
        room.said();
        assert!(!room.heard(0));
        assert!(!room.heard(1));
        assert!(room.heard(1), "the second is over before the first");
        assert_eq!((room.under_way, room.next()), (1, 2));
        assert!(room.heard(0));
        assert!(room.is_silent() && room.next() == 2);
        assert!(!room.heard(0), "nobody waits for it any more");
    }

    #[test]
    fn a_message_that_one_member_missed_is_over_and_does_not_count() {
        let mut room = Room::new(3);
        room.said();
        room.missed(0);
        assert!(!room.heard(0) && room.is_silent());
    }
}
