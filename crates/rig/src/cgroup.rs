//! A memory cgroup for one server. Only there the kernel accounts its own memory for a process
//! (sockets, epoll items, descriptors, stacks). man: cgroups(7); Documentation/admin-guide:
//! cgroup-v1/memory.rst, cgroup-v2.rst.
//!
//! A cgroup also lists all processes of a server, also those that leave its process group. So all
//! are accounted, and none outlives its trial.

use std::fs::{self, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::Process;

use super::server;
use super::unavailable::Unavailable;

/// What the names of these cgroups start with; the rest is the process id of iolab and a number.
const PREFIX: &str = "iolab-";

/// Time limit for killed processes to end, after which their cgroup can be removed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between two attempts to remove a cgroup.
const LEAVE_INTERVAL: Duration = Duration::from_millis(1);

/// Time limit of the program that is run to test a cgroup. It does nothing.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

/// Distinguishes the cgroups of one process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The two interfaces of the memory controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// A separate hierarchy; memory.kmem.* are files.
    One,
    /// The unified hierarchy; figures are lines of memory.stat.
    Two,
}

/// A cgroup in which those of the servers are made.
#[derive(Debug, Clone)]
struct Place {
    version: Version,
    path: PathBuf,
}

/// A memory cgroup. Dropping it kills its processes and removes it.
#[derive(Debug)]
pub struct Cgroup {
    version: Version,
    path: PathBuf,
}

/// Makes a cgroup for one server; `None` if [`unavailable`] says why.
pub fn create() -> Option<Cgroup> {
    // If it fails now but worked before (the parent was removed), the figure is unknown.
    place().as_ref().ok().and_then(|place| place.create().ok())
}

/// Why the kernel's memory for a server cannot be measured; `None` if it can.
pub fn unavailable() -> Option<Unavailable> {
    place().as_ref().err().cloned()
}

/// Where cgroups can be made. Found once, by making one and running a program in it.
fn place() -> &'static Result<Place, Unavailable> {
    static PLACE: OnceLock<Result<Place, Unavailable>> = OnceLock::new();
    PLACE.get_or_init(|| {
        let mut first_refusal = None;
        for place in candidates().map_err(|why| refused(&why))? {
            match place.prove() {
                Ok(()) => {
                    place.sweep();
                    return Ok(place);
                }
                Err(why) => {
                    first_refusal.get_or_insert_with(|| format!("{}: {why}", place.path.display()));
                }
            }
        }
        Err(refused(&first_refusal.unwrap_or_else(|| "no cgroup is mounted".into())))
    })
}

fn refused(why: &str) -> Unavailable {
    Unavailable::new(
        format!("no memory cgroup can be made for a server ({why})"),
        "run as root, or under systemd-run --user --scope -p Delegate=yes; in a container, mount \
         /sys/fs/cgroup writable",
    )
}

/// Where cgroups are made, for `iolab doctor`; `None` if they cannot be made.
pub fn described() -> Option<String> {
    let Place { version, path } = place().as_ref().ok()?;
    let version = match version {
        Version::One => 1,
        Version::Two => 2,
    };
    Some(format!("version {version}, below {}", path.display()))
}

/// The own cgroup, then its ancestors. Version 2 forbids cgroups with controllers below one that
/// holds processes (except the root), so there only an ancestor is usable.
fn candidates() -> Result<Vec<Place>, String> {
    let me = Process::myself().map_err(|e| e.to_string())?;
    let cgroups = me.cgroups().map_err(|e| e.to_string())?;
    let mounts = me.mountinfo().map_err(|e| e.to_string())?;
    let has_memory = |controllers: &[String]| controllers.iter().any(|c| c == "memory");
    let first = cgroups.0.iter().find(|group| has_memory(&group.controllers));
    let unified = || cgroups.0.iter().find(|group| group.hierarchy == 0);
    let (version, group) = match first {
        Some(group) => (Version::One, group),
        None => (Version::Two, unified().ok_or("this process is in no cgroup")?),
    };
    let mount = mounts.0.iter().find(|mount| match version {
        Version::One => mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"),
        Version::Two => mount.fs_type == "cgroup2",
    });
    let mount = mount.ok_or("the memory hierarchy is not mounted")?;
    // In a container the mount shows a part of the hierarchy, which begins at `root`.
    let below = Path::new(&group.pathname)
        .strip_prefix(&mount.root)
        .map_err(|_| "our own cgroup lies outside of what is mounted")?;
    let own = mount.mount_point.join(below);
    let up = own.ancestors().take_while(|path| path.starts_with(&mount.mount_point));
    Ok(up.map(|path| Place { version, path: path.to_owned() }).collect())
}

