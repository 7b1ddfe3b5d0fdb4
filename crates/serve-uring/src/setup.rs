//! Makes a ring, or says why that is not possible. A kernel may lack io_uring, and container
//! runtimes and administrators switch it off.
//!
//! Man pages: io_uring_setup(2), io_uring_register(2), proc_sys_kernel(5).

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use io_uring::{Builder, IoUring, Probe, opcode};
use nix::errno::Errno;

use crate::msg_ring::Waker;
use crate::ring::{Completion, Op, Receive, Ring, Token, pack};

/// Size of the submission queue. More requests wait in the program.
const SUBMISSIONS: u32 = 1024;

/// Size of the completion queue. The kernel keeps more completions (IORING_FEAT_NODROP), but an
/// overflow ends every multishot request.
const COMPLETIONS: u32 = 8192;

/// How long the trial may take. What it waits for has already happened, so only a kernel that
/// cannot do it lets this time pass. It is long, because a busy machine must not look like such a
/// kernel.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A ring with the best flags that the kernel knows.
///
/// # Errors
/// What io_uring_setup(2) says.
pub(crate) fn uring() -> io::Result<IoUring> {
    // Linux 6.6: without the index array of the queue, which this program does not use.
    let mut newest = deferring();
    newest.setup_no_sqarray();
    // Linux 6.0: completions are made when the program enters the kernel in any case, and not by
    // an interrupt; `taskrun_flag` says that there are some.
    let mut oldest = common();
    oldest.setup_coop_taskrun().setup_taskrun_flag();
    for builder in [newest, deferring()] {
        match builder.build(SUBMISSIONS) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            result => return result,
        }
    }
    oldest.build(SUBMISSIONS)
}

/// Linux 6.1: one thread uses the ring, and completions are made only while it waits: all
/// together, with a warm cache.
fn deferring() -> Builder {
    let mut builder = common();
    builder.setup_single_issuer().setup_defer_taskrun();
    builder
}

fn common() -> Builder {
    let mut builder = IoUring::builder();
    // A request that fails must not stop the submission of those after it.
    builder.setup_submit_all().setup_cqsize(COMPLETIONS).setup_clamp();
    builder
}

/// Why this machine cannot run the model, if so, and what to do about it.
pub(crate) fn unavailable() -> Option<String> {
    trial().err()
}

/// Does once all that the model needs.
fn trial() -> Result<(), String> {
    let mut uring = uring().map_err(|error| refused(&error))?;
    let mut probe = Probe::new();
    let probed = uring.submitter().register_probe(&mut probe);
    probed.map_err(|error| refused(&error))?;
    const OPS: [u8; 9] = [
        opcode::AcceptMulti::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
        opcode::MsgRingData::CODE,
        opcode::PollAdd::CODE,
        opcode::Read::CODE,
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
    ];
    if !OPS.into_iter().all(|op| probe.is_supported(op)) {
        return Err(TOO_OLD.to_owned());
    }
    let works = receive_and_wake(&mut uring).map_err(|error| refused(&error))?;
    if works { Ok(()) } else { Err(TOO_OLD.to_owned()) }
}

/// Does two things as the model does them, which no list of features covers: receives a byte,
/// multishot, into a provided buffer; and sends a message to a ring, which here is the same one.
fn receive_and_wake(uring: &mut IoUring) -> io::Result<bool> {
    const ME: Token = Token { slot: 0, generation: 0 };
    let waker = Waker::of(uring)?;
    let mut ring = Ring::new(uring)?;
    let (ours, mut theirs) = UnixStream::pair()?;
    theirs.write_all(b"?")?;
    drop(theirs);
    ring.receive(ours.as_fd(), ME, Receive::Multishot, false);
    ring.wake(waker.wake_up(pack(Op::WakeUp, ME)));
    let (mut received, mut woken) = (false, false);
    let begun = Instant::now();
    // The byte, then the end of the stream, which also ends the request.
    while !(ring.is_idle() && woken) && begun.elapsed() < TRIAL_TIMEOUT {
        ring.enter(Some(TRIAL_TIMEOUT))?;
        while let Some(completion) = ring.next() {
            match completion {
                Completion::Received { result, more, .. } => {
                    if let Some(buffer) = result? {
                        received = more && ring.bytes(&buffer) == b"?";
                        ring.give_back(buffer);
                    }
                }
                Completion::WokenUp { token } => woken = token == ME,
                _ => {}
            }
        }
    }
    Ok(received && woken)
}

