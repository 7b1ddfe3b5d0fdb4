//! What a connection costs in memory, counted by the allocator itself: an idle one owns nothing but
//! its own struct, and no client can make one hold more than the limits say.
//!
//! Only the thread of the test is counted: the test harness has one of its own, and it allocates
//! too.

#[allow(dead_code, reason = "each test binary uses its own part")]
#[path = "support/tls.rs"]
mod tls;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use conn::{Address, Clock, Common, Conn, Counters, Host, Hub, Limits, Protocol, Service};
use rustls::ServerConfig;
use tls::{Client, VERSIONS, client_config, server_config};

struct Counting;

static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);
static PEAK_BYTES: AtomicIsize = AtomicIsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: isize, allocations: usize) {
    // Not there any more while a thread ends.
    if !COUNTED.try_with(Cell::get).unwrap_or(false) {
        return;
    }
    ALLOCATIONS.fetch_add(allocations, Relaxed);
    let live = LIVE_BYTES.fetch_add(bytes, Relaxed) + bytes;
    PEAK_BYTES.fetch_max(live, Relaxed);
}

// SAFETY: every call is handed on unchanged to the system's allocator, which owns the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, 1);
        // SAFETY: the caller's promises are those that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize), 0);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize, 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Goal for an idle keep-alive connection, struct and heap together, in bytes.
const IDLE_BYTES_MAX: usize = 1 << 10;

/// Goal for an idle TLS connection, in bytes: struct, heap, and what rustls keeps.
const IDLE_TLS_BYTES_MAX: usize = 16 << 10;

/// Longest read of the servers in this workspace, in bytes.
const READ_MAX: usize = 64 << 10;

struct Silent;

impl Host for Silent {
    fn burn(&self, _duration: Duration) {}

    fn stats_json(&self) -> String {
        String::new()
    }
}

fn service(protocol: Protocol, now: Instant) -> Arc<Service> {
    secure(protocol, now, None)
}

fn secure(protocol: Protocol, now: Instant, tls: Option<Arc<ServerConfig>>) -> Arc<Service> {
    let clock = Clock { started: now, started_unix: Duration::from_secs(1_000_000_000) };
    let counters = Arc::new(Counters::default());
    let common = Common {
        files: None,
        host: Arc::new(Silent),
        clock,
        hub: Arc::new(Hub::default()),
        tls,
        origins_allowed: Arc::new([]),
    };
    Arc::new(Service::new(protocol, Limits::default(), counters, common))
}

/// Takes all output, as a peer does that reads everything.
fn flush(conn: &mut Conn, now: Instant) {
    while conn.wants().is_some_and(|wants| wants.write) {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = conn.slices(&mut slices);
        let n = slices[..filled].iter().map(|slice| slice.len()).sum();
        conn.sent(n, now);
    }
}

fn live_bytes() -> isize {
    LIVE_BYTES.load(Relaxed)
}

#[test]
fn memory() {
    COUNTED.set(true);
    let now = Instant::now();
    println!("size_of::<Conn>() = {} bytes", size_of::<Conn>());
    assert!(size_of::<Conn>() <= IDLE_BYTES_MAX);
    idle_connections_own_no_heap(now);
    requests_allocate_little(now);
    hostile_clients_are_bounded(now);
    idle_tls_connections_own_little(now);
    hostile_tls_clients_are_bounded(now);
}

