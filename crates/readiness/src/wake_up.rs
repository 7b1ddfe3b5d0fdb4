//! How another thread wakes a loop that sleeps in its wait: by a descriptor (eventfd(2), or pipe(2)
//! where the descriptor must raise a signal, which an eventfd cannot).
//!
//! A message of a chat is for connections of other loops. Their thread may be asleep in select(2),
//! poll(2) or epoll_wait(2), which return for a descriptor only; so the wake-up is one. A loop
//! that is awake looks at the list of wake-ups in each iteration, and writing to the eventfd would
//! be a system call for nothing. That is the usual case under load, and the only one when a
//! connection wakes another one of its own loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use conn::Wake;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{pipe2, read, write};

use crate::Token;

/// The wake-ups of one loop. The loop calls [`WakeUps::may_sleep`] before its wait and
/// [`WakeUps::collect`] after it. Any thread may wake.
#[derive(Debug)]
pub(crate) struct WakeUps {
    pending: Mutex<Pending>,
    /// `pending` may not be empty.
    any_pending: AtomicBool,
    /// The loop is in its wait, or about to be.
    asleep: AtomicBool,
    event: Event,
}

/// Becomes readable when it is written to. Both take eight bytes at a time.
#[derive(Debug)]
enum Event {
    Eventfd(OwnedFd),
    Pipe { read: OwnedFd, write: OwnedFd },
}

impl Event {
    fn read_end(&self) -> &OwnedFd {
        let (Event::Eventfd(end) | Event::Pipe { read: end, .. }) = self;
        end
    }

    fn write_end(&self) -> &OwnedFd {
        let (Event::Eventfd(end) | Event::Pipe { write: end, .. }) = self;
        end
    }
}

/// The connections that were woken since the loop last looked.
#[derive(Debug, Default)]
struct Pending {
    tokens: Vec<Token>,
    /// By token: it is in `tokens`. So the list is never longer than the loop's table, however
    /// often a connection is woken.
    noted: Vec<bool>,
}

