//! A stream that is not over at once: the request's body is still coming, or the reply is long or
//! delayed.

use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use super::request::{Refusal, TIMEOUT, TOO_LARGE};
use super::tunnel::Tunnel;
use super::writer::Http2Writer;
use crate::routes::{self, Reply};
use crate::{FileRead, Service};

/// Bytes that one stream may send in a turn: one file read, or four frames.
pub(super) const TURN_BYTES: usize = 64 << 10;

/// Memory of the library for a stream, in bytes: its state, and the fields of its messages.
const LIBRARY_BYTES: usize = 1 << 10;

pub(super) enum Sender {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnEnd {
    Wait,
    Again,
    /// It needs [`Http2Stream::file_part`].
    File,
    Over,
}

/// The stream ended early: the peer reset it, or it made a mistake.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Gone {
        Gone
    }
}

pub(super) struct Http2Stream {
    /// Unique on a connection, unlike a key of the table.
    pub(super) id: u64,
    pub(super) sender: Sender,
    pub(super) reply: Reply,
    waker: Waker,
    /// The request's body, until it has ended.
    body: Option<RecvStream>,
    received: u64,
    request_ended: bool,
    reply_ended: bool,
    /// Bytes of the reply to be sent: of the request's body, or of a short reply for which the peer
    /// has no window.
    pending: Bytes,
    waits_for_body: bool,
    /// When the next bytes of the body must have come.
    body_until: Option<Instant>,
    /// It waits for the peer's window.
    waits_for_window: bool,
    /// When the window must have room. Other frames on the connection are not progress here.
    window_until: Option<Instant>,
    /// Bytes of a file that the peer's windows allow now.
    file_room: usize,
    /// It is in the connection's list of streams that can continue.
    pub(super) is_listed: bool,
    /// [`Http2Stream::take_answered`] has returned true.
    is_counted: bool,
    pub(super) tunnel: Option<Box<Tunnel>>,
}

impl Http2Stream {
    /// `body`: the rest of the request, if it is to be read; `ended`: there is none.
    pub(super) fn new(
        id: u64,
        waker: Waker,
        sender: Sender,
        reply: Reply,
        body: Option<RecvStream>,
        ended: bool,
    ) -> Http2Stream {
        Http2Stream {
            id,
            sender,
            reply,
            waker,
            body,
            received: 0,
            request_ended: ended,
            reply_ended: false,
            pending: Bytes::new(),
            waits_for_body: false,
            body_until: None,
            waits_for_window: false,
            window_until: None,
            file_room: 0,
            is_listed: false,
            is_counted: false,
            tunnel: None,
        }
    }

    /// Makes the stream a WebSocket, which counts its messages itself.
    pub(super) fn become_tunnel(&mut self, tunnel: Tunnel) {
        self.is_counted = true;
        self.tunnel = Some(Box::new(tunnel));
    }

    pub(super) fn held(&self) -> usize {
        let own = size_of::<Http2Stream>() + LIBRARY_BYTES + self.pending.len();
        own + self.tunnel.as_ref().map_or(0, |tunnel| size_of::<Tunnel>() + tunnel.held())
    }

    /// The head of a short reply is sent; `rest` is not.
    pub(super) fn go_on_with(&mut self, rest: Bytes) {
        self.reply_ended = rest.is_empty();
        self.pending = rest;
    }

    /// It is a refusal, which does not count as a request.
    pub(super) fn is_refused(&mut self) {
        self.is_counted = true;
    }

    /// True once, when the library has the whole reply.
    pub(super) fn take_answered(&mut self) -> bool {
        self.reply_ended && !std::mem::replace(&mut self.is_counted, true)
    }

    /// The stream is over for us. If its reply is complete and its request is not, the rest is
    /// reset as soon as the reply is written (RFC 9113 section 8.1).
    pub(super) fn into_unread(self) -> Option<SendStream<Bytes>> {
        match self.sender {
            Sender::Body(stream) if self.reply_ended && !self.request_ended => Some(stream),
            Sender::Head(_) | Sender::Body(_) => None,
        }
    }

