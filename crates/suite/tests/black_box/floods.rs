//! An honest client beside one that sends without a pause what costs the server more than itself.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use suite::http2::{Frame, PREFACE};
use suite::{Opcode, Server, Variant, WebSocket, client_frame, get, guard, until};

use crate::Outcome;
use crate::company::WAITS_FOR_THE_FLOOD;

/// A flood that goes on until this is dropped.
#[derive(Default)]
struct Flood {
    over: AtomicBool,
    rounds: AtomicU64,
}

impl Flood {
    fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    fn count(&self) {
        self.rounds.fetch_add(1, SeqCst);
    }

    /// The server has taken some more of it.
    #[track_caller]
    fn goes_on(&self) {
        let enough = self.rounds.load(SeqCst) + 5;
        until("the flood goes on", || self.rounds.load(SeqCst) >= enough);
    }
}

/// Ends the flood, also where the case fails.
struct Ends<'f>(&'f Flood);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
    }
}

pub fn websocket_messages(variant: &Variant) -> Outcome {
    let opening = WebSocket::opening("/ws/echo");
    let message = client_frame(Opcode::Text, b"x");
    beside(variant, |address, flood| pour(address, flood, &opening, &message))
}

pub fn http2_pings(variant: &Variant) -> Outcome {
    let opening = [PREFACE, &Frame::settings(&[]).bytes()].concat();
    let ping = Frame::ping(*b"pingpong").bytes();
    beside(variant, |address, flood| pour(address, flood, &opening, &ping))
}

pub fn resets(variant: &Variant) -> Outcome {
    beside(variant, |address, flood| {
        // Where the queue of the listener is full it may have to wait.
        if let Ok(stream) = TcpStream::connect_timeout(&address, guard()) {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
            flood.count();
        }
    })
}

/// Twenty requests, ten of them on a connection that stays and ten on new ones, while `round` is
/// repeated on a thread of its own.
fn beside(variant: &Variant, round: impl Fn(SocketAddr, &Flood) + Sync) -> Outcome {
    if variant.model.one_at_a_time() {
        return Outcome::skipped(WAITS_FOR_THE_FLOOD);
    }
    let server = Server::start(variant, &[]);
    let flood = Flood::default();
    thread::scope(|scope| {
        let ends = Ends(&flood);
        scope.spawn(|| {
            while !flood.is_over() {
                round(server.address, &flood);
            }
        });
        flood.goes_on();
        let mut client = server.connect();
        for _ in 0..10 {
            client.send(&get("/"));
            assert_eq!(client.reply().status, 200);
            server.serves();
        }
        flood.goes_on();
        drop(ends);
    });
    server.stop();
    Outcome::Passed
}

/// Sends `opening` and then `piece` over and over, and reads what comes back, until the server cuts
/// it off or the flood is over.
fn pour(address: SocketAddr, flood: &Flood, opening: &[u8], piece: &[u8]) {
    let Ok(stream) = TcpStream::connect_timeout(&address, guard()) else { return };
    // Small enough for a debug build to take one soon.
    let pieces = piece.repeat((16 << 10) / piece.len());
    thread::scope(|scope| {
        // An error is the end of the connection, which the writer sees too.
        scope.spawn(|| drop(io::copy(&mut &stream, &mut io::sink())));
        let mut writer = &stream;
        if writer.write_all(opening).is_ok() {
            while !flood.is_over() && writer.write_all(&pieces).is_ok() {
                flood.count();
            }
        }
        // ENOTCONN: the server has cut it.
        let _ = stream.shutdown(Shutdown::Both);
    });
}
