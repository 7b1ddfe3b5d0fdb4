//! SIGTERM, and what the kernel had accepted before: all of it is answered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::RootCertStore;
use suite::http2::{Frame, Http2, PREFACE, WINDOW_MAX, flag, hpack, kind};
use suite::{Client, Opcode, Server, Variant, WebSocket, client_frame, get, guard, until};

use crate::secure;
use crate::stop::NEVER;

/// The server does not run while clients write, and finds all of it beside the signal.
fn while_stopped(server: &Server, write: impl FnOnce()) {
    server.signal(Signal::SIGSTOP);
    write();
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
}

/// The replies to what was written, the last of which announces the end, and then the end.
#[track_caller]
fn answered(client: &mut Client, requests: usize) {
    for _ in 0..requests {
        assert_eq!(client.reply().status, 200);
    }
    client.expect_end();
}

pub fn requests_in_sockets(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    let several = if variant.model.one_at_a_time() { 1 } else { 10 };
    let mut open: Vec<Client> = (0..several).map(|_| server.connect()).collect();
    for client in &mut open {
        client.send(&get("/"));
        assert_eq!(client.reply().status, 200);
    }
    let mut queued: Vec<Client> = Vec::new();
    while_stopped(&server, || {
        for (number, client) in open.iter_mut().enumerate() {
            // Some of them have more than one on their way, and one of those is late.
            client.send(&get("/").repeat(1 + number % 3));
        }
        if let Some(client) = open.first_mut() {
            client.send(&[get("/delay/100"), get("/bytes/300000"), get("/")].concat());
        }
        for _ in 0..20 {
            let mut client = server.connect();
            client.send(&get("/"));
            queued.push(client);
        }
    });
    for (number, client) in open.iter_mut().enumerate() {
        answered(client, 1 + number % 3 + if number == 0 { 3 } else { 0 });
    }
    drop(open);
    for client in &mut queued {
        answered(client, 1);
    }
    drop(queued);
    let counters = server.wait().counters();
    assert_eq!(counters["connections_open"], 0, "{counters}");
    assert_eq!(counters["connections_accepted"], several + 20, "{counters}");
}

/// As many as there are places, and others behind them: they come in as room appears.
pub fn queue_of_a_full_server(variant: &Variant) {
    let pool = variant.model.flavour("threads").is_some();
    let full: &[&str] = if pool { &["--threads", "2"] } else { &["--conns-max", "2"] };
    let server = Server::start(variant, &[full, &NEVER].concat());
    let places = if variant.model.one_at_a_time() { 1 } else { 2 };
    let mut served: Vec<Client> = (0..places).map(|_| server.connect()).collect();
    for client in &mut served {
        client.send(&[get("/"), get("/delay/300")].concat());
        assert_eq!(client.reply().status, 200);
    }
    let mut queued: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    queued.iter_mut().for_each(|client| client.send(&get("/")));
    server.signal(Signal::SIGTERM);
    for client in &mut served {
        answered(client, 1);
    }
    drop(served);
    for client in &mut queued {
        answered(client, 1);
    }
    until("a connection is refused", || TcpStream::connect(server.address).is_err());
    let counters = server.wait().counters();
    assert_eq!(counters["requests"], places * 2 + 10, "{counters}");
}

/// Streams that cross the first GOAWAY are answered; the last one names the last of them.
pub fn streams_that_cross_goaway(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    let mut h2 = Http2::open(server.address);
    h2.still_serves();
    let mut lying = 0;
    while_stopped(&server, || lying = h2.get("/delay/50"));
    h2.until("GOAWAY", |h2| h2.goaway.is_some());
    assert_eq!(h2.goaway.map(|goaway| goaway.last_stream), Some(WINDOW_MAX), "the first one");
    // The answer to the server's PING may be out already: this client answers when it reads. So
    // whatever is asked now may be too late, and then it must be refused, and not forgotten.
    let crossing = h2.get("/");
    assert_eq!(h2.reply(lying).status, 200);
    h2.farewell_without_error();
    let last = h2.goaway.map_or(0, |goaway| goaway.last_stream);
    assert!(last == lying || last == crossing, "{}", h2.seen());
    assert_eq!(h2.streams[&crossing].ended, last == crossing, "{}", h2.seen());
    drop(h2);
    server.wait().counters();
}

