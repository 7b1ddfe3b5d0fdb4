//! The event loop: epoll_wait(2), then one recv(2) and one send(2) for each ready connection.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, listen, recv,
    send, setsockopt, socket, sockopt,
};

use crate::fault::{Fault, Reading, Treatment};
use crate::heads::{Heads, ask_to_close};

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n\
    Hello, world!";
/// A reply of the same length with a wrong body.
const WRONG_REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
    \r\nHello, wrong!";
/// Replies in one piece of memory, for the replies to one read: more than the deepest pipeline
/// here. A larger number is copied together.
const REPLIES_LAID_OUT: usize = 256;

/// Maximum number of events of a wait.
const EVENTS: usize = 1_024;
/// Backlog of the listener: that of the models.
const BACKLOG: i32 = 4_096;

/// Tokens of the listener and of signals. The token of a connection is its descriptor, which is
/// never so large.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// Nonblocking by a flag of the call, which saves an ioctl(2) per connection.
const NOW: MsgFlags = MsgFlags::MSG_DONTWAIT;

struct Peer {
    stream: TcpStream,
    /// How many bytes of the end of a head the input so far ends with.
    matched: usize,
    /// Unsent output. While there is any, nothing is read.
    unsent: Vec<u8>,
    /// Whether to close after the output: the client asked for that.
    ends: bool,
}

impl Peer {
    /// The state once all output is sent.
    fn after(&self) -> After {
        if self.ends { After::Ends } else { After::Stays }
    }
}

/// The state of a connection after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Stays,
    Ends,
}

pub(crate) struct EventLoop {
    epoll: Epoll,
    listener: TcpListener,
    /// Whether the listener is in the epoll set: not while `admitted` connections are open.
    listening: bool,
    signals: SignalFd,
    /// Indexed by descriptor: the kernel assigns the lowest free number.
    peers: Vec<Option<Peer>>,
    open: usize,
    admitted: usize,
    http: bool,
    heads: Heads,
    replies: Vec<u8>,
    reading: Reading,
    fault: Fault,
    requests: u64,
    connections: u64,
}

