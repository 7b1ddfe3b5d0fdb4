//! The states of a stream (RFC 9113 section 5.1). Without server push there is no reserved state.
//!
//! ```text
//!                          HEADERS
//!                idle ----------------> open
//!                  |                   /    \
//!  HEADERS with    |      END_STREAM  /      \  END_STREAM
//!  END_STREAM      |      received   v        v sent
//!                  |  half-closed (remote)   half-closed (local)
//!                  +------->  |                |
//!        END_STREAM sent, or  v                v  END_STREAM received, or
//!        RST_STREAM         closed <-------- closed   RST_STREAM
//! ```

use super::error::{Code, Fault};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Idle,
    Open,
    /// The request has ended.
    HalfClosedRemote,
    /// The reply has ended.
    HalfClosedLocal,
    Closed,
}

/// Frames that a stream receives or sends. END_STREAM is an event of its own, behind its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    ReceiveHeaders,
    ReceiveData,
    ReceiveWindowUpdate,
    ReceiveReset,
    ReceiveEnd,
    SendEnd,
    SendReset,
}

impl State {
    // ANCHOR: transitions
    /// The only function that changes a state.
    pub(super) fn after(self, event: Event) -> Result<State, Fault> {
        use Event::*;
        Ok(match (self, event) {
            (State::Idle, ReceiveHeaders) => State::Open,
            // "Receiving any frame other than HEADERS or PRIORITY on a stream in this state MUST be
            // treated as a connection error of type PROTOCOL_ERROR."
            (State::Idle, _) => return Err(Fault::Connection(Code::Protocol)),

            (_, ReceiveReset | SendReset) => State::Closed,

            (State::Open, ReceiveEnd) => State::HalfClosedRemote,
            (State::Open, SendEnd) => State::HalfClosedLocal,
            (State::HalfClosedRemote, SendEnd) => State::Closed,
            (State::HalfClosedLocal, ReceiveEnd) => State::Closed,
            // Trailers, DATA and windows change nothing.
            (State::Open | State::HalfClosedLocal, _) => self,
            (State::HalfClosedRemote | State::Closed, ReceiveWindowUpdate) => self,

            // "Other than WINDOW_UPDATE, PRIORITY, or RST_STREAM ... a stream error of type
            // STREAM_CLOSED."
            (State::HalfClosedRemote, _) => return Err(Fault::Stream(Code::StreamClosed)),
            // DATA: a stream error (section 6.1). HEADERS: the identifier is not new either
            // (section 5.1.1).
            (State::Closed, ReceiveHeaders) => return Err(Fault::Connection(Code::StreamClosed)),
            (State::Closed, _) => return Err(Fault::Stream(Code::StreamClosed)),
        })
    }
    // ANCHOR_END: transitions

    /// The request has ended.
    pub(super) fn is_read(self) -> bool {
        matches!(self, State::HalfClosedRemote | State::Closed)
    }

    /// The reply has ended.
    pub(super) fn is_answered(self) -> bool {
        matches!(self, State::HalfClosedLocal | State::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagram_of_section_5_1() {
        use Event::*;
        use State::*;
        let protocol = Err(Fault::Connection(Code::Protocol));
        let closed = Err(Fault::Stream(Code::StreamClosed));
        let gone = Err(Fault::Connection(Code::StreamClosed));
        let events = [
            ReceiveHeaders,
            ReceiveData,
            ReceiveWindowUpdate,
            ReceiveReset,
            ReceiveEnd,
            SendEnd,
            SendReset,
        ];
        let (c, o, r, l) = (Ok(Closed), Ok(Open), Ok(HalfClosedRemote), Ok(HalfClosedLocal));
        for (state, wanted) in [
            (Idle, [o, protocol, protocol, protocol, protocol, protocol, protocol]),
            (Open, [o, o, o, c, r, l, c]),
            (HalfClosedRemote, [closed, closed, r, c, closed, c, c]),
            (HalfClosedLocal, [l, l, l, c, c, l, c]),
            (Closed, [gone, closed, c, c, closed, closed, c]),
        ] {
            for (event, wanted) in events.into_iter().zip(wanted) {
                assert_eq!(state.after(event), wanted, "{state:?} {event:?}");
            }
        }
    }
}
