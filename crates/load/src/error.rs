//! Why a load run was not possible. A run with wrong replies is not an error here, but a
//! `record::LoadOutcome` with errors.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why there is no outcome. `Display` is one sentence: what, where, what to do.
#[derive(Debug)]
pub enum Error {
    /// The plan is not possible. The text says why and what to do instead.
    Plan(String),
    /// No server answers at the address.
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// The error of connect(2).
        source: io::Error,
    },
    /// No server answers at any address of the name.
    NoAddress {
        /// Each address with the error of connect(2).
        tried: Vec<(SocketAddr, io::Error)>,
    },
    /// The reply to the request before the run was wrong.
    Probe {
        /// The URL of the request.
        url: String,
        /// What was wrong with the reply.
        reason: String,
    },
    /// The request before the run was not answered within the time limit.
    NoReply {
        /// The URL of the request.
        url: String,
        /// What was missing when the time limit passed.
        missing: String,
    },
    /// The plan needs more file descriptors than the process may have.
    Descriptors {
        /// Descriptors that the plan needs.
        needed: u64,
        /// The hard limit, RLIMIT_NOFILE of getrlimit(2).
        limit: u64,
    },
    /// Not all idle connections could be opened.
    Idle {
        /// Connections that were open when the time limit passed.
        opened: u32,
        /// Connections of the plan.
        asked: u32,
        /// The error.
        reason: String,
    },
    /// Not all connections for the load could be opened before the run.
    Ramp {
        /// Connections that were open when the time limit passed.
        opened: u32,
        /// Connections of the plan.
        asked: u32,
        /// The error.
        reason: String,
    },
    /// The run was stopped (Ctrl-C) before its window began.
    Interrupted,
    /// A part of the generator failed, such as another thread or a histogram.
    Internal(String),
    /// A system call failed unexpectedly.
    System {
        /// The call, or its purpose.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl Error {
    /// Turns the failure of a system call into an error with the call's name.
    pub(crate) fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::System { call, source: source.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Plan(text) => f.write_str(text),
            Error::Interrupted => f.write_str("stopped before anything was measured"),
            Error::Internal(text) => write!(f, "the load generator failed: {text}"),
            Error::Unreachable { address, source } => {
                write!(f, "nothing answers at {address} ({source}): is the server running there?")
            }
            Error::NoAddress { tried } => {
                let each = tried.iter().map(|(address, error)| format!("{address} ({error})"));
                let all = each.collect::<Vec<_>>().join(" nor at ");
                write!(f, "nothing answers at {all}: is the server running there?")
            }
            Error::Probe { url, reason } => {
                write!(
                    f,
                    "no load was sent, because the first reply from {url} is not as promised: \
                     {reason}"
                )
            }
            Error::NoReply { url, missing } => write!(
                f,
                "no load was sent, because the first request to {url} was not answered: {missing}; \
                 look whether the server waits for other clients, or allow it more time"
            ),
            Error::Descriptors { needed, limit } => write!(
                f,
                "this run needs {needed} file descriptors and the hard limit is {limit}: ask for \
                 fewer connections or raise the limit (ulimit -Hn)"
            ),
            Error::Idle { opened, asked, reason } => write!(
                f,
                "only {opened} of {asked} idle connections could be opened: {reason}; ask for \
                 fewer, or look at the server's limits (connections, descriptors, backlog)"
            ),
            Error::Ramp { opened, asked, reason } => write!(
                f,
                "only {opened} of {asked} connections could be opened: {reason}; ask for fewer, \
                 or look at the server's limits (connections, descriptors, backlog)"
            ),
            Error::System { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Unreachable { source, .. } | Error::System { source, .. } => Some(source),
            _ => None,
        }
    }
}
