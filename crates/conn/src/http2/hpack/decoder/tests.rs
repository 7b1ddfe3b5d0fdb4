//! The examples of RFC 7541 appendix C, blocks of another encoder, and blocks that are not HPACK.

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
    let third = format!(":method: GET\n:scheme: https\n:path: /index.html\n{authority}{custom}");
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
    let head = |status, second| format!(":status: {status}\n{private}{}{location}", date(second));
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
