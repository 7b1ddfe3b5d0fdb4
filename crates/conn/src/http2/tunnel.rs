//! A WebSocket on one stream (RFC 8441). Its bytes are in DATA frames. It has an output and
//! deadlines of its own, so that the WebSocket works as on a connection.

use bytes::{Buf, Bytes};

use super::link::Link;
use super::request::{Head, Refusal, bad_request};
use super::stream::{Stream, TurnEnd};
use crate::deadlines::Deadlines;
use crate::output::Output;
use crate::websocket::{self, Route, WebSocket};
use crate::{Context, Deadline, Next, Service};

pub(super) struct Tunnel {
    socket: WebSocket,
    output: Output,
    pub(super) deadlines: Deadlines,
    unprocessed: Vec<u8>,
    eof: bool,
    /// The WebSocket has ended: the output is sent, then the stream ends.
    over: bool,
}

/// The reply names the version in a field (RFC 6455 section 4.4).
pub(super) const VERSION: Refusal =
    bad_request("the only version of WebSocket known here is 13 (RFC 6455)");

/// Chooses the WebSocket that an extended CONNECT asks for.
pub(super) fn admit(service: &Service, head: &Head) -> Result<Route, Refusal> {
    if head.protocol != Some(b"websocket") {
        let sentence = "the only CONNECT known here is that of a WebSocket";
        return Err(Refusal("501 Not Implemented", sentence));
    }
    let host = head.check_host()?;
    if head.version.value != Some(b"13") || head.version.is_repeated {
        return Err(VERSION);
    }
    let text = |bytes| str::from_utf8(bytes).map_err(|_| bad_request("the origin is no text"));
    let origin = head.origin.value.map(text).transpose()?;
    if head.origin.is_repeated {
        return Err(bad_request("there are two Origin fields"));
    }
    let path = str::from_utf8(head.path).unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let host = str::from_utf8(host).unwrap_or_default();
    let secure = service.common.tls.is_some();
    websocket::admit(service, path, origin, host, secure)
        .map_err(|(status, sentence)| Refusal(status, sentence))
}

impl Tunnel {
    pub(super) fn open(route: Route, cx: &Context) -> Tunnel {
        let (mut output, mut deadlines) = (Output::default(), Deadlines::default());
        let socket = WebSocket::open(route, &mut own(cx, &mut output, &mut deadlines, false));
        let unprocessed = Vec::new();
        Tunnel { socket, output, deadlines, unprocessed, eof: false, over: false }
    }

    pub(super) fn held(&self) -> usize {
        self.output.held() + self.unprocessed.capacity() + self.socket.held()
    }

    /// Bytes of DATA that it has and has not used.
    pub(super) fn unprocessed(&self) -> usize {
        self.unprocessed.len()
    }

    pub(super) fn awaits_turn(&self) -> bool {
        !self.over && self.socket.awaits_turn()
    }

    /// Takes input, and returns how much of it is used already. At most a window of it waits here,
    /// because windows are returned for what was used.
    pub(super) fn take_input(&mut self, data: &[u8]) -> usize {
        if self.over {
            return data.len();
        }
        self.unprocessed.extend_from_slice(data);
        0
    }

    pub(super) fn end_input(&mut self) {
        self.eof = true;
    }

    /// Processes input. Returns how many bytes of it were used.
    pub(super) fn advance(&mut self, cx: &Context) -> usize {
        if self.over {
            return 0;
        }
        let (output, deadlines) = (&mut self.output, &mut self.deadlines);
        let mut context = own(cx, output, deadlines, self.eof);
        let progress = self.socket.advance(&mut context, &self.unprocessed);
        let mut used = progress.used;
        self.unprocessed.drain(..used);
        if let Some(Next::Close(_)) = progress.next {
            self.over = true;
            used += self.unprocessed.len();
            self.unprocessed.clear();
            self.deadlines.clear_requests();
        }
        if self.unprocessed.is_empty() {
            self.unprocessed = Vec::new();
        }
        used
    }

    /// Handles deadlines that have passed. `takes`: the peer is still receiving output, so it is
    /// not late with an answer.
    pub(super) fn timed_out(&mut self, cx: &Context, takes: bool) {
        for due in self.deadlines.due(cx.now) {
            self.deadlines.clear(due);
            if takes && due == Deadline::Idle {
                let at = cx.now + cx.service.limits.idle_timeout();
                self.deadlines.set(Deadline::Idle, at, cx.now);
            } else {
                self.socket.timed_out(due);
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over && self.output.is_empty()
    }

    pub(super) fn to_send(&self) -> usize {
        self.output.len()
    }

    pub(super) fn take_output(&mut self, room: usize) -> Bytes {
        let Some(mut bytes) = self.output.chunks().next() else { return Bytes::new() };
        bytes.truncate(room);
        self.output.sent(bytes.remaining());
        bytes
    }
}

impl Stream {
    /// Runs the WebSocket until it has output, or has ended.
    pub(super) fn run_tunnel(&mut self, link: &mut Link, cx: &mut Context) -> Result<(), TurnEnd> {
        while let Some(tunnel) = &mut self.tunnel {
            let used = tunnel.advance(cx);
            let has_output = tunnel.over || tunnel.to_send() > 0;
            let awaits_turn = tunnel.awaits_turn();
            self.release(link, cx, used);
            if has_output {
                return Ok(());
            } else if awaits_turn {
                return Err(TurnEnd::Again);
            } else if used == 0 {
                return Err(TurnEnd::Wait);
            }
        }
        Err(TurnEnd::Over)
    }
}

/// The connection's context with the stream's own output, deadlines and end.
fn own<'a>(
    cx: &'a Context,
    output: &'a mut Output,
    deadlines: &'a mut Deadlines,
    eof: bool,
) -> Context<'a> {
    Context {
        service: cx.service,
        address: cx.address,
        joined_chat: cx.joined_chat,
        output,
        deadlines,
        now: cx.now,
        eof,
        draining: cx.draining,
        before_drain: usize::MAX,
    }
}
