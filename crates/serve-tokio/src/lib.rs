//! tokio: async/await, what most Rust users would pick.
//!
//! In the epoll server a connection is not a loop but a state in a table, which an event finds.
//! Here it is a loop again (`converse`). `await` marks the places where it may have to wait. The
//! compiler makes the state out of the function, and the runtime keeps the table, the timers and
//! the epoll set. The system calls are the same as in the epoll server: wait until the socket is
//! ready, then call recv(2) and send(2), which do not block. "async" says how the program is
//! written, and not how the kernel does I/O: in Stevens' sense it is synchronous. Regular files
//! show this: no readiness call can wait for them, so the runtime reads them on threads that
//! block.
//!
//! Man pages: epoll(7). UNP figure 6.3; the tokio crate's documentation.

mod runtime;
mod wake;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use conn::{Address, Conn, Wake, Wants};
use kit::{
    AcceptError, CopiedBy, Flavour, Model, Place, SCRATCH_BYTES, SLICES_MAX, Serves, Turns, Values,
    Worker, Workers,
};
use runtime::{
    BulkTurns, NewConnections, Shared, empty_queue, read_file, replied, runtime, start_reader,
    stop_signal,
};
use tokio::io::{AsyncWriteExt, Interest, Ready};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use wake::{Timer, WakeUp, interest, late};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "tokio",
    summary: "async/await: each connection is a task, and a runtime waits for all of them",
    about: "Each connection is a task: a function that reads and writes as if it could block, and \
            gives up its thread at every `await` that has to wait. One thread runs all tasks and \
            sleeps in epoll_wait(2) when none can go on. The code looks like that of a thread \
            per connection, and the system calls are those of the epoll server. File reads go to a \
            pool of threads that block, because epoll cannot wait for a file.",
    place: Place { blocks_in: &["epoll_wait"], copied_by: CopiedBy::Thread },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Descriptors,
    cannot: &[],
    flavours: &[Flavour {
        flag: "runtime",
        values: Values::Words(&["current-thread", "multi-thread"]),
        default: "current-thread",
        help: "One thread per worker, or tokio's work-stealing threads, one per core",
    }],
    unavailable: Model::ALWAYS,
};

/// The right to have one connection.
type Slot = Result<OwnedSemaphorePermit, AcquireError>;

thread_local! {
    /// The receive buffer: one for each thread, so that a task which waits owns none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// Runs one runtime until the server stops and the last connection has ended.
///
/// # Errors
/// What the runtime or the listener say and no retry can mend.
pub fn serve(worker: Worker) -> io::Result<()> {
    let worker = Arc::new(worker);
    let runtime = runtime(&worker)?;
    let result = runtime.block_on(accept(worker));
    // To drop the runtime would wait for the thread of the stop signal, which has not come if this
    // failed.
    runtime.shutdown_background();
    result
}

/// Accepts clients while there is room, and starts a task for each.
async fn accept(worker: Arc<Worker>) -> io::Result<()> {
    start_reader(&worker).await?;
    let listener = TcpListener::from_std(worker.listener.to_std()?)?;
    let mut stop_signal = stop_signal(&worker.stop)?;
    let (stop, stopping) = watch::channel(false);
    let bulk = Arc::new(BulkTurns::new(&worker));
    let shared = Shared { worker: Arc::clone(&worker), stop: stopping, bulk };
    let slots = Arc::new(Semaphore::new(worker.conns_max));
    let mut new_connections = NewConnections::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let next = async {
            let slot = slot.await;
            while !worker.service.common.memory.admits(Instant::now()) {
                tokio::time::sleep(kit::TIGHT_PAUSE).await;
            }
            (slot, new_connections.accept(&listener).await)
        };
        tokio::select! {
            biased;
            _ = &mut stop_signal => break,
            (slot, accepted) = next => match accepted {
                Ok(stream) => {
                    spawn(stream, &shared, slot);
                    new_connections.give_way().await;
                }
                Err(error) => match worker.listener.accept_error(error)? {
                    AcceptError::Passing => {}
                    AcceptError::Exhausted => tokio::time::sleep(kit::EXHAUSTED_PAUSE).await,
                },
            },
        }
    }
    // Fails if no connection is open.
    let _ = stop.send(true);
    empty_queue(&worker, &slots, |stream, slot| spawn(stream, &shared, slot)).await?;
    // All slots are free when all connections have ended.
    let all = u32::try_from(worker.conns_max).unwrap_or(u32::MAX);
    let _ = slots.acquire_many(all).await;
    Ok(())
}

