//! HPACK: fields as indices and literals (RFC 7541). Decoder and encoder each have a table of
//! fields that they have in common with the peer's encoder and decoder.

mod decoder;
mod encoder;
mod huffman;

pub(super) use decoder::{Decoder, Error, Fields};
pub(super) use encoder::{Encoder, Said, name};

/// The size of a table before SETTINGS change it (RFC 9113 section 6.5.2), in bytes. This server
/// never asks for another.
pub(super) const TABLE_BYTES: usize = 4096;

/// Bytes that an entry counts besides its name and value (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// How a field is represented (RFC 7541 section 6): the bits that begin its first byte, and how
/// many bits of that byte are left for a number.
const INDEXED: (u8, u32) = (0b1000_0000, 7);
const ADDED: (u8, u32) = (0b0100_0000, 6);
const SIZE_UPDATE: (u8, u32) = (0b0010_0000, 5);
const LITERAL: (u8, u32) = (0b0000_0000, 4);

/// The bit before the length of a string (RFC 7541 section 5.2).
const HUFFMAN: u8 = 0b1000_0000;

/// The largest number that is decoded. No length or index here is as large.
const NUMBER_MAX: usize = 1 << 24;

/// Appendix A.
#[rustfmt::skip]
static STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

/// Takes a number with so many bits in its first byte (RFC 7541 section 5.1).
#[inline]
fn take_number(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (&first, mut rest) = block.split_first()?;
    let mask = (1usize << bits) - 1;
    let mut number = usize::from(first) & mask;
    if number == mask {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            number += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            // Zeros may follow without end.
            if shift > 21 {
                return None;
            }
        }
    }
    *block = rest;
    (number <= NUMBER_MAX).then_some(number)
}

fn put_number(out: &mut Vec<u8>, (pattern, bits): (u8, u32), number: usize) {
    let mask = (1usize << bits) - 1;
    if number < mask {
        return out.push(pattern | number as u8);
    }
    out.push(pattern | mask as u8);
    let mut rest = number - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_appendix() {
        // Appendix C.1: 10 and 1337 in five bits, 42 in eight.
        for (bits, number, bytes) in
            [(5, 10, &[10][..]), (5, 1337, &[31, 154, 10]), (8, 42, &[42]), (5, 31, &[31, 0])]
        {
            let mut out = Vec::new();
            put_number(&mut out, (0, bits), number);
            assert_eq!(out, bytes);
            assert_eq!(take_number(&mut &out[..], bits), Some(number));
            assert_eq!(take_number(&mut &out[..out.len() - 1], bits), None);
        }
        assert_eq!(take_number(&mut &[0xff; 11][..], 7), None);
        assert_eq!(take_number(&mut &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0][..], 7), None);
    }
}
