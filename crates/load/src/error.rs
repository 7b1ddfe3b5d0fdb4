//! Why a load run could not be made. A run that was made and went badly is not an error here: it is
//! a `record::LoadOutcome` whose errors are not zero.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why no outcome could be measured. `Display` is one sentence: what, where, what to do.
#[derive(Debug)]
pub enum Error {
    /// The plan asks for something impossible. The text says what and what to do instead.
    Plan(String),
    /// Nothing answers at the address.
    Unreachable {
        /// The address that was tried.
        address: SocketAddr,
        /// What connect(2) said.
        source: io::Error,
    },
    /// Nothing answers at any address of a name.
    NoAddress {
        /// What was tried, and what connect(2) said.
        tried: Vec<(SocketAddr, io::Error)>,
    },
    /// The one request sent before the run was not answered as the plan promises.
    Probe {
        /// The URL that was asked.
        url: String,
        /// What was wrong with the reply.
        reason: String,
    },
    /// The plan needs more file descriptors than the process may have.
    Descriptors {
        /// How many the plan needs.
        needed: u64,
        /// The hard limit, RLIMIT_NOFILE of getrlimit(2).
        limit: u64,
    },
    /// Not all silent connections could be opened.
    Idle {
        /// How many were open when the time was up.
        opened: u32,
        /// How many were asked for.
        asked: u32,
        /// What stood in the way.
        reason: String,
    },
    /// Not all load-carrying connections could be opened before the run.
    Ramp {
        /// How many were open when the time was up.
        opened: u32,
        /// How many were asked for.
        asked: u32,
        /// What stood in the way.
        reason: String,
    },
    /// The run was stopped (Ctrl-C) before its window began.
    Interrupted,
    /// Something of the generator's own failed: another of its threads, or a histogram.
    Internal(String),
    /// A system call failed that has no business failing.
    System {
        /// The call, or what it was for.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Error {
    /// Turns a system call's failure into an error that names the call.
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
