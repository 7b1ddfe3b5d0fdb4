//! Connections apart from the load: opened, greeted, and asked one request at most. The probe is
//! one of them, and so is every connection that is silent afterwards.

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

/// Why a dialogue came to no good end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// connect(2) failed.
    Connect(io::Error),
    /// What came is not what was promised, or did not come.
    Reply(String),
    /// Something of our own failed.
    Internal(Error),
}

/// What all dialogues of one kind have in common.
pub(crate) struct Host<'a, C: Codec> {
    sockets: &'a Sockets,
    client: Option<Client>,
    codec: &'a mut C,
    buffers: Buffers,
}

/// One connection.
pub(crate) struct Talk<R> {
    connection: Connection<R>,
    /// When its connect(2) began.
    pub(crate) begun: Instant,
    /// Complete, right replies.
    pub(crate) replies: u32,
}

impl<R> Talk<R> {
    /// Whether requests may pass.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.connection.phase, Phase::Open | Phase::Closing)
    }

    /// Admits one request.
    pub(crate) fn ask(&mut self) {
        self.connection.admit(NO_TIME);
    }

    /// Awaits one message that another says.
    pub(crate) fn listen(&mut self) {
        self.connection.expect(NO_TIME);
    }

    /// Says the next request, whose reply comes to another.
    pub(crate) fn speak(&mut self) {
        self.connection.outgoing.unsent += 1;
    }

    /// The socket, unless there is nothing to wait for any more.
    fn socket_to_watch(&self) -> Option<&Socket> {
        self.connection.socket.as_ref().filter(|_| self.connection.phase != Phase::Closing)
    }

    /// The connection, without what was remembered of it.
    pub(crate) fn into_socket(self) -> Option<Socket> {
        self.connection.socket
    }
}

/// No latency is taken here.
const NO_TIME: Pending = Pending { due_ns: 0, sent_ns: 0 };

impl<'a, C: Codec> Host<'a, C> {
    /// Nobody is connected yet.
    pub(crate) fn new(
        plan: &Plan,
        sockets: &'a Sockets,
        codec: &'a mut C,
    ) -> Result<Self, Failure> {
        let client = Client::new(plan).map_err(Failure::Internal)?;
        Ok(Host { sockets, client, codec, buffers: Buffers::new(plan.target.tls) })
    }

    /// Begins to connect, as connection `slot` of this host and number `index` of all.
    pub(crate) fn begin(&mut self, slot: u32, index: u32) -> Result<Talk<C::Reader>, Failure> {
        let begun = Instant::now();
        let socket = self.sockets.connect(index).map_err(Failure::Connect)?;
        let tls = self.client.as_ref().map(Client::begin).transpose();
        let mut connection = Connection::new(slot, 1, self.codec.reader());
        connection.begin(self.codec, socket, tls.map_err(Failure::Reply)?);
        Ok(Talk { connection, begun, replies: 0 })
    }

