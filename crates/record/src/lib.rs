//! The types of a result file, and nothing else: serde in, serde out, one JSON schema. The seed in
//! it means something by the generator that stands here too.
//!
//! Everything that `iolab` prints, draws or compares is a pure function of these types, so a result
//! file can be rendered years later on another machine. Must never know: sockets, clocks, servers.

mod environment;
mod instrument;
mod load;
mod random;
mod results;
mod trial;

pub use environment::{Calibration, Environment, Pressure};
pub use instrument::{Check, Instrument, Verdict, Way};
pub use load::{
    Arrivals, AtEnd, ClientStops, Errors, FanOut, Latency, LoadOutcome, OpenLoop, TlsOutcome,
};
pub use random::SplitMix64;
pub use results::{
    Executable, Model, ParseError, Preset, Results, Role, SCHEMA_VERSION, Settings, Skip, Slot,
    Workload, instrument_schema, schema,
};
pub use trial::{
    Calls, Doubled, IdleSample, MachineSample, Measured, MemorySample, Outcome, ServerExit,
    ServerSample, Slices, Trial,
};
