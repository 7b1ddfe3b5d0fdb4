//! A server that takes part: its session, and whether it must be stopped when it is not its turn.

use std::time::{Duration, Instant};

use load::{Clocks, Pace, Plan, Session, Slice};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use record::LoadOutcome;

/// The shortest slice. Shorter ones are more in the same time, and tell better, down to here: below
/// it the first and the last requests, which find nothing to wait behind, are no longer few.
const SLICE_MIN: Duration = Duration::from_millis(5);

/// The longest: where a round trip takes longer than this, fewer fit.
const SLICE_MAX: Duration = Duration::from_millis(100);

/// Round trips of all connections that a slice holds at least, for the same reason.
const ROUND_TRIPS_MIN: f64 = 2.0;

/// A slice of an open loop: what falls due first has found the client asleep and the caches cold,
/// and must be few among many.
const OPEN_SLICE: Duration = Duration::from_millis(250);

/// A slice in which requests were not answered, or wrongly, and that took so long, is that of a
/// server that hangs: the others do not wait for it again.
const HANG: Duration = Duration::from_secs(1);

/// So many slices with requests that were not answered, or wrongly, and a server takes part no
/// more: each has cost the others their block.
const FAULTS_MAX: u32 = 3;

/// After it was stopped, a server has so long to fill its caches before its slice begins.
const AFTER_STOP: Duration = Duration::from_millis(1);

/// Silence in which a server is looked at for using its core unasked, and the part of the time from
/// which it does: a loop that sleeps uses some microseconds.
pub(crate) const SILENCE: Duration = Duration::from_millis(10);
pub(crate) const UNASKED_SHARE: f64 = 0.2;

/// A server that takes part in an epoch.
#[derive(Debug)]
pub struct Entrant {
    session: Session,
    /// It is asked by the clock.
    open_loop: bool,
    processes: Processes,
    /// It uses its core while nothing is asked.
    restless: bool,
    /// It is stopped outside of its slices.
    stops: bool,
    /// Length of its slices.
    length: Duration,
    /// Slices in which something was not answered, or wrongly.
    faults: u32,
    /// Why it takes part no more.
    ended: Option<String>,
    /// Its warm-up, and all slices since.
    warm_up: Spent,
    spent: Spent,
}

/// What slices have used together, those of discarded blocks included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Time, in nanoseconds.
    pub elapsed_ns: u64,
    /// CPU time of the server, in nanoseconds; 0 where none of its processes was named.
    pub server_cpu_ns: u64,
    /// CPU time of the client, in nanoseconds.
    pub client_cpu_ns: u64,
}

impl Spent {
    fn add(&mut self, slice: &Slice) {
        self.elapsed_ns += slice.elapsed_ns;
        self.server_cpu_ns += slice.server_cpu_ns.unwrap_or(0);
        self.client_cpu_ns += slice.client_cpu_ns;
    }
}

