//! io_uring: the program does not ask what is ready. It says what to do, and is told what was
//! done.
//!
//! With every other model here a wait says that a read *would* succeed, and the program then
//! reads, writes and accepts by calls of its own. With io_uring the program writes requests
//! (accept, receive, send, read a file) into a queue that it shares with the kernel. The kernel
//! carries them out, copies the data itself, and writes the results into a second queue. One call,
//! io_uring_enter(2), hands over many requests and waits for completions. It is the one model here
//! that is asynchronous in Stevens' sense, and the only one of these loops that a file on a slow
//! disk does not stop.
//!
//! The price is the ownership of memory: what is lent to a request is the kernel's until its
//! completion is read (`ring.rs`), and a connection that has ended stays in the table until its
//! last request is completed.
//!
//! There are two ways to receive: multishot (the default), where one request brings a completion
//! for every arrival until it is cancelled, and one-shot, where each brings one (`--receive
//! oneshot`).
//!
//! To be read in this order: this file; `ring/sqe.rs` (requests), `ring/cqe.rs` (completions),
//! `ring.rs` (the two queues), `ring/provided_buffers.rs`; `connections.rs` (what is in flight);
//! `msg_ring.rs` (how another loop wakes this one); `setup.rs`.
//!
//! Man pages: io_uring(7), io_uring_enter(2), io_uring_prep_multishot_accept(3),
//! io_uring_prep_recv_multishot(3), io_uring_prep_msg_ring(3).

mod connections;
mod msg_ring;
mod ring;
mod setup;
mod table;

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use conn::Conn;
use connections::{Connections, Request};
use kit::{CopiedBy, Flavour, Model, Place, Serves, Values, Worker, Workers};
use msg_ring::Waker;
use ring::{Buffer, Completion, Op, Receive, Ring, Token};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "uring",
    summary: "one thread, all connections: io_uring(7) does the I/O and reports what was done",
    about: "The thread writes requests (accept, receive, send, read a file) into a queue that it \
            shares with the kernel and sleeps in io_uring_enter(2) until some of them are done. \
            The kernel has then copied the data already (asynchronous): received bytes are in \
            buffers that were lent to it in advance, and bytes to send were taken from memory that \
            the program must not change meanwhile. One call hands over and collects many requests, \
            and it is the only place where this server sleeps.",
    place: Place { blocks_in: &["io_uring_enter"], copied_by: CopiedBy::Kernel },
    // A request on a socket with O_NONBLOCK fails with EAGAIN, as the flag says. Without it the
    // kernel waits for the socket, and no thread is blocked.
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
    // Only the thread that makes a ring may use it (IORING_SETUP_SINGLE_ISSUER).
    let mut uring = setup::uring()?;
    let mut connections = Connections::new(worker, Waker::of(&uring)?, receive);
    let mut ring = Ring::new(&mut uring)?;
    ring.watch(connections.worker.stop.as_fd());
    let mut now = Instant::now();
    while !(connections.finished() && ring.is_idle()) {
        listen(&mut ring, &mut connections, now)?;
        wake_others(&mut ring, &mut connections, now);
        // ANCHOR: wait
        // io_uring_enter(2): hands over the requests, and sleeps until one of them is completed.
        ring.enter(connections.prepare_to_wait(now))?;
        now = Instant::now();
        // Completions lie in memory that the kernel shares: to read them takes no call.
        while let Some(completion) = ring.next() {
            match completion {
                Completion::Accepted { result, more } => connections.accepted(result, more, now)?,
                completion => complete(&mut ring, &mut connections, completion, now),
            }
        }
        // Each connection asks for what it waits for now: sends, receives, file reads.
        connections.begin_iteration(now);
        while let Some(token) = connections.next_runnable() {
            step(&mut ring, &mut connections, token, now);
        }
        // ANCHOR_END: wait
    }
    Ok(())
}

/// Accepts exactly while new connections are wanted.
fn listen(ring: &mut Ring, connections: &mut Connections, now: Instant) -> io::Result<()> {
    match (connections.wants_accept(now), connections.accepting) {
        (true, Request::None) => {
            ring.accept(connections.worker.listener.as_fd());
            connections.accepting = Request::Pending;
        }
        (false, Request::Pending) => {
            ring.cancel_accept();
            connections.accepting = Request::Cancelled;
        }
        _ => {}
    }
    connections.empty_queue(now)
}

/// Asks for the messages that wake connections of other loops.
fn wake_others(ring: &mut Ring, connections: &mut Connections, now: Instant) {
    connections.take_wake_ups(now);
    connections.wake_ups.drain(..).for_each(|wake_up| ring.wake(wake_up));
}

