//! What all connections together hold in memory, and what is done when it is too much.
//!
//! Every connection has limits of its own, and keeps to some hundred KiB; but a thousand clients
//! that go to these limits hold more than a small machine has, and then the kernel ends the whole
//! process. So there is one account. Above the *soft* bound no newcomer is let in, and a connection
//! that holds more than a little is not read. Above the *hard* bound, or where the soft one is
//! passed for longer than [`PATIENCE`], the connections that hold most are ended, one after
//! another, until the rest fits; and one that grows before they have gone is ended itself. Where
//! those that come instead fill it again at once, they have less patience ([`PATIENCE_AGAIN`]): the
//! honest client waits behind all of them.
//!
//! A connection says what it holds where that has changed by more than [`STEP_BYTES`], so a plain
//! request touches nothing that is shared. What cannot be seen from here (code, stacks, the
//! kernel's buffers, what malloc keeps) must find room beside the bound.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::{Address, Wake};

/// What an open connection is charged at least: its own state, its place in the driver's tables,
/// and what the kernel keeps for an idle socket. More than each takes of the control group's
/// memory where epoll, io_uring or tokio has thousands of them that were served once; half of it is
/// the kernel's. What else a client makes a connection hold is told.
pub const CONNECTION_BYTES: usize = 8 << 10;

/// Changes of what a connection holds that are not told, in bytes.
const STEP_BYTES: usize = 4 << 10;

/// More than a little: a connection that holds so many bytes is not read above the soft bound. A
/// request's head that is not whole is less, and so is what HTTP/2 keeps at rest.
const LITTLE_BYTES: usize = 32 << 10;

/// A connection that holds so many bytes is among those that may have to go. With
/// [`CONNECTION_BYTES`] it is three quarters of a connection's part where as many are open as half
/// of the bound has room for; so those that hold less cannot pass the soft bound, and keep
/// newcomers out, without any that could go.
const HOLDER_BYTES: usize = STEP_BYTES;

/// How long the soft bound may be passed before the largest connections go: newcomers wait so long.
const PATIENCE: Duration = Duration::from_millis(500);

/// The same where it is passed again within [`PATIENCE`] after that. A thousand clients that wait
/// for each other's places, fifty at a time, are through in a second.
const PATIENCE_AGAIN: Duration = Duration::from_millis(50);

/// A fall by so many bytes, and by three quarters, is told: what the allocator keeps after it is
/// worth a system call for each free page.
const FALL_BYTES: usize = 8 << 20;

/// What is told of the account when it changes by much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryChange {
    /// The soft bound is passed: [`Memory::admits`] is to be asked until it is kept again.
    SoftLimitPassed,
    /// Little is held of what was held before.
    MuchFreed,
}

/// The account of all connections of a process.
pub struct Memory {
    /// The hard bound.
    max: usize,
    /// Held now.
    held: AtomicUsize,
    /// More is held than the soft bound allows. Apart from `held`, because it seldom changes.
    tight: AtomicBool,
    /// The most that was held since the last fall.
    peak: AtomicUsize,
    holders: Mutex<Holders>,
    on_change: OnceLock<Box<dyn Fn(MemoryChange) + Send + Sync>>,
}

#[derive(Default)]
struct Holders {
    all: Slab<Arc<Holder>>,
    /// Since when newcomers wait.
    tight_since: Option<Instant>,
    /// When the largest were last told to go for newcomers.
    made_room: Option<Instant>,
}

/// A connection that holds something.
struct Holder {
    /// What it holds now.
    bytes: AtomicUsize,
    /// It is to end.
    told: AtomicBool,
    /// It is not read, and to be rung for when that changes.
    paused: AtomicBool,
    /// Not a handle of its own: a blocking model counts those, to know who may ring.
    bell: Option<Weak<dyn Wake>>,
    token: u64,
}

/// One connection's part of the account.
pub(crate) struct Share {
    memory: Arc<Memory>,
    /// What was told, without [`CONNECTION_BYTES`].
    told: usize,
    /// Of one that holds [`HOLDER_BYTES`]; where it is among the others.
    holder: Option<(usize, Arc<Holder>)>,
    /// Charged until the end: memory of a connection that has ended, which is with its driver.
    lent: usize,
}

