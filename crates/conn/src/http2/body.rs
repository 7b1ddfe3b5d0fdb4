//! The body of a request: DATA as it comes, its length, and the windows that it uses (RFC 9113
//! sections 6.1, 6.9 and 8.1.1).

use super::error::{Code, Fault};
use super::frame;
use super::link::Link;
use super::request::TOO_LARGE;
use super::state::Event;
use super::stream::{Stream, TurnEnd};
use crate::Context;
use crate::output::Output;
use crate::routes::Reply;

impl Stream {
    pub(super) fn expects_body(&mut self, length: Option<u64>, is_read: bool) {
        self.length_left = length;
        self.reads_body = is_read;
    }

    /// Bytes of DATA whose windows are not returned yet.
    pub(super) fn unreleased(&self) -> usize {
        self.echo.len() + self.tunnel.as_ref().map_or(0, |tunnel| tunnel.unprocessed())
    }

    /// A frame of DATA begins: `len` bytes, `data_len` without padding. Section 8.1.1: a length
    /// other than the announced one is malformed.
    pub(super) fn begin_data(
        &mut self,
        len: usize,
        data_len: usize,
        ends: bool,
    ) -> Result<(), Fault> {
        self.state = self.state.after(Event::ReceiveData)?;
        self.receive.take(len).map_err(Fault::Stream)?;
        self.received += data_len as u64;
        let Some(left) = &mut self.length_left else { return Ok(()) };
        let rest = left.checked_sub(data_len as u64);
        *left = rest.filter(|&rest| !ends || rest == 0).ok_or(Fault::Stream(Code::Protocol))?;
        Ok(())
    }

    /// More came than a body may have. Also for a body that no route reads.
    pub(super) fn check_body(&mut self, link: &mut Link, cx: &mut Context) -> TurnEnd {
        let is_long = self.received > cx.service.limits.body_bytes_max;
        if !is_long || !self.reads_body || self.tunnel.is_some() {
            return TurnEnd::Wait;
        }
        self.end_body();
        let is_echo = matches!(self.reply, Reply::Echo { .. });
        if is_echo { self.refuse(link, cx, TOO_LARGE) } else { TurnEnd::Again }
    }

    /// Takes bytes of the body. Returns how many are used already.
    pub(super) fn take_body(&mut self, data: &[u8]) -> usize {
        if let Some(tunnel) = &mut self.tunnel {
            return tunnel.take_input(data);
        }
        if !self.reads_body {
            return data.len();
        }
        self.body_until = None;
        if let Reply::Echo { .. } = self.reply {
            self.echo.extend_from_slice(data);
            return 0;
        }
        data.len()
    }

    /// END_STREAM came, with DATA or trailers.
    pub(super) fn end_request(&mut self) -> Result<(), Fault> {
        self.state = self.state.after(Event::ReceiveEnd)?;
        if self.length_left.is_some_and(|left| left > 0) {
            return Err(Fault::Stream(Code::Protocol));
        }
        self.body_until = None;
        self.end_tunnel_input();
        Ok(())
    }

    /// `n` bytes of the body were used.
    pub(super) fn release(&mut self, link: &mut Link, cx: &mut Context, n: usize) {
        if n > 0 {
            link.release(cx.output, n);
            self.return_window(cx.output, n);
        }
    }

    /// The same for the window of the stream alone. It ends with the body.
    pub(super) fn return_window(&mut self, output: &mut Output, n: usize) {
        if !self.state.is_read()
            && self.reads_body
            && let Some(increment) = self.receive.release(n)
        {
            frame::put_window_update(output.tail(), self.id, increment);
        }
    }

    pub(super) fn end_tunnel_input(&mut self) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.end_input();
        }
    }

    /// The rest of the body is not read.
    pub(super) fn end_body(&mut self) {
        self.reads_body = false;
        self.body_until = None;
    }
}
