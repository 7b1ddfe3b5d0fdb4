//! The engine in an open loop: when to wake up, which connection gets a due request, and what is
//! left at the end.
//!
//! *Waiting.* epoll_wait(2) counts milliseconds. epoll_pwait2(2), Linux 5.11, counts nanoseconds,
//! but the kernel adds the thread's timer slack, 50 us by default (PR_SET_TIMERSLACK, prctl(2)),
//! and a halted core needs time to wake. Measured with Poisson arrivals at 20,000/s on a virtual
//! machine of two cores, p50 and p99 of the lag in microseconds: epoll_pwait2 54 and 85; with a
//! slack of 1 ns 6 and 35; timerfd instead 8 and 40, and two more system calls; slack of 1 ns and
//! spinning for the last 20 us 0.2 and 14, for the last 50 us 0.2 and 15. At 1,000/s, where the
//! core has time to halt, 20 us are too short (p90 12 to 20) and 50 us are enough (p90 0.3). So the
//! slack is 1 ns, the thread sleeps until 50 us before the due time, and then calls epoll_pwait2
//! with a timeout of 0 until it has come; it reads replies meanwhile.
//!
//! This costs CPU time of the client: 4 % of a core at 1,000/s, 64 % at 20,000/s. It cannot be
//! compared with that of a closed loop.

use nix::errno::Errno;
use nix::sys::prctl::{get_timerslack, set_timerslack};

use super::fan_out::SENDER;
use super::{Engine, Share};
use crate::codec::Codec;
use crate::connection::{Pending, Phase};
use crate::open_loop::{Counts, OpenLoop};
use crate::{Error, Pace};

/// The client stays awake for so long before a due time: the wake-up time of a halted core, see
/// above.
const SPIN_NS: u64 = 50_000;
/// Events per wait. A due request waits at most until these replies are read, 100 us.
pub(super) const EVENTS_MAX: usize = 16;
/// After the window, requests that were due in it may still be sent and answered for so long. An
/// unanswered one is a sample with its age.
pub(super) const DRAIN_NS: u64 = 1_000_000_000;

pub(super) fn new_loop(share: &Share<'_>) -> Result<Option<OpenLoop>, Error> {
    let Pace::Open { rate_per_s, arrivals, seed } = share.plan.pace else { return Ok(None) };
    let thread = (share.thread, share.plan.threads);
    let open = OpenLoop::new(arrivals, rate_per_s, seed, thread, share.connections)?;
    // In a fan-out a message is due, and all connections but the sender receive it.
    let each = if share.plan.fan_out { share.connections - 1 } else { 1 };
    Ok(Some(open.counting(each)))
}

/// The calling thread's timer slack, 1 ns until this is dropped.
pub(crate) struct ExactTimers {
    before: Option<u64>,
}

impl ExactTimers {
    /// Sets the timer slack if the plan has an open loop.
    pub(crate) fn for_pace(pace: Pace) -> Result<Self, Error> {
        if pace == Pace::Closed {
            return Ok(ExactTimers { before: None });
        }
        let failed = Error::system::<Errno>;
        let before = get_timerslack().map_err(failed("prctl(PR_GET_TIMERSLACK)"))?;
        set_timerslack(1).map_err(failed("prctl(PR_SET_TIMERSLACK)"))?;
        Ok(ExactTimers { before: u64::try_from(before).ok() })
    }
}

impl Drop for ExactTimers {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // The value was this thread's slack before, so the kernel accepts it.
            let _restored = set_timerslack(before);
        }
    }
}

