//! Parses a request head: httparse finds the tokens. Stricter checks follow, so that two parsers on
//! one path do not disagree about the end of a message (RFC 9112 sections 2.2, 3, 5, 6 and 11.2).
//!
//! httparse alone accepts bare LF, a missing or second Host, raw UTF-8 in the target,
//! `Content-Length: +5` or `5, 5`, Content-Length beside Transfer-Encoding, and unknown codings.
//!
//! A malformed head is answered with 400, whatever else is wrong; the other errors are for
//! well-formed heads.

use std::mem::MaybeUninit;
use std::str;

use super::body::is_token_byte;
use super::reject::Reject;
use crate::Limits;
use crate::routes::{Conditions, Method, Request, expects_continue, is_authority, note_condition};

/// Most fields in one head. A browser sends about 15; Apache's LimitRequestFields is 100.
pub(super) const FIELDS_MAX: usize = 100;

/// How the length of a request body is known (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) request: Request<'a>,
    pub(super) framing: Framing,
    pub(super) http_1_0: bool,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
}

#[derive(Default)]
struct Fields<'a> {
    hosts: u32,
    content_length: Option<u64>,
    transfer_encoding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    /// Expect has a value other than 100-continue.
    expects_more: bool,
    conditions: Option<Box<Conditions<'a>>>,
}

/// Parses the head at the front of `input`. `Ok(None)`: more bytes are needed. `secure`: over TLS.
///
/// Bytes beyond the limits are never parsed, so that the result does not depend on how the input
/// was split into reads.
pub(super) fn parse<'a>(
    input: &'a [u8],
    limits: &Limits,
    secure: bool,
) -> Result<Option<(Head<'a>, usize)>, Reject> {
    let (window, too_large) = within_limits(input, limits);
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(window, &mut fields) {
        Ok(httparse::Status::Complete(len)) => {
            reject_bare_lf(&window[..len])?;
            let head = check(&request, limits, secure)?;
            Ok(Some((head, len)))
        }
        Ok(httparse::Status::Partial) => too_large.map_or(Ok(None), Err),
        Err(httparse::Error::TooManyHeaders) => Err(Reject::HeadTooLarge),
        Err(httparse::Error::Version) if is_version(version_text(window)) => {
            // An incomplete version may still become one that is well-formed and not supported.
            let whole = version_text(window).len() == VERSION_FORM.len();
            if whole { Err(Reject::Version) } else { too_large.map_or(Ok(None), Err) }
        }
        Err(_) => Err(Reject::Malformed("the request head is not HTTP/1.1")),
    }
}

