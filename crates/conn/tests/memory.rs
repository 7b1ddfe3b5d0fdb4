//! The memory of a connection, counted by the allocator. An idle connection owns only its own
//! struct, and no client can make one hold more than the limits allow.
//!
//! Only the test's own thread is counted, because the test harness has a thread that allocates too.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use conn::{Address, Clock, Common, Conn, Counters, Limits, Protocol, Service, Totals};
use rustls::{ServerConfig, SupportedProtocolVersion};
use support::frames::{BINARY, CONTINUE, MASK, PING, TEXT, client, client_part, upgrade};
use support::http2::{block, frame, get, greeting, kind, request, window};
use support::tls::{Client, VERSIONS, client_config, server_config};
use support::world::READ_MAX;

struct Counting;

static ALLOCATED_BYTES: AtomicIsize = AtomicIsize::new(0);
static PEAK_BYTES: AtomicIsize = AtomicIsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: isize, allocations: usize) {
    // The thread-local is gone while a thread ends.
    if !COUNTED.try_with(Cell::get).unwrap_or(false) {
        return;
    }
    ALLOCATIONS.fetch_add(allocations, Relaxed);
    let live = ALLOCATED_BYTES.fetch_add(bytes, Relaxed) + bytes;
    PEAK_BYTES.fetch_max(live, Relaxed);
}

// SAFETY: passes every call unchanged to the system's allocator, which owns the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, 1);
        // SAFETY: the caller keeps the requirements, which are those of System.
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

/// Limit for an idle keep-alive connection, struct and heap together, in bytes.
const IDLE_BYTES_MAX: usize = 1 << 10;

/// Limit for an idle TLS connection, in bytes: struct, heap, and the memory of rustls.
const IDLE_TLS_BYTES_MAX: usize = 16 << 10;

/// Limit for an idle WebSocket, struct and heap together, in bytes: 2 KiB, less what a model needs.
const IDLE_WEBSOCKET_BYTES_MAX: usize = (2 << 10) - 512;

fn service(protocol: Protocol, now: Instant) -> Arc<Service> {
    secure(protocol, now, None)
}

fn secure(protocol: Protocol, now: Instant, tls: Option<Arc<ServerConfig>>) -> Arc<Service> {
    let clock = Clock { started: now, started_unix: Duration::from_secs(1_000_000_000) };
    let counters: &Counters = Box::leak(Box::default());
    let common = Common { tls, ..Common::new(Arc::new(()), clock) };
    Arc::new(Service::new(protocol, Limits::default(), counters, common))
}

fn flush(conn: &mut Conn, now: Instant) {
    while conn.wants().is_some_and(|wants| wants.write) {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = conn.slices(&mut slices);
        let n = slices[..filled].iter().map(|slice| slice.len()).sum();
        conn.sent(n, now);
    }
}

fn allocated_bytes() -> isize {
    ALLOCATED_BYTES.load(Relaxed)
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
    idle_http2_connections_own_little(now);
    open_streams_are_small(now);
    idle_tls_connections_own_little(now);
    hostile_tls_clients_are_bounded(now);
    idle_websockets_own_little(now);
    hostile_websockets_are_bounded(now);
    slow_chat_members_are_bounded(now);
    announced_lengths_allocate_nothing(now);
    heads_that_never_end_are_bounded(now);
    announced_records_allocate_little(now);
    unread_replies_are_bounded(now);
}

fn websocket(path: &str, frames: &[Vec<u8>]) -> Vec<u8> {
    [upgrade((path, "")).expect("a path"), frames.concat()].concat()
}

