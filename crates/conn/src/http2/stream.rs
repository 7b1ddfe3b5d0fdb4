//! A stream that is not over at once: the request's body is still coming, or the reply is long or
//! delayed. Its states are those of [`State`].

mod send;

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::error::Code;
use super::frame;
use super::link::Link;
use super::priority::Priority;
use super::request::{Refusal, TIMEOUT};
use super::state::{Event, State};
use super::tunnel::Tunnel;
use super::window::{ReceiveWindow, SendWindow};
use super::writer::{Http2Writer, Written};
use crate::routes::{self, Reply};
use crate::{Context, FileRead, Service};

/// Bytes that one stream may send in a turn: one file read, or four frames.
pub(super) const TURN_BYTES: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnEnd {
    Wait,
    /// It waits for the connection's window, behind others that do.
    WaitForConnection,
    Again,
    /// It needs [`Stream::file_part`].
    File,
    Over,
}

#[derive(Default)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) state: State,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    pub(super) reply: Reply,
    pub(super) priority: Priority,
    has_head: bool,
    /// Whether the request's body is used, or taken and dropped. If not, the rest of the request
    /// is refused once the reply has ended.
    pub(super) reads_body: bool,
    pub(super) received: u64,
    /// What Content-Length has announced and has not come.
    pub(super) length_left: Option<u64>,
    /// Bytes of the request's body that are to be sent back.
    pub(super) echo: BytesMut,
    /// Bytes of the reply.
    rest: Bytes,
    /// When the next bytes of the body must have come.
    pub(super) body_until: Option<Instant>,
    waits_for_window: bool,
    /// When the window must have room. Other frames on the connection are not progress here.
    window_until: Option<Instant>,
    /// Bytes of a file that the peer's windows allow now.
    file_room: usize,
    /// It is in the connection's list of streams that can continue.
    pub(super) is_listed: bool,
    is_counted: bool,
    pub(super) is_reset: bool,
    pub(super) tunnel: Option<Box<Tunnel>>,
}

impl Stream {
    pub(super) fn new(id: u32, state: State, send: SendWindow, reply: Reply) -> Stream {
        Stream { id, state, send, reply, reads_body: true, ..Stream::default() }
    }

    /// Writes a head, and what can follow at once. `is_whole`: nothing else is to follow.
    pub(super) fn write(
        &mut self,
        link: &mut Link,
        cx: &mut Context,
        is_whole: bool,
        put: impl FnOnce(&mut Http2Writer),
    ) {
        let mut out = Http2Writer::new(cx, link, self.id, &mut self.send);
        put(&mut out);
        let written = out.finish(is_whole);
        self.go_on(written);
    }

    /// Takes over what a writer has left.
    pub(super) fn go_on(&mut self, written: Written) {
        self.has_head |= written.has_head;
        self.rest = written.rest;
        if written.ended {
            self.step(Event::SendEnd);
        }
    }

    /// Makes the stream a WebSocket, which counts its messages itself.
    pub(super) fn become_tunnel(&mut self, tunnel: Tunnel) {
        self.is_counted = true;
        self.tunnel = Some(Box::new(tunnel));
    }

    /// It is a refusal, which does not count as a request.
    pub(super) fn is_refused(&mut self) {
        self.is_counted = true;
        self.reads_body = false;
    }

    /// True once, when the whole reply is in the output.
    pub(super) fn take_answered(&mut self) -> bool {
        let is_answered = self.state.is_answered() && !self.is_reset;
        is_answered && !std::mem::replace(&mut self.is_counted, true)
    }

    pub(super) fn held(&self) -> usize {
        let own = size_of::<Stream>() + self.echo.len() + self.rest.len();
        own + self.tunnel.as_ref().map_or(0, |tunnel| size_of::<Tunnel>() + tunnel.held())
    }

    fn step(&mut self, event: Event) {
        let next = self.state.after(event);
        debug_assert!(next.is_ok(), "{event:?} after {:?}", self.state);
        self.state = next.unwrap_or(State::Closed);
    }

