//! What busy, select, poll, epoll and sigio share: everything but the wait. Read this after one of
//! them.
//!
//! A readiness model asks the kernel which sockets are *ready*: which of them a read or a write
//! would not block on. Then it makes these calls itself. Its loop is this, and each line that is
//! not the wait is a method of [`Connections`]:
//!
//! ```text
//! while not finished:
//!     timeout = prepare_to_wait()     deadlines, unfinished work; the listener, if there is room
//!     select, poll or epoll_wait      <- the model; all sleeping is here
//!     now = the time                  once per iteration
//!     for each answer: ready()        only noted: nothing is read, written or closed yet
//!     accept()                        new connections, a bounded number
//!     run()                           one turn for each connection that can do something
//! ```
//!
//! A turn ([`connection`]) is a few steps: a read, a write, or a file read. What the kernel is
//! asked for each socket is an [`InterestList`], which the model implements: bitmaps, an array, a
//! list inside the kernel, or a flag of each descriptor.
//!
//! What can be forgotten, and what happens then:
//! - A connection that has used up its turn and could go on is *unfinished*. The next wait must
//!   not sleep: the bytes may be in memory already, and no event comes for them.
//! - Interest in writing that is left on makes every wait return at once. Interest that is not
//!   turned on leaves the client without its reply.
//! - A listener that is watched at the limit of connections is ready in every wait: the loop
//!   spins.
//! - A socket that is closed while answers are still looked at gives its number to a new
//!   connection, and the old answer to the wrong one. So all answers are noted first.
//! - A wake-up between the last look and the wait is lost, unless the loop first says that it will
//!   sleep and then looks again ([`wake_up`]).
//! - The clock decides what is late, and not the wait: a socket that is always ready would
//!   otherwise put off every deadline.

pub mod connection;
mod connections;
mod interest;
mod runnable;
pub mod wake_up;

pub use connections::Connections;
pub use interest::{
    Answer, Interest, InterestList, LISTENER, STOP, Token, WAKE_UP, milliseconds, returned,
};
