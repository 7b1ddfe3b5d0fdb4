//! The socket factory: every model listens with the same options, so that none is compared with
//! another's Nagle delay or backlog.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// Connections that may wait to be accepted; the kernel cuts it to net.core.somaxconn (listen(2)).
const BACKLOG: i32 = 4096;

/// A listening socket. Options set here are inherited by what it accepts (except O_NONBLOCK).
#[derive(Debug, Clone)]
pub struct Listener {
    socket: Arc<TcpListener>,
    nonblocking: bool,
}

/// How calls on a listener and its connections wait.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Waiting {
    /// Not at all: they say EAGAIN.
    Nonblocking,
    /// Until there is something to say; a send for no longer than this.
    Blocking { write_timeout: Duration },
}

/// What came of one accept(2).
#[derive(Debug)]
pub enum Accepted {
    /// A new connection.
    Peer(TcpStream),
    /// Nobody is waiting (EAGAIN).
    Nobody,
    /// The process or the system has no descriptor or memory left. A level-triggered listener would
    /// report the waiting client again at once, so the caller must look away for a while.
    Exhausted,
    /// The listener was shut down: the server is stopping.
    Stopped,
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
        // With SO_REUSEPORT a second server on the same port would join the first in silence and
        // take half of its connections. So the port is first asked for without it.
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
            // Inherited too, which saves a setsockopt(2) per connection. accept(2) ignores it.
            Waiting::Blocking { write_timeout } => {
                socket.set_write_timeout(Some(write_timeout))?;
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
    /// Only what no wait and no retry can mend.
    pub fn accept(&self) -> io::Result<Accepted> {
        loop {
            let error = match sys::accept(&self.socket, self.nonblocking) {
                Ok(stream) => return Ok(Accepted::Peer(stream)),
                Err(error) => error,
            };
            if is_exhausted(&error) {
                return Ok(Accepted::Exhausted);
            }
            match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                // The client gave up while it waited; the next one may not have.
                Errno::ECONNABORTED | Errno::EPROTO | Errno::EINTR => {}
                Errno::EAGAIN => return Ok(Accepted::Nobody),
                // shutdown(2) on a listener makes accept(2) say this.
                Errno::EINVAL => return Ok(Accepted::Stopped),
                _ => return Err(error),
            }
        }
    }

    /// A second handle on the same socket, for runtimes that want one of their own.
    ///
    /// # Errors
    /// What dup(2) says.
    pub fn to_std(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// Wakes an accept(2) that is blocked on this listener, for good.
    pub(crate) fn shutdown(&self) {
        // ENOTCONN is what Linux answers after having done it.
        let _ = socket2::SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether accept(2) failed because the process or the system has no descriptor or memory left.
pub fn is_exhausted(error: &io::Error) -> bool {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
}

fn open(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it a restarted server could not bind while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // Replies leave in one send; Nagle's algorithm could only hold one back (RFC 9293 section
    // 3.7.4).
    socket.set_tcp_nodelay(true)?;
    // Some machines default to BBR, whose pacing measures itself on loopback. Reno may be chosen by
    // anyone (tcp(7)); where it may not, the default stays, and `iolab doctor` names it.
    let _ = socket.set_tcp_congestion(b"reno");
    socket.bind(&address.into())?;
    Ok(socket)
}