fn idle_websockets_own_little(now: Instant) {
    let http = service(Protocol::Http, now);
    let large = client(BINARY, &vec![b'x'; 1 << 20]);
    let pieces = vec![client_part(TEXT, b"x"), client(PING, b"x"), client(CONTINUE, b"y")];
    // The chat keeps the table entries of members that have left. They belong to no connection.
    let request = websocket("/ws/chat", &[]);
    drop((0..10).map(|_| served(&http, &[&request], now)).collect::<Vec<_>>());
    for (what, path, frames) in [
        ("nothing", "/ws/echo", vec![]),
        ("a text", "/ws/echo", vec![client(TEXT, &[b'x'; 64])]),
        ("fragments and a ping", "/ws/echo", pieces),
        ("1 MiB", "/ws/echo", vec![large.clone()]),
        ("1 MiB to a clock", "/ws/clock/1000", vec![large]),
        ("a word in the chat", "/ws/chat", vec![client(TEXT, &[b'x'; 64])]),
    ] {
        let bytes = websocket(path, &frames);
        let reads: Vec<&[u8]> = bytes.chunks(READ_MAX).collect();
        let before = allocated_bytes();
        let conn = served(&http, &reads, now);
        let all = size_of::<Conn>() + (allocated_bytes() - before) as usize;
        println!("{all:>9} bytes for an idle WebSocket after {what}");
        assert!(all <= IDLE_WEBSOCKET_BYTES_MAX, "{all} bytes after {what}");
        assert!(conn.is_idle(), "{conn:?}");
    }
}

fn hostile_websockets_are_bounded(now: Instant) {
    let limits = Limits::default();
    let half_a_message = client_part(CONTINUE, &[b'x'; 60_000]);
    for (what, path, frame) in [
        ("messages", "/ws/echo", client(BINARY, &[b'x'; 1_000])),
        ("small messages", "/ws/echo", client(BINARY, b"")),
        ("pings", "/ws/echo", client(PING, b"")),
        ("pings to a clock", "/ws/clock/1", client(PING, b"")),
        ("tiny fragments", "/ws/echo", client_part(CONTINUE, b"x")),
        ("large fragments", "/ws/echo", half_a_message),
    ] {
        let service = service(Protocol::Http, now);
        let mut conn = Conn::new(&service, Address::alone(), now);
        conn.receive(&websocket(path, &[]), now);
        if what.ends_with("fragments") {
            conn.receive(&client_part(BINARY, b""), now);
        }
        let read = frame.repeat((READ_MAX / frame.len()).max(1));
        let before = allocated_bytes();
        PEAK_BYTES.store(before, Relaxed);
        for ms in 0..1_000 {
            // A client that sends whenever it is read, and never reads.
            let now = now + Duration::from_millis(ms);
            conn.timeout(now);
            if conn.wants().is_some_and(|wants| wants.read) {
                conn.receive(&read, now);
            }
        }
        let peak = (PEAK_BYTES.load(Relaxed) - before) as usize;
        println!("{peak:>9} bytes at most for a WebSocket and {what}");
        // Each buffer may have doubled before it stopped growing.
        let message = limits.message_bytes_max;
        let queues = limits.push_high_water_bytes + limits.head_bytes_max + 2 * READ_MAX;
        assert!(peak <= 2 * (message + queues), "{peak} bytes for {what}");
    }
}

