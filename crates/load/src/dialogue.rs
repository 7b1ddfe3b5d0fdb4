//! Connections that carry no load: opened, greeted, and used for at most one request. The probe is
//! one, and so is each idle connection.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use crate::codec::{Codec, Wrong};
use crate::connection::{Buffers, Connection, Pending, Phase, Received};
use crate::outgoing::Sent;
use crate::socket::{Sockets, connect_error};
use crate::tls::Client;
use crate::{Error, Plan};

#[derive(Debug)]
pub(crate) enum Failure {
    Connect(io::Error),
    /// The reply was wrong.
    Reply(String),
    /// The time limit has passed: what was missing then.
    Late(String),
    /// A part of the client failed.
    Internal(Error),
}

/// What all dialogues of one kind share.
pub(crate) struct DialogueSetup<'a, C: Codec> {
    sockets: &'a Sockets,
    client: Option<Client>,
    codec: &'a mut C,
    buffers: Buffers,
}

pub(crate) struct Dialogue<R> {
    connection: Connection<R>,
    /// When connect(2) began.
    pub(crate) begun: Instant,
    /// Complete and correct replies.
    pub(crate) replies: u32,
}

impl<R> Dialogue<R> {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.connection.phase, Phase::Open | Phase::Closing)
    }

    pub(crate) fn ask(&mut self) {
        self.connection.admit(NO_TIME);
    }

    /// Awaits a message of another connection.
    pub(crate) fn await_message(&mut self) {
        self.connection.expect(NO_TIME);
    }

    /// Sends a request whose reply comes to another connection.
    pub(crate) fn send_unanswered(&mut self) {
        self.connection.outgoing.unsent += 1;
    }

    /// The socket to wait for, unless all is done.
    fn socket_to_watch(&self) -> Option<&Socket> {
        self.connection.socket.as_ref().filter(|_| self.connection.phase != Phase::Closing)
    }

    pub(crate) fn into_socket(self) -> Option<Socket> {
        self.connection.socket
    }
}

/// Latencies are not measured here.
const NO_TIME: Pending = Pending { due_ns: 0, sent_ns: 0 };

impl<'a, C: Codec> DialogueSetup<'a, C> {
    pub(crate) fn new(
        plan: &Plan,
        sockets: &'a Sockets,
        codec: &'a mut C,
    ) -> Result<Self, Failure> {
        let client = Client::new(plan).map_err(Failure::Internal)?;
        Ok(DialogueSetup { sockets, client, codec, buffers: Buffers::new(plan.target.tls) })
    }

    /// Begins to connect, as connection `slot` of these and number `index` of all.
    pub(crate) fn begin(&mut self, slot: u32, index: u32) -> Result<Dialogue<C::Reader>, Failure> {
        let begun = Instant::now();
        let socket = self.sockets.connect(index).map_err(Failure::Connect)?;
        let tls = self.client.as_ref().map(Client::begin).transpose();
        let mut connection = Connection::new(slot, 1, self.codec.reader());
        connection.begin(self.codec, socket, tls.map_err(Failure::Reply)?);
        Ok(Dialogue { connection, begun, replies: 0 })
    }

