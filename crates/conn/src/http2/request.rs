//! The head of a request: the rules of RFC 9113 sections 8.2 and 8.3, and those of this server.

use super::hpack::Fields;
use super::priority::Priority;
use crate::Limits;
use crate::routes::{Conditions, Method, Request, expects_continue, is_authority, note_condition};

/// Why a request is answered with an error: status and sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str, pub(super) &'static str);

pub(super) const fn bad_request(what: &'static str) -> Refusal {
    Refusal("400 Bad Request", what)
}

pub(super) const TIMEOUT: Refusal =
    Refusal("408 Request Timeout", "the request did not arrive in time");

/// The body is longer than [`Limits::body_bytes_max`], or is announced to be.
pub(super) const TOO_LARGE: Refusal =
    Refusal("413 Content Too Large", "the request body is too large");

pub(super) const HEAD_TOO_LARGE: Refusal =
    Refusal("431 Request Header Fields Too Large", "the request head is too large");

/// A malformed request or trailers: a stream error of type PROTOCOL_ERROR (section 8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub(super) method: &'a [u8],
    pub(super) path: &'a [u8],
    pub(super) authority: Option<&'a [u8]>,
    pub(super) protocol: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    pub(super) content_length: Option<u64>,
    pub(super) priority: Priority,
    /// The first of each, and whether there are more.
    pub(super) version: Once<'a>,
    pub(super) origin: Once<'a>,
    host: Once<'a>,
    /// `None`: something else than 100 (Continue) is expected.
    expect_continue: Option<bool>,
    conditions: Option<Box<Conditions<'a>>>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Once<'a> {
    pub(super) value: Option<&'a [u8]>,
    pub(super) is_repeated: bool,
}

impl<'a> Once<'a> {
    fn note(&mut self, value: &'a [u8]) {
        self.is_repeated = self.value.is_some();
        self.value = self.value.or(Some(value));
    }
}

impl<'a> Head<'a> {
    /// `ended`: no body follows.
    pub(super) fn parse(fields: &'a Fields, stream: u32, ended: bool) -> Result<Self, Malformed> {
        let mut head = Head { expect_continue: Some(false), ..Head::default() };
        let mut regular = false;
        for (name, value) in fields.iter() {
            if name.first() != Some(&b':') {
                regular = true;
                check_field(name, value)?;
                head.note(name, value, stream)?;
            } else if regular {
                // Section 8.3: pseudo-header fields come first.
                return Err(Malformed);
            } else {
                head.note_pseudo(name, value)?;
            }
        }
        head.check_pseudo()?;
        let belied = ended && head.content_length.is_some_and(|length| length > 0);
        if belied { Err(Malformed) } else { Ok(head) }
    }

    fn note_pseudo(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
        let (slot, empty) = match name {
            b":method" => (&mut self.method, &b""[..]),
            b":path" => (&mut self.path, &b""[..]),
            b":scheme" => return once(&mut self.scheme, value),
            b":authority" => return once(&mut self.authority, value),
            b":protocol" => return once(&mut self.protocol, value),
            _ => return Err(Malformed),
        };
        // Neither may be empty, so an empty one has not come.
        if *slot != empty || !is_value(value) || value.is_empty() {
            return Err(Malformed);
        }
        *slot = value;
        Ok(())
    }

    /// Section 8.3.1; for CONNECT section 8.5, and RFC 8441 section 4.
    fn check_pseudo(&self) -> Result<(), Malformed> {
        let has_target = self.scheme.is_some() && !self.path.is_empty();
        let fits = if self.method != b"CONNECT" {
            has_target && self.protocol.is_none() && !self.method.is_empty()
        } else if self.protocol.is_some() {
            has_target
        } else {
            self.scheme.is_none() && self.path.is_empty() && self.authority.is_some()
        };
        if fits { Ok(()) } else { Err(Malformed) }
    }

