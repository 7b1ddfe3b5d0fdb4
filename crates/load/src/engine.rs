//! The epoll loop (epoll(7)): one thread, its share of the connections, no allocation per request.
//!
//! What keeps it cheap, so that the client is not what is measured:
//! - a complete reply is followed by the next request at once, in the same turn; no readiness for
//!   writing is asked for unless a send buffer is really full. (Reading a whole batch first and
//!   sending then was tried: no cheaper, and it invites lockstep, client and server taking turns);
//! - a short read proves a stream socket empty (epoll(7)), so there is no second recv(2);
//! - edge-triggered and never modified: two system calls per request and a share of epoll_wait,
//!   which does not look again at every socket that it reported last time, as level-triggered it
//!   must (no readiness is lost: every event is read to a short read, see `undrained`);
//! - one receive buffer for all connections, hot in the cache; replies are compared where they lie.
//!
//! An event names a slot. It cannot be stale: a descriptor appears at most once in a batch, and
//! while a batch is worked on no other connection than the event's own is closed.

mod open;

pub(crate) use open::ExactTimers;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::codec::{Codec, Step, Wrong};
use crate::connection::{Connection, Pending, Phase, Sent};
use crate::gate::{Broken, Gate};
use crate::open_loop::{self, OpenLoop};
use crate::schedule::ClosedLoop;
use crate::socket::{Sockets, connect_error};
use crate::tally::{Fault, Tally};
use crate::{Error, Length, Live, Observer, Plan, Stage};

/// Half of an L2 cache of today at most, and one recv(2) for most replies.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Events fetched at once. 64 connections fit; with thousands, borders are still met within a few
/// ms.
const EVENTS_MAX: usize = 256;
/// Reads from one connection before the others have their turn.
const READS_PER_TURN_MAX: u32 = 16;
/// connect(2)s in progress at once while ramping up: well below the backlog of 4,096 that servers
/// ask for (`somaxconn`), for a SYN that finds the backlog full is dropped and comes again a second
/// later.
const CONNECTING_MAX: usize = 512;
/// How often the run is shown to others: as often as an eye can follow, and no more.
const TICK_NS: u64 = 100_000_000;
/// How exactly time limits are kept.
const SWEEP_NS: u64 = 20_000_000;
/// Pause after a failed connect(2): a dead server must not be hammered.
const RECONNECT_PAUSE_NS: u64 = 20_000_000;
/// The server is given up when connects fail for so long without a single reply.
const DEAD_AFTER_NS: u64 = 1_000_000_000;
/// After the window, requests on their way may be answered for so long, so that the server sees its
/// connections end cleanly.
const DRAIN_NS: u64 = 500_000_000;
const SECOND_NS: u64 = 1_000_000_000;

const READ: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP);
/// What is asked of epoll, once for each connection.
const WATCHED: epoll::EventFlags = READ.union(epoll::EventFlags::OUT).union(epoll::EventFlags::ET);
/// The same for a connection that will never wait for room to send.
const WATCHED_FOR_READING: epoll::EventFlags = READ.union(epoll::EventFlags::ET);
const ENDED: epoll::EventFlags = epoll::EventFlags::HUP.union(epoll::EventFlags::ERR);

/// What one engine thread measured.
pub(crate) struct Window {
    /// Length, in nanoseconds.
    pub(crate) duration_ns: u64,
    /// CPU time of the thread, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Mean number of requests in flight.
    pub(crate) mean_in_flight: f64,
    /// Connections that completed nothing.
    pub(crate) without_progress: u32,
    /// Errors before the window.
    pub(crate) errors_in_warmup: u64,
    /// Why the window ended before its time, if it did.
    pub(crate) ended_early: Option<String>,
    /// What an open loop counted, and the share of the window in which the client worked.
    pub(crate) open: Option<(open_loop::Counts, f64)>,
    /// The counters.
    pub(crate) tally: Tally,
}

/// One thread's share of a run.
pub(crate) struct Share<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) sockets: &'a Sockets,
    pub(crate) gate: &'a Gate,
    /// This thread's number.
    pub(crate) thread: u32,
    /// The first connection's number in the whole run.
    pub(crate) first: u32,
    /// How many connections.
    pub(crate) connections: u32,
    /// How many requests, when the plan counts requests.
    pub(crate) requests: u64,
    /// Where the run can be seen, and stopped.
    pub(crate) live: &'a Live,
}

