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

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use conn::{Address, Conn, Doorbell, FileRead, Wants};
use kit::{
    AcceptError, Flavour, Model, Place, SCRATCH_BYTES, SLICES_MAX, Serves, Values, Worker, Workers,
};
use runtime::{runtime, start_reader, stop_signal};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};

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
    // Not dropped: that waits for the thread of the stop signal, which has not come if this failed.
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
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let next = async { (slot.await, listener.accept().await) };
        tokio::select! {
            biased;
            _ = &mut stop_signal => break,
            (slot, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let conversation = converse(stream, Arc::clone(&worker), stopping.clone());
                    tokio::spawn(async move {
                        conversation.await;
                        drop(slot);
                    });
                }
                // The server's own shutdown(2), seen before its stop signal.
                Err(_) if worker.stop.requested() => break,
                Err(error) => match worker.listener.accept_error(error)? {
                    AcceptError::Passing => {}
                    AcceptError::Exhausted => tokio::time::sleep(kit::EXHAUSTED_PAUSE).await,
                },
            },
        }
    }
    // Nobody is left to hear it if no connection is open.
    let _ = stop.send(true);
    drop(listener);
    // Every slot back means that every conversation has ended.
    let all = u32::try_from(worker.conns_max).unwrap_or(u32::MAX);
    let _ = slots.acquire_many(all).await;
    Ok(())
}

/// One connection, from its first byte to its end.
async fn converse(mut stream: TcpStream, worker: Arc<Worker>, mut stop: watch::Receiver<bool>) {
    let mut now = Instant::now();
    let bell = Arc::new(Bell::default());
    let mut conn = worker.conn(Address::new(Arc::clone(&bell) as Arc<dyn Doorbell>, 0), now);
    let mut alarm = Alarm::new(now);
    // ANCHOR: wait
    loop {
        // Asked at every turn, like the clock: a socket that is always ready starves the branches
        // below it.
        if let Some(at) = worker.stop.requested_at() {
            conn.drain(at);
        }
        if bell.take_rung() {
            conn.woken(now);
        }
        let Some(wants) = conn.wants() else { return };
        if wants.deadline.is_some_and(|at| at <= now) {
            conn.timeout(now);
        } else if let Some(part) = wants.file {
            match read_file(&worker, part).await {
                Ok(bytes) => conn.file_read(bytes, now),
                Err(_) => conn.file_failed(now),
            }
        } else if wants.shutdown {
            // A peer that is gone already makes this fail; the read that follows will tell.
            let _ = stream.shutdown().await;
            conn.shutdown_done(now);
        } else {
            alarm.set(wants.deadline);
            tokio::select! {
                biased;
                result = step(&mut stream, &mut conn, wants) => if result.is_err() { conn.abort() },
                () = alarm.wait() => {}
                () = bell.notify.notified() => {}
                _ = stop.changed() => {}
            }
        }
        now = Instant::now();
    }
    // ANCHOR_END: wait
}

/// Waits until bytes can move in a direction that is wanted, and moves some.
async fn step(stream: &mut TcpStream, conn: &mut Conn, wants: Wants) -> io::Result<()> {
    std::future::poll_fn(|cx| {
        if wants.write
            && let Poll::Ready(result) = write(Pin::new(stream), cx, conn)
        {
            return Poll::Ready(result);
        }
        if wants.read { read(Pin::new(stream), cx, conn) } else { Poll::Pending }
    })
    .await
}

fn read(stream: Pin<&mut TcpStream>, cx: &mut Context, conn: &mut Conn) -> Poll<io::Result<()>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        stream.poll_read(cx, &mut buffer).map_ok(|()| match buffer.filled() {
            [] => conn.receive_eof(Instant::now()),
            bytes => conn.receive(bytes, Instant::now()),
        })
    })
}

fn write(stream: Pin<&mut TcpStream>, cx: &mut Context, conn: &mut Conn) -> Poll<io::Result<()>> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let filled = conn.slices(&mut slices);
    let sent = match &slices[..filled] {
        [one] => stream.poll_write(cx, one),
        many => stream.poll_write_vectored(cx, many),
    };
    sent.map_ok(|n| conn.sent(n, Instant::now()))
}

/// A read on one of the runtime's blocking threads.
async fn read_file(worker: &Arc<Worker>, part: FileRead) -> io::Result<bytes::Bytes> {
    let worker = Arc::clone(worker);
    tokio::task::spawn_blocking(move || worker.files.read(&part)).await?
}

/// The bell of one task: the runtime's own way to wake it from any thread.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    /// Keeps a notification that nobody waits for yet, so a ring between look and wait is not lost.
    notify: Notify,
}

impl Bell {
    fn take_rung(&self) -> bool {
        self.rung.load(SeqCst) && self.rung.swap(false, SeqCst)
    }
}

impl Doorbell for Bell {
    fn ring(&self, _token: u64) {
        if !self.rung.swap(true, SeqCst) {
            self.notify.notify_one();
        }
    }
}

/// A timer that is only moved when it would come too late: the idle deadline moves with every
/// request, and a runtime timer takes a lock to be moved.
struct Alarm {
    sleep: Pin<Box<tokio::time::Sleep>>,
    at: Instant,
}

impl Alarm {
    /// Deadlines further away than this are looked at again when it is over.
    const FAR: Duration = Duration::from_secs(60 * 60);

    fn new(now: Instant) -> Alarm {
        let at = now + Self::FAR;
        Alarm { sleep: Box::pin(tokio::time::sleep_until(at.into())), at }
    }

    fn set(&mut self, deadline: Option<Instant>) {
        let fired = self.sleep.is_elapsed();
        let wanted = deadline.unwrap_or_else(|| Instant::now() + Self::FAR);
        if fired || wanted < self.at {
            self.at = wanted;
            self.sleep.as_mut().reset(wanted.into());
        }
    }

    async fn wait(&mut self) {
        self.sleep.as_mut().await;
    }
}
