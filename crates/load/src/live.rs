//! The progress of a run, for other threads, and a way to end it early.
//!
//! The engine adds to relaxed atomics a few times per second. Another thread formats and prints
//! them, so that this does not disturb the measurement.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

/// A run as seen by another thread.
#[derive(Debug, Default)]
pub struct Live {
    stage: AtomicU8,
    requests: AtomicU64,
    errors: AtomicU64,
    stopped: AtomicBool,
}

/// The stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The server is probed, and connections are opened.
    Connecting,
    /// Load that is not counted.
    WarmingUp,
    /// The window.
    Measuring,
    /// The window is over.
    Ending,
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The present stage.
    pub stage: Stage,
    /// Requests answered in this stage, over all threads, at most a tenth of a second ago.
    pub requests: u64,
    /// Errors in this stage.
    pub errors: u64,
}

impl Live {
    /// The progress. May be called on any thread at any time.
    pub fn progress(&self) -> Progress {
        let stage = match self.stage.load(Relaxed) {
            0 => Stage::Connecting,
            1 => Stage::WarmingUp,
            2 => Stage::Measuring,
            _ => Stage::Ending,
        };
        Progress { stage, requests: self.requests.load(Relaxed), errors: self.errors.load(Relaxed) }
    }

    /// Ends the run within a tenth of a second; its outcome is what was measured until then. Safe
    /// in a signal handler.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Whether [`Live::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// The first thread begins a stage; the counts are set to zero.
    pub(crate) fn enter(&self, stage: Stage) {
        self.requests.store(0, Relaxed);
        self.errors.store(0, Relaxed);
        self.stage.store(stage as u8, Relaxed);
    }

    /// Adds a thread's counts since its last call.
    pub fn add(&self, requests: u64, errors: u64) {
        self.requests.fetch_add(requests, Relaxed);
        self.errors.fetch_add(errors, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_begins_at_zero() {
        let live = Live::default();
        assert_eq!(live.progress().stage, Stage::Connecting);
        for stage in [Stage::WarmingUp, Stage::Measuring, Stage::Ending, Stage::Connecting] {
            live.enter(stage);
            assert_eq!(live.progress(), Progress { stage, requests: 0, errors: 0 });
            live.add(3, 1);
            live.add(4, 0);
            assert_eq!(live.progress(), Progress { stage, requests: 7, errors: 1 });
        }
        live.stop();
        assert!(live.is_stopped());
    }
}