    /// Bytes of its body arrive, although the library does not report them yet.
    pub(super) fn body_moves(&mut self, stream_id: u32) {
        if self.reads_from(stream_id) {
            self.body_until = None;
        }
    }

    pub(super) fn reads_from(&self, stream_id: u32) -> bool {
        self.body.as_ref().is_some_and(|body| body.stream_id().as_u32() == stream_id)
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        match &mut self.sender {
            Sender::Head(respond) => respond.send_reset(reason),
            Sender::Body(stream) => stream.send_reset(reason),
        }
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
        watch(&mut self.body_until, self.waits_for_body, service.limits.body_timeout());
        watch(&mut self.window_until, self.waits_for_window, service.limits.write_timeout());
    }

    /// When it must run even without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let reply = match self.reply {
            Reply::Delayed { until, due: false, .. } => Some(until),
            _ => None,
        };
        let tunnel = self.tunnel.as_ref().and_then(|tunnel| tunnel.deadlines.earliest());
        [reply, self.body_until, self.window_until, tunnel].into_iter().flatten().min()
    }

    /// The part of a file that it needs next, limited by the peer's windows.
    pub(super) fn file_part(&self, service: &Service) -> Option<FileRead> {
        let part = self.reply.wants_file(&service.limits)?;
        Some(FileRead { len: part.len.min(self.file_room), ..part })
    }

    pub(super) fn awaits_window(&self) -> bool {
        self.window_until.is_some()
    }

    /// [`Http2Stream::deadline`] has passed. `takes`: the peer is still receiving output, so it
    /// cannot be late with its window; `None`: not known yet.
    pub(super) fn timed_out(&mut self, cx: &crate::Context, takes: Option<bool>) -> TurnEnd {
        let (service, now) = (cx.service, cx.now);
        if self.window_until.is_some_and(|until| until <= now) {
            match takes {
                Some(false) => return self.cancel(),
                Some(true) => self.window_until = Some(now + service.limits.write_timeout()),
                None => {}
            }
        }
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.timed_out(cx, takes == Some(true));
            return TurnEnd::Again;
        }
        if let Reply::Delayed { until, due, .. } = &mut self.reply
            && *until <= now
        {
            *due = true;
        }
        if self.body_until.is_none_or(|until| until > now) {
            return TurnEnd::Again;
        }
        self.end_body();
        match self.sender {
            Sender::Head(_) => self.refuse(service, now, TIMEOUT),
            Sender::Body(_) if matches!(self.reply, Reply::Echo { .. }) => self.cancel(),
            // The rest of the body is not needed: the reply continues without it.
            Sender::Body(_) => TurnEnd::Again,
        }
    }

    fn cancel(&mut self) -> TurnEnd {
        self.reset(Reason::CANCEL);
        self.reply_ended = false;
        TurnEnd::Over
    }

    fn end_body(&mut self) {
        self.body = None;
        self.waits_for_body = false;
        self.body_until = None;
    }

    /// Continues as far as it can, and by at most a turn's bytes.
    pub(super) fn turn(&mut self, cx: &crate::Context) -> TurnEnd {
        let waker = self.waker.clone();
        let mut task = Context::from_waker(&waker);
        let turn = match self.tunnel.take() {
            None => self.try_turn(&mut task, cx.service, cx.now),
            Some(mut tunnel) => {
                let turn = self.tunnel_turn(&mut task, cx, &mut tunnel);
                self.tunnel = Some(tunnel);
                turn
            }
        };
        turn.unwrap_or(TurnEnd::Over)
    }

    /// Receives DATA, runs the WebSocket and sends DATA, as long as there is progress.
    fn tunnel_turn(
        &mut self,
        task: &mut Context,
        cx: &crate::Context,
        tunnel: &mut Tunnel,
    ) -> Result<TurnEnd, Gone> {
        self.check_reset(task)?;
        let mut sent = 0;
        while sent < TURN_BYTES {
            let received = self.tunnel_receive(task, cx, tunnel)?;
            tunnel.all_taken = !received && tunnel.takes_input(cx);
            tunnel.advance(cx);
            let before = sent;
            while tunnel.to_send() > 0 && sent < TURN_BYTES {
                let Poll::Ready(room) = self.room(task, tunnel.to_send().min(TURN_BYTES))? else {
                    break;
                };
                let part = tunnel.take_output(room);
                sent += part.len();
                self.send(part, false)?;
            }
            if tunnel.is_over() {
                self.send(Bytes::new(), true)?;
                return Ok(TurnEnd::Over);
            }
            if tunnel.awaits_turn() {
                return Ok(TurnEnd::Again);
            }
            if !received && sent == before {
                return Ok(TurnEnd::Wait);
            }
        }
        Ok(TurnEnd::Again)
    }

    /// Takes the data of one frame, if the WebSocket has room for it.
    fn tunnel_receive(
        &mut self,
        task: &mut Context,
        cx: &crate::Context,
        tunnel: &mut Tunnel,
    ) -> Result<bool, Gone> {
        let Some(body) = self.body.as_mut().filter(|_| tunnel.takes_input(cx)) else {
            return Ok(false);
        };
        match body.poll_data(task)? {
            Poll::Ready(Some(data)) => {
                tunnel.take_input(&data);
                body.flow_control().release_capacity(data.len())?;
                Ok(true)
            }
            Poll::Ready(None) => {
                self.request_ended = true;
                self.body = None;
                tunnel.end_input();
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    fn try_turn(
        &mut self,
        task: &mut Context,
        service: &Service,
        now: Instant,
    ) -> Result<TurnEnd, Gone> {
        self.check_reset(task)?;
        if let Reply::Echo { .. } = self.reply {
            return self.echo(task, service, now);
        }
        self.drop_body(task, service)?;
        match self.reply {
            Reply::Pattern { .. } => self.send_pattern(task, service),
            Reply::File { .. } => self.ask_for_file(task, service),
            Reply::Delayed { millis, due: true, head_only, .. } => {
                let mut out = Http2Writer::new(service, now);
                routes::put_delayed(&mut out, millis, head_only);
                self.send_short(out)?;
                self.send_rest(task)
            }
            Reply::Complete => self.send_rest(task),
            Reply::Echo { .. } => Ok(self.after_reply()),
            Reply::Delayed { .. } => Ok(TurnEnd::Wait),
        }
    }

    /// The library has the reply; the rest of the request may still come.
    fn after_reply(&self) -> TurnEnd {
        if self.body.is_some() { TurnEnd::Wait } else { TurnEnd::Over }
    }

    /// Finds out whether the peer has reset the stream.
    fn check_reset(&mut self, task: &mut Context) -> Result<(), Gone> {
        let reset = match &mut self.sender {
            Sender::Head(respond) => respond.poll_reset(task),
            Sender::Body(stream) if !self.reply_ended => stream.poll_reset(task),
            // Only its request is awaited, and that reports a reset by itself.
            Sender::Body(_) => Poll::Pending,
        };
        if reset.is_ready() { Err(Gone) } else { Ok(()) }
    }

    /// Takes a body that no route reads, so that the peer can continue.
    fn drop_body(&mut self, task: &mut Context, service: &Service) -> Result<(), Gone> {
        while let Some(data) = self.receive(task)? {
            if let Some(body) = &mut self.body {
                body.flow_control().release_capacity(data.len())?;
            }
            if self.received > service.limits.body_bytes_max {
                self.end_body();
            }
        }
        Ok(())
    }

    /// The next bytes of the body; `None`: not now, or the body has ended.
    fn receive(&mut self, task: &mut Context) -> Result<Option<Bytes>, Gone> {
        let Some(body) = &mut self.body else { return Ok(None) };
        match body.poll_data(task)? {
            Poll::Ready(Some(data)) => {
                self.received += data.len() as u64;
                // Frames without data are not progress.
                if !data.is_empty() {
                    self.body_until = None;
                }
                Ok(Some(data))
            }
            Poll::Ready(None) => {
                self.request_ended = true;
                self.end_body();
                Ok(None)
            }
            Poll::Pending => {
                self.waits_for_body = true;
                Ok(None)
            }
        }
    }

    fn echo(
        &mut self,
        task: &mut Context,
        service: &Service,
        now: Instant,
    ) -> Result<TurnEnd, Gone> {
        let mut sent = 0;
        while sent < TURN_BYTES {
            if self.pending.is_empty() {
                match self.receive(task)? {
                    Some(data) => self.pending = data,
                    None if self.body.is_some() => return Ok(TurnEnd::Wait),
                    None => return self.end_echo(service, now),
                }
                if self.received > service.limits.body_bytes_max {
                    self.end_body();
                    return Ok(self.refuse(service, now, TOO_LARGE));
                }
                continue;
            }
            self.send_echo_head(service, now, false)?;
            let Poll::Ready(room) = self.room(task, self.pending.len())? else {
                // The peer is not late with a body that is not read.
                self.waits_for_body = false;
                return Ok(TurnEnd::Wait);
            };
            let part = self.pending.split_to(room);
            sent += part.len();
            if let Some(body) = &mut self.body {
                body.flow_control().release_capacity(part.len())?;
            }
            self.send(part, false)?;
        }
        Ok(TurnEnd::Again)
    }

    fn end_echo(&mut self, service: &Service, now: Instant) -> Result<TurnEnd, Gone> {
        if let Sender::Head(_) = self.sender {
            self.send_echo_head(service, now, true)?;
        } else {
            self.send(Bytes::new(), true)?;
        }
        self.reply = Reply::Complete;
        Ok(TurnEnd::Over)
    }

    fn send_echo_head(&mut self, service: &Service, now: Instant, last: bool) -> Result<(), Gone> {
        let (Reply::Echo { length, .. }, Sender::Head(respond)) = (self.reply, &mut self.sender)
        else {
            return Ok(());
        };
        let mut out = Http2Writer::new(service, now);
        routes::put_echo_head(&mut out, length);
        self.sender = Sender::Body(respond.send_response(out.head, last)?);
        self.reply_ended = last;
        Ok(())
    }

    fn send_pattern(&mut self, task: &mut Context, service: &Service) -> Result<TurnEnd, Gone> {
        let Reply::Pattern { offset, end } = self.reply else { return Ok(TurnEnd::Wait) };
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(TURN_BYTES);
        let Poll::Ready(room) = self.room(task, wanted)? else { return Ok(TurnEnd::Wait) };
        let part = self.reply.take_pattern(service, room).unwrap_or_default();
        let last = matches!(self.reply, Reply::Pattern { offset, end } if offset == end);
        self.send(part, last)?;
        if last {
            self.reply = Reply::Complete;
            return Ok(self.after_reply());
        }
        Ok(TurnEnd::Again)
    }

    fn ask_for_file(&mut self, task: &mut Context, service: &Service) -> Result<TurnEnd, Gone> {
        let Some(part) = self.reply.wants_file(&service.limits) else { return Ok(TurnEnd::Wait) };
        let Poll::Ready(room) = self.room(task, part.len)? else { return Ok(TurnEnd::Wait) };
        self.file_room = room;
        Ok(TurnEnd::File)
    }

    /// The bytes of [`Http2Stream::file_part`]; `None`: they cannot be read.
    pub(super) fn file_read(&mut self, bytes: Option<Bytes>) -> TurnEnd {
        let part = bytes.and_then(|bytes| self.reply.take_file(&bytes));
        let Some(part) = part else {
            // The head has announced them, so only a reset says that they will not come (RFC 9113
            // section 5.4.2). The other streams continue.
            if let Sender::Body(stream) = &mut self.sender {
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
            return TurnEnd::Over;
        };
        let last = matches!(self.reply, Reply::File { offset, end, .. } if offset == end);
        if self.send(part, last).is_err() {
            return TurnEnd::Over;
        }
        if last {
            self.reply = Reply::Complete;
            return self.after_reply();
        }
        TurnEnd::Again
    }

    /// Sends the rest of a short reply, limited by the peer's windows.
    fn send_rest(&mut self, task: &mut Context) -> Result<TurnEnd, Gone> {
        let mut sent = 0;
        while !self.pending.is_empty() {
            if sent >= TURN_BYTES {
                return Ok(TurnEnd::Again);
            }
            let Poll::Ready(room) = self.room(task, self.pending.len().min(TURN_BYTES))? else {
                return Ok(TurnEnd::Wait);
            };
            let part = self.pending.split_to(room);
            sent += part.len();
            self.send(part, self.pending.is_empty())?;
        }
        Ok(self.after_reply())
    }

    /// How many of `wanted` bytes the peer's windows allow: never zero.
    fn room(&mut self, task: &mut Context, wanted: usize) -> Result<Poll<usize>, Gone> {
        let Sender::Body(stream) = &mut self.sender else { return Err(Gone) };
        stream.reserve_capacity(wanted);
        loop {
            match stream.capacity() {
                0 => {}
                room => {
                    self.waits_for_window = false;
                    self.window_until = None;
                    return Ok(Poll::Ready(room.min(wanted)));
                }
            }
            match stream.poll_capacity(task) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None | Some(Err(_))) => return Err(Gone),
                Poll::Pending => {
                    self.waits_for_window = true;
                    return Ok(Poll::Pending);
                }
            }
        }
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), Gone> {
        let Sender::Body(stream) = &mut self.sender else { return Err(Gone) };
        stream.send_data(data, last)?;
        self.reply_ended = last;
        Ok(())
    }

    fn send_short(&mut self, out: Http2Writer) -> Result<(), Gone> {
        let Sender::Head(respond) = &mut self.sender else { return Err(Gone) };
        let (stream, rest) = send_short(respond, out)?;
        self.sender = Sender::Body(stream);
        self.reply = Reply::Complete;
        self.go_on_with(rest);
        Ok(())
    }

    /// Answers with an error, or resets the stream if the head is out.
    fn refuse(&mut self, service: &Service, now: Instant, refusal: Refusal) -> TurnEnd {
        if let Sender::Body(_) = self.sender {
            return self.cancel();
        }
        let mut out = Http2Writer::new(service, now);
        routes::put_refusal(&mut out, refusal.0, refusal.1, false);
        // An error means that the peer has reset the stream.
        if self.send_short(out).is_ok() { TurnEnd::Again } else { TurnEnd::Over }
    }
}

/// Begins a short reply. Returns its stream, and the rest for which the peer has no window. The
/// library never gets more than the windows allow: bytes that it keeps are not visible here, so a
/// stall could not be detected. It also miscounts a stream that is reset behind such a rest (a
/// debug build of h2 0.4.20 panics at the end of the connection).
pub(super) fn send_short(
    respond: &mut SendResponse<Bytes>,
    out: Http2Writer,
) -> Result<(SendStream<Bytes>, Bytes), h2::Error> {
    let mut rest = out.body;
    let mut stream = respond.send_response(out.head, rest.is_empty())?;
    if !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        if stream.capacity() >= rest.len() {
            stream.send_data(std::mem::take(&mut rest), true)?;
        }
    }
    Ok((stream, rest))
}
