//! Checks the head of a request: the rules of RFC 9113 section 8.3 that the library does not check,
//! and those of this server.
//!
//! The library refuses with a stream error: connection-specific fields, a TE other than trailers,
//! upper case, pseudo-fields that are unknown, repeated, misplaced or missing, and a Content-Length
//! that is not a number or not the length of the body.

use http::request::Parts;

use crate::Limits;
use crate::routes::{Conditions, Method, Request, expects_continue, is_authority, note_condition};

/// Why a request is answered with an error: status and sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str, pub(super) &'static str);

pub(super) const fn malformed(what: &'static str) -> Refusal {
    Refusal("400 Bad Request", what)
}

pub(super) const TIMEOUT: Refusal =
    Refusal("408 Request Timeout", "the request did not arrive in time");

/// The body is longer than [`Limits::body_bytes_max`], or is announced to be.
pub(super) const TOO_LARGE: Refusal =
    Refusal("413 Content Too Large", "the request body is too large");

#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) request: Request<'a>,
    pub(super) expect_continue: bool,
}

#[derive(Debug, Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    expect_continue: bool,
    conditions: Option<Box<Conditions<'a>>>,
}

/// Checks a head; `ended`: no body follows.
pub(super) fn check<'a>(
    parts: &'a Parts,
    ended: bool,
    limits: &Limits,
) -> Result<Head<'a>, Refusal> {
    let method = Method::named(parts.method.as_str())
        .ok_or(Refusal("501 Not Implemented", "the method is not known here"))?;
    let path = path(parts, method, limits)?;
    let mut fields = Fields::default();
    for (name, value) in &parts.headers {
        // Section 8.2.1; the library has checked all other bytes.
        let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if is_space(value.as_bytes().first()) || is_space(value.as_bytes().last()) {
            return Err(malformed("the value of a field begins or ends with a space"));
        }
        note_field(&mut fields, name.as_str(), value.as_bytes())?;
    }
    check_host(parts, fields.host)?;
    if fields.content_length.is_some_and(|length| length > limits.body_bytes_max) {
        return Err(TOO_LARGE);
    }
    Ok(Head {
        request: Request {
            method,
            path,
            length: fields.content_length.or(ended.then_some(0)),
            conditions: fields.conditions,
        },
        expect_continue: fields.expect_continue,
    })
}

fn path<'a>(parts: &'a Parts, method: Method, limits: &Limits) -> Result<&'a str, Refusal> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.target_bytes_max {
        return Err(Refusal("414 URI Too Long", "the request target is too long"));
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("the path has a byte that must be percent-encoded"));
    }
    let path = parts.uri.path();
    if !(path.starts_with('/') || path == "*" && method == Method::Options) {
        return Err(malformed("the path must begin with /"));
    }
    Ok(path)
}

fn note_field<'a>(fields: &mut Fields<'a>, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
    match name {
        "host" => {
            let second = fields.host.replace(value).is_some();
            if second {
                return Err(malformed("there are two Host fields"));
            }
        }
        "content-length" => {
            // The library has checked that the first one is a number.
            let text = str::from_utf8(value).unwrap_or_default();
            let length = text.parse().map_err(|_| TOO_LARGE)?;
            if fields.content_length.replace(length).is_some() {
                return Err(malformed("there are two Content-Length fields"));
            }
        }
        "expect" => {
            let sentence = "the only expectation known is 100-continue";
            let unknown = Refusal("417 Expectation Failed", sentence);
            fields.expect_continue |= expects_continue(value).ok_or(unknown)?;
        }
        _ => note_condition(&mut fields.conditions, name, value),
    }
    Ok(())
}

/// RFC 9113 section 8.3.1: requires `:authority` or Host. Both must be the same, and without user
/// information.
pub(super) fn check_host(parts: &Parts, host: Option<&[u8]>) -> Result<(), Refusal> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let (Some(authority), Some(host)) = (authority, host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(malformed("the Host field and :authority differ"));
    }
    let Some(host) = authority.or(host).filter(|host| !host.is_empty()) else {
        return Err(malformed("there is neither :authority nor Host"));
    };
    if !is_authority(host) {
        return Err(malformed("the host is not one host"));
    }
    Ok(())
}
