//! Deadlines of many connections: a binary heap whose entries are moved late.
//!
//! A keep-alive deadline moves with every request, nearly always to a later time. Moving the entry
//! each time would cost a heap operation per request. Instead it stays where it is, and when its
//! time has come it is put back at the true deadline (as nginx and the TCP timers of Linux do).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// The times of a connection's entries in the heap.
///
/// Two are remembered, because a connection usually has a short deadline (for a reply) before a
/// long one (idle). If the later entry were forgotten, it would be pushed again after each short
/// one, and the heap would grow by an entry per request.
#[derive(Debug, Default, Clone, Copy)]
pub struct Armed {
    next: Option<Instant>,
    /// Later than `next`.
    behind: Option<Instant>,
}

/// The deadlines of one loop's connections. `T` is a token.
#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Reverse<(Instant, T)>>,
}

impl<T: Ord + Copy> Default for Timers<T> {
    fn default() -> Timers<T> {
        Timers { heap: BinaryHeap::new() }
    }
}

impl<T: Ord + Copy> Timers<T> {
    /// Makes sure that there is an entry of `token` at `deadline` or before.
    pub fn arm(&mut self, token: T, armed: &mut Armed, deadline: Option<Instant>) {
        if let Some(deadline) = deadline
            && armed.next.is_none_or(|at| deadline < at)
        {
            armed.behind = armed.next;
            armed.next = Some(deadline);
            self.heap.push(Reverse((deadline, token)));
        }
    }

    /// The time of the first entry.
    pub fn earliest(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one entry that is due. It may be stale, because its connection has ended or its
    /// deadline has moved: so the caller passes the connection's [`Armed`] to [`Timers::fired`],
    /// and the connection decides what is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Records that the entry of time `at` is no longer in the heap. False: the entry is stale.
    pub fn fired(armed: &mut Armed, at: Instant) -> bool {
        let current = armed.next == Some(at);
        if current {
            armed.next = armed.behind.take();
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Connections as a loop keeps them: each with its deadline and its entries in the heap.
    struct Loop {
        timers: Timers<usize>,
        start: Instant,
        peers: Vec<(Armed, Option<Instant>)>,
    }

    impl Loop {
        fn new(peers: usize) -> Loop {
            let peers = vec![(Armed::default(), None); peers];
            Loop { timers: Timers::default(), start: Instant::now(), peers }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn set(&mut self, token: usize, millis: u64) {
            let deadline = Some(self.at(millis));
            let (armed, wanted) = &mut self.peers[token];
            *wanted = deadline;
            self.timers.arm(token, armed, deadline);
        }

        /// The connections that are due at `millis`, in order; early entries are put back.
        fn due(&mut self, millis: u64) -> Vec<usize> {
            let now = self.at(millis);
            let mut due = Vec::new();
            while let Some((at, token)) = self.timers.pop_due(now) {
                let (armed, deadline) = &mut self.peers[token];
                if !Timers::<usize>::fired(armed, at) {
                    continue;
                }
                if deadline.is_some_and(|at| at <= now) {
                    due.push(token);
                    *deadline = None;
                }
                self.timers.arm(token, armed, *deadline);
            }
            due
        }
    }

    #[test]
    fn deadlines_come_up_in_order_and_once() {
        let mut l = Loop::new(3);
        l.set(0, 30);
        l.set(1, 10);
        l.set(2, 20);
        assert_eq!(l.timers.earliest(), Some(l.at(10)));
        assert_eq!(l.due(9), [] as [usize; 0]);
        assert_eq!(l.due(20), [1, 2]);
        assert_eq!(l.due(29), [] as [usize; 0]);
        assert_eq!(l.due(100), [0]);
        assert_eq!(l.timers.earliest(), None);
    }

    #[test]
    fn a_deadline_that_moves_later_is_not_due_early() {
        let mut l = Loop::new(1);
        for millis in 10..1_000 {
            l.set(0, millis);
        }
        assert_eq!(l.timers.heap.len(), 1, "moving later costs nothing");
        assert_eq!(l.due(10), [] as [usize; 0]);
        assert_eq!(l.timers.earliest(), Some(l.at(999)), "it was put back at its true time");
        assert_eq!(l.due(999), [0]);
    }

    #[test]
    fn a_deadline_that_moves_earlier_is_not_late() {
        let mut l = Loop::new(1);
        l.set(0, 100);
        l.set(0, 50);
        assert_eq!(l.due(50), [0]);
        assert_eq!(l.due(100), [] as [usize; 0]);
    }

    #[test]
    fn short_deadlines_before_a_long_one_leave_nothing_behind() {
        let mut l = Loop::new(1);
        l.set(0, 30_000);
        for millis in (0..20_000).step_by(2) {
            // A delayed reply, and the idle time after it.
            l.set(0, millis + 1);
            assert_eq!(l.due(millis + 1), [0]);
            l.set(0, millis + 30_000);
        }
        assert!(l.timers.heap.len() <= 2, "{} entries", l.timers.heap.len());
        assert_eq!(l.due(49_997), [] as [usize; 0]);
        assert_eq!(l.due(49_998), [0]);
    }

    #[test]
    fn no_deadline_is_lost_whatever_moves() {
        // A linear congruential generator (Knuth's MMIX): any sequence without order will do.
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut l = Loop::new(10);
        for millis in 0..20_000 {
            let token = random(10) as usize;
            l.set(token, millis + 1 + random(500));
            let wanted: Vec<usize> = {
                let now = l.at(millis);
                let due = |&token: &usize| l.peers[token].1.is_some_and(|at| at <= now);
                (0..l.peers.len()).filter(due).collect()
            };
            let mut due = l.due(millis);
            due.sort_unstable();
            assert_eq!(due, wanted, "at {millis} ms");
        }
    }

    #[test]
    fn an_entry_of_a_connection_that_has_ended_is_stale() {
        let mut timers = Timers::default();
        let now = Instant::now();
        let mut old = Armed::default();
        timers.arm(7, &mut old, Some(now));
        // Its token now names another connection, which has never been armed.
        let mut new = Armed::default();
        assert_eq!(timers.pop_due(now), Some((now, 7)));
        assert!(!Timers::<i32>::fired(&mut new, now));
    }
}
