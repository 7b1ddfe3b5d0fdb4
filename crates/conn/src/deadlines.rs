//! The deadlines of a connection.
//!
//! The clock decides what is due, not the event that woke the driver: a socket that is always ready
//! would starve a timer that is checked only when no socket is.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// No request was begun within the idle timeout, which starts at the end of the last reply (or
    /// at accept). It is ignored while there is output; [`WriteStall`] watches that.
    ///
    /// [`WriteStall`]: Deadline::WriteStall
    Idle,
    /// A head was begun and must be complete. More bytes of it do not move the deadline.
    Head,
    Body,
    /// A delayed reply (`/delay`) or an event is due. HTTP/2: anything that a stream waits for.
    Reply,
    Push,
    Handshake,
    /// The peer must acknowledge some of the output.
    WriteStall,
    /// The peer must close after our FIN.
    Linger,
    /// Input behind our FIN is read again.
    Discard,
    /// The server is stopping and closes the connection.
    Drain,
}

const COUNT: usize = Deadline::Drain as usize + 1;

impl Deadline {
    /// Deadlines that an acknowledgement of output can move.
    pub(crate) const OF_OUTPUT: [Deadline; 3] =
        [Deadline::Idle, Deadline::WriteStall, Deadline::Linger];

    /// Deadlines that input or its end can move or clear.
    pub(crate) const OF_INPUT: [Deadline; 5] =
        [Deadline::Idle, Deadline::Head, Deadline::Body, Deadline::Handshake, Deadline::Linger];
}

const ALL: [Deadline; COUNT] = [
    Deadline::Idle,
    Deadline::Head,
    Deadline::Body,
    Deadline::Reply,
    Deadline::Push,
    Deadline::Handshake,
    Deadline::WriteStall,
    Deadline::Linger,
    Deadline::Discard,
    Deadline::Drain,
];

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// One bit per deadline: usually one or two are set, and the earliest is looked up after every
    /// event.
    set: u16,
    at: [Option<Instant>; COUNT],
}

impl Deadlines {
    /// `at` must be later than `now`. Otherwise the deadline would be due again as soon as it was
    /// handled, and a driver that uses one `now` for all would never serve its other connections.
    pub(crate) fn set(&mut self, deadline: Deadline, at: Instant, now: Instant) {
        debug_assert!(at > now, "{deadline:?} is due when it is set");
        self.set |= 1 << deadline as u16;
        self.at[deadline as usize] = Some(at);
    }

    pub(crate) fn clear(&mut self, deadline: Deadline) {
        self.set &= !(1 << deadline as u16);
    }

    /// Clears the deadlines of requests; those for writing, lingering and draining stay.
    pub(crate) fn clear_requests(&mut self) {
        const OTHERS: [Deadline; 4] =
            [Deadline::WriteStall, Deadline::Linger, Deadline::Discard, Deadline::Drain];
        self.set &= OTHERS.iter().fold(0, |bits, &deadline| bits | 1 << deadline as u16);
    }

    pub(crate) fn is_set(&self, deadline: Deadline) -> bool {
        self.set & 1 << deadline as u16 != 0
    }

    pub(crate) fn is_due(&self, deadline: Deadline, now: Instant) -> bool {
        self.is_set(deadline) && self.at[deadline as usize].is_some_and(|at| at <= now)
    }

    pub(crate) fn earliest(&self) -> Option<Instant> {
        let mut earliest = None;
        let mut rest = self.set;
        while rest != 0 {
            let at = self.at[rest.trailing_zeros() as usize];
            if earliest.is_none() || at < earliest {
                earliest = at;
            }
            rest &= rest - 1;
        }
        earliest
    }

    /// The deadlines due at `now`. The list does not change when a deadline is set or cleared
    /// during the iteration; [`Deadlines::take`] says whether one is still due.
    pub(crate) fn due(&self, now: Instant) -> impl Iterator<Item = Deadline> + use<> {
        let due = ALL.map(|deadline| self.is_due(deadline, now));
        ALL.into_iter().zip(due).filter_map(|(deadline, due)| due.then_some(deadline))
    }

    pub(crate) fn take(&mut self, deadline: Deadline, now: Instant) -> bool {
        let due = self.is_due(deadline, now);
        if due {
            self.clear(deadline);
        }
        due
    }
}
