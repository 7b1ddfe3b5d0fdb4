//! How a ring is woken: by a message from another ring (IORING_OP_MSG_RING, Linux 5.18).
//!
//! A loop that sleeps in io_uring_enter(2) wakes up for a completion, and another ring can cause
//! one. So a wake-up of loop A for a connection of loop B becomes a request of A's ring. It is
//! handed over with A's other requests before A's next wait, and arrives among B's other
//! completions, with the connection's token in it. No descriptor is watched or read for it, and
//! the two threads share no memory. A connection of the same loop needs no message: the loop looks
//! at its own wake-ups before it sleeps.
//!
//! A connection that wakes another one knows only its [`Waker`]. The ring that sends the message
//! is the one of the calling thread, so the pending wake-ups are kept per thread. Only loops call
//! connections, so a thread that wakes has a ring.
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
    /// The wake-ups that connections of this thread's loop have caused.
    static PENDING: RefCell<Pending> = RefCell::default();
}

#[derive(Default)]
struct Pending {
    wake_ups: Vec<WakeUp>,
    /// Those in `wake_ups`: one for each connection, however often it is woken.
    known: HashSet<(RawFd, u64)>,
}

/// Wakes the connections of one loop.
#[derive(Debug)]
pub(crate) struct Waker {
    ring: Arc<OwnedFd>,
}

/// A wake-up for one connection. It keeps the other ring open, so that its descriptor cannot
/// become another file while a request names it. A loop that has ended reads no messages, and
/// needs none.
#[derive(Debug)]
pub(crate) struct WakeUp {
    ring: Arc<OwnedFd>,
    /// The `user_data` of the completion that it will be.
    pub(crate) user_data: u64,
}

impl Waker {
    /// # Errors
    /// What fcntl(2) with F_DUPFD says.
    pub(crate) fn of(uring: &IoUring) -> io::Result<Waker> {
        Ok(Waker { ring: Arc::new(uring.as_fd().try_clone_to_owned()?) })
    }

    /// A wake-up for the connection with this `user_data`.
    pub(crate) fn wake_up(&self, user_data: u64) -> WakeUp {
        WakeUp { ring: Arc::clone(&self.ring), user_data }
    }

    /// Whether a wake-up is for this loop.
    pub(crate) fn is_of(&self, wake_up: &WakeUp) -> bool {
        Arc::ptr_eq(&self.ring, &wake_up.ring)
    }
}

impl Wake for Waker {
    fn wake(&self, token: u64) {
        PENDING.with_borrow_mut(|pending| {
            if pending.known.insert((self.ring.as_raw_fd(), token)) {
                pending.wake_ups.push(self.wake_up(token));
            }
        });
    }
}

impl AsFd for WakeUp {
    /// The ring that it is for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Takes the pending wake-ups of this thread.
pub(crate) fn collect() -> Vec<WakeUp> {
    PENDING.with_borrow_mut(|pending| {
        pending.known.clear();
        std::mem::take(&mut pending.wake_ups)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any file will do: nothing is sent.
    fn waker() -> Waker {
        let (end, _) = std::os::unix::net::UnixStream::pair().expect("socketpair(2)");
        Waker { ring: Arc::new(OwnedFd::from(end)) }
    }

    #[test]
    fn one_message_for_any_number_of_wake_ups() {
        let (ours, theirs) = (waker(), waker());
        for _ in 0..3 {
            ours.wake(1);
            theirs.wake(1);
            theirs.wake(2);
        }
        let wake_ups = collect();
        let names = |waker: &Waker| -> Vec<u64> {
            wake_ups.iter().filter(|w| waker.is_of(w)).map(|w| w.user_data).collect()
        };
        assert_eq!((names(&ours), names(&theirs)), (vec![1], vec![1, 2]));
        assert!(collect().is_empty());
        ours.wake(1);
        assert_eq!(collect().len(), 1, "woken again after it was collected");
    }
}
