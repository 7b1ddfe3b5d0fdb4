//! When a loop accepts again that has no descriptor or memory left.

use std::time::{Duration, Instant};

use conn::Memory;

/// How long a loop does not accept after descriptors have run out, unless one is closed before.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long a loop does not accept when connections hold too much memory. Those that are ended for
/// it end at once, so this is short.
pub const TIGHT_PAUSE: Duration = Duration::from_millis(20);

/// The time in which a loop does not accept. Blocking models sleep instead.
#[derive(Debug, Default)]
pub struct AcceptPause {
    until: Option<Instant>,
}

impl AcceptPause {
    /// To be called before each wait and each accept: ends a pause that is over, and begins one if
    /// connections hold too much memory.
    pub fn look(&mut self, memory: &Memory, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        if self.until.is_none() && !memory.admits(now) {
            self.until = Some(now + TIGHT_PAUSE);
        }
    }

    /// accept(2) found no descriptor or memory left.
    pub fn exhausted(&mut self, now: Instant) {
        self.until = Some(now + EXHAUSTED_PAUSE);
    }

    /// A connection has ended, so there is a descriptor.
    pub fn end(&mut self) {
        self.until = None;
    }

    /// When the loop accepts again; `None`: it does.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_its_time_or_with_a_connection() {
        let (memory, now) = (Memory::new(1000), Instant::now());
        let mut pause = AcceptPause::default();
        pause.exhausted(now);
        pause.look(&memory, now + EXHAUSTED_PAUSE / 2);
        assert_eq!(pause.until(), Some(now + EXHAUSTED_PAUSE));
        pause.look(&memory, now + EXHAUSTED_PAUSE);
        assert_eq!(pause.until(), None);
        pause.exhausted(now);
        pause.end();
        assert_eq!(pause.until(), None);
        memory.add(1000);
        pause.look(&memory, now);
        assert_eq!(pause.until(), Some(now + TIGHT_PAUSE));
        pause.look(&memory, now + TIGHT_PAUSE);
        assert_eq!(pause.until(), Some(now + 2 * TIGHT_PAUSE), "still tight");
        memory.sub(1000);
        pause.look(&memory, now + 2 * TIGHT_PAUSE);
        assert_eq!(pause.until(), None);
    }
}
