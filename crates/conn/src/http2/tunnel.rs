//! A WebSocket on one stream (RFC 8441). Its bytes are in DATA frames. It has an output and
//! deadlines of its own, so that the WebSocket works as on a connection.

use bytes::{Buf, Bytes};
use http::header;
use http::request::Parts;

use super::request::{Refusal, check_host, malformed};
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
    /// All input of the stream was given to it: if the server is stopping, it may send its Close.
    pub(super) all_taken: bool,
    /// The WebSocket has ended: the output is sent, then the stream ends.
    over: bool,
}

/// The reply names the version in a field (RFC 6455 section 4.4).
pub(super) const VERSION: Refusal =
    malformed("the only version of WebSocket known here is 13 (RFC 6455)");

/// Chooses the WebSocket that an extended CONNECT asks for.
pub(super) fn admit(service: &Service, parts: &Parts) -> Result<Route, Refusal> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>().map(|protocol| protocol.as_str());
    if protocol != Some("websocket") {
        let sentence = "the only CONNECT known here is that of a WebSocket";
        return Err(Refusal("501 Not Implemented", sentence));
    }
    check_host(parts, None)?;
    let mut versions = parts.headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    if !(versions.next().is_some_and(|version| version == "13") && versions.next().is_none()) {
        return Err(VERSION);
    }
    let mut origins = parts.headers.get_all(header::ORIGIN).iter();
    let origin = origins.next().map(|origin| origin.to_str()).transpose();
    let origin = origin.map_err(|_| malformed("the origin is no text"))?;
    if origins.next().is_some() {
        return Err(malformed("there are two Origin fields"));
    }
    let host = parts.uri.authority().map_or("", |authority| authority.as_str());
    let secure = service.common.tls.is_some();
    websocket::admit(service, parts.uri.path(), origin, host, secure)
        .map_err(|(status, sentence)| Refusal(status, sentence))
}

impl Tunnel {
    pub(super) fn open(route: Route, cx: &Context) -> Tunnel {
        let (mut output, mut deadlines) = (Output::default(), Deadlines::default());
        let socket = WebSocket::open(route, &mut own(cx, &mut output, &mut deadlines, false));
        let unprocessed = Vec::new();
        Tunnel { socket, output, deadlines, unprocessed, eof: false, all_taken: false, over: false }
    }

    pub(super) fn held(&self) -> usize {
        self.output.held() + self.unprocessed.capacity() + self.socket.held()
    }

    pub(super) fn takes_input(&self, cx: &Context) -> bool {
        let limits = &cx.service.limits;
        let kept = limits.head_bytes_max.max(websocket::INPUT_KEPT_MAX);
        let room = self.output.len() < cx.service.output_high_water_bytes();
        room && self.unprocessed.len() < kept && !self.eof && !self.over
    }

    pub(super) fn awaits_turn(&self) -> bool {
        !self.over && self.socket.awaits_turn()
    }

    pub(super) fn take_input(&mut self, data: &[u8]) {
        self.unprocessed.extend_from_slice(data);
    }

    pub(super) fn end_input(&mut self) {
        self.eof = true;
    }

    pub(super) fn advance(&mut self, cx: &Context) {
        if self.over {
            return;
        }
        let mut context = own(cx, &mut self.output, &mut self.deadlines, self.eof);
        context.draining &= self.all_taken;
        let progress = self.socket.advance(&mut context, &self.unprocessed);
        self.unprocessed.drain(..progress.used);
        if self.unprocessed.is_empty() {
            self.unprocessed = Vec::new();
        }
        if let Some(Next::Close(_)) = progress.next {
            self.over = true;
            self.unprocessed = Vec::new();
            self.deadlines.clear_requests();
        }
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
        self.advance(cx);
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
