//! One connection's protocol state. Does no I/O, reads no clock, starts no thread, cannot fail.
//!
//! The contract of a driver (each I/O model of this workspace is one):
//!
//! ```text
//!   bytes arrived          -> receive(bytes, now)    all are taken; the slice may be reused
//!   peer sent FIN          -> receive_eof(now)
//!   bytes were written     -> sent(n, now)           n = a prefix of slices() or chunks()
//!   deadline passed        -> timeout(now)           early or repeated calls are harmless;
//!                                                    if input_is_late(now): read once before;
//!                                                    if output_is_late(now): call
//!                                                    unacknowledged(SIOCOUTQ, now) before
//!   file bytes were read   -> file_read(bytes, now)  answers wants().file
//!   they cannot be read    -> file_failed(now)       answers wants().file
//!   FIN was sent           -> shutdown_done(now)     answers wants().shutdown
//!   Wake::wake was called  -> resume(now)            another connection woke this one
//!   others had their turn  -> resume(now)            answers wants().turn
//!   the server is stopping -> drain(n, now)          n = FIONREAD; requests in these bytes and
//!                                                    those in flight are still answered
//!   the socket failed      -> abort()
//!   no thread is left      -> exhausted()
//!   after any of these     -> call wants() again; None means close the socket
//! ```
//!
//! A protocol error is answered in the protocol (400, 408, ...) and then the connection is closed.
//! So the only `Result` in a model is that of a system call. The result of [`Conn::wants`] changes
//! only in one of the calls above.

mod acknowledged;
mod chat;
mod counters;
mod deadlines;
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

use acknowledged::Acknowledged;
pub use chat::Chat;
pub use counters::{Counters, Outcome, Totals};
use deadlines::{Deadline, Deadlines};
use echo::Echo;
pub use files::{FileId, FileTable, FileTableBuilder};
use http1::Http1;
use http2::Http2;
pub use limits::Limits;
use memory::MemoryUse;
pub use memory::{CONNECTION_BYTES, Memory, MemoryChange};
pub use origin::check_origin;
use output::Output;
pub use service::{Clock, Common, Program, Protocol, Service};
use tls::Tls;
pub use wake::{Address, Wake};
use websocket::WebSocket;

/// Whether the driver should stop reading, because input waits unprocessed (behind a delayed reply,
/// or because the peer does not read). The limit is the size of the largest head, so that a head
/// can always arrive whole.
fn unprocessed_is_full(unprocessed: &[u8], limits: &Limits) -> bool {
    // A WebSocket waits for a control frame until it is whole.
    unprocessed.len() >= limits.head_bytes_max.max(websocket::INPUT_KEPT_MAX)
}

/// After this many bytes behind our FIN, reading pauses. It is two reads, which is more than most
/// peers have in flight.
const DISCARDED_AT_ONCE_MAX: usize = 128 << 10;

/// With [`DISCARDED_AT_ONCE_MAX`] the pause allows 6 MB/s. Within a linger timeout of a second the
/// rest of a refused upload can arrive, and a flood costs two reads per pause.
const DISCARD_PAUSE: Duration = Duration::from_millis(20);

/// What a connection waits for. A driver knows nothing else of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// Read from the socket when it has bytes.
    pub read: bool,
    /// There are bytes in [`Conn::slices`] to write.
    pub write: bool,
    /// Send FIN (shutdown(2) with `SHUT_WR`), then call [`Conn::shutdown_done`].
    pub shutdown: bool,
    /// Input is left, but other connections should run first: let them have their turn, then call
    /// [`Conn::resume`]. Never set together with `write`, because [`Conn::sent`] continues by
    /// itself.
    pub turn: bool,
    /// Read this part of a file, then call [`Conn::file_read`]. Stays the same until answered.
    pub file: Option<FileRead>,
    /// Call [`Conn::timeout`] at this time.
    pub deadline: Option<Instant>,
}

