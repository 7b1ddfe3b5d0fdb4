//! All connections of one loop: which of them can run, and which are late.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Address, Wake};
use kit::{AcceptPause, Accepted, SCRATCH_BYTES, Timers, Worker, accepts_per_iteration, give_back};
use slab::Slab;

use crate::connection::{Connection, TurnEnd};
use crate::interest::FIRST_CONNECTION;
use crate::runnable::Runnable;
use crate::wake_up::WakeUps;
use crate::{Answer, Interest, InterestList, LISTENER, STOP, Token, WAKE_UP};

/// The connections of one loop, its listener, and what wakes it.
#[derive(Debug)]
pub struct Connections {
    worker: Worker,
    table: Slab<Connection>,
    /// Where other connections, of this loop or another, wake one of these.
    wake_ups: Arc<WakeUps>,
    /// Those that were woken, while they are noted.
    woken: Vec<Token>,
    timers: Timers<Token>,
    runnable: Runnable,
    /// Those that still run in this iteration.
    running: VecDeque<Token>,
    scratch: Box<[u8]>,
    /// Whether the listener, the stop signal and the wake-ups are on the interest list, by token.
    watched: [bool; FIRST_CONNECTION],
    listener_is_ready: bool,
    /// Clients that may still be accepted in this iteration.
    accepts_left: usize,
    /// Connections that had a turn in this iteration and are still open.
    served: usize,
    accept_pause: AcceptPause,
    /// When the server was told to stop.
    stopping: Option<Instant>,
    /// No client is accepted any more: those that waited by then are in the table.
    closed: bool,
}

impl Connections {
    /// An empty loop.
    ///
    /// # Errors
    /// What eventfd(2) says.
    pub fn new(worker: Worker) -> io::Result<Connections> {
        Ok(Connections::with(worker, WakeUps::new()?))
    }

    /// The same, for a wait that an eventfd(2) cannot end.
    ///
    /// # Errors
    /// What pipe2(2) says.
    pub fn woken_by_pipe(worker: Worker) -> io::Result<Connections> {
        Ok(Connections::with(worker, WakeUps::by_pipe()?))
    }

    fn with(worker: Worker, wake_ups: WakeUps) -> Connections {
        Connections {
            worker,
            table: Slab::new(),
            wake_ups: Arc::new(wake_ups),
            woken: Vec::new(),
            timers: Timers::default(),
            runnable: Runnable::default(),
            running: VecDeque::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            watched: [false; FIRST_CONNECTION],
            listener_is_ready: false,
            accepts_left: accepts_per_iteration(0),
            served: 0,
            accept_pause: AcceptPause::default(),
            stopping: None,
            closed: false,
        }
    }

    /// True when the server is stopping, no client waits to be accepted, and the last connection
    /// has ended.
    pub fn finished(&self) -> bool {
        self.closed && self.table.is_empty()
    }

    /// To be called right before each wait. Returns how long the wait may last: zero while a
    /// connection is unfinished, `None` if there is no deadline. Until [`Connections::run`] the
    /// loop counts as asleep: another thread that wakes it makes [`WAKE_UP`] readable.
    ///
    /// # Errors
    /// What `list` says.
    pub fn prepare_to_wait(
        &mut self,
        list: &mut impl InterestList,
        now: Instant,
    ) -> io::Result<Option<Duration>> {
        self.watch(list, now)?;
        let may_accept = self.empties_queue() || self.listener_is_ready && self.has_room();
        if !self.runnable.is_empty() || !self.wake_ups.may_sleep() || may_accept {
            return Ok(Some(Duration::ZERO));
        }
        let wake_at =
            [self.timers.earliest(), self.accept_pause.until()].into_iter().flatten().min();
        Ok(wake_at.map(|at| at.saturating_duration_since(now)))
    }

    /// Watches the listener exactly while new connections are wanted, the stop signal until it has
    /// come, and the wake-ups always. The listener is taken off the list and not left there
    /// without interest, because HUP, which follows the server's own shutdown(2), is always
    /// reported.
    fn watch(&mut self, list: &mut impl InterestList, now: Instant) -> io::Result<()> {
        let wanted = [self.wants_listener(now), self.stopping.is_none(), true];
        for token in [LISTENER, STOP, WAKE_UP] {
            if wanted[token] != self.watched[token] {
                self.watched[token] = wanted[token];
                let fd = match token {
                    LISTENER => self.worker.listener.as_fd(),
                    STOP => self.worker.stop.as_fd(),
                    _ => self.wake_ups.as_fd(),
                };
                if wanted[token] { list.add(token, fd)? } else { list.delete(token, fd)? }
            }
        }
        Ok(())
    }

    /// False at the limit of connections, without descriptors or memory, and once it is closed.
    fn wants_listener(&mut self, now: Instant) -> bool {
        self.accept_pause.look(&self.worker.service.common.memory, now);
        self.has_room()
    }

    fn has_room(&self) -> bool {
        let full = self.table.len() >= self.worker.conns_max;
        !self.closed && !full && self.accept_pause.until().is_none()
    }

    /// The server is stopping: clients that wait to be accepted are served, and only accept(2)
    /// says whether there are any.
    fn empties_queue(&self) -> bool {
        self.stopping.is_some() && self.has_room()
    }