fn slow_chat_members_are_bounded(now: Instant) {
    const MEMBERS: usize = 20;
    let limits = Limits::default();
    let service = service(Protocol::Http, now);
    let request = websocket("/ws/chat", &[]);
    let mut slow: Vec<_> = (0..MEMBERS)
        .map(|_| {
            let mut member = Conn::new(&service, Address::alone(), now);
            member.receive(&request, now);
            member
        })
        .collect();
    let mut sender = served(&service, &[&request], now);
    let messages = client(TEXT, &[b'x'; 64]).repeat(READ_MAX / 70);
    let before = allocated_bytes();
    PEAK_BYTES.store(before, Relaxed);
    for _ in 0..100 {
        sender.receive(&messages, now);
        while sender.wants().is_some_and(|wants| wants.turn) {
            sender.resume(now);
        }
        // They are woken, and their peers do not read.
        slow.iter_mut().for_each(|member| member.resume(now));
    }
    let peak = (PEAK_BYTES.load(Relaxed) - before) as usize;
    let after = (allocated_bytes() - before) as usize;
    println!("{peak:>9} bytes at most for {MEMBERS} members that do not read, {after} at last");
    let dropped = Totals::of([service.counters]).chat_members_dropped;
    assert_eq!(dropped, MEMBERS as u64, "each was put out");
    // Queued messages exist once for all members. A message's buffer may have doubled before it was
    // queued.
    let messages = limits.chat_backlog_bytes_max + limits.push_high_water_bytes + 2 * READ_MAX;
    assert!(peak <= 2 * messages, "{peak} bytes");
    let kept = limits.push_high_water_bytes + 2 * READ_MAX;
    assert!(after <= 2 * kept, "{after} bytes");
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
    // The first handle of the shared pattern allocates its counter, which belongs to no connection.
    served(&http, &[b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n"], now);
    for (service, pieces) in conversations {
        let before = allocated_bytes();
        let conn = served(service, pieces, now);
        let heap = allocated_bytes() - before;
        assert!(conn.is_idle(), "{conn:?}");
        assert_eq!(heap, 0, "heap of an idle connection after {} reads", pieces.len());
    }
}

fn served(service: &Arc<Service>, pieces: &[&[u8]], now: Instant) -> Conn {
    let mut conn = Conn::new(service, Address::alone(), now);
    for piece in pieces {
        conn.receive(piece, now);
        flush(&mut conn, now);
    }
    conn
}

/// Limit for an idle HTTP/2 connection, struct and heap together, in bytes. HPACK's table is in it,
/// with two fields of the request.
const IDLE_HTTP2_BYTES_MAX: usize = 1536;

fn idle_http2_connections_own_little(now: Instant) {
    let http = service(Protocol::Http, now);
    let settings: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let ack: &[u8] = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00";
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // :method GET, :scheme http, :path / as indices; :authority and user-agent added to the table.
    let block: &[u8] = b"\x82\x86\x84\x41\x01a\x7a\x15h2load nghttp2/1.52.0";
    let head = [&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1], block].concat();
    // The date and other shared values belong to no connection.
    drop(served(&http, &[preface, settings, &head], now));
    let before = allocated_bytes();
    let conn = served(&http, &[preface, settings, ack], now);
    let greeted = (allocated_bytes() - before) as usize;
    drop(conn);
    let conn = served(&http, &[preface, settings, ack, &head], now);
    let served = (allocated_bytes() - before) as usize;
    assert!(conn.is_idle(), "{conn:?}");
    println!("HTTP/2: {greeted} bytes of heap after the greeting, {served} after a request");
    let all = size_of::<Conn>() + served;
    assert!(all <= IDLE_HTTP2_BYTES_MAX, "{all} bytes");
    drop(conn);
    assert_eq!(allocated_bytes(), before, "all of it is given back");
}

/// Limit for an open stream, in bytes.
const STREAM_BYTES_MAX: usize = 512;

fn open_streams_are_small(now: Instant) {
    const STREAMS: u32 = 1_000;
    let clock = Clock { started: now, started_unix: Duration::from_secs(1_000_000_000) };
    let limits = Limits { streams_max: STREAMS, ..Limits::default() };
    let common = Common::new(Arc::new(()), clock);
    let http = Arc::new(Service::new(Protocol::Http, limits, Box::leak(Box::default()), common));
    let streams = (0..STREAMS).map(|i| get(2 * i + 1, "/delay/1000", &[]));
    let all = streams.fold(boundless(), |all, head| [all, head].concat());
    let before = allocated_bytes();
    let mut conn = served(&http, &[&boundless()], now);
    let empty = allocated_bytes();
    conn.receive(&all[boundless().len()..], now);
    while conn.wants().is_some_and(|wants| wants.turn || wants.write) {
        flush(&mut conn, now);
        conn.resume(now);
    }
    let each = (allocated_bytes() - empty) as usize / STREAMS as usize;
    println!("{each:>9} bytes for each of {STREAMS} open streams");
    assert!(each <= STREAM_BYTES_MAX, "{each} bytes");
    let later = now + Duration::from_secs(1);
    conn.timeout(later);
    while conn.wants().is_some_and(|wants| wants.turn || wants.write) {
        flush(&mut conn, later);
        conn.resume(later);
    }
    assert!(conn.is_idle(), "{conn:?}");
    let left = (allocated_bytes() - empty) as usize;
    assert!(left <= 256, "{left} bytes are left of streams that have ended");
    drop(conn);
    assert_eq!(allocated_bytes(), before, "all of it is given back");
}

/// Most bytes held for something that is announced and has not come: an incomplete head, in a
/// buffer that may have doubled, and the memory of an idle HTTP/2 connection.
const ANNOUNCED_BYTES_MAX: usize = 2 * (16 << 10) + IDLE_HTTP2_BYTES_MAX;

/// The most that a connection holds that receives `pieces`, while its client reads everything.
fn peak_of(service: &Arc<Service>, pieces: &[&[u8]], now: Instant) -> usize {
    let before = allocated_bytes();
    PEAK_BYTES.store(before, Relaxed);
    served(service, pieces, now);
    (PEAK_BYTES.load(Relaxed) - before) as usize
}

/// A client that allows the most: SETTINGS_HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE,
/// and the window of the connection.
fn boundless() -> Vec<u8> {
    let settings = greeting(&[(1, u32::MAX), (4, (1 << 31) - 1), (5, (1 << 24) - 1)]);
    [settings, window(0, (1 << 31) - 1 - 65_535)].concat()
}

fn announced_lengths_allocate_nothing(now: Instant) {
    let http = service(Protocol::Http, now);
    let post = |rest: &str| format!("POST /echo HTTP/1.1\r\nHost: a\r\n{rest}").into_bytes();
    let chunk = |len: &str| post(&format!("Transfer-Encoding: chunked\r\n\r\n{len}\r\n"));
    let websocket_of = |len: u64| {
        let frame = [&[0x82, 0xff][..], &len.to_be_bytes(), &MASK].concat();
        websocket("/ws/echo", &[frame])
    };
    // The nine bytes of a frame's head.
    let http2_of = |before: &[u8], kind: u8, len: u32| {
        [&boundless(), before, &len.to_be_bytes()[1..], &[kind, 0, 0, 0, 0, 1]].concat()
    };
    let upload = request(1, "POST", "/echo", &[], false);
    let cases = [
        ("a body", post("Content-Length: 60000000\r\n\r\n")),
        ("a chunk", chunk("7fffffff")),
        ("a chunk of 2^63 - 1", chunk("7fffffffffffffff")),
        ("a WebSocket frame of 1 MiB", websocket_of(1 << 20)),
        ("a WebSocket frame of 2^62", websocket_of(1 << 62)),
        ("a WebSocket frame of 2^63", websocket_of(1 << 63)),
        ("whatever settings allow", boundless()),
        ("a DATA frame of 16 KiB", http2_of(&upload, kind::DATA, 1 << 14)),
        ("a DATA frame of 16 MiB", http2_of(&upload, kind::DATA, (1 << 24) - 1)),
        ("a HEADERS frame of 16 KiB", http2_of(&[], kind::HEADERS, 1 << 14)),
        ("a HEADERS frame of 16 MiB", http2_of(&[], kind::HEADERS, (1 << 24) - 1)),
    ];
    for (what, announced) in cases {
        let peak = peak_of(&http, &[&announced, b"x"], now);
        println!("{peak:>9} bytes at most where {what} is announced");
        assert!(peak <= ANNOUNCED_BYTES_MAX, "{peak} bytes for {what}");
    }
}

fn heads_that_never_end_are_bounded(now: Instant) {
    let limits = Limits::default();
    let http = service(Protocol::Http, now);
    // A literal that is never indexed, with its value of 15,000 bytes.
    let large = [&[0x10, 1, b'x', 0x7f, 0x99, 0x74][..], &[b'y'; 15_000]].concat();
    let small = block(&[("x", "")]);
    for (what, payload) in [
        ("large fields", large),
        ("small fields", small.repeat(4_000)),
        ("one field each", small),
        ("nothing", Vec::new()),
    ] {
        let start = frame(kind::HEADERS, 0, 1, &block(&[(":method", "GET")]));
        let more = frame(kind::CONTINUATION, 0, 1, &payload);
        let mut pieces = vec![boundless(), start];
        pieces.resize(1_000, more.repeat((READ_MAX / more.len()).min(100)));
        let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
        let peak = peak_of(&http, &pieces, now);
        println!("{peak:>9} bytes at most for a head without an end, of {what}");
        // A read, a frame of it and its fields, each in a buffer that may have doubled.
        let bound = 2 * (READ_MAX + (16 << 10) + limits.head_bytes_max) + IDLE_HTTP2_BYTES_MAX;
        assert!(peak <= bound, "{peak} bytes for {what}");
    }
}

fn announced_records_allocate_little(now: Instant) {
    let http = secure(Protocol::Http, now, Some(server_config(&[])));
    // Five bytes of a record of 16 KiB, and of one that is too long.
    for begun in [&b"\x16\x03\x01\x40\x00abcde"[..], b"\x16\x03\x01\xff\xffabcde"] {
        let peak = peak_of(&http, &[begun], now);
        println!("{peak:>9} bytes at most for a TLS handshake that is announced");
        assert!(peak <= IDLE_TLS_BYTES_MAX, "{peak} bytes");
    }
    for version in VERSIONS {
        drop(established(&http, version, now));
        let before = allocated_bytes();
        let (mut conn, client) = established(&http, version, now);
        PEAK_BYTES.store(allocated_bytes(), Relaxed);
        conn.receive(b"\x17\x03\x03\x40\x00abcde", now);
        let peak = (PEAK_BYTES.load(Relaxed) - before) as usize;
        println!("{peak:>9} bytes at most for a TLS record that is announced");
        assert!(peak <= IDLE_TLS_BYTES_MAX, "{peak} bytes");
        COUNTED.set(false);
        drop(client);
        COUNTED.set(true);
    }
}

fn unread_replies_are_bounded(now: Instant) {
    const STREAMS: u32 = 100;
    let limits = Limits::default();
    let http = service(Protocol::Http, now);
    let path = "/bytes/1000000000";
    let ask = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let streams = (0..STREAMS).map(|i| get(2 * i + 1, path, &[]));
    let all = streams.fold(boundless(), |all, head| [all, head].concat());
    for (what, asked) in [("HTTP/1.1", ask), ("HTTP/2", all)] {
        let mut conn = Conn::new(&http, Address::alone(), now);
        let before = allocated_bytes();
        PEAK_BYTES.store(before, Relaxed);
        conn.receive(&asked, now);
        for ms in 0..1_000 {
            let now = now + Duration::from_millis(ms);
            conn.timeout(now);
            if conn.wants().is_some_and(|wants| wants.turn) {
                conn.resume(now);
            }
        }
        assert!(conn.wants().is_some_and(|wants| wants.write), "{what}: {conn:?}");
        let peak = (PEAK_BYTES.load(Relaxed) - before) as usize;
        println!("{peak:>9} bytes at most for replies over {what} that are not read");
        // Queues that may have doubled, and the memory of HTTP/2 for each stream.
        let output = 2 * (limits.output_high_water_bytes + READ_MAX);
        assert!(peak <= output + STREAMS as usize * (1 << 10), "{peak} bytes, {what}");
    }
}

fn requests_allocate_little(now: Instant) {
    const REQUESTS: usize = 1_000;
    let http = service(Protocol::Http, now);
    let mut conn = served(&http, &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], now);
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
    // Both queues may have doubled before they stopped growing.
    let unprocessed = 2 * (limits.head_bytes_max + READ_MAX);
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
        let before = allocated_bytes();
        PEAK_BYTES.store(before, Relaxed);
        for _ in 0..100 {
            // A client that sends whenever it is read, and never reads.
            if conn.wants().is_some_and(|wants| wants.read) {
                conn.receive(&read, now);
            }
        }
        let peak = (PEAK_BYTES.load(Relaxed) - before) as usize;
        println!("{:>9} bytes at most for {}", peak, what.escape_ascii());
        assert!(peak <= unprocessed + output, "{peak} bytes for {}", what.escape_ascii());
    }
}

