//! The epoll loop (epoll(7)): one thread, its share of the connections, no allocation per request.
//!
//! What keeps it cheap, so that the client is not what is measured:
//! - a complete reply is followed by the next request at once, in the same turn; no readiness for
//!   writing is waited for unless a send buffer is really full. (Reading 4, 8 or 64 replies first
//!   and sending then was tried, twice: no cheaper, and it invites lockstep, client and server
//!   taking turns);
//! - a short read proves a stream socket empty (epoll(7)), so there is no second recv(2);
//! - edge-triggered and never modified: two system calls per request and a share of epoll_wait,
//!   which does not look again at every socket that it reported last time, as level-triggered it
//!   must (no readiness is lost: every event is read to a short read, see `undrained`);
//! - no wait has a timeout of its own but at the borders of the window: a timer that beats every 20
//!   ms (timerfd_create(2)) does for all, so that falling asleep arms none;
//! - one receive buffer for all connections, hot in the cache; replies are compared where they lie.
//!
//! A protocol that has more to say than requests (a TLS handshake, a greeting, acknowledgements)
//! says it through `Connection`; here such a connection is `Opening` for a while, and that is all.
//!
//! An event names a slot. It cannot be stale: a descriptor appears at most once in a batch, and
//! while a batch is worked on no other connection than the event's own is made anew.

mod coarse;
mod fan_out;
mod lives;
mod open;
mod phases;
mod slices;
mod stops;

pub(crate) use open::ExactTimers;
pub(crate) use stops::Stops;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::timerfd::{self, TimerFd};
use nix::time::{ClockId, clock_gettime};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::codec::{Codec, Wrong};
use crate::connection::{Buffers, Connection, Pending, Phase, Received};
use crate::gate::Gate;
use crate::open_loop::{self, OpenLoop};
use crate::outgoing::Sent;
use crate::schedule::ClosedLoop;
use crate::socket::Sockets;
use crate::tally::{Fault, Tally};
use crate::tls::{Agreed, Client};
use crate::{Error, Live, Observer, Plan, Stage};

use coarse::CoarseWait;
use fan_out::Room;
use stops::Watch;

/// Events fetched at once. 64 connections fit; with thousands, borders are still met within a few
/// ms.
const EVENTS_MAX: usize = 256;
/// Reads from one connection before the others have their turn.
const READS_PER_TURN_MAX: u32 = 16;
/// How often the run is shown to others: as often as an eye can follow, and no more.
const TICK_NS: u64 = 100_000_000;
/// How exactly time limits are kept.
const SWEEP_NS: u64 = 20_000_000;
/// The server is given up when connects fail for so long without a single reply.
const DEAD_AFTER_NS: u64 = 1_000_000_000;
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
    /// Connections that were asked and completed nothing.
    pub(crate) without_progress: u32,
    /// What was on its way when the window ended.
    pub(crate) at_end: AtEnd,
    /// When the client did not run.
    pub(crate) stops: Stops,
    /// Whether it had to wait by epoll_wait(2), which counts milliseconds.
    pub(crate) coarse_waits: bool,
    /// Errors before the window.
    pub(crate) errors_in_warmup: u64,
    /// Why the window ended before its time, if it did.
    pub(crate) ended_early: Option<String>,
    /// What an open loop counted, and the share of the window in which the client worked.
    pub(crate) open: Option<(open_loop::Counts, f64)>,
    /// What TLS's sides agreed on, if there was a handshake.
    pub(crate) agreed: Option<Agreed>,
    /// The counters.
    pub(crate) tally: Tally,
}

