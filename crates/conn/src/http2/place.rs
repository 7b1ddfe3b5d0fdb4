//! How far the client's frames have come: what is begun and not complete, because the library says
//! nothing of a frame before its last byte, and of a request nothing before the last of its
//! CONTINUATION frames (RFC 9113 section 6.10). And which trailers are malformed ([`fields`]).
//!
//! [`fields`]: super::fields

use super::fields::Table;

/// Bytes of a frame before its payload (RFC 9113 section 4.1).
const HEAD_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The flag by which a block of fields is complete.
const END_HEADERS: u8 = 4;
/// The flags of what stands in HEADERS before the block: a length, and five bytes of priority; as
/// much padding as that length says comes after it (RFC 9113 section 6.2).
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
const PRIORITY_LEN: usize = 5;

/// A place in the sequence of frames.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The head of the frame that has begun; `head_len` bytes of it have come.
    head: [u8; HEAD_LEN],
    head_len: usize,
    /// Bytes of its payload that are still to come.
    payload_left: usize,
    /// A block of fields goes on in the next frame.
    block_goes_on: bool,
    /// What has come of the frame's payload, where it is part of a block of fields.
    payload: Vec<u8>,
    /// What has come of the block in frames before this one.
    block: Vec<u8>,
    table: Table,
    /// The newest stream of the client's: HEADERS on it or on one before it are trailers.
    newest: u32,
    /// Its block is that of trailers.
    trailers: bool,
    /// Streams whose trailers are malformed, to be reset before the library reads them.
    malformed: Vec<u32>,
}

impl Place {
    /// Goes on by `all`, which begins where the last one ended, until `frames_max` frames are
    /// complete. Returns how far it came.
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

    /// Streams whose trailers are malformed, since the last call.
    pub(super) fn take_malformed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.malformed)
    }

    /// A frame that is part of a block of fields is complete.
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

    /// A head of a frame is complete.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload_left = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == HEADERS || kind == CONTINUATION {
            self.block_goes_on = flags & END_HEADERS == 0;
        }
    }

    /// A head of a request, or trailers, is begun and not complete.
    pub(super) fn is_in_fields(&self) -> bool {
        let kind = self.head[3];
        let in_frame = self.head_len == HEAD_LEN && (kind == HEADERS || kind == CONTINUATION);
        self.block_goes_on || in_frame
    }

    /// The stream of a DATA frame of which something has come, and not all.
    pub(super) fn data_of(&self) -> Option<u32> {
        let [.., kind, _, a, b, c, d] = self.head;
        let in_frame = self.head_len == HEAD_LEN && kind == DATA;
        in_frame.then_some(u32::from_be_bytes([a, b, c, d]) & (u32::MAX >> 1))
    }
}

/// The block in the payload of HEADERS. What is wrong with it is for the library to say.
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
