//! All connections of the loop: what each has in flight, which of them can run, and which are
//! late.
//!
//! The readiness models share such a table (`readiness::Connections`). This one differs in two
//! things. A connection has requests in flight, and stays in the table until the last of them is
//! completed. And the kernel accepts the connections, so some may arrive after the loop has asked
//! it to stop.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conn::{Address, Conn, Wake, Wants};
use kit::{
    ACCEPTS_PER_ITERATION, AcceptError, AcceptPause, Accepted, Armed, Files, Timers, Turns, Worker,
    accepts_per_iteration,
};

use crate::msg_ring::{self, WakeUp, Waker};
use crate::ring::{Op, Receive, Token, pack, unpack};
use crate::table::Table;

/// The state of a request that may be cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Request {
    /// Not asked for.
    #[default]
    None,
    /// Asked for; a completion will come.
    Pending,
    /// Asked to end early; the completion still comes.
    Cancelled,
}

/// One connection, and what the kernel does for it now.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) conn: Conn,
    stream: TcpStream,
    pub(crate) receiving: Request,
    /// How it receives, if it does.
    pub(crate) receive: Receive,
    pub(crate) sending: Request,
    pub(crate) reading_file: bool,
    /// A receive was completed since the last turn.
    pub(crate) received: bool,
    /// The last one left the socket empty.
    pub(crate) emptied: bool,
    /// It has not asked for bytes yet.
    is_new: bool,
    /// A deadline is due, and the loop waits once more, for what has arrived in time.
    late: bool,
    /// Bytes that have arrived since the last turn.
    pub(crate) arrived: usize,
    turns: Turns,
    /// A send was completed since the last turn, so it may go on.
    went_on: bool,
    /// The result of its send, while it is put off: the connection is told in its turn.
    sent: Option<io::Result<usize>>,
    /// It waits for its turn among the bulk connections.
    put_off: bool,
    /// It has waited there, and its turn has come.
    has_turn: bool,
    armed: Armed,
    queued: bool,
}

impl Connection {
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Does what is due and needs no request, and says what the connection then waits for.
    pub(crate) fn wants(&mut self, now: Instant) -> Option<Wants> {
        let mut wants = self.conn.wants()?;
        let due = wants.deadline.is_some_and(|at| at <= now);
        // What has arrived since the wait began to return is completed in the next one, which does
        // not sleep, because the deadline stays due. While the connection waits for its turn,
        // there is no request that could be completed.
        let asked = !self.put_off && !self.has_turn;
        self.late = due && !(self.late && asked) && self.conn.input_is_late(now);
        if due && !self.late {
            kit::look_at_output(&mut self.conn, &self.stream, now);
            self.conn.timeout(now);
            wants = self.conn.wants()?;
        }
        if wants.shutdown {
            // A call and not a request: it never blocks, and io_uring passes every shutdown to a
            // worker thread of the kernel (io_uring/net.c: REQ_F_FORCE_ASYNC). It fails if the
            // peer has reset the connection; the receive reports that.
            let _ = self.stream.shutdown(Shutdown::Write);
            self.conn.shutdown_done(now);
            wants = self.conn.wants()?;
        }
        if self.received && !wants.write && self.is_reset() {
            self.conn.abort();
            return None;
        }
        Some(wants)
    }

    /// Whether the peer has reset the connection right after its last bytes. A multishot
    /// receive takes these bytes and then waits for the next event, but the reset came before it
    /// waited, and is not reported. A send would fail and report it; where nothing is sent,
    /// SO_ERROR is asked.
    fn is_reset(&self) -> bool {
        let asks = self.receiving == Request::Pending && self.sending == Request::None;
        asks && self.stream.take_error().is_ok_and(|error| error.is_some())
    }

    /// The server was told to stop `at` this time. The connection has the bytes of all
    /// completions, and no other bytes leave the socket before the next wait.
    fn drain(&mut self, at: Instant) {
        self.conn.drain(kit::unread(&self.stream), at);
    }

    /// Its turns come after those of others.
    fn is_bulk(&self) -> bool {
        self.turns.is_bulk() || self.conn.is_lingering()
    }

