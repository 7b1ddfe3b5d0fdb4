//! The two queues that the program shares with the kernel, and the memory that it lends: all
//! `unsafe` of this crate is here and in `ring/provided_buffers.rs`.
//!
//! A system call uses its buffer until it returns. A request of io_uring uses it until its
//! completion is read. So the memory of a request does not stay with the connection that asked for
//! it. It moves into [`Ring`], and comes back with the completion. A ring that is dropped too
//! early leaks what it has lent, because the kernel may still write there.
//!
//! Man pages: io_uring(7), io_uring_enter(2).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, squeue};
use kit::SLICES_MAX;
use slab::Slab;

use crate::msg_ring::WakeUp;

mod cqe;
mod provided_buffers;
mod sqe;
#[cfg(test)]
mod tests;

pub(crate) use cqe::{Completion, GENERATIONS, Op, Token, pack, unpack};
pub(crate) use provided_buffers::Buffer;
use provided_buffers::ProvidedBuffers;

/// Whether one request to receive brings one completion or many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Receive {
    OneShot,
    #[default]
    Multishot,
}

/// For requests that belong to no connection.
const NO_CONNECTION: Token = Token { slot: 0, generation: 0 };

/// The submission queue, the completion queue, and all memory that the kernel may use.
pub(crate) struct Ring<'a> {
    /// It knows the number under which the ring is registered, so it is kept as long as the ring.
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    completions: CompletionQueue<'a>,
    /// Requests for which the submission queue had no room.
    backlog: VecDeque<squeue::Entry>,
    buffers: ProvidedBuffers,
    /// By slot of the connection.
    lent: Vec<Lent>,
    /// Messages in flight to other rings.
    messages: Slab<WakeUp>,
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
    Many(Box<SendMsg>),
}

/// The argument of sendmsg(2). Boxed, because the header points to the slices beside it.
#[derive(Debug)]
struct SendMsg {
    header: libc::msghdr,
    slices: [libc::iovec; SLICES_MAX],
    chunks: Vec<Bytes>,
}

