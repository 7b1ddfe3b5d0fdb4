//! Deadlines of many connections: a binary heap with lazily moved entries.
//!
//! A keep-alive deadline moves with every request, nearly always to a later time. Moving the entry
//! each time would cost a heap operation per request; instead it stays where it is, and when it
//! comes up too early it is put back at the true time (nginx and Linux's own TCP timers do alike).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// When a connection's entry in the heap will come up. One per connection, kept beside it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Armed(Option<Instant>);

/// The deadlines of one loop's connections. `T` names a connection.
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
    /// Makes sure that `token` comes up no later than at `deadline`.
    pub fn arm(&mut self, token: T, armed: &mut Armed, deadline: Option<Instant>) {
        if let Some(deadline) = deadline
            && armed.0.is_none_or(|at| deadline < at)
        {
            armed.0 = Some(deadline);
            self.heap.push(Reverse((deadline, token)));
        }
    }

    /// When to wake up next.
    pub fn earliest(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one entry that is due. It may be stale (its connection gone, or its deadline moved):
    /// the caller hands the connection's [`Armed`] to [`Timers::fired`] and lets the connection
    /// decide what is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Records that the entry of time `at` is no longer in the heap. False: it was an older entry
    /// of this connection, and nothing is due on its account.
    pub fn fired(armed: &mut Armed, at: Instant) -> bool {
        let current = armed.0 == Some(at);
        if current {
            armed.0 = None;
        }
        current
    }
}
