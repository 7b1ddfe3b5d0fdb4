//! Whether io_uring may be used. man: io_uring_setup(2), seccomp(2), proc(5).
//!
//! A seccomp filter may kill the caller with SIGSYS. So a child makes the call: this executable
//! with a hidden flag.

use std::io::Error;
use std::process::Command;
use std::time::Duration;

use rig::environment::sysctl;
use rig::server::run_briefly;
use rig::sys;

use super::{Availability, Capability};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Output of the child if io_uring_setup succeeded.
const WORKS: &str = "ok";

/// Settings that may forbid io_uring.
#[derive(Debug, Default)]
struct Evidence {
    /// kernel.io_uring_disabled: permitted for 0 all processes, 1 a group, 2 none (Linux 6.6).
    disabled: Option<String>,
    /// Seccomp mode of this process; 2: a filter is installed.
    seccomp: Option<String>,
}

/// Makes the call in this process. Returns `ok` or the number of the error.
pub fn probe_here() -> String {
    match sys::try_ring() {
        Ok(()) => format!("{WORKS}\n"),
        Err(error) => format!("{}\n", error.raw_os_error().unwrap_or(0)),
    }
}

/// Makes the call in a child, and explains the result.
pub fn check() -> Capability {
    const NAME: &str = "io_uring";
    let said = std::env::current_exe().map_err(|e| e.to_string()).and_then(|executable| {
        let mut command = Command::new(executable);
        command.args(["doctor", "--probe-io-uring"]);
        run_briefly(command, TIMEOUT)
    });
    let (found, remedy) = match said {
        Err(error) => (format!("could not be tried: {error}"), "run iolab doctor again".to_owned()),
        Ok(said) if said.stdout.trim() == WORKS => {
            return Capability::new(NAME, "io_uring_setup works".into(), None);
        }
        Ok(said) => explain(said.stdout.trim().parse().ok(), said.signal, &evidence()),
    };
    Capability { name: NAME, verdict: Availability::Missing, found, remedy }
}

fn evidence() -> Evidence {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    Evidence {
        disabled: sysctl("kernel.io_uring_disabled"),
        seccomp: seccomp.map(|mode| mode.trim().to_owned()),
    }
}

/// What was found and the remedy, for an error number or a fatal signal.
fn explain(errno: Option<i32>, signal: Option<i32>, evidence: &Evidence) -> (String, String) {
    let unknown = || "unknown".to_owned();
    let facts = format!(
        "kernel.io_uring_disabled={}, Seccomp: {}",
        evidence.disabled.clone().unwrap_or_else(unknown),
        evidence.seccomp.clone().unwrap_or_else(unknown),
    );
    let filter = "blocked by a seccomp filter (the default of Docker and containerd): run with \
                  --security-opt seccomp=PROFILE, a profile that allows io_uring_setup, \
                  io_uring_enter and io_uring_register";
    let switched_off = matches!(evidence.disabled.as_deref(), Some("1" | "2"));
    let filtered = evidence.seccomp.as_deref() == Some("2");
    let (what, remedy) = match (errno, signal) {
        (_, Some(libc::SIGSYS)) => ("killed by SIGSYS".to_owned(), filter),
        (_, Some(signal)) => (format!("killed by signal {signal}"), filter),
        (Some(libc::EPERM), _) if switched_off => {
            ("EPERM".into(), "disabled by the administrator: sysctl -w kernel.io_uring_disabled=0")
        }
        (Some(libc::EPERM), _) if filtered => ("EPERM".into(), filter),
        (Some(libc::EPERM), _) => {
            ("EPERM".into(), "a security module forbids it: see the kernel log")
        }
        (Some(libc::ENOSYS), _) => (
            "ENOSYS".into(),
            "the kernel has no io_uring (older than 5.1, built without CONFIG_IO_URING, gVisor): \
             use another kernel",
        ),
        (Some(libc::ENOMEM), _) => ("ENOMEM".into(), "raise locked memory: ulimit -l 8192"),
        (Some(errno), _) => (
            Error::from_raw_os_error(errno).to_string(),
            "use a kernel or container that allows it",
        ),
        (None, None) => ("the child printed nothing".into(), "run iolab doctor again"),
    };
    (format!("{what} ({facts})"), remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(errno: Option<i32>, signal: Option<i32>, disabled: &str, seccomp: &str) -> String {
        let (disabled, seccomp) = (Some(disabled.into()), Some(seccomp.into()));
        let (found, remedy) = explain(errno, signal, &Evidence { disabled, seccomp });
        format!("{found}: {remedy}")
    }

    #[test]
    fn each_way_of_being_refused_has_its_own_remedy() {
        assert!(told(Some(libc::EPERM), None, "0", "2").contains("--security-opt"));
        assert!(told(Some(libc::EPERM), None, "2", "0").contains("sysctl -w"));
        assert!(told(Some(libc::EPERM), None, "0", "0").contains("security module"));
        assert!(told(None, Some(libc::SIGSYS), "0", "2").contains("SIGSYS"));
        assert!(told(Some(libc::ENOSYS), None, "0", "0").contains("CONFIG_IO_URING"));
        assert!(told(Some(libc::EOPNOTSUPP), None, "0", "0").contains("not supported"));
        assert!(told(None, None, "0", "0").contains("again"));
    }

    #[test]
    fn the_probe_answers_with_ok_or_an_error_number() {
        let answer = probe_here();
        let answer = answer.trim();
        assert!(answer == WORKS || answer.parse::<i32>().is_ok_and(|errno| errno > 0), "{answer}");
    }
}
