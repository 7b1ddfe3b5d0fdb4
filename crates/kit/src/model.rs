//! What a model says about itself: the text of `--help` and `--describe`.

use serde::Serialize;

/// One way of waiting, as data.
#[derive(Debug)]
pub struct Model {
    /// Short name; the executable is `serve-NAME`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// A paragraph for `--help`: what the model does while it waits.
    pub about: &'static str,
    /// Its answers to the two questions of UNP section 6.2.
    pub place: Place,
    /// Whether the listener and its connections are non-blocking.
    pub nonblocking_sockets: bool,
    /// What `--workers N` means.
    pub workers: Workers,
    /// Most connections that it can serve at once.
    pub serves: Serves,
    /// What it cannot do though the core could, a sentence each. `--describe` says it, so that it
    /// is not taken for a fault.
    pub cannot: &'static [&'static str],
    /// Its own flags.
    pub flavours: &'static [Flavour],
    /// Says in a sentence why it cannot run on this machine, if so, and what to do about it.
    pub unavailable: fn() -> Option<String>,
}

/// Two questions that are often taken for one (UNP section 6.2), one for each phase of a read: the
/// wait for the data, and the copy of the data to the process. `iolab trace` answers them from the
/// system calls of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The calls in which a thread that serves clients sleeps, as in man section 2; none if it
    /// never sleeps. `accept`, `recv` and `send` are the calls of I/O itself; others only wait.
    pub blocks_in: &'static [&'static str],
    /// Who copies what a client sent.
    pub copied_by: CopiedBy,
}

impl Place {
    /// A thread serves one client at a time: it sleeps in the calls of I/O.
    pub const IN_IO: Place =
        Place { blocks_in: &["accept", "recv", "send"], copied_by: CopiedBy::Thread };
}

/// Who copies the data of a socket to the memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CopiedBy {
    /// The thread, in its own call of recv(2): synchronous I/O.
    #[serde(rename = "the thread")]
    Thread,
    /// The kernel, without a call of the thread that receives: asynchronous I/O.
    #[serde(rename = "the kernel")]
    Kernel,
}

/// What `--workers N` means to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// N independent loops, each with its own listener (SO_REUSEPORT, socket(7)).
    Loops,
    /// Exactly one, for this reason.
    One(&'static str),
}

/// Most connections that a model can serve at once. It is not a setting but a consequence of the
/// model, and `--describe` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// As many as there are descriptors.
    Descriptors,
    /// As many as there are threads too; with this word of this flavour every connection has two.
    Threads(&'static str, &'static str),
    /// So many, for this reason.
    Only(usize, &'static str),
    /// As many as this flavour says, a thread each, for this reason.
    Flavour(&'static str, &'static str),
    /// As many as this flavour says, a process each, for this reason.
    Processes(&'static str, &'static str),
}

/// A flag that only this model has.
#[derive(Debug)]
pub struct Flavour {
    /// Name of the flag, without dashes.
    pub flag: &'static str,
    /// What it may be.
    pub values: Values,
    /// Value without the flag.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// What a flavour may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// One of these words.
    Words(&'static [&'static str]),
    /// A number from and to, both included.
    Number(u64, u64),
}

impl Model {
    /// For models that run wherever Linux does.
    pub const ALWAYS: fn() -> Option<String> = || None;
}
