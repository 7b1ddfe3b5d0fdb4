//! Coordinated omission: a server that answers nobody for a while, once, at a known rate of
//! requests. Timed from the send of each request the stall is hidden, because the client sent
//! nothing meanwhile; timed from when each was due it is seen (Tene 2013, wrk2).

use std::time::Duration;

use record::{Arrivals, LoadOutcome, Workload};

/// When the stall begins, in the window.
const BEGINS_S: f64 = 0.5;
/// So few that their requests in flight are less than a hundredth of all.
const CONNECTIONS: u32 = 16;

/// A stall, and the load that meets it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stall {
    /// Requests due per second.
    pub rate_per_s: u32,
    /// How long nobody is answered.
    pub length: Duration,
    /// Load before the window, in seconds.
    pub warm_up_s: f64,
    /// The window, in seconds.
    pub window_s: f64,
}

/// The 99th percentiles of one window, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct P99 {
    /// From the due time.
    pub due_us: f64,
    /// From the send.
    pub send_us: f64,
}

impl Stall {
    /// The label of the server that does it.
    pub fn label(&self) -> String {
        let after = f64::from(self.rate_per_s) * (self.warm_up_s + BEGINS_S);
        let length_ns = self.length.as_nanos();
        format!("faulty+fault=stall+fault-after={after:.0}+fault-ns={length_ns}")
    }

    /// The load.
    pub fn workload(&self, base: Workload) -> Workload {
        let rate_per_s = Some(self.rate_per_s);
        Workload { connections: CONNECTIONS, rate_per_s, arrivals: Arrivals::Poisson, ..base }
    }

    /// What the window says.
    ///
    /// # Errors
    /// If it was no open loop, or too short for a 99th percentile.
    pub fn p99(load: &LoadOutcome) -> Result<P99, String> {
        let open = load.open_loop.as_ref().ok_or("it was no open loop")?;
        match (load.latency.p99_us, open.from_send.p99_us) {
            (Some(due_us), Some(send_us)) => Ok(P99 { due_us, send_us }),
            _ => Err("too few requests for a 99th percentile".to_owned()),
        }
    }
}
