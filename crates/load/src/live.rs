//! What can be seen of a run while it is going, and the one thing that can be done about it.
//!
//! The engine adds to relaxed atomics a few times a second; whoever wants to draw them does so on a
//! thread of its own. The engine never formats and never writes to a terminal, so looking on costs
//! the measurement nothing.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

/// A run as seen from another thread.
#[derive(Debug, Default)]
pub struct Live {
    stage: AtomicU8,
    requests: AtomicU64,
    errors: AtomicU64,
    stopped: AtomicBool,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The server is asked once, and connections are opened.
    Connecting,
    /// Load that is not counted.
    WarmingUp,
    /// The measured window.
    Measuring,
    /// The window is over.
    Ending,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where it is.
    pub stage: Stage,
    /// Requests answered in this stage so far, all threads; a tenth of a second old at most.
    pub requests: u64,
    /// Errors in this stage so far.
    pub errors: u64,
}

impl Live {
    /// How far the run has come. From any thread, at any time.
    pub fn progress(&self) -> Progress {
        let stage = match self.stage.load(Relaxed) {
            0 => Stage::Connecting,
            1 => Stage::WarmingUp,
            2 => Stage::Measuring,
            _ => Stage::Ending,
        };
        Progress { stage, requests: self.requests.load(Relaxed), errors: self.errors.load(Relaxed) }
    }

    /// Ends the run early, within a tenth of a second: what was measured by then is its outcome.
    /// Safe in a signal handler.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Whether [`Live::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// The first thread says where the run is; the counts begin anew.
    pub(crate) fn enter(&self, stage: Stage) {
        self.requests.store(0, Relaxed);
        self.errors.store(0, Relaxed);
        self.stage.store(stage as u8, Relaxed);
    }

    /// A thread says what it has counted since it last said so.
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
