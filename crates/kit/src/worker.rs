//! What a model is given.

use std::sync::Arc;
use std::time::Instant;

use conn::{Address, Conn, Service};

use crate::{Files, Listener, Slots, Stop, TIGHT_PAUSE};

/// Everything that one worker needs: a loop with its listener, or a set of threads.
#[derive(Debug)]
pub struct Worker {
    /// This worker's own listening socket.
    pub listener: Listener,
    /// What its connections have in common.
    pub service: Arc<Service>,
    /// The files of the document root.
    pub files: Arc<Files>,
    /// Says when to stop.
    pub stop: Arc<Stop>,
    /// Most connections at once. At the limit the worker does not accept, and clients wait in the
    /// accept queue.
    pub conns_max: usize,
    /// Threads that may serve connections, over all workers: as many as the machine allows.
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

    /// Waits until there is memory for a new connection, or the server is to stop: clients that
    /// are in the accept queue by then are served in any case.
    pub fn wait_for_memory(&self) {
        while !self.stop.requested() && !self.service.common.memory.admits(Instant::now()) {
            self.stop.sleep(TIGHT_PAUSE);
        }
    }

    /// A connection that was just accepted; `address` is where other connections can wake it.
    pub fn conn(&self, address: Address, now: Instant) -> Conn {
        Conn::new(&self.service, address, now)
    }
}
