//! poll: an array of descriptors handed over at every wait, without select's limit.
//!
//! select has room for 1,024 descriptors and destroys its argument at every call. poll takes an
//! array of any length in which question (`events`) and answer (`revents`) stand side by side. What
//! stays is the cost: the whole array goes in at every call, the kernel looks at each entry, and
//! the program then looks through it for the few that are ready.
//!
//! Man pages: poll(2). UNP figure 6.3 (I/O multiplexing), section 6.10.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use kit::{Model, Peers, Place, Readiness, Serves, Token, Turn, Worker, Workers};
use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, c_short, pollfd};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "poll",
    summary: "one thread, all connections: poll(2) is given the whole list at every wait",
    about: "The thread keeps an array with one entry per connection and sleeps in poll(2) until \
            some of them are ready. The kernel copies and checks the whole array at every call, \
            and the program searches it for the entries with an answer, so the cost of a wait \
            grows with the number of connections, silent ones included. With few or busy \
            connections it is as good as epoll.",
    place: Place { blocking: false, synchronous: true },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Descriptors,
    cannot: &[],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Entries of the array that are no connection's. A negative descriptor mutes an entry (poll(2)).
const STOP: usize = 0;
const LISTENER: usize = 1;
const BELL: usize = 2;
const FIRST_CONNECTION: usize = 3;
const MUTED: RawFd = -1;

/// Runs one loop until the server stops.
///
/// # Errors
/// What poll(2) or accept(2) say.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut peers = Peers::new(worker)?;
    let mut watch = Watch::new();
    let mut now = Instant::now();
    while !peers.finished() {
        watch.listener(&mut peers, now);
        // ANCHOR: wait
        let timeout_ms = timeout_ms(&peers, now);
        let ready = wait(&mut watch.entries, timeout_ms)?;
        now = Instant::now();
        let accepting = watch.entries[LISTENER].revents != 0;
        if watch.entries[BELL].revents != 0 {
            peers.silence_bell();
        }
        watch.collect(&mut peers, ready);
        if accepting || peers.empties_queue() {
            accept(&mut watch, &mut peers, now)?;
        }
        peers.begin_round(now);
        while let Some(token) = peers.next_runnable() {
            step(&mut watch, &mut peers, token, now);
        }
        // ANCHOR_END: wait
    }
    Ok(())
}

/// Takes those who wait at the listener.
fn accept(watch: &mut Watch, peers: &mut Peers, now: Instant) -> io::Result<()> {
    while let Some(token) = peers.accept(now)? {
        watch.add(peers, token);
    }
    Ok(())
}

/// Lets one connection do what it can, and notes what it then waits for.
fn step(watch: &mut Watch, peers: &mut Peers, token: Token, now: Instant) {
    match peers.turn(token, now) {
        Turn::Waits(wants) => watch.change(token, wants.read, wants.write),
        // It is on the list of those who run again; the kernel need not tell.
        Turn::More(_) => {}
        Turn::Closed => watch.remove(token),
    }
}

/// The array, dense: the kernel reads all of it, so there must be no holes.
struct Watch {
    entries: Vec<pollfd>,
    /// The connection of each entry, in step with `entries`.
    tokens: Vec<Token>,
    /// The entry of each connection, by token.
    positions: Vec<usize>,
}

impl Watch {
    fn new() -> Watch {
        let muted = pollfd { fd: MUTED, events: POLLIN, revents: 0 };
        Watch {
            entries: vec![muted; FIRST_CONNECTION],
            tokens: vec![Token::MAX; FIRST_CONNECTION],
            positions: Vec::new(),
        }
    }

    /// Watches the listener exactly while new connections are wanted, the bell always, and the stop
    /// signal until it has come.
    fn listener(&mut self, peers: &mut Peers, now: Instant) {
        let raw = |fd: BorrowedFd<'_>| fd.as_raw_fd();
        let wanted = peers.wants_listener(now);
        self.entries[LISTENER].fd = if wanted { raw(peers.listener()) } else { MUTED };
        self.entries[BELL].fd = raw(peers.bell());
        self.entries[STOP].fd = peers.stop_signal().map_or(MUTED, raw);
    }

    fn add(&mut self, peers: &Peers, token: Token) {
        let Some(socket) = peers.socket(token) else { return };
        if self.positions.len() <= token {
            self.positions.resize(token + 1, 0);
        }
        self.positions[token] = self.entries.len();
        self.entries.push(pollfd { fd: socket.as_raw_fd(), events: POLLIN, revents: 0 });
        self.tokens.push(token);
    }

    fn change(&mut self, token: Token, read: bool, write: bool) {
        let read = if read { POLLIN } else { 0 };
        let write = if write { POLLOUT } else { 0 };
        self.entries[self.positions[token]].events = read | write;
    }

    /// The last entry moves into the gap.
    fn remove(&mut self, token: Token) {
        let position = self.positions[token];
        self.entries.swap_remove(position);
        self.tokens.swap_remove(position);
        if let Some(&moved) = self.tokens.get(position) {
            self.positions[moved] = position;
        }
    }

    /// Notes who is ready; the search ends when as many have been found as poll(2) has counted.
    fn collect(&mut self, peers: &mut Peers, ready: usize) {
        let special = self.entries[..FIRST_CONNECTION].iter().filter(|e| e.revents != 0).count();
        let connections = self.entries.iter().zip(&self.tokens).skip(FIRST_CONNECTION);
        let answered = connections.filter(|(entry, _)| entry.revents != 0);
        for (entry, &token) in answered.take(ready - special) {
            peers.ready(token, readiness(entry.revents));
        }
    }
}

/// ERR and HUP come unasked, and mean that both a read and a write will not block.
fn readiness(revents: c_short) -> Readiness {
    Readiness {
        read: revents & POLLIN != 0,
        write: revents & POLLOUT != 0,
        peer_closed: false,
        failed: revents & (POLLERR | POLLHUP | POLLNVAL) != 0,
    }
}

/// Whole milliseconds, rounded up: rounded down, the last one would be spent spinning. -1: no end.
fn timeout_ms(peers: &Peers, now: Instant) -> i32 {
    let Some(timeout) = peers.wait_timeout(now) else { return -1 };
    i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// poll(2); 0 when a signal came first (signal(7)): look at the clock, wait again. nix's form
/// borrows each descriptor for the array's life, which a list that lives as long as the loop
/// cannot give.
fn wait(entries: &mut [pollfd], timeout_ms: i32) -> io::Result<usize> {
    // SAFETY: `entries` is owned by the caller's Watch and stays put for the whole call.
    let ready =
        unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout_ms) };
    usize::try_from(ready).or_else(|_| match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => {
            // The array was not written: it still holds the answers of the wait before.
            entries.iter_mut().for_each(|entry| entry.revents = 0);
            Ok(0)
        }
        error => Err(error),
    })
}
