//! HTTP/2 on one connection (RFC 9113): many streams at once, each a request and its reply.
//!
//! The `h2` crate handles frames, HPACK, flow control and stream states. It is written for a
//! runtime; here it is polled by hand over a pipe in memory ([`pipe`]), by three rules:
//!
//! 1. After every event, connection and streams are polled until no waker is called any more. The
//!    pipe calls no waker, and a call on a stream only queues.
//! 2. `h2` never sees the end of the input, because it would drop its queued frames. What can still
//!    be answered is answered; then this side closes the connection.
//! 3. The output has a limit, at which `h2` stops reading too. So a peer that does not read delays
//!    its own requests and streams.

mod fields;
mod frames;
mod pipe;
mod request;
mod stream;
mod tunnel;
mod wakes;
mod writer;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use frames::FrameFollower;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderValue, SEC_WEBSOCKET_VERSION};
use pipe::Pipe;
use slab::Slab;
use stream::{Http2Stream, Sender, TURN_BYTES, TurnEnd, send_short};
use tunnel::Tunnel;
use wakes::Wakes;
use writer::Http2Writer;

use crate::routes::{self, Reply, ReplyWriter};
use crate::{Close, Context, Deadline, FileRead, Next, Outcome, Progress, Service};

/// The client's connection preface (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const PREFACE_LEN: usize = PREFACE.len();

/// Bytes checked of the client's first frame, behind the preface: length, type and flags.
const FIRST_FRAME_LEN: usize = 5;

/// Bytes that the library charges for small frames that wait. The default ends connections of
/// clients that send many small frames in one read. With this value none was ended in 1,500 random
/// conversations, and there is still a limit.
const DATA_FRAME_BUDGET: usize = 4 << 20;

/// Streams that may be reset before the server has seen them, at a time (rapid reset,
/// CVE-2023-44487). The library's default.
const PENDING_RESETS_MAX: usize = 20;

/// Requests beyond [`Limits::keepalive_requests_max`] that may be in flight when GOAWAY is sent, in
/// units of [`Limits::streams_max`].
const LATE_WINDOWS: u64 = 2;

/// Frames that the library gets in one turn. A read may hold seven thousand. Twice the number of
/// streams of the standard workload, because many requests are two frames.
const FRAMES_PER_TURN_MAX: usize = 64;

/// Memory of the library for a connection, in bytes: two buffers, and tables.
const LIBRARY_BYTES: usize = 28 << 10;

/// Bytes that a peer may send before the window is updated (RFC 9113 section 6.9.2).
pub(crate) const WINDOW_BYTES: usize = 64 << 10;

pub(crate) struct Http2 {
    link: Link,
    pipe: Pipe,
    wakes: Arc<Wakes>,
    waker: Waker,
    preface: usize,
    frames: FrameFollower,
    /// Streams whose trailers in this input are malformed.
    malformed: Vec<u32>,
    /// Streams that are not over. A stream that is answered at once is never added.
    streams: Slab<Http2Stream>,
    /// Keys of streams that can continue; each once.
    ready: VecDeque<usize>,
    /// Keys of streams that need a part of a file, in order.
    files: VecDeque<usize>,
    /// Streams whose replies are with the library, and whose requests are not read to the end.
    unread: Vec<SendStream<Bytes>>,
    /// The part of a file that the driver reads now.
    reading: Option<Reading>,
    /// Its bytes, or `None` if it could not be read.
    answer: Option<Option<Bytes>>,
    requests: u64,
    tunnels: bool,
    /// Set when a deadline has passed: whether the peer is still receiving output.
    takes: Option<bool>,
    leaving: bool,
    /// How the connection ends once the library has flushed, if that is decided.
    ending: Option<Outcome>,
    /// A stream is open, or something is left to read.
    busy: bool,
    /// The output was full; streams may continue when it has room.
    blocked: bool,
    /// Streams that may still have a turn before other connections run.
    turns_left: usize,
    awaits_turn: bool,
    /// When the peer is given up because bytes in the library do not move.
    stalled_until: Option<Instant>,
}

enum Link {
    Handshake(server::Handshake<Pipe, Bytes>),
    Open(server::Connection<Pipe, Bytes>),
    Over,
}

/// A part of a file that the driver reads, and the stream that needs it.
struct Reading {
    key: usize,
    stream_id: u64,
    part: FileRead,
}

