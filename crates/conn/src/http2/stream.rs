//! One stream that is not over at once: its request's body is still coming, or its reply is long,
//! or late.

use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use super::request::{Refusal, TIMEOUT, TOO_LARGE};
use super::tunnel::Tunnel;
use super::writer::Writer;
use crate::routes::{self, Reply};
use crate::{FileRead, Service};

/// What one stream may send before the others have their turn: one file read, or four frames.
pub(super) const TURN_BYTES: usize = 64 << 10;

/// What the library keeps for a stream, in bytes: its state, and the fields of its messages.
const LIBRARY_BYTES: usize = 1 << 10;

/// Where the reply goes.
pub(super) enum Sender {
    /// The head is not out.
    Head(SendResponse<Bytes>),
    /// The head is out.
    Body(SendStream<Bytes>),
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits: for its waker, or for its deadline.
    Wait,
    /// It could go on, after the others.
    Again,
    /// It wants [`Stream::file_part`].
    File,
    /// It is over.
    Over,
}

/// A stream that is over before its time: reset by the peer, or by what it did.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Gone {
        Gone
    }
}

/// One open stream.
pub(super) struct Stream {
    /// Never used twice on a connection, unlike a key of the table.
    pub(super) id: u64,
    pub(super) sender: Sender,
    pub(super) reply: Reply,
    waker: Waker,
    /// The request's body, until it has ended.
    body: Option<RecvStream>,
    /// What has come of the body.
    received: u64,
    /// The request is complete.
    request_ended: bool,
    /// All of the reply is with the library.
    reply_ended: bool,
    /// Bytes of the reply that are still to be sent: of the request's body, on its way back, or of
    /// a short reply for which the peer's windows have no room.
    pending: Bytes,
    /// More of the body is waited for.
    waits_for_body: bool,
    /// When the next bytes of the body must be here.
    body_until: Option<Instant>,
    /// The peer's windows have no room for what is ready to be sent.
    waits_for_window: bool,
    /// When they must have some. Whatever else is said on the connection, it is no progress here.
    window_until: Option<Instant>,
    /// How much the peer's windows let a file send now.
    file_room: usize,
    /// In the connection's list of those that can go on.
    pub(super) is_listed: bool,
    /// [`Stream::take_answered`] has said so.
    is_counted: bool,
    /// It is no exchange but a WebSocket.
    pub(super) tunnel: Option<Box<Tunnel>>,
}

impl Stream {
    /// `body`: what is still to come of the request, if somebody takes it; `ended`: nothing is.
    pub(super) fn new(
        id: u64,
        waker: Waker,
        sender: Sender,
        reply: Reply,
        body: Option<RecvStream>,
        ended: bool,
    ) -> Stream {
        Stream {
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

    /// Makes a WebSocket of it, which counts its messages itself.
    pub(super) fn become_tunnel(&mut self, tunnel: Tunnel) {
        self.is_counted = true;
        self.tunnel = Some(Box::new(tunnel));
    }

    /// Bytes of memory that it takes, without what the library keeps for the connection.
    pub(super) fn held(&self) -> usize {
        let own = size_of::<Stream>() + LIBRARY_BYTES + self.pending.len();
        own + self.tunnel.as_ref().map_or(0, |tunnel| size_of::<Tunnel>() + tunnel.held())
    }

    /// The head of a short reply is out; `rest` of it is not.
    pub(super) fn go_on_with(&mut self, rest: Bytes) {
        self.reply_ended = rest.is_empty();
        self.pending = rest;
    }

    /// It is a refusal, which is not counted among the requests.
    pub(super) fn is_refused(&mut self) {
        self.is_counted = true;
    }

    /// True once, when all of the reply is with the library.
    pub(super) fn take_answered(&mut self) -> bool {
        self.reply_ended && !std::mem::replace(&mut self.is_counted, true)
    }

    /// The stream is over for us. If its reply is complete and its request is not, then what is
    /// left is to be reset as soon as the reply is out (RFC 9113 section 8.1).
    pub(super) fn into_unread(self) -> Option<SendStream<Bytes>> {
        match self.sender {
            Sender::Body(stream) if self.reply_ended && !self.request_ended => Some(stream),
            Sender::Head(_) | Sender::Body(_) => None,
        }
    }

    /// Bytes of its body are on their way, although the library shows none of them yet.
    pub(super) fn body_moves(&mut self, stream_id: u32) {
        if self.reads_from(stream_id) {
            self.body_until = None;
        }
    }

    /// The body of this stream of the client's is read.
    pub(super) fn reads_from(&self, stream_id: u32) -> bool {
        self.body.as_ref().is_some_and(|body| body.stream_id().as_u32() == stream_id)
    }

    /// Tells the client that nothing more comes.
    pub(super) fn reset(&mut self, reason: Reason) {
        match &mut self.sender {
            Sender::Head(respond) => respond.send_reset(reason),
            Sender::Body(stream) => stream.send_reset(reason),
        }
    }

    /// Begins and ends the time for what it waits for. `blocked`: the connection's output is full,
    /// so the peer is not read, and cannot be late with its body or its windows.
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

    /// When it must be looked at even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let reply = match self.reply {
            Reply::Delayed { until, due: false, .. } => Some(until),
            _ => None,
        };
        let tunnel = self.tunnel.as_ref().and_then(|tunnel| tunnel.deadlines.earliest());
        [reply, self.body_until, self.window_until, tunnel].into_iter().flatten().min()
    }

