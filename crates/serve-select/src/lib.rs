//! select: one thread waits for many descriptors at once, named as bits in a bitmap.
//!
//! The busy loop asks every socket and burns a core; select asks the kernel once about all of them
//! and sleeps until one is ready. The question is three bitmaps, which the call overwrites with the
//! answer, so they are built (here: copied from a master) for every wait; the kernel walks all bits
//! up to the highest descriptor, and the program walks the answer. And a bitmap has an end:
//! descriptor 1,023 is the last that fits (FD_SETSIZE), whatever the process may open.
//!
//! Man pages: select(2), select_tut(2). UNP figure 6.3 (I/O multiplexing), section 6.3.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::time::Instant;

use kit::{Model, Peers, Place, Readiness, Serves, Token, Turn, Worker, Workers};
use libc::{FD_SETSIZE, c_ulong, timeval};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "select",
    summary: "one thread, all connections: select(2) is told the whole list at every wait",
    about: "The thread keeps bitmaps with one bit per descriptor, hands copies of them to \
            select(2) and sleeps until some bits are answered. The kernel walks every bit up to \
            the highest descriptor at every call, so the cost of a wait grows with the \
            connections, silent ones included. No descriptor from 1,024 on fits into the bitmap: \
            such a connection is closed as soon as it is accepted, counted as refused, and the \
            others go on.",
    place: Place { blocking: false, synchronous: true },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Only(
        FD_SETSIZE - DESCRIPTORS_OF_OUR_OWN,
        "FD_SETSIZE: select(2) knows no descriptor from 1,024 on",
    ),
    cannot: &[],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Descriptors below FD_SETSIZE that are not connections in a server without a document root:
/// standard streams, the stop signal, one listener, the bell.
const DESCRIPTORS_OF_OUR_OWN: usize = 6;

