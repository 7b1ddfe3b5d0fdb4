//! What was measured is not lost: the result file is written after every round, and where that
//! fails the run goes on, and the file is written somewhere else at the end.

use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};
use record::Results;

use crate::failure::{Failure, because};
use crate::report::{RESULTS_FILE, write_safely};

/// What the name of a folder made in need starts with.
const ELSEWHERE_PREFIX: &str = "iolab-results-";

/// Where the file is in the end.
pub enum Kept {
    /// In the folder of the run.
    InFolder,
    /// In another folder, and why.
    Elsewhere(PathBuf, Failure),
    /// Nowhere: every place that was tried refused. The first reason.
    Nowhere(Failure),
}

/// Writes the result file of one run.
pub struct Keeper {
    folder: PathBuf,
    complained: bool,
}

impl Keeper {
    /// For the file in this folder.
    pub fn new(folder: PathBuf) -> Keeper {
        Keeper { folder, complained: false }
    }

    /// The folder of the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the file before the first trial: a folder that cannot be written is refused while
    /// nothing can be lost yet.
    ///
    /// # Errors
    /// One sentence: what could not be written, and why.
    pub fn begin(&self, results: &Results) -> Result<(), Failure> {
        survive_file_size_limit();
        write_into(&self.folder, results)
    }

    /// Writes the file after a round. A failure is told once and does not end the run: the next
    /// round tries again.
    pub fn save(&mut self, results: &Results) {
        match write_into(&self.folder, results) {
            Err(failure) if !self.complained => {
                self.complained = true;
                eprintln!(
                    "iolab: {failure}; the run goes on, and every round tries again: make room, \
                     or let it end and it looks for another place"
                );
            }
            Err(_) | Ok(()) => {}
        }
    }

    /// Writes the file after the last round, here or wherever it can be written.
    pub fn finish(&self, results: &Results) -> Kept {
        let Err(failure) = write_into(&self.folder, results) else { return Kept::InFolder };
        let home = std::env::home_dir();
        let places = [Some(std::env::temp_dir()), std::env::current_dir().ok(), home];
        let written = places.into_iter().flatten().find_map(|place| {
            let folder =
                tempfile::Builder::new().prefix(ELSEWHERE_PREFIX).tempdir_in(place).ok()?;
            write_into(folder.path(), results).ok()?;
            // From here on nobody removes it.
            Some(folder.keep())
        });
        match written {
            Some(folder) => Kept::Elsewhere(folder, failure),
            None => Kept::Nowhere(failure),
        }
    }
}

/// A folder that was removed meanwhile is made again.
fn write_into(folder: &Path, results: &Results) -> Result<(), Failure> {
    let text = results.to_json().map_err(because("cannot write the result as JSON"))?;
    std::fs::create_dir_all(folder)
        .map_err(because(format!("cannot make the result folder {}", folder.display())))?;
    write_safely(&folder.join(RESULTS_FILE), text.as_bytes())
}

/// A write beyond RLIMIT_FSIZE kills the process unless the signal is held back; then write(2) says
/// EFBIG, like any other full disk (setrlimit(2)).
fn survive_file_size_limit() {
    let mut held = SigSet::empty();
    held.add(Signal::SIGXFSZ);
    // Refused, it leaves the kernel's default in force: nothing better can be done.
    let _ = held.thread_block();
}
