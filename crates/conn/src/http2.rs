//! HTTP/2 on one connection (RFC 9113): many streams at once, each a request and its reply.
//!
//! ```text
//!   bytes -> receive: frames -> connection: what they mean -> request, routes
//!                |                   |                            |
//!              hpack           stream, state, window            writer -> link -> output
//! ```
//!
//! A request that can be answered at once never becomes an entry of the table of streams. All
//! others have turns, in which they write to the connection's output, so frames of many streams
//! leave in one write.

mod body;
mod connection;
mod error;
mod frame;
mod hpack;
mod link;
mod priority;
mod receive;
mod request;
mod settings;
mod state;
mod stream;
mod streams;
mod time;
mod tunnel;
mod window;
mod writer;

use bytes::Bytes;

use connection::Leaving;
use error::Code;
use frame::Head;
use hpack::{Decoder, Fields};
use link::Link;
use receive::{Block, Payload};
use stream::{Stream, TURN_BYTES, TurnEnd};
use streams::Streams;

use crate::routes::Reply;
use crate::{Close, Context, Deadline, FileRead, Next, Outcome, Progress, Service};

/// The client's connection preface (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that a peer may send before the window is updated (RFC 9113 section 6.9.2).
pub(crate) const WINDOW_BYTES: usize = window::INITIAL as usize;

/// Input that may stay unprocessed although there is room in the output: a frame that is taken when
/// it is whole.
pub(crate) const INPUT_KEPT_MAX: usize = frame::HEAD_LEN + frame::PAYLOAD_LEN_MAX;

/// Streams that were reset and are remembered.
const RESETS: usize = 16;

#[derive(Default)]
pub(crate) struct Http2 {
    /// Bytes of the preface that have come.
    preface: usize,
    /// SETTINGS are sent. They are the server's preface.
    has_begun: bool,
    /// The client's first frame has come.
    is_greeted: bool,
    payload: Payload,
    block: Option<Box<Block>>,
    /// A frame with fields has begun.
    awaits_fields: bool,
    /// The fields of requests. They have memory while frames are received only.
    fields: Fields,
    decoder: Decoder,
    link: Link,
    streams: Streams,
    /// The newest stream of the client, and the newest one before this turn.
    newest: u32,
    newest_before: u32,
    resets_at_once: u32,
    resets: [u32; RESETS],
    faults: u32,
    empty_frames: u32,
    requests: u64,
    /// The part of a file that the driver reads now, and the stream that needs it.
    reading: Option<(u32, FileRead)>,
    /// Its bytes, or `None` if it could not be read.
    answer: Option<Option<Bytes>>,
    /// A stream may be a WebSocket.
    tunnels: bool,
    /// Set when a deadline has passed: whether the peer is still receiving output.
    takes: Option<bool>,
    /// The client has sent GOAWAY.
    peer_leaves: bool,
    leaving: Leaving,
    ending: Ending,
    /// A stream is open, or something is left to read.
    busy: bool,
    /// The output was full; frames and streams may continue when it has room.
    blocked: bool,
    /// Streams that may still have a turn before other connections run.
    turns_left: usize,
    awaits_turn: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Ending {
    #[default]
    No,
    /// GOAWAY will be sent when the connection is called next.
    Due(Outcome),
    /// It is sent.
    Now(Outcome),
}

impl Http2 {
    pub(crate) fn is_between_requests(&self) -> bool {
        !self.busy
    }

    pub(crate) fn awaits_room(&self) -> bool {
        self.blocked || self.awaits_turn
    }

    pub(crate) fn awaits_turn(&self) -> bool {
        self.awaits_turn
    }

    /// True if a deadline must not pass while the peer is still receiving output: a stream may be
    /// a WebSocket, or waits for window.
    pub(crate) fn awaits_peer(&self) -> bool {
        self.tunnels || self.streams.iter().any(Stream::awaits_window)
    }

    /// A deadline has passed; `takes`: the peer is still receiving output.
    pub(crate) fn time_is_up(&mut self, takes: bool) {
        self.takes = Some(takes);
    }

    pub(crate) fn held(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.held());
        size_of::<Http2>() + self.decoder.held() + self.streams.held() + block
    }

