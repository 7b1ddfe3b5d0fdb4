//! A server whose words are fixed, for tests.

use std::io::{Cursor, Read, Result, Write};

/// A stream with fixed input; it records the output.
pub struct Canned {
    says: Cursor<Vec<u8>>,
    pub told: Vec<u8>,
}

impl Canned {
    pub fn new(says: &[u8]) -> Canned {
        Canned { says: Cursor::new(says.to_vec()), told: Vec::new() }
    }
}

impl Read for Canned {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.says.read(buffer)
    }
}

impl Write for Canned {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.told.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
