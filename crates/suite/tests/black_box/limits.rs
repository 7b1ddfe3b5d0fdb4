//! Limits in time and number: who is late is told so or cut, who is one too many waits.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use suite::{Client, Server, Variant, get, guard, until};

use crate::Outcome;

/// A time-out for the cases: far below the guard, far above a clock tick.
const SOON: Duration = Duration::from_millis(250);
const SOON_FLAG: &str = "250ms";

/// Writes one byte after another until the server has had enough of it. The pause sets the pace of
/// a slow client; nothing depends on its length.
fn dribble(client: &Client, byte: u8) -> thread::JoinHandle<()> {
    let mut writer = client.second_handle();
    thread::spawn(move || {
        let begun = Instant::now();
        while begun.elapsed() < guard() && writer.write_all(&[byte]).is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    })
}

/// The client is told 408, not before its time.
#[track_caller]
fn told_too_late(client: &mut Client, begun: Instant) {
    let reply = client.reply();
    assert_eq!(reply.status, 408);
    assert!(reply.head.closes());
    assert!(begun.elapsed() >= SOON, "early: {:?}", begun.elapsed());
}

pub fn head_timeout(variant: &Variant) {
    let server = Server::start(variant, &["--head-timeout", SOON_FLAG]);
    let begun = Instant::now();
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHo");
    told_too_late(&mut client, begun);
    client.expect_end();
    drop(client);
    // The time is for the whole head: bytes that trickle in do not extend it.
    let begun = Instant::now();
    let mut client = server.connect();
    client.send(b"GET /");
    let dribbling = dribble(&client, b'x');
    told_too_late(&mut client, begun);
    drop(client);
    dribbling.join().expect("the slow client");
    // The second request of a connection has its own time.
    let mut client = server.connect();
    client.send(&get("/"));
    assert_eq!(client.reply().status, 200);
    let begun = Instant::now();
    client.send(b"G");
    told_too_late(&mut client, begun);
    drop(client);
    server.serves();
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["request_timeout"], 3, "{counters}");
}

pub fn body_timeout(variant: &Variant) {
    let server = Server::start(variant, &["--body-timeout", SOON_FLAG]);
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    let begun = Instant::now();
    let mut client = server.connect();
    client.send(head);
    told_too_late(&mut client, begun);
    client.expect_end();
    drop(client);
    // Here the reply has begun: it can only be cut, and must not look whole.
    let begun = Instant::now();
    let mut client = server.connect();
    client.send(&[head.as_slice(), b"12345"].concat());
    let told = String::from_utf8_lossy(&client.read_until_cut()).into_owned();
    assert!(begun.elapsed() >= SOON, "early: {:?}", begun.elapsed());
    assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with("\r\n\r\n12345"), "{told:?}");
    drop(client);
    server.serves();
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["request_timeout"], 2, "{counters}");
}

/// A connection whose request was in time, and how many before it were closed because this process
/// was not given a core within the idle time.
#[track_caller]
fn asked_in_time(server: &Server, target: &str) -> (Client, u64) {
    let mut late = 0;
    loop {
        let mut client = server.connect();
        if client.stream().write_all(&get(target)).is_ok() && !client.next_is_end() {
            return (client, late);
        }
        late += 1;
    }
}

pub fn idle_timeout(variant: &Variant) {
    let server = Server::start(variant, &["--idle-timeout", SOON_FLAG]);
    let begun = Instant::now();
    let mut client = server.connect();
    client.expect_end();
    assert!(begun.elapsed() >= SOON, "a silent newcomer: {:?}", begun.elapsed());
    drop(client);
    let begun = Instant::now();
    let (mut client, late) = asked_in_time(&server, "/");
    assert_eq!(client.reply().status, 200);
    client.expect_end();
    assert!(begun.elapsed() >= SOON, "between requests: {:?}", begun.elapsed());
    drop(client);
    // Whoever waits for a reply is not idle.
    let (mut client, later) = asked_in_time(&server, "/delay/600");
    assert_eq!(client.reply().status, 200);
    drop(client);
    let counters = server.stop();
    let ended = counters["connections_ended"]["idle_timeout"].as_u64().unwrap_or(0);
    // The last one may be closed for the same reason before the case drops it.
    let expected = 2 + late + later;
    assert!((expected..=expected + 1).contains(&ended), "{counters}");
}