    fn note(&mut self, name: &[u8], value: &'a [u8], stream: u32) -> Result<(), Malformed> {
        match name {
            b"host" => self.host.note(value),
            b"content-length" => {
                if !value.iter().all(u8::is_ascii_digit) || value.is_empty() {
                    return Err(Malformed);
                }
                // A number that is too long is too large.
                let length = str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                let second = self.content_length.replace(length.unwrap_or(u64::MAX)).is_some();
                return if second { Err(Malformed) } else { Ok(()) };
            }
            b"expect" => {
                let expects = expects_continue(value);
                let known = self.expect_continue.zip(expects);
                self.expect_continue = known.map(|(one, other)| one | other);
            }
            b"priority" => self.priority = Priority::parse(value, stream),
            b"origin" => self.origin.note(value),
            b"sec-websocket-version" => self.version.note(value),
            b"user-agent" | b"accept" => {}
            _ => {
                let name = str::from_utf8(name).unwrap_or_default();
                note_condition(&mut self.conditions, name, value);
            }
        }
        Ok(())
    }

    /// The request, and whether its client waits for 100 (Continue).
    pub(super) fn request(
        self,
        ended: bool,
        limits: &Limits,
    ) -> Result<(Request<'a>, bool), Refusal> {
        let method = str::from_utf8(self.method).ok().and_then(Method::named);
        let method =
            method.ok_or(Refusal("501 Not Implemented", "the method is not known here"))?;
        let path = self.route_path(method, limits)?;
        if self.host.is_repeated {
            return Err(bad_request("there are two Host fields"));
        }
        let unknown = "the only expectation known is 100-continue";
        let unknown = Refusal("417 Expectation Failed", unknown);
        let expect_continue = self.expect_continue.ok_or(unknown)?;
        self.check_host()?;
        if self.content_length.is_some_and(|length| length > limits.body_bytes_max) {
            return Err(TOO_LARGE);
        }
        let length = self.content_length.or(ended.then_some(0));
        let request = Request { method, path, length, conditions: self.conditions };
        Ok((request, expect_continue))
    }

    /// The path without its query.
    fn route_path(&self, method: Method, limits: &Limits) -> Result<&'a str, Refusal> {
        let target = self.path;
        if target.len() > limits.target_bytes_max {
            return Err(Refusal("414 URI Too Long", "the request target is too long"));
        }
        let is_sent = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
        let target = Some(target).filter(|target| target.iter().all(is_sent));
        let target = target.and_then(|target| str::from_utf8(target).ok());
        let encoded = "the path has a byte that must be percent-encoded";
        let target = target.ok_or(bad_request(encoded))?;
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if !(path.starts_with('/') || path == "*" && method == Method::Options) {
            return Err(bad_request("the path must begin with /"));
        }
        Ok(path)
    }

    /// Section 8.3.1: requires `:authority` or Host. Both must be the same, and without user
    /// information.
    pub(super) fn check_host(&self) -> Result<&'a [u8], Refusal> {
        if let (Some(authority), Some(host)) = (self.authority, self.host.value)
            && !authority.eq_ignore_ascii_case(host)
        {
            return Err(bad_request("the Host field and :authority differ"));
        }
        let host = self.authority.or(self.host.value).filter(|host| !host.is_empty());
        let host = host.ok_or(bad_request("there is neither :authority nor Host"))?;
        if is_authority(host) { Ok(host) } else { Err(bad_request("the host is not one host")) }
    }
}

fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8]) -> Result<(), Malformed> {
    if slot.is_some() || !is_value(value) {
        return Err(Malformed);
    }
    *slot = Some(value);
    Ok(())
}

/// Checks trailers, which have no pseudo-header fields (section 8.1).
pub(super) fn check_trailers(fields: &Fields) -> Result<(), Malformed> {
    fields.iter().try_for_each(|(name, value)| check_field(name, value))
}

/// Sections 8.2.1 and 8.2.2.
fn check_field(name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    let is_name = !name.is_empty() && name.iter().all(|&byte| NAME_BYTES[usize::from(byte)]);
    if !is_name || !is_value(value) {
        return Err(Malformed);
    }
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
            Err(Malformed)
        }
        b"te" if value != b"trailers" => Err(Malformed),
        _ => Ok(()),
    }
}

fn is_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_allowed = |&byte: &u8| byte >= b' ' && byte != 0x7f || byte == b'\t';
    value.iter().all(is_allowed) && !is_space(value.first()) && !is_space(value.last())
}

/// The bytes of a token (RFC 9110 section 5.6.2) without upper case.
const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut others: &[u8] = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < table.len() {
        let byte = at as u8;
        table[at] = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        at += 1;
    }
    while let [byte, rest @ ..] = others {
        table[*byte as usize] = true;
        others = rest;
    }
    table
};