    /// Ends a turn after which the connection waits for `wants`. Returns how it is to receive from
    /// now on, and whether it may now. `usual`: how connections receive that are not bulk.
    pub(crate) fn end_turn(
        &mut self,
        wants: &Wants,
        usual: Receive,
        alone: bool,
    ) -> (Receive, bool) {
        let went_on = std::mem::take(&mut self.went_on);
        let arrived = std::mem::take(&mut self.arrived);
        // It has received as much as a whole turn of other models, or its output is so full that
        // it does not read. A client that sends some requests ahead does neither.
        let is_full = went_on && wants.write && !wants.read;
        if arrived >= kit::BYTES_PER_TURN || is_full || wants.turn {
            self.turns.use_up();
        } else if self.emptied && !wants.write && (self.received || went_on) {
            self.turns.wait();
        }
        let has_turn = std::mem::take(&mut self.has_turn);
        // The first bytes of a flood may be enough to refuse it.
        let is_new = std::mem::take(&mut self.is_new);
        match self.is_bulk() {
            true => (Receive::OneShot, has_turn || alone),
            false if is_new => (Receive::OneShot, true),
            false => (usual, true),
        }
    }

    /// A send was completed.
    fn sent(&mut self, result: io::Result<usize>, now: Instant) {
        self.sending = Request::None;
        self.went_on = true;
        match result {
            Ok(n) => self.conn.sent(n, now),
            Err(_) => self.conn.abort(),
        }
    }

    /// Where to send, and what.
    pub(crate) fn output(&mut self) -> (BorrowedFd<'_>, impl Iterator<Item = Bytes>) {
        (self.stream.as_fd(), self.conn.chunks())
    }

    /// True while a request is in flight.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.receiving != Request::None || self.sending != Request::None || self.reading_file
    }
}

/// The connections of the loop.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) worker: Worker,
    pub(crate) accepting: Request,
    table: Table<Connection>,
    /// Where other connections, of this loop or another, wake one of these.
    waker: Arc<Waker>,
    /// Wake-ups for connections of other loops, to be sent.
    pub(crate) wake_ups: Vec<WakeUp>,
    timers: Timers<Token>,
    runnable: VecDeque<Token>,
    /// Connections that run in the next iteration too.
    again: Vec<Token>,
    /// Bulk connections that wait for their turn, in one of the next iterations.
    bulk: VecDeque<Token>,
    /// Accepted by the kernel, but beyond the limit, or beyond what one iteration may take: not
    /// served yet, as if they were in the accept queue.
    accepted: VecDeque<OwnedFd>,
    /// New connections that this iteration may still take.
    accepts_left: usize,
    /// Connections for which something was sent in this iteration.
    served: usize,
    /// Those of them that are not bulk, in this iteration and in the one before.
    others: [usize; 2],
    /// How connections that are not bulk receive.
    pub(crate) receive: Receive,
    accept_pause: AcceptPause,
    /// When the server was told to stop.
    stopping: Option<Instant>,
    /// No client is accepted any more: those that waited by then are in the table.
    closed: bool,
}

impl Connections {
    pub(crate) fn new(worker: Worker, waker: Waker, receive: Receive) -> Connections {
        Connections {
            worker,
            accepting: Request::None,
            table: Table::default(),
            waker: Arc::new(waker),
            wake_ups: Vec::new(),
            timers: Timers::default(),
            runnable: VecDeque::new(),
            again: Vec::new(),
            bulk: VecDeque::new(),
            accepted: VecDeque::new(),
            accepts_left: accepts_per_iteration(0),
            served: 0,
            others: [0; 2],
            receive,
            accept_pause: AcceptPause::default(),
            stopping: None,
            closed: false,
        }
    }

    /// True when the server is stopping, no client waits to be accepted, and the last connection
    /// has ended.
    pub(crate) fn finished(&self) -> bool {
        self.closed && self.table.is_empty()
    }

    /// False at the limit of connections, without descriptors or memory, and while stopping.
    pub(crate) fn wants_accept(&mut self, now: Instant) -> bool {
        self.accept_pause.look(&self.worker.service.common.memory, now);
        let few = self.accepted.len() < *ACCEPTS_PER_ITERATION.end();
        self.stopping.is_none() && self.has_room() && few && self.accept_pause.until().is_none()
    }

    fn has_room(&self) -> bool {
        self.table.len() < self.worker.conns_max
    }

    /// Whether to accept the clients that wait by calls: the server is stopping, and the request
    /// to accept has ended.
    fn empties_queue(&self) -> bool {
        let idle = self.accepting == Request::None && self.accepted.is_empty();
        let room = self.has_room() && self.accept_pause.until().is_none();
        self.stopping.is_some() && !self.closed && idle && room
    }

