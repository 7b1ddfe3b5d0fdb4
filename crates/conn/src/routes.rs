//! The application: a table of routes, the same in every model and every protocol.
//!
//! A protocol parses a [`Request`]. [`route`] writes the reply's head, and the part of the body
//! that is in memory, to the protocol's [`ReplyWriter`]. The protocol then sends the rest of the
//! [`Reply`].
//!
//! | route | reply |
//! |---|---|
//! | `/` | 13 bytes of text |
//! | `/bytes/N` | N bytes of a known pattern |
//! | `POST /echo` | the request's body |
//! | `/delay/MS` | text, MS milliseconds later; the wait is a deadline, not a sleep |
//! | `/work/US` | text, after US microseconds of CPU |
//! | `/files/...` | files under the document root |
//! | `/news/MS` | the newest message of the news, at once: for polling |
//! | `/news/MS/N` | the newest message, once it is not message N: for long polling |
//! | `/events/MS` | each message when it is due: server-sent events |
//! | `/stats` | the server's counters as JSON |
//!
//! Every path that begins with `/ws/` is a WebSocket: see [`crate::websocket`].

mod selection;

use std::time::{Duration, Instant};

use bytes::Bytes;
use selection::{NOT_MODIFIED, Selection, select, tagged, untagged};

use crate::files::{Entry, FileEntry};
use crate::news::{self, Ticker};
use crate::service::PATTERN_BYTES;
use crate::{FileId, FileRead, Limits, Service};

const HELLO: &str = "Hello, world!";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// Methods of RFC 9110 section 9.3 and RFC 5789. A known method that a route does not offer is
/// answered with 405, an unknown one with 501.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Options,
    Other,
}

impl Method {
    /// The method with this name. Names are case-sensitive (RFC 9110 section 9.1).
    pub(crate) fn named(name: &str) -> Option<Method> {
        Some(match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "OPTIONS" => Method::Options,
            "PUT" | "DELETE" | "PATCH" => Method::Other,
            _ => return None,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Path with its leading slash, without the query; `*` for `OPTIONS *`.
    pub(crate) path: &'a str,
    /// Length of the body; `None` if it was not announced.
    pub(crate) length: Option<u64>,
    /// Boxed, because few requests have conditions, and a request is moved several times.
    pub(crate) conditions: Option<Box<Conditions<'a>>>,
}

impl<'a> Request<'a> {
    fn conditions(&self) -> &Conditions<'a> {
        static NONE: Conditions = Conditions {
            if_match: Vec::new(),
            if_none_match: Vec::new(),
            if_modified_since: None,
            if_unmodified_since: None,
            if_range: None,
            range: None,
        };
        self.conditions.as_deref().unwrap_or(&NONE)
    }
}

/// Values of the fields for conditional requests and ranges (RFC 9110 sections 13 and 14).
#[derive(Debug, Default)]
pub(crate) struct Conditions<'a> {
    /// Lists, which may be spread over several fields (RFC 9110 section 5.3): one item per field.
    pub(crate) if_match: Vec<&'a [u8]>,
    pub(crate) if_none_match: Vec<&'a [u8]>,
    pub(crate) if_modified_since: Option<&'a [u8]>,
    pub(crate) if_unmodified_since: Option<&'a [u8]>,
    pub(crate) if_range: Option<&'a [u8]>,
    pub(crate) range: Option<&'a [u8]>,
}

/// Stores the field if it is one of [`Conditions`]. Names are case-insensitive (RFC 9110 section
/// 5.1).
pub(crate) fn note_condition<'a>(
    conditions: &mut Option<Box<Conditions<'a>>>,
    name: &str,
    value: &'a [u8],
) {
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    let all = Option::<Box<Conditions>>::get_or_insert_default;
    match name.len() {
        5 if is("range") => note_once(&mut all(conditions).range, value),
        8 if is("if-match") => all(conditions).if_match.push(value),
        8 if is("if-range") => note_once(&mut all(conditions).if_range, value),
        13 if is("if-none-match") => all(conditions).if_none_match.push(value),
        17 if is("if-modified-since") => note_once(&mut all(conditions).if_modified_since, value),
        19 if is("if-unmodified-since") => {
            note_once(&mut all(conditions).if_unmodified_since, value)
        }
        _ => {}
    }
}

