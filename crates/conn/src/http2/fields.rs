//! Finds pseudo-fields in a block of fields. In trailers they are malformed (RFC 9113 section 8.1),
//! and the library drops them silently.
//!
//! A field may be named by its index in HPACK's table (RFC 7541 section 2.3), so the table is
//! followed: for each entry its size, and whether its name begins with a colon. No field is
//! decoded.

use std::collections::VecDeque;

/// Entries of the static table (RFC 7541 appendix A); the first ones are pseudo-fields.
const STATIC_LEN: usize = 61;
const STATIC_PSEUDO_LEN: usize = 14;

const STATIC_NAME_LENS: [u8; STATIC_LEN] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// Bytes that an entry counts besides its name and value (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The default size of the table, in bytes; this server never changes it.
const SIZE_MAX: usize = 4096;

/// The number of codes of each length in bits (RFC 7541 appendix B). The codes of one length are
/// consecutive, so length and value identify a code.
const CODES: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 4,
];

/// The code of a colon (7 bits) at the front of a byte.
const COLON: u8 = 0b1011_1000;

/// The sizes and first characters in HPACK's table.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    size_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    is_pseudo: bool,
    name_len: usize,
    size: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table { entries: VecDeque::new(), size: 0, size_max: SIZE_MAX }
    }
}

impl Table {
    /// Follows one block; true if it has a pseudo-field. `None`: it is not HPACK, and the library
    /// ends the connection.
    pub(super) fn follow(&mut self, mut block: &[u8]) -> Option<bool> {
        let mut found = false;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                found |= self.entry(number(&mut block, 7)?)?.is_pseudo;
            } else if first & 0x60 == 0x20 {
                self.size_max = number(&mut block, 5)?.min(SIZE_MAX);
                self.evict(0);
            } else {
                let indexed = first & 0x40 != 0;
                let (is_pseudo, name_len) = match number(&mut block, if indexed { 6 } else { 4 })? {
                    0 => text(&mut block)?,
                    index => self.entry(index).map(|entry| (entry.is_pseudo, entry.name_len))?,
                };
                found |= is_pseudo;
                let (_, value_len) = text(&mut block)?;
                if indexed {
                    let size = name_len + value_len + ENTRY_OVERHEAD;
                    self.insert(Entry { is_pseudo, name_len, size });
                }
            }
        }
        Some(found)
    }

    fn entry(&self, index: usize) -> Option<Entry> {
        let at = index.checked_sub(1)?;
        match STATIC_NAME_LENS.get(at) {
            Some(&len) => {
                let is_pseudo = at < STATIC_PSEUDO_LEN;
                Some(Entry { is_pseudo, name_len: usize::from(len), size: 0 })
            }
            None => self.entries.get(at - STATIC_LEN).copied(),
        }
    }

    /// An entry that does not fit empties the table (RFC 7541 section 4.4).
    fn insert(&mut self, entry: Entry) {
        self.evict(entry.size);
        if entry.size <= self.size_max {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }

    fn evict(&mut self, more: usize) {
        while self.size + more > self.size_max {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size;
        }
    }
}

/// An integer with so many bits in its first byte (RFC 7541 section 5.1).
fn number(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (&first, mut rest) = block.split_first()?;
    let mask = (1 << bits) - 1;
    let mut value = usize::from(first & mask);
    if value == usize::from(mask) {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            // The library refuses longer ones.
            if shift > 21 {
                return None;
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Some(value)
}

/// A string (RFC 7541 section 5.2): whether it begins with a colon, and its length once decoded.
fn text(block: &mut &[u8]) -> Option<(bool, usize)> {
    let is_coded = block.first()? & 0x80 != 0;
    let len = number(block, 7)?;
    let (bytes, rest) = block.split_at_checked(len)?;
    *block = rest;
    if is_coded {
        return Some((
            bytes.first().is_some_and(|first| first & 0xfe == COLON),
            decoded_len(bytes),
        ));
    }
    Some((bytes.first() == Some(&b':'), len))
}

fn decoded_len(coded: &[u8]) -> usize {
    let (mut symbols, mut code, mut first, mut len) = (0, 0u32, 0u32, 0);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            first = (first + CODES[len]) << 1;
            len += 1;
            if code - first < CODES[len] {
                (symbols, code, first, len) = (symbols + 1, 0, 0, 0);
            } else if len == CODES.len() - 1 {
                return symbols;
            }
        }
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_the_appendix_have_their_lengths() {
        // RFC 7541 appendix C.4 and C.6.
        for (coded, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ] {
            let byte = |at: usize| u8::from_str_radix(&coded[at..at + 2], 16).expect("a byte");
            let bytes: Vec<u8> = (0..coded.len()).step_by(2).map(byte).collect();
            assert_eq!(decoded_len(&bytes), text.len(), "{text}");
        }
    }

    #[test]
    fn a_pseudo_field_is_found_by_every_way_to_name_it() {
        let mut table = Table::default();
        // Into the table: `:path: /x` (62 after the next one is 63), then `a: b`.
        assert_eq!(table.follow(b"\x44\x02/x\x40\x01a\x01b"), Some(true));
        for (block, found) in [
            (&b"\xbf"[..], true),
            (b"\xbe", false),
            (b"\x82", true),
            (b"\x8f", false),
            (b"\x04\x01/", true),
            (b"\x0f\x30\x01/", true),
            (b"\x0f\x2f\x01/", false),
            (b"\x10\x05:path\x01/", true),
            (b"\x00\x01x\x01y", false),
            // `:path` in Huffman's code.
            (b"\x00\x84\xb9\x58\xd3\x3f\x01/", true),
        ] {
            assert_eq!(table.follow(block), Some(found), "{}", block.escape_ascii());
        }
        // A table of size 0 has no entries.
        assert_eq!(table.follow(b"\x20\xbf"), None);
    }
}
