//! Shared by the tests of the core: the environment of a connection ([`world`]), a driver that
//! keeps the contract ([`driver`]), frames of WebSocket ([`frames`]) and HTTP/2 ([`http2`]),
//! transcripts ([`transcript`]), and the client's side of TLS ([`tls`]).

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod driver;
pub mod frames;
pub mod fuzz;
pub mod http2;
pub mod tls;
pub mod transcript;
pub mod world;
