//! HTTP/1.1 on one connection (RFC 9112): one request at a time, replies in order.
//!
//! An exchange is a request and its reply. Its body arrives in pieces ([`Body`]) and its reply is
//! sent in pieces ([`Reply`]). When both are complete, the next head is parsed. Pipelined requests
//! wait in the input meanwhile: this is the head-of-line blocking of HTTP/1.1.

mod body;
mod head;
mod reject;
mod upgrade;
mod writer;

use std::time::Instant;

use body::Body;
use bytes::Bytes;
use head::{Framing, Head};
use reject::Reject;
use writer::{Http1Writer, Persistence};

use crate::http2::{Http2, PREFACE};
use crate::news;
use crate::output::Output;
use crate::routes::{self, Reply};
use crate::service::PATTERN_BYTES;
use crate::websocket::WebSocket;
use crate::{
    Close, Context, Deadline, FileRead, Limits, Next, Outcome, Progress, ProtocolState, Service,
};

/// A complete refusal, without a request: for a client that sends HTTP to a TLS port.
pub(crate) fn put_refusal(
    service: &Service,
    output: &mut Output,
    now: Instant,
    status: &'static str,
    sentence: &'static str,
) {
    let mut out = Http1Writer::new(service, output, now, Persistence::Close);
    routes::put_refusal(&mut out, status, sentence, false);
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[derive(Debug, Default)]
pub(crate) struct Http1 {
    exchange: Option<Exchange>,
    requests: u64,
    requests_unsent: u32,
    /// Bytes of HTTP/1.1 have come: the connection cannot become HTTP/2.
    is_http1: bool,
    empty_bytes: usize,
}

/// Most bytes of empty lines before a request. RFC 9112 section 2.2 has a server skip at least one
/// line. Unlimited empty lines would be input that never becomes a request.
const EMPTY_BYTES_MAX: usize = 16 * b"\r\n".len();

/// Pipelined requests that are begun before their replies are written. A read may hold thousands,
/// and the other connections of the loop wait until all of these are answered. The limit is twice
/// the pipeline depth of the standard workload, so that this workload needs no additional writes.
const REQUESTS_PER_WRITE_MAX: u32 = 32;

#[derive(Debug)]
struct Exchange {
    body: Body,
    reply: Reply,
    persistence: Persistence,
    keep_alive: bool,
    http_1_0: bool,
    /// The peer waits for 100 (Continue) before it sends its body (RFC 9110 section 10.1.1).
    owes_continue: bool,
    /// Why the connection closes after this reply, if it does.
    close_outcome: Outcome,
}

impl Http1 {
    pub(crate) fn is_between_requests(&self) -> bool {
        self.exchange.is_none()
    }

    pub(crate) fn wants_file(&self, limits: &Limits) -> Option<FileRead> {
        self.exchange.as_ref()?.reply.wants_file(limits)
    }

    pub(crate) fn file_read(&mut self, bytes: Bytes, output: &mut Output) {
        let part = self.exchange.as_mut().and_then(|exchange| exchange.reply.take_file(&bytes));
        if let Some(part) = part {
            output.push(part);
        }
    }

    /// Processes `input` until it needs more input, room in the output, a deadline or a file.
    pub(crate) fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        let mut used = 0;
        loop {
            if cx.output.len() >= cx.service.output_high_water_bytes() {
                // The peer is not late with a body that is not read.
                cx.deadlines.clear(Deadline::Body);
                self.miss_events(cx);
                return Progress { used, next: None };
            }
            if cx.output.is_empty() {
                self.requests_unsent = 0;
            } else if self.requests_unsent >= REQUESTS_PER_WRITE_MAX && self.exchange.is_none() {
                return Progress { used, next: None };
            }
            let step = match &self.exchange {
                None => self.next_request(cx, &input[used..], before_drain(cx, input, used)),
                Some(_) => self.exchange_step(cx, &input[used..], before_drain(cx, input, used)),
            };
            match step {
                Ok(Step::Used(n)) => used += n,
                Ok(Step::Wait) => return Progress { used, next: None },
                Ok(Step::Close(close)) => return Progress { used, next: Some(Next::Close(close)) },
                Ok(Step::Become(n, state)) => {
                    return Progress { used: used + n, next: Some(Next::Become(state)) };
                }
                Err(reject) => {
                    let unparsed = &input[used..];
                    let close = self.reject(reject, unparsed, cx.service, cx.output, cx.now);
                    return Progress { used, next: Some(Next::Close(close)) };
                }
            }
        }
    }

    /// The output has no room: events that are due now are left out.
    fn miss_events(&mut self, cx: &mut Context) {
        if let Some(Exchange { reply: Reply::Events { ticker, .. }, .. }) = &mut self.exchange {
            ticker.tick(cx.service, cx.now, |_| false);
            cx.deadlines.set(Deadline::Reply, ticker.due_at(cx.service), cx.now);
        }
    }

    /// Between two requests: parses a head, or waits for one. `before_drain`: as in
    /// [`Context::before_drain`], for this `input`.
    fn next_request(
        &mut self,
        cx: &mut Context,
        input: &[u8],
        before_drain: usize,
    ) -> Result<Step, Reject> {
        if cx.draining && before_drain == 0 && !cx.eof {
            return Ok(Step::Close(Close { linger: true, outcome: Outcome::Retired }));
        }
        if !self.is_http1 && input.first() == Some(&PREFACE[0]) {
            if input.starts_with(PREFACE) {
                let http2 = ProtocolState::Http2(Box::<Http2>::default());
                return Ok(Step::Become(0, http2));
            }
            if PREFACE.starts_with(input) {
                return self.wait_for_head(cx, input);
            }
        }
        self.is_http1 |= !input.is_empty();
        let skipped = head::empty_lines(input);
        if skipped > 0 {
            self.empty_bytes += skipped;
            if self.empty_bytes > EMPTY_BYTES_MAX {
                return Err(Reject::Malformed("there are too many empty lines before the request"));
            }
            return Ok(Step::Used(skipped));
        }
        if input.is_empty() {
            return self.wait_for_head(cx, input);
        }
        let secure = cx.service.common.tls.is_some();
        match head::parse(input, &cx.service.limits, secure) {
            Ok(Some((head, len))) => {
                self.begin(cx, &head, &input[..len], &input[len..before_drain.max(len)])
            }
            Ok(None) => self.wait_for_head(cx, input),
            Err(Reject::Version) => {
                let known = head::as_http_1_1(input, &cx.service.limits).ok_or(Reject::Version)?;
                match head::parse(&known, &cx.service.limits, secure)? {
                    Some((head, len)) => {
                        self.begin(cx, &head, &known[..len], &input[len..before_drain.max(len)])
                    }
                    None => self.wait_for_head(cx, &known),
                }
            }
            Err(reject) => Err(reject),
        }
    }

    fn wait_for_head(&mut self, cx: &mut Context, input: &[u8]) -> Result<Step, Reject> {
        // CR may be half of an empty line, which is not a request.
        let begun = !matches!(input, b"" | b"\r");
        if cx.eof {
            let outcome = if begun { Outcome::Truncated } else { Outcome::Completed };
            return Ok(Step::Close(Close { linger: false, outcome }));
        }
        if begun && !cx.deadlines.is_set(Deadline::Head) {
            cx.deadlines.clear(Deadline::Idle);
            cx.set(Deadline::Head, cx.service.limits.head_timeout());
        }
        if cx.draining && !begun {
            return Ok(Step::Close(Close { linger: true, outcome: Outcome::Retired }));
        }
        Ok(Step::Wait)
    }

    /// A head is complete: begins the reply, or the connection becomes a WebSocket. `head` was
    /// parsed from `bytes`; `behind` is the input after it that is still answered while draining.
    fn begin(
        &mut self,
        cx: &mut Context,
        head: &Head,
        bytes: &[u8],
        behind: &[u8],
    ) -> Result<Step, Reject> {
        cx.deadlines.clear(Deadline::Head);
        cx.deadlines.clear(Deadline::Idle);
        self.empty_bytes = 0;
        let limits = &cx.service.limits;
        let body = match head.framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::chunked(),
        };
        self.requests += 1;
        self.requests_unsent += 1;
        let last = limits.keepalive_requests_max;
        let retire = cx.draining && body.covers(behind) || (last != 0 && self.requests >= last);
        // A client that gets a final status instead of 100 may send its body or not. So the start
        // of its next request is not known.
        let unwanted =
            head.expect_continue && !body.is_complete() && !routes::reads_body(&head.request);
        let body = if unwanted { Body::Length(0) } else { body };
        let retire = retire || unwanted;
        let keep_alive = head.keep_alive && !retire;
        let persistence = match (keep_alive, head.http_1_0) {
            (false, _) => Persistence::Close,
            (true, true) => Persistence::KeepAlive,
            (true, false) => Persistence::Default,
        };
        let reply = if upgrade::is_for_websocket(head) {
            match upgrade::accept(cx, head, bytes) {
                Ok(route) => {
                    cx.service.counters.request();
                    let websocket = ProtocolState::WebSocket(Box::new(WebSocket::open(route, cx)));
                    return Ok(Step::Become(bytes.len(), websocket));
                }
                Err(refusal) => upgrade::put_refusal(cx, head, &refusal, persistence),
            }
        } else {
            let mut out = Http1Writer::new(cx.service, cx.output, cx.now, persistence);
            routes::route(cx.service, cx.now, &head.request, &mut out)
        };
        if let Reply::Delayed { until, due: false, .. } = reply {
            cx.deadlines.set(Deadline::Reply, until, cx.now);
        }
        self.exchange = Some(Exchange {
            body,
            reply,
            persistence,
            keep_alive,
            http_1_0: head.http_1_0,
            owes_continue: head.expect_continue && !body.is_complete(),
            close_outcome: if head.keep_alive || unwanted {
                Outcome::Retired
            } else {
                Outcome::Completed
            },
        });
        Ok(Step::Used(bytes.len()))
    }

    fn exchange_step(
        &mut self,
        cx: &mut Context,
        input: &[u8],
        before_drain: usize,
    ) -> Result<Step, Reject> {
        let Some(exchange) = &mut self.exchange else { return Ok(Step::Used(0)) };
        if cx.draining && exchange.body.covers(&input[..before_drain]) {
            exchange.retire();
        }
        let used = if exchange.body.is_complete() {
            0
        } else {
            // First the part of the reply that does not depend on the body. If the body is
            // malformed, that part is sent in any case, however the input was split into reads.
            exchange.produce(cx);
            if matches!(exchange.reply, Reply::Pattern { .. } | Reply::File { .. }) {
                return Ok(Step::Wait);
            }
            exchange.take_body(cx, input)?
        };
        exchange.produce(cx);
        if exchange.reply == Reply::Complete && exchange.body.is_complete() {
            return Ok(self.finish(cx, used, used < input.len()));
        }
        if used > 0 {
            return Ok(Step::Used(used));
        }
        if exchange.body.is_complete() && matches!(exchange.reply, Reply::Events { .. }) {
            // Nothing behind the last request is answered. It is taken, or FIN behind it would
            // never be read.
            return Ok(if input.is_empty() { Step::Wait } else { Step::Used(input.len()) });
        }
        if !exchange.body.is_complete() && cx.eof {
            return Ok(Step::Close(Close { linger: false, outcome: Outcome::Truncated }));
        }
        Ok(Step::Wait)
    }

    fn finish(&mut self, cx: &mut Context, used: usize, more: bool) -> Step {
        let Some(exchange) = self.exchange.take() else { return Step::Used(used) };
        cx.service.counters.request();
        cx.deadlines.clear(Deadline::Body);
        if exchange.keep_alive {
            cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
            return Step::Used(used);
        }
        // A peer that asked for the close sends no more, unless more has already arrived. A peer
        // that did not ask may still send.
        let linger = more || exchange.close_outcome == Outcome::Retired;
        Step::Close(Close { linger, outcome: exchange.close_outcome })
    }

    /// [`Deadline::Reply`] has passed: the next step produces the delayed reply.
    pub(crate) fn reply_due(&mut self) {
        if let Some(Exchange { reply: Reply::Delayed { due, .. }, .. }) = &mut self.exchange {
            *due = true;
        }
    }

    /// Head or body did not arrive in time: answers 408, unless the reply has begun.
    pub(crate) fn request_timed_out(
        &mut self,
        unparsed: &[u8],
        service: &Service,
        output: &mut Output,
        now: Instant,
    ) -> Close {
        let close = self.reject(Reject::Timeout, unparsed, service, output, now);
        Close { outcome: Outcome::RequestTimeout, ..close }
    }

    /// Answers with an error if that is still possible. A reply that has begun cannot be withdrawn,
    /// and a second status line would be read as part of its body. Between requests, `unparsed` is
    /// the refused head.
    fn reject(
        &mut self,
        reject: Reject,
        unparsed: &[u8],
        service: &Service,
        output: &mut Output,
        now: Instant,
    ) -> Close {
        let close = Close { linger: true, outcome: Outcome::Rejected };
        let head_only = match self.exchange.take().map(|exchange| exchange.reply) {
            None => unparsed.starts_with(b"HEAD "),
            Some(Reply::Delayed { head_only, .. }) => head_only,
            Some(Reply::Echo { head_sent: false, .. } | Reply::Events { head_sent: false, .. }) => {
                false
            }
            Some(_) => return close,
        };
        let (status, sentence) = reject.reply();
        let mut out = Http1Writer::new(service, output, now, Persistence::Close);
        routes::put_refusal(&mut out, status, sentence, head_only);
        close
    }
}

