//! What arrives in time is served, however late the server looks: it was busy with another client,
//! or did not run at all.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use suite::http2::Http2;
use suite::{Client, GUARD, Opcode, Server, Variant, WebSocket, client_frame, get, until};

use crate::{Outcome, secure};

/// The time-out of every case.
const LIMIT: Duration = Duration::from_millis(700);
const FLAGS: [&str; 6] =
    ["--idle-timeout", "700ms", "--head-timeout", "700ms", "--body-timeout", "700ms"];

/// What was sent later than this may have come too late: the machine was busy, and the case shows
/// nothing.
const IN_TIME: Duration = Duration::from_millis(500);

/// Tries before a case says that this machine is too busy for it.
const TRIES: usize = 5;

/// `case` until its client was in time; false: it was not.
fn often(mut case: impl FnMut() -> bool) -> Outcome {
    if (0..TRIES).any(|_| case()) {
        return Outcome::Passed;
    }
    Outcome::Skipped("its client did not run in time: the machine is busy".to_owned())
}

/// A request comes while the loop works for another, beyond the idle time.
pub fn beside_work(variant: &Variant) -> Outcome {
    let server = Server::start(variant, &FLAGS);
    let outcome = often(|| {
        let mut client = server.connect();
        client.send(&get("/"));
        let begun = Instant::now();
        assert_eq!(client.reply().status, 200);
        let mut worker = server.connect();
        worker.send(&get("/work/1000000"));
        thread::sleep(Duration::from_millis(100));
        client.send(&get("/"));
        let in_time = begun.elapsed() < IN_TIME;
        if in_time {
            assert_eq!(client.reply().status, 200);
        }
        drop(client);
        assert_eq!(worker.reply().status, 200);
        in_time
    });
    server.stop();
    outcome
}

/// Opens with `first`, stops the server, sends `second` in time, and lets the server go on when the
/// time is over. The connection, if the client was in time.
#[track_caller]
fn stopped(server: &Server, first: &[u8], second: &[u8]) -> Option<Client> {
    let begun = Instant::now();
    let mut client = server.connect();
    client.send(first);
    // So that the server has read it. Where this is too short, the case shows less.
    thread::sleep(Duration::from_millis(100));
    server.signal(Signal::SIGSTOP);
    client.send(second);
    let in_time = begun.elapsed() < IN_TIME;
    thread::sleep(LIMIT + LIMIT / 2);
    server.signal(Signal::SIGCONT);
    in_time.then_some(client)
}

pub fn while_stopped(variant: &Variant) -> Outcome {
    let server = Server::start(variant, &FLAGS);
    let upload = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345";
    for (first, second, replies) in [
        (&get("/")[..], &get("/")[..], 2),
        (b"", &get("/"), 1),
        (b"GET / HTTP/1.1\r\nHo", b"st: a\r\n\r\n", 1),
        (upload, b"67890", 1),
    ] {
        let what = first.escape_ascii().to_string();
        let outcome = often(|| {
            let Some(mut client) = stopped(&server, first, second) else { return false };
            for _ in 0..replies {
                assert_eq!(client.reply().status, 200, "{what}");
            }
            true
        });
        if let Outcome::Skipped(_) = outcome {
            return outcome;
        }
    }
    server.stop();
    Outcome::Passed
}

