//! The one who looks after memory while connections come and go: asks for newcomers that wait, and
//! gives back to the system what malloc(3) keeps.

use std::time::{Duration, Instant};

use conn::{Change, Memory};

use crate::{TIGHT_PAUSE, sys};

/// How long after a fall free memory is given back, and how often while there is little: by then
/// the rest of those that end together have ended. A flood of short connections causes one after
/// another.
const TRIM_PAUSE: Duration = Duration::from_millis(500);

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
    pub(crate) fn changed(&mut self, change: Change, now: Instant) {
        match change {
            Change::Tight => self.tight = true,
            Change::Fallen => self.trim_later(now),
        }
    }

    /// Does what is due, and says when to call again.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Instant> {
        if self.tight {
            let admits = if self.asks { self.memory.admits(now) } else { !self.memory.is_tight() };
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

    #[test]
    fn it_sleeps_until_something_changes_and_asks_while_there_is_little() {
        let memory = Memory::new(1000);
        let mut watch = Watch::new(&memory, true);
        let now = Instant::now();
        assert_eq!(watch.look(now), None);
        watch.changed(Change::Fallen, now);
        assert_eq!(watch.look(now), Some(now + TRIM_PAUSE));
        watch.changed(Change::Fallen, now + TRIM_PAUSE / 2);
        assert_eq!(watch.look(now + TRIM_PAUSE / 2), Some(now + TRIM_PAUSE), "not put off");
        assert_eq!(watch.look(now + TRIM_PAUSE), None);
        memory.add(900);
        watch.changed(Change::Tight, now);
        assert_eq!(watch.look(now), Some(now + TIGHT_PAUSE));
        memory.sub(900);
        let later = now + TIGHT_PAUSE;
        assert_eq!(watch.look(later), Some(now + TRIM_PAUSE), "it has been tight");
        assert_eq!(watch.look(now + TRIM_PAUSE), None);
    }
}
