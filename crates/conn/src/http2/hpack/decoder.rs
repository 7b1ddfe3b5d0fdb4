//! The decoder: a block of fields, and the table that the peer's encoder fills (RFC 7541 sections 2
//! and 6). Its memory is bounded: the table by its size, the fields of a block by the longest list.

use std::collections::VecDeque;

use super::{
    ADDED, ENTRY_OVERHEAD, HUFFMAN, INDEXED, LITERAL, SIZE_UPDATE, STATIC, TABLE_BYTES, huffman,
    take_number,
};

/// Room for the fields of most requests: bytes, and fields.
const TEXT_BYTES: usize = 256;
const FIELDS: usize = 12;

/// A list of fields so many times longer than allowed ends the connection. A shorter one is decoded
/// for the sake of the table, and refused.
const LISTS_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http2) enum Error {
    /// The block is not HPACK (RFC 9113 section 4.3).
    Compression,
    /// A few bytes stand for very many.
    Bomb,
}

/// The fields of one block. Their memory is used again for the next block.
#[derive(Debug, Default)]
pub(in crate::http2) struct Fields {
    text: Vec<u8>,
    /// Where each name ends, and where its value ends.
    ends: Vec<(u32, u32)>,
    /// Bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them (RFC 9113 section 6.5.2).
    size: usize,
    size_max: usize,
}

impl Fields {
    pub(in crate::http2) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, value_end)| {
            let (name_end, value_end) = (name_end as usize, value_end as usize);
            let field = (&self.text[start..name_end], &self.text[name_end..value_end]);
            start = value_end;
            field
        })
    }

    pub(in crate::http2) fn is_too_long(&self) -> bool {
        self.size > self.size_max
    }

    fn clear(&mut self, size_max: usize) {
        self.text.clear();
        self.ends.clear();
        self.text.reserve(TEXT_BYTES);
        self.ends.reserve(FIELDS);
        (self.size, self.size_max) = (0, size_max);
    }

    /// Counts a field of so many bytes.
    fn count(&mut self, len: usize) -> Result<(), Error> {
        self.size += len + ENTRY_OVERHEAD;
        let bound = self.size_max.saturating_mul(LISTS_MAX);
        if self.size > bound { Err(Error::Bomb) } else { Ok(()) }
    }

    fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        self.count(name.len() + value.len())?;
        if !self.is_too_long() {
            self.text.extend_from_slice(name);
            let name_end = self.text.len() as u32;
            self.text.extend_from_slice(value);
            self.ends.push((name_end, self.text.len() as u32));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(in crate::http2) struct Decoder {
    entries: VecDeque<Entry>,
    /// Names and values of the entries, oldest first. Those of removed entries are in front.
    text: Vec<u8>,
    size: usize,
    size_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    name_len: u16,
    value_len: u16,
}

impl Entry {
    fn len(self) -> usize {
        usize::from(self.name_len) + usize::from(self.value_len)
    }
}

impl Default for Decoder {
    fn default() -> Decoder {
        let (entries, text) = (VecDeque::new(), Vec::new());
        Decoder { entries, text, size: 0, size_max: TABLE_BYTES }
    }
}

impl Decoder {
    /// Bytes of memory of the table.
    pub(in crate::http2) fn held(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Decodes one block into `fields`, which are too long above `size_max`.
    pub(in crate::http2) fn decode(
        &mut self,
        mut block: &[u8],
        size_max: usize,
        fields: &mut Fields,
    ) -> Result<(), Error> {
        fields.clear(size_max);
        let mut begun = false;
        while let Some(&first) = block.first() {
            if first & INDEXED.0 != 0 {
                let index = take_number(&mut block, INDEXED.1).ok_or(Error::Compression)?;
                let (name, value) = self.field(index).ok_or(Error::Compression)?;
                fields.push(name, value)?;
            } else if first & (ADDED.0 | SIZE_UPDATE.0) == SIZE_UPDATE.0 {
                // Only at the beginning of a block (section 4.2).
                let size = take_number(&mut block, SIZE_UPDATE.1).filter(|_| !begun);
                let size = size.filter(|&size| size <= TABLE_BYTES);
                self.size_max = size.ok_or(Error::Compression)?;
                self.evict(0);
                continue;
            } else {
                self.literal(&mut block, first & ADDED.0 != 0, fields)?;
            }
            begun = true;
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        is_added: bool,
        fields: &mut Fields,
    ) -> Result<(), Error> {
        let bits = if is_added { ADDED.1 } else { LITERAL.1 };
        let start = fields.text.len();
        let mut field = |fields: &mut Fields| match take_number(block, bits)? {
            0 => {
                take_string(block, &mut fields.text)?;
                let name_end = fields.text.len();
                take_string(block, &mut fields.text)?;
                Some(name_end)
            }
            index => {
                let (name, _) = self.field(index)?;
                fields.text.extend_from_slice(name);
                let name_end = fields.text.len();
                take_string(block, &mut fields.text)?;
                Some(name_end)
            }
        };
        let name_end = field(fields).ok_or(Error::Compression)?;
        if is_added {
            self.insert(&fields.text[start..name_end], &fields.text[name_end..]);
        }
        fields.count(fields.text.len() - start)?;
        if fields.is_too_long() {
            fields.text.truncate(start);
        } else {
            fields.ends.push((name_end as u32, fields.text.len() as u32));
        }
        Ok(())
    }

    /// The entry of the static table, or behind it that of the dynamic one (section 2.3.3).
    fn field(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let at = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let newest = self.entries.len().checked_sub(1)?;
        let entry = self.entries.get(newest.checked_sub(at - STATIC.len())?)?;
        let text = &self.text[entry.start as usize..][..entry.len()];
        Some(text.split_at(usize::from(entry.name_len)))
    }

    /// A field that does not fit empties the table (section 4.4).
    fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(size);
        if size > self.size_max {
            return;
        }
        let start = self.text.len() as u32;
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        let (name_len, value_len) = (name.len() as u16, value.len() as u16);
        self.entries.push_back(Entry { start, name_len, value_len });
        self.size += size;
    }

    /// Removes the oldest entries until `more` bytes fit.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.size_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.len() + ENTRY_OVERHEAD;
        }
        let Some(oldest) = self.entries.front() else {
            (self.entries, self.text) = (VecDeque::new(), Vec::new());
            return;
        };
        // A table of text is moved at a time, so that each byte is moved once or twice.
        let removed = oldest.start;
        if removed as usize >= TABLE_BYTES {
            self.text.drain(..removed as usize);
            self.entries.iter_mut().for_each(|entry| entry.start -= removed);
        }
    }
}

