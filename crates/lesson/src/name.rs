//! A name lookup: a server that knows one address, and a client. RFC 1035 section 4.1.
//!
//! A real lookup asks the resolver of the network, which is not ours to ask. This one sends a real
//! query over the same link, so that it takes what a lookup takes: a round trip.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Clock;
use crate::client::Phase;

const HEADER_BYTES: usize = 12;
/// Largest datagram without extensions (section 2.3.4).
const MESSAGE_BYTES_MAX: usize = 512;
/// Type A and class IN, in a question and in a record (sections 3.2.2, 3.2.4).
const ADDRESS: [u8; 4] = [0, 1, 0, 1];
/// QR, a reply; and RA, recursion is available (section 4.1.1).
const REPLY: [u8; 2] = [0x80, 0x80];
/// RD, recursion is desired.
const QUERY: [u8; 2] = [0x01, 0x00];
/// In place of a name: that at byte 12 of the message (section 4.1.4).
const SAME_NAME: [u8; 2] = [0xc0, HEADER_BYTES as u8];
const TIMEOUT: Duration = Duration::from_secs(5);

/// A thread that answers each query for an address with the same one. Dropping it ends the thread.
#[derive(Debug)]
pub struct NameServer {
    /// Where it receives queries.
    pub address: SocketAddr,
    socket: UdpSocket,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Starts it beside the server whose address it tells.
    ///
    /// # Errors
    /// One sentence.
    pub fn start(host: IpAddr) -> Result<NameServer, String> {
        let cannot = |error| format!("cannot start a name server: {error}");
        let IpAddr::V4(known) = host else { return Err(format!("{host} is no IPv4 address")) };
        let socket = UdpSocket::bind((host, 0)).map_err(cannot)?;
        let (address, own) = (socket.local_addr(), socket.try_clone());
        let (address, own) = (address.map_err(cannot)?, own.map_err(cannot)?);
        let thread = std::thread::Builder::new().name("names".into());
        let thread = thread.spawn(move || answer_all(&own, known)).map_err(cannot)?;
        Ok(NameServer { address, socket, thread: Some(thread) })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // An empty datagram ends the thread. If it cannot be sent, the process ends the thread.
        if self.socket.send_to(&[], self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic of the thread was printed; nothing else is left of it.
            let _ = thread.join();
        }
    }
}

/// Answers queries until an empty datagram arrives.
fn answer_all(socket: &UdpSocket, known: Ipv4Addr) {
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    while let Ok((bytes, peer)) = socket.recv_from(&mut buffer) {
        match &buffer[..bytes] {
            [] => return,
            // The peer's time limit tells of a reply that cannot be sent.
            query => drop(reply(query, known).map(|reply| socket.send_to(&reply, peer))),
        }
    }
}

/// The reply to a query with one question for an address; `None` for anything else.
fn reply(query: &[u8], known: Ipv4Addr) -> Option<Vec<u8>> {
    let question = query.get(HEADER_BYTES..).filter(|question| question.ends_with(&ADDRESS))?;
    let header = [&query[..2], &REPLY[..], &[0, 1, 0, 1, 0, 0, 0, 0]].concat();
    // Name, type and class, 0 s to live, 4 bytes of data.
    let record = [&SAME_NAME[..], &ADDRESS, &[0; 4], &[0, 4], &known.octets()].concat();
    Some([&header[..], question, &record].concat())
}

/// Asks a name server for the address of `name`, once.
///
/// # Errors
/// One sentence.
pub fn look_up(clock: Clock, at: SocketAddr, name: &str) -> Result<(Ipv4Addr, Phase), String> {
    let cannot = |why: String| format!("the name {name} cannot be looked up: {why}");
    let from_us = clock.now_us();
    let id = (from_us as u16).to_be_bytes();
    let mut query = [&id[..], &QUERY[..], &[0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend(ADDRESS);
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    let mut ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect(at)?;
        socket.send(&query)?;
        socket.recv(&mut buffer)
    };
    let bytes = ask().map_err(|error| cannot(error.to_string()))?;
    let to_us = clock.now_us();
    match &buffer[..bytes] {
        [a, b, .., w, x, y, z] if [*a, *b] == id && bytes == query.len() + 16 => {
            let address = Ipv4Addr::new(*w, *x, *y, *z);
            Ok((address, Phase { kind: "name", from_us, to_us }))
        }
        _ => Err(cannot("the reply is no reply to it".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_address_of_the_server() {
        let server = NameServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
        let clock = Clock::start();
        let (address, phase) = look_up(clock, server.address, "www.example").unwrap();
        assert_eq!(address, Ipv4Addr::LOCALHOST);
        assert!(phase.kind == "name" && phase.from_us <= phase.to_us);
    }

    #[test]
    fn what_is_no_question_for_an_address_has_no_reply() {
        assert_eq!(reply(&[0; 8], Ipv4Addr::LOCALHOST), None);
        assert_eq!(reply(&[0; 40], Ipv4Addr::LOCALHOST), None);
    }
}
