//! One WebSocket (RFC 6455): on a connection of its own after an upgrade, or on a stream of HTTP/2
//! (RFC 8441).
//!
//! [`reader`] parses frames and [`frame`] writes them; messages of the chat go through
//! [`crate::chat`]. A WebSocket owns no memory between messages. A peer that does not read is not
//! read either, so its messages wait in the socket.

mod frame;
mod reader;

use bytes::Bytes;
use reader::{Payload, Reader, Received};
use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

use crate::chat::{Dropped, Membership};
use crate::news::{self, Ticker};
use crate::{Close, Context, Deadline, Next, Outcome, Progress, Service, origin};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/ws/echo`: sends every message back.
    Echo,
    /// `/ws/clock/MS`: the news of this period.
    Clock { period_ms: u64 },
    /// `/ws/chat`: sends every message to all other members.
    Chat,
}

/// Input that may stay unprocessed although there is room in the output: an incomplete control
/// frame.
pub(crate) const INPUT_KEPT_MAX: usize = reader::CONTROL_FRAME_BYTES_MAX;

/// Frames that are processed in one turn. A read may hold ten thousand; a hundred cost as much as a
/// few requests of HTTP/1.1.
const FRAMES_PER_TURN_MAX: usize = 128;

/// Every path that begins so is a WebSocket.
pub(crate) const PATH: &str = "/ws/";

/// Chooses the route of a WebSocket at `path`, or refuses it with a status and a sentence. `host`
/// is the Host field or `:authority`; `secure`: over TLS.
pub(crate) fn admit(
    service: &Service,
    path: &str,
    origin: Option<&str>,
    host: &str,
    secure: bool,
) -> Result<Route, (&'static str, &'static str)> {
    // ANCHOR: origin
    // A client without Origin is not a browser, so no page can make it connect (section 10.2).
    if let Some(origin) = origin
        && !origin::is_allowed(origin, host, secure, &service.common.origins_allowed)
    {
        let sentence = "pages of this origin may not open a WebSocket here (--allow-origin ORIGIN)";
        return Err(("403 Forbidden", sentence));
    }
    // ANCHOR_END: origin
    match path.strip_prefix(PATH).map(|name| name.split_once('/').unwrap_or((name, ""))) {
        Some(("echo", "")) => Ok(Route::Echo),
        Some(("chat", "")) => Ok(Route::Chat),
        Some(("clock", period)) => match news::period_ms(period, service) {
            Some(period_ms) => Ok(Route::Clock { period_ms }),
            None => Err((
                "400 Bad Request",
                "/ws/clock/MS wants milliseconds, 1 at least, within limits",
            )),
        },
        _ => Err(("404 Not Found", "no such WebSocket; try /ws/echo, /ws/clock/1000 or /ws/chat")),
    }
}

#[derive(Debug)]
pub(crate) struct WebSocket {
    reader: Reader,
    task: Task,
    /// A ping was sent, and no frame has come since.
    pinged: bool,
    idle_is_due: bool,
    /// Our Close was sent and the peer's is awaited: no more frames may be sent (section 5.5.1).
    closing: bool,
    awaits_turn: bool,
}

#[derive(Debug)]
enum Task {
    Echo,
    Clock(Ticker),
    Chat {
        membership: Membership,
        /// Frames of other members are queued, and the output has no room for them.
        frames_left: bool,
    },
    Ended,
}

impl WebSocket {
    pub(crate) fn held(&self) -> usize {
        self.reader.held()
    }

    pub(crate) fn open(route: Route, cx: &mut Context) -> WebSocket {
        let task = match route {
            Route::Echo => Task::Echo,
            Route::Clock { period_ms } => Task::Clock(Ticker::new(period_ms, cx.service, cx.now)),
            Route::Chat => {
                cx.joined_chat.set(true);
                let membership = Membership::join(&cx.service.common.chat, cx.address);
                Task::Chat { membership, frames_left: false }
            }
        };
        cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        WebSocket {
            reader: Reader::default(),
            task,
            pinged: false,
            idle_is_due: false,
            closing: false,
            awaits_turn: false,
        }
    }

    pub(crate) fn awaits_room(&self) -> bool {
        matches!(self.task, Task::Chat { frames_left: true, .. })
    }

    pub(crate) fn awaits_turn(&self) -> bool {
        self.awaits_turn
    }

    /// Processes input, ticks and queued messages. Called after every event, also without input.
    /// Sets `Idle` and `Push` in `cx.deadlines`.
    pub(crate) fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        let mut to_chat = Vec::new();
        let (used, mut end) = self.take_input(cx, input, &mut to_chat);
        if let (Task::Chat { membership, .. }, false) = (&self.task, to_chat.is_empty()) {
            let backlog_max = cx.service.limits.chat_backlog_bytes_max;
            let dropped = membership.send(Bytes::from(to_chat), backlog_max);
            cx.service.counters.chat_dropped(dropped);
        }
        if used > 0 {
            self.pinged = false;
            self.idle_is_due = false;
            cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        }
        if end.is_none() {
            let room = cx.output.len() < cx.service.limits.output_high_water_bytes;
            let all_taken = room && !self.awaits_turn || used >= cx.before_drain;
            end = self.go_on(cx, all_taken);
        }
        if end.is_some() {
            // Leaves the chat, so that no more messages are queued for it.
            self.task = Task::Ended;
        }
        Progress { used, next: end.map(Next::Close) }
    }

    /// The deadline `due` has passed; [`WebSocket::advance`] is called next.
    pub(crate) fn timed_out(&mut self, due: Deadline) {
        self.idle_is_due |= due == Deadline::Idle;
    }

    /// Processes frames until the input is used, the output is full, or the turn ends. Chat
    /// messages go into `to_chat`, so that those of one read are sent together.
    fn take_input(
        &mut self,
        cx: &mut Context,
        input: &[u8],
        to_chat: &mut Vec<u8>,
    ) -> (usize, Option<Close>) {
        let limits = &cx.service.limits;
        let mut used = 0;
        self.awaits_turn = false;
        for _ in 0..FRAMES_PER_TURN_MAX {
            if cx.output.len() >= cx.service.output_high_water_bytes() {
                return (used, None);
            }
            let taken = match self.reader.next(&input[used..], limits.message_bytes_max) {
                Ok((0, None)) if cx.eof => return (used, Some(self.eof_without_close())),
                Ok((0, None)) => return (used, None),
                Ok((n, None)) => {
                    used += n;
                    continue;
                }
                Ok((n, Some(event))) => {
                    used += n;
                    self.take(cx, event, to_chat)
                }
                Err(violation) => Err(violation),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(close)) => return (used, Some(close)),
                Err(violation) => return (used, Some(self.fail(cx, violation))),
            }
        }
        self.awaits_turn = used < input.len();
        (used, None)
    }

    fn take(
        &mut self,
        cx: &mut Context,
        event: Received,
        to_chat: &mut Vec<u8>,
    ) -> Result<Option<Close>, Violation> {
        match event {
            Received::Message { text, payload } => {
                cx.service.counters.request();
                self.message(cx, text, payload, to_chat)?;
            }
            // After our Close no frame may be sent.
            Received::Ping(payload) if !self.closing => {
                let out = cx.output.tail();
                frame::put_head(out, OpCode::Control(Control::Pong), payload.len());
                payload.append_to(out);
            }
            Received::Ping(_) | Received::Pong => {}
            Received::Close(code) => return Ok(Some(self.answer_close(cx, code))),
        }
        Ok(None)
    }

    fn message(
        &mut self,
        cx: &mut Context,
        text: bool,
        payload: Payload,
        to_chat: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        match (&self.task, payload) {
            (Task::Echo, payload) if self.closing => frame::check(text, payload),
            (Task::Echo, Payload::Assembled(payload)) => {
                frame::put_head(cx.output.tail(), frame::data(text), payload.len());
                cx.output.push(Bytes::from(payload));
                Ok(())
            }
            (Task::Echo, payload) => frame::put_message(cx.output.tail(), text, payload),
            (Task::Chat { .. }, payload) => frame::put_message(to_chat, text, payload),
            (Task::Clock(_) | Task::Ended, payload) => frame::check(text, payload),
        }
    }

    /// Does what needs no input: queued messages, ticks, stopping, the idle timeout. `all_taken`:
    /// no complete message is left in the input. Messages that lay in the socket when the server
    /// was told to stop are answered before the Close.
    fn go_on(&mut self, cx: &mut Context, all_taken: bool) -> Option<Close> {
        let push_high_water = cx.service.limits.push_high_water_bytes;
        match &mut self.task {
            Task::Clock(ticker) => {
                let output = &mut *cx.output;
                ticker.tick(cx.service, cx.now, |number| {
                    let room = output.len() < push_high_water;
                    if room {
                        put_tick(output.tail(), number);
                    }
                    room
                });
                cx.deadlines.set(Deadline::Push, ticker.due_at(cx.service), cx.now);
            }
            Task::Chat { membership, frames_left } => {
                match membership.take_frames(cx.output, push_high_water) {
                    Ok(left) => *frames_left = left,
                    Err(Dropped) => {
                        frame::put_close(cx.output.tail(), CloseCode::Again, "too slow");
                        return Some(Close { linger: true, outcome: Outcome::Retired });
                    }
                }
            }
            Task::Echo | Task::Ended => {}
        }
        if cx.draining && all_taken && !self.closing {
            frame::put_close(cx.output.tail(), CloseCode::Away, "the server stops");
            // The drain timeout limits the wait for the peer's Close.
            self.closing = true;
            self.task = Task::Ended;
            cx.deadlines.clear(Deadline::Push);
        }
        if std::mem::take(&mut self.idle_is_due) { self.check_idle(cx) } else { None }
    }

    /// No frame has come within the idle timeout. Sends a ping, and ends the WebSocket when the
    /// timeout passes again (section 5.5.2).
    fn check_idle(&mut self, cx: &mut Context) -> Option<Close> {
        cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        if self.closing || !cx.output.is_empty() {
            // Other deadlines watch a WebSocket that is ending or that has output.
            return None;
        }
        if self.pinged {
            frame::put_close(cx.output.tail(), CloseCode::Policy, "no answer to a ping");
            return Some(Close { linger: true, outcome: Outcome::IdleTimeout });
        }
        self.pinged = true;
        frame::put_head(cx.output.tail(), OpCode::Control(Control::Ping), 0);
        None
    }

    /// Answers the peer's Close with the same code, unless it answers ours (section 5.5.1). The
    /// server closes first, so that TIME_WAIT is on its side (section 7.1.1).
    fn answer_close(&self, cx: &mut Context, code: Option<CloseCode>) -> Close {
        if self.closing {
            return Close { linger: true, outcome: Outcome::Retired };
        }
        match code {
            Some(code) => frame::put_close(cx.output.tail(), code, ""),
            None => frame::put_head(cx.output.tail(), OpCode::Control(Control::Close), 0),
        }
        Close { linger: true, outcome: Outcome::Completed }
    }

    /// Closes with the reason of the violation (section 7.1.7).
    fn fail(&self, cx: &mut Context, violation: Violation) -> Close {
        if !self.closing {
            let (code, reason) = violation.close();
            frame::put_close(cx.output.tail(), code, reason);
        }
        Close { linger: true, outcome: Outcome::Rejected }
    }

    fn eof_without_close(&self) -> Close {
        // After our Close the peer may end with a FIN alone.
        let outcome = if self.closing { Outcome::Retired } else { Outcome::Truncated };
        Close { linger: false, outcome }
    }
}

fn put_tick(out: &mut Vec<u8>, number: u64) {
    let text = news::text(number);
    frame::put_head(out, frame::data(true), text.len());
    out.extend_from_slice(text.as_bytes());
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Violation {
    /// A frame that is malformed, or not allowed here.
    Frame(&'static str),
    /// Text that is not UTF-8 (section 8.1).
    Text,
    TooLarge,
}

impl Violation {
    fn close(self) -> (CloseCode, &'static str) {
        match self {
            Violation::Frame(what) => (CloseCode::Protocol, what),
            Violation::Text => (CloseCode::Invalid, "the text is not UTF-8"),
            Violation::TooLarge => (CloseCode::Size, "the message is too large"),
        }
    }
}
