//! The bytes of requests, and the bytes that replies must have.
//!
//! No two payloads of a run are equal: every 256 bytes each has a stamp with its connection and
//! number. So a reply with bytes of an earlier message, of another connection, or of another
//! position in the message is detected.

/// The distance of stamps: small enough to detect a stale page, half of a ring buffer or a swapped
/// segment, and large enough to cost nothing.
pub(crate) const STAMP_EVERY_BYTES: usize = 256;
/// Small requests are laid side by side up to this size, so that a pipeline is sent in one send(2).
const WIRE_BYTES: usize = 64 * 1024;

/// The stamps of a payload of `len` bytes: position and bytes of each. The last may reach beyond
/// the end. A payload shorter than a stamp has the stamp's low bytes, which differ from those of
/// the message before.
pub(crate) fn stamps(
    len: usize,
    connection: u32,
    number: u64,
) -> impl Iterator<Item = (usize, [u8; 8])> {
    // An odd multiplier distributes neighbouring connections over all bytes, including the lowest.
    let tag = number.wrapping_add(u64::from(connection).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (0..len).step_by(STAMP_EVERY_BYTES).zip(0_u64..).map(move |(at, block)| {
        let tag = tag.wrapping_add(block << 40);
        (at, tag.to_le_bytes())
    })
}

fn stamp(payload: &mut [u8], connection: u32, number: u64) {
    for (at, tag) in stamps(payload.len(), connection, number) {
        let len = tag.len().min(payload.len() - at);
        payload[at..at + len].copy_from_slice(&tag[..len]);
    }
}

/// The bytes between stamps. Neighbouring positions differ, so a shifted reply is detected.
pub(crate) fn filler(len: usize) -> Vec<u8> {
    (0..len).map(|k| (k.wrapping_mul(167) >> 3) as u8 ^ k as u8).collect()
}

/// Requests of one length side by side, ready to be sent. Only numbers are filled in before.
#[derive(Debug)]
pub(crate) struct Ready {
    bytes: Vec<u8>,
    stride: usize,
    /// What is filled in now: connection, first number, requests.
    filled: Option<(u32, u64, usize)>,
}

impl Ready {
    /// Up to `depth` requests of `stride` bytes; `one` makes each.
    pub(crate) fn new(stride: usize, depth: u32, mut one: impl FnMut(&mut Vec<u8>)) -> Self {
        let copies = (WIRE_BYTES / stride.max(1)).clamp(1, depth as usize);
        let mut bytes = Vec::with_capacity(copies * stride);
        for _ in 0..copies {
            one(&mut bytes);
        }
        Ready { bytes, stride, filled: None }
    }

    pub(crate) fn request_bytes(&self) -> usize {
        self.stride
    }

    /// The bytes that `connection` sends now: the rest of request `number` from `offset` on, then
    /// following requests, at most `requests` in all. Never empty. `fill` writes the number into a
    /// request.
    pub(crate) fn outgoing(
        &mut self,
        (connection, number): (u32, u64),
        requests: u32,
        offset: usize,
        fill: impl Fn(&mut [u8], u64),
    ) -> &[u8] {
        let copies = (requests as usize).min(self.bytes.len() / self.stride);
        // A send that was short asks for the same bytes again.
        if self.filled != Some((connection, number, copies)) {
            self.filled = Some((connection, number, copies));
            let slots = self.bytes.chunks_exact_mut(self.stride).take(copies);
            for (slot, number) in slots.zip(number..) {
                fill(slot, number);
            }
        }
        &self.bytes[offset..copies * self.stride]
    }

    /// The same if all requests are equal.
    pub(crate) fn as_they_are(&self, requests: u32, offset: usize) -> &[u8] {
        let copies = (requests as usize).min(self.bytes.len() / self.stride);
        &self.bytes[offset..copies * self.stride]
    }
}

#[derive(Debug)]
pub(crate) struct Wire {
    ready: Ready,
    /// Position of the payload in a request; its end if it has none.
    payload_at: usize,
}

impl Wire {
    /// A request is `head`, then `payload_bytes` of payload; up to `depth` of them are kept ready.
    pub(crate) fn new(head: &[u8], payload_bytes: usize, depth: u32) -> Self {
        let mut one = head.to_vec();
        one.extend_from_slice(&filler(payload_bytes));
        let ready = Ready::new(one.len(), depth, |bytes| bytes.extend_from_slice(&one));
        Wire { ready, payload_at: head.len() }
    }

    pub(crate) fn request_bytes(&self) -> usize {
        self.ready.request_bytes()
    }

    pub(crate) fn outgoing(
        &mut self,
        connection: u32,
        number: u64,
        requests: u32,
        offset: usize,
    ) -> &[u8] {
        let payload_at = self.payload_at;
        if payload_at == self.ready.request_bytes() {
            return self.ready.as_they_are(requests, offset);
        }
        self.ready.outgoing((connection, number), requests, offset, |request, number| {
            stamp(&mut request[payload_at..], connection, number);
        })
    }
}

/// The payload that a message must have when it comes back.
#[derive(Debug)]
pub(crate) struct Mirror {
    bytes: Vec<u8>,
    stamped: Option<(u32, u64)>,
}

impl Mirror {
    pub(crate) fn new(len: usize) -> Self {
        Mirror { bytes: filler(len), stamped: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn payload(&mut self, connection: u32, number: u64) -> &[u8] {
        if self.stamped != Some((connection, number)) {
            stamp(&mut self.bytes, connection, number);
            self.stamped = Some((connection, number));
        }
        &self.bytes
    }
}

/// Describes the first difference between two slices of the same length. `position` is that of
/// their first byte in the body.
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
