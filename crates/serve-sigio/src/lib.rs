//! sigio: each socket sends a signal when something happens, and the thread waits for signals.
//!
//! select, poll and epoll ask the kernel which sockets are ready. Here nothing is asked: a
//! descriptor with O_ASYNC raises a signal when it becomes ready. A real-time signal (F_SETSIG) is
//! queued, one for each event, and carries the number of the descriptor (`si_fd`) and what
//! happened to it (`si_band`). The signals are blocked, so no handler interrupts the program
//! between two instructions: they wait in the queue of the thread (F_SETOWN_EX), which takes them
//! out one by one, with a system call each (sigtimedwait).
//!
//! A signal is like an edge of `serve-epoll --trigger edge`: it comes once, when something
//! arrives. So the same can be forgotten, and more:
//! - What is there before O_ASYNC is set raises no signal: a new descriptor is looked at once.
//! - Bytes and the FIN behind them raise two signals, and the first read may come after both. So
//!   every socket is read until EAGAIN (`read_again`), and the listener is emptied too.
//! - A signal stays in the queue when its descriptor is closed, and the number may be another
//!   connection's by then. "Something arrived" is harmless for that one; "it is broken" is
//!   confirmed by poll(2) first.
//! - The queue has an end (RLIMIT_SIGPENDING). The kernel then sends SIGIO, without a descriptor:
//!   events were lost, and one poll(2) looks at all descriptors (`signal_queue_overflows`).
//! - An eventfd raises no signal, O_ASYNC or not. So a pipe wakes the loop, and the stop comes as
//!   the signal (SIGURG) that interrupts the threads of other models.
//!
//! Man pages: fcntl(2) (O_ASYNC, F_SETOWN_EX, F_SETSIG), sigwaitinfo(2), signal(7), sigaction(2)
//! (si_band). UNP figure 6.4 (signal-driven I/O), chapter 25; TLPI section 63.3.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use kit::{CopiedBy, Model, Place, Serves, Worker, Workers};
use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, SIGIO, SIGURG, c_short, pollfd};
use readiness::{Answer, Connections, Interest, InterestList, LISTENER, STOP, Token};

use sys::{Owner, Signal, Signals, sigtimedwait};

mod sys;

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "sigio",
    summary: "one thread, all connections: each socket sends a queued signal when it is ready",
    about: "Every socket is told once to send a real-time signal to the thread when something \
            arrives (O_ASYNC, F_SETSIG). The thread sleeps in sigtimedwait(2), which takes one \
            signal out of the queue and says which descriptor it is about. Reading and writing \
            are still the program's own calls (synchronous), and they never wait (non-blocking). \
            If the queue overflows (RLIMIT_SIGPENDING), the kernel sends SIGIO and one poll(2) \
            looks at all descriptors: /stats counts these as signal_queue_overflows.",
    place: Place { blocks_in: &["sigtimedwait"], copied_by: CopiedBy::Thread },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Descriptors,
    cannot: &[],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Signals that one iteration takes; more stay in the queue. As many as serve-epoll takes events,
/// so that new connections are accepted and replies sent as often.
const SIGNALS_MAX: usize = 512;

/// Runs one loop until the server stops.
///
/// # Errors
/// What fcntl(2), sigtimedwait(2), poll(2) or accept(2) say.
pub fn serve(worker: Worker) -> io::Result<()> {
    let (stop, counters) = (worker.stop.clone(), worker.service.counters);
    let mut list = List::new()?;
    // The stop is sent to this thread as SIGURG, again and again until it confirms it.
    let tracked = stop.track(None);
    let mut connections = Connections::woken_by_pipe(worker)?;
    let mut now = Instant::now();
    while !connections.finished() {
        // ANCHOR: wait
        let mut timeout = connections.prepare_to_wait(&mut list, now)?;
        if list.report_added(&mut connections) {
            timeout = Some(Duration::ZERO);
        }
        // Sleeps until the first signal, then takes those behind it without sleeping.
        for _ in 0..SIGNALS_MAX {
            let Some(signal) = sigtimedwait(&list.signals, timeout)? else { break };
            timeout = Some(Duration::ZERO);
            match signal.number {
                SIGURG => connections.ready(STOP, Answer::default()),
                SIGIO => {
                    counters.signal_queue_overflowed();
                    for (token, answer) in list.answers()? {
                        connections.ready(token, answer);
                    }
                }
                _ => {
                    if let Some((token, answer)) = list.answer_to(signal)? {
                        connections.ready(token, answer);
                    }
                }
            }
        }
        now = Instant::now();
        if stop.requested() {
            tracked.told();
        }
        connections.accept(&mut list, now)?;
        connections.run(&mut list, now)?;
        // ANCHOR_END: wait
    }
    Ok(())
}

