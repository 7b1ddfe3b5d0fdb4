//! A file that is not in memory, and a disk that is slow to read it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::Pid;
use scenario::workload::pattern;

use crate::sys;

/// What a server reads of a file at once, in bytes. A loop then answers others once at most, before
/// it reads the next part: that does not depend on the speed of anything.
pub const READ_BYTES: u64 = 64 * 1024;
/// Bytes of the file: some reads of a server (64 KiB each), and few enough for a slow disk.
pub const FILE_BYTES: u64 = 1 << 20;
/// Bytes per second that the kernel lets a server read, where it can be told to: the file takes a
/// second, in some reads of the kernel's (it reads ahead).
pub const BYTES_PER_S: u64 = FILE_BYTES;
/// A disk that answers so late shows what a read from it costs without being slowed down.
const SLOW_ENOUGH: Duration = Duration::from_millis(5);

/// Why there is no cold file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoFile {
    /// This machine does not allow it. One sentence, with what to do.
    Skip(String),
    /// A call failed.
    Failed(String),
}

impl From<io::Error> for NoFile {
    fn from(error: io::Error) -> NoFile {
        NoFile::Failed(error.to_string())
    }
}

/// A file on a disk, with the known pattern of [`FILE_BYTES`] bytes.
pub struct ColdFile {
    path: PathBuf,
    file: File,
}

impl ColdFile {
    /// Writes the file to this path.
    ///
    /// # Errors
    /// Where the file system keeps its files in memory.
    pub fn create(path: &Path) -> Result<ColdFile, NoFile> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let mut file = options.open(path)?;
        file.write_all(&pattern(FILE_BYTES))?;
        file.sync_all()?;
        let kind = fstatfs(&file).map_err(io::Error::from)?.filesystem_type();
        let file = ColdFile { path: path.to_owned(), file };
        if kind == TMPFS_MAGIC {
            return Err(file.stays_in_memory());
        }
        file.cool()?;
        Ok(file)
    }

    fn stays_in_memory(&self) -> NoFile {
        let folder = self.path.parent().unwrap_or(&self.path).display();
        NoFile::Skip(format!(
            "the file system of {folder} keeps files in memory (as tmpfs does): set TMPDIR to a \
             folder on a disk"
        ))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes out the file and drops it from the page cache (posix_fadvise(2), DONTNEED).
    ///
    /// # Errors
    /// Where it is still in memory then: the advice binds no file system.
    pub fn cool(&self) -> Result<(), NoFile> {
        self.file.sync_all()?;
        let advised = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        advised.map_err(io::Error::from)?;
        match sys::is_in_memory(&self.file, FILE_BYTES as usize)? {
            true => Err(self.stays_in_memory()),
            false => Ok(()),
        }
    }

    /// Makes reads of these processes from the file's disk slow, until the result is dropped.
    /// `None` if the disk is slow by itself.
    ///
    /// # Errors
    /// Where it is quick and cannot be slowed down.
    pub fn slow_down(&self, processes: &[Pid]) -> Result<Option<Slow>, NoFile> {
        match Slow::down(processes, &self.file) {
            Ok(slow) => Ok(Some(slow)),
            Err(_) => self.natural_delay().map(|()| None),
        }
    }

    /// # Errors
    /// If the disk answers too soon for a wait to be told from nothing.
    fn natural_delay(&self) -> Result<(), NoFile> {
        self.cool()?;
        let begun = Instant::now();
        self.file.read_exact_at(&mut [0; 4096], 0)?;
        let took = begun.elapsed();
        match took < SLOW_ENOUGH {
            true => Err(NoFile::Skip(format!(
                "the disk answers within {} us, too quickly to tell, and cannot be slowed down \
                 here: run as root with the blkio controller (cgroup version 1)",
                took.as_micros()
            ))),
            false => Ok(()),
        }
    }
}

/// Processes that may read from a device only so often: a cgroup of version 1 with the controller
/// blkio (Documentation/admin-guide/cgroup-v1/blkio-controller.rst).
pub struct Slow {
    group: PathBuf,
}

/// Where that controller is mounted.
const BLKIO: &str = "/sys/fs/cgroup/blkio";
const PREFIX: &str = "iolab-cold-";

/// Removes what a killed run has left. A group that is in use is not empty, and stays.
fn sweep() {
    for entry in fs::read_dir(BLKIO).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Slow {
    fn down(processes: &[Pid], file: &File) -> io::Result<Slow> {
        sweep();
        let device = file.metadata()?.st_dev();
        let group = Path::new(BLKIO).join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&group)?;
        let slow = Slow { group };
        // A rule is for a whole disk. The device of a partition has none of its own.
        let limit = format!("{}:{} {BYTES_PER_S}", major(device), minor(device));
        fs::write(slow.group.join("blkio.throttle.read_bps_device"), limit)?;
        for process in processes {
            fs::write(slow.group.join("cgroup.procs"), process.to_string())?;
        }
        Ok(slow)
    }
}

impl Drop for Slow {
    /// A group can be removed when its processes have left it.
    fn drop(&mut self) {
        let members = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for process in members.lines() {
            let _ = fs::write(Path::new(BLKIO).join("cgroup.procs"), process);
        }
        let _ = fs::remove_dir(&self.group);
    }
}
