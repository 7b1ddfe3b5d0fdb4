//! A driver without sockets that keeps the contract in `conn`'s module text: it calls `wants()`
//! after every event, never reads when `read` is false, and writes only output that is there. On
//! every turn it checks that the connection keeps its part of the contract.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conn::{Address, Conn, FileRead, Limits, Outcome, Wants};

use super::world::{World, letters};

/// A connection that never waits fails with this; the longest valid test needs some hundred
/// thousand turns.
const TURNS_MAX: u64 = 20_000_000;

const SLICES_MAX: usize = 8192;

/// How the driver reads and writes. The output must not depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub write_max: usize,
    /// Take output as handles (io_uring, a second thread) and not as slices (the others).
    pub by_chunks: bool,
    /// Read whenever that is allowed, even with output waiting.
    pub read_first: bool,
    pub early_timeouts: bool,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits { write_max: usize::MAX, by_chunks: false, read_first: false, early_timeouts: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileReply {
    Prompt,
    /// At once, with at most so many bytes.
    Short(usize),
    /// Not yet, as an asynchronous read.
    Held,
    Failing,
    /// As if the file ended here: no bytes.
    Truncated,
}

#[derive(Debug)]
enum Arrival {
    Bytes(Vec<u8>),
    Eof,
}

pub struct Driver {
    pub conn: Conn,
    pub file_reply: FileReply,
    limits: Limits,
    habits: Habits,
    now: Instant,
    arrivals: VecDeque<Arrival>,
    /// Bytes that the peer will still read; `None`: all.
    peer_reads: Option<usize>,
    taken: Vec<u8>,
    fin_sent: bool,
    turns: u64,
    pub output_peak: usize,
}

impl Driver {
    pub fn new(world: &World, habits: Habits) -> Driver {
        Driver::at(world, habits, Address::alone())
    }

    /// The same, which others can wake at `address`.
    pub fn at(world: &World, habits: Habits, address: Address) -> Driver {
        Driver {
            conn: Conn::new(&world.service, address, world.started),
            file_reply: FileReply::Prompt,
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

    pub fn arrive(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.arrivals.push_back(Arrival::Bytes(bytes.to_vec()));
        }
        self.run();
    }

    /// The peer's FIN arrives after all earlier bytes.
    pub fn arrive_eof(&mut self) {
        self.arrivals.push_back(Arrival::Eof);
        self.run();
    }

    pub fn wake_up(&mut self) {
        self.conn.resume(self.now);
        self.run();
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.run();
    }

    pub fn peer_reads(&mut self, bytes: Option<usize>) {
        self.peer_reads = bytes;
        self.run();
    }

    pub fn drain(&mut self) {
        let in_socket = self.arrivals.iter().map(|arrival| match arrival {
            Arrival::Bytes(bytes) => bytes.len(),
            Arrival::Eof => 0,
        });
        self.conn.drain(in_socket.sum(), self.now);
        self.run();
    }

    pub fn reset(&mut self) {
        self.conn.abort();
        self.run();
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// The output that the peer received since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.taken)
    }

    pub fn fin_sent(&self) -> bool {
        self.fin_sent
    }

    /// How the connection ended; `None` if it has not.
    pub fn ended(&self) -> Option<Outcome> {
        self.conn.wants().is_none().then(|| self.conn.outcome())
    }

    /// Bytes that have arrived and were not read, because the connection does not want to read.
    pub fn unread(&self) -> usize {
        let len = |arrival: &Arrival| match arrival {
            Arrival::Bytes(bytes) => bytes.len(),
            Arrival::Eof => 0,
        };
        self.arrivals.iter().map(len).sum()
    }

    /// Bytes in the output. Borrowed, because this must not change the connection.
    pub fn output_len(&self) -> usize {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = self.conn.slices(&mut slices);
        assert!(filled < SLICES_MAX, "more chunks than expected");
        slices[..filled].iter().map(|slice| slice.len()).sum()
    }

    /// Runs until the connection waits.
    pub fn run(&mut self) {
        while self.turn() {
            self.turns += 1;
            assert!(self.turns < TURNS_MAX, "the connection never waits: {:?}", self.conn.wants());
        }
    }

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
        } else if let Some(part) = wants.file.filter(|_| self.file_reply != FileReply::Held) {
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
        match self.file_reply {
            FileReply::Prompt => self.conn.file_read(bytes(part.len), self.now),
            FileReply::Short(max) => self.conn.file_read(bytes(part.len.min(max)), self.now),
            FileReply::Truncated => self.conn.file_read(Bytes::new(), self.now),
            FileReply::Failing => self.conn.file_failed(self.now),
            FileReply::Held => {}
        }
        self.output_peak = self.output_peak.max(self.output_len());
    }

    fn read(&mut self) {
        match self.arrivals.pop_front() {
            Some(Arrival::Bytes(mut bytes)) => {
                self.conn.receive(&bytes, self.now);
                // "The slice may be reused": a connection that kept it would now see other bytes.
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
            // Handles that outlive the borrow, as for an asynchronous send.
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

fn append(written: &mut Vec<u8>, bytes: &[u8], room: usize) {
    let take = bytes.len().min(room - written.len());
    written.extend_from_slice(&bytes[..take]);
}
