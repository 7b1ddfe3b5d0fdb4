//! HTTP/2 on one connection (RFC 9113).

use std::sync::Arc;

use bytes::Bytes;

use crate::{Context, FileRead, Limits, Progress, Service};

/// HTTP/2 state of one connection.
pub(crate) struct Http2 {}

impl Http2 {
    pub(crate) fn new(_service: &Arc<Service>) -> Http2 {
        Http2 {}
    }

    /// No stream is open.
    pub(crate) fn is_between_requests(&self) -> bool {
        true
    }

    /// Something in here waits for room in the output.
    pub(crate) fn awaits_room(&self) -> bool {
        false
    }

    /// The file part that one of the streams needs next.
    pub(crate) fn wants_file(&self, _limits: &Limits) -> Option<FileRead> {
        None
    }

    /// The part that [`Http2::wants_file`] asked for; `None`: it cannot be read.
    pub(crate) fn file_read(&mut self, _bytes: Option<Bytes>) {}

    /// Works on `input` (all of it is taken) and on whatever else can go on: called after every
    /// event, with no input too.
    pub(crate) fn advance(&mut self, _cx: &mut Context, input: &[u8]) -> Progress {
        Progress { used: input.len(), then: None }
    }
}
