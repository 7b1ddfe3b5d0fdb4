//! Looks after the memory of the process: asks again for room for new connections, and gives the
//! memory that malloc(3) keeps free back to the system.

use std::time::{Duration, Instant};

use conn::{Memory, MemoryChange};
use slab::Slab;

use crate::{TIGHT_PAUSE, Timers, sys};

/// How long after much memory was freed it is given back, and how often while there is little. By
/// then the other connections that end at the same time have ended too.
const TRIM_PAUSE: Duration = Duration::from_millis(500);

/// A table of connections with this many places or fewer is kept when it is empty.
const PLACES_KEPT: usize = 1024;

/// Frees the tables of a loop after many connections have ended. They have room for the most that
/// were open at once, half a KiB for each. This is possible only when no connection is left,
/// because the place of a connection is its token.
pub fn give_back<T, N: Ord + Copy>(connections: &mut Slab<T>, timers: &mut Timers<N>) {
    if connections.is_empty() && connections.capacity() > PLACES_KEPT {
        *connections = Slab::new();
        *timers = Timers::default();
    }
}

/// What is to be done for the memory of the process, and when.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    memory: &'a Memory,
    /// Asks for room. The loops of uring ask by themselves, because only another ring can wake
    /// them.
    asks: bool,
    tight: bool,
    trim_at: Option<Instant>,
}

impl Watch<'_> {
    pub(crate) fn new(memory: &Memory, asks: bool) -> Watch<'_> {
        Watch { memory, asks, tight: false, trim_at: None }
    }

    /// The memory account has changed by much.
    pub(crate) fn changed(&mut self, change: MemoryChange, now: Instant) {
        match change {
            MemoryChange::SoftLimitPassed => self.tight = true,
            MemoryChange::MuchFreed => self.trim_later(now),
        }
    }

    /// Does what is due, and says when to call again.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Instant> {
        if self.tight {
            let admits = if self.asks {
                self.memory.admits(now)
            } else {
                !self.memory.is_above_soft_limit()
            };
            self.tight = !admits;
            self.trim_later(now);
        }
        if self.trim_at.is_some_and(|at| at <= now) {
            self.trim_at = None;
            sys::trim_malloc();
        }
        let ask_at = self.tight.then(|| now + TIGHT_PAUSE);
        ask_at.into_iter().chain(self.trim_at).min()
    }

    fn trim_later(&mut self, now: Instant) {
        self.trim_at.get_or_insert(now + TRIM_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Armed;

    #[test]
    fn it_sleeps_until_something_changes_and_asks_while_there_is_little() {
        let memory = Memory::new(1000);
        let mut watch = Watch::new(&memory, true);
        let now = Instant::now();
        assert_eq!(watch.look(now), None);
        watch.changed(MemoryChange::MuchFreed, now);
        assert_eq!(watch.look(now), Some(now + TRIM_PAUSE));
        watch.changed(MemoryChange::MuchFreed, now + TRIM_PAUSE / 2);
        assert_eq!(watch.look(now + TRIM_PAUSE / 2), Some(now + TRIM_PAUSE), "not put off");
        assert_eq!(watch.look(now + TRIM_PAUSE), None);
        memory.add(900);
        watch.changed(MemoryChange::SoftLimitPassed, now);
        assert_eq!(watch.look(now), Some(now + TIGHT_PAUSE));
        memory.sub(900);
        let later = now + TIGHT_PAUSE;
        assert_eq!(watch.look(later), Some(now + TRIM_PAUSE), "it has been tight");
        assert_eq!(watch.look(now + TRIM_PAUSE), None);
    }

    #[test]
    fn tables_are_freed_after_many_connections_have_ended() {
        let (now, mut timers) = (Instant::now(), Timers::default());
        let mut connections = Slab::new();
        let places = (0..=PLACES_KEPT).map(|_| connections.insert(Armed::default()));
        let places: Vec<usize> = places.collect();
        for &place in &places {
            timers.arm(place, &mut connections[place], Some(now));
        }
        for place in places {
            assert!(connections.capacity() > PLACES_KEPT, "{place} is open");
            assert!(timers.earliest().is_some());
            connections.remove(place);
            give_back(&mut connections, &mut timers);
        }
        assert_eq!(connections.capacity(), 0);
        assert_eq!(timers.earliest(), None);
    }

    #[test]
    fn small_tables_are_kept() {
        let mut connections = Slab::new();
        let place = connections.insert(());
        connections.remove(place);
        give_back(&mut connections, &mut Timers::<usize>::default());
        assert!(connections.capacity() > 0);
    }
}
