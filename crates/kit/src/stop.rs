//! Stopping. Signals go to one thread that waits for them (sigwait(3)).
//!
//! A loop learns of it by a descriptor that it watches among the others (eventfd(2)). A thread that
//! is blocked in accept(2) or recv(2) can be told by a signal only, or by the end of its socket;
//! and a listener or connection that is shut down loses what the kernel has accepted for it. So
//! such threads are tracked and sent a signal whose handler does nothing: the call ends with EINTR,
//! and the thread looks round. A signal that comes just before the call is lost, so it is sent
//! again until the thread has said that it knows.
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

/// Time between two signals to a thread that has not answered: rarely is one lost, and whoever
/// stops a server waits no longer than this for it.
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
    /// What it talks to; nobody while it waits for a connection.
    conversation: Option<(Arc<TcpStream>, Arc<dyn Wake>)>,
}

/// A thread that may be blocked in a system call, tracked. Belongs to that thread: it is forgotten
/// when dropped, which is before the thread ends.
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

    /// When the server was told to stop, which is when the time to drain began. A thread that was
    /// blocked at that moment learns of it later.
    pub fn requested_at(&self) -> Option<Instant> {
        self.requested().then(|| self.requested_at.get().copied())?
    }

    /// When nobody is served any more, once the server is to stop.
    pub fn ends_at(&self) -> Option<Instant> {
        self.requested_at().map(|at| at + self.drain_timeout)
    }

    /// True once the time to drain is over.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ends_at().is_some_and(|at| at <= now)
    }

    /// Tells everybody: flag first, then whatever can wake a waiter. Blocked threads are told by
    /// [`Stop::wake`].
    pub(crate) fn request(&self) {
        self.requested_at.get_or_init(Instant::now);
        self.requested.store(true, SeqCst);
        // Never read back, so it stays readable for every loop. EAGAIN: it is already.
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

    /// The time to drain is over: ends every conversation that a thread is blocked in, and every
    /// wait for a place.
    pub(crate) fn cut(&self) {
        for (_, blocked) in &*self.lock_blocked() {
            if let Some((stream, _)) = &blocked.conversation {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.notify();
    }

    /// Waits until the server is to stop: for whoever can spare a thread for that.
    pub fn wait(&self) {
        let mut monitor = self.lock_monitor();
        while !self.requested() {
            monitor = self.wait_changed(monitor);
        }
    }

    /// Tracks the calling thread, which is going to block on a socket, and the bell that another
    /// thread of the same conversation may wait for.
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
        // A poisoned monitor guards no data; either way the sleep is over.
        let _ = self.changed.wait_timeout_while(guard, duration, |()| self.requested() == before);
    }

    pub(crate) fn lock_monitor(&self) -> MutexGuard<'_, ()> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_changed<'a>(&self, guard: MutexGuard<'a, ()>) -> MutexGuard<'a, ()> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits on the monitor. The lock is taken so that a waiter that has just looked
    /// and is about to sleep cannot miss it.
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
    /// To be called while the thread lives: under the lock of the list that it must leave first, or
    /// by another thread that it waits for.
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
    /// The thread knows that the server is to stop: it need not be woken any more.
    pub fn told(&self) {
        self.blocked.told.store(true, SeqCst);
    }

    /// Interrupts the thread, for another thread of the same conversation, which it outlives.
    pub fn wake(&self) {
        self.blocked.wake();
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.stop.lock_blocked().try_remove(self.key);
    }
}