/// Stores a field that is not a list. If it comes twice it is ignored, as RFC 9110 section 13.1.3
/// requires for dates: an empty value is invalid wherever it is used, and so ignored.
fn note_once<'a>(noted: &mut Option<&'a [u8]>, value: &'a [u8]) {
    *noted = Some(if noted.is_some() { b"" } else { value });
}

/// The meaning of Expect (RFC 9110 section 10.1.1): whether the client waits for 100 (Continue), or
/// `None` if it expects something else. Empty list items are skipped (section 5.6.1.2).
pub(crate) fn expects_continue(value: &[u8]) -> Option<bool> {
    let items = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let mut items = items.filter(|item| !item.is_empty()).peekable();
    let expects = items.peek().is_some();
    items.all(|item| item.eq_ignore_ascii_case(b"100-continue")).then_some(expects)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    AcceptRanges,
    Allow,
    ContentRange,
    ContentType,
    ETag,
    LastModified,
    Location,
}

/// Writes a reply's head and the part of its body that is in memory. Calls come in this order:
/// `begin`, the fields, `end`, and the body if there is one. The writer adds the date and the
/// protocol's own fields.
pub(crate) trait ReplyWriter {
    fn begin(&mut self, status: &'static str);
    fn field(&mut self, field: Field, value: &str);
    /// A field with a constant value, which need not be copied.
    fn constant(&mut self, field: Field, value: &'static str);
    /// Content-Length, or for `None` what the protocol has instead.
    fn length(&mut self, length: Option<u64>);
    fn end(&mut self);
    fn body(&mut self, body: &[u8]);
    /// A body to keep a handle of.
    fn shared_body(&mut self, body: &Bytes);
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    #[default]
    Complete,
    /// `/echo`: the head is sent with the first body bytes; then the body is sent as it arrives.
    Echo {
        length: Option<u64>,
        head_sent: bool,
    },
    Pattern {
        offset: u64,
        end: u64,
    },
    File {
        id: FileId,
        offset: u64,
        end: u64,
    },
    /// `/delay/MS` and `/news/MS/N`: the whole reply, once `due`. The protocol sets that at
    /// `until`.
    Delayed {
        says: Says,
        /// Milliseconds, or the number of the message.
        number: u64,
        until: Instant,
        due: bool,
        head_only: bool,
    },
    /// `/events/MS`: the head, then each message when it is due, until the server stops or the
    /// client ends.
    Events {
        ticker: Ticker,
        head_sent: bool,
    },
}

/// What a delayed reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    Waited,
    News,
}

impl Reply {
    pub(crate) fn wants_file(&self, limits: &Limits) -> Option<FileRead> {
        match *self {
            Reply::File { id, offset, end } if offset < end => {
                let len = (end - offset).min(limits.file_read_bytes_max as u64) as usize;
                Some(FileRead { file: id, offset, len })
            }
            _ => None,
        }
    }

    /// The part of `bytes`, just read, that belongs to the reply.
    pub(crate) fn take_file(&mut self, bytes: &Bytes) -> Option<Bytes> {
        let Reply::File { offset, end, .. } = self else { return None };
        let wanted = usize::try_from(*end - *offset).unwrap_or(usize::MAX);
        let bytes = bytes.slice(..bytes.len().min(wanted));
        *offset += bytes.len() as u64;
        Some(bytes)
    }

