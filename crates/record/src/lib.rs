//! The types of a result file, and nothing else: serde in, serde out, one JSON schema.
//!
//! Everything that `iolab` prints, draws or compares is a pure function of these types, so a result
//! file can be rendered years later on another machine. Must never know: sockets, clocks, servers.

mod load;

pub use load::{Errors, Latency, LoadOutcome};
