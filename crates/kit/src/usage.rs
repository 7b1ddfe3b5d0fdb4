//! The server's counters: the JSON of `/stats` and of the last line on stdout.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Counters, Memory, Program, Totals};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What connections need to know of the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) model: &'static str,
    pub(crate) workers: Vec<Arc<Counters>>,
    pub(crate) started: Instant,
    pub(crate) memory: Arc<Memory>,
}

/// One JSON object.
#[derive(Debug, Serialize)]
struct Stats {
    model: &'static str,
    workers: usize,
    uptime_ms: u128,
    /// Bytes that connections hold.
    memory_held: usize,
    /// Bytes that connections may hold.
    memory_max: usize,
    #[serde(flatten)]
    totals: Totals,
    #[serde(flatten)]
    usage: Usage,
}

/// The kernel's accounting of the process (getrusage(2), proc(5)): all threads, ended ones too.
#[derive(Debug, Default, Serialize)]
struct Usage {
    cpu_user_us: i64,
    cpu_system_us: i64,
    context_switches_voluntary: i64,
    context_switches_involuntary: i64,
    memory_peak_kib: i64,
}

impl Usage {
    fn now() -> Usage {
        // getrusage(2) fails only for a bad argument.
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Usage::default() };
        let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        Usage {
            cpu_user_us: micros(usage.user_time()),
            cpu_system_us: micros(usage.system_time()),
            context_switches_voluntary: usage.voluntary_context_switches(),
            context_switches_involuntary: usage.involuntary_context_switches(),
            memory_peak_kib: memory_peak_kib().unwrap_or_default(),
        }
    }
}

/// VmHWM of proc_pid_status(5). Not `ru_maxrss`: it is inherited over fork and exec, so a server
/// would report the peak of the process that started it.
fn memory_peak_kib() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

impl Program for Process {
    /// Measures by the thread's CPU clock, so that a preempted thread uses as much CPU as asked.
    fn burn(&self, duration: Duration) {
        let cpu = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
        let Ok(start) = cpu() else { return };
        while cpu().is_ok_and(|now| now.saturating_sub(start) < duration) {
            for _ in 0..64 {
                std::hint::spin_loop();
            }
        }
    }

    fn stats_json(&self) -> String {
        let stats = Stats {
            model: self.model,
            workers: self.workers.len(),
            uptime_ms: self.started.elapsed().as_millis(),
            memory_held: self.memory.held(),
            memory_max: self.memory.max(),
            totals: Totals::of(self.workers.iter().map(Arc::as_ref)),
            usage: Usage::now(),
        };
        // Cannot fail: the object has only numbers and strings.
        serde_json::to_string(&stats).unwrap_or_default()
    }
}
