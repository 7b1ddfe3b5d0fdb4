//! The kinds of clients that come in a turn, and how many requests each of them makes a server
//! count. Numbers and not times end them: so both sides can be compared to the request.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use load::{Length, Method, Plan, Silent};
use socket2::SockRef;

/// A reply that takes longer is an error. No measurement: with one connection at a time a client
/// waits for all that came before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections of most kinds, where the server can have so many.
const CONNECTIONS: u32 = 4;

/// Members of a chat, where the server can have so many.
const MEMBERS: u32 = 8;

/// Bytes that a slow reader asks for: more than socket buffers take in at once, so that the server
/// has to wait for it.
const SLOW_BYTES: usize = 2_000_000;

/// What it reads at once, and how long it pauses then: some 30 MB/s, which keeps a turn short.
const SIP_BYTES: usize = 64 << 10;
const SIP_PAUSE: Duration = Duration::from_millis(2);

/// Bytes of a reply that nobody waits for: its client resets the connection after the first ones,
/// so it is never complete and no request is counted.
const ENDLESS: &str = "/bytes/1000000000000";

/// One kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1, kept alive.
    KeepAlive,
    /// HTTP/1.1, sixteen requests under way on each connection.
    Pipelined,
    /// A connection for each request.
    Reconnect,
    /// POST whose body comes back.
    Echo,
    /// HTTP/2, eight streams at once.
    Http2,
    /// Messages over WebSockets.
    WebSocket,
    /// What one says, the others must hear.
    Chat,
    /// The file of the file workload.
    Files,
    /// Clients that take their reply in small sips.
    SlowReaders,
    /// Clients that reset the connection in the middle of a reply.
    Resets,
}

/// What comes to a server without TLS.
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

/// What comes to a server with TLS.
pub const TLS: [Kind; 6] =
    [Kind::KeepAlive, Kind::Reconnect, Kind::Echo, Kind::Http2, Kind::WebSocket, Kind::Files];

impl Kind {
    /// Whether one connection at a time is enough for it.
    pub fn needs_one(self) -> bool {
        self != Kind::Chat
    }

    /// Requests of a turn (a chat: messages).
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

    /// Requests that the server counts for a turn: those, and what the load generator asks before
    /// them to see that replies are right, each on a connection of its own. A WebSocket's upgrade
    /// is a request, and so is each of its messages.
    pub fn counted(self, connections_max: u32) -> u64 {
        let connections = u64::from(self.connections(connections_max));
        let probed = match self {
            Kind::KeepAlive | Kind::Pipelined | Kind::Reconnect | Kind::Echo => 1,
            // Each connection, the first one too, is greeted by one request of its own.
            Kind::Http2 => 2 + connections,
            // Twice to learn the body, once to compare it.
            Kind::Files => 3,
            Kind::WebSocket => 2 + connections,
            // Two members, one message.
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

    /// Lets the clients of this kind come and go. The error is one sentence.
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
            return Err(format!("{} errors, the first: {first}", outcome.errors));
        }
        let heard = if plan.fan_out { u64::from(plan.connections) - 1 } else { 1 };
        let expected = self.requests() * heard;
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
        plan.request_timeout = PATIENCE;
        plan.connections = self.connections(connections_max);
        plan.reconnect = self == Kind::Reconnect;
        plan.http2 = self == Kind::Http2;
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

/// A conversation of HTTP/1.1 that asks and reads whole replies; for what is asked beside the load.
pub struct Asker(TcpStream);

impl Asker {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Asker, String> {
        let connect = || -> std::io::Result<TcpStream> {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        connect().map(Asker).map_err(|error| format!("cannot connect: {error}"))
    }

    /// GET; the body of a reply with status 200. `pause` is made after each read.
    pub fn get(&mut self, path: &str, pause: Duration) -> Result<Vec<u8>, String> {
        let told = |error: std::io::Error| format!("{path}: {error}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n");
        self.0.write_all(request.as_bytes()).map_err(told)?;
        let (mut reply, mut sip) = (Vec::new(), vec![0; SIP_BYTES]);
        loop {
            if let Some((head, length)) = framed(&reply)?
                && reply.len() >= head + length
            {
                return Ok(reply.split_off(head));
            }
            match self.0.read(&mut sip).map_err(told)? {
                0 => return Err(format!("{path}: the server closed in the middle")),
                n => reply.extend(&sip[..n]),
            }
            std::thread::sleep(pause);
        }
    }
}

/// Length of the head and of the body, once the head is there.
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
    let body = Asker::connect(address)?.get(&format!("/bytes/{SLOW_BYTES}"), SIP_PAUSE)?;
    match body.len() {
        SLOW_BYTES => Ok(()),
        other => Err(format!("{other} bytes instead of {SLOW_BYTES}")),
    }
}

fn reset(address: SocketAddr) -> Result<(), String> {
    let asker = Asker::connect(address)?;
    let mut stream = &asker.0;
    let mut ask = || -> std::io::Result<()> {
        write!(stream, "GET {ENDLESS} HTTP/1.1\r\nHost: soak\r\n\r\n")?;
        stream.read_exact(&mut [0; 1])?;
        // With this the close that follows sends RST (socket(7)).
        SockRef::from(&asker.0).set_linger(Some(Duration::ZERO))
    };
    match ask() {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err("closed unasked".into()),
        other => other.map_err(|error| error.to_string()),
    }
}
