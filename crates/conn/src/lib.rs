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
mod news;
mod origin;
mod output;
mod protocol;
mod routes;
mod service;
mod tls;
mod wake;
mod websocket;

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use acknowledged::Acknowledged;
pub use chat::Chat;
pub use counters::{Counters, Outcome, Totals};
use deadlines::Deadline;
pub use files::{FileId, FileTable, FileTableBuilder};
pub use limits::Limits;
use memory::MemoryUse;
pub use memory::{CONNECTION_BYTES, Memory, MemoryChange};
pub use origin::check_origin;
use output::Output;
use protocol::{Close, Context, Next, Progress, ProtocolLayer, ProtocolState};
pub use service::{Clock, Common, Program, Protocol, Service};
use tls::{Tls, TlsEvent, TlsFailure, TlsState};
pub use wake::{Address, Wake};

/// Whether the driver should stop reading, because input waits unprocessed (behind a delayed reply,
/// or because the peer does not read). The limit is the size of the largest head, so that a head
/// can always arrive whole.
fn unprocessed_is_full(unprocessed: &[u8], limits: &Limits) -> bool {
    // A WebSocket waits for a control frame until it is whole, and HTTP/2 for most frames.
    let kept = websocket::INPUT_KEPT_MAX.max(http2::INPUT_KEPT_MAX);
    unprocessed.len() >= limits.head_bytes_max.max(kept)
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
    HalfClosing,
    /// FIN is sent. Input is read and dropped until the peer closes too. If we closed at once, the
    /// kernel would answer bytes in flight with RST, and RST destroys the reply in the peer's
    /// receive buffer (RFC 9112 section 9.6).
    Lingering,
    Closed,
}

/// One connection. The module's text states the contract.
pub struct Conn {
    tls: Option<Box<Tls>>,
    protocol: ProtocolLayer,
    memory_use: MemoryUse,
    acknowledged: Acknowledged,
    /// The driver may hold handles of the output.
    output_is_lent: bool,
    /// Bytes that lay in the socket when the server was told to stop and have not been read yet.
    /// `None`: it was not told to stop.
    unread: Option<usize>,
    /// Bytes read behind our FIN since the last pause.
    discarded: usize,
}

impl Conn {
    /// A connection that was just accepted. Others wake its driver at `address`.
    pub fn new(service: &Arc<Service>, address: Address, now: Instant) -> Conn {
        service.counters.accepted();
        let mut protocol = ProtocolLayer::new(service, address);
        let tls = service.common.tls.as_ref().map(Tls::new);
        if tls.is_some() {
            protocol.set(Deadline::Handshake, service.limits.handshake_timeout(), now);
        } else {
            protocol.set(Deadline::Idle, service.limits.idle_timeout(), now);
        }
        let unusable = matches!(tls, Some(None));
        let mut conn = Conn {
            tls: tls.flatten(),
            protocol,
            memory_use: MemoryUse::new(&service.common.memory),
            acknowledged: Acknowledged::new(now),
            output_is_lent: false,
            unread: None,
            discarded: 0,
        };
        if unusable {
            conn.close(Outcome::HandshakeFailed);
        }
        conn.report_memory();
        conn
    }