/// A copy of the head as HTTP/1.1, if its version is 1.2 or later: RFC 9110 section 2.5 requires to
/// process it so. No such version exists, so the copy costs nothing in practice.
pub(super) fn as_http_1_1(input: &[u8], limits: &Limits) -> Option<Vec<u8>> {
    let is_later =
        matches!(version_text(input), [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']);
    is_later.then(|| {
        let mut copy = input[..input.len().min(limits.head_bytes_max)].to_vec();
        let spaces = copy.iter().enumerate().filter(|(_, byte)| **byte == b' ');
        if let Some(version) = spaces.map(|(at, _)| at + 1).nth(1) {
            copy[version + VERSION_FORM.len() - 1] = b'1';
        }
        copy
    })
}

/// Length of the empty lines at the front of `input`. RFC 9112 section 2.2 has a server skip them,
/// because old clients sent one after a body.
pub(super) fn empty_lines(input: &[u8]) -> usize {
    input.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

/// The part of `input` that a head may fill, and the error if it holds no complete head: 414 if the
/// target is too long, else 431. Bytes behind that part do not change the error.
fn within_limits<'a>(input: &'a [u8], limits: &Limits) -> (&'a [u8], Option<Reject>) {
    let window = &input[..input.len().min(limits.head_bytes_max)];
    let line_max = limits.target_bytes_max + "OPTIONS  HTTP/1.1\r\n".len();
    if window.len() >= line_max && memchr::memchr(b'\n', &window[..line_max]).is_none() {
        let line = &window[..line_max];
        let reject = match memchr::memchr(b' ', line) {
            Some(_) => Reject::TargetTooLong,
            None => Reject::Malformed("the request line has no target"),
        };
        return (line, Some(reject));
    }
    let full = window.len() >= limits.head_bytes_max;
    (window, full.then_some(Reject::HeadTooLarge))
}

/// RFC 9112 section 2.2 lets a recipient accept a bare LF. Two recipients that differ in this would
/// see different messages, so it is refused.
fn reject_bare_lf(head: &[u8]) -> Result<(), Reject> {
    let pairs = head.iter().zip(head.iter().skip(1));
    // No early exit, so that the compiler can vectorise the loop.
    let bare = pairs.fold(head.first() == Some(&b'\n'), |bare, (&before, &byte)| {
        bare | ((byte == b'\n') & (before != b'\r'))
    });
    if bare { Err(Reject::Malformed("a line ends in LF without CR")) } else { Ok(()) }
}

/// The form of a version; each 0 stands for a digit (RFC 9112 section 2.3).
const VERSION_FORM: &[u8] = b"HTTP/0.0";

/// The text after the second space, where the version is, as far as it has arrived.
fn version_text(input: &[u8]) -> &[u8] {
    let text = input.splitn(3, |&b| b == b' ').nth(2).unwrap_or(b"");
    &text[..text.len().min(VERSION_FORM.len())]
}

/// True if `text` is the beginning of a well-formed version: then the status is 505 and not 400.
fn is_version(text: &[u8]) -> bool {
    let fits = |(&byte, &form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    text.iter().zip(VERSION_FORM).all(fits)
}

fn check<'a>(
    request: &httparse::Request<'_, 'a>,
    limits: &Limits,
    secure: bool,
) -> Result<Head<'a>, Reject> {
    let http_1_0 = request.version == Some(0);
    let target = request.path.unwrap_or_default();
    let method = request.method.and_then(Method::named);
    let path = path(target, method, secure)?;
    let mut fields = Fields::default();
    for field in request.headers.iter() {
        note_field(&mut fields, field.name, field.value)?;
    }
    if fields.hosts == 0 && !http_1_0 {
        return Err(Reject::Malformed("the Host field is missing"));
    }
    let framing = framing(&fields, http_1_0)?;
    let method = method.ok_or(Reject::MethodUnknown)?;
    if target.len() > limits.target_bytes_max {
        return Err(Reject::TargetTooLong);
    }
    let framing = framing.ok_or(Reject::Coding)?;
    let length = match framing {
        Framing::Length(length) if length > limits.body_bytes_max => {
            return Err(Reject::BodyTooLarge);
        }
        Framing::Length(length) => Some(length),
        Framing::Chunked => None,
    };
    if fields.expects_more {
        return Err(Reject::Expectation);
    }
    Ok(Head {
        request: Request { method, path, length, conditions: fields.conditions },
        framing,
        http_1_0,
        keep_alive: !fields.close && (!http_1_0 || fields.keep_alive),
        expect_continue: fields.expect_continue && !http_1_0,
    })
}

/// The path of a target in origin-form or absolute-form (RFC 9112 section 3.2). The target of an
/// unknown method may have any form.
fn path(target: &str, method: Option<Method>, secure: bool) -> Result<&str, Reject> {
    // A target has no fragment (RFC 9112 section 3.2).
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        let sentence = "the target has a byte that must be percent-encoded, or a fragment";
        return Err(Reject::Malformed(sentence));
    }
    let path = match method {
        None => return Ok(target),
        Some(Method::Options) if target == "*" => return Ok(target),
        Some(_) if target.starts_with('/') => target,
        Some(_) => absolute(target, secure)?,
    };
    let end = path.bytes().position(|byte| byte == b'?').unwrap_or(path.len());
    Ok(&path[..end])
}

/// The path of `http://host/path?query`. A proxy or a client may send `https` over TLS; without TLS
/// it is meant for another server (RFC 9110 section 7.4).
fn absolute(target: &str, secure: bool) -> Result<&str, Reject> {
    let is_https = target.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("https"));
    let Some((authority, path)) = split_absolute(target).filter(|_| secure || !is_https) else {
        return Err(Reject::Malformed(if secure {
            "the target must begin with /, https:// or http://"
        } else {
            "the target must begin with / or http://"
        }));
    };
    // RFC 9110 sections 4.2.1 and 4.2.4 require to reject an empty host and user information.
    if !is_authority(authority.as_bytes()) {
        return Err(Reject::Malformed("the target names no host"));
    }
    Ok(if path.starts_with('/') { path } else { "/" })
}

/// `host` and `/path?query` of `http://host/path?query` or `https://...`.
pub(super) fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let behind = |scheme: &str| match target.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => Some(rest),
        _ => None,
    };
    let rest = behind("http://").or_else(|| behind("https://"))?;
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

