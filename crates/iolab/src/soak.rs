//! `iolab soak`: loads every model with mixed traffic for minutes, and checks for leaks.
//!
//! The servers are loaded in alternation. In a turn clients of every kind connect together, send a
//! fixed number of requests and disconnect. Between its turns a server is stopped (SIGSTOP), so
//! that a server that never sleeps takes no core from the others. Some idle connections stay open
//! for the whole time. The checks do not depend on speed:
//!
//! - each request had the right reply, and the server has counted the same number of requests;
//! - after the clients have closed, as many descriptors are open as before they connected;
//! - memory does not grow after the first minute.
//!
//! man: signal(7), proc(5).

mod judge;
mod subject;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;

use crate::bench::{handle_interrupts, interrupted};
use render::failure::{Failure, because};
use render::text;
use rig::discover::{self, directories};
use rig::environment;
use scenario::workload;

use judge::Growth;
use subject::SoakedModel;

/// Arguments of `iolab soak`.
#[derive(Args)]
pub struct Arguments {
    /// Length of the load, all servers together. Memory is checked after the first minute.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Servers to load, separated by commas, each with a flavour if wanted:
    /// epoll,threads+duplex=on [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Further directories with servers (executables named serve-NAME), separated by colons.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
}

/// Runs the subcommand. The exit code is 1 if a check of a server failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    environment::raise_descriptor_limit();
    let (found, skips) =
        discover::servers(&directories(arguments.servers.as_deref()), &arguments.models)?;
    for skip in skips {
        println!("SKIP {}: {}", skip.model, skip.reason);
    }
    handle_interrupts()?;
    let place = documents()?;
    let mut subjects = Vec::new();
    for server in found {
        match SoakedModel::start(server, &place.path().join(workload::DOCUMENTS)) {
            Ok(subject) => subjects.push(subject),
            Err(reason) => return Err(Failure(reason)),
        }
    }
    let begun = Instant::now();
    let mut turns = 0_u32;
    'soak: while begun.elapsed() < arguments.time || turns == 0 {
        for subject in &mut subjects {
            subject.turn(begun);
            if interrupted() {
                break 'soak;
            }
        }
        turns += 1;
        if turns.is_power_of_two() {
            eprintln!(
                "{} per server after {} s",
                text::count(turns, "turn"),
                begun.elapsed().as_secs()
            );
        }
    }
    let results: Vec<_> = subjects.into_iter().map(SoakedModel::finish).collect();
    for result in &results {
        println!("{}", judge::line(result));
    }
    let wrong: Vec<_> = results.iter().flat_map(judge::complaints).collect();
    for complaint in &wrong {
        eprintln!("iolab: {complaint}");
    }
    if results.iter().all(|result| result.growth.iter().all(Growth::is_unknown)) {
        println!("memory was not checked: this needs some turns after the first minute");
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A temporary directory with the document root in it.
fn documents() -> Result<TempDir, Failure> {
    let place = tempfile::tempdir().map_err(because("cannot make a temporary directory"))?;
    let path: PathBuf = place.path().join(workload::DOCUMENTS);
    let write = |path: &Path| {
        std::fs::create_dir(path)?;
        std::fs::write(path.join(workload::FILE_NAME), workload::pattern(workload::FILE_BYTES))
    };
    write(&path).map_err(because(format!("cannot write to {}", path.display())))?;
    Ok(place)
}
