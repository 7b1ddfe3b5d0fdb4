//! The memory account: how many bytes all connections hold together, and what happens when it is
//! too much.
//!
//! Each connection has limits of its own, some hundred KiB. But a thousand connections at these
//! limits hold more than a small machine has, and the kernel would kill the process. So the process
//! has one account with two limits.
//!
//! Above the *soft* limit no new connection is accepted, and a connection above
//! [`UNPAUSED_BYTES_MAX`] is not read. Above the *hard* limit, or after [`END_DELAY`] above the
//! soft one, the connections that hold most are ended until the rest fits. A connection that grows
//! above the hard limit before those are closed is ended itself. If new connections exceed the soft
//! limit again at once, the delay is shorter ([`END_DELAY_AGAIN`]), because all other clients wait
//! to be accepted.
//!
//! A connection reports changes of more than [`REPORT_STEP_BYTES`] only, so a plain request touches
//! no shared memory. Other memory (code, stacks, kernel buffers, free pages that malloc keeps) must
//! fit beside the hard limit.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::{Address, Wake};

/// The least that an open connection is charged: its state, its entries in the driver's tables, and
/// the kernel's memory for an idle socket. It is more than a connection adds to the control group's
/// memory when epoll, io_uring or tokio holds thousands that have had one request. Half of it is
/// the kernel's. All other memory is reported.
pub const CONNECTION_BYTES: usize = 8 << 10;

const REPORT_STEP_BYTES: usize = 4 << 10;

/// A connection that holds fewer bytes is read even above the soft limit. An incomplete request
/// head is smaller, and so is an idle HTTP/2 connection.
const UNPAUSED_BYTES_MAX: usize = 32 << 10;

/// A connection that holds so many bytes may be ended to free memory. At most as many connections
/// are open as fit into half of the hard limit, at [`CONNECTION_BYTES`] each. If each of them holds
/// less than this besides, all together stay below the soft limit (three quarters of the hard one).
/// So above the soft limit there is always a connection that may be ended.
const CANDIDATE_BYTES: usize = REPORT_STEP_BYTES;

/// Time above the soft limit before the largest connections are ended. New connections wait so
/// long.
const END_DELAY: Duration = Duration::from_millis(500);

/// The same if the soft limit is exceeded again within [`END_DELAY`] after that. A thousand clients
/// that are served fifty at a time then need a second.
const END_DELAY_AGAIN: Duration = Duration::from_millis(50);

/// A decrease by so many bytes and by three quarters is notified. The allocator then keeps so much
/// free memory that giving it back is worth one system call per page.
const FREED_BYTES_MIN: usize = 8 << 20;

/// A large change of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryChange {
    /// The soft limit is exceeded: ask [`Memory::admits`] until it is kept again.
    SoftLimitPassed,
    /// Less than a quarter of the peak is still held.
    MuchFreed,
}

/// The memory account of a process.
pub struct Memory {
    max: usize,
    held: Held,
    /// The soft limit is exceeded. Kept apart from `held`, because it seldom changes.
    soft_limit_exceeded: AtomicBool,
    /// The most that was held since the last [`MemoryChange::MuchFreed`].
    peak: AtomicUsize,
    candidates: Mutex<Candidates>,
    on_change: OnceLock<Box<dyn Fn(MemoryChange) + Send + Sync>>,
}

/// Where the bytes are counted.
enum Held {
    Own(AtomicUsize),
    Shared(&'static AtomicUsize),
}

impl Deref for Held {
    type Target = AtomicUsize;

    fn deref(&self) -> &AtomicUsize {
        match self {
            Held::Own(bytes) => bytes,
            Held::Shared(bytes) => bytes,
        }
    }
}

#[derive(Default)]
struct Candidates {
    all: Slab<Arc<Candidate>>,
    /// Since when new connections wait.
    exceeded_since: Option<Instant>,
    /// When connections were last ended for new ones.
    made_room: Option<Instant>,
}

struct Candidate {
    bytes: AtomicUsize,
    must_end: AtomicBool,
    /// It is not read. Its driver is woken when that changes.
    paused: AtomicBool,
    /// Weak, because a blocking model counts the strong handles to know whether others can wake it.
    driver: Option<Weak<dyn Wake>>,
    token: u64,
}

pub(crate) struct MemoryUse {
    memory: Arc<Memory>,
    /// The bytes last reported, without [`CONNECTION_BYTES`].
    reported: usize,
    /// Set when the connection holds [`CANDIDATE_BYTES`]: its key in the table, and its entry.
    candidate: Option<(usize, Arc<Candidate>)>,
    /// Bytes of an ended connection that its driver still holds. They stay in the account until the
    /// driver drops it.
    lent: usize,
}

impl Memory {
    /// An account whose hard limit is `max` bytes.
    pub fn new(max: usize) -> Memory {
        Memory::with(max, Held::Own(AtomicUsize::new(0)))
    }

