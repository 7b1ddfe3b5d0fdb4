//! How much memory and how many threads the machine allows the process. Read once, at start.
//!
//! A server survives a failed thread creation. But std also maps a signal stack for each new
//! thread, and aborts the process if that fails. So no model may come near the limit.
//!
//! Man pages: getrlimit(2), proc_sys_vm(5), proc_sys_kernel(5), cgroups(7).

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::getuid;

/// Memory mappings of one thread: its stack and its signal stack (sigaltstack(2)), each with a
/// guard page, which is a mapping of its own. Counted in /proc/PID/maps.
const MAPPINGS_PER_THREAD: u64 = 4;

/// 1/8 of the process's mappings is left for code, heaps and the large blocks that malloc(3) maps
/// ([`crate::sys::MMAP_BLOCKS_MAX`] of them).
const MAPPINGS_SHARE_PARTS: u64 = 8;

/// Address space of one thread: its stack (256 KiB, in the crate `conversation`), the signal stack,
/// guard pages, and the receive buffer. Counted in /proc/PID/status: 273 KiB.
const ADDRESSES_PER_THREAD: u64 = 320 << 10;

/// Memory of a thread with a conversation, in bytes: its kernel stack and page tables (some
/// 28 KiB), and the pages of its own stack and receive buffer that it has touched. The sum of two
/// measurements, rounded up: the growth of the control group's memory for each connection that was
/// served once, and the growth of VmRSS after each echoed a body larger than that buffer.
pub(crate) const THREAD_BYTES: usize = 64 << 10;

/// Memory of a server without connections, in bytes: code, heaps, the loops' buffers.
const PROCESS_BYTES: u64 = 16 << 20;

/// Threads of the process without a conversation: main, workers, signals, a runtime's own.
const THREADS_RESERVED: u64 = 32;

/// A limit, and what sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) max: usize,
    pub(crate) reason: &'static str,
}

/// What limits the number of threads. `None`: no limit, or it cannot be read.
#[derive(Debug, Default)]
struct ThreadLimits {
    /// vm.max_map_count.
    mappings: Option<u64>,
    /// Address space that is left (RLIMIT_AS), in bytes.
    addresses: Option<u64>,
    /// What is left of kernel.threads-max.
    machine: Option<u64>,
    /// What is left of kernel.pid_max: each thread has its own number.
    numbers: Option<u64>,
    /// Bytes that connections may hold.
    memory: Option<u64>,
    /// What is left of RLIMIT_NPROC.
    user: Option<u64>,
    /// What is left of pids.max, in the control group that has the least.
    group: Option<u64>,
}

/// The number of threads with conversations, if connections may hold `memory_max` bytes.
pub(crate) fn threads_max(memory_max: usize) -> Bound {
    let limits = ThreadLimits { memory: Some(memory_max as u64), ..ThreadLimits::read() };
    limits.bound()
}

/// Memory that connections may hold, in bytes: half of what the process itself leaves. The other
/// half is for memory that no connection counts: socket buffers in the kernel, free blocks of
/// malloc(3), pages that are used in part.
pub(crate) fn memory_max() -> Bound {
    let total = field("/proc/meminfo", "MemTotal:").map_or(u64::MAX, |kib| kib << 10);
    memory_bound(total, least_memory_max(group_directories("memory")))
}

fn memory_bound(total: u64, group: Option<u64>) -> Bound {
    // Half, because other processes need memory too.
    let machine = (total / 2, "half of the machine's memory (MemTotal)");
    let group = group.map(|max| (max, "the memory of the control group"));
    let (all, reason) = group.into_iter().chain([machine]).min().unwrap_or(machine);
    Bound { max: connections_share(all), reason }
}

fn connections_share(all: u64) -> usize {
    let share = all.saturating_sub(PROCESS_BYTES).max(all / 4) / 2;
    usize::try_from(share).unwrap_or(usize::MAX)
}

