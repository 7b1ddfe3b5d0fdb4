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

/// Where the reply goes.
pub(super) enum Sender {
    /// The head is not out.
    Head(SendResponse<Bytes>),
    /// The head is out.
    Body(SendStream<Bytes>),
    /// All is with the library.
    Ended,
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
    /// Of the body, still to be sent back.
    pending: Bytes,
    /// When the next bytes of the body must be here.
    body_until: Option<Instant>,
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
    /// `body`: what is still to come of the request.
    pub(super) fn new(
        id: u64,
        waker: Waker,
        sender: Sender,
        reply: Reply,
        body: Option<RecvStream>,
    ) -> Stream {
        Stream {
            id,
            sender,
            reply,
            waker,
            body,
            received: 0,
            pending: Bytes::new(),
            body_until: None,
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

    /// True once, when all of the reply is with the library.
    pub(super) fn take_answered(&mut self) -> bool {
        let answered = matches!(self.sender, Sender::Ended);
        answered && !std::mem::replace(&mut self.is_counted, true)
    }

    /// When it must be looked at even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let reply = match self.reply {
            Reply::Delayed { until, due: false, .. } => Some(until),
            _ => None,
        };
        let tunnel = self.tunnel.as_ref().and_then(|tunnel| tunnel.deadlines.earliest());
        [reply, self.body_until, tunnel].into_iter().flatten().min()
    }

    /// The file part that it needs next, as far as the peer's windows go.
    pub(super) fn file_part(&self, service: &Service) -> Option<FileRead> {
        let part = self.reply.wants_file(&service.limits)?;
        Some(FileRead { len: part.len.min(self.file_room), ..part })
    }

