//! HTTP/2 in the protocol core without sockets: from frames in to frames out.
//!
//! `h2` groups: 1 stream at a time, 32 streams whose requests come in one read, and a body of
//! 64 KiB sent back. Every iteration is what a readiness model does around its system calls, with
//! the clock standing still. The requests are what a client sends after its first: every field is
//! an index into the table of HPACK, so a request is a few bytes.
//!
//! How to subtract: `get/x32` divided by 32 is what a request costs when many come together;
//! `get/x1` has the polling around it too. `cargo bench -p iolab-benches --bench http2`

mod support;

use std::time::Instant;

use conn::Protocol;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{connection, serve, short};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest window that there is (RFC 9113 section 6.9.1), less the first one.
const WINDOW_MORE: u32 = (1 << 31) - 1 - 65_535;

/// Stream numbers only grow, and the window of the connection is used up: after so many a client
/// begins a new one.
const STREAM_MAX: u32 = 100_000;

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// What a client sends first: preface, SETTINGS with the largest window for each stream, the
/// largest window for all, and one request that puts its fields into the table.
fn greeting() -> Vec<u8> {
    let mut settings = vec![0, 4];
    settings.extend(((1u32 << 31) - 1).to_be_bytes());
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(4, 0, 0, &settings));
    bytes.extend(frame(8, 0, 0, &WINDOW_MORE.to_be_bytes()));
    // :method GET, :scheme http, :path /, and with incremental indexing :authority, user-agent.
    let mut block = vec![0x82, 0x86, 0x84];
    for (name, value) in [(0x41, "www.example.org"), (0x7a, "h2load nghttp2/1.52.0")] {
        block.push(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    bytes.extend(frame(1, 5, 1, &block));
    bytes
}

/// `count` requests from stream `next` on: every field is an index.
fn gets(next: &mut u32, count: usize, into: &mut Vec<u8>) {
    into.clear();
    for _ in 0..count {
        into.extend(frame(1, 5, *next, &[0x82, 0x86, 0x84, 0xbf, 0xbe]));
        *next += 2;
    }
}

/// POST /echo with `body` in frames of 16 KiB.
fn post(next: &mut u32, body: &[u8], into: &mut Vec<u8>) {
    into.clear();
    let mut block = vec![0x83, 0x86, 0x04, 5];
    block.extend_from_slice(b"/echo");
    block.extend([0xbf, 0xbe]);
    into.extend(frame(1, 4, *next, &block));
    let last = body.len().div_ceil(16 << 10) - 1;
    for (number, part) in body.chunks(16 << 10).enumerate() {
        into.extend(frame(0, u8::from(number == last), *next, part));
    }
    *next += 2;
}

fn http2(c: &mut Criterion) {
    let now = Instant::now();
    let body = vec![b'x'; 32 << 10];
    for (name, requests) in [("get/x1", 1), ("get/x32", 32), ("post-echo/32KiB", 0)] {
        let mut group = c.benchmark_group("h2");
        group.throughput(Throughput::Elements(requests.max(1) as u64));
        let mut conn = connection(Protocol::Http, now);
        let mut next = 3;
        let mut bytes = Vec::new();
        assert!(serve(&mut conn, &greeting(), now) > 0, "{name}: the greeting is answered");
        group.bench_function(name, |b| {
            b.iter(|| {
                if next > STREAM_MAX {
                    (conn, next) = (connection(Protocol::Http, now), 3);
                    serve(&mut conn, &greeting(), now);
                }
                match requests {
                    0 => post(&mut next, &body, &mut bytes),
                    _ => gets(&mut next, requests, &mut bytes),
                }
                let written = serve(&mut conn, &bytes, now);
                assert!(written > 13 * requests && conn.is_idle(), "{name}: answered");
                written
            });
        });
        group.finish();
    }
}

criterion_group! { name = benches; config = short(); targets = http2 }
criterion_main!(benches);
