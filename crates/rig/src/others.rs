//! CPU use of other processes, checked before a run. man: proc(5) (PID/stat).

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::sample::TICKS_PER_S;

/// Time of the check: twenty ticks of the clocks in /proc/PID/stat.
const LOOK: Duration = Duration::from_millis(200);

/// A process that uses a smaller share of a core does not disturb a run.
const SHARE_MIN: f64 = 0.1;

/// Maximum number of processes in the sentence.
const NAMED_MAX: usize = 3;

/// `None` if the machine is idle; else a sentence with the processes that use most CPU.
pub fn busy() -> Option<String> {
    let (begun, before) = (Instant::now(), cpu_ticks());
    thread::sleep(LOOK);
    let after = cpu_ticks();
    let passed_s = begun.elapsed().as_secs_f64();
    let share = |(pid, (name, ticks)): (&u32, &(String, u64))| {
        let used = ticks.saturating_sub(before.get(pid).map_or(0, |(_, ticks)| *ticks));
        (used as f64 / TICKS_PER_S / passed_s, name.clone(), *pid)
    };
    let is_other =
        |(share, _, pid): &(f64, String, u32)| *share >= SHARE_MIN && *pid != std::process::id();
    sentence(after.iter().map(share).filter(is_other).collect())
}

/// `busy`: share of a core, name and process id.
fn sentence(mut busy: Vec<(f64, String, u32)>) -> Option<String> {
    busy.sort_by(|one, other| other.0.total_cmp(&one.0));
    let sum: f64 = busy.iter().map(|(share, ..)| share).sum();
    let name = |(share, name, pid): &(f64, String, u32)| {
        format!("{name} (process {pid}, {:.0} % of a core)", 100.0 * share)
    };
    let named: Vec<String> = busy.iter().take(NAMED_MAX).map(name).collect();
    (!busy.is_empty()).then(|| {
        format!(
            "the machine is busy: other processes use {:.0} % of a core, most of it {}",
            100.0 * sum,
            named.join(", ")
        )
    })
}

/// Process id -> name and CPU time so far, in ticks.
fn cpu_ticks() -> HashMap<u32, (String, u64)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let read = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parse(&stat)?))
    };
    pids.filter_map(read).collect()
}

/// Name and CPU time (user and system) from a line of /proc/PID/stat. The name is in parentheses
/// and may contain parentheses.
fn parse(stat: &str) -> Option<(String, u64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    // Fields 14 and 15 of the line; the first after the name is field 3.
    let mut times = after.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some((name, times.next()?? + times.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name_holds() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 6 7 20 0 1 0 9";
        assert_eq!(parse(stat), Some(("a (b) c".to_owned(), 175)));
        assert_eq!(parse("7 (a"), None);
        assert!(cpu_ticks().contains_key(&std::process::id()));
    }

    #[test]
    fn the_busiest_are_named_first() {
        let busy = [(0.2, "cc"), (1.0, "ld"), (0.3, "make"), (0.1, "sh")];
        let busy = busy.map(|(share, name)| (share, name.to_owned(), 9));
        let told = sentence(busy.into()).unwrap();
        let wanted = "the machine is busy: other processes use 160 % of a core, most of it ld \
                      (process 9, 100 % of a core), make (process 9, 30 % of a core), cc \
                      (process 9, 20 % of a core)";
        assert_eq!(told, wanted);
        assert_eq!(sentence(Vec::new()), None);
    }
}
