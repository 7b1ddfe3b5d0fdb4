//! The CPU time of the processes that serve, read from outside.
//!
//! The kernel adds up the time of a process from what each of its threads had when it last left its
//! core, or when the timer last ticked (kernel/sched/cputime.c, thread_group_cputime). So the clock
//! of a process that runs on another core is late by up to a tick, 4 ms: as long as a slice. A
//! moment is waited before it is read, in which its threads go to sleep. That of a server that
//! never sleeps stays late.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::Error;

/// Time in which the threads of a server go to sleep after their last reply.
const ASLEEP: Duration = Duration::from_micros(100);

/// The CPU clocks of a server's processes (clock_getcpuclockid(3)): user and system time of all
/// their threads, those that have ended too, to the nanosecond and up to this moment.
#[derive(Debug, Clone)]
pub struct Clocks {
    /// Each with what it last said: that of a process that has ended stands still.
    clocks: Vec<(ClockId, u64)>,
}

impl Clocks {
    /// Those of `processes`, each a process's id: the server's own first, then those that it has
    /// started, of which some may have ended. None: the server's CPU time is not known.
    ///
    /// # Errors
    /// [`Error::Plan`] where the first process is not there.
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

    /// The sum, in nanoseconds, of servers that have just answered all that was asked; `None` where
    /// no process was named.
    pub(crate) fn read(&mut self) -> Option<u64> {
        if self.clocks.is_empty() {
            return None;
        }
        std::thread::sleep(ASLEEP);
        for (clock, last_ns) in &mut self.clocks {
            // It fails where the process has ended, and only there.
            if let Ok(time) = clock_gettime(*clock) {
                *last_ns = time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
            }
        }
        Some(self.clocks.iter().map(|(_, last_ns)| last_ns).sum())
    }
}
