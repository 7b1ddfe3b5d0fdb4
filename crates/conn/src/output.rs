//! The output queue of one connection.
//!
//! Small writes are collected in a tail buffer, so that all replies to one read leave in one
//! send(2); with pipelining this matters more than the I/O model. Large bodies are queued as
//! reference-counted handles and not copied. Readiness models borrow the queue and completion
//! models take handles of it; both report partial sends in the same way.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Bodies up to this size are copied behind their head: a memcpy of 4 KiB (about 100 ns) costs less
/// than a second iovec and a second reference count.
const COALESCE_BYTES_MAX: usize = 4 << 10;

/// First capacity of the tail: a head with a small body fits.
const TAIL_BYTES_MIN: usize = 512;

/// Bytes to be sent to the peer. Owns no memory while it is empty.
#[derive(Debug, Default)]
pub(crate) struct Output {
    queue: VecDeque<Chunk>,
    /// Small writes are appended here. Follows `queue`.
    tail: Vec<u8>,
    /// Bytes of `tail` already sent. Zero unless `queue` is empty.
    tail_sent: usize,
    queue_len: usize,
    /// Bytes of memory that only this connection's chunks keep allocated.
    own_bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// Bytes of memory that stay allocated until the whole chunk is sent. 0 if other connections
    /// share them.
    own_bytes: usize,
}

impl Output {
    pub(crate) fn len(&self) -> usize {
        self.queue_len + self.tail.len() - self.tail_sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.tail().extend_from_slice(bytes);
    }

    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.capacity() == 0 {
            self.tail.reserve(TAIL_BYTES_MIN);
        }
        // A peer that is always a little behind never empties the tail, so sent bytes must be
        // removed sometimes. Half of the tail at a time, so that each byte is moved once.
        if self.tail_sent >= TAIL_BYTES_MIN && self.tail_sent * 2 >= self.tail.len() {
            self.tail.drain(..self.tail_sent);
            self.tail_sent = 0;
        }
        &mut self.tail
    }

    /// Appends `bytes` without copying, unless they are few.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        let own_bytes = bytes.len();
        self.push_chunk(bytes, own_bytes);
    }

    /// The same for bytes that connections share.
    pub(crate) fn push_common(&mut self, bytes: Bytes) {
        self.push_chunk(bytes, 0);
    }

    fn push_chunk(&mut self, bytes: Bytes, own_bytes: usize) {
        if bytes.len() <= COALESCE_BYTES_MAX {
            return self.put(&bytes);
        }
        self.freeze_tail();
        self.queue_chunk(bytes, own_bytes);
    }

    /// Appends `data` in parts of `part_len` bytes, each behind its head of `head_len` bytes.
    /// Nothing is copied. The heads are one allocation; each in a tail of its own would be two.
    /// `common`: connections share `data`.
    pub(crate) fn push_parts(
        &mut self,
        (mut heads, head_len): (Bytes, usize),
        (mut data, part_len): (Bytes, usize),
        common: bool,
    ) {
        self.freeze_tail();
        let mut own_heads = heads.len();
        while !data.is_empty() {
            let part = data.split_to(part_len.min(data.len()));
            // All heads stay allocated until the last is sent, so that one holds them.
            let own = if data.is_empty() { std::mem::take(&mut own_heads) } else { 0 };
            self.queue_chunk(heads.split_to(head_len.min(heads.len())), own);
            let own = if common { 0 } else { part.len() };
            self.queue_chunk(part, own);
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.own_bytes + self.tail.capacity()
    }

    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = &self.tail[self.tail_sent..];
        let all = self
            .queue
            .iter()
            .map(|chunk| &chunk.bytes[..])
            .chain((!tail.is_empty()).then_some(tail));
        let mut filled = 0;
        for (slot, chunk) in slices.iter_mut().zip(all) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    pub(crate) fn chunks(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.freeze_tail();
        self.queue.iter().map(|chunk| chunk.bytes.clone())
    }

    /// Removes the first `n` bytes. A larger `n` is a fault of the driver and counts as the whole
    /// output, because the peer has received it in any case.
    pub(crate) fn sent(&mut self, n: usize) {
        debug_assert!(n <= self.len(), "sent {n} of {} bytes", self.len());
        let mut left = n;
        while left > 0 {
            let Some(front) = self.queue.front_mut() else { break };
            let step = left.min(front.bytes.len());
            left -= step;
            self.queue_len -= step;
            if step == front.bytes.len() {
                self.own_bytes -= front.own_bytes;
                self.queue.pop_front();
            } else {
                front.bytes.advance(step);
            }
        }
        self.tail_sent = (self.tail_sent + left).min(self.tail.len());
        if self.is_empty() {
            *self = Output::default();
        }
    }

    fn freeze_tail(&mut self) {
        if self.tail.len() > self.tail_sent {
            let own_bytes = self.tail.capacity();
            let mut chunk = Bytes::from(std::mem::take(&mut self.tail));
            chunk.advance(self.tail_sent);
            self.queue_chunk(chunk, own_bytes);
        }
        self.tail.clear();
        self.tail_sent = 0;
    }

    fn queue_chunk(&mut self, bytes: Bytes, own_bytes: usize) {
        self.queue_len += bytes.len();
        self.own_bytes += own_bytes;
        self.queue.push_back(Chunk { bytes, own_bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handle keeps the whole allocation, with its spare capacity and the bytes already sent.
    #[test]
    fn a_chunk_holds_its_block_until_all_of_it_is_sent() {
        let mut output = Output::default();
        output.put(&[0; 5000]);
        output.put(&[0; 10]);
        let reserved = output.tail.capacity();
        assert!(reserved > 5010, "{reserved}");
        assert_eq!(output.chunks().count(), 1);
        output.sent(5000);
        assert_eq!(output.held(), reserved);
        output.push_common(Bytes::from_static(&[0; 5000]));
        output.sent(10);
        assert_eq!((output.len(), output.held()), (5000, 0));
    }

    #[test]
    fn what_is_sent_is_not_kept_for_a_peer_that_is_always_behind() {
        let mut output = Output::default();
        output.put(&[0; 100]);
        for round in 0..10_000u32 {
            output.put(&round.to_be_bytes().repeat(25));
            output.sent(100);
            assert!(output.tail.capacity() < 4 << 10, "{} bytes", output.tail.capacity());
        }
        let mut slices = [IoSlice::new(&[])];
        assert_eq!(output.slices(&mut slices), 1);
        assert_eq!(*slices[0], *9_999u32.to_be_bytes().repeat(25));
    }
}
