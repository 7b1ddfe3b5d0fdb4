//! Prefork: processes that were forked ahead; each accepts on the same listener and serves one
//! client at a time.
//!
//! The serial server lets all clients wait for the one that it serves. Here the same server runs in
//! many processes, and the code of each is as simple as before. There is no queue in the server:
//! all processes sleep in accept(2) on one listener, and the kernel wakes one of them for each
//! client. What kills a process costs its own client, and the parent, which does nothing else,
//! forks another; in one address space, as with threads, it would end all conversations. The price
//! is a process for each client, and that clients share nothing: no chat, and no memory that one
//! has and another needs.
//!
//! Apache began like this (its prefork MPM), and so did most servers before threads.
//!
//! Man pages: fork(2), accept(2), wait(2), signal(7). UNP section 30.6 (preforked server, no
//! locking around accept).

use std::io;

use conversation::{Accepting, Conversation};
use kit::{Accepted, Flavour, Model, Place, Processes, Role, SCRATCH_BYTES};
use kit::{Serves, Values, Worker, Workers};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// What `--help` and `--describe` say.
pub const MODEL: Model = Model {
    name: "prefork",
    summary: "processes forked ahead: each accepts and serves one client at a time",
    about: "A fixed number of processes is forked before the first client comes. Each of them \
            sleeps in accept(2) on the same listener, serves its client with blocking calls to the \
            end, and accepts the next. The kernel wakes one process for each client. While all \
            serve, other clients wait in the accept queue. The parent waits for its children: a \
            child that was killed costs its own client only, and another takes its place. Beside \
            the thread that converses, each process has one that waits for signals and one that \
            looks after memory and the time to stop.",
    place: Place::IN_IO,
    nonblocking_sockets: false,
    workers: Workers::One("it has --processes, which share one listener"),
    serves: Serves::Processes("processes", "a process each; the others wait in the backlog"),
    cannot: &[
        "chat between clients: each client has a process of its own, and they share no memory",
        "fairness beside a flood: a process serves its client until that one leaves",
        "TLS 1.2 sessions without tickets: a process resumes those only that it has made itself",
        "memory where it is needed: each process may hold an equal part of --memory-max",
    ],
    flavours: &[Flavour {
        flag: "processes",
        values: Values::Number(1, 1_000),
        // Apache allows 256 (ServerLimit). A quarter of that starts at once on a small machine.
        default: "64",
        help: "Processes, each of which serves one client; the others wait in the accept queue",
    }],
    unavailable: Model::ALWAYS,
};

/// Forks a process for each place, and another when one was killed. Returns in each child at once,
/// and in the parent when all children have ended.
///
/// # Errors
/// What fork(2) says if there is no child at all, and what sigwait(3) and wait(2) say.
pub fn fork_ahead(processes: &mut Processes) -> io::Result<Role> {
    loop {
        while let Some(place) = processes.vacant() {
            // SAFETY: this process has one thread, which owns all of its memory, and so the child
            // may do whatever its parent may.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => return Ok(Role::Child(place)),
                Ok(ForkResult::Parent { child }) => processes.born(place, child),
                // Fewer processes serve fewer clients at once; with none there is no server.
                Err(_) if processes.any() => break,
                Err(error) => return Err(error.into()),
            }
        }
        processes.announce();
        // Sleeps until a child is ready or has ended, or the server is to stop.
        processes.wait_for_signal()?;
        while let Some(status) = ended_child()? {
            processes.ended(status);
        }
        if processes.is_stopping() && !processes.any() {
            return Ok(Role::Parent);
        }
    }
}

/// A child that has ended. Several may have, for one SIGCHLD (signal(7)).
fn ended_child() -> io::Result<Option<WaitStatus>> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Ok(None),
        Ok(status) => Ok(Some(status)),
        Err(error) => Err(error.into()),
    }
}

/// Serves one client after another until the server stops: what each child does.
///
/// # Errors
/// What accept(2) says and no retry can mend.
pub fn serve(worker: Worker) -> io::Result<()> {
    let mut buffer = vec![0; SCRATCH_BYTES];
    let accepting = Accepting::new(&worker);
    // ANCHOR: wait
    while accepting.goes_on()? {
        // accept(2) sleeps until a client has connected and none of the other processes has it.
        match worker.listener.accept()? {
            Accepted::Client(socket) => Conversation::new(socket, &worker).run(&mut buffer),
            Accepted::Exhausted => worker.stop.sleep(kit::EXHAUSTED_PAUSE),
            Accepted::Retry => {}
            Accepted::Empty => break,
        }
    }
    // ANCHOR_END: wait
    Ok(())
}
