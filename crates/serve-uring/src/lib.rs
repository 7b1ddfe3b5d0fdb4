//! io_uring: the program does not ask who is ready; it says what to do, and is told what was done.
//!
//! With every other model here a wait says that a read *would* succeed, and the program then
//! reads, writes and accepts by calls of its own. io_uring turns that round: the requests (accept,
//! receive, send, read a file) are written into a queue that the kernel shares, the kernel carries
//! them out, copies the data itself, and writes what came of them into a second queue. One call,
//! `io_uring_enter`, hands over a batch of requests and waits for a batch of completions. It is
//! the one model here that is asynchronous in Stevens' sense, and the only one of these loops that
//! a file on a slow disk does not stop.
//!
//! The price is ownership: memory lent to an operation is the kernel's until its completion is
//! read (`ring.rs`), and a connection that is over stays in the table until all its operations
//! are.
//!
//! Two ways to receive: multishot (the default), where one request brings a completion for every
//! arrival until it is cancelled, and one-shot, where each brings one (`--receive oneshot`).
//!
//! Man pages: io_uring(7), io_uring_enter(2), io_uring_prep_multishot_accept(3),
//! io_uring_prep_recv_multishot(3), io_uring_prep_msg_ring(3).

mod mail;
mod peers;
mod ring;
mod setup;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use conn::Conn;
use kit::{AcceptError, Flavour, Model, Place, Serves, Values, Worker, Workers};
use mail::Bell;
use peers::{Peers, Request};
use ring::{Buffer, Completion, Op, Receive, Ring, Token};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "uring",
    summary: "one thread, all connections: io_uring(7) does the I/O and reports what was done",
    about: "The thread writes requests (accept, receive, send, read a file) into a queue that it \
            shares with the kernel and sleeps in io_uring_enter(2) until some of them are done. \
            The kernel has then copied the data already (asynchronous): received bytes lie in \
            buffers that were lent to it in advance, and bytes to send were taken from memory that \
            must not be touched meanwhile. One call hands over and collects a whole batch, and the \
            one place where this server sleeps is that call.",
    place: Place { blocking: false, synchronous: false },
    // An operation on a socket with O_NONBLOCK fails with EAGAIN, as the flag says. Without it the
    // kernel waits for the socket on the operation's behalf, and no thread is blocked.
    nonblocking_sockets: false,
    workers: Workers::Loops,
    serves: Serves::Descriptors,
    cannot: &[],
    flavours: &[Flavour {
        flag: "receive",
        values: Values::Words(&["multishot", "oneshot"]),
        default: "multishot",
        help: "Ask once for all that a connection sends (multishot) or for each arrival (oneshot)",
    }],
    unavailable: setup::unavailable,
};

/// Runs one loop until the server stops.
///
/// # Errors
/// What io_uring_setup(2), io_uring_register(2) or io_uring_enter(2) say.
pub fn serve(worker: Worker) -> io::Result<()> {
    let receive = match worker.flavour("receive") {
        "oneshot" => Receive::OneShot,
        _ => Receive::Multishot,
    };
    // On this thread, because only the thread that made it may use it
    // (IORING_SETUP_SINGLE_ISSUER).
    let mut uring = setup::uring()?;
    let mut peers = Peers::new(worker, Bell::of(&uring)?, receive);
    let mut ring = Ring::new(&mut uring)?;
    ring.watch(peers.worker.stop.as_fd());
    let mut now = Instant::now();
    while !(peers.finished() && ring.is_idle()) {
        listen(&mut ring, &mut peers, now)?;
        post(&mut ring, &mut peers, now);
        // ANCHOR: wait
        ring.wait(peers.wait_timeout(now))?;
        now = Instant::now();
        while let Some(completion) = ring.next() {
            match completion {
                Completion::Accepted { result, more } => accept(&mut peers, result, more, now)?,
                completion => complete(&mut ring, &mut peers, completion, now),
            }
        }
        peers.begin_round(now);
        while let Some(token) = peers.next_runnable() {
            step(&mut ring, &mut peers, token, now);
        }
        // ANCHOR_END: wait
    }
    Ok(())
}

/// Accepts exactly while new connections are wanted.
fn listen(ring: &mut Ring, peers: &mut Peers, now: Instant) -> io::Result<()> {
    match (peers.wants_accept(now), peers.accepting) {
        (true, Request::None) => {
            ring.accept(peers.worker.listener.as_fd());
            peers.accepting = Request::Pending;
        }
        (false, Request::Pending) => {
            ring.cancel_accept();
            peers.accepting = Request::Cancelled;
        }
        _ => {}
    }
    peers.empty_queue(now)
}

/// Sends what connections have for those of other loops.
fn post(ring: &mut Ring, peers: &mut Peers, now: Instant) {
    peers.sort_mail(now);
    peers.letters.drain(..).for_each(|letter| ring.tell(letter));
}

