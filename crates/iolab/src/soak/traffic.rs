//! The kinds of clients of a turn, and the number of requests that a server counts for each. A turn
//! ends after a fixed number of requests, not after a time, so that the counts of both sides must
//! be equal.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use load::{Length, Method, Plan, Silent};
use socket2::SockRef;

/// A reply that takes longer is an error. It is long, because with one connection at a time a
/// client waits for all before it.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections of most kinds, if the server can serve so many.
const CONNECTIONS: u32 = 4;

/// Members of a chat, if the server can serve so many.
const MEMBERS: u32 = 8;

/// Size of the reply to a slow client: larger than the socket buffers, so that the server has to
/// wait.
const SLOW_BYTES: usize = 2_000_000;

/// What a slow client reads at once, and its pause after each read: about 30 MB/s, so that a turn
/// is short.
const SLOW_READ_BYTES: usize = 64 << 10;
const SLOW_READ_PAUSE: Duration = Duration::from_millis(2);

/// A reply so long that it is never complete: its client resets the connection. So no request is
/// counted.
const ENDLESS: &str = "/bytes/1000000000000";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    KeepAlive,
    /// HTTP/1.1 with 16 requests in flight on each connection.
    Pipelined,
    /// A connection for each request.
    Reconnect,
    /// POST; the reply has the same body.
    Echo,
    /// HTTP/2 with eight open streams.
    Http2,
    WebSocket,
    /// A chat: one member sends, the others receive.
    Chat,
    Files,
    SlowReaders,
    /// Clients that reset the connection in the middle of a reply.
    Resets,
}

pub const PLAIN: [Kind; 10] = [
    Kind::KeepAlive,
    Kind::Pipelined,
    Kind::Reconnect,
    Kind::Echo,
    Kind::Http2,
    Kind::WebSocket,
    Kind::Chat,
    Kind::Files,
    Kind::SlowReaders,
    Kind::Resets,
];

pub const TLS: [Kind; 6] =
    [Kind::KeepAlive, Kind::Reconnect, Kind::Echo, Kind::Http2, Kind::WebSocket, Kind::Files];

impl Kind {
    /// Whether one connection at a time is enough.
    pub fn needs_one(self) -> bool {
        self != Kind::Chat
    }

    fn requests(self) -> u64 {
        match self {
            Kind::KeepAlive | Kind::Pipelined | Kind::Http2 => 1_000,
            Kind::WebSocket => 500,
            Kind::Echo => 200,
            Kind::Reconnect => 50,
            Kind::Chat | Kind::Files => 40,
            Kind::SlowReaders => 2,
            Kind::Resets => 10,
        }
    }

    /// Requests that the server counts in a turn: these, and the probes of the load generator, each
    /// on a new connection. The upgrade to a WebSocket is a request, and so is each message.
    pub fn counted(self, connections_max: u32) -> u64 {
        let connections = u64::from(self.connections(connections_max));
        let probed = match self {
            Kind::KeepAlive | Kind::Pipelined | Kind::Reconnect | Kind::Echo => 1,
            // Each connection, also that of the probe, begins with one request.
            Kind::Http2 => 2 + connections,
            // Two to learn the body, one to compare it.
            Kind::Files => 3,
            Kind::WebSocket => 2 + connections,
            Kind::Chat => 3 + connections,
            Kind::SlowReaders => 0,
            Kind::Resets => return 0,
        };
        probed + self.requests()
    }

    fn connections(self, connections_max: u32) -> u32 {
        let wanted = if self == Kind::Chat { MEMBERS } else { CONNECTIONS };
        wanted.min(connections_max)
    }

    pub fn run(self, address: SocketAddr, tls: bool, connections_max: u32) -> Result<(), String> {
        let told = |error: String| format!("{self:?}: {error}");
        match self {
            Kind::SlowReaders => (0..self.requests()).try_for_each(|_| read_slowly(address)),
            Kind::Resets => (0..self.requests()).try_for_each(|_| reset(address)),
            _ => self.load(address, tls, connections_max),
        }
        .map_err(told)
    }

