//! Stopping. Signals go to one thread that waits for them (sigwait(3)); no code runs in a handler.
//!
//! A loop learns of it by a descriptor that it watches among the others (eventfd(2)); a thread that
//! is blocked in accept(2) or recv(2) by shutdown(2) on that very socket, which is why blocked
//! sockets are tracked.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use slab::Slab;

use crate::Listener;
use crate::bell::Bell;

/// Tells every worker of a server to stop.
#[derive(Debug)]
pub struct Stop {
    requested: AtomicBool,
    /// Set before `requested`.
    requested_at: OnceLock<Instant>,
    event: EventFd,
    listeners: Vec<Listener>,
    blocked: Mutex<Slab<Arc<Blocked>>>,
    /// For threads that wait for something other than a socket.
    monitor: Mutex<()>,
    changed: Condvar,
}

#[derive(Debug)]
struct Blocked {
    stream: Arc<TcpStream>,
    idle: AtomicBool,
    /// Of the thread that waits for no socket, if there are two.
    bell: Arc<Bell>,
}

/// A socket that a thread may be blocked on. Forgotten when dropped.
#[derive(Debug)]
pub struct Tracked {
    stop: Arc<Stop>,
    key: usize,
    blocked: Arc<Blocked>,
}

impl Stop {
    /// # Errors
    /// What eventfd(2) says.
    pub(crate) fn new(listeners: Vec<Listener>) -> io::Result<Stop> {
        Ok(Stop {
            requested: AtomicBool::new(false),
            requested_at: OnceLock::new(),
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            listeners,
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

    /// Tells everybody: flag first, then whatever can wake a waiter.
    pub(crate) fn request(&self) {
        self.requested_at.get_or_init(Instant::now);
        self.requested.store(true, SeqCst);
        // Never read back, so it stays readable for every loop. EAGAIN: it is already.
        let _ = self.event.write(1);
        for listener in &self.listeners {
            listener.shutdown();
        }
        for blocked in self.lock_blocked().iter().map(|(_, blocked)| blocked) {
            if blocked.idle.load(SeqCst) {
                // The blocked recv(2) returns 0, after any bytes that are there already.
                let _ = blocked.stream.shutdown(Shutdown::Read);
            }
            blocked.bell.touch();
        }
        self.notify();
    }

    /// The time to drain is over: ends every conversation that a thread is blocked in.
    pub(crate) fn cut(&self) {
        for blocked in self.lock_blocked().iter().map(|(_, blocked)| blocked) {
            let _ = blocked.stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until the server is to stop: for whoever can spare a thread for that.
    pub fn wait(&self) {
        let mut monitor = self.lock_monitor();
        while !self.requested() {
            monitor = self.wait_changed(monitor);
        }
    }

    /// Tracks a socket that a thread is going to block on, and the bell that another thread of the
    /// same conversation may wait for.
    pub(crate) fn track(self: &Arc<Stop>, stream: &Arc<TcpStream>, bell: &Arc<Bell>) -> Tracked {
        let (stream, bell) = (Arc::clone(stream), Arc::clone(bell));
        let blocked = Arc::new(Blocked { stream, idle: AtomicBool::new(false), bell });
        let key = self.lock_blocked().insert(Arc::clone(&blocked));
        Tracked { stop: Arc::clone(self), key, blocked }
    }

    /// Sleeps for `duration`, or less if the server is to stop.
    pub fn sleep(&self, duration: Duration) {
        let guard = self.lock_monitor();
        // A poisoned monitor guards no data; either way the sleep is over.
        let _ = self.changed.wait_timeout_while(guard, duration, |()| !self.requested());
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

impl Tracked {
    /// Says whether the coming recv(2) waits between two requests, so that it may be ended when the
    /// server stops. Then ask [`Stop::requested`] once more, and only then block: whichever of the
    /// two threads comes first, the other sees it.
    pub fn set_idle(&self, idle: bool) {
        self.blocked.idle.store(idle, SeqCst);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.stop.lock_blocked().try_remove(self.key);
    }
}
