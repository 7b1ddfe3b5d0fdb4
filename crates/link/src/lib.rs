//! A link between a client and a server on one machine, with a round-trip time, a rate and loss.
//!
//! Client and server are in two network namespaces, each with a TUN device. What one kernel sends
//! is read from its device, held back, dropped or lost by the emulator, and written to the other.
//! So TCP on both ends is the kernel's, with its slow start, retransmissions and acknowledgements.
//!
//! ```text
//! client's namespace                                              server's namespace
//! connect 198.18.0.2 -> TUN -> read(2) -> Pipe -> write(2) -> TUN -> accept 198.18.0.2
//!         198.18.0.1 <- TUN <- write(2) <- Pipe <- read(2) <- TUN <-
//! ```
//!
//! A namespace has no name: a descriptor holds it, and the kernel removes it with the process,
//! whatever ends the process.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! link::prepare()?; // before the first thread
//! let link = link::Link::up(&"rtt=40ms,rate=10mbit,loss=1%".parse()?)?;
//! println!("{}", link::Accuracy::measure(&link, 1_000)?);
//! let listener = link.server().run(|| std::net::TcpListener::bind("198.18.0.2:0"))??;
//! let address = listener.local_addr()?;
//! let stream = link.client().run(|| std::net::TcpStream::connect(address))??; // one round trip
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: `profile` (what is asked for), `pipe` (one direction, in virtual time),
//! `emulator` (the thread between two devices), `namespace`, `accuracy` (what the link does,
//! measured).

#[cfg(not(target_os = "linux"))]
compile_error!("network namespaces and TUN devices are Linux's");

mod accuracy;
mod emulator;
mod namespace;
mod pipe;
mod profile;
mod refused;
mod sys;

use std::io;
use std::net::Ipv4Addr;

pub use accuracy::Accuracy;
pub use namespace::{Namespace, prepare};
pub use pipe::{Counters, Direction, Pipe};
pub use profile::{Profile, Queue};
pub use refused::Refused;

use emulator::Emulator;
use refused::Step;

/// The largest packet, with its IP header: that of Ethernet.
pub const MTU_BYTES: usize = 1_500;

/// Addresses that no machine of the Internet has: they are for tests of networks (RFC 2544).
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Two namespaces and the emulator between them. Dropping it ends the emulator; a namespace stays
/// until the last thread and process in it has ended.
#[derive(Debug)]
pub struct Link {
    profile: Profile,
    client: Namespace,
    server: Namespace,
    emulator: Emulator,
}

impl Link {
    /// Makes the namespaces and starts the emulator. Calls [`prepare`].
    ///
    /// # Errors
    /// What is refused here, and what to do.
    pub fn up(profile: &Profile) -> Result<Link, Refused> {
        prepare()?;
        let (client, client_tun) = Namespace::new(CLIENT)?;
        let (server, server_tun) = Namespace::new(SERVER)?;
        let emulator = Emulator::start(profile, client_tun, server_tun);
        let emulator = emulator.map_err(Step::Resources.refused())?;
        Ok(Link { profile: profile.clone(), client, server, emulator })
    }

    /// What was asked for.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The client's end.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The server's end.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// What a direction has done with its packets so far.
    pub fn counters(&self, direction: Direction) -> Counters {
        self.emulator.counters(direction)
    }

    /// Packets that the kernel dropped beside the emulator: a device whose queue was full because
    /// the emulator had no core, or that had no memory. Losses of TCP are then not only those that
    /// were asked for.
    ///
    /// # Errors
    /// If the statistics of a device cannot be read.
    pub fn overrun(&self) -> io::Result<u64> {
        Ok(self.client.overrun()? + self.server.overrun()? + self.emulator.refused())
    }

    /// Why the emulator has ended; `None` while it runs.
    pub fn failure(&self) -> Option<String> {
        self.emulator.failure()
    }
}
