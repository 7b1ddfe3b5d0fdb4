//! tokio: async/await, what most Rust users would pick.
//!
//! epoll turns a conversation inside out: what was a loop becomes a state that an event finds in a
//! table. Here the conversation is a loop again. `await` marks the places where it may have to
//! wait; the compiler turns the function into the state, and the runtime keeps the table, the
//! timers and the epoll set. Underneath, the calls are the same as in the epoll server: readiness,
//! then non-blocking recv(2) and send(2). "async" here is how the program is written, not how the
//! kernel does I/O: in Stevens' sense it is synchronous. Regular files show it: no readiness call
//! can wait for them, so the runtime reads them on threads that block.
//!
//! Man pages: epoll(7). UNP figure 6.3; the tokio crate's documentation.

mod runtime;
mod wake;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use conn::{Address, Conn, Wake, Wants};
use kit::{
    AcceptError, Accepted, Flavour, Model, Place, SCRATCH_BYTES, SLICES_MAX, Serves, Turns, Values,
    Worker, Workers,
};
use runtime::{Newcomers, read_file, replied, runtime, start_reader, stop_signal};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use wake::{Alarm, Bell, late};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "tokio",
    summary: "async/await: tasks that look blocking, on a runtime that waits for all of them",
    about: "Each connection is a task: a function that reads and writes as if it could block, and \
            gives up its thread at every `await` that has to wait. One thread runs all tasks and \
            sleeps in epoll_wait(2) when none can go on. The code reads like a thread per \
            connection and costs about what the epoll server costs. File reads go to a pool of \
            blocking threads, because epoll cannot wait for a file.",
    place: Place { blocking: false, synchronous: true },
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

/// The right to have one connection; given back when dropped.
type Slot = Result<OwnedSemaphorePermit, AcquireError>;

thread_local! {
    /// The receive buffer, one per thread: a task owns none while it waits.
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
    // Not dropped: that waits for the thread of the stop signal, which has not come if this
    // failed.
    runtime.shutdown_background();
    result
}

/// Takes clients while there is room, and gives each a task.
async fn accept(worker: Arc<Worker>) -> io::Result<()> {
    start_reader(&worker).await?;
    let listener = TcpListener::from_std(worker.listener.to_std()?)?;
    let mut stop_signal = stop_signal(&worker.stop)?;
    let (stop, stopping) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(worker.conns_max));
    let mut newcomers = Newcomers::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let next = async {
            let slot = slot.await;
            while !worker.service.common.memory.admits(Instant::now()) {
                tokio::time::sleep(kit::TIGHT_PAUSE).await;
            }
            (slot, newcomers.accept(&listener).await)
        };
        tokio::select! {
            biased;
            _ = &mut stop_signal => break,
            (slot, accepted) = next => match accepted {
                Ok(stream) => {
                    spawn(stream, &worker, &stopping, slot);
                    newcomers.give_way().await;
                }
                Err(error) => match worker.listener.accept_error(error)? {
                    AcceptError::Passing => {}
                    AcceptError::Exhausted => tokio::time::sleep(kit::EXHAUSTED_PAUSE).await,
                },
            },
        }
    }
    // Nobody is left to hear it if no connection is open.
    let _ = stop.send(true);
    empty_queue(&worker, &slots, &stopping).await?;
    // Every slot back means that every conversation has ended.
    let all = u32::try_from(worker.conns_max).unwrap_or(u32::MAX);
    let _ = slots.acquire_many(all).await;
    Ok(())
}

/// The server stops: takes those who came before, as there is room for them. The runtime learns of
/// newcomers by its own wait, and may not know of all: so the kernel is asked.
async fn empty_queue(
    worker: &Arc<Worker>,
    slots: &Arc<Semaphore>,
    stopping: &watch::Receiver<bool>,
) -> io::Result<()> {
    while let Some(end) = worker.stop.ends_at().filter(|end| *end > Instant::now()) {
        let slot = Arc::clone(slots).acquire_owned();
        let Ok(slot) = tokio::time::timeout_at(end.into(), slot).await else { break };
        match worker.listener.accept()? {
            Accepted::Peer(stream) => spawn(TcpStream::from_std(stream)?, worker, stopping, slot),
            Accepted::Exhausted => tokio::time::sleep(kit::EXHAUSTED_PAUSE).await,
            Accepted::Nobody => {}
            Accepted::Empty => break,
        }
    }
    worker.listener.shutdown();
    Ok(())
}

