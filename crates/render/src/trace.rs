//! The figure of a trace: what the clients did, what the threads of the server called, and what the
//! kernel did meanwhile. A function of the recording.

mod matrix;
mod picture;
mod rows;
mod terminal;

pub use matrix::{explanation, matrix};
pub use picture::picture;
pub use terminal::text;
