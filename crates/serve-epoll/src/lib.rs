//! epoll: the kernel keeps the interest list, and a wait returns only the ready descriptors.
//!
//! select and poll pass the whole list at every call, and the kernel looks at all of it: for one
//! client that sends something, ten thousand idle ones are looked at. Here a descriptor is added
//! once (`epoll_ctl`), the socket itself reports to the list when something arrives, and the cost
//! of `epoll_wait` grows with what is ready and not with what is watched.
//!
//! There are two ways to be told (`--trigger`), and they ask different things of the program:
//! - level-triggered (the default): a wait reports a socket as long as it is ready. What the
//!   program leaves unread is reported again. It must turn off interest that it has no use for,
//!   such as interest in writing while it has nothing to write, or every wait returns at once.
//! - edge-triggered: a wait reports a socket once, when something arrives. What the program leaves
//!   unread is not reported again. It must read until the socket is empty (`read_again`), and must
//!   remember by itself what it has not finished (`prepare_to_wait`: then the wait does not
//!   sleep).
//!
//! Man pages: epoll(7), epoll_ctl(2), epoll_wait(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

use kit::{CopiedBy, Flavour, Model, Place, Serves, Values, Worker, Workers};
use libc::{EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, c_int, epoll_event};
use libc::{EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP};
use readiness::{
    Answer, Connections, Interest, InterestList, LISTENER, Token, WAKE_UP, milliseconds, returned,
};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "epoll",
    summary: "one thread, all connections: epoll(7) keeps the list and returns only the ready ones",
    about: "Every socket is registered with the kernel once. The thread sleeps in epoll_wait(2) \
            until some of them are ready and is given exactly those, so the cost of a wait grows \
            with what happens and not with how many connections are open. Reading and writing are \
            still the program's own calls (synchronous), and they never wait (non-blocking): the \
            one place where this server sleeps is epoll_wait.",
    place: Place { blocks_in: &["epoll_wait"], copied_by: CopiedBy::Thread },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Descriptors,
    cannot: &[],
    flavours: &[Flavour {
        flag: "trigger",
        values: Values::Words(&["level", "edge"]),
        default: "level",
        help: "Report a ready socket at every wait (level) or once per change (edge)",
    }],
    unavailable: Model::ALWAYS,
};

/// Events that one wait may return; more stay ready for the next. Past some hundreds the call is a
/// small part of the work that it announces.
const EVENTS_MAX: usize = 512;

/// Runs one loop until the server stops.
///
/// # Errors
/// What epoll_create1(2), epoll_ctl(2), epoll_wait(2) or accept(2) say.
pub fn serve(worker: Worker) -> io::Result<()> {
    let edge = worker.flavour("trigger") == "edge";
    let mut connections = Connections::new(worker)?;
    let mut list = List::new(edge)?;
    let mut now = Instant::now();
    while !connections.finished() {
        // ANCHOR: wait
        let timeout_ms = milliseconds(connections.prepare_to_wait(&mut list, now)?);
        let (epoll, events) = (list.epoll.as_raw_fd(), list.events.as_mut_ptr());
        let n = EVENTS_MAX as c_int;
        // SAFETY: `list` owns the EVENTS_MAX events, and nothing else touches them during the
        // call.
        let ready = returned(unsafe { libc::epoll_wait(epoll, events, n, timeout_ms) })?;
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

/// The interest list: it is in the kernel. What was last asked for is remembered here, to spare an
/// `epoll_ctl` where nothing changes; a request usually changes nothing.
struct List {
    epoll: OwnedFd,
    edge: bool,
    interests: Vec<c_int>,
    events: Vec<epoll_event>,
}

impl List {
    fn new(edge: bool) -> io::Result<List> {
        // SAFETY: no memory is passed.
        let epoll = returned(unsafe { libc::epoll_create1(EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll as c_int) };
        let events = vec![epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        Ok(List { epoll, edge, interests: Vec::new(), events })
    }

    /// The events of the last wait.
    fn answers(&self, ready: usize) -> impl Iterator<Item = (Token, Answer)> {
        let events = self.events[..ready].iter();
        events.map(|&epoll_event { events, u64: token }| (token as Token, answer(events as c_int)))
    }

    fn control(
        &self,
        operation: c_int,
        token: Token,
        fd: BorrowedFd<'_>,
        events: c_int,
    ) -> io::Result<()> {
        let mut event = epoll_event { events: events as u32, u64: token as u64 };
        let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: `event` is a local variable, and the kernel copies it during the call.
        returned(unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) }).map(drop)
    }
}

impl InterestList for List {
    fn add(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()> {
        let events = match token {
            LISTENER..=WAKE_UP => EPOLLIN,
            // Both directions, once and for all: an edge costs a wake-up at most if the program
            // has no use for it, and a missed edge costs the connection.
            _ if self.edge => EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
            _ => EPOLLIN,
        };
        if self.interests.len() <= token {
            self.interests.resize(token + 1, 0);
        }
        self.interests[token] = events;
        self.control(EPOLL_CTL_ADD, token, fd, events)
    }

    fn modify(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let read = if interest.read { EPOLLIN } else { 0 };
        let write = if interest.write { EPOLLOUT } else { 0 };
        if self.edge || self.interests[token] == read | write {
            return Ok(());
        }
        self.interests[token] = read | write;
        self.control(EPOLL_CTL_MOD, token, fd, read | write)
    }

    fn delete(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()> {
        match token {
            LISTENER..=WAKE_UP => self.control(EPOLL_CTL_DEL, token, fd, 0),
            // close(2) takes a socket off the list when no other descriptor refers to it.
            _ => Ok(()),
        }
    }

    /// Edge-triggered, a read that fills its buffer must be followed by another one. So must a
    /// short read when the FIN has arrived too: its event came together with that of the bytes,
    /// and only a read that returns 0 tells the program that it has reached the end.
    fn read_again(&self, n: usize, room: usize, peer_closed: bool) -> bool {
        n == room || self.edge && peer_closed
    }
}

/// ERR and HUP are always reported, and mean that neither a read nor a write will block.
fn answer(events: c_int) -> Answer {
    Answer {
        read: events & EPOLLIN != 0,
        write: events & EPOLLOUT != 0,
        peer_closed: events & EPOLLRDHUP != 0,
        failed: events & (EPOLLERR | EPOLLHUP) != 0,
    }
}
