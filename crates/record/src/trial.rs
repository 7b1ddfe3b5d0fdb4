//! One trial: a fresh server process, its slices of load, and what was seen on both sides.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{LoadOutcome, Slot};

/// One slot of the schedule and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Which slot of the schedule this was.
    pub slot: Slot,
    /// When it began, in seconds after the run began.
    pub started_s: f64,
    /// How long it took in all, in seconds: start, verification, warm-up, window, stop.
    pub took_s: f64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The window was measured. Errors may still have been counted: see `load.errors`.
    Measured(Box<Measured>),
    /// Nothing was measured; one sentence says why.
    Failed {
        /// What happened, where, and what to do.
        reason: String,
    },
}

/// Everything measured in one trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// What the client saw.
    pub load: LoadOutcome,
    /// What the server used inside the window.
    pub server: ServerSample,
    /// What the whole machine did inside the window.
    pub machine: MachineSample,
    /// The slices of the window, one for each block of the epoch. Servers of one epoch are compared
    /// block by block: the slices at the same place belong together. Empty in a counting pass.
    pub slices: Slices,
    /// Slices with twice the client, in blocks of their own, in each of which `doubled.single` is
    /// the slice with the client as it is.
    pub doubled: Doubled,
    /// The server with connections open and no traffic; `None` where the workload does not ask.
    pub idle: Option<IdleSample>,
    /// Idle connections that the server closed before the window had ended.
    pub idle_connections_lost: u32,
    /// The server's end.
    pub exit: ServerExit,
    /// System calls of the window; only in a counting pass ([`crate::Role::Counting`]), whose times
    /// are not used: a counted call costs more.
    pub calls: Option<Calls>,
}

/// Slices of load, a column for each figure: one place in all of them is one slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slices {
    /// Requests that were answered.
    pub requests: Vec<u64>,
    /// Time from the first request to the last reply, in nanoseconds.
    pub elapsed_ns: Vec<u64>,
    /// CPU time of the server, in nanoseconds.
    pub server_cpu_ns: Vec<u64>,
    /// CPU time of the client, in nanoseconds.
    pub client_cpu_ns: Vec<u64>,
}

/// Whether more is answered when the client has twice the connections, on two threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Doubled {
    /// With the client of the workload.
    pub single: Slices,
    /// With two of them at once.
    pub double: Slices,
}

/// System calls of the server inside the window, all threads and processes, by tracepoints
/// (perf_event_open(2), `syscalls:sys_enter_*`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Calls {
    /// System calls of every name (`raw_syscalls:sys_enter`).
    pub total: u64,
    /// Name, as in man section 2 -> calls. The names that are followed; zeros are left out.
    pub by_name: BTreeMap<String, u64>,
    /// Operations handed to io_uring rings (`io_uring:io_uring_submit_req`).
    pub ring_operations: u64,
    /// Operation, as in io_uring_enter(2) without the prefix -> submissions. Zeros are left out.
    pub ring_by_name: BTreeMap<String, u64>,
}

/// What the server used between the borders of the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerSample {
    /// CPU time of all threads, ended ones included, in microseconds (clock_getcpuclockid(3)).
    pub cpu_us: u64,
    /// Voluntary context switches of the threads alive at both borders (/proc/PID/task/*/status):
    /// the thread had to wait.
    pub voluntary_switches: u64,
    /// Involuntary ones: the thread was preempted.
    pub involuntary_switches: u64,
    /// Time that these threads were runnable and waited for a core, in microseconds
    /// (/proc/PID/task/*/schedstat, second field).
    pub run_queue_delay_us: u64,
    /// Threads at the start of the window.
    pub threads_at_start: u32,
    /// Threads at its end.
    pub threads_at_end: u32,
    /// Threads that came or went inside the window. The kernel forgets the switches of an ended
    /// thread, so with any of them the sums above are lower bounds, and the whole life in
    /// `ServerExit` is the better source.
    pub threads_changed: u32,
    /// The congestion control of its end of a connection, as the kernel tells (sock_diag(7));
    /// `None` where it does not.
    pub congestion_control: Option<String>,
    /// Memory before the first connection of the load, idle connections included.
    pub memory_before: MemorySample,
    /// Memory at the end of the window, all connections open.
    pub memory: MemorySample,
}

/// Memory of the server process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySample {
    /// Proportional set size, in KiB (/proc/PID/smaps_rollup).
    pub pss_kib: u64,
    /// Page tables, in KiB (VmPTE in /proc/PID/status).
    pub page_tables_kib: u64,
    /// Threads.
    pub threads: u32,
    /// Kernel memory charged to the server's memory cgroup, in KiB: kernel stacks, page tables
    /// (again), open files, epoll items, rings, its ends of connections and their buffers. (Linux
    /// 6.12 and later charge an accepted socket to who accepts it; before, it is missing.) Not in
    /// it: the client's ends, and what the kernel keeps for itself (port hashes, timers). Each core
    /// holds up to a page of charge in advance, so a few KiB more or less say nothing.
    /// `None` where no cgroup could be made for it.
    pub kernel_kib: Option<u64>,
}

/// The machine between the borders of the window, from /proc/stat (10 ms ticks).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MachineSample {
    /// Time that all cores together were busy, in seconds.
    pub busy_s: f64,
    /// Time stolen by the hypervisor, all cores, in seconds.
    pub steal_s: f64,
}

/// The server while connections are open and silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IdleSample {
    /// Connections open, each of which had one exchange before it fell silent.
    pub connections: u32,
    /// Length of the sample, in seconds.
    pub duration_s: f64,
    /// CPU time that the server used meanwhile, in microseconds.
    pub cpu_us: u64,
    /// Wake-ups meanwhile: voluntary context switches, each of which ended a sleep.
    pub wake_ups: u64,
    /// Memory before the first of these connections.
    pub memory_before: MemorySample,
    /// Memory with all of them open.
    pub memory: MemorySample,
}

/// How the server process ended, and what it used in its whole life (wait4(2)).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerExit {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// It did not stop by itself within the time limit after SIGTERM and was killed.
    pub killed: bool,
    /// CPU time of the whole life, in microseconds.
    pub cpu_us: u64,
    /// Voluntary context switches of the whole life, ended threads included.
    pub voluntary_switches: u64,
    /// Involuntary context switches of the whole life, ended threads included.
    pub involuntary_switches: u64,
    /// Largest resident set, in KiB.
    pub resident_max_kib: u64,
    /// The last line on stdout, if it was a JSON object: the server's own counters.
    pub counters: Option<Value>,
}
