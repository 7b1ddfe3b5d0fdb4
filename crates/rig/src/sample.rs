//! Resource usage of a server, read from /proc. man: clock_getcpuclockid(3), proc(5):
//! task/*/status, task/*/schedstat, smaps_rollup, stat; cgroups(7).
//!
//! The CPU clock of a process has a resolution of nanoseconds and includes ended threads.
//! /proc/PID/stat has ticks of 10 ms, too coarse for a window of half a second.

use std::collections::HashMap;
use std::fs;

use load::Observer;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use record::{Calls, MachineSample, MemorySample, ServerSample};

use super::counting::{self, Counters};
use super::server::Server;

/// What is sampled: a server of a trial, or any process.
pub trait Subject {
    /// Its present processes; workers that it forks later appear later.
    fn processes(&self) -> Vec<Pid>;

    /// Kernel memory charged to it, in KiB; `None` if unknown.
    fn kernel_kib(&self) -> Option<u64> {
        None
    }

    /// Counters of its system calls, if they are counted.
    fn counters(&self) -> Option<&Counters> {
        None
    }
}

impl Subject for Server {
    fn processes(&self) -> Vec<Pid> {
        Server::processes(self)
    }

    fn kernel_kib(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.kernel_kib())
    }

    fn counters(&self) -> Option<&Counters> {
        self.counters.as_ref()
    }
}

/// A process that iolab did not start, and its descendants.
#[derive(Debug, Clone, Copy)]
pub struct Process(Pid);

impl Process {
    /// # Errors
    /// One sentence if the process cannot be sampled.
    pub fn new(pid: i32) -> Result<Process, String> {
        let process = Process(Pid::from_raw(pid));
        let readable = cpu_us_of(process.0).is_some() && !threads(&[process.0]).is_empty();
        readable.then_some(process).ok_or_else(|| {
            format!("cannot read the process {pid}: --pid takes that of a server on this machine")
        })
    }
}

impl Subject for Process {
    fn processes(&self) -> Vec<Pid> {
        process_tree(self.0)
    }
}

/// The process and its descendants, such as the workers of nginx.
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

/// CPU time of all threads of a process, ended ones included, in microseconds; `None` if it has
/// ended.
fn cpu_us_of(pid: Pid) -> Option<u64> {
    let time = clock_getcpuclockid(pid).and_then(clock_gettime).ok()?;
    Some(time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1_000)
}

type CpuTimes = HashMap<Pid, u64>;

fn cpu_times(processes: &[Pid]) -> CpuTimes {
    processes.iter().filter_map(|&pid| Some((pid, cpu_us_of(pid)?))).collect()
}

/// CPU time between two readings. A process that was forked between them counts from zero. The time
/// of one that ended is lost; its threads count in `threads_changed`.
fn cpu_us_between(start: &CpuTimes, end: &CpuTimes) -> u64 {
    let one = |(pid, after): (&Pid, &u64)| after.saturating_sub(*start.get(pid).unwrap_or(&0));
    end.iter().map(one).sum()
}

/// Memory of all processes of the server.
pub fn memory(server: &dyn Subject) -> MemorySample {
    MemorySample { kernel_kib: server.kernel_kib(), ..memory_of(&server.processes()) }
}

fn memory_of(processes: &[Pid]) -> MemorySample {
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

/// The scheduler's counts for one thread since its start.
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
            // A thread that ends between listing and reading is left out.
            if let Some(counts) = thread_counts(pid, task) {
                all.insert(task, counts);
            }
        }
    }
    all
}

fn thread_counts(pid: Pid, task: i32) -> Option<ThreadCounts> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).ok()?;
    // Without CONFIG_SCHEDSTATS there is no such file; the delay is then 0.
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

/// The difference of two readings, summed over the threads that are in both.
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

/// USER_HZ: the unit of CPU times in /proc, the same on all supported architectures.
pub(crate) const TICKS_PER_S: f64 = 100.0;

/// Busy and stolen time of all cores since boot, in seconds.
pub fn machine() -> Option<MachineSample> {
    parse_machine(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_machine(stat: &str) -> Option<MachineSample> {
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

/// How often the processors have entered an idle state, since boot, all together. The state POLL
/// is a loop and no sleep. `None` where the kernel does not say (Documentation/admin-guide/pm,
/// cpuidle): it has no driver for that.
pub fn processor_sleeps() -> Option<u64> {
    let mut sleeps = None;
    for cpu in fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        for state in fs::read_dir(cpu.path().join("cpuidle")).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(state.path().join(name)).ok();
            let Some(usage) = read("usage").and_then(|text| text.trim().parse::<u64>().ok()) else {
                continue;
            };
            if read("name").is_none_or(|name| name.trim() != "POLL") {
                *sleeps.get_or_insert(0) += usage;
            }
        }
    }
    sleeps
}

/// Usage of a server without traffic.
pub struct IdleUsage {
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Voluntary context switches, each of which ended with a wake-up.
    pub wake_ups: u64,
    /// Time for which its threads were runnable and waited for a core, in microseconds.
    pub run_queue_delay_us: u64,
}

/// The start of a sample without traffic.
pub struct Idling<'a> {
    server: &'a dyn Subject,
    threads: Threads,
    cpu: CpuTimes,
}

