//! A number of places, to be waited for: connections that may be open, or threads that may run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::Stop;

/// How many connections, or threads that serve them, there may be at once. A model takes a slot
/// *before* it accepts, so that at the limit clients wait in the kernel's accept queue and cost the
/// server nothing.
#[derive(Debug)]
pub struct Slots {
    stop: Arc<Stop>,
    free: AtomicUsize,
    all: usize,
}

/// The right to have one of them; given back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// `all` slots, waiting for which ends when the time to drain is over.
    pub fn new(all: usize, stop: &Arc<Stop>) -> Arc<Slots> {
        Arc::new(Slots { stop: Arc::clone(stop), free: AtomicUsize::new(all), all })
    }

    /// Waits for a free slot. This goes on while the server stops, because clients may still wait
    /// in the accept queue. `None` when the time to drain is over.
    pub fn acquire(self: &Arc<Slots>) -> Option<Slot> {
        let mut monitor = self.stop.lock_monitor();
        loop {
            if self.stop.is_over(Instant::now()) {
                return None;
            }
            if let Some(slot) = self.take() {
                return Some(slot);
            }
            monitor = self.stop.wait_changed(monitor);
        }
    }

    /// A slot, if one is free now.
    pub fn try_acquire(self: &Arc<Slots>) -> Option<Slot> {
        let _monitor = self.stop.lock_monitor();
        self.take()
    }

    /// To be called under the monitor, which is what orders every change.
    fn take(self: &Arc<Slots>) -> Option<Slot> {
        let free = self.free.load(Relaxed).checked_sub(1)?;
        self.free.store(free, Relaxed);
        Some(Slot(Arc::clone(self)))
    }

    /// Waits until every slot has been given back.
    pub fn wait_all_free(&self) {
        let mut monitor = self.stop.lock_monitor();
        while self.free.load(Relaxed) < self.all {
            monitor = self.stop.wait_changed(monitor);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let _monitor = self.0.stop.lock_monitor();
            self.0.free.fetch_add(1, Relaxed);
        }
        self.0.stop.notify();
    }
}
