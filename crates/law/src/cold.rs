//! The law of a cold file: a call that reads from the disk waits, whatever the socket does.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use rig::client::{self, Client};
use scenario::workload::pattern;

use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[Law {
    id: "L29",
    claim: "A readiness call on a regular file never waits, so the read does; only io_uring reads \
            files asynchronously.",
    expected: "while a client is sent a file that is not in memory, the longest wait of another \
               client of epoll is at least 5 times that beside a warm file, and that of a client \
               of the pool or of io_uring at most half of epoll's; that client of epoll has at \
               most 2 answers for each part of the file that is read.",
    source: "epoll(7) (EPERM), io_uring(7)",
    shown_by: "iolab laws L29",
    takes_s: 5.0,
    bounds: &[
        Bound::at_most("epoll: answers for each part of the cold file", 2.0),
        Bound::at_least("epoll: longest wait, cold / warm", 5.0),
        Bound::at_most("longest wait, cold: pool / epoll", 0.5),
        Bound::at_most("longest wait, cold: uring / epoll", 0.5),
    ],
    measure: cold_file,
}];

const NAME: &str = "cold.bin";
/// What a server reads of a file at once, in bytes. A loop then answers others once at most, before
/// it reads the next part: that does not depend on the speed of anything.
const PART_BYTES: u64 = 64 * 1024;
/// Some reads of a server (64 KiB each), and few enough for a slow disk.
const FILE_BYTES: u64 = 1 << 20;
/// Bytes per second that the kernel lets a server read, where it can be told to: the file takes a
/// second, in some reads of the kernel's (it reads ahead).
const BYTES_PER_S: u64 = FILE_BYTES;
/// A disk that answers so late shows the law without being slowed down.
const SLOW_ENOUGH: Duration = Duration::from_millis(5);

/// What another client sees while one is sent the file.
struct Meanwhile {
    longest: Duration,
    answers: u32,
}

impl Meanwhile {
    fn answers_each_part(&self) -> f64 {
        f64::from(self.answers) / (FILE_BYTES / PART_BYTES) as f64
    }
}

fn cold_file(lab: &Lab) -> Result<Measured, Reason> {
    let root = lab.folder().join("cold");
    fs::create_dir_all(&root)?;
    let path = root.join(NAME);
    let mut file = File::create(&path)?;
    file.write_all(&pattern(FILE_BYTES))?;
    file.sync_all()?;
    let kind = fstatfs(&file).map_err(std::io::Error::from)?.filesystem_type();
    if kind == TMPFS_MAGIC {
        return Err(Reason::Skip(format!(
            "{} is in memory (tmpfs): set TMPDIR to a folder on a disk",
            root.display()
        )));
    }
    let mut waits = Vec::new();
    for label in ["epoll", "pool", "uring"] {
        let server = lab.start(label, &["--root", &root.display().to_string()])?;
        let warm = meanwhile(server.address, &path, false)?;
        let slow = Slow::down(&server.processes(), &file);
        if slow.is_err() {
            natural_delay(&file)?;
        }
        let cold = meanwhile(server.address, &path, true)?;
        drop(slow);
        server.stop();
        waits.push((label, warm, cold));
    }
    let ms = |seen: &Meanwhile| seen.longest.as_secs_f64() * 1e3;
    let measured = waits.iter().fold(Measured::default(), |all, (label, warm, cold)| {
        all.figure(format!("{label}: longest wait, warm"), ms(warm), "ms")
            .figure(format!("{label}: longest wait, cold"), ms(cold), "ms")
            .figure(
                format!("{label}: answers for each part of the cold file"),
                cold.answers_each_part(),
                "",
            )
    });
    let ratio = |one: &Meanwhile, other: &Meanwhile| ms(one) / ms(other);
    let [(_, warm, cold), (_, _, pool), (_, _, uring)] = &waits[..] else {
        return Err(Reason::Fault("three servers have three waits".to_owned()));
    };
    Ok(measured
        .figure("epoll: longest wait, cold / warm", ratio(cold, warm), "")
        .figure("longest wait, cold: pool / epoll", ratio(pool, cold), "")
        .figure("longest wait, cold: uring / epoll", ratio(uring, cold), "")
        .note(format!(
            "a file of {FILE_BYTES} bytes; where the kernel allows it a server is held to \
             {BYTES_PER_S} bytes/s from the disk (cgroups(7), blkio)"
        )))
}

/// Writes out the file and drops it from the page cache.
fn cool(file: &File) -> Result<(), Reason> {
    file.sync_all()?;
    let advised = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(advised.map_err(std::io::Error::from)?)
}

/// How long the disk takes for the file.
///
/// # Errors
/// If that is too short to be told from nothing.
fn natural_delay(file: &File) -> Result<(), Reason> {
    cool(file)?;
    let begun = Instant::now();
    std::os::unix::fs::FileExt::read_exact_at(file, &mut [0; 4096], 0)?;
    let took = begun.elapsed();
    match took < SLOW_ENOUGH {
        true => Err(Reason::Skip(format!(
            "the disk answers within {} us, too quickly to tell, and cannot be slowed down here: \
             run as root with the blkio controller (cgroup version 1)",
            took.as_micros()
        ))),
        false => Ok(()),
    }
}

/// What a client that asks for `/` sees while another is sent the file.
fn meanwhile(address: SocketAddr, path: &Path, cold: bool) -> Result<Meanwhile, Reason> {
    let file = File::open(path)?;
    let mut other = Client::open(address)?;
    let mut reader = Client::open(address)?;
    other.get("/")?;
    // The reads of a warm file come from memory.
    reader.get(&format!("/files/{NAME}"))?;
    if cold {
        cool(&file)?;
    }
    let reading = std::thread::spawn(move || {
        let read = reader.get(&format!("/files/{NAME}"));
        (reader, read)
    });
    // Asked once at least: the file may be there before this thread runs.
    let mut seen = Meanwhile { longest: other.get("/")?, answers: 1 };
    while !reading.is_finished() {
        seen.longest = seen.longest.max(other.get("/")?);
        seen.answers += 1;
    }
    let ended = |_| Reason::Fault("the reader has ended".to_owned());
    let (reader, read) = reading.join().map_err(ended)?;
    read?;
    client::part(vec![reader, other]);
    Ok(seen)
}

/// Processes that may read from a device only so often: a cgroup of version 1 with the controller
/// blkio (Documentation/admin-guide/cgroup-v1/blkio-controller.rst).
struct Slow {
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
    fn down(processes: &[nix::unistd::Pid], file: &File) -> std::io::Result<Slow> {
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
