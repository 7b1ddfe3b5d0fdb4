//! `iolab soak`: mixed traffic on every model for minutes, and nothing may be left of it.
//!
//! Each server takes turns. In a turn clients of every kind come at once, ask a number of requests
//! that is fixed beforehand, and leave; between its turns a server is stopped (SIGSTOP): one
//! that never sleeps would take a core from the others. Some silent connections stay for the whole
//! time. What is asked at the end does not depend on how fast anything was:
//!
//! - every request was answered rightly, and the server has counted exactly those;
//! - when the clients have left, as many descriptors are open as before they came;
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

use crate::bench::discover;
use crate::bench::{directories, environment, handle_interrupts, interrupted};
use crate::failure::{Failure, because};
use scenario::workload;

use judge::Growth;
use subject::Subject;

/// Arguments of `iolab soak`.
#[derive(Args)]
pub struct Arguments {
    /// How long the traffic goes on, all servers together. Memory is judged after the first minute.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Servers to soak, by name, with flavours if wanted: epoll,threads+duplex=on. All by default.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Directories with more servers (executables named serve-NAME), separated by colons.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
}

/// Runs the subcommand. Exit code 1 when a server did not pass.
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
        match Subject::start(server, &place.path().join(workload::DOCUMENTS)) {
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
            eprintln!("{turns} turns each after {} s", begun.elapsed().as_secs());
        }
    }
    let results: Vec<_> = subjects.into_iter().map(Subject::finish).collect();
    for result in &results {
        println!("{}", judge::line(result));
    }
    let wrong: Vec<_> = results.iter().flat_map(judge::complaints).collect();
    for complaint in &wrong {
        eprintln!("iolab: {complaint}");
    }
    if results.iter().all(|result| result.growth.iter().all(Growth::is_unknown)) {
        println!("memory was not judged: that takes some turns after the first minute");
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A directory whose `docs` is the document root.
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
