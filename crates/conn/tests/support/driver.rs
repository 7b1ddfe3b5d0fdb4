//! A driver without sockets that keeps the contract in `conn`'s module text to the letter: it asks
//! `wants()` after every event, never reads when `read` is false, never writes what is not there,
//! and checks on every turn that the connection keeps its side.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conn::{Address, Conn, FileRead, Limits, Outcome, Wants};

use super::world::{World, letters};

/// Turns without end are the failure that this driver looks for; the longest honest test needs
/// some hundred thousand.
const TURNS_MAX: u64 = 20_000_000;

/// More chunks than any output here has.
const SLICES_MAX: usize = 8192;

/// How the outside behaves. The protocol's output must not depend on any of it.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Most bytes that one write takes.
    pub write_max: usize,
    /// Take output as counted handles (io_uring, threads) and not as slices (readiness models).
    pub by_chunks: bool,
    /// Read whenever reading is allowed, even with output waiting.
    pub read_first: bool,
    /// Call `timeout` on every turn, due or not.
    pub early_timeouts: bool,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits { write_max: usize::MAX, by_chunks: false, read_first: false, early_timeouts: false }
    }
}

/// How the fake files answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMood {
    /// At once, all that was asked for.
    Prompt,
    /// At once, at most so many bytes.
    Short(usize),
    /// Not yet: an asynchronous read is on its way.
    Held,
    /// With an error.
    Failing,
    /// As a file that ends here: no bytes.
    Truncated,
}

#[derive(Debug)]
enum Arrival {
    Bytes(Vec<u8>),
    Eof,
}

/// One connection and its fake outside.
pub struct Driver {
    /// The connection under test.
    pub conn: Conn,
    /// What the fake files do.
    pub file_mood: FileMood,
    limits: Limits,
    habits: Habits,
    now: Instant,
    arrivals: VecDeque<Arrival>,
    /// Bytes that the peer will still read; `None`: all of them.
    peer_reads: Option<usize>,
    taken: Vec<u8>,
    fin_sent: bool,
    turns: u64,
    /// Most bytes ever seen waiting in the output.
    pub output_peak: usize,
}

impl Driver {
    /// A connection that was accepted just now.
    pub fn new(world: &World, habits: Habits) -> Driver {
        Driver::at(world, habits, Address::alone())
    }

    /// The same, where others can reach it.
    pub fn at(world: &World, habits: Habits, address: Address) -> Driver {
        Driver {
            conn: Conn::new(&world.service, address, world.started),
            file_mood: FileMood::Prompt,
            limits: world.service.limits.clone(),
            habits,
            now: world.started,
            arrivals: VecDeque::new(),
            peer_reads: None,
            taken: Vec::new(),
            fin_sent: false,
            turns: 0,
            output_peak: 0,
        }
    }

