//! How one connection wakes the driver of another.
//!
//! A chat message goes from one connection to all others. Those may belong to other loops or
//! threads, which may be asleep. Each model wakes them in its own way (an eventfd, a condition
//! variable, a message between rings, the notification of a task), so the core knows a trait only.

use std::fmt;
use std::sync::{Arc, Weak};

/// Wakes drivers. Each loop has one, or each conversation.
pub trait Wake: Send + Sync {
    /// Makes the driver of connection `token` call [`Conn::resume`](crate::Conn::resume) soon: once
    /// for any number of wake-ups. A call on any other connection may call this, on any thread. So
    /// it must not block, and it must not call a connection.
    fn wake(&self, token: u64);

    /// The same for a connection that must end. It must also wake a driver that is blocked in a
    /// system call on the connection's socket.
    fn interrupt(&self, token: u64) {
        self.wake(token);
    }
}

/// Names a connection to those that may wake it.
#[derive(Clone)]
pub struct Address {
    /// `None`: no other connection can wake this one.
    driver: Option<Arc<dyn Wake>>,
    token: u64,
}

impl Address {
    /// Connection `token` of `driver`. A token may be used again after its connection has ended,
    /// because a wake-up without a reason is harmless.
    pub fn new(driver: Arc<dyn Wake>, token: u64) -> Address {
        Address { driver: Some(driver), token }
    }

    /// For a driver that serves one connection at a time: no other connection can wake it.
    pub fn alone() -> Address {
        Address { driver: None, token: 0 }
    }

    /// The driver, without keeping it alive, and the token.
    pub(crate) fn weak(&self) -> (Option<Weak<dyn Wake>>, u64) {
        (self.driver.as_ref().map(Arc::downgrade), self.token)
    }

    pub(crate) fn wake(&self) {
        if let Some(driver) = &self.driver {
            driver.wake(self.token);
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("token", &self.token).finish_non_exhaustive()
    }
}
