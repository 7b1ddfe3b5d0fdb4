//! What serial, prefork, threads and pool share: one client, served by calls that block. Read this
//! after serve-serial.
//!
//! A conversation is a loop, and all of its waiting is inside the calls that it makes:
//!
//! ```text
//! while next() says what to do:           the connection's wants, in their order
//!     a file      read it                 pread(2)
//!     output      send it                 send(2) sleeps while the send buffer is full
//!     the FIN     send it                 shutdown(2)
//!     work        do the next part
//!     the clock   a deadline has passed
//!     input       receive it              recv(2) sleeps until bytes arrive (or SO_RCVTIMEO)
//! ```
//!
//! The models differ in which thread runs it: the only one (serial), that of a process (prefork),
//! one that was started for this client (threads), or one of a fixed number (pool). serve-serial
//! writes the loop out; the others call [`Conversation::run`].
//!
//! One thread is enough while only the peer and the clock can give the connection something to do:
//! recv(2) waits for both. It is not enough after the connection has joined a chat, because no
//! other thread can end a recv(2) with a message for it. Then, and not before, the conversation
//! gets a second thread ([`duplex`]): the first only reads from there on, the second writes and
//! can be woken.
//!
//! What can be forgotten, and what happens then:
//! - A recv(2) without SO_RCVTIMEO never returns if the peer is silent: no deadline is kept.
//! - A send(2) without SO_SNDTIMEO never returns if the peer reads nothing.
//! - A thread that is blocked when the server stops does not look at any flag. It is sent a
//!   signal, which ends the call with EINTR, and the signal is repeated, because one that arrives
//!   just before the call is lost.
//! - A deadline may have passed while the thread was not running, with bytes in the socket that
//!   arrived in time. So the socket is read once more before the clock decides.

mod accepting;
mod conversation;
pub mod duplex;
mod thread;
mod wake_up;

pub use accepting::Accepting;
pub use conversation::{Conversation, Next};
pub use thread::{SCRATCH_BYTES, builder};