    /// Waits until something can be done for some of these, and does it. Fails from `end` on.
    pub(crate) fn turn(
        &mut self,
        talks: &mut [Talk<C::Reader>],
        end: Instant,
    ) -> Result<(), Failure> {
        let wanted = |talk: &Talk<C::Reader>| {
            let connecting = talk.connection.phase == Phase::Connecting;
            match connecting || talk.connection.has_to_send() {
                true => PollFlags::POLLIN | PollFlags::POLLOUT,
                false => PollFlags::POLLIN,
            }
        };
        let sockets = talks.iter().filter_map(|talk| Some((talk.socket_to_watch()?, talk)));
        let mut fds: Vec<_> =
            sockets.map(|(socket, talk)| PollFd::new(socket.as_fd(), wanted(talk))).collect();
        loop {
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            if left == 0 {
                return Err(self.late(talks));
            }
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(0) => return Err(self.late(talks)),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::Internal(Error::system("poll")(errno))),
            }
        }
        let ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let mut ready = ready.into_iter();
        for talk in talks.iter_mut().filter(|talk| talk.socket_to_watch().is_some()) {
            if ready.next().unwrap_or_default() {
                self.step(talk)?;
            }
        }
        Ok(())
    }

    /// What is missing when the time is up.
    fn late(&self, talks: &[Talk<C::Reader>]) -> Failure {
        let late = talks.iter().map(|talk| (talk.connection.phase, &talk.connection.tls));
        let at = |phase| late.clone().find(|(other, _)| *other == phase);
        if at(Phase::Connecting).is_some() {
            return Failure::Connect(io::ErrorKind::TimedOut.into());
        }
        Failure::Reply(match at(Phase::Opening) {
            Some((_, Some(tls))) if tls.is_handshaking() => {
                "the TLS handshake was not completed in time".to_owned()
            }
            Some(_) => "the greeting was not answered in time".to_owned(),
            None => "no complete reply in time".to_owned(),
        })
    }

    /// Does what can be done for one connection.
    fn step(&mut self, talk: &mut Talk<C::Reader>) -> Result<(), Failure> {
        if talk.connection.phase == Phase::Connecting {
            if let Some(error) = talk.connection.socket.as_ref().and_then(connect_error) {
                return Err(Failure::Connect(error));
            }
            talk.connection.phase = match talk.connection.ready {
                true => Phase::Open,
                false => Phase::Opening,
            };
        }
        self.send(talk)?;
        while self.read(talk)? {}
        self.send(talk)
    }

    fn send(&mut self, talk: &mut Talk<C::Reader>) -> Result<(), Failure> {
        match talk.connection.send(self.codec, &mut 0) {
            Sent::Failed(errno) => Err(broke(&errno)),
            Sent::All | Sent::Full => Ok(()),
        }
    }

    /// Reads once; whether there may be more.
    fn read(&mut self, talk: &mut Talk<C::Reader>) -> Result<bool, Failure> {
        let connection = &mut talk.connection;
        let (count, drained) = match connection.receive(&mut self.buffers, &mut 0) {
            Received::Bytes { count, drained } => (count, drained),
            Received::Nothing => return Ok(false),
            Received::End => return self.ended(talk),
            Received::Failed(errno) => return Err(broke(&errno)),
            Received::Broken(what) => {
                // The alert that says so to the server.
                connection.ready = false;
                let _as_far_as_it_goes = self.send(talk);
                return Err(Failure::Reply(what));
            }
        };
        self.open_further(talk)?;
        let Talk { connection, replies, .. } = talk;
        let bytes = self.buffers.plain.get(..count).unwrap_or_default();
        let taken = connection.take(self.codec, bytes, |_, _| *replies += 1);
        taken.map_err(|Wrong(what)| Failure::Reply(what))?;
        self.open_further(talk)?;
        Ok(!drained)
    }

    /// Goes on with handshake and greeting.
    fn open_further(&mut self, talk: &mut Talk<C::Reader>) -> Result<(), Failure> {
        if talk.connection.phase == Phase::Opening
            && talk
                .connection
                .open(self.codec, self.client.as_ref(), |_| {})
                .map_err(Failure::Reply)?
        {
            talk.connection.phase = Phase::Open;
        }
        Ok(())
    }

    /// The server has closed: fine if that ends the reply, or if there is nothing to come.
    fn ended(&mut self, talk: &mut Talk<C::Reader>) -> Result<bool, Failure> {
        let Talk { connection, replies, .. } = talk;
        let reply = |what: &str| Failure::Reply(what.to_owned());
        if connection.phase == Phase::Opening {
            return Err(reply(match &connection.tls {
                Some(tls) if tls.is_handshaking() => {
                    "the server closed during the TLS handshake: does it speak TLS?"
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

    /// Says farewell.
    pub(crate) fn end(&mut self, talk: &mut Talk<C::Reader>) {
        talk.connection.say_farewell(self.codec, &mut 0);
    }
}

fn broke(errno: &rustix::io::Errno) -> Failure {
    Failure::Reply(format!("the connection broke ({errno})"))
}
