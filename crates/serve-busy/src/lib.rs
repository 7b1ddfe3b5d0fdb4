//! Busy poll: non-blocking sockets, and a loop that asks every one of them, again and again.
//!
//! A blocked thread can wait for one client only. A non-blocking call does not wait: it says EAGAIN
//! at once, so one thread can go round all clients. Nobody tells this loop where something has
//! happened, so it pays one system call per connection and round to find out, and burns its core
//! while nothing happens. In return nothing ever has to be woken up: with one client and a core to
//! spare, no model answers sooner.
//!
//! Man pages: fcntl(2) (O_NONBLOCK), recv(2) (EAGAIN). UNP figure 6.2 (non-blocking I/O).

use std::io;
use std::time::Instant;

use kit::{Model, Peers, Place, Readiness, Serves, Token, Turn, Worker, Workers};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "busy",
    summary: "one thread that never sleeps: it asks every socket, again and again",
    about: "Sockets are non-blocking: a read that finds nothing returns at once with EAGAIN. The \
            loop tries every connection in turn, for ever. There is no wait at all, so the answer \
            to a single client comes as soon as it can; a whole core is burnt even when nobody is \
            there; and every idle connection adds a system call to every round.",
    place: Place { blocking: false, synchronous: true },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Descriptors,
    cannot: &[],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Tells the loop to look at a connection both ways: with nobody to ask, trying is knowing.
const MAYBE: Readiness = Readiness { read: true, write: true, peer_closed: false, failed: false };

/// Runs one loop until the server stops.
///
/// # Errors
/// What accept(2) says and no retry can mend.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut peers = Peers::new(worker)?;
    while !peers.finished() {
        // ANCHOR: wait
        let now = Instant::now();
        accept(&mut peers, now)?;
        peers.all_ready(MAYBE);
        peers.begin_round(now);
        while let Some(token) = peers.next_runnable() {
            step(&mut peers, token, now);
        }
        std::hint::spin_loop();
        // ANCHOR_END: wait
    }
    Ok(())
}

/// Takes those who wait at the listener.
fn accept(peers: &mut Peers, now: Instant) -> io::Result<()> {
    while peers.accept(now)?.is_some() {}
    Ok(())
}

/// Lets one connection do what it can. What it then waits for is of no interest: the next round
/// comes anyway.
fn step(peers: &mut Peers, token: Token, now: Instant) {
    match peers.turn(token, now) {
        Turn::Waits(_) | Turn::More(_) | Turn::Closed => {}
    }
}
