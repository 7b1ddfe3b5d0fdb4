//! The two queues shared with the kernel, and the memory lent to it: the only `unsafe` here.
//!
//! A system call borrows its buffer until it returns. An operation of io_uring borrows it until its
//! completion is read, which may be never if nobody looks; so memory does not stay with the
//! connection that asked for the operation but moves into [`Ring`], and comes back out with the
//! completion. A ring that is dropped too early leaks what it has lent, because the kernel may
//! still write there.
//!
//! Man pages: io_uring(7), io_uring_enter(2), io_uring_register(2), io_uring_prep_recv(3),
//! io_uring_register_buf_ring(3), io_uring_prep_msg_ring(3).

use std::alloc::{self, Layout};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering::Release};
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};
use kit::SLICES_MAX;
use slab::Slab;

use crate::mail::Letter;

#[cfg(test)]
mod tests;

/// Buffers that receives may fill between two looks at the completions, and the size of each.
/// The kernel takes them in turn, so all of them pass through the cache: together they are kept
/// within a common L2. Larger ones make bulk input cheaper (fewer completions), and let a peer that
/// floods run further past the high-water mark (at most 32 of them in one go). A power of two of
/// them, as the kernel demands.
const BUFFERS: u16 = 64;
const BUFFER_BYTES: usize = 8 << 10;

/// The one group of buffers.
const GROUP: u16 = 0;

/// `IORING_RECVSEND_POLL_FIRST` (linux/io_uring.h): wait for bytes before the first attempt to
/// receive. Only for a socket that is thought empty; one that is not is found ready at once.
const POLL_FIRST: u16 = 1;

/// Whether one request to receive brings one completion or many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Receive {
    OneShot,
    #[default]
    Multishot,
}

/// Names a connection to the kernel and back. The generation tells a slot's tenants apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) slot: u32,
    /// 24 bits.
    pub(crate) generation: u32,
}

/// Generations are counted modulo this.
pub(crate) const GENERATIONS: u32 = 1 << 24;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    Accept,
    Stop,
    Receive,
    Send,
    ReadFile,
    /// A message to another ring.
    Tell,
    /// A message from another ring: asked for by nobody here.
    Rung,
    /// Cancel or close: nobody waits for the answer.
    Quiet,
}

/// What was done.
#[derive(Debug)]
pub(crate) enum Completion {
    /// A connection, or why none; `more`: the same request will bring others.
    Accepted { result: io::Result<OwnedFd>, more: bool },
    /// Bytes, `None` at the end of the stream; `more`: the same request will bring others;
    /// `emptied`: no bytes were left in the socket.
    Received { token: Token, result: io::Result<Option<Buffer>>, more: bool, emptied: bool },
    /// So many bytes of what was lent.
    Sent { token: Token, result: io::Result<usize> },
    /// Bytes of a file; none at its end.
    FileRead { token: Token, result: io::Result<Bytes> },
    /// Another loop has something for this connection.
    Rung { token: Token },
    /// A message that the other ring had no memory for: to be sent again.
    Undelivered { letter: Letter },
    /// The descriptor given to [`Ring::watch`] is readable.
    Stop,
}

/// A filled buffer; to be given back, or the kernel has one less for good.
#[derive(Debug)]
#[must_use]
pub(crate) struct Buffer {
    id: u16,
    len: usize,
}

/// The submission queue, the completion queue, and all memory that the kernel may touch.
pub(crate) struct Ring<'a> {
    /// Kept for the ring's life: it alone knows the number under which the ring is registered.
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    completions: CompletionQueue<'a>,
    /// What the submission queue had no room for.
    backlog: VecDeque<squeue::Entry>,
    buffers: Buffers,
    /// By slot.
    lent: Vec<Lent>,
    /// Messages in flight.
    told: Slab<Letter>,
    in_flight: usize,
}

