//! Connections that say nothing. What they cost a server is what separates the ways of waiting,
//! and the protocols.
//!
//! Each is opened as far as its protocol goes before it may be called idle: TCP's handshake, TLS's,
//! the upgrade to a WebSocket; over HTTP/2 one request is answered, for that is when both sides
//! have their settings, and a server its tables.

use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use crate::codec::Codec;
use crate::dialogue::{Failure, Host, Talk};
use crate::probe::CONNECT_LIMIT;
use crate::socket::Sockets;
use crate::{Error, Live, Plan, Protocol};

/// Connections that are being opened at once: well below the backlog of 4,096 that servers ask for.
/// On loopback connect completes before the server has accepted, so this also lets the server keep
/// pace.
const BATCH: usize = 256;

/// Silent connections, held open.
pub(crate) struct Idle {
    sockets: Vec<Socket>,
    /// Whether the server has no reason to have said anything on them.
    silent: bool,
}

impl Idle {
    /// Opens the plan's silent connections, some at a time, beside those that carry load and need
    /// ports too.
    pub(crate) fn open<C: Codec>(
        plan: &Plan,
        sockets: &Sockets,
        live: &Live,
        codec: &mut C,
    ) -> Result<Idle, Error> {
        let asked = plan.idle_connections;
        let silent = !plan.target.tls && !plan.http2 && plan.target.protocol != Protocol::WebSocket;
        let mut idle = Idle { sockets: Vec::with_capacity(asked as usize), silent };
        idle.open_all(plan, sockets, live, codec).map_err(|failure| match failure {
            Failure::Internal(error) => error,
            Failure::Connect(error) => idle.incomplete(asked, error.to_string()),
            Failure::Reply(reason) => idle.incomplete(asked, reason),
        })?;
        Ok(idle)
    }

    fn incomplete(&self, asked: u32, reason: String) -> Error {
        Error::Idle { opened: self.len(), asked, reason }
    }

    fn open_all<C: Codec>(
        &mut self,
        plan: &Plan,
        sockets: &Sockets,
        live: &Live,
        codec: &mut C,
    ) -> Result<(), Failure> {
        let mut host = Host::new(plan, sockets, codec)?;
        let limit = plan.request_timeout.max(CONNECT_LIMIT);
        let (mut talks, mut begun) = (Vec::with_capacity(BATCH), 0);
        while self.len() < plan.idle_connections {
            if live.is_stopped() {
                return Err(Failure::Internal(Error::Interrupted));
            }
            while talks.len() < BATCH && begun < plan.idle_connections {
                let index = plan.connections + begun;
                let mut talk = host.begin(index, index)?;
                if plan.http2 {
                    talk.ask();
                }
                talks.push(talk);
                begun += 1;
            }
            let oldest = talks.iter().map(|talk| talk.begun).min().unwrap_or_else(Instant::now);
            host.turn(&mut talks, oldest + limit)?;
            let is_done = |talk: &mut Talk<_>| match plan.http2 {
                true => talk.replies > 0,
                false => talk.is_open(),
            };
            let done = talks.extract_if(.., is_done).filter_map(Talk::into_socket);
            self.sockets.extend(done);
        }
        Ok(())
    }

    /// How many were opened.
    pub(crate) fn len(&self) -> u32 {
        self.sockets.len() as u32
    }

    /// How many are still open: the server's end was not received, and where it has nothing to say,
    /// it has said nothing.
    pub(crate) fn still_open(&self) -> u32 {
        let is_open = |socket: &&Socket| match self.silent {
            true => recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK) == Err(Errno::EAGAIN),
            false => !has_ended(socket),
        };
        self.sockets.iter().filter(is_open).count() as u32
    }
}

/// Whether the server's FIN, or its reset, has come, whatever came before it (POLLRDHUP, poll(2)).
fn has_ended(socket: &Socket) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    loop {
        match poll(&mut fds, Some(&Timespec::default())) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(events) => return events > 0,
            Err(_) => return true,
        }
    }
}
