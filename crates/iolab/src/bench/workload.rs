//! The workloads: what the client does, and why each is in the set.

use record::{Arrivals, Workload};

/// Connections that send load at once. Enough to keep one core busy, few enough for select.
const CONNECTIONS: u32 = 64;

/// Connections that fetch large files: 16 keep the core busy, and their buffers stay in the cache.
const FILE_CONNECTIONS: u32 = 16;

/// Size of the file: many socket buffers' worth, so that partial sends happen.
pub const FILE_BYTES: u64 = 100 * 1024;

/// Name of the file under the document root made for the run.
pub const FILE_NAME: &str = "100k.bin";

/// Body of `/`, in bytes: the smallest reply that is still a real one.
const TEXT_BYTES: u64 = 13;

/// Repeated to fill files and to know `/bytes/N` in advance: byte k is `ALPHABET[k % 64]`.
pub const ALPHABET: &[u8; 64] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-\n";

/// All workloads, in the order in which they are shown.
pub fn all() -> Vec<Workload> {
    let keep_alive = Workload {
        name: "http-keepalive".into(),
        description: "HTTP/1.1, 64 keep-alive connections, a reply of 13 bytes".into(),
        protocol: "http".into(),
        path: Some("/".into()),
        payload_bytes: TEXT_BYTES,
        post: false,
        connections: CONNECTIONS,
        connect_per_request: false,
        pipelining: 1,
        streaming: false,
        rate_per_s: None,
        arrivals: Arrivals::Poisson,
        idle_connections: 0,
        idle_sample_connections: 0,
    };
    let idle = |count: u32, description: &str| Workload {
        name: format!("idle-{count}"),
        description: description.into(),
        idle_connections: count,
        idle_sample_connections: count.max(CONNECTIONS),
        ..keep_alive.clone()
    };
    vec![
        Workload {
            name: "echo-64".into(),
            description: "64 bytes sent back, 64 connections, one message in flight on each".into(),
            protocol: "echo".into(),
            path: None,
            payload_bytes: 64,
            ..keep_alive.clone()
        },
        keep_alive.clone(),
        Workload {
            name: "http-connect".into(),
            description: "HTTP/1.1, a new connection for each request, 64 at a time".into(),
            connect_per_request: true,
            ..keep_alive.clone()
        },
        idle(0, "64 active keep-alive connections and no idle one: the base of the next two"),
        idle(1_000, "64 active connections among 1,000 idle ones"),
        idle(10_000, "64 active connections among 10,000 idle ones"),
        Workload {
            name: "file-100k".into(),
            description: "HTTP/1.1, 16 keep-alive connections, a file of 100 KiB".into(),
            path: Some(format!("/files/{FILE_NAME}")),
            payload_bytes: FILE_BYTES,
            connections: FILE_CONNECTIONS,
            ..keep_alive
        },
    ]
}

/// The workloads of the quick preset: one of each kind of answer that takes little time.
pub const QUICK: [&str; 3] = ["echo-64", "http-keepalive", "idle-1000"];

/// `count` bytes of the known pattern.
pub fn pattern(count: u64) -> Vec<u8> {
    ALPHABET.iter().copied().cycle().take(count as usize).collect()
}
