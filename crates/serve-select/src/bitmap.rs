//! An `fd_set`. The macros of the C library have no bounds check and cannot walk the set bits; this
//! has the same layout.

use std::ptr;

use libc::{FD_SETSIZE, c_ulong, fd_set};

const WORD_BITS: usize = c_ulong::BITS as usize;

/// One bit per descriptor.
#[derive(Clone, Default)]
#[repr(C)]
pub(crate) struct Bitmap([c_ulong; FD_SETSIZE / WORD_BITS]);

impl Bitmap {
    /// FD_SET and FD_CLR.
    pub(crate) fn set(&mut self, fd: usize, on: bool) {
        let bit = 1 << (fd % WORD_BITS);
        let word = &mut self.0[fd / WORD_BITS];
        if on { *word |= bit } else { *word &= !bit }
    }

    /// FD_ISSET.
    pub(crate) fn has(&self, fd: usize) -> bool {
        self.0[fd / WORD_BITS] & (1 << (fd % WORD_BITS)) != 0
    }

    /// The descriptors in one of both, a word of bits at a time.
    pub(crate) fn union(&self, other: &Bitmap) -> impl Iterator<Item = usize> {
        let words = self.0.iter().zip(&other.0).map(|(one, other)| one | other).enumerate();
        words.flat_map(|(index, mut left)| {
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(index * WORD_BITS + bit)
            })
        })
    }

    /// As select(2) takes it.
    pub(crate) fn as_fd_set(&mut self) -> *mut fd_set {
        ptr::from_mut(self).cast()
    }
}
