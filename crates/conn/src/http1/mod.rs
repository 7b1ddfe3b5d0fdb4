//! HTTP/1.1 on one connection (RFC 9112): requests in, replies out, in order, one at a time.
//!
//! A request is an exchange: its body streams in ([`Body`]), its reply streams out ([`Reply`]), and
//! when both are complete the next head is parsed. Pipelined requests wait in the input meanwhile:
//! that wait is HTTP/1.1's head-of-line blocking, and nothing here tries to hide it.

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
use writer::{Persistence, Writer};

use crate::http2::{Http2, PREFACE};
use crate::output::Output;
use crate::routes::{self, Reply};
use crate::service::PATTERN_BYTES;
use crate::websocket::WebSocket;
use crate::{Close, Context, Deadline, FileRead, Limits, Outcome, Progress, Service, State, Then};

/// The whole of a reply to a client that asks in the wrong place: no request of his is read.
pub(crate) fn put_refusal(
    service: &Service,
    output: &mut Output,
    now: Instant,
    status: &'static str,
    sentence: &'static str,
) {
    let mut out = Writer::new(service, output, now, Persistence::Close);
    routes::put_refusal(&mut out, status, sentence, false);
}

/// Asks for the body (RFC 9110 section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// HTTP/1.1 state of one connection.
#[derive(Debug, Default)]
pub(crate) struct Http1 {
    exchange: Option<Exchange>,
    requests: u64,
    /// Requests begun since all output was last with the kernel.
    unsent: u32,
    /// Something has come that is HTTP/1.1's: it cannot become HTTP/2 any more.
    settled: bool,
    /// Bytes of the empty lines before the next request.
    empty_bytes: usize,
}

/// Most bytes of empty lines before a request: RFC 9112 section 2.2 has at least one line skipped.
/// Lines without end would be input that never becomes a request.
const EMPTY_BYTES_MAX: usize = 16 * b"\r\n".len();

/// Pipelined requests that are begun before their replies are written. A read may hold thousands,
/// and other connections of the loop wait until all that were begun are answered. Twice the
/// pipeline that the suite's own workload has, so that a client that pipelines pays no more writes.
const REQUESTS_PER_WRITE_MAX: u32 = 32;

/// One request and its reply.
#[derive(Debug)]
struct Exchange {
    body: Body,
    reply: Reply,
    /// What a head that is not out yet says about the connection's future.
    persistence: Persistence,
    /// Whether another request may follow.
    keep_alive: bool,
    /// The peer waits for 100 (Continue) before it sends its body (RFC 9110 section 10.1.1).
    owes_continue: bool,
    /// Why the connection closes after this reply, if it does.
    close_outcome: Outcome,
}

impl Http1 {
    pub(crate) fn is_between_requests(&self) -> bool {
        self.exchange.is_none()
    }

    /// The file part that the reply needs next.
    pub(crate) fn wants_file(&self, limits: &Limits) -> Option<FileRead> {
        self.exchange.as_ref()?.reply.wants_file(limits)
    }

    pub(crate) fn file_read(&mut self, bytes: Bytes, output: &mut Output) {
        let part = self.exchange.as_mut().and_then(|exchange| exchange.reply.take_file(&bytes));
        if let Some(part) = part {
            output.push(part);
        }
    }

    /// Works on `input` until it needs more of it, or must wait for output, time or a file.
    pub(crate) fn advance(&mut self, cx: &mut Context, input: &[u8]) -> Progress {
        let mut used = 0;
        loop {
            if cx.output.len() >= cx.service.output_high_water_bytes() {
                // The peer cannot be late with a body that we do not read.
                cx.deadlines.clear(Deadline::Body);
                return Progress { used, then: None };
            }
            if cx.output.is_empty() {
                self.unsent = 0;
            } else if self.unsent >= REQUESTS_PER_WRITE_MAX && self.exchange.is_none() {
                return Progress { used, then: None };
            }
            let step = match &self.exchange {
                None => self.next_request(cx, &input[used..], promised(cx, input, used)),
                Some(_) => self.exchange_step(cx, &input[used..], promised(cx, input, used)),
            };
            match step {
                Ok(Step::Used(n)) => used += n,
                Ok(Step::Wait) => return Progress { used, then: None },
                Ok(Step::Close(close)) => return Progress { used, then: Some(Then::Close(close)) },
                Ok(Step::Become(n, state)) => {
                    return Progress { used: used + n, then: Some(Then::Become(state)) };
                }
                Err(reject) => {
                    let unparsed = &input[used..];
                    let close = self.reject(reject, unparsed, cx.service, cx.output, cx.now);
                    return Progress { used, then: Some(Then::Close(close)) };
                }
            }
        }
    }

