//! The congestion control of the server's end of a connection. man: sock_diag(7), netlink(7);
//! linux/inet_diag.h.
//!
//! A server of another project chooses its own, or takes the machine's default. On loopback bbr
//! limits the rate and reno does not, so the result file records it. It is read for one connection
//! before the measurement.

use std::io::{Error, Read};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// A guard: the kernel answers at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// sizeof(struct nlmsghdr).
const HEADER_BYTES: usize = 16;
/// sizeof(struct inet_diag_req_v2).
const REQUEST_BYTES: usize = 56;
/// sizeof(struct inet_diag_msg).
const MESSAGE_BYTES: usize = 72;
/// SOCK_DIAG_BY_FAMILY (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// INET_DIAG_CONG: the attribute with the name of the congestion control, NUL-terminated.
const CONGESTION: u16 = 4;

/// The congestion control of the socket with local address `server` and peer `client`. `None` if
/// there is no such socket, or the kernel does not say.
pub fn congestion_control(server: SocketAddr, client: SocketAddr) -> Option<String> {
    let (SocketAddr::V4(server), SocketAddr::V4(client)) = (server, client) else { return None };
    parse(&ask(&request(server, client)).ok()?)
}

fn ask(request: &[u8]) -> Result<Vec<u8>, Error> {
    let domain = Domain::from(libc::AF_NETLINK);
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    let mut socket = Socket::new(domain, Type::DGRAM.cloexec(), Some(protocol))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send(request)?;
    // One message with one attribute is far shorter.
    let mut answer = vec![0; 4096];
    let length = socket.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// struct nlmsghdr and struct inet_diag_req_v2, for exactly one socket.
fn request(server: SocketAddrV4, client: SocketAddrV4) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    bytes.extend(((HEADER_BYTES + REQUEST_BYTES) as u32).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number and port: not needed for a single request.
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 1 << (CONGESTION - 1), 0]);
    // All states of a connection.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(server.port().to_be_bytes());
    bytes.extend(client.port().to_be_bytes());
    for address in [server.ip(), client.ip()] {
        bytes.extend(address.octets());
        bytes.extend([0; 12]);
    }
    // Any interface; INET_DIAG_NOCOOKIE twice: no particular socket of these addresses.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([0xff; 8]);
    bytes
}

/// Finds the attribute after struct nlmsghdr and struct inet_diag_msg.
fn parse(answer: &[u8]) -> Option<String> {
    let number = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    // Otherwise it is NLMSG_ERROR: there is no such socket.
    if number(4)? != BY_FAMILY {
        return None;
    }
    let mut at = HEADER_BYTES + MESSAGE_BYTES;
    loop {
        let (length, kind) = (usize::from(number(at)?), number(at + 2)?);
        let value = answer.get(at + 4..at + length)?;
        if kind == CONGESTION {
            let name = value.split(|&byte| byte == 0).next()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        // Attributes begin at multiples of 4 (RTA_ALIGN, rtnetlink(3)).
        at += length.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use socket2::SockRef;

    use super::*;

    #[test]
    fn each_end_has_its_own_congestion_control() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (here, there) = (server.local_addr().unwrap(), client.local_addr().unwrap());
        let own = |stream: &TcpStream| {
            let name = SockRef::from(stream).tcp_congestion().unwrap();
            String::from_utf8(name.split(|&b| b == 0).next().unwrap().to_vec()).unwrap()
        };
        SockRef::from(&server).set_tcp_congestion(b"reno").unwrap();
        let Some(told) = congestion_control(here, there) else {
            eprintln!("SKIP the kernel does not support sock_diag (CONFIG_INET_DIAG)");
            return;
        };
        assert_eq!((told.as_str(), own(&server).as_str()), ("reno", "reno"));
        assert_eq!(congestion_control(there, here), Some(own(&client)));
        drop((server, client, listener));
        let unused = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(congestion_control(unused, there), None);
    }

    #[test]
    fn an_answer_that_is_cut_short_or_endless_tells_nothing() {
        let mut answer = vec![0; HEADER_BYTES + MESSAGE_BYTES];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        assert_eq!(parse(&answer), None);
        let attribute = [&9_u16.to_ne_bytes()[..], &CONGESTION.to_ne_bytes(), b"reno\0"].concat();
        let whole = [&answer[..], &attribute].concat();
        assert_eq!(parse(&whole), Some("reno".into()));
        assert_eq!(parse(&whole[..whole.len() - 3]), None);
        // A length of 0 must not lead to an endless loop.
        assert_eq!(parse(&[&answer[..], &[0; 64]].concat()), None);
        assert_eq!(parse(&[]), None);
    }
}
