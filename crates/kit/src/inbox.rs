//! The bell of a readiness loop: who of its connections was rung for, and the wake-up of a loop
//! that sleeps in its wait primitive (eventfd(2)).
//!
//! A chat's message is for connections of other loops. Their thread may be asleep in select(2),
//! poll(2) or epoll_wait(2), which end for a descriptor only; so the bell is one. A loop that is
//! awake will look by itself, and writing for it would be a system call for nothing: under load
//! most rings are of that kind, and so is every ring of a loop for one of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use conn::Wake;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::Token;

/// The bell of one loop. The loop calls [`Inbox::may_sleep`] before its wait and [`Inbox::collect`]
/// after it; any thread rings.
#[derive(Debug)]
pub(crate) struct Inbox {
    rung: Mutex<Rung>,
    /// Something may be in `rung`.
    pending: AtomicBool,
    /// The loop is in its wait, or about to be.
    asleep: AtomicBool,
    event: EventFd,
}

/// Who was rung for since the loop last looked.
#[derive(Debug, Default)]
struct Rung {
    tokens: Vec<Token>,
    /// By token: it is in `tokens`. So the list is never longer than the loop's table, however
    /// often others ring.
    noted: Vec<bool>,
}

impl Inbox {
    /// # Errors
    /// What eventfd(2) says.
    pub(crate) fn new() -> io::Result<Inbox> {
        Ok(Inbox {
            rung: Mutex::default(),
            pending: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    /// Announces that the loop is going to sleep. False: it must not, somebody was rung for.
    ///
    /// The loop writes `asleep` and then reads `pending`; whoever rings writes `pending` and then
    /// reads `asleep`. All four are sequentially consistent, so they have one order, in which one
    /// of the writes comes first: whichever side comes second sees the other. Either the loop does
    /// not sleep, or the ringer wakes it. With anything weaker both might read the old value.
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, SeqCst);
        !self.pending.load(SeqCst)
    }

    /// The loop is awake: hands over who was rung for. Rings cost no system call from here on.
    pub(crate) fn collect(&self, into: &mut Vec<Token>) {
        self.asleep.store(false, SeqCst);
        into.clear();
        if self.pending.load(SeqCst) {
            // Before the list is taken: who rings behind that is seen next time.
            self.pending.store(false, SeqCst);
            let mut rung = self.lock();
            std::mem::swap(&mut rung.tokens, into);
            for &token in &*into {
                rung.noted[token] = false;
            }
        }
    }

    /// Reads the eventfd, so that a level-triggered wait is not ended by it again.
    pub(crate) fn silence(&self) {
        // EAGAIN: it was silent.
        let _ = self.event.read();
    }

    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Inbox {
    fn wake(&self, token: u64) {
        // ANCHOR: ring
        let token = token as Token;
        {
            let mut rung = self.lock();
            if rung.noted.len() <= token {
                rung.noted.resize(token + 1, false);
            }
            if std::mem::replace(&mut rung.noted[token], true) {
                // On the list, and the loop not there yet: whoever put it there has woken it.
                return;
            }
            rung.tokens.push(token);
        }
        self.pending.store(true, SeqCst);
        // The first to find it asleep wakes it; the others need not.
        if self.asleep.swap(false, SeqCst) {
            // EAGAIN: it is readable already.
            let _ = self.event.write(1);
        }
        // ANCHOR_END: ring
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_readable(inbox: &Inbox, timeout: PollTimeout) -> bool {
        let mut watched = [PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, timeout).expect("poll(2)") > 0
    }

    fn collected(inbox: &Inbox) -> Vec<Token> {
        let mut tokens = vec![usize::MAX];
        inbox.collect(&mut tokens);
        tokens
    }

    #[test]
    fn a_loop_that_is_awake_costs_no_system_call() {
        let inbox = Inbox::new().expect("eventfd");
        inbox.wake(3);
        assert!(!is_readable(&inbox, PollTimeout::ZERO), "written, though nobody sleeps");
        assert!(!inbox.may_sleep(), "somebody was rung for");
        assert_eq!(collected(&inbox), [3]);
        assert!(inbox.may_sleep());
        assert!(collected(&inbox).is_empty(), "a wait that ended for another reason");
        inbox.wake(3);
        assert!(!is_readable(&inbox, PollTimeout::ZERO), "awake again since it collected");
        assert_eq!(collected(&inbox), [3]);
    }

    #[test]
    fn a_loop_that_sleeps_is_woken_once() {
        let inbox = Inbox::new().expect("eventfd");
        assert!(inbox.may_sleep());
        for token in [5, 2, 5, 2, 9] {
            inbox.wake(token);
        }
        assert!(is_readable(&inbox, PollTimeout::ZERO));
        assert_eq!(inbox.event.read(), Ok(1), "one write for five rings");
        assert_eq!(collected(&inbox), [5, 2, 9], "once each, in the order of their first");
        inbox.wake(2);
        assert_eq!(collected(&inbox), [2], "and again after it was collected");
    }

    #[test]
    fn silence_lasts_until_the_next_ring() {
        let inbox = Inbox::new().expect("eventfd");
        inbox.silence();
        assert!(inbox.may_sleep());
        inbox.wake(0);
        assert!(is_readable(&inbox, PollTimeout::ZERO));
        inbox.silence();
        assert!(!is_readable(&inbox, PollTimeout::ZERO));
        assert_eq!(collected(&inbox), [0]);
        assert!(inbox.may_sleep());
        inbox.wake(0);
        assert!(is_readable(&inbox, PollTimeout::ZERO));
    }

    /// Every ringer waits until its ring was heard before it rings again, so the loop sleeps many
    /// times, and one lost wake-up stops everything.
    #[test]
    fn no_wake_up_is_lost() {
        const RINGERS: usize = 4;
        const ROUNDS: usize = 5_000;
        let inbox = Arc::new(Inbox::new().expect("eventfd"));
        let heard: Arc<Vec<_>> = Arc::new((0..RINGERS).map(|_| AtomicBool::new(true)).collect());
        let ringers = (0..RINGERS).map(|token| {
            let (inbox, heard) = (Arc::clone(&inbox), Arc::clone(&heard));
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    while !heard[token].swap(false, SeqCst) {
                        thread::yield_now();
                    }
                    inbox.wake(token as u64);
                }
            })
        });
        let ringers: Vec<_> = ringers.collect();
        let (mut left, mut tokens) = (RINGERS * ROUNDS, Vec::new());
        // A minute: a guard against hanging, on a machine where this takes a fraction of a second.
        let guard = PollTimeout::from(60_000u16);
        while left > 0 {
            if inbox.may_sleep() {
                assert!(is_readable(&inbox, guard), "asleep with {left} rings to come");
                inbox.silence();
            }
            inbox.collect(&mut tokens);
            left -= tokens.len();
            for &token in &tokens {
                heard[token].store(true, SeqCst);
            }
        }
        ringers.into_iter().for_each(|ringer| ringer.join().expect("a ringer"));
    }
}
