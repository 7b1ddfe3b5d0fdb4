//! System calls for which neither std nor nix has a suitable safe form: the only `unsafe` of this
//! crate. man: getppid(2), wait4(2), pidfd_open(2), prctl(2), sched_setaffinity(2),
//! io_uring_setup(2), mincore(2), perf_event_open(2), fsopen(2), ptrace(2), pidfd_getfd(2).

use std::ffi::CStr;
use std::io::{Error, Result};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{NonNull, null};
use std::sync::atomic::{Ordering, fence};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use perf_event_open_sys::{bindings, ioctls, perf_event_open};

/// sizeof(struct io_uring_params): 120 bytes; all zero: no flags (linux/io_uring.h).
const PARAMS_U64S: usize = 15;

/// fsopen(2) and fsmount(2): the new descriptor is not inherited by exec (linux/mount.h).
const FS_CLOEXEC: libc::c_uint = 1;
/// fsconfig(2): creates the file system (linux/mount.h).
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// The cheapest system call. Made by syscall(2), because a C library may cache getppid.
pub fn null_syscall() {
    // SAFETY: getppid takes no argument and cannot fail.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Gives the calling thread the lowest priority of SCHED_OTHER (setpriority(2)).
pub fn lower_priority() {
    const LOWEST: libc::c_int = 19;
    // SAFETY: the call takes no pointer. Each process may lower its own priority.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
}

/// Sets up a small ring and closes it.
///
/// # Errors
/// That of io_uring_setup(2).
pub fn try_ring() -> Result<()> {
    let mut params = [0_u64; PARAMS_U64S];
    // SAFETY: params has the size of struct io_uring_params and lives in this frame; the kernel
    // writes to it during the call only.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4_u32, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor, which has no other owner.
    drop(unsafe { OwnedFd::from_raw_fd(ring as i32) });
    Ok(())
}

/// Whether a page of the first `length` bytes of the file is in memory (mincore(2)). Reads nothing:
/// a read would start the kernel's reading ahead.
///
/// # Errors
/// Those of mmap(2) and mincore(2).
pub fn is_in_memory(file: &std::fs::File, length: usize) -> Result<bool> {
    let mut pages = vec![0_u8; length.div_ceil(PAGE_BYTES)];
    let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
    // SAFETY: a new mapping at an address that the kernel chooses. This function owns it, and does
    // not touch its bytes.
    let map = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) }?;
    // SAFETY: the kernel writes a byte for each page of the mapping to `pages`, which has as many
    // and lives in this frame.
    let asked = unsafe { libc::mincore(map.as_ptr(), length.get(), pages.as_mut_ptr()) };
    let error = Error::last_os_error();
    // SAFETY: this function owns the mapping, and nothing refers to it any more.
    unsafe { munmap(map, length.get()) }?;
    // The lowest bit says whether the page is there; the others are reserved.
    if asked == 0 { Ok(pages.iter().any(|page| page & 1 == 1)) } else { Err(error) }
}

/// What a child does between fork and exec.
pub struct ChildSetup {
    /// The cores to run on; `None`: those of its parent.
    pub cores: Option<CpuSet>,
    /// A file of a cgroup, open for writing. The process that writes `0` to it joins the cgroup.
    pub cgroup: Option<OwnedFd>,
    /// Whether the thread that starts it traces it (PTRACE_TRACEME). It then stops after exec.
    pub traced: bool,
}

/// Kills the child when the thread that starts it ends (PR_SET_PDEATHSIG), and applies `setup`. An
/// error of the child is the error of [`Command::spawn`].
pub fn set_up_child(command: &mut Command, setup: ChildSetup) {
    // SAFETY: between fork and exec the closure makes system calls only and touches no heap; what
    // it reads is owned by the closure.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if let Some(cgroup) = &setup.cgroup {
                nix::unistd::write(cgroup, b"0")?;
            }
            if let Some(cores) = &setup.cores {
                sched_setaffinity(Pid::from_raw(0), cores)?;
            }
            if setup.traced {
                nix::sys::ptrace::traceme()?;
            }
            Ok(())
        });
    }
}

/// A descriptor that becomes readable when the child ends (pidfd_open(2), Linux 5.3).
///
/// # Errors
/// ENOSYS on an older kernel, ESRCH if the child was reaped.
pub fn pidfd(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: the call takes two numbers and no pointer.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    owned(pidfd)
}

/// A copy of the descriptor `number` of the process behind `pidfd` (pidfd_getfd(2), Linux 5.6).
///
/// # Errors
/// EBADF if the process has no such descriptor; EPERM unless this process may trace that one.
pub fn descriptor_of(pidfd: &OwnedFd, number: i32) -> Result<OwnedFd> {
    // SAFETY: the call takes three numbers and no pointer.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
}

