//! Doubts: what a reader should know before believing a number, each with a sentence and a remedy.
//! They are printed with the number (hyperfine's warnings are the precedent).

/// Something that weakens a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Doubt {
    /// Requests that failed, over all rounds.
    Errors(u64),
    /// Rounds in which the window ended before its time.
    EndedEarly(u32),
    /// Most connections in one window that completed nothing, and how many there were.
    WithoutProgress(u32, u32),
    /// Rounds in which the trial failed altogether.
    FailedRounds(u32),
    /// Requests that were on their way at the end, and older than all that were answered, over all
    /// rounds.
    StoppedAnswering(u64),
    /// Rounds of a closed loop in which the client itself was stopped, and rounds tried.
    ClientStopped(u32, u32),
    /// Idle connections that the server closed, most in one round.
    IdleLost(u32),
    /// Servers that did not end with exit code 0 and a line of counters, in rounds.
    BadEnd(u32),
    /// The client was busy: share of the window.
    ClientBound(f64),
    /// Requests/s with twice the client, relative to those with the client as it is.
    MoreWithTwice(f64),
    /// Neither side was busy: shares of server and client.
    LatencyBound(f64, f64),
    /// The server burns its core while nothing happens: share of a core.
    Spins(f64),
    /// Rate x mean latency / requests on their way, which should be 1.
    LittlesLaw(f64),
    /// Server threads waited for a core: share of the window.
    RunQueue(f64),
    /// The hypervisor took time away: share of all cores.
    Steal(f64),
    /// Other processes were busy: share of all cores.
    OtherLoad(f64),
    /// Rounds in which server and client had different congestion controls.
    OtherCongestionControl(u32),
    /// Threads came and went: the context switches are a lower bound, in rounds.
    SwitchesLowerBound(u32),
    /// Rounds of an open loop in which the client fell behind its schedule, and rounds tried.
    ClientBehind(u32, u32),
    /// Share of the TLS handshakes that were of the other kind than the workload asks for: resumed
    /// instead of full, or the other way round.
    OtherHandshakes(f64),
    /// Share of the requests due that were answered before the run ended.
    Overload(f64),
    /// 99th percentile of what the client itself was late by, in microseconds.
    SendLag(f64),
    /// Better than the model that parses nothing: rate and server CPU per request relative to it.
    BeatsFloor(f64, f64),
    /// Rate relative to that of the model that parses nothing, where it comes near to it.
    AtCeiling(f64),
    /// No system calls were counted.
    NotCounted,
}

impl Doubt {
    /// Whether a cell with this doubt has no place in a ranking: its rate is not what the column
    /// says.
    pub fn unranks(self) -> bool {
        use Doubt::*;
        matches!(
            self,
            Errors(_)
                | EndedEarly(_)
                | WithoutProgress(..)
                | FailedRounds(_)
                | StoppedAnswering(_)
                | IdleLost(_)
                | ClientBound(_)
                | MoreWithTwice(_)
                | ClientBehind(..)
                | OtherHandshakes(_)
                | Overload(_)
        )
    }

    /// Whether it is the client that was the limit: CPU per request stays the server's own.
    pub fn is_of_client(self) -> bool {
        matches!(self, Doubt::ClientBound(_) | Doubt::MoreWithTwice(_))
    }