fn spawn(stream: TcpStream, worker: &Arc<Worker>, stop: &watch::Receiver<bool>, slot: Slot) {
    let conversation = converse(stream, Arc::clone(worker), stop.clone());
    tokio::spawn(async move {
        conversation.await;
        drop(slot);
    });
}

/// One connection, from its first byte to its end.
async fn converse(mut stream: TcpStream, worker: Arc<Worker>, mut stop: watch::Receiver<bool>) {
    let mut now = Instant::now();
    let bell = Arc::new(Bell::default());
    let mut conn = worker.conn(Address::new(Arc::clone(&bell) as Arc<dyn Wake>, 0), now);
    let mut alarm = Alarm::new(now);
    let (mut draining, mut turns) = (false, Turns::default());
    // ANCHOR: wait
    loop {
        // Asked at every turn, like the clock: a socket that is always ready starves the branches
        // below it.
        if let Some(at) = worker.stop.requested_at()
            && !draining
        {
            draining = true;
            conn.drain(kit::unread(&stream), at);
        }
        if bell.take_rung() {
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
            // A peer that is gone already makes this fail; the read that follows will tell.
            let _ = stream.shutdown().await;
            conn.shutdown_done(now);
        } else if wants.turn {
            turns.step();
            conn.resume(now);
        } else {
            alarm.set(wants.deadline);
            tokio::select! {
                biased;
                () = step(&mut stream, &mut conn, wants, &mut turns) => {}
                () = alarm.wait() => {}
                () = bell.notify.notified() => {}
                _ = stop.changed() => {}
            }
        }
        // The runtime's own bound counts calls; one call may bring many requests.
        if turns.is_over() {
            turns.use_up();
            tokio::task::yield_now().await;
        }
        now = Instant::now();
    }
    // ANCHOR_END: wait
}

/// Waits until bytes can move in a direction that is wanted, and moves some. `turns` counts those
/// that did not have to wait; one that moves many bytes is as long as several.
async fn step(stream: &mut TcpStream, conn: &mut Conn, wants: Wants, turns: &mut Turns) {
    let moved = std::future::poll_fn(|cx| {
        let mut moved = Poll::Pending;
        if wants.write {
            moved = write(Pin::new(stream), cx, conn);
        }
        if wants.read && moved.is_pending() {
            moved = read(Pin::new(stream), cx, conn);
        }
        match &moved {
            Poll::Ready(bytes) => {
                turns.step();
                turns.moved(*bytes.as_ref().unwrap_or(&0));
            }
            Poll::Pending => turns.wait(),
        }
        moved
    });
    moved.await.map_or_else(|_| conn.abort(), drop);
}

type Moved = Poll<io::Result<usize>>;

fn read(stream: Pin<&mut TcpStream>, cx: &mut Context, conn: &mut Conn) -> Moved {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        stream.poll_read(cx, &mut buffer).map_ok(|()| {
            match buffer.filled() {
                [] => conn.receive_eof(Instant::now()),
                bytes => conn.receive(bytes, Instant::now()),
            }
            buffer.filled().len()
        })
    })
}

fn write(stream: Pin<&mut TcpStream>, cx: &mut Context, conn: &mut Conn) -> Moved {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let filled = conn.slices(&mut slices);
    let sent = match &slices[..filled] {
        [one] => stream.poll_write(cx, one),
        many => stream.poll_write_vectored(cx, many),
    };
    sent.map_ok(|n| {
        replied();
        conn.sent(n, Instant::now());
        n
    })
}
