//! A request head: httparse for the tokens, and around it the strictness that keeps two parsers on
//! one path from disagreeing about where a message ends (RFC 9112 sections 2.2, 3, 5, 6 and 11.2).
//!
//! httparse alone lets through: bare LF, a missing or second Host, raw UTF-8 in the target,
//! `Content-Length: +5` or `5, 5`, Content-Length beside Transfer-Encoding, unknown codings.

use std::mem::MaybeUninit;
use std::str;

use super::reject::Reject;
use crate::Limits;
use crate::routes::{Conditions, Method, Request, is_host_byte};

/// Most fields in one head. A browser sends about 15; Apache's LimitRequestFields is 100.
pub(super) const FIELDS_MAX: usize = 100;

/// How the end of a request body is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// One request head, borrowed from the input.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) request: Request<'a>,
    pub(super) framing: Framing,
    pub(super) http_1_0: bool,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
}

/// What the fields say, before it is checked as a whole.
#[derive(Default)]
struct Fields<'a> {
    hosts: u32,
    content_length: Option<u64>,
    transfer_encoding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    conditions: Conditions<'a>,
}

/// Parses the head at the front of `input`. `Ok(None)`: more bytes are needed.
///
/// Only what the limits allow is looked at, so that the answer is the same however the input was
/// cut into reads: what is wrong beyond a limit is never seen.
pub(super) fn parse<'a>(
    input: &'a [u8],
    limits: &Limits,
) -> Result<Option<(Head<'a>, usize)>, Reject> {
    let (window, too_large) = within_limits(input, limits);
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(window, &mut fields) {
        Ok(httparse::Status::Complete(len)) => {
            reject_bare_lf(&window[..len])?;
            let head = check(&request, limits)?;
            Ok(Some((head, len)))
        }
        Ok(httparse::Status::Partial) => too_large.map_or(Ok(None), Err),
        Err(httparse::Error::TooManyHeaders) => Err(Reject::HeadTooLarge),
        Err(httparse::Error::Version) if is_version(version_text(window)) => {
            // Half a version may still become one that is merely not spoken here.
            let whole = version_text(window).len() == VERSION_FORM.len();
            if whole { Err(Reject::Version) } else { too_large.map_or(Ok(None), Err) }
        }
        Err(_) => Err(Reject::Malformed("the request head is not HTTP/1.1")),
    }
}

/// Length of the empty lines at the front of `input`: RFC 9112 section 2.2 has them skipped,
/// because old clients sent one after a body. They are no part of a request.
pub(super) fn empty_lines(input: &[u8]) -> usize {
    input.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

/// The part of `input` that a head may fill, and what is wrong if that holds no whole head: too
/// large is 431, unless it is the target alone that is too long, 414.
fn within_limits<'a>(input: &'a [u8], limits: &Limits) -> (&'a [u8], Option<Reject>) {
    let line_max = limits.target_bytes_max + "OPTIONS  HTTP/1.1\r\n".len();
    if input.len() >= line_max && memchr::memchr(b'\n', &input[..line_max]).is_none() {
        return (&input[..line_max], Some(Reject::TargetTooLong));
    }
    if input.len() >= limits.head_bytes_max {
        return (&input[..limits.head_bytes_max], Some(Reject::HeadTooLarge));
    }
    (input, None)
}

/// RFC 9112 section 2.2 lets a recipient accept a bare LF; two recipients that differ in it can be
/// made to see different messages, so it is refused.
fn reject_bare_lf(head: &[u8]) -> Result<(), Reject> {
    let pairs = head.iter().zip(head.iter().skip(1));
    // No early way out of the loop, so that the compiler can look at sixteen bytes at once.
    let bare = pairs.fold(head.first() == Some(&b'\n'), |bare, (&before, &byte)| {
        bare | ((byte == b'\n') & (before != b'\r'))
    });
    if bare { Err(Reject::Malformed("a line ends in LF without CR")) } else { Ok(()) }
}

/// What a version looks like; each 0 stands for a digit (RFC 9112 section 2.3).
const VERSION_FORM: &[u8] = b"HTTP/0.0";

/// What stands in the place of the version, as far as it has arrived: after the second space.
fn version_text(input: &[u8]) -> &[u8] {
    let text = input.splitn(3, |&b| b == b' ').nth(2).unwrap_or(b"");
    &text[..text.len().min(VERSION_FORM.len())]
}