/// A part of a file of the [`FileTable`], which the driver has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRead {
    /// Which file.
    pub file: FileId,
    /// First byte wanted.
    pub offset: u64,
    /// Bytes wanted; at most [`Limits::file_read_bytes_max`], never zero.
    pub len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No more requests are taken; the output is being written. `linger`: then send FIN and read
    /// on.
    Flushing {
        linger: bool,
    },
    /// The output is written; FIN is still to be sent.
    HalfClosing,
    /// FIN is sent. Input is read and dropped until the peer closes too. If we closed at once, the
    /// kernel would answer bytes in flight with RST, and RST destroys the reply in the peer's
    /// receive buffer (RFC 9112 section 9.6).
    Lingering,
    Closed,
}

enum ProtocolState {
    Echo(Echo),
    Http1(Http1),
    Http2(Box<Http2>),
    WebSocket(Box<WebSocket>),
}

/// One connection. The module's text states the contract.
pub struct Conn {
    service: Arc<Service>,
    address: Address,
    /// It has joined the chat, so other connections may wake its driver.
    joined_chat: Cell<bool>,
    tls: Option<Box<Tls>>,
    state: ProtocolState,
    /// Input that could not be processed yet. Owns no memory while it is empty.
    unprocessed: Vec<u8>,
    output: Output,
    deadlines: Deadlines,
    memory_use: MemoryUse,
    acknowledged: Acknowledged,
    phase: Phase,
    outcome: Outcome,
    eof: bool,
    /// The driver may hold handles of the output.
    output_is_lent: bool,
    /// Bytes that lay in the socket when the server was told to stop and have not been read yet.
    /// `None`: it was not told to stop.
    unread: Option<usize>,
    /// Bytes read behind our FIN since the last pause.
    discarded: usize,
    /// All of the `unread` bytes have been read: requests behind them are not answered.
    draining: bool,
    /// Bytes of input, read before draining or with the last `unread` byte, that the protocol has
    /// not used yet.
    before_drain: usize,
}

/// What a protocol can use while it processes input.
struct Context<'a> {
    service: &'a Arc<Service>,
    address: &'a Address,
    joined_chat: &'a Cell<bool>,
    output: &'a mut Output,
    deadlines: &'a mut Deadlines,
    now: Instant,
    eof: bool,
    /// The server is stopping: a request that begins behind the first `before_drain` bytes of the
    /// input is not answered.
    draining: bool,
    before_drain: usize,
}

impl Context<'_> {
    fn set(&mut self, deadline: Deadline, time: Duration) {
        self.deadlines.set(deadline, self.now + time, self.now);
    }
}

struct Progress {
    /// Bytes of input that were processed.
    used: usize,
    /// `None`: the protocol waits for an event.
    next: Option<Next>,
}

enum Next {
    /// Take no more requests, write the output, close.
    Close(Close),
    /// Another protocol processes the rest of the input.
    Become(ProtocolState),
}

/// How a protocol wants its connection to end.
#[derive(Debug, Clone, Copy)]
struct Close {
    linger: bool,
    outcome: Outcome,
}

