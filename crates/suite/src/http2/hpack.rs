//! Field blocks (RFC 7541): the encoder of `witness`, which says what it is told, and a decoder
//! that trusts nobody.

pub use witness::hpack::*;

/// The pseudo-header fields of a request (RFC 9113 section 8.3.1).
pub fn request(method: &str, path: &str) -> Vec<u8> {
    literals(&[(":method", method), (":scheme", "http"), (":authority", "suite"), (":path", path)])
}

/// The decoding end of a connection.
#[derive(Debug, Default)]
pub struct Decoder {
    inner: httlib_hpack::Decoder<'static>,
}

impl Decoder {
    /// The size of the dynamic table that the server may use from now on.
    pub fn set_size_max(&mut self, size: u32) {
        self.inner.set_max_dynamic_size(size);
    }

    /// The fields of one block.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn decode(&mut self, block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let decoded = self.inner.decode(&mut block.to_vec(), &mut fields);
        decoded.unwrap_or_else(|error| panic!("the server's field block {block:02x?}: {error:?}"));
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap_or_else(|error| panic!("a field is no text: {error}"))
        };
        fields.into_iter().map(|(name, value, _)| (text(name), text(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.6.1 and C.6.2: Huffman coding and the dynamic table.
    #[test]
    fn replies_of_the_rfc() {
        let mut decoder = Decoder::default();
        decoder.set_size_max(256);
        let first = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6",
            "2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        ];
        let fields = decoder.decode(&hex(&first.concat()));
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [":status", "cache-control", "date", "location"]);
        assert_eq!(fields[2].1, "Mon, 21 Oct 2013 20:13:21 GMT");
        let again = decoder.decode(&hex("4883 640e ffc1 c0bf"));
        assert_eq!(again[0], (":status".to_owned(), "307".to_owned()));
        assert_eq!(again[1..], fields[1..]);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut decoder = Decoder::default();
        let long = "x".repeat(300);
        let block = [request("GET", "/"), remembered("name", &long), indexed(62), indexed(62)];
        let fields = decoder.decode(&block.concat());
        assert_eq!(fields[0], (":method".to_owned(), "GET".to_owned()));
        assert_eq!(fields[6], ("name".to_owned(), long));
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap_or_default();
        digits.chunks(2).map(byte).collect()
    }
}