impl Memory {
    /// An account whose hard bound is `max` bytes.
    pub fn new(max: usize) -> Memory {
        Memory {
            max,
            held: AtomicUsize::new(0),
            tight: AtomicBool::new(false),
            peak: AtomicUsize::new(0),
            holders: Mutex::default(),
            on_change: OnceLock::new(),
        }
    }

    /// Calls `watch` after every [`MemoryChange`], on the thread that caused it. To be called once.
    pub fn on_change(&self, watch: impl Fn(MemoryChange) + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(watch));
    }

    fn tell(&self, change: MemoryChange) {
        if let Some(watch) = self.on_change.get() {
            watch(change);
        }
    }

    /// More is held than the soft bound allows.
    pub fn is_above_soft_limit(&self) -> bool {
        self.tight.load(SeqCst)
    }

    /// The hard bound, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Bytes above which connections are held back.
    pub fn soft_max(&self) -> usize {
        self.max - self.max / 4
    }

    /// Bytes that connections hold now.
    pub fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// Whether a new connection may be let in. Who may not asks again soon: where nothing else
    /// gives memory back, the largest connections are ended for it.
    pub fn admits(&self, now: Instant) -> bool {
        if !self.tight.load(SeqCst) {
            return true;
        }
        let mut holders = self.lock();
        let since = *holders.tight_since.get_or_insert(now);
        let passed = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let again = holders.made_room.is_some_and(|at| passed(at, since) < PATIENCE);
        let soft = self.soft_max();
        // Well below, so that newcomers find room before the others fill it again.
        let (patience, left) =
            if again { (PATIENCE_AGAIN, soft / 2) } else { (PATIENCE, soft - soft / 4) };
        if passed(since, now) >= patience {
            holders.tight_since = Some(now);
            holders.made_room = Some(now);
            let told = self.choose(&holders, left);
            drop(holders);
            told.iter().for_each(|holder| holder.end());
        }
        false
    }

    /// Charges what is no connection's, such as a thread.
    pub fn add(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, SeqCst).saturating_add(bytes);
        if held > self.peak.load(SeqCst) {
            self.peak.fetch_max(held, SeqCst);
        }
        if held > self.soft_max() && !self.tight.swap(true, SeqCst) {
            self.tell(MemoryChange::SoftLimitPassed);
            if self.held() <= self.soft_max() {
                // Given back meanwhile, by somebody who saw no bound passed.
                self.loosen();
            }
        }
        if held > self.max {
            let told = self.choose(&self.lock(), self.max - self.max / 16);
            told.iter().for_each(|holder| holder.end());
        }
    }

    /// Ends [`Memory::add`].
    pub fn sub(&self, bytes: usize) {
        let held = self.held.fetch_sub(bytes, SeqCst) - bytes;
        let peak = self.peak.load(SeqCst);
        if held < peak / 4
            && peak - held > FALL_BYTES
            && self.peak.compare_exchange(peak, held, SeqCst, SeqCst).is_ok()
        {
            self.tell(MemoryChange::MuchFreed);
        }
        if held <= self.soft_max() && self.tight.load(SeqCst) {
            self.loosen();
        }
    }

    /// The soft bound is kept again: those that were not read are rung for.
    fn loosen(&self) {
        let mut holders = self.lock();
        holders.tight_since = None;
        loop {
            self.tight.store(false, SeqCst);
            if self.held() <= self.soft_max() {
                break;
            }
            // Passed again at this moment.
            self.tight.store(true, SeqCst);
            // What was given back before that found no bound passed, and has loosened nothing.
            if self.held() > self.soft_max() {
                return;
            }
        }
        let paused = holders.all.iter().map(|(_, holder)| holder);
        let paused = paused.filter(|holder| holder.paused.swap(false, SeqCst));
        let paused: Vec<_> = paused.cloned().collect();
        // No bell is rung under the lock: what it does is not known here.
        drop(holders);
        paused.iter().for_each(|holder| holder.wake());
    }

    /// Marks the largest connections until the others hold no more than `max` bytes. They are to be
    /// told outside of the lock.
    fn choose(&self, holders: &Holders, max: usize) -> Vec<Arc<Holder>> {
        let all = || holders.all.iter().map(|(_, holder)| holder);
        // Those that were told before go too, and soon.
        let going = all().filter(|holder| holder.told.load(SeqCst));
        let going = going.map(|holder| holder.bytes() + CONNECTION_BYTES).sum();
        let mut left = self.held().saturating_sub(going);
        // With what each holds now: it changes meanwhile.
        let others = all().filter(|holder| !holder.told.load(SeqCst));
        let mut largest: Vec<_> = others.map(|holder| (holder.bytes(), holder)).collect();
        largest.sort_unstable_by_key(|(bytes, _)| *bytes);
        let mut chosen = Vec::new();
        while left > max
            && let Some((bytes, holder)) = largest.pop()
            && bytes >= HOLDER_BYTES
        {
            left = left.saturating_sub(bytes + CONNECTION_BYTES);
            holder.told.store(true, SeqCst);
            chosen.push(Arc::clone(holder));
        }
        chosen
    }

    /// One holder less. Without any, the table takes no memory either.
    fn forget(&self, key: usize) {
        let mut holders = self.lock();
        holders.all.remove(key);
        if holders.all.is_empty() {
            holders.all = Slab::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        // Nothing panics under it half way through a change.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    fn wake(&self) {
        if let Some(bell) = self.bell.as_ref().and_then(Weak::upgrade) {
            bell.wake(self.token);
        }
    }

    fn end(&self) {
        if let Some(bell) = self.bell.as_ref().and_then(Weak::upgrade) {
            bell.interrupt(self.token);
        }
    }
}