    /// The server stops: accepts some of the clients that wait. By calls, because only these say
    /// that none is left.
    ///
    /// # Errors
    /// What accept(2) says, if it would say it again.
    pub(crate) fn empty_queue(&mut self, now: Instant) -> io::Result<()> {
        if self.empties_queue() {
            self.worker.listener.set_nonblocking()?;
        }
        for _ in 0..*ACCEPTS_PER_ITERATION.end() {
            if !self.empties_queue() {
                break;
            }
            let over = self.worker.stop.is_over(now);
            match if over { Accepted::Empty } else { self.worker.listener.accept()? } {
                Accepted::Client(stream) => self.insert(OwnedFd::from(stream), now),
                Accepted::Exhausted => self.accept_pause.exhausted(now),
                Accepted::Retry => {}
                Accepted::Empty => {
                    self.closed = true;
                    self.worker.listener.shutdown();
                }
            }
        }
        Ok(())
    }

    /// The kernel has accepted a connection, or says why not.
    ///
    /// # Errors
    /// What accept(2) says, if it would say it again.
    pub(crate) fn accepted(
        &mut self,
        result: io::Result<OwnedFd>,
        more: bool,
        now: Instant,
    ) -> io::Result<()> {
        if !more {
            self.accepting = Request::None;
        }
        match result {
            Ok(socket) => self.admit(socket, now),
            Err(error) => match self.worker.listener.accept_error(error)? {
                AcceptError::Passing => {}
                AcceptError::Exhausted => self.accept_pause.exhausted(now),
            },
        }
        Ok(())
    }

    /// Takes an accepted connection, or lets it wait for room or for the next iteration: one
    /// request brings all clients that wait, and the other connections must not wait for all of
    /// them.
    fn admit(&mut self, socket: OwnedFd, now: Instant) {
        self.accepted.push_back(socket);
        self.take_accepted(now);
    }

    fn take_accepted(&mut self, now: Instant) {
        while self.accepts_left > 0
            && self.has_room()
            && let Some(socket) = self.accepted.pop_front()
        {
            self.accepts_left -= 1;
            self.insert(socket, now);
        }
    }

    fn insert(&mut self, socket: OwnedFd, now: Instant) {
        let token = self.table.next_token();
        // Other loops are given the `user_data` under which their messages arrive.
        let waker = Arc::clone(&self.waker) as Arc<dyn Wake>;
        let address = Address::new(waker, pack(Op::WakeUp, token));
        self.table.insert(Connection {
            conn: self.worker.conn(address, now),
            stream: TcpStream::from(socket),
            receiving: Request::None,
            receive: self.receive,
            sending: Request::None,
            reading_file: false,
            received: true,
            is_new: true,
            emptied: false,
            late: false,
            arrived: 0,
            turns: Turns::default(),
            went_on: false,
            sent: None,
            put_off: false,
            has_turn: false,
            armed: Armed::default(),
            queued: false,
        });
        self.runs(token);
        if let (Some(at), Some(connection)) = (self.stopping, self.get(token)) {
            connection.drain(at);
        }
    }

    /// A send was completed, and the connection may go on. That is a turn, which a bulk connection
    /// has after others.
    pub(crate) fn sent(&mut self, token: Token, result: io::Result<usize>, now: Instant) {
        let alone = self.is_alone();
        let Some(connection) = self.get(token) else { return };
        if connection.is_bulk() && !alone {
            connection.sent = Some(result);
            self.put_off(token);
        } else {
            connection.sent(result, now);
            self.runs(token);
        }
    }

    /// Gives bulk connections their turn: a part of them in each iteration, while others run too.
    fn let_bulk_run(&mut self, now: Instant) {
        let n = if self.is_alone() {
            self.bulk.len()
        } else {
            kit::bulk_per_iteration(self.bulk.len())
        };
        for token in self.bulk.drain(..n).collect::<Vec<_>>() {
            let Some(connection) = self.get(token) else { continue };
            connection.put_off = false;
            connection.has_turn = true;
            if let Some(result) = connection.sent.take() {
                connection.sent(result, now);
            }
            self.runs(token);
        }
    }

    /// Lets a bulk connection wait for its turn.
    pub(crate) fn put_off(&mut self, token: Token) {
        if let Some(connection) = self.get(token)
            && !std::mem::replace(&mut connection.put_off, true)
        {
            self.bulk.push_back(token);
        }
    }

