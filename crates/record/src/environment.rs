//! Where a run took place: what a reader must know before comparing it with another machine's.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The machine and its settings, read once before the first trial.
///
/// `None` and empty maps mean "could not be read here", never "zero".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Environment {
    /// Version of the `iolab` that measured.
    pub iolab_version: String,
    /// Commit of the checkout that the run was started in, with `-dirty` when files differ from it.
    pub commit: Option<String>,
    /// When the run began, RFC 3339, UTC.
    pub started_at: String,
    /// Host name.
    pub host: String,
    /// Kernel release and version, as uname(2) gives them.
    pub kernel: String,
    /// CPU model name from /proc/cpuinfo.
    pub cpu_model: String,
    /// Cores that this process may run on (sched_getaffinity(2)).
    pub cores: u32,
    /// Total memory, in KiB.
    pub memory_kib: u64,
    /// What betrays a virtual machine (DMI product, hypervisor flag); `None` when nothing does.
    pub virtualisation: Option<String>,
    /// /sys/devices/system/cpu/vulnerabilities: vulnerability -> mitigation in force.
    pub mitigations: BTreeMap<String, String>,
    /// Soft limit of open descriptors (RLIMIT_NOFILE) during the run.
    pub descriptors_soft: u64,
    /// Hard limit of open descriptors.
    pub descriptors_hard: u64,
    /// TCP congestion control that new sockets get by default.
    pub congestion_control: String,
    /// sysctl name -> value, for the settings that move loopback numbers (tcp(7), socket(7)).
    pub sysctls: BTreeMap<String, String>,
    /// Load average over 1 minute at the start.
    pub load_average_1min: Option<f64>,
    /// Pressure stall information of the CPU at the start (PSI, /proc/pressure/cpu).
    pub pressure_cpu: Option<Pressure>,
    /// Time stolen by the hypervisor since boot, all cores, in seconds (/proc/stat).
    pub steal_since_boot_s: Option<f64>,
    /// Why system calls cannot be counted here; `None` when they can.
    pub counting_unavailable: Option<String>,
    /// Why the kernel's memory for a server cannot be told here; `None` when it can.
    pub kernel_memory_unavailable: Option<String>,
    /// What the basic operations cost here.
    pub calibration: Calibration,
}

/// Share of time in which some task waited for a CPU (PSI "some"), in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pressure {
    /// Over the last 10 seconds.
    pub avg10_percent: f64,
    /// Over the last 60 seconds.
    pub avg60_percent: f64,
}

/// Costs of the operations under every I/O model, measured before the first trial (medians).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Calibration {
    /// One system call that does nothing (getppid(2)), in nanoseconds.
    pub null_syscall_ns: f64,
    /// One read of the monotonic clock, in nanoseconds.
    pub clock_read_ns: f64,
    /// From write(2) on an eventfd to the return of the read(2) blocked on it in another thread, in
    /// microseconds: half of a ping-pong. The two threads sit where server and client will sit.
    pub wake_up_us: f64,
    /// 64 bytes there and back over loopback TCP between two blocking threads, in microseconds.
    pub loopback_round_trip_us: f64,
}
