//! HPACK: RFC 7541, by its section; an error in it is a connection error (RFC 9113 section 4.3).

use suite::http2::code::*;
use suite::http2::hpack::*;
use suite::http2::{Frame, Http2};

use super::OpenRow;

/// `www.example.com` (RFC 7541 appendix C.4.1).
const CODED: [u8; 12] = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];

/// The request of appendix C.4.1 before its authority.
const PLAIN: [u8; 3] = [0x82, 0x86, 0x84];

#[track_caller]
fn broken(c: &mut Http2, block: &[u8]) {
    c.send([Frame::headers(1, block, true)]);
    c.connection_error(&[COMPRESSION_ERROR]);
}

/// A literal without indexing whose name stands in the static table (58, user-agent) and whose
/// value is these bytes of Huffman code.
fn agent(coded: &[u8]) -> Vec<u8> {
    [request("GET", "/"), integer(0, 4, 58), huffman(coded)].concat()
}

pub const ROWS: &[OpenRow] = &[
    ("7541 2.3.3 an index beyond both tables", |c| {
        broken(c, &[request("GET", "/"), indexed(70)].concat());
    }),
    ("7541 2.3.3 the index of a name beyond both tables", |c| {
        broken(c, &[request("GET", "/"), integer(0, 4, 70), string("x")].concat());
    }),
    ("7541 2.3.3 the first index behind the static table, and nothing there", |c| {
        broken(c, &[request("GET", "/"), indexed(62)].concat());
    }),
    ("7541 5.1 an integer that overflows", |c| {
        let endless = [0xff; 11].as_slice();
        broken(c, &[&request("GET", "/"), endless, &[0x7f]].concat());
    }),
    ("7541 5.2 a string longer than the block", |c| {
        broken(c, &[request("GET", "/"), vec![0], string("x"), integer(0, 7, 100)].concat());
    }),
    ("7541 5.2 Huffman code is understood", |c| {
        c.send([Frame::headers(1, [&PLAIN[..], &[0x41], &huffman(&CODED)].concat(), true)]);
        c.is_greeted(1);
    }),
    ("7541 5.2 padding of 8 bits", |c| broken(c, &agent(&[&CODED[..], &[0xff]].concat()))),
    // '0' is 00000, and three bits are left.
    ("7541 5.2 padding of zeros", |c| broken(c, &agent(&[0b0000_0000]))),
    ("7541 5.2 padding that is not all ones", |c| broken(c, &agent(&[0b0000_0101]))),
    // 30 ones, and two more.
    ("7541 5.2 EOS in a string", |c| broken(c, &agent(&[0xff, 0xff, 0xff, 0xff]))),
    ("7541 6.1 index 0", |c| broken(c, &[request("GET", "/"), indexed(0)].concat())),
    ("7541 6.1 fields of the static table", |c| {
        // GET, http, /, and accept-encoding: gzip, deflate.
        let known = [0x82, 0x86, 0x84, 0x90].as_slice();
        c.send([Frame::headers(1, [known, &literal("host", "suite")].concat(), true)]);
        c.is_greeted(1);
    }),
    ("7541 6.2.1 what is remembered is known to later streams", |c| {
        let first = c.open_stream(&[request("GET", "/"), remembered("x", "y")].concat(), true);
        c.is_greeted(first);
        let path = remembered(":path", "/bytes/77");
        let host = remembered("host", "suite");
        let second = c.open_stream(&[PLAIN[..2].to_vec(), path, host].concat(), true);
        assert_eq!(c.reply(second).body.len(), 77);
        let path = indexed(63);
        let third = c.open_stream(&[&PLAIN[..2], &path, &indexed(62), &indexed(64)].concat(), true);
        assert_eq!(c.reply(third).body.len(), 77);
    }),
    ("7541 6.2 every form of a literal", |c| {
        // With incremental indexing, without indexing, never indexed: pattern, bits of an index.
        for (pattern, bits) in [(0x40, 6), (0x00, 4), (0x10, 4)] {
            // user-agent is 58 in the static table; a new name is index 0 and a string.
            let known = integer(pattern, bits, 58);
            let new = [integer(pattern, bits, 0), string("x-new")].concat();
            let coded = [integer(pattern, bits, 0), huffman(&CODED)].concat();
            for name in [known, new, coded] {
                for value in [string("plain"), huffman(&CODED)] {
                    let block = [request("GET", "/"), name.clone(), value].concat();
                    let stream = c.open_stream(&block, true);
                    c.is_greeted(stream);
                }
            }
        }
    }),
    ("7541 6.2.3 a literal never indexed", |c| {
        let secret = [vec![0x10], string("authorization"), string("none")].concat();
        let stream = c.open_stream(&[request("GET", "/"), secret].concat(), true);
        c.is_greeted(stream);
    }),
    ("7541 4.4 a field larger than the table empties it", |c| {
        let small = remembered("x", "y");
        let large = remembered("z", vec![b'z'; 5_000]);
        let stream = c.open_stream(&[request("GET", "/"), small, large].concat(), true);
        c.is_greeted(stream);
        let stream = c.open_stream(&[request("GET", "/"), indexed(62)].concat(), true);
        c.connection_error(&[COMPRESSION_ERROR]);
        assert!(c.streams[&stream].head.is_none());
    }),
    ("7541 6.3 a size update is obeyed", |c| {
        let stream = c.open_stream(&[request("GET", "/"), remembered("x", "y")].concat(), true);
        c.is_greeted(stream);
        let emptied = [size_update(0), size_update(4096), request("GET", "/")].concat();
        let stream = c.open_stream(&emptied, true);
        c.is_greeted(stream);
        c.open_stream(&[request("GET", "/"), indexed(62)].concat(), true);
        c.connection_error(&[COMPRESSION_ERROR]);
    }),
    ("7541 6.3 a size update beyond the limit", |c| {
        let set = c.settings.get(&suite::http2::setting::HEADER_TABLE_SIZE);
        let limit = usize::try_from(set.copied().unwrap_or(4096)).unwrap_or(4096);
        broken(c, &[size_update(limit + 1), request("GET", "/")].concat());
    }),
    ("7541 4.2 a size update at the end of a block", |c| {
        broken(c, &[request("GET", "/"), size_update(0)].concat());
    }),
    ("7541 4.2 a size update in the middle of a block", |c| {
        broken(c, &[request("GET", "/"), size_update(0), literal("x", "y")].concat());
    }),
    ("9113 4.3 the block of a malformed request counts", |c| {
        // The name is wrong, the table has both all the same.
        let block = [request("GET", "/"), remembered("Upper", "x"), remembered("x", "y")].concat();
        let stream = c.open_stream(&block, true);
        if c.malformed(stream) != suite::http2::Refusal::Connection {
            let stream = c.open_stream(&[request("GET", "/"), indexed(62)].concat(), true);
            c.is_greeted(stream);
        }
    }),
    ("9113 4.3 the block of trailers counts", |c| {
        let stream = c.post(&[]);
        c.send([Frame::headers(stream, remembered("x", "y"), true)]);
        assert_eq!(c.reply(stream).status, 200);
        let stream = c.open_stream(&[request("GET", "/"), indexed(62)].concat(), true);
        c.is_greeted(stream);
    }),
    ("9113 4.3 the block of a refused stream counts", |c| {
        let allowed = c.settings[&suite::http2::setting::MAX_CONCURRENT_STREAMS];
        let streams: Vec<u32> = (0..allowed).map(|_| c.post(&[])).collect();
        let refused = c.open_stream(&[request("GET", "/"), remembered("x", "y")].concat(), true);
        c.until("the refusal", |c| c.streams[&refused].reset.is_some() || c.goaway.is_some());
        if c.goaway.is_none() {
            c.send(streams.iter().map(|&stream| Frame::data(stream, [], true)));
            for stream in streams {
                assert_eq!(c.reply(stream).body, b"");
            }
            let stream = c.open_stream(&[request("GET", "/"), indexed(62)].concat(), true);
            c.is_greeted(stream);
        }
    }),
];
