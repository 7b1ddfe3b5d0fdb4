//! What the tests of the core share: a fake outside ([`world`]), a driver that keeps the contract
//! of `conn` to the letter ([`driver`]), frames of a WebSocket ([`frames`]), and transcripts
//! ([`transcript`]).

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod driver;
pub mod frames;
pub mod transcript;
pub mod world;
