//! ioctl(2) for TUN devices and addresses, and what a child does before exec: the only `unsafe` of
//! this crate. man: netdevice(7), rtnetlink(7), setns(2), prctl(2);
//! Documentation/networking/tuntap.rst.

use std::fs::OpenOptions;
use std::io::{Error, Result};
use std::mem::zeroed;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Packets that the device keeps until the emulator reads them. It is large, so that the queue
/// that drops is the emulator's. A slot is a pointer: 80 KB.
const DEVICE_QUEUE_PACKETS: u32 = 10_000;

/// A header, a struct ifinfomsg and one attribute, each without padding.
const SETLINK_BYTES: u32 = 16 + 16 + 8;

/// Opens the device file, without a device yet. It belongs to the network namespace of the calling
/// thread.
pub(crate) fn open_tun() -> Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    Ok(options.open("/dev/net/tun")?.into())
}

/// Makes a TUN device: each read(2) and write(2) of the descriptor is one IP packet, without a
/// header before it. Without offloads the kernel cuts TCP's data to the MTU and fills in
/// checksums, as for a wire.
pub(crate) fn make_tun(tun: &OwnedFd, name: &str) -> Result<()> {
    let mut request = named(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes one ifreq, a local of this frame, during the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
    // SAFETY: this request takes a number and no pointer.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD as _, 0) })
}

/// Gives an interface of the calling thread's network namespace its address, its MTU and the
/// length of its queue, and brings it up.
pub(crate) fn bring_up(name: &str, address: Ipv4Addr, mask: Ipv4Addr, mtu: usize) -> Result<()> {
    let mut request = named(name);
    request.ifr_ifru.ifru_addr = sockaddr(address);
    set(libc::SIOCSIFADDR as _, &mut request)?;
    request.ifr_ifru.ifru_netmask = sockaddr(mask);
    set(libc::SIOCSIFNETMASK as _, &mut request)?;
    request.ifr_ifru.ifru_mtu = mtu as libc::c_int;
    set(libc::SIOCSIFMTU as _, &mut request)?;
    lengthen_queue(name)?;
    bring_up_as_it_is(name)
}

/// Sets the length of the device's queue (rtnetlink(7), IFLA_TXQLEN). SIOCSIFTXQLEN would need
/// CAP_NET_ADMIN outside of the user namespace.
fn lengthen_queue(name: &str) -> Result<()> {
    let index = nix::net::if_::if_nametoindex(name)?;
    let mut message = Vec::new();
    // struct nlmsghdr (netlink(7)): length, type, flags, sequence number, port.
    message.extend(SETLINK_BYTES.to_ne_bytes());
    message.extend(libc::RTM_NEWLINK.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message.extend([0; 8]);
    // struct ifinfomsg: family and type of any, the index, no change of flags.
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    // struct rtattr: length, type, value.
    message.extend(8_u16.to_ne_bytes());
    message.extend(libc::IFLA_TXQLEN.to_ne_bytes());
    message.extend(DEVICE_QUEUE_PACKETS.to_ne_bytes());
    let kind = (AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC);
    let route = socket(kind.0, kind.1, kind.2, SockProtocol::NetlinkRoute)?;
    send(route.as_raw_fd(), &message, MsgFlags::empty())?;
    // The answer is a struct nlmsgerr behind a header of 16 bytes: 0, or an error as -errno. The
    // kernel answers within send(2), so a missing answer is an error and not worth a wait.
    let mut answer = [0; 256];
    let bytes = recv(route.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    let error = answer[..bytes].get(16..20).and_then(|error| error.try_into().ok());
    match error.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(Error::from_raw_os_error(-error)),
        None => Err(Error::other("a short answer of rtnetlink(7)")),
    }
}

/// Brings an interface up.
pub(crate) fn bring_up_as_it_is(name: &str) -> Result<()> {
    let mut request = named(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    set(libc::SIOCSIFFLAGS as _, &mut request)
}

/// Makes the child enter a namespace before exec(2), and kills it when the thread that starts it
/// ends (PR_SET_PDEATHSIG). An error of the child is the error of [`Command::spawn`].
pub(crate) fn place(command: &mut Command, namespace: OwnedFd) {
    // SAFETY: between fork and exec the closure makes system calls only and touches no heap; the
    // descriptor is owned by the closure.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        });
    }
}

fn named(name: &str) -> libc::ifreq {
    // SAFETY: an all-zero ifreq is a valid value of this plain C struct.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // The last byte stays 0, which ends the name.
    let room = request.ifr_name.len() - 1;
    for (place, byte) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    // The port comes first, two bytes of 0 (ip(7)).
    for (place, byte) in data[2..].iter_mut().zip(address.octets()) {
        *place = byte as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

/// One request of netdevice(7), on any socket of the namespace.
fn set(request: libc::c_ulong, value: &mut libc::ifreq) -> Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the kernel reads one ifreq, which the caller owns, during the call.
    check(unsafe { libc::ioctl(any.as_raw_fd(), request as _, value) })
}

fn check(result: libc::c_int) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
