//! One WebSocket (RFC 6455), whatever carries it: a connection of its own after an upgrade, or a
//! stream of HTTP/2 (RFC 8441).

use crate::{Context, Deadline, Progress, Service};

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

/// Chooses what a WebSocket at `path` is for, or says with which status and sentence it is refused.
/// `host` is the Host field or `:authority`; `secure`: under TLS.
pub(crate) fn admit(
    _service: &Service,
    _path: &str,
    _origin: Option<&str>,
    _host: &str,
    _secure: bool,
) -> Result<Route, (&'static str, &'static str)> {
    Err(("404 Not Found", "no such WebSocket"))
}

/// State of one open WebSocket.
pub(crate) struct WebSocket {}

impl WebSocket {
    /// A WebSocket whose handshake has just been answered.
    pub(crate) fn open(_route: Route, _cx: &mut Context) -> WebSocket {
        WebSocket {}
    }

    /// Something in here waits for room in the output.
    pub(crate) fn awaits_room(&self) -> bool {
        false
    }

    /// Works on `input`, on the clock and on the mail: called after every event, with no input too.
    /// Sets `cx.deadlines` (Idle, Push) for what it waits for.
    pub(crate) fn advance(&mut self, _cx: &mut Context, input: &[u8]) -> Progress {
        Progress { used: input.len(), then: None }
    }

    /// `due` has come; [`WebSocket::advance`] follows.
    pub(crate) fn timed_out(&mut self, _due: Deadline) {}
}
