//! The protocol core without sockets: nanoseconds of a request, from bytes in to bytes out.
//!
//! Every iteration is what a readiness model does around its system calls: `wants`, `receive`,
//! `wants`, `slices`, `sent`, `wants`. The clock stands still, because reading it is the model's
//! work (once per wait, however many requests that brings), and the bytes are in cache.
//!
//! How to subtract: a server's CPU time per request (`iolab bench`) less the figure here is what
//! the system calls, the kernel's TCP and the model's own loop cost. `get/x16` divided by 16
//! against `get/x1` shows what pipelining saves in the core alone; the rest of what it saves is the
//! kernel's.
//!
//! `cargo bench -p iolab-benches --bench core`

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Address, Clock, Common, Conn, Counters, Host, Hub, Limits, Protocol, Service};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// What a browser sends: 14 fields, most of them of no interest to the server.
const BROWSER_GET: &[u8] = b"GET / HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,\
     */*;q=0.8\r\n\
    Sec-Fetch-Site: none\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Dest: document\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\r\n";

struct Silent;

impl Host for Silent {
    fn burn(&self, _duration: Duration) {}

    fn stats_json(&self) -> String {
        String::new()
    }
}

fn connection(protocol: Protocol, now: Instant) -> Conn {
    let clock = Clock { started: now, started_unix: Duration::from_secs(1_000_000_000) };
    let counters = Arc::new(Counters::default());
    let common = Common {
        files: None,
        host: Arc::new(Silent),
        clock,
        hub: Arc::new(Hub::default()),
        tls: None,
        origins_allowed: Arc::new([]),
    };
    let service = Service::new(protocol, Limits::default(), counters, common);
    Conn::new(&Arc::new(service), Address::alone(), now)
}

/// One read and the writes that it leads to; returns the bytes written.
fn serve(conn: &mut Conn, bytes: &[u8], now: Instant) -> usize {
    let mut written = 0;
    if conn.wants().is_some_and(|wants| wants.read) {
        conn.receive(black_box(bytes), now);
    }
    while conn.wants().is_some_and(|wants| wants.write) {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = conn.slices(&mut slices);
        let n = black_box(&slices[..filled]).iter().map(|slice| slice.len()).sum();
        conn.sent(n, now);
        written += n;
    }
    written
}

fn core(c: &mut Criterion) {
    let post = [
        b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 1024\r\n\r\n".as_slice(),
        &[b'x'; 1024],
    ]
    .concat();
    let now = Instant::now();
    for (name, protocol, bytes, requests) in [
        ("get/x1", Protocol::Http, GET.to_vec(), 1),
        ("get/x16", Protocol::Http, GET.repeat(16), 16),
        ("get/browser", Protocol::Http, BROWSER_GET.to_vec(), 1),
        ("post-echo/1KiB", Protocol::Http, post, 1),
        ("echo/64B", Protocol::Echo, vec![b'x'; 64], 1),
    ] {
        let mut group = c.benchmark_group("core");
        group.throughput(Throughput::Elements(requests));
        let mut conn = connection(protocol, now);
        let reply = serve(&mut conn, &bytes, now);
        assert!(reply > 0 && conn.is_idle(), "{name}: the request is answered");
        group.bench_function(name, |b| b.iter(|| serve(&mut conn, &bytes, now)));
        group.finish();
    }
}

/// Short, because there are many benchmarks and their spread is some percent of a small number.
fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
}

criterion_group! { name = benches; config = short(); targets = core }
criterion_main!(benches);
