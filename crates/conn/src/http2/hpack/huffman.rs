//! Huffman's code for strings (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols. So
//! the lengths are the whole table, and the rest is computed from them at compile time.

const SYMBOLS: usize = 257;

/// The symbol that only begins padding.
const EOS: u16 = 256;

const LEN_MAX: usize = 30;

/// The length of each symbol's code, in bits.
#[rustfmt::skip]
const LENS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// Codes that begin a byte and are no longer than it: symbol and length. Length 0: the code is
/// longer. Nearly all characters of a field are found here.
static SHORT: [(u8, u8); 256] = SHORT_AND_LONG.0;

/// For each length: the first code, how many there are, and the place of the first in [`ORDER`].
static LONG: [Range; LEN_MAX + 1] = SHORT_AND_LONG.1;

/// The symbols, by the length of their codes.
static ORDER: [u16; SYMBOLS] = SHORT_AND_LONG.2;

#[derive(Clone, Copy)]
struct Range {
    first: u32,
    count: u32,
    at: u32,
}

type Tables = ([(u8, u8); 256], [Range; LEN_MAX + 1], [u16; SYMBOLS]);

const SHORT_AND_LONG: Tables = tables();

const fn tables() -> Tables {
    let mut short = [(0, 0); 256];
    let mut long = [Range { first: 0, count: 0, at: 0 }; LEN_MAX + 1];
    let mut order = [0; SYMBOLS];
    let (mut len, mut code, mut found) = (1, 0u32, 0);
    while len <= LEN_MAX {
        code <<= 1;
        long[len] = Range { first: code, count: 0, at: found };
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENS[symbol] as usize == len {
                order[found as usize] = symbol as u16;
                if len <= 8 {
                    let mut byte = code << (8 - len);
                    while byte < (code + 1) << (8 - len) {
                        short[byte as usize] = (symbol as u8, len as u8);
                        byte += 1;
                    }
                }
                (code, found) = (code + 1, found + 1);
                long[len].count += 1;
            }
            symbol += 1;
        }
        len += 1;
    }
    (short, long, order)
}

/// Appends what `coded` stands for. `None`: the code is wrong, and the connection must end.
pub(super) fn decode(coded: &[u8], text: &mut Vec<u8>) -> Option<()> {
    // The next bits, at the upper end.
    let (mut bits, mut count) = (0u64, 0);
    let mut rest = coded.iter();
    loop {
        while count <= 56
            && let Some(&byte) = rest.next()
        {
            bits |= u64::from(byte) << (56 - count);
            count += 8;
        }
        let (symbol, len) = match SHORT[(bits >> 56) as usize] {
            (_, 0) => long(bits)?,
            (symbol, len) => (u16::from(symbol), u32::from(len)),
        };
        if len > count {
            // What is left is padding: fewer than eight bits, all of them ones.
            return (count < 8 && bits.leading_ones() >= count).then_some(());
        }
        if symbol == EOS {
            return None;
        }
        text.push(symbol as u8);
        bits <<= len;
        count -= len;
    }
}

fn long(bits: u64) -> Option<(u16, u32)> {
    (9..=LEN_MAX as u32).find_map(|len| {
        let range = LONG[len as usize];
        let nth = ((bits >> (64 - len)) as u32).wrapping_sub(range.first);
        (nth < range.count).then(|| (ORDER[(range.at + nth) as usize], len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(coded, &mut text).map(|()| text)
    }

    #[test]
    fn every_symbol_is_decoded() {
        for text in (0..=255u8).map(|symbol| [symbol, b'a', symbol]) {
            let text = &text[..];
            // A literal: its pattern, the name `x`, and the length of the value.
            let mut field = Vec::new();
            let flags = httlib_hpack::Encoder::HUFFMAN_VALUE;
            let name_and_value = (b"x".to_vec(), text.to_vec(), flags);
            httlib_hpack::Encoder::default().encode(name_and_value, &mut field).expect("a field");
            let coded = &field[4..];
            assert_eq!(decoded(coded).as_deref(), Some(text), "{coded:x?}");
        }
    }

    #[test]
    fn wrong_padding_and_eos_are_errors() {
        // `0` is five zeros, and `e` is 00101.
        assert_eq!(decoded(&[]).as_deref(), Some(&b""[..]));
        assert_eq!(decoded(&[0b0000_0111]).as_deref(), Some(&b"0"[..]));
        for wrong in [&[0b0000_0000][..], &[0b0000_0101], &[0b0000_0111, 0xff], &[0xff; 4]] {
            assert_eq!(decoded(wrong), None, "{wrong:x?}");
        }
    }
}