impl<'a> Ring<'a> {
    /// Takes a new ring and lends it the buffers for receives.
    ///
    /// # Errors
    /// What io_uring_register(2) says.
    pub(crate) fn new(uring: &'a mut IoUring) -> io::Result<Ring<'a>> {
        let (mut submitter, submissions, completions) = uring.split();
        // The kernel then need not look up the ring's descriptor at every enter (Linux 5.18).
        submitter.register_ring_fd()?;
        let buffers = ProvidedBuffers::register(&submitter)?;
        Ok(Ring {
            submitter,
            submissions,
            completions,
            backlog: VecDeque::new(),
            buffers,
            lent: Vec::new(),
            messages: Slab::new(),
            in_flight: 0,
        })
    }

    /// True when no completion is to come.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// io_uring_enter(2): hands over the requests, and sleeps until one is completed.
    ///
    /// # Errors
    /// What io_uring_enter(2) says, if it would say it again.
    pub(crate) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
        self.submissions.sync();
        // Tells the kernel which completions were read: the others would end the wait at once.
        self.completions.sync();
        // Waits for one completion. To wait for more would save calls, but the first would wait
        // for a second that may never come. Under load a call brings many in any case.
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
            // ETIME: the timeout. EINTR: a signal. EBUSY, EAGAIN: completions must be read before
            // more can be submitted, and they are read next.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {
                Ok(())
            }
            Err((_, error)) => Err(error),
        }
    }

    /// The next completion.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.completions.next()?;
            let Some((op, token)) = unpack(entry.user_data()) else { continue };
            if op == Op::WakeUp {
                return Some(Completion::WokenUp { token });
            }
            if op == Op::Quiet {
                continue;
            }
            let more = cqueue::more(entry.flags());
            if !more {
                self.in_flight -= 1;
            }
            if op == Op::MsgRing {
                match self.delivered(token, entry.result()) {
                    None => continue,
                    Some(wake_up) => return Some(Completion::Undelivered { wake_up }),
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
                // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
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
            Op::Stop | Op::MsgRing | Op::WakeUp | Op::Quiet => Completion::Stop,
        }
    }

    /// A message has arrived in the other ring; or it is returned, to be sent again.
    fn delivered(&mut self, token: Token, result: i32) -> Option<WakeUp> {
        let wake_up = self.messages.try_remove(token.slot as usize)?;
        match -result {
            // The other ring's queue is full, and there was no memory for more of it.
            libc::EOVERFLOW | libc::ENOMEM | libc::EAGAIN => Some(wake_up),
            // It has arrived; or the other loop has ended (EOWNERDEAD, EBADFD), and its
            // connections too.
            _ => None,
        }
    }

    /// The buffer of a receive. Without bytes (end of stream, error) it is lent again at once.
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

    /// Takes back what was received for a connection that has ended.
    pub(crate) fn discard(&mut self, received: io::Result<Option<Buffer>>) {
        received.into_iter().flatten().for_each(|buffer| self.give_back(buffer));
    }

    /// Accepts until it is cancelled.
    pub(crate) fn accept(&mut self, listener: BorrowedFd<'_>) {
        self.submit(sqe::multishot_accept(listener), Op::Accept, NO_CONNECTION);
    }

    /// Reports the stop, once, when `event` is readable.
    pub(crate) fn watch(&mut self, event: BorrowedFd<'_>) {
        self.submit(sqe::poll_add(event), Op::Stop, NO_CONNECTION);
    }

    /// Receives into a provided buffer. `empty`: the socket is thought to be.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        token: Token,
        how: Receive,
        empty: bool,
    ) {
        let entry = match how {
            Receive::Multishot => sqe::recv_multishot(socket),
            Receive::OneShot => sqe::recv(socket, empty),
        };
        self.submit(entry, Op::Receive, token);
    }

    /// Sends some of `chunks`. A connection has one send in flight at most: a second could
    /// overtake the first.
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
                Sending::Many(SendMsg::new([first, second].into_iter().chain(rest).collect()))
            }
        };
        let entry = match &sending {
            Sending::One(bytes) => sqe::send(socket, bytes),
            Sending::Many(message) => sqe::sendmsg(socket, &raw const message.header),
        };
        let lent = &mut self.lent_by(token).sending;
        assert!(lent.is_none(), "two sends in flight on one connection");
        *lent = Some(sending);
        self.submit(entry, Op::Send, token);
    }

    /// Reads a part of a file into new memory.
    ///
    /// # Panics
    /// If a read for this connection is in flight.
    pub(crate) fn read_file(&mut self, file: &File, token: Token, offset: u64, len: usize) {
        let mut memory = Vec::with_capacity(len);
        let entry = sqe::read(file, &mut memory, len, offset);
        let lent = &mut self.lent_by(token).reading;
        assert!(lent.is_none(), "two file reads in flight for one connection");
        *lent = Some(memory);
        self.submit(entry, Op::ReadFile, token);
    }

    /// Wakes a connection of another loop.
    pub(crate) fn wake(&mut self, wake_up: WakeUp) {
        let entry = sqe::msg_ring(wake_up.as_fd(), wake_up.user_data);
        // Keeps the other ring open until the completion is read.
        let slot = self.messages.insert(wake_up) as u32;
        self.submit(entry, Op::MsgRing, Token { slot, generation: 0 });
    }

    /// Ends a request early. Its completion still comes, with ECANCELED or with what was done.
    pub(crate) fn cancel(&mut self, op: Op, token: Token) {
        self.submit_quietly(sqe::cancel(pack(op, token)));
    }

    /// Ends accepting.
    pub(crate) fn cancel_accept(&mut self) {
        self.cancel(Op::Accept, NO_CONNECTION);
    }

    /// Closes a socket, in the order of submission.
    pub(crate) fn close(&mut self, socket: OwnedFd) {
        self.submit_quietly(sqe::close(socket));
    }

    fn submit_quietly(&mut self, entry: squeue::Entry) {
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(pack(Op::Quiet, NO_CONNECTION)));
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
        // SAFETY: `self.lent` or `self.buffers` owns the memory that an entry names, until the
        // completion is read; Drop leaks it if that never happened.
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
        if !self.is_idle() || !self.buffers.unregister(&self.submitter) {
            // The loop has failed, and the kernel still has these addresses.
            std::mem::forget(std::mem::take(&mut self.lent));
        }
    }
}

impl SendMsg {
    fn new(chunks: Vec<Bytes>) -> Box<SendMsg> {
        let mut slices = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SLICES_MAX];
        for (slice, chunk) in slices.iter_mut().zip(&chunks) {
            *slice =
                libc::iovec { iov_base: chunk.as_ptr().cast_mut().cast(), iov_len: chunk.len() };
        }
        // SAFETY: a header of zeros is valid: no name, no slices, no control data.
        let header = unsafe { std::mem::zeroed::<libc::msghdr>() };
        let mut message = Box::new(SendMsg { header, slices, chunks });
        message.header.msg_iov = message.slices.as_mut_ptr();
        message.header.msg_iovlen = message.chunks.len().min(SLICES_MAX);
        message
    }
}

/// The part of `memory` that the kernel has written.
fn filled(mut memory: Vec<u8>, n: usize) -> Bytes {
    // SAFETY: the kernel has written `n` bytes from the front, and no more than the capacity.
    unsafe { memory.set_len(n.min(memory.capacity())) };
    Bytes::from(memory)
}
