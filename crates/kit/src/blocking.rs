//! A socket and its connection, as the blocking models drive them: serial, threads, pool. They
//! differ only in which thread has the conversation, so the conversation is written once, here.
//!
//! One thread is enough as long as only the peer and the clock can bring something about: recv(2)
//! waits for both (SO_RCVTIMEO). It is not from the moment when another connection has been given
//! this one's address, which is when it joins a chat: a thread that is blocked in recv(2) cannot be
//! told that somebody has spoken. So at that moment, and not before, the conversation gets a second
//! thread that waits for others and writes (`duplex.rs`), and the first only reads from then on.
//! That is the smallest condition: with nobody there who could ring, nothing needs to be heard.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use conn::{Address, Conn, Wake, Wants};

use crate::bell::Bell;
use crate::peer::{look_at_output, write_output};
use crate::{Accepted, Stop, Tracked, Worker, duplex, receive_now, unread};

/// SO_RCVTIMEO may stay longer than it should be by one part in this many. The idle deadline of
/// every request is the same time away, less the moments since it was set, so this saves a
/// setsockopt(2) per request, and a 30 s timeout then comes at most a second late. Shorter than it
/// should be is harmless: recv(2) returns with nothing due, once, and the timeout is set anew.
const RECV_TIMEOUT_SLACK_PARTS: u32 = 32;

/// One connection on a blocking socket, and the thread that has nothing else to do.
pub struct Conversation<'w> {
    pub(crate) worker: &'w Worker,
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) tracked: Tracked,
    pub(crate) bell: Arc<Bell>,
    /// Handles of `bell` as long as no other connection has one.
    bell_handles: usize,
    pub(crate) conn: Conn,
    now: Instant,
    draining: bool,
    recv_timeout: Option<Duration>,
}

