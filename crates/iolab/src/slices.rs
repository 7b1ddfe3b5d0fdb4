//! Evaluation of servers that were measured in slices ([`rig::slices`]).

pub mod standing;

pub use law::turns::{ratio, typical};
