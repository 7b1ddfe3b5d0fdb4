//! The application: a small table of routes, the same in every model.
//!
//! | route | reply |
//! |---|---|
//! | `/` | 13 bytes of text |
//! | `/bytes/N` | N bytes of a known pattern |
//! | `POST /echo` | the request's body |
//! | `/delay/MS` | text, MS milliseconds later; the waiting is a deadline, not a sleep |
//! | `/work/US` | text, after US microseconds of CPU |
//! | `/files/...` | files under the document root |
//! | `/stats` | the server's counters as JSON |

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::files::{Selection, select};
use super::head::{Head, Method};
use super::{Persistence, Reply, file_reply};
use crate::files::{Entry, FileEntry};
use crate::output::Output;
use crate::{Context, Deadline, Service};

const HELLO: &str = "Hello, world!";
const TEXT: &str = "text/plain; charset=utf-8";

/// Chooses the reply to `head` and begins it.
pub(super) fn route(cx: &mut Context, head: &Head, persistence: Persistence) -> Reply {
    let mut route = Route { cx, head, persistence };
    if head.path == "*" {
        return route.allow("204 No Content", "GET, HEAD, POST, OPTIONS");
    }
    let (name, rest) = split(head.path);
    match (name, rest) {
        ("", None) => route.readable(|r| r.text("200 OK", HELLO)),
        ("bytes", Some(n)) => route.readable(|r| r.bytes(n)),
        ("echo", None) => route.echo(),
        ("delay", Some(millis)) => route.readable(|r| r.delay(millis)),
        ("work", Some(micros)) => route.readable(|r| r.work(micros)),
        ("files", Some(path)) => route.readable(|r| r.file(path)),
        ("files", None) => route.readable(Route::add_slash),
        ("stats", None) => route.readable(Route::stats),
        _ => route.text("404 Not Found", "no such route; try / or /stats"),
    }
}

/// True for the one route that does something with a request's body.
pub(super) fn reads_body(head: &Head) -> bool {
    head.method == Method::Post && head.path == "/echo"
}

/// `/name/rest` as (name, rest).
fn split(path: &str) -> (&str, Option<&str>) {
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.split_once('/') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    }
}

struct Route<'r, 'a> {
    cx: &'r mut Context<'a>,
    head: &'r Head<'r>,
    persistence: Persistence,
}

impl Route<'_, '_> {
    /// A route that offers GET and HEAD.
    fn readable(&mut self, reply: impl FnOnce(&mut Self) -> Reply) -> Reply {
        match self.head.method {
            Method::Get | Method::Head => reply(self),
            Method::Options => self.allow("204 No Content", "GET, HEAD, OPTIONS"),
            Method::Post | Method::Other => {
                self.allow("405 Method Not Allowed", "GET, HEAD, OPTIONS")
            }
        }
    }

    fn allow(&mut self, status: &str, methods: &str) -> Reply {
        let mut out = self.begin(status);
        out.field("Allow", methods);
        // RFC 9110 section 8.6: no Content-Length in a 204.
        if !status.starts_with("204") {
            out.length(0);
        }
        out.end();
        Reply::Complete
    }

    fn text(&mut self, status: &str, text: &str) -> Reply {
        self.body(status, TEXT, text.as_bytes())
    }

    fn body(&mut self, status: &str, content_type: &str, body: &[u8]) -> Reply {
        let head_only = self.head_only();
        let mut out = self.begin(status);
        out.field("Content-Type", content_type);
        out.length(body.len() as u64);
        out.end();
        if !head_only {
            self.cx.output.put(body);
        }
        Reply::Complete
    }

    fn bytes(&mut self, n: &str) -> Reply {
        let Some(end) = number(n, self.cx.service.limits.reply_bytes_max) else {
            return self.text("400 Bad Request", "/bytes/N wants a number of bytes within limits");
        };
        let head_only = self.head_only();
        let mut out = self.begin("200 OK");
        out.field("Content-Type", TEXT);
        out.length(end);
        out.end();
        if head_only { Reply::Complete } else { Reply::Pattern { offset: 0, end } }
    }

    fn echo(&mut self) -> Reply {
        match self.head.method {
            Method::Post => {}
            Method::Options => return self.allow("204 No Content", "POST, OPTIONS"),
            _ => return self.allow("405 Method Not Allowed", "POST, OPTIONS"),
        }
        let (chunked, length) = match self.head.framing {
            super::Framing::Chunked => (true, 0),
            super::Framing::Length(length) => (false, length),
        };
        Reply::Echo { chunked, length, head_sent: false, persistence: self.persistence }
    }

    fn delay(&mut self, millis: &str) -> Reply {
        let Some(millis) = number(millis, self.cx.service.limits.delay_ms_max) else {
            return self.text("400 Bad Request", "/delay/MS wants milliseconds within limits");
        };
        self.cx.deadlines.set(Deadline::Reply, self.cx.now + Duration::from_millis(millis));
        let (head_only, persistence) = (self.head_only(), self.persistence);
        Reply::Delayed { millis, due: false, head_only, persistence }
    }

    fn work(&mut self, micros: &str) -> Reply {
        let Some(micros) = number(micros, self.cx.service.limits.work_us_max) else {
            return self.text("400 Bad Request", "/work/US wants microseconds within limits");
        };
        self.cx.service.common.host.burn(Duration::from_micros(micros));
        self.text("200 OK", &format!("worked for {micros} us\n"))
    }

    fn stats(&mut self) -> Reply {
        let json = self.cx.service.common.host.stats_json();
        self.body("200 OK", "application/json", json.as_bytes())
    }

