//! Serial: accept one client, serve it until its connection ends, then accept the next.
//!
//! This is the model to compare all others with. Every call blocks: while accept(2), recv(2) or
//! send(2) waits, the only thread sleeps inside it, and all other clients wait too. The n-th
//! client waits until the connections of n - 1 others have ended. One that is kept open without a
//! request stops all of them.
//!
//! The loop in `serve_client` is the contract of the protocol core (`conn`), written out: ask what
//! the connection wants, do that, tell it what came of it. The threaded models run the same loop
//! on other threads (crate `conversation`).
//!
//! Man pages: socket(2), listen(2), accept(2), recv(2), send(2). UNP figure 6.1 (blocking I/O).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};

use conversation::{Accepting, Conversation, Next};
use kit::{Accepted, Model, Place, SCRATCH_BYTES, SLICES_MAX, Serves, Worker, Workers};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::uio::writev;

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "serial",
    summary: "one thread, one client at a time: the others wait",
    about: "The server accepts one client and serves it until the connection ends, with calls that \
            block until they are done. All other clients wait in the kernel's accept queue: they \
            are connected, and nothing reads their requests. A client that keeps its connection \
            open and sends nothing holds up all others until the idle timeout.",
    place: Place::IN_IO,
    nonblocking_sockets: false,
    workers: Workers::One("one conversation at a time is what serial means"),
    serves: Serves::Only(1, "one conversation at a time; the others wait in the backlog"),
    cannot: &[
        "chat between clients: only one client is served at a time",
        "fairness: a client is served until its connection ends, and the others wait",
        "push to two clients: only one client is served at a time",
    ],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Runs the loop until the server stops.
///
/// # Errors
/// What accept(2) says and no retry can mend.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut buffer = vec![0; SCRATCH_BYTES];
    let accepting = Accepting::new(&worker);
    // ANCHOR: wait
    while accepting.goes_on()? {
        // accept(2) sleeps until a client has connected.
        match worker.listener.accept()? {
            Accepted::Client(socket) => {
                serve_client(Conversation::new(socket, &worker), &mut buffer);
            }
            Accepted::Exhausted => worker.stop.sleep(kit::EXHAUSTED_PAUSE),
            Accepted::Retry => {}
            Accepted::Empty => break,
        }
    }
    // ANCHOR_END: wait
    Ok(())
}

/// Serves one client until its connection ends.
fn serve_client(mut client: Conversation, buffer: &mut [u8]) {
    // ANCHOR: client
    while let Some(next) = client.next() {
        match next {
            Next::Receive => {
                // Sleeps until the client has sent something, or until the deadline (SO_RCVTIMEO).
                let received = recv(client.as_fd().as_raw_fd(), buffer, MsgFlags::empty());
                client.received(received.map_err(io::Error::from), buffer);
            }
            Next::Send => {
                let sent = send_output(&client);
                client.sent(sent);
            }
            Next::Finish => client.finish(),
            Next::File(part) => client.read_file(&part),
            Next::Work => client.work(),
            Next::Clock => client.late(buffer),
            Next::Wait(time) => client.wait(time),
        }
    }
    // ANCHOR_END: client
}

/// Sleeps while the socket's send buffer is full. send(2) for one slice, writev(2) for more.
fn send_output(client: &Conversation) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let filled = client.output(&mut slices);
    let sent = match &slices[..filled] {
        [one] => send(client.as_fd().as_raw_fd(), one, MsgFlags::MSG_NOSIGNAL),
        many => writev(client.as_fd(), many),
    };
    Ok(sent?)
}
