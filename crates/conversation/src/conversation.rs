//! A connection on a blocking socket, and what to do next for it.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Address, Conn, FileRead, Wake, Wants};
use kit::{Slot, Tracked, Worker, look_at_output, receive_now, unread, write_output};

use crate::duplex;
use crate::wake_up::WakeUp;

/// SO_RCVTIMEO may stay longer than it should be by one part in this many. The idle deadline of
/// every request is the same time away, less the moments since it was set, so this saves a
/// setsockopt(2) per request, and a timeout of 30 s then comes at most a second late. A shorter
/// one is harmless: recv(2) returns with nothing due, once, and it is set anew.
const RECV_TIMEOUT_SLACK_PARTS: u32 = 32;

/// What the connection needs next. Each is one call, and each call may sleep.
#[derive(Debug)]
pub enum Next {
    /// A deadline has passed: [`Conversation::late`].
    Clock,
    /// Bytes of a file: [`Conversation::read_file`].
    File(FileRead),
    /// send(2) of [`Conversation::output`], then [`Conversation::sent`].
    Send,
    /// The FIN: [`Conversation::finish`].
    Finish,
    /// The next part of work that was cut in parts: [`Conversation::work`].
    Work,
    /// recv(2), then [`Conversation::received`]. SO_RCVTIMEO is set to the deadline.
    Receive,
    /// Neither input nor output: [`Conversation::wait`] for the deadline.
    Wait(Duration),
}

/// One connection on a blocking socket, and the thread that does nothing else.
pub struct Conversation<'w> {
    pub(crate) worker: &'w Worker,
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) tracked: Tracked,
    pub(crate) wake_up: Arc<WakeUp>,
    pub(crate) conn: Conn,
    now: Instant,
    draining: bool,
    recv_timeout: Option<Duration>,
}

