//! System calls for which std and nix have no safe form that fits: the only `unsafe` of this
//! crate.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{MsgFlags, SockFlag, accept4, recv};

/// accept4(2). O_NONBLOCK is not inherited from the listener; to ask for it here saves an fcntl(2)
/// for each connection.
pub(crate) fn accept(listener: &impl AsFd, nonblocking: bool) -> io::Result<TcpStream> {
    let nonblock = if nonblocking { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
    let fd = accept4(listener.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC | nonblock)?;
    // SAFETY: the kernel has just returned the descriptor, and nothing else owns it.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// recv(2) that does not block, on any socket: EAGAIN if no bytes have arrived.
///
/// # Errors
/// What recv(2) says.
pub fn receive_now(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// Bytes that have arrived and were not read yet: FIONREAD (tcp(7)). 0 if the socket has failed:
/// the next read reports that.
pub fn unread(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which `bytes` is; the descriptor is open while borrowed.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
}

/// Bytes that were sent and that the peer has not acknowledged yet: SIOCOUTQ (tcp(7)), which has
/// the number of TIOCOUTQ. 0 if the socket has failed: the next call reports that.
pub(crate) fn unacknowledged(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which `bytes` is; the descriptor is open while borrowed.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
}

/// The signal that wakes a thread which is blocked in a system call. Its default action is to
/// ignore it, so one that another program sends does no harm.
pub(crate) const WAKE: Signal = Signal::SIGURG;

/// Lets [`WAKE`] end a system call that waits (EINTR), and do nothing else.
///
/// # Errors
/// What sigaction(2) says.
pub(crate) fn catch_wake() -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // Without SA_RESTART, which would restart the call that is to end.
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it does nothing that is not async-signal-safe.
    unsafe { sigaction(WAKE, &action) }.map(drop)
}

/// `len` values in memory that this process shares with those that it forks (mmap(2)). It is never
/// unmapped.
///
/// # Errors
/// What mmap(2) says.
pub(crate) fn share<T: Default + Sync>(len: usize) -> io::Result<&'static [T]> {
    let bytes =
        NonZeroUsize::new(len.max(1) * size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: new memory, of which nothing else knows; this call owns it.
    let memory = unsafe { mmap_anonymous(None, bytes, access, MapFlags::MAP_SHARED) }?;
    let first = memory.cast::<T>().as_ptr();
    for index in 0..len {
        // SAFETY: within the mapping, which is aligned to a page and owned by this call.
        unsafe { first.add(index).write(T::default()) };
    }
    // SAFETY: `len` values were written, and the mapping lives as long as the process.
    Ok(unsafe { std::slice::from_raw_parts(first, len) })
}

/// Most blocks that malloc(3) maps separately (mallopt(3)); further ones come from its heaps. So
/// the number of the server's mappings is bounded, whatever its clients send.
pub(crate) const MMAP_BLOCKS_MAX: libc::c_int = 4096;

/// Blocks of this size and larger ones are mapped, in bytes. Malloc would choose a size by itself,
/// between 128 KiB and 32 MiB, but not after the number of blocks was set. The output of a
/// connection is smaller, so no reply maps and unmaps memory.
const MMAP_BLOCK_BYTES: libc::c_int = 1 << 20;

/// Free memory at the end of a heap, in bytes, above which it is given back at once. The output of
/// a few connections is less.
const TRIM_BYTES_MAX: usize = 4 << 20;

/// The same if there is little memory: the default of malloc.
const TRIM_BYTES_MIN: usize = 128 << 10;

/// It is this part of the memory that connections may hold. Malloc makes up to eight heaps for
/// each core: 16 heaps that keep 4 MiB each would use up a control group of 64 MiB.
const TRIM_PARTS: usize = 128;

/// Bounds what malloc(3) maps. `one_heap`: the number of heaps too, because each reserves 64 MiB
/// of address space; all threads then share one lock. `memory_max`: what connections may hold, in
/// bytes.
pub(crate) fn limit_malloc(one_heap: bool, memory_max: usize) {
    let trim = (memory_max / TRIM_PARTS).clamp(TRIM_BYTES_MIN, TRIM_BYTES_MAX);
    // SAFETY: sets numbers that the allocator owns, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, MMAP_BLOCKS_MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_BLOCK_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, trim as libc::c_int);
        if one_heap {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

/// Gives the memory that malloc(3) keeps free back to the system (malloc_trim(3)).
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
