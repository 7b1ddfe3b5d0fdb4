//! One trial: a new server process, its slices of load, and the measurements of both sides.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{LoadOutcome, Slot};

/// One slot of the schedule and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// The slot of the schedule.
    pub slot: Slot,
    /// Start, in seconds after the start of the run.
    pub started_s: f64,
    /// Total time, in seconds: start, verification, warm-up, window, stop.
    pub took_s: f64,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The window was measured. There may be errors: see `load.errors`.
    Measured(Box<Measured>),
    /// Nothing was measured.
    Failed {
        /// What happened, in one sentence.
        reason: String,
    },
}

/// All measurements of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Measurements of the client.
    pub load: LoadOutcome,
    /// Resource usage of the server in the window.
    pub server: ServerSample,
    /// Usage of the whole machine in the window.
    pub machine: MachineSample,
    /// The slices of the window, one for each block of the epoch. Servers of an epoch are compared
    /// block by block: slices at the same index belong together. Empty in a counting pass.
    pub slices: Slices,
    /// Slices with two clients, from separate blocks. `doubled.single` holds the slices with one
    /// client of the same blocks.
    pub doubled: Doubled,
    /// The server with open connections and no traffic; `None`: the workload has no idle sample.
    pub idle: Option<IdleSample>,
    /// Idle connections that the server closed before the end of the window.
    pub idle_connections_lost: u32,
    /// The end of the server's process.
    pub exit: ServerExit,
    /// System calls in the window; only in a counting pass ([`crate::Role::Counting`]), whose times
    /// are not used because counting makes calls slower.
    pub calls: Option<Calls>,
}

/// Slices of load. Each field is a column; the values at one index are one slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slices {
    /// Answered requests.
    pub requests: Vec<u64>,
    /// Time from the first request to the last reply, in nanoseconds.
    pub elapsed_ns: Vec<u64>,
    /// CPU time of the server, in nanoseconds.
    pub server_cpu_ns: Vec<u64>,
    /// CPU time of the client, in nanoseconds.
    pub client_cpu_ns: Vec<u64>,
}

/// Slices with one client and with two: whether the client limits the rate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Doubled {
    /// With one client, that of the workload.
    pub single: Slices,
    /// With two clients on two threads.
    pub double: Slices,
}

/// System calls of the server in the window, all threads and processes, counted by tracepoints
/// (perf_event_open(2), `syscalls:sys_enter_*`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Calls {
    /// All system calls (`raw_syscalls:sys_enter`).
    pub total: u64,
    /// Number of calls by name (as in man section 2), for the names that are counted, without
    /// zeros.
    pub by_name: BTreeMap<String, u64>,
    /// Operations submitted to io_uring rings (`io_uring:io_uring_submit_req`).
    pub ring_operations: u64,
    /// Number of submissions by operation (as in io_uring_enter(2), without the prefix), without
    /// zeros.
    pub ring_by_name: BTreeMap<String, u64>,
}

/// Resource usage of the server between the borders of the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerSample {
    /// CPU time of all threads, ended ones included, in microseconds (clock_getcpuclockid(3)).
    pub cpu_us: u64,
    /// Voluntary context switches of the threads that ran at both borders
    /// (/proc/PID/task/*/status): the thread had to wait.
    pub voluntary_switches: u64,
    /// Involuntary context switches of these threads: the thread was preempted.
    pub involuntary_switches: u64,
    /// Time for which these threads were runnable and waited for a core, in microseconds
    /// (/proc/PID/task/*/schedstat, second field).
    pub run_queue_delay_us: u64,
    /// Threads at the start of the window.
    pub threads_at_start: u32,
    /// Threads at the end of the window.
    pub threads_at_end: u32,
    /// Threads that started or ended in the window. The kernel forgets the switches of an ended
    /// thread, so the sums above are then lower bounds; `ServerExit` has the sums over the whole
    /// process.
    pub threads_changed: u32,
    /// Congestion control of the server's end of a connection (sock_diag(7)); `None` if unknown.
    pub congestion_control: Option<String>,
    /// Memory before the first active connection, with idle connections.
    pub memory_before: MemorySample,
    /// Memory at the end of the window, with all connections.
    pub memory: MemorySample,
}

/// Memory of the server process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySample {
    /// Proportional set size, in KiB (/proc/PID/smaps_rollup).
    pub pss_kib: u64,
    /// Page tables, in KiB (VmPTE in /proc/PID/status).
    pub page_tables_kib: u64,
    /// Number of threads.
    pub threads: u32,
    /// Kernel memory charged to the server's memory cgroup, in KiB: kernel stacks, page tables
    /// (again), open files, epoll items, rings, the server's ends of connections and their buffers.
    /// (Since Linux 6.12 an accepted socket is charged to the process that accepts it; before, it
    /// is missing.) Not included: the client's ends, and the kernel's own tables (port hashes,
    /// timers). Each core is charged up to a page in advance, so the figure is inexact by a few
    /// KiB. `None`: no cgroup could be made.
    pub kernel_kib: Option<u64>,
}

/// Usage of the machine between the borders of the window, from /proc/stat (10 ms ticks).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MachineSample {
    /// Busy time of all cores together, in seconds.
    pub busy_s: f64,
    /// Time stolen by the hypervisor, all cores together, in seconds.
    pub steal_s: f64,
}

/// The server with open connections and no traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IdleSample {
    /// Open connections, each after one exchange.
    pub connections: u32,
    /// Length of the sample, in seconds.
    pub duration_s: f64,
    /// CPU time of the server in the sample, in microseconds.
    pub cpu_us: u64,
    /// Wake-ups in the sample: voluntary context switches, each of which ended a sleep.
    pub wake_ups: u64,
    /// Memory before the first of these connections.
    pub memory_before: MemorySample,
    /// Memory with all of them open.
    pub memory: MemorySample,
}

/// How the server's process ended, and its total resource usage (wait4(2)).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerExit {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was killed, because it had not ended within the time limit after SIGTERM.
    pub killed: bool,
    /// CPU time in total, in microseconds.
    pub cpu_us: u64,
    /// Voluntary context switches in total, ended threads included.
    pub voluntary_switches: u64,
    /// Involuntary context switches in total, ended threads included.
    pub involuntary_switches: u64,
    /// Maximum resident set, in KiB.
    pub resident_max_kib: u64,
    /// The last line on stdout, if it is a JSON object: the server's counters.
    pub counters: Option<Value>,
}
