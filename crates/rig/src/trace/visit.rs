//! A visit of clients to a traced server: its clock, the numbers of its connections, and when the
//! server has nothing left to do.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::sample::Subject;

use super::tracer::Shared;
use super::{now_ns, since_us};

/// A server that finds nothing (EAGAIN) so often while no client does anything tries its sockets
/// again and again.
const FRUITLESS_CALLS: u64 = 100;

/// Time between two looks whether the server sleeps.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Time limit of the wait until the server sleeps.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a client is given, to talk to a traced server.
pub struct Visit {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The zero of the recording.
    pub(super) begin_ns: u64,
    /// Ports of the clients, by number of connection.
    ports: Vec<u16>,
}

/// What came over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Bytes that came.
    pub bytes: usize,
    /// Whether the server has ended the stream.
    pub ended: bool,
}

impl Visit {
    /// Begins when the server has nothing to do.
    pub(super) fn begin(address: SocketAddr, shared: &Arc<Shared>) -> Visit {
        let (shared, ports) = (Arc::clone(shared), Vec::new());
        let visit = Visit { address, shared, begin_ns: 0, ports };
        visit.until_quiet(Duration::ZERO);
        Visit { begin_ns: now_ns(), ..visit }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Microseconds since the begin of the visit.
    pub fn now_us(&self) -> f64 {
        self.since_us(now_ns())
    }

    pub(super) fn since_us(&self, at_ns: u64) -> f64 {
        since_us(self.begin_ns, at_ns)
    }

    /// Gives the connection of this socket the next number, from 0, by which the calls name it.
    ///
    /// # Errors
    /// A socket that is not connected.
    pub fn register(&mut self, socket: &TcpStream) -> Result<(), String> {
        let address = socket.local_addr().map_err(|e| format!("a client has no port: {e}"))?;
        self.ports.push(address.port());
        Ok(())
    }

    /// The number of the connection with this port.
    pub(super) fn connection(&self, port: u16) -> Option<u32> {
        self.ports.iter().position(|&p| p == port).map(|place| place as u32)
    }

    /// Waits at least `least`, and until the server has nothing left to do. It must be so at two
    /// looks: what a client has just sent may still be on its way to a server that sleeps.
    pub fn until_quiet(&self, least: Duration) {
        let mut looks = Looks::begin(&self.shared);
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            if looks.is_quiet() && begun.elapsed() >= least {
                return;
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Reads until so many bytes have come, or until no more come because the server has nothing
    /// left to do, or has closed.
    ///
    /// # Errors
    /// Those of recv(2).
    pub fn hear(&self, socket: &TcpStream, wanted: usize) -> io::Result<Heard> {
        socket.set_read_timeout(Some(LOOK_INTERVAL))?;
        let (begun, mut looks) = (Instant::now(), Looks::begin(&self.shared));
        let (mut bytes, mut buffer) = (0, [0; 16 * 1024]);
        while bytes < wanted && begun.elapsed() < TIMEOUT {
            let room = buffer.len().min(wanted - bytes);
            match (&*socket).read(&mut buffer[..room]) {
                Ok(0) => return Ok(Heard { bytes, ended: true }),
                Ok(came) => {
                    bytes += came;
                    looks = Looks::begin(&self.shared);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if looks.is_quiet() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Heard { bytes, ended: false })
    }
}

impl Subject for Visit {
    fn processes(&self) -> Vec<Pid> {
        self.shared.processes()
    }
}

/// Looks at a server, until it has had nothing to do at two of them.
struct Looks<'a> {
    shared: &'a Shared,
    fruitless: u64,
    was_quiet: bool,
}

impl Looks<'_> {
    fn begin(shared: &Shared) -> Looks<'_> {
        Looks { shared, fruitless: shared.fruitless(), was_quiet: false }
    }

    /// Looks once.
    fn is_quiet(&mut self) -> bool {
        let fruitless = self.shared.fruitless() - self.fruitless;
        let is_quiet = self.shared.sleeps() || fruitless > FRUITLESS_CALLS;
        std::mem::replace(&mut self.was_quiet, is_quiet) && is_quiet
    }
}
