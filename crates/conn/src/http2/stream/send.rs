//! What a stream sends in its turns: bytes from whatever its reply comes from, in DATA, as far as
//! the windows and the output have room (RFC 9113 sections 5.2, 6.1 and 8.1).

use bytes::Bytes;

use super::{Stream, TURN_BYTES, TurnEnd};
use crate::Context;
use crate::http2::frame::PAYLOAD_LEN_MAX;
use crate::http2::link::{self, Link};
use crate::http2::state::Event;
use crate::news::{self, Ticker};
use crate::routes::{self, Reply};

impl Stream {
    /// Continues as far as it can, and by at most a turn's bytes.
    pub(in crate::http2) fn turn(&mut self, link: &mut Link, cx: &mut Context) -> TurnEnd {
        self.send_parts(link, cx).unwrap_or_else(|end| end)
    }

    fn send_parts(&mut self, link: &mut Link, cx: &mut Context) -> Result<TurnEnd, TurnEnd> {
        let mut sent = 0;
        while sent < TURN_BYTES {
            self.prepare(link, cx)?;
            let wanted = self.available().min(TURN_BYTES);
            let n = if wanted > 0 { self.allowed(link, cx, wanted)? } else { 0 };
            let part = self.take(cx, n);
            sent += part.len();
            let used = if let Reply::Echo { .. } = self.reply { part.len() } else { 0 };
            let ends = self.is_all_taken(cx);
            self.send(link, cx, part, ends);
            self.release(link, cx, used);
            if ends {
                return Ok(self.after_reply());
            }
            if self.tunnel.as_ref().is_some_and(|tunnel| tunnel.awaits_turn()) {
                break;
            }
        }
        Ok(TurnEnd::Again)
    }

    /// Makes what is to be sent next. `Err`: there is nothing yet, and why.
    fn prepare(&mut self, link: &mut Link, cx: &mut Context) -> Result<(), TurnEnd> {
        if self.state.is_answered() {
            return Err(self.after_reply());
        }
        match self.reply {
            _ if self.tunnel.is_some() => self.run_tunnel(link, cx),
            Reply::Complete | Reply::Pattern { .. } => Ok(()),
            Reply::Echo { length, .. } => {
                let (is_read, is_empty) = (self.state.is_read(), self.echo.is_empty());
                if is_empty && !is_read {
                    return Err(TurnEnd::Wait);
                }
                if !self.has_head {
                    self.write(link, cx, is_empty, |out| routes::put_echo_head(out, length));
                }
                if self.state.is_answered() { Err(self.after_reply()) } else { Ok(()) }
            }
            Reply::File { .. } if self.rest.is_empty() => {
                // The bytes may wait for room in the output, but not for the windows.
                self.allowed(link, cx, 1)?;
                self.file_room = self.send.room().min(link.send.room());
                Err(TurnEnd::File)
            }
            Reply::File { .. } => Ok(()),
            Reply::Delayed { due: false, .. } => Err(TurnEnd::Wait),
            Reply::Delayed { says, number, head_only, .. } => {
                self.reply = Reply::Complete;
                self.write(link, cx, true, |out| {
                    routes::put_delayed(out, (says, number), head_only);
                });
                if self.state.is_answered() { Err(self.after_reply()) } else { Ok(()) }
            }
            Reply::Events { ticker, .. } => self.prepare_events(link, cx, ticker),
        }
    }

    /// Takes the events that are due. While the windows have no room, as many as fit into one frame
    /// wait; the others are left out. They end with the client's input too.
    fn prepare_events(
        &mut self,
        link: &mut Link,
        cx: &mut Context,
        mut ticker: Ticker,
    ) -> Result<(), TurnEnd> {
        if !self.has_head {
            self.write(link, cx, false, |out| routes::put_events_head(out, true));
        }
        if ticker.due_at(cx.service) <= cx.now {
            let mut events = Vec::from(std::mem::take(&mut self.rest));
            ticker.tick(cx.service, cx.now, |number| {
                let room = events.len() < PAYLOAD_LEN_MAX;
                if room {
                    news::put_event(&mut events, number);
                }
                room
            });
            self.rest = Bytes::from(events);
            self.reply = Reply::Events { ticker, head_sent: true };
        }
        let waits = self.rest.is_empty() && !self.ends_events(cx);
        if waits { Err(TurnEnd::Wait) } else { Ok(()) }
    }

    /// Bytes that are here.
    fn available(&self) -> usize {
        match (&self.tunnel, self.reply) {
            (Some(tunnel), _) => tunnel.to_send(),
            (None, Reply::Echo { .. }) => self.echo.len(),
            (None, Reply::Pattern { offset, end }) => {
                usize::try_from(end - offset).unwrap_or(usize::MAX)
            }
            (None, _) => self.rest.len(),
        }
    }

    /// Takes at most `n` of them.
    fn take(&mut self, cx: &Context, n: usize) -> Bytes {
        match (&mut self.tunnel, self.reply) {
            (Some(tunnel), _) => tunnel.take_output(n),
            (None, Reply::Echo { .. }) => self.echo.split_to(n).freeze(),
            (None, Reply::Pattern { .. }) => {
                self.reply.take_pattern(cx.service, n).unwrap_or_default()
            }
            (None, _) => self.rest.split_to(n),
        }
    }

    /// Nothing follows what was taken.
    fn is_all_taken(&self, cx: &Context) -> bool {
        if let Some(tunnel) = &self.tunnel {
            return tunnel.is_over();
        }
        self.rest.is_empty()
            && match self.reply {
                Reply::Complete => true,
                Reply::Echo { .. } => self.state.is_read() && self.echo.is_empty(),
                Reply::Pattern { offset, end } | Reply::File { offset, end, .. } => offset == end,
                Reply::Events { .. } => self.ends_events(cx),
                Reply::Delayed { .. } => false,
            }
    }

    /// How many of `wanted` bytes may be sent now: never zero.
    fn allowed(&mut self, link: &Link, cx: &Context, wanted: usize) -> Result<usize, TurnEnd> {
        let room = link::room(cx.service, cx.output);
        if room == 0 {
            return Err(TurnEnd::Again);
        }
        self.waits_for_window = self.send.room() == 0 || link.send.room() == 0;
        if self.waits_for_window {
            let of_connection = self.send.room() > 0;
            return Err(if of_connection { TurnEnd::WaitForConnection } else { TurnEnd::Wait });
        }
        self.window_until = None;
        Ok(wanted.min(self.send.room()).min(link.send.room()).min(link::data_in(room)))
    }

    fn send(&mut self, link: &mut Link, cx: &mut Context, data: Bytes, ends: bool) {
        let common = matches!(self.reply, Reply::Pattern { .. });
        link.put_data(cx.output, self.id, &mut self.send, data, (common, ends));
        if ends {
            self.step(Event::SendEnd);
            self.reply = Reply::Complete;
        }
    }

    /// The reply is sent; the rest of the request may still come. That of a WebSocket is refused.
    fn after_reply(&self) -> TurnEnd {
        let waits = self.tunnel.is_none() && self.reads_body && !self.state.is_read();
        if waits { TurnEnd::Wait } else { TurnEnd::Over }
    }
}