    /// One sentence: what is doubtful.
    pub fn sentence(self) -> &'static str {
        match self {
            Doubt::Errors(_) => "Requests failed, so the rate is not that of a working server.",
            Doubt::EndedEarly(_) => "The load ended before its time: the server was gone.",
            Doubt::WithoutProgress(..) => {
                "Connections completed nothing: the rate belongs to the others alone."
            }
            Doubt::FailedRounds(_) => "Some rounds failed and are missing from the figures.",
            Doubt::StoppedAnswering(_) => {
                "The server stopped answering before the window ended, and did not begin again."
            }
            Doubt::ClientStopped(..) => {
                "The client itself was stopped in some rounds, which are left out of the figures."
            }
            Doubt::IdleLost(_) => "The server closed idle connections before the window ended.",
            Doubt::BadEnd(_) => "The server did not end cleanly, with a line of counters.",
            Doubt::ClientBound(_) => "The client was the limit: the server could do more.",
            Doubt::MoreWithTwice(_) => "Twice the client gets more answers in the same time.",
            Doubt::LatencyBound(..) => {
                "Neither side was busy: the rate shows waiting (wake-ups, lockstep), not capacity."
            }
            Doubt::Spins(_) => {
                "It polls without sleeping: its CPU per request is the price of spinning, not work."
            }
            Doubt::LittlesLaw(_) => {
                "Rate x mean latency is not the number of requests on their way (Little's law)."
            }
            Doubt::RunQueue(_) => {
                "Threads of the server waited for a core that was taken (sum over its threads)."
            }
            Doubt::Steal(_) => "The hypervisor took CPU time away during the windows.",
            Doubt::OtherLoad(_) => "Other processes used the CPU during the windows.",
            Doubt::OtherCongestionControl(_) => {
                "The server's sockets have another congestion control than the client's."
            }
            Doubt::SwitchesLowerBound(_) => {
                "Threads ended inside the window, and the kernel forgot their context switches."
            }
            Doubt::ClientBehind(..) => {
                "The client fell behind its schedule: those rounds say nothing about the server."
            }
            Doubt::OtherHandshakes(_) => {
                "TLS handshakes were of the other kind than this workload asks for."
            }
            Doubt::Overload(_) => {
                "Requests that fell due were not answered: the server cannot hold this rate."
            }
            Doubt::SendLag(_) => {
                "The client sent late by itself, and that lateness is in the latencies."
            }
            Doubt::AtCeiling(_) => {
                "A server that parses nothing is no faster here: rates end where the machine does."
            }
            Doubt::BeatsFloor(..) => {
                "Better than the server that parses nothing, so that one is no floor here."
            }
            Doubt::NotCounted => "No system calls were counted.",
        }
    }

    /// One sentence: what to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Doubt::Errors(_) => "Run iolab load against this server alone and read its errors.",
            Doubt::EndedEarly(_) => "Start the server by hand with the same flags and load it.",
            Doubt::WithoutProgress(..) => {
                "Compare it with one connection, or with a new connection per request."
            }
            Doubt::FailedRounds(_) => "Start the server by hand with the same flags.",
            Doubt::StoppedAnswering(_) => {
                "Run iolab load against this server alone: it says how long it was silent."
            }
            Doubt::ClientStopped(..) => "Repeat on a quieter machine.",
            Doubt::IdleLost(_) => "Look for an idle timeout or a limit in its --describe.",
            Doubt::BadEnd(_) => "Stop it by hand with SIGTERM and look at its exit code.",
            Doubt::ClientBound(_) | Doubt::MoreWithTwice(_) => {
                "Compare server CPU per request instead."
            }
            Doubt::LatencyBound(..) => "Compare server CPU per request, or use more connections.",
            Doubt::Spins(_) => "Compare its rate and latency, and its CPU when idle.",
            Doubt::LittlesLaw(_) => "Trust server CPU per request more than the rate.",
            Doubt::RunQueue(_) => {
                "Expected with more runnable threads than cores; otherwise free the core."
            }
            Doubt::Steal(_) | Doubt::OtherLoad(_) => "Repeat on a quieter machine.",
            Doubt::OtherCongestionControl(_) => {
                "Run it where both have the same default: see scripts/peers/same-sockets."
            }
            Doubt::SwitchesLowerBound(_) => "Read the figure as `at least`.",
            Doubt::ClientBehind(..) => "Offer a lower rate, or give the client a core of its own.",
            Doubt::OtherHandshakes(_) => {
                "Look whether the server gives tickets, and how often one may be used."
            }
            Doubt::Overload(_) => "Offer a lower rate; iolab load --find-rate finds the highest.",
            Doubt::SendLag(_) => "Trust latencies well above the lag only.",
            Doubt::AtCeiling(_) => "Compare CPU per request: it still tells them apart.",
            Doubt::BeatsFloor(..) => {
                "Look at the ledger: fewer system calls explain it, a noisy round does not."
            }
            Doubt::NotCounted => "Run iolab doctor: it says what counting needs here.",
        }
    }

    /// The figure behind it, short.
    pub fn detail(self) -> String {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        match self {
            Doubt::Errors(count) => format!("{count} errors"),
            Doubt::WithoutProgress(stuck, of) => format!("{stuck} of {of}"),
            Doubt::FailedRounds(rounds)
            | Doubt::EndedEarly(rounds)
            | Doubt::BadEnd(rounds)
            | Doubt::OtherCongestionControl(rounds)
            | Doubt::SwitchesLowerBound(rounds) => format!("{rounds} rounds"),
            Doubt::StoppedAnswering(count) => format!("{count} requests"),
            Doubt::ClientStopped(behind, of) | Doubt::ClientBehind(behind, of) => {
                format!("{behind} of {of} rounds")
            }
            Doubt::Overload(share) => format!("{:.1} % answered", share * 100.0),
            Doubt::SendLag(us) => format!("p99 {us:.0} us"),
            Doubt::BeatsFloor(rate, cpu) => format!("req/s {rate:.2}, CPU {cpu:.2}"),
            Doubt::IdleLost(count) => format!("{count} lost"),
            Doubt::LatencyBound(server, client) => {
                format!("server {}, client {}", percent(server), percent(client))
            }
            Doubt::LittlesLaw(ratio) | Doubt::AtCeiling(ratio) | Doubt::MoreWithTwice(ratio) => {
                format!("{ratio:.2}")
            }
            Doubt::ClientBound(share)
            | Doubt::Spins(share)
            | Doubt::RunQueue(share)
            | Doubt::Steal(share)
            | Doubt::OtherLoad(share)
            | Doubt::OtherHandshakes(share) => percent(share),
            Doubt::NotCounted => String::new(),
        }
    }
}