impl<'w> Conversation<'w> {
    /// Begins with a socket that was just accepted.
    pub fn new(stream: TcpStream, worker: &'w Worker) -> Conversation<'w> {
        let stream = Arc::new(stream);
        let bell = Arc::new(Bell::of(&stream));
        let tracked = worker.stop.track(Some((&stream, &bell)));
        let now = Instant::now();
        let address = Address::new(Arc::clone(&bell) as Arc<dyn Wake>, 0);
        let conn = worker.conn(address, now);
        let bell_handles = Arc::strong_count(&bell);
        Conversation {
            worker,
            stream,
            tracked,
            bell,
            bell_handles,
            conn,
            now,
            draining: false,
            recv_timeout: None,
        }
    }

    /// Serves the connection to its end, on this thread as long as that can be done. `scratch` is
    /// the thread's receive buffer.
    pub fn run(mut self, scratch: &mut [u8]) {
        if self.run_alone(scratch, |conversation| conversation.is_known_to_others()) {
            match self.worker.threads.try_acquire() {
                Some(second) => self.run_duplex(scratch, second),
                None => self.conn.exhausted(),
            }
        }
    }

    /// Serves the connection to its end on this thread, whatever it becomes: where there is no
    /// other connection that could have something for it.
    pub fn run_without_others(mut self, scratch: &mut [u8]) {
        self.run_alone(scratch, |_| false);
    }

    /// Serves the connection to its end on two threads: this one reads, a new one writes, for which
    /// there is room (`second`).
    pub fn run_duplex(self, scratch: &mut [u8], second: Slot) {
        if self.recv_timeout.is_some() {
            // The clock is for the writer to watch now. Fails only for a duration of zero.
            let _ = self.stream.set_read_timeout(None);
        }
        duplex::converse(self, scratch);
        drop(second);
    }

    /// Every wait in here is a system call that does not return before it has something to say.
    /// Returns false at the connection's end, true once `is_over` says so.
    fn run_alone(&mut self, scratch: &mut [u8], is_over: fn(&Conversation) -> bool) -> bool {
        // ANCHOR: conversation
        loop {
            self.look_for_stop();
            if is_over(self) {
                return true;
            }
            if self.bell.take_rung() {
                // Two streams of this very connection may talk to each other (RFC 8441).
                self.conn.resume(self.now);
            }
            let Some(wants) = self.conn.wants() else { return false };
            if wants.deadline.is_some_and(|at| at <= self.now) {
                self.late(scratch);
            } else if let Some(part) = &wants.file {
                match self.worker.files.read(part) {
                    Ok(bytes) => self.conn.file_read(bytes, self.now),
                    Err(_) => self.conn.file_failed(self.now),
                }
            } else if wants.write {
                self.write();
            } else if wants.shutdown {
                // A peer that is gone already makes this fail; the read that follows will tell.
                let _ = self.stream.shutdown(Shutdown::Write);
                self.conn.shutdown_done(self.now);
            } else if wants.turn {
                // The others have threads of their own.
                self.conn.resume(self.now);
            } else if wants.read {
                self.read(&wants, scratch);
            } else {
                self.bell.wait(self.remaining(&wants));
                self.now = Instant::now();
            }
        }
        // ANCHOR_END: conversation
    }

    /// Whether another connection may ring for this one: whoever may has a handle of the bell.
    /// They are given out and taken back in calls on this connection, so the count is exact enough.
    fn is_known_to_others(&self) -> bool {
        Arc::strong_count(&self.bell) > self.bell_handles
    }

    /// The server may have been told to stop: then so is the connection, with what lies in its
    /// socket by now.
    fn look_for_stop(&mut self) {
        if let Some(at) = self.worker.stop.requested_at()
            && !self.draining
        {
            self.draining = true;
            self.tracked.told();
            self.conn.drain(unread(&*self.stream), at);
        }
    }

    fn read(&mut self, wants: &Wants, scratch: &mut [u8]) {
        self.limit_recv(self.remaining(wants));
        let result = (&*self.stream).read(scratch);
        self.now = Instant::now();
        self.received(result, scratch);
    }

    /// A deadline is due. This thread may have been stopped or busy while bytes came in time.
    fn late(&mut self, scratch: &mut [u8]) {
        if self.conn.input_is_late(self.now) {
            let result = receive_now(&*self.stream, scratch);
            self.now = Instant::now();
            self.received(result, scratch);
        }
        look_at_output(&mut self.conn, &*self.stream, self.now);
        self.conn.timeout(self.now);
    }

    fn received(&mut self, result: io::Result<usize>, scratch: &[u8]) {
        match result {
            Ok(0) => {
                // What is due comes first: the end of file may be our own, at the end of draining.
                self.conn.timeout(self.now);
                self.conn.receive_eof(self.now);
            }
            Ok(n) => self.conn.receive(&scratch[..n], self.now),
            Err(error) => match error.kind() {
                // SO_RCVTIMEO; what is due, if anything, is for the clock to say.
                ErrorKind::WouldBlock => self.recv_timeout = None,
                ErrorKind::Interrupted => {}
                _ => self.conn.abort(),
            },
        }
    }

    fn write(&mut self) {
        match write_output(&self.stream, &self.conn) {
            Ok((n, _)) => {
                // A send may have taken long, and the next wait must not begin in the past.
                self.now = Instant::now();
                self.conn.sent(n, self.now);
            }
            Err(error) => {
                // What is due comes first: the error may be our own cut, at the end of draining.
                self.now = Instant::now();
                self.look_for_stop();
                look_at_output(&mut self.conn, &*self.stream, self.now);
                self.conn.timeout(self.now);
                // WouldBlock is SO_SNDTIMEO, inherited from the listener.
                if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                    self.conn.abort();
                }
            }
        }
    }

    /// SO_RCVTIMEO, set only where the one in force would return too late.
    fn limit_recv(&mut self, remaining: Duration) {
        let latest = remaining + remaining / RECV_TIMEOUT_SLACK_PARTS;
        if self.recv_timeout.is_none_or(|set| set > latest) {
            // Fails only for zero, which `remaining` never is.
            let _ = self.stream.set_read_timeout(Some(remaining));
            self.recv_timeout = Some(remaining);
        }
    }

