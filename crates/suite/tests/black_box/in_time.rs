//! What arrives in time is served, however late the server looks: it was busy with another client,
//! or did not run at all.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use suite::http2::{Frame, Http2, PREFACE, WINDOW_MAX, flag, hpack, setting};
use suite::{Client, Opcode, Server, Variant, WebSocket, client_frame, get, guard, request, until};

use crate::Outcome;
use crate::secure::{self, Guarded, Secure};

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
    Outcome::skipped("its client did not run in time: the machine is busy")
}

/// A request comes while the loop works for another, beyond the idle time.
pub fn beside_work(variant: &Variant) -> Outcome {
    if variant.model.blocks_in_io() {
        return Outcome::skipped("no thread of it works for two connections at once");
    }
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
        stream.set_read_timeout(Some(guard())).expect("SO_RCVTIMEO");
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

const WRITE_TIMEOUT: Duration = Duration::from_millis(800);
const WRITE_FLAGS: [&str; 2] = ["--write-timeout", "800ms"];

/// A connection whose window is small: the server's kernel must hold what the client has not read.
fn narrow(server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket(2)");
    // Before it connects: the window that it offers follows from it.
    socket.set_recv_buffer_size(8 << 10).expect("SO_RCVBUF");
    socket.connect(&server.address.into()).expect("connect(2)");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(guard())).expect("SO_RCVTIMEO");
    stream.set_write_timeout(Some(guard())).expect("SO_SNDTIMEO");
    stream
}

/// Reads in steps for several write timeouts, as a slow client does; true, unless a pause of this
/// client's own was so long that it may have been cut for it.
fn reads_slowly(mut stream: impl Read) -> bool {
    const STEPS: usize = 20;
    let mut step = vec![0; 16 << 10];
    let mut last = Instant::now();
    for number in 0..STEPS {
        let result = stream.read_exact(&mut step);
        let stalled = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        if !stalled && last.elapsed() > WRITE_TIMEOUT / 2 {
            return false;
        }
        result.unwrap_or_else(|error| panic!("cut at step {number} of {STEPS}: {error}"));
        last = Instant::now();
        thread::sleep(WRITE_TIMEOUT / 8);
    }
    true
}

/// An honest reader is served for as long as it reads, one that reads nothing is cut.
pub fn slow_reader_is_served(variant: &Variant) -> Outcome {
    let server = Server::start(variant, &WRITE_FLAGS);
    let outcome = often(|| {
        let mut stream = narrow(&server);
        stream.write_all(&get(MUCH)).expect("the request");
        reads_slowly(stream)
    });
    let mut stuck = server.connect();
    stuck.send(&get(MUCH));
    stuck.head();
    is_cut(variant, &server, 1);
    drop(stuck);
    server.stop();
    outcome
}

/// More than any kernel holds for a client.
const MUCH: &str = "/bytes/1000000000";

/// As many clients as `count` says have been cut by now, or will be.
#[track_caller]
fn is_cut(variant: &Variant, server: &Server, count: u64) {
    if variant.model.one_at_a_time() {
        return server.serves();
    }
    until("the client that does not read is cut", || {
        server.stats()["connections_ended"]["write_timeout"] == count
    });
}

/// The same in HTTP/2 with windows that are never full, in a WebSocket whose client sends what it
/// reads, and under TLS.
pub fn slow_reader_of_other_protocols(variant: &Variant) -> Outcome {
    let server = Server::start(variant, &WRITE_FLAGS);
    let guarded = secure::start(variant, &WRITE_FLAGS);
    let readers: [&(dyn Fn() -> bool + Sync); 3] =
        [&|| reads_slowly(asks_over_http2(&server)), &|| echoes_slowly(&server), &|| {
            reads_slowly(asks_over_tls(&guarded))
        }];
    // Beside each other where the model allows it: most of their time is sleep.
    let outcomes = if variant.model.one_at_a_time() {
        readers.map(often)
    } else {
        thread::scope(|scope| {
            let threads = readers.map(|reader| scope.spawn(move || often(reader)));
            threads.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    };
    let stuck = asks_over_http2(&server);
    is_cut(variant, &server, 1);
    drop(stuck);
    let stuck = narrow(&server);
    stuck.set_write_timeout(Some(WRITE_TIMEOUT / 4)).expect("SO_SNDTIMEO");
    send_messages(&stuck);
    is_cut(variant, &server, 2);
    drop(stuck);
    let stuck = asks_over_tls(&guarded);
    until("the client that does not read is cut", || {
        stats_over_tls(&guarded).contains("\"write_timeout\":1")
    });
    drop(stuck);
    guarded.server.stop();
    server.stop();
    let skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(_));
    outcomes.into_iter().find(skipped).unwrap_or(Outcome::Passed)
}

fn asks_over_http2(server: &Server) -> TcpStream {
    let mut stream = narrow(server);
    let frames = [
        Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, WINDOW_MAX)]),
        Frame::window_update(0, WINDOW_MAX - (1 << 16)),
        Frame::headers(1, hpack::request("GET", MUCH), true),
        // For the server's own, which is its first frame.
        Frame::settings(&[]).with_flags(flag::ACK),
    ];
    let frames = frames.map(|frame| frame.bytes()).concat();
    stream.write_all(&[PREFACE, &Frame::settings(&[]).bytes()].concat()).expect("the preface");
    // The server's SETTINGS must not be acknowledged before they came.
    assert_eq!(stream.peek(&mut [0]).expect("the server's preface"), 1);
    stream.write_all(&frames).expect("the request");
    stream
}

fn asks_over_tls(guarded: &Guarded) -> Secure {
    let stream = narrow(&guarded.server);
    let mut stream = secure::connect(stream, &guarded.trust, "http/1.1").expect("a handshake");
    stream.write_all(&get(MUCH)).expect("the request");
    stream
}

fn stats_over_tls(guarded: &Guarded) -> String {
    let stream = narrow(&guarded.server);
    let mut stream = secure::connect(stream, &guarded.trust, "http/1.1").expect("a handshake");
    stream.write_all(&request("GET", "/stats", "Connection: close\r\n")).expect("the request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply and its end");
    reply
}

/// One thread sends as much as the server takes, the other reads what it echoes, slowly.
fn echoes_slowly(server: &Server) -> bool {
    let stream = narrow(server);
    thread::scope(|scope| {
        scope.spawn(|| send_messages(&stream));
        let served = reads_slowly(&stream);
        stream.shutdown(Shutdown::Both).expect("shutdown(2)");
        served
    })
}

/// Messages that are to be echoed, until the server takes no more of them.
fn send_messages(mut stream: &TcpStream) {
    // More than the kernels at both ends hold.
    const MESSAGES: usize = 4_096;
    stream.write_all(&WebSocket::opening("/ws/echo")).expect("the opening handshake");
    let message = client_frame(Opcode::Binary, &[7; 60_000]);
    for _ in 0..MESSAGES {
        if stream.write_all(&message).is_err() {
            break;
        }
    }
}
