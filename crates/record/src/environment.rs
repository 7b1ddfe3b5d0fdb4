//! The machine of a run, which must be known to compare it with another run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The machine and its settings, read before the first trial.
///
/// `None` and empty maps mean "could not be read", not "zero".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Environment {
    /// Version of `iolab`.
    pub iolab_version: String,
    /// Commit of the working directory, with `-dirty` if files were changed.
    pub commit: Option<String>,
    /// Start of the run (RFC 3339, UTC).
    pub started_at: String,
    /// Host name.
    pub host: String,
    /// Kernel release and version (uname(2)).
    pub kernel: String,
    /// CPU model, from /proc/cpuinfo.
    pub cpu_model: String,
    /// Number of cores that this process may use (sched_getaffinity(2)).
    pub cores: u32,
    /// Total memory, in KiB.
    pub memory_kib: u64,
    /// Evidence of a virtual machine (DMI product, hypervisor flag); `None` if there is none.
    pub virtualisation: Option<String>,
    /// Mitigation in force for each vulnerability (/sys/devices/system/cpu/vulnerabilities).
    pub mitigations: BTreeMap<String, String>,
    /// Soft limit of open descriptors (RLIMIT_NOFILE) during the run.
    pub descriptors_soft: u64,
    /// Hard limit of open descriptors.
    pub descriptors_hard: u64,
    /// Default TCP congestion control.
    pub congestion_control: String,
    /// Values of the sysctls that affect measurements over loopback (tcp(7), socket(7)).
    pub sysctls: BTreeMap<String, String>,
    /// Load average over 1 minute, at the start.
    pub load_average_1min: Option<f64>,
    /// Pressure stall information of the CPU, at the start (PSI, /proc/pressure/cpu).
    pub pressure_cpu: Option<Pressure>,
    /// Time stolen by the hypervisor since boot, all cores together, in seconds (/proc/stat).
    pub steal_since_boot_s: Option<f64>,
    /// Why system calls cannot be counted; `None` if they can.
    pub counting_unavailable: Option<String>,
    /// Why the kernel's memory for a server cannot be measured; `None` if it can.
    pub kernel_memory_unavailable: Option<String>,
    /// Cost of basic operations.
    pub calibration: Calibration,
}

/// Share of time in which a task waited for a CPU (PSI "some"), in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pressure {
    /// Over the last 10 seconds.
    pub avg10_percent: f64,
    /// Over the last 60 seconds.
    pub avg60_percent: f64,
}

/// Cost of basic operations, measured before the first trial (medians).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Calibration {
    /// A system call that does nothing (getppid(2)), in nanoseconds.
    pub null_syscall_ns: f64,
    /// A read of the monotonic clock, in nanoseconds.
    pub clock_read_ns: f64,
    /// From write(2) to an eventfd until the read(2) blocked on it in another thread returns, in
    /// microseconds: half of a round trip. The threads run on the cores of server and client.
    pub wake_up_us: f64,
    /// Round trip of 64 bytes over loopback TCP between two blocking threads, in microseconds.
    pub loopback_round_trip_us: f64,
}
