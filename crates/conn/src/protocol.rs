//! The layer above TLS: the protocol of a connection, its input and its output. Without TLS, both
//! are those of the socket.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::deadlines::{Deadline, Deadlines};
use crate::echo::Echo;
use crate::http1::{self, Http1};
use crate::http2::Http2;
use crate::output::Output;
use crate::websocket::WebSocket;
use crate::{Address, FileRead, Outcome, Phase, Protocol, Service};

/// The ALPN name of HTTP/2 (RFC 9113 section 3.2, RFC 7301).
const ALPN_HTTP2: &[u8] = b"h2";

pub(crate) enum ProtocolState {
    Echo(Echo),
    Http1(Http1),
    Http2(Box<Http2>),
    WebSocket(Box<WebSocket>),
}

pub(crate) struct Context<'a> {
    pub(crate) service: &'a Arc<Service>,
    pub(crate) address: &'a Address,
    pub(crate) joined_chat: &'a Cell<bool>,
    pub(crate) output: &'a mut Output,
    pub(crate) deadlines: &'a mut Deadlines,
    pub(crate) now: Instant,
    pub(crate) eof: bool,
    /// The server is stopping: a request that begins behind the first `before_drain` bytes of the
    /// input is not answered.
    pub(crate) draining: bool,
    pub(crate) before_drain: usize,
}

impl Context<'_> {
    pub(crate) fn set(&mut self, deadline: Deadline, time: Duration) {
        self.deadlines.set(deadline, self.now + time, self.now);
    }
}

pub(crate) struct Progress {
    pub(crate) used: usize,
    /// `None`: the protocol waits for an event.
    pub(crate) next: Option<Next>,
}

pub(crate) enum Next {
    /// Take no more requests, write the output, close.
    Close(Close),
    Become(ProtocolState),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Close {
    pub(crate) linger: bool,
    pub(crate) outcome: Outcome,
}

/// What a connection is apart from its socket and TLS.
pub(crate) struct ProtocolLayer {
    pub(crate) service: Arc<Service>,
    pub(crate) address: Address,
    /// It has joined the chat, so other connections may wake its driver.
    pub(crate) joined_chat: Cell<bool>,
    pub(crate) state: ProtocolState,
    /// Input that could not be processed yet. Owns no memory while it is empty.
    pub(crate) unprocessed: Vec<u8>,
    pub(crate) output: Output,
    pub(crate) deadlines: Deadlines,
    pub(crate) phase: Phase,
    pub(crate) outcome: Outcome,
    pub(crate) eof: bool,
    /// All bytes that came before the stop have been read: requests behind them are not answered.
    pub(crate) draining: bool,
    /// Bytes of input, read before draining or with the last byte before it, that the protocol has
    /// not used yet.
    pub(crate) before_drain: usize,
}

impl ProtocolLayer {
    pub(crate) fn new(service: &Arc<Service>, address: Address) -> ProtocolLayer {
        ProtocolLayer {
            service: Arc::clone(service),
            address,
            joined_chat: Cell::new(false),
            state: match service.protocol {
                Protocol::Echo => ProtocolState::Echo(Echo),
                Protocol::Http => ProtocolState::Http1(Http1::default()),
            },
            unprocessed: Vec::new(),
            output: Output::default(),
            deadlines: Deadlines::default(),
            phase: Phase::Open,
            outcome: Outcome::Completed,
            eof: false,
            draining: false,
            before_drain: usize::MAX,
        }
    }

    pub(crate) fn set(&mut self, deadline: Deadline, time: Duration, now: Instant) {
        self.deadlines.set(deadline, now + time, now);
    }

    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) {
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

    fn advance_unprocessed(&mut self, now: Instant) {
        let mut unprocessed = std::mem::take(&mut self.unprocessed);
        let used = self.advance(&unprocessed, now);
        if self.phase == Phase::Open && used < unprocessed.len() {
            unprocessed.drain(..used);
            self.unprocessed = unprocessed;
        }
    }

    pub(crate) fn resume(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            self.advance_unprocessed(now);
        }
    }

    pub(crate) fn receive_eof(&mut self, now: Instant) {
        self.eof = true;
        self.resume(now);
    }

    /// The TLS handshake is complete: the negotiated protocol begins.
    pub(crate) fn established(&mut self, resumed: bool, alpn: Option<&[u8]>, now: Instant) {
        self.service.counters.handshake(resumed);
        self.deadlines.clear(Deadline::Handshake);
        self.set(Deadline::Idle, self.service.limits.idle_timeout(), now);
        if alpn == Some(ALPN_HTTP2) && self.service.protocol == Protocol::Http {
            self.state = ProtocolState::Http2(Box::<Http2>::default());
            self.resume(now);
        }
    }

