//! The chat: its members, and the messages queued for each.
//!
//! A message is framed once. Its bytes are added to the queue of every other member, and that
//! member's driver moves them into the output when it is woken and whenever there is room. A queue
//! is bounded. When it overflows, the member is removed from the chat and its queue is freed; its
//! connection learns of this when it runs next. So a member that does not read costs the others
//! neither memory nor time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use slab::Slab;

use crate::Address;
use crate::output::Output;

/// The members of the chat, over all workers.
#[derive(Debug, Default)]
pub struct Chat {
    /// Read-locked to send, so that several members can send at once. Write-locked to join and
    /// leave.
    members: RwLock<Slab<Arc<Member>>>,
}

#[derive(Debug)]
struct Member {
    address: Address,
    queue: Mutex<FrameQueue>,
}

#[derive(Debug, Default)]
struct FrameQueue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    dropped: bool,
}

/// A member's place in the chat. Dropping it leaves the chat.
#[derive(Debug)]
pub(crate) struct Membership {
    chat: Arc<Chat>,
    /// Index in `members`. Another member may have it after this one was removed.
    key: usize,
    member: Arc<Member>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped;

impl Membership {
    /// Joins. `address` is woken when there are messages.
    pub(crate) fn join(chat: &Arc<Chat>, address: &Address) -> Membership {
        let member = Arc::new(Member { address: address.clone(), queue: Mutex::default() });
        let key = chat.write().insert(Arc::clone(&member));
        Membership { chat: Arc::clone(chat), key, member }
    }

    /// Sends `frames` to all other members. A member for which more than `backlog_bytes_max` would
    /// then wait is removed; returns how many were.
    pub(crate) fn send(&self, frames: Bytes, backlog_bytes_max: usize) -> u64 {
        // No wake-up under a lock: the model may take locks of its own.
        let mut to_wake = Vec::new();
        let mut dropped = Vec::new();
        for (_, member) in self.chat.read().iter() {
            if Arc::ptr_eq(member, &self.member) {
                continue;
            }
            match member.lock().put(&frames, backlog_bytes_max) {
                Queued::First => to_wake.push(Arc::clone(member)),
                // Its driver was woken before, or waits for room and then looks again.
                Queued::Behind => {}
                Queued::Full => dropped.push(Arc::clone(member)),
            }
        }
        if !dropped.is_empty() {
            let mut members = self.chat.write();
            members.retain(|_, member| !dropped.iter().any(|out| Arc::ptr_eq(out, member)));
        }
        for member in to_wake.iter().chain(&dropped) {
            member.address.wake();
        }
        dropped.len() as u64
    }

    /// Moves frames into `output` until that holds `high_water_bytes`. True if more are left.
    pub(crate) fn take_frames(
        &self,
        output: &mut Output,
        high_water_bytes: usize,
    ) -> Result<bool, Dropped> {
        let mut queue = self.member.lock();
        if queue.dropped {
            return Err(Dropped);
        }
        while output.len() < high_water_bytes {
            let Some(frames) = queue.frames.pop_front() else {
                // A member without messages owns no queue memory.
                queue.frames = VecDeque::new();
                return Ok(false);
            };
            queue.bytes -= frames.len();
            output.push(frames);
        }
        Ok(!queue.frames.is_empty())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.chat.write();
        if members.get(self.key).is_some_and(|member| Arc::ptr_eq(member, &self.member)) {
            members.remove(self.key);
        }
    }
}

enum Queued {
    First,
    Behind,
    Full,
}

impl FrameQueue {
    fn put(&mut self, frames: &Bytes, bytes_max: usize) -> Queued {
        if self.dropped {
            // The sender that removed this member wakes it.
            return Queued::Behind;
        }
        // An empty queue takes a message of any size: a large message is not the receiver's fault.
        if !self.frames.is_empty() && self.bytes + frames.len() > bytes_max {
            *self = FrameQueue { dropped: true, ..FrameQueue::default() };
            return Queued::Full;
        }
        self.bytes += frames.len();
        self.frames.push_back(frames.clone());
        if self.frames.len() == 1 { Queued::First } else { Queued::Behind }
    }
}

impl Member {
    fn lock(&self) -> MutexGuard<'_, FrameQueue> {
        // No code panics while it changes a queue, so a poisoned lock is usable.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chat {
    fn read(&self) -> RwLockReadGuard<'_, Slab<Arc<Member>>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slab<Arc<Member>>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }
}
