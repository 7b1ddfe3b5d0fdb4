//! A memory cgroup for one server: the only place where the kernel says what it keeps for a process
//! (sockets, epoll items, descriptors, stacks). man: cgroups(7); Documentation/admin-guide:
//! cgroup-v1/memory.rst, cgroup-v2.rst.
//!
//! A cgroup also names every process of a server, those that it forks later and those that leave
//! its process group included, so that none is missed in the account and none outlives its trial.

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

/// Time for killed processes to leave, so that their cgroup can be removed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between two tries to remove a cgroup that killed processes are leaving.
const LEAVE_INTERVAL: Duration = Duration::from_millis(1);

/// Time for a program that does nothing, in a cgroup of its own: the proof that it works here.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

/// Distinguishes the cgroups of one process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The two interfaces of the memory controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// A hierarchy of its own; memory.kmem.* are files.
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

/// A memory cgroup, removed when this is dropped, and with it whatever still runs in it.
#[derive(Debug)]
pub struct Cgroup {
    version: Version,
    path: PathBuf,
}

/// Makes a cgroup for one server; `None` where [`unavailable`] says why.
pub fn create() -> Option<Cgroup> {
    // What worked before and does not now (somebody removed the parent) is an unknown figure again.
    place().as_ref().ok().and_then(|place| place.create().ok())
}

/// Why the kernel's memory for a server cannot be told here; `None` when it can.
pub fn unavailable() -> Option<Unavailable> {
    place().as_ref().err().cloned()
}

/// Where cgroups can be made: found once, by making one and running a program in it.
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

/// Where cgroups are made, in words, for the doctor; `None` where they cannot be made.
pub fn described() -> Option<String> {
    let Place { version, path } = place().as_ref().ok()?;
    let version = match version {
        Version::One => 1,
        Version::Two => 2,
    };
    Some(format!("version {version}, below {}", path.display()))
}

/// Our own cgroup, then those above it. Version 2 forbids cgroups with controllers below one that
/// holds processes (unless it is the root), so there only an ancestor can do.
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
    // In a container the mount shows a part of the hierarchy: `root` is where that part begins.
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
            // Version 1 charges sockets to a cgroup from the first limit on: "no limit" is one.
            fs::write(cgroup.path.join("memory.kmem.tcp.limit_in_bytes"), "-1")?;
        }
        Ok(cgroup)
    }

    /// Makes a cgroup, runs this program in it for a moment, and looks whether that was charged.
    fn prove(&self) -> Result<(), String> {
        let cgroup = self.create().map_err(|e| e.to_string())?;
        let entrance = cgroup.entrance().map_err(|e| e.to_string())?;
        let itself = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(itself);
        command.arg("--version");
        server::run_briefly_in(command, PROOF_TIMEOUT, Some(entrance))?;
        match cgroup.kernel_kib() {
            Some(_) => Ok(()),
            None => Err("it does not account for the kernel's memory (Linux 5.18 does, unless \
                         booted with cgroup.memory=nokmem)"
                .into()),
        }
    }

    /// Removes what an iolab left behind that was killed. Those of a living one are its own.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            let owner = owner.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                // Refused while processes are in it: then somebody still uses it.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Cgroup {
    /// The file that takes in whoever writes `0` to it. `tasks` of version 1 takes one thread, and
    /// a process between fork and exec is one thread; unlike cgroup.procs it needs no lock over all
    /// processes of the machine, for which an RCU grace period must pass (5-16 ms here).
    pub fn entrance(&self) -> Result<OwnedFd, Error> {
        let file = match self.version {
            Version::One => "tasks",
            Version::Two => "cgroup.procs",
        };
        Ok(OwnedFd::from(OpenOptions::new().write(true).open(self.path.join(file))?))
    }

    /// All processes in it.
    pub fn processes(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect()
    }

    /// What the kernel keeps for these processes, in KiB, socket buffers included. Charges are
    /// handed out to each core in portions of up to a page, so a small difference is inexact.
    pub fn kernel_kib(&self) -> Option<u64> {
        let read = |name| fs::read_to_string(self.path.join(name)).ok();
        let bytes = match self.version {
            Version::One => {
                let number = |name| read(name)?.trim().parse::<u64>().ok();
                number("memory.kmem.usage_in_bytes")? + number("memory.kmem.tcp.usage_in_bytes")?
            }
            Version::Two => kernel_bytes(&read("memory.stat")?)?,
        };
        // Nothing at all is what a kernel says that does not count.
        (bytes > 0).then_some(bytes / 1024)
    }

    /// Kills whatever is still in it.
    pub fn kill_all(&self) {
        for pid in self.processes() {
            // An error means that it has ended.
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
                // What cannot be removed now is swept by the next iolab.
                _ => return,
            }
        }
    }
}

/// The kernel's part in a memory.stat of version 2: `kernel` (stacks, page tables, slab, ...) and
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