/// Takes a string (section 5.2) and appends it to `text`.
fn take_string(block: &mut &[u8], text: &mut Vec<u8>) -> Option<()> {
    let is_coded = block.first()? & HUFFMAN != 0;
    let len = take_number(block, 7)?;
    let (bytes, rest) = block.split_at_checked(len)?;
    *block = rest;
    if is_coded {
        return huffman::decode(bytes, text);
    }
    text.extend_from_slice(bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("hex"), 16);
        digits.chunks(2).map(|pair| byte(pair).expect("a byte")).collect()
    }

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<String, Error> {
        let mut fields = Fields::default();
        decoder.decode(block, 1 << 16, &mut fields)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = fields.iter().map(|(name, value)| format!("{}: {}\n", text(name), text(value)));
        Ok(lines.collect())
    }

    /// Decodes blocks on one connection. Each has the fields and the table of the appendix.
    fn appendix(size_max: usize, blocks: &[(&str, &str, &str)]) {
        let mut decoder = Decoder { size_max, ..Decoder::default() };
        for (block, fields, table) in blocks {
            assert_eq!(decoded(&mut decoder, &bytes(block)).as_deref(), Ok(*fields), "{block}");
            let entries = (STATIC.len() + 1..).map_while(|index| decoder.field(index));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let entries: String =
                entries.map(|(name, value)| format!("{}: {}\n", text(name), text(value))).collect();
            assert_eq!(entries, *table, "{block}");
            let counted = entries.lines().map(|line| line.len() - 2 + ENTRY_OVERHEAD).sum();
            assert_eq!(decoder.size, counted, "{block}");
        }
    }

    #[test]
    fn literals_and_indices_of_appendix_c_2() {
        let custom = "custom-key: custom-header\n";
        let c_2_1 = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
        appendix(TABLE_BYTES, &[(c_2_1, custom, custom)]);
        appendix(
            TABLE_BYTES,
            &[
                ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path\n", ""),
                ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret\n", ""),
                ("82", ":method: GET\n", ""),
            ],
        );
    }

    #[test]
    fn requests_of_appendices_c_3_and_c_4() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        let authority = ":authority: www.example.com\n";
        let cached = "cache-control: no-cache\n";
        let custom = "custom-key: custom-value\n";
        let first = format!(":method: GET\n:scheme: http\n:path: /\n{authority}");
        let second = format!("{first}{cached}");
        let third =
            format!(":method: GET\n:scheme: https\n:path: /index.html\n{authority}{custom}");
        let tables = [cached, custom].map(|line| format!("{line}{authority}"));
        let last = format!("{custom}{cached}{authority}");
        for [a, b, c] in [plain, coded] {
            appendix(
                TABLE_BYTES,
                &[(a, &first, authority), (b, &second, &tables[0]), (c, &third, &last)],
            );
        }
    }

    #[test]
    fn replies_of_appendices_c_5_and_c_6_evict() {
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
             6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
             54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
             5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
             3d31",
        ];
        let coded = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        let private = "cache-control: private\n";
        let date = |second| format!("date: Mon, 21 Oct 2013 20:13:{second} GMT\n");
        let location = "location: https://www.example.com\n";
        let (gzip, cookie) = (
            "content-encoding: gzip\n",
            "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n",
        );
        let head =
            |status, second| format!(":status: {status}\n{private}{}{location}", date(second));
        let third = format!("{}{gzip}{cookie}", head(200, 22));
        let tables = [
            format!("{location}{}{private}:status: 302\n", date(21)),
            format!(":status: 307\n{location}{}{private}", date(21)),
            format!("{cookie}{gzip}{}", date(22)),
        ];
        for [a, b, c] in [plain, coded] {
            appendix(
                256,
                &[
                    (a, &head(302, 21), &tables[0]),
                    (b, &head(307, 21), &tables[1]),
                    (c, &third, &tables[2]),
                ],
            );
        }
    }

    #[test]
    fn what_is_not_hpack() {
        for wrong in [
            &[0x80][..],
            &[0xbe],
            &[0xff],
            &[0x0f, 0x7f, 0x01, b'x'],
            &[0x00, 0x01],
            &[0x00, 0x01, b'x', 0x02, b'y'],
            &[0x00, 0x81, 0x00, 0x01, b'y'],
            // A size above the limit, and a size behind a field.
            &[0x3f, 0xe2, 0x1f],
            &[0x82, 0x20],
        ] {
            let error = decoded(&mut Decoder::default(), wrong);
            assert_eq!(error, Err(Error::Compression), "{wrong:x?}");
        }
    }

    #[test]
    fn a_list_is_bounded_and_the_table_is_kept() {
        let mut decoder = Decoder::default();
        let mut fields = Fields::default();
        let mut block = vec![0x40, 1, b'x', 100];
        block.extend([b'y'; 100]);
        block.extend([0xbe; 3]);
        decoder.decode(&block, 200, &mut fields).expect("a block");
        assert!(fields.is_too_long());
        assert_eq!((fields.iter().count(), decoder.size), (1, 133));
        let many = vec![0xbe; 100];
        assert_eq!(decoder.decode(&many, 200, &mut fields), Err(Error::Bomb));
    }

    #[test]
    fn a_table_in_use_for_long_stays_small() {
        let mut decoder = Decoder::default();
        for round in 0..10_000u32 {
            let value = round.to_string().repeat(1 + round as usize % 40);
            let block = [&[0x40, 1, b'x', value.len() as u8], value.as_bytes()].concat();
            if value.len() < 127 {
                assert_eq!(decoded(&mut decoder, &block), Ok(format!("x: {value}\n")));
                assert_eq!(decoded(&mut decoder, &[0xbe]), Ok(format!("x: {value}\n")));
            }
        }
        assert!(decoder.held() <= 20 << 10, "{} bytes", decoder.held());
        decoded(&mut decoder, &[0x20]).expect("a size update");
        assert_eq!(decoder.held(), 0);
    }

    /// The same as an independent encoder means it, for many blocks on one connection.
    #[test]
    fn blocks_of_another_encoder() {
        use httlib_hpack::Encoder;
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut rng = StdRng::seed_from_u64(1);
        let (mut encoder, mut decoder) = (Encoder::with_dynamic_size(4096), Decoder::default());
        for _ in 0..3_000 {
            let (mut block, mut wanted) = (Vec::new(), String::new());
            for _ in 0..rng.random_range(0..12) {
                let (mut name, value) = match rng.random_range(0..3) {
                    0 => STATIC[rng.random_range(0..STATIC.len())],
                    1 => ("x-field", "some value, 42"),
                    _ => ("y", ""),
                };
                let mut value = value.to_owned();
                if rng.random_ratio(1, 3) {
                    name = "z";
                    value = char::from(rng.random_range(b' '..=b'~')).to_string();
                    value = value.repeat(rng.random_range(0..200));
                }
                let flags = rng.random_range(0..0x20);
                let field = (name.as_bytes().to_vec(), value.as_bytes().to_vec(), flags);
                encoder.encode(field, &mut block).expect("a field");
                wanted.push_str(&format!("{name}: {value}\n"));
            }
            assert_eq!(decoded(&mut decoder, &block), Ok(wanted), "{block:x?}");
        }
    }
}
