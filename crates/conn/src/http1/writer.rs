//! Writes a reply head of HTTP/1.1 (RFC 9112 section 4) to the output.

use std::time::Instant;

use bytes::Bytes;

use crate::Service;
use crate::output::Output;
use crate::routes::{Field, ReplyWriter};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Nothing: HTTP/1.1 keeps it open.
    Default,
    /// HTTP/1.0: confirms that it stays open.
    KeepAlive,
    Close,
}

pub(super) struct Http1Writer<'a> {
    service: &'a Service,
    output: &'a mut Output,
    now: Instant,
    persistence: Persistence,
}

impl<'a> Http1Writer<'a> {
    pub(super) fn new(
        service: &'a Service,
        output: &'a mut Output,
        now: Instant,
        persistence: Persistence,
    ) -> Http1Writer<'a> {
        Http1Writer { service, output, now, persistence }
    }

    /// `name` includes the colon and the space, which saves a copy.
    #[inline]
    fn put_field(&mut self, name: &'static str, value: &str) {
        let out = self.output.tail();
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

impl ReplyWriter for Http1Writer<'_> {
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
