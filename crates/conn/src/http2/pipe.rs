//! The socket that `h2` reads and writes: two queues in memory. One is lent by the connection.
//!
//! It keeps no waker. Code that changes a queue polls the connection afterwards
//! ([`Http2::advance`]); otherwise the change would never be seen.
//!
//! [`Http2::advance`]: super::Http2::advance

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::output::Output;

/// Both ends of the pipe; a clone is another handle. The lock is never contended: one thread at a
/// time works on a connection, though not always the same one.
#[derive(Clone, Debug)]
pub(super) struct Pipe(Arc<Mutex<Queues>>);

#[derive(Debug)]
struct Queues {
    /// Bytes from the peer. `h2` has read the first `read` of them. Unallocated when empty.
    input: Vec<u8>,
    read: usize,
    /// The connection's output while `h2` is polled, so that written bytes are copied once.
    output: Output,
    /// Output above which writes block, and with them all reads: so a peer that sends (PING,
    /// SETTINGS, requests) and never reads is not read for ever.
    output_max: usize,
}

impl Pipe {
    pub(super) fn new(output_max: usize) -> Pipe {
        let output = Output::default();
        Pipe(Arc::new(Mutex::new(Queues { input: Vec::new(), read: 0, output, output_max })))
    }

    /// Appends `input` to the unread bytes, and takes `output` to append writes to it.
    pub(super) fn lend(&self, input: &[u8], output: &mut Output, output_max: usize) {
        let mut queues = self.queues();
        queues.output_max = output_max;
        queues.input.extend_from_slice(input);
        queues.output = std::mem::take(output);
    }

    pub(super) fn give_back(&self, output: &mut Output) {
        *output = std::mem::take(&mut self.queues().output);
    }

    pub(super) fn has_room(&self) -> bool {
        self.queues().room() > 0
    }

    pub(super) fn is_read(&self) -> bool {
        self.queues().input.is_empty()
    }

    pub(super) fn held(&self) -> usize {
        self.queues().input.capacity()
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        // No code panics while it changes a queue.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn room(&self) -> usize {
        self.output_max.saturating_sub(self.output.len())
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut queues = self.queues();
        if queues.input.is_empty() {
            // Never the end: at the end of its input `h2` drops its output.
            return Poll::Pending;
        }
        let unread = &queues.input[queues.read..];
        let taken = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..taken]);
        queues.read += taken;
        if queues.read == queues.input.len() {
            queues.input = Vec::new();
            queues.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut queues = self.queues();
        let mut room = queues.room();
        if room == 0 {
            return Poll::Pending;
        }
        let before = room;
        for slice in slices {
            let taken = slice.len().min(room);
            queues.output.put(&slice[..taken]);
            room -= taken;
        }
        Poll::Ready(Ok(before - room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