    /// Answers a client of HTTP that sent its request without TLS.
    pub(crate) fn refuse_plain_http(&mut self, now: Instant) {
        let sentence = "this port uses TLS: use https:// instead of http://";
        http1::put_refusal(&self.service, &mut self.output, now, "400 Bad Request", sentence);
        self.flush_and_close(Close { linger: true, outcome: Outcome::HandshakeFailed });
    }

    pub(crate) fn wants_file(&self) -> Option<FileRead> {
        match &self.state {
            ProtocolState::Http1(http1) => http1.wants_file(&self.service.limits),
            ProtocolState::Http2(http2) => http2.wants_file(),
            ProtocolState::Echo(_) | ProtocolState::WebSocket(_) => None,
        }
    }

    pub(crate) fn file_read(&mut self, bytes: Bytes, now: Instant) {
        // An asynchronous read may complete after the connection has ended.
        if self.phase == Phase::Open {
            match &mut self.state {
                ProtocolState::Http1(http1) => http1.file_read(bytes, &mut self.output),
                ProtocolState::Http2(http2) => http2.file_read(Some(bytes)),
                ProtocolState::Echo(_) | ProtocolState::WebSocket(_) => {}
            }
            self.advance_unprocessed(now);
        }
    }

    pub(crate) fn file_failed(&mut self, now: Instant) {
        if let (Phase::Open, ProtocolState::Http2(http2)) = (self.phase, &mut self.state) {
            // Only this stream ends (RFC 9113 section 5.4.2).
            http2.file_read(None);
            self.advance_unprocessed(now);
        } else {
            self.flush_and_close(Close { linger: false, outcome: Outcome::FileFailed });
        }
    }

    pub(crate) fn request_timed_out(&mut self, now: Instant) {
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

    /// `due` is [`Deadline::Reply`] or [`Deadline::Push`]. `peer_reads`: the peer has acknowledged
    /// output of late.
    pub(crate) fn reply_is_due(&mut self, due: Deadline, peer_reads: bool, now: Instant) {
        if self.phase == Phase::Open {
            match &mut self.state {
                ProtocolState::Http1(http1) => http1.reply_due(),
                ProtocolState::Http2(http2) => http2.time_is_up(peer_reads),
                ProtocolState::WebSocket(websocket) => websocket.timed_out(due),
                ProtocolState::Echo(_) => {}
            }
            self.advance_unprocessed(now);
        }
    }

    pub(crate) fn idle_timed_out(&mut self, now: Instant) {
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

    pub(crate) fn flush_and_close(&mut self, close: Close) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Flushing { linger: close.linger && !self.eof };
        self.outcome = close.outcome;
        self.unprocessed = Vec::new();
        self.deadlines.clear_requests();
    }

    #[inline(always)]
    pub(crate) fn held(&self) -> usize {
        self.output.held() + self.unprocessed.capacity() + self.state.held()
    }

    pub(crate) fn free_memory(&mut self) {
        self.state = ProtocolState::Echo(Echo);
        self.unprocessed = Vec::new();
        self.output = Output::default();
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
    pub(crate) fn held(&self) -> usize {
        match self {
            ProtocolState::Echo(_) | ProtocolState::Http1(_) => 0,
            ProtocolState::Http2(http2) => http2.held(),
            ProtocolState::WebSocket(websocket) => websocket.held(),
        }
    }

    pub(crate) fn is_between_requests(&self) -> bool {
        match self {
            ProtocolState::Http1(http1) => http1.is_between_requests(),
            ProtocolState::Http2(http2) => http2.is_between_requests(),
            ProtocolState::Echo(_) | ProtocolState::WebSocket(_) => true,
        }
    }

    /// True for a protocol that also sends frames which are not replies: to answer a PING must not
    /// prolong the idle time.
    pub(crate) fn keeps_idle_deadline(&self) -> bool {
        matches!(self, ProtocolState::Http2(_) | ProtocolState::WebSocket(_))
    }

    /// True when it could continue, but other connections should run first.
    pub(crate) fn awaits_turn(&self) -> bool {
        match self {
            // These continue after their replies are written.
            ProtocolState::Echo(_) | ProtocolState::Http1(_) => false,
            ProtocolState::Http2(http2) => http2.awaits_turn(),
            ProtocolState::WebSocket(websocket) => websocket.awaits_turn(),
        }
    }

    pub(crate) fn handles_idle(&self) -> bool {
        matches!(self, ProtocolState::WebSocket(_))
    }

    /// True when room in the output lets it continue without more input.
    pub(crate) fn awaits_room(&self) -> bool {
        match self {
            ProtocolState::Echo(_) => false,
            ProtocolState::Http1(http1) => !http1.is_between_requests(),
            ProtocolState::Http2(http2) => http2.awaits_room(),
            ProtocolState::WebSocket(websocket) => websocket.awaits_room(),
        }
    }
}