fn spawn(stream: TcpStream, shared: &Shared, slot: Slot) {
    let conversation = converse(stream, shared.clone());
    tokio::spawn(async move {
        conversation.await;
        drop(slot);
    });
}

/// One connection, from its first byte to its end.
async fn converse(mut stream: TcpStream, shared: Shared) {
    let Shared { worker, mut stop, bulk } = shared;
    let mut now = Instant::now();
    let wake_up = Arc::new(WakeUp::default());
    let mut conn = worker.conn(Address::new(Arc::clone(&wake_up) as Arc<dyn Wake>, 0), now);
    let mut timer = Timer::new(now);
    let (mut draining, mut emptied, mut turns) = (false, true, Turns::default());
    // ANCHOR: wait
    loop {
        // The stop, the wake-ups and the clock are looked at in each turn: a socket that is always
        // ready would put off the branches of `select!` below it.
        if let Some(at) = worker.stop.requested_at()
            && !draining
        {
            draining = true;
            conn.drain(kit::unread(&stream), at);
        }
        if wake_up.take() {
            conn.resume(now);
        }
        let Some(wants) = conn.wants() else { return };
        if wants.deadline.is_some_and(|at| at <= now) {
            late(&stream, &mut conn, now);
        } else if let Some(part) = wants.file {
            match read_file(&worker, part).await {
                Ok(bytes) => conn.file_read(bytes, now),
                Err(_) => conn.file_failed(now),
            }
        } else if wants.shutdown {
            // Fails if the peer has reset the connection; the next read reports that.
            let _ = stream.shutdown().await;
            conn.shutdown_done(now);
        } else if wants.turn {
            turns.step();
            conn.resume(now);
        } else {
            timer.set(wants.deadline);
            if emptied && !wants.write {
                turns.wait();
            }
            tokio::select! {
                biased;
                // The task sleeps here until the socket is ready, and the thread runs other tasks.
                ready = stream.ready(interest(&wants)), if wants.read || wants.write => {
                    let moved = ready.and_then(|ready| step(&stream, &mut conn, &wants, ready));
                    emptied = is_emptied(&moved, &wants, emptied);
                    count(&mut turns, moved, &mut conn);
                }
                () = timer.wait() => {}
                () = wake_up.notified() => {}
                _ = stop.changed() => {}
            }
        }
        // The runtime's own limit counts calls, and one call may bring many requests.
        if turns.is_over() {
            turns.use_up();
            bulk.give_way(&turns).await;
        }
        now = Instant::now();
    }
    // ANCHOR_END: wait
}

/// Writes if there is output, and reads otherwise. Returns the bytes.
fn step(stream: &TcpStream, conn: &mut Conn, wants: &Wants, ready: Ready) -> io::Result<usize> {
    if wants.write && ready.is_writable() { write(stream, conn) } else { read(stream, conn) }
}

/// A short read has emptied the socket (epoll(7)). WouldBlock tells the runtime so; without it,
/// the next wait would return at once, for a read that finds nothing.
fn read(stream: &TcpStream, conn: &mut Conn) -> io::Result<usize> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut received = 0;
        let emptied = stream.try_io(Interest::READABLE, || {
            received = kit::receive_now(stream, scratch)?;
            let is_short = 0 < received && received < scratch.len();
            if is_short { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (received, emptied) {
            (0, Ok(())) => conn.receive_eof(Instant::now()),
            (0, Err(error)) => return Err(error),
            (n, _) => conn.receive(&scratch[..n], Instant::now()),
        }
        Ok(received)
    })
}

fn write(stream: &TcpStream, conn: &mut Conn) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let filled = conn.slices(&mut slices);
    let n = match &slices[..filled] {
        [one] => stream.try_write(one),
        many => stream.try_write_vectored(many),
    }?;
    replied();
    conn.sent(n, Instant::now());
    Ok(n)
}

/// Whether the last read was short.
fn is_emptied(moved: &io::Result<usize>, wants: &Wants, before: bool) -> bool {
    if wants.write { before } else { moved.as_ref().is_ok_and(|&n| n < SCRATCH_BYTES) }
}

/// Counts a step of the turn, or ends the connection after an error.
fn count(turns: &mut Turns, moved: io::Result<usize>, conn: &mut Conn) {
    match moved {
        Ok(bytes) => {
            turns.step();
            turns.moved(bytes);
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => turns.wait(),
        Err(_) => conn.abort(),
    }
}
