//! What wakes a task beside its socket: other connections, and the clock.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use conn::{Conn, Wake};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::SCRATCH;

/// The bell of one task: the runtime's own way to wake it from any thread.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    /// Keeps a notification that nobody waits for yet, so a ring between look and wait is not lost.
    pub(crate) notify: Notify,
}

impl Bell {
    pub(crate) fn take_rung(&self) -> bool {
        self.rung.load(SeqCst) && self.rung.swap(false, SeqCst)
    }
}

impl Wake for Bell {
    fn wake(&self, _token: u64) {
        if !self.rung.swap(true, SeqCst) {
            self.notify.notify_one();
        }
    }
}

/// A timer that is only moved when it would come too late: the idle deadline moves with every
/// request, and a runtime timer takes a lock to be moved.
pub(crate) struct Alarm {
    sleep: Pin<Box<tokio::time::Sleep>>,
    at: Instant,
}

impl Alarm {
    /// Deadlines further away than this are looked at again when it is over.
    const FAR: Duration = Duration::from_secs(60 * 60);

    pub(crate) fn new(now: Instant) -> Alarm {
        let at = now + Self::FAR;
        Alarm { sleep: Box::pin(tokio::time::sleep_until(at.into())), at }
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

/// A deadline is due. Other tasks may have kept the thread while bytes came in time, and the
/// runtime, which learns of them by its own wait, may not know yet.
pub(crate) fn late(stream: &TcpStream, conn: &mut Conn, now: Instant) {
    SCRATCH.with_borrow_mut(|scratch| kit::late(conn, stream, scratch, now));
}
