//! How far the client's frames have come: what is begun and not complete. Only heads of frames are
//! looked at, because the library says nothing of a frame before its last byte, and of a request
//! nothing before the last of its CONTINUATION frames (RFC 9113 section 6.10).

/// Bytes of a frame before its payload (RFC 9113 section 4.1).
const HEAD_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The flag by which a block of fields is complete.
const END_HEADERS: u8 = 4;

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
}

impl Place {
    /// Goes on by `input`, which begins where the last one ended.
    pub(super) fn follow(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
            if self.head_len == HEAD_LEN {
                let step = self.payload_left.min(input.len());
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
                self.head_len = 0;
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