    /// True if only bulk connections were served lately.
    pub(crate) fn is_alone(&self) -> bool {
        self.others == [0; 2]
    }

    /// The connection of this token, unless it has ended.
    pub(crate) fn get(&mut self, token: Token) -> Option<&mut Connection> {
        self.table.get(token)
    }

    /// The same, and the files of the document root.
    pub(crate) fn get_with_files(&mut self, token: Token) -> Option<(&mut Connection, &Files)> {
        self.table.get(token).map(|connection| (connection, &*self.worker.files))
    }

    /// Notes a completion for a connection: it runs when all completions are noted.
    pub(crate) fn completed(&mut self, token: Token) -> Option<&mut Connection> {
        self.runs(token);
        self.get(token)
    }

    fn runs(&mut self, token: Token) {
        if let Some(connection) = self.get(token)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.runnable.push_back(token);
        }
    }

    /// Takes the pending wake-ups: wakes the connections of this loop, keeps those for others.
    pub(crate) fn take_wake_ups(&mut self, now: Instant) {
        for wake_up in msg_ring::collect() {
            match unpack(wake_up.user_data) {
                Some((_, token)) if self.waker.is_of(&wake_up) => self.woken(token, now),
                _ => self.wake_ups.push(wake_up),
            }
        }
    }

    /// Another connection wakes this one.
    pub(crate) fn woken(&mut self, token: Token, now: Instant) {
        if let Some(connection) = self.completed(token) {
            connection.conn.resume(now);
        }
    }

    /// How long the wait may last: zero while a connection can run, `None` without any deadline.
    pub(crate) fn prepare_to_wait(&self, now: Instant) -> Option<Duration> {
        if !self.runnable.is_empty()
            || !self.again.is_empty()
            || !self.bulk.is_empty()
            || self.empties_queue()
            || self.finished()
            || (!self.accepted.is_empty() && self.has_room())
        {
            return Some(Duration::ZERO);
        }
        let wake_at =
            [self.timers.earliest(), self.accept_pause.until()].into_iter().flatten().min()?;
        Some(wake_at.saturating_duration_since(now))
    }

    /// Begins an iteration: connections that are woken or late run too.
    pub(crate) fn begin_iteration(&mut self, now: Instant) {
        self.accepts_left = accepts_per_iteration(std::mem::take(&mut self.served));
        self.others = [0, self.others[0]];
        self.let_bulk_run(now);
        self.take_accepted(now);
        self.take_wake_ups(now);
        for token in std::mem::take(&mut self.again) {
            self.woken(token, now);
        }
        if let Some(at) = self.worker.stop.requested_at()
            && self.stopping.is_none()
        {
            self.stopping = Some(at);
            for token in self.table.tokens() {
                self.completed(token).into_iter().for_each(|connection| connection.drain(at));
            }
        }
        while let Some((at, token)) = self.timers.pop_due(now) {
            if let Some(connection) = self.get(token)
                && Timers::<Token>::fired(&mut connection.armed, at)
            {
                self.runs(token);
            }
        }
    }

    /// The next connection of this iteration.
    pub(crate) fn next_runnable(&mut self) -> Option<Token> {
        loop {
            let token = self.runnable.pop_front()?;
            if let Some(connection) = self.get(token) {
                connection.queued = false;
                return Some(token);
            }
        }
    }

    /// Makes sure that a connection runs at its deadline, and in the next iteration if it is
    /// unfinished.
    pub(crate) fn waits(&mut self, token: Token, wants: &Wants) {
        if let Some(connection) = self.table.get(token) {
            self.timers.arm(token, &mut connection.armed, wants.deadline);
            let served = usize::from(connection.sending == Request::Pending);
            self.served += served;
            self.others[0] += if connection.is_bulk() { 0 } else { served };
            if wants.turn {
                self.again.push(token);
            }
        }
    }

    /// Removes a connection that has nothing in flight, and takes the next one. Returns the
    /// socket, to be closed.
    pub(crate) fn remove(&mut self, token: Token, now: Instant) -> Option<OwnedFd> {
        let connection = self.table.remove(token)?;
        self.accept_pause.end();
        self.take_accepted(now);
        kit::give_back(&mut self.table.slab, &mut self.timers);
        Some(OwnedFd::from(connection.stream))
    }
}
