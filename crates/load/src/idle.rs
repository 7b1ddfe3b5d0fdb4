//! Idle connections. Their cost differs between the ways of waiting and between protocols.
//!
//! Each is opened as far as its protocol goes before it is idle: the handshakes of TCP and TLS, the
//! upgrade to WebSocket. Over HTTP/2 one request is answered, because then both sides have their
//! settings and the server has its tables.

use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use record::Protocol;

use crate::codec::Codec;
use crate::dialogue::{Dialogue, DialogueSetup, Failure};
use crate::probe::CONNECT_LIMIT;
use crate::socket::Sockets;
use crate::{Error, Live, Plan};

/// Connections that are opened at once: well below the backlog of 4,096 that servers ask for. On
/// loopback connect completes before the server has accepted, so this also lets the server keep up.
const BATCH: usize = 256;

pub(crate) struct Idle {
    sockets: Vec<Socket>,
    /// Whether the server has no reason to send anything on them.
    sends_nothing: bool,
}

impl Idle {
    /// Opens the plan's idle connections in batches. The connections for the load need ports too.
    pub(crate) fn open<C: Codec>(
        plan: &Plan,
        sockets: &Sockets,
        live: &Live,
        codec: &mut C,
    ) -> Result<Idle, Error> {
        let asked = plan.idle_connections;
        let talks = matches!(plan.target.protocol, Protocol::Http2 | Protocol::WebSocket);
        let sends_nothing = !plan.target.tls && !talks;
        let mut idle = Idle { sockets: Vec::with_capacity(asked as usize), sends_nothing };
        idle.open_all(plan, sockets, live, codec).map_err(|failure| match failure {
            Failure::Internal(error) => error,
            Failure::Connect(error) => idle.incomplete(asked, error.to_string()),
            Failure::Late(reason) | Failure::Reply(reason) => idle.incomplete(asked, reason),
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
        let mut setup = DialogueSetup::new(plan, sockets, codec)?;
        let limit = plan.request_timeout.max(CONNECT_LIMIT);
        let (mut dialogues, mut begun) = (Vec::with_capacity(BATCH), 0);
        while self.len() < plan.idle_connections {
            if live.is_stopped() {
                return Err(Failure::Internal(Error::Interrupted));
            }
            while dialogues.len() < BATCH && begun < plan.idle_connections {
                let index = plan.connections + begun;
                let mut dialogue = setup.begin(index, index)?;
                if plan.is_http2() {
                    dialogue.ask();
                }
                dialogues.push(dialogue);
                begun += 1;
            }
            let oldest =
                dialogues.iter().map(|dialogue| dialogue.begun).min().unwrap_or_else(Instant::now);
            setup.turn(&mut dialogues, oldest + limit)?;
            let is_done = |dialogue: &mut Dialogue<_>| match plan.is_http2() {
                true => dialogue.replies > 0,
                false => dialogue.is_open(),
            };
            let done = dialogues.extract_if(.., is_done).filter_map(Dialogue::into_socket);
            self.sockets.extend(done);
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> u32 {
        self.sockets.len() as u32
    }

    /// How many are still open: no FIN was received, and nothing else from a server that has no
    /// reason to send.
    pub(crate) fn still_open(&self) -> u32 {
        let is_open = |socket: &&Socket| match self.sends_nothing {
            true => recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK) == Err(Errno::EAGAIN),
            false => !has_ended(socket),
        };
        self.sockets.iter().filter(is_open).count() as u32
    }
}

/// Whether the server's FIN or RST has come, whatever came before (POLLRDHUP, poll(2)).
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
