//! The generator and servers of a few lines, for each protocol: correct ones, and ones with one
//! error each.

mod chats;
mod ends;
mod plain;
mod sessions;
mod stalls;
mod streams;
mod support;
mod tls;
