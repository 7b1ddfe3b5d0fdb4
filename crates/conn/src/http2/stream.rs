//! A stream that is not over at once: the request's body is still coming, or the reply is long or
//! delayed. Its states are those of [`State`].

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::error::Code;
use super::frame::{self, PAYLOAD_LEN_MAX};
use super::link::{self, Link};
use super::priority::Priority;
use super::request::{Refusal, TIMEOUT};
use super::state::{Event, State};
use super::tunnel::Tunnel;
use super::window::{ReceiveWindow, SendWindow};
use super::writer::{Http2Writer, Written};
use crate::news::{self, Ticker};
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
        Stream {
            id,
            state,
            send,
            receive: ReceiveWindow::default(),
            reply,
            priority: Priority::default(),
            has_head: false,
            reads_body: true,
            received: 0,
            length_left: None,
            echo: BytesMut::new(),
            rest: Bytes::new(),
            body_until: None,
            waits_for_window: false,
            window_until: None,
            file_room: 0,
            is_listed: false,
            is_counted: false,
            is_reset: false,
            tunnel: None,
        }
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
        let mut out = Http2Writer::new(cx, link, self.id, &mut self.send);
        routes::put_refusal(&mut out, refusal.0, refusal.1, false);
        let written = out.finish(true);
        self.reply = Reply::Complete;
        self.go_on(written);
        TurnEnd::Again
    }

    /// Continues as far as it can, and by at most a turn's bytes.
    pub(super) fn turn(&mut self, link: &mut Link, cx: &mut Context) -> TurnEnd {
        let turn = match self.reply {
            _ if self.tunnel.is_some() => self.tunnel_turn(link, cx),
            Reply::Echo { .. } => self.echo(link, cx),
            Reply::Pattern { .. } => self.send_pattern(link, cx),
            Reply::File { .. } => self.send_file(link, cx),
            Reply::Delayed { due: false, .. } => Ok(TurnEnd::Wait),
            Reply::Events { ticker, .. } => self.send_events(link, cx, ticker),
            Reply::Delayed { says, number, head_only, .. } => {
                let mut out = Http2Writer::new(cx, link, self.id, &mut self.send);
                routes::put_delayed(&mut out, (says, number), head_only);
                let written = out.finish(true);
                self.reply = Reply::Complete;
                self.go_on(written);
                self.send_rest(link, cx)
            }
            Reply::Complete => self.send_rest(link, cx),
        };
        turn.unwrap_or_else(|end| end)
    }

    /// The reply is sent; the rest of the request may still come.
    fn after_reply(&self) -> TurnEnd {
        let waits = self.reads_body && !self.state.is_read();
        if waits { TurnEnd::Wait } else { TurnEnd::Over }
    }

    /// How many of `wanted` bytes may be sent now: never zero.
    pub(super) fn allowed(
        &mut self,
        link: &Link,
        cx: &Context,
        wanted: usize,
    ) -> Result<usize, TurnEnd> {
        let room = link::room(cx.service, cx.output);
        if room == 0 {
            return Err(TurnEnd::Again);
        }
        self.waits_for_window = self.send.room() == 0 || link.send.room() == 0;
        if self.waits_for_window {
            let of_connection = self.send.room() > 0;
            return Err(if of_connection { TurnEnd::WaitForConnection } else { TurnEnd::Wait });
        }
        self.window_until = None;
        Ok(wanted.min(self.send.room()).min(link.send.room()).min(link::data_in(room)))
    }

    pub(super) fn send(&mut self, link: &mut Link, cx: &mut Context, data: Bytes, ends: bool) {
        let common = matches!(self.reply, Reply::Pattern { .. });
        link.put_data(cx.output, self.id, &mut self.send, data, (common, ends));
        if ends {
            self.step(Event::SendEnd);
        }
    }

    fn echo(&mut self, link: &mut Link, cx: &mut Context) -> Result<TurnEnd, TurnEnd> {
        let mut sent = 0;
        loop {
            let is_read = self.state.is_read();
            if self.echo.is_empty() {
                if is_read {
                    self.put_echo_head(link, cx, true);
                    if !self.state.is_answered() {
                        self.send(link, cx, Bytes::new(), true);
                    }
                    return Ok(TurnEnd::Over);
                }
                return Ok(TurnEnd::Wait);
            }
            if sent >= TURN_BYTES {
                return Ok(TurnEnd::Again);
            }
            self.put_echo_head(link, cx, false);
            let n = self.allowed(link, cx, self.echo.len().min(TURN_BYTES))?;
            let part = self.echo.split_to(n).freeze();
            sent += n;
            let ends = is_read && self.echo.is_empty();
            self.send(link, cx, part, ends);
            self.release(link, cx, n);
            if ends {
                return Ok(TurnEnd::Over);
            }
        }
    }

    /// Sends the events that are due. While the windows have no room, as many as fit into one frame
    /// wait; the others are left out. They end with the client's input too.
    fn send_events(
        &mut self,
        link: &mut Link,
        cx: &mut Context,
        mut ticker: Ticker,
    ) -> Result<TurnEnd, TurnEnd> {
        if !self.has_head {
            let mut out = Http2Writer::new(cx, link, self.id, &mut self.send);
            routes::put_events_head(&mut out, true);
            let written = out.finish(false);
            self.go_on(written);
        }
        if ticker.due_at(cx.service) <= cx.now {
            let mut events = Vec::from(std::mem::take(&mut self.rest));
            ticker.tick(cx.service, cx.now, |number| {
                let room = events.len() < PAYLOAD_LEN_MAX;
                if room {
                    news::put_event(&mut events, number);
                }
                room
            });
            self.rest = Bytes::from(events);
            self.reply = Reply::Events { ticker, head_sent: true };
        }
        self.send_rest(link, cx)?;
        if !self.rest.is_empty() {
            return Ok(TurnEnd::Again);
        }
        if !self.ends_events(cx) {
            return Ok(TurnEnd::Wait);
        }
        self.reply = Reply::Complete;
        self.send(link, cx, Bytes::new(), true);
        Ok(self.after_reply())
    }

    /// It sends events, and no more are to follow.
    pub(super) fn ends_events(&self, cx: &Context) -> bool {
        matches!(self.reply, Reply::Events { .. }) && (cx.draining || cx.eof)
    }

    fn put_echo_head(&mut self, link: &mut Link, cx: &mut Context, ends: bool) {
        let (Reply::Echo { length, .. }, false) = (self.reply, self.has_head) else { return };
        let mut out = Http2Writer::new(cx, link, self.id, &mut self.send);
        routes::put_echo_head(&mut out, length);
        let written = out.finish(ends);
        self.go_on(written);
    }

    fn send_pattern(&mut self, link: &mut Link, cx: &mut Context) -> Result<TurnEnd, TurnEnd> {
        let Reply::Pattern { offset, end } = self.reply else { return Ok(TurnEnd::Wait) };
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(TURN_BYTES);
        let n = self.allowed(link, cx, wanted)?;
        let part = self.reply.take_pattern(cx.service, n).unwrap_or_default();
        let last = matches!(self.reply, Reply::Pattern { offset, end } if offset == end);
        self.send(link, cx, part, last);
        Ok(if last { self.after_reply() } else { TurnEnd::Again })
    }

    fn send_file(&mut self, link: &mut Link, cx: &mut Context) -> Result<TurnEnd, TurnEnd> {
        if !self.rest.is_empty() {
            return self.send_rest(link, cx);
        }
        let Some(part) = self.reply.wants_file(&cx.service.limits) else {
            return Ok(self.after_reply());
        };
        // The bytes may wait for room in the output, but not for the windows.
        self.allowed(link, cx, part.len)?;
        self.file_room = part.len.min(self.send.room()).min(link.send.room());
        Ok(TurnEnd::File)
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

    /// Sends bytes that are here.
    fn send_rest(&mut self, link: &mut Link, cx: &mut Context) -> Result<TurnEnd, TurnEnd> {
        let mut sent = 0;
        while !self.rest.is_empty() {
            if sent >= TURN_BYTES {
                return Ok(TurnEnd::Again);
            }
            let n = self.allowed(link, cx, self.rest.len().min(TURN_BYTES))?;
            let part = self.rest.split_to(n);
            sent += n;
            let more = !self.rest.is_empty()
                || matches!(self.reply, Reply::Events { .. })
                || self.reply.wants_file(&cx.service.limits).is_some();
            self.send(link, cx, part, !more);
        }
        Ok(if self.state.is_answered() { self.after_reply() } else { TurnEnd::Again })
    }
}
