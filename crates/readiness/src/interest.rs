//! What a loop asks of its wait primitive, and what that answers.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The number by which a loop knows a descriptor; a connection's is used again after its end.
pub type Token = usize;

/// The listening socket: it is ready when a client waits to be accepted.
pub const LISTENER: Token = 0;
/// The eventfd that becomes readable when the server is to stop.
pub const STOP: Token = 1;
/// The eventfd that becomes readable when another thread wakes the loop.
pub const WAKE_UP: Token = 2;
/// Connections have the tokens from this one on.
pub(crate) const FIRST_CONNECTION: Token = 3;

/// What a wait is to report of a socket. Neither: the connection waits for the clock or for
/// another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// Until a read will not block.
    pub read: bool,
    /// Until a write will not block.
    pub write: bool,
}

/// What a wait has reported of a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    /// A read will not block.
    pub read: bool,
    /// A write will not block.
    pub write: bool,
    /// The peer's FIN has arrived (EPOLLRDHUP). Bytes may lie before it.
    pub peer_closed: bool,
    /// The connection is broken (ERR or HUP): reported whether it was asked for or not.
    pub failed: bool,
}

/// The descriptors that a wait primitive is asked about: epoll(7) calls it the interest list.
pub trait InterestList {
    /// Whether the wait primitive can be asked about this descriptor. One that cannot be is
    /// closed.
    fn fits(&self, _fd: BorrowedFd<'_>) -> bool {
        true
    }

    /// Adds a descriptor, with interest in reading.
    ///
    /// # Errors
    /// What the system call says.
    fn add(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Changes the interest in a connection.
    ///
    /// # Errors
    /// What the system call says.
    fn modify(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()>;

    /// Takes a descriptor off the list; a connection is closed right after.
    ///
    /// # Errors
    /// What the system call says.
    fn delete(&mut self, token: Token, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Whether to read again without another wait, after a read that brought `n` bytes where there
    /// was room for `room`.
    ///
    /// A short read has emptied the socket (epoll(7)): the next one would say EAGAIN. A read that
    /// filled its buffer may have left bytes; they would be reported, but a read costs less than a
    /// wait.
    fn read_again(&self, n: usize, room: usize, _peer_closed: bool) -> bool {
        n == room
    }

    /// Whether the listener is reported only when a client arrives, so that the loop must accept
    /// until no client waits. Otherwise it is reported as long as one waits.
    fn accept_again(&self) -> bool {
        false
    }
}

/// For a loop that does not wait.
impl InterestList for () {
    fn add(&mut self, _: Token, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn modify(&mut self, _: Token, _: BorrowedFd<'_>, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn delete(&mut self, _: Token, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// What a wait primitive has returned: how many answers there are. None if a signal ended the wait
/// (EINTR, signal(7)): then the loop looks at the clock and waits again.
///
/// # Errors
/// What errno(3) says, right after the call.
pub fn returned(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).or_else(|_| match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        error => Err(error),
    })
}

/// A timeout as poll(2) and epoll_wait(2) take it, in milliseconds; -1 has no end. Rounded up:
/// rounded down, the loop would spin for the last millisecond.
pub fn milliseconds(timeout: Option<Duration>) -> libc::c_int {
    timeout.map_or(-1, |timeout| {
        libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
    })
}
