//! The bell of a conversation: a flag and a condition variable.
//!
//! A thread that is blocked in recv(2) hears nothing else, so what others have for a connection
//! needs a thread that waits for just that: the writer of a duplex conversation (`duplex.rs`). A
//! thread that waits for no descriptor waits on a condition variable, and that is the whole bell.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conn::Wake;

/// Wakes the writer of one conversation.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Another connection has something for this one.
    rung: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// The conversation's own socket.
    stream: Option<Arc<TcpStream>>,
}

#[derive(Debug, Default)]
struct State {
    /// Something has happened since the writer last looked.
    touched: bool,
    /// The writer waits. Kept here because notifying nobody is a system call too.
    asleep: bool,
}

impl Bell {
    /// Of the conversation on this socket.
    pub(crate) fn of(stream: &Arc<TcpStream>) -> Bell {
        Bell { stream: Some(Arc::clone(stream)), ..Bell::default() }
    }

    /// Something has happened that the writer should look at. Waits for nothing but the few
    /// instructions that others hold this lock for, and may be called under any other lock.
    pub(crate) fn touch(&self) {
        let mut state = self.lock();
        state.touched = true;
        if state.asleep {
            self.changed.notify_one();
        }
    }

    /// Whether it was rung since it was last asked.
    pub(crate) fn take_rung(&self) -> bool {
        // Looked at before every system call of a conversation: a load costs less than a swap.
        self.rung.load(SeqCst) && self.rung.swap(false, SeqCst)
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

impl Wake for Bell {
    fn wake(&self, _token: u64) {
        // Set before the writer is woken, so that it finds it.
        if !self.rung.swap(true, SeqCst) {
            self.touch();
        }
    }

    /// Its threads may be blocked in recv(2) or send(2).
    fn interrupt(&self, token: u64) {
        self.wake(token);
        if let Some(stream) = &self.stream {
            // ENOTCONN: it has ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Nobody waits so long but a test that has failed.
    const GUARD: Duration = Duration::from_secs(60);

    #[test]
    fn what_has_happened_before_the_wait_ends_it() {
        let bell = Bell::default();
        bell.touch();
        let begun = Instant::now();
        bell.wait(GUARD);
        assert!(begun.elapsed() < GUARD);
        assert!(!bell.take_rung(), "touched, and not rung");
        bell.wake(0);
        bell.wake(0);
        bell.wait(GUARD);
        assert!(begun.elapsed() < GUARD);
        assert!(bell.take_rung());
        assert!(!bell.take_rung(), "once for any number of rings");
        // Both rings were heard: this wait is ended by its timeout alone.
        let (begun, short) = (Instant::now(), Duration::from_millis(5));
        bell.wait(short);
        assert!(begun.elapsed() >= short);
    }

    /// The sides ring in turn, each when it was rung: one lost wake-up stops both.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: usize = 5_000;
        let bells = Arc::new([Bell::default(), Bell::default()]);
        let sides = [0, 1].map(|side| {
            let bells = Arc::clone(&bells);
            thread::spawn(move || {
                let begun = Instant::now();
                if side == 0 {
                    bells[1].wake(0);
                }
                for _ in 0..ROUNDS {
                    while !bells[side].take_rung() {
                        bells[side].wait(GUARD);
                        assert!(begun.elapsed() < GUARD, "asleep");
                    }
                    bells[1 - side].wake(0);
                }
            })
        });
        sides.into_iter().for_each(|side| side.join().expect("a side"));
    }
}
