//! The epoll loop (epoll(7)): one thread with its part of the connections, and no allocation per
//! request.
//!
//! What keeps the client cheap, so that the server is what is measured:
//! - After a complete reply the next request is sent at once, in the same iteration. The loop waits
//!   for EPOLLOUT only if a send buffer is full. (Reading 4, 8 or 64 replies before sending was
//!   tried twice. It was not cheaper, and it makes client and server work alternately.)
//! - A short read shows that a stream socket is empty (epoll(7)), so there is no second recv(2).
//! - Events are edge-triggered and never modified: two system calls per request and a part of an
//!   epoll_wait. A level-triggered epoll would check every socket of the last wait again. (No
//!   readiness is lost: every event is read to a short read, see `undrained`.)
//! - Waits have a timeout only at the ends of the window. A timer that fires every 20 ms
//!   (timerfd_create(2)) serves all other purposes, so that no wait arms a timer.
//! - All connections share one receive buffer, which stays in the cache. Replies are compared in
//!   it.
//!
//! A protocol that sends more than requests (a TLS handshake, a greeting, acknowledgements) does so
//! through `Connection`. Here such a connection is `Opening` for a while.
//!
//! An event names a slot. It is never stale: a descriptor appears at most once in a batch of
//! events, and while a batch is handled, only the event's own connection can be reopened.

mod coarse;
mod fan_out;
mod lifecycle;
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
use fan_out::Members;
use stops::Watch;

/// Events fetched at once. 64 connections fit. With thousands, the ends of the window are still met
/// within a few ms.
const EVENTS_MAX: usize = 256;
/// Reads from one connection before the others have their turn.
const READS_PER_TURN_MAX: u32 = 16;
/// How often the progress is published.
const TICK_NS: u64 = 100_000_000;
/// The precision of time limits.
const SWEEP_NS: u64 = 20_000_000;
/// The server is given up if connects fail for so long without a single reply.
const DEAD_AFTER_NS: u64 = 1_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

const READ: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP);
/// The events of each connection.
const WATCHED: epoll::EventFlags = READ.union(epoll::EventFlags::OUT).union(epoll::EventFlags::ET);
/// The same for a connection that never waits to send.
const WATCHED_FOR_READING: epoll::EventFlags = READ.union(epoll::EventFlags::ET);
const ENDED: epoll::EventFlags = epoll::EventFlags::HUP.union(epoll::EventFlags::ERR);

/// The result of one engine thread.
pub(crate) struct Window {
    /// In nanoseconds.
    pub(crate) duration_ns: u64,
    /// CPU time of the thread, in nanoseconds.
    pub(crate) cpu_ns: u64,
    pub(crate) mean_in_flight: f64,
    /// Connections that sent a request and completed none.
    pub(crate) without_progress: u32,
    /// Requests in flight when the window ended.
    pub(crate) at_end: AtEnd,
    /// When the client did not run.
    pub(crate) stops: Stops,
    /// Whether it had to use epoll_wait(2), which counts milliseconds.
    pub(crate) coarse_waits: bool,
    pub(crate) errors_in_warmup: u64,
    /// Why the window ended early, if it did.
    pub(crate) ended_early: Option<String>,
    /// The counts of an open loop, and the part of the window in which the client was busy.
    pub(crate) open: Option<(open_loop::Counts, f64)>,
    /// The result of the first TLS handshake, if there was one.
    pub(crate) agreed: Option<Agreed>,
    pub(crate) tally: Tally,
}

/// Requests in flight when the window ended: see [`record::AtEnd`].
#[derive(Debug, Default)]
pub(crate) struct AtEnd {
    pub(crate) in_flight: u64,
    pub(crate) oldest_ns: u64,
    pub(crate) unanswered: u64,
    pub(crate) oldest_unanswered_ns: u64,
    pub(crate) overdue: u64,
}

/// One thread's part of a run.
pub(crate) struct Share<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) sockets: &'a Sockets,
    pub(crate) gate: &'a Gate,
    pub(crate) thread: u32,
    /// The number of its first connection in the whole run.
    pub(crate) first: u32,
    pub(crate) connections: u32,
    /// Requests, if the plan has a number of them.
    pub(crate) requests: u64,
    pub(crate) live: &'a Live,
}