impl Conn {
    /// A connection that was just accepted. Others wake its driver at `address`.
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
            Protocol::Echo => ProtocolState::Echo(Echo),
            Protocol::Http => ProtocolState::Http1(Http1::default()),
        };
        let unusable = matches!(tls, Some(None));
        let mut conn = Conn {
            service: Arc::clone(service),
            address,
            joined_chat: Cell::new(false),
            tls: tls.flatten(),
            state,
            unprocessed: Vec::new(),
            output: Output::default(),
            deadlines,
            memory_use: MemoryUse::new(&service.common.memory),
            acknowledged: Acknowledged::new(now),
            phase: Phase::Open,
            outcome: Outcome::Completed,
            eof: false,
            output_is_lent: false,
            unread: None,
            discarded: 0,
            draining: false,
            before_drain: usize::MAX,
        };
        if unusable {
            conn.close(Outcome::HandshakeFailed);
        }
        conn.report_memory();
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
            // Set before the last of them are processed, so that the last reply can say that it is
            // the last.
            self.draining |= self.is_all_read();
        }
        if self.tls.is_some() {
            self.receive_encrypted(bytes, now);
        } else {
            self.receive_plaintext(bytes, now);
        }
        if stopping {
            self.begin_draining(now);
        }
        self.after_event(now);
    }

    /// Drops input behind our FIN. Reading pauses during a flood, so that other connections do not
    /// pay for bytes that are dropped.
    fn discard(&mut self, n: usize, now: Instant) {
        self.discarded += n;
        let (most, pause) = if self.is_refused_http2() {
            // Flow control allows a valid client no more in flight (RFC 9113 section 5.2). The rest
            // fills the receive window, and that stops the peer.
            (http2::WINDOW_BYTES, self.service.limits.linger_timeout())
        } else {
            (DISCARDED_AT_ONCE_MAX, DISCARD_PAUSE)
        };
        if self.discarded >= most {
            self.discarded = 0;
            self.deadlines.set(Deadline::Discard, now + pause, now);
        }
    }

    /// An HTTP/2 connection that ended for what its peer sent.
    fn is_refused_http2(&self) -> bool {
        self.outcome == Outcome::Rejected && matches!(self.state, ProtocolState::Http2(_))
    }

    fn receive_plaintext(&mut self, bytes: &[u8], now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        if self.unprocessed.is_empty() {
            let used = self.advance(bytes, now);
            if self.phase == Phase::Open {
                self.unprocessed.extend_from_slice(&bytes[used..]);
            }
        } else {
            self.unprocessed.extend_from_slice(bytes);
            // A protocol that awaits its turn continues then, whatever arrives before.
            if !self.state.awaits_turn() {
                self.advance_unprocessed(now);
            }
        }
    }

    /// The peer sent FIN: no more input will come. Earlier requests are still answered.
    pub fn receive_eof(&mut self, now: Instant) {
        self.eof = true;
        self.unread = self.unread.and(Some(0));
        match self.phase {
            Phase::Open => {
                self.advance_unprocessed(now);
                let delimited = !matches!(self.state, ProtocolState::Echo(_));
                if let Some(outcome) = self.tls.as_ref().and_then(|tls| tls.eof_outcome(delimited))
                {
                    self.outcome = outcome;
                }
            }
            Phase::Lingering => self.close(self.outcome),
            Phase::Flushing { .. } | Phase::HalfClosing | Phase::Closed => {}
        }
        self.after_event(now);
    }

    /// The kernel took the first `n` bytes of [`Conn::slices`] or [`Conn::chunks`].
    pub fn sent(&mut self, n: usize, now: Instant) {
        if n == 0 {
            // No progress: the write timeout keeps running.
            return;
        }
        self.service.counters.sent(n);
        self.acknowledged.sent(n);
        self.output_is_lent = false;
        if self.phase == Phase::Closed {
            // The driver returns memory that it was lent; the output is gone already.
            return;
        }
        match &mut self.tls {
            None => self.output.sent(n),
            Some(tls) => {
                tls.encrypted_mut().sent(n);
                tls.encrypt(&mut self.output);
            }
        }
        self.deadlines.clear(Deadline::WriteStall);
        // Room in the output may be what a reply, a pipelined request or the end of the connection
        // waits for.
        let ending = self.eof || self.draining;
        if self.phase == Phase::Open
            && (ending || self.state.awaits_room() || !self.unprocessed.is_empty())
        {
            self.advance_unprocessed(now);
        }
        self.begin_idle(now);
        self.after_event(now);
    }

    /// The time is `now`. Handles every deadline that has passed. Early calls do nothing.
    pub fn timeout(&mut self, now: Instant) {
        for due in self.deadlines.due(now) {
            // An earlier deadline may have moved this one, or ended the connection.
            if self.phase != Phase::Closed && self.deadlines.take(due, now) {
                self.deadline_passed(due, now);
            }
        }
        self.after_event(now);
    }

    /// Whether a deadline has passed that an acknowledgement of the peer would have moved. If so,
    /// the driver asks the kernel and calls [`Conn::unacknowledged`] before it calls
    /// [`Conn::timeout`].
    pub fn output_is_late(&self, now: Instant) -> bool {
        let due = |deadline| self.deadlines.is_due(deadline, now);
        // HTTP/2 has one deadline for all that its streams wait for, such as windows and the idle
        // time of a WebSocket.
        let streams = || matches!(&self.state, ProtocolState::Http2(http2) if http2.awaits_peer());
        due(Deadline::Reply) && streams() || Deadline::OF_OUTPUT.into_iter().any(due)
    }

    /// The kernel holds `n` bytes that the peer has not acknowledged: SIOCOUTQ (tcp(7)).
    pub fn unacknowledged(&mut self, n: usize, now: Instant) {
        self.acknowledged.check(n, now);
    }

    fn deadline_passed(&mut self, due: Deadline, now: Instant) {
        let limits = &self.service.limits;
        let peer_reads = self.acknowledged.is_advancing(limits.write_timeout(), now);
        match due {
            // A peer that is still receiving output is not late with its answer.
            Deadline::Idle if peer_reads => {
                self.deadlines.set(Deadline::Idle, now + limits.idle_timeout(), now);
            }
            Deadline::Linger if peer_reads => {
                self.deadlines.set(Deadline::Linger, now + limits.linger_timeout(), now);
            }
            Deadline::WriteStall if self.acknowledged.ends_at(limits.write_timeout()) > now => {
                self.watch_output(now);
            }
            // A peer that has output to receive is not idle; `WriteStall` watches it.
            Deadline::Idle if !self.is_flushed() && !self.state.handles_idle() => {}
            Deadline::Idle => self.idle_timed_out(now),
            Deadline::WriteStall => self.close(Outcome::WriteTimeout),
            Deadline::Linger => self.close(self.outcome),
            // The deadline was cleared, so `wants` asks for reads again.
            Deadline::Discard => {}
            Deadline::Drain => self.close(Outcome::DrainTimeout),
            Deadline::Handshake => self.close(Outcome::HandshakeFailed),
            Deadline::Head | Deadline::Body => self.request_timed_out(now),
            Deadline::Reply | Deadline::Push => {
                if let ProtocolState::Http2(http2) = &mut self.state {
                    http2.time_is_up(peer_reads);
                }
                self.reply_is_due(due, now);
            }
        }
    }

    /// Whether a deadline has passed that input would have moved. That input may have come in time
    /// while the driver served others or the process was stopped. So the driver reads once before
    /// it calls [`Conn::timeout`]. It reads only once, because a flood could otherwise postpone the
    /// deadline for ever.
    pub fn input_is_late(&self, now: Instant) -> bool {
        let due = |deadline| self.deadlines.is_due(deadline, now);
        // HTTP/2 has one deadline for all that its streams wait for, such as bodies and windows.
        let streams = matches!(self.state, ProtocolState::Http2(_)) && due(Deadline::Reply);
        let read = self.wants().is_some_and(|wants| wants.read);
        read && (streams || Deadline::OF_INPUT.into_iter().any(due))
    }

    /// The bytes that [`Wants::file`] asked for, or the first of them; the rest is asked for again.
    pub fn file_read(&mut self, bytes: Bytes, now: Instant) {
        if bytes.is_empty() {
            // The file is shorter than it was at start, and the length was already sent.
            return self.file_failed(now);
        }
        // An asynchronous read may complete after the connection has ended.
        if self.phase == Phase::Open {
            match &mut self.state {
                ProtocolState::Http1(http1) => http1.file_read(bytes, &mut self.output),
                ProtocolState::Http2(http2) => http2.file_read(Some(bytes)),
                ProtocolState::Echo(_) | ProtocolState::WebSocket(_) => {}
            }
            self.advance_unprocessed(now);
        }
        self.after_event(now);
    }

    /// The bytes that [`Wants::file`] asked for cannot be read. The head has announced their
    /// number, so the connection ends before that number is sent (RFC 9112 section 8).
    pub fn file_failed(&mut self, now: Instant) {
        if let (Phase::Open, ProtocolState::Http2(http2)) = (self.phase, &mut self.state) {
            // Only this stream ends (RFC 9113 section 5.4.2).
            http2.file_read(None);
            self.advance_unprocessed(now);
        } else {
            self.flush_and_close(Close { linger: false, outcome: Outcome::FileFailed });
        }
        self.after_event(now);
    }

    /// Continues after a wake-up by another connection, or after other connections have had their
    /// turn. Calls without a reason are harmless.
    pub fn resume(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            self.advance_unprocessed(now);
        }
        self.after_event(now);
    }

    /// FIN was sent, as [`Wants::shutdown`] asked.
    pub fn shutdown_done(&mut self, now: Instant) {
        if self.phase == Phase::HalfClosing {
            self.phase = Phase::Lingering;
            self.acknowledged.begin(now);
            self.deadlines.set(Deadline::Linger, now + self.service.limits.linger_timeout(), now);
            if self.eof {
                self.close(self.outcome);
            }
        }
    }

    /// The server is stopping. Requests in flight and those in the socket (`unread` bytes:
    /// FIONREAD, tcp(7)) are answered; later ones are not. The connection is closed after
    /// [`Limits::drain_timeout_ms`] at the latest. Only the first call counts.
    pub fn drain(&mut self, unread: usize, now: Instant) {
        if self.unread.is_some() || self.phase == Phase::Closed {
            return;
        }
        self.unread = Some(if self.eof { 0 } else { unread });
        self.deadlines.set(Deadline::Drain, now + self.service.limits.drain_timeout(), now);
        self.begin_draining(now);
        self.after_event(now);
    }

    /// The server was told to stop, and all bytes that had arrived by then have been read. A TLS
    /// handshake that has begun is finished, because its request often follows at once.
    fn is_all_read(&self) -> bool {
        let handshaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        self.unread == Some(0) && !handshaking
    }

    fn begin_draining(&mut self, now: Instant) {
        if self.is_all_read() {
            self.draining = true;
            self.before_drain = self.unprocessed.len();
            if self.phase == Phase::Open {
                self.advance_unprocessed(now);
            }
        }
    }

    /// The socket failed (reset, unreachable, write error).
    pub fn abort(&mut self) {
        self.close(Outcome::Reset);
    }

    /// The driver lacks a resource that this connection needs, such as a thread.
    pub fn exhausted(&mut self) {
        self.close(Outcome::Exhausted);
    }

    /// What the connection waits for now. `None`: close the socket.
    pub fn wants(&self) -> Option<Wants> {
        let limits = &self.service.limits;
        let room = self.output.len() < self.service.output_high_water_bytes();
        let flushed = self.is_flushed();
        let (read, file) = match self.phase {
            Phase::Closed => return None,
            Phase::Open => {
                let file = match &self.state {
                    ProtocolState::Http1(http1) if room => http1.wants_file(limits),
                    ProtocolState::Http2(http2) if room => http2.wants_file(),
                    _ => None,
                };
                let reads = !self.eof && room && !unprocessed_is_full(&self.unprocessed, limits);
                (reads && !self.memory_use.must_pause(), file)
            }
            Phase::Flushing { .. } | Phase::HalfClosing => (false, None),
            Phase::Lingering => (!self.deadlines.is_set(Deadline::Discard), None),
        };
        Some(Wants {
            read,
            write: !flushed,
            shutdown: self.phase == Phase::HalfClosing,
            turn: self.phase == Phase::Open && flushed && self.state.awaits_turn(),
            file,
            deadline: self.deadlines.earliest(),
        })
    }

    /// True between two requests, with no output left. Such a connection may be closed when the
    /// server stops.
    pub fn is_idle(&self) -> bool {
        self.state.is_between_requests() && self.unprocessed.is_empty() && self.is_flushed()
    }

    /// True when the connection only drops what the peer still sends. No reply depends on that, so
    /// the driver may serve other connections first.
    pub fn is_lingering(&self) -> bool {
        self.phase == Phase::Lingering
    }

    /// True once other connections may wake this one's driver. Before, only the peer and the clock
    /// can.
    pub fn has_joined_chat(&self) -> bool {
        self.joined_chat.get()
    }

    /// How the connection ended. Valid once [`Conn::wants`] is `None`.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Borrows the output: fills `slices` from its front and returns how many it filled. For models
    /// that write before they call the connection again (readiness, blocking).
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.tls.as_ref().map_or(&self.output, |tls| tls.encrypted()).slices(slices)
    }

    /// The output as reference-counted handles, front first. For models that lend memory to the
    /// kernel or to another thread (io_uring, tokio): a handle keeps its bytes valid even after the
    /// connection has ended.
    pub fn chunks(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.output_is_lent = true;
        self.tls.as_mut().map_or(&mut self.output, |tls| tls.encrypted_mut()).chunks()
    }

    fn is_flushed(&self) -> bool {
        self.output.is_empty() && self.tls.as_ref().is_none_or(|tls| tls.encrypted().is_empty())
    }

    /// Lets the protocol process `input`; returns how many bytes it used.
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
                before_drain: self.before_drain,
            };
            let progress = self.state.advance(&mut context, &input[used..]);
            used += progress.used;
            self.before_drain = self.before_drain.saturating_sub(progress.used);
            match progress.next {
                None => return used,
                Some(Next::Become(state)) => self.state = state,
                Some(Next::Close(close)) => {
                    self.flush_and_close(close);
                    return used;
                }
            }
        }
    }

    /// The idle time begins when all replies are written.
    fn begin_idle(&mut self, now: Instant) {
        if self.phase == Phase::Open
            && self.is_flushed()
            && self.tls.as_ref().is_none_or(|tls| tls.is_established())
            && self.state.is_between_requests()
            && !self.deadlines.is_set(Deadline::Head)
            && !(self.state.keeps_idle_deadline() && self.deadlines.is_set(Deadline::Idle))
        {
            self.deadlines.set(Deadline::Idle, now + self.service.limits.idle_timeout(), now);
        }
    }

    fn advance_unprocessed(&mut self, now: Instant) {
        let mut unprocessed = std::mem::take(&mut self.unprocessed);
        let used = self.advance(&unprocessed, now);
        if self.phase == Phase::Open && used < unprocessed.len() {
            unprocessed.drain(..used);
            self.unprocessed = unprocessed;
        }
    }

    fn request_timed_out(&mut self, now: Instant) {
        let close = match (self.phase, &mut self.state) {
            (Phase::Open, ProtocolState::Http1(http1)) => {
                http1.request_timed_out(&self.unprocessed, &self.service, &mut self.output, now)
            }
            (Phase::Open, ProtocolState::Http2(http2)) => {
                http2.head_late();
                return self.advance_unprocessed(now);
            }
            _ => return,
        };
        self.flush_and_close(close);
    }

    fn reply_is_due(&mut self, due: Deadline, now: Instant) {
        if self.phase == Phase::Open {
            match &mut self.state {
                ProtocolState::Http1(http1) => http1.reply_due(),
                ProtocolState::WebSocket(websocket) => websocket.timed_out(due),
                // These read the clock themselves.
                ProtocolState::Echo(_) | ProtocolState::Http2(_) => {}
            }
            self.advance_unprocessed(now);
        }
    }

    fn idle_timed_out(&mut self, now: Instant) {
        match (self.phase, &mut self.state) {
            (Phase::Open, ProtocolState::Http2(http2)) => {
                http2.idle_timed_out();
                self.advance_unprocessed(now);
            }
            // A WebSocket may be idle for long: it sends a ping first (RFC 6455 section 5.5.2).
            (Phase::Open, ProtocolState::WebSocket(websocket)) => {
                websocket.timed_out(Deadline::Idle);
                self.advance_unprocessed(now);
            }
            // This ends through the output, because TLS sends close_notify there.
            _ => self.flush_and_close(Close { linger: false, outcome: Outcome::IdleTimeout }),
        }
    }

    fn flush_and_close(&mut self, close: Close) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Flushing { linger: close.linger && !self.eof };
        self.outcome = close.outcome;
        self.unprocessed = Vec::new();
        self.deadlines.clear_requests();
    }

    fn close(&mut self, outcome: Outcome) {
        if self.phase != Phase::Closed {
            // The driver shut the socket down itself, so a socket error is not the cause.
            let outcome = if self.memory_use.must_end() { Outcome::Exhausted } else { outcome };
            self.phase = Phase::Closed;
            self.outcome = outcome;
            self.service.counters.closed(outcome);
        }
    }

    /// Updates the memory account, and ends the connection if the account demands it. Inlined,
    /// because it runs twice per request and mostly finds no change.
    #[inline(always)]
    fn report_memory(&mut self) {
        let tls = self.tls.as_ref().map_or(0, |tls| tls.held());
        let own = self.output.held() + self.unprocessed.capacity();
        self.memory_use.set(tls + own + self.state.held(), &self.address);
        if self.memory_use.must_end() {
            self.free_memory();
        }
    }

    #[cold]
    fn free_memory(&mut self) {
        self.close(Outcome::Exhausted);
        if std::mem::take(&mut self.output_is_lent) {
            let lent = self.tls.as_ref().map_or(&self.output, |tls| tls.encrypted());
            self.memory_use.lend(lent.held());
        }
        // Frees the memory now: the driver may serve others before it drops the connection.
        self.state = ProtocolState::Echo(Echo);
        self.unprocessed = Vec::new();
        self.output = Output::default();
        self.tls = None;
        self.memory_use.set(0, &self.address);
    }

    /// Sets the time of the next check for acknowledgements, or of the write timeout.
    fn watch_output(&mut self, now: Instant) {
        let timeout = self.service.limits.write_timeout();
        let at = self.acknowledged.ends_at(timeout).min(now + timeout / acknowledged::CHECKS);
        self.deadlines.set(Deadline::WriteStall, at, now);
    }

    fn after_event(&mut self, now: Instant) {
        if let Some(tls) = &mut self.tls {
            tls.encrypt(&mut self.output);
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
            self.acknowledged.begin(now);
            self.watch_output(now);
        }
        self.report_memory();
    }
}

