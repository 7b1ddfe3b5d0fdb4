//! Follows the client's frames, to know what is begun and not complete: the library reports a frame
//! only after its last byte, and a request only after its last CONTINUATION frame (RFC 9113 section
//! 6.10). Also finds malformed trailers ([`fields`]).
//!
//! [`fields`]: super::fields

use super::fields::Table;

/// Bytes of a frame's head (RFC 9113 section 4.1).
const HEAD_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The flag of the last frame of a block of fields.
const END_HEADERS: u8 = 4;
/// The flags of HEADERS for what stands before the block (RFC 9113 section 6.2): the length of the
/// padding behind the block, and five bytes of priority.
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
const PRIORITY_LEN: usize = 5;

#[derive(Debug, Default)]
pub(super) struct FrameFollower {
    /// The head of the current frame; `head_len` bytes of it have come.
    head: [u8; HEAD_LEN],
    head_len: usize,
    payload_left: usize,
    block_goes_on: bool,
    /// The payload of the current frame, if it belongs to a block of fields.
    payload: Vec<u8>,
    block: Vec<u8>,
    table: Table,
    /// The client's newest stream. HEADERS on it or on an earlier one are trailers.
    newest: u32,
    trailers: bool,
    /// Streams with malformed trailers, to be reset before the library reads them.
    malformed: Vec<u32>,
}

impl FrameFollower {
    /// Follows `all`, which begins where the last call ended, until `frames_max` frames are
    /// complete. Returns the number of bytes followed.
    pub(super) fn follow(&mut self, all: &[u8], block_max: usize, frames_max: usize) -> usize {
        let (mut input, mut frames) = (all, 0);
        while !input.is_empty() && frames < frames_max {
            if self.head_len == HEAD_LEN {
                let step = self.payload_left.min(input.len());
                // The library refuses longer ones.
                let kept = self.block.len() + self.payload.len();
                if self.is_in_fields() && kept < block_max {
                    self.payload.extend_from_slice(&input[..step]);
                }
                self.payload_left -= step;
                input = &input[step..];
            } else {
                let step = (HEAD_LEN - self.head_len).min(input.len());
                self.head[self.head_len..][..step].copy_from_slice(&input[..step]);
                self.head_len += step;
                input = &input[step..];
                if self.head_len == HEAD_LEN {
                    self.begin();
                }
            }
            if self.head_len == HEAD_LEN && self.payload_left == 0 {
                if self.is_in_fields() {
                    self.end_fields();
                }
                self.head_len = 0;
                frames += 1;
            }
        }
        all.len() - input.len()
    }

    pub(super) fn take_malformed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.malformed)
    }

    fn end_fields(&mut self) {
        let [.., kind, flags, a, b, c, d] = self.head;
        let stream = u32::from_be_bytes([a, b, c, d]) & (u32::MAX >> 1);
        let payload = std::mem::take(&mut self.payload);
        if kind == HEADERS {
            self.trailers = stream <= self.newest;
            self.newest = self.newest.max(stream);
            self.block = without_padding(&payload, flags).to_vec();
        } else {
            self.block.extend_from_slice(&payload);
        }
        if !self.block_goes_on {
            let block = std::mem::take(&mut self.block);
            if self.table.follow(&block) == Some(true) && self.trailers {
                self.malformed.push(stream);
            }
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload_left = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == HEADERS || kind == CONTINUATION {
            self.block_goes_on = flags & END_HEADERS == 0;
        }
    }

    /// The head of a request, or trailers, have begun and are not complete.
    pub(super) fn is_in_fields(&self) -> bool {
        let kind = self.head[3];
        let in_frame = self.head_len == HEAD_LEN && (kind == HEADERS || kind == CONTINUATION);
        self.block_goes_on || in_frame
    }

    pub(super) fn data_of(&self) -> Option<u32> {
        let [.., kind, _, a, b, c, d] = self.head;
        let in_frame = self.head_len == HEAD_LEN && kind == DATA;
        in_frame.then_some(u32::from_be_bytes([a, b, c, d]) & (u32::MAX >> 1))
    }
}

/// The block in the payload of HEADERS. The library checks the rest.
fn without_padding(mut payload: &[u8], flags: u8) -> &[u8] {
    let mut padding = 0;
    if flags & PADDED != 0 {
        let Some((&len, rest)) = payload.split_first() else { return payload };
        (padding, payload) = (usize::from(len), rest);
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(PRIORITY_LEN..).unwrap_or_default();
    }
    &payload[..payload.len().saturating_sub(padding)]
}
