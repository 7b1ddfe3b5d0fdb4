//! How a conversation is woken: by a flag and a condition variable.
//!
//! A thread that is blocked in recv(2) cannot be told anything else. So a message for a connection
//! needs a thread that waits for messages: the writer of a conversation on two threads
//! ([`crate::duplex`]). It waits for no descriptor, so it waits on a condition variable.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conn::Wake;

/// Wakes the writer of one conversation.
#[derive(Debug, Default)]
pub(crate) struct WakeUp {
    /// Another connection has something for this one.
    woken: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// The conversation's own socket.
    stream: Option<Arc<TcpStream>>,
}

#[derive(Debug, Default)]
struct State {
    /// Something has happened since the writer last looked.
    touched: bool,
    /// The writer waits. Kept here because to notify a condition variable is a system call even if
    /// no thread waits.
    asleep: bool,
}

impl WakeUp {
    /// For the conversation on this socket.
    pub(crate) fn of(stream: &Arc<TcpStream>) -> WakeUp {
        WakeUp { stream: Some(Arc::clone(stream)), ..WakeUp::default() }
    }

    /// Something has happened that the writer should look at. The lock is held for a few
    /// instructions only, so this may be called under any other lock.
    pub(crate) fn touch(&self) {
        let mut state = self.lock();
        state.touched = true;
        if state.asleep {
            self.changed.notify_one();
        }
    }

    /// Whether the connection was woken since this was last asked.
    pub(crate) fn take(&self) -> bool {
        // Asked before every system call of a conversation: a load costs less than a swap.
        self.woken.load(SeqCst) && self.woken.swap(false, SeqCst)
    }

    /// Sleeps until something has happened since the last wait, but no longer than `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let mut state = self.lock();
        if !state.touched {
            state.asleep = true;
            let untouched = |state: &mut State| !state.touched;
            let waited = self.changed.wait_timeout_while(state, timeout, untouched);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = false;
        }
        state.touched = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for WakeUp {
    fn wake(&self, _token: u64) {
        // Set before the writer is woken, so that it finds it.
        if !self.woken.swap(true, SeqCst) {
            self.touch();
        }
    }

    /// The threads may be blocked in recv(2) or send(2).
    fn interrupt(&self, token: u64) {
        self.wake(token);
        if let Some(stream) = &self.stream {
            // ENOTCONN: the connection has ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Only a test that fails waits this long.
    const GUARD: Duration = Duration::from_secs(60);

    #[test]
    fn what_has_happened_before_the_wait_ends_it() {
        let wake_up = WakeUp::default();
        wake_up.touch();
        let begun = Instant::now();
        wake_up.wait(GUARD);
        assert!(begun.elapsed() < GUARD);
        assert!(!wake_up.take(), "touched, and not woken");
        wake_up.wake(0);
        wake_up.wake(0);
        wake_up.wait(GUARD);
        assert!(begun.elapsed() < GUARD);
        assert!(wake_up.take());
        assert!(!wake_up.take(), "once for any number of wake-ups");
        // Both wake-ups were seen: this wait is ended by its timeout alone.
        let (begun, short) = (Instant::now(), Duration::from_millis(5));
        wake_up.wait(short);
        assert!(begun.elapsed() >= short);
    }

    /// The sides wake each other in turn: one lost wake-up stops both.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: usize = 5_000;
        let wake_ups = Arc::new([WakeUp::default(), WakeUp::default()]);
        let sides = [0, 1].map(|side| {
            let wake_ups = Arc::clone(&wake_ups);
            thread::spawn(move || {
                let begun = Instant::now();
                if side == 0 {
                    wake_ups[1].wake(0);
                }
                for _ in 0..ROUNDS {
                    while !wake_ups[side].take() {
                        wake_ups[side].wait(GUARD);
                        assert!(begun.elapsed() < GUARD, "asleep");
                    }
                    wake_ups[1 - side].wake(0);
                }
            })
        });
        sides.into_iter().for_each(|side| side.join().expect("a side"));
    }
}
