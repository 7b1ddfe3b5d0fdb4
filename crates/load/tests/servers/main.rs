//! The generator against servers of a few lines, protocol by protocol: right ones, and ones that
//! are wrong in one way each.

mod ends;
mod plain;
mod rooms;
mod sessions;
mod stalls;
mod streams;
mod support;
mod tls;
