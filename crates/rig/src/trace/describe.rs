//! The name of a system call, its descriptor, and its arguments as text.

use syscalls::Sysno;

/// IORING_ENTER_REGISTERED_RING (linux/io_uring.h): the first argument of io_uring_enter(2) is the
/// number of a registered ring and no descriptor.
const REGISTERED_RING: u64 = 1 << 4;

/// A call as a reader writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// As in man section 2.
    pub(super) name: &'static str,
    /// The descriptor that the call is about.
    pub(super) descriptor: Option<i32>,
    /// The arguments that tell something about waiting and copying.
    pub(super) arguments: String,
}

/// Of the call with this number and these arguments.
pub(super) fn describe(number: u64, arguments: &[u64; 6]) -> Description {
    let name = Sysno::new(number as usize).map_or("unknown", |call| call.name());
    let is_number = name == "io_uring_enter" && arguments[3] & REGISTERED_RING != 0;
    let place = descriptor_place(name).filter(|_| !is_number);
    let descriptor = place.map(|place| arguments[place] as i32);
    Description { name, descriptor, arguments: text(name, arguments) }
}

/// Whether a call waits for several descriptors, in select(2), poll(2) or epoll_wait(2).
pub(super) fn waits_for_descriptors(name: &str) -> bool {
    matches!(
        name,
        "select" | "pselect6" | "poll" | "ppoll" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2"
    )
}

/// Which argument is the descriptor.
fn descriptor_place(name: &str) -> Option<usize> {
    match name {
        "epoll_ctl" => Some(2),
        "accept" | "accept4" | "close" | "connect" | "epoll_pwait" | "epoll_pwait2"
        | "epoll_wait" | "fcntl" | "getpeername" | "getsockname" | "getsockopt"
        | "io_uring_enter" | "ioctl" | "listen" | "pread64" | "read" | "readv" | "recvfrom"
        | "recvmmsg" | "recvmsg" | "sendfile" | "sendmmsg" | "sendmsg" | "sendto"
        | "setsockopt" | "shutdown" | "write" | "writev" => Some(0),
        _ => None,
    }
}

fn text(name: &str, arguments: &[u64; 6]) -> String {
    let [first, second, third, fourth, ..] = *arguments;
    let fd = first as i32;
    let timeout = |ms: u64| match ms as i32 {
        ..0 => "no timeout".to_owned(),
        ms => format!("timeout {ms} ms"),
    };
    match name {
        "epoll_wait" | "epoll_pwait" => format!("{fd}, {}", timeout(fourth)),
        "poll" => format!("{second} descriptors, {}", timeout(third)),
        "ppoll" => format!("{second} descriptors"),
        "select" | "pselect6" => format!("descriptors below {fd}"),
        "epoll_ctl" => {
            let operation = match second as i32 {
                libc::EPOLL_CTL_ADD => "add",
                libc::EPOLL_CTL_MOD => "modify",
                libc::EPOLL_CTL_DEL => "delete",
                _ => "?",
            };
            format!("{fd}, {operation}, {}", third as i32)
        }
        "io_uring_enter" => format!("submit {second}, wait for {third}"),
        "recvfrom" | "sendto" if fourth as i32 & libc::MSG_DONTWAIT != 0 => {
            format!("{fd}, {third} bytes, MSG_DONTWAIT")
        }
        "recvfrom" | "sendto" | "read" | "write" => format!("{fd}, {third} bytes"),
        _ if descriptor_place(name).is_some() => fd.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(number: libc::c_long, arguments: &[u64]) -> (&'static str, Option<i32>, String) {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        let Description { name, descriptor, arguments } = describe(number as u64, &all);
        (name, descriptor, arguments)
    }

    #[test]
    fn calls_have_their_names_descriptors_and_arguments() {
        let forever = -1_i32 as u64;
        let epoll = described(libc::SYS_epoll_pwait, &[5, 0, 512, forever]);
        assert_eq!(epoll, ("epoll_pwait", Some(5), "5, no timeout".into()));
        let recv = described(libc::SYS_recvfrom, &[7, 0, 16_384, libc::MSG_DONTWAIT as u64]);
        assert_eq!(recv, ("recvfrom", Some(7), "7, 16384 bytes, MSG_DONTWAIT".into()));
        let add = described(libc::SYS_epoll_ctl, &[5, 1, 7]);
        assert_eq!(add, ("epoll_ctl", Some(7), "5, add, 7".into()));
        assert_eq!(described(libc::SYS_futex, &[1]), ("futex", None, String::new()));
        assert_eq!(described(100_000, &[1]).0, "unknown");
    }
}
