//! What frames mean for the connection and its streams (RFC 9113 sections 5 to 8): requests and
//! trailers, windows and settings, errors by their scope, and the end with GOAWAY.

use super::error::{Code, Fault};
use super::frame::{self, Head as FrameHead, Kind, STREAM_MAX, flag};
use super::hpack::Fields;
use super::receive::is_own_parent;
use super::request::{self, HEAD_TOO_LARGE, Head, Refusal};
use super::settings::SETTING_LEN;
use super::state::{Event, State};
use super::stream::Stream;
use super::tunnel::{self, Tunnel};
use super::window::SendWindow;
use super::writer::Http2Writer;
use super::{Ending, Http2};
use crate::routes::{self, Reply, ReplyWriter};
use crate::{Context, Outcome, Service};

/// Streams that the client may reset in the turn in which it has opened them (rapid reset,
/// CVE-2023-44487). Those that it resets later have cost it a round trip each.
const RESETS_AT_ONCE_MAX: u32 = 20;

/// Streams that this server may reset because of mistakes of the client, beyond the requests that
/// it has answered ("MadeYouReset", CVE-2025-8671). As many as other servers allow.
const FAULTS_MAX: u32 = 1024;

/// Requests beyond [`Limits::keepalive_requests_max`] that are answered after the first GOAWAY, in
/// units of [`Limits::streams_max`].
///
/// [`Limits::keepalive_requests_max`]: crate::Limits::keepalive_requests_max
/// [`Limits::streams_max`]: crate::Limits::streams_max
const LATE_WINDOWS: u64 = 2;

/// The PING between two GOAWAY.
const FAREWELL: [u8; 8] = *b"farewell";

