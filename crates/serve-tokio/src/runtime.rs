//! The runtime, and the threads beside its loop. If a thread cannot be started later, connections
//! would be lost; so those that are needed are started at once, and kept.

use std::cell::Cell;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use conn::FileRead;
use kit::{Accepted, Stop, Turns, Worker};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::Slot;

/// How long a thread that reads files is kept without work: as long as the server runs, because
/// the system may refuse another one.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(crate) fn runtime(worker: &Worker) -> io::Result<Runtime> {
    let mut builder = match worker.flavour("runtime") {
        "multi-thread" => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_io().enable_time().thread_keep_alive(BLOCKING_KEEP_ALIVE).build()
}

/// Starts the first thread that reads files, if there are files. If the runtime cannot start
/// another one, reads wait for this one; without any, the task that wants to read would end.
pub(crate) async fn start_reader(worker: &Worker) -> io::Result<()> {
    if !worker.files.is_empty() {
        tokio::task::spawn_blocking(|| ()).await?;
    }
    Ok(())
}

/// Becomes ready when the server is to stop. It waits on a thread of its own, because the runtime
/// may have only one for files.
pub(crate) fn stop_signal(stop: &Arc<Stop>) -> io::Result<oneshot::Receiver<()>> {
    let (signal, stopped) = oneshot::channel();
    let stop = Arc::clone(stop);
    thread::Builder::new().name("stop".to_owned()).spawn(move || {
        stop.wait();
        // The receiver is gone only when the loop has failed.
        let _ = signal.send(());
    })?;
    Ok(stopped)
}

/// A read on one of the runtime's blocking threads.
pub(crate) async fn read_file(worker: &Arc<Worker>, part: FileRead) -> io::Result<bytes::Bytes> {
    let worker = Arc::clone(worker);
    tokio::task::spawn_blocking(move || worker.files.read(&part)).await?
}

/// What all connections of a worker share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) worker: Arc<Worker>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) bulk: Arc<BulkTurns>,
}

/// The turns of bulk connections. The runtime runs all tasks that are ready before it asks the
/// kernel again, so a client that has just sent a request would wait for a turn of each of them.
pub(crate) struct BulkTurns(Semaphore);

impl BulkTurns {
    pub(crate) fn new(worker: &Worker) -> BulkTurns {
        let threads = match worker.flavour("runtime") {
            "multi-thread" => thread::available_parallelism().map_or(1, NonZero::get),
            _ => 1,
        };
        BulkTurns(Semaphore::new(threads))
    }

    /// A turn is over: returns after the runtime has asked the kernel. Bulk connections wait for
    /// each other, so that each thread runs one of them between two such questions.
    pub(crate) async fn give_way(&self, turns: &Turns) {
        let turn = if turns.is_bulk() { self.0.acquire().await.ok() } else { None };
        tokio::task::yield_now().await;
        drop(turn);
    }
}

/// Accepts clients, some at a time, so that tasks run in between.
pub(crate) struct NewConnections {
    /// Those that may still be accepted before other tasks run.
    left: usize,
}

impl NewConnections {
    pub(crate) fn new() -> NewConnections {
        NewConnections { left: kit::accepts_per_iteration(0) }
    }

    /// The next client. If none waits, the count begins again, and a later burst begins small.
    pub(crate) async fn accept(&mut self, listener: &TcpListener) -> io::Result<TcpStream> {
        let accepted = std::future::poll_fn(|cx| {
            let accepted = listener.poll_accept(cx);
            if accepted.is_pending() {
                *self = NewConnections::new();
            }
            accepted
        });
        accepted.await.map(|(stream, _)| stream)
    }

    /// One was accepted. After a number of them the runtime waits for the kernel and runs the
    /// tasks that are ready. As many more are accepted then as replies were sent. The number of
    /// connections is not the measure: new ones would count, and the number would grow by itself.
    pub(crate) async fn give_way(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            REPLIES.set(0);
            tokio::task::yield_now().await;
            self.left = kit::accepts_per_iteration(REPLIES.get());
        }
    }
}

/// The server stops: accepts the clients that wait, while there is room. The runtime learns of
/// them in its own wait, and may not know of all, so the kernel is asked.
pub(crate) async fn empty_queue(
    worker: &Worker,
    slots: &Arc<Semaphore>,
    spawn: impl Fn(TcpStream, Slot),
) -> io::Result<()> {
    while let Some(end) = worker.stop.ends_at().filter(|end| *end > Instant::now()) {
        let slot = Arc::clone(slots).acquire_owned();
        let Ok(slot) = tokio::time::timeout_at(end.into(), slot).await else { break };
        match worker.listener.accept()? {
            Accepted::Client(stream) => spawn(TcpStream::from_std(stream)?, slot),
            Accepted::Exhausted => tokio::time::sleep(kit::EXHAUSTED_PAUSE).await,
            Accepted::Retry => {}
            Accepted::Empty => break,
        }
    }
    worker.listener.shutdown();
    Ok(())
}

thread_local! {
    /// Writes of the tasks on this thread. None if clients are accepted on a thread of its own
    /// (`multi-thread`), where they hold up no task.
    static REPLIES: Cell<usize> = const { Cell::new(0) };
}

/// A task has sent something.
pub(crate) fn replied() {
    REPLIES.set(REPLIES.get().wrapping_add(1));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// Clients that wait at once. They fit into the accept queue of a listener of tokio, which is
    /// 128.
    const WAITING: usize = 120;

    /// Accepts clients that all wait by then, while a task that is always ready sends `replies` at
    /// each of its turns. Returns the most that were accepted between two turns.
    fn most_in_a_row(replies: usize) -> usize {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        let (in_a_row, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (taken, most_taken) = (Arc::clone(&in_a_row), Arc::clone(&most));
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let connect = |_| std::net::TcpStream::connect(address).unwrap();
            let _clients: Vec<_> = (0..WAITING).map(connect).collect();
            tokio::spawn(async move {
                loop {
                    most_taken.fetch_max(taken.swap(0, SeqCst), SeqCst);
                    (0..replies).for_each(|_| replied());
                    tokio::task::yield_now().await;
                }
            });
            let mut new_connections = NewConnections::new();
            for _ in 0..WAITING {
                new_connections.accept(&listener).await.unwrap();
                in_a_row.fetch_add(1, SeqCst);
                new_connections.give_way().await;
            }
        });
        most.load(SeqCst)
    }

    #[test]
    fn tasks_run_after_as_many_new_connections_as_replies() {
        assert_eq!(most_in_a_row(0), 4, "the number does not grow by new connections");
        assert_eq!(most_in_a_row(20), 20);
        assert_eq!(most_in_a_row(1_000), 64);
    }
}