    pub(crate) fn wants_file(&self) -> Option<FileRead> {
        self.reading.filter(|_| self.answer.is_none()).map(|(_, part)| part)
    }

    /// The part that [`Http2::wants_file`] asked for; `None`: it cannot be read.
    pub(crate) fn file_read(&mut self, bytes: Option<Bytes>) {
        self.answer = Some(bytes);
    }

    /// No stream was open within the idle timeout: GOAWAY, then the end.
    pub(crate) fn idle_timed_out(&mut self) {
        self.ending = Ending::Due(Outcome::IdleTimeout);
    }

    /// A head was not complete in time: GOAWAY, then the end.
    pub(crate) fn head_late(&mut self) {
        self.ending = Ending::Due(Outcome::RequestTimeout);
    }

    /// Processes `input` for one turn, and everything that can continue without input. Called
    /// after every event.
    pub(crate) fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        let preface = match self.take_preface(cx, input) {
            Ok(len) => len,
            Err(close) => return Progress { used: input.len(), next: Some(Next::Close(close)) },
        };
        let input = &input[preface..];
        self.turns_left = cx.service.output_high_water_bytes().div_ceil(TURN_BYTES).max(1);
        (self.newest_before, self.resets_at_once) = (self.newest, 0);
        let requests = self.requests;
        if cx.draining && self.preface == PREFACE.len() {
            self.leave(cx);
        }
        if let Ending::Due(outcome) = self.ending {
            self.ending = Ending::No;
            self.end(cx, Code::No, outcome);
        }
        self.take_answer(cx);
        self.expire(cx);
        let (used, more) = match self.ending {
            Ending::No => self.receive(cx, input).unwrap_or_else(|code| {
                self.end(cx, code, Outcome::Rejected);
                (input.len(), false)
            }),
            _ => (input.len(), false),
        };
        self.fields = Fields::default();
        // A WebSocket sends its Close when all input has been given to it.
        cx.draining &= !more;
        if self.ending == Ending::No {
            self.take_turns(cx);
        }
        self.blocked = !link::has_room(cx);
        self.awaits_turn = more || !self.blocked && self.streams.has_ready();
        self.busy = !self.streams.is_empty() || self.awaits_turn || self.is_in_fields();
        let used = preface + used;
        if let Some(close) = self.close(cx, input.len() + preface - used) {
            self.streams = Streams::default();
            return Progress { used, next: Some(Next::Close(close)) };
        }
        self.choose_file(cx.service);
        self.set_deadlines(cx, self.requests > requests);
        self.streams.shrink();
        Progress { used, next: None }
    }

    /// Takes the preface, and sends the server's. Closes without GOAWAY if the preface or the
    /// type of the first frame is wrong: the client does not use HTTP/2 (RFC 9113 section 3.4).
    fn take_preface(&mut self, cx: &mut Context, input: &[u8]) -> Result<usize, Close> {
        if self.is_greeted {
            return Ok(0);
        }
        // The server's preface does not wait for the client's (section 3.4). Sent later, it would
        // depend on how the client's bytes are cut whether a wrong preface is answered.
        if !std::mem::replace(&mut self.has_begun, true) {
            settings::put_own(cx.output.tail(), &cx.service.limits);
        }
        let rejected = Err(Close { linger: true, outcome: Outcome::Rejected });
        let wanted = &PREFACE[self.preface..];
        let len = wanted.len().min(input.len());
        if input[..len] != wanted[..len] {
            return rejected;
        }
        self.preface += len;
        if self.preface < PREFACE.len() {
            if let Ending::Due(outcome) = self.ending {
                return Err(Close { linger: true, outcome });
            }
            if self.preface == 0 && cx.draining {
                return Err(Close { linger: true, outcome: Outcome::Retired });
            }
            if self.preface > 0 && !cx.deadlines.is_set(Deadline::Head) {
                cx.deadlines.clear(Deadline::Idle);
                cx.set(Deadline::Head, cx.service.limits.head_timeout());
            }
        } else if let Some(head) = Head::parse(&input[len..]) {
            if head.kind != frame::Kind::Settings || head.has(frame::flag::ACK) {
                return rejected;
            }
            self.is_greeted = true;
        }
        Ok(len)
    }

    /// A block of fields has begun, and has not ended.
    fn is_in_fields(&self) -> bool {
        self.block.is_some() || self.awaits_fields
    }

    /// One turn for each stream that can continue, until they have produced as much output as one
    /// turn may.
    fn take_turns(&mut self, cx: &mut Context) {
        // Any event may be a wake-up for a WebSocket on one of the streams.
        if self.tunnels {
            self.tunnels = self.streams.iter().any(|stream| stream.tunnel.is_some());
            self.streams.list_if(|stream| stream.tunnel.is_some());
        }
        if cx.draining || cx.eof {
            self.streams.list_if(|stream| stream.ends_events(cx));
        }
        // ANCHOR: turns
        while self.turns_left > 0
            && link::has_room(cx)
            && let Some(stream) = self.streams.next()
        {
            let (id, end) = (stream.id, stream.turn(&mut self.link, cx));
            if end == TurnEnd::Again {
                self.turns_left -= 1;
            }
            self.after_turn(cx, id, end);
        }
        // ANCHOR_END: turns
    }

    fn after_turn(&mut self, cx: &mut Context, id: u32, end: TurnEnd) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.take_answered() {
            cx.service.counters.request();
            self.faults = self.faults.saturating_sub(1);
        }
        match end {
            TurnEnd::Wait => {}
            TurnEnd::WaitForConnection => self.streams.starve(id),
            TurnEnd::Again => self.streams.list(id),
            TurnEnd::File => self.streams.add_file(id),
            TurnEnd::Over => {
                // The reply is complete and the request is not: its rest is refused (RFC 9113
                // section 8.1).
                let is_reset = stream.is_reset;
                let refuses = stream.state == state::State::HalfClosedLocal;
                self.forget(cx, id);
                if refuses {
                    frame::put_reset(cx.output.tail(), id, Code::No);
                }
                if refuses || is_reset {
                    self.remember_reset(id);
                }
            }
        }
    }

    /// Gives the bytes that the driver has read to the stream that needs them, if it still exists.
    fn take_answer(&mut self, cx: &mut Context) {
        let Some(bytes) = self.answer.take() else { return };
        let Some((id, part)) = self.reading.take() else { return };
        if let Some(stream) = self.streams.get_mut(id) {
            let bytes = bytes.map(|bytes| bytes.slice(..bytes.len().min(part.len)));
            let end = stream.file_read(cx, bytes);
            self.after_turn(cx, id, end);
        }
    }

    fn choose_file(&mut self, service: &Service) {
        while self.reading.is_none()
            && let Some(id) = self.streams.next_file()
        {
            let part = self.streams.get(id).and_then(|stream| stream.file_part(service));
            self.reading = part.map(|part| (id, part));
        }
    }

    /// How the connection ends, if it does now. `left`: bytes of input that are not used.
    fn close(&mut self, cx: &mut Context, left: usize) -> Option<Close> {
        if let Ending::Now(outcome) = self.ending {
            return Some(Close { linger: true, outcome });
        }
        let is_done = self.streams.is_empty() && !self.awaits_turn;
        if is_done && matches!(self.leaving, Leaving::After(_)) {
            return Some(Close { linger: true, outcome: Outcome::Retired });
        }
        if is_done && self.peer_leaves {
            self.end(cx, Code::No, Outcome::Completed);
            return Some(Close { linger: true, outcome: Outcome::Completed });
        }
        let waits = self.blocked || self.reading.is_some();
        if !cx.eof || waits || self.awaits_turn || self.streams.has_files() {
            return None;
        }
        let is_delayed = |stream: &Stream| matches!(stream.reply, Reply::Delayed { .. });
        if self.streams.iter().any(is_delayed) {
            return None;
        }
        let begun = self.preface > 0 && self.preface < PREFACE.len() || left > 0;
        let whole = !begun && self.streams.is_empty() && !self.is_in_fields();
        let outcome = if whole { Outcome::Completed } else { Outcome::Truncated };
        Some(Close { linger: false, outcome })
    }
}