    /// [`Stream::deadline`] has come.
    pub(super) fn timed_out(&mut self, cx: &crate::Context) -> Turn {
        if let Some(tunnel) = &mut self.tunnel {
            return if tunnel.timed_out(cx) { Turn::Again } else { Turn::Over };
        }
        let (service, now) = (cx.service, cx.now);
        if let Reply::Delayed { until, due, .. } = &mut self.reply
            && *until <= now
        {
            *due = true;
        }
        if self.body_until.is_none_or(|until| until > now) {
            return Turn::Again;
        }
        self.body_until = None;
        match &mut self.sender {
            Sender::Head(_) => {
                self.refuse(service, now, TIMEOUT);
                Turn::Over
            }
            Sender::Body(stream) if matches!(self.reply, Reply::Echo { .. }) => {
                stream.send_reset(Reason::CANCEL);
                Turn::Over
            }
            // Nobody needs the rest of the body: the reply goes on without it.
            Sender::Body(_) | Sender::Ended => {
                self.body = None;
                Turn::Again
            }
        }
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
            let moved = if sent > before { Poll::Ready(()) } else { Poll::Pending };
            tunnel.watch_stall(cx, moved);
            if tunnel.is_over() {
                self.send(Bytes::new(), true)?;
                return Ok(Turn::Over);
            }
            if !received && moved.is_pending() {
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
        self.drop_body(task, service, now)?;
        match self.reply {
            Reply::Pattern { .. } => self.send_pattern(task, service),
            Reply::File { .. } => self.ask_for_file(task, service),
            Reply::Delayed { millis, due: true, head_only, .. } => {
                let mut out = Writer::new(service, now);
                routes::put_delayed(&mut out, millis, head_only);
                self.send_whole(out)?;
                self.reply = Reply::Complete;
                Ok(self.after_reply())
            }
            Reply::Complete | Reply::Echo { .. } => Ok(self.after_reply()),
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
            Sender::Body(stream) => stream.poll_reset(task),
            Sender::Ended => Poll::Pending,
        };
        if reset.is_ready() { Err(Gone) } else { Ok(()) }
    }

    /// Takes a body that no route reads, so that its sender can go on.
    fn drop_body(
        &mut self,
        task: &mut Context,
        service: &Service,
        now: Instant,
    ) -> Result<(), Gone> {
        while let Some(data) = self.receive(task, service, now)? {
            if let Some(body) = &mut self.body {
                body.flow_control().release_capacity(data.len())?;
            }
            if self.received > service.limits.body_bytes_max {
                self.body = None;
            }
        }
        Ok(())
    }

    /// The next bytes of the body; `None`: not now, or never again (then there is no body left).
    fn receive(
        &mut self,
        task: &mut Context,
        service: &Service,
        now: Instant,
    ) -> Result<Option<Bytes>, Gone> {
        let Some(body) = &mut self.body else { return Ok(None) };
        let timeout = service.limits.body_timeout();
        match body.poll_data(task)? {
            Poll::Ready(Some(data)) => {
                self.received += data.len() as u64;
                // Frames without data are no progress.
                if !data.is_empty() {
                    self.body_until = Some(now + timeout);
                }
                Ok(Some(data))
            }
            Poll::Ready(None) => {
                self.body = None;
                self.body_until = None;
                Ok(None)
            }
            Poll::Pending => {
                self.body_until.get_or_insert(now + timeout);
                Ok(None)
            }
        }
    }

    fn echo(&mut self, task: &mut Context, service: &Service, now: Instant) -> Result<Turn, Gone> {
        let mut sent = 0;
        while sent < TURN_BYTES {
            if self.pending.is_empty() {
                match self.receive(task, service, now)? {
                    Some(data) => self.pending = data,
                    None if self.body.is_some() => return Ok(Turn::Wait),
                    None => return self.end_echo(service, now),
                }
                if self.received > service.limits.body_bytes_max {
                    self.refuse(service, now, TOO_LARGE);
                    return Ok(Turn::Over);
                }
                continue;
            }
            self.send_echo_head(service, now, false)?;
            let Poll::Ready(room) = self.room(task, self.pending.len())? else {
                // The peer cannot be late with a body that is not read.
                self.body_until = None;
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
        let stream = respond.send_response(out.head, last)?;
        self.sender = if last { Sender::Ended } else { Sender::Body(stream) };
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

    /// How much of `wanted` the peer's windows allow: never zero.
    fn room(&mut self, task: &mut Context, wanted: usize) -> Result<Poll<usize>, Gone> {
        let Sender::Body(stream) = &mut self.sender else { return Err(Gone) };
        stream.reserve_capacity(wanted);
        loop {
            match stream.capacity() {
                0 => {}
                room => return Ok(Poll::Ready(room.min(wanted))),
            }
            match stream.poll_capacity(task) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None | Some(Err(_))) => return Err(Gone),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), Gone> {
        let Sender::Body(stream) = &mut self.sender else { return Err(Gone) };
        stream.send_data(data, last)?;
        if last {
            self.sender = Sender::Ended;
        }
        Ok(())
    }

    fn send_whole(&mut self, out: Writer) -> Result<(), Gone> {
        let Sender::Head(respond) = &mut self.sender else { return Err(Gone) };
        send_whole(respond, out)?;
        self.sender = Sender::Ended;
        Ok(())
    }

    /// Answers with an error, or resets the stream if the head is out.
    fn refuse(&mut self, service: &Service, now: Instant, refusal: Refusal) {
        match &mut self.sender {
            Sender::Head(respond) => {
                let mut out = Writer::new(service, now);
                routes::put_refusal(&mut out, refusal.0, refusal.1, false);
                // An error means that the peer has reset the stream: then nobody is to be told.
                let _ = send_whole(respond, out);
            }
            Sender::Body(stream) => stream.send_reset(Reason::CANCEL),
            Sender::Ended => {}
        }
    }
}

/// Gives a whole reply to the library, which keeps what the peer's windows do not take yet.
pub(super) fn send_whole(respond: &mut SendResponse<Bytes>, out: Writer) -> Result<(), h2::Error> {
    let ends_with_head = out.body.is_empty();
    let mut stream = respond.send_response(out.head, ends_with_head)?;
    if !ends_with_head {
        stream.send_data(out.body, true)?;
    }
    Ok(())
}
