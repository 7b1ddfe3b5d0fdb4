//! Network namespaces without a name: a descriptor holds one, and the kernel removes it with the
//! last descriptor, thread and process that is in it. man: network_namespaces(7),
//! user_namespaces(7), unshare(2), setns(2).

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::refused::{Refused, Step};
use crate::{MTU_BYTES, sys};

/// The name of the device in each of the two namespaces.
pub(crate) const DEVICE: &str = "link0";
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// Bits of capabilities(7), linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// A network namespace at one end of a link.
#[derive(Debug)]
pub struct Namespace {
    descriptor: OwnedFd,
    address: Ipv4Addr,
}

impl Namespace {
    /// Makes one with a TUN device of this address. Returns the descriptor of the device too.
    pub(crate) fn new(address: Ipv4Addr) -> Result<(Namespace, OwnedFd), Refused> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(Step::NetworkNamespace.refused())?;
            let own = File::open("/proc/thread-self/ns/net").map_err(Step::Resources.refused())?;
            let tun = sys::open_tun().map_err(Step::OpenTun.refused())?;
            sys::make_tun(&tun, DEVICE).map_err(Step::MakeTun.refused())?;
            sys::bring_up_as_it_is("lo").map_err(Step::Address.refused())?;
            sys::bring_up(DEVICE, address, MASK, MTU_BYTES).map_err(Step::Address.refused())?;
            Ok((Namespace { descriptor: own.into(), address }, tun))
        };
        on_a_thread(make).map_err(Step::Resources.refused())?
    }

    /// Its address on the link.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Does the work on a thread in this namespace, and waits for it. Sockets that it opens, and
    /// threads and processes that it starts, are in the namespace too. A process that dies with
    /// its parent (PR_SET_PDEATHSIG) dies with this thread.
    ///
    /// # Errors
    /// That of setns(2), or of a thread that cannot be started.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| self.enter().map(|()| work()))?
    }

    /// Puts the calling thread into this namespace, until its end.
    ///
    /// # Errors
    /// That of setns(2).
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.descriptor, CloneFlags::CLONE_NEWNET)?)
    }

    /// Makes a child of this command start in this namespace. It is killed when the thread that
    /// starts it ends (PR_SET_PDEATHSIG).
    ///
    /// # Errors
    /// That of a descriptor that cannot be duplicated.
    pub fn place(&self, command: &mut Command) -> io::Result<()> {
        sys::place(command, self.descriptor.try_clone()?);
        Ok(())
    }

    /// Packets that its device dropped because the emulator did not read them in time (proc(5),
    /// /proc/net/dev).
    pub(crate) fn overrun(&self) -> io::Result<u64> {
        let text = self.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line =
            text.lines().find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'));
        // Eight columns of what was received, then bytes, packets, errs, drop.
        let drop = line.and_then(|line| line.split_whitespace().nth(11)?.parse().ok());
        drop.ok_or_else(|| io::Error::other(format!("no {DEVICE} in {text:?}")))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Allows this process to make network namespaces: unless it has the capabilities (as root has),
/// it enters a user namespace, in which it has them. Its files and its user stay the same, and
/// programs that it starts have no capability. A process with a second thread cannot do this
/// (unshare(2)), so `main` calls this first.
///
/// # Errors
/// Why user namespaces are refused here.
pub fn prepare() -> Result<(), Refused> {
    let held = capabilities().map_err(Step::UserNamespace.refused())?;
    if [CAP_NET_ADMIN, CAP_SYS_ADMIN].iter().all(|bit| held >> bit & 1 == 1) {
        return Ok(());
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(Step::UserNamespace.refused())?;
    // A user without capabilities may map its group only if setgroups(2) is off.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).map_err(Step::UserMap.refused())?;
    }
    Ok(())
}

/// The effective capabilities of the calling thread, a bit each (proc(5), CapEff).
fn capabilities() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.ok_or_else(|| io::Error::other("no CapEff in /proc/thread-self/status"))
}
