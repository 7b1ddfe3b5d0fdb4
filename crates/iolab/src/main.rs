//! `iolab`: the command of the measuring side, one module for each subcommand.
//!
//! It finds servers as executables named `serve-NAME` and reaches them over sockets only.

mod awake;
mod bench;
mod doctor;
mod experiment;
mod hostile;
mod instrument;
mod laws;
mod load_command;
mod slices;
mod soak;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use render::failure::Failure;
use render::{compare, export, report};

/// Compares server I/O models: how a server waits for its clients, and what that costs.
#[derive(Parser)]
#[command(name = "iolab", version, help_expected = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Load(Box<load_command::LoadArguments>),
    /// Measure servers under workloads, in rounds of random order, and write a result folder.
    Bench(bench::Arguments),
    /// Render a result file as tables, or as REPORT.md with plots.
    Report(report::Arguments),
    /// Compare two runs, or two models of one run, with intervals. The exit code is 1 if anything
    /// is worse.
    Compare(compare::Arguments),
    /// Convert a result file to CSV, Markdown, JSON or Go benchmarks.
    Export(export::Arguments),
    /// Test iolab's own measurements: on servers with known faults, on identical servers, and
    /// against other tools.
    CheckInstrument(instrument::Arguments),
    /// Measure laws of servers: claim, expectation, figures, and whether each holds here.
    Laws(laws::Arguments),
    /// Load every server with mixed traffic for minutes, and check for leaks: memory, open
    /// descriptors, and the server's count of requests.
    Soak(soak::Arguments),
    /// Measure how much a hostile client delays the replies to a well-behaved one.
    Hostile(hostile::Arguments),
    /// Run an experiment in seconds: a question, a picture over time, and a conclusion that is
    /// computed from what was seen. Without a name: list them.
    Experiment(experiment::Arguments),
    /// Trace the system calls of servers while three clients talk to them: which call waits, and
    /// who copies the bytes.
    Trace(trace::Arguments),
    /// Check what can be measured on this machine, and say how to enable the rest.
    Doctor(doctor::Arguments),
    #[command(about = format!(
        "Print the JSON schema of a result file (version {}), or of another output",
        record::SCHEMA_VERSION
    ))]
    Schema(export::SchemaArguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Load(arguments) => {
            load_command::run(*arguments).map_err(|error| Failure(error.to_string()))
        }
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::CheckInstrument(arguments) => instrument::run(&arguments),
        Command::Laws(arguments) => laws::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Hostile(arguments) => hostile::run(&arguments),
        Command::Experiment(arguments) => experiment::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Schema(arguments) => export::schema(&arguments),
    };
    done.unwrap_or_else(|failure| failure.tell())
}
