//! Single exchanges with a server, outside of timed windows: the verification before the load, and
//! the exchange after which a keep-alive connection is idle.
//!
//! It shares no code with the load generator, so that an error of one client is found by the other.
//! For HTTP/2, WebSocket and TLS it supports only what this needs.

#[cfg(test)]
mod canned;
pub mod http2;
mod websocket;
mod wire;

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use record::{Protocol, Workload};
use socket2::{Domain, SockAddr, Socket, Type};

use scenario::workload::{FILE_BYTES, FILE_NAME, TEXT, TEXT_BYTES, WS_ECHO, pattern};

pub use websocket::message_frame;
use wire::Wire;

use crate::client;

/// Time limit of an exchange with a server without other load.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Time limit for the server to close a connection: longer than its stop may take.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(8);

/// Connections that are opened together: fewer than any backlog.
const BATCH: usize = 128;

/// Connections from one source address to one server. connect(2) first tries the ports of one
/// parity, half of the default range (14,116 of ip_local_port_range, ip(7)), then searches the
/// others one by one: 19,000 connections took 28 s from one address and 2 s from two.
const CONNECTIONS_PER_SOURCE: usize = 12_000;

/// The choice of the load generator and the servers too. A default of bbr would limit the rate over
/// loopback, in one direction only.
const CONGESTION_CONTROL: &[u8] = b"reno";

/// Verifies the server's reply to this workload byte for byte. Returns the connection.
///
/// # Errors
/// One sentence: what was received instead.
pub fn verify(address: SocketAddr, workload: &Workload) -> Result<TcpStream, String> {
    let socket = connect(address, None).map_err(cannot_connect)?;
    let verified = match (workload.protocol, &workload.path) {
        (Protocol::WebSocket, Some(path)) => verify_messages(socket, address, path, workload),
        (_, Some(path)) => verify_reply(socket, address, path, workload),
        (_, None) => verify_echo(socket, workload),
    };
    verified.map_err(|why| format!("verification: {why}"))
}

fn verify_echo(stream: TcpStream, workload: &Workload) -> Result<TcpStream, String> {
    let sent = pattern(workload.payload_bytes);
    let mut got = vec![0; sent.len()];
    send_beside(&stream, &sent, |mut stream| {
        stream.read_exact(&mut got).map_err(|e| format!("no whole echo: {}", why(&e)))
    })?;
    if got == sent { Ok(stream) } else { Err("the echo differs".into()) }
}

/// A message must be echoed, or reach another member of the chat, unchanged.
fn verify_messages(
    socket: TcpStream,
    address: SocketAddr,
    path: &str,
    workload: &Workload,
) -> Result<TcpStream, String> {
    let told = |why| format!("{path}: {why}");
    let open = |socket| {
        let mut wire = wire(socket, workload)?;
        websocket::open(&mut wire, &address.to_string(), path).map(|()| wire)
    };
    let mut sender = open(socket).map_err(told)?;
    let mut receiver = match workload.fan_out {
        true => Some(open(connect(address, None).map_err(cannot_connect)?).map_err(told)?),
        false => None,
    };
    let sent = pattern(workload.payload_bytes);
    websocket::send_message(&mut sender, &sent).map_err(told)?;
    let received = websocket::receive(receiver.as_mut().unwrap_or(&mut sender)).map_err(told)?;
    match received == sent {
        true => Ok(sender.into_socket()),
        false => Err(told("the message differs".to_owned())),
    }
}

/// Verifies status, length and, if known, the bytes of a reply.
fn verify_reply(
    socket: TcpStream,
    address: SocketAddr,
    path: &str,
    workload: &Workload,
) -> Result<TcpStream, String> {
    let posted = workload.post.then(|| pattern(workload.payload_bytes));
    let mut wire = wire(socket, workload)?;
    let reply = match (&mut wire, workload.protocol == Protocol::Http2) {
        (wire, true) => http2::ask(wire, scheme(workload), &address.to_string(), path),
        (Wire::Plain(stream), false) => {
            send_beside(stream, &request(address, path, posted.as_deref()), |mut stream| {
                read_reply(&mut stream)
            })
        }
        (wire, false) => {
            let sent = wire.write_all(&request(address, path, posted.as_deref()));
            let sent = sent.map_err(|e| format!("cannot send: {}", why(&e)));
            sent.and_then(|()| read_reply(wire))
        }
    };
    let (status, body) = reply.map_err(|e| format!("{path}: {e}"))?;
    if status != 200 {
        return Err(format!("{path} was answered with status {status}"));
    }
    if body.len() as u64 != workload.payload_bytes {
        let expected = workload.payload_bytes;
        return Err(format!("{path} has {} bytes, not {expected}", body.len()));
    }
    match posted.or_else(|| known_body(path, workload.payload_bytes)) {
        Some(known) if known != body => Err(format!("{path} was answered with wrong bytes")),
        _ => Ok(wire.into_socket()),
    }
}

