//! The known faults of `serve-faulty`, one at a time.

use std::io;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// The flags that select a fault.
#[derive(Debug, Args)]
pub(crate) struct FaultArguments {
    /// The fault, from the first request after --fault-after on.
    #[arg(long, value_enum, default_value_t = Kind::None)]
    fault: Kind,
    /// Number of requests that are answered correctly first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    fault_after: u64,
    /// Length of the stall, or further CPU time of each request (slow), in nanoseconds.
    #[arg(long, value_name = "NS", default_value_t = 0)]
    fault_ns: u64,
    /// What epoll(7) reports: a socket that is ready at every wait, and then one read(2) is enough
    /// (level); or each arrival once, and then it must read until nothing is left (edge).
    #[arg(long, value_enum, default_value_t = Trigger::Level)]
    trigger: Trigger,
    /// Size of the receive buffer, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = READ_BYTES, value_parser = read_bytes)]
    read_bytes: usize,
}

/// Size of the receive buffer, which all connections share: that of the models' loops.
const READ_BYTES: usize = 64 * 1024;

fn read_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| (1..=READ_BYTES).contains(bytes));
    bytes.ok_or_else(|| format!("it takes 1 to {READ_BYTES} bytes"))
}

/// When epoll(7) reports a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Trigger {
    Level,
    Edge,
}

/// How connections are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Whether the triggers are edges.
    pub(crate) edge: bool,
    /// Whether it reads until nothing is left, and not once.
    pub(crate) drains: bool,
    /// Size of the receive buffer.
    pub(crate) bytes: usize,
}

impl Reading {
    /// That of serve-floor.
    pub(crate) const USUAL: Reading = Reading { edge: false, drains: false, bytes: READ_BYTES };
}

impl FaultArguments {
    pub(crate) fn reading(&self) -> Reading {
        let edge = self.trigger == Trigger::Edge;
        Reading { edge, drains: edge && self.fault != Kind::StopEarly, bytes: self.read_bytes }
    }

    pub(crate) fn into_fault(self) -> Fault {
        let time = Duration::from_nanos(self.fault_ns);
        Fault { kind: self.fault, after: self.fault_after, time, met: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// No fault: the same as serve-floor.
    None,
    /// Sends no reply for --fault-ns, once.
    Stall,
    /// Uses --fault-ns of CPU time for each request.
    Slow,
    /// Answers with wrong bytes of the right length.
    Wrong,
    /// Closes the connection instead of answering.
    Close,
    /// Ends the process without its last line.
    Die,
    /// Reads once, though an edge is reported once (--trigger edge): the rest is forgotten.
    StopEarly,
}

/// How the requests of one read are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    Right,
    Wrong,
    /// Not answered: the connection is closed.
    Close,
}

/// A fault and its state.
#[derive(Debug)]
pub(crate) struct Fault {
    kind: Kind,
    after: u64,
    time: Duration,
    met: u64,
}

impl Fault {
    pub(crate) fn none() -> Fault {
        Fault { kind: Kind::None, after: 0, time: Duration::ZERO, met: 0 }
    }

    /// To be called for each read with its number of requests. Waits or uses CPU as the fault
    /// demands, and returns the treatment. An error ends the process.
    pub(crate) fn meet(&mut self, requests: usize) -> io::Result<Treatment> {
        if self.kind == Kind::None {
            return Ok(Treatment::Right);
        }
        let before = self.met;
        self.met += requests as u64;
        if self.met <= self.after {
            return Ok(Treatment::Right);
        }
        match self.kind {
            Kind::None | Kind::StopEarly => {}
            Kind::Stall if before <= self.after => std::thread::sleep(self.time),
            Kind::Stall => {}
            Kind::Slow => burn(self.time * requests as u32),
            Kind::Wrong => return Ok(Treatment::Wrong),
            Kind::Close => return Ok(Treatment::Close),
            Kind::Die => return Err(io::Error::other("ended by --fault die")),
        }
        Ok(Treatment::Right)
    }
}

/// Uses the CPU for this time.
fn burn(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// The flags for `--describe`, so that `iolab bench` accepts them in a label:
/// `faulty+fault=slow+fault-ns=5000`.
pub(crate) fn flavours() -> Value {
    let number = json!({"from": 0, "to": u32::MAX});
    let words: Vec<_> = Kind::value_variants()
        .iter()
        .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
        .collect();
    json!([
        {"flag": "fault", "values": words, "default": "none", "help": "The fault"},
        {"flag": "fault-after", "values": number, "default": "0", "help": "Replies before it"},
        {"flag": "fault-ns", "values": number, "default": "0", "help": "Length of the fault"},
        {"flag": "trigger", "values": ["level", "edge"], "default": "level", "help": "Of epoll(7)"},
        {"flag": "read-bytes", "values": {"from": 1, "to": READ_BYTES},
            "default": READ_BYTES.to_string(), "help": "Size of the receive buffer"},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: Kind) -> Fault {
        let (trigger, read_bytes) = (Trigger::Level, READ_BYTES);
        FaultArguments { fault: kind, fault_after: 2, fault_ns: 1_000, trigger, read_bytes }
            .into_fault()
    }

    #[test]
    fn a_fault_begins_after_the_requests_that_it_was_told() {
        let mut wrong = fault(Kind::Wrong);
        assert_eq!(wrong.meet(2).unwrap(), Treatment::Right);
        assert_eq!(wrong.meet(1).unwrap(), Treatment::Wrong);
        let mut close = fault(Kind::Close);
        assert_eq!(close.meet(3).unwrap(), Treatment::Close);
        let mut die = fault(Kind::Die);
        assert_eq!(die.meet(1).unwrap(), Treatment::Right);
        assert!(die.meet(2).is_err());
    }

    #[test]
    fn what_wastes_time_answers_rightly() {
        for kind in [Kind::None, Kind::Stall, Kind::Slow, Kind::StopEarly] {
            let mut fault = fault(kind);
            assert!((0..5).all(|_| fault.meet(1).unwrap() == Treatment::Right), "{kind:?}");
        }
    }
}
