//! The ways in which a server may refuse, and no others (RFC 9113 sections 5.4 and 8.1.1).

use super::{Http2, code, code_name};

/// How a server has refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The connection is over.
    Connection,
    /// The stream is over, and the connection goes on.
    Stream,
    /// There was a reply that says so, and the connection goes on.
    Reply,
}

impl Http2 {
    /// A connection error (section 5.4.1): GOAWAY with one of `codes`, then the end. GOAWAY is a
    /// SHOULD there, and a server of this workspace has no reason to go without.
    ///
    /// # Panics
    /// When anything else comes.
    #[track_caller]
    pub fn connection_error(&mut self, codes: &[u32]) {
        self.until_end();
        let told = self.goaway.map(|goaway| goaway.code);
        let fits = told.is_some_and(|code| codes.contains(&code));
        assert!(fits, "expected a connection error {}; {}", names(codes), self.seen());
    }

    /// A stream error (section 5.4.2): RST_STREAM with one of `codes`, and the connection goes on.
    /// Whoever detects one may as well end the connection, with the same code.
    ///
    /// # Panics
    /// When anything else comes.
    #[track_caller]
    pub fn stream_error(&mut self, stream: u32, codes: &[u32]) -> Refusal {
        while !self.is_over(stream) {
            self.read_frame();
        }
        match self.streams.get(&stream).and_then(|stream| stream.reset) {
            Some(code) if codes.contains(&code) && self.goaway.is_none() => {
                self.still_serves();
                Refusal::Stream
            }
            None if self.goaway.is_some() || self.ended => {
                self.connection_error(codes);
                Refusal::Connection
            }
            _ => panic!("expected a stream error {}; {}", names(codes), self.seen()),
        }
    }

    /// A malformed request (section 8.1.1) is a stream error PROTOCOL_ERROR; a reply may come
    /// before it, and can only be a refusal.
    ///
    /// # Panics
    /// When it is served, or ends otherwise.
    #[track_caller]
    pub fn malformed(&mut self, stream: u32) -> Refusal {
        let refusal = self.malformed_body(stream);
        let status = self.streams.get(&stream).and_then(|stream| stream.head.as_ref());
        let served = status.is_some_and(|head| !(400..600).contains(&head.status));
        assert!(!served, "a malformed request is served: {}", self.seen());
        refusal
    }

    /// The same where the fault is in the body or behind it: a reply may have begun by then, and
    /// must not look whole.
    ///
    /// # Panics
    /// When it is served to the end, or ends otherwise.
    #[track_caller]
    pub fn malformed_body(&mut self, stream: u32) -> Refusal {
        while !self.is_over(stream) {
            self.read_frame();
        }
        let state = self.streams.get(&stream).cloned().unwrap_or_default();
        let refused = state.head.is_some_and(|head| (400..600).contains(&head.status));
        match state.reset {
            // Behind a reply NO_ERROR says that nobody wants the rest of the request (section 8.1).
            Some(code::NO_ERROR) | None if refused && state.ended => {
                self.still_serves();
                Refusal::Reply
            }
            _ => self.stream_error(stream, &[code::PROTOCOL_ERROR]),
        }
    }

    fn is_over(&self, stream: u32) -> bool {
        let state = self.streams.get(&stream);
        let over = state.is_some_and(|stream| stream.ended || stream.reset.is_some());
        over || self.ended || self.goaway.is_some()
    }

    /// What was sent is no error: the connection and its other streams go on.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn still_serves(&mut self) {
        self.barrier();
        let stream = self.get("/");
        // Some cases have set the windows of new streams to 0.
        self.grant(stream, 13);
        self.is_greeted(stream);
    }

    /// A request is answered with the 13 bytes of `/`.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn is_greeted(&mut self, stream: u32) {
        let reply = self.reply(stream);
        assert_eq!((reply.status, reply.body.as_slice()), (200, b"Hello, world!".as_slice()));
    }

    /// What was sent is ignored: nothing comes of the stream, and the connection goes on.
    ///
    /// # Panics
    /// When something comes of it.
    #[track_caller]
    pub fn ignored(&mut self, stream: u32) {
        self.barrier();
        let state = self.streams.get(&stream);
        assert!(state.is_none_or(|s| s.reset.is_none() && s.head.is_none()), "{}", self.seen());
        self.still_serves();
    }

    /// A graceful end: GOAWAY with NO_ERROR, then FIN.
    ///
    /// # Panics
    /// When it ends otherwise, or not at all.
    #[track_caller]
    pub fn farewell_without_error(&mut self) {
        self.until_end();
        let graceful = self.goaway.is_some_and(|goaway| goaway.code == code::NO_ERROR);
        assert!(graceful, "expected a farewell with NO_ERROR; {}", self.seen());
    }
}

fn names(codes: &[u32]) -> String {
    codes.iter().map(|&code| code_name(code)).collect::<Vec<_>>().join(" or ")
}
