//! `iolab`: the one command of the measuring side.

mod load_command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures how servers wait for their clients.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(load_command::LoadArguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Load(arguments) => load_command::run(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("iolab: {error}");
        ExitCode::from(2)
    })
}