impl Http2 {
    pub(crate) fn new(service: &Arc<Service>) -> Http2 {
        let limits = &service.limits;
        let pipe = Pipe::new(limits.output_high_water_bytes);
        let header_list_max = u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX);
        let handshake = server::Builder::new()
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(header_list_max)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .enable_connect_protocol()
            .handshake(pipe.clone());
        let wakes = Arc::new(Wakes::default());
        Http2 {
            link: Link::Handshake(handshake),
            pipe,
            waker: wakes.connection_waker(),
            wakes,
            preface: 0,
            frames: FrameFollower::default(),
            malformed: Vec::new(),
            streams: Slab::new(),
            ready: VecDeque::new(),
            files: VecDeque::new(),
            unread: Vec::new(),
            reading: None,
            answer: None,
            requests: 0,
            tunnels: false,
            takes: None,
            leaving: false,
            ending: None,
            busy: false,
            blocked: false,
            turns_left: 0,
            awaits_turn: false,
            stalled_until: None,
        }
    }

    pub(crate) fn is_between_requests(&self) -> bool {
        !self.busy
    }

    pub(crate) fn awaits_room(&self) -> bool {
        self.blocked || self.awaits_turn
    }

    pub(crate) fn awaits_turn(&self) -> bool {
        self.awaits_turn
    }

    /// True if a deadline must not pass while the peer is still receiving output: a stream may be a
    /// WebSocket, or waits for window.
    pub(crate) fn awaits_peer(&self) -> bool {
        let windows = || self.streams.iter().any(|(_, stream)| stream.awaits_window());
        self.tunnels || self.stalled_until.is_some() || windows()
    }

    /// A deadline has passed; `takes`: the peer is still receiving output.
    pub(crate) fn time_is_up(&mut self, takes: bool) {
        self.takes = Some(takes);
    }

    pub(crate) fn held(&self) -> usize {
        let streams: usize = self.streams.iter().map(|(_, stream)| stream.held()).sum();
        // Received data waits in the library until its stream takes it.
        let unread = if self.streams.is_empty() { 0 } else { WINDOW_BYTES };
        LIBRARY_BYTES + self.pipe.held() + streams + unread
    }

    pub(crate) fn wants_file(&self) -> Option<FileRead> {
        self.reading.as_ref().filter(|_| self.answer.is_none()).map(|reading| reading.part)
    }

    /// The part that [`Http2::wants_file`] asked for; `None`: it cannot be read.
    pub(crate) fn file_read(&mut self, bytes: Option<Bytes>) {
        self.answer = Some(bytes);
    }

    /// No stream was open within the idle timeout: GOAWAY, then the end.
    pub(crate) fn idle_timed_out(&mut self) {
        self.leave_at_once(Reason::NO_ERROR, Outcome::IdleTimeout);
    }

    /// A head was not complete in time: GOAWAY, then the end.
    pub(crate) fn head_late(&mut self) {
        self.leave_at_once(Reason::NO_ERROR, Outcome::RequestTimeout);
    }

    /// Processes `input` for one turn, and everything that can continue without input. Called after
    /// every event.
    pub(crate) fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        let preface_left = PREFACE_LEN.saturating_sub(self.preface);
        if let Err(close) = self.check_preface(cx, input) {
            return Progress { used: input.len(), next: Some(Next::Close(close)) };
        }
        let frames = input.get(preface_left..).unwrap_or_default();
        let head_bytes_max = cx.service.limits.head_bytes_max;
        let left = frames.len() - self.frames.follow(frames, head_bytes_max, FRAMES_PER_TURN_MAX);
        let used = input.len() - left;
        let input = &input[..used];
        self.awaits_turn = left > 0;
        self.turns_left = cx.service.output_high_water_bytes().div_ceil(TURN_BYTES).max(1);
        self.reset_malformed();
        self.pipe.lend(input, cx.output, cx.service.output_high_water_bytes());
        let requests = self.requests;
        self.leave_if_draining(cx);
        // A WebSocket sends its Close when all input has been given to it.
        cx.draining &= left == 0;
        self.take_answer(cx);
        self.expire(cx);
        self.list_tunnels();
        let close = self.pump(cx).or_else(|| self.end_of_input(cx));
        self.blocked = !self.pipe.has_room();
        self.awaits_turn |= !self.blocked && !self.ready.is_empty();
        self.busy = self.is_busy();
        self.pipe.give_back(cx.output);
        if let Some(close) = close {
            return Progress { used, next: Some(Next::Close(close)) };
        }
        self.choose_file(cx.service);
        self.set_deadlines(cx, !input.is_empty(), self.requests > requests);
        self.shrink();
        Progress { used, next: None }
    }

    /// Closes without a reply if the preface or the type of the first frame is wrong: the client
    /// does not use HTTP/2 (RFC 9113 section 3.4). The library would not answer it either.
    fn check_preface(&mut self, cx: &mut Context, input: &[u8]) -> Result<(), Close> {
        if self.preface == PREFACE_LEN + FIRST_FRAME_LEN {
            return Ok(());
        }
        for &byte in input.iter().take(PREFACE_LEN + FIRST_FRAME_LEN - self.preface) {
            if !begins_rightly(self.preface, byte) {
                return Err(Close { linger: true, outcome: Outcome::Rejected });
            }
            self.preface += 1;
        }
        if self.preface >= PREFACE_LEN {
            cx.deadlines.clear(Deadline::Head);
        } else if self.preface > 0 && !cx.deadlines.is_set(Deadline::Head) {
            cx.deadlines.clear(Deadline::Idle);
            cx.set(Deadline::Head, cx.service.limits.head_timeout());
        } else if self.preface == 0 && cx.draining {
            return Err(Close { linger: true, outcome: Outcome::Retired });
        }
        Ok(())
    }

    /// Polls connection and streams until no waker is called and no stream can continue.
    fn pump(&mut self, cx: &mut Context) -> Option<Close> {
        loop {
            if let Some(close) = self.poll_link(cx) {
                self.link = Link::Over;
                self.streams.clear();
                self.unread.clear();
                return Some(close);
            }
            self.reset_unread();
            let (streams, ready) = (&mut self.streams, &mut self.ready);
            self.wakes.take_streams(|key| list(streams, ready, key));
            self.take_turns(cx);
            let others = !self.ready.is_empty() && self.turns_left > 0;
            let goes_on = others || !self.unread.is_empty();
            let can_go_on = goes_on && self.pipe.has_room();
            if !self.wakes.take_connection() && !can_go_on {
                return None;
            }
        }
    }

    /// The library was polled and the output has room, so the replies of these streams are written.
    /// Now the rest of their requests is refused. Done earlier, or by the library, it would
    /// truncate replies or miscount streams.
    fn reset_unread(&mut self) {
        if self.pipe.has_room() {
            self.unread.drain(..).for_each(|mut stream| stream.send_reset(Reason::NO_ERROR));
        }
    }

    /// Lets the library read and write, and accepts its new requests.
    fn poll_link(&mut self, cx: &mut Context) -> Option<Close> {
        let waker = self.waker.clone();
        let mut task = std::task::Context::from_waker(&waker);
        loop {
            // This poll handles earlier wake-ups.
            self.wakes.take_connection();
            match &mut self.link {
                Link::Handshake(_) if self.ending.is_some() => return Some(close(self.outcome())),
                Link::Handshake(handshake) => match Pin::new(handshake).poll(&mut task) {
                    Poll::Ready(Ok(connection)) => {
                        self.link = Link::Open(connection);
                        self.leave_if_draining(cx);
                    }
                    Poll::Ready(Err(_)) => return Some(close(Outcome::Rejected)),
                    Poll::Pending => return None,
                },
                Link::Open(connection) => match connection.poll_accept(&mut task) {
                    Poll::Ready(Some(Ok((request, respond)))) => self.accept(cx, request, respond),
                    Poll::Ready(Some(Err(error))) => return Some(self.failed(&error)),
                    Poll::Ready(None) => return Some(close(self.outcome())),
                    Poll::Pending => return None,
                },
                Link::Over => return Some(close(self.outcome())),
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let asked = if self.leaving { Outcome::Retired } else { Outcome::Completed };
        self.ending.unwrap_or(asked)
    }

    /// The library has ended the connection, and its GOAWAY is written.
    fn failed(&self, error: &h2::Error) -> Close {
        if error.is_remote() {
            return close(self.outcome());
        }
        close(self.ending.unwrap_or(Outcome::Rejected))
    }

    /// Resets streams with malformed trailers before the library reads the trailers.
    /// [`Http2::accept`] resets those that the library has not shown yet.
    fn reset_malformed(&mut self) {
        self.malformed = self.frames.take_malformed();
        let malformed = &self.malformed;
        self.streams.retain(|_, stream| {
            let resets = malformed.iter().any(|&id| stream.reads_from(id));
            if resets {
                stream.reset(Reason::PROTOCOL_ERROR);
            }
            !resets
        });
    }

    fn accept(
        &mut self,
        cx: &mut Context,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        self.count_request(cx.service);
        let (parts, body) = request.into_parts();
        if self.malformed.contains(&body.stream_id().as_u32()) {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return;
        }
        let ended = body.is_end_stream();
        if parts.method == http::Method::CONNECT {
            return self.connect(cx, &parts, body, respond);
        }
        let mut out = Http2Writer::new(cx.service, cx.now);
        let head = match request::check(&parts, ended, &cx.service.limits) {
            Ok(head) => head,
            Err(refusal) => {
                let head_only = parts.method == http::Method::HEAD;
                routes::put_refusal(&mut out, refusal.0, refusal.1, head_only);
                return self.refuse(respond, out, ended);
            }
        };
        let reply = routes::route(cx.service, cx.now, &head.request, &mut out);
        let wanted = routes::reads_body(&head.request);
        if head.expect_continue && !ended && wanted {
            let mut interim = http::Response::new(());
            *interim.status_mut() = http::StatusCode::CONTINUE;
            let _ = respond.send_informational(interim);
        }
        // A client that waits for 100 (Continue) sends no body without it.
        let body = (!ended && (wanted || !head.expect_continue)).then_some(body);
        self.begin(cx, respond, out, reply, body, ended);
    }

    /// A request for a WebSocket (RFC 8441 section 4).
    fn connect(
        &mut self,
        cx: &mut Context,
        parts: &http::request::Parts,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) {
        let mut out = Http2Writer::new(cx.service, cx.now);
        let route = match tunnel::admit(cx.service, parts) {
            Ok(route) => route,
            Err(refusal) => {
                routes::put_refusal(&mut out, refusal.0, refusal.1, false);
                if refusal == tunnel::VERSION {
                    let version = HeaderValue::from_static("13");
                    out.head.headers_mut().append(SEC_WEBSOCKET_VERSION, version);
                }
                return self.refuse(respond, out, body.is_end_stream());
            }
        };
        ReplyWriter::begin(&mut out, "200 OK");
        if let Ok(stream) = respond.send_response(out.head, false) {
            let tunnel = Tunnel::open(route, cx);
            let key = self.insert(Sender::Body(stream), Reply::Complete, Some(body), false);
            self.streams[key].become_tunnel(tunnel);
            self.tunnels = true;
        }
    }

    fn refuse(&mut self, mut respond: SendResponse<Bytes>, out: Http2Writer, ended: bool) {
        // An error means that the peer has reset the stream.
        let Ok((stream, rest)) = send_short(&mut respond, out) else { return };
        if rest.is_empty() && ended {
            return;
        }
        let key = self.insert(Sender::Body(stream), Reply::Complete, None, ended);
        self.streams[key].is_refused();
        self.streams[key].go_on_with(rest);
    }

    /// Sends the first part of the reply. If a part is left, the stream is added to the table.
    fn begin(
        &mut self,
        cx: &mut Context,
        mut respond: SendResponse<Bytes>,
        out: Http2Writer,
        mut reply: Reply,
        body: Option<RecvStream>,
        ended: bool,
    ) {
        let mut rest = Bytes::new();
        let sender = match &mut reply {
            Reply::Complete => match send_short(&mut respond, out) {
                Ok((_, rest)) if rest.is_empty() && ended => {
                    cx.service.counters.request();
                    return;
                }
                Ok((stream, left)) => {
                    rest = left;
                    Sender::Body(stream)
                }
                Err(_) => return,
            },
            Reply::Pattern { .. } | Reply::File { .. } => {
                match respond.send_response(out.head, false) {
                    Ok(stream) => Sender::Body(stream),
                    Err(_) => return,
                }
            }
            Reply::Delayed { .. } | Reply::Echo { .. } => Sender::Head(respond),
        };
        let key = self.insert(sender, reply, body, ended);
        if reply == Reply::Complete {
            self.streams[key].go_on_with(rest);
        }
    }

    fn insert(
        &mut self,
        sender: Sender,
        reply: Reply,
        body: Option<RecvStream>,
        ended: bool,
    ) -> usize {
        let entry = self.streams.vacant_entry();
        let key = entry.key();
        let waker = self.wakes.stream_waker(key);
        entry.insert(Http2Stream::new(self.requests, waker, sender, reply, body, ended));
        list(&mut self.streams, &mut self.ready, key);
        key
    }

    /// Any event may be a wake-up for a WebSocket on one of the streams.
    fn list_tunnels(&mut self) {
        if self.tunnels {
            let tunnels = self.streams.iter().filter(|(_, stream)| stream.tunnel.is_some());
            let keys: Vec<usize> = tunnels.map(|(key, _)| key).collect();
            self.tunnels = !keys.is_empty();
            keys.into_iter().for_each(|key| list(&mut self.streams, &mut self.ready, key));
        }
    }

    /// One turn for each stream that can continue, until they have produced as much output as one
    /// turn may. Then the library is polled first.
    fn take_turns(&mut self, cx: &mut Context) {
        let mut turns = self.ready.len();
        while turns > 0 && self.turns_left > 0 && self.pipe.has_room() {
            let Some(key) = self.ready.pop_front() else { return };
            turns -= 1;
            let Some(stream) = self.streams.get_mut(key) else { continue };
            stream.is_listed = false;
            let turn = stream.turn(cx);
            if turn == TurnEnd::Again {
                self.turns_left -= 1;
            }
            self.after_turn(cx, key, turn);
        }
    }

    fn after_turn(&mut self, cx: &mut Context, key: usize, turn: TurnEnd) {
        if self.streams.get_mut(key).is_some_and(Http2Stream::take_answered) {
            cx.service.counters.request();
        }
        match turn {
            TurnEnd::Wait => {}
            TurnEnd::Again => list(&mut self.streams, &mut self.ready, key),
            TurnEnd::File => {
                if !self.files.contains(&key) {
                    self.files.push_back(key);
                }
            }
            TurnEnd::Over => {
                let stream = self.streams.try_remove(key);
                self.unread.extend(stream.and_then(Http2Stream::into_unread));
            }
        }
    }

    /// Gives the bytes that the driver has read to the stream that needs them, if it still exists.
    fn take_answer(&mut self, cx: &mut Context) {
        let Some(bytes) = self.answer.take() else { return };
        let Some(reading) = self.reading.take() else { return };
        let stream = self.streams.get_mut(reading.key);
        if let Some(stream) = stream.filter(|stream| stream.id == reading.stream_id) {
            let len = reading.part.len;
            let turn = stream.file_read(bytes.map(|bytes| bytes.slice(..bytes.len().min(len))));
            self.after_turn(cx, reading.key, turn);
        }
    }

    fn choose_file(&mut self, service: &Service) {
        while self.reading.is_none() {
            let Some(key) = self.files.pop_front() else { return };
            let Some(stream) = self.streams.get(key) else { continue };
            if let Some(part) = stream.file_part(service) {
                self.reading = Some(Reading { key, stream_id: stream.id, part });
            }
        }
    }

    fn expire(&mut self, cx: &mut Context) {
        let takes = self.takes.take();
        if let (Some(takes), Some(until)) = (takes, self.stalled_until)
            && until <= cx.now
        {
            // It is set again if bytes still wait.
            self.stalled_until = None;
            if !takes {
                self.leave_at_once(Reason::NO_ERROR, Outcome::WriteTimeout);
            }
        }
        let due = |(key, stream): (usize, &Http2Stream)| {
            stream.deadline().is_some_and(|at| at <= cx.now).then_some(key)
        };
        let due: Vec<usize> = self.streams.iter().filter_map(due).collect();
        for key in due {
            let turn = self.streams[key].timed_out(cx, takes);
            self.after_turn(cx, key, turn);
        }
    }

    fn end_of_input(&mut self, cx: &mut Context) -> Option<Close> {
        let waits = self.blocked_by_output() || self.reading.is_some();
        if !cx.eof || waits || self.awaits_turn || !self.ready.is_empty() {
            return None;
        }
        let is_delayed = |stream: &Http2Stream| matches!(stream.reply, Reply::Delayed { .. });
        if self.streams.iter().any(|(_, stream)| is_delayed(stream)) || !self.files.is_empty() {
            return None;
        }
        let begun = self.preface > 0 && self.preface < PREFACE_LEN;
        let whole = !begun && self.streams.is_empty();
        let outcome = if whole { Outcome::Completed } else { Outcome::Truncated };
        Some(Close { linger: false, outcome })
    }

    fn blocked_by_output(&self) -> bool {
        !self.pipe.has_room()
    }

    fn is_busy(&self) -> bool {
        let open = matches!(&self.link, Link::Open(connection) if connection.has_streams());
        open || !self.streams.is_empty() || !self.pipe.is_read() || self.awaits_turn
    }

    /// `received`: bytes came; `asked`: a request came.
    fn set_deadlines(&mut self, cx: &mut Context, received: bool, asked: bool) {
        if self.busy || asked {
            cx.deadlines.clear(Deadline::Idle);
        }
        let idle = !self.busy && cx.output.is_empty() && self.preface >= PREFACE_LEN;
        if idle && !cx.deadlines.is_set(Deadline::Idle) {
            cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        }
        self.watch_fields(cx);
        let moving = self.frames.data_of().filter(|_| received);
        let awaits_room = self.awaits_room();
        for (_, stream) in &mut self.streams {
            moving.into_iter().for_each(|id| stream.body_moves(id));
            stream.watch(cx.service, cx.now, awaits_room);
        }
        let stream = self.streams.iter().filter_map(|(_, stream)| stream.deadline()).min();
        // A stream is open and none of ours waits: then the library holds bytes for which the peer
        // has no window. [`Deadline::WriteStall`] watches what waits for room in the output, also
        // after GOAWAY.
        let waits = self.busy && stream.is_none() && self.reading.is_none();
        if waits && !awaits_room && self.ending.is_none() {
            let until = cx.now + cx.service.limits.write_timeout();
            self.stalled_until.get_or_insert(until);
        } else {
            self.stalled_until = None;
        }
        match stream.or(self.stalled_until) {
            // The deadline of a window has passed: set, so that the driver asks the kernel first.
            Some(at) if at <= cx.now => {}
            Some(at) => cx.deadlines.set(Deadline::Reply, at, cx.now),
            None => cx.deadlines.clear(Deadline::Reply),
        }
    }

    /// Sets the deadline of an incomplete head. Between its frames there can be no others (RFC 9113
    /// section 6.10), so it blocks all streams of the connection.
    fn watch_fields(&mut self, cx: &mut Context) {
        if self.preface < PREFACE_LEN || self.ending.is_some() {
            return;
        }
        // Input that waits for the next turn has come in time.
        if !self.frames.is_in_fields() || self.awaits_turn {
            cx.deadlines.clear(Deadline::Head);
        } else if !cx.deadlines.is_set(Deadline::Head) {
            cx.set(Deadline::Head, cx.service.limits.head_timeout());
        }
    }

    fn count_request(&mut self, service: &Service) {
        self.requests += 1;
        let max = service.limits.keepalive_requests_max;
        let late = LATE_WINDOWS * u64::from(service.limits.streams_max);
        if max != 0 && self.requests > max + late {
            self.leave_at_once(Reason::NO_ERROR, Outcome::Retired);
        } else if max != 0 && self.requests >= max {
            self.leave();
        }
    }

    fn leave_if_draining(&mut self, cx: &mut Context) {
        if cx.draining {
            self.leave();
        }
    }

    /// Refuses new requests and ends when earlier ones are answered: two GOAWAY, one round trip
    /// apart (RFC 9113 section 6.8).
    fn leave(&mut self) {
        if let Link::Open(connection) = &mut self.link
            && !self.leaving
        {
            self.leaving = true;
            connection.graceful_shutdown();
        }
    }

    /// One GOAWAY, and the end. Before the preface is complete, the end without GOAWAY.
    fn leave_at_once(&mut self, reason: Reason, outcome: Outcome) {
        if self.ending.is_none() {
            self.ending = Some(outcome);
            if let Link::Open(connection) = &mut self.link {
                connection.abrupt_shutdown(reason);
            }
        }
    }

    /// An idle connection owns no tables.
    fn shrink(&mut self) {
        if self.streams.is_empty() && self.streams.capacity() > 0 {
            self.streams = Slab::new();
            self.ready = VecDeque::new();
            self.files = VecDeque::new();
        }
    }
}

/// Whether `byte` may be byte `at` of a client's first bytes: the preface, then SETTINGS (type 4)
/// without ACK (flag 1).
fn begins_rightly(at: usize, byte: u8) -> bool {
    match at.checked_sub(PREFACE_LEN) {
        None => byte == PREFACE[at],
        Some(3) => byte == 4,
        Some(4) => byte & 1 == 0,
        Some(_) => true,
    }
}

/// Waits for the peer's FIN, because bytes of it may be in flight.
fn close(outcome: Outcome) -> Close {
    Close { linger: true, outcome }
}

fn list(streams: &mut Slab<Http2Stream>, ready: &mut VecDeque<usize>, key: usize) {
    if let Some(stream) = streams.get_mut(key)
        && !stream.is_listed
    {
        stream.is_listed = true;
        ready.push_back(key);
    }
}