impl Share {
    /// Of a connection that begins.
    pub(crate) fn new(memory: &Arc<Memory>) -> Share {
        memory.add(CONNECTION_BYTES);
        Share { memory: Arc::clone(memory), told: 0, holder: None, lent: 0 }
    }

    /// The connection holds `bytes` now; it can be reached at `address`.
    #[inline]
    pub(crate) fn set(&mut self, bytes: usize, address: &Address) {
        let bytes = bytes + self.lent;
        if bytes.abs_diff(self.told) >= STEP_BYTES {
            self.tell(bytes, address);
        }
    }

    fn tell(&mut self, bytes: usize, address: &Address) {
        if bytes >= HOLDER_BYTES && self.holder.is_none() {
            let (bell, token) = address.weak();
            let holder = Arc::new(Holder {
                bytes: AtomicUsize::new(0),
                told: AtomicBool::new(false),
                paused: AtomicBool::new(false),
                bell,
                token,
            });
            let key = self.memory.lock().all.insert(Arc::clone(&holder));
            self.holder = Some((key, holder));
        }
        if let Some((_, holder)) = &self.holder {
            holder.bytes.store(bytes, SeqCst);
        }
        if bytes < HOLDER_BYTES
            && let Some((key, _)) = self.holder.take_if(|(_, holder)| !holder.told.load(SeqCst))
        {
            // An idle connection owns nothing, not even its place among the holders.
            self.memory.forget(key);
        }
        let before = std::mem::replace(&mut self.told, bytes);
        if bytes > before {
            self.memory.add(bytes - before);
            // Those that were told have not gone yet, and there is no room to wait for that.
            if self.memory.held() > self.memory.max
                && let Some((_, holder)) = &self.holder
            {
                holder.told.store(true, SeqCst);
            }
        } else {
            self.memory.sub(before - bytes);
        }
    }

    /// `bytes` of what the connection holds are lent, and stay so until its driver drops it.
    pub(crate) fn lend(&mut self, bytes: usize) {
        self.lent = bytes;
    }

    /// The connection is to end: it holds more than others, and all together too much.
    pub(crate) fn is_told_to_end(&self) -> bool {
        self.holder.as_ref().is_some_and(|(_, holder)| holder.told.load(SeqCst))
    }

    /// The connection is not to be read now. It is rung for when that changes.
    pub(crate) fn is_held_back(&self) -> bool {
        let Some((_, holder)) = &self.holder else { return false };
        if self.told < LITTLE_BYTES || !self.memory.tight.load(SeqCst) {
            return false;
        }
        holder.paused.store(true, SeqCst);
        // Looked at once more: who loosens the bound clears `tight` first and looks for `paused`
        // then, so one of the two sees the other.
        self.memory.tight.load(SeqCst)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((key, _)) = self.holder.take() {
            self.memory.forget(key);
        }
        self.memory.sub(self.told + CONNECTION_BYTES);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("max", &self.max).field("held", &self.held()).finish()
    }
}
