//! What the tests of the core share: a fake outside ([`world`]), a driver that keeps the contract
//! of `conn` to the letter ([`driver`]), frames of a WebSocket ([`frames`]) and of
//! HTTP/2 ([`http2`]), transcripts ([`transcript`]), and the other end of TLS ([`tls`]).

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod driver;
pub mod frames;
pub mod fuzz;
pub mod http2;
pub mod tls;
pub mod transcript;
pub mod world;