pub fn write_timeout(variant: &Variant) {
    let server = Server::start(variant, &["--write-timeout", SOON_FLAG]);
    let begun = Instant::now();
    let mut client = server.connect();
    client.send(&get("/bytes/1000000000"));
    assert_eq!(client.head().status, 200);
    if variant.model.one_at_a_time() {
        // Served as soon as the stuck client is cut, and not before.
        server.serves();
    } else {
        until("the client that does not read is cut", || {
            server.stats()["connections_ended"]["write_timeout"] == 1
        });
    }
    assert!(begun.elapsed() >= SOON, "early: {:?}", begun.elapsed());
    let left = client.read_until_cut().len();
    assert!(left < 100_000_000, "{left} bytes were buffered for a client that does not read");
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["write_timeout"], 1, "{counters}");
}

/// A refused client that never closes, or keeps sending, is not listened to for ever.
pub fn linger_is_bounded(variant: &Variant) {
    let server = Server::start(variant, &[]);
    for keeps_sending in [false, true] {
        let mut client = server.connect();
        client.send(b"nonsense\r\n\r\n");
        let dribbling = keeps_sending.then(|| dribble(&client, b'x'));
        assert_eq!(client.reply().status, 400);
        if variant.model.one_at_a_time() {
            server.serves();
        } else {
            // The one that is open is the one that asks.
            until("the refused client is gone", || server.stats()["connections_open"] == 1);
        }
        drop(client);
        if let Some(dribbling) = dribbling {
            dribbling.join().expect("the slow client");
        }
    }
    server.stop();
}

pub fn keepalive_requests(variant: &Variant) {
    let server = Server::start(variant, &["--keepalive-requests", "3"]);
    let mut client = server.connect();
    for n in 1..=3 {
        client.send(&get("/"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.head.closes()), (200, n == 3), "request {n}");
    }
    client.expect_end();
    drop(client);
    // Pipelined: what is behind the last one is not answered, and does not destroy the reply.
    let mut client = server.connect();
    client.send(&get("/bytes/50000").repeat(100));
    for n in 1..=3 {
        let reply = client.reply();
        assert_eq!((reply.body.len(), reply.head.closes()), (50_000, n == 3), "request {n}");
    }
    client.expect_end();
    drop(client);
    let counters = server.stop();
    assert_eq!(counters["connections_ended"]["retired"], 2, "{counters}");
    assert_eq!(counters["requests"], 6);
}

/// K are served, the others wait in the kernel's backlog until one of the K leaves.
pub fn conns_max(variant: &Variant) -> Outcome {
    const EXTRA: usize = 3;
    const PLACES: usize = 3;
    if variant.model.one_at_a_time() {
        return Outcome::skipped("it serves one at a time: --conns-max cannot lower that");
    }
    let server = Server::start(variant, &["--conns-max", "3"]);
    let mut clients: Vec<Client> = (0..PLACES + EXTRA).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/"));
    }
    let mut waiting = clients.split_off(PLACES);
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
    // Many turns of the loop in which the others could have been taken.
    for _ in 0..50 {
        for client in &mut clients {
            client.send(&get("/"));
            assert_eq!(client.reply().status, 200);
        }
    }
    assert!(waiting.iter().all(Client::is_silent), "more are served than --conns-max");
    let before = server.process().cpu();
    while !waiting.is_empty() {
        clients.remove(0);
        let mut next = waiting.remove(0);
        assert_eq!(next.reply().status, 200);
        assert!(waiting.iter().all(Client::is_silent), "more are served than --conns-max");
        clients.push(next);
    }
    let burnt = server.process().cpu() - before;
    assert!(burnt < Duration::from_secs(1) || variant.model.polls_busily(), "burnt {burnt:?}");
    drop(clients);
    let counters = server.stop();
    assert_eq!(counters["connections_accepted"], PLACES + EXTRA);
    Outcome::Passed
}
