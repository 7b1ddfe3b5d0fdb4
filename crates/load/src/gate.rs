//! A barrier for the engine threads that a failed thread can break. With std's `Barrier` the others
//! would wait for it for ever.

use std::sync::{Condvar, Mutex, PoisonError};

/// Lets all threads through together, or none.
pub(crate) struct Gate {
    parties: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: usize,
    round: u64,
    broken: bool,
}

/// Another thread has failed; it reports why.
#[derive(Debug)]
pub(crate) struct Broken;

impl Gate {
    pub(crate) fn new(parties: usize) -> Self {
        let state = State { waiting: 0, round: 0, broken: false };
        Gate { parties, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for all other threads, or until one of them breaks the gate.
    pub(crate) fn pass(&self) -> Result<(), Broken> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let round = state.round;
        state.waiting += 1;
        if state.waiting == self.parties {
            state.waiting = 0;
            state.round += 1;
            self.changed.notify_all();
        }
        while state.round == round && !state.broken {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.broken { Err(Broken) } else { Ok(()) }
    }

    /// Breaks the gate: all threads that wait, now or later, get an error.
    pub(crate) fn break_up(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).broken = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_for_all_and_more_than_once() {
        let gate = Gate::new(3);
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| gate.pass().and_then(|()| gate.pass()).is_ok()))
                .collect();
            assert!(all.into_iter().all(|thread| thread.join().is_ok_and(|passed| passed)));
        });
    }

    #[test]
    fn a_broken_gate_holds_nobody() {
        let gate = Gate::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.pass().is_err());
            gate.break_up();
            assert!(waiting.join().is_ok_and(|told| told));
        });
        assert!(gate.pass().is_err());
    }
}