fn put_event(output: &mut Output, number: u64, chunked: bool) {
    let mut event = Vec::new();
    news::put_event(&mut event, number);
    if chunked {
        output.put(format!("{:x}\r\n", event.len()).as_bytes());
        event.extend_from_slice(b"\r\n");
    }
    output.put(&event);
}

fn before_drain(cx: &Context, input: &[u8], used: usize) -> usize {
    cx.before_drain.min(input.len()).saturating_sub(used)
}

enum Step {
    Used(usize),
    Wait,
    /// So many bytes of input were processed; another protocol processes the rest.
    Become(usize, ProtocolState),
    Close(Close),
}

impl Exchange {
    /// No other request follows this one: the server is stopping, for example. If the reply's head
    /// is not sent yet, it says that this is the last reply.
    fn retire(&mut self) {
        if let Reply::Echo { head_sent: false, .. }
        | Reply::Events { head_sent: false, .. }
        | Reply::Delayed { .. } = self.reply
        {
            self.persistence = Persistence::Close;
            self.keep_alive = false;
        }
    }

    /// Takes body bytes from `input`. `/echo` sends them back; other routes drop them.
    fn take_body(&mut self, cx: &mut Context, input: &[u8]) -> Result<usize, Reject> {
        if self.owes_continue && input.is_empty() {
            cx.output.put(CONTINUE);
        }
        self.owes_continue = false;
        let piece = self.body.step(input, cx.service.limits.body_bytes_max)?;
        if !piece.data.is_empty() {
            self.echo(cx, piece.data);
        }
        if self.body.is_complete() {
            cx.deadlines.clear(Deadline::Body);
        } else if piece.used > 0 || !cx.deadlines.is_set(Deadline::Body) {
            cx.set(Deadline::Body, cx.service.limits.body_timeout());
        }
        Ok(piece.used)
    }

