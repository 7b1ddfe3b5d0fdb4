//! Field blocks (RFC 7541): an encoder that says what it is told, and the status of a reply.

/// An integer with a prefix of `bits` bits; `pattern` is what stands before them (section 5.1).
pub fn integer(pattern: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    let byte = |value: usize| u8::try_from(value & 0xff).unwrap_or_default();
    if value < most {
        return vec![pattern | byte(value)];
    }
    let mut bytes = vec![pattern | byte(most)];
    let mut rest = value - most;
    while rest >= 0x80 {
        bytes.push(byte(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    bytes.push(byte(rest));
    bytes
}

/// A string without Huffman coding (section 5.2).
pub fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [integer(0, 7, text.len()).as_slice(), text].concat()
}

/// A string said to be Huffman coded; the bytes are the caller's (section 5.2).
pub fn huffman(coded: &[u8]) -> Vec<u8> {
    [integer(0x80, 7, coded.len()).as_slice(), coded].concat()
}

/// An indexed field (section 6.1).
pub fn indexed(index: usize) -> Vec<u8> {
    integer(0x80, 7, index)
}

/// A literal that enters the dynamic table (section 6.2.1).
pub fn remembered(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x40], string(name), string(value)].concat()
}

/// A literal without indexing (section 6.2.2).
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0], string(name), string(value)].concat()
}

/// A literal whose name is an index, behind the bits of its form (section 6.2): `bits` are left for
/// the index.
pub fn named(form: u8, bits: u32, name: usize, value: impl AsRef<[u8]>) -> Vec<u8> {
    [integer(form, bits, name), string(value)].concat()
}

/// A change of the dynamic table's size (section 6.3).
pub fn size_update(size: usize) -> Vec<u8> {
    integer(0x20, 5, size)
}

/// Literals, one after another.
pub fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// Reads `:status`, the first field: an entry of the static table (8 to 14), or a literal in
/// digits. For clients that want nothing else of a head.
///
/// # Errors
/// Another first field, or a status in another form.
pub fn status(block: &[u8]) -> Result<u16, String> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let mut block = block;
    // The server may first change the size of its table (section 6.3): an integer with a prefix of
    // 5 bits, whose further bytes except the last have their first bit set.
    while let [first, rest @ ..] = block
        && first & 0xe0 == 0x20
    {
        block = rest;
        if first & 0x1f == 0x1f {
            let last = block.iter().position(|byte| byte & 0x80 == 0);
            block = last.map_or(&[][..], |last| &block[last + 1..]);
        }
    }
    match *block {
        [field, ..] if (0x88..=0x8e).contains(&field) => Ok(STATIC[usize::from(field - 0x88)]),
        [0x48 | 0x08 | 0x18, 3, a, b, c, ..] => {
            let digits = [a, b, c].map(char::from).iter().collect::<String>();
            digits.parse().map_err(|_| format!("{digits:?} is no status"))
        }
        _ => Err(format!("a status that is none of {STATIC:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.1.
    #[test]
    fn integers() {
        assert_eq!(integer(0, 5, 10), [10]);
        assert_eq!(integer(0, 5, 1337), [0b0001_1111, 0b1001_1010, 0b0000_1010]);
        assert_eq!(integer(0, 8, 42), [42]);
        assert_eq!(integer(0x80, 7, 127), [0xff, 0]);
    }

    #[test]
    fn long_values_have_their_length_in_more_than_one_byte() {
        assert_eq!(named(0, 4, 4, "/a"), b"\x04\x02/a");
        assert_eq!(named(0, 4, 4, "a".repeat(127 + 300))[..4], [4, 127, 0x80 | 44, 2]);
    }

    #[test]
    fn a_status_is_read_from_the_table_or_from_digits() {
        assert_eq!(status(&[0x88]), Ok(200));
        assert_eq!(status(&[0x20, 0x8d, 0x76]), Ok(404));
        assert_eq!(status(b"\x48\x03426"), Ok(426));
        assert!(status(&[0x48, 0x82, 0x10, 0x20]).is_err());
        assert!(status(&[]).is_err());
    }
}
