//! Busy poll: non-blocking sockets, and a loop that tries every one of them, again and again.
//!
//! A blocked thread can wait for one client only. A non-blocking call does not wait: it returns
//! EAGAIN at once, so one thread can try all clients in turn. Nothing tells this loop where bytes
//! have arrived, so it makes one system call per connection and iteration to find out, and uses a
//! whole core while nothing happens. In return the loop never has to be woken up.
//!
//! Man pages: fcntl(2) (O_NONBLOCK), recv(2) (EAGAIN). UNP figure 6.2 (non-blocking I/O).

use std::io;
use std::time::Instant;

use kit::{CopiedBy, Model, Place, Serves, Worker, Workers};
use readiness::Connections;

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "busy",
    summary: "one thread that never sleeps: it tries every socket, again and again",
    about: "Sockets are non-blocking: a read that finds nothing returns at once with EAGAIN. The \
            loop tries every connection in turn, without end. It never waits, so no time is spent \
            on waking up. It uses a whole core even without any client, and every idle connection \
            adds a system call to every iteration.",
    place: Place { blocks_in: &[], copied_by: CopiedBy::Thread },
    nonblocking_sockets: true,
    workers: Workers::Loops,
    serves: Serves::Descriptors,
    cannot: &[],
    flavours: &[],
    unavailable: Model::ALWAYS,
};

/// Runs one loop until the server stops.
///
/// # Errors
/// What accept(2) says and no retry can mend.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut connections = Connections::new(worker)?;
    while !connections.finished() {
        // ANCHOR: wait
        let now = Instant::now();
        // There is no wait that could say which sockets are ready, so no list of them either.
        connections.all_may_be_ready();
        connections.accept(&mut (), now)?;
        connections.run(&mut (), now)?;
        std::hint::spin_loop();
        // ANCHOR_END: wait
    }
    Ok(())
}