impl Http2 {
    /// A request, or trailers.
    pub(super) fn take_fields(
        &mut self,
        cx: &mut Context,
        id: u32,
        ends: bool,
        fields: &Fields,
    ) -> Result<(), Fault> {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.state = stream.state.after(Event::ReceiveHeaders)?;
            // Section 8.1: trailers end the request.
            let fits = ends && request::check_trailers(fields).is_ok();
            if !fits {
                return Err(Fault::Stream(Code::Protocol));
            }
            return self.end_request(cx, id);
        }
        if self.is_reset(id) {
            return Ok(());
        }
        let state = self.state_without_stream(id).after(Event::ReceiveHeaders)?;
        let state = if ends { state.after(Event::ReceiveEnd)? } else { state };
        self.newest = id;
        if let Leaving::After(_) = self.leaving {
            // Section 6.8: the client will ask again elsewhere.
            return Ok(());
        }
        if self.streams.len() >= cx.service.limits.streams_max as usize {
            return Err(Fault::Stream(Code::Refused));
        }
        let head = Head::parse(fields, id, ends).map_err(|_| Fault::Stream(Code::Protocol))?;
        self.count_request(cx);
        let head_only = head.method == b"HEAD";
        let accepted = if fields.is_too_long() {
            Err(HEAD_TOO_LARGE)
        } else if head.method == b"CONNECT" {
            self.connect(cx, (id, state), &head)
        } else {
            self.accept(cx, (id, state), head)
        };
        accepted.unwrap_or_else(|refusal| self.refuse(cx, (id, state), refusal, head_only));
        Ok(())
    }

    /// Answers a request. What is left of the reply, or of the request, becomes a stream.
    fn accept(
        &mut self,
        cx: &mut Context,
        (id, state): (u32, State),
        head: Head,
    ) -> Result<(), Refusal> {
        let ended = state == State::HalfClosedRemote;
        let (priority, length) = (head.priority, head.content_length);
        let (request, waits) = head.request(ended, &cx.service.limits)?;
        let is_wanted = routes::reads_body(&request);
        let service: &Service = &std::sync::Arc::clone(cx.service);
        let now = cx.now;
        let mut window = self.new_window();
        let mut out = Http2Writer::new(cx, &mut self.link, id, &mut window);
        if waits && !ended && is_wanted {
            out.put_continue();
        }
        let reply = routes::route(service, now, &request, &mut out);
        let written = out.finish(reply == Reply::Complete);
        if written.ended && ended {
            cx.service.counters.request();
            self.faults = self.faults.saturating_sub(1);
            return Ok(());
        }
        let mut stream = Stream::new(id, state, window, reply);
        stream.priority = priority;
        // A client that waits for 100 (Continue) sends no body without it.
        stream.expects_body(length.filter(|_| !ended), is_wanted || !waits);
        stream.go_on(written);
        self.streams.insert(stream);
        Ok(())
    }

    /// A request for a WebSocket (RFC 8441 section 4).
    fn connect(
        &mut self,
        cx: &mut Context,
        (id, state): (u32, State),
        head: &Head,
    ) -> Result<(), Refusal> {
        let tunnel = Tunnel::open(tunnel::admit(cx.service, head)?, cx);
        let mut stream = Stream::new(id, state, self.new_window(), Reply::Complete);
        stream.write(&mut self.link, cx, false, |out| {
            out.begin("200 OK");
            out.end();
        });
        stream.become_tunnel(tunnel);
        if state == State::HalfClosedRemote {
            stream.end_tunnel_input();
        }
        self.streams.insert(stream);
        self.tunnels = true;
        Ok(())
    }

    fn refuse(
        &mut self,
        cx: &mut Context,
        (id, state): (u32, State),
        refusal: Refusal,
        head_only: bool,
    ) {
        let mut stream = Stream::new(id, state, self.new_window(), Reply::Complete);
        stream.is_refused();
        stream.write(&mut self.link, cx, true, |out| {
            if refusal == tunnel::VERSION {
                out.names_version();
            }
            routes::put_refusal(out, refusal.0, refusal.1, head_only);
        });
        if stream.state != State::Closed {
            self.streams.insert(stream);
        }
    }

    fn new_window(&self) -> SendWindow {
        SendWindow::new(self.link.peer.initial_window_size)
    }

    /// RST_STREAM, WINDOW_UPDATE, PING or PRIORITY.
    pub(super) fn take_short_frame(
        &mut self,
        cx: &mut Context,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<(), Fault> {
        match (head.kind, payload) {
            (Kind::Ping, _) if head.has(flag::ACK) => self.take_pong(cx, payload),
            (Kind::Ping, &[a, b, c, d, e, f, g, h]) => {
                frame::put_ping(cx.output.tail(), flag::ACK, [a, b, c, d, e, f, g, h]);
            }
            (Kind::Priority, _) if is_own_parent(payload, head.stream) => {
                return Err(Code::Protocol.into());
            }
            (Kind::RstStream, _) => return self.take_reset(cx, head.stream),
            (_, &[a, b, c, d]) => {
                let increment = u32::from_be_bytes([a, b, c, d]) & STREAM_MAX;
                return self.open_window(head.stream, increment);
            }
            _ => {}
        }
        Ok(())
    }

    /// Requests that were under way with the first GOAWAY have come.
    fn take_pong(&mut self, cx: &mut Context, payload: &[u8]) {
        if payload == FAREWELL && self.leaving == Leaving::Announced {
            self.leave_after_newest(cx);
        }
    }

    /// Section 6.4.
    fn take_reset(&mut self, cx: &mut Context, id: u32) -> Result<(), Fault> {
        self.allow(id, Event::ReceiveReset)?;
        self.forget(cx, id);
        // Requests that were answered at once have cost as much.
        if id > self.newest_before {
            self.resets_at_once += 1;
            if self.resets_at_once > RESETS_AT_ONCE_MAX {
                return Err(Code::EnhanceYourCalm.into());
            }
        }
        Ok(())
    }

    /// Section 6.9.
    fn open_window(&mut self, id: u32, increment: u32) -> Result<(), Fault> {
        if id == 0 {
            self.link.send.open(increment)?;
            self.streams.feed();
            return Ok(());
        }
        self.allow(id, Event::ReceiveWindowUpdate)?;
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        stream.send.open(increment).map_err(Fault::Stream)?;
        if stream.awaits_window() {
            self.streams.list(id);
        }
        Ok(())
    }

    /// Section 6.5.2. A new initial window is one for open streams too (section 6.9.2).
    pub(super) fn apply(&mut self, setting: [u8; SETTING_LEN]) -> Result<(), Code> {
        let peer = &mut self.link.peer;
        let before = peer.initial_window_size;
        peer.apply(setting)?;
        self.link.encoder.limit_table(peer.header_table_size);
        let difference = i64::from(peer.initial_window_size) - i64::from(before);
        if difference != 0 {
            for stream in self.streams.iter_mut() {
                stream.send.change(difference)?;
            }
            self.streams.list_if(Stream::awaits_window);
        }
        Ok(())
    }

    /// Ends what a mistake of the peer ends: the connection (`Err`), or a stream. Too many resets
    /// end the connection.
    pub(super) fn settle(
        &mut self,
        cx: &mut Context,
        id: u32,
        taken: Result<(), Fault>,
    ) -> Result<(), Code> {
        let code = match taken {
            Ok(()) => return Ok(()),
            Err(Fault::Connection(code)) => return Err(code),
            Err(Fault::Stream(code)) => code,
        };
        self.faults += 1;
        if self.faults > FAULTS_MAX {
            return Err(Code::EnhanceYourCalm);
        }
        if self.streams.get(id).is_none() && self.state_without_stream(id) == State::Idle {
            return Err(code);
        }
        if !self.is_reset(id) {
            frame::put_reset(cx.output.tail(), id, code);
            self.forget(cx, id);
            self.remember_reset(id);
        }
        Ok(())
    }

    /// The stream is over.
    pub(super) fn forget(&mut self, cx: &mut Context, id: u32) {
        if let Some(stream) = self.streams.remove(id) {
            self.link.release(cx.output, stream.unreleased());
        }
    }

    /// Frames of the client may be under way to a stream that was reset. They are ignored (section
    /// 5.1). A few such streams are remembered: a window allows DATA on a few only.
    pub(super) fn remember_reset(&mut self, id: u32) {
        self.resets.rotate_right(1);
        self.resets[0] = id;
    }

    /// The stream was reset by this server, or was refused by GOAWAY.
    pub(super) fn is_reset(&self, id: u32) -> bool {
        let is_refused = matches!(self.leaving, Leaving::After(last) if id > last);
        self.resets.contains(&id) || is_refused && id <= self.newest
    }

    /// Streams below the newest one are closed (section 5.1.1).
    pub(super) fn state_without_stream(&self, id: u32) -> State {
        if id > self.newest { State::Idle } else { State::Closed }
    }

    /// The state of the stream allows `event`.
    pub(super) fn allow(&self, id: u32, event: Event) -> Result<(), Fault> {
        let open = self.streams.get(id).map(|stream| stream.state);
        let state = open.unwrap_or_else(|| self.state_without_stream(id));
        state.after(event).map(|_| ())
    }

    fn count_request(&mut self, cx: &mut Context) {
        self.requests += 1;
        let max = cx.service.limits.keepalive_requests_max;
        let late = LATE_WINDOWS * u64::from(cx.service.limits.streams_max);
        if max != 0 && self.requests >= max + late {
            self.leave_after_newest(cx);
        } else if max != 0 && self.requests >= max {
            self.leave(cx);
        }
    }

    /// Refuses new requests and ends when earlier ones are answered: two GOAWAY, one round trip
    /// apart, because requests may be under way (section 6.8).
    pub(super) fn leave(&mut self, cx: &mut Context) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced;
            frame::put_goaway(cx.output.tail(), STREAM_MAX, Code::No);
            frame::put_ping(cx.output.tail(), 0, FAREWELL);
        }
    }

    fn leave_after_newest(&mut self, cx: &mut Context) {
        if !matches!(self.leaving, Leaving::After(_)) {
            self.leaving = Leaving::After(self.newest);
            frame::put_goaway(cx.output.tail(), self.newest, Code::No);
        }
    }

    /// One GOAWAY, and the end (section 5.4.1).
    pub(super) fn end(&mut self, cx: &mut Context, code: Code, outcome: Outcome) {
        if self.ending == Ending::No {
            let last = match self.leaving {
                Leaving::After(last) => last,
                Leaving::No | Leaving::Announced => self.newest,
            };
            frame::put_goaway(cx.output.tail(), last, code);
            self.ending = Ending::Now(outcome);
        }
    }
}

/// The end of a connection that finishes its requests (section 6.8).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    #[default]
    No,
    /// The first GOAWAY is sent, and a PING. Requests are still taken.
    Announced,
    /// The second one, with the last stream that is answered.
    After(u32),
}