const TOO_OLD: &str = "this kernel's io_uring cannot receive repeatedly into provided buffers, or \
                       not send messages from ring to ring; Linux 6.0 or newer can do both";

/// What the machine says about who may use io_uring.
#[derive(Debug, Default)]
struct Policy {
    /// The sysctl kernel.io_uring_disabled (6.6).
    disabled: Option<u8>,
    /// The sysctl kernel.io_uring_group.
    group: Option<i64>,
    /// A seccomp filter is in force (proc_pid_status(5)).
    seccomp: bool,
}

impl Policy {
    fn read() -> Policy {
        let number = |path| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Policy {
            disabled: number("/proc/sys/kernel/io_uring_disabled")
                .and_then(|level| u8::try_from(level).ok()),
            group: number("/proc/sys/kernel/io_uring_group"),
            seccomp: seccomp.is_some_and(|mode| mode.trim() == "2"),
        }
    }
}

fn refused(error: &io::Error) -> String {
    explain(error, &Policy::read())
}

/// One sentence: what was refused, why, what to do.
fn explain(error: &io::Error, policy: &Policy) -> String {
    const SECCOMP: &str = "a seccomp filter forbids it, as container runtimes do by default; start \
                           the container with a profile that allows io_uring_setup, io_uring_enter \
                           and io_uring_register (--security-opt seccomp=FILE)";
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let reason = match errno {
        Errno::EPERM if policy.disabled == Some(2) => {
            "it is switched off; `sysctl kernel.io_uring_disabled=0` as root switches it on"
                .to_owned()
        }
        Errno::EPERM if policy.disabled == Some(1) => format!(
            "only members of group {} may use it (kernel.io_uring_group); join that group, or \
             `sysctl kernel.io_uring_disabled=0` as root allows it to all users",
            policy.group.unwrap_or(-1)
        ),
        Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::EOPNOTSUPP if policy.seccomp => {
            SECCOMP.to_owned()
        }
        Errno::EPERM | Errno::EACCES => {
            "a security module forbids it; ask the administrator who set its policy".to_owned()
        }
        Errno::ENOSYS | Errno::EOPNOTSUPP => {
            "this kernel or sandbox has none; Linux 6.0 with CONFIG_IO_URING has".to_owned()
        }
        Errno::EINVAL => "this kernel's is too old; Linux 6.0 or newer is needed".to_owned(),
        Errno::ENOMEM => {
            "no memory may be locked for it; raise `ulimit -l` or the memory limit".to_owned()
        }
        Errno::EMFILE | Errno::ENFILE => "no descriptor is left; raise `ulimit -n`".to_owned(),
        _ => "see io_uring_setup(2) for what that means".to_owned(),
    };
    format!("io_uring is not available: {error}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(errno: i32, policy: &Policy) -> String {
        explain(&io::Error::from_raw_os_error(errno), policy)
    }

    #[test]
    fn every_refusal_is_one_line_that_names_its_remedy() {
        let disabled = |level| Policy { disabled: Some(level), ..Policy::default() };
        let filtered = Policy { seccomp: true, ..disabled(0) };
        let cases = [
            (libc::EPERM, disabled(2), "kernel.io_uring_disabled=0"),
            (libc::EPERM, Policy { group: Some(1234), ..disabled(1) }, "group 1234"),
            (libc::EPERM, filtered, "--security-opt seccomp="),
            (libc::EPERM, disabled(0), "security module"),
            (libc::ENOSYS, Policy::default(), "CONFIG_IO_URING"),
            (libc::EINVAL, Policy::default(), "Linux 6.0"),
            (libc::ENOMEM, Policy::default(), "ulimit -l"),
            (libc::EMFILE, Policy::default(), "ulimit -n"),
            (libc::EIO, Policy::default(), "io_uring_setup(2)"),
        ];
        for (errno, policy, remedy) in cases {
            let sentence = reason(errno, &policy);
            assert!(sentence.contains(remedy), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
            assert!(sentence.starts_with("io_uring is not available: "), "{sentence}");
        }
    }

    #[test]
    fn a_filter_is_named_also_where_it_answers_as_if_there_were_no_such_call() {
        let filtered = Policy { seccomp: true, ..Policy::default() };
        assert!(reason(libc::ENOSYS, &filtered).contains("seccomp"));
        assert!(!reason(libc::EINVAL, &filtered).contains("seccomp"));
    }

    #[test]
    fn a_trial_says_the_same_twice() {
        assert_eq!(unavailable(), unavailable());
    }
}