/// The loop and all that it owns.
pub(crate) struct Engine<'a, C: Codec> {
    share: Share<'a>,
    codec: C,
    observer: Option<&'a mut dyn Observer>,
    epoll: OwnedFd,
    connections: Vec<Connection<C::Reader>>,
    /// Requests on their way at once on each connection, at most.
    depth: usize,
    events: Vec<epoll::Event>,
    received: Vec<u8>,
    schedule: ClosedLoop,
    /// Takes the place of `schedule` in an open loop.
    open: Option<OpenLoop>,
    /// When the last wait for events ended.
    woke_ns: u64,
    /// Time spent in waits for events, in an open loop.
    waited_ns: u64,
    tally: Tally,
    origin: Instant,
    now_ns: u64,
    next_sweep_ns: u64,
    next_tick_ns: u64,
    phase_started_ns: u64,
    /// Requests and errors that were shown so far.
    shown: (u64, u64),
    /// Somebody has asked for the end.
    stopped: bool,
    /// Slots whose socket may hold more than their turn allowed to read: epoll says it only once.
    undrained: Vec<usize>,
    /// Slots without a socket that try again, and when.
    retries: Vec<(u64, usize)>,
    /// Since when connects fail, if none has succeeded since and nothing was answered.
    failing_since_ns: Option<u64>,
    last_reply_ns: u64,
    errors_in_warmup: u64,
}

