//! The deadlines of a connection and its streams. Each is progress that the peer must make; frames
//! that are no progress move none of them.

use super::stream::Stream;
use super::{Http2, PREFACE};
use crate::{Context, Deadline};

impl Http2 {
    pub(super) fn expire(&mut self, cx: &mut Context) {
        let takes = self.takes.take();
        let due = |stream: &Stream| stream.deadline(cx.service).is_some_and(|at| at <= cx.now);
        let due: Vec<u32> =
            self.streams.iter().filter(|stream| due(stream)).map(|stream| stream.id).collect();
        for id in due {
            if let Some(stream) = self.streams.get_mut(id) {
                let end = stream.timed_out(&mut self.link, cx, takes);
                self.after_turn(cx, id, end);
            }
        }
    }

    /// `asked`: a request came.
    pub(super) fn set_deadlines(&mut self, cx: &mut Context, asked: bool) {
        if self.busy || asked {
            cx.deadlines.clear(Deadline::Idle);
        }
        let idle = !self.busy && cx.output.is_empty() && self.preface == PREFACE.len();
        if idle && !cx.deadlines.is_set(Deadline::Idle) {
            cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
        }
        self.watch_fields(cx);
        let awaits_room = self.awaits_room();
        for stream in self.streams.iter_mut() {
            stream.watch(cx.service, cx.now, awaits_room);
        }
        match self.streams.iter().filter_map(|stream| stream.deadline(cx.service)).min() {
            // The deadline of a window has passed: set, so that the driver asks the kernel first.
            Some(at) if at <= cx.now => {}
            Some(at) => cx.deadlines.set(Deadline::Reply, at, cx.now),
            None => cx.deadlines.clear(Deadline::Reply),
        }
    }

    /// Sets the deadline of an incomplete head. Between its frames there can be no others (RFC 9113
    /// section 6.10), so it blocks all streams of the connection.
    fn watch_fields(&mut self, cx: &mut Context) {
        if self.preface < PREFACE.len() {
            return;
        }
        // Input that waits for the next turn has come in time.
        if !self.is_in_fields() || self.awaits_turn {
            cx.deadlines.clear(Deadline::Head);
        } else if !cx.deadlines.is_set(Deadline::Head) {
            cx.set(Deadline::Head, cx.service.limits.head_timeout());
        }
    }
}