/// Takes a connection that the kernel has accepted.
fn accept(
    peers: &mut Peers,
    result: io::Result<OwnedFd>,
    more: bool,
    now: Instant,
) -> io::Result<()> {
    if !more {
        peers.accepting = Request::None;
    }
    match result {
        Ok(socket) => peers.admit(socket, now),
        Err(error) => match peers.worker.listener.accept_error(error)? {
            AcceptError::Passing => {}
            AcceptError::Exhausted => peers.exhausted(now),
        },
    }
    Ok(())
}

/// Tells a connection what was done for it.
fn complete(ring: &mut Ring, peers: &mut Peers, completion: Completion, now: Instant) {
    match completion {
        Completion::Received { token, result, more, emptied } => {
            let Some(peer) = peers.completed(token) else { return ring.discard(result) };
            if !more {
                peer.receiving = Request::None;
            }
            peer.received = true;
            peer.emptied = emptied;
            if let Ok(Some(buffer)) = &result {
                peer.turns.moved(ring.bytes(buffer).len());
            }
            received(ring, &mut peer.conn, result, now);
        }
        Completion::Sent { token, result } => peers.sent(token, result, now),
        Completion::FileRead { token, result } => {
            if let Some(peer) = peers.completed(token) {
                peer.reading_file = false;
                match result {
                    Ok(bytes) => peer.conn.file_read(bytes, now),
                    Err(_) => peer.conn.file_failed(now),
                }
            }
        }
        Completion::Rung { token } => peers.woken(token, now),
        Completion::Undelivered { letter } => peers.letters.push(letter),
        Completion::Accepted { .. } | Completion::Stop => {}
    }
}

/// Hands over what came in. The buffer goes back at once: the connection has taken what it needs.
fn received(ring: &mut Ring, conn: &mut Conn, result: io::Result<Option<Buffer>>, now: Instant) {
    match result {
        Ok(Some(buffer)) => {
            conn.receive(ring.bytes(&buffer), now);
            ring.give_back(buffer);
        }
        Ok(None) => conn.receive_eof(now),
        Err(error) => match error.raw_os_error() {
            // Bytes came when all buffers were full. By the end of this batch they are given back,
            // and only then does the connection ask again: at once, it would fail again at once.
            Some(libc::ENOBUFS | libc::ECANCELED) => {}
            _ => conn.abort(),
        },
    }
}

/// Asks the kernel for what one connection waits for and has not asked for yet.
fn step(ring: &mut Ring, peers: &mut Peers, token: Token, now: Instant) {
    let Some(peer) = peers.get(token) else { return };
    let Some(wants) = peer.wants(now) else { return close(ring, peers, token, now) };
    let (receive, may_receive) = peers.end_turn(token, &wants);
    let Some((peer, files)) = peers.get_with_files(token) else { return };
    let received = std::mem::take(&mut peer.received);
    if let Some(part) = &wants.file
        && !peer.reading_file
    {
        match files.get(part) {
            Ok(file) => ring.read_file(file, token, part.offset, part.len),
            Err(_) => {
                peer.conn.file_failed(now);
                return close(ring, peers, token, now);
            }
        }
        peer.reading_file = true;
    }
    // A head waits for the first bytes of its file, so that both leave in one send. After that the
    // next part is read while the last is on its way.
    if wants.write && peer.sending == Request::None && !peer.reading_file {
        let (socket, chunks) = peer.output();
        ring.send(socket, token, chunks);
        peer.sending = Request::Pending;
    }
    match peer.receiving {
        Request::None if wants.read && !may_receive => peers.put_off(token),
        Request::None if wants.read => {
            ring.receive(peer.socket(), token, receive, peer.emptied);
            peer.receive = receive;
            peer.receiving = Request::Pending;
        }
        // Only once bytes come that nobody wants: most peers wait for their reply in silence, and
        // cancelling and asking again would be paid for nothing. What arrives before the cancel is
        // bounded: by the buffers, and by the 32 receives that the kernel makes in one go. That is
        // much, where others wait meanwhile: one that is bulk then asks for each arrival.
        Request::Pending if received && (!wants.read || peer.receive != receive) => {
            ring.cancel(Op::Receive, token);
            peer.receiving = Request::Cancelled;
        }
        _ => {}
    }
    peers.waits(token, &wants);
}

/// Ends a connection as soon as the kernel has let go of it.
fn close(ring: &mut Ring, peers: &mut Peers, token: Token, now: Instant) {
    let Some(peer) = peers.get(token) else { return };
    if peer.receiving == Request::Pending {
        ring.cancel(Op::Receive, token);
        peer.receiving = Request::Cancelled;
    }
    if peer.sending == Request::Pending {
        ring.cancel(Op::Send, token);
        peer.sending = Request::Cancelled;
    }
    // A file read is left to end: soon, and by itself.
    if !peer.is_in_flight()
        && let Some(socket) = peers.remove(token, now)
    {
        ring.close(socket);
    }
}
