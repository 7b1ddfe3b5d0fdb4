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
mod tests;
