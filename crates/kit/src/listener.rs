//! Listening sockets. Every model listens with the same options, so that a comparison of models is
//! not one of options.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::sys;

/// Length of the accept queue; the kernel cuts it to net.core.somaxconn (listen(2)).
const BACKLOG: i32 = 4096;

/// A listening socket. Accepted sockets inherit its options, but not O_NONBLOCK.
#[derive(Debug, Clone)]
pub struct Listener {
    socket: Arc<TcpListener>,
    nonblocking: bool,
}

/// Whether calls on a listener and its connections block.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Waiting {
    /// They do not: they return EAGAIN.
    Nonblocking,
    /// They do; a send for this long at most.
    Blocking { send_timeout: Duration },
}

/// What came of one accept(2).
#[derive(Debug)]
pub enum Accepted {
    /// A new connection.
    Client(TcpStream),
    /// No client waits (EAGAIN).
    Empty,
    /// The client has gone, or a signal came (EINTR): accept again.
    Retry,
    /// See [`AcceptError::Exhausted`].
    Exhausted,
}

/// What to do about an accept that failed, where the server goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// Nothing: the error concerns one client at most. The next accept is for the next client.
    Passing,
    /// The process or the system has no descriptor or memory left, or does not permit it now. The
    /// client still waits, and a level-triggered listener would report it again at once. So the
    /// caller must not watch it for a while ([`EXHAUSTED_PAUSE`](crate::EXHAUSTED_PAUSE)).
    Exhausted,
}

impl Listener {
    /// Binds `workers` listeners to one address. Port 0 picks a free one.
    ///
    /// # Errors
    /// What socket(2), bind(2) or listen(2) say.
    pub(crate) fn bind(
        address: SocketAddr,
        workers: usize,
        waiting: Waiting,
    ) -> io::Result<Vec<Listener>> {
        // With SO_REUSEPORT a second server could listen on the same port, and would take half of
        // the connections. So the first bind is made without it, and fails if the port is in use.
        let first = open(address, false)?;
        if workers == 1 {
            return Ok(vec![Listener::listen(first, waiting)?]);
        }
        let address = first.local_addr()?.as_socket().unwrap_or(address);
        drop(first);
        (0..workers).map(|_| Listener::listen(open(address, true)?, waiting)).collect()
    }

    fn listen(socket: Socket, waiting: Waiting) -> io::Result<Listener> {
        let nonblocking = match waiting {
            Waiting::Nonblocking => true,
            // Accepted sockets inherit it, which saves a setsockopt(2) for each. accept(2) itself
            // ignores it.
            Waiting::Blocking { send_timeout } => {
                socket.set_write_timeout(Some(send_timeout))?;
                false
            }
        };
        socket.set_nonblocking(nonblocking)?;
        socket.listen(BACKLOG)?;
        Ok(Listener { socket: Arc::new(socket.into()), nonblocking })
    }

    /// The address with the port that was picked.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// accept4(2) once.
    ///
    /// # Errors
    /// Those that would come again on every call.
    pub fn accept(&self) -> io::Result<Accepted> {
        match sys::accept(&self.socket, self.nonblocking) {
            Ok(stream) => Ok(Accepted::Client(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Accepted::Empty),
            // The server has shut it down: no client waits, and none will.
            Err(error) if self.is_shut_down(&error) => Ok(Accepted::Empty),
            Err(error) => Ok(match self.accept_error(error)? {
                AcceptError::Passing => Accepted::Retry,
                AcceptError::Exhausted => Accepted::Exhausted,
            }),
        }
    }

    /// What to do about an error of accept(2) on this listener.
    ///
    /// # Errors
    /// Those that would come again on every call.
    pub fn accept_error(&self, error: io::Error) -> io::Result<AcceptError> {
        if self.is_shut_down(&error) {
            return Ok(AcceptError::Passing);
        }
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        sort_accept_error(errno).ok_or(error)
    }

    /// The server itself has called shutdown(2) on the listener, perhaps in another process: the
    /// socket then does not listen (SO_ACCEPTCONN, socket(7)).
    fn is_shut_down(&self, error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::EINVAL)
            && SockRef::from(&*self.socket).is_listener().is_ok_and(|listens| !listens)
    }