    /// Sets and clears the deadlines. `blocked`: the connection's output is full, so the peer is
    /// not read and cannot be late.
    pub(super) fn watch(&mut self, service: &Service, now: Instant, blocked: bool) {
        let watch = |until: &mut Option<Instant>, waits: bool, time| {
            if waits && !blocked {
                until.get_or_insert(now + time);
            } else {
                *until = None;
            }
        };
        // The peer is not late with a body that is not read.
        let waits = self.reads_body && !self.state.is_read() && self.tunnel.is_none();
        let waits = waits && self.echo.is_empty();
        watch(&mut self.body_until, waits, service.limits.body_timeout());
        watch(&mut self.window_until, self.waits_for_window, service.limits.write_timeout());
    }

    /// When it must run even without an event.
    pub(super) fn deadline(&self, service: &Service) -> Option<Instant> {
        let reply = match self.reply {
            Reply::Delayed { until, due: false, .. } => Some(until),
            Reply::Events { ticker, .. } => Some(ticker.due_at(service)),
            _ => None,
        };
        let tunnel = self.tunnel.as_ref().and_then(|tunnel| tunnel.deadlines.earliest());
        [reply, self.body_until, self.window_until, tunnel].into_iter().flatten().min()
    }

    /// The part of a file that it needs next, limited by the peer's windows. `None` while an
    /// earlier part waits for room.
    pub(super) fn file_part(&self, service: &Service) -> Option<FileRead> {
        if !self.rest.is_empty() {
            return None;
        }
        let part = self.reply.wants_file(&service.limits)?;
        Some(FileRead { len: part.len.min(self.file_room), ..part })
    }

    pub(super) fn awaits_window(&self) -> bool {
        self.waits_for_window
    }

    /// [`Stream::deadline`] has passed. `takes`: the peer is still receiving output, so it cannot
    /// be late with its window; `None`: not known yet.
    pub(super) fn timed_out(
        &mut self,
        link: &mut Link,
        cx: &mut Context,
        takes: Option<bool>,
    ) -> TurnEnd {
        if self.window_until.is_some_and(|until| until <= cx.now) {
            match takes {
                Some(false) => return self.reset(cx, Code::Cancel),
                Some(true) => {
                    self.window_until = Some(cx.now + cx.service.limits.write_timeout());
                }
                None => {}
            }
        }
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.timed_out(cx, takes == Some(true));
            return TurnEnd::Again;
        }
        if let Reply::Delayed { until, due, .. } = &mut self.reply
            && *until <= cx.now
        {
            *due = true;
        }
        if self.body_until.is_none_or(|until| until > cx.now) {
            return TurnEnd::Again;
        }
        self.end_body();
        if self.has_head && !matches!(self.reply, Reply::Echo { .. }) {
            // The rest of the body is not needed: the reply continues without it.
            return TurnEnd::Again;
        }
        self.refuse(link, cx, TIMEOUT)
    }

    pub(super) fn reset(&mut self, cx: &mut Context, code: Code) -> TurnEnd {
        frame::put_reset(cx.output.tail(), self.id, code);
        self.step(Event::SendReset);
        self.is_reset = true;
        TurnEnd::Over
    }

    /// Answers with an error, or resets the stream if the head is out.
    pub(super) fn refuse(
        &mut self,
        link: &mut Link,
        cx: &mut Context,
        refusal: Refusal,
    ) -> TurnEnd {
        if self.has_head {
            return self.reset(cx, Code::Cancel);
        }
        let dropped = std::mem::take(&mut self.echo).len();
        self.release(link, cx, dropped);
        self.reply = Reply::Complete;
        self.write(link, cx, true, |out| routes::put_refusal(out, refusal.0, refusal.1, false));
        TurnEnd::Again
    }

    /// It sends events, and no more are to follow.
    pub(super) fn ends_events(&self, cx: &Context) -> bool {
        matches!(self.reply, Reply::Events { .. }) && (cx.draining || cx.eof)
    }

    /// The bytes of [`Stream::file_part`]; `None`: they cannot be read.
    pub(super) fn file_read(&mut self, cx: &mut Context, bytes: Option<Bytes>) -> TurnEnd {
        let Some(part) = bytes.and_then(|bytes| self.reply.take_file(&bytes)) else {
            // The head has announced them, so only a reset says that they will not come (section
            // 5.4.2). The other streams continue.
            return self.reset(cx, Code::Internal);
        };
        self.rest = part;
        TurnEnd::Again
    }
}
