//! Waits without epoll_pwait2(2): on Linux before 5.11, or in a container whose system-call filter
//! is older. epoll_wait(2) counts milliseconds.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use rustix::event::epoll;

use crate::Error;

/// The same set of sockets, for epoll_wait(2).
pub(super) struct CoarseWait {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl CoarseWait {
    pub(super) fn new(epoll: &OwnedFd) -> Result<Self, Error> {
        let same = epoll.try_clone().map_err(Error::system("dup"))?;
        Ok(CoarseWait { epoll: Epoll(same), events: Vec::new() })
    }

    /// One epoll_wait(2), at most `wait_ns`. It rounds down to milliseconds, so that requests are
    /// not sent late; the loop spins through the rest.
    pub(super) fn wait(
        &mut self,
        wait_ns: Option<u64>,
        events: &mut [epoll::Event],
    ) -> Result<usize, Error> {
        self.events.resize(events.len(), EpollEvent::empty());
        let timeout = match wait_ns {
            None => EpollTimeout::NONE,
            Some(wait_ns) => {
                EpollTimeout::try_from(wait_ns / 1_000_000).unwrap_or(EpollTimeout::MAX)
            }
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::system("epoll_wait")(errno)),
        };
        for (event, seen) in events.iter_mut().zip(&self.events).take(count) {
            event.flags = epoll::EventFlags::from_bits_retain(seen.events().bits() as u32);
            event.data = epoll::EventData::new_u64(seen.data());
        }
        Ok(count)
    }
}