    /// Notes an answer. The connection runs when all answers are noted.
    pub fn ready(&mut self, token: Token, answer: Answer) {
        match token {
            LISTENER => self.listener_is_ready = true,
            // The flag behind it is looked at in each iteration.
            STOP => {}
            WAKE_UP => self.wake_ups.reset(),
            _ => {
                if let Some(connection) = self.table.get_mut(token - FIRST_CONNECTION) {
                    connection.ready(answer);
                    self.runnable.add(connection, token);
                }
            }
        }
    }

    /// Notes that the listener and every connection may be ready: for a loop that does not ask.
    pub fn all_may_be_ready(&mut self) {
        self.listener_is_ready = true;
        for (key, connection) in &mut self.table {
            connection.ready(Answer { read: true, write: true, ..Answer::default() });
            self.runnable.add(connection, key + FIRST_CONNECTION);
        }
    }

    /// Accepts clients that wait, as many as there is room for and one iteration may take. Those
    /// left over are reported again where the listener is level-triggered, and are remembered where
    /// it is not.
    ///
    /// # Errors
    /// What accept(2) says and no retry can mend, or `list`.
    pub fn accept(&mut self, list: &mut impl InterestList, now: Instant) -> io::Result<()> {
        if !std::mem::take(&mut self.listener_is_ready) && !self.empties_queue() {
            return Ok(());
        }
        if self.worker.stop.is_over(now) {
            self.close();
        }
        // What was taken above, unless the accept queue is found empty.
        self.listener_is_ready = list.accept_again();
        while self.accepts_left > 0 && self.wants_listener(now) {
            self.accepts_left -= 1;
            match self.worker.listener.accept()? {
                Accepted::Client(stream) if !list.fits(stream.as_fd()) => {
                    self.worker.service.counters.refused();
                }
                Accepted::Client(stream) => {
                    let entry = self.table.vacant_entry();
                    let token = entry.key() + FIRST_CONNECTION;
                    list.add(token, stream.as_fd())?;
                    let wake_ups = Arc::clone(&self.wake_ups) as Arc<dyn Wake>;
                    let address = Address::new(wake_ups, token as u64);
                    // `now` may be before the client connected: a deadline would come too early.
                    let conn = self.worker.conn(address, Instant::now());
                    let connection = entry.insert(Connection::new(stream, conn));
                    if let Some(at) = self.stopping {
                        connection.drain(at);
                        self.runnable.add(connection, token);
                    }
                    let deadline = connection.deadline();
                    self.timers.arm(token, &mut connection.armed, deadline);
                }
                Accepted::Empty => {
                    self.listener_is_ready = false;
                    if self.stopping.is_none() {
                        break;
                    }
                    self.close();
                }
                Accepted::Retry => {}
                Accepted::Exhausted => self.accept_pause.exhausted(now),
            }
        }
        Ok(())
    }

    /// Gives one turn to each connection that is ready, woken, late or unfinished, and asks the
    /// kernel for what it then waits for.
    ///
    /// # Errors
    /// What `list` says.
    pub fn run(&mut self, list: &mut impl InterestList, now: Instant) -> io::Result<()> {
        self.begin_iteration(now);
        while let Some(token) = self.running.pop_front() {
            self.turn(list, token, now)?;
        }
        Ok(())
    }

    fn begin_iteration(&mut self, now: Instant) {
        self.accepts_left = accepts_per_iteration(std::mem::take(&mut self.served));
        if let Some(at) = self.worker.stop.requested_at() {
            self.stop(at);
        }
        self.wake_ups.collect(&mut self.woken);
        for &token in &self.woken {
            // Its connection may be gone, or another one may have its token: that one is woken for
            // nothing.
            if let Some(connection) = self.table.get_mut(token - FIRST_CONNECTION) {
                connection.wake();
                self.runnable.add(connection, token);
            }
        }
        while let Some((at, token)) = self.timers.pop_due(now) {
            if let Some(connection) = self.table.get_mut(token - FIRST_CONNECTION)
                && Timers::<Token>::fired(&mut connection.armed, at)
            {
                self.runnable.add(connection, token);
            }
        }
        // A connection that is unfinished after its turn has the next one in the next iteration.
        self.runnable.take_iteration(&mut self.running);
    }

    fn turn(&mut self, list: &mut impl InterestList, token: Token, now: Instant) -> io::Result<()> {
        let key = token - FIRST_CONNECTION;
        let Some(connection) = self.table.get_mut(key) else { return Ok(()) };
        connection.queued = false;
        match connection.turn(now, &mut self.scratch, &self.worker.files, list) {
            TurnEnd::Waits(wants) => {
                self.timers.arm(token, &mut connection.armed, wants.deadline);
                let interest = Interest { read: wants.read, write: wants.write };
                list.modify(token, connection.as_fd(), interest)?;
            }
            TurnEnd::Unfinished(wants) => {
                self.timers.arm(token, &mut connection.armed, wants.deadline);
                self.runnable.add(connection, token);
            }
            TurnEnd::Closed => {
                list.delete(token, connection.as_fd())?;
                self.table.remove(key);
                give_back(&mut self.table, &mut self.timers);
                self.accept_pause.end();
                return Ok(());
            }
        }
        self.served += 1;
        Ok(())
    }

    fn stop(&mut self, at: Instant) {
        if self.stopping.is_none() {
            self.stopping = Some(at);
            for (key, connection) in &mut self.table {
                connection.drain(at);
                self.runnable.add(connection, key + FIRST_CONNECTION);
            }
        }
    }

    /// From now on clients are refused.
    fn close(&mut self) {
        self.closed = true;
        self.worker.listener.shutdown();
    }
}