    /// A second handle on the same socket, for runtimes that want one of their own.
    ///
    /// # Errors
    /// What dup(2) says.
    pub fn to_std(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// From now on accept(2) returns EAGAIN if no client waits.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// From now on clients are refused. Those in the accept queue are reset, so it must be empty,
    /// or the time to drain must be over.
    pub fn shutdown(&self) {
        // Linux does it and returns ENOTCONN.
        let _ = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `None` for an error of the program: the same call can never succeed.
fn sort_accept_error(errno: Errno) -> Option<AcceptError> {
    match errno {
        Errno::EBADF | Errno::EFAULT | Errno::EINVAL | Errno::ENOTSOCK | Errno::ENOSYS => None,
        // No client waits, a signal came, or io_uring was told to cancel the accept.
        Errno::EAGAIN | Errno::EINTR | Errno::ECANCELED => Some(AcceptError::Passing),
        // The client has gone.
        Errno::ECONNABORTED | Errno::ECONNRESET | Errno::ETIMEDOUT => Some(AcceptError::Passing),
        // Errors of the network for the new connection: accept(2) says to treat them like EAGAIN.
        Errno::ENETDOWN
        | Errno::EPROTO
        | Errno::ENOPROTOOPT
        | Errno::EHOSTDOWN
        | Errno::ENONET
        | Errno::EHOSTUNREACH
        | Errno::EOPNOTSUPP
        | Errno::ENETUNREACH => Some(AcceptError::Passing),
        // EMFILE, ENFILE, ENOBUFS, ENOMEM; EPERM and EACCES of a firewall or a policy; and errors
        // that no manual page names. A later call may succeed.
        _ => Some(AcceptError::Exhausted),
    }
}

/// Whether a call failed because the process or the system has no descriptor or memory left.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
}

fn open(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it a restarted server could not bind while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // A reply leaves in one send, so Nagle's algorithm could only delay it (RFC 9293 section
    // 3.7.4).
    socket.set_tcp_nodelay(true)?;
    // The default of some machines is BBR, whose pacing would be part of every figure on loopback.
    // Any process may choose Reno (tcp(7)). If that fails, the default stays, and `iolab doctor`
    // names it.
    let _ = socket.set_tcp_congestion(b"reno");
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All error numbers of Linux: only errors of the program itself end the server.
    #[test]
    fn accept_errors_are_sorted() {
        let sorted = |errno| sort_accept_error(Errno::from_raw(errno));
        let ends = [libc::EBADF, libc::EFAULT, libc::EINVAL, libc::ENOTSOCK, libc::ENOSYS];
        let passes = [
            libc::EAGAIN,
            libc::EINTR,
            libc::ECANCELED,
            libc::ECONNABORTED,
            libc::ECONNRESET,
            libc::ETIMEDOUT,
            libc::ENETDOWN,
            libc::EPROTO,
            libc::ENOPROTOOPT,
            libc::EHOSTDOWN,
            libc::ENONET,
            libc::EHOSTUNREACH,
            libc::EOPNOTSUPP,
            libc::ENETUNREACH,
        ];
        for errno in 1..=libc::EHWPOISON {
            let expected = if ends.contains(&errno) {
                None
            } else if passes.contains(&errno) {
                Some(AcceptError::Passing)
            } else {
                Some(AcceptError::Exhausted)
            };
            assert_eq!(sorted(errno), expected, "{}", io::Error::from_raw_os_error(errno));
        }
    }

    #[test]
    fn einval_is_passing_only_after_the_servers_own_shutdown() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(address, 1, Waiting::Nonblocking).unwrap().remove(0);
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        assert!(listener.accept_error(invalid()).is_err());
        assert!(matches!(listener.accept(), Ok(Accepted::Empty)));
        listener.shutdown();
        assert!(matches!(listener.accept(), Ok(Accepted::Empty)));
        assert_eq!(listener.accept_error(invalid()).ok(), Some(AcceptError::Passing));
    }
}