    /// A directory without its slash: the links of its listing would lead elsewhere from there.
    fn add_slash(&mut self) -> Reply {
        // Only visible ASCII gets this far, so the path cannot break out of the field.
        let location = format!("{}/", self.head.path);
        let mut out = self.begin("301 Moved Permanently");
        out.field("Location", &location);
        out.length(0);
        out.end();
        Reply::Complete
    }

    /// A listing is as long as its directory, so it is queued and not copied.
    fn index(&mut self, html: &Bytes) -> Reply {
        let head_only = self.head_only();
        let mut out = self.begin("200 OK");
        out.field("Content-Type", "text/html; charset=utf-8");
        out.length(html.len() as u64);
        out.end();
        if !head_only {
            self.cx.output.push(html.clone());
        }
        Reply::Complete
    }

    fn file(&mut self, encoded: &str) -> Reply {
        let service = self.cx.service;
        let Some(files) = &service.common.files else {
            return self.text("404 Not Found", "this server has no document root (--root DIR)");
        };
        let path = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy();
        match files.get(&path) {
            Some(Entry::File(file)) => self.file_entry(file),
            Some(Entry::Index(html)) => self.index(html),
            None if files.get(&format!("{path}/")).is_some() => self.add_slash(),
            None => self.text("404 Not Found", "no such file under the document root"),
        }
    }

    fn file_entry(&mut self, file: &FileEntry) -> Reply {
        let selection = select(self.head, file);
        let head_only = self.head_only();
        let (status, start, end) = match selection {
            Selection::Whole => ("200 OK", 0, file.len),
            Selection::Part(start, end) => ("206 Partial Content", start, end),
            Selection::NotModified => ("304 Not Modified", 0, 0),
            Selection::PreconditionFailed => ("412 Precondition Failed", 0, 0),
            Selection::Unsatisfiable => ("416 Range Not Satisfiable", 0, 0),
        };
        let mut out = self.begin(status);
        out.field("ETag", &file.etag);
        out.field("Last-Modified", &file.last_modified);
        out.field("Accept-Ranges", "bytes");
        match selection {
            Selection::NotModified => {}
            Selection::PreconditionFailed => out.length(0),
            Selection::Unsatisfiable => {
                out.field("Content-Range", &format!("bytes */{}", file.len));
                out.length(0);
            }
            Selection::Part(..) => {
                let range = format!("bytes {start}-{}/{}", end - 1, file.len);
                out.field("Content-Range", &range);
                out.field("Content-Type", &file.content_type);
                out.length(end - start);
            }
            Selection::Whole => {
                out.field("Content-Type", &file.content_type);
                out.length(end);
            }
        }
        out.end();
        if head_only { Reply::Complete } else { file_reply(file, start, end) }
    }

    fn begin(&mut self, status: &str) -> ReplyHead<'_> {
        ReplyHead::begin(self.cx.service, self.cx.output, self.cx.now, status, self.persistence)
    }

    fn head_only(&self) -> bool {
        self.head.method == Method::Head
    }
}

/// The whole reply to a request that is refused: status, and a sentence.
pub(super) fn put_refusal(
    service: &Service,
    output: &mut Output,
    now: Instant,
    status: &str,
    sentence: &str,
    head_only: bool,
) {
    let mut out = ReplyHead::begin(service, output, now, status, Persistence::Close);
    out.field("Content-Type", TEXT);
    out.length(sentence.len() as u64 + 1);
    out.end();
    if !head_only {
        output.put(sentence.as_bytes());
        output.put(b"\n");
    }
}

/// The reply of `/delay/MS`, when its time has come.
pub(super) fn put_delayed(
    cx: &mut Context,
    millis: u64,
    head_only: bool,
    persistence: Persistence,
) {
    let text = format!("waited for {millis} ms\n");
    let mut out = ReplyHead::begin(cx.service, cx.output, cx.now, "200 OK", persistence);
    out.field("Content-Type", TEXT);
    out.length(text.len() as u64);
    out.end();
    if !head_only {
        cx.output.put(text.as_bytes());
    }
}

/// The head of `/echo`'s reply; chunked where the length is not known.
pub(super) fn put_echo_head(cx: &mut Context, length: Option<u64>, persistence: Persistence) {
    let mut out = ReplyHead::begin(cx.service, cx.output, cx.now, "200 OK", persistence);
    out.field("Content-Type", "application/octet-stream");
    match length {
        Some(length) => out.length(length),
        None => out.field("Transfer-Encoding", "chunked"),
    }
    out.end();
}

/// A reply head being written: status line first, then fields, then the empty line.
struct ReplyHead<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> ReplyHead<'a> {
    fn begin(
        service: &Service,
        output: &'a mut Output,
        now: Instant,
        status: &str,
        persistence: Persistence,
    ) -> ReplyHead<'a> {
        let out = output.tail();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_bytes());
        out.extend_from_slice(b"\r\nDate: ");
        service.put_date(now, out);
        out.extend_from_slice(match persistence {
            Persistence::Default => b"\r\n".as_slice(),
            Persistence::KeepAlive => b"\r\nConnection: keep-alive\r\n",
            Persistence::Close => b"\r\nConnection: close\r\n",
        });
        ReplyHead { out }
    }

    fn field(&mut self, name: &str, value: &str) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn length(&mut self, length: u64) {
        self.field("Content-Length", itoa::Buffer::new().format(length));
    }

    fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// A decimal number up to `max`.
fn number(text: &str, max: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&n| digits && n <= max)
}