/// Where a traced thread has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyscallStop {
    /// Before a system call: its number and arguments.
    Entry(u64, [u64; 6]),
    /// After a system call: its return value or negative errno.
    Exit(i64),
    /// Elsewhere.
    Other,
}

/// PTRACE_GET_SYSCALL_INFO (ptrace(2), Linux 5.3) of a thread that has stopped.
///
/// # Errors
/// ESRCH if the thread has not stopped, or was killed.
pub fn syscall_stop(thread: Pid) -> nix::Result<SyscallStop> {
    let info = nix::sys::ptrace::syscall_info(thread)?;
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: `info` is a local of this frame, and `op` says that the kernel has written
            // this member of the union.
            let entry = unsafe { info.u.entry };
            SyscallStop::Entry(entry.nr, entry.args)
        }
        // SAFETY: as above.
        libc::PTRACE_SYSCALL_INFO_EXIT => SyscallStop::Exit(unsafe { info.u.exit.sval }),
        _ => SyscallStop::Other,
    })
}

/// Waits until one of the threads that the calling thread traces stops or ends (waitpid(2)): its id
/// and status. Not by nix, whose type of a signal has no real-time signals.
///
/// # Errors
/// ECHILD if none is left.
pub fn wait_traced() -> Result<(Pid, libc::c_int)> {
    let mut status = 0;
    let options = libc::__WALL | libc::__WNOTHREAD;
    loop {
        // SAFETY: `status` is a local of this frame and outlives the call.
        let thread = unsafe { libc::waitpid(-1, &mut status, options) };
        match Error::last_os_error() {
            _ if thread > 0 => return Ok((Pid::from_raw(thread), status)),
            error if error.raw_os_error() == Some(libc::EINTR) => {}
            error => return Err(error),
        }
    }
}

