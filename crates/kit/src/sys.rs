//! The system calls for which neither std nor nix has a form that fits: the only `unsafe` here.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{MsgFlags, SockFlag, accept4, recv};

/// accept4(2). `nonblocking` is not inherited from the listener, so it is asked for here, which
/// saves an fcntl(2) per connection.
pub(crate) fn accept(listener: &impl AsFd, nonblocking: bool) -> io::Result<TcpStream> {
    let nonblock = if nonblocking { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
    let fd = accept4(listener.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC | nonblock)?;
    // SAFETY: the descriptor was just returned by the kernel; nobody else owns it.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// recv(2) that does not wait, whatever the socket: EAGAIN where nothing is there.
///
/// # Errors
/// What recv(2) says.
pub fn receive_now(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// Bytes that have arrived and were not read yet: FIONREAD (tcp(7)). None where the socket has
/// failed: the next read will say so.
pub fn unread(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which `bytes` is; the descriptor is open while borrowed.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
}

/// Bytes that were sent and that the peer has not acknowledged yet: SIOCOUTQ (tcp(7)), which has
/// the number of TIOCOUTQ. None where the socket has failed: the next call will say so.
pub(crate) fn unacknowledged(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which `bytes` is; the descriptor is open while borrowed.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
}

/// What wakes a thread that is blocked in a system call. By default it is ignored, so one that is
/// sent from outside has never done harm.
pub(crate) const WAKE: Signal = Signal::SIGURG;

/// Lets [`WAKE`] end a system call that waits (EINTR), and do nothing else.
///
/// # Errors
/// What sigaction(2) says.
pub(crate) fn catch_wake() -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // No SA_RESTART: it would send the thread back into the call that it is to leave.
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so there is nothing in it that may not be done in one.
    unsafe { sigaction(WAKE, &action) }.map(drop)
}

/// Blocks that malloc(3) may map one by one (mallopt(3)); more come from its heaps, mapped in large
/// pieces. So a server's own mappings are bounded, whatever its clients make it keep.
pub(crate) const MMAP_BLOCKS_MAX: libc::c_int = 4096;

/// From this size on, in bytes, blocks are mapped. Malloc would find a size by itself, between 128
/// KiB and 32 MiB, but not once it was told a number of blocks. A queue of output is smaller, so
/// that no reply maps and unmaps memory.
const MMAP_BLOCK_BYTES: libc::c_int = 1 << 20;

/// Free memory at the end of a heap, in bytes, beyond which it is given back at once: a few queues
/// of output, which come and go all the time.
const TRIM_BYTES_MAX: usize = 4 << 20;

/// The same where there is little memory: malloc's own default.
const TRIM_BYTES_MIN: usize = 128 << 10;

/// One part in so many of what connections may hold. Malloc makes eight heaps for each core where
/// threads want them: 16 that keep 4 MiB each would be all that a group of 64 MiB has.
const TRIM_PARTS: usize = 128;

/// Bounds what malloc(3) maps. `one_heap`: of its heaps too, each of which reserves 64 MiB of
/// address space; all threads then share one lock. Connections may hold `memory_max` bytes.
pub(crate) fn limit_malloc(one_heap: bool, memory_max: usize) {
    let trim = (memory_max / TRIM_PARTS).clamp(TRIM_BYTES_MIN, TRIM_BYTES_MAX);
    // SAFETY: sets numbers of the allocator's, which owns them and takes its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, MMAP_BLOCKS_MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_BLOCK_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, trim as libc::c_int);
        if one_heap {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

/// Gives back what malloc(3) keeps of memory that is not used any more (malloc_trim(3)).
pub(crate) fn trim_malloc() {
    // SAFETY: the allocator takes its own locks; no memory in use is touched.
    unsafe { libc::malloc_trim(0) };
}

/// pread(2) of up to `len` bytes into fresh memory, which is not zeroed first.
pub(crate) fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(len);
    // SAFETY: `bytes` owns at least `len` writable bytes for the whole call.
    let n = unsafe { libc::pread(file.as_raw_fd(), bytes.as_mut_ptr().cast(), len, offset) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written the first `n` <= `len` bytes.
    unsafe { bytes.set_len(n) };
    Ok(bytes)
}