/// The same for those who have joined nothing yet, and for the protocols above HTTP/1.1.
pub fn while_stopped_in_other_protocols(variant: &Variant) -> Outcome {
    let server = Server::start(variant, &FLAGS);
    let outcome = often(|| {
        server.signal(Signal::SIGSTOP);
        // The kernel connects it; the server accepts it later.
        let mut client = server.connect();
        client.send(&get("/"));
        thread::sleep(LIMIT + LIMIT / 2);
        server.signal(Signal::SIGCONT);
        assert_eq!(client.reply().status, 200);
        true
    });
    if let Outcome::Skipped(_) = outcome {
        return outcome;
    }
    let outcome = often(|| {
        let begun = Instant::now();
        let mut websocket = WebSocket::open(&server, "/ws/echo");
        server.signal(Signal::SIGSTOP);
        websocket.client().send(&client_frame(Opcode::Text, b"still here"));
        let in_time = begun.elapsed() < IN_TIME;
        thread::sleep(LIMIT * 3);
        server.signal(Signal::SIGCONT);
        if in_time {
            assert_eq!(websocket.text(), "still here");
        }
        in_time
    });
    if let Outcome::Skipped(_) = outcome {
        return outcome;
    }
    let outcome = often(|| {
        let begun = Instant::now();
        let mut h2 = Http2::open(server.address);
        h2.still_serves();
        server.signal(Signal::SIGSTOP);
        let stream = h2.get("/");
        let in_time = begun.elapsed() < IN_TIME;
        thread::sleep(LIMIT + LIMIT / 2);
        server.signal(Signal::SIGCONT);
        if in_time {
            assert_eq!(h2.reply(stream).status, 200);
        }
        in_time
    });
    server.stop();
    outcome
}

/// The same under TLS, where what lies in the socket is not yet what the protocol waits for.
pub fn while_stopped_over_tls(variant: &Variant) -> Outcome {
    let guarded = secure::start(variant, &FLAGS);
    let server = &guarded.server;
    let outcome = often(|| {
        let stream = TcpStream::connect(server.address).expect("connect(2)");
        stream.set_read_timeout(Some(GUARD)).expect("SO_RCVTIMEO");
        let begun = Instant::now();
        let mut client = secure::connect(stream, &guarded.trust, "http/1.1").expect("a handshake");
        server.signal(Signal::SIGSTOP);
        client.write_all(&get("/")).expect("a request");
        let in_time = begun.elapsed() < IN_TIME;
        thread::sleep(LIMIT + LIMIT / 2);
        server.signal(Signal::SIGCONT);
        if in_time {
            let mut status = [0; 15];
            client.read_exact(&mut status).expect("a reply");
            assert_eq!(status, *b"HTTP/1.1 200 OK");
        }
        in_time
    });
    guarded.server.stop();
    outcome
}

/// Reads in steps for several write timeouts, as a slow client does; the connection, unless a pause
/// of this client's own was so long that it may have been cut for it.
fn reads_slowly(server: &Server, request: &[u8]) -> bool {
    const STEPS: usize = 30;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket(2)");
    // Before it connects: the window that it offers follows from it.
    socket.set_recv_buffer_size(8 << 10).expect("SO_RCVBUF");
    socket.connect(&server.address.into()).expect("connect(2)");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(GUARD)).expect("SO_RCVTIMEO");
    stream.write_all(request).expect("the request");
    let mut step = vec![0; 16 << 10];
    let mut last = Instant::now();
    for number in 0..STEPS {
        let result = stream.read_exact(&mut step);
        if last.elapsed() > WRITE_TIMEOUT / 2 {
            return false;
        }
        result.unwrap_or_else(|error| panic!("cut at step {number} of {STEPS}: {error}"));
        last = Instant::now();
        thread::sleep(WRITE_TIMEOUT / 8);
    }
    true
}

const WRITE_TIMEOUT: Duration = Duration::from_millis(800);

/// An honest reader is served for as long as it reads, one that reads nothing is cut.
pub fn slow_reader_is_served(variant: &Variant) -> Outcome {
    let server = Server::start(variant, &["--write-timeout", "800ms"]);
    let outcome = often(|| reads_slowly(&server, &get("/bytes/1000000000")));
    let mut stuck = server.connect();
    stuck.send(&get("/bytes/1000000000"));
    stuck.head();
    if variant.model.one_at_a_time() {
        server.serves();
    } else {
        until("the client that does not read is cut", || {
            server.stats()["connections_ended"]["write_timeout"] == 1
        });
    }
    drop(stuck);
    server.stop();
    outcome
}
