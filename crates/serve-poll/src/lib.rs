//! poll: an array of descriptors is passed at every wait, of any length.
//!
//! select has room for 1,024 descriptors and overwrites its arguments. poll takes an array in
//! which question (`events`) and answer (`revents`) stand side by side, and which can have any
//! length. The cost stays: the kernel reads the whole array and looks at each descriptor in it at
//! every call, and the program then searches the array for the few that are ready.
//!
//! Man pages: poll(2). UNP figure 6.3 (I/O multiplexing), section 6.10.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use kit::{CopiedBy, Model, Place, Serves, Worker, Workers};
use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, c_short, nfds_t, pollfd};
use readiness::{Answer, Connections, Interest, InterestList, Token, milliseconds, returned};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "poll",
    summary: "one thread, all connections: poll(2) is given the whole list at every wait",
    about: "The thread keeps an array with one entry per connection and sleeps in poll(2) until \
            some of them are ready. The kernel copies and checks the whole array at every call, \
            and the program searches it for the entries with an answer, so the cost of a wait \
            grows with the number of connections, idle ones included.",
    place: Place { blocks_in: &["poll"], copied_by: CopiedBy::Thread },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Descriptors,
    cannot: &[],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Runs one loop until the server stops.
///
/// # Errors
/// What poll(2) or accept(2) say.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut connections = Connections::new(worker)?;
    let mut list = List::new()?;
    let mut now = Instant::now();
    while !connections.finished() {
        // ANCHOR: wait
        let timeout_ms = milliseconds(connections.prepare_to_wait(&mut list, now)?);
        let (entries, n) = (list.entries.as_mut_ptr(), list.entries.len());
        // SAFETY: `list` owns the `n` entries, and nothing else touches them during the call.
        let ready = returned(unsafe { libc::poll(entries, n as nfds_t, timeout_ms) })?;
        now = Instant::now();
        for (token, answer) in list.answers(ready) {
            connections.ready(token, answer);
        }
        connections.accept(&mut list, now)?;
        connections.run(&mut list, now)?;
        // ANCHOR_END: wait
    }
    Ok(())
}

/// The interest list: an array without holes, because the kernel looks at all of it.
struct List {
    entries: Vec<pollfd>,
    /// The token of each entry, in step with `entries`.
    tokens: Vec<Token>,
    /// The entry of each token.
    positions: Vec<usize>,
}

impl List {
    fn new() -> io::Result<List> {
        Ok(List { entries: Vec::new(), tokens: Vec::new(), positions: Vec::new() })
    }

    /// The entries with an answer. The search ends when as many were found as poll(2) has counted.
    fn answers(&self, ready: usize) -> impl Iterator<Item = (Token, Answer)> {
        let entries = self.entries.iter().zip(&self.tokens);
        let answered = entries.filter(|(entry, _)| entry.revents != 0).take(ready);
        answered.map(|(entry, &token)| (token, answer(entry.revents)))
    }
}

impl InterestList for List {
    fn add(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.positions.len() <= token {
            self.positions.resize(token + 1, 0);
        }
        self.positions[token] = self.entries.len();
        self.entries.push(pollfd { fd: fd.as_raw_fd(), events: POLLIN, revents: 0 });
        self.tokens.push(token);
        Ok(())
    }

    fn modify(&mut self, token: Token, _: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let read = if interest.read { POLLIN } else { 0 };
        let write = if interest.write { POLLOUT } else { 0 };
        self.entries[self.positions[token]].events = read | write;
        Ok(())
    }

    /// The last entry moves into the gap.
    fn delete(&mut self, token: Token, _: BorrowedFd<'_>) -> io::Result<()> {
        let position = self.positions[token];
        self.entries.swap_remove(position);
        self.tokens.swap_remove(position);
        if let Some(&moved) = self.tokens.get(position) {
            self.positions[moved] = position;
        }
        Ok(())
    }
}

/// ERR and HUP are always reported, and mean that neither a read nor a write will block.
fn answer(revents: c_short) -> Answer {
    Answer {
        read: revents & POLLIN != 0,
        write: revents & POLLOUT != 0,
        peer_closed: false,
        failed: revents & (POLLERR | POLLHUP | POLLNVAL) != 0,
    }
}
