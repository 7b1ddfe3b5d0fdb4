//! Writes a reply: HEADERS, and the DATA that can follow at once (RFC 9113 section 8.1).

use std::time::Instant;

use bytes::Bytes;

use super::frame::{self, HEAD_LEN, Kind, PAYLOAD_LEN_MAX, flag};
use super::hpack::{Said, name};
use super::link::{self, Link};
use super::window::SendWindow;
use crate::output::Output;
use crate::routes::{Field, ReplyWriter};
use crate::{Context, Service};

pub(super) struct Http2Writer<'a> {
    service: &'a Service,
    now: Instant,
    output: &'a mut Output,
    link: &'a mut Link,
    stream: u32,
    window: &'a mut SendWindow,
    progress: Written,
    /// Where the frame of the head begins in the output's tail.
    head_at: usize,
    names_version: bool,
}

/// What is left of a reply.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) has_head: bool,
    /// END_STREAM is sent.
    pub(super) ended: bool,
    /// Bytes of the body for which a window or the output has no room.
    pub(super) rest: Bytes,
}

impl<'a> Http2Writer<'a> {
    pub(super) fn new(
        cx: &'a mut Context,
        link: &'a mut Link,
        stream: u32,
        window: &'a mut SendWindow,
    ) -> Http2Writer<'a> {
        let (service, now, progress) = (&**cx.service, cx.now, Written::default());
        let output = &mut *cx.output;
        let (head_at, names_version) = (0, false);
        Http2Writer { service, now, output, link, stream, window, progress, head_at, names_version }
    }

    /// Sends 100 (Continue), an interim reply.
    pub(super) fn put_continue(&mut self) {
        self.begin_frame("100 Continue");
        self.end();
    }

    /// The reply names the version of WebSocket that the client should use (RFC 6455 section 4.4).
    pub(super) fn names_version(&mut self) {
        self.names_version = true;
    }

    /// `is_whole`: nothing follows what was written.
    pub(super) fn finish(mut self, is_whole: bool) -> Written {
        let ends = is_whole && self.progress.has_head && self.progress.rest.is_empty();
        if ends && !self.progress.ended {
            // The type is the fourth byte of a frame's head, and the flags are the fifth.
            self.output.tail()[self.head_at + 4] |= flag::END_STREAM;
            self.progress.ended = true;
        }
        self.progress
    }

    fn begin_frame(&mut self, status: &'static str) {
        let out = self.output.tail();
        self.head_at = out.len();
        frame::put_head(out, 0, Kind::Headers, flag::END_HEADERS, self.stream);
        self.link.encoder.begin(out, status);
    }
}

impl ReplyWriter for Http2Writer<'_> {
    fn begin(&mut self, status: &'static str) {
        self.begin_frame(status);
        self.progress.has_head = true;
        let date = Said::Date(self.service.unix_s(self.now));
        let (service, now) = (self.service, self.now);
        self.link.encoder.said(self.output.tail(), date, |out| service.put_date(now, out));
    }

    fn field(&mut self, field: Field, value: &str) {
        self.link.encoder.literal(self.output.tail(), index(field), value.as_bytes());
    }

    fn constant(&mut self, field: Field, value: &'static str) {
        let said = Said::Constant(index(field), value);
        let put = |out: &mut Vec<u8>| out.extend_from_slice(value.as_bytes());
        self.link.encoder.said(self.output.tail(), said, put);
    }

    /// Without a length, the end of the stream ends the body.
    fn length(&mut self, length: Option<u64>) {
        if let Some(length) = length {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(length).as_bytes();
            self.link.encoder.literal(self.output.tail(), name::CONTENT_LENGTH, digits);
        }
    }

    fn end(&mut self) {
        if self.names_version {
            self.link.encoder.new_name(self.output.tail(), "sec-websocket-version", b"13");
        }
        let out = self.output.tail();
        let len = out.len() - self.head_at - HEAD_LEN;
        debug_assert!(len <= PAYLOAD_LEN_MAX, "a head of {len} bytes");
        out[self.head_at..self.head_at + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
    }

    fn body(&mut self, body: &[u8]) {
        let room = link::room(self.service, self.output);
        let room = room.saturating_sub(HEAD_LEN).min(self.window.room());
        let room = room.min(self.link.send.room()).min(PAYLOAD_LEN_MAX);
        if body.is_empty() || body.len() > room {
            self.progress.rest = Bytes::copy_from_slice(body);
            return;
        }
        self.window.take(body.len());
        self.link.send.take(body.len());
        let out = self.output.tail();
        frame::put_head(out, body.len(), Kind::Data, flag::END_STREAM, self.stream);
        out.extend_from_slice(body);
        self.progress.ended = true;
    }

    fn shared_body(&mut self, body: &Bytes) {
        self.progress.rest = body.clone();
    }
}

fn index(field: Field) -> usize {
    match field {
        Field::AcceptRanges => name::ACCEPT_RANGES,
        Field::Allow => name::ALLOW,
        Field::ContentRange => name::CONTENT_RANGE,
        Field::ContentType => name::CONTENT_TYPE,
        Field::ETag => name::ETAG,
        Field::LastModified => name::LAST_MODIFIED,
        Field::Location => name::LOCATION,
    }
}
