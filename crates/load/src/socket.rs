//! The client's sockets (tcp(7), ip(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{Error, Plan};

/// The file with the range of ports that the kernel chooses from (ip(7)).
const PORT_RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The number of ports if that file cannot be read: 32,768 to 60,999 (ip(7)).
const PORTS_DEFAULT: u32 = 28_232;
/// One in so many ports of a source address is used before the next address. connect(2) tries the
/// ports of one parity first: once they are all in use, each further connect searches thousands.
/// Measured: 19,000 connections from one address with 28,232 ports took 12 s, 10,000 took one.
const PORTS_SHARE: u32 = 3;
/// If connect(2) finds no port on so many addresses, the cause is a different one.
const SOURCES_TRIED_MAX: u32 = 16;

/// The congestion control of all runs. On loopback the default of some machines (bbr) paces packets
/// and costs a third of the bulk throughput; reno is in every kernel and needs no privilege.
const CONGESTION_CONTROL: &[u8] = b"reno";

#[derive(Debug)]
pub(crate) struct Sockets {
    address: SocketAddr,
    encoded: SockAddr,
    /// Whether the kernel permits the choice; asked once.
    may_choose_congestion: bool,
    congestion_control: String,
    /// Addresses to connect from, in turn; none if the kernel chooses.
    sources: Vec<IpAddr>,
    /// Connections per source address.
    per_source: u32,
    /// How often a source had no more ports: all later connections skip so many.
    moved_on: AtomicU32,
}

impl Sockets {
    /// Finds out what the kernel permits, and whether the plan's connections can have ports.
    pub(crate) fn new(plan: &Plan) -> Result<Self, Error> {
        let address = plan.target.address;
        let trial = || Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
        let socket = trial().map_err(Error::system("socket"))?;
        let may_choose_congestion = socket.set_tcp_congestion(CONGESTION_CONTROL).is_ok();
        let name = socket.tcp_congestion().map_err(Error::system("getsockopt(TCP_CONGESTION)"))?;
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        for &source in &plan.sources {
            let bound = trial().and_then(|socket| socket.bind(&SocketAddr::new(source, 0).into()));
            bound.map_err(|error| {
                Error::Plan(format!(
                    "cannot connect to {address} from {source} ({error}): give source addresses \
                     of this machine, of the same family as the server's"
                ))
            })?;
        }
        let ports = port_range()?.unwrap_or(PORTS_DEFAULT);
        let sockets = Sockets {
            address,
            encoded: SockAddr::from(address),
            may_choose_congestion,
            congestion_control: String::from_utf8_lossy(name).into_owned(),
            sources: plan.sources.clone(),
            per_source: (ports / PORTS_SHARE).max(1),
            moved_on: AtomicU32::new(0),
        };
        sockets.check_ports(plan, ports)?;
        Ok(sockets)
    }

    fn check_ports(&self, plan: &Plan, ports: u32) -> Result<(), Error> {
        let needed = u64::from(plan.connections) + u64::from(plan.idle_connections);
        let sources = self.sources.len().max(1);
        if self.has_many_sources() || needed <= u64::from(ports) * sources as u64 {
            return Ok(());
        }
        Err(Error::Plan(format!(
            "{needed} connections to {} need more ports than {sources} source address{} can have \
             ({ports} each, {PORT_RANGE_FILE}): add addresses of this machine (--source ADDR, \
             repeated)",
            self.address,
            if sources == 1 { "" } else { "es" },
        )))
    }