impl ProtocolState {
    fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        match self {
            ProtocolState::Echo(echo) => echo.advance(cx, input),
            ProtocolState::Http1(http1) => http1.advance(cx, input),
            ProtocolState::Http2(http2) => http2.advance(cx, input),
            ProtocolState::WebSocket(websocket) => websocket.advance(cx, input),
        }
    }

    /// Bytes of memory that the protocol owns, without input and output.
    fn held(&self) -> usize {
        match self {
            ProtocolState::Echo(_) | ProtocolState::Http1(_) => 0,
            ProtocolState::Http2(http2) => http2.held(),
            ProtocolState::WebSocket(websocket) => websocket.held(),
        }
    }

    fn is_between_requests(&self) -> bool {
        match self {
            ProtocolState::Http1(http1) => http1.is_between_requests(),
            ProtocolState::Http2(http2) => http2.is_between_requests(),
            ProtocolState::Echo(_) | ProtocolState::WebSocket(_) => true,
        }
    }

    /// True for a protocol that also sends frames which are not replies: to answer a PING must not
    /// prolong the idle time.
    fn keeps_idle_deadline(&self) -> bool {
        matches!(self, ProtocolState::Http2(_) | ProtocolState::WebSocket(_))
    }

    /// True when it could continue, but other connections should run first.
    fn awaits_turn(&self) -> bool {
        match self {
            // These continue after their replies are written.
            ProtocolState::Echo(_) | ProtocolState::Http1(_) => false,
            ProtocolState::Http2(http2) => http2.awaits_turn(),
            ProtocolState::WebSocket(websocket) => websocket.awaits_turn(),
        }
    }

    /// True when the protocol decides itself what to do after the idle time.
    fn handles_idle(&self) -> bool {
        matches!(self, ProtocolState::WebSocket(_))
    }

    /// True when room in the output lets it continue without more input.
    fn awaits_room(&self) -> bool {
        match self {
            ProtocolState::Echo(_) => false,
            ProtocolState::Http1(http1) => !http1.is_between_requests(),
            ProtocolState::Http2(http2) => http2.awaits_room(),
            ProtocolState::WebSocket(websocket) => websocket.awaits_room(),
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("phase", &self.phase)
            .field("unprocessed", &self.unprocessed.len())
            .field("output", &self.output.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Conn {
    /// A connection that is dropped before its end (its loop failed, for example) is counted as
    /// reset.
    fn drop(&mut self) {
        self.close(Outcome::Reset);
    }
}