/// What was on its way when the window ended: see [`record::AtEnd`].
#[derive(Debug, Default)]
pub(crate) struct AtEnd {
    pub(crate) in_flight: u64,
    pub(crate) oldest_ns: u64,
    pub(crate) unanswered: u64,
    pub(crate) oldest_unanswered_ns: u64,
    pub(crate) overdue: u64,
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

/// Where a connection is after its replies were taken.
enum Stays {
    /// In its place.
    Here,
    /// Set aside, with a new one in its place.
    Aside,
}

/// What an event of the heartbeat names instead of a slot.
const HEARTBEAT: u64 = u64::MAX;

/// The loop and all that it owns.
pub(crate) struct Engine<'a, C: Codec> {
    share: Share<'a>,
    codec: C,
    observer: Option<&'a mut dyn Observer>,
    /// This side of TLS, if the plan has it.
    client: Option<Client>,
    /// What it agreed on first.
    agreed: Option<Agreed>,
    epoll: OwnedFd,
    connections: Vec<Connection<C::Reader>>,
    /// Requests on their way at once on each connection, at most.
    depth: usize,
    /// A connection with so many on their way, or fewer, is given more.
    refilled_at: usize,
    /// Places beyond the plan's that were used for connections set aside, and are free again.
    spare: Vec<usize>,
    /// Who has heard what, in a fan-out.
    room: Option<Room>,
    events: Vec<epoll::Event>,
    /// Takes the place of epoll_pwait2(2) where there is none.
    coarse: Option<CoarseWait>,
    /// Beats every [`SWEEP_NS`], or more often. An open loop has exact timeouts instead.
    heartbeat: Option<TimerFd>,
    buffers: Buffers,
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
    /// Whether the window goes on, or is over.
    measuring: bool,
    ending: bool,
    /// What is known of the client's own stops.
    watch: Watch,
    /// When requests were admitted that were lost after the window.
    lost_late_ns: Vec<u64>,
    /// Somebody has asked for the end.
    stopped: bool,
    /// Slots whose socket may hold more than their turn allowed to read: epoll says it only once.
    undrained: Vec<usize>,
    /// Slots without a socket that try again, and when.
    retries: Vec<(u64, usize)>,
    /// Since when connects fail, if none has succeeded since and nothing was answered.
    failing_since_ns: Option<u64>,
    /// Since when the server closes what it has just accepted, if nothing was answered since.
    turned_away_since_ns: Option<u64>,
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
        let connections = (0..share.connections)
            .map(|number| Connection::new(number, depth, codec.reader()))
            .collect();
        let open = open::new_loop(&share)?;
        let events_max = if open.is_some() { open::EVENTS_MAX } else { EVENTS_MAX };
        let heartbeat = match open {
            Some(_) => None,
            None => Some(heartbeat(&epoll, share.plan.request_timeout)?),
        };
        let no_event =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        Ok(Engine {
            client: Client::new(share.plan)?,
            agreed: None,
            codec,
            observer,
            epoll,
            connections,
            depth: depth as usize,
            refilled_at: refilled_at(share.plan),
            spare: Vec::new(),
            room: share.plan.fan_out.then(|| Room::new(share.connections)),
            events: vec![no_event; events_max],
            coarse: None,
            heartbeat,
            buffers: Buffers::new(share.plan.target.tls),
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
            measuring: false,
            ending: false,
            watch: Watch::default(),
            lost_late_ns: Vec::new(),
            stopped: false,
            undrained: Vec::new(),
            retries: Vec::with_capacity(share.connections as usize),
            failing_since_ns: None,
            turned_away_since_ns: None,
            last_reply_ns: 0,
            errors_in_warmup: 0,
            share,
        })
    }

    /// Waits for events until `until_ns` at most, and acts on them.
    fn turn(&mut self, until_ns: u64) -> Result<(), Error> {
        let retries = self.retries.iter().filter(|_| self.may_retry());
        let retry_ns = retries.map(|(due_ns, _)| *due_ns).min().unwrap_or(u64::MAX);
        let until_ns = until_ns.min(retry_ns);
        let wait_ns = match self.open {
            _ if !self.undrained.is_empty() => Some(0),
            Some(_) => Some(self.open_wait_ns(until_ns)),
            None => {
                Some(until_ns.saturating_sub(self.now_ns)).filter(|&wait_ns| wait_ns < SWEEP_NS)
            }
        };
        let count = self.wait(wait_ns)?;
        if self.open.is_some() {
            self.note_wait();
        }
        for at in 0..count {
            let event = self.events[at];
            if event.data.u64() == HEARTBEAT {
                self.beat()?;
                continue;
            }
            self.on_event(event.data.u64() as usize, event.flags);
        }
        for slot in std::mem::take(&mut self.undrained) {
            self.readable(slot, false);
        }
        self.clock();
        self.watch()?;
        if !self.retries.is_empty() {
            self.retry();
        }
        if self.now_ns >= self.next_sweep_ns {
            self.note_cpu()?;
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

    /// The timer has beaten.
    fn beat(&mut self) -> Result<(), Error> {
        self.next_sweep_ns = 0;
        // A timer that repeats goes on when its beats are read.
        let read = self.heartbeat.as_ref().map_or(Ok(()), TimerFd::wait);
        read.map_err(Error::system::<nix::errno::Errno>("reading a timerfd"))
    }

    /// One epoll_pwait2(2), for `wait_ns` at most, or until the heart beats; how many events it
    /// brought.
    fn wait(&mut self, wait_ns: Option<u64>) -> Result<usize, Error> {
        if let Some(coarse) = &mut self.coarse {
            return coarse.wait(wait_ns, &mut self.events);
        }
        let timeout = wait_ns.map(|wait_ns| Timespec {
            tv_sec: (wait_ns / SECOND_NS) as i64,
            tv_nsec: (wait_ns % SECOND_NS) as i64,
        });
        match epoll::wait(&self.epoll, self.events.as_mut_slice(), timeout.as_ref()) {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            // An old kernel, or a filter of system calls that does not know it (seccomp(2)).
            Err(Errno::NOSYS | Errno::PERM) if self.coarse.is_none() => {
                self.coarse = Some(CoarseWait::new(&self.epoll)?);
                self.wait(wait_ns)
            }
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
            let bytes_received = &mut self.tally.bytes_received;
            let received = self.connections[slot].receive(&mut self.buffers, bytes_received);
            let (count, drained) = match received {
                Received::Bytes { count, drained } => (count, drained),
                Received::Nothing => break,
                Received::End => return self.closed_by_server(slot),
                Received::Failed(errno) => return self.failed(slot, errno),
                Received::Broken(what) => return self.broken(slot, what),
            };
            reads_left -= 1;
            self.clock();
            if self.connections[slot].phase == Phase::Opening
                && let Err(what) = self.open_further(slot)
            {
                return self.lost(slot, Fault::Connect, what);
            }
            match self.take_replies(slot, count) {
                Ok(Stays::Here) if !self.has_left(slot) => {}
                Ok(_) => return,
                Err(Wrong(what)) => return self.lost(slot, Fault::Wrong, what),
            }
            if drained {
                if finished {
                    return self.closed_by_server(slot);
                }
                break;
            }
        }
        self.refill(slot);
    }

    /// Verifies the first `count` bytes of the receive buffer and counts the replies in them.
    fn take_replies(&mut self, slot: usize, count: usize) -> Result<Stays, Wrong> {
        let connection = &mut self.connections[slot];
        let phase = connection.phase;
        let Engine { codec, tally, open, room, now_ns, .. } = self;
        let mut replies = 0;
        let bytes = &self.buffers.plain[..count];
        let taken = connection.take(codec, bytes, |number, pending| {
            replies += 1;
            let counts = count_reply(tally, open, pending, *now_ns);
            if let Some(room) = room
                && room.heard(number)
            {
                tally.messages += u64::from(counts);
            }
        });
        if replies > 0 {
            connection.completed += replies;
            self.last_reply_ns = self.now_ns;
            (self.failing_since_ns, self.turned_away_since_ns) = (None, None);
        }
        taken?;
        match phase {
            Phase::Opening => {
                self.open_further(slot).map_err(Wrong)?;
                if self.connections[slot].phase == Phase::Open {
                    // What answered the greeting may have said that it leaves.
                    return self.look_whether_it_ends(slot);
                }
            }
            Phase::Open | Phase::Leaving => return self.look_whether_it_ends(slot),
            _ => {}
        }
        Ok(Stays::Here)
    }

    /// After replies: is this connection to end, and by whom?
    fn look_whether_it_ends(&mut self, slot: usize) -> Result<Stays, Wrong> {
        let reconnect = self.share.plan.reconnect;
        let connection = &mut self.connections[slot];
        let refused_from = match connection.phase {
            // The server has announced its end, and then this side is to close (RFC 9112, section
            // 9.6). Where each request asked for that, it waits for the server to be the first.
            Phase::Closing if !reconnect => Some(connection.awaited.first()),
            _ => self.codec.refused_from(&connection.reader),
        };
        if let Some(from) = refused_from {
            if self.room.is_some() {
                return Err(Wrong("the server sends a member away".to_owned()));
            }
            let refused = connection.leave(from);
            let answers_more = !connection.awaited.is_empty();
            self.tally.lost(refused.len() as u64, self.now_ns);
            self.give_back(&refused);
            if answers_more && !reconnect && !self.is_aside(slot) {
                self.set_aside(slot);
                return Ok(Stays::Aside);
            }
            return Ok(Stays::Here);
        }
        if connection.phase == Phase::Closing {
            connection.since_ns = self.now_ns;
        }
        if self.share.plan.reconnect && connection.awaited.is_empty() {
            self.finish_sending(slot);
        }
        Ok(Stays::Here)
    }

    /// One request per connection: the reply is complete, now the connection ends.
    fn finish_sending(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closing;
        connection.since_ns = self.now_ns;
        connection.say_farewell(&mut self.codec, &mut self.tally.bytes_sent);
        if !self.codec.server_closes_first()
            && let Some(socket) = &connection.socket
        {
            // A failure means that the server has closed already, which the next read reports.
            let _already_closed = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Admits as many requests as the schedule allows and the pipeline has room for, and sends
    /// them, in one piece; see [`refilled_at`].
    fn refill(&mut self, slot: usize) {
        if self.room.is_some() {
            self.send_if_any(slot);
            return self.speak();
        }
        if self.open.is_some() {
            self.send_if_any(slot);
            return self.list_if_free(slot);
        }
        let connection = &mut self.connections[slot];
        let under_way = connection.awaited.len();
        if connection.phase == Phase::Open
            && !self.share.plan.reconnect
            && under_way <= self.refilled_at
        {
            let credit = self.codec.credit(&connection.reader, connection.awaited.end());
            let room = (self.depth - under_way).min(credit as usize);
            let mut admitted = 0;
            while admitted < room && self.schedule.take() {
                connection.admit(Pending { due_ns: self.now_ns, sent_ns: self.now_ns });
                admitted += 1;
            }
            self.tally.admitted(admitted as u64, self.now_ns);
        }
        self.send_if_any(slot);
    }

    /// Sends if there is anything to send. After a farewell there is not, whatever is owed.
    #[inline]
    fn send_if_any(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        if connection.has_to_send() && connection.phase != Phase::Closing {
            self.send(slot);
        }
    }

    /// Sends what is admitted, as far as there is room.
    fn send(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let sent = connection.send(&mut self.codec, &mut self.tally.bytes_sent);
        connection.waits_for_room = sent == Sent::Full;
        if let Sent::Failed(errno) = sent {
            self.failed(slot, errno);
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
        let since_ns = [self.failing_since_ns, self.turned_away_since_ns].into_iter().flatten();
        since_ns.min().is_some_and(|since_ns| self.now_ns > since_ns + DEAD_AFTER_NS)
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

/// With how many requests on its way, at most, a connection is given more.
///
/// - A pipeline when three quarters of it are empty, so that requests go out in batches.
/// - A stream of messages when half of it is, so that it never runs dry.
/// - HTTP/2 when a single stream has ended: "32 streams" then means that there are 32 all the time,
///   as with h2load, and a slow stream holds up no other. It need not cost system calls: a
///   server's replies come in batches by themselves, many in one read, and what one read has freed
///   goes out in one send (counted against serve-epoll: 32 requests in each send, with 4 and with
///   64 connections). Where replies come one by one it does, and then they are worth it.
fn refilled_at(plan: &Plan) -> usize {
    let depth = plan.depth() as usize;
    match (plan.http2, plan.streaming) {
        (true, _) => depth - 1,
        (_, true) => depth / 2,
        _ => depth / 4,
    }
}

/// One reply, complete and right; whether it counts, see [`OpenLoop::answered`].
#[inline]
fn count_reply(
    tally: &mut Tally,
    open: &mut Option<OpenLoop>,
    pending: Pending,
    now_ns: u64,
) -> bool {
    let counts = match open {
        None => {
            tally.answered(now_ns.saturating_sub(pending.due_ns), now_ns);
            return true;
        }
        Some(open) => open.answered(pending, now_ns),
    };
    tally.answered_open(counts, now_ns);
    counts
}

/// The timer that wakes a closed loop, watched by `epoll`: often enough for this time limit.
fn heartbeat(epoll: &OwnedFd, limit: Duration) -> Result<TimerFd, Error> {
    use timerfd::{ClockId, Expiration, TimerFlags, TimerSetTimeFlags};
    let failed = Error::system::<nix::errno::Errno>;
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(failed("timerfd_create"))?;
    let beats = Expiration::Interval(limit.min(Duration::from_nanos(SWEEP_NS)).into());
    timer.set(beats, TimerSetTimeFlags::empty()).map_err(failed("timerfd_settime"))?;
    let data = epoll::EventData::new_u64(HEARTBEAT);
    epoll::add(epoll, &timer, data, epoll::EventFlags::IN)
        .map_err(Error::system::<Errno>("epoll_ctl"))?;
    Ok(timer)
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
