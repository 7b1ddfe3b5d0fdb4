//! The experiments: each shows one claim on real servers, and writes what it saw as a recording.
//!
//! An [`Experiment`] is a function of a [`Stage`], which starts servers, at the other end of a link
//! if asked, and keeps the recording. Nothing is invented: every span and every figure is what the
//! client saw, or the server's own counters, or /proc. What a recording shows is said by
//! `verdict::lesson` and drawn by `render::lesson`, which have a module for each experiment too.
//!
//! Reading order: `stage`, `client` (one request in its phases, over
//! [`rig::client`]), `http2`, `name` (the name lookup),
//! then the experiments: `request`, `staircase`, `visitors`, `teacher`, `stall`, `news` and
//! `streams` (over `wire`), `crowd`, `idle`, `memory`, `edge`,
//! `slow_reader`, `sleep`, `cold_file`.

pub mod client;
mod cold_file;
mod crowd;
mod edge;
pub mod http2;
mod idle;
mod memory;
pub mod name;
mod news;
mod request;
mod sleep;
mod slow_reader;
mod stage;
mod staircase;
mod stall;
mod streams;
mod teacher;
mod visitors;
mod wire;

use record::Workload;

pub use stage::{Clock, Ended, Links, Refused, Setting, Site, Stage};

/// One experiment.
pub struct Experiment {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it asks, in one paragraph.
    pub question: &'static str,
    /// What the reader is asked before the run.
    pub predict: Predict,
    /// About how long it takes, in seconds.
    pub takes_s: u32,
    /// The model that it runs; `--model` may name another. `None`: the models are the experiment.
    pub model: Option<&'static str>,
    /// Runs it.
    pub run: fn(&mut Stage) -> Result<(), Refused>,
}

/// A question that is asked before the numbers appear.
pub struct Predict {
    /// The question, in one sentence.
    pub question: &'static str,
    /// What an answer looks like.
    pub answer: Answer,
}

/// The form of a prediction.
pub enum Answer {
    /// One of these.
    Choice(&'static [&'static str]),
    /// A number of this unit.
    Number(&'static str),
}

/// All experiments, in the order in which they are listed.
pub const EXPERIMENTS: &[Experiment] = &[
    request::EXPERIMENT,
    staircase::EXPERIMENT,
    visitors::EXPERIMENT,
    teacher::EXPERIMENT,
    stall::EXPERIMENT,
    news::EXPERIMENT,
    streams::EXPERIMENT,
    crowd::EXPERIMENT,
    idle::EXPERIMENT,
    memory::EXPERIMENT,
    edge::EXPERIMENT,
    slow_reader::EXPERIMENT,
    sleep::EXPERIMENT,
    cold_file::EXPERIMENT,
];

/// Requests of HTTP/1.1 over kept connections.
fn keepalive() -> Result<Workload, String> {
    let all = scenario::workload::all()?;
    let found = all.into_iter().find(|workload| workload.name == "http-keepalive");
    found.ok_or_else(|| "there is no workload http-keepalive".to_owned())
}