/// The lowest memory limit of these control groups (version 2 or 1).
fn least_memory_max(directories: Vec<PathBuf>) -> Option<u64> {
    let limit = |directory: PathBuf| {
        number(&directory.join("memory.max"))
            .or_else(|| number(&directory.join("memory.limit_in_bytes")))
    };
    directories.into_iter().filter_map(limit).min()
}

/// Whether RLIMIT_AS limits the process's address space.
pub(crate) fn addresses_are_limited() -> bool {
    soft_limit(Resource::RLIMIT_AS).is_some()
}

impl ThreadLimits {
    fn read() -> ThreadLimits {
        // Threads of the whole machine: the fourth field of loadavg, "running/all"
        // (proc_loadavg(5)).
        let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let tasks = loadavg.split(['/', ' ']).nth(4).and_then(|all| all.parse().ok());
        let left = |file: &str| Some(number(Path::new(file))?.saturating_sub(tasks.unwrap_or(0)));
        let size = field("/proc/self/status", "VmSize:").map_or(0, |kib| kib << 10);
        ThreadLimits {
            mappings: number(Path::new("/proc/sys/vm/max_map_count")),
            addresses: soft_limit(Resource::RLIMIT_AS).map(|limit| limit.saturating_sub(size)),
            machine: left("/proc/sys/kernel/threads-max"),
            numbers: left("/proc/sys/kernel/pid_max"),
            memory: None,
            user: user_threads_left(),
            group: group_threads_left(),
        }
    }

    fn bound(&self) -> Bound {
        let mappings = |max: u64| (max - max / MAPPINGS_SHARE_PARTS) / MAPPINGS_PER_THREAD;
        // The other half is for the heap.
        let addresses = |left: u64| left / 2 / ADDRESSES_PER_THREAD;
        // The other half is for the connections' buffers.
        let memory = |max: u64| max / 2 / THREAD_BYTES as u64 + THREADS_RESERVED;
        // 1/8 is left for other processes.
        let shared = |left: u64| left - left / 8;
        [
            (self.mappings.map(mappings), "memory mappings (vm.max_map_count)"),
            (self.addresses.map(addresses), "address space (RLIMIT_AS)"),
            (self.machine.map(shared), "threads of the machine (kernel.threads-max)"),
            (self.numbers.map(shared), "thread numbers (kernel.pid_max)"),
            (self.memory.map(memory), "memory (--memory-max)"),
            (self.user, "threads of the user (RLIMIT_NPROC)"),
            (self.group, "threads of the control group (pids.max)"),
        ]
        .into_iter()
        .filter_map(|(max, reason)| Some((max?.saturating_sub(THREADS_RESERVED).max(1), reason)))
        .min()
        .map_or(Bound { max: usize::MAX, reason: "nothing" }, |(max, reason)| Bound {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            reason,
        })
    }
}

/// What RLIMIT_NPROC leaves for this user. The limit does not apply to root, nor to a process with
/// one of two capabilities (setrlimit(2)).
fn user_threads_left() -> Option<u64> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let limit = soft_limit(Resource::RLIMIT_NPROC)?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = line(&status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let exempt = effective.unwrap_or(0) & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0;
    if exempt || getuid().is_root() {
        return None;
    }
    let uid = getuid().as_raw();
    let threads_of = |status: String| {
        let owner = line(&status, "Uid:")?.split_whitespace().next()?.parse::<u32>().ok()?;
        if owner == uid { line(&status, "Threads:")?.parse::<u64>().ok() } else { None }
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let statuses =
        processes.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    Some(limit.saturating_sub(statuses.filter_map(threads_of).sum()))
}

/// What pids.max leaves, in this process's control group and its ancestors.
fn group_threads_left() -> Option<u64> {
    let left = |directory: PathBuf| {
        let max = number(&directory.join("pids.max"))?;
        Some(max.saturating_sub(number(&directory.join("pids.current"))?))
    };
    group_directories("pids").into_iter().filter_map(left).min()
}

/// The directories of the control group of `controller` and of its ancestors. Version 1 mounts each
/// controller separately, version 2 mounts all together (cgroups(7)).
fn group_directories(controller: &str) -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    directories(&groups, &mounts, controller)
}

