//! One connection's protocol state. Does no I/O, reads no clock, spawns nothing, cannot fail.
//!
//! The contract of a driver (that is: of every I/O model in this workspace):
//!
//! ```text
//!   bytes arrived         -> receive(bytes, now)    all are taken; the slice may be reused at once
//!   peer stopped sending  -> receive_eof(now)
//!   bytes left            -> sent(n, now)           n = a prefix of slices() or chunks()
//!   deadline passed       -> timeout(now)           early or repeated calls are harmless;
//!                                                   if input_is_late(now): read once before it;
//!                                                   if output_is_late(now): unacknowledged(n, now)
//!                                                   before it, n = what SIOCOUTQ says
//!   file bytes were read  -> file_read(bytes, now)  answers wants().file
//!   they cannot be read   -> file_failed(now)       answers wants().file
//!   FIN was sent          -> shutdown_done(now)     answers wants().shutdown
//!   its bell was rung     -> woken(now)             another connection has something for it
//!   others had their turn -> woken(now)             answers wants().turn
//!   the server is to stop -> drain(n, now)          n = bytes that lie in the socket by then; they
//!                                                   and what is in flight are answered
//!   the socket failed     -> abort()
//!   no thread is left     -> exhausted()
//!   after any of these    -> ask wants() again; None means close the socket
//! ```
//!
//! A protocol error is answered in the protocol (400, 408, ...) and then closes the connection, so
//! the only `Result` in a model is a system call's. The answer of [`Conn::wants`] may change after
//! every call above and at no other time.

mod chat;
mod counters;
mod deadlines;
mod delivery;
mod echo;
mod files;
mod http1;
mod http2;
mod limits;
mod memory;
mod origin;
mod output;
mod routes;
mod service;
mod tls;
mod wake;
mod websocket;

use std::cell::Cell;
use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use chat::Chat;
pub use counters::{Counters, Outcome, Totals};
use deadlines::{Deadline, Deadlines};
use delivery::Delivery;
use echo::Echo;
pub use files::{FileId, FileTable, FileTableBuilder};
use http1::Http1;
use http2::Http2;
pub use limits::Limits;
use memory::Share;
pub use memory::{CONNECTION_BYTES, Memory, MemoryChange};
pub use origin::check_origin;
use output::Output;
pub use service::{Clock, Common, Program, Protocol, Service};
use tls::Tls;
pub use wake::{Address, Wake};
use websocket::WebSocket;

/// Input that a protocol may leave unprocessed (behind a delayed reply, or while the peer does not
/// read) before the driver is asked to stop reading: as much as the largest head, so that a head
/// can always arrive whole.
fn stash_is_full(stash: &[u8], limits: &Limits) -> bool {
    // A control frame of a WebSocket is waited for whole.
    stash.len() >= limits.head_bytes_max.max(websocket::INPUT_KEPT_MAX)
}

/// Bytes that are read behind our FIN before there is a pause: as much as two reads bring, which is
/// more than most peers have on their way.
const DISCARDED_AT_ONCE_MAX: usize = 128 << 10;

/// The pause. With the above it makes 6 MB/s: in a linger time of a second there is room for what
/// an upload that was refused had on its way, and a flood costs two reads in each pause.
const DISCARD_PAUSE: Duration = Duration::from_millis(20);

/// What a connection waits for: the driver's whole knowledge of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// Read from the socket when it has bytes.
    pub read: bool,
    /// There are bytes in [`Conn::slices`] to write.
    pub write: bool,
    /// Send FIN (shutdown(2) with `SHUT_WR`), then call [`Conn::shutdown_done`].
    pub shutdown: bool,
    /// Input is left that others need not wait for: let them have their turn, then call
    /// [`Conn::resume`]. Never together with `write`, because [`Conn::sent`] goes on by itself.
    pub turn: bool,
    /// Read this part of a file, then call [`Conn::file_read`]. Stays the same until answered.
    pub file: Option<FileRead>,
    /// Call [`Conn::timeout`] at this time.
    pub deadline: Option<Instant>,
}

