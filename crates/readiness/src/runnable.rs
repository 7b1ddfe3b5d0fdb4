//! The order in which connections run.

use std::collections::VecDeque;

use kit::bulk_per_round;

use crate::Token;
use crate::connection::Connection;

/// The connections that run in the next iteration, in the order of their events.
#[derive(Debug, Default)]
pub(crate) struct Runnable {
    others: VecDeque<Token>,
    bulk: VecDeque<Token>,
}

impl Runnable {
    pub(crate) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.bulk.is_empty()
    }

    /// Adds a connection, unless it is in.
    pub(crate) fn add(&mut self, connection: &mut Connection, token: Token) {
        if !std::mem::replace(&mut connection.queued, true) {
            self.push(token, connection.is_bulk());
        }
    }

    fn push(&mut self, token: Token, bulk: bool) {
        if bulk { &mut self.bulk } else { &mut self.others }.push_back(token);
    }

    /// Moves those of one iteration to `running`, which is empty. While other connections run,
    /// only a part of the bulk connections does: so the next wait comes before all of these have
    /// had their turn, and reports what the others have sent meanwhile.
    pub(crate) fn take_iteration(&mut self, running: &mut VecDeque<Token>) {
        std::mem::swap(&mut self.others, running);
        let all = self.bulk.len();
        let n = if running.is_empty() { all } else { bulk_per_round(all) };
        running.extend(self.bulk.drain(..n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next iteration: all that are in it run, and are unfinished then.
    fn iteration(runnable: &mut Runnable, is_bulk: impl Fn(Token) -> bool) -> Vec<Token> {
        let mut running = VecDeque::new();
        runnable.take_iteration(&mut running);
        running.iter().for_each(|&token| runnable.push(token, is_bulk(token)));
        running.into()
    }

    #[test]
    fn two_floods_share_the_iterations_of_another() {
        let mut runnable = Runnable::default();
        (0..3).for_each(|token| runnable.push(token, token > 0));
        let iterations: Vec<_> =
            (0..4).map(|_| iteration(&mut runnable, |token| token > 0)).collect();
        assert_eq!(iterations, [[0, 1], [0, 2], [0, 1], [0, 2]]);
    }

    #[test]
    fn all_of_a_hundred_floods_have_their_turn_within_some_iterations_of_another() {
        let mut runnable = Runnable::default();
        (0..101).for_each(|token| runnable.push(token, token > 0));
        let mut turns = [0; 101];
        for _ in 0..16 {
            let running = iteration(&mut runnable, |token| token > 0);
            assert!(running.len() <= 1 + 7, "{running:?}");
            running.iter().for_each(|&token| turns[token] += 1);
        }
        assert!(turns.iter().all(|&turns| turns > 0), "{turns:?}");
    }

    #[test]
    fn where_no_other_runs_all_do() {
        let mut runnable = Runnable::default();
        (0..5).for_each(|token| runnable.push(token, true));
        assert_eq!(iteration(&mut runnable, |_| true).len(), 5);
        assert!(!runnable.is_empty());
        assert_eq!(iteration(&mut runnable, |_| true).len(), 5);
    }
}
