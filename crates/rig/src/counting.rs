//! Counts system calls and io_uring operations of a server by the kernel's tracepoints. man:
//! perf_event_open(2), io_uring_enter(2); Documentation/trace/events.rst.
//!
//! The counters are opened on a thread that then starts the server and sleeps. All threads and
//! processes of the server inherit them, and the sleeping thread adds nothing. So all calls of the
//! server are counted, and the number of descriptors does not depend on the server.
//!
//! A counted call costs 165-197 ns more (measured), each switch between threads some microseconds,
//! and each thread 95 KiB of kernel memory (10,000 threads: 950 MB). So the times of such a trial
//! are not used. Batch sizes (events per epoll_wait, completions per io_uring_enter) depend on the
//! speed of server and client, so the counts are those of a somewhat slower server.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use record::Calls;

use crate::sys;

use super::unavailable::Unavailable;

/// Usual mount points of tracefs.
const MOUNT_POINTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The calls that are counted by name: those of a serving server, of allocators and of threads.
/// Other calls count in the total only. Each name costs one counter per thread.
const NAMES: [&str; 50] = [
    "accept",
    "accept4",
    "brk",
    "clock_nanosleep",
    "clone",
    "clone3",
    "close",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "exit",
    "fcntl",
    "futex",
    "getpeername",
    "getrandom",
    "getsockname",
    "getsockopt",
    "io_uring_enter",
    "io_uring_register",
    "ioctl",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstat",
    "newfstatat",
    "openat",
    "poll",
    "ppoll",
    "pread64",
    "preadv",
    "pselect6",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "rt_sigprocmask",
    "rt_sigtimedwait",
    "sched_yield",
    "select",
    "sendfile64",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "write",
    "writev",
];

/// Operations of io_uring that are counted: name and number (enum io_uring_op, linux/io_uring.h;
/// the numbers are part of the kernel's ABI).
pub(crate) const OPERATIONS: [(&str, u8); 21] = [
    ("NOP", 0),
    ("READV", 1),
    ("WRITEV", 2),
    ("READ_FIXED", 4),
    ("WRITE_FIXED", 5),
    ("POLL_ADD", 6),
    ("SENDMSG", 9),
    ("RECVMSG", 10),
    ("TIMEOUT", 11),
    ("ACCEPT", 13),
    ("ASYNC_CANCEL", 14),
    ("LINK_TIMEOUT", 15),
    ("CLOSE", 19),
    ("READ", 22),
    ("WRITE", 23),
    ("SEND", 26),
    ("RECV", 27),
    ("SPLICE", 30),
    ("SHUTDOWN", 34),
    ("MSG_RING", 40),
    ("SEND_ZC", 47),
];

pub(crate) struct Tracepoints {
    tracefs: OwnedFd,
}

impl Tracepoints {
    /// Opens tracefs at its mount point, or mounts it privately.
    pub(crate) fn find() -> Result<Tracepoints, Unavailable> {
        let directory = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
        for place in MOUNT_POINTS {
            if let Ok(tracefs) = open(place, directory, Mode::empty()) {
                let found = Tracepoints { tracefs };
                if found.id("raw_syscalls", "sys_enter").is_ok() {
                    return Ok(found);
                }
            }
        }
        let tracefs = sys::detached_tracefs().map_err(|error| {
            let places = MOUNT_POINTS.join(" or ");
            Unavailable::new(
                format!("tracefs is not readable in {places} and cannot be mounted ({error})"),
                "run as root (in a container: with CAP_SYS_ADMIN)",
            )
        })?;
        let found = Tracepoints { tracefs };
        found.id("raw_syscalls", "sys_enter").map_err(|error| {
            Unavailable::new(
                format!("the kernel has no tracepoint for system calls ({error})"),
                "use a kernel with CONFIG_FTRACE_SYSCALLS",
            )
        })?;
        Ok(found)
    }