    /// The same for one process of many: what its connections hold is counted in `held`, where the
    /// others can read it.
    pub fn counted_in(max: usize, held: &'static AtomicUsize) -> Memory {
        Memory::with(max, Held::Shared(held))
    }

    fn with(max: usize, held: Held) -> Memory {
        Memory {
            max,
            held,
            soft_limit_exceeded: AtomicBool::new(false),
            peak: AtomicUsize::new(0),
            candidates: Mutex::default(),
            on_change: OnceLock::new(),
        }
    }

    /// Calls `watch` after every [`MemoryChange`], on the thread that caused it. Call this once.
    pub fn on_change(&self, watch: impl Fn(MemoryChange) + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(watch));
    }

    fn notify(&self, change: MemoryChange) {
        if let Some(watch) = self.on_change.get() {
            watch(change);
        }
    }

    /// Whether the soft limit is exceeded.
    pub fn is_above_soft_limit(&self) -> bool {
        self.soft_limit_exceeded.load(SeqCst)
    }

    /// The hard limit, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// The soft limit, in bytes.
    pub fn soft_max(&self) -> usize {
        self.max - self.max / 4
    }

    /// Bytes that connections hold now.
    pub fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// Whether a new connection may be accepted. If not, ask again soon: after some time the
    /// largest connections are ended to make room.
    pub fn admits(&self, now: Instant) -> bool {
        if !self.soft_limit_exceeded.load(SeqCst) {
            return true;
        }
        let mut candidates = self.lock();
        let since = *candidates.exceeded_since.get_or_insert(now);
        let passed = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let again = candidates.made_room.is_some_and(|at| passed(at, since) < END_DELAY);
        let soft = self.soft_max();
        // Well below the limit, so that new connections are accepted before the others fill it
        // again.
        let (delay, left) =
            if again { (END_DELAY_AGAIN, soft / 2) } else { (END_DELAY, soft - soft / 4) };
        if passed(since, now) >= delay {
            candidates.exceeded_since = Some(now);
            candidates.made_room = Some(now);
            let chosen = self.choose_largest(&candidates, left);
            drop(candidates);
            chosen.iter().for_each(|candidate| candidate.end());
        }
        false
    }