    /// Bytes arrived. All of them are taken: the slice may be reused as soon as this returns.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.protocol.service.counters.received(bytes.len());
        if self.protocol.phase == Phase::Lingering {
            return self.discard(bytes.len(), now);
        }
        if self.protocol.phase != Phase::Open || bytes.is_empty() {
            return;
        }
        let stopping = self.unread.is_some() && !self.protocol.draining;
        if let Some(unread) = &mut self.unread {
            *unread = unread.saturating_sub(bytes.len());
            // Set before the last of them are processed, so that the last reply can say that it is
            // the last.
            self.protocol.draining |= self.is_all_read();
        }
        self.receive_from_wire(bytes, now);
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
            (http2::WINDOW_BYTES, self.protocol.service.limits.linger_timeout())
        } else {
            (DISCARDED_AT_ONCE_MAX, DISCARD_PAUSE)
        };
        if self.discarded >= most {
            self.discarded = 0;
            self.protocol.set(Deadline::Discard, pause, now);
        }
    }

    fn is_refused_http2(&self) -> bool {
        let http2 = matches!(self.protocol.state, ProtocolState::Http2(_));
        http2 && self.protocol.outcome == Outcome::Rejected
    }

    /// Gives bytes from the socket to the protocol, through TLS if the listener uses it.
    fn receive_from_wire(&mut self, bytes: &[u8], now: Instant) {
        let protocol = &mut self.protocol;
        let Some(tls) = &mut self.tls else { return protocol.receive(bytes, now) };
        // The first byte of TLS is never a letter, and that of HTTP always is.
        let plain_http =
            protocol.service.protocol == Protocol::Http && bytes[0].is_ascii_uppercase();
        if tls.state() == TlsState::New && plain_http {
            // Drops the TLS layer, so that the reply is not encrypted.
            self.tls = None;
            return protocol.refuse_plain_http(now);
        }
        let result = tls.receive(bytes, |event| {
            match event {
                TlsEvent::Established { resumed, alpn } => protocol.established(resumed, alpn, now),
                TlsEvent::Plaintext(plaintext) => protocol.receive(plaintext, now),
                TlsEvent::CloseNotify => protocol.receive_eof(now),
            }
            protocol.phase == Phase::Open
        });
        if let Err(failure) = result {
            // No data may follow an alert, and none can be encrypted.
            protocol.output = Output::default();
            let outcome = match failure {
                TlsFailure::Handshake => Outcome::HandshakeFailed,
                TlsFailure::AlertReceived => Outcome::Reset,
                TlsFailure::Malformed => Outcome::Rejected,
            };
            protocol.flush_and_close(Close { linger: true, outcome });
        }
    }

    /// The peer sent FIN: no more input will come. Earlier requests are still answered.
    pub fn receive_eof(&mut self, now: Instant) {
        self.unread = self.unread.and(Some(0));
        let phase = self.protocol.phase;
        self.protocol.receive_eof(now);
        match phase {
            Phase::Open => self.note_truncation(),
            Phase::Lingering => self.close(self.protocol.outcome),
            Phase::Flushing { .. } | Phase::HalfClosing | Phase::Closed => {}
        }
        self.after_event(now);
    }

    /// The peer sent FIN before TLS expects it.
    fn note_truncation(&mut self) {
        let delimited = !matches!(self.protocol.state, ProtocolState::Echo(_));
        match self.tls.as_ref().map(|tls| tls.state()) {
            Some(TlsState::Handshaking) => self.protocol.outcome = Outcome::HandshakeFailed,
            // An attacker on the path can forge a FIN but not a close_notify. HTTP does not need it
            // (RFC 9112 section 9.8), and many clients never send it.
            Some(TlsState::Established) if !delimited => self.protocol.outcome = Outcome::Truncated,
            None | Some(TlsState::New | TlsState::Established | TlsState::PeerClosed) => {}
        }
    }

    /// The kernel took the first `n` bytes of [`Conn::slices`] or [`Conn::chunks`].
    pub fn sent(&mut self, n: usize, now: Instant) {
        if n == 0 {
            // No progress: the write timeout keeps running.
            return;
        }
        self.protocol.service.counters.sent(n);
        self.acknowledged.sent(n);
        self.output_is_lent = false;
        if self.protocol.phase == Phase::Closed {
            // The driver returns memory that it was lent; the output is gone already.
            return;
        }
        match &mut self.tls {
            None => self.protocol.output.sent(n),
            Some(tls) => {
                tls.encrypted_mut().sent(n);
                tls.encrypt(&mut self.protocol.output);
            }
        }
        self.protocol.deadlines.clear(Deadline::WriteStall);
        // Room in the output may be what a reply, a pipelined request or the end of the connection
        // waits for.
        let ending = self.protocol.eof || self.protocol.draining;
        if self.protocol.phase == Phase::Open
            && (ending
                || self.protocol.state.awaits_room()
                || !self.protocol.unprocessed.is_empty())
        {
            self.protocol.resume(now);
        }
        self.begin_idle(now);
        self.after_event(now);
    }

    /// The time is `now`. Handles every deadline that has passed. Early calls do nothing.
    pub fn timeout(&mut self, now: Instant) {
        for due in self.protocol.deadlines.due(now) {
            // An earlier deadline may have moved this one, or ended the connection.
            if self.protocol.phase != Phase::Closed && self.protocol.deadlines.take(due, now) {
                self.deadline_passed(due, now);
            }
        }
        self.after_event(now);
    }

    /// Whether a deadline has passed that an acknowledgement of the peer would have moved. If so,
    /// the driver asks the kernel and calls [`Conn::unacknowledged`] before it calls
    /// [`Conn::timeout`].
    pub fn output_is_late(&self, now: Instant) -> bool {
        let due = |deadline| self.protocol.deadlines.is_due(deadline, now);
        // HTTP/2 has one deadline for all that its streams wait for, such as windows and the idle
        // time of a WebSocket.
        let streams =
            || matches!(&self.protocol.state, ProtocolState::Http2(http2) if http2.awaits_peer());
        due(Deadline::Reply) && streams() || Deadline::OF_OUTPUT.into_iter().any(due)
    }

    /// The kernel holds `n` bytes that the peer has not acknowledged: SIOCOUTQ (tcp(7)).
    pub fn unacknowledged(&mut self, n: usize, now: Instant) {
        self.acknowledged.check(n, now);
    }

    fn deadline_passed(&mut self, due: Deadline, now: Instant) {
        let limits = &self.protocol.service.limits;
        let peer_reads = self.acknowledged.is_advancing(limits.write_timeout(), now);
        match due {
            // A peer that is still receiving output is not late with its answer.
            Deadline::Idle if peer_reads => {
                self.protocol.set(Deadline::Idle, limits.idle_timeout(), now);
            }
            Deadline::Linger if peer_reads => {
                self.protocol.set(Deadline::Linger, limits.linger_timeout(), now);
            }
            Deadline::WriteStall if self.acknowledged.ends_at(limits.write_timeout()) > now => {
                self.watch_output(now);
            }
            // A peer that has output to receive is not idle; `WriteStall` watches it.
            Deadline::Idle if !self.is_flushed() && !self.protocol.state.handles_idle() => {}
            Deadline::Idle => self.protocol.idle_timed_out(now),
            Deadline::WriteStall => self.close(Outcome::WriteTimeout),
            Deadline::Linger => self.close(self.protocol.outcome),
            // The deadline was cleared, so `wants` asks for reads again.
            Deadline::Discard => {}
            Deadline::Drain => self.close(Outcome::DrainTimeout),
            Deadline::Handshake => self.close(Outcome::HandshakeFailed),
            Deadline::Head | Deadline::Body => self.protocol.request_timed_out(now),
            Deadline::Reply | Deadline::Push => self.protocol.reply_is_due(due, peer_reads, now),
        }
    }

    /// Whether a deadline has passed that input would have moved. That input may have come in time
    /// while the driver served others or the process was stopped. So the driver reads once before
    /// it calls [`Conn::timeout`]. It reads only once, because a flood could otherwise postpone the
    /// deadline for ever.
    pub fn input_is_late(&self, now: Instant) -> bool {
        let due = |deadline| self.protocol.deadlines.is_due(deadline, now);
        // HTTP/2 has one deadline for all that its streams wait for, such as bodies and windows.
        let streams =
            matches!(self.protocol.state, ProtocolState::Http2(_)) && due(Deadline::Reply);
        let read = self.wants().is_some_and(|wants| wants.read);
        read && (streams || Deadline::OF_INPUT.into_iter().any(due))
    }

    /// The bytes that [`Wants::file`] asked for, or the first of them; the rest is asked for again.
    pub fn file_read(&mut self, bytes: Bytes, now: Instant) {
        if bytes.is_empty() {
            // The file is shorter than it was at start, and the length was already sent.
            return self.file_failed(now);
        }
        self.protocol.file_read(bytes, now);
        self.after_event(now);
    }

    /// The bytes that [`Wants::file`] asked for cannot be read. The head has announced their
    /// number, so the connection ends before that number is sent (RFC 9112 section 8).
    pub fn file_failed(&mut self, now: Instant) {
        self.protocol.file_failed(now);
        self.after_event(now);
    }

    /// Continues after a wake-up by another connection, or after other connections have had their
    /// turn. Calls without a reason are harmless.
    pub fn resume(&mut self, now: Instant) {
        self.protocol.resume(now);
        self.after_event(now);
    }

    /// FIN was sent, as [`Wants::shutdown`] asked.
    pub fn shutdown_done(&mut self, now: Instant) {
        if self.protocol.phase == Phase::HalfClosing {
            self.protocol.phase = Phase::Lingering;
            self.acknowledged.begin(now);
            self.protocol.set(Deadline::Linger, self.protocol.service.limits.linger_timeout(), now);
            if self.protocol.eof {
                self.close(self.protocol.outcome);
            }
        }
    }

    /// The server is stopping. Requests in flight and those in the socket (`unread` bytes:
    /// FIONREAD, tcp(7)) are answered; later ones are not. The connection is closed after
    /// [`Limits::drain_timeout_ms`] at the latest. Only the first call counts.
    pub fn drain(&mut self, unread: usize, now: Instant) {
        if self.unread.is_some() || self.protocol.phase == Phase::Closed {
            return;
        }
        self.unread = Some(if self.protocol.eof { 0 } else { unread });
        self.protocol.set(Deadline::Drain, self.protocol.service.limits.drain_timeout(), now);
        self.begin_draining(now);
        self.after_event(now);
    }

    /// The server was told to stop, and all bytes that had arrived by then have been read. A TLS
    /// handshake that has begun is finished, because its request often follows at once.
    fn is_all_read(&self) -> bool {
        let handshaking = self.tls.as_ref().is_some_and(|tls| tls.state() == TlsState::Handshaking);
        self.unread == Some(0) && !handshaking
    }

    fn begin_draining(&mut self, now: Instant) {
        if self.is_all_read() {
            self.protocol.draining = true;
            self.protocol.before_drain = self.protocol.unprocessed.len();
            self.protocol.resume(now);
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
        let limits = &self.protocol.service.limits;
        let room = self.protocol.output.len() < self.protocol.service.output_high_water_bytes();
        let flushed = self.is_flushed();
        let (read, file) = match self.protocol.phase {
            Phase::Closed => return None,
            Phase::Open => {
                let file = if room { self.protocol.wants_file() } else { None };
                let reads = !self.protocol.eof
                    && room
                    && !unprocessed_is_full(&self.protocol.unprocessed, limits);
                (reads && !self.memory_use.must_pause(), file)
            }
            Phase::Flushing { .. } | Phase::HalfClosing => (false, None),
            Phase::Lingering => (!self.protocol.deadlines.is_set(Deadline::Discard), None),
        };
        Some(Wants {
            read,
            write: !flushed,
            shutdown: self.protocol.phase == Phase::HalfClosing,
            turn: self.protocol.phase == Phase::Open
                && flushed
                && self.protocol.state.awaits_turn(),
            file,
            deadline: self.protocol.deadlines.earliest(),
        })
    }

    /// True between two requests, with no output left. Such a connection may be closed when the
    /// server stops.
    pub fn is_idle(&self) -> bool {
        self.protocol.state.is_between_requests()
            && self.protocol.unprocessed.is_empty()
            && self.is_flushed()
    }

    /// True when the connection only drops what the peer still sends. No reply depends on that, so
    /// the driver may serve other connections first.
    pub fn is_lingering(&self) -> bool {
        self.protocol.phase == Phase::Lingering
    }

    /// True once other connections may wake this one's driver. Before, only the peer and the clock
    /// can.
    pub fn has_joined_chat(&self) -> bool {
        self.protocol.joined_chat.get()
    }

    /// How the connection ended. Valid once [`Conn::wants`] is `None`.
    pub fn outcome(&self) -> Outcome {
        self.protocol.outcome
    }

    /// Borrows the output: fills `slices` from its front and returns how many it filled. For models
    /// that write before they call the connection again (readiness, blocking).
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.wire_output().slices(slices)
    }

    /// The output as reference-counted handles, front first. For models that lend memory to the
    /// kernel (io_uring) or to a second thread: a handle keeps its bytes valid even after the
    /// connection has ended.
    pub fn chunks(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.output_is_lent = true;
        self.tls.as_mut().map_or(&mut self.protocol.output, |tls| tls.encrypted_mut()).chunks()
    }

    /// The bytes that go to the socket next: ciphertext where there is TLS.
    fn wire_output(&self) -> &Output {
        self.tls.as_ref().map_or(&self.protocol.output, |tls| tls.encrypted())
    }

    fn is_flushed(&self) -> bool {
        self.protocol.output.is_empty()
            && self.tls.as_ref().is_none_or(|tls| tls.encrypted().is_empty())
    }

    /// The idle time begins when all replies are written.
    fn begin_idle(&mut self, now: Instant) {
        if self.protocol.phase == Phase::Open
            && self.is_flushed()
            && self.tls.as_ref().is_none_or(|tls| tls.state().is_established())
            && self.protocol.state.is_between_requests()
            && !self.protocol.deadlines.is_set(Deadline::Head)
            && !(self.protocol.state.keeps_idle_deadline()
                && self.protocol.deadlines.is_set(Deadline::Idle))
        {
            self.protocol.set(Deadline::Idle, self.protocol.service.limits.idle_timeout(), now);
        }
    }

    fn close(&mut self, outcome: Outcome) {
        if self.protocol.phase != Phase::Closed {
            // The driver shut the socket down itself, so a socket error is not the cause.
            let outcome = if self.memory_use.must_end() { Outcome::Exhausted } else { outcome };
            self.protocol.phase = Phase::Closed;
            self.protocol.outcome = outcome;
            self.protocol.service.counters.closed(outcome);
        }
    }

    /// Updates the memory account, and ends the connection if the account demands it. Inlined,
    /// because it runs twice per request and mostly finds no change.
    #[inline(always)]
    fn report_memory(&mut self) {
        let tls = self.tls.as_ref().map_or(0, |tls| tls.held());
        self.memory_use.set(tls + self.protocol.held(), &self.protocol.address);
        if self.memory_use.must_end() {
            self.free_memory();
        }
    }

    #[cold]
    fn free_memory(&mut self) {
        self.close(Outcome::Exhausted);
        if std::mem::take(&mut self.output_is_lent) {
            self.memory_use.lend(self.wire_output().held());
        }
        // Frees the memory now: the driver may serve others before it drops the connection.
        self.protocol.free_memory();
        self.tls = None;
        self.memory_use.set(0, &self.protocol.address);
    }

    /// Sets the time of the next check for acknowledgements, or of the write timeout.
    fn watch_output(&mut self, now: Instant) {
        let timeout = self.protocol.service.limits.write_timeout();
        let at = self.acknowledged.ends_at(timeout).min(now + timeout / acknowledged::CHECKS);
        self.protocol.deadlines.set(Deadline::WriteStall, at, now);
    }

    fn after_event(&mut self, now: Instant) {
        if let Some(tls) = &mut self.tls {
            tls.encrypt(&mut self.protocol.output);
            if matches!(self.protocol.phase, Phase::Flushing { .. })
                && self.protocol.output.is_empty()
            {
                tls.close();
            }
        }
        if self.is_flushed() {
            self.protocol.deadlines.clear(Deadline::WriteStall);
            match self.protocol.phase {
                Phase::Flushing { linger: true } => self.protocol.phase = Phase::HalfClosing,
                Phase::Flushing { linger: false } => self.close(self.protocol.outcome),
                Phase::Open | Phase::HalfClosing | Phase::Lingering | Phase::Closed => {}
            }
        } else if !self.protocol.deadlines.is_set(Deadline::WriteStall) {
            self.acknowledged.begin(now);
            self.watch_output(now);
        }
        self.report_memory();
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("phase", &self.protocol.phase)
            .field("unprocessed", &self.protocol.unprocessed.len())
            .field("output", &self.protocol.output.len())
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