pub fn websockets_are_answered_and_told(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    let mut websocket = WebSocket::open(&server, "/ws/echo");
    websocket.say("before");
    assert_eq!(websocket.text(), "before");
    while_stopped(&server, || {
        // In one write: of many, the kernel would hold back some until the first are acknowledged.
        let frames =
            (0..100).flat_map(|number| client_frame(Opcode::Text, number.to_string().as_bytes()));
        websocket.client().send(&frames.collect::<Vec<u8>>());
    });
    for number in 0..100 {
        assert_eq!(websocket.text(), number.to_string());
    }
    let frame = websocket.frame();
    assert_eq!(frame.opcode, Opcode::Close);
    assert_eq!(frame.payload[..2], 1001u16.to_be_bytes());
    drop(websocket);
    server.wait().counters();
}

/// What a client of the counting case speaks.
#[derive(Debug, Clone, Copy)]
enum Speaks {
    /// Requests on one connection.
    KeepAlive,
    /// A connection for each batch.
    NewOnes,
    Http2,
    WebSocket,
    KeepAliveOverTls,
    Http2OverTls,
}

impl Speaks {
    const ALL: [Speaks; 6] = [
        Speaks::KeepAlive,
        Speaks::NewOnes,
        Speaks::Http2,
        Speaks::WebSocket,
        Speaks::KeepAliveOverTls,
        Speaks::Http2OverTls,
    ];

    /// What it agrees on under TLS, if it speaks that.
    fn alpn(self) -> Option<&'static str> {
        match self {
            Speaks::KeepAliveOverTls => Some("http/1.1"),
            Speaks::Http2OverTls => Some("h2"),
            _ => None,
        }
    }
}

/// Requests that leave in one write, so that many are on their way when the signal comes.
const BATCH: usize = 50;

/// What came of a client's requests.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    lost: usize,
}

/// Clients under load, a signal in their middle: whatever was with the kernel before it is
/// answered. The rounds go on until enough was asked for.
pub fn nothing_is_lost_under_load(variant: &Variant) {
    const REQUESTS: usize = 10_000;
    const ROUNDS_MAX: usize = 20;
    let clients = if variant.model.one_at_a_time() { 1 } else { 4 };
    for speaks in Speaks::ALL {
        let mut tally = Tally::default();
        for _ in 0..ROUNDS_MAX {
            let round = stop_under_load(variant, speaks, clients);
            tally.answered += round.answered;
            tally.lost += round.lost;
            if tally.answered >= REQUESTS {
                break;
            }
        }
        assert_eq!(tally.lost, 0, "{speaks:?}: {tally:?}");
        assert!(tally.answered > 100, "{speaks:?}: {tally:?}");
    }
}

fn stop_under_load(variant: &Variant, speaks: Speaks, clients: usize) -> Tally {
    let (server, trust, _state) = if speaks.alpn().is_some() {
        let guarded = secure::start(variant, &NEVER);
        (guarded.server, guarded.trust, Some(guarded.state))
    } else {
        (Server::start(variant, &NEVER), Arc::new(RootCertStore::empty()), None)
    };
    let signalled = Arc::new(AtomicBool::new(false));
    let clients: Vec<JoinHandle<Tally>> = (0..clients)
        .map(|_| {
            let to = To { address: server.address, trust: Arc::clone(&trust), speaks };
            let signalled = Arc::clone(&signalled);
            thread::spawn(move || talk(&to, &signalled))
        })
        .collect();
    thread::sleep(Duration::from_millis(120));
    signalled.store(true, SeqCst);
    server.signal(Signal::SIGTERM);
    let mut tally = Tally::default();
    for client in clients {
        let one = client.join().expect("a client");
        tally.answered += one.answered;
        tally.lost += one.lost;
    }
    server.wait().counters();
    tally
}

/// Whom a client talks to, and how.
struct To {
    address: SocketAddr,
    trust: Arc<RootCertStore>,
    speaks: Speaks,
}

/// Asks until the server ends it. A request that was written before the signal and is not answered
/// is lost.
fn talk(to: &To, signalled: &AtomicBool) -> Tally {
    let speaks = to.speaks;
    let mut tally = Tally::default();
    let mut line = match Line::open(to) {
        Ok(line) => line,
        // The signal was faster than this client.
        Err(_) if signalled.load(SeqCst) => return tally,
        Err(error) => panic!("{speaks:?}: {error}"),
    };
    loop {
        let written = line.ask().is_ok();
        let before_the_signal = written && !signalled.load(SeqCst);
        for answered in 0..BATCH {
            let Err(error) = line.answer() else {
                tally.answered += 1;
                continue;
            };
            if error.kind() == ErrorKind::WouldBlock {
                panic!("{speaks:?}: neither answered nor ended within {:?}", guard());
            }
            tally.lost += if before_the_signal { BATCH - answered } else { 0 };
            return tally;
        }
        if matches!(speaks, Speaks::NewOnes) {
            match Line::open(to) {
                Ok(next) => line = next,
                Err(_) => return tally,
            }
        }
    }
}

