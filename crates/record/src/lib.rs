//! The types of a result file, and nothing else: serde in, serde out, one JSON schema.
//!
//! Everything that `iolab` prints, draws or compares is a pure function of these types, so a result
//! file can be rendered years later on another machine. Must never know: sockets, clocks, servers.

mod environment;
mod load;
mod results;
mod trial;

pub use environment::{Calibration, Environment, Pressure};
pub use load::{Errors, Latency, LoadOutcome};
pub use results::{
    Model, ParseError, Preset, Results, SCHEMA_VERSION, Settings, Skip, Slot, Workload, schema,
};
pub use trial::{
    IdleSample, MachineSample, Measured, MemorySample, Outcome, ServerExit, ServerSample, Trial,
};
