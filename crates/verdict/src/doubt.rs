//! Doubts: reasons why a figure may be misleading, each with a sentence and a remedy. They are
//! printed with the figure, as hyperfine prints its warnings.

/// A reason to doubt a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Doubt {
    /// Failed requests, in all rounds.
    Errors(u64),
    /// Rounds in which the window ended early.
    EndedEarly(u32),
    /// Maximum number of connections in a window that completed no request, and the number of
    /// connections.
    WithoutProgress(u32, u32),
    /// Rounds in which the trial failed.
    FailedRounds(u32),
    /// Requests in flight at the end that were older than all answered requests, in all rounds.
    StoppedAnswering(u64),
    /// Rounds of a closed loop in which the client was stopped, and all rounds.
    ClientStopped(u32, u32),
    /// Idle connections that the server closed: the maximum of all rounds.
    IdleLost(u32),
    /// Rounds in which the server did not end with exit code 0 and a line of counters.
    BadEnd(u32),
    /// The client was busy for this share of the window.
    ClientBound(f64),
    /// Requests/s with two clients, relative to those with one.
    MoreWithTwice(f64),
    /// Neither side was busy: shares of server and client.
    LatencyBound(f64, f64),
    /// The server uses this share of a core without traffic.
    Spins(f64),
    /// Rate x mean latency / mean requests in flight, which should be 1.
    LittlesLaw(f64),
    /// Threads of the server waited for a core for this share of the window.
    RunQueue(f64),
    /// The hypervisor stole this share of all cores' time.
    Steal(f64),
    /// Other processes used this share of all cores' time.
    OtherLoad(f64),
    /// Rounds in which server and client used different congestion controls.
    OtherCongestionControl(u32),
    /// Rounds in which threads ended, so that the context switches are a lower bound.
    SwitchesLowerBound(u32),
    /// Rounds of an open loop in which the client was too slow for its schedule, and all rounds.
    ClientBehind(u32, u32),
    /// Share of the TLS handshakes that were resumed although the workload has full ones, or the
    /// reverse.
    OtherHandshakes(f64),
    /// Share of the due requests that were answered before the run ended.
    Overload(f64),
    /// 99th percentile of the client's send lag, in microseconds.
    SendLag(f64),
    /// Better than the floor: rate and server CPU per request relative to it.
    BeatsFloor(f64, f64),
    /// Rate relative to the floor's, if it is close to it.
    AtCeiling(f64),
    /// No system calls were counted.
    NotCounted,
}

impl Doubt {
    /// Whether a cell with this doubt is not ranked, because its rate is not the server's.
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

    /// Whether the client was the limit. CPU per request is then still valid.
    pub fn is_of_client(self) -> bool {
        matches!(self, Doubt::ClientBound(_) | Doubt::MoreWithTwice(_))
    }

    /// What is doubtful, in one sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Doubt::Errors(_) => "Requests failed, so the rate is not that of a working server.",
            Doubt::EndedEarly(_) => "The load ended early, because the server had ended.",
            Doubt::WithoutProgress(..) => {
                "Some connections completed no request: the rate is that of the others."
            }
            Doubt::FailedRounds(_) => "Some rounds failed and are missing from the figures.",
            Doubt::StoppedAnswering(_) => {
                "The server stopped answering before the end of the window."
            }
            Doubt::ClientStopped(..) => {
                "The client was stopped in some rounds, which are not in the figures."
            }
            Doubt::IdleLost(_) => "The server closed idle connections before the window ended.",
            Doubt::BadEnd(_) => "The server did not end cleanly, with a line of counters.",
            Doubt::ClientBound(_) => "The client was the limit: the server could do more.",
            Doubt::MoreWithTwice(_) => {
                "With two clients the server answers more: one is the limit."
            }
            Doubt::LatencyBound(..) => {
                "Neither side was busy: the rate shows waiting (such as wake-ups), not capacity."
            }
            Doubt::Spins(_) => {
                "It polls without sleeping: its CPU per request includes the time without work."
            }
            Doubt::LittlesLaw(_) => {
                "Rate x mean latency is not the number of requests in flight (Little's law)."
            }
            Doubt::RunQueue(_) => "Threads of the server waited for a core (sum over its threads).",
            Doubt::Steal(_) => "The hypervisor stole CPU time during the windows.",
            Doubt::OtherLoad(_) => "Other processes used the CPU during the windows.",
            Doubt::OtherCongestionControl(_) => {
                "The server's sockets use a different congestion control from the client's."
            }
            Doubt::SwitchesLowerBound(_) => {
                "Threads ended in the window, and their context switches are missing."
            }
            Doubt::ClientBehind(..) => {
                "The client was too slow for its schedule: these rounds are not in the figures."
            }
            Doubt::OtherHandshakes(_) => {
                "Some TLS handshakes were full instead of resumed, or the reverse."
            }
            Doubt::Overload(_) => {
                "Due requests were not answered: the server cannot sustain this rate."
            }
            Doubt::SendLag(_) => "The client sent late, and its delay is part of the latencies.",
            Doubt::AtCeiling(_) => {
                "The floor, which parses nothing, is no faster: client and machine limit the rate."
            }
            Doubt::BeatsFloor(..) => {
                "Better than the floor, which parses nothing: so the floor is no lower bound here."
            }
            Doubt::NotCounted => "No system calls were counted.",
        }
    }

    /// What to do about it, in one sentence.
    pub fn remedy(self) -> &'static str {
        match self {
            Doubt::Errors(_) => "Run iolab load against this server alone and read its errors.",
            Doubt::EndedEarly(_) => "Start the server by hand with the same flags and load it.",
            Doubt::WithoutProgress(..) => {
                "Compare it with one connection, or with a new connection per request."
            }
            Doubt::FailedRounds(_) => "Start the server by hand with the same flags.",
            Doubt::StoppedAnswering(_) => {
                "Run iolab load against this server: it reports when the server stopped."
            }
            Doubt::ClientStopped(..) => "Repeat on a quieter machine.",
            Doubt::IdleLost(_) => "Check its idle timeout and its limits in --describe.",
            Doubt::BadEnd(_) => "Stop it by hand with SIGTERM and check its exit code.",
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
            Doubt::ClientBehind(..) => "Use a lower rate, or give the client its own core.",
            Doubt::OtherHandshakes(_) => {
                "Check whether the server sends tickets, and how often one may be used."
            }
            Doubt::Overload(_) => "Use a lower rate; iolab load --find-rate finds the highest.",
            Doubt::SendLag(_) => "Use only latencies far above the lag.",
            Doubt::AtCeiling(_) => "Compare CPU per request, which still differs.",
            Doubt::BeatsFloor(..) => "Compare the system calls per request: fewer may explain it.",
            Doubt::NotCounted => "Run iolab doctor: it says how to enable counting.",
        }
    }

    /// Its figure.
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