    pub(crate) fn take_pattern(&mut self, service: &Service, most: usize) -> Option<Bytes> {
        let Reply::Pattern { offset, end } = self else { return None };
        let start = (*offset % PATTERN_BYTES as u64) as usize;
        let len = ((PATTERN_BYTES - start).min(most) as u64).min(*end - *offset) as usize;
        *offset += len as u64;
        (len > 0).then(|| service.pattern.slice(start..start + len))
    }
}

pub(crate) fn route<W: ReplyWriter>(
    service: &Service,
    now: Instant,
    request: &Request,
    out: &mut W,
) -> Reply {
    let mut route = Handler { service, now, request, out };
    if request.path == "*" {
        return route.allow("204 No Content", "GET, HEAD, POST, OPTIONS");
    }
    let (name, rest) = split(request.path);
    match (name, rest) {
        ("", None) => route.readable(|r| r.untagged(|r| r.text("200 OK", HELLO))),
        ("bytes", Some(n)) => route.readable(|r| r.bytes(n)),
        ("echo", None) => route.echo(),
        ("delay", Some(millis)) => route.readable(|r| r.delay(millis)),
        ("work", Some(micros)) => route.readable(|r| r.work(micros)),
        ("files", Some(path)) => route.readable(|r| r.file(path)),
        ("files", None) => route.readable(Handler::add_slash),
        ("stats", None) => route.readable(|r| r.untagged(Handler::stats)),
        ("news", Some(rest)) => route.readable(|r| r.news(rest)),
        ("events", Some(period)) => route.readable(|r| r.events(period)),
        _ => route.text("404 Not Found", "no such route; try / or /stats"),
    }
}

pub(crate) fn reads_body(request: &Request) -> bool {
    request.method == Method::Post && request.path == "/echo"
}

fn split(path: &str) -> (&str, Option<&str>) {
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.bytes().position(|byte| byte == b'/') {
        Some(end) => (&path[..end], Some(&path[end + 1..])),
        None => (path, None),
    }
}

struct Handler<'r, W> {
    service: &'r Service,
    now: Instant,
    request: &'r Request<'r>,
    out: &'r mut W,
}

