//! The chat room: who is in it, and what is on its way to them.

/// The members of the chat, over all workers.
#[derive(Debug, Default)]
pub struct Hub {}
