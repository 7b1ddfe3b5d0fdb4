//! The encoder: what every reply says gets an index of the table (RFC 7541 section 6.2.1), the rest
//! is a literal. No string is coded: Huffman's code saves bytes and costs time.

use super::{
    ADDED, ENTRY_OVERHEAD, INDEXED, LITERAL, SIZE_UPDATE, STATIC, TABLE_BYTES, put_number,
};

/// Indices of names in the static table (RFC 7541 appendix A).
pub(in crate::http2) mod name {
    pub(in crate::http2) const STATUS: usize = 8;
    pub(in crate::http2) const ACCEPT_RANGES: usize = 18;
    pub(in crate::http2) const ALLOW: usize = 22;
    pub(in crate::http2) const CONTENT_LENGTH: usize = 28;
    pub(in crate::http2) const CONTENT_RANGE: usize = 30;
    pub(in crate::http2) const CONTENT_TYPE: usize = 31;
    pub(in crate::http2) const DATE: usize = 33;
    pub(in crate::http2) const ETAG: usize = 34;
    pub(in crate::http2) const LAST_MODIFIED: usize = 44;
    pub(in crate::http2) const LOCATION: usize = 46;
}

/// Entries that are known here. Older ones may still be in the table, and are not named any more.
const ENTRIES: usize = 8;

/// A field that many replies have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http2) enum Said {
    /// The date of this second since the Unix epoch.
    Date(u64),
    /// The name's index, and a value.
    Constant(usize, &'static str),
}

#[derive(Debug)]
pub(in crate::http2) struct Encoder {
    /// Newest first, each with its size. All of them are in the peer's table, because that removes
    /// its oldest entries first.
    entries: [Option<(Said, u16)>; ENTRIES],
    size_max: usize,
    /// Sizes that the next block must announce (RFC 7541 section 4.2): the smallest since the last
    /// block, and the present one.
    smallest: Option<usize>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder { entries: [None; ENTRIES], size_max: TABLE_BYTES, smallest: None }
    }
}

impl Encoder {
    /// SETTINGS_HEADER_TABLE_SIZE of the peer.
    pub(in crate::http2) fn limit_table(&mut self, size: u32) {
        let size = (size as usize).min(TABLE_BYTES);
        if size != self.size_max {
            let smallest = self.smallest.unwrap_or(self.size_max).min(size);
            self.smallest = Some(smallest);
            self.size_max = size;
            self.evict(smallest);
        }
    }

    /// Begins a block with the status, whose first three characters are its code.
    pub(in crate::http2) fn begin(&mut self, out: &mut Vec<u8>, status: &str) {
        if let Some(smallest) = self.smallest.take() {
            put_number(out, SIZE_UPDATE, smallest);
            if smallest != self.size_max {
                put_number(out, SIZE_UPDATE, self.size_max);
            }
        }
        let code = status.get(..3).unwrap_or("500");
        let known = STATIC[name::STATUS - 1..].iter().take(7).position(|&(_, known)| known == code);
        match known {
            Some(at) => put_number(out, INDEXED, name::STATUS + at),
            None => self.literal(out, name::STATUS, code.as_bytes()),
        }
    }

    /// A field whose value is used once.
    pub(in crate::http2) fn literal(&mut self, out: &mut Vec<u8>, name: usize, value: &[u8]) {
        put_number(out, LITERAL, name);
        put_string(out, value);
    }

    /// The same for a name that the static table does not have.
    pub(in crate::http2) fn new_name(&mut self, out: &mut Vec<u8>, name: &str, value: &[u8]) {
        put_number(out, LITERAL, 0);
        put_string(out, name.as_bytes());
        put_string(out, value);
    }

    /// A field that later replies will have too. `value` writes it, if it is not in the table.
    pub(in crate::http2) fn said(
        &mut self,
        out: &mut Vec<u8>,
        said: Said,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        let is = |entry: &Option<(Said, u16)>| matches!(entry, Some((known, _)) if *known == said);
        if let Some(at) = self.entries.iter().position(is) {
            return put_number(out, INDEXED, STATIC.len() + 1 + at);
        }
        let name = match said {
            Said::Date(_) => name::DATE,
            Said::Constant(name, _) => name,
        };
        let start = out.len();
        put_number(out, ADDED, name);
        // One byte of length: all these values are shorter than 127 bytes.
        out.push(0);
        let value_start = out.len();
        value(out);
        let value_len = out.len() - value_start;
        debug_assert!(value_len < 127, "a value of {value_len} bytes");
        out[value_start - 1] = value_len as u8;
        let size = STATIC[name - 1].0.len() + value_len + ENTRY_OVERHEAD;
        if size > self.size_max {
            // It would empty the peer's table.
            let value = out.split_off(value_start);
            out.truncate(start);
            return self.literal(out, name, &value);
        }
        self.evict(self.size_max - size);
        self.entries.rotate_right(1);
        self.entries[0] = Some((said, size as u16));
    }

    /// Forgets the entries that a table of `size` bytes does not have.
    fn evict(&mut self, size: usize) {
        let mut sum = 0;
        for entry in &mut self.entries {
            sum += entry.map_or(0, |(_, size)| usize::from(size));
            if sum > size {
                *entry = None;
            }
        }
    }
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, (0, 7), text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use httlib_hpack::Decoder;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    const TEXT: &str = "text/plain; charset=utf-8";

    fn head(encoder: &mut Encoder, status: &str, second: u64, kind: &'static str) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out, status);
        let date = |out: &mut Vec<u8>| out.extend_from_slice(format!("date {second}").as_bytes());
        encoder.said(&mut out, Said::Date(second), date);
        let value = |out: &mut Vec<u8>| out.extend_from_slice(kind.as_bytes());
        encoder.said(&mut out, Said::Constant(name::CONTENT_TYPE, kind), value);
        encoder.literal(&mut out, name::CONTENT_LENGTH, b"13");
        out
    }

    #[test]
    fn what_was_said_before_is_one_byte() {
        let mut encoder = Encoder::default();
        let first = head(&mut encoder, "200 OK", 7, TEXT).len();
        let second = head(&mut encoder, "200 OK", 7, TEXT);
        assert!(first > 40, "{first}");
        assert_eq!(second, [0x88, 0xbf, 0xbe, 0x0f, 0x0d, 2, b'1', b'3']);
    }

    /// Another decoder reads the same, whatever table it allows.
    #[test]
    fn another_decoder_agrees() {
        let mut rng = StdRng::seed_from_u64(2);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::with_dynamic_size(4096));
        let kinds = [TEXT, "a", "b", "application/octet-stream", "text/html; charset=utf-8"];
        let statuses = ["200 OK", "404 Not Found", "413 Content Too Large", "500 x"];
        let mut second = 0;
        for _ in 0..20_000 {
            if rng.random_ratio(1, 50) {
                encoder.limit_table(rng.random_range(0..200));
                if rng.random() {
                    encoder.limit_table(rng.random_range(0..6_000));
                }
            }
            second += u64::from(rng.random_ratio(1, 4));
            let kind = kinds[rng.random_range(0..kinds.len())];
            let status = statuses[rng.random_range(0..statuses.len())];
            let mut block = head(&mut encoder, status, second, kind);
            let mut fields = Vec::new();
            decoder.decode(&mut block, &mut fields).expect("HPACK");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            let values: Vec<_> = fields.iter().map(|(_, value, _)| text(value)).collect();
            assert_eq!(values, [&status[..3], &format!("date {second}"), kind, "13"]);
        }
    }
}
