//! The system calls for which neither std nor nix has a safe form that fits: the only `unsafe` of
//! this crate. man: getppid(2), wait4(2), prctl(2), sched_setaffinity(2), io_uring_setup(2).

use std::io::{Error, Result};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// sizeof(struct io_uring_params): 120 bytes, all zero = no flags (linux/io_uring.h).
const PARAMS_U64S: usize = 15;

/// The cheapest system call. Through syscall(2): a C library may answer getppid from memory.
pub fn null_syscall() {
    // SAFETY: getppid takes no argument and cannot fail.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Sets up a small ring and gives it back at once.
///
/// # Errors
/// What io_uring_setup(2) says.
pub fn try_ring() -> Result<()> {
    let mut params = [0_u64; PARAMS_U64S];
    // SAFETY: params is as large as struct io_uring_params and lives in this frame; the kernel
    // writes to it during the call only.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4_u32, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(ring as i32) });
    Ok(())
}

/// Ties a child's life to that of its starter, and pins it to `cores` where they are given.
pub fn tie_and_pin(command: &mut Command, cores: Option<CpuSet>) {
    // SAFETY: between fork and exec the closure makes two system calls and touches no heap; `cores`
    // is owned by the closure.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if let Some(cores) = &cores {
                sched_setaffinity(Pid::from_raw(0), cores)?;
            }
            Ok(())
        });
    }
}

/// wait4(2) without waiting: the status and usage of a child that has ended, `None` while it runs.
///
/// # Errors
/// ECHILD when it was collected before.
pub fn wait4(pid: Pid) -> Result<Option<(libc::c_int, libc::rusage)>> {
    let mut status: libc::c_int = 0;
    // SAFETY: an all-zero rusage is a valid value of this plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: status and usage are locals of this frame and outlive the call.
    let reaped = unsafe { libc::wait4(pid.as_raw(), &mut status, libc::WNOHANG, &mut usage) };
    match reaped {
        0 => Ok(None),
        1.. => Ok(Some((status, usage))),
        _ => Err(Error::last_os_error()),
    }
}
