//! The operations of io_uring(7), which are no system calls: what the thread asks for and what the
//! kernel reports stands in two queues in the memory of the server. They are read while the thread
//! has stopped: submissions at the entry of io_uring_enter(2), completions at its return. man:
//! io_uring_setup(2), process_vm_readv(2).
//!
//! So an operation ends when the server can see that it has ended; the kernel was done before, and
//! `kernel` knows when, where that is allowed.
//! Where the queues cannot be read (kernels before 6.10 do not open their memory to this call), no
//! operation is recorded.

use std::collections::HashMap;
use std::io::IoSliceMut;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::counting::OPERATIONS;

/// mmap(2) offsets of the queues and of the entries (linux/io_uring.h).
const OFFSET_SQ_RING: u64 = 0;
const OFFSET_CQ_RING: u64 = 0x0800_0000;
const OFFSET_SQES: u64 = 0x1000_0000;

/// io_uring_setup(2) flags: entries of another size, which no server here uses, and a submission
/// queue without an array of indices.
const SETUP_SQE128: u32 = 1 << 10;
const SETUP_CQE32: u32 = 1 << 11;
const SETUP_NO_SQARRAY: u32 = 1 << 16;
/// Both queues are in one mapping.
const FEATURE_SINGLE_MMAP: u32 = 1 << 0;
/// More completions will follow for this operation.
const CQE_MORE: u32 = 1 << 1;

/// Sizes of `struct io_uring_sqe`, `struct io_uring_cqe` and `struct io_uring_params`.
const SQE_BYTES: u64 = 64;
const CQE_BYTES: u64 = 16;
const PARAMS_BYTES: usize = 120;

/// What the thread asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Submission {
    pub(super) name: &'static str,
    pub(super) descriptor: i32,
    pub(super) user_data: u64,
}

/// What the kernel reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    /// The operation goes on.
    pub(super) more: bool,
}

/// The rings of all processes of the server, by process and descriptor.
#[derive(Debug, Default)]
pub(super) struct Rings(HashMap<(Pid, i32), Ring>);

/// Places in the memory of the process.
#[derive(Debug, Default)]
struct Ring {
    flags: u32,
    features: u32,
    sq_tail: u64,
    sq_mask: u64,
    sq_array: u64,
    cq_tail: u64,
    cq_mask: u64,
    cqes: u64,
    sq_base: Option<u64>,
    cq_base: Option<u64>,
    sqes_base: Option<u64>,
    /// Entries that have been read until now.
    submitted: u32,
    completed: u32,
}

fn read<const N: usize>(process: Pid, address: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let there = RemoteIoVec { base: usize::try_from(address).ok()?, len: N };
    let read = process_vm_readv(process, &mut [IoSliceMut::new(&mut bytes)], &[there]);
    (read == Ok(N)).then_some(bytes)
}

fn number(process: Pid, address: u64) -> Option<u32> {
    read(process, address).map(u32::from_ne_bytes)
}

/// The four bytes at `place`.
fn word(bytes: &[u8], place: usize) -> u32 {
    let bytes = bytes.get(place..place + 4).and_then(|part| part.try_into().ok());
    u32::from_ne_bytes(bytes.unwrap_or_default())
}

fn long(bytes: &[u8], place: usize) -> u64 {
    let bytes = bytes.get(place..place + 8).and_then(|part| part.try_into().ok());
    u64::from_ne_bytes(bytes.unwrap_or_default())
}

impl Rings {
    /// io_uring_setup(2) has returned `descriptor` and written to `parameters`.
    pub(super) fn set_up(&mut self, process: Pid, descriptor: i32, parameters: u64) {
        let Some(params) = read::<PARAMS_BYTES>(process, parameters) else { return };
        // struct io_uring_params: `sq_off` begins at 40, `cq_off` at 80.
        let offset = |place| u64::from(word(&params, place));
        let ring = Ring {
            flags: word(&params, 8),
            features: word(&params, 20),
            sq_tail: offset(44),
            sq_mask: offset(48),
            sq_array: offset(64),
            cq_tail: offset(84),
            cq_mask: offset(88),
            cqes: offset(100),
            ..Ring::default()
        };
        if ring.flags & (SETUP_SQE128 | SETUP_CQE32) == 0 {
            self.0.insert((process, descriptor), ring);
        }
    }

    /// mmap(2) has mapped a part of `descriptor` at `address`.
    pub(super) fn mapped(&mut self, process: Pid, descriptor: i32, offset: u64, address: u64) {
        let Some(ring) = self.0.get_mut(&(process, descriptor)) else { return };
        match offset {
            OFFSET_SQ_RING => {
                ring.sq_base = Some(address);
                if ring.features & FEATURE_SINGLE_MMAP != 0 {
                    ring.cq_base = Some(address);
                }
            }
            OFFSET_CQ_RING => ring.cq_base = Some(address),
            OFFSET_SQES => ring.sqes_base = Some(address),
            _ => {}
        }
    }

    /// The descriptor was closed.
    pub(super) fn closed(&mut self, process: Pid, descriptor: i32) {
        self.0.remove(&(process, descriptor));
    }

    /// What the thread has asked for since the last time.
    pub(super) fn submissions(&mut self, process: Pid) -> Vec<Submission> {
        let of_process = self.0.iter_mut().filter(|((owner, _), _)| *owner == process);
        of_process.filter_map(|(_, ring)| ring.submissions(process)).flatten().collect()
    }

    /// What the kernel has reported since the last time.
    pub(super) fn completions(&mut self, process: Pid) -> Vec<Completion> {
        let of_process = self.0.iter_mut().filter(|((owner, _), _)| *owner == process);
        of_process.filter_map(|(_, ring)| ring.completions(process)).flatten().collect()
    }
}

impl Ring {
    fn submissions(&mut self, process: Pid) -> Option<Vec<Submission>> {
        let (base, sqes) = (self.sq_base?, self.sqes_base?);
        let tail = number(process, base + self.sq_tail)?;
        let mask = number(process, base + self.sq_mask)?;
        let mut found = Vec::new();
        while self.submitted != tail {
            let mut place = u64::from(self.submitted & mask);
            if self.flags & SETUP_NO_SQARRAY == 0 {
                place = u64::from(number(process, base + self.sq_array + 4 * place)?);
            }
            let sqe: [u8; SQE_BYTES as usize] = read(process, sqes + SQE_BYTES * place)?;
            let known = OPERATIONS.iter().find(|(_, opcode)| *opcode == sqe[0]);
            found.push(Submission {
                name: known.map_or("?", |(name, _)| name),
                descriptor: word(&sqe, 4) as i32,
                user_data: long(&sqe, 32),
            });
            self.submitted = self.submitted.wrapping_add(1);
        }
        Some(found)
    }

    fn completions(&mut self, process: Pid) -> Option<Vec<Completion>> {
        let base = self.cq_base?;
        let tail = number(process, base + self.cq_tail)?;
        let mask = number(process, base + self.cq_mask)?;
        let mut found = Vec::new();
        while self.completed != tail {
            let place = u64::from(self.completed & mask);
            let cqe: [u8; CQE_BYTES as usize] =
                read(process, base + self.cqes + CQE_BYTES * place)?;
            found.push(Completion {
                user_data: long(&cqe, 0),
                result: word(&cqe, 8) as i32,
                more: word(&cqe, 12) & CQE_MORE != 0,
            });
            self.completed = self.completed.wrapping_add(1);
        }
        Some(found)
    }
}
