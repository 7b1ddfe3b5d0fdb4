//! Collects a reply's head for the library, and the part of the body that follows it at once.

use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::Service;
use crate::routes::{Field, ReplyWriter};

/// Fields of the longest reply, that of a file: date, three validators, type and length.
const FIELDS: usize = 6;

pub(super) struct Http2Writer<'a> {
    service: &'a Service,
    now: Instant,
    pub(super) head: Response<()>,
    /// Empty: no body, or not yet.
    pub(super) body: Bytes,
}

impl<'a> Http2Writer<'a> {
    pub(super) fn new(service: &'a Service, now: Instant) -> Http2Writer<'a> {
        Http2Writer { service, now, head: Response::new(()), body: Bytes::new() }
    }

    fn put(&mut self, name: HeaderName, value: &str) {
        // An invalid value is left out. The routes send none: file types and targets are checked
        // before.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.head.headers_mut().append(name, value);
        }
    }
}

impl ReplyWriter for Http2Writer<'_> {
    fn begin(&mut self, status: &'static str) {
        let code = StatusCode::from_bytes(&status.as_bytes()[..3]);
        *self.head.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *self.head.headers_mut() = HeaderMap::with_capacity(FIELDS);
        self.head.headers_mut().append(header::DATE, self.service.date_value(self.now));
    }

    fn field(&mut self, field: Field, value: &str) {
        self.put(name(field), value);
    }

    fn constant(&mut self, field: Field, value: &'static str) {
        self.head.headers_mut().append(name(field), HeaderValue::from_static(value));
    }

    /// Without a length, the end of the stream ends the body.
    fn length(&mut self, length: Option<u64>) {
        if let Some(length) = length {
            self.put(header::CONTENT_LENGTH, itoa::Buffer::new().format(length));
        }
    }

    fn end(&mut self) {}

    fn body(&mut self, body: &[u8]) {
        self.body = Bytes::copy_from_slice(body);
    }

    fn shared_body(&mut self, body: &Bytes) {
        self.body = body.clone();
    }
}

fn name(field: Field) -> HeaderName {
    match field {
        Field::AcceptRanges => header::ACCEPT_RANGES,
        Field::Allow => header::ALLOW,
        Field::ContentRange => header::CONTENT_RANGE,
        Field::ContentType => header::CONTENT_TYPE,
        Field::ETag => header::ETAG,
        Field::LastModified => header::LAST_MODIFIED,
        Field::Location => header::LOCATION,
    }
}
