//! The CPU time of the server's processes, read from outside.
//!
//! The kernel adds up the time that each thread had when it last left its core, or at the last
//! timer tick (kernel/sched/cputime.c, thread_group_cputime). So the clock of a process that runs
//! on another core is up to one tick late, 4 ms: as long as a slice. Before it is read, the client
//! waits until the threads sleep. The clock of a server that never sleeps stays late.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::Error;

/// The time in which a server's threads go to sleep after their last reply.
const ASLEEP: Duration = Duration::from_micros(100);

/// The CPU clocks of a server's processes (clock_getcpuclockid(3)): user and system time of all
/// their threads, including ended ones, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Clocks {
    /// Each with its last value: that of an ended process does not change.
    clocks: Vec<(ClockId, u64)>,
}

impl Clocks {
    /// Of `processes`, by id: the server's own first, then those that it has started, some of which
    /// may have ended. Empty: the server's CPU time is not known.
    ///
    /// # Errors
    /// [`Error::Plan`] if the first process does not exist.
    pub fn of(processes: &[i32]) -> Result<Clocks, Error> {
        let mut clocks = Vec::new();
        for (at, &process) in processes.iter().enumerate() {
            match clock_getcpuclockid(Pid::from_raw(process)) {
                Ok(clock) => clocks.push((clock, 0)),
                Err(errno) if at == 0 => {
                    return Err(Error::Plan(format!(
                        "the CPU time of process {process} cannot be read ({errno}): give the id \
                         of a server that runs on this machine"
                    )));
                }
                Err(_) => {}
            }
        }
        Ok(Clocks { clocks })
    }

    /// The sum, in nanoseconds, of servers that have just answered all requests; `None` if no
    /// process was named.
    pub(crate) fn read(&mut self) -> Option<u64> {
        if self.clocks.is_empty() {
            return None;
        }
        std::thread::sleep(ASLEEP);
        for (clock, last_ns) in &mut self.clocks {
            // It fails only if the process has ended.
            if let Ok(time) = clock_gettime(*clock) {
                *last_ns = time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
            }
        }
        Some(self.clocks.iter().map(|(_, last_ns)| last_ns).sum())
    }
}
