//! Provided buffers: memory that receives are completed into (io_uring_register_buf_ring(3)).
//!
//! The program lends the buffers to the kernel in advance, by writing them into a ring. A receive
//! takes one when bytes arrive, so a connection that waits holds no memory.

use std::alloc::{self, Layout};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering::Release};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Buffers that receives may fill between two waits, and the size of each in bytes. The kernel
/// uses them in turn, so all of them pass through the cache: together they are smaller than a
/// common L2. Larger ones make large transfers cheaper, because there are fewer completions. But a
/// client that floods then goes further beyond the high-water mark, by up to 32 of them. The
/// kernel demands that their number is a power of two.
pub(super) const BUFFERS: u16 = 64;
pub(super) const BUFFER_BYTES: usize = 8 << 10;

/// The one group of buffers.
pub(super) const GROUP: u16 = 0;

/// A filled buffer. If it is not given back, the kernel has one less.
#[derive(Debug)]
#[must_use]
pub(crate) struct Buffer {
    pub(super) id: u16,
    pub(super) len: usize,
}

/// The buffers, and the ring in which they are lent: one allocation, in which the kernel writes at
/// any time. It is not freed while it is registered.
pub(super) struct ProvidedBuffers {
    entries: *mut BufRingEntry,
    data: *mut u8,
    tail: u16,
}

impl ProvidedBuffers {
    const ENTRIES_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();

    /// The entries must begin a page. The data follows them.
    const fn layout() -> Layout {
        const PAGE: usize = 4096;
        let bytes = Self::ENTRIES_BYTES + BUFFERS as usize * BUFFER_BYTES;
        match Layout::from_size_align(bytes, PAGE) {
            Ok(layout) => layout,
            Err(_) => panic!("BUFFERS and BUFFER_BYTES are too large"),
        }
    }

    /// Lends all buffers to the ring of `submitter`.
    ///
    /// # Errors
    /// What io_uring_register(2) says.
    pub(super) fn register(submitter: &Submitter) -> io::Result<ProvidedBuffers> {
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc::alloc_zeroed(Self::layout()) };
        if memory.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: within the allocation.
        let data = unsafe { memory.add(Self::ENTRIES_BYTES) };
        let mut buffers = ProvidedBuffers { entries: memory.cast(), data, tail: 0 };
        (0..BUFFERS).for_each(|id| buffers.lend(id));
        // SAFETY: `buffers` owns the memory, and frees it only after it was unregistered.
        unsafe {
            submitter.register_buf_ring_with_flags(memory as u64, BUFFERS, GROUP, 0)?;
        }
        Ok(buffers)
    }

    /// Frees the buffers, if no request is in flight and the kernel lets them go. Otherwise they
    /// leak, because the kernel may still write there.
    pub(super) fn unregister(&mut self, submitter: &Submitter) -> bool {
        let unregistered = submitter.unregister_buf_ring(GROUP).is_ok();
        if unregistered {
            // SAFETY: allocated with this layout, and the kernel has just let go of it. The owner
            // is being dropped, so it is not used again.
            unsafe { alloc::dealloc(self.entries.cast(), Self::layout()) };
        }
        unregistered
    }

    /// Lends one buffer.
    pub(super) fn lend(&mut self, id: u16) {
        let index = usize::from(self.tail % BUFFERS);
        let data = self.data.wrapping_add(usize::from(id) * BUFFER_BYTES);
        // SAFETY: `index` < BUFFERS, and an entry beyond the tail is the program's. Entry 0 holds
        // the tail in a field that the setters do not touch and that the kernel only reads.
        unsafe {
            let entry = &mut *self.entries.add(index);
            entry.set_addr(data as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is an aligned u16 inside entry 0.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        tail.store(self.tail, Release);
    }

    /// What the kernel has written into a buffer.
    pub(super) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        let len = buffer.len.min(BUFFER_BYTES);
        let data = self.data.wrapping_add(usize::from(buffer.id % BUFFERS) * BUFFER_BYTES);
        // SAFETY: within the allocation, zeroed or written by the kernel, which does not touch a
        // buffer between its completion and its return; a `Buffer` exists for exactly that time.
        unsafe { std::slice::from_raw_parts(data, len) }
    }
}
