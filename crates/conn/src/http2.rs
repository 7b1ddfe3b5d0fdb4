//! HTTP/2 on one connection (RFC 9113): many streams at once, each a request and its reply.
//!
//! Frames, HPACK, flow control and the state of streams are the `h2` crate's. It is written for a
//! runtime; here it is polled by hand over a pipe in memory ([`pipe`]), by three rules:
//!
//! 1. After every event everything is polled until nobody is woken any more: the pipe wakes nobody,
//!    and a call on a stream only queues.
//! 2. The end of the input is never shown to it: it would drop what is queued. What can still be
//!    answered is answered, and then the connection is closed from here.
//! 3. What it writes has a limit, at which it stops reading too: so a peer that does not read slows
//!    down its own requests, and the streams that it has open.

mod fields;
mod pipe;
mod place;
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
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderValue, SEC_WEBSOCKET_VERSION};
use pipe::Pipe;
use place::Place;
use slab::Slab;
use stream::{Sender, Stream, TURN_BYTES, Turn, send_short};
use tunnel::Tunnel;
use wakes::Wakes;
use writer::Writer;

use crate::routes::{self, Reply};
use crate::{Close, Context, Deadline, FileRead, Outcome, Progress, Service, Then};

/// What a client begins with (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const PREFACE_LEN: usize = PREFACE.len();

/// What is looked at of a client's first frame, behind the preface: length, type and flags.
const FIRST_FRAME_LEN: usize = 5;

/// What the library charges for small frames that wait (a peer that fragments what it sends, or
/// attacks), in bytes. The default kills honest clients that send many small frames in one read;
/// with this none was lost in 1,500 random conversations, and it is still a bound.
const DATA_FRAME_BUDGET: usize = 4 << 20;

/// How many resets of streams that nobody had looked at yet are taken in one go (rapid reset,
/// CVE-2023-44487); the library's own default.
const PENDING_RESETS_MAX: usize = 20;

/// Requests beyond [`Limits::keepalive_requests_max`] that may have been on their way when the peer
/// was told to go, in windows of [`Limits::streams_max`].
const LATE_WINDOWS: u64 = 2;

/// Frames that the library is shown before others have their turn: a read may hold seven thousand.
/// Twice the streams of the suite's own workload, since many a request is two frames.
const FRAMES_PER_TURN_MAX: usize = 64;

/// What the library keeps for a connection, in bytes: two buffers, and tables.
const LIBRARY_BYTES: usize = 28 << 10;

/// What a peer may send before it is told that it was taken, in bytes (RFC 9113 section 6.9.2).
const WINDOW_BYTES: usize = 64 << 10;

/// HTTP/2 state of one connection.
pub(crate) struct Http2 {
    link: Link,
    pipe: Pipe,
    wakes: Arc<Wakes>,
    waker: Waker,
    /// Bytes of the preface that have come.
    preface: usize,
    /// How far the frames behind it have come.
    place: Place,
    /// Streams whose trailers in this input are malformed.
    malformed: Vec<u32>,
    /// Streams that are not over. Those that are answered at once never get here.
    streams: Slab<Stream>,
    /// Keys of those that can go on; each once.
    ready: VecDeque<usize>,
    /// Keys of those that want a part of a file, in turn.
    files: VecDeque<usize>,
    /// Streams whose replies are with the library, and whose requests are not wanted to their ends.
    unread: Vec<SendStream<Bytes>>,
    /// The part of a file that is asked for now.
    reading: Option<Reading>,
    /// What has come of it.
    answer: Option<Option<Bytes>>,
    requests: u64,
    /// There may be a WebSocket among the streams.
    tunnels: bool,
    /// A deadline is due, and whether the peer is still taking what it was sent.
    takes: Option<bool>,
    /// The peer was told to go (GOAWAY).
    leaving: bool,
    /// How the connection ends once the library has flushed, if that is decided.
    ending: Option<Outcome>,
    /// A stream is open, or something is left to read.
    busy: bool,
    /// The output was full: something may go on when it is not.
    blocked: bool,
    /// Streams that may still have a turn and want another before others have theirs.
    turns_left: usize,
    /// Frames, or turns of streams, are left for the next turn.
    put_off: bool,
    /// When a peer is given up for which the library keeps something that does not go on.
    stalled_until: Option<Instant>,
}