    /// Adds bytes that belong to no connection, such as a thread's stack.
    pub fn add(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, SeqCst).saturating_add(bytes);
        if held > self.peak.load(SeqCst) {
            self.peak.fetch_max(held, SeqCst);
        }
        if held > self.soft_max() && !self.soft_limit_exceeded.swap(true, SeqCst) {
            self.notify(MemoryChange::SoftLimitPassed);
            if self.held() <= self.soft_max() {
                // Another thread has freed memory before it could see the flag.
                self.soft_limit_kept();
            }
        }
        if held > self.max {
            let chosen = self.choose_largest(&self.lock(), self.max - self.max / 16);
            chosen.iter().for_each(|candidate| candidate.end());
        }
    }

    /// Undoes [`Memory::add`].
    pub fn sub(&self, bytes: usize) {
        let held = self.held.fetch_sub(bytes, SeqCst) - bytes;
        let peak = self.peak.load(SeqCst);
        if held < peak / 4
            && peak - held > FREED_BYTES_MIN
            && self.peak.compare_exchange(peak, held, SeqCst, SeqCst).is_ok()
        {
            self.notify(MemoryChange::MuchFreed);
        }
        if held <= self.soft_max() && self.soft_limit_exceeded.load(SeqCst) {
            self.soft_limit_kept();
        }
    }

    /// The soft limit is kept again: wakes the connections that were not read.
    fn soft_limit_kept(&self) {
        let mut candidates = self.lock();
        candidates.exceeded_since = None;
        loop {
            self.soft_limit_exceeded.store(false, SeqCst);
            if self.held() <= self.soft_max() {
                break;
            }
            self.soft_limit_exceeded.store(true, SeqCst);
            // A thread that freed memory meanwhile has seen the flag cleared, and has woken no
            // connection.
            if self.held() > self.soft_max() {
                return;
            }
        }
        let paused = candidates.all.iter().map(|(_, candidate)| candidate);
        let paused = paused.filter(|candidate| candidate.paused.swap(false, SeqCst));
        let paused: Vec<_> = paused.cloned().collect();
        // No wake-up under the lock: the model may take locks of its own.
        drop(candidates);
        paused.iter().for_each(|candidate| candidate.wake());
    }

    /// Marks the largest connections until the others hold no more than `max` bytes. The caller
    /// wakes them without the lock.
    fn choose_largest(&self, candidates: &Candidates, max: usize) -> Vec<Arc<Candidate>> {
        let all = || candidates.all.iter().map(|(_, candidate)| candidate);
        let going = all().filter(|candidate| candidate.must_end.load(SeqCst));
        let going = going.map(|candidate| candidate.bytes() + CONNECTION_BYTES).sum();
        let mut left = self.held().saturating_sub(going);
        // Copied, because the numbers change during the sort.
        let others = all().filter(|candidate| !candidate.must_end.load(SeqCst));
        let mut largest: Vec<_> = others.map(|candidate| (candidate.bytes(), candidate)).collect();
        largest.sort_unstable_by_key(|(bytes, _)| *bytes);
        let mut chosen = Vec::new();
        while left > max
            && let Some((bytes, candidate)) = largest.pop()
            && bytes >= CANDIDATE_BYTES
        {
            left = left.saturating_sub(bytes + CONNECTION_BYTES);
            candidate.must_end.store(true, SeqCst);
            chosen.push(Arc::clone(candidate));
        }
        chosen
    }

    fn remove(&self, key: usize) {
        let mut candidates = self.lock();
        candidates.all.remove(key);
        if candidates.all.is_empty() {
            candidates.all = Slab::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Candidates> {
        // No code panics while it changes the table.
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Candidate {
    fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    fn wake(&self) {
        if let Some(driver) = self.driver.as_ref().and_then(Weak::upgrade) {
            driver.wake(self.token);
        }
    }

    fn end(&self) {
        if let Some(driver) = self.driver.as_ref().and_then(Weak::upgrade) {
            driver.interrupt(self.token);
        }
    }
}

impl MemoryUse {
    pub(crate) fn new(memory: &Arc<Memory>) -> MemoryUse {
        memory.add(CONNECTION_BYTES);
        MemoryUse { memory: Arc::clone(memory), reported: 0, candidate: None, lent: 0 }
    }

    #[inline]
    pub(crate) fn set(&mut self, bytes: usize, address: &Address) {
        let bytes = bytes + self.lent;
        if bytes.abs_diff(self.reported) >= REPORT_STEP_BYTES {
            self.report(bytes, address);
        }
    }

    fn report(&mut self, bytes: usize, address: &Address) {
        if bytes >= CANDIDATE_BYTES && self.candidate.is_none() {
            let (driver, token) = address.weak();
            let candidate = Arc::new(Candidate {
                bytes: AtomicUsize::new(0),
                must_end: AtomicBool::new(false),
                paused: AtomicBool::new(false),
                driver,
                token,
            });
            let key = self.memory.lock().all.insert(Arc::clone(&candidate));
            self.candidate = Some((key, candidate));
        }
        if let Some((_, candidate)) = &self.candidate {
            candidate.bytes.store(bytes, SeqCst);
        }
        if bytes < CANDIDATE_BYTES
            && let Some((key, _)) =
                self.candidate.take_if(|(_, candidate)| !candidate.must_end.load(SeqCst))
        {
            // An idle connection owns no memory, so it leaves the table too.
            self.memory.remove(key);
        }
        let before = std::mem::replace(&mut self.reported, bytes);
        if bytes > before {
            self.memory.add(bytes - before);
            // The marked connections have not ended yet, so this one may not grow.
            if self.memory.held() > self.memory.max
                && let Some((_, candidate)) = &self.candidate
            {
                candidate.must_end.store(true, SeqCst);
            }
        } else {
            self.memory.sub(before - bytes);
        }
    }

    /// `bytes` of the connection's memory are lent until its driver drops it.
    pub(crate) fn lend(&mut self, bytes: usize) {
        self.lent = bytes;
    }

    /// The connection must end: it holds more than others, and the account is full.
    pub(crate) fn must_end(&self) -> bool {
        self.candidate.as_ref().is_some_and(|(_, candidate)| candidate.must_end.load(SeqCst))
    }

    /// The connection must not be read now. Its driver is woken when that changes.
    pub(crate) fn must_pause(&self) -> bool {
        let Some((_, candidate)) = &self.candidate else { return false };
        if self.reported < UNPAUSED_BYTES_MAX || !self.memory.soft_limit_exceeded.load(SeqCst) {
            return false;
        }
        candidate.paused.store(true, SeqCst);
        // Read a second time: `soft_limit_kept` clears `soft_limit_exceeded` before it looks for
        // `paused`, so one of the two threads sees what the other has written.
        self.memory.soft_limit_exceeded.load(SeqCst)
    }
}

impl Drop for MemoryUse {
    fn drop(&mut self) {
        if let Some((key, _)) = self.candidate.take() {
            self.memory.remove(key);
        }
        self.memory.sub(self.reported + CONNECTION_BYTES);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("max", &self.max).field("held", &self.held()).finish()
    }
}
