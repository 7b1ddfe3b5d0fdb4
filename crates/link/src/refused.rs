//! Why a link cannot be made on this machine, and what to do about it.

use std::fmt;
use std::fs;
use std::io;

use nix::errno::Errno;

/// What was refused, and the remedy, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What the kernel refused, with its error.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no link can be made here: {}; {}", self.why, self.remedy)
    }
}

impl std::error::Error for Refused {}

/// The steps that may be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// unshare(2) with CLONE_NEWUSER.
    UserNamespace,
    /// The user's own id in it (user_namespaces(7)).
    UserMap,
    /// unshare(2) with CLONE_NEWNET.
    NetworkNamespace,
    /// open(2) of /dev/net/tun.
    OpenTun,
    /// ioctl(2) with TUNSETIFF.
    MakeTun,
    /// ioctl(2) with SIOCSIFADDR and others (netdevice(7)).
    Address,
    /// A thread, a descriptor.
    Resources,
}

impl Step {
    fn what(self) -> &'static str {
        match self {
            Step::UserNamespace => "a user namespace (unshare(2), CLONE_NEWUSER)",
            Step::UserMap => "the id of this user in a user namespace (user_namespaces(7))",
            Step::NetworkNamespace => "a network namespace (unshare(2), CLONE_NEWNET)",
            Step::OpenTun => "opening /dev/net/tun",
            Step::MakeTun => "a TUN device (TUNSETIFF, CAP_NET_ADMIN)",
            Step::Address => "the address of a TUN device (SIOCSIFADDR, CAP_NET_ADMIN)",
            Step::Resources => "a thread or descriptor for the emulator",
        }
    }

    /// For `map_err`.
    pub(crate) fn refused<E: Into<io::Error>>(self) -> impl FnOnce(E) -> Refused {
        move |error| self.explain(&error.into(), &|name| sysctl(name))
    }

    fn explain(self, error: &io::Error, sysctl: &dyn Fn(&str) -> Option<String>) -> Refused {
        let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
        let why = match errno {
            Errno::UnknownErrno => format!("{} is refused: {error}", self.what()),
            errno => format!("{} is refused: {errno}", self.what()),
        };
        Refused { why, remedy: self.remedy(errno, sysctl) }
    }

    /// A setting that refuses, by its name, comes before a general remedy.
    fn remedy(self, errno: Errno, sysctl: &dyn Fn(&str) -> Option<String>) -> String {
        let is = |name: &str, value: &str| sysctl(name).as_deref() == Some(value);
        let set = |what: &str| format!("run as root, or allow it: sysctl {what}");
        let namespaces = matches!(self, Step::UserNamespace | Step::NetworkNamespace);
        match (self, errno) {
            (Step::UserNamespace, Errno::EINVAL) => "this process has a second thread, which may \
                not change its user: call link::prepare before the first one, or run as root"
                .to_owned(),
            _ if namespaces && is("user/max_user_namespaces", "0") => {
                set("user.max_user_namespaces=10000")
            }
            _ if namespaces && is("user/max_net_namespaces", "0") => {
                set("user.max_net_namespaces=10000")
            }
            _ if namespaces && is("kernel/unprivileged_userns_clone", "0") => {
                set("kernel.unprivileged_userns_clone=1")
            }
            (Step::OpenTun, Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
                "load it (modprobe tun), or in a container pass it (--device /dev/net/tun)".into()
            }
            (Step::OpenTun, _) => "allow it (chmod 666 /dev/net/tun), or in a container pass it \
                (--device /dev/net/tun)"
                .into(),
            _ if is("kernel/apparmor_restrict_unprivileged_userns", "1") => {
                set("kernel.apparmor_restrict_unprivileged_userns=0")
            }
            (_, Errno::ENOSPC) => "raise user.max_user_namespaces and user.max_net_namespaces \
                (sysctl)"
                .into(),
            (_, Errno::EMFILE | Errno::ENFILE | Errno::EAGAIN | Errno::ENOMEM) => {
                "raise the limits of this user (ulimit -n, ulimit -u)".into()
            }
            _ => "run as root (CAP_SYS_ADMIN and CAP_NET_ADMIN), or in a container with \
                --cap-add SYS_ADMIN --cap-add NET_ADMIN, or with a system-call filter that \
                permits unshare(2) (--security-opt seccomp=unconfined)"
                .into(),
        }
    }
}

fn sysctl(name: &str) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(step: Step, errno: Errno, setting: (&str, &str)) -> String {
        let sysctl = |name: &str| (name == setting.0).then(|| setting.1.to_owned());
        step.explain(&errno.into(), &sysctl).to_string()
    }

    #[test]
    fn the_missing_capability_and_the_remedy_are_named() {
        for (step, errno, setting, parts) in [
            (Step::UserNamespace, Errno::EPERM, ("", ""), ["CLONE_NEWUSER", "seccomp"]),
            (Step::UserNamespace, Errno::EINVAL, ("", ""), ["CLONE_NEWUSER", "link::prepare"]),
            (
                Step::UserNamespace,
                Errno::ENOSPC,
                ("user/max_user_namespaces", "0"),
                ["ENOSPC", "user.max_user_namespaces=10000"],
            ),
            (
                Step::UserNamespace,
                Errno::EPERM,
                ("kernel/unprivileged_userns_clone", "0"),
                ["EPERM", "kernel.unprivileged_userns_clone=1"],
            ),
            (
                Step::NetworkNamespace,
                Errno::EPERM,
                ("kernel/apparmor_restrict_unprivileged_userns", "1"),
                ["CLONE_NEWNET", "apparmor_restrict_unprivileged_userns=0"],
            ),
            (Step::NetworkNamespace, Errno::ENOSPC, ("", ""), ["ENOSPC", "max_net_namespaces"]),
            (Step::OpenTun, Errno::ENOENT, ("", ""), ["ENOENT", "modprobe tun"]),
            (Step::OpenTun, Errno::EACCES, ("", ""), ["EACCES", "chmod 666 /dev/net/tun"]),
            (Step::MakeTun, Errno::EPERM, ("", ""), ["CAP_NET_ADMIN", "run as root"]),
            (Step::Resources, Errno::EMFILE, ("", ""), ["EMFILE", "ulimit"]),
        ] {
            let told = told(step, errno, setting);
            assert!(parts.iter().all(|part| told.contains(part)), "{step:?} {errno}: {told}");
            assert!(!told.contains('\n') && !told.contains("  "), "{told}");
        }
    }
}
