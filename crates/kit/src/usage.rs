//! The server's counters: the JSON of `/stats` and of the last line on stdout.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Counters, Memory, Program, Totals};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::processes::Places;

/// What connections need to know of the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) model: &'static str,
    pub(crate) workers: usize,
    /// One for each worker, or for each process.
    pub(crate) counters: Vec<&'static Counters>,
    pub(crate) started: Instant,
    pub(crate) memory: Arc<Memory>,
    /// The limit of all processes together, in bytes.
    pub(crate) memory_max: usize,
    /// Of a server that has many processes.
    pub(crate) places: Option<Places>,
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
pub(crate) struct Usage {
    pub(crate) cpu_user_us: i64,
    pub(crate) cpu_system_us: i64,
    pub(crate) context_switches_voluntary: i64,
    pub(crate) context_switches_involuntary: i64,
    pub(crate) memory_peak_kib: i64,
}

impl Usage {
    fn now() -> Usage {
        let peak = memory_peak_kib(std::process::id()).unwrap_or_default();
        Usage { memory_peak_kib: peak, ..Usage::of(UsageWho::RUSAGE_SELF) }
    }

    /// Of all children that were waited for; without a peak of memory.
    pub(crate) fn of_ended_children() -> Usage {
        Usage::of(UsageWho::RUSAGE_CHILDREN)
    }

    /// Of a parent whose children have all ended. `peak_kib`: the sum of what each had at most.
    pub(crate) fn of_parent(peak_kib: i64) -> Usage {
        let (own, children) = (Usage::now(), Usage::of_ended_children());
        Usage {
            cpu_user_us: own.cpu_user_us + children.cpu_user_us,
            cpu_system_us: own.cpu_system_us + children.cpu_system_us,
            context_switches_voluntary: own.context_switches_voluntary
                + children.context_switches_voluntary,
            context_switches_involuntary: own.context_switches_involuntary
                + children.context_switches_involuntary,
            memory_peak_kib: peak_kib,
        }
    }

    fn of(who: UsageWho) -> Usage {
        // getrusage(2) fails only for a bad argument.
        let Ok(usage) = getrusage(who) else { return Usage::default() };
        let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        Usage {
            cpu_user_us: micros(usage.user_time()),
            cpu_system_us: micros(usage.system_time()),
            context_switches_voluntary: usage.voluntary_context_switches(),
            context_switches_involuntary: usage.involuntary_context_switches(),
            memory_peak_kib: 0,
        }
    }
}

/// VmHWM of proc_pid_status(5). Not `ru_maxrss`: it is inherited over fork and exec, so a server
/// would report the peak of the process that started it.
pub(crate) fn memory_peak_kib(process: u32) -> Option<i64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
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
        self.json(self.places.map_or_else(Usage::now, Places::usage))
    }
}

impl Process {
    pub(crate) fn json(&self, usage: Usage) -> String {
        let held = self.places.map_or_else(|| self.memory.held(), Places::memory_held);
        let stats = Stats {
            model: self.model,
            workers: self.workers,
            uptime_ms: self.started.elapsed().as_millis(),
            memory_held: held,
            memory_max: self.memory_max,
            totals: Totals::of(self.counters.iter().copied()),
            usage,
        };
        // Cannot fail: the object has only numbers and strings.
        serde_json::to_string(&stats).unwrap_or_default()
    }
}
