//! What a result file says: when figures differ, one cell for each workload and model, and what a
//! reader should know before believing it. Pure functions of [`record::Results`].
//!
//! Reading order: `statistics`, `summary`, `doubt`.

pub mod doubt;
pub mod statistics;
pub mod summary;