impl<W: ReplyWriter> Handler<'_, W> {
    /// A route with GET and HEAD.
    fn readable(&mut self, reply: impl FnOnce(&mut Self) -> Reply) -> Reply {
        match self.request.method {
            Method::Get | Method::Head => reply(self),
            Method::Options => self.allow("204 No Content", "GET, HEAD, OPTIONS"),
            Method::Post | Method::Other => {
                self.allow("405 Method Not Allowed", "GET, HEAD, OPTIONS")
            }
        }
    }

    fn allow(&mut self, status: &'static str, methods: &'static str) -> Reply {
        self.out.begin(status);
        self.out.constant(Field::Allow, methods);
        // RFC 9110 section 8.6: no Content-Length in a 204.
        if !status.starts_with("204") {
            self.out.length(Some(0));
        }
        self.out.end();
        Reply::Complete
    }

    fn text(&mut self, status: &'static str, text: &str) -> Reply {
        put_text(self.out, status, text, self.head_only());
        Reply::Complete
    }

    fn bytes(&mut self, n: &str) -> Reply {
        let Some(end) = number(n, self.service.limits.reply_bytes_max) else {
            return self.text("400 Bad Request", "/bytes/N wants a number of bytes within limits");
        };
        self.untagged(|route| {
            route.out.begin("200 OK");
            route.out.constant(Field::ContentType, TEXT);
            route.out.length(Some(end));
            route.out.end();
            if route.head_only() || end == 0 {
                Reply::Complete
            } else {
                Reply::Pattern { offset: 0, end }
            }
        })
    }

    /// A representation without entity tag and date, unless the request's conditions forbid it.
    fn untagged(&mut self, reply: impl FnOnce(&mut Self) -> Reply) -> Reply {
        let Some(status) = untagged(self.request.conditions()) else { return reply(self) };
        self.out.begin(status);
        if status != NOT_MODIFIED {
            self.out.length(Some(0));
        }
        self.out.end();
        Reply::Complete
    }

    fn echo(&mut self) -> Reply {
        match self.request.method {
            Method::Post => {}
            Method::Options => return self.allow("204 No Content", "POST, OPTIONS"),
            _ => return self.allow("405 Method Not Allowed", "POST, OPTIONS"),
        }
        Reply::Echo { length: self.request.length, head_sent: false }
    }

    fn delay(&mut self, millis: &str) -> Reply {
        let Some(millis) = number(millis, self.service.limits.delay_ms_max) else {
            return self.text("400 Bad Request", "/delay/MS wants milliseconds within limits");
        };
        self.untagged(|route| {
            let until = route.now + Duration::from_millis(millis);
            let (says, head_only) = (Says::Waited, route.head_only());
            Reply::Delayed { says, number: millis, until, due: millis == 0, head_only }
        })
    }

    /// Polling (`MS`): the newest message, now. Long polling (`MS/N`): the newest message when it
    /// is not N. A client that knows a later number has it from before the server's start.
    fn news(&mut self, rest: &str) -> Reply {
        let (period, known) = rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b)));
        let known = known.map(|known| number(known, u64::MAX));
        let (Some(period_ms), false) = (news::period_ms(period, self.service), known == Some(None))
        else {
            let sentence = "/news/MS or /news/MS/N wants milliseconds, 1 at least, within limits";
            return self.text("400 Bad Request", sentence);
        };
        let newest = news::newest(period_ms, self.service, self.now);
        match known.flatten() {
            None => self.newest(newest),
            Some(known) => self.untagged(|route| {
                let number = if known < newest { newest } else { newest.saturating_add(1) };
                let until = news::due_at(period_ms, number, route.service);
                let (due, head_only) = (until <= route.now, route.head_only());
                Reply::Delayed { says: Says::News, number, until, due, head_only }
            }),
        }
    }

    /// The entity tag lets a client ask whether there is anything new (RFC 9110 section 13.1.2).
    fn newest(&mut self, number: u64) -> Reply {
        let (etag, text) = (format!("\"{number}\""), format!("{}\n", news::text(number)));
        let refused = tagged(self.request.conditions(), &etag);
        self.out.begin(refused.unwrap_or("200 OK"));
        self.out.field(Field::ETag, &etag);
        if refused.is_none() {
            self.out.constant(Field::ContentType, TEXT);
            self.out.length(Some(text.len() as u64));
        } else if refused != Some(NOT_MODIFIED) {
            self.out.length(Some(0));
        }
        self.out.end();
        if refused.is_none() && !self.head_only() {
            self.out.body(text.as_bytes());
        }
        Reply::Complete
    }

    fn events(&mut self, period: &str) -> Reply {
        let Some(period_ms) = news::period_ms(period, self.service) else {
            let sentence = "/events/MS wants milliseconds, 1 at least, within limits";
            return self.text("400 Bad Request", sentence);
        };
        self.untagged(|route| {
            if route.head_only() {
                put_events_head(route.out, false);
                return Reply::Complete;
            }
            let ticker = Ticker::new(period_ms, route.service, route.now);
            Reply::Events { ticker, head_sent: false }
        })
    }

    fn work(&mut self, micros: &str) -> Reply {
        let Some(micros) = number(micros, self.service.limits.work_us_max) else {
            return self.text("400 Bad Request", "/work/US wants microseconds within limits");
        };
        self.untagged(|route| {
            route.service.common.program.burn(Duration::from_micros(micros));
            route.text("200 OK", &format!("worked for {micros} us\n"))
        })
    }

    fn stats(&mut self) -> Reply {
        let json = self.service.common.program.stats_json();
        put_body(self.out, "200 OK", "application/json", json.as_bytes(), self.head_only());
        Reply::Complete
    }

    /// Redirects to a directory's path with its slash: relative links in the listing need it.
    fn add_slash(&mut self) -> Reply {
        // The head's parser lets only visible ASCII through, so the path cannot end the field.
        let location = format!("{}/", self.request.path);
        self.out.begin("301 Moved Permanently");
        self.out.field(Field::Location, &location);
        self.out.length(Some(0));
        self.out.end();
        Reply::Complete
    }

    /// A listing may be long, so it is queued and not copied.
    fn index(&mut self, html: &Bytes) -> Reply {
        self.out.begin("200 OK");
        self.out.constant(Field::ContentType, "text/html; charset=utf-8");
        self.out.length(Some(html.len() as u64));
        self.out.end();
        if !self.head_only() {
            self.out.shared_body(html);
        }
        Reply::Complete
    }

    fn file(&mut self, encoded: &str) -> Reply {
        let service = self.service;
        let Some(files) = &service.common.files else {
            return self.text("404 Not Found", "this server has no document root (--root DIR)");
        };
        let path = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy();
        match files.get(&path) {
            Some(Entry::File(file)) => self.file_entry(file),
            Some(Entry::Index(html)) => self.untagged(|route| route.index(html)),
            None if files.get(&format!("{path}/")).is_some() => self.add_slash(),
            None => self.text("404 Not Found", "no such file under the document root"),
        }
    }

    fn file_entry(&mut self, file: &FileEntry) -> Reply {
        let selection = select(self.request, file);
        let (status, start, end) = match selection {
            Selection::Whole => ("200 OK", 0, file.len),
            Selection::Part(start, end) => ("206 Partial Content", start, end),
            Selection::NotModified => ("304 Not Modified", 0, 0),
            Selection::PreconditionFailed => ("412 Precondition Failed", 0, 0),
            Selection::Unsatisfiable => ("416 Range Not Satisfiable", 0, 0),
        };
        let out = &mut *self.out;
        out.begin(status);
        out.field(Field::ETag, &file.etag);
        out.field(Field::LastModified, &file.last_modified);
        out.constant(Field::AcceptRanges, "bytes");
        match selection {
            Selection::NotModified => {}
            Selection::PreconditionFailed => out.length(Some(0)),
            Selection::Unsatisfiable => {
                out.field(Field::ContentRange, &format!("bytes */{}", file.len));
                out.length(Some(0));
            }
            Selection::Part(..) => {
                let range = format!("bytes {start}-{}/{}", end - 1, file.len);
                out.field(Field::ContentRange, &range);
                out.field(Field::ContentType, &file.content_type);
                out.length(Some(end - start));
            }
            Selection::Whole => {
                out.field(Field::ContentType, &file.content_type);
                out.length(Some(end));
            }
        }
        out.end();
        if self.head_only() || start == end {
            Reply::Complete
        } else {
            Reply::File { id: file.id, offset: start, end }
        }
    }

    fn head_only(&self) -> bool {
        self.request.method == Method::Head
    }
}

