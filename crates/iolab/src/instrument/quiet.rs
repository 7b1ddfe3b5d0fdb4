//! Whether the machine was ours while a check was made. Most bounds are about times: with others on
//! the cores a check that does not hold says nothing about the instrument, and one that holds does
//! so in spite of them.
//!
//! man: proc(5) (stat, PID/schedstat), getrusage(2).

use std::time::Instant;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use record::MachineSample;

use rig::sample;

/// CPU time that all others may take, in parts of one core. What runs on a machine at rest takes a
/// fifth of it; one process that computes takes ten times as much.
pub const OTHERS_MAX: f64 = 0.1;

/// The checks whose bounds are about no time: they fail on a busy machine too.
pub const EXACT: [&str; 3] = ["verify-wrong-bytes", "simulated-verdicts", "mechanism-proof"];

/// What was seen at the start of a check.
pub struct Watch {
    begun: Instant,
    machine: Option<MachineSample>,
    own_s: f64,
    waited_s: f64,
}

/// What others took until its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Others {
    /// CPU time of processes that are not ours, and what the hypervisor took, in parts of a core.
    pub cores: f64,
    /// Time that our own thread was runnable without a core, in parts of the time that passed.
    pub waited: f64,
}

impl Watch {
    /// Begins to watch.
    pub fn begin() -> Watch {
        Watch {
            begun: Instant::now(),
            machine: sample::machine(),
            own_s: own_cpu_s(),
            waited_s: run_queue_delay_s(),
        }
    }

    /// `None` where the machine does not say who is busy.
    pub fn end(self) -> Option<Others> {
        let (before, after) = (self.machine?, sample::machine()?);
        let passed_s = self.begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let busy_s = after.busy_s - before.busy_s;
        let stolen_s = after.steal_s - before.steal_s;
        let others_s = (busy_s - (own_cpu_s() - self.own_s)).max(0.0) + stolen_s;
        let waited = (run_queue_delay_s() - self.waited_s) / passed_s;
        Some(Others { cores: others_s / passed_s, waited })
    }
}

impl Others {
    /// Why nothing can be told, if so.
    pub fn complaint(self) -> Option<String> {
        (self.cores > OTHERS_MAX).then(|| {
            format!(
                "cannot tell: the machine was busy (others took {:.0} % of a core, and this \
                 process waited for one {:.0} % of the time); try again when it is quiet",
                100.0 * self.cores,
                100.0 * self.waited
            )
        })
    }
}

/// CPU time of this process and of all servers that it has started and collected.
pub fn own_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_SELF) + collected_cpu_s()
}

/// CPU time of all processes that this one has started and collected.
pub fn collected_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_CHILDREN)
}

fn cpu_s(who: UsageWho) -> f64 {
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    getrusage(who)
        .map_or(0.0, |used: Usage| seconds(used.user_time()) + seconds(used.system_time()))
}

/// Time that this thread, which is the load generator's, was runnable without a core.
fn run_queue_delay_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let field = text.split_whitespace().nth(1).and_then(|ns| ns.parse::<f64>().ok());
    field.unwrap_or(0.0) / 1e9
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_process_that_computes_beside_is_seen() {
        let mut other = Command::new("sh");
        let mut other =
            other.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        // Until it must have had its share, however many others want a core.
        let watch = Watch::begin();
        std::thread::sleep(Duration::from_millis(500));
        let others = watch.end().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(others.complaint().unwrap().starts_with("cannot tell: the machine was busy"));
    }

    #[test]
    fn what_runs_on_a_machine_at_rest_is_no_excuse() {
        assert_eq!(Others { cores: 0.02, waited: 0.5 }.complaint(), None);
        assert!(Others { cores: 1.0, waited: 0.0 }.complaint().is_some());
    }
}
