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

use conn::Doorbell;
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

impl Doorbell for Inbox {
    fn ring(&self, token: u64) {
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
