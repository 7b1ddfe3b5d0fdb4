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
    /// Where it stands in Stevens' two questions.
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

/// Two questions that are often taken for one (UNP section 6.2). Does a call sleep if there is no
/// data (blocking)? Is the data copied by a call of the program (synchronous), or by the kernel
/// while the program does something else (asynchronous)?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// A read without data puts the thread to sleep.
    pub blocking: bool,
    /// A call of the program copies the data, and returns when that is done.
    pub synchronous: bool,
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
