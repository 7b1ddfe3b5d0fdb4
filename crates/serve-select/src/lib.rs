//! select: one thread waits for many descriptors at once, named as bits in a bitmap.
//!
//! The busy loop asks every socket and uses a whole core. select asks the kernel once about all of
//! them, and sleeps until one is ready. The question is three bitmaps (to read, to write,
//! exceptions), which the call overwrites with the answer, so they are copied for every wait. The
//! kernel looks at all bits up to the highest descriptor, and so does the program afterwards. And
//! a bitmap has an end: descriptor 1,023 is the last that fits (FD_SETSIZE), whatever the process
//! may open.
//!
//! Man pages: select(2), select_tut(2). UNP figure 6.3 (I/O multiplexing), section 6.3.

mod bitmap;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::{Duration, Instant};

use bitmap::Bitmap;
use kit::{CopiedBy, Model, Place, Serves, Worker, Workers};
use libc::{FD_SETSIZE, c_int, timeval};
use readiness::{Answer, Connections, Interest, InterestList, Token, returned};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "select",
    summary: "one thread, all connections: select(2) is told the whole list at every wait",
    about: "The thread keeps bitmaps with one bit per descriptor, hands copies of them to \
            select(2) and sleeps until some bits are answered. The kernel walks every bit up to \
            the highest descriptor at every call, so the cost of a wait grows with the \
            connections, idle ones included. No descriptor from 1,024 on fits into the bitmap: \
            such a connection is closed as soon as it is accepted, counted as refused, and the \
            others go on.",
    place: Place { blocks_in: &["select"], copied_by: CopiedBy::Thread },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Only(
        FD_SETSIZE - DESCRIPTORS_OTHER,
        "FD_SETSIZE: select(2) knows no descriptor from 1,024 on",
    ),
    cannot: &[],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Descriptors below FD_SETSIZE that are not connections in a server without a document root:
/// standard streams, the listener, the stop signal, the wake-ups.
const DESCRIPTORS_OTHER: usize = 6;

/// Runs one loop until the server stops.
///
/// # Errors
/// What select(2) or accept(2) say.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut connections = Connections::new(worker)?;
    let mut list = List::new()?;
    let mut now = Instant::now();
    while !connections.finished() {
        // ANCHOR: wait
        let mut timeout = timeout(connections.prepare_to_wait(&mut list, now)?);
        list.answer = list.interest.clone();
        let (read, write) = (list.answer.read.as_fd_set(), list.answer.write.as_fd_set());
        let (n, timeout) =
            (list.end as c_int, timeout.as_mut().map_or(ptr::null_mut(), ptr::from_mut));
        // SAFETY: `list` owns the bitmaps and `timeout` is a local variable; nothing else touches
        // them during the call. `n` is at most FD_SETSIZE, so the kernel stays inside the bitmaps.
        let ready = returned(unsafe { libc::select(n, read, write, ptr::null_mut(), timeout) })?;
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

/// The bitmaps of descriptors to be read from and to be written to.
#[derive(Clone, Default)]
struct Bitmaps {
    read: Bitmap,
    write: Bitmap,
}

/// The interest list: a pair of bitmaps, the copy that select(2) overwrites, and the token of each
/// bit.
struct List {
    interest: Bitmaps,
    answer: Bitmaps,
    /// One past the highest descriptor in use: what select(2) calls `nfds`.
    end: usize,
    tokens: Box<[Option<Token>; FD_SETSIZE]>,
}

impl List {
    fn new() -> io::Result<List> {
        let (interest, answer) = (Bitmaps::default(), Bitmaps::default());
        Ok(List { interest, answer, end: 0, tokens: Box::new([None; FD_SETSIZE]) })
    }

    /// The descriptors with an answer. After a signal `ready` is 0, and the bitmaps still hold the
    /// question.
    fn answers(&self, ready: usize) -> impl Iterator<Item = (Token, Answer)> {
        let Bitmaps { read, write } = &self.answer;
        let answered = read.union(write).take(ready);
        answered.filter_map(|fd| Some((self.tokens[fd]?, answer(read.has(fd), write.has(fd)))))
    }
}

impl InterestList for List {
    fn fits(&self, fd: BorrowedFd<'_>) -> bool {
        (fd.as_raw_fd() as usize) < FD_SETSIZE
    }

    fn add(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()> {
        let n = fd.as_raw_fd() as usize;
        self.tokens[n] = Some(token);
        self.end = self.end.max(n + 1);
        self.modify(token, fd, Interest { read: true, write: false })
    }

    fn modify(&mut self, _: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let n = fd.as_raw_fd() as usize;
        self.interest.read.set(n, interest.read);
        self.interest.write.set(n, interest.write);
        Ok(())
    }

    /// The bitmaps end behind the highest descriptor that is left.
    fn delete(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.modify(token, fd, Interest { read: false, write: false })?;
        self.tokens[fd.as_raw_fd() as usize] = None;
        while self.end > 0 && self.tokens[self.end - 1].is_none() {
            self.end -= 1;
        }
        Ok(())
    }
}

/// A broken connection is readable and writable; a read then reports the error.
fn answer(read: bool, write: bool) -> Answer {
    Answer { read, write, ..Answer::default() }
}

/// A timeout as select(2) takes it; `None` has no end. Rounded up: rounded down, the loop would
/// spin for the last microsecond.
fn timeout(timeout: Option<Duration>) -> Option<timeval> {
    let micros = i64::try_from(timeout?.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
    Some(timeval { tv_sec: micros / 1_000_000, tv_usec: micros % 1_000_000 })
}
