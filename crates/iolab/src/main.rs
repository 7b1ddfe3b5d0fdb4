//! `iolab`: the one command of the measuring side.
//!
//! It knows servers only as executables named `serve-NAME` and talks to them over sockets. This
//! file lists the subcommands; each has a module of its own.

mod awake;
mod bench;
mod doctor;
mod hostile;
mod instrument;
mod load_command;
mod slices;
mod soak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;
use render::{compare, export, failure, grid, report, text};
use verdict::{statistics, summary};

/// Measures the ways in which a server can wait for its clients.
#[derive(Parser)]
#[command(name = "iolab", version, about, help_expected = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Load(load_command::LoadArguments),
    /// Measure every server found, in randomised rounds, and write a result folder.
    Bench(bench::Arguments),
    /// Render a result file: tables, REPORT.md, plots.
    Report(report::Arguments),
    /// Compare two runs, or two models of one run, with intervals; the exit code says if anything
    /// is worse.
    Compare(compare::Arguments),
    /// Write a result file in another format: CSV, Markdown, JSON, Go benchmarks.
    Export(export::Arguments),
    /// Test the instrument on itself: servers with known faults, identical servers, other tools.
    CheckInstrument(instrument::Arguments),
    /// Mixed traffic on every model for minutes: memory stays flat, descriptors come back, and the
    /// servers have counted what their clients have asked.
    Soak(soak::Arguments),
    /// Measure what an honest client notices of a hostile one beside it.
    Hostile(hostile::Arguments),
    /// Say what this machine allows, and what to do about what it does not.
    Doctor(doctor::Arguments),
    #[command(about = format!(
        "Print the JSON schema of a result file (version {}), or of instrument.json",
        record::SCHEMA_VERSION
    ))]
    Schema(export::SchemaArguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Load(arguments) => {
            load_command::run(arguments).map_err(|error| Failure(error.to_string()))
        }
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::CheckInstrument(arguments) => instrument::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Hostile(arguments) => hostile::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Schema(arguments) => export::schema(&arguments),
    };
    done.unwrap_or_else(|failure| failure.tell())
}
