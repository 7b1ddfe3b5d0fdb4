//! Requests: the entries of the submission queue, by the names that liburing gives them.
//!
//! An entry names memory by its address. What owns that memory, and until when, is in `ring.rs`.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use bytes::Bytes;
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types::Fd};

use super::provided_buffers::{BUFFER_BYTES, GROUP};

/// `IORING_RECVSEND_POLL_FIRST` (linux/io_uring.h): wait for bytes before the first attempt to
/// receive. Only for a socket that is thought to be empty; if it is not, it is ready at once.
const POLL_FIRST: u16 = 1;

/// io_uring_prep_multishot_accept(3): a completion for each connection.
pub(super) fn multishot_accept(listener: BorrowedFd<'_>) -> Entry {
    opcode::AcceptMulti::new(fd(listener)).flags(libc::SOCK_CLOEXEC).build()
}

/// io_uring_prep_poll_add(3): one completion when `event` is readable.
pub(super) fn poll_add(event: BorrowedFd<'_>) -> Entry {
    opcode::PollAdd::new(fd(event), libc::POLLIN as u32).build()
}

/// io_uring_prep_recv_multishot(3): a completion for each arrival, in a provided buffer.
pub(super) fn recv_multishot(socket: BorrowedFd<'_>) -> Entry {
    opcode::RecvMulti::new(fd(socket), GROUP).build()
}

/// io_uring_prep_recv(3): one completion, in a provided buffer.
pub(super) fn recv(socket: BorrowedFd<'_>, empty: bool) -> Entry {
    opcode::Recv::new(fd(socket), std::ptr::null_mut(), BUFFER_BYTES as u32)
        .buf_group(GROUP)
        .ioprio(if empty { POLL_FIRST } else { 0 })
        .build()
        .flags(Flags::BUFFER_SELECT)
}

/// io_uring_prep_send(3). Without MSG_WAITALL: the connection must be told what has left, or a
/// client that reads a large reply slowly would look like one that reads nothing.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &Bytes) -> Entry {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    opcode::Send::new(fd(socket), bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build()
}

/// io_uring_prep_sendmsg(3).
pub(super) fn sendmsg(socket: BorrowedFd<'_>, header: *const libc::msghdr) -> Entry {
    opcode::SendMsg::new(fd(socket), header).flags(libc::MSG_NOSIGNAL as u32).build()
}

/// io_uring_prep_read(3) of `len` bytes, for which `memory` has room.
pub(super) fn read(file: &File, memory: &mut Vec<u8>, len: usize, offset: u64) -> Entry {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    opcode::Read::new(Fd(file.as_raw_fd()), memory.as_mut_ptr(), len).offset(offset).build()
}

/// io_uring_prep_msg_ring(3): a completion with this `user_data` in the other ring.
pub(super) fn msg_ring(ring: BorrowedFd<'_>, user_data: u64) -> Entry {
    opcode::MsgRingData::new(fd(ring), 0, user_data, None).build()
}

/// io_uring_prep_cancel64(3). By `user_data` and not by descriptor, which would walk the list of
/// all requests in flight.
pub(super) fn cancel(user_data: u64) -> Entry {
    opcode::AsyncCancel::new(user_data).build()
}

/// io_uring_prep_close(3).
pub(super) fn close(socket: OwnedFd) -> Entry {
    opcode::Close::new(Fd(socket.into_raw_fd())).build()
}

fn fd(descriptor: BorrowedFd<'_>) -> Fd {
    Fd(descriptor.as_raw_fd())
}