    pub(crate) fn id(&self, category: &str, name: &str) -> Result<u64, Errno> {
        let text = self.read(&format!("events/{category}/{name}/id"))?;
        text.trim().parse().map_err(|_| Errno::EINVAL)
    }

    /// Where the fields of a sample are: name, offset and size in bytes.
    pub(crate) fn fields(
        &self,
        category: &str,
        name: &str,
    ) -> Result<Vec<(String, usize, usize)>, Errno> {
        let text = self.read(&format!("events/{category}/{name}/format"))?;
        // `field:u64 user_data;	offset:24;	size:8;	signed:0;`
        let field = |line: &str| {
            let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
            let name = parts.next()?.rsplit([' ', '*']).next()?.to_owned();
            let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
            Some((name, offset, parts.next()?.strip_prefix("size:")?.parse().ok()?))
        };
        Ok(text.lines().filter_map(field).collect())
    }

    fn read(&self, path: &str) -> Result<String, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(self.tracefs.as_fd(), path, flags, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).map_err(|_| Errno::EIO)?;
        Ok(text)
    }
}

/// Keeps all tracepoints in use between the trials of a counting pass. When a tracepoint loses its
/// last user the kernel waits for an RCU grace period. For 53 tracepoints in sequence that took 1.9
/// s, the most expensive part of a trial.
struct Pass {
    /// Dropping this ends the thread that holds the counters.
    hold: Sender<()>,
    holder: JoinHandle<()>,
}

static PASS: Mutex<Option<Pass>> = Mutex::new(None);

/// Keeps the tracepoints in use until [`end_pass`]. Until then all system calls on the machine are
/// slower, so nothing may be timed.
fn begin_pass() -> Result<(), Unavailable> {
    let mut pass = PASS.lock().unwrap_or_else(PoisonError::into_inner);
    if pass.is_some() {
        return Ok(());
    }
    let (hold, end) = channel::<()>();
    let (tell, told) = channel();
    // This thread starts no other, so nothing inherits its counters.
    let holder = std::thread::spawn(move || {
        let counters = Tracepoints::find().and_then(|tracepoints| Counters::open(&tracepoints));
        let (counters, answer) = match counters {
            Ok(counters) => (Some(counters), Ok(())),
            Err(reason) => (None, Err(reason)),
        };
        // The receiver waits for this. Then the thread waits for the end of the pass.
        let _ = tell.send(answer);
        let _ = end.recv();
        drop(counters);
    });
    told.recv().unwrap_or_else(|_| Err(Unavailable::new("a thread ended", "try again")))?;
    *pass = Some(Pass { hold, holder });
    Ok(())
}

/// Ends the current counting pass, which takes two seconds. Must be called before anything is
/// timed, because a tracepoint in use slows all processes.
pub fn end_pass() {
    let pass = PASS.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Pass { hold, holder }) = pass {
        drop(hold);
        // A panic would close the counters too.
        let _ = holder.join();
    }
}

/// Opens all counters on the calling thread, which should then start the server and sleep. Begins a
/// counting pass, which lasts until [`end_pass`].
pub fn open_here() -> Result<Counters, Unavailable> {
    begin_pass()?;
    Counters::open(&Tracepoints::find()?)
}

/// Name -> count.
type Counts = BTreeMap<String, u64>;

/// Open counters.
pub struct Counters {
    total: File,
    by_name: Vec<(&'static str, File)>,
    /// `None`: the kernel has no io_uring, or no tracepoints for it.
    ring: Option<Ring>,
}

struct Ring {
    total: File,
    by_name: Vec<(&'static str, File)>,
}

impl Counters {
    fn open(tracepoints: &Tracepoints) -> Result<Counters, Unavailable> {
        let total = tracepoints.id("raw_syscalls", "sys_enter").map_err(Error::from);
        let total = total.and_then(|id| counter(id, None)).map_err(|error| refused(&error))?;
        let mut by_name = Vec::with_capacity(NAMES.len());
        for name in NAMES {
            // A missing tracepoint: this architecture has no such call (epoll_wait on arm64).
            if let Ok(id) = tracepoints.id("syscalls", &format!("sys_enter_{name}")) {
                by_name.push((name, counter(id, None).map_err(|error| refused(&error))?));
            }
        }
        let ring = match tracepoints.id("io_uring", "io_uring_submit_req") {
            Ok(id) => Some(Ring::open(id).map_err(|error| refused(&error))?),
            Err(_) => None,
        };
        Ok(Counters { total, by_name, ring })
    }

