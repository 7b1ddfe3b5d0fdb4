//! Client sockets, all made alike (tcp(7), ip(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that one source address opens towards one server port before the next address is
/// used: well below the 28,232 ports of the default range, so that active connections find ports
/// too.
pub(crate) const CONNECTIONS_PER_SOURCE: u32 = 20_000;

/// The congestion control that all runs ask for. On loopback the default of some machines (bbr)
/// paces packets and costs a third of the bulk throughput; reno is in every kernel and open to
/// everybody.
const CONGESTION_CONTROL: &[u8] = b"reno";

/// Makes sockets towards one address.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    address: SocketAddr,
    encoded: SockAddr,
    /// Whether this kernel lets us choose; asked once.
    may_choose_congestion: bool,
    congestion_control: String,
}

impl Sockets {
    /// Finds out what the kernel allows.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Self> {
        let trial = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        let may_choose_congestion = trial.set_tcp_congestion(CONGESTION_CONTROL).is_ok();
        let name = trial.tcp_congestion()?;
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Sockets {
            address,
            encoded: SockAddr::from(address),
            may_choose_congestion,
            congestion_control: String::from_utf8_lossy(name).into_owned(),
        })
    }

    /// The congestion control that is in force.
    pub(crate) fn congestion_control(&self) -> &str {
        &self.congestion_control
    }

    /// Where the sockets connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A non-blocking socket whose connect(2) has begun. It may be connected already: on loopback
    /// the handshake is over when connect returns, though it says EINPROGRESS.
    pub(crate) fn connect(&self, source: Option<Ipv4Addr>) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(self.address), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if self.may_choose_congestion {
            socket.set_tcp_congestion(CONGESTION_CONTROL)?;
        }
        if let Some(source) = source {
            // The port is chosen by connect, where only the pair of addresses must be unique, and
            // not by bind, where the port alone must be (IP_BIND_ADDRESS_NO_PORT, ip(7)).
            nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::IpBindAddressNoPort,
                &true,
            )?;
            socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
        }
        match socket.connect(&self.encoded) {
            Ok(()) => Ok(socket),
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Ok(socket),
            Err(error) => Err(error),
        }
    }

    /// The source address for the connection number `index`: on loopback another 127.0.0.x for
    /// every 20,000 of them, elsewhere what the kernel chooses.
    pub(crate) fn source(&self, index: u32) -> Option<Ipv4Addr> {
        let block = index / CONNECTIONS_PER_SOURCE;
        match self.address.ip() {
            IpAddr::V4(ip) if ip.is_loopback() && block > 0 => {
                Some(Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + block))
            }
            _ => None,
        }
    }
}

/// The error that a connecting socket ended with, if it did (SO_ERROR, socket(7)).
pub(crate) fn connect_error(socket: &Socket) -> Option<io::Error> {
    socket.take_error().unwrap_or_else(Some)
}