/// True for the beginning of a well-formed version, so that the answer is 505 and not 400.
fn is_version(text: &[u8]) -> bool {
    let fits = |(&byte, &form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    text.iter().zip(VERSION_FORM).all(fits)
}

fn check<'a>(request: &httparse::Request<'_, 'a>, limits: &Limits) -> Result<Head<'a>, Reject> {
    let http_1_0 = request.version == Some(0);
    let method = request.method.and_then(Method::named).ok_or(Reject::MethodUnknown)?;
    let path = path(request.path.unwrap_or_default(), method, limits)?;
    let mut fields = Fields::default();
    for field in request.headers.iter() {
        note_field(&mut fields, field.name, field.value)?;
    }
    if fields.hosts == 0 && !http_1_0 {
        return Err(Reject::Malformed("the Host field is missing"));
    }
    let framing = framing(&fields, http_1_0)?;
    let length = match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked => None,
    };
    Ok(Head {
        request: Request { method, path, length, conditions: fields.conditions },
        framing,
        http_1_0,
        keep_alive: !fields.close && (!http_1_0 || fields.keep_alive),
        expect_continue: fields.expect_continue && !http_1_0,
    })
}

/// The path of an origin-form or absolute-form target (RFC 9112 section 3.2).
fn path<'a>(target: &'a str, method: Method, limits: &Limits) -> Result<&'a str, Reject> {
    if target.len() > limits.target_bytes_max {
        return Err(Reject::TargetTooLong);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Reject::Malformed("the target has a byte that must be percent-encoded"));
    }
    if target == "*" && method == Method::Options {
        return Ok(target);
    }
    const SCHEME: &str = "http://";
    let path = match target.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            // RFC 9110 section 4.2.1: an empty host is to be rejected.
            if host.is_empty() {
                return Err(Reject::Malformed("the target names no host"));
            }
            if path.starts_with('/') { path } else { "/" }
        }
        _ => target,
    };
    if !path.starts_with('/') {
        return Err(Reject::Malformed("the target must begin with / or http://"));
    }
    let end = memchr::memchr2(b'?', b'#', path.as_bytes()).unwrap_or(path.len());
    Ok(&path[..end])
}

fn note_field<'a>(fields: &mut Fields<'a>, name: &str, value: &'a [u8]) -> Result<(), Reject> {
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    let conditions = &mut fields.conditions;
    // By length first: most fields of most requests are none of these.
    match name.len() {
        4 if is("host") => {
            fields.hosts += 1;
            if fields.hosts > 1 {
                return Err(Reject::Malformed("there are two Host fields"));
            }
            if !value.iter().all(|&b| is_host_byte(b)) {
                return Err(Reject::Malformed("the Host field is not one host"));
            }
        }
        5 if is("range") => conditions.range = Some(value),
        6 if is("expect") => {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Reject::Expectation);
            }
            fields.expect_continue = true;
        }
        8 if is("if-match") => conditions.if_match = Some(value),
        8 if is("if-range") => conditions.if_range = Some(value),
        10 if is("connection") => note_connection(fields, value),
        13 if is("if-none-match") => conditions.if_none_match = Some(value),
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
        17 if is("if-modified-since") => conditions.if_modified_since = Some(value),
        19 if is("if-unmodified-since") => conditions.if_unmodified_since = Some(value),
        _ => {}
    }
    Ok(())
}

fn note_connection(fields: &mut Fields, value: &[u8]) {
    for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        fields.close |= option.eq_ignore_ascii_case(b"close");
        fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
}

/// Digits and nothing else: `+5`, `5, 5` and ` 5 5` are how requests are smuggled.
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    const WRONG: Reject = Reject::Malformed("Content-Length is not a number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    // A number beyond u64 is beyond every limit too.
    str::from_utf8(value).map_err(|_| WRONG)?.parse().map_err(|_| Reject::BodyTooLarge)
}

fn framing(fields: &Fields, http_1_0: bool) -> Result<Framing, Reject> {
    let Some(codings) = fields.transfer_encoding else {
        return Ok(Framing::Length(fields.content_length.unwrap_or(0)));
    };
    if fields.content_length.is_some() {
        return Err(Reject::Malformed("both Content-Length and Transfer-Encoding are given"));
    }
    if http_1_0 {
        return Err(Reject::Malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    if codings.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let last = codings.rsplit(|&b| b == b',').next().unwrap_or(b"").trim_ascii();
    if last.eq_ignore_ascii_case(b"chunked") {
        return Err(Reject::Coding);
    }
    Err(Reject::Malformed("the last transfer coding is not chunked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_lf_is_found_wherever_it_is() {
        // All strings of up to seven of these bytes: every position, and every neighbourhood.
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