/// What one connection has lent to the kernel.
#[derive(Debug, Default)]
struct Lent {
    sending: Option<Sending>,
    reading: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Sending {
    One(Bytes),
    Many(Box<Message>),
}

/// The argument of sendmsg(2). Boxed, because the header points to the slices beside it.
#[derive(Debug)]
struct Message {
    header: libc::msghdr,
    slices: [libc::iovec; SLICES_MAX],
    chunks: Vec<Bytes>,
}

impl<'a> Ring<'a> {
    /// Takes a fresh ring and lends it the receive buffers.
    ///
    /// # Errors
    /// What io_uring_register(2) says.
    pub(crate) fn new(uring: &'a mut IoUring) -> io::Result<Ring<'a>> {
        let (mut submitter, submissions, completions) = uring.split();
        // Spares the kernel the look-up of the ring's descriptor at every enter (5.18).
        submitter.register_ring_fd()?;
        let buffers = Buffers::new()?;
        // SAFETY: the memory belongs to `buffers`, which lives in the same `Ring` and is freed only
        // after it was unregistered.
        unsafe {
            submitter.register_buf_ring_with_flags(buffers.entries as u64, BUFFERS, GROUP, 0)?;
        }
        Ok(Ring {
            submitter,
            submissions,
            completions,
            backlog: VecDeque::new(),
            buffers,
            lent: Vec::new(),
            told: Slab::new(),
            in_flight: 0,
        })
    }

    /// True when no completion is owed.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Hands over what was asked for, and sleeps until something is done: the one system call.
    ///
    /// # Errors
    /// What io_uring_enter(2) says and no retry can mend.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
        self.submissions.sync();
        // Says how far completions were read: those unread would end the wait at once.
        self.completions.sync();
        // One is enough to go on with. More would save calls, and make the first wait for a second
        // that may never come; under load a call brings a batch anyway.
        let want = usize::from(self.backlog.is_empty());
        let entered = match timeout {
            None => self.submitter.submit_and_wait(want),
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                self.submitter.submit_with_args(want, &SubmitArgs::new().timespec(&timeout))
            }
        };
        self.submissions.sync();
        self.completions.sync();
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            // ETIME: the timeout. EINTR: stopped and continued from the terminal. EBUSY, EAGAIN:
            // completions must be read before more can be submitted, and they are read next.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {
                Ok(())
            }
            Err((_, error)) => Err(error),
        }
    }

    /// The next thing that was done.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.completions.next()?;
            let Some((op, token)) = unpack(entry.user_data()) else { continue };
            if op == Op::Rung {
                return Some(Completion::Rung { token });
            }
            if op == Op::Quiet {
                continue;
            }
            let more = cqueue::more(entry.flags());
            if !more {
                self.in_flight -= 1;
            }
            if op == Op::Tell {
                match self.told(token, entry.result()) {
                    None => continue,
                    Some(letter) => return Some(Completion::Undelivered { letter }),
                }
            }
            return Some(self.completion(op, token, &entry, more));
        }
    }

    fn completion(
        &mut self,
        op: Op,
        token: Token,
        entry: &cqueue::Entry,
        more: bool,
    ) -> Completion {
        let result = match entry.result() {
            n @ 0.. => Ok(n as usize),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        };
        match op {
            Op::Accept => Completion::Accepted {
                // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                result: result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }),
                more,
            },
            Op::Receive => {
                let result = self.received(entry, result);
                let emptied = !cqueue::sock_nonempty(entry.flags());
                Completion::Received { token, result, more, emptied }
            }
            Op::Send => {
                self.lent_by(token).sending = None;
                Completion::Sent { token, result }
            }
            Op::ReadFile => {
                let memory = self.lent_by(token).reading.take().unwrap_or_default();
                Completion::FileRead { token, result: result.map(|n| filled(memory, n)) }
            }
            Op::Stop | Op::Tell | Op::Rung | Op::Quiet => Completion::Stop,
        }
    }

    /// What became of a message; a letter that is to be sent again.
    fn told(&mut self, token: Token, result: i32) -> Option<Letter> {
        let letter = self.told.try_remove(token.slot as usize)?;
        match -result {
            // The other ring's queue is full, and there was no memory for more of it.
            libc::EOVERFLOW | libc::ENOMEM | libc::EAGAIN => Some(letter),
            // It has arrived; or the other loop has ended (EOWNERDEAD, EBADFD), and its connections
            // with it.
            _ => None,
        }
    }

    /// The buffer of a receive. One that brings no bytes (end of stream, error) goes back at once.
    fn received(
        &mut self,
        entry: &cqueue::Entry,
        result: io::Result<usize>,
    ) -> io::Result<Option<Buffer>> {
        let id = cqueue::buffer_select(entry.flags());
        match (result, id) {
            (Ok(len @ 1..), Some(id)) => Ok(Some(Buffer { id, len })),
            (result, id) => {
                id.into_iter().for_each(|id| self.buffers.lend(id));
                result.map(|_| None)
            }
        }
    }

    /// What was received.
    pub(crate) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.buffers.bytes(buffer)
    }

    /// Lends a buffer to the kernel again.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        self.buffers.lend(buffer.id);
    }

    /// Takes back what was received for nobody.
    pub(crate) fn discard(&mut self, received: io::Result<Option<Buffer>>) {
        received.into_iter().flatten().for_each(|buffer| self.give_back(buffer));
    }

    /// Asks for all connections to come: one request, a completion for each.
    pub(crate) fn accept(&mut self, listener: BorrowedFd<'_>) {
        let entry = opcode::AcceptMulti::new(fd(listener)).flags(libc::SOCK_CLOEXEC).build();
        self.submit(entry, Op::Accept, NOBODY);
    }

    /// Asks to be told, once, when `event` is readable.
    pub(crate) fn watch(&mut self, event: BorrowedFd<'_>) {
        let entry = opcode::PollAdd::new(fd(event), libc::POLLIN as u32).build();
        self.submit(entry, Op::Stop, NOBODY);
    }

    /// Asks for bytes, into a buffer that the kernel takes when it has some: a connection that
    /// waits holds no memory. `empty`: the socket is thought to be.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        token: Token,
        how: Receive,
        empty: bool,
    ) {
        let entry = match how {
            Receive::Multishot => opcode::RecvMulti::new(fd(socket), GROUP).build(),
            Receive::OneShot => {
                let len = BUFFER_BYTES as u32;
                opcode::Recv::new(fd(socket), std::ptr::null_mut(), len)
                    .buf_group(GROUP)
                    .ioprio(if empty { POLL_FIRST } else { 0 })
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
        };
        self.submit(entry, Op::Receive, token);
    }

    /// Sends what it can of `chunks`. One send per connection: a second would overtake the first.
    ///
    /// # Panics
    /// If one is in flight.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        token: Token,
        mut chunks: impl Iterator<Item = Bytes>,
    ) {
        let Some(first) = chunks.next() else { return };
        let sending = match chunks.next() {
            None => Sending::One(first),
            Some(second) => {
                let rest = chunks.take(SLICES_MAX - 2);
                Sending::Many(Message::new([first, second].into_iter().chain(rest).collect()))
            }
        };
        // No MSG_WAITALL: the connection is to know what has left, or a slow reader of a large
        // reply would look like one who reads nothing.
        let entry = match &sending {
            Sending::One(bytes) => {
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                opcode::Send::new(fd(socket), bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build()
            }
            Sending::Many(message) => opcode::SendMsg::new(fd(socket), &raw const message.header)
                .flags(libc::MSG_NOSIGNAL as u32)
                .build(),
        };
        let lent = &mut self.lent_by(token).sending;
        assert!(lent.is_none(), "two sends in flight on one connection");
        *lent = Some(sending);
        self.submit(entry, Op::Send, token);
    }

    /// Reads a part of a file into fresh memory.
    ///
    /// # Panics
    /// If a read for this connection is in flight.
    pub(crate) fn read_file(&mut self, file: &File, token: Token, offset: u64, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let mut memory = Vec::with_capacity(len as usize);
        let entry = opcode::Read::new(Fd(file.as_raw_fd()), memory.as_mut_ptr(), len);
        let lent = &mut self.lent_by(token).reading;
        assert!(lent.is_none(), "two file reads in flight for one connection");
        *lent = Some(memory);
        self.submit(entry.offset(offset).build(), Op::ReadFile, token);
    }

    /// Tells another loop that somebody is rung for.
    pub(crate) fn tell(&mut self, letter: Letter) {
        let entry = opcode::MsgRingData::new(fd(letter.as_fd()), 0, letter.name, None).build();
        // Keeps the other ring open until the completion is read.
        let slot = self.told.insert(letter) as u32;
        self.submit(entry, Op::Tell, Token { slot, generation: 0 });
    }

    /// Ends an operation early. Its completion still comes, with ECANCELED or with what it did.
    /// By name and not by descriptor, which would walk the list of all that is in flight.
    pub(crate) fn cancel(&mut self, op: Op, token: Token) {
        let entry = opcode::AsyncCancel::new(pack(op, token)).build();
        self.submit_quietly(entry);
    }

    /// Ends accepting.
    pub(crate) fn cancel_accept(&mut self) {
        self.cancel(Op::Accept, NOBODY);
    }

    /// Closes a socket, in the order of submission.
    pub(crate) fn close(&mut self, socket: OwnedFd) {
        let entry = opcode::Close::new(Fd(socket.into_raw_fd())).build();
        self.submit_quietly(entry);
    }

    fn submit_quietly(&mut self, entry: squeue::Entry) {
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(pack(Op::Quiet, NOBODY)));
    }

    fn submit(&mut self, entry: squeue::Entry, op: Op, token: Token) {
        self.in_flight += 1;
        self.push(entry.user_data(pack(op, token)));
    }

    fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            self.backlog.push_back(entry);
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: all memory that an entry names belongs to `self.lent` or `self.buffers`, where it
        // stays until the completion is read; Drop leaks it if that never happened.
        unsafe { self.submissions.push(entry) }.is_ok()
    }

    fn lent_by(&mut self, token: Token) -> &mut Lent {
        let slot = token.slot as usize;
        if self.lent.len() <= slot {
            self.lent.resize_with(slot + 1, Lent::default);
        }
        &mut self.lent[slot]
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        if self.is_idle() && self.submitter.unregister_buf_ring(GROUP).is_ok() {
            self.buffers.free();
        } else {
            // The loop has failed. The kernel still has these addresses.
            std::mem::forget(std::mem::take(&mut self.lent));
        }
    }
}

