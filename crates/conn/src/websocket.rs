//! One WebSocket (RFC 6455), whatever carries it: a connection of its own after an upgrade, or a
//! stream of HTTP/2 (RFC 8441).
//!
//! Frames are taken apart in [`reader`] and put together in [`frame`]; what is said in the chat
//! goes through the chat. Nothing is allocated while no message is under way, and a peer that does
//! not read is not read either: its messages wait outside, in the socket.

mod frame;
mod reader;

use std::time::{Duration, Instant};

use bytes::Bytes;
use reader::{Event, Payload, Reader};
use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

use crate::chat::{Dropped, Membership};
use crate::{Close, Context, Deadline, Outcome, Progress, Service, Then, origin};

/// What a WebSocket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/ws/echo`: every message back.
    Echo,
    /// `/ws/clock/MS`: a message every MS milliseconds.
    Clock { period_ms: u64 },
    /// `/ws/chat`: what one says reaches all others.
    Chat,
}

/// Input that may be left unprocessed although there is room in the output: what a control frame
/// has before its last byte.
pub(crate) const INPUT_KEPT_MAX: usize = reader::CONTROL_FRAME_BYTES_MAX;

/// Frames that are taken before others have their turn: a read may hold ten thousand. Some hundred
/// of them cost as much as a few requests of HTTP/1.1.
const FRAMES_PER_TURN_MAX: usize = 128;

/// Below this path every resource is a WebSocket.
pub(crate) const PATH: &str = "/ws/";

/// Chooses what a WebSocket at `path` is for, or says with which status and sentence it is refused.
/// `host` is the Host field or `:authority`; `secure`: under TLS.
pub(crate) fn admit(
    service: &Service,
    path: &str,
    origin: Option<&str>,
    host: &str,
    secure: bool,
) -> Result<Route, (&'static str, &'static str)> {
    // A client that sends no Origin is no browser: no page can make it connect (section 10.2).
    if let Some(origin) = origin
        && !origin::is_allowed(origin, host, secure, &service.common.origins_allowed)
    {
        let sentence = "pages of this origin may not open a WebSocket here (--allow-origin ORIGIN)";
        return Err(("403 Forbidden", sentence));
    }
    match path.strip_prefix(PATH).map(|name| name.split_once('/').unwrap_or((name, ""))) {
        Some(("echo", "")) => Ok(Route::Echo),
        Some(("chat", "")) => Ok(Route::Chat),
        Some(("clock", period)) => match crate::routes::number(period, service.limits.delay_ms_max)
        {
            Some(period_ms) if period_ms > 0 => Ok(Route::Clock { period_ms }),
            _ => Err((
                "400 Bad Request",
                "/ws/clock/MS wants milliseconds, 1 at least, within limits",
            )),
        },
        _ => Err(("404 Not Found", "no such WebSocket; try /ws/echo, /ws/clock/1000 or /ws/chat")),
    }
}

/// State of one open WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocket {
    reader: Reader,
    task: Task,
    /// A ping is out, and nothing has come since.
    pinged: bool,
    /// [`Deadline::Idle`] has come.
    silent: bool,
    /// Our Close is out, and the peer's is awaited: nothing more may be sent (section 5.5.1).
    closing: bool,
    /// Frames are left in the input, for the next turn.
    put_off: bool,
}

/// What a route has to remember.
#[derive(Debug)]
enum Task {
    Echo,
    Clock(Ticker),
    Chat {
        membership: Membership,
        /// There is mail that the output had no room for.
        mail_left: bool,
    },
    /// None any more: the WebSocket is ending.
    Over,
}

/// When to push what.
#[derive(Debug)]
struct Ticker {
    opened: Instant,
    period: Duration,
    /// Number of the tick that is due next; the first is 1, a period after the opening.
    next: u64,
}

