//! One connection sends, all others receive: measures how fast a server delivers one message to
//! many connections.
//!
//! Connection 0 sends messages, numbered from 0. Each other connection awaits each message, under
//! its number, from the moment when it is sent. So a delivery is a request that another connection
//! has sent, with latency, time limit and Little's law as for any request.
//!
//! A message is sent only when all members have joined. A connection is opened (again) only while
//! no message is in flight: otherwise it could receive that message or not, and both would be
//! right.

use std::collections::VecDeque;

use super::Engine;
use crate::codec::Codec;
use crate::connection::{Pending, Phase};
use crate::tally::Fault;

/// The connection that sends.
pub(super) const SENDER: usize = 0;
/// An open loop sends by the clock, however many messages are in flight. The limit keeps a server
/// that delivers none from filling the client's memory.
const UNDER_WAY_MAX: usize = 1_024;

/// Which members have received which messages.
#[derive(Debug)]
pub(super) struct Members {
    count: u32,
    /// Members whose connection is open.
    joined: u32,
    first: u64,
    messages: VecDeque<Message>,
    /// Messages that not all members have received.
    under_way: usize,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    /// Members that have not received it.
    left: u32,
    missed: bool,
}

impl Members {
    pub(super) fn new(count: u32) -> Self {
        Members { count, joined: 0, first: 0, messages: VecDeque::new(), under_way: 0 }
    }

    pub(super) fn joined(&mut self) {
        self.joined += 1;
    }

    pub(super) fn left(&mut self) {
        self.joined -= 1;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.joined == self.count
    }

    pub(super) fn has_none_in_flight(&self) -> bool {
        self.under_way == 0
    }

    pub(super) fn next(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn sent(&mut self) {
        self.messages.push_back(Message { left: self.count - 1, missed: false });
        self.under_way += 1;
    }

    /// A member has received a message. Returns whether all others have, too.
    pub(super) fn received(&mut self, number: u64) -> bool {
        self.settle(number, false)
    }

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
    /// Sends as many messages as may be in flight now.
    pub(super) fn send_messages(&mut self) {
        if self.open.is_some() {
            return self.list_if_free(SENDER);
        }
        let mut spoken = false;
        while self.may_send_message() && self.schedule.take() {
            self.admit_message(Pending { due_ns: self.now_ns, sent_ns: self.now_ns });
            spoken = true;
        }
        if spoken {
            self.send(SENDER);
        }
    }

    pub(super) fn may_send_message(&self) -> bool {
        let at_once = if self.open.is_some() { UNDER_WAY_MAX } else { self.depth };
        self.connections[SENDER].phase == Phase::Open
            && self
                .members
                .as_ref()
                .is_some_and(|members| members.is_complete() && members.under_way < at_once)
    }

    /// Admits a message, which all others await from now on.
    pub(super) fn admit_message(&mut self, pending: Pending) {
        let Some(members) = &mut self.members else { return };
        members.sent();
        self.connections[SENDER].outgoing.unsent += 1;
        let listeners = self.connections.get_mut(SENDER + 1..).unwrap_or_default();
        listeners.iter_mut().for_each(|listener| listener.expect(pending));
        self.tally.admitted(listeners.len() as u64, self.now_ns);
    }

    /// A member was lost, and the messages from `first` on that it has not received: each is an
    /// error.
    pub(super) fn undelivered(&mut self, first: u64, fault: Fault, what: &str, missed: &[Pending]) {
        let Some(members) = &mut self.members else { return };
        for (number, &pending) in (first..).zip(missed) {
            members.missed(number);
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
        let mut members = Members::new(3);
        (0..3).for_each(|_| members.joined());
        assert!(members.is_complete() && members.has_none_in_flight());
        members.sent();
        members.sent();
        assert!(!members.received(0));
        assert!(!members.received(1));
        assert!(members.received(1), "the second is over before the first");
        assert_eq!((members.under_way, members.next()), (1, 2));
        assert!(members.received(0));
        assert!(members.has_none_in_flight() && members.next() == 2);
        assert!(!members.received(0), "no member waits for it");
    }

    #[test]
    fn a_message_that_one_member_missed_is_over_and_does_not_count() {
        let mut members = Members::new(3);
        members.sent();
        members.missed(0);
        assert!(!members.received(0) && members.has_none_in_flight());
    }
}