/// Tells a connection what was done for it.
fn complete(ring: &mut Ring, connections: &mut Connections, completion: Completion, now: Instant) {
    match completion {
        Completion::Received { token, result, more, emptied } => {
            let Some(connection) = connections.completed(token) else {
                return ring.discard(result);
            };
            if !more {
                connection.receiving = Request::None;
            }
            connection.received = true;
            connection.emptied = emptied;
            if let Ok(Some(buffer)) = &result {
                connection.arrived += ring.bytes(buffer).len();
            }
            received(ring, &mut connection.conn, result, now);
        }
        Completion::Sent { token, result } => connections.sent(token, result, now),
        Completion::FileRead { token, result } => {
            if let Some(connection) = connections.completed(token) {
                connection.reading_file = false;
                match result {
                    Ok(bytes) => connection.conn.file_read(bytes, now),
                    Err(_) => connection.conn.file_failed(now),
                }
            }
        }
        Completion::WokenUp { token } => connections.woken(token, now),
        Completion::Undelivered { wake_up } => connections.wake_ups.push(wake_up),
        Completion::Accepted { .. } | Completion::Stop => {}
    }
}

/// Passes received bytes on. The buffer is lent again at once, because the connection has taken
/// what it needs.
fn received(ring: &mut Ring, conn: &mut Conn, result: io::Result<Option<Buffer>>, now: Instant) {
    match result {
        Ok(Some(buffer)) => {
            conn.receive(ring.bytes(&buffer), now);
            ring.give_back(buffer);
        }
        Ok(None) => conn.receive_eof(now),
        Err(error) => match error.raw_os_error() {
            // ENOBUFS: bytes arrived when all buffers were full. When all completions are read the
            // buffers are free again, and only then does the connection ask again.
            Some(libc::ENOBUFS | libc::ECANCELED) => {}
            _ => conn.abort(),
        },
    }
}

/// Asks the kernel for what one connection waits for and has not asked for yet.
fn step(ring: &mut Ring, connections: &mut Connections, token: Token, now: Instant) {
    let (usual, alone) = (connections.receive, connections.is_alone());
    let Some((connection, files)) = connections.get_with_files(token) else { return };
    let Some(wants) = connection.wants(now) else { return close(ring, connections, token, now) };
    let (receive, may_receive) = connection.end_turn(&wants, usual, alone);
    let received = std::mem::take(&mut connection.received);
    if let Some(part) = &wants.file
        && !connection.reading_file
    {
        match files.get(part) {
            Ok(file) => ring.read_file(file, token, part.offset, part.len),
            Err(_) => {
                connection.conn.file_failed(now);
                return close(ring, connections, token, now);
            }
        }
        connection.reading_file = true;
    }
    // The head waits for the first bytes of the file, so that both leave in one send. After that a
    // part is read while the one before is being sent.
    if wants.write && connection.sending == Request::None && !connection.reading_file {
        let (socket, chunks) = connection.output();
        ring.send(socket, token, chunks);
        connection.sending = Request::Pending;
    }
    match connection.receiving {
        Request::None if wants.read && !may_receive => connections.put_off(token),
        Request::None if wants.read => {
            ring.receive(connection.socket(), token, receive, connection.emptied);
            connection.receive = receive;
            connection.receiving = Request::Pending;
        }
        // Only if bytes have arrived that are not wanted: most clients send nothing before their
        // reply, and to cancel and ask again would cost two requests for nothing. What arrives
        // before the cancel is bounded by the buffers, and by the 32 receives that the kernel
        // makes together. A bulk connection receives one-shot, because others wait for these 32.
        Request::Pending if received && (!wants.read || connection.receive != receive) => {
            ring.cancel(Op::Receive, token);
            connection.receiving = Request::Cancelled;
        }
        _ => {}
    }
    connections.waits(token, &wants);
}

/// Ends a connection, when none of its requests is in flight any more.
fn close(ring: &mut Ring, connections: &mut Connections, token: Token, now: Instant) {
    let Some(connection) = connections.get(token) else { return };
    if connection.receiving == Request::Pending {
        ring.cancel(Op::Receive, token);
        connection.receiving = Request::Cancelled;
    }
    if connection.sending == Request::Pending {
        ring.cancel(Op::Send, token);
        connection.sending = Request::Cancelled;
    }
    // A file read is not cancelled: it ends soon by itself.
    if !connection.is_in_flight()
        && let Some(socket) = connections.remove(token, now)
    {
        ring.close(socket);
    }
}