impl WebSocket {
    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        self.reader.held()
    }

    /// A WebSocket whose handshake has just been answered.
    pub(crate) fn open(route: Route, cx: &mut Context) -> WebSocket {
        let task = match route {
            Route::Echo => Task::Echo,
            Route::Clock { period_ms } => {
                let period = Duration::from_millis(period_ms);
                Task::Clock(Ticker { opened: cx.now, period, next: 1 })
            }
            Route::Chat => {
                cx.joined_chat.set(true);
                let membership = Membership::join(&cx.service.common.chat, cx.address);
                Task::Chat { membership, mail_left: false }
            }
        };
        cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        WebSocket {
            reader: Reader::default(),
            task,
            pinged: false,
            silent: false,
            closing: false,
            put_off: false,
        }
    }

    /// Something in here waits for room in the output.
    pub(crate) fn awaits_room(&self) -> bool {
        matches!(self.task, Task::Chat { mail_left: true, .. })
    }

    /// It could take more of its input at once.
    pub(crate) fn is_put_off(&self) -> bool {
        self.put_off
    }

    /// Works on `input`, on the clock and on the mail: called after every event, with no input too.
    /// Sets `cx.deadlines` (Idle, Push) for what it waits for.
    pub(crate) fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        let mut said = Vec::new();
        let (used, mut end) = self.take_input(cx, input, &mut said);
        if let (Task::Chat { membership, .. }, false) = (&self.task, said.is_empty()) {
            let backlog_max = cx.service.limits.chat_backlog_bytes_max;
            let dropped = membership.say(Bytes::from(said), backlog_max);
            cx.service.counters.chat_dropped(dropped);
        }
        if used > 0 {
            self.pinged = false;
            self.silent = false;
            cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        }
        if end.is_none() {
            let room = cx.output.len() < cx.service.limits.output_high_water_bytes;
            let all_taken = room && !self.put_off || used >= cx.promised;
            end = self.go_on(cx, all_taken);
        }
        if end.is_some() {
            // Leaves the chat: from here on there is nobody who would take mail.
            self.task = Task::Over;
        }
        Progress { used, then: end.map(Then::Close) }
    }

    /// `due` has come; [`WebSocket::advance`] follows.
    pub(crate) fn timed_out(&mut self, due: Deadline) {
        // The ticker looks at the clock itself.
        self.silent |= due == Deadline::Idle;
    }

    /// Takes messages until there are no more, or no room for their answers, or others are to have
    /// their turn. What is said in the chat goes into `said`: frames of one read travel together.
    fn take_input(
        &mut self,
        cx: &mut Context,
        input: &[u8],
        said: &mut Vec<u8>,
    ) -> (usize, Option<Close>) {
        let limits = &cx.service.limits;
        let mut used = 0;
        self.put_off = false;
        for _ in 0..FRAMES_PER_TURN_MAX {
            if cx.output.len() >= cx.service.output_high_water_bytes() {
                return (used, None);
            }
            let taken = match self.reader.next(&input[used..], limits.message_bytes_max) {
                Ok((0, None)) if cx.eof => return (used, Some(self.cut_off())),
                Ok((0, None)) => return (used, None),
                Ok((n, None)) => {
                    used += n;
                    continue;
                }
                Ok((n, Some(event))) => {
                    used += n;
                    self.take(cx, event, said)
                }
                Err(fault) => Err(fault),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(close)) => return (used, Some(close)),
                Err(fault) => return (used, Some(self.fail(cx, fault))),
            }
        }
        self.put_off = used < input.len();
        (used, None)
    }

    fn take(
        &mut self,
        cx: &mut Context,
        event: Event,
        said: &mut Vec<u8>,
    ) -> Result<Option<Close>, Fault> {
        match event {
            Event::Message { text, payload } => {
                cx.service.counters.request();
                self.message(cx, text, payload, said)?;
            }
            // After our Close nothing may be sent.
            Event::Ping(payload) if !self.closing => {
                let out = cx.output.tail();
                frame::put_head(out, OpCode::Control(Control::Pong), payload.len());
                payload.append_to(out);
            }
            Event::Ping(_) | Event::Pong => {}
            Event::Close(code) => return Ok(Some(self.answer_close(cx, code))),
        }
        Ok(None)
    }

    fn message(
        &mut self,
        cx: &mut Context,
        text: bool,
        payload: Payload,
        said: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match (&self.task, payload) {
            (Task::Echo, payload) if self.closing => frame::check(text, payload),
            (Task::Echo, Payload::Assembled(payload)) => {
                frame::put_head(cx.output.tail(), frame::data(text), payload.len());
                cx.output.push(Bytes::from(payload));
                Ok(())
            }
            (Task::Echo, payload) => frame::put_message(cx.output.tail(), text, payload),
            (Task::Chat { .. }, payload) => frame::put_message(said, text, payload),
            (Task::Clock(_) | Task::Over, payload) => frame::check(text, payload),
        }
    }

    /// What there is to do without input: mail, the clock, stopping, silence.
    /// `all_taken`: no whole message is left in the input; those that lay in the socket when the
    /// server was told to stop are answered before it takes its leave.
    fn go_on(&mut self, cx: &mut Context, all_taken: bool) -> Option<Close> {
        let push_high_water = cx.service.limits.push_high_water_bytes;
        match &mut self.task {
            Task::Clock(ticker) => ticker.tick(cx),
            Task::Chat { membership, mail_left } => {
                match membership.collect(cx.output, push_high_water) {
                    Ok(left) => *mail_left = left,
                    Err(Dropped) => {
                        frame::put_close(cx.output.tail(), CloseCode::Again, "too slow");
                        return Some(Close { linger: true, outcome: Outcome::Retired });
                    }
                }
            }
            Task::Echo | Task::Over => {}
        }
        if cx.draining && all_taken && !self.closing {
            frame::put_close(cx.output.tail(), CloseCode::Away, "the server stops");
            // The peer's Close is awaited for as long as the connection may drain.
            self.closing = true;
            self.task = Task::Over;
            cx.deadlines.clear(Deadline::Push);
        }
        if std::mem::take(&mut self.silent) { self.silence(cx) } else { None }
    }

    /// Nothing has come for the idle time: asks whether somebody is there, and the next time gives
    /// up (section 5.5.2).
    fn silence(&mut self, cx: &mut Context) -> Option<Close> {
        cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        if self.closing || !cx.output.is_empty() {
            // Other deadlines watch those who are ending, and those who are to read.
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

    /// The peer's Close: answered with its own code, unless it is the answer to ours (section
    /// 5.5.1). The server then closes first, so that TIME_WAIT stays here (section 7.1.1).
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

    /// The peer broke the protocol: it is told how, and then it is over (section 7.1.7).
    fn fail(&self, cx: &mut Context, fault: Fault) -> Close {
        if !self.closing {
            let (code, reason) = fault.close();
            frame::put_close(cx.output.tail(), code, reason);
        }
        Close { linger: true, outcome: Outcome::Rejected }
    }

    /// The peer's FIN without its Close before it.
    fn cut_off(&self) -> Close {
        // A peer that was sent a Close has been told that it is over, and is free to agree like
        // this.
        let outcome = if self.closing { Outcome::Retired } else { Outcome::Truncated };
        Close { linger: false, outcome }
    }
}

impl Ticker {
    /// Pushes what is due by the clock, whatever woke the driver; what there is no room for is left
    /// out, and its number with it.
    fn tick(&mut self, cx: &mut Context) {
        let passed = cx.now.saturating_duration_since(self.opened).as_millis();
        let due = u64::try_from(passed / self.period.as_millis()).unwrap_or(u64::MAX);
        while self.next <= due && cx.output.len() < cx.service.limits.push_high_water_bytes {
            let text = format!("tick {}", self.next);
            let out = cx.output.tail();
            frame::put_head(out, frame::data(true), text.len());
            out.extend_from_slice(text.as_bytes());
            self.next += 1;
        }
        self.next = self.next.max(due.saturating_add(1));
        let millis = (self.period.as_millis() as u64).saturating_mul(self.next);
        cx.deadlines.set(Deadline::Push, self.opened + Duration::from_millis(millis), cx.now);
    }
}

/// How a peer breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// What a frame may not be, or may not be here.
    Frame(&'static str),
    /// Text that is not UTF-8 (section 8.1).
    Text,
    /// A message beyond the limit.
    TooLarge,
}

impl Fault {
    /// The code (section 7.4.1) and the reason.
    fn close(self) -> (CloseCode, &'static str) {
        match self {
            Fault::Frame(what) => (CloseCode::Protocol, what),
            Fault::Text => (CloseCode::Invalid, "the text is not UTF-8"),
            Fault::TooLarge => (CloseCode::Size, "the message is too large"),
        }
    }
}
