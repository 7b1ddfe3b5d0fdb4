//! Thread per connection: the serial conversation, many times at once.
//!
//! The serial server makes everybody wait for whoever is being served. Here every client gets a
//! thread of its own, and the kernel's scheduler does the waiting for all of them: a thread that is
//! blocked in recv(2) costs no CPU, only its stack and its place in the kernel's tables. The code
//! stays as simple as a conversation; the price is memory and a context switch per message.
//!
//! Man pages: pthread_create(3), accept(2), recv(2). UNP section 26.4; figure 6.1, per thread.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use conversation::{Accepting, Conversation, SCRATCH_BYTES};
use kit::{Accepted, Flavour, Model, Place, Serves, Slot, Slots, Values, Worker, Workers};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "threads",
    summary: "one thread per connection: every conversation may block on its own",
    about: "The main loop does nothing but accept; each connection is given a new thread that \
            reads and writes with blocking calls until the connection ends. While one thread \
            sleeps in recv(2) the kernel runs the others, so a slow client holds up nobody. Each \
            waiting client costs a stack and a kernel thread, and each message that wakes one \
            costs a context switch. A thread that sleeps in recv(2) can be told nothing by other \
            threads, so a member of a chat has two: one sleeps in recv(2), the other waits on a \
            condition variable for what others say, and writes.",
    place: Place { blocking: true, synchronous: true },
    nonblocking_sockets: false,
    workers: Workers::One("it has a thread per connection already, on every core"),
    serves: Serves::Threads("duplex", "on"),
    cannot: &[
        "fairness beside a flood: the kernel shares the cores among all threads alike",
        "more clients than it can have threads: the others wait in the kernel's accept queue",
    ],
    flavours: &[Flavour {
        flag: "duplex",
        values: Values::Words(&["off", "on"]),
        default: "off",
        help: "Two threads per connection, one that reads and one that writes, or one until the \
               connection joins a chat",
    }],
    unavailable: Model::ALWAYS,
};

/// Runs the accepting loop until the server stops and the last conversation has ended.
///
/// # Errors
/// What accept(2) says and no retry can mend.
pub fn serve(worker: Worker) -> io::Result<()> {
    let worker = Arc::new(worker);
    let slots = Slots::new(worker.conns_max, &worker.stop);
    let accepting = Accepting::new(&worker);
    // ANCHOR: wait
    while let Some(slot) = slots.acquire()
        && let Some(threads) = Threads::acquire(&worker)
        && accepting.goes_on()?
    {
        match worker.listener.accept()? {
            Accepted::Peer(stream) => spawn(&worker, stream, slot, threads),
            Accepted::Exhausted => worker.stop.sleep(kit::EXHAUSTED_PAUSE),
            Accepted::Nobody => {}
            Accepted::Empty => break,
        }
    }
    // ANCHOR_END: wait
    drop(accepting);
    slots.wait_all_free();
    Ok(())
}

/// The threads of one connection.
struct Threads {
    first: Slot,
    /// Of a connection that has two from the start.
    second: Option<Slot>,
}

impl Threads {
    /// Waits until there is room for them; `None` when the server is to stop.
    fn acquire(worker: &Worker) -> Option<Threads> {
        let first = worker.threads.acquire()?;
        let duplex = worker.flavour("duplex") == "on";
        let second = if duplex { Some(worker.threads.acquire()?) } else { None };
        Some(Threads { first, second })
    }
}

/// Gives the connection a thread. Where the system has no thread left, although it was counted, the
/// client is turned away, and other clients go on.
fn spawn(worker: &Arc<Worker>, stream: TcpStream, slot: Slot, threads: Threads) {
    let own = Arc::clone(worker);
    // ANCHOR: thread
    let conversation = move || {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let conversation = Conversation::new(stream, &own);
        match threads.second {
            Some(second) => conversation.run_duplex(&mut scratch, second),
            None => conversation.run(&mut scratch),
        }
        drop((slot, threads.first));
    };
    // ANCHOR_END: thread
    if conversation::builder().spawn(conversation).is_err() {
        worker.service.counters.refused();
    }
}
