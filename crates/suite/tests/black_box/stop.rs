//! SIGTERM: no newcomers, what is in flight is finished, the rest is cut; exit code 0.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use suite::{Client, Server, Variant, get, pattern, until};

use crate::company::{Flood, in_flight};

/// Longer than the suite's guard: whoever waited for this instead of stopping fails.
pub const NEVER: [&str; 2] = ["--drain-timeout", "300s"];

pub fn sigint_stops_too(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    server.serves();
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait().counters()["requests"], 1);
}

fn several(variant: &Variant) -> usize {
    if variant.model.one_at_a_time() { 1 } else { 20 }
}

pub fn idle_connections_are_closed(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    let mut clients: Vec<Client> = (0..several(variant)).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&get("/"));
        assert_eq!(client.reply().status, 200);
    }
    server.signal(Signal::SIGTERM);
    for client in &mut clients {
        client.expect_end();
    }
    drop(clients);
    let counters = server.wait().counters();
    assert_eq!(counters["connections_open"], 0, "{counters}");
    assert_eq!(counters["connections_ended"]["retired"], several(variant), "{counters}");
}

/// Connected, and never said a word: some are accepted by then, some may wait in the backlog.
pub fn silent_newcomers_are_closed(variant: &Variant) {
    for protocol in ["http", "echo"] {
        let server = Server::start(variant, &["--protocol", protocol, NEVER[0], NEVER[1]]);
        let clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        server.signal(Signal::SIGTERM);
        for mut client in clients {
            // Those in the backlog are accepted, and have asked for nothing.
            assert!(client.read_until_cut().is_empty());
        }
        let counters = server.wait().counters();
        assert_eq!(counters["connections_open"], 0, "{counters}");
    }
}

pub fn request_in_flight_is_finished(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    let begun = Instant::now();
    let mut client = in_flight(&server, "/delay/400");
    server.signal(Signal::SIGTERM);
    let reply = client.reply();
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"waited for 400 ms\n".as_slice()));
    assert!(begun.elapsed() >= Duration::from_millis(400), "early: {:?}", begun.elapsed());
    client.expect_end();
    drop(client);
    let counters = server.wait().counters();
    assert_eq!(counters["connections_ended"]["retired"], 1, "{counters}");
    assert_eq!(counters["requests"], 2);
}

pub fn download_in_flight_is_finished(variant: &Variant) {
    const LEN: usize = 20_000_000;
    let server = Server::start(variant, &NEVER);
    let mut client = server.connect();
    client.send(&get(&format!("/bytes/{LEN}")));
    let head = client.head();
    server.signal(Signal::SIGTERM);
    assert!(client.body(&head) == pattern(0, LEN), "the body was cut or changed");
    client.expect_end();
    drop(client);
    assert_eq!(server.wait().counters()["requests"], 1);
}

pub fn newcomers_are_turned_away(variant: &Variant) {
    let server = Server::start(variant, &["--body-timeout", "300s", NEVER[0], NEVER[1]]);
    // In flight until the client itself sends the rest, however long the refusal takes.
    let mut client = server.connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    let head = client.head();
    assert_eq!(head.status, 200);
    server.signal(Signal::SIGTERM);
    if variant.model.one_at_a_time() {
        // Newcomers are in the same queue as those who came before: it is emptied after this one.
        client.send(b"67890");
        assert_eq!(client.body(&head), b"1234567890");
        drop(client);
        until("a connection is refused", || TcpStream::connect(server.address).is_err());
        server.wait().counters();
        return;
    }
    until("a connection is refused", || TcpStream::connect(server.address).is_err());
    client.send(b"67890");
    assert_eq!(client.body(&head), b"1234567890", "the server was gone before it refused");
    drop(client);
    server.wait().counters();
}

const DRAIN: Duration = Duration::from_millis(300);
const DRAIN_FLAGS: [&str; 2] = ["--drain-timeout", "300ms"];

/// Cut when the time to drain is over: not before, and without another's help.
#[track_caller]
fn is_cut(server: Server, mut client: Client) {
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    let counters = server.wait().counters();
    assert!(begun.elapsed() >= DRAIN, "early: {:?}", begun.elapsed());
    let ended = &counters["connections_ended"];
    assert_eq!(ended["drain_timeout"], 1, "{counters}");
    client.read_until_cut();
}

pub fn stuck_reader_is_cut(variant: &Variant) {
    let server = Server::start(variant, &DRAIN_FLAGS);
    let mut client = server.connect();
    client.send(&get("/bytes/1000000000"));
    assert_eq!(client.head().status, 200);
    is_cut(server, client);
}

pub fn late_reply_is_cut(variant: &Variant) {
    let server = Server::start(variant, &DRAIN_FLAGS);
    let client = in_flight(&server, "/delay/60000");
    is_cut(server, client);
    let server = Server::start(variant, &DRAIN_FLAGS);
    let mut client = server.connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    assert_eq!(client.head().status, 200);
    is_cut(server, client);
}

/// The operator has lost patience.
pub fn second_signal_cuts(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    let mut client = in_flight(&server, "/delay/60000");
    server.signal(Signal::SIGTERM);
    // Two that are pending at once are one (signal(7)), so the first must have been seen.
    until("the signal was taken", || server.process().pending_signals() == 0);
    assert!(client.is_silent(), "cut by the first signal");
    server.signal(Signal::SIGTERM);
    // The connection ends with the process, and the last line says that it was open until then.
    let counters = server.wait().counters();
    // Those that asked whether it still accepts may be among the open ones: they have left, and a
    // thread that has not run yet has not seen it.
    assert!(counters["connections_open"].as_u64() >= Some(1), "{counters}");
    client.read_until_cut();
}

pub fn flood_does_not_hold_it_up(variant: &Variant) {
    for protocol in ["http", "echo"] {
        let server = Server::start(variant, &["--protocol", protocol, NEVER[0], NEVER[1]]);
        let flood = Flood::begin(&server, &get("/"));
        server.signal(Signal::SIGTERM);
        let counters = server.wait().counters();
        assert_eq!(counters["connections_open"], 0, "{protocol}: {counters}");
        flood.end();
    }
}
