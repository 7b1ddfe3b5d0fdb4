//! Writes the result file after every round. If that fails the run continues, and at the end other
//! folders are tried.

use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};
use record::Results;

use render::failure::{Failure, because};
use render::report::{RESULTS_FILE, write_safely};

/// Prefix of the name of such a folder.
const ELSEWHERE_PREFIX: &str = "iolab-results-";

/// Where the file was written at the end.
pub enum Kept {
    InFolder,
    Elsewhere(PathBuf, Failure),
    /// Not written: the first error.
    Nowhere(Failure),
}

pub struct Keeper {
    folder: PathBuf,
    complained: bool,
}

impl Keeper {
    pub fn new(folder: PathBuf) -> Keeper {
        Keeper { folder, complained: false }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the file before the first trial, so that a folder without write permission is found
    /// before anything is measured.
    ///
    /// # Errors
    /// One sentence: what could not be written, and why.
    pub fn begin(&self, results: &Results) -> Result<(), Failure> {
        survive_file_size_limit();
        write_into(&self.folder, results)
    }

    /// Writes the file after a round. A failure is printed once; the next round tries again.
    pub fn save(&mut self, results: &Results) {
        match write_into(&self.folder, results) {
            Err(failure) if !self.complained => {
                self.complained = true;
                eprintln!(
                    "iolab: {failure}; the run goes on, and each round tries again: free some \
                     space, or the result will be written to another folder at the end"
                );
            }
            Err(_) | Ok(()) => {}
        }
    }

    /// Writes the file after the last round, to the folder or to another place.
    pub fn finish(&self, results: &Results) -> Kept {
        let Err(failure) = write_into(&self.folder, results) else { return Kept::InFolder };
        let home = std::env::home_dir();
        let places = [Some(std::env::temp_dir()), std::env::current_dir().ok(), home];
        let written = places.into_iter().flatten().find_map(|place| {
            let folder =
                tempfile::Builder::new().prefix(ELSEWHERE_PREFIX).tempdir_in(place).ok()?;
            write_into(folder.path(), results).ok()?;
            // Keeps the folder after the program's end.
            Some(folder.keep())
        });
        match written {
            Some(folder) => Kept::Elsewhere(folder, failure),
            None => Kept::Nowhere(failure),
        }
    }
}

/// Makes the folder again if it was removed meanwhile.
fn write_into(folder: &Path, results: &Results) -> Result<(), Failure> {
    let text = results.to_json().map_err(because("cannot write the result as JSON"))?;
    std::fs::create_dir_all(folder)
        .map_err(because(format!("cannot make the result folder {}", folder.display())))?;
    write_safely(&folder.join(RESULTS_FILE), text.as_bytes())
}

/// Blocks SIGXFSZ, which would kill the process in a write beyond RLIMIT_FSIZE. write(2) then fails
/// with EFBIG (setrlimit(2)).
fn survive_file_size_limit() {
    let mut held = SigSet::empty();
    held.add(Signal::SIGXFSZ);
    // If this fails the default action stays in force, which cannot be helped.
    let _ = held.thread_block();
}
