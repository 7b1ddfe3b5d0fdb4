//! epoll: the kernel keeps the list of descriptors, and a wait returns only those that are ready.
//!
//! select and poll hand the whole list over at every call, and the kernel walks all of it: ten
//! thousand silent clients are ten thousand checks for one that speaks. Here a descriptor is
//! registered once (`epoll_ctl`), the kernel hangs it on the socket's own wait queue, and
//! `epoll_wait` costs what is ready, not what is watched.
//!
//! Two ways to be told: level-triggered (the default) repeats an event as long as it is true;
//! edge-triggered (`--trigger edge`) says it once per change, so whatever stops early must remember
//! that it has not finished.
//!
//! Man pages: epoll(7), epoll_ctl(2), epoll_wait(2).

use std::io;
use std::time::Instant;

use kit::{Flavour, Model, Peers, Place, Readiness, Serves, Token, Turn, Values, Worker, Workers};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "epoll",
    summary: "one thread, all connections: epoll(7) keeps the list and returns only who is ready",
    about: "Every socket is registered with the kernel once. The thread sleeps in epoll_wait(2) \
            until some of them are ready and is given exactly those, so the cost of a wait grows \
            with what happens and not with how many connections are open. Reading and writing are \
            still the program's own calls (synchronous), and they never wait (non-blocking): the \
            one place where this server sleeps is epoll_wait.",
    place: Place { blocking: false, synchronous: true },
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

/// Tokens that are no connection's: slots are counted from zero and never get this far.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
const BELL: u64 = u64::MAX - 2;

/// Runs one loop until the server stops.
///
/// # Errors
/// What epoll_create1(2), epoll_ctl(2) or epoll_wait(2) say.
pub fn serve(worker: Worker) -> io::Result<()> {
    let edge = worker.flavour("trigger") == "edge";
    let mut peers = Peers::new(worker)?;
    let mut watch = Watch::new(edge, &peers)?;
    let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
    let mut now = Instant::now();
    while !peers.finished() {
        watch.listener(&mut peers, now)?;
        // ANCHOR: wait
        let timeout = watch.timeout(&peers, now);
        let ready = watch.wait(&mut events, timeout)?;
        now = Instant::now();
        let mut accepting = false;
        for event in &events[..ready] {
            match event.data() {
                LISTENER => accepting = true,
                STOP | BELL => {}
                token => peers.ready(token as Token, readiness(event.events())),
            }
        }
        if accepting || peers.empties_queue() {
            accept(&mut watch, &mut peers, now)?;
        }
        peers.begin_round(now);
        while let Some(token) = peers.next_runnable() {
            step(&mut watch, &mut peers, token, now)?;
        }
        // ANCHOR_END: wait
    }
    Ok(())
}

/// Takes those who wait at the listener.
fn accept(watch: &mut Watch, peers: &mut Peers, now: Instant) -> io::Result<()> {
    while let Some(token) = peers.accept(now)? {
        watch.add(peers, token)?;
    }
    Ok(())
}

/// Lets one connection do what it can, and asks the kernel for what it then waits for.
fn step(watch: &mut Watch, peers: &mut Peers, token: Token, now: Instant) -> io::Result<()> {
    match peers.turn(token, now) {
        Turn::Waits(wants) => watch.change(peers, token, wants.read, wants.write),
        // It is on the list of those who run again; the kernel need not tell.
        Turn::More(_) => Ok(()),
        // Closing the last descriptor of a socket takes it out of every epoll set (epoll(7)).
        Turn::Closed => Ok(()),
    }
}

/// The epoll set, and what was last asked of it.
struct Watch {
    epoll: Epoll,
    edge: bool,
    listening: bool,
    /// Interest per token, to spare an `epoll_ctl` where nothing changes: on the usual path of a
    /// request nothing does.
    interests: Vec<EpollFlags>,
}

impl Watch {
    fn new(edge: bool, peers: &Peers) -> io::Result<Watch> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Edge-triggered: neither is ever read back. Once is enough to stop, and to an eventfd
        // every write is a change.
        let changes = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(peers.bell(), EpollEvent::new(changes, BELL))?;
        if let Some(stop) = peers.stop_signal() {
            epoll.add(stop, EpollEvent::new(changes, STOP))?;
        }
        Ok(Watch { epoll, edge, listening: false, interests: Vec::new() })
    }

    /// Watches the listener exactly while new connections are wanted. It is removed rather than
    /// muted, because HUP (after the server's own shutdown(2)) cannot be muted.
    fn listener(&mut self, peers: &mut Peers, now: Instant) -> io::Result<()> {
        let wanted = peers.wants_listener(now);
        if wanted != self.listening {
            self.listening = wanted;
            if wanted {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
                self.epoll.add(peers.listener(), event)?;
            } else {
                self.epoll.delete(peers.listener())?;
            }
        }
        Ok(())
    }

    fn add(&mut self, peers: &Peers, token: Token) -> io::Result<()> {
        // Edge-triggered, both directions are asked for once and for all: an edge that nobody
        // waits for costs a wake-up, a missing one costs the connection.
        let interest = if self.edge {
            EpollFlags::EPOLLIN
                | EpollFlags::EPOLLOUT
                | EpollFlags::EPOLLRDHUP
                | EpollFlags::EPOLLET
        } else {
            EpollFlags::EPOLLIN
        };
        if self.interests.len() <= token {
            self.interests.resize(token + 1, EpollFlags::empty());
        }
        self.interests[token] = interest;
        let Some(socket) = peers.socket(token) else { return Ok(()) };
        Ok(self.epoll.add(socket, EpollEvent::new(interest, token as u64))?)
    }

    fn change(&mut self, peers: &Peers, token: Token, read: bool, write: bool) -> io::Result<()> {
        if self.edge {
            return Ok(());
        }
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, read);
        interest.set(EpollFlags::EPOLLOUT, write);
        if interest == self.interests[token] {
            return Ok(());
        }
        self.interests[token] = interest;
        let Some(socket) = peers.socket(token) else { return Ok(()) };
        Ok(self.epoll.modify(socket, &mut EpollEvent::new(interest, token as u64))?)
    }

    /// Whole milliseconds, rounded up: rounded down, the last one would be spent spinning.
    fn timeout(&self, peers: &Peers, now: Instant) -> EpollTimeout {
        let Some(timeout) = peers.wait_timeout(now) else { return EpollTimeout::NONE };
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
    }

    fn wait(&self, events: &mut [EpollEvent], timeout: EpollTimeout) -> io::Result<usize> {
        match self.epoll.wait(events, timeout) {
            // A stop and continue from the terminal (signal(7)): look at the clock, wait again.
            Err(nix::errno::Errno::EINTR) => Ok(0),
            result => Ok(result?),
        }
    }
}

/// ERR and HUP come unasked, and mean that both a read and a write will not block.
fn readiness(events: EpollFlags) -> Readiness {
    Readiness {
        read: events.contains(EpollFlags::EPOLLIN),
        write: events.contains(EpollFlags::EPOLLOUT),
        peer_closed: events.contains(EpollFlags::EPOLLRDHUP),
        failed: events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP),
    }
}