/// A part of a file of the [`FileTable`], to be read by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRead {
    /// Which file.
    pub file: FileId,
    /// First byte wanted.
    pub offset: u64,
    /// Bytes wanted; at most [`Limits::file_read_bytes_max`], never zero.
    pub len: usize,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Requests are taken.
    Open,
    /// No more requests; the output is being flushed. `linger`: then send FIN and read on.
    Flushing { linger: bool },
    /// The output is out; FIN is to be sent.
    HalfClosing,
    /// FIN is out; input is read and dropped until the peer closes too. Closing at once would make
    /// the kernel answer bytes still on their way with RST, and RST destroys the reply in the
    /// peer's receive buffer (RFC 9112 section 9.6).
    Lingering,
    /// Nothing left to do.
    Closed,
}

/// The protocol that a connection speaks now.
enum State {
    Echo(Echo),
    Http1(Http1),
    Http2(Box<Http2>),
    WebSocket(Box<WebSocket>),
}

/// One connection. See the module's text for the contract.
pub struct Conn {
    service: Arc<Service>,
    /// Where others reach this connection's driver.
    address: Address,
    /// It has joined a chat, so other connections may wake its driver.
    joined_chat: Cell<bool>,
    /// Between the wire and everything else, where the listener speaks TLS.
    tls: Option<Box<Tls>>,
    state: State,
    /// Input that could not be processed yet. Unallocated whenever it is empty.
    stash: Vec<u8>,
    output: Output,
    deadlines: Deadlines,
    /// Its part of what all connections hold.
    share: Share,
    delivery: Delivery,
    phase: Phase,
    outcome: Outcome,
    eof: bool,
    /// The driver may have handles of the output.
    lends: bool,
    /// Bytes that lay in the socket when the server was told to stop, and have not come in yet;
    /// `None`: it was not told.
    unread: Option<usize>,
    /// Bytes that came behind our FIN since the last pause.
    discarded: usize,
    /// They have come in: what follows them is not answered any more.
    draining: bool,
    /// Bytes of the input that came before that, or with the last of it, and that the protocol has
    /// not used yet.
    promised: usize,
}

/// What a protocol may touch while it works on input.
struct Context<'a> {
    service: &'a Arc<Service>,
    address: &'a Address,
    joined_chat: &'a Cell<bool>,
    output: &'a mut Output,
    deadlines: &'a mut Deadlines,
    now: Instant,
    eof: bool,
    /// The server is to stop: what begins beyond the first `promised` bytes of the input is not
    /// answered any more.
    draining: bool,
    promised: usize,
}

impl Context<'_> {
    /// `deadline` comes when this much time has passed.
    fn set(&mut self, deadline: Deadline, time: Duration) {
        self.deadlines.set(deadline, self.now + time, self.now);
    }
}

/// What a protocol says after it has worked on input.
struct Progress {
    /// Bytes of input that are done with.
    used: usize,
    /// `None`: nothing more can be done with this input; wait for an event.
    then: Option<Then>,
}

/// What follows, other than waiting.
enum Then {
    /// Take no more requests, flush, close.
    Close(Close),
    /// The rest of the input is another protocol's.
    Become(State),
}

/// How a protocol wants its connection to end.
#[derive(Debug, Clone, Copy)]
struct Close {
    linger: bool,
    outcome: Outcome,
}

impl Conn {
    /// A connection that was just accepted; `address` is where others can wake its driver.
    pub fn new(service: &Arc<Service>, address: Address, now: Instant) -> Conn {
        service.counters.accepted();
        let mut deadlines = Deadlines::default();
        let tls = service.common.tls.as_ref().map(Tls::new);
        if tls.is_some() {
            deadlines.set(Deadline::Handshake, now + service.limits.handshake_timeout(), now);
        } else {
            deadlines.set(Deadline::Idle, now + service.limits.idle_timeout(), now);
        }
        let state = match service.protocol {
            Protocol::Echo => State::Echo(Echo),
            Protocol::Http => State::Http1(Http1::default()),
        };
        let unusable = matches!(tls, Some(None));
        let mut conn = Conn {
            service: Arc::clone(service),
            address,
            joined_chat: Cell::new(false),
            tls: tls.flatten(),
            state,
            stash: Vec::new(),
            output: Output::default(),
            deadlines,
            share: Share::new(&service.common.memory),
            delivery: Delivery::new(now),
            phase: Phase::Open,
            outcome: Outcome::Completed,
            eof: false,
            lends: false,
            unread: None,
            discarded: 0,
            draining: false,
            promised: usize::MAX,
        };
        if unusable {
            conn.close(Outcome::HandshakeFailed);
        }
        conn.account();
        conn
    }

