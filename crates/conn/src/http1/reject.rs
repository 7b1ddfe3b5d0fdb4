//! Requests that are refused, with status and sentence.

/// Why a request is refused. The connection is closed in each case: the end of the message is not
/// known, or is not worth waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reject {
    Malformed(&'static str),
    Timeout,
    BodyTooLarge,
    TargetTooLong,
    Expectation,
    HeadTooLarge,
    MethodUnknown,
    /// 501, because of a transfer coding other than chunked (RFC 9112 section 6.1).
    Coding,
    Version,
}

impl Reject {
    /// The status code with its reason (RFC 9110 section 15), and the sentence in the body.
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
                ("505 HTTP Version Not Supported", "this server supports HTTP/1.1 and HTTP/1.0")
            }
        }
    }
}
