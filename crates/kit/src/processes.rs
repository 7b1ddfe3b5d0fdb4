//! What a server of many processes shares: memory in which each counts, and what the parent needs
//! to know of its children.
//!
//! A child is forked before the parent has a thread, and the parent never has one, because only the
//! thread that calls fork(2) exists in the child: a lock that another thread held would never be
//! released. Each child then starts threads of its own.
//!
//! SIGTERM and SIGINT concern the parent, which alone tells the children ([`STOP`]). A terminal or
//! a service manager sends its signal to all processes, and a child would take the second one as
//! the end of patience.
//!
//! Man pages: fork(2), wait(2), mmap(2) (MAP_SHARED), sigwait(3), PR_SET_PDEATHSIG(2const).

use std::fs;
use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering::SeqCst};

use conn::{Counters, Memory};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, SysconfVar, getppid, sysconf};

use crate::usage::{Usage, memory_peak_kib};
use crate::{Listener, sys};

/// Tells a child to stop. No terminal sends it.
pub(crate) const STOP: Signal = Signal::SIGUSR1;

/// Tells the parent that a child is ready.
const READY: Signal = Signal::SIGUSR2;

/// Threads of a child: the one that converses, the one that takes signals, the one that waits for
/// the end, and the second one of a conversation that has joined a chat.
pub(crate) const THREADS: usize = 4;

/// What one process counts, where all others can read it. A child that takes the place of one that
/// has ended goes on with its counters.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) counters: Counters,
    /// Bytes that its connection holds.
    pub(crate) memory_held: AtomicUsize,
    /// Its process; 0: none.
    process: AtomicU32,
    ready: AtomicBool,
}

/// What all processes share.
#[derive(Debug, Default)]
struct Shared {
    parent: AtomicU32,
    /// Of the children that have ended.
    switches_voluntary: AtomicI64,
    switches_involuntary: AtomicI64,
}

/// All places, and what is shared beside them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    shared: &'static Shared,
    pub(crate) all: &'static [Place],
}

/// What the calling process is after the forks.
#[derive(Debug)]
pub enum Role {
    /// It serves, and counts in the place of this number.
    Child(usize),
    /// All of its children have ended.
    Parent,
}

/// The children of a server, in the hands of their parent.
#[derive(Debug)]
pub struct Processes {
    places: Places,
    signals: SigSet,
    listener: Listener,
    listening: String,
    is_announced: bool,
    stopping: bool,
    /// The second signal: the children were killed.
    impatient: bool,
    pub(crate) failure: Option<String>,
    pub(crate) peak_kib: i64,
}

impl Places {
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn new(processes: usize) -> io::Result<Places> {
        let shared = &sys::share::<Shared>(1)?[0];
        shared.parent.store(process::id(), SeqCst);
        Ok(Places { shared, all: sys::share(processes)? })
    }

    pub(crate) fn counters(self) -> Vec<&'static Counters> {
        self.all.iter().map(|place| &place.counters).collect()
    }

    /// The account of one process: an equal part of `max`.
    pub(crate) fn memory(self, place: usize, max: usize) -> Memory {
        Memory::counted_in(max / self.all.len(), &self.all[place].memory_held)
    }

    /// Bytes that the connections of all processes hold.
    pub(crate) fn memory_held(self) -> usize {
        self.all.iter().map(|place| place.memory_held.load(SeqCst)).sum()
    }

    /// Called in a child. It ends with its parent, whatever ends that.
    ///
    /// # Errors
    /// A sentence, if the parent has ended already.
    pub(crate) fn enter(self) -> Result<(), String> {
        // Fails only for a signal that does not exist.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        let parent = self.shared.parent.load(SeqCst);
        if getppid().as_raw().unsigned_abs() != parent {
            return Err("the parent has ended".to_owned());
        }
        Ok(())
    }

    /// Called in a child that is about to accept.
    pub(crate) fn ready(self, place: usize) {
        self.all[place].ready.store(true, SeqCst);
        // Fails if the parent has ended, and then this process ends too.
        let _ = kill(getppid(), READY);
    }

    fn alive(self) -> impl Iterator<Item = u32> {
        let children = self.all.iter().map(|place| place.process.load(SeqCst));
        children.filter(|&process| process != 0)
    }

    /// What all processes have used, the ended ones too. CPU time is in steps of a clock tick.
    pub(crate) fn usage(self) -> Usage {
        let parent = self.shared.parent.load(SeqCst);
        let mut sum = Usage {
            context_switches_voluntary: self.shared.switches_voluntary.load(SeqCst),
            context_switches_involuntary: self.shared.switches_involuntary.load(SeqCst),
            ..Usage::default()
        };
        for process in self.alive().chain([parent]) {
            add_cpu(&mut sum, process, process == parent);
            add_switches(&mut sum, process);
            sum.memory_peak_kib += memory_peak_kib(process).unwrap_or_default();
        }
        sum
    }
}

