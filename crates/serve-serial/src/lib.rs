//! Serial: accept one client, talk with it to the end, then accept the next.
//!
//! The model to subtract from all others. Every call blocks: while accept(2), recv(2) or send(2)
//! has nothing to say, the only thread sleeps inside it, and so does everybody else's request. The
//! n-th visitor waits for n - 1 conversations; one that is kept alive and silent stops all of them.
//!
//! Man pages: socket(2), listen(2), accept(2), recv(2), send(2). UNP figure 6.1 (blocking I/O).

use std::io;

use kit::{
    Accepted, Accepting, Conversation, Model, Place, SCRATCH_BYTES, Serves, Worker, Workers,
};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "serial",
    summary: "one thread, one conversation at a time: whoever comes later waits",
    about: "The server accepts one client and serves it until the connection ends, with calls that \
            sleep until they have something to say. All others wait in the kernel's backlog, \
            connected but unheard. It is the least code and the least work per request of all \
            models, and the right one for a single client. One visitor who keeps the connection \
            open and says nothing holds up everyone until the idle timeout.",
    place: Place { blocking: true, synchronous: true },
    nonblocking_sockets: false,
    workers: Workers::One("one conversation at a time is what serial means"),
    serves: Serves::Only(1, "one conversation at a time; the others wait in the backlog"),
    cannot: &[
        "chat between clients: whoever else wants to say something is not connected yet",
        "fairness beside others: whoever is served is served until the connection ends",
        "push to two clients: a clock ticks for the one that is being served",
    ],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Runs the loop until the server stops.
///
/// # Errors
/// What accept(2) says and no retry can mend.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut scratch = vec![0; SCRATCH_BYTES];
    let accepting = Accepting::new(&worker);
    // ANCHOR: wait
    loop {
        match accepting.next()? {
            Accepted::Peer(stream) => {
                Conversation::new(stream, &worker).run_without_others(&mut scratch);
            }
            Accepted::Exhausted => worker.stop.sleep(kit::EXHAUSTED_PAUSE),
            Accepted::Nobody => {}
            Accepted::Empty => return Ok(()),
        }
    }
    // ANCHOR_END: wait
}
