//! Another use of the connections: they stay open, and carry load one slice at a time.
//!
//! A slice begins and ends with no request in flight, so the work of both sides in it belongs to
//! its requests. No wait in a closed loop has a timeout: a slice ends with the first event after
//! its time, or with the next heartbeat.

use std::time::Duration;

use super::{Engine, SWEEP_NS, Window, nanoseconds, open, thread_cpu_ns};
use crate::codec::Codec;
use crate::connection::Phase;
use crate::cpu::Clocks;
use crate::engine::AtEnd;
use crate::open_loop::OpenLoop;
use crate::schedule::ClosedLoop;
use crate::session::Slice;
use crate::tally::Tally;
use crate::{Error, Stage};

impl<C: Codec> Engine<'_, C> {
    /// Opens the connections, unless each request has its own.
    pub(crate) fn open_all(&mut self) -> Result<(), Error> {
        match self.share.plan.reconnect {
            true => Ok(()),
            false => self.ramp_up(),
        }
    }

    /// Sends requests for `length`, then waits for those in flight. `clocks`: those of the server.
    pub(crate) fn slice(&mut self, length: Duration, clocks: &mut Clocks) -> Result<Slice, Error> {
        let before = (self.tally.requests, self.tally.errors_sum());
        let server_ns = clocks.read();
        let (client_ns, begin_ns) = (thread_cpu_ns()?, self.clock());
        self.phase_started_ns = begin_ns;
        self.last_reply_ns = begin_ns;
        self.begin_watch()?;
        self.measuring = true;
        let end_ns = begin_ns + nanoseconds(length);
        match &mut self.open {
            Some(open) => open.start_window(begin_ns, end_ns, u64::MAX),
            None => self.schedule = ClosedLoop::endless(),
        }
        self.start_unused();
        let by_the_clock = self.open.is_some();
        while self.now_ns < end_ns && !self.is_dead() && !self.stopped {
            self.turn(if by_the_clock { end_ns } else { u64::MAX })?;
        }
        self.schedule = ClosedLoop::stopped();
        self.end_open_window(self.now_ns);
        self.settle()?;
        self.measuring = false;
        let (elapsed_ns, client_cpu_ns) = (self.clock() - begin_ns, thread_cpu_ns()? - client_ns);
        Ok(Slice {
            requests: self.tally.requests - before.0,
            errors: self.tally.errors_sum() - before.1,
            elapsed_ns,
            client_cpu_ns,
            server_cpu_ns: clocks.read().zip(server_ns).map(|(after, before)| after - before),
            in_flight_max: (self.connections.len() * self.depth) as u64,
            ended: self.is_dead().then(|| self.how_it_died()),
        })
    }

    /// Sends no request for `length`.
    pub(crate) fn rest(&mut self, length: Duration, clocks: &mut Clocks) -> Result<Slice, Error> {
        let (begin_ns, client_ns, server_ns) = (self.clock(), thread_cpu_ns()?, clocks.read());
        std::thread::sleep(length);
        Ok(Slice {
            elapsed_ns: self.clock() - begin_ns,
            client_cpu_ns: thread_cpu_ns()? - client_ns,
            server_cpu_ns: clocks.read().zip(server_ns).map(|(after, before)| after - before),
            ..Slice::default()
        })
    }

    /// Waits until no request is in flight, and no connection begins or ends.
    fn settle(&mut self) -> Result<(), Error> {
        let limit_ns = match self.open {
            // Requests that are due and not sent wait for a connection, as after a window.
            Some(_) => open::DRAIN_NS,
            None => self.timeout_ns() + SWEEP_NS,
        };
        self.drain(limit_ns, limit_ns)?;
        let end_ns = self.now_ns + limit_ns;
        while self.has_passage() && self.now_ns < end_ns && !self.is_dead() && !self.stopped {
            self.turn(end_ns)?;
        }
        if let Some(open) = &mut self.open {
            let pending = self.connections.iter().flat_map(|connection| connection.awaited.iter());
            open.close(pending, self.now_ns);
        }
        Ok(())
    }

    /// Whether a connection is between open and closed. Only if each request has its own: a server
    /// may end other connections at any time.
    fn has_passage(&self) -> bool {
        let passes = |phase| matches!(phase, Phase::Connecting | Phase::Opening | Phase::Closing);
        let mut phases = self.connections.iter().map(|connection| connection.phase);
        self.share.plan.reconnect && phases.any(passes)
    }

    /// The slices so far were a warm-up: the counters are set to zero.
    pub(crate) fn forget_slices(&mut self) -> Result<(), Error> {
        self.clock();
        self.count_anew();
        self.open.as_mut().map_or(Ok(()), OpenLoop::forget)
    }

    /// The result of the slices so far, `duration_ns` together.
    pub(crate) fn conclude_slices(
        &mut self,
        duration_ns: u64,
        cpu_ns: u64,
    ) -> Result<Window, Error> {
        let mean_in_flight = self.tally.mean_in_flight(self.now_ns, duration_ns);
        self.credit_sender();
        let without_progress = self.without_progress();
        let busy_share = 1.0 - self.waited_ns as f64 / duration_ns.max(1) as f64;
        let open = self.open.take().map(|open| (open.into_counts(), busy_share.max(0.0)));
        let errors_in_warmup = self.errors_in_warmup;
        let fresh = Tally::new()?.carrying(&self.tally);
        let tally = std::mem::replace(&mut self.tally, fresh);
        self.count_anew();
        Ok(Window {
            duration_ns,
            cpu_ns,
            mean_in_flight,
            without_progress,
            at_end: AtEnd::default(),
            coarse_waits: self.coarse.is_some(),
            stops: std::mem::take(&mut self.watch.stops),
            errors_in_warmup,
            ended_early: None,
            open,
            agreed: self.agreed.clone(),
            tally,
        })
    }

    /// All slices are over. Ends all connections in order.
    pub(crate) fn end_slices(mut self) {
        self.enter(Stage::Ending);
        self.end_connections();
    }
}