/// The library's side of the connection.
enum Link {
    Handshake(server::Handshake<Pipe, Bytes>),
    Open(server::Connection<Pipe, Bytes>),
    Over,
}

/// A part of a file that the driver reads, and for whom.
struct Reading {
    key: usize,
    stream_id: u64,
    part: FileRead,
}

impl Http2 {
    /// A connection whose peer is to send the preface.
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
            place: Place::default(),
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
            put_off: false,
            stalled_until: None,
        }
    }

    /// No stream is open.
    pub(crate) fn is_between_requests(&self) -> bool {
        !self.busy
    }

    /// Something in here waits for room in the output.
    pub(crate) fn awaits_room(&self) -> bool {
        self.blocked || self.put_off
    }

    /// It could go on at once.
    pub(crate) fn is_put_off(&self) -> bool {
        self.put_off
    }

    /// Something waits that a peer which still takes what it was sent cannot be late with: there
    /// may be a WebSocket among the streams, or its windows have no room.
    pub(crate) fn awaits_peer(&self) -> bool {
        let windows = || self.streams.iter().any(|(_, stream)| stream.awaits_window());
        self.tunnels || self.stalled_until.is_some() || windows()
    }

    /// A deadline is due; `takes`: the peer is still taking what it was sent.
    pub(crate) fn time_is_up(&mut self, takes: bool) {
        self.takes = Some(takes);
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        let streams: usize = self.streams.iter().map(|(_, stream)| stream.held()).sum();
        // What has come for a stream that does not take it waits in the library.
        let unread = if self.streams.is_empty() { 0 } else { WINDOW_BYTES };
        LIBRARY_BYTES + self.pipe.held() + streams + unread
    }

    /// The file part that one of the streams needs next.
    pub(crate) fn wants_file(&self) -> Option<FileRead> {
        self.reading.as_ref().filter(|_| self.answer.is_none()).map(|reading| reading.part)
    }

    /// The part that [`Http2::wants_file`] asked for; `None`: it cannot be read.
    pub(crate) fn file_read(&mut self, bytes: Option<Bytes>) {
        self.answer = Some(bytes);
    }

    /// No stream was open for the idle time: GOAWAY, then the end.
    pub(crate) fn idle_over(&mut self) {
        self.leave_at_once(Reason::NO_ERROR, Outcome::IdleTimeout);
    }

    /// A head was not complete in its time: GOAWAY, then the end.
    pub(crate) fn head_late(&mut self) {
        self.leave_at_once(Reason::NO_ERROR, Outcome::RequestTimeout);
    }

    /// Works on `input`, as far as a turn goes, and on whatever else can go on: called after every
    /// event, with no input too.
    pub(crate) fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        let preface_left = PREFACE_LEN.saturating_sub(self.preface);
        if let Err(close) = self.check_preface(cx, input) {
            return Progress { used: input.len(), then: Some(Then::Close(close)) };
        }
        let frames = input.get(preface_left..).unwrap_or_default();
        let head_bytes_max = cx.service.limits.head_bytes_max;
        let left = frames.len() - self.place.follow(frames, head_bytes_max, FRAMES_PER_TURN_MAX);
        let used = input.len() - left;
        let input = &input[..used];
        self.put_off = left > 0;
        self.turns_left = cx.service.output_high_water_bytes().div_ceil(TURN_BYTES).max(1);
        self.reset_malformed();
        self.pipe.lend(input, cx.output, cx.service.output_high_water_bytes());
        let requests = self.requests;
        self.leave_if_draining(cx);
        // A WebSocket takes its leave when all that has come is with it.
        cx.draining &= left == 0;
        self.take_answer(cx);
        self.expire(cx);
        self.list_tunnels();
        let close = self.pump(cx).or_else(|| self.end_of_input(cx));
        self.blocked = !self.pipe.has_room();
        self.put_off |= !self.blocked && !self.ready.is_empty();
        self.busy = self.is_busy();
        self.pipe.give_back(cx.output);
        if let Some(close) = close {
            return Progress { used, then: Some(Then::Close(close)) };
        }
        self.choose_file(cx.service);
        self.set_deadlines(cx, !input.is_empty(), self.requests > requests);
        self.shrink();
        Progress { used, then: None }
    }

    /// The library would say nothing to a wrong preface, nor to a first frame that is no SETTINGS;
    /// and nothing is what it deserves: its sender does not speak HTTP/2 (RFC 9113 section 3.4).
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

    /// Polls connection and streams until nobody is woken and nobody can go on.
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

    /// What their replies had to send is out, because the library was polled and there is room
    /// still: now the rest of their requests is refused. The other order, or to let the library do
    /// it, would cut the replies or lose count.
    fn reset_unread(&mut self) {
        if self.pipe.has_room() {
            self.unread.drain(..).for_each(|mut stream| stream.send_reset(Reason::NO_ERROR));
        }
    }

    /// Lets the library read, and write, and takes all requests that it has.
    fn poll_link(&mut self, cx: &mut Context) -> Option<Close> {
        let waker = self.waker.clone();
        let mut task = std::task::Context::from_waker(&waker);
        loop {
            // What woke it before this poll is seen by this poll.
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

    /// How the connection ended in peace.
    fn outcome(&self) -> Outcome {
        let asked = if self.leaving { Outcome::Retired } else { Outcome::Completed };
        self.ending.unwrap_or(asked)
    }

    /// The library has ended the connection, and its GOAWAY is out.
    fn failed(&self, error: &h2::Error) -> Close {
        if error.is_remote() {
            return close(self.outcome());
        }
        close(self.ending.unwrap_or(Outcome::Rejected))
    }

    /// Streams whose trailers the library would take are reset before it reads them. Those that it
    /// has not shown yet are reset by [`Http2::accept`].
    fn reset_malformed(&mut self) {
        self.malformed = self.place.take_malformed();
        let malformed = &self.malformed;
        self.streams.retain(|_, stream| {
            let resets = malformed.iter().any(|&id| stream.reads_from(id));
            if resets {
                stream.reset(Reason::PROTOCOL_ERROR);
            }
            !resets
        });
    }

    /// A request: chooses its reply, and begins it.
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
        let mut out = Writer::new(cx.service, cx.now);
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
        // A body that waits for 100 (Continue) does not come if nobody says so.
        let body = (!ended && (wanted || !head.expect_continue)).then_some(body);
        self.begin(cx, respond, out, reply, body, ended);
    }

    /// A WebSocket is asked for (RFC 8441 section 4).
    fn connect(
        &mut self,
        cx: &mut Context,
        parts: &http::request::Parts,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) {
        let mut out = Writer::new(cx.service, cx.now);
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
        routes::Writer::begin(&mut out, "200 OK");
        if let Ok(stream) = respond.send_response(out.head, false) {
            let tunnel = Tunnel::open(route, cx);
            let key = self.insert(Sender::Body(stream), Reply::Complete, Some(body), false);
            self.streams[key].become_tunnel(tunnel);
            self.tunnels = true;
        }
    }

    /// A refusal. The rest of the request's body is dropped.
    fn refuse(&mut self, mut respond: SendResponse<Bytes>, out: Writer, ended: bool) {
        // An error means that the peer has reset the stream: then nobody is to be told.
        let Ok((stream, rest)) = send_short(&mut respond, out) else { return };
        if rest.is_empty() && ended {
            return;
        }
        let key = self.insert(Sender::Body(stream), Reply::Complete, None, ended);
        self.streams[key].is_refused();
        self.streams[key].go_on_with(rest);
    }

    /// Sends what there is of the reply; what is left becomes a stream of ours.
    fn begin(
        &mut self,
        cx: &mut Context,
        mut respond: SendResponse<Bytes>,
        out: Writer,
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
        entry.insert(Stream::new(self.requests, waker, sender, reply, body, ended));
        list(&mut self.streams, &mut self.ready, key);
        key
    }

    /// Any event may be a ring of the bell: mail for a WebSocket, of whichever stream.
    fn list_tunnels(&mut self) {
        if self.tunnels {
            let tunnels = self.streams.iter().filter(|(_, stream)| stream.tunnel.is_some());
            let keys: Vec<usize> = tunnels.map(|(key, _)| key).collect();
            self.tunnels = !keys.is_empty();
            keys.into_iter().for_each(|key| list(&mut self.streams, &mut self.ready, key));
        }
    }

    /// One turn each for those that can go on, until the output of a turn has come together: then
    /// the library should have a look at it first.
    fn take_turns(&mut self, cx: &mut Context) {
        let mut turns = self.ready.len();
        while turns > 0 && self.turns_left > 0 && self.pipe.has_room() {
            let Some(key) = self.ready.pop_front() else { return };
            turns -= 1;
            let Some(stream) = self.streams.get_mut(key) else { continue };
            stream.is_listed = false;
            let turn = stream.turn(cx);
            if turn == Turn::Again {
                self.turns_left -= 1;
            }
            self.after_turn(cx, key, turn);
        }
    }

    fn after_turn(&mut self, cx: &mut Context, key: usize, turn: Turn) {
        if self.streams.get_mut(key).is_some_and(Stream::take_answered) {
            cx.service.counters.request();
        }
        match turn {
            Turn::Wait => {}
            Turn::Again => list(&mut self.streams, &mut self.ready, key),
            Turn::File => {
                if !self.files.contains(&key) {
                    self.files.push_back(key);
                }
            }
            Turn::Over => {
                let stream = self.streams.try_remove(key);
                self.unread.extend(stream.and_then(Stream::into_unread));
            }
        }
    }

    /// What the driver has read goes to the stream that wanted it, if that is still there.
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

    /// The next stream in turn that wants a part of a file.
    fn choose_file(&mut self, service: &Service) {
        while self.reading.is_none() {
            let Some(key) = self.files.pop_front() else { return };
            let Some(stream) = self.streams.get(key) else { continue };
            if let Some(part) = stream.file_part(service) {
                self.reading = Some(Reading { key, stream_id: stream.id, part });
            }
        }
    }

    /// What is due by the clock.
    fn expire(&mut self, cx: &mut Context) {
        let takes = self.takes.take();
        if let (Some(takes), Some(until)) = (takes, self.stalled_until)
            && until <= cx.now
        {
            // It begins anew, if something still waits.
            self.stalled_until = None;
            if !takes {
                self.leave_at_once(Reason::NO_ERROR, Outcome::WriteTimeout);
            }
        }
        let due = |(key, stream): (usize, &Stream)| {
            stream.deadline().is_some_and(|at| at <= cx.now).then_some(key)
        };
        let due: Vec<usize> = self.streams.iter().filter_map(due).collect();
        for key in due {
            let turn = self.streams[key].timed_out(cx, takes);
            self.after_turn(cx, key, turn);
        }
    }

    /// The peer sends nothing more: what needs more of it can never go on.
    fn end_of_input(&mut self, cx: &mut Context) -> Option<Close> {
        let waits = self.blocked_by_output() || self.reading.is_some();
        if !cx.eof || waits || self.put_off || !self.ready.is_empty() {
            return None;
        }
        let lives = |stream: &Stream| matches!(stream.reply, Reply::Delayed { .. });
        if self.streams.iter().any(|(_, stream)| lives(stream)) || !self.files.is_empty() {
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
        open || !self.streams.is_empty() || !self.pipe.is_read() || self.put_off
    }

    /// `heard`: something came; `asked`: a request came.
    fn set_deadlines(&mut self, cx: &mut Context, heard: bool, asked: bool) {
        if self.busy || asked {
            cx.deadlines.clear(Deadline::Idle);
        }
        let idle = !self.busy && cx.output.is_empty() && self.preface >= PREFACE_LEN;
        if idle && !cx.deadlines.is_set(Deadline::Idle) {
            cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        }
        self.watch_fields(cx);
        let moving = self.place.data_of().filter(|_| heard);
        let awaits_room = self.awaits_room();
        for (_, stream) in &mut self.streams {
            moving.into_iter().for_each(|id| stream.body_moves(id));
            stream.watch(cx.service, cx.now, awaits_room);
        }
        let stream = self.streams.iter().filter_map(|(_, stream)| stream.deadline()).min();
        // No stream of ours waits, and still one is open: then the library keeps something for
        // which a window was made smaller. Who waits for room in the output, with a GOAWAY too, is
        // watched by [`Deadline::WriteStall`].
        let waits = self.busy && stream.is_none() && self.reading.is_none();
        if waits && !awaits_room && self.ending.is_none() {
            let until = cx.now + cx.service.limits.write_timeout();
            self.stalled_until.get_or_insert(until);
        } else {
            self.stalled_until = None;
        }
        match stream.or(self.stalled_until) {
            // Of a window: it is set, and the driver is to ask the kernel first.
            Some(at) if at <= cx.now => {}
            Some(at) => cx.deadlines.set(Deadline::Reply, at, cx.now),
            None => cx.deadlines.clear(Deadline::Reply),
        }
    }

    /// A head that was begun has its time, whatever else goes on: between its frames there can be
    /// no others (RFC 9113 section 6.10), so it holds up all of the client's other streams.
    fn watch_fields(&mut self, cx: &mut Context) {
        if self.preface < PREFACE_LEN || self.ending.is_some() {
            return;
        }
        // What is put off has come in time.
        if !self.place.is_in_fields() || self.put_off {
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

    /// Tells the peer to ask for nothing more, and ends when what it has asked is answered: two
    /// GOAWAY, a round trip apart (RFC 9113 section 6.8).
    fn leave(&mut self) {
        if let Link::Open(connection) = &mut self.link
            && !self.leaving
        {
            self.leaving = true;
            connection.graceful_shutdown();
        }
    }

    /// One GOAWAY, and the end. Before the preface is complete the end comes without it.
    fn leave_at_once(&mut self, reason: Reason, outcome: Outcome) {
        if self.ending.is_none() {
            self.ending = Some(outcome);
            if let Link::Open(connection) = &mut self.link {
                connection.abrupt_shutdown(reason);
            }
        }
    }

    /// An idle connection keeps no tables.
    fn shrink(&mut self) {
        if self.streams.is_empty() && self.streams.capacity() > 0 {
            self.streams = Slab::new();
            self.ready = VecDeque::new();
            self.files = VecDeque::new();
        }
    }
}

/// Whether this may be byte `at` of what a client sends first: the preface, then SETTINGS (type 4)
/// that acknowledge nothing (flag 1).
fn begins_rightly(at: usize, byte: u8) -> bool {
    match at.checked_sub(PREFACE_LEN) {
        None => byte == PREFACE[at],
        Some(3) => byte == 4,
        Some(4) => byte & 1 == 0,
        Some(_) => true,
    }
}

/// The peer may have more on its way, so its FIN is waited for.
fn close(outcome: Outcome) -> Close {
    Close { linger: true, outcome }
}

/// Notes that a stream can go on.
fn list(streams: &mut Slab<Stream>, ready: &mut VecDeque<usize>, key: usize) {
    if let Some(stream) = streams.get_mut(key)
        && !stream.is_listed
    {
        stream.is_listed = true;
        ready.push_back(key);
    }
}