    /// Bytes arrived. All of them are taken: the slice may be reused as soon as this returns.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.service.counters.received(bytes.len());
        if self.phase == Phase::Lingering {
            return self.discard(bytes.len(), now);
        }
        if self.phase != Phase::Open || bytes.is_empty() {
            return;
        }
        let stopping = self.unread.is_some() && !self.draining;
        if let Some(unread) = &mut self.unread {
            *unread = unread.saturating_sub(bytes.len());
            // Before the last of them are looked at, so that the last reply can say that it is.
            self.draining |= self.is_all_read();
        }
        if self.tls.is_some() {
            self.receive_sealed(bytes, now);
        } else {
            self.receive_plain(bytes, now);
        }
        if stopping {
            self.begin_draining(now);
        }
        self.settle(now);
    }

    /// Input behind our FIN. A peer that floods is slowed down, so that others do not pay for what
    /// is thrown away; what an honest one had on its way is read all the same.
    fn discard(&mut self, n: usize, now: Instant) {
        self.discarded += n;
        if self.discarded >= DISCARDED_AT_ONCE_MAX {
            self.discarded = 0;
            self.deadlines.set(Deadline::Discard, now + DISCARD_PAUSE, now);
        }
    }

    /// Bytes for the protocol.
    fn receive_plain(&mut self, bytes: &[u8], now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        if self.stash.is_empty() {
            let used = self.advance(bytes, now);
            if self.phase == Phase::Open {
                self.stash.extend_from_slice(&bytes[used..]);
            }
        } else {
            self.stash.extend_from_slice(bytes);
            // What is put off goes on in its turn, however much comes meanwhile.
            if !self.state.is_put_off() {
                self.advance_stash(now);
            }
        }
    }

    /// The peer sent FIN: there will be no more input. What was asked before is still answered.
    pub fn receive_eof(&mut self, now: Instant) {
        self.eof = true;
        self.unread = self.unread.and(Some(0));
        match self.phase {
            Phase::Open => {
                self.advance_stash(now);
                let delimited = !matches!(self.state, State::Echo(_));
                if let Some(outcome) = self.tls.as_ref().and_then(|tls| tls.cut_short(delimited)) {
                    self.outcome = outcome;
                }
            }
            Phase::Lingering => self.close(self.outcome),
            Phase::Flushing { .. } | Phase::HalfClosing | Phase::Closed => {}
        }
        self.settle(now);
    }

    /// The first `n` bytes of [`Conn::slices`] or [`Conn::chunks`] are with the kernel.
    pub fn sent(&mut self, n: usize, now: Instant) {
        if n == 0 {
            // No progress: the peer's time to read something goes on.
            return;
        }
        self.service.counters.sent(n);
        self.delivery.sent(n);
        self.lends = false;
        if self.phase == Phase::Closed {
            // What was lent to an asynchronous send is not here any more.
            return;
        }
        match &mut self.tls {
            None => self.output.sent(n),
            Some(tls) => {
                tls.sealed_mut().sent(n);
                tls.seal(&mut self.output);
            }
        }
        self.deadlines.clear(Deadline::WriteStall);
        // Room in the output may be what a reply, a pipelined request or the end was waiting for.
        let ending = self.eof || self.draining;
        if self.phase == Phase::Open
            && (ending || self.state.awaits_room() || !self.stash.is_empty())
        {
            self.advance_stash(now);
        }
        self.begin_idle(now);
        self.settle(now);
    }

    /// The driver's clock says `now`: whatever is due happens. Early calls do nothing.
    pub fn timeout(&mut self, now: Instant) {
        for due in self.deadlines.due(now) {
            // An earlier one may have put this one off, or ended the connection.
            if self.phase != Phase::Closed && self.deadlines.take(due, now) {
                self.passed(due, now);
            }
        }
        self.settle(now);
    }

    /// Whether a deadline is due that what the peer has acknowledged would move: the driver is to
    /// ask the kernel, and to tell by [`Conn::unacknowledged`] before it calls [`Conn::timeout`].
    pub fn output_is_late(&self, now: Instant) -> bool {
        let due = |deadline| self.deadlines.is_due(deadline, now);
        // One deadline stands for all that the streams of HTTP/2 wait for: windows, and the idle
        // time of a WebSocket, too.
        let streams = || matches!(&self.state, State::Http2(http2) if http2.awaits_peer());
        due(Deadline::Reply) && streams() || Deadline::OF_OUTPUT.into_iter().any(due)
    }

    /// `n` bytes are with the kernel that the peer has not acknowledged: SIOCOUTQ (tcp(7)).
    pub fn unacknowledged(&mut self, n: usize, now: Instant) {
        self.delivery.look(n, now);
    }

    /// This deadline has come.
    fn passed(&mut self, due: Deadline, now: Instant) {
        let limits = &self.service.limits;
        let goes_on = self.delivery.goes_on(limits.write_timeout(), now);
        match due {
            // Before it has taken what it was sent, the peer cannot be late with what follows.
            Deadline::Idle if goes_on => {
                self.deadlines.set(Deadline::Idle, now + limits.idle_timeout(), now);
            }
            Deadline::Linger if goes_on => {
                self.deadlines.set(Deadline::Linger, now + limits.linger_timeout(), now);
            }
            Deadline::WriteStall if self.delivery.ends_at(limits.write_timeout()) > now => {
                self.watch_output(now);
            }
            // A peer that is still reading its reply is not idle; the write deadline watches it.
            Deadline::Idle if !self.is_flushed() && !self.state.watches_silence() => {}
            Deadline::Idle => self.idle_over(now),
            Deadline::WriteStall => self.close(Outcome::WriteTimeout),
            Deadline::Linger => self.close(self.outcome),
            // It is read again, now that nothing is set any more.
            Deadline::Discard => {}
            Deadline::Drain => self.close(Outcome::DrainTimeout),
            Deadline::Handshake => self.close(Outcome::HandshakeFailed),
            Deadline::Head | Deadline::Body => self.request_timed_out(now),
            Deadline::Reply | Deadline::Push => {
                if let State::Http2(http2) = &mut self.state {
                    http2.time_is_up(goes_on);
                }
                self.due(due, now);
            }
        }
    }

    /// Whether a deadline is due that input would have moved. The driver may have been busy with
    /// others, or the process stopped, while that input came in time: so it reads once more before
    /// it calls [`Conn::timeout`]. Once only, or a peer that floods could put a deadline off for
    /// ever.
    pub fn input_is_late(&self, now: Instant) -> bool {
        let due = |deadline| self.deadlines.is_due(deadline, now);
        // To HTTP/2 one deadline stands for all that its streams wait for: bodies, windows.
        let streams = matches!(self.state, State::Http2(_)) && due(Deadline::Reply);
        let read = self.wants().is_some_and(|wants| wants.read);
        read && (streams || Deadline::OF_INPUT.into_iter().any(due))
    }

    /// The bytes that [`Wants::file`] asked for, or fewer: the rest is asked for again.
    pub fn file_read(&mut self, bytes: Bytes, now: Instant) {
        if bytes.is_empty() {
            // The file is shorter than it was at start. The length is promised already.
            return self.file_failed(now);
        }
        // An asynchronous read may come back after the connection has ended.
        if self.phase == Phase::Open {
            match &mut self.state {
                State::Http1(http1) => http1.file_read(bytes, &mut self.output),
                State::Http2(http2) => http2.file_read(Some(bytes)),
                State::Echo(_) | State::WebSocket(_) => {}
            }
            self.advance_stash(now);
        }
        self.settle(now);
    }

    /// The bytes that [`Wants::file`] asked for cannot be read. The head has promised them, so
    /// ending the connection short of them is the only honest reply left (RFC 9112 section 8).
    pub fn file_failed(&mut self, now: Instant) {
        if let (Phase::Open, State::Http2(http2)) = (self.phase, &mut self.state) {
            // Only the one stream ends (RFC 9113 section 5.4.2).
            http2.file_read(None);
            self.advance_stash(now);
        } else {
            self.flush_and_close(Close { linger: false, outcome: Outcome::FileFailed });
        }
        self.settle(now);
    }

    /// Its bell was rung: another connection has something for this one. For nothing is harmless.
    pub fn resume(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            self.advance_stash(now);
        }
        self.settle(now);
    }

    /// FIN was sent, as [`Wants::shutdown`] asked.
    pub fn shutdown_done(&mut self, now: Instant) {
        if self.phase == Phase::HalfClosing {
            self.phase = Phase::Lingering;
            self.delivery.begin(now);
            self.deadlines.set(Deadline::Linger, now + self.service.limits.linger_timeout(), now);
            if self.eof {
                self.close(self.outcome);
            }
        }
    }

    /// The server is to stop: finish the request in flight and those that lie in the socket
    /// (`unread` bytes: FIONREAD, tcp(7)), begin no other, close. Whatever is left after
    /// [`Limits::drain_timeout_ms`] is cut. Only the first call counts.
    pub fn drain(&mut self, unread: usize, now: Instant) {
        if self.unread.is_some() || self.phase == Phase::Closed {
            return;
        }
        self.unread = Some(if self.eof { 0 } else { unread });
        self.deadlines.set(Deadline::Drain, now + self.service.limits.drain_timeout(), now);
        self.begin_draining(now);
        self.settle(now);
    }

    /// Whether the server was told to stop, and all that had arrived by then has come in. A
    /// handshake that has begun is finished: its request is often right behind it.
    fn is_all_read(&self) -> bool {
        let handshaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        self.unread == Some(0) && !handshaking
    }

    fn begin_draining(&mut self, now: Instant) {
        if self.is_all_read() {
            self.draining = true;
            self.promised = self.stash.len();
            if self.phase == Phase::Open {
                self.advance_stash(now);
            }
        }
    }

    /// The socket failed (reset, unreachable, write error): there is nobody to talk to.
    pub fn abort(&mut self) {
        self.close(Outcome::Reset);
    }

    /// The driver lacks what it needs to go on with this connection, such as a thread.
    pub fn exhausted(&mut self) {
        self.close(Outcome::Exhausted);
    }

    /// What the connection waits for now; `None` means: close the socket.
    pub fn wants(&self) -> Option<Wants> {
        let limits = &self.service.limits;
        let room = self.output.len() < self.service.output_high_water_bytes();
        let flushed = self.is_flushed();
        let (read, file) = match self.phase {
            Phase::Closed => return None,
            Phase::Open => {
                let file = match &self.state {
                    State::Http1(http1) if room => http1.wants_file(limits),
                    State::Http2(http2) if room => http2.wants_file(),
                    _ => None,
                };
                let reads = !self.eof && room && !stash_is_full(&self.stash, limits);
                (reads && !self.share.is_held_back(), file)
            }
            Phase::Flushing { .. } | Phase::HalfClosing => (false, None),
            Phase::Lingering => (!self.deadlines.is_set(Deadline::Discard), None),
        };
        Some(Wants {
            read,
            write: !flushed,
            shutdown: self.phase == Phase::HalfClosing,
            turn: self.phase == Phase::Open && flushed && self.state.is_put_off(),
            file,
            deadline: self.deadlines.earliest(),
        })
    }

    /// True between two requests: nothing asked, nothing owed. Such a connection may be cut when
    /// the server stops.
    pub fn is_idle(&self) -> bool {
        self.state.is_between_requests() && self.stash.is_empty() && self.is_flushed()
    }

    /// True when all that is left is to read what the peer still sends, and to drop it. It gets no
    /// reply for that, so it can wait for those who do.
    pub fn is_lingering(&self) -> bool {
        self.phase == Phase::Lingering
    }

    /// True from the moment when other connections may wake this one's driver. Before that only the
    /// peer and the clock can give it something to do.
    pub fn has_joined_chat(&self) -> bool {
        self.joined_chat.get()
    }

    /// How the connection ended; meaningful once [`Conn::wants`] is `None`.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The output, borrowed: fills `slices` from its front and returns how many were filled.
    /// For models that write before they return to the connection (readiness, blocking).
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.tls.as_ref().map_or(&self.output, |tls| tls.sealed()).slices(slices)
    }

    /// The output as counted handles, front first. For models that lend memory to somebody who
    /// outlives the call (io_uring, another thread): a handle keeps its bytes alive whatever
    /// becomes of the connection.
    pub fn chunks(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.lends = true;
        self.tls.as_mut().map_or(&mut self.output, |tls| tls.sealed_mut()).chunks()
    }

    /// All output is with the kernel.
    fn is_flushed(&self) -> bool {
        self.output.is_empty() && self.tls.as_ref().is_none_or(|tls| tls.sealed().is_empty())
    }

    /// Lets the protocol work on `input`; returns how much of it is done with.
    fn advance(&mut self, input: &[u8], now: Instant) -> usize {
        let mut used = 0;
        loop {
            let mut context = Context {
                service: &self.service,
                address: &self.address,
                joined_chat: &self.joined_chat,
                output: &mut self.output,
                deadlines: &mut self.deadlines,
                now,
                eof: self.eof,
                draining: self.draining,
                promised: self.promised,
            };
            let progress = self.state.advance(&mut context, &input[used..]);
            used += progress.used;
            self.promised = self.promised.saturating_sub(progress.used);
            match progress.then {
                None => return used,
                Some(Then::Become(state)) => self.state = state,
                Some(Then::Close(close)) => {
                    self.flush_and_close(close);
                    return used;
                }
            }
        }
    }

    /// The idle time counts from when the peer has been sent all that it asked for.
    fn begin_idle(&mut self, now: Instant) {
        if self.phase == Phase::Open
            && self.is_flushed()
            && self.tls.as_ref().is_none_or(|tls| tls.is_established())
            && self.state.is_between_requests()
            && !self.deadlines.is_set(Deadline::Head)
            && !(self.state.keeps_idle() && self.deadlines.is_set(Deadline::Idle))
        {
            self.deadlines.set(Deadline::Idle, now + self.service.limits.idle_timeout(), now);
        }
    }

    fn advance_stash(&mut self, now: Instant) {
        let mut stash = std::mem::take(&mut self.stash);
        let used = self.advance(&stash, now);
        if self.phase == Phase::Open && used < stash.len() {
            stash.drain(..used);
            self.stash = stash;
        }
    }

    fn request_timed_out(&mut self, now: Instant) {
        let close = match (self.phase, &mut self.state) {
            (Phase::Open, State::Http1(http1)) => {
                http1.request_timed_out(&self.stash, &self.service, &mut self.output, now)
            }
            (Phase::Open, State::Http2(http2)) => {
                http2.head_late();
                return self.advance_stash(now);
            }
            _ => return,
        };
        self.flush_and_close(close);
    }

    /// A reply or a push that was put off is due.
    fn due(&mut self, due: Deadline, now: Instant) {
        if self.phase == Phase::Open {
            match &mut self.state {
                State::Http1(http1) => http1.reply_due(),
                State::WebSocket(websocket) => websocket.timed_out(due),
                // They look at the clock themselves.
                State::Echo(_) | State::Http2(_) => {}
            }
            self.advance_stash(now);
        }
    }

    /// Nobody has said anything for the idle time.
    fn idle_over(&mut self, now: Instant) {
        match (self.phase, &mut self.state) {
            (Phase::Open, State::Http2(http2)) => {
                http2.idle_over();
                self.advance_stash(now);
            }
            // Silence is no sign of death here: it asks first (RFC 6455 section 5.5.2).
            (Phase::Open, State::WebSocket(websocket)) => {
                websocket.timed_out(Deadline::Idle);
                self.advance_stash(now);
            }
            // By way of the output: TLS takes its leave there.
            _ => self.flush_and_close(Close { linger: false, outcome: Outcome::IdleTimeout }),
        }
    }

    fn flush_and_close(&mut self, close: Close) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Flushing { linger: close.linger && !self.eof };
        self.outcome = close.outcome;
        self.stash = Vec::new();
        self.deadlines.clear_requests();
    }

    fn close(&mut self, outcome: Outcome) {
        if self.phase != Phase::Closed {
            // What the socket says then is the driver's own doing.
            let outcome = if self.share.is_told_to_end() { Outcome::Exhausted } else { outcome };
            self.phase = Phase::Closed;
            self.outcome = outcome;
            self.service.counters.closed(outcome);
        }
    }

    /// Says what the connection holds, and ends it where it must make room for others. Inlined: a
    /// plain request comes by twice, and has nothing to say.
    #[inline(always)]
    fn account(&mut self) {
        let tls = self.tls.as_ref().map_or(0, |tls| tls.held());
        let own = self.output.held() + self.stash.capacity();
        self.share.set(tls + own + self.state.held(), &self.address);
        if self.share.is_told_to_end() {
            self.make_room();
        }
    }

    #[cold]
    fn make_room(&mut self) {
        self.close(Outcome::Exhausted);
        if std::mem::take(&mut self.lends) {
            let lent = self.tls.as_ref().map_or(&self.output, |tls| tls.sealed());
            self.share.lend(lent.held());
        }
        // At once: its driver may have others to look after before it drops the connection.
        self.state = State::Echo(Echo);
        self.stash = Vec::new();
        self.output = Output::default();
        self.tls = None;
        self.share.set(0, &self.address);
    }

    /// When to look next what the peer has acknowledged, or to give it up.
    fn watch_output(&mut self, now: Instant) {
        let timeout = self.service.limits.write_timeout();
        let at = self.delivery.ends_at(timeout).min(now + timeout / delivery::LOOKS);
        self.deadlines.set(Deadline::WriteStall, at, now);
    }

    /// Brings phase and write deadline in line with the output, after every event.
    fn settle(&mut self, now: Instant) {
        if let Some(tls) = &mut self.tls {
            tls.seal(&mut self.output);
            if matches!(self.phase, Phase::Flushing { .. }) && self.output.is_empty() {
                tls.send_close_notify();
            }
        }
        if self.is_flushed() {
            self.deadlines.clear(Deadline::WriteStall);
            match self.phase {
                Phase::Flushing { linger: true } => self.phase = Phase::HalfClosing,
                Phase::Flushing { linger: false } => self.close(self.outcome),
                Phase::Open | Phase::HalfClosing | Phase::Lingering | Phase::Closed => {}
            }
        } else if !self.deadlines.is_set(Deadline::WriteStall) {
            self.delivery.begin(now);
            self.watch_output(now);
        }
        self.account();
    }
}

