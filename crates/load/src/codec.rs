//! What the engine needs from a protocol. A codec does no I/O: the engine asks it for bytes to send
//! and passes received bytes to it.

use std::ops::Range;

/// The client's side of a protocol. One value serves all connections of an engine thread; the state
/// of one connection is its `Reader`.
pub(crate) trait Codec {
    /// The state of one connection between two reads.
    type Reader;

    /// The state of a new connection.
    fn reader(&self) -> Self::Reader;

    /// Appends what a new connection sends before its first request, such as the HTTP/2 preface or
    /// the WebSocket handshake. Most protocols send nothing.
    fn greet(&mut self, _connection: u32, _reader: &mut Self::Reader, _out: &mut Vec<u8>) {}

    /// Whether the greeting was answered, so that requests may be sent.
    fn is_open(&self, _reader: &Self::Reader) -> bool {
        true
    }

    /// Appends frames that the protocol requires (acknowledgements, window updates, pongs). They
    /// are sent between two requests. Called after every `incoming`.
    fn owed(&mut self, _reader: &mut Self::Reader, _out: &mut Vec<u8>) {}

    /// How many requests may be begun now; the next one has number `next`. The server's flow
    /// control may limit it (RFC 9113, section 5.2). Called before requests are admitted, and after
    /// every `incoming`.
    fn credit(&self, _reader: &Self::Reader, _next: u64) -> u32 {
        u32::MAX
    }

    /// The first request that the server has announced not to answer on this connection (GOAWAY,
    /// RFC 9113, section 6.8). That and later requests are sent again on a new connection; earlier
    /// ones are awaited. Called after every `incoming`.
    fn refused_from(&self, _reader: &Self::Reader) -> Option<u64> {
        None
    }

    /// Appends the last frame of this side, such as Close (RFC 6455, section 5.5.1). Most protocols
    /// have none.
    fn farewell(&mut self, _reader: &mut Self::Reader, _out: &mut Vec<u8>) {}

    /// Bytes of one request; all requests of a run have the same length.
    fn request_bytes(&self) -> usize;

    /// The bytes that `connection` sends now: the rest of request `number` from `offset` on, then
    /// following requests, at most `requests` in all, in one slice. It may end at the end of any
    /// request and is never empty. In a fan-out only connection 0 sends.
    fn outgoing(&mut self, connection: u32, number: u64, requests: u32, offset: usize) -> &[u8];

    /// Takes and verifies bytes that `connection` has received. The requests `awaited` are sent and
    /// not answered; in protocols with ordered replies the first of them is answered now. If it is
    /// empty, only bytes that belong to no request may come (the answer to the greeting, frames
    /// after the farewell). In a fan-out the requests are the messages of connection 0 that this
    /// one has not received, and connection 0 awaits none.
    fn incoming(
        &mut self,
        connection: u32,
        reader: &mut Self::Reader,
        awaited: Range<u64>,
        bytes: &[u8],
    ) -> Result<Step, Wrong>;

    /// The server has closed. Returns whether this completes the reply: only for HTTP/1.1 bodies
    /// without a length.
    fn end(
        &mut self,
        _connection: u32,
        _reader: &mut Self::Reader,
        _number: u64,
    ) -> Result<bool, Wrong> {
        Ok(false)
    }

    /// Whether the server closes first if each request has its own connection. If not, this side
    /// calls shutdown(2) and waits for the server to close.
    fn server_closes_first(&self) -> bool {
        false
    }

    /// What is compared with what, for the record.
    fn verification(&self) -> String;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// All bytes were taken; no reply is complete.
    More,
    /// A reply is complete and right.
    Reply {
        /// The number of its request, one of those awaited.
        number: u64,
        consumed: usize,
        /// Whether the server closes the connection now.
        last: bool,
    },
}

/// A reply that is wrong. The text says how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) String);

/// Bytes came after every request was answered.
pub(crate) fn unasked(bytes: &[u8]) -> Wrong {
    Wrong(format!("{} bytes that belong to no request", bytes.len()))
}