    pub(crate) fn congestion_control(&self) -> &str {
        &self.congestion_control
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A non-blocking socket for connection number `index`, whose connect(2) has begun. On loopback
    /// it may be connected already, although connect returns EINPROGRESS.
    ///
    /// If a source address has no port left (each connection that this side closed first holds one
    /// for a minute, TIME_WAIT), the next address is used for this and all later connections.
    pub(crate) fn connect(&self, index: u32) -> io::Result<Socket> {
        for _ in 1..SOURCES_TRIED_MAX {
            match self.connect_from(self.source(index)) {
                Err(error) if self.is_out_of_ports(&error) => self.moved_on.fetch_add(1, Relaxed),
                done => return done,
            };
        }
        self.connect_from(self.source(index))
    }

    fn is_out_of_ports(&self, error: &io::Error) -> bool {
        let others = self.sources.len() > 1 || self.has_many_sources();
        others && error.raw_os_error() == Some(Errno::EADDRNOTAVAIL as i32)
    }

    fn connect_from(&self, source: Option<IpAddr>) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(self.address), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if self.may_choose_congestion {
            socket.set_tcp_congestion(CONGESTION_CONTROL)?;
        }
        if let Some(source) = source {
            // The port is chosen by connect, where only the pair of addresses must be unique, and
            // not by bind, where the port alone must be (IP_BIND_ADDRESS_NO_PORT, ip(7)).
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        match socket.connect(&self.encoded) {
            Ok(()) => Ok(socket),
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Ok(socket),
            Err(error) => Err(error),
        }
    }

    /// Loopback over IPv4 has 16 million addresses.
    fn has_many_sources(&self) -> bool {
        self.sources.is_empty() && self.address.is_ipv4() && self.address.ip().is_loopback()
    }

    /// The source address of connection number `index`: one of those given, in turn; on loopback
    /// 127.0.0.1 and the following; otherwise the kernel chooses.
    fn source(&self, index: u32) -> Option<IpAddr> {
        let block = index / self.per_source + self.moved_on.load(Relaxed);
        if self.has_many_sources() {
            // The kernel chooses for block 0; all others are in 127.0.0.0/16.
            let source = u32::from(Ipv4Addr::LOCALHOST) + block % u32::from(u16::MAX - 1);
            return (block > 0).then(|| IpAddr::from(Ipv4Addr::from(source)));
        }
        let at = (block as usize).checked_rem(self.sources.len())?;
        self.sources.get(at).copied()
    }
}

/// The number of ports that the kernel chooses from; `None` if unknown (a container without
/// /proc/sys).
fn port_range() -> Result<Option<u32>, Error> {
    let Ok(text) = std::fs::read_to_string(PORT_RANGE_FILE) else { return Ok(None) };
    let mut ends = text.split_whitespace().map(str::parse::<u32>);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) if last >= first => Ok(Some(last - first + 1)),
        _ => Err(Error::Internal(format!("{PORT_RANGE_FILE} holds no range: {text:?}"))),
    }
}

/// The error of a connecting socket, if it has one (SO_ERROR, socket(7)).
pub(crate) fn connect_error(socket: &Socket) -> Option<io::Error> {
    socket.take_error().unwrap_or_else(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_follow_one_another() -> Result<(), Error> {
        let ports = port_range()?.unwrap_or(PORTS_DEFAULT);
        assert!(ports > 1_000, "{ports}");
        let mut plan = Plan::new("tcp://127.0.0.1:7")?;
        plan.idle_connections = 1_000_000;
        let sockets = Sockets::new(&plan)?;
        let per_source = ports / 3;
        assert_eq!(sockets.source(per_source - 1), None);
        assert_eq!(sockets.source(per_source), Some(IpAddr::from([127, 0, 0, 2])));
        sockets.moved_on.store(255, Relaxed);
        assert_eq!(sockets.source(0), Some(IpAddr::from([127, 0, 1, 0])));
        Ok(())
    }

    #[test]
    fn given_addresses_are_used_in_turn_and_must_suffice() -> Result<(), Error> {
        let mut plan = Plan::new("tcp://127.0.0.1:7")?;
        plan.sources = [[127, 0, 0, 5], [127, 0, 0, 6]].map(IpAddr::from).to_vec();
        let sockets = Sockets::new(&plan)?;
        let at = |block| sockets.source(block * sockets.per_source);
        assert_eq!([at(0), at(1), at(2)], [0, 1, 0].map(|at| Some(plan.sources[at])));
        plan.idle_connections = 1_000_000;
        let refused = Sockets::new(&plan).err().ok_or(Error::Plan("it was accepted".into()))?;
        assert!(refused.to_string().contains("--source"), "{refused}");
        plan.idle_connections = 0;
        plan.sources = vec![IpAddr::from([192, 0, 2, 1])];
        let refused = Sockets::new(&plan).err().ok_or(Error::Plan("it was accepted".into()))?;
        assert!(refused.to_string().contains("192.0.2.1"), "{refused}");
        Ok(())
    }
}
