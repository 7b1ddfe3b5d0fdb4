//! Thread per connection: the loop of serve-serial, many times at once.
//!
//! The serial server lets all clients wait for the one that it serves. Here every client gets a
//! thread of its own, and the kernel's scheduler decides which of them runs. A thread that is
//! blocked in recv(2) uses no CPU, only its stack and an entry in the kernel's tables. The code
//! stays as simple as that of one client. The price is memory, and a context switch for each
//! message.
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
    summary: "one thread per connection: each blocks on its own",
    about: "The main loop does nothing but accept; each connection is given a new thread that \
            reads and writes with blocking calls until the connection ends. While one thread \
            sleeps in recv(2) the kernel runs the others, so a slow client does not hold up other \
            clients. Each client costs a stack and a kernel thread, and each message that wakes a \
            thread costs a context switch. Other threads cannot wake one that sleeps in recv(2), \
            so a member of a chat has two: one sleeps in recv(2), the other waits on a condition \
            variable for messages of other members, and writes.",
    place: Place::IN_IO,
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

/// Accepts until the server stops, and waits until the last connection has ended.
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
            Accepted::Client(stream) => spawn(&worker, stream, slot, threads),
            Accepted::Exhausted => worker.stop.sleep(kit::EXHAUSTED_PAUSE),
            Accepted::Retry => {}
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

/// Starts a thread for the connection. If the system refuses one although there was a slot, the
/// client is refused, and the others go on.
fn spawn(worker: &Arc<Worker>, stream: TcpStream, slot: Slot, threads: Threads) {
    let own = Arc::clone(worker);
    let conversation = move || {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let conversation = Conversation::new(stream, &own);
        match threads.second {
            Some(second) => conversation.run_duplex(&mut scratch, second),
            None => conversation.run(&mut scratch),
        }
        drop((slot, threads.first));
    };
    if conversation::builder().spawn(conversation).is_err() {
        worker.service.counters.refused();
    }
}