/// The receive buffers, and the ring in which they are offered: one allocation, in which the
/// kernel writes at any time. It is never freed while it is registered.
struct Buffers {
    entries: *mut BufRingEntry,
    data: *mut u8,
    tail: u16,
}

impl Buffers {
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

    fn new() -> io::Result<Buffers> {
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc::alloc_zeroed(Buffers::layout()) };
        if memory.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: within the allocation.
        let data = unsafe { memory.add(Self::ENTRIES_BYTES) };
        let mut buffers = Buffers { entries: memory.cast(), data, tail: 0 };
        (0..BUFFERS).for_each(|id| buffers.lend(id));
        Ok(buffers)
    }

    fn lend(&mut self, id: u16) {
        let index = usize::from(self.tail % BUFFERS);
        let data = self.data.wrapping_add(usize::from(id) * BUFFER_BYTES);
        // SAFETY: `index` < BUFFERS, and an entry beyond the tail is ours. Entry 0 holds the tail
        // in a field that the setters leave alone and that the kernel only reads.
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

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        let len = buffer.len.min(BUFFER_BYTES);
        let data = self.data.wrapping_add(usize::from(buffer.id % BUFFERS) * BUFFER_BYTES);
        // SAFETY: within the allocation, zeroed or written by the kernel, which does not touch a
        // buffer between its completion and its return; a `Buffer` exists just so long.
        unsafe { std::slice::from_raw_parts(data, len) }
    }

    /// To be called once, when the kernel has let go of the buffers.
    fn free(&mut self) {
        // SAFETY: allocated with this layout, unregistered by the caller, and not used again.
        unsafe { alloc::dealloc(self.entries.cast(), Buffers::layout()) };
    }
}

