//! Connections that say nothing. What they cost a server is what separates the ways of waiting.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use socket2::Socket;
use std::os::fd::AsFd;

use crate::socket::{Sockets, connect_error};
use crate::{Error, Live};

/// connect(2)s in progress at once: well below the backlog of 4,096 that servers ask for. On
/// loopback connect completes before the server has accepted, so this also lets the server keep
/// pace.
const BATCH: u32 = 256;
/// One batch may take so long. A SYN that meets a full backlog is dropped and sent again after one
/// second, then after two more (tcp(7)): two tries are granted.
const BATCH_LIMIT: Duration = Duration::from_secs(4);

/// Silent connections, held open.
pub(crate) struct Idle {
    sockets: Vec<Socket>,
    /// How many other connections come from the same addresses.
    beside: u32,
}

impl Idle {
    /// Opens `count` connections, in batches, beside so many that carry load and need ports too.
    pub(crate) fn open(
        sockets: &Sockets,
        live: &Live,
        beside: u32,
        count: u32,
    ) -> Result<Idle, Error> {
        let mut idle = Idle { sockets: Vec::with_capacity(count as usize), beside };
        while idle.len() < count {
            if live.is_stopped() {
                return Err(Error::Interrupted);
            }
            let batch = BATCH.min(count - idle.len());
            idle.open_batch(sockets, batch).map_err(|reason| Error::Idle {
                opened: idle.len(),
                asked: count,
                reason,
            })?;
        }
        Ok(idle)
    }

    /// Opens `count` connections and waits until all of them are made: one poll(2) for all, and
    /// again for those that are late.
    fn open_batch(&mut self, sockets: &Sockets, count: u32) -> Result<(), String> {
        let first = self.beside + self.len();
        let begun: Result<Vec<_>, _> =
            (first..first + count).map(|index| sockets.connect(index)).collect();
        let mut begun = begun.map_err(|error| error.to_string())?;
        let end = Instant::now() + BATCH_LIMIT;
        while !begun.is_empty() {
            let made = wait_for_some(&begun, end)?;
            let mut made = made.into_iter();
            let (done, late): (Vec<_>, Vec<_>) =
                begun.into_iter().partition(|_| made.next().unwrap_or_default());
            if let Some(error) = done.iter().find_map(connect_error) {
                return Err(error.to_string());
            }
            self.sockets.extend(done);
            begun = late;
        }
        Ok(())
    }

    /// How many were opened.
    pub(crate) fn len(&self) -> u32 {
        self.sockets.len() as u32
    }

    /// How many are still open and silent: nothing was received on them, not even an end.
    pub(crate) fn still_open(&self) -> u32 {
        let silent = |socket: &&Socket| {
            let peeked = recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK);
            peeked == Err(Errno::EAGAIN)
        };
        self.sockets.iter().filter(silent).count() as u32
    }
}

/// Waits until some of these have ended their connect(2), well or badly; which.
fn wait_for_some(sockets: &[Socket], end: Instant) -> Result<Vec<bool>, String> {
    let mut fds: Vec<_> =
        sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)).collect();
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, timeout) {
            Ok(0) => return Err("the server stopped accepting".to_owned()),
            Ok(_) => return Ok(fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.to_string()),
        }
    }
}