    fn produce(&mut self, cx: &mut Context) {
        match self.reply {
            Reply::Pattern { .. } => self.put_pattern(cx),
            Reply::File { offset, end, .. } if offset == end => self.reply = Reply::Complete,
            Reply::Events { .. } => self.put_events(cx),
            Reply::Delayed { says, number, due: true, head_only, .. } => {
                routes::put_delayed(&mut self.writer(cx), (says, number), head_only);
                self.reply = Reply::Complete;
            }
            Reply::Echo { length, .. } if self.body.is_complete() => {
                self.put_echo_head(cx);
                if length.is_none() {
                    cx.output.put(b"0\r\n\r\n");
                }
                self.reply = Reply::Complete;
            }
            Reply::Complete | Reply::Echo { .. } | Reply::File { .. } | Reply::Delayed { .. } => {}
        }
    }

    fn put_pattern(&mut self, cx: &mut Context) {
        while cx.output.len() < cx.service.output_high_water_bytes() {
            match self.reply.take_pattern(cx.service, PATTERN_BYTES) {
                Some(bytes) => cx.output.push_common(bytes),
                None => {
                    self.reply = Reply::Complete;
                    return;
                }
            }
        }
    }

    /// Puts the events that are due. They end with the client's input too: a client that has gone
    /// sends FIN and nothing else.
    fn put_events(&mut self, cx: &mut Context) {
        let Reply::Events { mut ticker, head_sent } = self.reply else { return };
        if !head_sent {
            // It is the last reply: requests behind it would have to wait for ever. HTTP/1.0 has no
            // chunks, so there the end of the connection ends the body.
            self.retire();
            routes::put_events_head(&mut self.writer(cx), !self.http_1_0);
        }
        let (output, high_water) = (&mut *cx.output, cx.service.output_high_water_bytes());
        ticker.tick(cx.service, cx.now, |number| {
            let room = output.len() < high_water;
            if room {
                put_event(output, number, !self.http_1_0);
            }
            room
        });
        self.reply = Reply::Events { ticker, head_sent: true };
        if cx.draining || cx.eof {
            if !self.http_1_0 {
                cx.output.put(b"0\r\n\r\n");
            }
            if cx.eof {
                self.close_outcome = Outcome::Completed;
            }
            self.reply = Reply::Complete;
            cx.deadlines.clear(Deadline::Reply);
        } else {
            cx.deadlines.set(Deadline::Reply, ticker.due_at(cx.service), cx.now);
        }
    }

    fn echo(&mut self, cx: &mut Context, data: &[u8]) {
        let Reply::Echo { length, .. } = self.reply else { return };
        self.put_echo_head(cx);
        if length.is_none() {
            cx.output.put(format!("{:x}\r\n", data.len()).as_bytes());
            cx.output.put(data);
            cx.output.put(b"\r\n");
        } else {
            cx.output.put(data);
        }
    }

    fn put_echo_head(&mut self, cx: &mut Context) {
        let mut out = self.writer(cx);
        if let Reply::Echo { length, head_sent } = &mut self.reply
            && !*head_sent
        {
            *head_sent = true;
            routes::put_echo_head(&mut out, *length);
        }
    }

    fn writer<'a>(&self, cx: &'a mut Context) -> Http1Writer<'a> {
        Http1Writer::new(cx.service, cx.output, cx.now, self.persistence)
    }
}
