//! A server of an epoch: its session, and whether it must be stopped outside of its slices.

use std::time::{Duration, Instant};

use load::{Clocks, Pace, Plan, Session, Slice};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use record::LoadOutcome;

/// The shortest slice. Shorter ones are more in the same time, and tell better, down to here: below
/// it the first and the last requests, which find nothing to wait behind, are no longer few.
const SLICE_MIN: Duration = Duration::from_millis(5);

/// The longest slice; with longer round trips it holds fewer of them.
const SLICE_MAX: Duration = Duration::from_millis(100);

/// Fewest round trips of all connections in a slice, for the same reason.
const ROUND_TRIPS_MIN: f64 = 2.0;

/// A slice of an open loop: what falls due first has found the client asleep and the caches cold,
/// and must be few among many.
const OPEN_SLICE: Duration = Duration::from_millis(250);

/// The slice of its warm-up: at the lowest rate that comes with iolab every connection has had
/// some requests then.
const OPEN_WARM_UP_SLICE: Duration = Duration::from_millis(50);

/// If a slice with wrong or missing replies took longer than this, the server hangs: it has no
/// further slices.
const HANG: Duration = Duration::from_secs(1);

/// After this number of slices with wrong or missing replies a server has no further ones, because
/// each cost the other servers their block.
const FAULTS_MAX: u32 = 3;

/// Time to fill caches after a stop, before the slice begins.
const AFTER_STOP: Duration = Duration::from_millis(1);

/// Time without requests in which the CPU use of a server is measured, and the share from which on
/// it counts as restless. A loop that sleeps uses some microseconds.
pub(crate) const SILENCE: Duration = Duration::from_millis(10);
pub(crate) const UNASKED_SHARE: f64 = 0.2;

/// A server of an epoch.
#[derive(Debug)]
pub struct Entrant {
    session: Session,
    open_loop: bool,
    processes: Processes,
    /// Whether it uses CPU without requests.
    restless: bool,
    /// Whether it is stopped outside of its slices.
    stops: bool,
    length: Duration,
    /// Slices with wrong or missing replies.
    faults: u32,
    /// Why it has no further slices, if so.
    ended: Option<String>,
    /// Usage in the warm-up, and in all slices since.
    warm_up: Spent,
    spent: Spent,
}

/// The usage of slices together, including those of discarded blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Time, in nanoseconds.
    pub elapsed_ns: u64,
    /// CPU time of the server, in nanoseconds; 0 if its processes are unknown.
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
    /// Opens the connections of `plan`. `processes`: those of the server, its main process first;
    /// empty: its CPU time is not measured. Only servers that are `ours` are stopped.
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
            length: if open_loop { OPEN_WARM_UP_SLICE } else { SLICE_MIN },
            faults: 0,
            ended: None,
            warm_up: Spent::default(),
            spent: Spent::default(),
        })
    }

    /// Why it has no further slices, if so.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// The usage of its slices after the warm-up.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// Ends the outcome: later slices are not in it ([`Session::conclude`]).
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

    /// Whether it uses CPU without requests and cannot be stopped.
    pub(super) fn disturbs(&self) -> bool {
        self.restless && !self.stops
    }

    /// Ends the warm-up.
    pub(super) fn forget(&mut self) {
        self.session.forget();
        if self.open_loop {
            self.length = OPEN_SLICE;
        }
        self.warm_up = std::mem::take(&mut self.spent);
    }

    /// Continues the server if it was stopped, runs `act`, and stops it again.
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

    /// Measures one slice; `None` if there are no further ones.
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

    /// Measures a slice of its session alone, and one together with `second`, in this order or the
    /// reverse. Neither is in its outcome, which is concluded.
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

    /// Checks a slice of the warm-up. After wrong or missing replies the server has no further
    /// slices, because each would take as long as the time limit of a request.
    pub(super) fn look_at_warm_up(&mut self, slice: &Slice) {
        if !self.open_loop {
            self.length = length_for(slice);
        }
        if slice.errors > 0 && self.ended.is_none() {
            self.ended = Some(format!(
                "{} of the requests in its first slices had wrong or missing replies; use \
                 fewer connections if it serves fewer at once",
                slice.errors
            ));
        }
    }

    /// Checks a slice. A server that hangs, or has sent wrong replies too often, has no further
    /// slices.
    pub(super) fn look_at(&mut self, slice: &Slice) {
        if slice.errors == 0 || self.ended.is_some() {
            return;
        }
        self.faults += 1;
        let hangs = slice.elapsed_ns > HANG.as_nanos() as u64;
        if hangs || self.faults == FAULTS_MAX {
            let (errors, seconds) = (slice.errors, slice.elapsed_ns as f64 / 1e9);
            self.ended = Some(format!(
                "{errors} requests in a slice of {seconds:.3} s had wrong or missing \
                 replies, so it has no further slices"
            ));
        }
    }

    /// Measures whether the server uses CPU without requests, and stops it if so.
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

/// The length of slices, from one of the warm-up.
fn length_for(slice: &Slice) -> Duration {
    let round_trip_ns = slice.round_trip_ns();
    Duration::from_nanos((ROUND_TRIPS_MIN * round_trip_ns) as u64).clamp(SLICE_MIN, SLICE_MAX)
}

pub(crate) fn clocks(processes: &[Pid]) -> Result<Clocks, load::Error> {
    Clocks::of(&processes.iter().map(|process| process.as_raw()).collect::<Vec<_>>())
}

/// Processes that may be stopped (SIGSTOP). Dropping this continues them.
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
            // Fails only if it has ended, which its slice reports.
            let _ = kill(process, signal);
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.go_on();
    }
}
