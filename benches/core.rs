//! The protocol core without sockets: nanoseconds of a request, from bytes in to bytes out.
//!
//! Every iteration is what a readiness model does around its system calls: `wants`, `receive`,
//! `wants`, `slices`, `sent`, `wants`. The clock stands still, because reading it is the model's
//! work (once per wait, however many requests that brings), and the bytes are in cache.
//!
//! How to subtract: a server's CPU time per request (`iolab bench`) less the figure here is what
//! the system calls, the kernel's TCP and the model's own loop cost. `get/x16` divided by 16
//! against `get/x1` shows what pipelining saves in the core alone; the rest of what it saves is the
//! kernel's. `tls/get` against `get/x1` is the price of two records; a handshake is the server's
//! half of it, both flights. HTTP/2 has benchmarks of its own (`--bench http2`).
//!
//! `cargo bench -p iolab-benches --bench core`

mod support;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Address, Conn, Protocol, Service};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig};
use support::{connection, serve, service, short};

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

/// WebSocket: one masked message in, one unmasked out.
fn websocket(c: &mut Criterion) {
    let now = Instant::now();
    let mut conn = connection(Protocol::Http, now);
    let upgrade = b"GET /ws/echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert!(serve(&mut conn, upgrade, now) > 0, "101");
    // FIN and binary, masked, 64 bytes, a mask (RFC 6455 section 5.2).
    let message = [&b"\x82\xc0\x01\x02\x03\x04"[..], &[b'x'; 64]].concat();
    assert_eq!(serve(&mut conn, &message, now), 2 + 64, "it comes back");
    let mut group = c.benchmark_group("core");
    group.throughput(Throughput::Elements(1));
    group.bench_function("websocket/64B", |b| b.iter(|| serve(&mut conn, &message, now)));
    group.finish();
}

/// A server's settings, and those of a client that knows its certificate.
fn tls_configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let certificate = made.cert.der().clone();
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .and_then(|s| s.with_no_client_auth().with_single_cert(vec![certificate.clone()], key));
    let mut server = server.expect("a usable certificate");
    server.ticketer = Ticketer::new().expect("randomness");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|client| client.with_root_certificates(roots).with_no_client_auth());
    (Arc::new(server), Arc::new(client.expect("a client")))
}

fn tls_client(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::clone(config), name).expect("a client")
}

fn take_sealed(client: &mut ClientConnection) -> Vec<u8> {
    let mut sealed = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sealed).expect("memory can be written");
    }
    sealed
}

/// A whole handshake; returns the connection and the time that it took the server, both flights.
fn handshake(
    service: &Arc<Service>,
    client: &mut ClientConnection,
    now: Instant,
) -> (Conn, Duration) {
    let hello = take_sealed(client);
    let started = Instant::now();
    let mut conn = Conn::new(service, Address::alone(), now);
    conn.receive(&hello, now);
    let back: Vec<u8> = conn.chunks().flatten().collect();
    conn.sent(back.len(), now);
    let first_flight = started.elapsed();
    client.read_tls(&mut back.as_slice()).expect("it fits");
    client.process_new_packets().expect("it is right");
    let finished = take_sealed(client);
    let started = Instant::now();
    conn.receive(&finished, now);
    let back: Vec<u8> = conn.chunks().flatten().collect();
    conn.sent(back.len(), now);
    let time = first_flight + started.elapsed();
    // The tickets, by which the next one is resumed.
    client.read_tls(&mut back.as_slice()).expect("they fit");
    client.process_new_packets().expect("they are right");
    assert!(!client.is_handshaking(), "the handshake is complete");
    (conn, time)
}

/// TLS 1.3: what one record each way adds to a request, and what a handshake costs the server.
fn tls(c: &mut Criterion) {
    let now = Instant::now();
    let (server, config) = tls_configs();
    let mut group = c.benchmark_group("core");
    group.throughput(Throughput::Elements(1));
    for (name, protocol, said) in [
        ("tls/get", Protocol::Http, GET.to_vec()),
        ("tls/echo/13B", Protocol::Echo, vec![b'x'; 13]),
        ("tls/echo/16KiB", Protocol::Echo, vec![b'x'; 16 << 10]),
    ] {
        let service = service(protocol, Some(Arc::clone(&server)), now);
        let mut client = tls_client(&config);
        let (mut conn, _) = handshake(&service, &mut client, now);
        let mut seal = || {
            client.writer().write_all(&said).expect("it fits");
            take_sealed(&mut client)
        };
        assert!(serve(&mut conn, &seal(), now) > said.len(), "{name}: it is answered");
        group.bench_function(name, |b| {
            b.iter_batched(
                &mut seal,
                |sealed| serve(&mut conn, &sealed, now),
                BatchSize::SmallInput,
            )
        });
    }
    let service = service(Protocol::Http, Some(server), now);
    for (name, resumed) in [("tls/handshake", false), ("tls/handshake-resumed", true)] {
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let mut config = ClientConfig::clone(&config);
                        if !resumed {
                            config.resumption = rustls::client::Resumption::disabled();
                        }
                        let mut client = tls_client(&Arc::new(config));
                        let (_, time) = handshake(&service, &mut client, now);
                        let kind = client.handshake_kind();
                        assert_eq!(kind == Some(HandshakeKind::Resumed), resumed, "{kind:?}");
                        time
                    })
                    .sum()
            })
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = short(); targets = core, websocket, tls }
criterion_main!(benches);
