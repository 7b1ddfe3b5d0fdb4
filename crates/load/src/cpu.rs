//! The CPU time of the processes that serve, read from outside.

use nix::errno::Errno;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::Error;

/// The CPU clocks of a server's processes (clock_getcpuclockid(3)): user and system time of all
/// their threads, those that have ended too, to the nanosecond and up to this moment.
#[derive(Debug, Clone)]
pub struct Clocks {
    clocks: Vec<ClockId>,
}

impl Clocks {
    /// Those of `processes`, each a process's id. None: the server's CPU time is not known.
    ///
    /// # Errors
    /// [`Error::Plan`] where a process is not there.
    pub fn of(processes: &[i32]) -> Result<Clocks, Error> {
        let clock = |&process: &i32| {
            clock_getcpuclockid(Pid::from_raw(process)).map_err(|errno| {
                Error::Plan(format!(
                    "the CPU time of process {process} cannot be read ({errno}): give the id of a \
                     server that runs on this machine"
                ))
            })
        };
        Ok(Clocks { clocks: processes.iter().map(clock).collect::<Result<_, _>>()? })
    }

    /// The sum, in nanoseconds; `None` where no process was named.
    pub(crate) fn read(&self) -> Result<Option<u64>, Error> {
        let read = |clock: &ClockId| {
            let time = clock_gettime(*clock).map_err(Error::system::<Errno>("clock_gettime"))?;
            Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
        };
        let all = self.clocks.iter().map(read).collect::<Result<Vec<u64>, Error>>()?;
        Ok((!all.is_empty()).then(|| all.into_iter().sum()))
    }
}
