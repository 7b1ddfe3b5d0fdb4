//! The load generator. It sends requests on N connections, either when a reply has come or at times
//! given by the clock. It verifies every reply and records every latency.
//!
//! It uses a server through its socket only and never links the serving side: a client with the
//! server's codecs would have the same errors.
//!
//! ```no_run
//! # fn main() -> Result<(), load::Error> {
//! let plan = load::Plan::new("http://127.0.0.1:8080/")?;
//! let outcome = load::run(&plan, &mut load::Silent)?;
//! println!("{} requests, {} errors", outcome.requests, outcome.errors);
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`Plan`] (what to do), `engine` (the epoll loop), `connection` (one connection),
//! `outgoing` (the order of its bytes), `tls` (between connection and socket), `codec` (what a
//! protocol provides), `http1`, `http2`, `websocket` and `echo` (the four protocols), `schedule`
//! (when the next request is sent), `open_loop` (if the clock decides), `engine::fan_out` (one
//! connection sends, all others receive), `dialogue` (connections without load: the probe and idle
//! ones), `session` (load in slices, for servers that take turns).
#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("the load generator is an epoll loop: it builds on Linux only");

mod codec;
mod connection;
mod cpu;
mod dialogue;
mod echo;
mod engine;
mod error;
mod expected;
mod gate;
mod histogram;
mod hpack;
mod http1;
mod http2;
mod http2_requests;
mod idle;
mod live;
mod observer;
mod open_loop;
mod outgoing;
mod payload;
mod plan;
mod probe;
mod run;
mod schedule;
mod session;
mod socket;
mod tally;
mod tls;
mod websocket;

pub use cpu::Clocks;
pub use error::Error;
pub use live::{Live, Progress, Stage};
pub use observer::{Observer, Silent};
pub use plan::{ExpectedBody, Length, Method, Pace, Plan, Target};
pub use run::{run, run_live};
pub use session::{Session, Slice};
pub use tls::tls_config;
