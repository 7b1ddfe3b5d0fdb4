//! The load generator: N connections, asking as soon as they were answered or when the clock says
//! so, every reply verified, every latency kept.
//!
//! It talks to a server through its socket only and never links the serving side: a client built
//! from the server's codecs would agree with its bugs.
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
//! Reading order: [`Plan`] (what is asked for), `engine` (the epoll loop), `connection` (what one
//! connection remembers), `outgoing` (what it has to send, and in which order), `tls` (between it
//! and its socket), `codec` (what a protocol must answer), `http1`, `http2`, `websocket` and `echo`
//! (four answers), `schedule` (who decides when the next request is sent), `open_loop` (when it is
//! the clock), `engine::fan_out` (when one speaks and all others listen), `dialogue` (connections
//! apart from the load: the probe, and those that stay silent), `session` (load in slices, for
//! servers that take turns).
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
pub use plan::{ExpectedBody, Length, Method, Pace, Plan, Protocol, Target};
pub use run::{run, run_live};
pub use session::{Session, Slice};
pub use tls::tls_config;
