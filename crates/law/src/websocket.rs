//! Laws of WebSocket: one connection, both directions, and who may open it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use load::{Length, Plan, Silent};
use rig::client::Client;
use rig::exchange;

use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L27",
        claim: "WebSocket is full duplex on one TCP connection, and a push costs no request.",
        expected: "the server pushes 10 messages while one of the client's is half sent; 20 pushes \
                   take one request, the upgrade; a message of 16 bytes takes at most a half of \
                   the bytes of a poll for as many; polling each 30 ms hears of a message 8 to \
                   25 ms after the push, with two requests or more for each, long polling \
                   within 8 ms, with one.",
        source: "RFC 6455 section 1.1; the notes",
        shown_by: "iolab experiment news",
        takes_s: 4.0,
        bounds: &[
            Bound::exactly("pushes while the client's message is half sent", 10.0),
            Bound::exactly("requests for 20 pushes", 1.0),
            Bound::at_most("bytes, WebSocket / polling", 0.5),
            Bound::between("polling: mean time behind the push", 8.0, 25.0),
            Bound::at_least("polling: requests for a message", 2.0),
            Bound::between("long polling: mean time behind the push", -8.0, 8.0),
            Bound::between("long polling: requests for a message", 0.9, 1.2),
        ],
        measure: full_duplex,
    },
    Law {
        id: "L28",
        claim: "WebSocket is outside the same-origin policy, so the server must check Origin.",
        expected: "an upgrade from a foreign origin is refused (403), and accepted (101) where the \
                   server allows that origin; its own origin is accepted; a GET from a foreign \
                   origin is answered (200), for the browser to withhold.",
        source: "RFC 6455 section 10.2; the notes say the first half",
        shown_by: "iolab experiment news",
        takes_s: 1.0,
        bounds: &[
            Bound::exactly("foreign origin", 403.0),
            Bound::exactly("foreign origin that is allowed", 101.0),
            Bound::exactly("own origin", 101.0),
            Bound::exactly("GET from a foreign origin", 200.0),
        ],
        measure: origins,
    },
];

/// What a browser sends for a page of this origin; the key is that of RFC 6455 section 1.3.
fn upgrade(origin: &str) -> String {
    format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {origin}\r\n"
    )
}

fn origins(lab: &Lab) -> Result<Measured, Reason> {
    const FOREIGN: &str = "http://elsewhere.example";
    const PATH: &str = "/ws/echo";
    let strict = lab.start("epoll", &[])?;
    let open = lab.start("epoll", &["--allow-origin", FOREIGN])?;
    let own = format!("http://{}", strict.address);
    let status = |address, path: &str, fields: &str| {
        let mut visitor = Client::open(address)?;
        visitor.ask(path, fields)?;
        Ok::<_, Reason>(visitor.head()?.status)
    };
    let refused = status(strict.address, PATH, &upgrade(FOREIGN))?;
    let allowed = status(open.address, PATH, &upgrade(FOREIGN))?;
    let same = status(strict.address, PATH, &upgrade(&own))?;
    let get = status(strict.address, "/", &format!("Origin: {FOREIGN}\r\n"))?;
    strict.stop();
    open.stop();
    Ok(Measured::default()
        .figure("foreign origin", f64::from(refused), "")
        .figure("foreign origin that is allowed", f64::from(allowed), "")
        .figure("own origin", f64::from(same), "")
        .figure("GET from a foreign origin", f64::from(get), "")
        .note("figures are status codes"))
}

/// Bytes of a message, both ways, without the opening: from a run of so many.
fn bytes_of_a_message(url: &str, payload: usize) -> Result<f64, Reason> {
    const MESSAGES: u64 = 200;
    let mut plan = Plan::new(url)?;
    plan.connections = 1;
    plan.length = Length::Requests(MESSAGES);
    plan.warmup = Duration::ZERO;
    plan.payload_bytes = payload;
    let outcome = load::run(&plan, &mut Silent)?;
    if outcome.requests != MESSAGES {
        let why = outcome.first_error.or(outcome.ended_early).unwrap_or_default();
        return Err(Reason::NotHere(format!("{url}: {why}")));
    }
    Ok((outcome.bytes_sent + outcome.bytes_received) as f64 / MESSAGES as f64)
}

fn full_duplex(lab: &Lab) -> Result<Measured, Reason> {
    const PAYLOAD: usize = 16;
    const PUSHES: usize = 20;
    const CLOCK: &str = "/ws/clock/10";
    // The upgrade is the only request.
    let server = lab.start("epoll", &[])?;
    let mut socket = exchange::WebSocket::open(server.address, CLOCK).map_err(Reason::NotHere)?;
    for _ in 0..PUSHES {
        socket.receive().map_err(Reason::NotHere)?;
    }
    drop(socket);
    let counters = server.stop().counters;
    let asked = counters.as_ref().and_then(|all| all["requests"].as_f64());
    let asked = asked.ok_or_else(|| Reason::NotHere("the server counts no requests".to_owned()))?;
    let server = lab.start("epoll", &[])?;
    let half_sent = pushes_while_speaking(server.address, CLOCK)?;
    let pushed = bytes_of_a_message(&format!("ws://{}/ws/echo", server.address), PAYLOAD)?;
    let polled = bytes_of_a_message(&format!("http://{}/bytes/{PAYLOAD}", server.address), 0)?;
    let news = news(server.address)?;
    server.stop();
    Ok(Measured::default()
        .figure("polling: mean time behind the push", news.polling.behind_ms(&news.pushed), "ms")
        .figure("polling: requests for a message", news.polling.requests_each(), "")
        .figure(
            "long polling: mean time behind the push",
            news.long_polling.behind_ms(&news.pushed),
            "ms",
        )
        .figure("long polling: requests for a message", news.long_polling.requests_each(), "")
        .figure("pushes while the client's message is half sent", f64::from(half_sent), "")
        .figure("requests for 20 pushes", asked, "")
        .figure("bytes, WebSocket / polling", pushed / polled, "")
        .figure("bytes of a message, WebSocket", pushed, "bytes")
        .figure("bytes of a message, polling", polled, "bytes"))
}