impl WakeUps {
    /// # Errors
    /// What eventfd(2) says.
    pub(crate) fn new() -> io::Result<WakeUps> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(WakeUps::by(Event::Eventfd(event.into())))
    }

    /// # Errors
    /// What pipe2(2) says.
    pub(crate) fn by_pipe() -> io::Result<WakeUps> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(WakeUps::by(Event::Pipe { read, write }))
    }

    fn by(event: Event) -> WakeUps {
        WakeUps {
            pending: Mutex::default(),
            any_pending: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            event,
        }
    }

    /// Announces that the loop is going to sleep. False: it must not, a wake-up is pending.
    ///
    /// The loop writes `asleep` and then reads `any_pending`; the other thread writes
    /// `any_pending` and then reads `asleep`. All four accesses are sequentially consistent, so
    /// they have one order, and the thread whose write comes second sees the other's write. Either
    /// the loop does not sleep, or the other thread writes to the eventfd. With a weaker ordering
    /// both could read the old value, and the wake-up would be lost.
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, SeqCst);
        !self.any_pending.load(SeqCst)
    }

    /// The loop is awake: hands over the connections that were woken. From here on a wake-up costs
    /// no system call.
    pub(crate) fn collect(&self, into: &mut Vec<Token>) {
        self.asleep.store(false, SeqCst);
        into.clear();
        if self.any_pending.load(SeqCst) {
            // Before the list is taken: a wake-up that comes after that is seen next time.
            self.any_pending.store(false, SeqCst);
            let mut pending = self.lock();
            std::mem::swap(&mut pending.tokens, into);
            for &token in &*into {
                pending.noted[token] = false;
            }
        }
    }

    /// Reads the descriptor, so that it does not end a level-triggered wait again.
    pub(crate) fn reset(&self) {
        // EAGAIN: it was not readable. A pipe that holds more is reported again by its next write.
        let _ = read(self.event.read_end(), &mut [0; 64]);
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for WakeUps {
    fn wake(&self, token: u64) {
        let token = token as Token;
        {
            let mut pending = self.lock();
            if pending.noted.len() <= token {
                pending.noted.resize(token + 1, false);
            }
            if std::mem::replace(&mut pending.noted[token], true) {
                // The loop has not looked yet, and the thread that noted the token has woken it.
                return;
            }
            pending.tokens.push(token);
        }
        self.any_pending.store(true, SeqCst);
        // The first thread to find the loop asleep wakes it; the others need not.
        if self.asleep.swap(false, SeqCst) {
            // EAGAIN: it is readable already.
            let _ = write(self.event.write_end(), &1u64.to_ne_bytes());
        }
    }
}

impl AsFd for WakeUps {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.read_end().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_readable(wake_ups: &WakeUps, timeout: PollTimeout) -> bool {
        let mut watched = [PollFd::new(wake_ups.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, timeout).expect("poll(2)") > 0
    }

    fn collected(wake_ups: &WakeUps) -> Vec<Token> {
        let mut tokens = vec![usize::MAX];
        wake_ups.collect(&mut tokens);
        tokens
    }

    #[test]
    fn a_loop_that_is_awake_costs_no_system_call() {
        let wake_ups = WakeUps::new().expect("eventfd");
        wake_ups.wake(3);
        assert!(!is_readable(&wake_ups, PollTimeout::ZERO), "written, though the loop is awake");
        assert!(!wake_ups.may_sleep(), "a wake-up is pending");
        assert_eq!(collected(&wake_ups), [3]);
        assert!(wake_ups.may_sleep());
        assert!(collected(&wake_ups).is_empty(), "a wait that ended for another reason");
        wake_ups.wake(3);
        assert!(!is_readable(&wake_ups, PollTimeout::ZERO), "awake again since it collected");
        assert_eq!(collected(&wake_ups), [3]);
    }

    fn both_kinds() -> [WakeUps; 2] {
        [WakeUps::new().expect("eventfd"), WakeUps::by_pipe().expect("pipe")]
    }

    #[test]
    fn a_loop_that_sleeps_is_woken_once() {
        both_kinds().iter().for_each(is_woken_once);
    }

    fn is_woken_once(wake_ups: &WakeUps) {
        assert!(wake_ups.may_sleep());
        for token in [5, 2, 5, 2, 9] {
            wake_ups.wake(token);
        }
        assert!(is_readable(wake_ups, PollTimeout::ZERO));
        let mut count = [0; 64];
        assert_eq!(read(wake_ups.event.read_end(), &mut count), Ok(8));
        assert_eq!(count[..8], 1u64.to_ne_bytes(), "one write for five wake-ups");
        assert_eq!(collected(wake_ups), [5, 2, 9], "once each, in the order of their first");
        wake_ups.wake(2);
        assert_eq!(collected(wake_ups), [2], "and again after it was collected");
    }

    #[test]
    fn it_is_unreadable_until_the_next_wake_up() {
        both_kinds().iter().for_each(is_unreadable_until_woken);
    }

    fn is_unreadable_until_woken(wake_ups: &WakeUps) {
        wake_ups.reset();
        assert!(wake_ups.may_sleep());
        wake_ups.wake(0);
        assert!(is_readable(wake_ups, PollTimeout::ZERO));
        wake_ups.reset();
        assert!(!is_readable(wake_ups, PollTimeout::ZERO));
        assert_eq!(collected(wake_ups), [0]);
        assert!(wake_ups.may_sleep());
        wake_ups.wake(0);
        assert!(is_readable(wake_ups, PollTimeout::ZERO));
    }

    /// Each thread waits until its wake-up was seen before the next one, so the loop sleeps many
    /// times, and one lost wake-up stops everything.
    #[test]
    fn no_wake_up_is_lost() {
        const THREADS: usize = 4;
        const ROUNDS: usize = 5_000;
        let wake_ups = Arc::new(WakeUps::new().expect("eventfd"));
        let seen: Arc<Vec<_>> = Arc::new((0..THREADS).map(|_| AtomicBool::new(true)).collect());
        let threads = (0..THREADS).map(|token| {
            let (wake_ups, seen) = (Arc::clone(&wake_ups), Arc::clone(&seen));
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    while !seen[token].swap(false, SeqCst) {
                        thread::yield_now();
                    }
                    wake_ups.wake(token as u64);
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        let (mut left, mut tokens) = (THREADS * ROUNDS, Vec::new());
        // A minute: a guard against hanging, on a machine where this takes a fraction of a second.
        let guard = PollTimeout::from(60_000u16);
        while left > 0 {
            if wake_ups.may_sleep() {
                assert!(is_readable(&wake_ups, guard), "asleep with {left} rings to come");
                wake_ups.reset();
            }
            wake_ups.collect(&mut tokens);
            left -= tokens.len();
            for &token in &tokens {
                seen[token].store(true, SeqCst);
            }
        }
        threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    }
}
