//! What the engine asks of a protocol. It does no I/O: bytes to send are asked for, bytes received
//! are handed over.

use std::ops::Range;

/// A protocol as a client speaks it. One value serves all connections of an engine thread; what a
/// single connection must remember between two reads is its `Reader`.
pub(crate) trait Codec {
    /// What one connection remembers of a reply that has not arrived completely.
    type Reader;

    /// The state of a fresh connection.
    fn reader(&self) -> Self::Reader;

    /// Appends what a fresh connection says before its first request: an HTTP/2 preface, a
    /// WebSocket's handshake. Most protocols say nothing.
    fn greet(&mut self, _connection: u32, _reader: &mut Self::Reader, _out: &mut Vec<u8>) {}

    /// Whether the greeting has been answered, so that requests may be sent.
    fn is_open(&self, _reader: &Self::Reader) -> bool {
        true
    }

    /// Appends what this side owes the server by now (acknowledgements, window updates, pongs):
    /// whole frames, which are sent between two requests. Asked after every `incoming`.
    fn owed(&mut self, _reader: &mut Self::Reader, _out: &mut Vec<u8>) {}

    /// How many requests may be begun now, the next one being number `next`: the server's flow
    /// control may hold them back (RFC 9113, section 5.2). Asked before requests are admitted, and
    /// again after every `incoming`.
    fn credit(&self, _reader: &Self::Reader, _next: u64) -> u32 {
        u32::MAX
    }

    /// The first request that the server will not answer on this connection, because it said so
    /// before it closes (GOAWAY, RFC 9113, section 6.8): those from there on are sent again on a
    /// new connection, those before are waited for. Asked after every `incoming`.
    fn refused_from(&self, _reader: &Self::Reader) -> Option<u64> {
        None
    }

    /// Appends what this side says last, when it ends the connection in good order: a Close frame
    /// (RFC 6455, section 5.5.1), say. Most protocols say nothing.
    fn farewell(&mut self, _reader: &mut Self::Reader, _out: &mut Vec<u8>) {}

    /// Length of one request in bytes; all requests of a run have the same.
    fn request_bytes(&self) -> usize;

    /// What `connection` has to send now: the rest of request `number` from `offset` on, then
    /// following requests, `requests` in all at most, in one piece. May stop at the end of any
    /// request; never empty. In a fan-out only connection 0 is asked.
    fn outgoing(&mut self, connection: u32, number: u64, requests: u32, offset: usize) -> &[u8];

    /// Takes bytes that `connection` has received, and verifies them. Requests `awaited` are sent
    /// and not answered; where replies come in order the first of them is the one that is answered
    /// now. May be empty: then only what needs no request may come (the answer to the greeting,
    /// what follows a farewell). In a fan-out they are the messages of connection 0 that this one
    /// has not heard, and connection 0 awaits nothing.
    fn incoming(
        &mut self,
        connection: u32,
        reader: &mut Self::Reader,
        awaited: Range<u64>,
        bytes: &[u8],
    ) -> Result<Step, Wrong>;

    /// The server has closed: does that complete the reply? In most protocols it never does;
    /// bodies of HTTP/1.1 without a length end so.
    fn end(
        &mut self,
        _connection: u32,
        _reader: &mut Self::Reader,
        _number: u64,
    ) -> Result<bool, Wrong> {
        Ok(false)
    }

    /// Whether the server closes by itself when each request has its own connection. Otherwise this
    /// side says that it has finished, shutdown(2), and waits for the server to follow.
    fn server_closes_first(&self) -> bool {
        false
    }

    /// What is compared with what, for the record.
    fn verification(&self) -> String;
}

/// What became of some received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// All were taken, and no reply is complete.
    More,
    /// A reply is complete and right.
    Reply {
        /// Which request it answers: one of those awaited.
        number: u64,
        /// How many of the bytes were taken.
        consumed: usize,
        /// Whether the server will close the connection now.
        last: bool,
    },
}

/// A reply that is not what was promised. The text says in what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) String);

/// Bytes came although every request is answered.
pub(crate) fn unasked(bytes: &[u8]) -> Wrong {
    Wrong(format!("{} bytes that nobody asked for", bytes.len()))
}
