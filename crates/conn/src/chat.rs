//! The chat room: who is in it, and what is on its way to them.
//!
//! What one says is framed once, and the same bytes are put into every other member's mailbox; the
//! member's own driver carries them from there into its output, when it is rung for and whenever
//! there is room. A mailbox is bounded. Whoever lets his run over leaves the room at once, mail and
//! all, and hears of it when his connection runs the next time: so one who does not read costs the
//! others neither memory nor time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use slab::Slab;

use crate::Address;
use crate::output::Output;

/// The members of the chat, over all workers.
#[derive(Debug, Default)]
pub struct Chat {
    /// Read while something is said, so several may speak at once; written by who comes and goes.
    members: RwLock<Slab<Arc<Member>>>,
}

#[derive(Debug)]
struct Member {
    address: Address,
    mailbox: Mutex<Mailbox>,
}

/// What waits for one member.
#[derive(Debug, Default)]
struct Mailbox {
    /// Whole frames, oldest first.
    mail: VecDeque<Bytes>,
    /// Bytes in `mail`.
    bytes: usize,
    /// It ran over, and its owner is out of the room.
    dropped: bool,
}

/// One member's place in the room. Leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    chat: Arc<Chat>,
    /// Place in the room; somebody else's once this member was dropped from it.
    key: usize,
    member: Arc<Member>,
}

/// This member was too slow, and is out of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped;

impl Membership {
    /// Comes in; `address` is rung when there is mail.
    pub(crate) fn join(chat: &Arc<Chat>, address: &Address) -> Membership {
        let member = Arc::new(Member { address: address.clone(), mailbox: Mutex::default() });
        let key = chat.write().insert(Arc::clone(&member));
        Membership { chat: Arc::clone(chat), key, member }
    }

    /// Sends `frames` to all others. Returns how many members were dropped for it, because with it
    /// more than `backlog_bytes_max` would wait for them.
    pub(crate) fn say(&self, frames: Bytes, backlog_bytes_max: usize) -> u64 {
        // Nobody is rung while a lock is held: what a bell does is not known here.
        let mut rung = Vec::new();
        let mut dropped = Vec::new();
        for (_, member) in self.chat.read().iter() {
            if Arc::ptr_eq(member, &self.member) {
                continue;
            }
            match member.lock().put(&frames, backlog_bytes_max) {
                Put::First => rung.push(Arc::clone(member)),
                // Its driver was rung for, or waits for room and looks again by itself.
                Put::Behind => {}
                Put::RunOver => dropped.push(Arc::clone(member)),
            }
        }
        if !dropped.is_empty() {
            let mut members = self.chat.write();
            members.retain(|_, member| !dropped.iter().any(|out| Arc::ptr_eq(out, member)));
        }
        for member in rung.iter().chain(&dropped) {
            member.address.wake();
        }
        dropped.len() as u64
    }

    /// Moves mail into `output` until that holds `high_water_bytes`; true if there is more.
    pub(crate) fn collect(
        &self,
        output: &mut Output,
        high_water_bytes: usize,
    ) -> Result<bool, Dropped> {
        let mut mailbox = self.member.lock();
        if mailbox.dropped {
            return Err(Dropped);
        }
        while output.len() < high_water_bytes {
            let Some(frames) = mailbox.mail.pop_front() else {
                // Who hears nothing owns nothing.
                mailbox.mail = VecDeque::new();
                return Ok(false);
            };
            mailbox.bytes -= frames.len();
            output.push(frames);
        }
        Ok(!mailbox.mail.is_empty())
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

/// What became of a letter.
enum Put {
    /// It is the only one.
    First,
    /// There are others before it.
    Behind,
    /// There was no room, and now there is no mailbox.
    RunOver,
}

impl Mailbox {
    fn put(&mut self, frames: &Bytes, bytes_max: usize) -> Put {
        if self.dropped {
            // By another speaker, who will ring.
            return Put::Behind;
        }
        // An empty mailbox takes whatever comes: a large message is nobody's fault who hears it.
        if !self.mail.is_empty() && self.bytes + frames.len() > bytes_max {
            *self = Mailbox { dropped: true, ..Mailbox::default() };
            return Put::RunOver;
        }
        self.bytes += frames.len();
        self.mail.push_back(frames.clone());
        if self.mail.len() == 1 { Put::First } else { Put::Behind }
    }
}

impl Member {
    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        // Nothing in here panics half way, so a poisoned lock guards a mailbox like any other.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
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
