//! How many descriptors a call gives to the kernel to look at. man: select(2), poll(2).

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

/// Descriptors above this are in no set that is read here: select(2) takes 1,024 (FD_SETSIZE), and
/// a caller may have larger sets.
const DESCRIPTORS_MAX: u64 = 1 << 16;

/// `None` for a call that takes no descriptors to wait for, or if its sets cannot be read. The
/// thread has stopped at the entry of the call.
pub(super) fn given(process: Pid, name: &str, arguments: &[u64; 6]) -> Option<u64> {
    let [first, second, third, fourth, ..] = *arguments;
    match name {
        "poll" | "ppoll" => Some(second),
        "select" | "pselect6" => members(process, first, [second, third, fourth]),
        // The kernel keeps the list, and beside it one of those that are ready (epoll(7)).
        "epoll_wait" | "epoll_pwait" | "epoll_pwait2" => Some(0),
        _ => None,
    }
}

/// The descriptors below this one that are in any of the sets at these addresses; 0: no set.
fn members(process: Pid, below: u64, sets: [u64; 3]) -> Option<u64> {
    let below = below.min(DESCRIPTORS_MAX) as usize;
    let memory = File::open(format!("/proc/{process}/mem")).ok()?;
    let mut all = vec![0; below.div_ceil(8)];
    for address in sets.into_iter().filter(|address| *address != 0) {
        let mut set = vec![0; all.len()];
        memory.read_exact_at(&mut set, address).ok()?;
        all.iter_mut().zip(set).for_each(|(all, one)| *all |= one);
    }
    Some(count(&all, below))
}

/// The bits below this one.
fn count(set: &[u8], below: usize) -> u64 {
    let is_in = |descriptor: &usize| set[descriptor / 8] >> (descriptor % 8) & 1 == 1;
    (0..below).filter(is_in).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bits_below_count() {
        assert_eq!(count(&[0b1011_0000, 0b110], 9), 3);
        assert_eq!(count(&[0b1011_0000, 0b110], 10), 4);
        assert_eq!(count(&[], 0), 0);
    }

    #[test]
    fn a_descriptor_in_two_sets_is_one() {
        let (read, write) = ([0b0001_0110_u8, 1], [0b0100_0010_u8, 0]);
        let sets = [read.as_ptr() as u64, write.as_ptr() as u64, 0];
        let own = nix::unistd::getpid();
        assert_eq!(members(own, 9, sets), Some(5));
        assert_eq!(given(own, "select", &[9, sets[0], 0, 0, 0, 0]), Some(4));
        assert_eq!(given(own, "poll", &[sets[0], 7, 0, 0, 0, 0]), Some(7));
        assert_eq!(given(own, "epoll_wait", &[5, 0, 512, 0, 0, 0]), Some(0));
        assert_eq!(given(own, "recvfrom", &[5, 0, 512, 0, 0, 0]), None);
        assert_eq!(members(own, 9, [1, 0, 0]), None);
    }
}
