//! Deadlines: an enum with a line each, an array, a minimum.
//!
//! The clock decides what is due, never the mechanism that woke the driver: a socket that is always
//! ready can starve any timer that is only looked at when nothing else happens.

use std::time::Instant;

/// Everything that a connection can be late for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// No request was begun: the keep-alive idle time, from the end of the last reply (or the
    /// accept). Nothing is due while there is output: then the peer is reading, or [`WriteStall`].
    ///
    /// [`WriteStall`]: Deadline::WriteStall
    Idle,
    /// A head was begun and must be complete by now. Does not move while bytes trickle in.
    Head,
    /// The next bytes of a request body.
    Body,
    /// A reply that the service has put off (`/delay`), or whatever else a stream of HTTP/2 waits
    /// for.
    Reply,
    /// The next message of a WebSocket that speaks unasked (`/ws/clock`).
    Push,
    /// The TLS handshake must be complete.
    Handshake,
    /// The peer must acknowledge some of what it was sent.
    WriteStall,
    /// The peer must close after our FIN.
    Linger,
    /// Input behind our FIN is read again.
    Discard,
    /// The server is stopping, and will not wait longer.
    Drain,
}

const COUNT: usize = Deadline::Drain as usize + 1;

impl Deadline {
    /// Those that wait for the peer to take what it was sent, or for what it does then.
    pub(crate) const OF_OUTPUT: [Deadline; 3] =
        [Deadline::Idle, Deadline::WriteStall, Deadline::Linger];

    /// Those that more input, or its end, moves or makes pointless.
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

/// The deadlines of one connection.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// One bit for each that is set: most of the time one or two of them are, and the earliest is
    /// asked for after every event.
    set: u16,
    at: [Option<Instant>; COUNT],
}

impl Deadlines {
    /// `at` is later than `now`: a deadline that is due as soon as it is set would be set again
    /// when it is dealt with, and a driver that asks at the same `now` would never get to its other
    /// connections.
    pub(crate) fn set(&mut self, deadline: Deadline, at: Instant, now: Instant) {
        debug_assert!(at > now, "{deadline:?} is due when it is set");
        self.set |= 1 << deadline as u16;
        self.at[deadline as usize] = Some(at);
    }

    pub(crate) fn clear(&mut self, deadline: Deadline) {
        self.set &= !(1 << deadline as u16);
    }

    /// Clears what belongs to taking requests; writing, lingering and draining go on.
    pub(crate) fn clear_requests(&mut self) {
        const REQUESTS: [Deadline; 6] = [
            Deadline::Idle,
            Deadline::Head,
            Deadline::Body,
            Deadline::Reply,
            Deadline::Push,
            Deadline::Handshake,
        ];
        for deadline in REQUESTS {
            self.clear(deadline);
        }
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
            // Takes the lowest bit away.
            rest &= rest - 1;
        }
        earliest
    }

    /// The deadlines that are due at `now`, each once. What is set or cleared while they are gone
    /// through does not change this list; [`Deadlines::take`] says whether one is still due.
    pub(crate) fn due(&self, now: Instant) -> impl Iterator<Item = Deadline> + use<> {
        let due = ALL.map(|deadline| self.is_due(deadline, now));
        ALL.into_iter().zip(due).filter_map(|(deadline, due)| due.then_some(deadline))
    }

    /// Clears `deadline` if it is due at `now`, and says whether it was.
    pub(crate) fn take(&mut self, deadline: Deadline, now: Instant) -> bool {
        let due = self.is_due(deadline, now);
        if due {
            self.clear(deadline);
        }
        due
    }
}
