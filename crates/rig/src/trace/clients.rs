//! The three clients. Each connects, sends one request and closes.
//!
//! All three connect. A sends, reads the reply and closes. Then C sends. B waits until the server
//! has nothing left to do (it sleeps, or tries its sockets again and again) and only then sends. So
//! the wait for B is seen in every model, and a server that serves one client at a time, B before
//! C, keeps C waiting.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use record::Span;

use super::now_ns;
use super::visit::Visit;

/// Names of the clients: lanes of the recording are `client A` and so on.
pub const NAMES: [&str; 3] = ["A", "B", "C"];

/// Bytes of a request, and of its reply: an echo.
const REQUEST_BYTES: usize = 16;

/// What B waits at least: long beside a stop of the tracer, so that the wait is seen in a picture.
const PAUSE: Duration = Duration::from_millis(20);

/// Time limit of a reply.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One thing that a client did.
#[derive(Debug, Clone, Copy)]
struct Done {
    client: usize,
    kind: &'static str,
    from_ns: u64,
    to_ns: u64,
}

impl Done {
    /// For the recording.
    fn span(&self, visit: &Visit) -> Span {
        Span {
            lane: format!("client {}", NAMES[self.client]),
            kind: self.kind.to_owned(),
            from_us: visit.since_us(self.from_ns),
            to_us: visit.since_us(self.to_ns),
            connection: Some(self.client as u32),
            request: (self.kind == "request").then_some(self.client as u32),
            ..Span::default()
        }
    }
}

/// The step that has been reached.
#[derive(Default)]
struct Order {
    step: Mutex<u32>,
    changed: Condvar,
}

impl Order {
    fn reach(&self, step: u32) {
        let mut now = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        *now = (*now).max(step);
        self.changed.notify_all();
    }

    fn wait_for(&self, step: u32) {
        let now = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = self.changed.wait_while(now, |now| *now < step);
        drop(reached.unwrap_or_else(PoisonError::into_inner));
    }
}

/// One client.
struct Client {
    number: usize,
    socket: TcpStream,
    done: Vec<Done>,
}

impl Client {
    fn connect(number: usize, address: SocketAddr) -> Result<Client, String> {
        let from_ns = now_ns();
        let socket = TcpStream::connect_timeout(&address, TIMEOUT);
        let socket = socket.map_err(|e| format!("client {} cannot connect: {e}", NAMES[number]))?;
        let mut client = Client { number, socket, done: Vec::new() };
        client.note("connect", from_ns);
        client.timeouts().map_err(|e| format!("a socket has no timeout: {e}"))?;
        Ok(client)
    }

    fn timeouts(&self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(TIMEOUT))?;
        self.socket.set_write_timeout(Some(TIMEOUT))
    }

    fn note(&mut self, kind: &'static str, from_ns: u64) {
        self.done.push(Done { client: self.number, kind, from_ns, to_ns: now_ns() });
    }

    fn request(&self) -> [u8; REQUEST_BYTES] {
        let mut request = *b"request of ?    ";
        request[11] = NAMES[self.number].as_bytes()[0];
        request
    }

    /// Sends the request; `sent` is told before the reply is read.
    fn exchange(&mut self, sent: impl FnOnce()) -> Result<(), String> {
        let (name, request, mut reply) = (NAMES[self.number], self.request(), [0; REQUEST_BYTES]);
        let from_ns = now_ns();
        let written = self.socket.write_all(&request);
        sent();
        written.map_err(|e| format!("client {name} cannot send: {e}"))?;
        let read = self.socket.read_exact(&mut reply);
        read.map_err(|e| format!("client {name} got no reply: {e}"))?;
        if reply != request {
            return Err(format!("client {name} got a wrong reply: {reply:?}"));
        }
        self.note("request", from_ns);
        Ok(())
    }

    /// Half-closes and waits for the server's end of the connection.
    fn close(&mut self) -> Result<(), String> {
        let name = NAMES[self.number];
        let from_ns = now_ns();
        let closed = self.socket.shutdown(Shutdown::Write);
        closed.map_err(|e| format!("client {name} cannot close: {e}"))?;
        match self.socket.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(format!("client {name} got more than its reply")),
            Err(error) => return Err(format!("client {name} saw no end: {error}")),
        }
        self.note("close", from_ns);
        Ok(())
    }
}

/// Lets the clients talk to the server.
///
/// # Errors
/// One sentence about the client that failed.
pub(super) fn talk(visit: &mut Visit) -> Result<Vec<Span>, String> {
    let mut clients = Vec::new();
    for number in 0..NAMES.len() {
        let client = Client::connect(number, visit.address())?;
        visit.register(&client.socket)?;
        clients.push(client);
    }
    visit.until_quiet(Duration::ZERO);
    let (order, visit) = (&Order::default(), &*visit);
    let ended = thread::scope(|scope| {
        let run = |mut client: Client| {
            scope.spawn(move || {
                let outcome = part(&mut client, order, visit);
                // A client that failed holds up no other.
                order.reach(if client.number == 0 { 1 } else { 2 });
                outcome.map(|()| client.done)
            })
        };
        let threads: Vec<_> = clients.into_iter().map(run).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Vec<Done>, String>>| {
            thread.join().unwrap_or_else(|_| Err("the thread of a client ended".to_owned()))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()
    });
    let mut done = ended?.concat();
    done.sort_by_key(|done| done.from_ns);
    Ok(done.iter().map(|done| done.span(visit)).collect())
}

/// What one client does, in its order among the others.
fn part(client: &mut Client, order: &Order, visit: &Visit) -> Result<(), String> {
    match client.number {
        0 => client.exchange(|| {})?,
        1 => {
            order.wait_for(2);
            let from_ns = now_ns();
            visit.until_quiet(PAUSE);
            client.note("pause", from_ns);
            client.exchange(|| {})?;
        }
        _ => {
            order.wait_for(1);
            client.exchange(|| order.reach(2))?;
        }
    }
    client.close()
}
