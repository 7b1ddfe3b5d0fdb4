//! Evaluates a result file: which figures differ, one cell for each workload and model, and doubts
//! about them. Pure functions of [`record::Results`]. What an experiment shows (`lesson`) is one of
//! [`record::Recording`].
//!
//! Reading order: `statistics`, `summary`, `doubt`. `trace` places a model by its system calls.

pub mod doubt;
pub mod lesson;
pub mod statistics;
pub mod summary;
pub mod trace;
