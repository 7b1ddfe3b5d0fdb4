//! The one who looks after memory while connections come and go: asks for newcomers that wait, and
//! gives back to the system what malloc(3) keeps.

use std::time::{Duration, Instant};

use conn::{Memory, MemoryChange};
use slab::Slab;

use crate::{TIGHT_PAUSE, Timers, sys};

/// How long after a fall free memory is given back, and how often while there is little: by then
/// the rest of those that end together have ended. A flood of short connections causes one after
/// another.
const TRIM_PAUSE: Duration = Duration::from_millis(500);

/// Places of an empty table that are not worth a new table when the next client comes.
const PLACES_KEPT: usize = 1024;

/// Gives back the tables of a loop when many connections have ended: they keep room for the most
/// that were open at once, half a KiB for each. Only where no connection is left, because its place
/// is its name; without any, no deadline is anyone's either.
pub fn give_back<T, N: Ord + Copy>(connections: &mut Slab<T>, timers: &mut Timers<N>) {
    if connections.is_empty() && connections.capacity() > PLACES_KEPT {
        *connections = Slab::new();
        *timers = Timers::default();
    }
}

/// What is due for the memory of a process.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    memory: &'a Memory,
    /// Asks for newcomers: a loop that is asynchronous can only be rung for by its like, and asks
    /// by itself.
    asks: bool,
    tight: bool,
    trim_at: Option<Instant>,
}

impl Watch<'_> {
    pub(crate) fn new(memory: &Memory, asks: bool) -> Watch<'_> {
        Watch { memory, asks, tight: false, trim_at: None }
    }

    /// The account has changed by much.
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
    fn tables_are_given_back_when_a_crowd_has_left() {
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
