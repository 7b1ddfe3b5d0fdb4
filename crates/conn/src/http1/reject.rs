//! Requests that are refused: which status, and one sentence for whoever reads the reply.

/// Why a request is refused. Every one of these closes the connection, because after it the end
/// of the message cannot be known, or is not worth waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reject {
    /// 400, with what is wrong.
    Malformed(&'static str),
    /// 408: head or body not finished in time.
    Timeout,
    /// 413.
    BodyTooLarge,
    /// 414.
    TargetTooLong,
    /// 417.
    Expectation,
    /// 431.
    HeadTooLarge,
    /// 501, for the method.
    MethodUnknown,
    /// 501, for a transfer coding other than chunked (RFC 9112 section 6.1).
    Coding,
    /// 505.
    Version,
}

impl Reject {
    /// Status line's code and reason (RFC 9110 section 15), and the body's sentence.
    pub(super) fn reply(self) -> (&'static str, &'static str) {
        match self {
            Reject::Malformed(what) => ("400 Bad Request", what),
            Reject::Timeout => ("408 Request Timeout", "the request did not arrive in time"),
            Reject::BodyTooLarge => ("413 Content Too Large", "the request body is too large"),
            Reject::TargetTooLong => ("414 URI Too Long", "the request target is too long"),
            Reject::Expectation => {
                ("417 Expectation Failed", "the only expectation known is 100-continue")
            }
            Reject::HeadTooLarge => {
                ("431 Request Header Fields Too Large", "the request head is too large")
            }
            Reject::MethodUnknown => ("501 Not Implemented", "the method is not known here"),
            Reject::Coding => ("501 Not Implemented", "the only transfer coding known is chunked"),
            Reject::Version => {
                ("505 HTTP Version Not Supported", "this server speaks HTTP/1.1 and HTTP/1.0")
            }
        }
    }
}
