//! The loop: epoll_wait(2), then for each ready connection one recv(2) and one send(2).

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

use crate::fault::{Fault, Treatment};
use crate::heads::{Heads, ask_to_close};

/// One reply: as short as a real one may be.
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n\
    Hello, world!";
/// As many bytes, of which the body's are others.
const WRONG_REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
    \r\nHello, wrong!";
/// Replies laid out one after the other, so that those to one read are one piece of memory: more
/// than any pipeline here is deep. More than so many are copied together.
const REPLIES_LAID_OUT: usize = 256;

/// Receive buffer, shared by all connections: the size that the models' loops have.
const READ_BYTES: usize = 64 * 1024;
/// Events taken at once.
const EVENTS: usize = 1_024;
/// Connections that may wait to be accepted: the models' number.
const BACKLOG: i32 = 4_096;

/// Tokens of what is no connection. A connection's is its descriptor, which is never so large.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// Nonblocking by the call, which spares an ioctl(2) per connection.
const NOW: MsgFlags = MsgFlags::MSG_DONTWAIT;

/// One connection.
struct Peer {
    stream: TcpStream,
    /// How much of the end of a head its bytes so far close with.
    matched: usize,
    /// What the socket did not take. While there is any, nothing is read.
    unsent: Vec<u8>,
    /// The connection ends when all is sent: its client asked for that.
    ends: bool,
}

impl Peer {
    /// What becomes of it when all is sent.
    fn turn(&self) -> Turn {
        if self.ends { Turn::Ends } else { Turn::Stays }
    }
}

/// What became of a connection's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Stays,
    Ends,
}

/// The server.
pub(crate) struct EventLoop {
    epoll: Epoll,
    listener: TcpListener,
    /// Whether the listener is in the epoll set: it is not while all places are taken.
    listening: bool,
    signals: SignalFd,
    /// By descriptor: those are small numbers, given again as soon as they are free.
    peers: Vec<Option<Peer>>,
    open: usize,
    /// Most connections at once.
    admitted: usize,
    http: bool,
    heads: Heads,
    replies: Vec<u8>,
    fault: Fault,
    requests: u64,
    connections: u64,
}

impl EventLoop {
    /// Listens, and takes SIGTERM and SIGINT as events from now on. Call it before there are other
    /// threads, which would get the signals otherwise.
    pub(crate) fn listen(
        address: SocketAddr,
        http: bool,
        admitted: usize,
        fault: Fault,
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
            fault,
            requests: 0,
            connections: 0,
        };
        server.epoll.add(&server.signals, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        server.watch_listener()?;
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Requests answered (echo: reads) and connections accepted.
    pub(crate) fn counters(&self) -> (u64, u64) {
        (self.requests, self.connections)
    }

    /// Serves until SIGTERM or SIGINT. What has not been read by a client then is lost with its
    /// connection: nothing else can be in flight.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let mut buffer = vec![0; READ_BYTES];
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

    /// Watches the listener while there are places for more connections.
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
                // The client gave up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let place = stream.as_raw_fd() as usize;
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
            if self.peers.len() <= place {
                self.peers.resize_with(place + 1, || None);
            }
            self.peers[place] = Some(Peer { stream, matched: 0, unsent: Vec::new(), ends: false });
            self.open += 1;
            self.connections += 1;
        }
        Ok(())
    }

    /// Lets one connection read and answer once, or send what is left.
    fn serve(&mut self, place: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(mut peer) = self.peers.get_mut(place).and_then(Option::take) else {
            return Ok(());
        };
        let turn = match peer.unsent.is_empty() {
            true => self.answer(&mut peer, buffer)?,
            false => send_rest(&self.epoll, &mut peer)?,
        };
        match turn {
            Turn::Stays => self.peers[place] = Some(peer),
            // Closing the last descriptor of a socket takes it out of every epoll set (epoll(7)).
            Turn::Ends => self.open -= 1,
        }
        Ok(())
    }

    /// One read, one answer.
    fn answer(&mut self, peer: &mut Peer, buffer: &mut [u8]) -> io::Result<Turn> {
        let read = match recv(peer.stream.as_raw_fd(), buffer, NOW) {
            Ok(0) => return Ok(Turn::Ends),
            Ok(read) => read,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Turn::Stays),
            // ECONNRESET and its like: the client is gone, whatever the name.
            Err(_) => return Ok(Turn::Ends),
        };
        let requests = match self.http {
            true => self.heads.count_ends(&mut peer.matched, &buffer[..read]),
            false => 1,
        };
        if requests == 0 {
            return Ok(Turn::Stays);
        }
        peer.ends = self.http && ask_to_close(&buffer[..read]);
        let treatment = self.fault.meet(requests)?;
        if treatment == Treatment::Close {
            return Ok(Turn::Ends);
        }
        self.requests += requests as u64;
        let wrong = treatment == Treatment::Wrong;
        if !self.http {
            buffer[0] ^= u8::from(wrong);
            return send_what_fits(&self.epoll, peer, &buffer[..read]);
        }
        match self.replies.get(..requests * REPLY.len()).filter(|_| !wrong) {
            Some(replies) => send_what_fits(&self.epoll, peer, replies),
            None => {
                let reply = if wrong { WRONG_REPLY } else { REPLY };
                send_what_fits(&self.epoll, peer, &reply.repeat(requests))
            }
        }
    }
}

/// One send(2); what the socket does not take is kept, and the kernel asked to say when it will.
fn send_what_fits(epoll: &Epoll, peer: &mut Peer, bytes: &[u8]) -> io::Result<Turn> {
    let Some(sent) = send_now(peer, bytes) else { return Ok(Turn::Ends) };
    if sent == bytes.len() {
        return Ok(peer.turn());
    }
    peer.unsent.extend_from_slice(&bytes[sent..]);
    watch(epoll, peer, EpollFlags::EPOLLOUT)?;
    Ok(Turn::Stays)
}

/// Sends what was kept; once all is gone, the connection is read again.
fn send_rest(epoll: &Epoll, peer: &mut Peer) -> io::Result<Turn> {
    let Some(sent) = send_now(peer, &peer.unsent) else { return Ok(Turn::Ends) };
    peer.unsent.drain(..sent);
    if !peer.unsent.is_empty() {
        return Ok(Turn::Stays);
    }
    peer.unsent = Vec::new();
    watch(epoll, peer, EpollFlags::EPOLLIN)?;
    Ok(peer.turn())
}

/// How many bytes the socket took; `None` when the client is gone.
fn send_now(peer: &Peer, bytes: &[u8]) -> Option<usize> {
    match send(peer.stream.as_raw_fd(), bytes, NOW | MsgFlags::MSG_NOSIGNAL) {
        Ok(sent) => Some(sent),
        Err(Errno::EAGAIN | Errno::EINTR) => Some(0),
        Err(_) => None,
    }
}

fn watch(epoll: &Epoll, peer: &Peer, interest: EpollFlags) -> io::Result<()> {
    let place = peer.stream.as_raw_fd() as u64;
    Ok(epoll.modify(&peer.stream, &mut EpollEvent::new(interest, place))?)
}

/// A listener with the options that the models' sockets have, which accepted ones inherit.
fn listening_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    // As in the models: some machines default to BBR, whose pacing measures itself on loopback.
    // Where reno may not be chosen the default stays, for them too.
    let _ = setsockopt(&socket, sockopt::TcpCongestion, &"reno".into());
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(socket))
}