/// The place of a connection after its replies were processed.
enum Stays {
    /// Unchanged.
    Here,
    /// Set aside, with a new one in its place.
    Aside,
}

/// The heartbeat's number in an event, instead of a slot.
const HEARTBEAT: u64 = u64::MAX;

/// The loop and its state.
pub(crate) struct Engine<'a, C: Codec> {
    share: Share<'a>,
    codec: C,
    observer: Option<&'a mut dyn Observer>,
    /// The client's side of TLS, if the plan has it.
    client: Option<Client>,
    /// The result of the first TLS handshake.
    agreed: Option<Agreed>,
    epoll: OwnedFd,
    connections: Vec<Connection<C::Reader>>,
    /// Most requests in flight on each connection.
    depth: usize,
    /// A connection with at most so many in flight gets more.
    refilled_at: usize,
    /// Unused places beyond the plan's, for connections that are set aside.
    spare: Vec<usize>,
    /// The state of a fan-out.
    members: Option<Members>,
    events: Vec<epoll::Event>,
    /// Used if epoll_pwait2(2) is not available.
    coarse: Option<CoarseWait>,
    /// Fires at least every [`SWEEP_NS`]. An open loop has exact timeouts instead.
    heartbeat: Option<TimerFd>,
    buffers: Buffers,
    schedule: ClosedLoop,
    /// Replaces `schedule` in an open loop.
    open: Option<OpenLoop>,
    /// When the last wait for events ended.
    woke_ns: u64,
    /// Time spent waiting for events, in an open loop.
    waited_ns: u64,
    tally: Tally,
    origin: Instant,
    now_ns: u64,
    next_sweep_ns: u64,
    next_tick_ns: u64,
    phase_started_ns: u64,
    /// Requests and errors published so far.
    shown: (u64, u64),
    /// Whether the window is open.
    measuring: bool,
    ending: bool,
    /// Detects stops of the client.
    watch: Watch,
    /// When requests were admitted that were lost after the window.
    lost_late_ns: Vec<u64>,
    /// The run is to end.
    stopped: bool,
    /// Slots whose socket may hold more than one turn reads: epoll reports it only once.
    undrained: Vec<usize>,
    /// Slots without a socket, with the time of their next attempt.
    retries: Vec<(u64, usize)>,
    /// Since when connects fail, if none has succeeded and no reply came since.
    failing_since_ns: Option<u64>,
    /// Since when the server closes connections that it has just accepted, if no reply came since.
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
            members: share.plan.fan_out.then(|| Members::new(share.connections)),
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

    /// Waits for events until `until_ns`, and handles them.
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
                self.heartbeat_fired()?;
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

    /// The heartbeat has fired.
    fn heartbeat_fired(&mut self) -> Result<(), Error> {
        self.next_sweep_ns = 0;
        // A repeating timer continues when it is read.
        let read = self.heartbeat.as_ref().map_or(Ok(()), TimerFd::wait);
        read.map_err(Error::system::<nix::errno::Errno>("reading a timerfd"))
    }

    /// One epoll_pwait2(2), for at most `wait_ns` or until the heartbeat; returns the number of
    /// events.
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
            // An old kernel, or a system-call filter that does not know it (seccomp(2)).
            Err(Errno::NOSYS | Errno::PERM) if self.coarse.is_none() => {
                self.coarse = Some(CoarseWait::new(&self.epoll)?);
                self.wait(wait_ns)
            }
            Err(errno) => Err(Error::system("epoll_pwait2")(errno)),
        }
    }

    fn on_event(&mut self, slot: usize, flags: epoll::EventFlags) {
        if self.connections[slot].phase == Phase::Connecting {
            // Bytes that have arrived are not reported again: continue and read them.
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

    /// Reads what has arrived, then sends again. `finished`: the server's FIN was reported before
    /// the read, so a short read leaves no bytes.
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
        let Engine { codec, tally, open, members, now_ns, .. } = self;
        let mut replies = 0;
        let bytes = &self.buffers.plain[..count];
        let taken = connection.take(codec, bytes, |number, pending| {
            replies += 1;
            let counts = count_reply(tally, open, pending, *now_ns);
            if let Some(members) = members
                && members.received(number)
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
                    // The answer to the greeting may have announced that the server leaves.
                    return self.look_whether_it_ends(slot);
                }
            }
            Phase::Open | Phase::Leaving => return self.look_whether_it_ends(slot),
            _ => {}
        }
        Ok(Stays::Here)
    }

    /// After replies: whether this connection ends, and which side closes it.
    fn look_whether_it_ends(&mut self, slot: usize) -> Result<Stays, Wrong> {
        let reconnect = self.share.plan.reconnect;
        let connection = &mut self.connections[slot];
        let refused_from = match connection.phase {
            // The server has announced to close; this side closes too (RFC 9112, section 9.6). If
            // each request asked for the close, this side waits for the server.
            Phase::Closing if !reconnect => Some(connection.awaited.first()),
            _ => self.codec.refused_from(&connection.reader),
        };
        if let Some(from) = refused_from {
            if self.members.is_some() {
                return Err(Wrong("the server ends the connection of a member".to_owned()));
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

    /// One request per connection: the reply is complete, so the connection ends.
    fn finish_sending(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closing;
        connection.since_ns = self.now_ns;
        connection.send_farewell(&mut self.codec, &mut self.tally.bytes_sent);
        if !self.codec.server_closes_first()
            && let Some(socket) = &connection.socket
        {
            // A failure means that the server has closed already; the next read reports it.
            let _already_closed = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Admits as many requests as the schedule allows and the pipeline has room for, and sends them
    /// at once; see [`refilled_at`].
    fn refill(&mut self, slot: usize) {
        if self.members.is_some() {
            self.send_if_any(slot);
            return self.send_messages();
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

    /// Sends if there is anything to send. After a farewell there is not.
    #[inline]
    fn send_if_any(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        if connection.has_to_send() && connection.phase != Phase::Closing {
            self.send(slot);
        }
    }

    /// Sends admitted requests, as far as there is room.
    fn send(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let sent = connection.send(&mut self.codec, &mut self.tally.bytes_sent);
        connection.waits_for_room = sent == Sent::Full;
        if let Sent::Failed(errno) = sent {
            self.failed(slot, errno);
        }
    }

    /// Publishes the progress, and checks whether the run was stopped.
    fn tick(&mut self) {
        self.next_tick_ns = self.now_ns + TICK_NS;
        let now = (self.tally.requests, self.tally.errors_sum());
        self.share.live.add(now.0 - self.shown.0, now.1 - self.shown.1);
        self.shown = now;
        self.stopped = self.share.live.is_stopped();
    }

    /// The first thread publishes a new stage. Counts of other threads for the last stage may come
    /// later; they are only displayed.
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

    /// Reads the clock: a vDSO call of about 30 ns, once per read of a socket.
    #[inline]
    fn clock(&mut self) -> u64 {
        self.now_ns = self.origin.elapsed().as_nanos() as u64;
        self.now_ns
    }
}

/// The number of requests in flight at which a connection gets more.
///
/// - A pipeline: when three quarters of it are empty, so that requests are sent in batches.
/// - A stream of messages: when half of it is empty, so that it never stops.
/// - HTTP/2: when one stream has ended, so that "32 streams" are 32 at any time, as in h2load, and
///   a slow stream delays no other. This need not cost system calls: a server sends its replies in
///   batches, and requests for all replies of one read are sent in one send (counted against
///   serve-epoll: 32 requests in each send, with 4 and with 64 connections).
fn refilled_at(plan: &Plan) -> usize {
    let depth = plan.depth() as usize;
    match (plan.is_http2(), plan.streaming) {
        (true, _) => depth - 1,
        (_, true) => depth / 2,
        _ => depth / 4,
    }
}

/// A reply was complete and right. For whether it counts see [`OpenLoop::answered`].
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

/// The timer that wakes a closed loop often enough for this time limit, watched by `epoll`.
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

/// In nanoseconds; at most five centuries.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

/// CPU time of the calling thread (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).
fn thread_cpu_ns() -> Result<u64, Error> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_err(Error::system::<nix::errno::Errno>("clock_gettime"))?;
    Ok(time.tv_sec() as u64 * SECOND_NS + time.tv_nsec() as u64)
}