impl<'a> Idling<'a> {
    /// Begins the sample.
    pub fn begin(server: &'a dyn Subject) -> Idling<'a> {
        let threads = threads(&server.processes());
        Idling { server, threads, cpu: cpu_times(&server.processes()) }
    }

    /// The usage since [`Idling::begin`].
    pub fn end(&self) -> IdleUsage {
        let cpu_us = cpu_us_between(&self.cpu, &cpu_times(&self.server.processes()));
        let threads = threads(&self.server.processes());
        let ServerSample { voluntary_switches: wake_ups, run_queue_delay_us, .. } =
            difference(&self.threads, &threads);
        IdleUsage { cpu_us, wake_ups, run_queue_delay_us }
    }
}

/// Samples the server at the borders of the measured window.
pub struct Borders<'a> {
    server: &'a dyn Subject,
    memory_before: MemorySample,
    start: Option<Reading>,
    end: Option<Reading>,
}

struct Reading {
    cpu: CpuTimes,
    threads: Threads,
    machine: Option<MachineSample>,
    memory: MemorySample,
    /// `None`: system calls are not counted.
    calls: Option<std::io::Result<Calls>>,
}

/// The usage between the borders.
pub struct Seen {
    /// Usage of the server.
    pub server: ServerSample,
    /// Usage of the machine.
    pub machine: MachineSample,
    /// The server's system calls, if they are counted.
    pub calls: Option<Calls>,
}

impl<'a> Borders<'a> {
    /// Samples the memory now, before the first connection of the load.
    pub fn new(server: &'a dyn Subject) -> Borders<'a> {
        Borders { server, memory_before: memory(server), start: None, end: None }
    }

    /// # Errors
    /// One sentence if the window did not begin or did not end, or if a counter could not be read.
    pub fn finish(self) -> Result<Seen, String> {
        let (Some(start), Some(end)) = (self.start, self.end) else {
            return Err("the load had no measured window".into());
        };
        let server = ServerSample {
            cpu_us: cpu_us_between(&start.cpu, &end.cpu),
            memory_before: self.memory_before,
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
        let calls = match (start.calls.transpose(), end.calls.transpose()) {
            (Ok(before), Ok(after)) => {
                before.zip(after).map(|(before, after)| counting::difference(&before, &after))
            }
            (Err(error), _) | (_, Err(error)) => {
                return Err(format!("the counters of system calls cannot be read: {error}"));
            }
        };
        Ok(Seen { server, machine, calls })
    }
}

/// The client waits during these calls. Slow readings (10,000 threads) are therefore made outside:
/// before the first reading of CPU clocks and counters, and after the second.
impl Observer for Borders<'_> {
    fn window_started(&mut self) {
        let processes = self.server.processes();
        let (threads, machine) = (threads(&processes), machine());
        let memory = MemorySample::default();
        let counters = self.server.counters();
        let calls = counters.map(Counters::read_at_start);
        let cpu = cpu_times(&processes);
        self.start = Some(Reading { threads, machine, memory, cpu, calls });
    }

    fn window_ended(&mut self) {
        let mut processes = self.server.processes();
        // A process that ended in the window is no longer listed. Its clock can still be read,
        // because it is reaped later.
        let known = self.start.iter().flat_map(|start| start.cpu.keys());
        let gone: Vec<_> = known.filter(|pid| !processes.contains(pid)).copied().collect();
        processes.extend(gone);
        let (cpu, machine) = (cpu_times(&processes), machine());
        let counters = self.server.counters();
        let calls = counters.map(Counters::read_at_end);
        let threads = threads(&processes);
        self.end = Some(Reading { threads, machine, memory: memory(self.server), cpu, calls });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_can_be_read() {
        let me = [Pid::this()];
        let before = cpu_times(&me);
        let mut sum = 0u64;
        while cpu_us_between(&before, &cpu_times(&me)) == 0 {
            sum = sum.wrapping_add(1);
        }
        let memory = memory_of(&me);
        assert!(memory.pss_kib > 0 && memory.page_tables_kib > 0 && memory.threads > 0);
        assert!(threads(&me).contains_key(&Pid::this().as_raw()));
        assert!(machine().is_some_and(|machine| machine.busy_s > 0.0));
        assert_eq!(process_tree(Pid::from_raw(i32::MAX)), [Pid::from_raw(i32::MAX)]);
    }

    #[test]
    fn a_process_that_is_not_there_cannot_be_a_subject() {
        let this = Process::new(Pid::this().as_raw()).unwrap();
        assert!(this.processes().contains(&Pid::this()));
        assert!(Process::new(i32::MAX).unwrap_err().contains("--pid"));
    }

    #[test]
    fn a_process_born_inside_the_window_counts_from_zero() {
        let pid = Pid::from_raw;
        let start = CpuTimes::from([(pid(1), 100), (pid(2), 50)]);
        let end = CpuTimes::from([(pid(1), 130), (pid(3), 7)]);
        assert_eq!(cpu_us_between(&start, &end), 37);
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
