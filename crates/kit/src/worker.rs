//! What one loop is given to live on.

use std::sync::Arc;
use std::time::Instant;

use conn::{Address, Conn, Service};

use crate::{Files, Listener, Slots, Stop, TIGHT_PAUSE};

/// Everything that one loop of a model needs. A model takes it apart as it likes.
#[derive(Debug)]
pub struct Worker {
    /// This worker's own listening socket.
    pub listener: Listener,
    /// What its connections share.
    pub service: Arc<Service>,
    /// The files of the document root.
    pub files: Arc<Files>,
    /// Says when to stop.
    pub stop: Arc<Stop>,
    /// Most connections at once; beyond it the listener is muted and clients wait in the backlog.
    pub conns_max: usize,
    /// Threads that may have conversations, over all workers: as many as the machine lets start.
    pub threads: Arc<Slots>,
    pub(crate) flavours: Arc<Vec<(&'static str, String)>>,
}

impl Worker {
    /// The value of one of the model's own flags (checked when the command line was read).
    pub fn flavour(&self, flag: &str) -> &str {
        self.flavours.iter().find(|(name, _)| *name == flag).map_or("", |(_, value)| value)
    }

    /// The value of one of the model's own numeric flags.
    pub fn flavour_number(&self, flag: &str) -> usize {
        self.flavour(flag).parse().unwrap_or_default()
    }

    /// Waits until there is memory for a new connection, or the server is to stop: then those that
    /// the kernel has accepted before are let in all the same.
    pub fn wait_for_memory(&self) {
        while !self.stop.requested() && !self.service.common.memory.admits(Instant::now()) {
            self.stop.sleep(TIGHT_PAUSE);
        }
    }

    /// A connection that was just accepted; `address` is where others can wake its driver.
    pub fn conn(&self, address: Address, now: Instant) -> Conn {
        Conn::new(&self.service, address, now)
    }
}
