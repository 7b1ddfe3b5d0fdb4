//! Pool: a fixed number of threads, made once; connections that find none free wait in a queue.
//!
//! A thread per connection costs a new thread each time, and only memory limits their number. Here
//! a fixed number is started in advance, and the limit becomes visible: with 300 threads the 301st
//! client is connected, but its request is not read until another client leaves. A client that
//! keeps its connection open without a request holds a thread all the time. That is why Apache has
//! an event MPM beside its worker MPM.
//!
//! Man pages: pthread_cond_wait(3), accept(2), recv(2). UNP section 30.12 (prethreaded servers).

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use conversation::{Accepting, Conversation, SCRATCH_BYTES};
use kit::{Accepted, Flavour, Model, Place, Serves, Slot, Slots, Values, Worker, Workers};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "pool",
    summary: "a bounded pool of threads: connections beyond it wait in a queue",
    about: "A fixed number of threads is started once. One loop accepts and puts connections into \
            a queue; each thread takes one, serves it with blocking calls to its end, and takes \
            the next. No connection waits for a thread to be created, and memory is bounded. When \
            all threads are taken, even by clients that only keep their connections open, all \
            other clients wait in the queue.",
    place: Place::IN_IO,
    nonblocking_sockets: false,
    workers: Workers::One("its size is --threads, and one queue feeds them all"),
    serves: Serves::Flavour("threads", "a thread each; the others wait in the queue"),
    cannot: &["fairness beside a flood: a thread serves its client until that one leaves"],
    flavours: &[Flavour {
        flag: "threads",
        values: Values::Number(1, 10_000),
        // A usual value of Apache's MaxRequestWorkers in examples.
        default: "300",
        help: "Clients that are served at once; the others wait in a queue",
    }],
    unavailable: Model::ALWAYS,
};

/// Accepts until the server stops, and waits until the last connection has ended.
///
/// # Errors
/// What accept(2) says and no retry can mend, or that no thread of the pool can be started.
pub fn serve(worker: Worker) -> io::Result<()> {
    let threads = worker.flavour_number("threads");
    let worker = Arc::new(worker);
    let slots = Slots::new(worker.conns_max, &worker.stop);
    let queue = Arc::new(Queue::default());
    let pool = start(threads, &worker, &queue)?;
    let accepting = Accepting::new(&worker);
    // ANCHOR: wait
    while let Some(slot) = slots.acquire()
        && accepting.goes_on()?
    {
        match worker.listener.accept()? {
            Accepted::Client(stream) => queue.push(stream, slot),
            Accepted::Exhausted => worker.stop.sleep(kit::EXHAUSTED_PAUSE),
            Accepted::Retry => {}
            Accepted::Empty => break,
        }
    }
    // ANCHOR_END: wait
    drop(accepting);
    queue.close();
    for thread in pool {
        // A thread that panicked has been reported on stderr; the others must still end.
        let _ = thread.join();
    }
    Ok(())
}

/// Starts so many threads, or as many as the machine allows. Fewer threads are a smaller pool;
/// with none there is no server.
fn start(
    threads: usize,
    worker: &Arc<Worker>,
    queue: &Arc<Queue>,
) -> io::Result<Vec<thread::JoinHandle<()>>> {
    let mut pool = Vec::new();
    while pool.len() < threads
        && let Some(thread) = worker.threads.try_acquire()
    {
        match spawn(worker, queue, thread) {
            Ok(thread) => pool.push(thread),
            Err(error) if pool.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(pool)
}

/// Starts one thread of the pool. It serves the first client of the queue, again and again.
fn spawn(
    worker: &Arc<Worker>,
    queue: &Arc<Queue>,
    thread: Slot,
) -> io::Result<thread::JoinHandle<()>> {
    let (worker, queue) = (Arc::clone(worker), Arc::clone(queue));
    // ANCHOR: thread
    let conversations = move || {
        let mut scratch = vec![0; SCRATCH_BYTES];
        while let Some((stream, slot)) = queue.pop() {
            Conversation::new(stream, &worker).run(&mut scratch);
            drop(slot);
        }
        drop(thread);
    };
    // ANCHOR_END: thread
    conversation::builder().spawn(conversations)
}

/// Connections that wait for a thread.
#[derive(Default)]
struct Queue {
    waiting: Mutex<WaitingClients>,
    changed: Condvar,
}

#[derive(Default)]
struct WaitingClients {
    connections: VecDeque<(TcpStream, Slot)>,
    closed: bool,
}

impl Queue {
    fn push(&self, stream: TcpStream, slot: Slot) {
        self.lock().connections.push_back((stream, slot));
        self.changed.notify_one();
    }

    /// The first connection of the queue; sleeps while there is none. `None` once the queue is
    /// closed and empty.
    fn pop(&self) -> Option<(TcpStream, Slot)> {
        let mut waiting = self.lock();
        loop {
            if let Some(connection) = waiting.connections.pop_front() {
                return Some(connection);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, WaitingClients> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