    /// The file part that it needs next, as far as the peer's windows go.
    pub(super) fn file_part(&self, service: &Service) -> Option<FileRead> {
        let part = self.reply.wants_file(&service.limits)?;
        Some(FileRead { len: part.len.min(self.file_room), ..part })
    }

    /// The peer's windows have no room for what is ready to be sent.
    pub(super) fn awaits_window(&self) -> bool {
        self.window_until.is_some()
    }

    /// [`Stream::deadline`] has come; `takes`: the peer is still taking what it was sent, and
    /// before it has that it cannot be late with room for more; `None`: that is not known yet.
    pub(super) fn timed_out(&mut self, cx: &crate::Context, takes: Option<bool>) -> Turn {
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
            return Turn::Again;
        }
        if let Reply::Delayed { until, due, .. } = &mut self.reply
            && *until <= now
        {
            *due = true;
        }
        if self.body_until.is_none_or(|until| until > now) {
            return Turn::Again;
        }
        self.end_body();
        match self.sender {
            Sender::Head(_) => self.refuse(service, now, TIMEOUT),
            Sender::Body(_) if matches!(self.reply, Reply::Echo { .. }) => self.cancel(),
            // Nobody needs the rest of the body: the reply goes on without it.
            Sender::Body(_) => Turn::Again,
        }
    }

    /// Nothing more is sent or awaited.
    fn cancel(&mut self) -> Turn {
        self.reset(Reason::CANCEL);
        self.reply_ended = false;
        Turn::Over
    }

    /// No more of the body is taken.
    fn end_body(&mut self) {
        self.body = None;
        self.waits_for_body = false;
        self.body_until = None;
    }

    /// Goes on as far as it can, and a turn's bytes at most.
    pub(super) fn turn(&mut self, cx: &crate::Context) -> Turn {
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
        turn.unwrap_or(Turn::Over)
    }

    /// DATA in, the WebSocket's work, DATA out, as long as one of them leads to another.
    fn tunnel_turn(
        &mut self,
        task: &mut Context,
        cx: &crate::Context,
        tunnel: &mut Tunnel,
    ) -> Result<Turn, Gone> {
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
                return Ok(Turn::Over);
            }
            if tunnel.is_put_off() {
                return Ok(Turn::Again);
            }
            if !received && sent == before {
                return Ok(Turn::Wait);
            }
        }
        Ok(Turn::Again)
    }

    /// Takes one frame's data, if there is any and the WebSocket has room for it.
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
    ) -> Result<Turn, Gone> {
        self.check_reset(task)?;
        if let Reply::Echo { .. } = self.reply {
            return self.echo(task, service, now);
        }
        self.drop_body(task, service)?;
        match self.reply {
            Reply::Pattern { .. } => self.send_pattern(task, service),
            Reply::File { .. } => self.ask_for_file(task, service),
            Reply::Delayed { millis, due: true, head_only, .. } => {
                let mut out = Writer::new(service, now);
                routes::put_delayed(&mut out, millis, head_only);
                self.send_short(out)?;
                self.send_rest(task)
            }
            Reply::Complete => self.send_rest(task),
            Reply::Echo { .. } => Ok(self.after_reply()),
            Reply::Delayed { .. } => Ok(Turn::Wait),
        }
    }

    /// The reply is with the library; the rest of the request may still be to come.
    fn after_reply(&self) -> Turn {
        if self.body.is_some() { Turn::Wait } else { Turn::Over }
    }

    /// A peer that has reset its stream wants nothing more of it.
    fn check_reset(&mut self, task: &mut Context) -> Result<(), Gone> {
        let reset = match &mut self.sender {
            Sender::Head(respond) => respond.poll_reset(task),
            Sender::Body(stream) if !self.reply_ended => stream.poll_reset(task),
            // Only its request is waited for, and that tells by itself.
            Sender::Body(_) => Poll::Pending,
        };
        if reset.is_ready() { Err(Gone) } else { Ok(()) }
    }

    /// Takes a body that no route reads, so that its sender can go on.
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

    /// The next bytes of the body; `None`: not now, or never again (then there is no body left).
    fn receive(&mut self, task: &mut Context) -> Result<Option<Bytes>, Gone> {
        let Some(body) = &mut self.body else { return Ok(None) };
        match body.poll_data(task)? {
            Poll::Ready(Some(data)) => {
                self.received += data.len() as u64;
                // Frames without data are no progress.
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

    fn echo(&mut self, task: &mut Context, service: &Service, now: Instant) -> Result<Turn, Gone> {
        let mut sent = 0;
        while sent < TURN_BYTES {
            if self.pending.is_empty() {
                match self.receive(task)? {
                    Some(data) => self.pending = data,
                    None if self.body.is_some() => return Ok(Turn::Wait),
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
                // The peer cannot be late with a body that is not read.
                self.waits_for_body = false;
                return Ok(Turn::Wait);
            };
            let part = self.pending.split_to(room);
            sent += part.len();
            if let Some(body) = &mut self.body {
                body.flow_control().release_capacity(part.len())?;
            }
            self.send(part, false)?;
        }
        Ok(Turn::Again)
    }

    /// All of the body is on its way back.
    fn end_echo(&mut self, service: &Service, now: Instant) -> Result<Turn, Gone> {
        if let Sender::Head(_) = self.sender {
            self.send_echo_head(service, now, true)?;
        } else {
            self.send(Bytes::new(), true)?;
        }
        self.reply = Reply::Complete;
        Ok(Turn::Over)
    }

    fn send_echo_head(&mut self, service: &Service, now: Instant, last: bool) -> Result<(), Gone> {
        let (Reply::Echo { length, .. }, Sender::Head(respond)) = (self.reply, &mut self.sender)
        else {
            return Ok(());
        };
        let mut out = Writer::new(service, now);
        routes::put_echo_head(&mut out, length);
        self.sender = Sender::Body(respond.send_response(out.head, last)?);
        self.reply_ended = last;
        Ok(())
    }

    fn send_pattern(&mut self, task: &mut Context, service: &Service) -> Result<Turn, Gone> {
        let Reply::Pattern { offset, end } = self.reply else { return Ok(Turn::Wait) };
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(TURN_BYTES);
        let Poll::Ready(room) = self.room(task, wanted)? else { return Ok(Turn::Wait) };
        let part = self.reply.take_pattern(service, room).unwrap_or_default();
        let last = matches!(self.reply, Reply::Pattern { offset, end } if offset == end);
        self.send(part, last)?;
        if last {
            self.reply = Reply::Complete;
            return Ok(self.after_reply());
        }
        Ok(Turn::Again)
    }

    fn ask_for_file(&mut self, task: &mut Context, service: &Service) -> Result<Turn, Gone> {
        let Some(part) = self.reply.wants_file(&service.limits) else { return Ok(Turn::Wait) };
        let Poll::Ready(room) = self.room(task, part.len)? else { return Ok(Turn::Wait) };
        self.file_room = room;
        Ok(Turn::File)
    }

    /// The bytes of [`Stream::file_part`], or `None`: they cannot be read.
    pub(super) fn file_read(&mut self, bytes: Option<Bytes>) -> Turn {
        let part = bytes.and_then(|bytes| self.reply.take_file(&bytes));
        let Some(part) = part else {
            // The head has promised them, so only a reset says that they will not come (RFC 9113
            // section 5.4.2); the other streams go on.
            if let Sender::Body(stream) = &mut self.sender {
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
            return Turn::Over;
        };
        let last = matches!(self.reply, Reply::File { offset, end, .. } if offset == end);
        if self.send(part, last).is_err() {
            return Turn::Over;
        }
        if last {
            self.reply = Reply::Complete;
            return self.after_reply();
        }
        Turn::Again
    }

    /// Sends what is left of a short reply, as far as the peer's windows go.
    fn send_rest(&mut self, task: &mut Context) -> Result<Turn, Gone> {
        let mut sent = 0;
        while !self.pending.is_empty() {
            if sent >= TURN_BYTES {
                return Ok(Turn::Again);
            }
            let Poll::Ready(room) = self.room(task, self.pending.len().min(TURN_BYTES))? else {
                return Ok(Turn::Wait);
            };
            let part = self.pending.split_to(room);
            sent += part.len();
            self.send(part, self.pending.is_empty())?;
        }
        Ok(self.after_reply())
    }

    /// How much of `wanted` the peer's windows allow: never zero.
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

    /// Begins a short reply.
    fn send_short(&mut self, out: Writer) -> Result<(), Gone> {
        let Sender::Head(respond) = &mut self.sender else { return Err(Gone) };
        let (stream, rest) = send_short(respond, out)?;
        self.sender = Sender::Body(stream);
        self.reply = Reply::Complete;
        self.go_on_with(rest);
        Ok(())
    }

    /// Answers with an error, or resets the stream if the head is out.
    fn refuse(&mut self, service: &Service, now: Instant, refusal: Refusal) -> Turn {
        if let Sender::Body(_) = self.sender {
            return self.cancel();
        }
        let mut out = Writer::new(service, now);
        routes::put_refusal(&mut out, refusal.0, refusal.1, false);
        // An error means that the peer has reset the stream: then nobody is to be told.
        if self.send_short(out).is_ok() { Turn::Again } else { Turn::Over }
    }
}

/// Begins a short reply: returns its stream, and the rest that the peer's windows do not take yet.
/// The library is never given more than they take: what it keeps is out of our sight, so nothing
/// could tell that it does not go on, and a stream that is reset behind such a rest is not counted
/// right by it (a debug build of h2 0.4.20 panics at the end of the connection).
pub(super) fn send_short(
    respond: &mut SendResponse<Bytes>,
    out: Writer,
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