fn directories(groups: &str, mounts: &str, controller: &str) -> Vec<PathBuf> {
    // hierarchy:controllers:path
    let path = |wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            wanted(controllers).then(|| path.to_owned())
        })
    };
    let first = path(&|controllers| controllers.split(',').any(|name| name == controller));
    let version = if first.is_some() { "cgroup" } else { "cgroup2" };
    let Some(path) = first.or_else(|| path(&|controllers| controllers.is_empty())) else {
        return Vec::new();
    };
    // id parent device root mount-point options ... - type source super-options
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let is_type = after.next() == Some(version);
        let mut options = after.nth(1).unwrap_or_default().split(',');
        let has = version == "cgroup2" || options.any(|option| option == controller);
        let mut before = before.split(' ').skip(3);
        (is_type && has).then(|| Some((before.next()?, before.next()?)))?
    });
    let Some((root, point)) = mount else { return Vec::new() };
    // In a container the mount shows a part of the hierarchy, which may not hold the own group.
    let below = Path::new(&path).strip_prefix(root).unwrap_or(Path::new(""));
    let own = Path::new(point).join(below);
    own.ancestors().take_while(|path| path.starts_with(point)).map(Path::to_owned).collect()
}

fn soft_limit(resource: Resource) -> Option<u64> {
    let (soft, _) = getrlimit(resource).ok()?;
    (soft != nix::libc::RLIM_INFINITY).then_some(soft)
}

/// The number in a file; `None` for "max", or if there is no such file.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after a name in a file such as /proc/meminfo.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    line(&text, name)?.split_whitespace().next()?.parse().ok()
}

