//! The engine under an open loop: when to wake up, whom to give what is due, what is left at the
//! end.
//!
//! *Waiting.* epoll_wait(2) counts milliseconds. epoll_pwait2(2), Linux 5.11, counts nanoseconds,
//! but the kernel adds the thread's timer slack, 50 us by default (PR_SET_TIMERSLACK, prctl(2)),
//! and a halted core needs time to wake. Measured with Poisson arrivals at 20,000/s on a virtual
//! machine of two cores, p50 and p99 of the lag in microseconds: epoll_pwait2 54 and 85; with a
//! slack of 1 ns 6 and 35; timerfd in the same place 8 and 40, and two more system calls; slack of
//! 1 ns and spinning for the last 20 us 0.2 and 14, for the last 50 us 0.2 and 15. At 1,000/s,
//! where the core has time to halt, 20 us are too short (p90 12 to 20) and 50 us are not (p90 0.3).
//! So: slack of 1 ns, asleep until 50 us before the due time, then epoll_pwait2 with no timeout at
//! all until it has come; replies are read meanwhile.
//!
//! The price is CPU time of the client: 4 % of a core at 1,000/s, 64 % at 20,000/s. It cannot be
//! compared with a closed loop's.

use nix::errno::Errno;
use nix::sys::prctl::{get_timerslack, set_timerslack};

use super::fan_out::SPEAKER;
use super::{Engine, Share};
use crate::codec::Codec;
use crate::connection::{Pending, Phase};
use crate::open_loop::{Counts, OpenLoop};
use crate::{Error, Pace};

/// Before a due time the client stays awake for so long: the wake-up of a halted core, see above.
const SPIN_NS: u64 = 50_000;
/// Events fetched at once: no due request waits for more replies to be read than these, 100 us.
pub(super) const EVENTS_MAX: usize = 16;
/// After the window, what fell due in it may still be sent and answered for so long. What is not
/// answered then is a sample with its age.
pub(super) const DRAIN_NS: u64 = 1_000_000_000;

/// The open loop of a thread, if the plan has one.
pub(super) fn new_loop(share: &Share<'_>) -> Result<Option<OpenLoop>, Error> {
    let Pace::Open { rate_per_s, arrivals, seed } = share.plan.pace else { return Ok(None) };
    let thread = (share.thread, share.plan.threads);
    let open = OpenLoop::new(arrivals, rate_per_s, seed, thread, share.connections)?;
    // What falls due in a fan-out is a message, which all but the speaker are to hear.
    let each = if share.plan.fan_out { share.connections - 1 } else { 1 };
    Ok(Some(open.counting(each)))
}

/// The calling thread's timers, exact to 1 ns until this is dropped.
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
            // It was this thread's slack a moment ago, so the kernel takes it.
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
        // No heart beats here: time limits and the display want a look now and then.
        let until_ns = until_ns.min(self.next_sweep_ns).min(self.next_tick_ns);
        asleep_ns.min(until_ns.saturating_sub(now_ns))
    }

    /// A wait for events is over: it was no work.
    pub(super) fn note_wait(&mut self) {
        let before_ns = self.now_ns;
        self.woke_ns = self.clock();
        self.waited_ns += self.woke_ns - before_ns;
    }

    /// Puts a connection on the list of free ones if it can take a request now.
    pub(super) fn list_if_free(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        let reconnect = self.share.plan.reconnect;
        let room = match &self.room {
            None => {
                connection.awaited.len() < self.depth
                    && self.codec.credit(&connection.reader, connection.awaited.end()) > 0
            }
            Some(_) => slot == SPEAKER && self.may_speak(),
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
            // The reply was there when the wait ended, however long its turn took to come.
            open.add_free(slot as u32, self.woke_ns);
        }
    }

    /// Sends what is due on the connections that are free.
    pub(super) fn dispatch(&mut self) {
        loop {
            let Some(open) = &mut self.open else { return };
            if !open.is_due(self.now_ns) {
                // Sending takes a few microseconds: the next one may be due by now.
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
            if self.room.is_some() && !self.may_speak() {
                // A member has gone since.
                continue;
            }
            if let Some(pending) = self.next_due() {
                match self.room {
                    Some(_) => self.say(pending),
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

    /// A connection that still has a place in its pipeline has been free all the time.
    fn list_if_free_again(&mut self, slot: usize) {
        let woke_ns = self.woke_ns;
        if let Some(open) = &self.open {
            self.woke_ns = open.free_since_ns();
        }
        self.list_if_free(slot);
        self.woke_ns = woke_ns;
    }

    /// The request for which a connection of its own is opened now, if one may be sent.
    pub(super) fn next_of_its_own(&mut self) -> Option<Pending> {
        if self.open.is_some() {
            return self.next_due();
        }
        let now_ns = self.now_ns;
        self.schedule.take().then_some(Pending { due_ns: now_ns, sent_ns: now_ns })
    }

    /// The oldest request that is due, which is sent now.
    fn next_due(&mut self) -> Option<Pending> {
        let open = self.open.as_mut()?;
        let ready = open.take(self.now_ns)?;
        let (pending, waited_ns) = open.sending(ready, open.free_since_ns(), self.now_ns);
        self.tally.waited(waited_ns);
        Some(pending)
    }

    /// The window is over. The share of it in which the client worked.
    pub(super) fn end_open_window(&mut self, end_ns: u64) -> f64 {
        let Some(open) = &mut self.open else { return 0.0 };
        self.tally.waited(open.end_window(end_ns));
        let window_ns = (end_ns - self.phase_started_ns).max(1);
        1.0 - self.waited_ns.min(window_ns) as f64 / window_ns as f64
    }

    /// The run is over: all that was due in the window is counted.
    pub(super) fn finish_open(&mut self) -> Option<Counts> {
        let mut open = self.open.take()?;
        let pending = self.connections.iter().flat_map(|connection| connection.awaited.iter());
        open.close(pending, self.now_ns);
        Some(open.into_counts())
    }
}