/// The interest list: O_ASYNC in each descriptor. What has it is kept here too, to find the token
/// of a descriptor, and for poll(2) after an overflow.
struct List {
    signals: Signals,
    owner: Owner,
    /// By descriptor; poll(2) skips those with a negative `fd`, which are not on the list.
    entries: Vec<pollfd>,
    /// In step with `entries`.
    tokens: Vec<Token>,
    /// Those that may have been ready before O_ASYNC was set.
    added: Vec<Token>,
}

impl List {
    /// The list of the calling thread. The signals are blocked from here on: they wait to be taken.
    fn new() -> io::Result<List> {
        let (signals, owner) = (Signals::block()?, Owner::this_thread());
        let (entries, tokens, added) = (Vec::new(), Vec::new(), Vec::new());
        Ok(List { signals, owner, entries, tokens, added })
    }

    /// New descriptors count as ready, once. True if there were any.
    fn report_added(&mut self, connections: &mut Connections) -> bool {
        let any = !self.added.is_empty();
        for token in self.added.drain(..) {
            connections.ready(token, Answer { read: true, ..Answer::default() });
        }
        any
    }

    /// After an overflow: what poll(2) says of all descriptors, without waiting.
    fn answers(&mut self) -> io::Result<impl Iterator<Item = (Token, Answer)>> {
        sys::poll_now(&mut self.entries)?;
        let entries = self.entries.iter().zip(&self.tokens);
        let answered = entries.filter(|(entry, _)| entry.fd >= 0 && entry.revents != 0);
        Ok(answered.map(|(entry, &token)| (token, answer(entry.revents))))
    }

    /// What a signal says. `None`: its descriptor was closed after it was sent.
    fn answer_to(&mut self, signal: Signal) -> io::Result<Option<(Token, Answer)>> {
        let position = usize::try_from(signal.fd).unwrap_or(usize::MAX);
        let on_list = self.entries.get_mut(position).filter(|entry| entry.fd >= 0);
        let Some(entry) = on_list else { return Ok(None) };
        let mut events = signal.band as c_short;
        if events & (POLLERR | POLLHUP) != 0 {
            // It may be about an earlier connection of this number.
            sys::poll_now(std::slice::from_mut(entry))?;
            events = entry.revents;
        }
        Ok(Some((self.tokens[position], answer(events))))
    }
}

impl InterestList for List {
    /// Both directions, once and for all. A signal costs little if the program has no use for it.
    fn add(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()> {
        if token == STOP {
            // An eventfd: see the first page.
            return Ok(());
        }
        self.owner.raise_signals(fd)?;
        let fd = fd.as_raw_fd();
        let position = fd as usize;
        if self.entries.len() <= position {
            self.entries.resize(position + 1, pollfd { fd: -1, events: 0, revents: 0 });
            self.tokens.resize(position + 1, STOP);
        }
        self.entries[position] = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
        self.tokens[position] = token;
        // A connection is read at once. Whether a client waits at the listener, poll(2) says.
        if token == LISTENER {
            sys::poll_now(std::slice::from_mut(&mut self.entries[position]))?;
        }
        if token != LISTENER || self.entries[position].revents != 0 {
            self.added.push(token);
        }
        Ok(())
    }

    fn modify(&mut self, _: Token, _: BorrowedFd<'_>, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn delete(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()> {
        if token != STOP {
            self.entries[fd.as_raw_fd() as usize].fd = -1;
            sys::raise_no_signals(fd)?;
        }
        Ok(())
    }

    fn read_again(&self, _: usize, _: usize, _: bool) -> bool {
        true
    }

    fn accept_again(&self) -> bool {
        true
    }
}

/// ERR and HUP mean that neither a read nor a write will block.
fn answer(events: c_short) -> Answer {
    Answer {
        read: events & POLLIN != 0,
        write: events & POLLOUT != 0,
        peer_closed: false,
        failed: events & (POLLERR | POLLHUP | POLLNVAL) != 0,
    }
}