pub(crate) fn put_refusal<W: ReplyWriter>(
    out: &mut W,
    status: &'static str,
    sentence: &str,
    head_only: bool,
) {
    put_text(out, status, &format!("{sentence}\n"), head_only);
}

pub(crate) fn put_delayed<W: ReplyWriter>(
    out: &mut W,
    (says, number): (Says, u64),
    head_only: bool,
) {
    let text = match says {
        Says::Waited => format!("waited for {number} ms\n"),
        Says::News => format!("{}\n", news::text(number)),
    };
    put_text(out, "200 OK", &text, head_only);
}

/// `has_body`: events follow, of unknown length.
pub(crate) fn put_events_head<W: ReplyWriter>(out: &mut W, has_body: bool) {
    out.begin("200 OK");
    out.constant(Field::ContentType, "text/event-stream");
    if has_body {
        out.length(None);
    }
    out.end();
}

pub(crate) fn put_echo_head<W: ReplyWriter>(out: &mut W, length: Option<u64>) {
    out.begin("200 OK");
    out.constant(Field::ContentType, "application/octet-stream");
    out.length(length);
    out.end();
}

fn put_text<W: ReplyWriter>(out: &mut W, status: &'static str, text: &str, head_only: bool) {
    put_body(out, status, TEXT, text.as_bytes(), head_only);
}

fn put_body<W: ReplyWriter>(
    out: &mut W,
    status: &'static str,
    content_type: &'static str,
    body: &[u8],
    head_only: bool,
) {
    out.begin(status);
    out.constant(Field::ContentType, content_type);
    out.length(Some(body.len() as u64));
    out.end();
    if !head_only {
        out.body(body);
    }
}

pub(crate) fn number(text: &str, max: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&n| digits && n <= max)
}

/// The bytes of a host name or an IPv4 address (RFC 3986 section 3.2.2). A table, because each byte
/// of every Host field is looked up. It leaves out the comma, which RFC 3986 allows: an
/// intermediary may have joined two Host fields with one.
const HOST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut others: &[u8] = b"-._~%!$&'()*+;=";
    let mut at = 0;
    while at < table.len() {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    while let [byte, rest @ ..] = others {
        table[*byte as usize] = true;
        others = rest;
    }
    table
};

/// `host [ ":" port ]` (RFC 9110 section 7.2): a name, an IPv4 address, or an IPv6 address in
/// brackets.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    let is_host_byte = |byte: &u8| HOST_BYTES[usize::from(*byte)];
    // Most values have no port, or one of at most five digits.
    let digits = value.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let host = match value.split_at(value.len() - digits) {
        ([host @ .., b':'], _) => host,
        _ => value,
    };
    if let [b'[', address @ .., b']'] = host {
        return !address.is_empty()
            && address.iter().all(|byte| is_host_byte(byte) || *byte == b':');
    }
    !host.is_empty() && host.iter().all(is_host_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request of HTTP/1.1 moves one, and each stream of HTTP/2 holds one.
    #[test]
    fn a_reply_is_small() {
        assert_eq!(size_of::<Reply>(), 32);
    }
}
