//! A WebSocket on one stream (RFC 8441): DATA comes in, DATA goes out, and the connection around it
//! has other streams. It has an output and deadlines of its own, so that the WebSocket notices no
//! difference.

use bytes::{Buf, Bytes};
use http::header;
use http::request::Parts;

use super::request::{Refusal, check_host, malformed};
use crate::deadlines::Deadlines;
use crate::output::Output;
use crate::websocket::{self, Route, WebSocket};
use crate::{Context, Deadline, Service, Then};

/// The WebSocket of a stream, and what is its own.
pub(super) struct Tunnel {
    socket: WebSocket,
    output: Output,
    pub(super) deadlines: Deadlines,
    /// What has come and could not be processed yet.
    stash: Vec<u8>,
    /// The peer has ended its side of the stream.
    eof: bool,
    /// All that has come of it has been taken in: if the server is to stop, it may say so now.
    pub(super) all_taken: bool,
    /// The WebSocket is over: what is in the output goes out, and then the stream ends.
    over: bool,
}

/// The reply to it names the version in a field (RFC 6455 section 4.4).
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
        let stash = Vec::new();
        Tunnel { socket, output, deadlines, stash, eof: false, all_taken: false, over: false }
    }

    /// Bytes of memory that it takes.
    pub(super) fn held(&self) -> usize {
        self.output.held() + self.stash.capacity() + self.socket.held()
    }

    /// More may come in: neither input nor output has piled up.
    pub(super) fn takes_input(&self, cx: &Context) -> bool {
        let limits = &cx.service.limits;
        let kept = limits.head_bytes_max.max(websocket::INPUT_KEPT_MAX);
        let room = self.output.len() < cx.service.output_high_water_bytes();
        room && self.stash.len() < kept && !self.eof && !self.over
    }

    /// It could take more of what has come at once.
    pub(super) fn is_put_off(&self) -> bool {
        !self.over && self.socket.is_put_off()
    }

    pub(super) fn take_input(&mut self, data: &[u8]) {
        self.stash.extend_from_slice(data);
    }

    pub(super) fn end_input(&mut self) {
        self.eof = true;
    }

    /// Lets the WebSocket go on.
    pub(super) fn advance(&mut self, cx: &Context) {
        if self.over {
            return;
        }
        let mut context = own(cx, &mut self.output, &mut self.deadlines, self.eof);
        context.draining &= self.all_taken;
        let progress = self.socket.advance(&mut context, &self.stash);
        self.stash.drain(..progress.used);
        if self.stash.is_empty() {
            self.stash = Vec::new();
        }
        if let Some(Then::Close(_)) = progress.then {
            self.over = true;
            self.stash = Vec::new();
            self.deadlines.clear_requests();
        }
    }

    /// What is due by the clock. `takes`: the peer is still taking what it was sent, and before it
    /// has that it cannot be late with an answer.
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

    /// Nothing is left to send, and nothing will be.
    pub(super) fn is_over(&self) -> bool {
        self.over && self.output.is_empty()
    }

    /// Bytes to send.
    pub(super) fn to_send(&self) -> usize {
        self.output.len()
    }

    /// At most `room` bytes of the output.
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
        promised: usize::MAX,
    }
}
