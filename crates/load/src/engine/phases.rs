//! The course of a run: connect, warm up, measure, and let what is on its way come to its end.

use crate::codec::Codec;
use crate::connection::{Connection, Phase};
use crate::gate::Broken;
use crate::schedule::ClosedLoop;
use crate::tally::Tally;
use crate::{Error, Length, Stage};

use super::fan_out::SPEAKER;
use super::{Engine, SECOND_NS, SWEEP_NS, Window, nanoseconds, open, thread_cpu_ns};

/// connect(2)s in progress at once while ramping up: well below the backlog of 4,096 that servers
/// ask for (`somaxconn`), for a SYN that finds the backlog full is dropped and comes again a second
/// later.
const CONNECTING_MAX: usize = 512;
/// After the window, requests on their way may be answered for so long, so that the server sees its
/// connections end cleanly.
const DRAIN_NS: u64 = 500_000_000;
/// Whoever says nothing for so long after the window (a server that has one client at a time) will
/// not within [`DRAIN_NS`] either.
const SILENCE_NS: u64 = 100_000_000;

impl<C: Codec> Engine<'_, C> {
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
        if self.room.is_some() {
            // The speaker is answered by what the others hear.
            self.connections[SPEAKER].completed = self.tally.messages;
        }
        let without_progress = self.without_progress();
        let fresh = Tally::new()?.carrying(&self.tally);
        let tally = std::mem::replace(&mut self.tally, fresh);
        self.enter(Stage::Ending);
        match self.open {
            Some(_) => self.drain(open::DRAIN_NS, open::DRAIN_NS)?,
            None => self.drain(DRAIN_NS, SILENCE_NS)?,
        }
        let open = self.finish_open().map(|counts| (counts, busy_share));
        let errors_in_warmup = self.errors_in_warmup;
        self.take_leave();
        Ok(Window {
            duration_ns,
            cpu_ns,
            mean_in_flight,
            without_progress,
            errors_in_warmup,
            ended_early,
            open,
            agreed: self.agreed,
            tally,
        })
    }

    /// How many of the plan's connections have completed nothing.
    fn without_progress(&self) -> u32 {
        let (own, aside) = self.connections.split_at(self.share.connections as usize);
        let progress = |one: &Connection<C::Reader>| {
            let mut aside = aside.iter().filter(|old| old.number == one.number);
            one.completed > 0 || aside.any(|old| old.completed > 0)
        };
        own.iter().filter(|connection| !progress(connection)).count() as u32
    }

    /// Ends all connections in good order, as far as their send buffers have room.
    fn take_leave(&mut self) {
        for connection in &mut self.connections {
            if matches!(connection.phase, Phase::Open | Phase::Leaving) {
                connection.say_farewell(&mut self.codec, &mut self.tally.bytes_sent);
            }
        }
    }

    /// Opens all connections before any load, in batches that fit into a listener's backlog.
    pub(super) fn ramp_up(&mut self) -> Result<(), Error> {
        let (total, mut begun) = (self.share.connections as usize, 0);
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
            let limit_ns = self.timeout_ns() + SWEEP_NS;
            self.drain(limit_ns, limit_ns)?;
        }
        Ok(())
    }

    /// Sets the counters to zero and lets the load begin, or go on.
    pub(super) fn start_window(&mut self) {
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
    pub(super) fn window_end_ns(&self) -> u64 {
        match self.share.plan.length {
            Length::Window(window) => self.phase_started_ns.saturating_add(nanoseconds(window)),
            Length::Requests(_) => u64::MAX,
        }
    }

    /// Works until the window ends; why it ended early, if it did.
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
    pub(super) fn has_work(&self) -> bool {
        let spent = match &self.open {
            Some(open) => open.is_spent(),
            None => self.schedule.is_spent(),
        };
        !spent || self.tally.in_flight() > 0
    }

    /// Waits until nothing is in flight, for `limit_ns` at most, and no longer than `silence_ns`
    /// without a reply. The schedule must have stopped.
    pub(super) fn drain(&mut self, limit_ns: u64, silence_ns: u64) -> Result<(), Error> {
        let begin_ns = self.clock();
        let end_ns = begin_ns + limit_ns;
        while self.has_work() && !self.is_dead() && !self.stopped {
            let silent_at_ns = self.last_reply_ns.max(begin_ns) + silence_ns;
            if self.now_ns >= end_ns.min(silent_at_ns) {
                break;
            }
            self.turn(end_ns.min(silent_at_ns))?;
        }
        Ok(())
    }
}
