//! What all streams of a connection share when they send and receive: its windows, HPACK's table,
//! and the peer's settings.

use bytes::Bytes;

use super::frame::{self, HEAD_LEN, Kind, PAYLOAD_LEN_MAX, flag};
use super::hpack::Encoder;
use super::settings::Settings;
use super::window::{ReceiveWindow, SendWindow};
use crate::output::Output;
use crate::{Context, Service};

/// Room that one frame of the peer may need: the head of a reply, and frames of the connection.
/// Only the Location of a long path is longer.
const RESERVE_BYTES: usize = 1 << 10;

#[derive(Default)]
pub(super) struct Link {
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    pub(super) encoder: Encoder,
    pub(super) peer: Settings,
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
        let flags = |is_last| if ends && is_last { flag::END_STREAM } else { 0 };
        let first = data.split_to(data.len().min(PAYLOAD_LEN_MAX));
        let is_last = data.is_empty();
        frame::put_head(output.tail(), first.len(), Kind::Data, flags(is_last), stream);
        if common {
            output.push_common(first);
        } else {
            output.push(first);
        }
        let frames = data.len().div_ceil(PAYLOAD_LEN_MAX);
        let mut heads = Vec::with_capacity(frames * HEAD_LEN);
        for at in 1..=frames {
            let len = (data.len() - (at - 1) * PAYLOAD_LEN_MAX).min(PAYLOAD_LEN_MAX);
            frame::put_head(&mut heads, len, Kind::Data, flags(at == frames), stream);
        }
        let heads = (Bytes::from(heads), HEAD_LEN);
        output.push_parts(heads, (data, PAYLOAD_LEN_MAX), common);
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