fn line<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_all_limits_is_the_limit_of_threads() {
        let none = ThreadLimits::default;
        assert_eq!(none().bound().max, usize::MAX);
        let cases = [
            // The default of Linux: 57,339 of 65,530 mappings, four for each thread.
            (ThreadLimits { mappings: Some(65_530), ..none() }, 14_334 - 32, "max_map_count"),
            (ThreadLimits { addresses: Some(640 << 20), ..none() }, 1024 - 32, "RLIMIT_AS"),
            (ThreadLimits { memory: Some(64 << 20), ..none() }, 512, "--memory-max"),
            (ThreadLimits { machine: Some(8_000), ..none() }, 7_000 - 32, "threads-max"),
            (ThreadLimits { numbers: Some(32_000), ..none() }, 28_000 - 32, "pid_max"),
            (ThreadLimits { user: Some(100), ..none() }, 100 - 32, "RLIMIT_NPROC"),
            (ThreadLimits { group: Some(64), ..none() }, 64 - 32, "pids.max"),
            (ThreadLimits { group: Some(3), ..none() }, 1, "pids.max"),
            (
                ThreadLimits { mappings: Some(65_530), user: Some(50), group: Some(60), ..none() },
                50 - 32,
                "RLIMIT_NPROC",
            ),
        ];
        for (limits, max, reason) in cases {
            let bound = limits.bound();
            assert_eq!(bound.max, max, "{limits:?}");
            assert!(bound.reason.contains(reason), "{limits:?}: {}", bound.reason);
        }
    }

    #[test]
    fn control_groups_of_both_versions_are_found() {
        let first = "5:pids:/a/b\n4:cpu,memory:/a\n0::/\n";
        let mounts = "1 0 0:1 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      2 0 0:2 /a /sys/fs/cgroup/memory rw master:1 - cgroup cgroup rw,memory,cpu\n\
                      3 0 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = |controller| directories(first, mounts, controller);
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let pids = ["/sys/fs/cgroup/pids/a/b", "/sys/fs/cgroup/pids/a", "/sys/fs/cgroup/pids"];
        assert_eq!(found("pids"), paths(&pids));
        assert_eq!(found("memory"), paths(&["/sys/fs/cgroup/memory"]));
        let second = directories("0::/x\n", "1 0 0:1 / /sys/fs/cgroup rw - cgroup2 c rw\n", "pids");
        assert_eq!(second, paths(&["/sys/fs/cgroup/x", "/sys/fs/cgroup"]));
        assert_eq!(directories("", "", "pids"), paths(&[]));
    }

    /// Files of control groups below a directory of the test, which is mounted.
    fn groups_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (file, content) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("its group")).expect("a group");
            fs::write(path, content).expect("a file");
        }
        root
    }

    #[test]
    fn the_least_memory_of_the_own_control_group_and_those_above_is_the_limit() {
        // Version 1 says this where nothing limits: the largest number of whole pages.
        const UNLIMITED: u64 = 0x7fff_ffff_ffff_f000;
        let (v1, v2) = ("memory.limit_in_bytes", "memory.max");
        let huge = UNLIMITED.to_string();
        let cases: [(&str, [&str; 3], Option<u64>); 9] = [
            (v2, ["", "max\n", "67108864\n"], Some(64 << 20)),
            (v2, ["", "33554432\n", "67108864\n"], Some(32 << 20)),
            (v2, ["16777216\n", "max\n", "max\n"], Some(16 << 20)),
            (v2, ["", "max\n", "max\n"], None),
            (v2, ["", "", ""], None),
            (v1, [&huge, "33554432\n", &huge], Some(32 << 20)),
            (v1, [&huge, &huge, "67108864\n"], Some(64 << 20)),
            (v1, [&huge, &huge, &huge], Some(UNLIMITED)),
            (v1, ["", "", "8388608\n"], Some(8 << 20)),
        ];
        for (file, contents, limit) in cases {
            let names = ["", "a/", "a/b/"].map(|directory| format!("{directory}{file}"));
            let files = names.iter().map(String::as_str).zip(contents);
            // "": there is no such file, as in the root of version 2.
            let files: Vec<_> = files.filter(|(_, content)| !content.is_empty()).collect();
            let root = groups_of(&files);
            let point = root.path().display();
            let (groups, mounts) = if file == v1 {
                let other = "9 0 0:9 / /nowhere rw - cgroup2 cgroup2 rw\n";
                let own = format!("1 0 0:1 / {point} rw - cgroup cgroup rw,memory\n");
                ("4:memory:/a/b\n0::/other\n", [other, &own].concat())
            } else {
                ("0::/a/b\n", format!("1 0 0:1 / {point} rw - cgroup2 cgroup2 rw\n"))
            };
            let found = least_memory_max(directories(groups, &mounts, "memory"));
            assert_eq!(found, limit, "{file}: {contents:?}");
        }
    }

    #[test]
    fn a_control_group_without_a_limit_leaves_the_machines() {
        let machine = memory_bound(1 << 30, None);
        assert!(machine.reason.contains("MemTotal"), "{machine:?}");
        assert_eq!(memory_bound(1 << 30, Some(0x7fff_ffff_ffff_f000)), machine);
        let group = memory_bound(1 << 30, Some(64 << 20));
        assert_eq!(group.max, 24 << 20);
        assert!(group.reason.contains("control group"), "{group:?}");
    }

    #[test]
    fn this_machine_allows_threads_and_memory() {
        assert!(threads_max(usize::MAX).max > 0);
        assert!(memory_max().max > 0);
    }

    #[test]
    fn connections_have_a_part_of_small_and_large_machines() {
        for (all, share) in
            [(64 << 20, 24 << 20), (16 << 20, 2 << 20), (16 << 30, (8 << 30) - (8 << 20))]
        {
            assert_eq!(connections_share(all), share, "of {all} bytes");
        }
    }
}
