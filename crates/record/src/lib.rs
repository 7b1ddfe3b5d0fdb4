//! The types of a result file and of a recording, with serde and a JSON schema, and the random
//! generator that gives the recorded seed its meaning.
//!
//! All that `iolab` prints, draws or compares is a pure function of these types, so a result file
//! can be rendered later and on another machine. This crate has no sockets, no clock, and knows no
//! servers.

mod environment;
mod instrument;
mod law;
mod load;
mod protocol;
mod random;
mod recording;
mod results;
mod trial;

pub use environment::{Calibration, Environment, Pressure};
pub use instrument::{Check, Instrument, Verdict, Way};
pub use law::{LawFigure, LawOutcome, Laws, Standing, laws_schema};
pub use load::{
    Arrivals, AtEnd, ClientStops, Errors, FanOut, Latency, LoadOutcome, OpenLoop, TlsOutcome,
};
pub use protocol::Protocol;
pub use random::SplitMix64;
pub use recording::{
    Call, Figure, Frame, Heading, Line, RECORDING_VERSION, Recording, RecordingError, Run, SeenBy,
    Skipped, Span, recording_schema,
};
pub use results::{
    Executable, Model, ParseError, Preset, Results, Role, SCHEMA_VERSION, Settings, Skip, Slot,
    Workload, instrument_schema, schema,
};
pub use trial::{
    Calls, Doubled, IdleSample, MachineSample, Measured, MemorySample, Outcome, ServerExit,
    ServerSample, Slices, Trial,
};