impl State {
    fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        match self {
            State::Echo(echo) => echo.advance(cx, input),
            State::Http1(http1) => http1.advance(cx, input),
            State::Http2(http2) => http2.advance(cx, input),
            State::WebSocket(websocket) => websocket.advance(cx, input),
        }
    }

    /// Bytes of memory that it takes beside input and output.
    fn held(&self) -> usize {
        match self {
            State::Echo(_) | State::Http1(_) => 0,
            State::Http2(http2) => http2.held(),
            State::WebSocket(websocket) => websocket.held(),
        }
    }

    /// True when nothing is asked that is not answered.
    fn is_between_requests(&self) -> bool {
        match self {
            State::Http1(http1) => http1.is_between_requests(),
            State::Http2(http2) => http2.is_between_requests(),
            State::Echo(_) | State::WebSocket(_) => true,
        }
    }

    /// True when not everything that is sent is a reply: to answer a PING must not prolong the idle
    /// time.
    fn keeps_idle(&self) -> bool {
        matches!(self, State::Http2(_) | State::WebSocket(_))
    }

    /// True when it could go on at once, and lets others have their turn first.
    fn is_put_off(&self) -> bool {
        match self {
            // Its replies leave before it goes on.
            State::Echo(_) | State::Http1(_) => false,
            State::Http2(http2) => http2.is_put_off(),
            State::WebSocket(websocket) => websocket.is_put_off(),
        }
    }

    /// True when it is told of every idle time, and decides itself what that means.
    fn watches_silence(&self) -> bool {
        matches!(self, State::WebSocket(_))
    }

    /// True when room in the output lets it go on without more input.
    fn awaits_room(&self) -> bool {
        match self {
            State::Echo(_) => false,
            State::Http1(http1) => !http1.is_between_requests(),
            State::Http2(http2) => http2.awaits_room(),
            State::WebSocket(websocket) => websocket.awaits_room(),
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("phase", &self.phase)
            .field("stash", &self.stash.len())
            .field("output", &self.output.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Conn {
    /// A model that drops a connection before its end (its loop failed, say) has cut it.
    fn drop(&mut self) {
        self.close(Outcome::Reset);
    }
}
