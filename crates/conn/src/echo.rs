//! The echo protocol (RFC 862): every byte back, in order; after the peer's FIN the rest, then
//! ours.

use crate::{Close, Context, Deadline, Outcome, Progress, Then};

/// An echo connection has no state of its own: what was not echoed yet is the output queue.
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
        Progress { used: input.len(), then: outcome.map(|outcome| Then::Close(close(outcome))) }
    }
}
