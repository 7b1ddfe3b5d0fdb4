//! The figure of a trace: what the clients did, what the threads of the server called, and what the
//! kernel did meanwhile. A function of the recording.

mod terminal;

pub use terminal::text;
