//! The wakers of a connection and its streams, and which of them were called.
//!
//! A call on a stream only queues. Then the connection must be polled, which may unblock other
//! streams, until no waker is called any more.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

#[derive(Debug, Default)]
pub(super) struct Wakes {
    connection: AtomicBool,
    /// Keys of streams. A key may belong to another stream by now; a wake-up without a reason is
    /// harmless.
    streams: Mutex<Vec<usize>>,
}

#[derive(Debug)]
struct StreamWaker {
    wakes: Arc<Wakes>,
    key: usize,
}

impl Wakes {
    pub(super) fn connection_waker(self: &Arc<Wakes>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    pub(super) fn stream_waker(self: &Arc<Wakes>, key: usize) -> Waker {
        Waker::from(Arc::new(StreamWaker { wakes: Arc::clone(self), key }))
    }

    pub(super) fn take_connection(&self) -> bool {
        self.connection.swap(false, Relaxed)
    }

    /// Calls `woken` for each stream that was woken since the last call.
    pub(super) fn take_streams(&self, woken: impl FnMut(usize)) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.drain(..).for_each(woken);
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Wakes>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Wakes>) {
        self.connection.store(true, Relaxed);
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<StreamWaker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<StreamWaker>) {
        let mut streams = self.wakes.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push(self.key);
    }
}
