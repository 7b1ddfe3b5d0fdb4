//! What the kernel says of a running server (proc(5)).

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// A process by its number, with its children, if it has some. The files are read anew at each
/// call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub u32);

impl Process {
    /// Its children; those of its first thread, which is the one that forks.
    pub fn children(self) -> Vec<Process> {
        let path = format!("/proc/{0}/task/{0}/children", self.0);
        let numbers = fs::read_to_string(path).unwrap_or_default();
        numbers.split_whitespace().filter_map(|number| number.parse().ok().map(Process)).collect()
    }

    /// User and system time of all its threads; in steps of a clock tick, usually 10 ms.
    ///
    /// # Panics
    /// When the process is gone.
    #[track_caller]
    pub fn cpu(self) -> Duration {
        let of_children: Duration = self.children().into_iter().map(Process::cpu_of_one).sum();
        assert!(Path::new(&format!("/proc/{}", self.0)).exists(), "process {} is gone", self.0);
        self.cpu_of_one() + of_children
    }

    fn cpu_of_one(self) -> Duration {
        // A child may have ended since it was listed.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // The second field, the name, is in brackets and may hold spaces; utime is the 14th.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 =
            fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Duration::from_millis(ticks * 1000 / per_second.unsigned_abs())
    }

    /// Largest resident set so far, in KiB (`VmHWM`).
    ///
    /// # Panics
    /// When the process is gone.
    #[track_caller]
    pub fn memory_peak_kib(self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// Resident set now, in KiB (`VmRSS`).
    ///
    /// # Panics
    /// When the process is gone.
    #[track_caller]
    pub fn memory_kib(self) -> u64 {
        self.status_kib("VmRSS:")
    }

    #[track_caller]
    fn status_kib(self, field: &str) -> u64 {
        let kib = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        };
        let status = self.read("status");
        let own = kib(&status).unwrap_or_else(|| panic!("no {field} in {status}"));
        // A child may have ended since it was listed.
        let children = self.children().into_iter();
        let status = |child: Process| fs::read_to_string(format!("/proc/{}/status", child.0)).ok();
        own + children.filter_map(status).filter_map(|status| kib(&status)).sum::<u64>()
    }

    /// Signals that were sent to it and that none of its threads has taken (`ShdPnd`, a bit each).
    ///
    /// # Panics
    /// When the process is gone.
    #[track_caller]
    pub fn pending_signals(self) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let bits = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
        bits.expect("ShdPnd in /proc/PID/status")
    }

    /// Number of open descriptors, without those of its children.
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).map_or(0, Iterator::count)
    }

    /// Number of threads, with those of its children.
    pub fn threads(self) -> usize {
        let of_one = |process: Process| {
            fs::read_dir(format!("/proc/{}/task", process.0)).map_or(0, Iterator::count)
        };
        of_one(self) + self.children().into_iter().map(of_one).sum::<usize>()
    }

    #[track_caller]
    fn read(self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}
