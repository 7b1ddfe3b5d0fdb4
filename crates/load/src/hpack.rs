//! Header compression of HTTP/2 (RFC 7541) for a client. Request fields are encoded here, once;
//! reply fields are decoded by `httlib-hpack`.

use httlib_hpack::Decoder as Library;
use httlib_hpack::table::Table;

use crate::codec::Wrong;

/// The size of a table before SETTINGS change it (RFC 9113, section 6.5.2), in octets as counted by
/// RFC 7541, section 4.1.
pub(crate) const TABLE_BYTES: u32 = 4_096;
/// Octets of an entry besides its name and value (RFC 7541, section 4.1).
const ENTRY_OVERHEAD_BYTES: usize = 32;
/// The library reads beyond the end of a block that ends inside an integer or before a string. For
/// each field it reads at most one octet beyond the end for the index and one for each of two
/// strings; these zeros stop it.
const SLACK: [u8; 4] = [0; 4];

/// A field of a reply: name and value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) fields: Vec<Field>,
    /// Whether it changed the dynamic table. Only two representations do: a literal with
    /// incremental indexing (RFC 7541, section 6.2.1) and a size update (section 6.3). The meaning
    /// of any other block depends only on its octets and the table, which it does not change; so
    /// the same octets have the same meaning until a block changes the table.
    pub(crate) changes_table: bool,
}

#[derive(Debug)]
pub(crate) struct Decoder {
    library: Library<'static>,
}

impl Decoder {
    /// With an empty dynamic table of at most [`TABLE_BYTES`].
    pub(crate) fn new() -> Self {
        Decoder { library: Library::with_dynamic_size(TABLE_BYTES) }
    }

    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<Block, Wrong> {
        let mut rest = [block, &SLACK].concat();
        let (mut fields, mut changes_table) = (Vec::new(), false);
        while rest.len() > SLACK.len() {
            let first = rest[0];
            let (sizes, inserts) = (first & 0xe0 == 0x20, first & 0xc0 == 0x40);
            if sizes && !fields.is_empty() {
                return Err(Wrong("a table size update after a header field".to_owned()));
            }
            changes_table |= sizes || inserts;
            // The library decodes as many fields as the vector has room for.
            let mut one = Vec::with_capacity(1);
            self.library
                .decode_exact(&mut rest, &mut one)
                .map_err(|error| Wrong(format!("a header block cannot be read: {error}")))?;
            fields.extend(one.into_iter().map(|(name, value, _)| (name, value)));
        }
        match rest.len() == SLACK.len() {
            true => Ok(Block { fields, changes_table }),
            false => Err(Wrong("a header block ends inside a field".to_owned())),
        }
    }
}

/// The block of a connection's first request, and that of all later ones. The first adds every
/// field to the server's dynamic table, as far as there is room; the others only name entries of
/// it.
pub(crate) fn first_and_following(fields: &[(String, String)]) -> (Vec<u8>, Vec<u8>) {
    let mut table = Table::with_dynamic_size(TABLE_BYTES);
    let (mut first, mut following) = (Vec::new(), Vec::new());
    for (name, value) in fields {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let entry_bytes = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        let fits = table.dynamic_size() as usize + entry_bytes <= TABLE_BYTES as usize;
        match table.find(name, value) {
            Some((index, true)) => integer(&mut first, 0x80, 7, index),
            _ if fits => {
                literal(&mut first, (0x40, 6), name_index(&table, name), name, value);
                table.insert(name.to_vec(), value.to_vec());
            }
            _ => literal(&mut first, (0x00, 4), name_index(&table, name), name, value),
        }
    }
    for (name, value) in fields {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        match table.find(name, value) {
            Some((index, true)) => integer(&mut following, 0x80, 7, index),
            _ => literal(&mut following, (0x00, 4), name_index(&table, name), name, value),
        }
    }
    (first, following)
}

/// The block of the only request of a connection: literals that do not change the table.
pub(crate) fn alone(fields: &[(String, String)]) -> Vec<u8> {
    let (table, mut block) = (Table::with_dynamic_size(0), Vec::new());
    for (name, value) in fields {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        match table.find(name, value) {
            Some((index, true)) => integer(&mut block, 0x80, 7, index),
            _ => literal(&mut block, (0x00, 4), name_index(&table, name), name, value),
        }
    }
    block
}

/// The index of this name in the table; 0, which is not an index, if it has none.
fn name_index(table: &Table<'_>, name: &[u8]) -> usize {
    table.iter().position(|(known, _)| known == name).map_or(0, |at| at + 1)
}

/// A literal field (RFC 7541, section 6.2). `kind`: the fixed bits of its first octet, and how many
/// bits are left for the name's index.
fn literal(out: &mut Vec<u8>, kind: (u8, u32), index: usize, name: &[u8], value: &[u8]) {
    integer(out, kind.0, kind.1, index);
    if index == 0 {
        string(out, name);
    }
    string(out, value);
}

/// A string without Huffman coding (RFC 7541, section 5.2); it is sent once per connection.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// An integer with a prefix of `bits` bits (RFC 7541, section 5.1).
fn integer(out: &mut Vec<u8>, flags: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
#[path = "hpack_tests.rs"]
mod tests;