impl Entrant {
    /// Opens the connections of `plan`. `processes`: those of the server, the first one its own;
    /// none: its CPU time is not known. Only one that is `ours` is ever stopped.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open(plan: Plan, processes: &[Pid], ours: bool) -> Result<Entrant, load::Error> {
        let open_loop = plan.pace != Pace::Closed;
        let session = Session::open(plan, clocks(processes)?)?;
        Ok(Entrant {
            session,
            open_loop,
            processes: Processes::new(if ours { processes.to_vec() } else { Vec::new() }),
            restless: false,
            stops: false,
            length: if open_loop { OPEN_SLICE } else { SLICE_MIN },
            faults: 0,
            ended: None,
            warm_up: Spent::default(),
            spent: Spent::default(),
        })
    }

    /// Why it takes part no more, if it does not.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// What its slices after the warm-up have used.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// Its outcome will have the slices so far, and none that follow ([`Session::conclude`]).
    pub fn conclude(&mut self) {
        self.session.conclude();
    }

    /// Closes its connections. The outcome is that of all its slices after the warm-up.
    ///
    /// # Errors
    /// What failed in the client.
    pub fn finish(self) -> Result<LoadOutcome, load::Error> {
        let mut outcome = self.session.finish()?;
        outcome.warmup_s = self.warm_up.elapsed_ns as f64 / 1e9;
        outcome.ended_early.clone_from(&self.ended);
        Ok(outcome)
    }

    pub(super) fn is_open_loop(&self) -> bool {
        self.open_loop
    }

    /// It used its core unasked and cannot be stopped.
    pub(super) fn disturbs(&self) -> bool {
        self.restless && !self.stops
    }

    /// What was done so far was a warm-up.
    pub(super) fn forget(&mut self) {
        self.session.forget();
        self.warm_up = std::mem::take(&mut self.spent);
    }

    /// Lets it go on if it was stopped, does something with its session, and stops it again.
    pub(crate) fn in_its_turn<T>(
        &mut self,
        act: impl FnOnce(&mut Session) -> Result<T, load::Error>,
    ) -> Result<T, load::Error> {
        if self.stops {
            self.processes.go_on();
            let filled = match self.open_loop {
                // A slice would have due times, and those of the others would be other ones.
                true => self.session.rest(AFTER_STOP)?,
                false => self.session.slice(AFTER_STOP)?,
            };
            self.spent.add(&filled);
        }
        let done = act(&mut self.session);
        if self.stops {
            self.processes.stop();
        }
        done
    }

    /// One slice; `None` when the server takes part no more.
    pub(super) fn slice(&mut self) -> Result<Option<Slice>, load::Error> {
        if self.ended.is_some() {
            return Ok(None);
        }
        let length = self.length;
        let slice = self.in_its_turn(|session| session.slice(length))?;
        self.spent.add(&slice);
        self.ended.clone_from(&slice.ended);
        Ok(Some(slice))
    }

    /// A slice of its session alone, and one of this and `second` at once, in this order or the
    /// other. Neither is in its outcome, which is concluded.
    pub(crate) fn single_and_double(
        &mut self,
        second: &mut Session,
        double_first: bool,
    ) -> Result<(Slice, [Slice; 2]), load::Error> {
        let length = self.length;
        self.in_its_turn(|session| match double_first {
            true => {
                let both = session.slice_both(second, length)?;
                Ok((session.slice(length)?, both))
            }
            false => {
                let one = session.slice(length)?;
                Ok((one, session.slice_both(second, length)?))
            }
        })
    }

    /// One that leaves requests unanswered in the warm-up takes part no more: each of its slices
    /// would last as long as the time limit of a request.
    pub(super) fn look_at_warm_up(&mut self, slice: &Slice) {
        if !self.open_loop {
            self.length = length_for(slice);
        }
        if slice.errors > 0 && self.ended.is_none() {
            self.ended = Some(format!(
                "{} of the requests in its first slices were answered wrongly or not at all; ask \
                 with fewer connections if it serves fewer at once",
                slice.errors
            ));
        }
    }

    /// Nor does one that hangs, or goes on answering wrongly.
    pub(super) fn look_at(&mut self, slice: &Slice) {
        if slice.errors == 0 || self.ended.is_some() {
            return;
        }
        self.faults += 1;
        let hangs = slice.elapsed_ns > HANG.as_nanos() as u64;
        if hangs || self.faults == FAULTS_MAX {
            let (errors, seconds) = (slice.errors, slice.elapsed_ns as f64 / 1e9);
            self.ended = Some(format!(
                "{errors} requests in a slice of {seconds:.3} s were answered wrongly or not at \
                 all, so that it takes part no more"
            ));
        }
    }

    /// Stops it, if it uses its core while nothing is asked.
    pub(super) fn look_whether_it_rests(&mut self) -> Result<(), load::Error> {
        let before = Instant::now();
        let used = self.session.rest(SILENCE)?.server_cpu_ns;
        let share = used.map(|used| used as f64 / before.elapsed().as_nanos() as f64);
        self.restless = share.is_some_and(|share| share > UNASKED_SHARE);
        self.stops = self.restless && !self.processes.0.is_empty();
        if self.stops {
            self.processes.stop();
        }
        Ok(())
    }
}

/// How long slices must be where one came to this.
fn length_for(slice: &Slice) -> Duration {
    let round_trip_ns = slice.round_trip_ns();
    Duration::from_nanos((ROUND_TRIPS_MIN * round_trip_ns) as u64).clamp(SLICE_MIN, SLICE_MAX)
}

/// The CPU clocks of these processes.
pub(crate) fn clocks(processes: &[Pid]) -> Result<Clocks, load::Error> {
    Clocks::of(&processes.iter().map(|process| process.as_raw()).collect::<Vec<_>>())
}

/// Processes that may be stopped (SIGSTOP). Dropped, they go on.
#[derive(Debug)]
pub(crate) struct Processes(Vec<Pid>, bool);

impl Processes {
    pub(crate) fn new(processes: Vec<Pid>) -> Processes {
        Processes(processes, false)
    }

    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.1 = true;
    }

    pub(crate) fn go_on(&mut self) {
        if std::mem::take(&mut self.1) {
            self.signal(Signal::SIGCONT);
        }
    }

    fn signal(&self, signal: Signal) {
        for &process in &self.0 {
            // Fails only where it has ended, which its slice will say.
            let _ = kill(process, signal);
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.go_on();
    }
}