/// The socket, or TLS over it if the workload has TLS.
fn wire(socket: TcpStream, workload: &Workload) -> Result<Wire, String> {
    match workload.tls {
        false => Ok(Wire::Plain(socket)),
        true => {
            Wire::tls(socket, if workload.protocol == Protocol::Http2 { "h2" } else { "http/1.1" })
        }
    }
}

fn scheme(workload: &Workload) -> &'static str {
    if workload.tls { "https" } else { "http" }
}

/// The body of a route with known bytes (ARCHITECTURE.md, the contract). `None` for a path of a
/// user's server, of which only the length is known.
fn known_body(path: &str, payload_bytes: u64) -> Option<Vec<u8>> {
    match path {
        "/" if payload_bytes == TEXT_BYTES => Some(TEXT.to_vec()),
        _ if path.starts_with("/bytes/") => Some(pattern(payload_bytes)),
        _ if path.ends_with(FILE_NAME) => Some(pattern(FILE_BYTES)),
        _ => None,
    }
}

/// Opens `count` connections and makes one exchange on each. So the server has accepted it, and its
/// idle timeout runs, not that of the first request.
pub fn open_idle(
    address: SocketAddr,
    count: u32,
    workload: &Workload,
) -> Result<Vec<TcpStream>, String> {
    // Then the requests of a batch are sent before the first reply is read.
    let in_one_go = !workload.tls && matches!(workload.protocol, Protocol::Echo | Protocol::Http1);
    let mut open = Vec::with_capacity(count as usize);
    while open.len() < count as usize {
        let before = open.len();
        let batch = BATCH.min(count as usize - before);
        let refused = |at: usize, why: String| {
            format!("answered {at} of the {count} idle connections, then: {why}")
        };
        for _ in 0..batch {
            let source = source(address, open.len());
            let mut stream =
                connect(address, source).map_err(|e| refused(before, cannot_connect(e)))?;
            if in_one_go {
                send(&mut stream, address, workload).map_err(|e| refused(before, e))?;
            } else {
                let at = open.len();
                stream = exchange_once(stream, address, workload).map_err(|e| refused(at, e))?;
            }
            open.push(stream);
        }
        for (i, stream) in open[before..].iter_mut().enumerate().filter(|_| in_one_go) {
            receive(stream, workload).map_err(|e| refused(before + i, e))?;
        }
    }
    Ok(open)
}

/// The exchange of an idle connection with more than one request and reply: a request over HTTP/2
/// or TLS, or a message over a WebSocket. Of TLS only the socket is kept: an idle client needs no
/// keys.
fn exchange_once(
    socket: TcpStream,
    address: SocketAddr,
    workload: &Workload,
) -> Result<TcpStream, String> {
    let mut wire = wire(socket, workload)?;
    let authority = address.to_string();
    match workload.protocol {
        Protocol::WebSocket => {
            websocket::open(&mut wire, &authority, WS_ECHO)?;
            websocket::send_message(&mut wire, b"!")?;
            if websocket::receive(&mut wire)? != b"!" {
                return Err("the message differs".into());
            }
        }
        protocol => {
            let (status, _) = match protocol {
                Protocol::Http2 => http2::ask(&mut wire, scheme(workload), &authority, "/")?,
                _ => {
                    let sent = wire.write_all(&request(address, "/", None));
                    sent.map_err(|e| format!("cannot send: {}", why(&e)))?;
                    read_reply(&mut wire)?
                }
            };
            if status != 200 {
                return Err(format!("status {status}"));
            }
        }
    }
    Ok(wire.into_socket())
}

/// The number of these idle connections that the server has closed, or on which it has sent bytes.
pub fn count_lost(connections: &[TcpStream]) -> u32 {
    let lost = |stream: &&TcpStream| {
        let waits = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
        !waits.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    };
    connections.iter().filter(lost).count() as u32
}

/// Closes these connections, and waits until the server has closed its ends. So its work for that
/// (a thread that ends, a table that shrinks) is not in a later window.
pub fn part(connections: Vec<TcpStream>) {
    for stream in &connections {
        // Fails if it has ended.
        let _ = stream.shutdown(Shutdown::Write);
    }
    hang_up_after_server(connections);
}

/// Closes each connection after the server has closed its end. The end of the server's process
/// closes them too; the time limit is for a process that it left behind.
pub fn hang_up_after_server(connections: Vec<TcpStream>) {
    let mut late = false;
    for mut stream in connections {
        if late {
            continue;
        }
        // An error counts as the end too: a reset, or a socket that cannot block.
        let waits = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(HANG_UP_TIMEOUT)));
        let end = waits.and_then(|()| stream.read(&mut [0; 16]));
        late = end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    }
}