impl Place {
    fn create(&self) -> Result<Cgroup, Error> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let cgroup = Cgroup { version: self.version, path };
        if self.version == Version::One {
            // Version 1 charges sockets to a cgroup only after a limit was set; "no limit" is
            // enough.
            fs::write(cgroup.path.join("memory.kmem.tcp.limit_in_bytes"), "-1")?;
        }
        Ok(cgroup)
    }

    /// Makes a cgroup, runs this program in it, and checks that its memory was charged.
    fn prove(&self) -> Result<(), String> {
        let cgroup = self.create().map_err(|e| e.to_string())?;
        let join_file = cgroup.join_file().map_err(|e| e.to_string())?;
        let itself = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(itself);
        command.arg("--version");
        server::run_briefly_in(command, PROOF_TIMEOUT, Some(join_file))?;
        match cgroup.kernel_kib() {
            Some(_) => Ok(()),
            None => Err("it does not account for the kernel's memory (Linux 5.18 does, unless \
                         booted with cgroup.memory=nokmem)"
                .into()),
        }
    }

    /// Removes cgroups that a killed iolab left behind. Those of a running iolab are kept.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            let owner = owner.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                // Fails if processes are in it: then it is still in use.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Cgroup {
    /// The file to which a process writes `0` to join. `tasks` of version 1 moves one thread, and a
    /// process between fork and exec has one. Unlike cgroup.procs it needs no lock over all
    /// processes of the machine, which waits for an RCU grace period (5-16 ms).
    pub fn join_file(&self) -> Result<OwnedFd, Error> {
        let file = match self.version {
            Version::One => "tasks",
            Version::Two => "cgroup.procs",
        };
        Ok(OwnedFd::from(OpenOptions::new().write(true).open(self.path.join(file))?))
    }

    /// All processes of the cgroup.
    pub fn processes(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect()
    }

    /// The kernel's memory for these processes, in KiB, with socket buffers. Each core is charged
    /// in portions of up to a page, so the figure is inexact by that.
    pub fn kernel_kib(&self) -> Option<u64> {
        let read = |name| fs::read_to_string(self.path.join(name)).ok();
        let bytes = match self.version {
            Version::One => {
                let number = |name| read(name)?.trim().parse::<u64>().ok();
                number("memory.kmem.usage_in_bytes")? + number("memory.kmem.tcp.usage_in_bytes")?
            }
            Version::Two => kernel_bytes(&read("memory.stat")?)?,
        };
        // 0 means that the kernel does not count.
        (bytes > 0).then_some(bytes / 1024)
    }

    /// Kills all processes that are still in it.
    pub fn kill_all(&self) {
        for pid in self.processes() {
            // Fails if it has ended.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        loop {
            match fs::remove_dir(&self.path) {
                Err(e) if e.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    self.kill_all();
                    std::thread::sleep(LEAVE_INTERVAL);
                }
                // Otherwise the next iolab removes it.
                _ => return,
            }
        }
    }
}

/// The kernel's memory in memory.stat of version 2: `kernel` (stacks, page tables, slab, ...) and
/// `sock` (socket buffers).
fn kernel_bytes(stat: &str) -> Option<u64> {
    let value = |key: &str| {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == key)?.1.parse::<u64>().ok()
    };
    Some(value("kernel")? + value("sock")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_read_by_its_keys() {
        let stat = "anon 1\nfile 2\nkernel 4096\nkernel_stack 16\nsock 1024\nvmalloc 3\n";
        assert_eq!(kernel_bytes(stat), Some(5120));
        assert_eq!(kernel_bytes("anon 1\nkernel_stack 16\nsock 1024\n"), None);
    }

    #[test]
    fn every_candidate_holds_the_one_before() {
        let Ok(places) = candidates() else {
            eprintln!("SKIP no memory cgroup here");
            return;
        };
        assert!(places.windows(2).all(|two| two[0].path.starts_with(&two[1].path)));
    }
}