/// Passes bytes between connection and client. Only the connection's allocations are counted.
fn exchange(conn: &mut Conn, client: &mut Client, now: Instant) {
    loop {
        COUNTED.set(false);
        let encrypted = client.take_encrypted();
        COUNTED.set(true);
        for piece in encrypted.chunks(READ_MAX) {
            conn.receive(piece, now);
        }
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = conn.slices(&mut slices);
        COUNTED.set(false);
        let back: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        client.arrive(&back);
        COUNTED.set(true);
        conn.sent(back.len(), now);
        let over = encrypted.is_empty() && back.is_empty();
        COUNTED.set(false);
        drop((encrypted, back));
        COUNTED.set(true);
        if over {
            return;
        }
    }
}

fn established(
    service: &Arc<Service>,
    version: &'static SupportedProtocolVersion,
    now: Instant,
) -> (Conn, Client) {
    COUNTED.set(false);
    let mut client = Client::new(&client_config(version, &[], true));
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
    for messages in [&[][..], get, &post, b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n"] {
        for version in VERSIONS {
            // The first one allocates what all share: caches, keys of tickets.
            drop(established(&http, version, now));
            let before = allocated_bytes();
            let (mut conn, mut client) = established(&http, version, now);
            COUNTED.set(false);
            client.send(messages);
            COUNTED.set(true);
            exchange(&mut conn, &mut client, now);
            assert!(conn.is_idle(), "{conn:?}");
            let bytes = size_of::<Conn>() + (allocated_bytes() - before) as usize;
            println!("{bytes} bytes of an idle TLS connection, {:?}", version.version);
            assert!(bytes <= IDLE_TLS_BYTES_MAX, "{bytes} bytes");
            COUNTED.set(false);
            drop(client);
            COUNTED.set(true);
        }
    }
}

fn hostile_tls_clients_are_bounded(now: Instant) {
    let limits = Limits::default();
    // As without TLS, then ciphertext, then a message in rustls for each direction.
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
        for version in VERSIONS {
            let service = secure(protocol, now, Some(server_config(&[])));
            let before = allocated_bytes();
            let (mut conn, mut client) = established(&service, version, now);
            COUNTED.set(false);
            client.send(&what.repeat(100 * READ_MAX / what.len()));
            let encrypted = client.take_encrypted();
            COUNTED.set(true);
            PEAK_BYTES.store(allocated_bytes(), Relaxed);
            for read in encrypted.chunks(READ_MAX) {
                if conn.wants().is_some_and(|wants| wants.read) {
                    conn.receive(read, now);
                }
            }
            let peak = (PEAK_BYTES.load(Relaxed) - before) as usize;
            println!("{peak:>9} bytes at most under TLS for {}", what.escape_ascii());
            assert!(peak <= bound, "{peak} bytes for {}", what.escape_ascii());
            COUNTED.set(false);
            drop((client, encrypted));
            COUNTED.set(true);
        }
    }
}