    /// Waits until some of these can continue, and continues them. Fails from `end` on.
    pub(crate) fn turn(
        &mut self,
        dialogues: &mut [Dialogue<C::Reader>],
        end: Instant,
    ) -> Result<(), Failure> {
        let wanted = |dialogue: &Dialogue<C::Reader>| {
            let connecting = dialogue.connection.phase == Phase::Connecting;
            match connecting || dialogue.connection.has_to_send() {
                true => PollFlags::POLLIN | PollFlags::POLLOUT,
                false => PollFlags::POLLIN,
            }
        };
        let sockets =
            dialogues.iter().filter_map(|dialogue| Some((dialogue.socket_to_watch()?, dialogue)));
        let mut fds: Vec<_> = sockets
            .map(|(socket, dialogue)| PollFd::new(socket.as_fd(), wanted(dialogue)))
            .collect();
        loop {
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            if left == 0 {
                return Err(self.late(dialogues));
            }
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(0) => return Err(self.late(dialogues)),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::Internal(Error::system("poll")(errno))),
            }
        }
        let ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let mut ready = ready.into_iter();
        for dialogue in dialogues.iter_mut().filter(|dialogue| dialogue.socket_to_watch().is_some())
        {
            if ready.next().unwrap_or_default() {
                self.step(dialogue)?;
            }
        }
        Ok(())
    }

    /// Says what is missing when the time limit passes.
    fn late(&self, dialogues: &[Dialogue<C::Reader>]) -> Failure {
        let late =
            dialogues.iter().map(|dialogue| (dialogue.connection.phase, &dialogue.connection.tls));
        let at = |phase| late.clone().find(|(other, _)| *other == phase);
        if at(Phase::Connecting).is_some() {
            return Failure::Connect(io::ErrorKind::TimedOut.into());
        }
        Failure::Late(match at(Phase::Opening) {
            Some((_, Some(tls))) if tls.is_handshaking() => {
                "the TLS handshake was not completed in time".to_owned()
            }
            Some(_) => "the greeting was not answered in time".to_owned(),
            None => "no complete reply in time".to_owned(),
        })
    }

    fn step(&mut self, dialogue: &mut Dialogue<C::Reader>) -> Result<(), Failure> {
        if dialogue.connection.phase == Phase::Connecting {
            if let Some(error) = dialogue.connection.socket.as_ref().and_then(connect_error) {
                return Err(Failure::Connect(error));
            }
            dialogue.connection.phase = match dialogue.connection.ready {
                true => Phase::Open,
                false => Phase::Opening,
            };
        }
        self.send(dialogue)?;
        while self.read(dialogue)? {}
        self.send(dialogue)
    }

    fn send(&mut self, dialogue: &mut Dialogue<C::Reader>) -> Result<(), Failure> {
        match dialogue.connection.send(self.codec, &mut 0) {
            Sent::Failed(errno) => Err(broke(&errno)),
            Sent::All | Sent::Full => Ok(()),
        }
    }

    /// Reads once. Returns whether more may follow.
    fn read(&mut self, dialogue: &mut Dialogue<C::Reader>) -> Result<bool, Failure> {
        let connection = &mut dialogue.connection;
        let (count, drained) = match connection.receive(&mut self.buffers, &mut 0) {
            Received::Bytes { count, drained } => (count, drained),
            Received::Nothing => return Ok(false),
            Received::End => return self.ended(dialogue),
            Received::Failed(errno) => return Err(broke(&errno)),
            Received::Broken(what) => {
                // Sends the alert to the server.
                connection.ready = false;
                let _as_far_as_it_goes = self.send(dialogue);
                return Err(Failure::Reply(what));
            }
        };
        self.open_further(dialogue)?;
        let Dialogue { connection, replies, .. } = dialogue;
        let bytes = self.buffers.plain.get(..count).unwrap_or_default();
        let taken = connection.take(self.codec, bytes, |_, _| *replies += 1);
        taken.map_err(|Wrong(what)| Failure::Reply(what))?;
        self.open_further(dialogue)?;
        Ok(!drained)
    }

    /// Continues handshake and greeting.
    fn open_further(&mut self, dialogue: &mut Dialogue<C::Reader>) -> Result<(), Failure> {
        if dialogue.connection.phase == Phase::Opening
            && dialogue
                .connection
                .open(self.codec, self.client.as_ref(), |_| {})
                .map_err(Failure::Reply)?
        {
            dialogue.connection.phase = Phase::Open;
        }
        Ok(())
    }

    /// The server has closed: right if that ends the reply, or if no reply is due.
    fn ended(&mut self, dialogue: &mut Dialogue<C::Reader>) -> Result<bool, Failure> {
        let Dialogue { connection, replies, .. } = dialogue;
        let reply = |what: &str| Failure::Reply(what.to_owned());
        if connection.phase == Phase::Opening {
            return Err(reply(match &connection.tls {
                Some(tls) if tls.is_handshaking() => {
                    "the server closed during the TLS handshake: does it use TLS?"
                }
                _ => "the server closed before it answered the greeting",
            }));
        }
        if connection.awaited.is_empty() {
            connection.phase = Phase::Closing;
            return Ok(false);
        }
        let number = connection.awaited.first();
        let ends = match connection.may_end_here() {
            true => self.codec.end(connection.number, &mut connection.reader, number),
            false => Ok(false),
        };
        if !ends.map_err(|Wrong(what)| Failure::Reply(what))? {
            return Err(reply("the server closed before its reply was complete"));
        }
        connection.answered(number).map_err(|Wrong(what)| Failure::Reply(what))?;
        *replies += 1;
        connection.phase = Phase::Closing;
        Ok(false)
    }

    pub(crate) fn end(&mut self, dialogue: &mut Dialogue<C::Reader>) {
        dialogue.connection.send_farewell(self.codec, &mut 0);
    }
}

fn broke(errno: &rustix::io::Errno) -> Failure {
    Failure::Reply(format!("the connection broke ({errno})"))
}