/// utime and stime of proc_pid_stat(5), and of the children that were waited for, if asked.
fn add_cpu(sum: &mut Usage, process: u32, with_children: bool) {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field, the name, is in brackets and may hold spaces; utime is the 14th.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: Vec<i64> = fields.skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let micros = |ticks: i64| ticks * 1_000_000 / per_second;
    if let [user, system, user_of_children, system_of_children] = ticks[..] {
        let children = i64::from(with_children);
        sum.cpu_user_us += micros(user + children * user_of_children);
        sum.cpu_system_us += micros(system + children * system_of_children);
    }
}

/// The context switches of all threads of a process (proc_pid_status(5) counts one thread).
fn add_switches(sum: &mut Usage, process: u32) {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let count = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().parse::<i64>().ok()).unwrap_or_default()
        };
        sum.context_switches_voluntary += count("voluntary_ctxt_switches:");
        sum.context_switches_involuntary += count("nonvoluntary_ctxt_switches:");
    }
}

impl Processes {
    /// Blocks the signals that the parent waits for; children inherit that.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn new(
        places: Places,
        listener: Listener,
        listening: String,
    ) -> Result<Processes, String> {
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, READY]);
        let mut blocked = signals;
        blocked.add(STOP);
        blocked.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
        Ok(Processes {
            places,
            signals,
            listener,
            listening,
            is_announced: false,
            stopping: false,
            impatient: false,
            failure: None,
            peak_kib: 0,
        })
    }

    /// A place without a process; none while the server stops.
    pub fn vacant(&self) -> Option<usize> {
        let is_free = |place: &Place| place.process.load(SeqCst) == 0;
        if self.stopping { None } else { self.places.all.iter().position(is_free) }
    }

    /// Whether any child is left.
    pub fn any(&self) -> bool {
        self.places.alive().next().is_some()
    }

    /// This child was forked for that place.
    pub fn born(&self, place: usize, child: Pid) {
        self.places.all[place].process.store(child.as_raw().unsigned_abs(), SeqCst);
    }

    /// Prints the line that says where the server listens, once all children are ready. Call it
    /// before each wait.
    pub fn announce(&mut self) {
        let begins = |place: &Place| place.process.load(SeqCst) != 0 && !place.ready.load(SeqCst);
        if !self.is_announced && !self.places.all.iter().any(begins) {
            crate::run::print_line(&self.listening);
            self.is_announced = true;
        }
    }

    /// Sleeps until a signal comes; a child that is ready sends one too. The first that ends a
    /// server tells all children to finish, the second kills them. Then, or when a child has ended
    /// (SIGCHLD): call wait(2) for each.
    ///
    /// # Errors
    /// What sigwait(3) says.
    pub fn wait_for_signal(&mut self) -> io::Result<()> {
        match self.signals.wait()? {
            Signal::SIGCHLD | READY => {}
            _ if self.stopping => {
                self.impatient = true;
                self.tell(Signal::SIGKILL);
            }
            _ => self.stop(),
        }
        Ok(())
    }

    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.peak_kib = self.places.usage().memory_peak_kib;
            self.tell(STOP);
        }
    }

    fn tell(&self, signal: Signal) {
        for process in self.places.alive() {
            // Fails for one that has ended and was not waited for yet.
            let _ = kill(Pid::from_raw(process as libc::pid_t), signal);
        }
    }

    /// What wait(2) has said of a child. One that was killed costs its own client, and its place is
    /// vacant. One that ends by itself ends the server: the next would end like it.
    pub fn ended(&mut self, status: WaitStatus) {
        let Some(child) = status.pid().map(|pid| pid.as_raw().unsigned_abs()) else { return };
        let of_child = |place: &&Place| place.process.load(SeqCst) == child;
        let Some(place) = self.places.all.iter().find(of_child) else { return };
        place.process.store(0, SeqCst);
        place.ready.store(false, SeqCst);
        let switches = Usage::of_ended_children();
        let shared = self.places.shared;
        shared.switches_voluntary.store(switches.context_switches_voluntary, SeqCst);
        shared.switches_involuntary.store(switches.context_switches_involuntary, SeqCst);
        if !self.impatient {
            place.counters.abandoned();
            place.memory_held.store(0, SeqCst);
        }
        match status {
            // It has found the accept queue empty, so no client waits: the next are refused.
            WaitStatus::Exited(_, 0) if self.stopping => self.listener.shutdown(),
            WaitStatus::Exited(_, code) => {
                let reason = format!("a child ended with exit code {code}");
                self.failure.get_or_insert(reason);
                self.stop();
            }
            _ => {}
        }
    }

    /// Whether the server was told to stop, or has to.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }
}