fn open(address: SocketAddr) -> Result<TcpStream, String> {
    open_within(address, TIMEOUT)
}

/// A connection whose connect(2), reads and writes take at most this time each.
pub(crate) fn open_within(address: SocketAddr, time: Duration) -> Result<TcpStream, String> {
    connect_within(address, None, time).map_err(cannot_connect)
}

/// Requests all of these paths at once over one connection of HTTP/2, and returns how long each
/// took.
///
/// # Errors
/// One sentence: what was received instead of a reply with 200 to each.
pub fn ask_streams(address: SocketAddr, paths: &[&str]) -> Result<Vec<Duration>, String> {
    http2::ask_all(&mut open(address)?, &address.to_string(), paths)
}

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket(TcpStream);

impl WebSocket {
    /// Connects and upgrades.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn open(address: SocketAddr, path: &str) -> Result<WebSocket, String> {
        let mut stream = open(address)?;
        websocket::open(&mut stream, &address.to_string(), path)?;
        Ok(WebSocket(stream))
    }

    /// Sends bytes of frames ([`message_frame`]).
    ///
    /// # Errors
    /// One sentence.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.write_all(bytes).map_err(|e| format!("cannot send: {}", why(&e)))
    }

    /// Receives one message.
    ///
    /// # Errors
    /// One sentence: what was received instead.
    pub fn receive(&mut self) -> Result<Vec<u8>, String> {
        websocket::receive(&mut self.0)
    }
}

/// A connected socket with the options of the load generator's, but blocking.
fn connect(address: SocketAddr, source: Option<Ipv4Addr>) -> Result<TcpStream, Error> {
    connect_within(address, source, TIMEOUT)
}

fn connect_within(
    address: SocketAddr,
    source: Option<Ipv4Addr>,
    time: Duration,
) -> Result<TcpStream, Error> {
    let kind = Type::STREAM.cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(socket2::Protocol::TCP))?;
    // The time limit of sending is also that of connect(2) (socket(7), SO_SNDTIMEO).
    socket.set_read_timeout(Some(time))?;
    socket.set_write_timeout(Some(time))?;
    socket.set_tcp_nodelay(true)?;
    // If it fails the kernel's default stays; the result file records it.
    let _ = socket.set_tcp_congestion(CONGESTION_CONTROL);
    if let Some(source) = source {
        // So connect(2) chooses the port, for which the pair of addresses must be unique; bind(2)
        // needs a port that is unique by itself (IP_BIND_ADDRESS_NO_PORT, ip(7)).
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    }
    socket.connect(&SockAddr::from(address))?;
    Ok(socket.into())
}

/// Another 127.0.0.x for each [`CONNECTIONS_PER_SOURCE`] connections over loopback.
fn source(address: SocketAddr, index: usize) -> Option<Ipv4Addr> {
    let block = (index / CONNECTIONS_PER_SOURCE) as u32;
    let further = address.ip().is_loopback() && address.is_ipv4() && block > 0;
    further.then(|| Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + block))
}

/// One sentence, with a remedy if there is one.
fn cannot_connect(error: Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EMFILE) => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            format!(": all {limit} descriptors of this process are in use: raise `ulimit -n`")
        }
        Some(libc::ENFILE) => ": the machine's descriptors are used up: raise fs.file-max".into(),
        Some(libc::EADDRNOTAVAIL) => {
            ": no client port is left: widen net.ipv4.ip_local_port_range".into()
        }
        // The backlog stayed full while the SYN was repeated.
        Some(libc::EINPROGRESS | libc::EAGAIN) => {
            ": the server accepted no connection in time".to_owned()
        }
        _ => String::new(),
    };
    match remedy.is_empty() {
        true => format!("cannot connect: {error}"),
        false => format!("cannot connect{remedy}"),
    }
}

/// Sends while `receive` receives. Otherwise both sides would block if a message is larger than the
/// socket buffers and the server replies while it reads.
fn send_beside<T>(
    stream: &TcpStream,
    bytes: &[u8],
    receive: impl FnOnce(&TcpStream) -> Result<T, String>,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let mut sender = stream;
        let sending = scope.spawn(move || sender.write_all(bytes));
        let received = receive(stream);
        let sent = sending.join().map_err(|_| "sending failed")?;
        // Of two errors that of receiving says more.
        let received = received?;
        sent.map_err(|e| format!("cannot send: {}", why(&e)))?;
        Ok(received)
    })
}

fn send(stream: &mut TcpStream, address: SocketAddr, workload: &Workload) -> Result<(), String> {
    match &workload.path {
        Some(_) => stream.write_all(&request(address, "/", None)),
        None => stream.write_all(b"!"),
    }
    .map_err(|e| format!("cannot send: {}", why(&e)))
}