impl Message {
    fn new(chunks: Vec<Bytes>) -> Box<Message> {
        let mut slices = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SLICES_MAX];
        for (slice, chunk) in slices.iter_mut().zip(&chunks) {
            *slice =
                libc::iovec { iov_base: chunk.as_ptr().cast_mut().cast(), iov_len: chunk.len() };
        }
        // SAFETY: a header of zeros is a valid one: no name, no slices, no control data.
        let header = unsafe { std::mem::zeroed::<libc::msghdr>() };
        let mut message = Box::new(Message { header, slices, chunks });
        message.header.msg_iov = message.slices.as_mut_ptr();
        message.header.msg_iovlen = message.chunks.len().min(SLICES_MAX);
        message
    }
}

/// The part of `memory` that the kernel has written.
fn filled(mut memory: Vec<u8>, n: usize) -> Bytes {
    // SAFETY: a read writes `n` bytes from the front, and no more than the capacity it was given.
    unsafe { memory.set_len(n.min(memory.capacity())) };
    Bytes::from(memory)
}

/// For operations that belong to no connection.
const NOBODY: Token = Token { slot: 0, generation: 0 };

/// The 64 bits that the kernel hands back: operation 8, slot 32, generation 24.
pub(crate) fn pack(op: Op, token: Token) -> u64 {
    op as u64 | u64::from(token.slot) << 8 | u64::from(token.generation) << 40
}

pub(crate) fn unpack(user_data: u64) -> Option<(Op, Token)> {
    const OPS: [Op; 8] =
        [Op::Accept, Op::Stop, Op::Receive, Op::Send, Op::ReadFile, Op::Tell, Op::Rung, Op::Quiet];
    let op = *OPS.get((user_data & 0xff) as usize)?;
    let token = Token { slot: (user_data >> 8) as u32, generation: (user_data >> 40) as u32 };
    Some((op, token))
}

fn fd(descriptor: BorrowedFd<'_>) -> Fd {
    Fd(descriptor.as_raw_fd())
}