    /// Between two requests: parse a head, or say why there is none.
    /// `promised`: of `input`, see [`Context::promised`].
    fn next_request(
        &mut self,
        cx: &mut Context,
        input: &[u8],
        promised: usize,
    ) -> Result<Step, Reject> {
        if cx.draining && promised == 0 && !cx.eof {
            return Ok(Step::Close(Close { linger: true, outcome: Outcome::Retired }));
        }
        if !self.settled && input.first() == Some(&PREFACE[0]) {
            if input.starts_with(PREFACE) {
                let http2 = State::Http2(Box::new(Http2::new(cx.service)));
                return Ok(Step::Become(0, http2));
            }
            if PREFACE.starts_with(input) {
                return self.wait_for_head(cx, input);
            }
        }
        self.settled |= !input.is_empty();
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
                self.begin(cx, &head, &input[..len], &input[len..promised.max(len)])
            }
            Ok(None) => self.wait_for_head(cx, input),
            Err(Reject::Version) => {
                let known = head::as_http_1_1(input, &cx.service.limits).ok_or(Reject::Version)?;
                match head::parse(&known, &cx.service.limits, secure)? {
                    Some((head, len)) => {
                        self.begin(cx, &head, &known[..len], &input[len..promised.max(len)])
                    }
                    None => self.wait_for_head(cx, &known),
                }
            }
            Err(reject) => Err(reject),
        }
    }

    /// `input` is no whole head yet.
    fn wait_for_head(&mut self, cx: &mut Context, input: &[u8]) -> Result<Step, Reject> {
        // CR may be half of an empty line, and that is no request.
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

    /// A head is complete: choose the reply, and begin it; or the connection becomes a WebSocket.
    /// `bytes` is what `head` was parsed from, `behind` what follows and was promised an answer.
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
        self.unsent += 1;
        let last = limits.keepalive_requests_max;
        let retire =
            cx.draining && body.reaches_over(behind) || (last != 0 && self.requests >= last);
        // The peer may send the body that it announced, or may not, now that it gets a final status
        // instead of 100: where a next request would begin cannot be known.
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
                    let websocket = State::WebSocket(Box::new(WebSocket::open(route, cx)));
                    return Ok(Step::Become(bytes.len(), websocket));
                }
                Err(refusal) => upgrade::put_refusal(cx, head, &refusal, persistence),
            }
        } else {
            let mut out = Writer::new(cx.service, cx.output, cx.now, persistence);
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
            owes_continue: head.expect_continue && !body.is_complete(),
            close_outcome: if head.keep_alive || unwanted {
                Outcome::Retired
            } else {
                Outcome::Completed
            },
        });
        Ok(Step::Used(bytes.len()))
    }

    /// Inside a request: take body bytes, produce reply bytes, finish when both are complete.
    fn exchange_step(
        &mut self,
        cx: &mut Context,
        input: &[u8],
        promised: usize,
    ) -> Result<Step, Reject> {
        let Some(exchange) = &mut self.exchange else { return Ok(Step::Used(0)) };
        if cx.draining && exchange.body.reaches_over(&input[..promised]) {
            exchange.retire();
        }
        let used = if exchange.body.is_complete() {
            0
        } else {
            // First what can be answered without the body: if that turns out to be malformed, the
            // reply is out however the input was cut into reads.
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
        if !exchange.body.is_complete() && cx.eof {
            return Ok(Step::Close(Close { linger: false, outcome: Outcome::Truncated }));
        }
        Ok(Step::Wait)
    }

    /// `more`: there is input behind this request.
    fn finish(&mut self, cx: &mut Context, used: usize, more: bool) -> Step {
        let Some(exchange) = self.exchange.take() else { return Step::Used(used) };
        cx.service.counters.request();
        cx.deadlines.clear(Deadline::Body);
        if exchange.keep_alive {
            cx.set(Deadline::Idle, cx.service.limits.idle_timeout());
            return Step::Used(used);
        }
        // A peer that asked for the close has nothing more on its way, unless we see that it has;
        // one that did not ask may have.
        let linger = more || exchange.close_outcome == Outcome::Retired;
        Step::Close(Close { linger, outcome: exchange.close_outcome })
    }

    /// [`Deadline::Reply`] has come: the next step produces the delayed reply.
    pub(crate) fn reply_due(&mut self) {
        if let Some(Exchange { reply: Reply::Delayed { due, .. }, .. }) = &mut self.exchange {
            *due = true;
        }
    }

    /// Head or body did not arrive in time: 408, unless the reply has begun.
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

    /// Answers with an error where an answer is still possible: a reply that has begun cannot be
    /// taken back, and a second status line inside it would be read as its body. Between requests
    /// `unparsed` is the head that is refused.
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
            Some(Reply::Echo { head_sent: false, .. }) => false,
            Some(_) => return close,
        };
        let (status, sentence) = reject.reply();
        let mut out = Writer::new(service, output, now, Persistence::Close);
        routes::put_refusal(&mut out, status, sentence, head_only);
        close
    }
}

/// How much of what is left of `input` behind its first `used` bytes was promised an answer.
fn promised(cx: &Context, input: &[u8], used: usize) -> usize {
    cx.promised.min(input.len()).saturating_sub(used)
}

/// What one step of the protocol came to.
enum Step {
    /// So much input is done with; go on.
    Used(usize),
    /// Nothing more can be done with this input; wait for an event.
    Wait,
    /// So much input is done with; the rest is another protocol's.
    Become(usize, State),
    Close(Close),
}

impl Exchange {
    /// The server is to stop, and no other request has come behind this one: a reply whose head is
    /// not out yet can still say that it is the last.
    fn retire(&mut self) {
        if let Reply::Echo { head_sent: false, .. } | Reply::Delayed { .. } = self.reply {
            self.persistence = Persistence::Close;
            self.keep_alive = false;
        }
    }

    /// Takes what `input` holds of the request body. The echo route sends it back, others drop it.
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

    /// Puts as much of the reply into the output as it has room for.
    fn produce(&mut self, cx: &mut Context) {
        match self.reply {
            Reply::Pattern { .. } => self.put_pattern(cx),
            Reply::File { offset, end, .. } if offset == end => self.reply = Reply::Complete,
            Reply::Delayed { millis, due: true, head_only, .. } => {
                routes::put_delayed(&mut self.writer(cx), millis, head_only);
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

    fn writer<'a>(&self, cx: &'a mut Context) -> Writer<'a> {
        Writer::new(cx.service, cx.output, cx.now, self.persistence)
    }
}