    /// These bytes arrive, in one read.
    pub fn arrive(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.arrivals.push_back(Arrival::Bytes(bytes.to_vec()));
        }
        self.run();
    }

    /// The peer's FIN arrives, after everything before it.
    pub fn arrive_eof(&mut self) {
        self.arrivals.push_back(Arrival::Eof);
        self.run();
    }

    /// Its bell was rung.
    pub fn woken(&mut self) {
        self.conn.resume(self.now);
        self.run();
    }

    /// The clock goes on.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.run();
    }

    /// From now on the peer reads `bytes` more bytes (`None`: everything).
    pub fn peer_reads(&mut self, bytes: Option<usize>) {
        self.peer_reads = bytes;
        self.run();
    }

    /// The server is to stop.
    pub fn drain(&mut self) {
        let in_socket = self.arrivals.iter().map(|arrival| match arrival {
            Arrival::Bytes(bytes) => bytes.len(),
            Arrival::Eof => 0,
        });
        self.conn.drain(in_socket.sum(), self.now);
        self.run();
    }

    /// The socket failed.
    pub fn reset(&mut self) {
        self.conn.abort();
        self.run();
    }

    /// The driver's clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Everything that the connection sent since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.taken)
    }

    /// True once FIN was asked for and sent.
    pub fn fin_sent(&self) -> bool {
        self.fin_sent
    }

    /// How it ended; `None` while it has not.
    pub fn ended(&self) -> Option<Outcome> {
        self.conn.wants().is_none().then(|| self.conn.outcome())
    }

    /// Arrived, and not read because the connection does not want to.
    pub fn unread(&self) -> usize {
        let len = |arrival: &Arrival| match arrival {
            Arrival::Bytes(bytes) => bytes.len(),
            Arrival::Eof => 0,
        };
        self.arrivals.iter().map(len).sum()
    }

    /// Bytes that wait in the output, borrowed: asking must not change anything.
    pub fn output_len(&self) -> usize {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = self.conn.slices(&mut slices);
        assert!(filled < SLICES_MAX, "more chunks than a test could wish for");
        slices[..filled].iter().map(|slice| slice.len()).sum()
    }

    /// Goes on until nothing is left to do but wait.
    pub fn run(&mut self) {
        while self.turn() {
            self.turns += 1;
            assert!(self.turns < TURNS_MAX, "the connection spins: {:?}", self.conn.wants());
        }
    }

    /// One event; false when there is none.
    fn turn(&mut self) -> bool {
        if self.habits.early_timeouts {
            let before = self.conn.wants();
            let due = before.and_then(|w| w.deadline).is_some_and(|at| at <= self.now);
            self.conn.timeout(self.now);
            assert!(due || self.conn.wants() == before, "an early timeout() changed something");
        }
        let Some(wants) = self.conn.wants() else {
            assert!(self.conn.wants().is_none(), "closed, and then open again");
            return false;
        };
        self.check(&wants);
        let readable = wants.read && !self.arrivals.is_empty();
        if wants.deadline.is_some_and(|at| at <= self.now) {
            self.conn.timeout(self.now);
            let again = self.conn.wants().and_then(|w| w.deadline).is_some_and(|at| at <= self.now);
            assert!(!again, "timeout() left something due");
        } else if let Some(part) = wants.file.filter(|_| self.file_mood != FileMood::Held) {
            self.answer(part);
        } else if readable && self.habits.read_first {
            self.read();
        } else if wants.write && self.peer_reads != Some(0) {
            self.write();
        } else if wants.shutdown {
            assert!(!self.fin_sent, "FIN is asked for twice");
            self.fin_sent = true;
            self.conn.shutdown_done(self.now);
        } else if wants.turn {
            self.conn.resume(self.now);
        } else if readable {
            self.read();
        } else {
            return false;
        }
        true
    }

    fn check(&self, wants: &Wants) {
        let waiting = self.conn.slices(&mut [IoSlice::new(&[])]) > 0;
        assert_eq!(wants.write, waiting, "write is wanted exactly while there is output");
        assert!(!(wants.turn && wants.write), "a turn before the output is out");
        assert!(!(wants.shutdown && wants.write), "FIN before the output is out");
        let goes_on = wants.shutdown || wants.turn || wants.file.is_some();
        let timed = wants.deadline.is_some() || goes_on;
        assert!(timed, "a connection that can wait for ever: {wants:?}");
        if let Some(part) = wants.file {
            assert!(part.len > 0 && part.len <= self.limits.file_read_bytes_max, "{part:?}");
        }
    }

    fn answer(&mut self, part: FileRead) {
        let bytes = |len: usize| Bytes::from(letters(part.offset, part.offset + len as u64));
        match self.file_mood {
            FileMood::Prompt => self.conn.file_read(bytes(part.len), self.now),
            FileMood::Short(max) => self.conn.file_read(bytes(part.len.min(max)), self.now),
            FileMood::Truncated => self.conn.file_read(Bytes::new(), self.now),
            FileMood::Failing => self.conn.file_failed(self.now),
            FileMood::Held => {}
        }
        self.output_peak = self.output_peak.max(self.output_len());
    }

    fn read(&mut self) {
        match self.arrivals.pop_front() {
            Some(Arrival::Bytes(mut bytes)) => {
                self.conn.receive(&bytes, self.now);
                // "The slice may be reused at once": whoever kept it would now see this.
                bytes.fill(0xff);
            }
            Some(Arrival::Eof) => self.conn.receive_eof(self.now),
            None => {}
        }
        self.output_peak = self.output_peak.max(self.output_len());
    }

    fn write(&mut self) {
        let room = self.habits.write_max.min(self.peer_reads.unwrap_or(usize::MAX));
        let mut written = Vec::new();
        if self.habits.by_chunks {
            // Handles outlive the borrow, as an asynchronous send needs it.
            let chunks: Vec<Bytes> = self.conn.chunks().take(4).collect();
            chunks.iter().for_each(|chunk| append(&mut written, chunk, room));
        } else {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = self.conn.slices(&mut slices);
            slices[..filled].iter().for_each(|slice| append(&mut written, slice, room));
        }
        if let Some(left) = &mut self.peer_reads {
            *left -= written.len();
        }
        self.taken.extend_from_slice(&written);
        self.conn.sent(written.len(), self.now);
    }
}

/// Appends `bytes` as far as `written` may grow.
fn append(written: &mut Vec<u8>, bytes: &[u8], room: usize) {
    let take = bytes.len().min(room - written.len());
    written.extend_from_slice(&bytes[..take]);
}