impl EventLoop {
    /// Opens the listener and makes SIGTERM and SIGINT events. To be called before other threads
    /// start, which would receive the signals.
    pub(crate) fn listen(
        address: SocketAddr,
        http: bool,
        admitted: usize,
        (reading, fault): (Reading, Fault),
    ) -> io::Result<EventLoop> {
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTERM);
        stop.add(Signal::SIGINT);
        stop.thread_block()?;
        let mut server = EventLoop {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            listener: listening_socket(address)?,
            listening: false,
            signals: SignalFd::with_flags(&stop, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            peers: Vec::new(),
            open: 0,
            admitted,
            http,
            heads: Heads::new(),
            replies: REPLY.repeat(REPLIES_LAID_OUT),
            reading,
            fault,
            requests: 0,
            connections: 0,
        };
        server.epoll.add(&server.signals, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        server.watch_listener()?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Numbers of answered requests (echo: reads) and of accepted connections.
    pub(crate) fn counters(&self) -> (u64, u64) {
        (self.requests, self.connections)
    }

    /// Serves until SIGTERM or SIGINT. Unsent output is then lost; no request is in progress.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let mut buffer = vec![0; self.reading.bytes];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => 0,
                ready => ready?,
            };
            for event in &events[..ready] {
                match event.data() {
                    STOP => return Ok(()),
                    LISTENER => self.accept()?,
                    place => self.serve(place as usize, &mut buffer)?,
                }
            }
            self.watch_listener()?;
        }
    }

    /// Watches the listener while more connections are allowed.
    fn watch_listener(&mut self) -> io::Result<()> {
        let wanted = self.open < self.admitted;
        if wanted != self.listening {
            self.listening = wanted;
            if wanted {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
                self.epoll.add(&self.listener, event)?;
            } else {
                self.epoll.delete(&self.listener)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        while self.open < self.admitted {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The client has closed the connection before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let place = stream.as_raw_fd() as usize;
            let interest = self.trigger() | EpollFlags::EPOLLIN;
            self.epoll.add(&stream, EpollEvent::new(interest, place as u64))?;
            if self.peers.len() <= place {
                self.peers.resize_with(place + 1, || None);
            }
            self.peers[place] = Some(Peer { stream, matched: 0, unsent: Vec::new(), ends: false });
            self.open += 1;
            self.connections += 1;
        }
        Ok(())
    }

    /// One step of a connection: reads and answers, or sends the rest of the output.
    fn serve(&mut self, place: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(mut peer) = self.peers.get_mut(place).and_then(Option::take) else {
            return Ok(());
        };
        let after = match peer.unsent.is_empty() {
            true => self.answer(&mut peer, buffer)?,
            false => self.send_rest(&mut peer)?,
        };
        match after {
            After::Stays => self.peers[place] = Some(peer),
            // Closing the last descriptor of a socket removes it from the epoll set (epoll(7)).
            After::Ends => self.open -= 1,
        }
        Ok(())
    }

    /// Flags of the interest in a connection.
    fn trigger(&self) -> EpollFlags {
        if self.reading.edge { EpollFlags::EPOLLET } else { EpollFlags::empty() }
    }

    /// Reads and answers: once, because what is left is reported again; or, where it is not, until
    /// nothing is left or the output waits.
    fn answer(&mut self, peer: &mut Peer, buffer: &mut [u8]) -> io::Result<After> {
        loop {
            let read = match recv(peer.stream.as_raw_fd(), buffer, NOW) {
                Ok(0) => return Ok(After::Ends),
                Ok(read) => read,
                Err(Errno::EINTR) if self.reading.drains => continue,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(After::Stays),
                // ECONNRESET and similar errors: the connection has ended.
                Err(_) => return Ok(After::Ends),
            };
            let after = self.answer_to(peer, &mut buffer[..read])?;
            let goes_on = self.reading.drains && after == After::Stays && peer.unsent.is_empty();
            if !goes_on {
                return Ok(after);
            }
        }
    }

    /// Answers what was read.
    fn answer_to(&mut self, peer: &mut Peer, read: &mut [u8]) -> io::Result<After> {
        let requests = match self.http {
            true => self.heads.count_ends(&mut peer.matched, read),
            false => 1,
        };
        if requests == 0 {
            return Ok(After::Stays);
        }
        peer.ends = self.http && ask_to_close(read);
        let treatment = self.fault.meet(requests)?;
        if treatment == Treatment::Close {
            return Ok(After::Ends);
        }
        self.requests += requests as u64;
        let wrong = treatment == Treatment::Wrong;
        if !self.http {
            read[0] ^= u8::from(wrong);
            return self.send_what_fits(peer, read);
        }
        match self.replies.get(..requests * REPLY.len()).filter(|_| !wrong) {
            Some(replies) => self.send_what_fits(peer, replies),
            None => {
                let reply = if wrong { WRONG_REPLY } else { REPLY };
                self.send_what_fits(peer, &reply.repeat(requests))
            }
        }
    }

    /// One send(2). The rest is kept and EPOLLOUT is watched.
    fn send_what_fits(&self, peer: &mut Peer, bytes: &[u8]) -> io::Result<After> {
        let Some(sent) = send_now(peer, bytes) else { return Ok(After::Ends) };
        if sent == bytes.len() {
            return Ok(peer.after());
        }
        peer.unsent.extend_from_slice(&bytes[sent..]);
        self.watch(peer, EpollFlags::EPOLLOUT)?;
        Ok(After::Stays)
    }

    /// Sends the rest of the output. After that input is watched again.
    fn send_rest(&self, peer: &mut Peer) -> io::Result<After> {
        let Some(sent) = send_now(peer, &peer.unsent) else { return Ok(After::Ends) };
        peer.unsent.drain(..sent);
        if !peer.unsent.is_empty() {
            return Ok(After::Stays);
        }
        peer.unsent = Vec::new();
        self.watch(peer, EpollFlags::EPOLLIN)?;
        Ok(peer.after())
    }

    fn watch(&self, peer: &Peer, interest: EpollFlags) -> io::Result<()> {
        let place = peer.stream.as_raw_fd() as u64;
        let mut event = EpollEvent::new(self.trigger() | interest, place);
        Ok(self.epoll.modify(&peer.stream, &mut event)?)
    }
}

/// The number of bytes sent; `None` if the connection has ended.
fn send_now(peer: &Peer, bytes: &[u8]) -> Option<usize> {
    match send(peer.stream.as_raw_fd(), bytes, NOW | MsgFlags::MSG_NOSIGNAL) {
        Ok(sent) => Some(sent),
        Err(Errno::EAGAIN | Errno::EINTR) => Some(0),
        Err(_) => None,
    }
}

/// A listener with the socket options of the models, which accepted sockets inherit.
fn listening_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    // As in the models: bbr, the default of some machines, limits the rate over loopback. If reno
    // is not permitted the default stays.
    let _ = setsockopt(&socket, sockopt::TcpCongestion, &"reno".into());
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(socket))
}
