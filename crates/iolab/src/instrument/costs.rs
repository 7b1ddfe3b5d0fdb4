//! To be written.
use super::Trap;
pub const TRAPS: &[Trap] = &[];