/// Lets a stopped thread go on to its next system call (PTRACE_SYSCALL), with this signal; 0 for
/// none.
///
/// # Errors
/// ESRCH if the thread was killed.
pub fn resume_traced(thread: Pid, signal: libc::c_int) -> Result<()> {
    let (request, address) = (libc::PTRACE_SYSCALL, null::<libc::c_void>());
    let signal = libc::c_long::from(signal);
    // SAFETY: the request reads no memory: the address is ignored and the signal is a number.
    match unsafe { libc::ptrace(request, thread.as_raw(), address, signal) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes the result of syscall(2), a new descriptor or -1, an `OwnedFd`.
fn owned(descriptor: libc::c_long) -> Result<OwnedFd> {
    if descriptor < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the caller passes what the kernel has just returned, which has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

/// Mounts tracefs without a mount point: it is reachable by this descriptor only and ends with it.
/// The machine is not changed.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, ENODEV if the kernel has no tracing, ENOSYS before Linux 5.2.
pub fn detached_tracefs() -> Result<OwnedFd> {
    let name = c"tracefs";
    // SAFETY: the kernel reads the name, a constant, during the call only.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FS_CLOEXEC) };
    let context = owned(context)?;
    let fd = context.as_raw_fd();
    let (key, value) = (null::<libc::c_char>(), null::<libc::c_void>());
    // SAFETY: this command takes neither key nor value, and both are null.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, key, value, 0) };
    if created < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the call takes numbers only; `context` is open until the end of this function.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, fd, FS_CLOEXEC, 0) };
    owned(mount)
}

/// A counter of the tracepoint with this number, for the calling thread and all its later
/// descendants (threads and processes). `filter` compares one of the tracepoint's fields with a
/// number (Documentation/trace/events.rst, "Event filtering").
///
/// # Errors
/// Those of perf_event_open(2): EACCES or EPERM by perf_event_paranoid, EMFILE, ENOSYS, EINVAL for
/// a filter that the tracepoint does not have.
pub fn inherited_counter(tracepoint: u64, filter: Option<&CStr>) -> Result<OwnedFd> {
    let mut attributes = bindings::perf_event_attr {
        type_: bindings::PERF_TYPE_TRACEPOINT,
        size: size_of::<bindings::perf_event_attr>() as u32,
        config: tracepoint,
        ..Default::default()
    };
    attributes.set_inherit(1);
    let close_on_exec = libc::c_ulong::from(bindings::PERF_FLAG_FD_CLOEXEC);
    // SAFETY: `attributes` is a local of this frame; the kernel reads it (and may write its own
    // size into it) during the call only.
    let counter = unsafe { perf_event_open(&mut attributes, 0, -1, -1, close_on_exec) };
    let counter = owned(counter.into())?;
    if let Some(filter) = filter {
        let text = filter.as_ptr().cast_mut();
        // SAFETY: the kernel copies the text, which the caller owns, during the call; it does not
        // write to it, whatever the type of the argument says.
        if unsafe { ioctls::SET_FILTER(counter.as_raw_fd(), text) } < 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(counter)
}

/// The samples of one tracepoint in one thread, in a ring buffer (perf_event_open(2)).
#[derive(Debug)]
pub struct Samples {
    /// Keeps the event.
    _event: OwnedFd,
    map: NonNull<libc::c_void>,
    /// Position up to which the samples were taken.
    taken: u64,
}

/// Bytes of the ring buffer of [`Samples`], a power of two; some thousand samples. perf_event_open
/// allows a user without privileges 512 KiB (kernel.perf_event_mlock_kb).
const SAMPLES_BYTES: usize = 256 * 1024;

/// A page: of the page cache, and the one before the ring buffer.
const PAGE_BYTES: usize = 4096;

// SAFETY: the mapping belongs to the value and to no thread.
unsafe impl Send for Samples {}

impl Samples {
    /// Of the tracepoint with this number, in this thread from now on: time on CLOCK_MONOTONIC and
    /// the raw fields.
    ///
    /// # Errors
    /// Those of perf_event_open(2) and mmap(2).
    pub fn of(thread: Pid, tracepoint: u64) -> Result<Samples> {
        let mut attributes = bindings::perf_event_attr {
            type_: bindings::PERF_TYPE_TRACEPOINT,
            size: size_of::<bindings::perf_event_attr>() as u32,
            config: tracepoint,
            sample_type: u64::from(bindings::PERF_SAMPLE_TIME | bindings::PERF_SAMPLE_RAW),
            clockid: libc::CLOCK_MONOTONIC,
            ..Default::default()
        };
        attributes.__bindgen_anon_1.sample_period = 1;
        attributes.set_use_clockid(1);
        let close_on_exec = libc::c_ulong::from(bindings::PERF_FLAG_FD_CLOEXEC);
        // SAFETY: `attributes` is a local of this frame; the kernel uses it during the call only.
        let event =
            unsafe { perf_event_open(&mut attributes, thread.as_raw(), -1, -1, close_on_exec) };
        let event = owned(event.into())?;
        let length = NonZeroUsize::new(PAGE_BYTES + SAMPLES_BYTES).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses; `Samples` owns it until it
        // is dropped.
        let map = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &event, 0) }?;
        Ok(Samples { _event: event, map, taken: 0 })
    }

    /// The records since the last time, as they are in the buffer. The kernel drops samples when
    /// the buffer is full: the space of those that were taken is not given back.
    pub fn take(&mut self) -> Vec<u8> {
        let page = self.map.as_ptr().cast::<bindings::perf_event_mmap_page>();
        // SAFETY: `self` owns the mapping, whose first page is this struct. The kernel writes
        // data_head; a volatile read and a fence order it before the records (perf_event_open(2)).
        let head = unsafe { std::ptr::addr_of!((*page).data_head).read_volatile() };
        fence(Ordering::Acquire);
        let head = head.min(SAMPLES_BYTES as u64);
        let (from, length) = (self.taken as usize, head.saturating_sub(self.taken) as usize);
        self.taken = head;
        let data = self.map.as_ptr().cast::<u8>().wrapping_add(PAGE_BYTES + from);
        // SAFETY: `self` owns the mapping. These bytes are within it, and the kernel does not write
        // to them again, because data_tail stays 0.
        unsafe { std::slice::from_raw_parts(data, length) }.to_vec()
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        // SAFETY: `self` owns the mapping, and nothing refers to it any more.
        let unmapped = unsafe { munmap(self.map, PAGE_BYTES + SAMPLES_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

/// wait4(2): waits for a child's end. Returns its status and resource usage.
///
/// # Errors
/// ECHILD if it was reaped before.
pub fn wait4(pid: Pid) -> Result<(libc::c_int, libc::rusage)> {
    let mut status: libc::c_int = 0;
    // SAFETY: an all-zero rusage is a valid value of this plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: status and usage are locals of this frame and outlive the call.
        let reaped = unsafe { libc::wait4(pid.as_raw(), &mut status, 0, &mut usage) };
        match Error::last_os_error() {
            _ if reaped > 0 => return Ok((status, usage)),
            error if error.raw_os_error() == Some(libc::EINTR) => {}
            error => return Err(error),
        }
    }
}
