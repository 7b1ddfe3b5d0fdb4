//! The bell of a ring: a message from ring to ring (IORING_OP_MSG_RING, Linux 5.18).
//!
//! A loop that sleeps in `io_uring_enter` wakes up for a completion, and another ring can bring one
//! about: so a bell rung on loop A for a connection of loop B becomes a request of A's ring, handed
//! over with A's other requests before its next wait, and arrives as a completion among B's others,
//! with the connection's name in it. No descriptor is watched, no byte read or written for it, and
//! the two threads share no memory. A connection of the same loop needs no ring at all: the loop
//! looks at its outbox before it sleeps.
//!
//! Whoever rings knows only the bell. The ring to send from is that of the thread it is on, hence
//! the outbox per thread. Only loops call connections, so nobody rings on a thread without a ring.
//!
//! Man pages: io_uring_prep_msg_ring(3).

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use conn::Wake;
use io_uring::IoUring;

thread_local! {
    /// What the connections of this thread's loop have for others.
    static OUTBOX: RefCell<Outbox> = RefCell::default();
}

#[derive(Default)]
struct Outbox {
    letters: Vec<Letter>,
    /// Those in `letters`: one for each connection is enough, however often it is rung for.
    known: HashSet<(RawFd, u64)>,
}

/// The bell of one loop.
#[derive(Debug)]
pub(crate) struct Bell {
    ring: Arc<OwnedFd>,
}

/// A ring for one connection, on its way. Holds the other ring open, so that its descriptor cannot
/// become another file's while a request names it; a loop that has ended reads no messages, and
/// needs none.
#[derive(Debug)]
pub(crate) struct Letter {
    ring: Arc<OwnedFd>,
    /// The `user_data` of the completion that it will be.
    pub(crate) name: u64,
}

impl Bell {
    /// # Errors
    /// What fcntl(2) with F_DUPFD says.
    pub(crate) fn of(uring: &IoUring) -> io::Result<Bell> {
        Ok(Bell { ring: Arc::new(uring.as_fd().try_clone_to_owned()?) })
    }

    /// A ring for the connection of this name.
    pub(crate) fn letter(&self, name: u64) -> Letter {
        Letter { ring: Arc::clone(&self.ring), name }
    }

    /// Whether a letter is for this bell's loop.
    pub(crate) fn is_of(&self, letter: &Letter) -> bool {
        Arc::ptr_eq(&self.ring, &letter.ring)
    }
}

impl Wake for Bell {
    fn wake(&self, token: u64) {
        OUTBOX.with_borrow_mut(|outbox| {
            if outbox.known.insert((self.ring.as_raw_fd(), token)) {
                outbox.letters.push(self.letter(token));
            }
        });
    }
}

impl AsFd for Letter {
    /// The ring that it is for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Takes what was put into this thread's outbox.
pub(crate) fn collect() -> Vec<Letter> {
    OUTBOX.with_borrow_mut(|outbox| {
        outbox.known.clear();
        std::mem::take(&mut outbox.letters)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any file will do: nothing is sent.
    fn bell() -> Bell {
        let (end, _) = std::os::unix::net::UnixStream::pair().expect("socketpair(2)");
        Bell { ring: Arc::new(OwnedFd::from(end)) }
    }

    #[test]
    fn one_letter_for_any_number_of_rings() {
        let (ours, theirs) = (bell(), bell());
        for _ in 0..3 {
            ours.wake(1);
            theirs.wake(1);
            theirs.wake(2);
        }
        let letters = collect();
        let names = |bell: &Bell| -> Vec<u64> {
            letters.iter().filter(|letter| bell.is_of(letter)).map(|letter| letter.name).collect()
        };
        assert_eq!((names(&ours), names(&theirs)), (vec![1], vec![1, 2]));
        assert!(collect().is_empty());
        ours.wake(1);
        assert_eq!(collect().len(), 1, "rung again after it was collected");
    }
}
