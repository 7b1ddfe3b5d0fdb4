//! Stopping. Signals go to one thread that waits for them (sigwait(3)).
//!
//! A loop is told by a descriptor that it watches among the others (eventfd(2)). A thread that is
//! blocked in accept(2) or recv(2) watches no descriptor. To shut its socket down would end the
//! call, but requests that the kernel has received already would be lost. So such threads are
//! tracked, and are sent a signal whose handler does nothing: the call ends with EINTR, and the
//! thread looks whether the server stops. A signal that arrives just before the call is lost, so
//! it is sent again until the thread has confirmed it.
//!
//! Man pages: pthread_kill(3), signal(7) (interruption of system calls), sigaction(2).

use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use conn::Wake;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use slab::Slab;

use crate::sys::WAKE;

/// Time between two signals to a thread that has not confirmed one. A signal is rarely lost, and
/// then the server stops this much later.
pub const WAKE_INTERVAL: Duration = Duration::from_millis(2);

/// Tells every worker of a server to stop.
#[derive(Debug)]
pub struct Stop {
    requested: AtomicBool,
    /// Set before `requested`.
    requested_at: OnceLock<Instant>,
    drain_timeout: Duration,
    event: EventFd,
    blocked: Mutex<Slab<Arc<Blocked>>>,
    /// For threads that wait for something other than a socket.
    monitor: Mutex<()>,
    changed: Condvar,
}

/// A thread that may be blocked in a system call.
struct Blocked {
    thread: Pthread,
    /// It knows that the server is to stop.
    told: AtomicBool,
    /// Its connection and what wakes it; none while it accepts.
    conversation: Option<(Arc<TcpStream>, Arc<dyn Wake>)>,
}

/// Tracks a thread that may be blocked in a system call. It belongs to that thread, which drops it
/// before it ends.
#[derive(Debug)]
pub struct Tracked {
    stop: Arc<Stop>,
    key: usize,
    blocked: Arc<Blocked>,
}

impl Stop {
    /// # Errors
    /// What eventfd(2) says.
    pub(crate) fn new(drain_timeout: Duration) -> io::Result<Stop> {
        Ok(Stop {
            requested: AtomicBool::new(false),
            requested_at: OnceLock::new(),
            drain_timeout,
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            blocked: Mutex::default(),
            monitor: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// True once the server is to stop.
    pub fn requested(&self) -> bool {
        self.requested.load(SeqCst)
    }

    /// When the server was told to stop: the time to drain begins then, also for a thread that was
    /// blocked and is told later.
    pub fn requested_at(&self) -> Option<Instant> {
        self.requested().then(|| self.requested_at.get().copied())?
    }

    /// When the time to drain is over; `None` before the server is to stop.
    pub fn ends_at(&self) -> Option<Instant> {
        self.requested_at().map(|at| at + self.drain_timeout)
    }

    /// True once the time to drain is over.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ends_at().is_some_and(|at| at <= now)
    }

    /// Tells all workers: sets the flag first, and then wakes those that wait. Threads that are
    /// blocked in a system call are woken by [`Stop::wake`].
    pub(crate) fn request(&self) {
        self.requested_at.get_or_init(Instant::now);
        self.requested.store(true, SeqCst);
        // It is never read, so it stays readable for every loop. EAGAIN: it is readable already.
        let _ = self.event.write(1);
        for (_, blocked) in &*self.lock_blocked() {
            if let Some((_, wake)) = &blocked.conversation {
                wake.wake(0);
            }
        }
        self.notify();
    }

    /// Interrupts every tracked thread that has not been told yet. False: all have.
    pub(crate) fn wake(&self) -> bool {
        let blocked = self.lock_blocked();
        let untold = blocked.iter().filter(|(_, blocked)| !blocked.told.load(SeqCst));
        untold.map(|(_, blocked)| blocked.wake()).count() > 0
    }

    /// The time to drain is over: shuts down the connection of every tracked thread, and ends
    /// every wait for a slot.
    pub(crate) fn cut(&self) {
        for (_, blocked) in &*self.lock_blocked() {
            if let Some((stream, _)) = &blocked.conversation {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.notify();
    }

    /// Blocks the calling thread until the server is to stop.
    pub fn wait(&self) {
        let mut monitor = self.lock_monitor();
        while !self.requested() {
            monitor = self.wait_changed(monitor);
        }
    }

    /// Tracks the calling thread, which is going to block on a socket: that of `conversation`, or
    /// the listener. The other thread of the conversation waits for its `Wake`.
    pub fn track(
        self: &Arc<Stop>,
        conversation: Option<(Arc<TcpStream>, Arc<dyn Wake>)>,
    ) -> Tracked {
        let blocked = Arc::new(Blocked {
            thread: pthread_self(),
            told: AtomicBool::new(false),
            conversation,
        });
        let key = self.lock_blocked().insert(Arc::clone(&blocked));
        Tracked { stop: Arc::clone(self), key, blocked }
    }

    /// Sleeps for `duration`, or less if the server is told to stop meanwhile.
    pub fn sleep(&self, duration: Duration) {
        let guard = self.lock_monitor();
        let before = self.requested();
        // The monitor guards no data, so it does not matter if it is poisoned.
        let _ = self.changed.wait_timeout_while(guard, duration, |()| self.requested() == before);
    }

    pub(crate) fn lock_monitor(&self) -> MutexGuard<'_, ()> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_changed<'a>(&self, guard: MutexGuard<'a, ()>) -> MutexGuard<'a, ()> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all threads that wait on the monitor. The lock is taken because a thread may have
    /// looked and be about to wait: it would miss the notification.
    pub(crate) fn notify(&self) {
        let _guard = self.lock_monitor();
        self.changed.notify_all();
    }

    fn lock_blocked(&self) -> MutexGuard<'_, Slab<Arc<Blocked>>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Blocked {
    /// The thread must exist. It does while the caller holds the lock of the list, which the
    /// thread must leave before it ends, and while the thread waits for the caller to end.
    fn wake(&self) {
        // Fails only for a thread or a signal that does not exist.
        let _ = pthread_kill(self.thread, WAKE);
    }
}

impl fmt::Debug for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocked").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Tracked {
    /// Confirms that the thread knows that the server is to stop.
    pub fn told(&self) {
        self.blocked.told.store(true, SeqCst);
    }

    /// Interrupts the thread. For another thread of the same conversation, which must end first.
    pub fn wake(&self) {
        self.blocked.wake();
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.stop.lock_blocked().try_remove(self.key);
    }
}