/// Runs one loop until the server stops.
///
/// # Errors
/// What select(2) or accept(2) say.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut peers = Peers::new(worker)?.with_descriptors_below(FD_SETSIZE as RawFd);
    let mut watch = Watch::new();
    let mut now = Instant::now();
    while !peers.finished() {
        watch.listener(&mut peers, now);
        // ANCHOR: wait
        let mut timeout = timeout(&peers, now);
        let (mut readable, mut writable) = (watch.read.clone(), watch.write.clone());
        wait(watch.end, &mut readable, &mut writable, timeout.as_mut())?;
        now = Instant::now();
        let accepting = readable.take(peers.listener());
        if readable.take(peers.bell()) {
            peers.silence_bell();
        }
        watch.collect(&mut peers, &readable, &writable);
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

const WORD_BITS: usize = c_ulong::BITS as usize;

/// An `fd_set`: the C library's macros for it panic or corrupt beyond the end, and cannot walk the
/// set bits; this has the same layout.
#[derive(Clone)]
#[repr(C)]
struct Bitmap([c_ulong; FD_SETSIZE / WORD_BITS]);

impl Bitmap {
    fn set(&mut self, fd: usize, on: bool) {
        let bit = 1 << (fd % WORD_BITS);
        let word = &mut self.0[fd / WORD_BITS];
        if on { *word |= bit } else { *word &= !bit }
    }

    fn has(&self, fd: usize) -> bool {
        self.0[fd / WORD_BITS] & (1 << (fd % WORD_BITS)) != 0
    }

    /// Whether `fd` is in the set; it is not any more.
    fn take(&mut self, fd: BorrowedFd<'_>) -> bool {
        let fd = fd.as_raw_fd() as usize;
        let had = self.has(fd);
        self.set(fd, false);
        had
    }
}

/// The masters of the bitmaps, and whose descriptor each bit is.
struct Watch {
    read: Bitmap,
    write: Bitmap,
    /// One past the highest descriptor in use: what select(2) calls `nfds`.
    end: usize,
    token_of: Box<[Option<Token>; FD_SETSIZE]>,
    descriptor_of: Vec<usize>,
}

impl Watch {
    fn new() -> Watch {
        let empty = Bitmap([0; FD_SETSIZE / WORD_BITS]);
        Watch {
            read: empty.clone(),
            write: empty,
            end: 0,
            token_of: Box::new([None; FD_SETSIZE]),
            descriptor_of: Vec::new(),
        }
    }

    /// Watches the listener exactly while new connections are wanted, the bell always, and the stop
    /// signal until it has come. They are opened before any connection, so they are below
    /// FD_SETSIZE.
    fn listener(&mut self, peers: &mut Peers, now: Instant) {
        let wanted = peers.wants_listener(now);
        let listener = peers.listener().as_raw_fd() as usize;
        self.read.set(listener, wanted);
        for signal in [Some(peers.bell()), peers.stop_signal()].into_iter().flatten() {
            let signal = signal.as_raw_fd() as usize;
            self.read.set(signal, true);
            self.end = self.end.max(signal + 1);
        }
        self.end = self.end.max(listener + 1);
    }

    fn add(&mut self, peers: &Peers, token: Token) {
        let Some(socket) = peers.socket(token) else { return };
        let fd = socket.as_raw_fd() as usize;
        if self.descriptor_of.len() <= token {
            self.descriptor_of.resize(token + 1, 0);
        }
        self.descriptor_of[token] = fd;
        self.token_of[fd] = Some(token);
        self.end = self.end.max(fd + 1);
        self.read.set(fd, true);
    }

    fn change(&mut self, token: Token, read: bool, write: bool) {
        let fd = self.descriptor_of[token];
        self.read.set(fd, read);
        self.write.set(fd, write);
    }

    fn remove(&mut self, token: Token) {
        self.change(token, false, false);
        self.token_of[self.descriptor_of[token]] = None;
        while self.end > 0 && !self.read.has(self.end - 1) && self.token_of[self.end - 1].is_none()
        {
            self.end -= 1;
        }
    }

    /// Notes who is ready, a word of bits at a time.
    fn collect(&self, peers: &mut Peers, readable: &Bitmap, writable: &Bitmap) {
        for (index, (read, write)) in readable.0.iter().zip(&writable.0).enumerate() {
            let mut left = read | write;
            while left != 0 {
                let fd = index * WORD_BITS + left.trailing_zeros() as usize;
                left &= left - 1;
                let (read, write) = (readable.has(fd), writable.has(fd));
                if let Some(token) = self.token_of[fd] {
                    peers.ready(token, Readiness { read, write, ..Readiness::default() });
                }
            }
        }
    }
}

/// Microseconds, rounded up: rounded down, the last one would be spent spinning.
fn timeout(peers: &Peers, now: Instant) -> Option<timeval> {
    let micros = peers.wait_timeout(now)?.as_nanos().div_ceil(1_000);
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    Some(timeval { tv_sec: micros / 1_000_000, tv_usec: micros % 1_000_000 })
}

/// select(2). After a signal (signal(7)) nothing is ready: look at the clock, wait again.
fn wait(
    end: usize,
    read: &mut Bitmap,
    write: &mut Bitmap,
    timeout: Option<&mut timeval>,
) -> io::Result<()> {
    let timeout = timeout.map_or(ptr::null_mut(), ptr::from_mut);
    let (reads, writes) = (ptr::from_mut(read).cast(), ptr::from_mut(write).cast());
    // SAFETY: the caller owns all three for the whole call; Bitmap has fd_set's layout, and `end`
    // is at most FD_SETSIZE, so the kernel stays inside it.
    let ready = unsafe { libc::select(end as i32, reads, writes, ptr::null_mut(), timeout) };
    if ready >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() != io::ErrorKind::Interrupted {
        return Err(error);
    }
    *read = Bitmap([0; FD_SETSIZE / WORD_BITS]);
    *write = read.clone();
    Ok(())
}
