//! What the server used inside the window, read from outside, by its process id. man: proc(5):
//! task/*/status, task/*/schedstat, task/*/children; clock_getcpuclockid(3).

use std::collections::BTreeMap;

use load::Observer;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use procfs::ProcError;
use procfs::process::Process;
use serde::Serialize;

/// What a server and the processes that it forked used inside the window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct ServerUse {
    /// Its processes at the end of the window.
    pub(super) processes: usize,
    /// CPU time of all threads, ended ones included, in microseconds.
    pub(super) cpu_us: u64,
    /// Voluntary context switches of the threads alive at both borders.
    pub(super) voluntary_switches: u64,
    /// Involuntary ones.
    pub(super) involuntary_switches: u64,
    /// Time that these threads were runnable and waited for a core, in microseconds.
    pub(super) run_queue_delay_us: u64,
    /// Threads that came or went: with any, switches and delay are lower bounds.
    pub(super) threads_changed: u64,
}

/// Reads a server at the borders of the window.
pub(super) struct Ledger {
    root: i32,
    start: Option<Reading>,
    end: Option<Reading>,
}

/// Counters since each thread's or process's start.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    cpu_us: BTreeMap<i32, u64>,
    threads: BTreeMap<i32, Thread>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Thread {
    voluntary: u64,
    involuntary: u64,
    run_queue_delay_ns: u64,
}

impl Ledger {
    /// Of the process `root` and its children.
    pub(super) fn new(root: i32) -> Result<Ledger, String> {
        let why_not = |error: &dyn std::fmt::Display| {
            format!("cannot read the process {root} ({error}): --pid wants a local server's")
        };
        read_threads(root).map_err(|error| why_not(&error))?;
        read_cpu_us(root).ok_or_else(|| why_not(&"it has no CPU clock"))?;
        Ok(Ledger { root, start: None, end: None })
    }

    /// What was used between the borders; `None` if there was no window.
    pub(super) fn finish(self) -> Option<ServerUse> {
        Some(used(&self.start?, &self.end?))
    }
}

impl Observer for Ledger {
    fn window_started(&mut self) {
        let tree = tree(self.root);
        let threads = all_threads(&tree);
        // Last, for it must be exact.
        self.start = Some(Reading { threads, cpu_us: cpu_us(&tree) });
    }

    fn window_ended(&mut self) {
        let tree = tree(self.root);
        let cpu_us = cpu_us(&tree);
        self.end = Some(Reading { cpu_us, threads: all_threads(&tree) });
    }
}

/// The process and all that it forked.
fn tree(root: i32) -> Vec<i32> {
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&pid) = tree.get(next) {
        let tasks = Process::new(pid).and_then(|process| process.tasks());
        for task in tasks.into_iter().flatten().flatten() {
            tree.extend(task.children().into_iter().flatten().map(|child| child as i32));
        }
        next += 1;
    }
    tree
}

/// A process that ends meanwhile is left out: its last reading is lost, and told by the threads.
fn cpu_us(tree: &[i32]) -> BTreeMap<i32, u64> {
    tree.iter().filter_map(|&pid| Some((pid, read_cpu_us(pid)?))).collect()
}

fn read_cpu_us(pid: i32) -> Option<u64> {
    let time = clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime).ok()?;
    Some(time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1_000)
}

fn all_threads(tree: &[i32]) -> BTreeMap<i32, Thread> {
    tree.iter().filter_map(|&pid| read_threads(pid).ok()).flatten().collect()
}

fn read_threads(pid: i32) -> Result<Vec<(i32, Thread)>, ProcError> {
    let tasks = Process::new(pid)?.tasks()?;
    Ok(tasks.flatten().filter_map(|task| Some((task.tid, read_thread(&task)?))).collect())
}

/// `None` when the thread has ended under our eyes.
fn read_thread(task: &procfs::process::Task) -> Option<Thread> {
    let status = task.status().ok()?;
    Some(Thread {
        voluntary: status.voluntary_ctxt_switches?,
        involuntary: status.nonvoluntary_ctxt_switches?,
        run_queue_delay_ns: task.schedstat().ok()?.run_delay,
    })
}

/// The difference of two readings. What was born between them counts from zero.
fn used(start: &Reading, end: &Reading) -> ServerUse {
    let mut used = ServerUse { processes: end.cpu_us.len(), ..ServerUse::default() };
    for (pid, after) in &end.cpu_us {
        used.cpu_us += after.saturating_sub(start.cpu_us.get(pid).copied().unwrap_or_default());
    }
    let (mut delay_ns, mut stayed) = (0, 0);
    for (tid, after) in &end.threads {
        if let Some(before) = start.threads.get(tid) {
            stayed += 1;
            used.voluntary_switches += after.voluntary.saturating_sub(before.voluntary);
            used.involuntary_switches += after.involuntary.saturating_sub(before.involuntary);
            delay_ns += after.run_queue_delay_ns.saturating_sub(before.run_queue_delay_ns);
        }
    }
    used.run_queue_delay_us = delay_ns / 1_000;
    used.threads_changed = (start.threads.len() + end.threads.len()) as u64 - 2 * stayed;
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_can_be_read() -> Result<(), String> {
        let mut ledger = Ledger::new(std::process::id() as i32)?;
        ledger.window_started();
        let before = read_cpu_us(ledger.root);
        let mut sum = 0_u64;
        while read_cpu_us(ledger.root) == before {
            sum = sum.wrapping_add(1);
        }
        ledger.window_ended();
        let used = ledger.finish().ok_or("no window")?;
        assert!(used.cpu_us > 0 && used.processes >= 1, "{used:?} {sum}");
        assert!(Ledger::new(i32::MAX).is_err_and(|text| text.contains("--pid")));
        Ok(())
    }

    #[test]
    fn what_is_new_counts_from_zero_and_what_is_gone_is_told() {
        let thread = |n| Thread { voluntary: n, involuntary: 2 * n, run_queue_delay_ns: n * 1_000 };
        let start = Reading {
            cpu_us: [(1, 100), (2, 7)].into(),
            threads: [(1, thread(10)), (2, thread(5))].into(),
        };
        let end = Reading {
            cpu_us: [(1, 150), (3, 4)].into(),
            threads: [(1, thread(17)), (3, thread(100))].into(),
        };
        let expected = ServerUse {
            processes: 2,
            cpu_us: 54,
            voluntary_switches: 7,
            involuntary_switches: 14,
            run_queue_delay_us: 7,
            threads_changed: 2,
        };
        assert_eq!(used(&start, &end), expected);
    }
}
