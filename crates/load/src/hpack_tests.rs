//! The examples of RFC 7541, and inputs that the library alone does not survive.

use super::*;

/// Parses hexadecimal digits with spaces between them.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn plain(fields: &[(&str, &str)]) -> Vec<Field> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect()
}

#[test]
fn integers_as_in_c_1() {
    for (bits, value, expected) in
        [(5, 10, "0a"), (5, 1_337, "1f 9a 0a"), (8, 42, "2a"), (7, 127, "7f 00")]
    {
        let mut out = Vec::new();
        integer(&mut out, 0, bits, value);
        assert_eq!(out, hex(expected), "{value} with a prefix of {bits} bits");
    }
}

#[test]
fn single_fields_as_in_c_2() {
    let cases = [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            ("custom-key", "custom-header"),
            true,
        ),
        ("040c 2f73 616d 706c 652f 7061 7468", (":path", "/sample/path"), false),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", ("password", "secret"), false),
        ("82", (":method", "GET"), false),
    ];
    for (block, field, changes_table) in cases {
        let block = Decoder::new().decode(&hex(block));
        assert_eq!(block, Ok(Block { fields: plain(&[field]), changes_table }));
    }
}

/// Names and values.
type Fields = &'static [(&'static str, &'static str)];

/// The requests of RFC 7541, C.3 (plain) and C.4 (with Huffman coding).
const REQUESTS: [(&str, &str, Fields); 3] = [
    (
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
        ],
    ),
    (
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8286 84be 5886 a8eb 1064 9cbf",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
            ("cache-control", "no-cache"),
        ],
    ),
    (
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ],
    ),
];

#[test]
fn requests_as_in_c_3_and_c_4() {
    let (mut plainly, mut huffman) = (Decoder::new(), Decoder::new());
    for (in_plain, in_huffman, fields) in REQUESTS {
        let expected = Ok(Block { fields: plain(fields), changes_table: true });
        assert_eq!(plainly.decode(&hex(in_plain)), expected);
        assert_eq!(huffman.decode(&hex(in_huffman)), expected);
    }
}

/// The responses of RFC 7541, C.5 and C.6: a table of 256 octets, so that entries are evicted.
const RESPONSES: [(&str, &str); 3] = [
    (
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 \
         303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b \
         ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    ),
    ("4803 3330 37c1 c0bf", "4883 640e ffc1 c0bf"),
    (
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 \
         5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 \
         5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad \
         94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 \
         65c0 03ed 4ee5 b106 3d50 07",
    ),
];

#[test]
fn responses_as_in_c_5_and_c_6() {
    let second = "Mon, 21 Oct 2013 20:13:21 GMT";
    let location = ("location", "https://www.example.com");
    let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let expected: [&[(&str, &str)]; 3] = [
        &[(":status", "302"), ("cache-control", "private"), ("date", second), location],
        &[(":status", "307"), ("cache-control", "private"), ("date", second), location],
        &[
            (":status", "200"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
            location,
            ("content-encoding", "gzip"),
            ("set-cookie", cookie),
        ],
    ];
    for huffman in [false, true] {
        let mut decoder = Decoder::new();
        // A size update makes the table as small as that of the examples.
        let sized = decoder.decode(&hex("3f e1 01"));
        assert_eq!(sized, Ok(Block { fields: Vec::new(), changes_table: true }));
        for ((in_plain, in_huffman), fields) in RESPONSES.iter().zip(expected) {
            let block = hex(if huffman { in_huffman } else { in_plain });
            assert_eq!(decoder.decode(&block).map(|block| block.fields), Ok(plain(fields)));
        }
    }
}

#[test]
fn a_block_cut_anywhere_is_refused_or_a_shorter_list() {
    for text in RESPONSES.iter().flat_map(|(plain, huffman)| [plain, huffman]) {
        let (block, mut whole) = (hex(text), Decoder::new());
        // Valid with any index, so that only the end is wrong.
        for _ in 0..6 {
            let filled = whole.decode(&hex("400161 0162"));
            assert!(filled.is_ok_and(|filled| filled.changes_table));
        }
        let fields = whole.decode(&block).map(|block| block.fields.len());
        for cut in 0..block.len() {
            let mut decoder = Decoder::new();
            for _ in 0..6 {
                assert!(decoder.decode(&hex("400161 0162")).is_ok());
            }
            if let Ok(cut) = decoder.decode(&block[..cut]) {
                assert!(fields.as_ref().is_ok_and(|fields| cut.fields.len() < *fields));
            }
        }
    }
}

#[test]
fn broken_blocks_are_refused() {
    for (block, why) in [
        ("80", "index 0"),
        ("be", "an index beyond the table"),
        ("ff ff ff ff ff ff 0f", "an integer without end"),
        ("ff", "an index that is cut"),
        ("00", "a literal without a name"),
        ("00 01 61", "a literal without a value"),
        ("00 01 61 05 62", "a string that is cut"),
        ("3f e2 1f", "a table larger than ours"),
        ("82 20", "a size update after a field"),
        ("00 81 02 00", "Huffman padding other than ones"),
        ("00 84 ff ff ff ff 00", "EOS in a string"),
    ] {
        assert!(Decoder::new().decode(&hex(block)).is_err(), "{why} passed");
    }
}

#[test]
fn every_field_is_indexed_after_the_first_request() -> Result<(), Wrong> {
    let long = "x".repeat(3_000);
    let longer = "y".repeat(2_000);
    let fields: Vec<_> = [
        (":method", "HEAD"),
        (":scheme", "http"),
        (":authority", "127.0.0.1:80"),
        (":path", "/bytes/5"),
        ("a", "b"),
        ("a", "b"),
        ("long", &long),
        ("longer", &longer),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let (first, following) = first_and_following(&fields[..7]);
    let mut decoder = Decoder::new();
    let expected: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    assert_eq!(decoder.decode(&first)?.fields, expected[..7]);
    let again = decoder.decode(&following)?;
    assert_eq!((again.fields, again.changes_table), (expected[..7].to_vec(), false));
    assert_eq!(following.len(), 7);
    // A field for which the table has no room is sent as a literal each time.
    let (first, following) = first_and_following(&fields);
    let mut decoder = Decoder::new();
    assert_eq!(decoder.decode(&first)?.fields, expected);
    for _ in 0..2 {
        let again = decoder.decode(&following)?;
        assert_eq!((again.fields, again.changes_table), (expected.clone(), false));
    }
    let block = Decoder::new().decode(&alone(&fields))?;
    assert_eq!((block.fields, block.changes_table), (expected, false));
    Ok(())
}
