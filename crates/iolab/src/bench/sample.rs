//! What a server uses, read from outside. man: clock_getcpuclockid(3), proc(5): task/*/status,
//! task/*/schedstat, smaps_rollup, stat.
//!
//! The process CPU clock counts nanoseconds and includes threads that have ended; /proc/PID/stat
//! counts 10 ms ticks and is too coarse for a window of half a second.

use std::collections::HashMap;
use std::fs;

use load::Observer;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use record::{MachineSample, MemorySample, ServerSample};

/// The processes of a server: its own and, for a peer such as nginx, the workers that it forked.
pub fn process_tree(root: Pid) -> Vec<Pid> {
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        for task in task_ids(tree[next]) {
            let path = format!("/proc/{}/task/{task}/children", tree[next]);
            let children = fs::read_to_string(path).unwrap_or_default();
            tree.extend(
                children.split_whitespace().filter_map(|c| c.parse().ok()).map(Pid::from_raw),
            );
        }
        next += 1;
    }
    tree
}

fn task_ids(pid: Pid) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// CPU time of all threads of the processes since their start, in microseconds. A process that has
/// ended counts nothing: the caller sees that by the exit status.
pub fn cpu_us(processes: &[Pid]) -> u64 {
    let one = |&pid| {
        let time = clock_getcpuclockid(pid).and_then(clock_gettime).ok()?;
        Some(time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1_000)
    };
    processes.iter().filter_map(one).sum()
}

/// Memory of the processes.
pub fn memory(processes: &[Pid]) -> MemorySample {
    let mut sum = MemorySample::default();
    for &pid in processes {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        sum.pss_kib += pss_kib(pid).unwrap_or(0);
        sum.page_tables_kib += number_after(&status, "VmPTE:").unwrap_or(0);
        sum.threads += number_after(&status, "Threads:").unwrap_or(0) as u32;
    }
    sum
}

fn pss_kib(pid: Pid) -> Option<u64> {
    number_after(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "\nPss:")
}

/// The first number after `key` in a /proc file of `Key:   value unit` lines.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = &text[text.find(key)? + key.len()..];
    rest.split_whitespace().next()?.parse().ok()
}

/// What the scheduler has counted for one thread since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct ThreadCounts {
    voluntary: u64,
    involuntary: u64,
    run_queue_delay_ns: u64,
}

type Threads = HashMap<i32, ThreadCounts>;

fn threads(processes: &[Pid]) -> Threads {
    let mut all = Threads::new();
    for &pid in processes {
        for task in task_ids(pid) {
            // A thread may end between the listing and the reading: it is then left out.
            if let Some(counts) = thread_counts(pid, task) {
                all.insert(task, counts);
            }
        }
    }
    all
}

fn thread_counts(pid: Pid, task: i32) -> Option<ThreadCounts> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).ok()?;
    // Absent on kernels without CONFIG_SCHEDSTATS: the delay then reads 0.
    let schedstat = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat"));
    Some(ThreadCounts {
        voluntary: number_after(&status, "\nvoluntary_ctxt_switches:")?,
        involuntary: number_after(&status, "\nnonvoluntary_ctxt_switches:")?,
        run_queue_delay_ns: schedstat
            .ok()
            .and_then(|s| s.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or(0),
    })
}

/// The difference between two readings, summed over the threads present in both.
fn difference(start: &Threads, end: &Threads) -> ServerSample {
    let mut sample = ServerSample {
        threads_at_start: start.len() as u32,
        threads_at_end: end.len() as u32,
        ..ServerSample::default()
    };
    let mut delay_ns = 0;
    let mut stayed = 0;
    for (task, after) in end {
        if let Some(before) = start.get(task) {
            stayed += 1;
            sample.voluntary_switches += after.voluntary.saturating_sub(before.voluntary);
            sample.involuntary_switches += after.involuntary.saturating_sub(before.involuntary);
            delay_ns += after.run_queue_delay_ns.saturating_sub(before.run_queue_delay_ns);
        }
    }
    sample.run_queue_delay_us = delay_ns / 1_000;
    sample.threads_changed = (start.len() + end.len() - 2 * stayed) as u32;
    sample
}