fn idle_connections_own_no_heap(now: Instant) {
    let http = service(Protocol::Http, now);
    let echo = service(Protocol::Echo, now);
    let long_head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(10_000));
    let conversations: [(&Arc<Service>, &[&[u8]]); 8] = [
        (&http, &[]),
        (&http, &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]),
        (&http, &[b"GET / HTTP/1.1\r\n", b"Host: a\r\n\r\n"]),
        (&http, &[b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n"]),
        (
            &http,
            &[
                b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                b"lo\r\n0\r\n\r\n\r\n",
            ],
        ),
        (&http, &[&long_head.as_bytes()[..5_000], &long_head.as_bytes()[5_000..]]),
        (&http, &[&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_000)]),
        (&echo, &[&[b'x'; READ_MAX], b"y"]),
    ];
    // The first handle to the shared pattern makes its counter: that is nobody's connection.
    talk(&http, &[b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n"], now);
    for (service, pieces) in conversations {
        let before = live_bytes();
        let conn = talk(service, pieces, now);
        let heap = live_bytes() - before;
        assert!(conn.is_idle(), "{conn:?}");
        assert_eq!(heap, 0, "heap of an idle connection after {} reads", pieces.len());
    }
}

fn talk(service: &Arc<Service>, pieces: &[&[u8]], now: Instant) -> Conn {
    let mut conn = Conn::new(service, Address::alone(), now);
    for piece in pieces {
        conn.receive(piece, now);
        flush(&mut conn, now);
    }
    conn
}

fn requests_allocate_little(now: Instant) {
    const REQUESTS: usize = 1_000;
    let http = service(Protocol::Http, now);
    let mut conn = talk(&http, &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], now);
    let before = ALLOCATIONS.load(Relaxed);
    for _ in 0..REQUESTS {
        conn.receive(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", now);
        flush(&mut conn, now);
    }
    let each = (ALLOCATIONS.load(Relaxed) - before) as f64 / REQUESTS as f64;
    println!("{each} allocations per GET");
    assert!(each <= 1.0, "{each} allocations per request");
}

fn hostile_clients_are_bounded(now: Instant) {
    let limits = Limits::default();
    // Both queues may have doubled just before they stopped growing.
    let stash = 2 * (limits.head_bytes_max + READ_MAX);
    let output = 2 * (limits.output_high_water_bytes + READ_MAX);
    for (protocol, what) in [
        (Protocol::Echo, &b"x"[..]),
        (Protocol::Http, b"\r\n"),
        (Protocol::Http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Protocol::Http, b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Protocol::Http, b"GET /delay/60000 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Protocol::Http, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabcdefghi"),
    ] {
        let service = service(protocol, now);
        let mut conn = Conn::new(&service, Address::alone(), now);
        let read = what.repeat(READ_MAX / what.len());
        let before = live_bytes();
        PEAK_BYTES.store(before, Relaxed);
        for _ in 0..100 {
            // A client that writes whenever it is read, and never reads.
            if conn.wants().is_some_and(|wants| wants.read) {
                conn.receive(&read, now);
            }
        }
        let peak = (PEAK_BYTES.load(Relaxed) - before) as usize;
        println!("{:>9} bytes at most for {}", peak, what.escape_ascii());
        assert!(peak <= stash + output, "{peak} bytes for {}", what.escape_ascii());
    }
}

/// Gives the connection what the client says, and the client what it is answered; only what the
/// connection allocates is counted.
fn exchange(conn: &mut Conn, client: &mut Client, now: Instant) {
    loop {
        COUNTED.set(false);
        let sealed = client.take_sealed();
        COUNTED.set(true);
        for piece in sealed.chunks(READ_MAX) {
            conn.receive(piece, now);
        }
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = conn.slices(&mut slices);
        COUNTED.set(false);
        let back: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        client.arrive(&back);
        COUNTED.set(true);
        conn.sent(back.len(), now);
        let over = sealed.is_empty() && back.is_empty();
        COUNTED.set(false);
        drop((sealed, back));
        COUNTED.set(true);
        if over {
            return;
        }
    }
}

/// A connection with its handshake done, and who did it.
fn established(service: &Arc<Service>, version: usize, now: Instant) -> (Conn, Client) {
    COUNTED.set(false);
    let mut client = Client::new(&client_config(VERSIONS[version], &[], true));
    COUNTED.set(true);
    let mut conn = Conn::new(service, Address::alone(), now);
    exchange(&mut conn, &mut client, now);
    assert!(!client.session.is_handshaking(), "{:?}", client.error);
    (conn, client)
}

fn idle_tls_connections_own_little(now: Instant) {
    let http = secure(Protocol::Http, now, Some(server_config(&["http/1.1"])));
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    let post = [post.as_bytes(), &[b'x'; 200_000]].concat();
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for said in [&[][..], get, &post, b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n"] {
        for version in 0..VERSIONS.len() {
            // The first makes what all share: caches, keys of tickets.
            drop(established(&http, version, now));
            let before = live_bytes();
            let (mut conn, mut client) = established(&http, version, now);
            COUNTED.set(false);
            client.say(said);
            COUNTED.set(true);
            exchange(&mut conn, &mut client, now);
            assert!(conn.is_idle(), "{conn:?}");
            let bytes = size_of::<Conn>() + (live_bytes() - before) as usize;
            println!("{bytes} bytes of an idle TLS connection, {:?}", VERSIONS[version].version);
            assert!(bytes <= IDLE_TLS_BYTES_MAX, "{bytes} bytes");
            COUNTED.set(false);
            drop(client);
            COUNTED.set(true);
        }
    }
}

fn hostile_tls_clients_are_bounded(now: Instant) {
    let limits = Limits::default();
    // As without TLS, then ciphertext, then a message on its way in and out of rustls.
    let bound = 2 * (limits.head_bytes_max + READ_MAX)
        + 2 * (limits.output_high_water_bytes + READ_MAX)
        + 2 * (64 << 10)
        + 4 * (18 << 10);
    for (protocol, what) in [
        (Protocol::Echo, &b"x"[..]),
        (Protocol::Http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Protocol::Http, b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Protocol::Http, b"GET /delay/60000 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        for version in 0..VERSIONS.len() {
            let service = secure(protocol, now, Some(server_config(&[])));
            let before = live_bytes();
            let (mut conn, mut client) = established(&service, version, now);
            COUNTED.set(false);
            client.say(&what.repeat(100 * READ_MAX / what.len()));
            let sealed = client.take_sealed();
            COUNTED.set(true);
            PEAK_BYTES.store(live_bytes(), Relaxed);
            for read in sealed.chunks(READ_MAX) {
                if conn.wants().is_some_and(|wants| wants.read) {
                    conn.receive(read, now);
                }
            }
            let peak = (PEAK_BYTES.load(Relaxed) - before) as usize;
            println!("{peak:>9} bytes at most under TLS for {}", what.escape_ascii());
            assert!(peak <= bound, "{peak} bytes for {}", what.escape_ascii());
            COUNTED.set(false);
            drop((client, sealed));
            COUNTED.set(true);
        }
    }
}