fn note_field<'a>(fields: &mut Fields<'a>, name: &str, value: &'a [u8]) -> Result<(), Reject> {
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    match name.len() {
        4 if is("host") => {
            fields.hosts += 1;
            if fields.hosts > 1 {
                return Err(Reject::Malformed("there are two Host fields"));
            }
            // Empty if the client's URI has no authority (RFC 9112 section 3.2).
            if !(value.is_empty() || is_authority(value)) {
                return Err(Reject::Malformed("the Host field is not one host"));
            }
        }
        6 if is("expect") => match expects_continue(value) {
            Some(expects) => fields.expect_continue |= expects,
            None => fields.expects_more = true,
        },
        10 if is("connection") => note_connection(fields, value),
        14 if is("content-length") => {
            if fields.content_length.is_some() {
                return Err(Reject::Malformed("there are two Content-Length fields"));
            }
            fields.content_length = Some(content_length(value)?);
        }
        17 if is("transfer-encoding") => {
            if fields.transfer_encoding.is_some() {
                return Err(Reject::Malformed("there are two Transfer-Encoding fields"));
            }
            fields.transfer_encoding = Some(value);
        }
        _ => note_condition(&mut fields.conditions, name, value),
    }
    Ok(())
}

fn note_connection(fields: &mut Fields, value: &[u8]) {
    for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        fields.close |= option.eq_ignore_ascii_case(b"close");
        fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
}

/// Digits only: `+5`, `5, 5` and ` 5 5` serve request smuggling.
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    const WRONG: Reject = Reject::Malformed("Content-Length is not a number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    // A length above 64 bits serves only to overflow another parser's number.
    const OVERFLOWS: Reject = Reject::Malformed("Content-Length does not fit into 64 bits");
    str::from_utf8(value).map_err(|_| WRONG)?.parse().map_err(|_| OVERFLOWS)
}

/// `None` for a well-formed list of codings that is not supported.
fn framing(fields: &Fields, http_1_0: bool) -> Result<Option<Framing>, Reject> {
    let Some(codings) = fields.transfer_encoding else {
        return Ok(Some(Framing::Length(fields.content_length.unwrap_or(0))));
    };
    if fields.content_length.is_some() {
        return Err(Reject::Malformed("both Content-Length and Transfer-Encoding are given"));
    }
    if http_1_0 {
        return Err(Reject::Malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    if codings.eq_ignore_ascii_case(b"chunked") {
        return Ok(Some(Framing::Chunked));
    }
    let (mut chunked, mut last_is_chunked) = (0, false);
    for coding in codings.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        let name = coding.split(|&b| b == b';').next().unwrap_or_default().trim_ascii_end();
        if name.is_empty() || !name.iter().all(|&b| is_token_byte(b)) {
            return Err(Reject::Malformed("Transfer-Encoding is not a list of codings"));
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(name.eq_ignore_ascii_case(b"chunked"));
    }
    match (last_is_chunked, chunked) {
        (true, 1) => Ok(None),
        (true, _) => Err(Reject::Malformed("the transfer coding chunked is applied twice")),
        (false, _) => Err(Reject::Malformed("the last transfer coding is not chunked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_lf_is_found_wherever_it_is() {
        // All strings of up to seven of these bytes: every position, with every neighbour.
        let bytes = *b"\r\nx";
        for len in 0..=7 {
            for number in 0..bytes.len().pow(len) {
                let digit = |place: u32| bytes[number / bytes.len().pow(place) % bytes.len()];
                let text: Vec<u8> = (0..len).map(digit).collect();
                let slow = (0..text.len())
                    .any(|at| text[at] == b'\n' && (at == 0 || text[at - 1] != b'\r'));
                assert_eq!(reject_bare_lf(&text).is_err(), slow, "{}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn a_version_grows_byte_by_byte() {
        for (text, fits) in [
            ("", true),
            ("HTTP", true),
            ("HTTP/2", true),
            ("HTTP/2.0", true),
            ("http/1.1", false),
            ("HTTP/x", false),
            ("HTTP/1\r", false),
        ] {
            assert_eq!(is_version(text.as_bytes()), fits, "{text}");
        }
        assert_eq!(version_text(b"GET / HTTP/2.0\r\nHost: a"), b"HTTP/2.0");
        assert_eq!(version_text(b"GET / "), b"");
        assert_eq!(version_text(b"GET /"), b"");
    }
}