    /// Time to the deadline, never zero: to setsockopt(2) zero means for ever.
    fn remaining(&self, wants: &Wants) -> Duration {
        const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);
        wants.deadline.map_or(FOREVER, |at| {
            at.saturating_duration_since(self.now).max(Duration::from_micros(1))
        })
    }
}

/// The thread that accepts: tracked, because it may be blocked in accept(2) when the server stops.
#[derive(Debug)]
pub struct Accepting<'w> {
    worker: &'w Worker,
    tracked: Tracked,
}

impl<'w> Accepting<'w> {
    /// Begins to accept, on the calling thread.
    pub fn new(worker: &'w Worker) -> Accepting<'w> {
        Accepting { worker, tracked: worker.stop.track(None) }
    }

    /// Waits for the next connection. [`Accepted::Empty`]: the server stops, and nobody is left who
    /// came before.
    ///
    /// # Errors
    /// What accept(2) says and no retry can mend.
    pub fn next(&self) -> io::Result<Accepted> {
        let (stop, listener) = (&self.worker.stop, &self.worker.listener);
        let stopping = stop.requested();
        if stopping {
            self.tracked.told();
            listener.set_nonblocking()?;
        }
        let over = stop.is_over(Instant::now());
        let accepted = if over { Accepted::Empty } else { listener.accept()? };
        if matches!(accepted, Accepted::Empty) {
            listener.shutdown();
        }
        Ok(accepted)
    }
}

/// Stack of a thread that has conversations, in bytes. HTTP/2 inside TLS touches 96 KiB of it in a
/// build without optimisation, so there is room for as much again. Only touched pages take memory,
/// the rest is address space; the guard page below turns an overrun into a crash.
const STACK_BYTES: usize = 256 << 10;

/// A thread for conversations, to be spawned.
pub fn conversation_thread() -> thread::Builder {
    thread::Builder::new().name("conversation".to_owned()).stack_size(STACK_BYTES)
}

/// How many conversations, or threads that have them, there may be at once. A model takes a slot
/// *before* it accepts, so that at the limit clients wait in the kernel's backlog and cost the
/// server nothing.
#[derive(Debug)]
pub struct Slots {
    stop: Arc<Stop>,
    free: AtomicUsize,
    all: usize,
}

/// The right to have one of them; given back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// `all` slots, waiting for which ends when the time to drain is over.
    pub fn new(all: usize, stop: &Arc<Stop>) -> Arc<Slots> {
        Arc::new(Slots { stop: Arc::clone(stop), free: AtomicUsize::new(all), all })
    }

    /// Waits for a free slot. While the server stops too: others may wait at its listener. `None`
    /// when the time to drain is over.
    pub fn acquire(self: &Arc<Slots>) -> Option<Slot> {
        let mut monitor = self.stop.lock_monitor();
        loop {
            if self.stop.is_over(Instant::now()) {
                return None;
            }
            if let Some(slot) = self.take() {
                return Some(slot);
            }
            monitor = self.stop.wait_changed(monitor);
        }
    }

    /// A slot, if one is free now.
    pub fn try_acquire(self: &Arc<Slots>) -> Option<Slot> {
        let _monitor = self.stop.lock_monitor();
        self.take()
    }

    /// To be called under the monitor, which is what orders every change.
    fn take(self: &Arc<Slots>) -> Option<Slot> {
        let free = self.free.load(Relaxed).checked_sub(1)?;
        self.free.store(free, Relaxed);
        Some(Slot(Arc::clone(self)))
    }

    /// Waits until every slot has been given back.
    pub fn wait_all_free(&self) {
        let mut monitor = self.stop.lock_monitor();
        while self.free.load(Relaxed) < self.all {
            monitor = self.stop.wait_changed(monitor);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let _monitor = self.0.stop.lock_monitor();
            self.0.free.fetch_add(1, Relaxed);
        }
        self.0.stop.notify();
    }
}