/// When each message arrived.
type Arrivals = BTreeMap<u64, Instant>;

/// What a client that asks has heard.
struct Heard {
    arrivals: Arrivals,
    requests: u32,
}

impl Heard {
    fn nothing() -> Heard {
        Heard { arrivals: Arrivals::new(), requests: 0 }
    }

    /// Asks, and notes the message unless it is known.
    fn ask(&mut self, visitor: &mut Client, path: &str) -> Result<u64, Reason> {
        visitor.ask(path, "")?;
        let number = number(&visitor.answer()?)?;
        self.requests += 1;
        self.arrivals.entry(number).or_insert_with(Instant::now);
        Ok(number)
    }

    /// How much later than over the WebSocket the messages arrived, on average.
    fn behind_ms(&self, pushed: &Arrivals) -> f64 {
        let late = self.arrivals.iter().filter_map(|(number, at)| {
            let first = pushed.get(number)?;
            let behind = at.saturating_duration_since(*first).as_secs_f64();
            Some(behind - first.saturating_duration_since(*at).as_secs_f64())
        });
        let late: Vec<_> = late.collect();
        1e3 * late.iter().sum::<f64>() / late.len() as f64
    }

    /// The first message may have come without a wait, the last with its request.
    fn requests_each(&self) -> f64 {
        f64::from(self.requests) / self.arrivals.len() as f64
    }
}

/// The same messages, heard in three ways at the same time.
struct News {
    pushed: Arrivals,
    polling: Heard,
    long_polling: Heard,
}

/// The number in `tick 7`.
fn number(message: &[u8]) -> Result<u64, Reason> {
    let text = String::from_utf8_lossy(message);
    let number = text.rsplit(' ').next().and_then(|digits| digits.trim().parse().ok());
    number.ok_or_else(|| Reason::NotHere(format!("{text:?} is no message with a number")))
}

/// A message is due each 100 ms, by the server's clock, for every client alike.
fn news(address: SocketAddr) -> Result<News, Reason> {
    const MESSAGES: usize = 15;
    const NEWEST: &str = "/news/100";
    const POLLED_EACH: Duration = Duration::from_millis(30);
    let pushed = || {
        let mut socket =
            exchange::WebSocket::open(address, "/ws/clock/100").map_err(Reason::NotHere)?;
        let mut arrivals = Arrivals::new();
        while arrivals.len() < MESSAGES {
            let message = socket.receive().map_err(Reason::NotHere)?;
            arrivals.insert(number(&message)?, Instant::now());
        }
        Ok::<_, Reason>(arrivals)
    };
    let polling = || {
        let (mut visitor, mut heard) = (Client::open(address)?, Heard::nothing());
        let mut due = Instant::now();
        while heard.arrivals.len() < MESSAGES {
            heard.ask(&mut visitor, NEWEST)?;
            due += POLLED_EACH;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(heard)
    };
    let long_polling = || {
        let (mut visitor, mut heard) = (Client::open(address)?, Heard::nothing());
        let mut newest = heard.ask(&mut visitor, NEWEST)?;
        while heard.arrivals.len() < MESSAGES {
            newest = heard.ask(&mut visitor, &format!("{NEWEST}/{newest}"))?;
        }
        Ok(heard)
    };
    std::thread::scope(|scope| {
        let (polling, long_polling) = (scope.spawn(polling), scope.spawn(long_polling));
        let pushed = pushed()?;
        let heard = |one: std::thread::ScopedJoinHandle<'_, Result<Heard, Reason>>| {
            one.join().map_err(|_| Reason::Fault("a client has ended".to_owned()))?
        };
        Ok(News { pushed, polling: heard(polling)?, long_polling: heard(long_polling)? })
    })
}

/// Pushes that arrive while a message of the client is half sent: as long as the rest is missing,
/// the client speaks.
fn pushes_while_speaking(address: SocketAddr, path: &str) -> Result<u32, Reason> {
    const PUSHES: u32 = 10;
    let mut socket = exchange::WebSocket::open(address, path).map_err(Reason::NotHere)?;
    let frame = exchange::message_frame(&[7; 64]);
    let (first, second) = frame.split_at(frame.len() / 2);
    socket.send(first).map_err(Reason::NotHere)?;
    let mut received = 0;
    while received < PUSHES {
        socket.receive().map_err(Reason::NotHere)?;
        received += 1;
    }
    socket.send(second).map_err(Reason::NotHere)?;
    Ok(received)
}
