//! Completions: what was asked for, what came of it, and the 64 bits of `user_data` that carry the
//! name of a request to the kernel and back.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::provided_buffers::Buffer;
use crate::msg_ring::WakeUp;

/// Names a connection. A slot of the table is used again, and the generation tells its connections
/// apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) slot: u32,
    /// 24 bits.
    pub(crate) generation: u32,
}

/// Generations are counted modulo this.
pub(crate) const GENERATIONS: u32 = 1 << 24;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    Accept,
    Stop,
    Receive,
    Send,
    ReadFile,
    /// A message to another ring.
    MsgRing,
    /// A message from another ring, which was not asked for in this one.
    WakeUp,
    /// Cancel or close: the completion is not looked at.
    Quiet,
}

/// What was done.
#[derive(Debug)]
pub(crate) enum Completion {
    /// A connection, or why there is none. `more`: the same request will bring others.
    Accepted { result: io::Result<OwnedFd>, more: bool },
    /// Bytes, or `None` at the end of the stream. `more`: the same request will bring others.
    /// `emptied`: no bytes were left in the socket.
    Received { token: Token, result: io::Result<Option<Buffer>>, more: bool, emptied: bool },
    /// So many bytes were sent.
    Sent { token: Token, result: io::Result<usize> },
    /// Bytes of a file; none at its end.
    FileRead { token: Token, result: io::Result<Bytes> },
    /// Another loop wakes this connection.
    WokenUp { token: Token },
    /// The other ring had no memory for this message: it is to be sent again.
    Undelivered { wake_up: WakeUp },
    /// The descriptor that is watched for the stop is readable.
    Stop,
}

/// The 64 bits of `user_data`: operation 8, slot 32, generation 24.
pub(crate) fn pack(op: Op, token: Token) -> u64 {
    op as u64 | u64::from(token.slot) << 8 | u64::from(token.generation) << 40
}

/// By their numbers in `user_data`.
pub(super) const OPS: [Op; 8] =
    [Op::Accept, Op::Stop, Op::Receive, Op::Send, Op::ReadFile, Op::MsgRing, Op::WakeUp, Op::Quiet];

pub(crate) fn unpack(user_data: u64) -> Option<(Op, Token)> {
    let op = *OPS.get((user_data & 0xff) as usize)?;
    let token = Token { slot: (user_data >> 8) as u32, generation: (user_data >> 40) as u32 };
    Some((op, token))
}
