//! How long one connection may go on before others have their turn.

use crate::SCRATCH_BYTES;

/// Steps (a read, a write, a file read) of one turn. A request costs two, a reply from a file
/// three.
pub const STEPS_PER_TURN_MAX: usize = 4;

/// Bytes that make a step of their own: as many as one read can bring are a turn. They take the
/// kernel longer than dozens of small requests do.
const STEP_BYTES: usize = SCRATCH_BYTES / STEPS_PER_TURN_MAX;

/// The steps that moving so many bytes is counted as, where steps are all that is counted.
pub fn steps(bytes: usize) -> usize {
    1 + bytes / STEP_BYTES
}

/// From so many on a connection is bulk traffic: a transfer of some 100 KB is over by then.
const USED_UP_MAX: u32 = 4;

/// The count ends here: a client that floods and stops is as others when it has waited twice.
const USED_UP_END: u32 = 2 * USED_UP_MAX;

/// Iterations in which all that are bulk have had a turn, where others run too. With one of a
/// hundred in each, a loop would wait a hundred times as often, and a wait costs more when more
/// sockets are ready.
const BULK_ROUNDS: usize = 16;

/// How many of `all` that are bulk run in a round in which others run too.
pub fn bulk_per_round(all: usize) -> usize {
    all.div_ceil(BULK_ROUNDS)
}

/// The turns of one connection. A client that waits for its replies uses up none. One that floods,
/// or moves bytes in bulk, uses up one after the other: it is bulk traffic, and then its turns
/// are one step, so that another client waits for one read or one write of it and not for four.
#[derive(Debug, Default)]
pub struct Turns {
    /// Of this turn.
    steps: usize,
    /// Turns that were used up; half as many each time that the connection has to wait.
    used_up: u32,
}

impl Turns {
    /// A step was taken.
    pub fn step(&mut self) {
        self.steps += 1;
    }

    /// The step that is being taken has moved so many bytes.
    pub fn moved(&mut self, bytes: usize) {
        self.steps += bytes / STEP_BYTES;
    }

    /// Whether others are to have their turn.
    pub fn is_over(&self) -> bool {
        self.steps >= if self.is_bulk() { 1 } else { STEPS_PER_TURN_MAX }
    }

    /// They have it, and the connection could go on: the next turn begins.
    pub fn use_up(&mut self) {
        self.steps = 0;
        self.used_up = (self.used_up + 1).min(USED_UP_END);
    }

    /// It waits for its peer, or for the clock: the next turn begins.
    pub fn wait(&mut self) {
        self.steps = 0;
        self.used_up /= 2;
    }

    /// It uses up most of its turns.
    pub fn is_bulk(&self) -> bool {
        self.used_up >= USED_UP_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of one turn, each with so many bytes; `more`: something is left then.
    fn turn(turns: &mut Turns, bytes: usize, more: bool) -> usize {
        let mut steps = 0;
        while !turns.is_over() {
            turns.moved(bytes);
            turns.step();
            steps += 1;
        }
        if more {
            turns.use_up()
        } else {
            turns.wait()
        }
        steps
    }

    #[test]
    fn a_turn_is_four_steps_or_one_full_read() {
        let mut turns = Turns::default();
        assert_eq!(turn(&mut turns, 100, false), 4);
        assert_eq!(turn(&mut turns, SCRATCH_BYTES, false), 1);
        assert_eq!(turn(&mut turns, STEP_BYTES, false), 2);
    }

    #[test]
    fn a_flood_has_short_turns_until_it_has_waited_twice() {
        let mut turns = Turns::default();
        let steps: Vec<_> = (0..20).map(|_| turn(&mut turns, 100, true)).collect();
        assert_eq!(steps, [[4; 4].as_slice(), &[1; 16]].concat());
        turns.wait();
        assert!(turns.is_bulk(), "one wait is not enough to leave bulk");
        turns.wait();
        assert_eq!(turn(&mut turns, 100, false), 4);
    }

    #[test]
    fn a_client_that_waits_for_its_replies_is_not_bulk() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            assert_eq!(turn(&mut turns, 100, true), 4);
            turns.wait();
            assert!(!turns.is_bulk());
        }
    }
}