/// Busy and stolen time of all cores since boot, in seconds.
fn machine() -> Option<MachineSample> {
    parse_machine(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_machine(stat: &str) -> Option<MachineSample> {
    /// USER_HZ: the unit of /proc/stat, the same on every Linux that this builds for.
    const TICKS_PER_S: f64 = 100.0;
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|t| t.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    Some(MachineSample {
        busy_s: (user + nice + system + irq + softirq) / TICKS_PER_S,
        steal_s: steal / TICKS_PER_S,
    })
}

/// Samples the server at the borders of the measured window.
pub struct Borders {
    processes: Vec<Pid>,
    start: Option<Reading>,
    end: Option<Reading>,
}

struct Reading {
    cpu_us: u64,
    threads: Threads,
    machine: Option<MachineSample>,
    memory: MemorySample,
}

impl Borders {
    /// Will sample these processes.
    pub fn new(processes: Vec<Pid>) -> Borders {
        Borders { processes, start: None, end: None }
    }

    /// What was used between the borders; `None` if the window never began or never ended.
    pub fn finish(self) -> Option<(ServerSample, MachineSample)> {
        let (start, end) = (self.start?, self.end?);
        let server = ServerSample {
            cpu_us: end.cpu_us.saturating_sub(start.cpu_us),
            memory: end.memory,
            ..difference(&start.threads, &end.threads)
        };
        let machine = match (start.machine, end.machine) {
            (Some(before), Some(after)) => MachineSample {
                busy_s: after.busy_s - before.busy_s,
                steal_s: after.steal_s - before.steal_s,
            },
            _ => MachineSample::default(),
        };
        Some((server, machine))
    }
}

/// The client stands still during these calls, so what takes long (10,000 threads) is read outside
/// the CPU clock's two readings: before the first and after the second.
impl Observer for Borders {
    fn window_started(&mut self) {
        let (threads, machine) = (threads(&self.processes), machine());
        let memory = MemorySample::default();
        self.start = Some(Reading { threads, machine, memory, cpu_us: cpu_us(&self.processes) });
    }

    fn window_ended(&mut self) {
        let (cpu_us, machine) = (cpu_us(&self.processes), machine());
        let threads = threads(&self.processes);
        self.end = Some(Reading { threads, machine, cpu_us, memory: memory(&self.processes) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_can_be_read() {
        let me = [Pid::this()];
        let before = cpu_us(&me);
        let mut sum = 0u64;
        while cpu_us(&me) == before {
            sum = sum.wrapping_add(1);
        }
        let memory = memory(&me);
        assert!(memory.pss_kib > 0 && memory.page_tables_kib > 0 && memory.threads > 0);
        assert!(threads(&me).contains_key(&Pid::this().as_raw()));
        assert!(machine().is_some_and(|machine| machine.busy_s > 0.0));
        assert_eq!(process_tree(Pid::from_raw(i32::MAX)), [Pid::from_raw(i32::MAX)]);
    }

    #[test]
    fn only_threads_present_at_both_borders_are_summed() {
        let counts =
            |n| ThreadCounts { voluntary: n, involuntary: 2 * n, run_queue_delay_ns: n * 1000 };
        let start = Threads::from([(1, counts(10)), (2, counts(5))]);
        let end = Threads::from([(1, counts(17)), (3, counts(100))]);
        let sample = difference(&start, &end);
        assert_eq!((sample.voluntary_switches, sample.involuntary_switches), (7, 14));
        assert_eq!((sample.run_queue_delay_us, sample.threads_changed), (7, 2));
    }

    #[test]
    fn stat_is_read_by_its_columns() {
        let machine = parse_machine("cpu  100 1 50 900 30 2 7 40 0 0\ncpu0 1 2 3\n").unwrap();
        assert!((machine.busy_s - 1.6).abs() < 1e-9 && (machine.steal_s - 0.4).abs() < 1e-9);
        assert_eq!(parse_machine("cpu 1 2 3\n"), None);
        assert_eq!(parse_machine(""), None);
    }
}