impl<'w> Conversation<'w> {
    /// Begins with a socket that was just accepted.
    pub fn new(stream: TcpStream, worker: &'w Worker) -> Conversation<'w> {
        let stream = Arc::new(stream);
        let wake_up = Arc::new(WakeUp::of(&stream));
        let wake = || Arc::clone(&wake_up) as Arc<dyn Wake>;
        let tracked = worker.stop.track(Some((Arc::clone(&stream), wake())));
        let now = Instant::now();
        let conn = worker.conn(Address::new(wake(), 0), now);
        let (draining, recv_timeout) = (false, None);
        Conversation { worker, stream, tracked, wake_up, conn, now, draining, recv_timeout }
    }

    /// Serves the connection to its end. It gets a second thread when it joins a chat. `scratch`
    /// is the thread's receive buffer.
    pub fn run(mut self, scratch: &mut [u8]) {
        while let Some(next) = self.next() {
            match next {
                Next::Clock => self.late(scratch),
                Next::File(part) => self.read_file(&part),
                Next::Send => {
                    let sent = write_output(&self.stream, &self.conn).map(|(n, _)| n);
                    self.sent(sent);
                }
                Next::Finish => self.finish(),
                Next::Work => self.work(),
                Next::Receive => {
                    let received = (&*self.stream).read(scratch);
                    self.received(received, scratch);
                }
                Next::Wait(time) => self.wait(time),
            }
            if self.conn.has_joined_chat() {
                match self.worker.threads.try_acquire() {
                    Some(second) => return self.run_duplex(scratch, second),
                    None => self.conn.exhausted(),
                }
            }
        }
    }

    /// Serves the connection to its end on two threads: this one reads, a new one writes, for
    /// which `second` is the slot.
    pub fn run_duplex(self, scratch: &mut [u8], second: Slot) {
        if self.recv_timeout.is_some() {
            // The clock is for the writer to watch now. Fails only for a duration of zero.
            let _ = self.stream.set_read_timeout(None);
        }
        duplex::converse(self, scratch);
        drop(second);
    }

    /// What to do next; `None` at the connection's end. The clock comes first: a peer that never
    /// stops sending must not put off a deadline.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot be told what came of it")]
    pub fn next(&mut self) -> Option<Next> {
        self.look_for_stop();
        if self.wake_up.take() {
            // Two streams of this very connection may talk to each other (RFC 8441).
            self.conn.resume(self.now);
        }
        let wants = self.conn.wants()?;
        if wants.deadline.is_some_and(|at| at <= self.now) {
            return Some(Next::Clock);
        }
        Some(match wants {
            Wants { file: Some(part), .. } => Next::File(part),
            Wants { write: true, .. } => Next::Send,
            Wants { shutdown: true, .. } => Next::Finish,
            Wants { turn: true, .. } => Next::Work,
            Wants { read: true, deadline, .. } => {
                self.limit_recv(self.remaining(deadline));
                Next::Receive
            }
            Wants { deadline, .. } => Next::Wait(self.remaining(deadline)),
        })
    }

    /// The output's first bytes, for send(2) or writev(2).
    pub fn output<'s>(&'s self, slices: &mut [IoSlice<'s>]) -> usize {
        self.conn.slices(slices)
    }

    /// A send has returned.
    pub fn sent(&mut self, result: io::Result<usize>) {
        // It may have slept, and the next wait must not begin in the past.
        self.now = Instant::now();
        match result {
            Ok(n) => self.conn.sent(n, self.now),
            Err(error) => {
                // What is due comes first: the error may be the server's own cut, after draining.
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

    /// A receive has returned; its bytes are at the beginning of `scratch`.
    pub fn received(&mut self, result: io::Result<usize>, scratch: &[u8]) {
        self.now = Instant::now();
        match result {
            Ok(0) => {
                // What is due comes first: this may be the server's own cut, after draining.
                self.conn.timeout(self.now);
                self.conn.receive_eof(self.now);
            }
            Ok(n) => self.conn.receive(&scratch[..n], self.now),
            Err(error) => match error.kind() {
                // SO_RCVTIMEO; the clock says what is due, if anything.
                ErrorKind::WouldBlock => self.recv_timeout = None,
                ErrorKind::Interrupted => {}
                _ => self.conn.abort(),
            },
        }
    }

    /// A deadline has passed. Bytes may have arrived in time while this thread did not run, so the
    /// socket is read once more before the clock decides.
    pub fn late(&mut self, scratch: &mut [u8]) {
        if self.conn.input_is_late(self.now) {
            self.received(receive_now(&*self.stream, scratch), scratch);
        }
        look_at_output(&mut self.conn, &*self.stream, self.now);
        self.conn.timeout(self.now);
    }

    /// pread(2), which sleeps while the disk is asked.
    pub fn read_file(&mut self, part: &FileRead) {
        match self.worker.files.read(part) {
            Ok(bytes) => self.conn.file_read(bytes, self.now),
            Err(_) => self.conn.file_failed(self.now),
        }
    }

    /// shutdown(2): sends the FIN.
    pub fn finish(&mut self) {
        // Fails if the peer has reset the connection; the read that follows reports that.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.conn.shutdown_done(self.now);
    }

    /// Goes on with work that was cut in parts. Other connections have other threads, so there is
    /// no reason to wait.
    pub fn work(&mut self) {
        self.conn.resume(self.now);
    }

    /// Sleeps until the deadline, the stop, or another connection wakes this one.
    pub fn wait(&mut self, time: Duration) {
        self.wake_up.wait(time);
        self.now = Instant::now();
    }

    /// If the server was told to stop, tells the connection, and what lies in its socket by now.
    fn look_for_stop(&mut self) {
        if let Some(at) = self.worker.stop.requested_at()
            && !self.draining
        {
            self.draining = true;
            self.tracked.told();
            self.conn.drain(unread(&*self.stream), at);
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

    /// Time to the deadline, never zero: to setsockopt(2) zero means without end.
    fn remaining(&self, deadline: Option<Instant>) -> Duration {
        deadline.map_or(duplex::FOREVER, |at| {
            at.saturating_duration_since(self.now).max(Duration::from_micros(1))
        })
    }
}

/// The socket, for the calls that a model makes itself.
impl AsFd for Conversation<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