    fn load(self, address: SocketAddr, tls: bool, connections_max: u32) -> Result<(), String> {
        let plan = self.plan(address, tls, connections_max).map_err(|error| error.to_string())?;
        let outcome = load::run(&plan, &mut Silent).map_err(|error| error.to_string())?;
        if outcome.errors > 0 || outcome.ended_early.is_some() {
            let first = outcome.first_error.or(outcome.ended_early).unwrap_or_default();
            return Err(format!("{} errors (first: {first})", outcome.errors));
        }
        let receivers = if plan.fan_out { u64::from(plan.connections) - 1 } else { 1 };
        let expected = self.requests() * receivers;
        if outcome.requests != expected {
            return Err(format!("{} replies to {expected} requests", outcome.requests));
        }
        Ok(())
    }

    fn plan(
        self,
        address: SocketAddr,
        tls: bool,
        connections_max: u32,
    ) -> Result<Plan, load::Error> {
        let path = match self {
            Kind::Echo => "/echo",
            Kind::WebSocket => "/ws/echo",
            Kind::Chat => "/ws/chat",
            Kind::Files => "/files/100k.bin",
            _ => "/bytes/1000",
        };
        let scheme = match (self, tls) {
            (Kind::WebSocket | Kind::Chat, false) => "ws",
            (Kind::WebSocket | Kind::Chat, true) => "wss",
            (_, false) => "http",
            (_, true) => "https",
        };
        let mut plan = Plan::new(&format!("{scheme}://{address}{path}"))?;
        plan.length = Length::Requests(self.requests());
        plan.warmup = Duration::ZERO;
        plan.request_timeout = REPLY_TIMEOUT;
        plan.connections = self.connections(connections_max);
        plan.reconnect = self == Kind::Reconnect;
        if self == Kind::Http2 {
            plan.target.use_http2()?;
        }
        plan.fan_out = self == Kind::Chat;
        plan.payload_bytes = 200;
        plan.pipelining = match self {
            Kind::Pipelined => 16,
            Kind::Http2 => 8,
            _ => 1,
        };
        if self == Kind::Echo {
            plan.method = Method::Post;
        }
        Ok(plan)
    }
}

/// A blocking HTTP/1.1 client, for requests beside the load.
pub struct Client(TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Client, String> {
        let connect = || -> std::io::Result<TcpStream> {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            Ok(stream)
        };
        connect().map(Client).map_err(|error| format!("cannot connect: {error}"))
    }

    /// GET. Returns the body of a reply with status 200. Pauses after each read.
    pub fn get(&mut self, path: &str, pause: Duration) -> Result<Vec<u8>, String> {
        let told = |error: std::io::Error| format!("{path}: {error}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n");
        self.0.write_all(request.as_bytes()).map_err(told)?;
        let (mut reply, mut chunk) = (Vec::new(), vec![0; SLOW_READ_BYTES]);
        loop {
            if let Some((head, length)) = framed(&reply)?
                && reply.len() >= head + length
            {
                return Ok(reply.split_off(head));
            }
            match self.0.read(&mut chunk).map_err(told)? {
                0 => return Err(format!("{path}: the server closed in the middle")),
                n => reply.extend(&chunk[..n]),
            }
            std::thread::sleep(pause);
        }
    }
}

/// Lengths of head and body, once the head is complete.
fn framed(reply: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some(end) = memchr::memmem::find(reply, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&reply[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        return Err(format!("refused: {}", head.lines().next().unwrap_or_default()));
    }
    let field = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = field.and_then(|value| value.parse().ok()).ok_or("a reply without a length")?;
    Ok(Some((end + 4, length)))
}

fn read_slowly(address: SocketAddr) -> Result<(), String> {
    let body = Client::connect(address)?.get(&format!("/bytes/{SLOW_BYTES}"), SLOW_READ_PAUSE)?;
    match body.len() {
        SLOW_BYTES => Ok(()),
        other => Err(format!("{other} bytes instead of {SLOW_BYTES}")),
    }
}

fn reset(address: SocketAddr) -> Result<(), String> {
    let client = Client::connect(address)?;
    let mut stream = &client.0;
    let mut request = || -> std::io::Result<()> {
        write!(stream, "GET {ENDLESS} HTTP/1.1\r\nHost: soak\r\n\r\n")?;
        stream.read_exact(&mut [0; 1])?;
        // With a linger time of 0 the following close(2) sends RST (socket(7)).
        SockRef::from(&client.0).set_linger(Some(Duration::ZERO))
    };
    match request() {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err("the server closed the connection".into())
        }
        other => other.map_err(|error| error.to_string()),
    }
}
