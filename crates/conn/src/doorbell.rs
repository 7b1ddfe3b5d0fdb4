//! How one connection reaches another's driver.
//!
//! What one client says in a chat is for all others, whose connections belong to other loops or
//! threads, which sleep. How those are woken is a matter of the model (an eventfd, a condition
//! variable, a message from ring to ring, a task's notification), so the core only knows that
//! there is a bell.

use std::fmt;
use std::sync::{Arc, Weak};

/// Wakes drivers. One for each loop, or for each conversation.
pub trait Doorbell: Send + Sync {
    /// Makes the driver of connection `token` call [`Conn::woken`](crate::Conn::woken) soon, once
    /// for any number of rings. Called on any thread, inside any call of the contract on any other
    /// connection: must not wait, and must not call a connection.
    fn ring(&self, token: u64);

    /// The same for a connection that is to end, also where its driver is asleep in a system call
    /// on the connection's own socket.
    fn interrupt(&self, token: u64) {
        self.ring(token);
    }
}

/// Where a connection can be reached: a bell, and which of the bell's connections.
#[derive(Clone)]
pub struct Address {
    /// `None`: by nobody.
    bell: Option<Arc<dyn Doorbell>>,
    token: u64,
}

impl Address {
    /// Connection `token` of the driver that hears `bell`. A token may be used again after its
    /// connection has ended: a ring for nothing is harmless.
    pub fn new(bell: Arc<dyn Doorbell>, token: u64) -> Address {
        Address { bell: Some(bell), token }
    }

    /// Of a connection that is alone as long as it lasts: nobody is there to wake it.
    pub fn alone() -> Address {
        Address { bell: None, token: 0 }
    }

    /// The bell without a handle of it, and the token.
    pub(crate) fn weak(&self) -> (Option<Weak<dyn Doorbell>>, u64) {
        (self.bell.as_ref().map(Arc::downgrade), self.token)
    }

    pub(crate) fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.ring(self.token);
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("token", &self.token).finish_non_exhaustive()
    }
}
