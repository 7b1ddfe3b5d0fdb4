//! The bytes that requests carry, and the bytes that replies must carry.
//!
//! No two payloads of a run are the same: each is stamped, every 256 bytes, with its connection and
//! number. So a server that answers with bytes of an earlier message, of another connection, or of
//! another place in the message is caught.

/// A stamp stands at every multiple of this offset: often enough that a stale page, a stale half of
/// a ring buffer or a swapped segment cannot pass, seldom enough to cost nothing.
pub(crate) const STAMP_EVERY_BYTES: usize = 256;
/// Small requests are laid side by side up to this size, so that a pipeline goes out in one
/// send(2).
pub(crate) const WIRE_BYTES: usize = 64 * 1024;

/// The stamps of one payload of `len` bytes: where each begins, and its bytes. The last one may
/// reach beyond the end. A payload shorter than a stamp carries the stamp's low bytes, which differ
/// from those of the message before.
pub(crate) fn stamps(
    len: usize,
    connection: u32,
    number: u64,
) -> impl Iterator<Item = (usize, [u8; 8])> {
    // An odd multiplier spreads neighbouring connections over all bytes, the low one too.
    let tag = number.wrapping_add(u64::from(connection).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (0..len).step_by(STAMP_EVERY_BYTES).zip(0_u64..).map(move |(at, block)| {
        let tag = tag.wrapping_add(block << 40);
        (at, tag.to_le_bytes())
    })
}

/// Stamps one payload.
fn stamp(payload: &mut [u8], connection: u32, number: u64) {
    for (at, tag) in stamps(payload.len(), connection, number) {
        let len = tag.len().min(payload.len() - at);
        payload[at..at + len].copy_from_slice(&tag[..len]);
    }
}

/// What stands between the stamps: neighbouring positions differ, so a shifted reply is caught.
pub(crate) fn filler(len: usize) -> Vec<u8> {
    (0..len).map(|k| (k.wrapping_mul(167) >> 3) as u8 ^ k as u8).collect()
}

/// Requests of one kind, ready to be sent: the same bytes each time but for the stamps.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Several requests side by side.
    bytes: Vec<u8>,
    /// Length of one request.
    stride: usize,
    /// Where the payload begins in a request; `stride` if it has none.
    payload_at: usize,
    /// What is stamped at present: connection, first number, requests.
    stamped: (u32, u64, usize),
}

impl Wire {
    /// A request is `head`, then `payload_bytes` of payload; up to `depth` of them are kept ready.
    pub(crate) fn new(head: &[u8], payload_bytes: usize, depth: u32) -> Self {
        let mut one = head.to_vec();
        one.extend_from_slice(&filler(payload_bytes));
        let copies = (WIRE_BYTES / one.len().max(1)).clamp(1, depth as usize);
        Wire {
            stride: one.len(),
            payload_at: head.len(),
            bytes: one.repeat(copies),
            stamped: (0, 0, 0),
        }
    }

    /// Length of one request, in bytes.
    pub(crate) fn request_bytes(&self) -> usize {
        self.stride
    }

    /// What `connection` has to send now: the rest of request `number` from `offset` on, then as
    /// many of the following ones as lie ready, `requests` in all at most. Never empty.
    pub(crate) fn outgoing(
        &mut self,
        connection: u32,
        number: u64,
        requests: u32,
        offset: usize,
    ) -> &[u8] {
        let copies = (requests as usize).min(self.bytes.len() / self.stride);
        // A stalled send asks for the same bytes again.
        if self.payload_at < self.stride && self.stamped != (connection, number, copies) {
            self.stamped = (connection, number, copies);
            let slots = self.bytes.chunks_exact_mut(self.stride).take(copies);
            for (slot, number) in slots.zip(number..) {
                stamp(&mut slot[self.payload_at..], connection, number);
            }
        }
        &self.bytes[offset..copies * self.stride]
    }
}

/// The payload of one message as it must come back.
#[derive(Debug)]
pub(crate) struct Mirror {
    bytes: Vec<u8>,
    stamped: Option<(u32, u64)>,
}

impl Mirror {
    /// For payloads of `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        Mirror { bytes: filler(len), stamped: None }
    }

    /// Length of the payload, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole payload of message `number` of `connection`.
    pub(crate) fn payload(&mut self, connection: u32, number: u64) -> &[u8] {
        if self.stamped != Some((connection, number)) {
            stamp(&mut self.bytes, connection, number);
            self.stamped = Some((connection, number));
        }
        &self.bytes
    }
}

/// Where two slices of the same length differ first, told to a human. `position` is that of their
/// first byte in the body.
pub(crate) fn describe_difference(position: u64, found: &[u8], expected: &[u8]) -> String {
    let at = found.iter().zip(expected).position(|(found, expected)| found != expected);
    let at = at.unwrap_or_default();
    let byte = |bytes: &[u8]| bytes.get(at).copied().unwrap_or_default();
    format!(
        "byte {} of the body is 0x{:02x}, expected 0x{:02x}",
        position + at as u64,
        byte(found),
        byte(expected)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_expected_back() {
        for len in [1, 7, 8, 64, 255, 256, 257, 5_000] {
            let mut wire = Wire::new(b"head", len, 4);
            let mut mirror = Mirror::new(len);
            let sent = wire.outgoing(3, 10, 4, 0).to_vec();
            assert_eq!(sent.len() % (len + 4), 0);
            for (request, number) in sent.chunks(len + 4).zip(10..) {
                assert_eq!(&request[4..], mirror.payload(3, number), "{len} bytes");
            }
            let rest = wire.outgoing(3, 10, 4, 3).to_vec();
            assert_eq!(rest, sent[3..]);
        }
    }

    #[test]
    fn no_two_payloads_are_the_same() {
        for len in [1, 8, 64, 1_000] {
            let mut mirror = Mirror::new(len);
            let first = mirror.payload(1, 1).to_vec();
            assert_ne!(first, mirror.payload(1, 2));
            assert_ne!(first, mirror.payload(2, 1));
            assert_eq!(first, mirror.payload(1, 1));
        }
    }

    #[test]
    fn blocks_of_one_payload_cannot_be_swapped() {
        let mut mirror = Mirror::new(512);
        let payload = mirror.payload(0, 0);
        assert_ne!(payload[..8], payload[256..264]);
    }
}
