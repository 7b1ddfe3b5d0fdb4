//! How long one connection may go on before other connections have their turn.

use crate::SCRATCH_BYTES;

/// Steps (a read, a write, a file read) of one turn. A request takes two, and a reply from a file
/// three.
pub const STEPS_PER_TURN_MAX: usize = 4;

/// Bytes that count as a further step. A full read is then a whole turn: it takes the kernel longer
/// than dozens of small requests do.
const STEP_BYTES: usize = SCRATCH_BYTES / STEPS_PER_TURN_MAX;

/// The number of steps that moving so many bytes counts as.
pub fn steps(bytes: usize) -> usize {
    1 + bytes / STEP_BYTES
}

/// A connection that has used up this many turns is bulk traffic. A transfer of some 100 KB is over
/// by then.
const USED_UP_MAX: u32 = 4;

/// The count ends here, so that a connection stops being bulk after it has waited twice.
const USED_UP_END: u32 = 2 * USED_UP_MAX;

/// Iterations in which all bulk connections have one turn, while other connections run too. One of
/// a hundred floods in each iteration would mean a hundred times as many waits, and a wait costs
/// more the more sockets are ready.
const BULK_ROUNDS: usize = 16;

/// How many of `all` bulk connections run in an iteration in which other connections run too.
pub fn bulk_per_round(all: usize) -> usize {
    all.div_ceil(BULK_ROUNDS)
}

/// Counts the turns of one connection. A client that waits for its replies uses up none of them. A
/// client that floods, or moves many bytes, uses up one after the other. Its connection is then
/// *bulk*: its turns are one step long, so that other clients wait for one read or one write of it
/// and not for four.
#[derive(Debug, Default)]
pub struct Turns {
    /// Steps of this turn.
    steps: usize,
    /// Turns that were used up; half as many each time that the connection has to wait.
    used_up: u32,
}

impl Turns {
    /// Counts a step.
    pub fn step(&mut self) {
        self.steps += 1;
    }

    /// Counts the bytes that the current step has moved.
    pub fn moved(&mut self, bytes: usize) {
        self.steps += bytes / STEP_BYTES;
    }

    /// True when the turn is used up.
    pub fn is_over(&self) -> bool {
        self.steps >= if self.is_bulk() { 1 } else { STEPS_PER_TURN_MAX }
    }

    /// Ends a turn after which the connection could go on.
    pub fn use_up(&mut self) {
        self.steps = 0;
        self.used_up = (self.used_up + 1).min(USED_UP_END);
    }

    /// Ends a turn after which the connection waits for its peer or for the clock.
    pub fn wait(&mut self) {
        self.steps = 0;
        self.used_up /= 2;
    }

    /// Whether the connection uses up most of its turns.
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
