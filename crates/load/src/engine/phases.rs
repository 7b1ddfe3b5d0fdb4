//! The phases of a run: connect, warm up, measure, and wait for requests in flight.

use crate::codec::Codec;
use crate::connection::{Connection, Phase};
use crate::gate::Broken;
use crate::open_loop::OpenLoop;
use crate::schedule::ClosedLoop;
use crate::tally::Tally;
use crate::{Error, Length, Stage};

use super::fan_out::SENDER;
use super::{AtEnd, Engine, SECOND_NS, SWEEP_NS, Window, nanoseconds, open, thread_cpu_ns};

/// Concurrent connect(2)s while ramping up: well below the backlog of 4,096 that servers ask for
/// (`somaxconn`), because a SYN that finds the backlog full is dropped and sent again after a
/// second.
const CONNECTING_MAX: usize = 512;
/// After the window, requests in flight may be answered for so long, so that the server sees its
/// connections end cleanly.
const DRAIN_NS: u64 = 500_000_000;
/// A server that sends nothing for so long after the window (for example one that has one client at
/// a time) will not within [`DRAIN_NS`] either.
const SILENCE_NS: u64 = 100_000_000;

impl<C: Codec> Engine<'_, C> {
    /// Connects, warms up, measures, and waits for requests in flight.
    pub(crate) fn run(mut self) -> Result<Window, Error> {
        let gate = self.share.gate;
        let gave_up = |Broken| Error::Internal("another thread of this run gave up".to_owned());
        if !self.share.plan.reconnect {
            self.ramp_up()?;
        }
        gate.pass().map_err(gave_up)?;
        self.warm_up()?;
        gate.pass().map_err(gave_up)?;
        if let Some(observer) = &mut self.observer {
            observer.window_started();
        }
        let cpu_ns = thread_cpu_ns()?;
        self.start_window();
        self.begin_watch()?;
        let ended_early = self.measure()?;
        let (end_ns, cpu_ns) = (self.clock(), thread_cpu_ns()? - cpu_ns);
        self.schedule = ClosedLoop::stopped();
        let busy_share = self.end_open_window(end_ns);
        gate.pass().map_err(gave_up)?;
        if let Some(observer) = &mut self.observer {
            observer.window_ended();
        }
        (self.measuring, self.ending) = (false, true);
        let duration_ns = end_ns - self.phase_started_ns;
        let mean_in_flight = self.tally.mean_in_flight(end_ns, duration_ns);
        self.credit_sender();
        let fresh = Tally::new()?.carrying(&self.tally);
        let mut tally = std::mem::replace(&mut self.tally, fresh);
        self.enter(Stage::Ending);
        let at_end = self.end(end_ns, &mut tally)?;
        let without_progress = self.without_progress();
        let open = self.finish_open().map(|counts| (counts, busy_share));
        let errors_in_warmup = self.errors_in_warmup;
        self.end_connections();
        Ok(Window {
            duration_ns,
            cpu_ns,
            mean_in_flight,
            without_progress,
            at_end,
            coarse_waits: self.coarse.is_some(),
            stops: std::mem::take(&mut self.watch.stops),
            errors_in_warmup,
            ended_early,
            open,
            agreed: self.agreed,
            tally,
        })
    }

    /// In a fan-out the sender completes what the others receive.
    pub(super) fn credit_sender(&mut self) {
        if self.members.is_some() {
            self.connections[SENDER].completed = self.tally.messages;
        }
    }

    /// How many of the plan's connections have completed nothing. Not counted if the clock or a
    /// number of requests may have left a connection without a request.
    pub(super) fn without_progress(&self) -> u32 {
        let (own, aside) = self.connections.split_at(self.share.connections as usize);
        let all = self.open.is_none() && self.window_end_ns() != u64::MAX;
        let starved = |one: &&Connection<C::Reader>| {
            let mut aside = aside.iter().filter(|old| old.number == one.number);
            let asked = all || one.awaited.end() > one.window_from;
            asked && one.completed == 0 && aside.all(|old| old.completed == 0)
        };
        own.iter().filter(starved).count() as u32
    }

    /// Ends the window: waits for requests in flight, and reports those that are not answered.
    ///
    /// A closed loop counts answered requests, so a request that is older than all those would not
    /// be counted. It becomes a sample of `tally`, with its latency in the end, or with its age.
    fn end(&mut self, end_ns: u64, tally: &mut Tally) -> Result<AtEnd, Error> {
        let all = |engine: &Self| -> Vec<u64> {
            let awaited = engine.connections.iter().flat_map(|one| one.awaited.iter());
            awaited.map(|pending| pending.due_ns).collect()
        };
        let oldest = |due_ns: &[u64], now_ns: u64| {
            due_ns.iter().min().map_or(0, |&due_ns| now_ns.saturating_sub(due_ns))
        };
        let in_flight = all(self);
        let oldest_ns = oldest(&in_flight, end_ns);
        let stall_ns = match &self.open {
            Some(open) => open.max_ns(),
            None => tally.latencies.max_ns(),
        };
        let stall_ns = stall_ns.max(SILENCE_NS);
        self.drain_all(end_ns, stall_ns)?;
        let mut unanswered = all(self);
        let served = self.connections.iter().filter(|connection| connection.completed > 0);
        let ages = served.flat_map(|connection| connection.awaited.iter());
        let mut ages_ns: Vec<_> =
            ages.map(|pending| self.now_ns.saturating_sub(pending.due_ns)).collect();
        unanswered.extend(&self.lost_late_ns);
        ages_ns.extend(self.lost_late_ns.iter().map(|&due_ns| self.now_ns.saturating_sub(due_ns)));
        ages_ns.retain(|&age_ns| age_ns > stall_ns);
        if self.open.is_none() {
            tally.latencies.add_above(stall_ns, &self.tally.latencies);
            ages_ns.iter().for_each(|&age_ns| tally.latencies.record(age_ns));
        }
        Ok(AtEnd {
            in_flight: in_flight.len() as u64,
            oldest_ns,
            unanswered: unanswered.len() as u64,
            oldest_unanswered_ns: oldest(&unanswered, self.now_ns),
            overdue: ages_ns.len() as u64,
        })
    }

    /// Waits for replies after the window. If a quick server stalls it gets as long as an open
    /// loop's; requests that are due by the clock may take as long again as the slowest one before.
    fn drain_all(&mut self, end_ns: u64, stall_ns: u64) -> Result<(), Error> {
        let stalled = |one: &Connection<C::Reader>, now_ns: u64| {
            let oldest = one.awaited.oldest();
            one.completed > 0
                && oldest.is_some_and(|oldest| now_ns.saturating_sub(oldest.due_ns) > stall_ns)
        };
        let more_ns = match &self.open {
            None => {
                self.drain(DRAIN_NS, SILENCE_NS)?;
                let now_ns = self.now_ns;
                match self.connections.iter().any(|one| stalled(one, now_ns)) {
                    true => open::DRAIN_NS,
                    false => return Ok(()),
                }
            }
            Some(_) => {
                self.drain(open::DRAIN_NS, open::DRAIN_NS)?;
                match self.open.as_ref().is_some_and(OpenLoop::is_spent) {
                    true => (2 * stall_ns).min(self.timeout_ns()),
                    false => return Ok(()),
                }
            }
        };
        let left_ns = (end_ns + more_ns).saturating_sub(self.now_ns);
        self.drain(left_ns, left_ns)
    }

    /// Ends all connections in order, as far as their send buffers have room.
    pub(super) fn end_connections(&mut self) {
        for connection in &mut self.connections {
            if matches!(connection.phase, Phase::Open | Phase::Leaving) {
                connection.send_farewell(&mut self.codec, &mut self.tally.bytes_sent);
            }
        }
    }

    /// Opens all connections before any load, in batches that fit into a listener's backlog.
    pub(super) fn ramp_up(&mut self) -> Result<(), Error> {
        let (total, mut begun) = (self.share.connections as usize, 0);
        let patience_ns = self.timeout_ns().max(SECOND_NS);
        // So long for each batch, and for one that must be repeated.
        let limit_ns = self.clock() + patience_ns * (2 + total / CONNECTING_MAX) as u64;
        let mut progress_ns = self.now_ns;
        let (mut open, mut most) = (0, 0);
        while open < total {
            while begun < total && begun - most < CONNECTING_MAX {
                self.connect(begun);
                begun += 1;
            }
            self.turn(self.now_ns + SWEEP_NS)?;
            if self.stopped {
                return Err(Error::Interrupted);
            }
            let is_open = |connection: &&Connection<_>| connection.phase == Phase::Open;
            let open_now = self.connections.iter().filter(is_open).count();
            // If the server closes as many connections as it accepts, their number goes up and
            // down.
            if open_now > most {
                (most, progress_ns) = (open_now, self.now_ns);
            }
            open = open_now;
            if self.now_ns > limit_ns.min(progress_ns + patience_ns) {
                let reason = match self.tally.closed_by_server {
                    0 => "the server stopped accepting",
                    _ => "the server closes connections that it has just accepted",
                };
                let reason = reason.to_owned();
                let reason = self.tally.first_error.take().unwrap_or(reason);
                return Err(Error::Ramp { opened: open as u32, asked: total as u32, reason });
            }
        }
        Ok(())
    }

    /// Sends load that is not counted. A run with a number of requests starts its window with none
    /// in flight.
    pub(super) fn warm_up(&mut self) -> Result<(), Error> {
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
        self.start_unused();
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
            let limit_ns = self.timeout_ns() + SWEEP_NS;
            self.drain(limit_ns, limit_ns)?;
        }
        Ok(())
    }

    /// Sets the counters to zero: the measurement begins.
    pub(super) fn count_anew(&mut self) {
        self.errors_in_warmup = self.tally.errors_sum();
        self.tally.start(self.now_ns);
        self.enter(Stage::Measuring);
        for connection in &mut self.connections {
            connection.completed = 0;
            connection.window_from = connection.awaited.first();
        }
        self.waited_ns = 0;
    }

    /// Sets the counters to zero and starts or continues the load.
    pub(super) fn start_window(&mut self) {
        self.clock();
        self.phase_started_ns = self.now_ns;
        self.last_reply_ns = self.now_ns;
        self.count_anew();
        self.measuring = true;
        let (end_ns, budget) = (self.window_end_ns(), self.share.requests);
        let counted = end_ns == u64::MAX;
        match &mut self.open {
            Some(open) => {
                open.start_window(self.now_ns, end_ns, if counted { budget } else { u64::MAX });
            }
            None if counted => self.schedule = ClosedLoop::budget(budget),
            None => self.schedule = ClosedLoop::endless(),
        }
        self.start_unused();
    }

    /// The end of the window; `u64::MAX` if a number of requests ends it.
    pub(super) fn window_end_ns(&self) -> u64 {
        match self.share.plan.length {
            Length::Window(window) => self.phase_started_ns.saturating_add(nanoseconds(window)),
            Length::Requests(_) => u64::MAX,
        }
    }

    /// Runs until the window ends; returns why it ended early, if it did.
    pub(super) fn measure(&mut self) -> Result<Option<String>, Error> {
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
                let seconds = (self.now_ns - self.phase_started_ns) as f64 / 1e9;
                let how = self.how_it_died();
                return Ok(Some(format!("{how}, given up {seconds:.1} s into the window")));
            }
            // An open loop may have long gaps; each request has its own time limit.
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

    /// The message about a dead server.
    pub(super) fn how_it_died(&self) -> String {
        let address = self.share.sockets.address();
        let how = match self.failing_since_ns {
            Some(_) => "died: connections failed",
            None => "refuses connections: it closed those that it had just accepted",
        };
        format!("the server at {address} {how} for the last second")
    }

    /// Whether requests are in flight or will be sent.
    pub(super) fn has_work(&self) -> bool {
        let spent = match &self.open {
            Some(open) => open.is_spent(),
            None => self.schedule.is_spent(),
        };
        !spent || self.tally.in_flight() > 0
    }

    /// Waits until no request is in flight, for at most `limit_ns`, and at most `silence_ns`
    /// without a reply. The schedule must be stopped.
    pub(super) fn drain(&mut self, limit_ns: u64, silence_ns: u64) -> Result<(), Error> {
        let begin_ns = self.clock();
        self.begin_watch()?;
        let mut end_ns = begin_ns + limit_ns;
        while self.has_work() && !self.is_dead() && !self.stopped {
            // Time in which the client was stopped does not count.
            let stopped_ns = self.watch.grace_ns(begin_ns);
            let silent_at_ns = self.last_reply_ns.max(begin_ns) + silence_ns + stopped_ns;
            end_ns = end_ns.max(begin_ns + limit_ns + stopped_ns);
            if self.now_ns >= end_ns.min(silent_at_ns) {
                break;
            }
            self.turn(end_ns.min(silent_at_ns))?;
        }
        Ok(())
    }
}
