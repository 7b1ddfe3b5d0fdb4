//! What all streams of a connection share when they send and receive: its windows, HPACK's table,
//! and the peer's settings.

use bytes::Bytes;

use super::frame::{self, HEAD_LEN, Kind, PAYLOAD_LEN_MAX, flag};
use super::hpack::Encoder;
use super::settings::Settings;
use super::window::{self, ReceiveWindow, SendWindow};
use crate::output::Output;
use crate::{Context, Service};

/// Room that one frame of the peer may need: the head of a reply, and frames of the connection.
/// Only the Location of a long path is longer.
const RESERVE_BYTES: usize = 1 << 10;

pub(super) struct Link {
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    pub(super) encoder: Encoder,
    pub(super) peer: Settings,
}

impl Default for Link {
    fn default() -> Link {
        Link {
            send: SendWindow::new(window::INITIAL),
            receive: ReceiveWindow::default(),
            encoder: Encoder::default(),
            peer: Settings::default(),
        }
    }
}

impl Link {
    /// Queues `data` without copying it, in frames. The windows must have room for it. `common`:
    /// connections share the bytes.
    pub(super) fn put_data(
        &mut self,
        output: &mut Output,
        stream: u32,
        window: &mut SendWindow,
        mut data: Bytes,
        (common, ends): (bool, bool),
    ) {
        window.take(data.len());
        self.send.take(data.len());
        loop {
            let part = data.split_to(data.len().min(PAYLOAD_LEN_MAX));
            let flags = if ends && data.is_empty() { flag::END_STREAM } else { 0 };
            frame::put_head(output.tail(), part.len(), Kind::Data, flags, stream);
            if common {
                output.push_common(part);
            } else {
                output.push(part);
            }
            if data.is_empty() {
                return;
            }
        }
    }

    /// `n` bytes of DATA were used, or dropped.
    pub(super) fn release(&mut self, output: &mut Output, n: usize) {
        if let Some(increment) = self.receive.release(n) {
            frame::put_window_update(output.tail(), 0, increment);
        }
    }
}

/// Bytes that may be added to the output; 0: nothing is read or produced before some are sent.
pub(super) fn room(service: &Service, output: &Output) -> usize {
    let left = service.output_high_water_bytes().saturating_sub(output.len());
    if left >= RESERVE_BYTES || output.is_empty() { left.max(HEAD_LEN + 1) } else { 0 }
}

pub(super) fn has_room(cx: &Context) -> bool {
    room(cx.service, cx.output) > 0
}

/// Bytes of DATA for which `room` has room, with the heads of their frames.
pub(super) fn data_in(room: usize) -> usize {
    room - HEAD_LEN * (room / PAYLOAD_LEN_MAX + 1)
}