impl<'a, C: Codec> Engine<'a, C> {
    /// An engine whose connections have no sockets yet.
    pub(crate) fn new(
        share: Share<'a>,
        codec: C,
        observer: Option<&'a mut dyn Observer>,
    ) -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(Error::system::<Errno>("epoll_create1"))?;
        let depth = share.plan.depth();
        let connections =
            (0..share.connections).map(|_| Connection::new(depth, codec.reader())).collect();
        let open = open::new_loop(&share)?;
        let events_max = if open.is_some() { open::EVENTS_MAX } else { EVENTS_MAX };
        let no_event =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        Ok(Engine {
            codec,
            observer,
            epoll,
            connections,
            depth: depth as usize,
            events: vec![no_event; events_max],
            received: vec![0; RECEIVE_BYTES],
            schedule: ClosedLoop::stopped(),
            open,
            woke_ns: 0,
            waited_ns: 0,
            tally: Tally::new()?,
            origin: Instant::now(),
            now_ns: 0,
            next_sweep_ns: SWEEP_NS,
            next_tick_ns: TICK_NS,
            phase_started_ns: 0,
            shown: (0, 0),
            stopped: false,
            undrained: Vec::new(),
            retries: Vec::with_capacity(share.connections as usize),
            failing_since_ns: None,
            last_reply_ns: 0,
            errors_in_warmup: 0,
            share,
        })
    }

    /// Connects, warms up, measures, and lets what is on its way come to its end.
    pub(crate) fn run(mut self) -> Result<Window, Error> {
        let gate = self.share.gate;
        let told = |Broken| Error::Internal("another thread of this run gave up".to_owned());
        if !self.share.plan.reconnect {
            self.ramp_up()?;
        }
        gate.pass().map_err(told)?;
        self.warm_up()?;
        gate.pass().map_err(told)?;
        if let Some(observer) = &mut self.observer {
            observer.window_started();
        }
        let cpu_ns = thread_cpu_ns()?;
        self.start_window();
        let ended_early = self.measure()?;
        let (end_ns, cpu_ns) = (self.clock(), thread_cpu_ns()? - cpu_ns);
        self.schedule = ClosedLoop::stopped();
        let busy_share = self.end_open_window(end_ns);
        gate.pass().map_err(told)?;
        if let Some(observer) = &mut self.observer {
            observer.window_ended();
        }
        let duration_ns = end_ns - self.phase_started_ns;
        let mean_in_flight = self.tally.mean_in_flight(end_ns, duration_ns);
        let idle = |connection: &&Connection<C::Reader>| connection.completed == 0;
        let without_progress = self.connections.iter().filter(idle).count() as u32;
        let fresh = Tally::new()?.carrying(&self.tally);
        let tally = std::mem::replace(&mut self.tally, fresh);
        self.enter(Stage::Ending);
        self.drain(if self.open.is_some() { open::DRAIN_NS } else { DRAIN_NS })?;
        let open = self.finish_open().map(|counts| (counts, busy_share));
        let errors_in_warmup = self.errors_in_warmup;
        Ok(Window {
            duration_ns,
            cpu_ns,
            mean_in_flight,
            without_progress,
            errors_in_warmup,
            ended_early,
            open,
            tally,
        })
    }

    /// Opens all connections before any load, in batches that fit into a listener's backlog.
    fn ramp_up(&mut self) -> Result<(), Error> {
        let (total, mut begun) = (self.connections.len(), 0);
        let patience_ns = self.timeout_ns().max(SECOND_NS);
        self.clock();
        let mut progress_ns = self.now_ns;
        let mut open = 0;
        while open < total {
            while begun < total && begun - open < CONNECTING_MAX {
                self.connect(begun);
                begun += 1;
            }
            self.turn(self.now_ns + SWEEP_NS)?;
            if self.stopped {
                return Err(Error::Interrupted);
            }
            let is_open = |connection: &&Connection<_>| connection.phase == Phase::Open;
            let open_now = self.connections.iter().filter(is_open).count();
            if open_now > open {
                progress_ns = self.now_ns;
            }
            open = open_now;
            if self.now_ns > progress_ns + patience_ns {
                let reason = self.tally.first_error.take();
                let reason = reason.unwrap_or_else(|| "the server stopped accepting".to_owned());
                return Err(Error::Ramp { opened: open as u32, asked: total as u32, reason });
            }
        }
        Ok(())
    }

    /// Sends load that is not counted. A run of exactly so many requests begins with nothing in
    /// flight.
    fn warm_up(&mut self) -> Result<(), Error> {
        let warmup_ns = nanoseconds(self.share.plan.warmup);
        self.clock();
        self.phase_started_ns = self.now_ns;
        if warmup_ns == 0 {
            return Ok(());
        }
        self.enter(Stage::WarmingUp);
        let end_ns = self.now_ns + warmup_ns;
        match &mut self.open {
            Some(open) => open.warm_up(self.now_ns),
            None => self.schedule = ClosedLoop::endless(),
        }
        self.kick();
        while self.now_ns < end_ns && !self.is_dead() {
            self.turn(end_ns)?;
            if self.stopped {
                return Err(Error::Interrupted);
            }
        }
        if matches!(self.share.plan.length, Length::Requests(_)) {
            self.schedule = ClosedLoop::stopped();
            if let Some(open) = &mut self.open {
                open.stop();
            }
            self.drain(self.timeout_ns() + SWEEP_NS)?;
        }
        Ok(())
    }

    /// Sets the counters to zero and lets the load begin, or go on.
    fn start_window(&mut self) {
        self.clock();
        self.phase_started_ns = self.now_ns;
        self.last_reply_ns = self.now_ns;
        self.errors_in_warmup = self.tally.errors_sum();
        self.tally.start(self.now_ns);
        self.enter(Stage::Measuring);
        self.connections.iter_mut().for_each(|connection| connection.completed = 0);
        self.waited_ns = 0;
        let (end_ns, budget) = (self.window_end_ns(), self.share.requests);
        let counted = end_ns == u64::MAX;
        match &mut self.open {
            Some(open) => {
                open.start_window(self.now_ns, end_ns, if counted { budget } else { u64::MAX });
            }
            None if counted => self.schedule = ClosedLoop::budget(budget),
            None => self.schedule = ClosedLoop::endless(),
        }
        self.kick();
    }

    /// When the window ends; `u64::MAX` if that is a matter of requests.
    fn window_end_ns(&self) -> u64 {
        match self.share.plan.length {
            Length::Window(window) => self.phase_started_ns.saturating_add(nanoseconds(window)),
            Length::Requests(_) => u64::MAX,
        }
    }

    /// Works until the window ends; why it ended early, if it did.
    fn measure(&mut self) -> Result<Option<String>, Error> {
        let end_ns = self.window_end_ns();
        let counted = end_ns == u64::MAX;
        while self.now_ns < end_ns {
            if counted && !self.has_work() {
                break;
            }
            if self.stopped {
                let seconds = (self.now_ns - self.phase_started_ns) as f64 / 1e9;
                return Ok(Some(format!("stopped {seconds:.1} s into the window")));
            }
            if self.is_dead() {
                let address = self.share.sockets.address();
                let seconds = (self.now_ns - self.phase_started_ns) as f64 / 1e9;
                return Ok(Some(format!(
                    "the server at {address} died: connections failed for the last second, \
                     given up {seconds:.1} s into the window"
                )));
            }
            // In an open loop long pauses may be planned; each request has its own time limit.
            let silent_ns = 2 * self.timeout_ns() + SECOND_NS;
            if counted && self.open.is_none() && self.now_ns > self.last_reply_ns + silent_ns {
                return Ok(Some(
                    "no reply came any more: given up before all were sent".to_owned(),
                ));
            }
            self.turn(end_ns)?;
        }
        Ok(None)
    }

    /// Whether requests are on their way, or will be sent.
    fn has_work(&self) -> bool {
        let spent = match &self.open {
            Some(open) => open.is_spent(),
            None => self.schedule.is_spent(),
        };
        !spent || self.tally.in_flight() > 0
    }

    /// Waits until nothing is in flight, for `limit_ns` at most. The schedule must have stopped.
    fn drain(&mut self, limit_ns: u64) -> Result<(), Error> {
        let end_ns = self.clock() + limit_ns;
        while self.now_ns < end_ns && self.has_work() && !self.is_dead() && !self.stopped {
            self.turn(end_ns)?;
        }
        Ok(())
    }

    /// Waits for events until `until_ns` at most, and acts on them.
    fn turn(&mut self, until_ns: u64) -> Result<(), Error> {
        let retry_ns = self.retries.iter().map(|(due_ns, _)| *due_ns).min().unwrap_or(u64::MAX);
        let until_ns = until_ns.min(self.next_sweep_ns).min(self.next_tick_ns).min(retry_ns);
        let wait_ns = match self.open {
            _ if !self.undrained.is_empty() => 0,
            Some(_) => self.open_wait_ns(until_ns),
            None => until_ns.saturating_sub(self.now_ns),
        };
        let count = self.wait(wait_ns)?;
        if self.open.is_some() {
            self.note_wait();
        }
        for at in 0..count {
            let event = self.events[at];
            self.on_event(event.data.u64() as usize, event.flags);
        }
        for slot in std::mem::take(&mut self.undrained) {
            self.readable(slot, false);
        }
        self.clock();
        if !self.retries.is_empty() {
            self.retry();
        }
        if self.now_ns >= self.next_sweep_ns {
            self.sweep();
        }
        if self.now_ns >= self.next_tick_ns {
            self.tick();
        }
        if self.open.is_some() {
            self.dispatch();
        }
        Ok(())
    }

    /// One epoll_pwait2(2), for `wait_ns` at most; how many events it brought.
    fn wait(&mut self, wait_ns: u64) -> Result<usize, Error> {
        let timeout = Timespec {
            tv_sec: (wait_ns / SECOND_NS) as i64,
            tv_nsec: (wait_ns % SECOND_NS) as i64,
        };
        match epoll::wait(&self.epoll, self.events.as_mut_slice(), Some(&timeout)) {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(errno) => Err(Error::system("epoll_pwait2")(errno)),
        }
    }

    fn on_event(&mut self, slot: usize, flags: epoll::EventFlags) {
        if self.connections[slot].phase == Phase::Connecting {
            // What has arrived already is not reported again: go on and read it.
            self.connected(slot);
        }
        if flags.contains(epoll::EventFlags::OUT) && self.connections[slot].waits_for_room {
            self.clock();
            self.send(slot);
            if self.open.is_some() {
                self.list_if_free(slot);
            }
        }
        if flags.intersects(READ.union(ENDED)) {
            self.readable(slot, flags.contains(epoll::EventFlags::RDHUP));
        }
    }

    /// Reads what has arrived, then asks again. `finished`: the server's FIN was seen before the
    /// read, so a read that comes back short leaves nothing behind.
    fn readable(&mut self, slot: usize, finished: bool) {
        let mut reads_left = READS_PER_TURN_MAX;
        loop {
            if reads_left == 0 {
                self.undrained.push(slot);
                break;
            }
            let Some(socket) = &self.connections[slot].socket else { return };
            let count = match recv(socket, self.received.as_mut_slice(), RecvFlags::empty()) {
                Ok((0, _)) => return self.closed_by_server(slot),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => return self.failed(slot, errno),
            };
            reads_left -= 1;
            self.clock();
            self.tally.bytes_received += count as u64;
            if let Err(Wrong(what)) = self.take_replies(slot, count) {
                return self.lost(slot, Fault::Wrong, what);
            }
            if count < self.received.len() {
                if finished {
                    return self.closed_by_server(slot);
                }
                break;
            }
        }
        self.refill(slot);
    }

    /// Verifies the first `count` bytes of the receive buffer and counts the replies in them.
    fn take_replies(&mut self, slot: usize, count: usize) -> Result<(), Wrong> {
        let connection = &mut self.connections[slot];
        let mut bytes = &self.received[..count];
        while !bytes.is_empty() {
            if connection.phase == Phase::Closing || connection.pending.is_empty() {
                return Err(Wrong(format!("{} bytes that nobody asked for", bytes.len())));
            }
            let number = connection.number;
            let step = self.codec.incoming(slot as u32, &mut connection.reader, number, bytes)?;
            let Step::Reply { consumed, last } = step else { return Ok(()) };
            bytes = &bytes[consumed..];
            let Some(pending) = connection.answered() else {
                return Err(Wrong("a reply to a request that was not sent completely".to_owned()));
            };
            connection.completed += 1;
            count_reply(&mut self.tally, &mut self.open, pending, self.now_ns);
            self.last_reply_ns = self.now_ns;
            self.failing_since_ns = None;
            if last {
                connection.phase = Phase::Closing;
                connection.since_ns = self.now_ns;
            }
        }
        if self.share.plan.reconnect && connection.pending.is_empty() {
            self.finish_sending(slot);
        }
        Ok(())
    }

    /// One request per connection: the reply is complete, now the connection ends.
    fn finish_sending(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closing;
        connection.since_ns = self.now_ns;
        if !self.codec.server_closes_first()
            && let Some(socket) = &connection.socket
        {
            // A failure means that the server has closed already, which the next read reports.
            let _already_closed = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Admits as many requests as the schedule allows and the pipeline has room for, and sends
    /// them. A pipeline is refilled when three quarters of it are empty, so that requests go out in
    /// batches; a stream when half of it is, so that it never runs dry.
    fn refill(&mut self, slot: usize) {
        if self.open.is_some() {
            return self.list_if_free(slot);
        }
        let connection = &mut self.connections[slot];
        let depth = self.depth;
        let under_way = connection.pending.len();
        let refilled_at = if self.share.plan.streaming { depth / 2 } else { depth / 4 };
        if connection.phase == Phase::Open && !self.share.plan.reconnect && under_way <= refilled_at
        {
            let mut admitted = 0;
            while under_way + admitted < depth && self.schedule.take() {
                connection.admit(Pending { due_ns: self.now_ns, sent_ns: self.now_ns });
                admitted += 1;
            }
            self.tally.admitted(admitted as u64, self.now_ns);
        }
        if connection.unsent > 0 {
            self.send(slot);
        }
    }

    /// Sends what is admitted, as far as there is room.
    fn send(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let sent = connection.send(slot as u32, &mut self.codec, &mut self.tally.bytes_sent);
        connection.waits_for_room = sent == Sent::Full;
        if let Sent::Failed(errno) = sent {
            self.failed(slot, errno);
        }
    }

    /// Gives a place a new connection. With one request per connection, the request is admitted
    /// now: its latency includes the handshake.
    fn connect(&mut self, slot: usize) {
        if self.share.plan.reconnect {
            let Some(pending) = self.next_of_its_own() else {
                self.connections[slot].phase = Phase::Parked;
                return;
            };
            self.connections[slot].admit(pending);
            self.tally.admitted(1, self.now_ns);
        }
        let index = self.share.first + slot as u32;
        let socket = match self.share.sockets.connect(index) {
            Ok(socket) => socket,
            Err(error) => return self.lost(slot, Fault::Connect, format!("connect: {error}")),
        };
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Connecting;
        connection.since_ns = self.now_ns;
        connection.socket = Some(socket);
        // On loopback the connection is usually made by now, so the request can follow at once.
        let mut flags = WATCHED;
        if connection.unsent > 0 {
            match connection.send(slot as u32, &mut self.codec, &mut self.tally.bytes_sent) {
                Sent::All => {
                    flags = WATCHED_FOR_READING;
                    connection.phase = Phase::Open;
                    self.failing_since_ns = None;
                    self.tally.connects += 1;
                }
                Sent::Full => {}
                Sent::Failed(errno) => {
                    return self.lost(slot, Fault::Connect, format!("connect: {errno}"));
                }
            }
        }
        let Some(socket) = &self.connections[slot].socket else { return };
        let data = epoll::EventData::new_u64(slot as u64);
        if let Err(errno) = epoll::add(&self.epoll, socket, data, flags) {
            self.lost(slot, Fault::Connect, format!("epoll_ctl failed: {errno}"));
        }
    }

    /// A connecting socket has an event: it is connected, or has failed.
    fn connected(&mut self, slot: usize) {
        self.clock();
        let connection = &mut self.connections[slot];
        if let Some(error) = connection.socket.as_ref().and_then(connect_error) {
            return self.lost(slot, Fault::Connect, format!("connect: {error}"));
        }
        connection.phase = Phase::Open;
        connection.since_ns = self.now_ns;
        connection.waits_for_room = false;
        self.failing_since_ns = None;
        self.tally.connects += 1;
        self.refill(slot);
    }

    /// The server's FIN has come.
    fn closed_by_server(&mut self, slot: usize) {
        self.clock();
        let connection = &mut self.connections[slot];
        if connection.phase != Phase::Closing && !connection.pending.is_empty() {
            match self.codec.end(slot as u32, &mut connection.reader, connection.number) {
                Err(Wrong(what)) => return self.lost(slot, Fault::Wrong, what),
                Ok(false) => {
                    let what = "the server closed the connection before its reply was complete";
                    return self.lost(slot, Fault::Closed, what.to_owned());
                }
                Ok(true) => {}
            }
            let Some(pending) = connection.answered() else {
                let what = "a reply to a request that was not sent completely".to_owned();
                return self.lost(slot, Fault::Wrong, what);
            };
            connection.completed += 1;
            count_reply(&mut self.tally, &mut self.open, pending, self.now_ns);
            self.last_reply_ns = self.now_ns;
            self.failing_since_ns = None;
        }
        self.tally.closed_by_server += u64::from(!self.share.plan.reconnect);
        self.reopen(slot);
    }

    /// A system call says that the connection is gone.
    fn failed(&mut self, slot: usize, errno: Errno) {
        if self.connections[slot].phase == Phase::Closing {
            // The last reply was complete: a server that then resets has lost nothing of ours.
            return self.closed_by_server(slot);
        }
        if self.connections[slot].pending.is_empty() {
            return self.closed_by_server(slot);
        }
        self.lost(slot, Fault::Closed, format!("the connection broke before the reply: {errno}"));
    }

    /// The server ended a connection as it may: what was still on its way is sent on a new one.
    fn reopen(&mut self, slot: usize) {
        let lost = self.close(slot, Phase::Parked);
        self.give_back(&lost);
        self.begin(slot);
    }

    /// Gives a place a new connection, or says that it is free for one when a request is due.
    fn begin(&mut self, slot: usize) {
        if self.open.is_some() && self.share.plan.reconnect {
            self.connections[slot].phase = Phase::Parked;
            return self.list_if_free(slot);
        }
        self.connect(slot);
    }

    /// Drops a connection and all that was on its way, which is handed over.
    fn close(&mut self, slot: usize, phase: Phase) -> Vec<Pending> {
        let connection = &mut self.connections[slot];
        let lost = connection.close(phase, self.codec.reader());
        self.tally.lost(lost.len() as u64, self.now_ns);
        if let Some(open) = &mut self.open
            && std::mem::take(&mut connection.listed)
        {
            open.remove_free(slot as u32);
        }
        lost
    }

    /// Requests lost their connection through no fault of theirs: they are sent again.
    fn give_back(&mut self, requests: &[Pending]) {
        match &mut self.open {
            Some(open) => requests.iter().for_each(|&one| open.give_back(one, self.now_ns)),
            None => self.schedule.give_back(requests.len() as u64),
        }
    }

    /// A promise was broken: one request is lost to it, the others on this connection are sent
    /// again, on a new one. That one is opened after the batch, so that errors cannot recurse.
    fn lost(&mut self, slot: usize, fault: Fault, what: String) {
        let lost = self.close(slot, Phase::Waiting);
        if let Some((&first, others)) = lost.split_first() {
            if let Some(open) = &mut self.open {
                open.lost(first);
            }
            self.give_back(others);
        }
        self.tally.error(fault, what);
        let pause_ns = match fault {
            Fault::Connect => {
                self.failing_since_ns.get_or_insert(self.now_ns);
                RECONNECT_PAUSE_NS
            }
            _ => 0,
        };
        self.retries.push((self.now_ns + pause_ns, slot));
    }

    /// Opens the connections whose time to try again has come.
    fn retry(&mut self) {
        let now_ns = self.now_ns;
        for (due_ns, slot) in std::mem::take(&mut self.retries) {
            if due_ns <= now_ns {
                self.begin(slot);
            } else {
                self.retries.push((due_ns, slot));
            }
        }
    }

    /// Starts every connection that is not at work: open and silent, or without a socket.
    fn kick(&mut self) {
        for slot in 0..self.connections.len() {
            self.clock();
            match self.connections[slot].phase {
                Phase::Parked => self.begin(slot),
                Phase::Open => self.refill(slot),
                Phase::Waiting | Phase::Connecting | Phase::Closing => {}
            }
        }
    }

    /// Gives up what has taken too long.
    fn sweep(&mut self) {
        self.next_sweep_ns = self.now_ns + SWEEP_NS.min(self.timeout_ns());
        let limit_ns = self.timeout_ns();
        for slot in 0..self.connections.len() {
            let connection = &self.connections[slot];
            let (since_ns, fault, what) = match connection.phase {
                Phase::Connecting => {
                    (connection.since_ns, Fault::Connect, "connect: no answer in time")
                }
                Phase::Closing => (
                    connection.since_ns,
                    Fault::Timeout,
                    "the server did not close a connection that it was to close",
                ),
                Phase::Open => match connection.pending.front() {
                    Some(pending) => (pending.sent_ns, Fault::Timeout, "no complete reply in time"),
                    None => continue,
                },
                Phase::Parked | Phase::Waiting => continue,
            };
            if self.now_ns.saturating_sub(since_ns) > limit_ns {
                self.lost(slot, fault, what.to_owned());
            }
        }
    }

    /// Shows how far we are, and looks whether the run was stopped.
    fn tick(&mut self) {
        self.next_tick_ns = self.now_ns + TICK_NS;
        let now = (self.tally.requests, self.tally.errors_sum());
        self.share.live.add(now.0 - self.shown.0, now.1 - self.shown.1);
        self.shown = now;
        self.stopped = self.share.live.is_stopped();
    }

    /// The first thread shows that another stage has begun. The others' counts of the last
    /// stage may trail in: it is a display.
    fn enter(&mut self, stage: Stage) {
        if self.share.thread == 0 {
            self.share.live.enter(stage);
        }
        self.shown = (self.tally.requests, self.tally.errors_sum());
    }

    fn is_dead(&self) -> bool {
        self.failing_since_ns.is_some_and(|since_ns| self.now_ns > since_ns + DEAD_AFTER_NS)
    }

    fn timeout_ns(&self) -> u64 {
        nanoseconds(self.share.plan.request_timeout)
    }

    /// Reads the clock, once per read of a socket: a vDSO call of some 30 ns.
    #[inline]
    fn clock(&mut self) -> u64 {
        self.now_ns = self.origin.elapsed().as_nanos() as u64;
        self.now_ns
    }
}

/// One reply, complete and right.
#[inline]
fn count_reply(tally: &mut Tally, open: &mut Option<OpenLoop>, pending: Pending, now_ns: u64) {
    match open {
        None => tally.answered(now_ns.saturating_sub(pending.due_ns), now_ns),
        Some(open) => tally.answered_open(open.answered(pending, now_ns), now_ns),
    }
}

/// A duration in nanoseconds; five centuries at most.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

/// CPU time of the calling thread (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).
fn thread_cpu_ns() -> Result<u64, Error> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_err(Error::system::<nix::errno::Errno>("clock_gettime"))?;
    Ok(time.tv_sec() as u64 * SECOND_NS + time.tv_nsec() as u64)
}