impl<C: Codec> Engine<'_, C> {
    /// How long the next wait for events may last.
    pub(super) fn open_wait_ns(&mut self, until_ns: u64) -> u64 {
        let now_ns = self.clock();
        let wake_ns = self.open.as_ref().map_or(u64::MAX, OpenLoop::wake_ns);
        let asleep_ns = wake_ns.saturating_sub(now_ns).saturating_sub(SPIN_NS);
        // There is no heartbeat here, but time limits and the display must be checked.
        let until_ns = until_ns.min(self.next_sweep_ns).min(self.next_tick_ns);
        asleep_ns.min(until_ns.saturating_sub(now_ns))
    }

    /// A wait for events has ended. It does not count as work.
    pub(super) fn note_wait(&mut self) {
        let before_ns = self.now_ns;
        self.woke_ns = self.clock();
        self.waited_ns += self.woke_ns - before_ns;
    }

    /// Adds a connection to the list of free ones if it can take a request now.
    pub(super) fn list_if_free(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        let reconnect = self.share.plan.reconnect;
        let room = match &self.members {
            None => {
                connection.awaited.len() < self.depth
                    && self.codec.credit(&connection.reader, connection.awaited.end()) > 0
            }
            Some(_) => slot == SENDER && self.may_send_message(),
        };
        let free = match connection.phase {
            Phase::Open => !reconnect && room && !connection.waits_for_room,
            Phase::Parked => reconnect,
            _ => false,
        };
        let connection = &mut self.connections[slot];
        if let Some(open) = &mut self.open
            && free
            && !connection.listed
        {
            connection.listed = true;
            // The reply was there when the wait ended, even if it was handled later.
            open.add_free(slot as u32, self.woke_ns);
        }
    }

    /// Sends due requests on free connections.
    pub(super) fn dispatch(&mut self) {
        loop {
            let Some(open) = &mut self.open else { return };
            if !open.is_due(self.now_ns) {
                // Sending takes a few microseconds, so another request may be due by now.
                let now_ns = self.origin.elapsed().as_nanos() as u64;
                self.now_ns = now_ns;
                if !open.is_due(now_ns) {
                    open.caught_up();
                    return;
                }
            }
            let Some(slot) = open.take_free() else { return };
            let slot = slot as usize;
            self.connections[slot].listed = false;
            self.clock();
            if self.share.plan.reconnect {
                self.connect(slot);
                continue;
            }
            if self.members.is_some() && !self.may_send_message() {
                // A member has left meanwhile.
                continue;
            }
            if let Some(pending) = self.next_due() {
                match self.members {
                    Some(_) => self.admit_message(pending),
                    None => {
                        self.connections[slot].admit(pending);
                        self.tally.admitted(1, self.now_ns);
                    }
                }
                self.send(slot);
            }
            self.list_if_free_again(slot);
        }
    }

    /// A connection whose pipeline still has a place was free all the time.
    fn list_if_free_again(&mut self, slot: usize) {
        let woke_ns = self.woke_ns;
        if let Some(open) = &self.open {
            self.woke_ns = open.free_since_ns();
        }
        self.list_if_free(slot);
        self.woke_ns = woke_ns;
    }

    /// Takes the due request for which a new connection is opened, if one may be sent.
    pub(super) fn next_of_its_own(&mut self) -> Option<Pending> {
        if self.open.is_some() {
            return self.next_due();
        }
        let now_ns = self.now_ns;
        self.schedule.take().then_some(Pending { due_ns: now_ns, sent_ns: now_ns })
    }

    fn next_due(&mut self) -> Option<Pending> {
        let open = self.open.as_mut()?;
        let ready = open.take(self.now_ns)?;
        let (pending, waited_ns) = open.sending(ready, open.free_since_ns(), self.now_ns);
        self.tally.waited(waited_ns);
        Some(pending)
    }

    /// Ends the window. Returns the part of it in which the client was busy.
    pub(super) fn end_open_window(&mut self, end_ns: u64) -> f64 {
        let Some(open) = &mut self.open else { return 0.0 };
        self.tally.waited(open.end_window(end_ns));
        let window_ns = (end_ns - self.phase_started_ns).max(1);
        1.0 - self.waited_ns.min(window_ns) as f64 / window_ns as f64
    }

    /// Ends the run. Every request that was due in the window is counted.
    pub(super) fn finish_open(&mut self) -> Option<Counts> {
        let mut open = self.open.take()?;
        let pending = self.connections.iter().flat_map(|connection| connection.awaited.iter());
        open.close(pending, self.now_ns);
        Some(open.into_counts())
    }
}