    /// The counts at the start of a window. The totals are read first here and last at the end, so
    /// that the sum of the names cannot exceed the total if the server makes calls meanwhile.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn read_at_start(&self) -> Result<Calls, Error> {
        let (total, ring_operations) = self.totals()?;
        let (by_name, ring_by_name) = self.names()?;
        Ok(Calls { total, by_name, ring_operations, ring_by_name })
    }

    /// The counts at the end of a window.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn read_at_end(&self) -> Result<Calls, Error> {
        let (by_name, ring_by_name) = self.names()?;
        let (total, ring_operations) = self.totals()?;
        Ok(Calls { total, by_name, ring_operations, ring_by_name })
    }

    fn totals(&self) -> Result<(u64, u64), Error> {
        let ring = self.ring.as_ref().map_or(Ok(0), |ring| value(&ring.total))?;
        Ok((value(&self.total)?, ring))
    }

    fn names(&self) -> Result<(Counts, Counts), Error> {
        let ring = self.ring.as_ref().map_or(Ok(Counts::new()), |ring| values(&ring.by_name))?;
        Ok((values(&self.by_name)?, ring))
    }
}

impl Ring {
    fn open(id: u64) -> Result<Ring, Error> {
        let one = |(name, number): (&'static str, u8)| {
            let filter = CString::new(format!("opcode == {number}")).map_err(Error::other)?;
            Ok((name, counter(id, Some(filter))?))
        };
        let by_name = OPERATIONS.into_iter().map(one).collect::<Result<_, Error>>()?;
        Ok(Ring { total: counter(id, None)?, by_name })
    }
}

fn counter(id: u64, filter: Option<CString>) -> Result<File, Error> {
    sys::inherited_counter(id, filter.as_deref()).map(File::from)
}

fn refused(error: &Error) -> Unavailable {
    let remedy = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "run as root or with CAP_PERFMON, or set kernel.perf_event_paranoid to 1 or less; in a \
             container, allow perf_event_open in its seccomp profile"
        }
        Some(libc::ENOSYS) => "use a kernel with CONFIG_PERF_EVENTS",
        Some(libc::EMFILE) => "raise the limit of descriptors (ulimit -n)",
        _ => "see perf_event_open(2)",
    };
    Unavailable::new(format!("the kernel refuses counters of tracepoints ({error})"), remedy)
}

