//! Threads that serve one client each.

use std::thread;

/// Size of a receive buffer where every connection has a thread, in bytes. There is one for each
/// connection, so it is kept to a few pages.
pub const SCRATCH_BYTES: usize = 16 << 10;

/// Stack of a thread, in bytes. HTTP/2 inside TLS touches 96 KiB of it in a build without
/// optimisation, so there is room for as much again. Only touched pages take memory, the rest is
/// address space; the guard page below turns an overrun into a crash.
const STACK_BYTES: usize = 256 << 10;

/// A thread for conversations, to be spawned.
pub fn builder() -> thread::Builder {
    thread::Builder::new().name("conversation".to_owned()).stack_size(STACK_BYTES)
}