fn receive(stream: &mut TcpStream, workload: &Workload) -> Result<(), String> {
    match &workload.path {
        Some(_) => match read_reply(stream)? {
            (200, _) => Ok(()),
            (status, _) => Err(format!("status {status}")),
        },
        None => stream.read_exact(&mut [0]).map_err(|e| format!("no echo: {}", why(&e))),
    }
}

/// A timeout of a read is EAGAIN, whose text would be misleading.
fn why(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("nothing was received within {} s", TIMEOUT.as_secs())
        }
        _ => error.to_string(),
    }
}

/// A GET, or a POST with a body of known length (RFC 9112, section 6.2).
fn request(address: SocketAddr, path: &str, body: Option<&[u8]>) -> Vec<u8> {
    let Some(body) = body else {
        return format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    };
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Reads one complete reply with Content-Length (RFC 9112, section 6.2): its status and its body.
///
/// # Errors
/// One sentence; also if more than the reply arrives.
fn read_reply(stream: &mut impl Read) -> Result<(u16, Vec<u8>), String> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some((head_bytes, head)) = client::head(&bytes)? {
            let length = head.length.ok_or("a reply without Content-Length")?;
            match bytes.len() - head_bytes {
                more if more > length => return Err(format!("{} bytes too many", more - length)),
                all if all == length => return Ok((head.status, bytes.split_off(head_bytes))),
                _ => {}
            }
        }
        match stream.read(&mut chunk).map_err(|e| format!("no complete reply: {}", why(&e)))? {
            0 => return Err(format!("closed after {} bytes of a reply", bytes.len())),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte per read.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn reply(bytes: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let whole = read_reply(&mut &bytes[..]);
        assert_eq!(whole, read_reply(&mut Trickle(bytes)));
        whole
    }

    #[test]
    fn replies_are_read_however_they_arrive() {
        let good = reply(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        assert_eq!(good, Ok((200, b"hello".to_vec())));
        assert_eq!(reply(b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n"), Ok((204, vec![])));
    }

    #[test]
    fn every_12_000_connections_have_a_source_of_their_own() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 80));
        assert_eq!(source(loopback, 11_999), None);
        assert_eq!(source(loopback, 12_000), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(source(loopback, 24_000), Some(Ipv4Addr::new(127, 0, 0, 3)));
        assert_eq!(source(SocketAddr::from(([192, 0, 2, 1], 80)), 40_000), None);
    }

    #[test]
    fn a_message_larger_than_all_buffers_comes_back_whole() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            std::io::copy(&mut &stream, &mut &stream).unwrap()
        });
        let large = Workload { payload_bytes: 16 << 20, ..fixture::small_workload(None) };
        assert!(verify(address, &large).is_ok());
        assert_eq!(peer.join().unwrap(), 16 << 20);
    }

    /// An HTTPS server for one connection, with this protocol in ALPN and this reply.
    fn https(protocol: &str, says: &'static [u8]) -> SocketAddr {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket);
            let mut asked = [0; 1024];
            // A client that does not accept the protocol closes in the handshake.
            if stream.read(&mut asked).is_ok_and(|length| length > 0) {
                stream.write_all(says).unwrap();
                let _ = stream.read(&mut asked);
            }
        });
        address
    }

    #[test]
    fn a_reply_under_tls_is_verified_like_any_other() {
        let workload = Workload { tls: true, ..fixture::small_workload(Some("/")) };
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, world!";
        verify(https("http/1.1", good), &workload).unwrap();
        let held = open_idle(https("http/1.1", good), 1, &workload).unwrap();
        assert_eq!((held.len(), count_lost(&held)), (1, 0));
        let bad = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!";
        let told = verify(https("http/1.1", bad), &workload).unwrap_err();
        assert!(told.contains("wrong bytes"), "{told}");
        let told = verify(https("http/0.9", good), &workload).unwrap_err();
        assert!(told.contains("no TLS handshake"), "{told}");
    }

    #[test]
    fn the_end_of_descriptors_is_one_sentence_with_a_remedy() {
        let told = cannot_connect(Error::from_raw_os_error(libc::EMFILE));
        assert!(told.contains("descriptors") && told.contains("ulimit -n"), "{told}");
        let told = cannot_connect(Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        assert!(told.contains("ip_local_port_range"), "{told}");
    }

    #[test]
    fn broken_replies_say_how() {
        let short = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell").unwrap_err();
        assert!(short.contains("closed after"));
        assert!(reply(b"HTTP/1.1 200 OK\r\n\r\n").unwrap_err().contains("Content-Length"));
        assert!(reply(b"SSH-2.0-x\r\n").unwrap_err().contains("malformed"));
        let long = read_reply(&mut &b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxyz"[..]);
        assert!(long.unwrap_err().contains("2 bytes too many"));
    }
}