/// A counter without PERF_FORMAT flags reads as one number.
fn value(mut counter: &File) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    counter.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn values(counters: &[(&'static str, File)]) -> Result<Counts, Error> {
    let one = |(name, counter): &(&str, File)| Ok((shown(name).to_owned(), value(counter)?));
    counters.iter().map(one).collect()
}

/// The name, as in man section 2, of the call with this tracepoint.
fn shown(name: &str) -> &str {
    match name {
        "sendfile64" => "sendfile",
        "newfstat" => "fstat",
        "newfstatat" => "fstatat",
        name => name,
    }
}

/// The difference between two readings, without zeros.
pub fn difference(before: &Calls, after: &Calls) -> Calls {
    let maps = |before: &Counts, after: &Counts| {
        let one = |(name, count): (&String, &u64)| {
            let count = count.saturating_sub(before.get(name).copied().unwrap_or(0));
            (count > 0).then(|| (name.clone(), count))
        };
        after.iter().filter_map(one).collect()
    };
    Calls {
        total: after.total.saturating_sub(before.total),
        by_name: maps(&before.by_name, &after.by_name),
        ring_operations: after.ring_operations.saturating_sub(before.ring_operations),
        ring_by_name: maps(&before.ring_by_name, &after.ring_by_name),
    }
}

/// Why system calls cannot be counted; `None` if they can. Tested with one counter, which needs the
/// same as the others.
pub fn unavailable() -> Option<Unavailable> {
    let tried = || {
        let id = Tracepoints::find()?.id("raw_syscalls", "sys_enter");
        let counter = id.map_err(Error::from).and_then(|id| counter(id, None));
        counter.and_then(|counter| value(&counter)).map_err(|error| refused(&error))
    };
    // In a separate thread, which ends together with the counter, so that nothing inherits it.
    match std::thread::spawn(tried).join() {
        // The read(2) itself was counted.
        Ok(Ok(1..)) => None,
        Ok(Ok(0)) => Some(Unavailable::new(
            "the kernel counts none of this process's system calls (gVisor?)",
            "use a Linux kernel",
        )),
        Ok(Err(reason)) => Some(reason),
        Err(_) => Some(Unavailable::new("a thread ended", "try again")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The calls of a shell and two children that each copy `count` bytes one by one. `None` if
    /// they cannot be counted.
    fn two_copies(count: u32) -> Option<Calls> {
        if let Some(reason) = unavailable() {
            eprintln!("SKIP {reason}");
            return None;
        }
        let counted = std::thread::spawn(move || {
            let counters = open_here().unwrap();
            let before = counters.read_at_start().unwrap();
            let copy = format!("dd if=/dev/zero of=/dev/null bs=1 count={count} status=none");
            let script = format!("{copy} & {copy} & wait");
            assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
            difference(&before, &counters.read_at_end().unwrap())
        });
        Some(counted.join().unwrap())
    }

    /// dd reads and writes once for each block; the calls of loading and starting are the same in
    /// both runs.
    #[test]
    fn calls_of_children_and_their_children_are_counted_exactly() {
        let (Some(few), Some(many)) = (two_copies(100), two_copies(2_600)) else { return };
        let more = |name: &str| many.by_name[name] - few.by_name[name];
        assert_eq!((more("read"), more("write")), (5_000, 5_000));
        // The shell's own calls vary by a few, because of SIGCHLD.
        assert!((9_900..=10_100).contains(&(many.total - few.total)), "{few:?} {many:?}");
        assert!(many.by_name.values().sum::<u64>() <= many.total, "{many:?}");
        assert_eq!((many.ring_operations, many.ring_by_name.len()), (0, 0));
    }

    #[test]
    fn a_pass_ends_and_begins_again() {
        if let Some(reason) = unavailable() {
            eprintln!("SKIP {reason}");
            return;
        }
        assert_eq!(begin_pass(), Ok(()));
        end_pass();
        // A second pass needs the resources that the first has released.
        assert_eq!(begin_pass(), Ok(()));
    }

    #[test]
    fn zeros_are_left_out_of_a_difference() {
        let counts = |read: u64| Calls {
            total: 10 * read,
            by_name: Counts::from([("read".into(), read), ("write".into(), 3)]),
            ring_operations: read,
            ring_by_name: Counts::from([("SEND".into(), read)]),
        };
        let between = difference(&counts(2), &counts(5));
        assert_eq!((between.total, between.ring_operations), (30, 3));
        assert_eq!(between.by_name, Counts::from([("read".into(), 3)]));
        assert_eq!(between.ring_by_name, Counts::from([("SEND".into(), 3)]));
    }

    #[test]
    fn each_refusal_has_a_remedy() {
        let told = |errno| refused(&Error::from_raw_os_error(errno)).to_string();
        assert!(told(libc::EACCES).contains("perf_event_paranoid"));
        assert!(told(libc::EPERM).contains("seccomp") && told(libc::EMFILE).contains("ulimit"));
        assert!(told(libc::ENOSYS).contains("CONFIG_PERF_EVENTS"));
    }
}
