//! A reply head in the bytes of HTTP/1.1 (RFC 9112 section 4): status line, fields, empty line,
//! straight into the output.

use std::time::Instant;

use bytes::Bytes;

use crate::Service;
use crate::output::Output;
use crate::routes::{self, Field};

/// What a reply says about the connection's future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// HTTP/1.1's default; nothing is said.
    Default,
    /// HTTP/1.0 asked for it, so it is confirmed.
    KeepAlive,
    /// This is the last reply.
    Close,
}

/// Writes one reply.
pub(super) struct Writer<'a> {
    service: &'a Service,
    output: &'a mut Output,
    now: Instant,
    persistence: Persistence,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        service: &'a Service,
        output: &'a mut Output,
        now: Instant,
        persistence: Persistence,
    ) -> Writer<'a> {
        Writer { service, output, now, persistence }
    }

    /// `name` ends in a colon and a space: copies are few, and each has its price.
    #[inline]
    fn put_field(&mut self, name: &'static str, value: &str) {
        let out = self.output.tail();
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

impl routes::Writer for Writer<'_> {
    #[inline]
    fn begin(&mut self, status: &'static str) {
        let out = self.output.tail();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_bytes());
        out.extend_from_slice(b"\r\nDate: ");
        self.service.put_date(self.now, out);
        out.extend_from_slice(match self.persistence {
            Persistence::Default => b"\r\n".as_slice(),
            Persistence::KeepAlive => b"\r\nConnection: keep-alive\r\n",
            Persistence::Close => b"\r\nConnection: close\r\n",
        });
    }

    #[inline]
    fn field(&mut self, field: Field, value: &str) {
        let name = match field {
            Field::AcceptRanges => "Accept-Ranges: ",
            Field::Allow => "Allow: ",
            Field::ContentRange => "Content-Range: ",
            Field::ContentType => "Content-Type: ",
            Field::ETag => "ETag: ",
            Field::LastModified => "Last-Modified: ",
            Field::Location => "Location: ",
        };
        self.put_field(name, value);
    }

    #[inline]
    fn constant(&mut self, field: Field, value: &'static str) {
        self.field(field, value);
    }

    /// A body of unknown length is sent in chunks.
    #[inline]
    fn length(&mut self, length: Option<u64>) {
        match length {
            Some(length) => {
                self.put_field("Content-Length: ", itoa::Buffer::new().format(length));
            }
            None => self.put_field("Transfer-Encoding: ", "chunked"),
        }
    }

    #[inline]
    fn end(&mut self) {
        self.output.put(b"\r\n");
    }

    #[inline]
    fn body(&mut self, body: &[u8]) {
        self.output.put(body);
    }

    #[inline]
    fn shared_body(&mut self, body: &Bytes) {
        self.output.push_common(body.clone());
    }
}
