//! Who decides when the next request is sent.
//!
//! Here: the server does, by answering. That is a *closed loop*: a connection asks again as soon as
//! it was answered, so a slow server is asked less. It measures capacity. It does not measure the
//! latency that users of a busy server see, for users do not wait politely for one another
//! (Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006).
//!
//! An open loop is another type with the same three questions, whose `take` also looks at the
//! clock.

/// A closed loop: every free place in a connection's pipeline is filled at once, until the budget
/// of requests (if there is one) is spent.
#[derive(Debug)]
pub(crate) struct ClosedLoop {
    /// Requests that may still be sent.
    left: u64,
    /// Whether lost requests may be sent again: not when the loop was stopped for good.
    running: bool,
}

impl ClosedLoop {
    /// No request may be sent.
    pub(crate) const fn stopped() -> Self {
        ClosedLoop { left: 0, running: false }
    }

    /// Requests may be sent until the window ends.
    pub(crate) const fn endless() -> Self {
        ClosedLoop { left: u64::MAX, running: true }
    }

    /// `requests` may be sent.
    pub(crate) const fn budget(requests: u64) -> Self {
        ClosedLoop { left: requests, running: true }
    }

    /// May one more request be sent now? If so it is taken from the budget.
    pub(crate) fn take(&mut self) -> bool {
        let may = self.left > 0;
        self.left -= u64::from(may);
        may
    }

    /// Gives back requests that were taken but lost their connection through no fault of anybody's.
    pub(crate) fn give_back(&mut self, requests: u64) {
        if self.running {
            self.left = self.left.saturating_add(requests);
        }
    }

    /// Whether nothing is left to send.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_exactly() {
        let mut schedule = ClosedLoop::budget(2);
        assert!(schedule.take() && schedule.take() && !schedule.take());
        schedule.give_back(1);
        assert!(schedule.take() && !schedule.take() && schedule.is_spent());
    }

    #[test]
    fn a_stopped_loop_stays_stopped() {
        let mut schedule = ClosedLoop::stopped();
        schedule.give_back(1);
        assert!(!schedule.take());
    }
}
