//! The calls that this model is about, with the arguments of their man pages: the only `unsafe` of
//! this crate.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use libc::{EAGAIN, EINTR, F_SETFL, O_ASYNC, O_NONBLOCK, c_int};
use libc::{SIG_BLOCK, SIGIO, SIGRTMIN, SIGURG, pid_t, pollfd, siginfo_t, sigset_t, timespec};
use readiness::returned;

/// `struct f_owner_ex` of fcntl(2).
#[repr(C)]
pub(crate) struct Owner {
    kind: c_int,
    pid: pid_t,
}

// Numbers of fcntl(2) that libc does not have (asm-generic/fcntl.h).
const F_SETSIG: c_int = 10;
const F_SETOWN_EX: c_int = 15;
/// The owner is a thread.
const F_OWNER_TID: c_int = 0;

impl Owner {
    pub(crate) fn this_thread() -> Owner {
        // SAFETY: no memory is passed.
        Owner { kind: F_OWNER_TID, pid: unsafe { libc::gettid() } }
    }

    /// From here on this descriptor sends its signals to the owner. It must be non-blocking.
    pub(crate) fn raise_signals(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        // SAFETY: the kernel copies `self` during the call; the other two calls pass no memory.
        unsafe {
            returned(libc::fcntl(fd, F_SETOWN_EX, ptr::from_ref(self)))?;
            returned(libc::fcntl(fd, F_SETSIG, SIGRTMIN()))?;
            returned(libc::fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC)).map(drop)
        }
    }
}

/// From here on it sends none.
pub(crate) fn raise_no_signals(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is passed.
    returned(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETFL, O_NONBLOCK) }).map(drop)
}

/// The signals that are waited for.
pub(crate) struct Signals(sigset_t);

impl Signals {
    /// Blocks them in the calling thread.
    pub(crate) fn block() -> io::Result<Signals> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `set` is a local variable; sigemptyset(3) has filled it in before it is read.
        let (set, error) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [SIGIO, SIGURG, SIGRTMIN()] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            (set.assume_init(), libc::pthread_sigmask(SIG_BLOCK, set.as_ptr(), ptr::null_mut()))
        };
        if error == 0 { Ok(Signals(set)) } else { Err(io::Error::from_raw_os_error(error)) }
    }
}

/// A signal that a descriptor has sent; the begin of `siginfo_t` as sigaction(2) has it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Signal {
    pub(crate) number: c_int,
    error: c_int,
    code: c_int,
    /// What happened: the bits of poll(2). Only of a signal that F_SETSIG has set, as `fd`.
    pub(crate) band: libc::c_long,
    pub(crate) fd: c_int,
}

const _: () = assert!(size_of::<Signal>() <= size_of::<siginfo_t>());

/// Takes the first signal out of the queue; sleeps while there is none, but no longer than
/// `timeout`. `None`: none came in time.
pub(crate) fn sigtimedwait(
    signals: &Signals,
    timeout: Option<Duration>,
) -> io::Result<Option<Signal>> {
    let time = timeout.map(|timeout| timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    // SAFETY: all three are owned by this function or its caller for the whole call.
    if unsafe { libc::sigtimedwait(&raw const signals.0, info.as_mut_ptr(), time) } == -1 {
        return match io::Error::last_os_error() {
            // The time is over, or a signal that is not waited for has ended the wait.
            error if matches!(error.raw_os_error(), Some(EAGAIN | EINTR)) => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: `info` is large enough (see above), aligned, and all of it was set; `Signal` has
    // numbers only.
    Ok(Some(unsafe { info.as_ptr().cast::<Signal>().read() }))
}

/// poll(2) that does not wait.
pub(crate) fn poll_now(entries: &mut [pollfd]) -> io::Result<()> {
    // SAFETY: the caller owns the entries, and nothing else touches them during the call.
    let n = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, 0) };
    returned(n).map(drop)
}
