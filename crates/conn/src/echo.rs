//! The echo protocol (RFC 862): sends every byte back, in order. After the peer's FIN it sends the
//! rest and then FIN.

use crate::{Close, Context, Deadline, Next, Outcome, Progress};

/// Has no state: bytes to be echoed are in the output.
pub(crate) struct Echo;

impl Echo {
    pub(crate) fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        if !input.is_empty() {
            cx.output.put(input);
            cx.service.counters.request();
            cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        }
        let outcome = match (cx.eof, cx.draining) {
            (true, _) => Some(Outcome::Completed),
            (false, true) => Some(Outcome::Retired),
            (false, false) => None,
        };
        let close = |outcome| Close { linger: outcome == Outcome::Retired, outcome };
        Progress { used: input.len(), next: outcome.map(|outcome| Next::Close(close(outcome))) }
    }
}
