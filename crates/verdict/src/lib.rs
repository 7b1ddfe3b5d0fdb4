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

/// `a`, `a and b`, `a, b and c`.
pub fn list(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match &names[..] {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