/// A socket, or TLS on one.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A connection that asks for a batch at a time, and can be told that it is over.
struct Line {
    stream: Box<dyn Stream>,
    speaks: Speaks,
    unread: Vec<u8>,
    asked: u32,
}

impl Line {
    fn open(to: &To) -> io::Result<Line> {
        let stream = TcpStream::connect(to.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(guard()))?;
        let speaks = to.speaks;
        let stream: Box<dyn Stream> = match speaks.alpn() {
            Some(alpn) => Box::new(secure::connect(stream, &to.trust, alpn)?),
            None => Box::new(stream),
        };
        let mut line = Line { stream, speaks, unread: Vec::new(), asked: 0 };
        match speaks {
            Speaks::KeepAlive | Speaks::NewOnes | Speaks::KeepAliveOverTls => {}
            Speaks::Http2 | Speaks::Http2OverTls => {
                let window = Frame::window_update(0, WINDOW_MAX - 65_535).bytes();
                let settings = Frame::settings(&[]).bytes();
                line.stream.write_all(&[PREFACE, &settings, &window].concat())?;
            }
            Speaks::WebSocket => {
                let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: \
                              13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                line.stream.write_all(&suite::request("GET", "/ws/echo", fields))?;
                line.until_end_of_head()?;
            }
        }
        Ok(line)
    }

    fn ask(&mut self) -> io::Result<()> {
        let mut requests = Vec::new();
        for number in 0..BATCH {
            requests.extend(match self.speaks {
                Speaks::NewOnes if number == BATCH - 1 => {
                    suite::request("GET", "/", "Connection: close\r\n")
                }
                Speaks::KeepAlive | Speaks::NewOnes | Speaks::KeepAliveOverTls => get("/"),
                Speaks::Http2 | Speaks::Http2OverTls => {
                    let stream = 2 * self.asked + 1;
                    Frame::headers(stream, hpack::request("GET", "/"), true).bytes()
                }
                Speaks::WebSocket => client_frame(Opcode::Text, b"Hello, world!"),
            });
            self.asked += 1;
        }
        self.stream.write_all(&requests)?;
        self.stream.flush()
    }

    /// Waits for the answer to one of those that were asked last.
    fn answer(&mut self) -> io::Result<()> {
        match self.speaks {
            Speaks::KeepAlive | Speaks::NewOnes | Speaks::KeepAliveOverTls => {
                self.until_end_of_head()?;
                self.take("Hello, world!".len()).map(drop)
            }
            Speaks::Http2 | Speaks::Http2OverTls => self.until_end_of_a_stream(),
            Speaks::WebSocket => {
                let head = self.take(2)?;
                let payload = self.take(usize::from(head[1]))?;
                if head[0] & 0x0f == Opcode::Close as u8 {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                assert_eq!(payload, b"Hello, world!");
                Ok(())
            }
        }
    }

    fn until_end_of_head(&mut self) -> io::Result<()> {
        loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                self.unread.drain(..at + 4);
                return Ok(());
            }
            self.read_more()?;
        }
    }

    /// Reads frames, and answers those that want an answer, or the server would not go on.
    fn until_end_of_a_stream(&mut self) -> io::Result<()> {
        loop {
            let head = self.take(9)?;
            let number = |at: usize| u32::from_be_bytes([0, head[at], head[at + 1], head[at + 2]]);
            let payload = self.take(number(0) as usize)?;
            let (frame, flags) = (head[3], head[4]);
            let answer = match frame {
                kind::SETTINGS if flags & flag::ACK == 0 => Some(Frame::settings(&[])),
                kind::PING if flags & flag::ACK == 0 => {
                    let payload = payload.as_slice().try_into().expect("eight bytes");
                    Some(Frame::ping(payload))
                }
                _ => None,
            };
            if let Some(answer) = answer {
                // It may have closed meanwhile, and then the next read will say so.
                let _ = self.stream.write_all(&answer.with_flags(flag::ACK).bytes());
            }
            let ends = matches!(frame, kind::DATA | kind::HEADERS) && flags & flag::END_STREAM != 0;
            if ends {
                return Ok(());
            }
        }
    }

    fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < len {
            self.read_more()?;
        }
        Ok(self.unread.drain(..len).collect())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let n = self.stream.read(&mut buffer)?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&buffer[..n]);
        Ok(())
    }
}
