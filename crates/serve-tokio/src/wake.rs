//! What a task waits for: its socket, other connections, and the clock.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use conn::{Conn, Wake, Wants};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::SCRATCH;

/// Wakes one task, from any thread, by the runtime's own means.
#[derive(Default)]
pub(crate) struct WakeUp {
    woken: AtomicBool,
    /// Keeps one notification until it is waited for, so that none is lost.
    notify: Notify,
}

impl WakeUp {
    /// Whether the connection was woken since this was last asked.
    pub(crate) fn take(&self) -> bool {
        self.woken.load(SeqCst) && self.woken.swap(false, SeqCst)
    }

    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
    }
}

impl Wake for WakeUp {
    fn wake(&self, _token: u64) {
        if !self.woken.swap(true, SeqCst) {
            self.notify.notify_one();
        }
    }
}

/// A timer that is moved only if it would fire too late. The idle deadline moves with every
/// request, and to move a timer of the runtime takes a lock.
pub(crate) struct Timer {
    sleep: Pin<Box<tokio::time::Sleep>>,
    at: Instant,
}

impl Timer {
    /// Longest sleep: it fires, and is set again.
    const FAR: Duration = Duration::from_secs(60 * 60);

    pub(crate) fn new(now: Instant) -> Timer {
        let at = now + Self::FAR;
        Timer { sleep: Box::pin(tokio::time::sleep_until(at.into())), at }
    }

    pub(crate) fn set(&mut self, deadline: Option<Instant>) {
        let fired = self.sleep.is_elapsed();
        let wanted = deadline.unwrap_or_else(|| Instant::now() + Self::FAR);
        if fired || wanted < self.at {
            self.at = wanted;
            self.sleep.as_mut().reset(wanted.into());
        }
    }

    pub(crate) async fn wait(&mut self) {
        self.sleep.as_mut().await;
    }
}

/// What the runtime is to wait for on the socket.
pub(crate) fn interest(wants: &Wants) -> Interest {
    match (wants.read, wants.write) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (_, true) => Interest::WRITABLE,
        _ => Interest::READABLE,
    }
}

/// A deadline has passed. Bytes may have arrived in time while other tasks ran, and the runtime,
/// which learns of them in its own wait, may not know yet: so the kernel is asked.
pub(crate) fn late(stream: &TcpStream, conn: &mut Conn, now: Instant) {
    SCRATCH.with_borrow_mut(|scratch| kit::late(conn, stream, scratch, now));
}
