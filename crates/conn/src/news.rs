//! The news: messages that come without being asked for. Message N of a period is due N periods
//! after the start of the server, for every client. So clients that learn it in different ways
//! (`/news`, `/events`, `/ws/clock`) can be compared.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::Service;
use crate::routes::number;

/// The period in a path: milliseconds, 1 at least.
pub(crate) fn period_ms(text: &str, service: &Service) -> Option<u64> {
    number(text, service.limits.delay_ms_max).filter(|&period_ms| period_ms > 0)
}

/// The number of the newest message; 0 until the first is due.
pub(crate) fn newest(period_ms: u64, service: &Service, now: Instant) -> u64 {
    let passed = now.saturating_duration_since(service.common.clock.started).as_millis();
    u64::try_from(passed / u128::from(period_ms)).unwrap_or(u64::MAX)
}

/// When message `number` is due.
pub(crate) fn due_at(period_ms: u64, number: u64, service: &Service) -> Instant {
    service.common.clock.started + Duration::from_millis(period_ms.saturating_mul(number))
}

/// A message as every client sees it.
pub(crate) fn text(number: u64) -> String {
    format!("tick {number}")
}

/// One event of `text/event-stream` (WHATWG HTML section 9.2.6).
pub(crate) fn put_event(out: &mut Vec<u8>, number: u64) {
    // A write to a vector cannot fail.
    let _ = write!(out, "id: {number}\ndata: {}\n\n", text(number));
}

/// The messages for one client, from those that are due after it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticker {
    period_ms: u64,
    /// Number of the next message.
    next: u64,
}

impl Ticker {
    pub(crate) fn new(period_ms: u64, service: &Service, now: Instant) -> Ticker {
        Ticker { period_ms, next: newest(period_ms, service, now).saturating_add(1) }
    }

    /// Calls `put` with each message that is due by the clock, while it returns true. Those that
    /// are due and not put are left out, with their numbers.
    pub(crate) fn tick(
        &mut self,
        service: &Service,
        now: Instant,
        mut put: impl FnMut(u64) -> bool,
    ) {
        let newest = newest(self.period_ms, service, now);
        while self.next <= newest && put(self.next) {
            self.next += 1;
        }
        self.next = self.next.max(newest.saturating_add(1));
    }

    /// When the next message is due. After [`Ticker::tick`] that is later than its `now`.
    pub(crate) fn due_at(&self, service: &Service) -> Instant {
        due_at(self.period_ms, self.next, service)
    }
}
