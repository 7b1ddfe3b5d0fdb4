//! `iolab`: the one command of the measuring side.
//!
//! It knows servers only as executables named `serve-NAME` and talks to them over sockets. This
//! file lists the subcommands; each has a module of its own.

mod bench;
mod doctor;
mod doubt;
mod failure;
#[cfg(test)]
mod fixture;
mod instrument;
mod load_command;
mod report;
mod responder;
mod statistics;
mod summary;
mod sys;
mod text;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

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
    /// Test the instrument on itself: servers with known faults, identical servers, other tools.
    CheckInstrument(instrument::Arguments),
    /// Say what this machine allows, and what to do about what it does not.
    Doctor(doctor::Arguments),
    /// Print the JSON schema of a result file.
    Schema,
}

fn main() -> ExitCode {
    if let Some(code) = responder::run_if_called_so() {
        return code;
    }
    let done = match Cli::parse().command {
        Command::Load(arguments) => {
            load_command::run(arguments).map_err(|error| Failure(error.to_string()))
        }
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::CheckInstrument(arguments) => instrument::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Schema => text::print(&format!("{:#}\n", record::schema())),
    };
    done.unwrap_or_else(|failure| failure.tell())
}
