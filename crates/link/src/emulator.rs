//! The thread that moves packets between the two devices. man: ppoll(2), prctl(2).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::unistd::{read, write};

use crate::{Counters, Direction, MTU_BYTES, Pipe, Profile};

/// Packets read from one device before those that are due are delivered: some 100 us of work, so
/// that a flood in one direction does not delay the other by more.
const BATCH_PACKETS: usize = 64;

/// Later than asked for, ppoll(2) may return by 50 us (prctl(2), PR_SET_TIMERSLACK). This is the
/// least that can be set.
const TIMER_SLACK_NS: libc::c_ulong = 1;

/// What other threads see of the emulator.
#[derive(Debug, Default)]
struct Shown {
    to_server: Counters,
    to_client: Counters,
    refused: u64,
    failure: Option<String>,
}

/// The running thread; dropping this ends it.
#[derive(Debug)]
pub(crate) struct Emulator {
    thread: Option<JoinHandle<()>>,
    stop: Arc<EventFd>,
    shown: Arc<Mutex<Shown>>,
}

impl Emulator {
    /// Starts the thread between the devices of client and server.
    pub(crate) fn start(profile: &Profile, client: OwnedFd, server: OwnedFd) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let shown = Arc::new(Mutex::new(Shown::default()));
        let mut mover = Mover {
            client,
            server,
            to_server: Pipe::new(profile, Direction::ToServer),
            to_client: Pipe::new(profile, Direction::ToClient),
            buffer: vec![0; MTU_BYTES],
            refused: 0,
        };
        let (seen, ended) = (Arc::clone(&shown), Arc::clone(&stop));
        let work = move || {
            let failure = mover.run(&ended, &seen).err();
            let mut shown = seen.lock().unwrap_or_else(PoisonError::into_inner);
            shown.failure = failure.map(|error| format!("the emulator ended: {error}"));
        };
        let thread = std::thread::Builder::new().name("link".into()).spawn(work)?;
        Ok(Emulator { thread: Some(thread), stop, shown })
    }

    fn shown<T>(&self, look: impl FnOnce(&Shown) -> T) -> T {
        look(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn counters(&self, direction: Direction) -> Counters {
        self.shown(|shown| match direction {
            Direction::ToServer => shown.to_server,
            Direction::ToClient => shown.to_client,
        })
    }

    /// Packets that a device did not take.
    pub(crate) fn refused(&self) -> u64 {
        self.shown(|shown| shown.refused)
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.shown(|shown| shown.failure.clone())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Fails only if the counter is at its maximum, and then the thread ends too.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed; nothing else is left of it.
            let _ = thread.join();
        }
    }
}

struct Mover {
    client: OwnedFd,
    server: OwnedFd,
    to_server: Pipe,
    to_client: Pipe,
    buffer: Vec<u8>,
    refused: u64,
}

impl Mover {
    /// Moves packets until it is told to stop.
    fn run(&mut self, stop: &EventFd, shown: &Mutex<Shown>) -> io::Result<()> {
        set_timerslack(TIMER_SLACK_NS)?;
        loop {
            self.take_in()?;
            self.deliver(shown)?;
            if self.wait(stop)? {
                return Ok(());
            }
        }
    }

    /// Waits until a device can be read or a packet is due. Returns whether to stop.
    fn wait(&self, stop: &EventFd) -> io::Result<bool> {
        let next = [self.to_server.next(), self.to_client.next()].into_iter().flatten().min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let watched = [self.client.as_fd(), self.server.as_fd(), stop.as_fd()];
        let mut watched = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match ppoll(&mut watched, left.map(TimeSpec::from_duration), None) {
            Ok(_) => Ok(watched[2].any() == Some(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take_in(&mut self) -> io::Result<()> {
        let Mover { client, server, to_server, to_client, buffer, .. } = self;
        for (device, pipe) in [(client, to_server), (server, to_client)] {
            for _ in 0..BATCH_PACKETS {
                match read(&*device, buffer) {
                    Ok(bytes) if is_ipv4(&buffer[..bytes]) => {
                        pipe.send(buffer[..bytes].to_vec(), Instant::now());
                    }
                    Ok(_) => {}
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }

    /// Writes the packets that are due. They are counted before, so that a packet that has come out
    /// is in the counters, whenever its receiver looks at them.
    fn deliver(&mut self, shown: &Mutex<Shown>) -> io::Result<()> {
        let now = Instant::now();
        let to_server: Vec<_> = self.to_server.due(now).collect();
        let to_client: Vec<_> = self.to_client.due(now).collect();
        self.show(shown);
        for (device, packets) in [(&self.server, to_server), (&self.client, to_client)] {
            for packet in packets {
                match write(device, &packet) {
                    Ok(_) => {}
                    // No memory for it, as for any packet in the kernel; or no IP packet, which
                    // the other device cannot have sent.
                    Err(Errno::EAGAIN | Errno::ENOMEM | Errno::ENOBUFS | Errno::EINVAL) => {
                        self.refused += 1;
                    }
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }

    fn show(&self, shown: &Mutex<Shown>) {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.to_server = self.to_server.counters();
        shown.to_client = self.to_client.counters();
        shown.refused = self.refused;
    }
}

/// The addresses of a link are of IPv4. A kernel looks for routers of IPv6 by itself; such packets
/// are not carried, so that they are not counted.
fn is_ipv4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_ipv4_are_carried() {
        assert!(is_ipv4(&[0x45, 0]));
        assert!(!is_ipv4(&[0x60, 0]) && !is_ipv4(&[]));
    }
}
