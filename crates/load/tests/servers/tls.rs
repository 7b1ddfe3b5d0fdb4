//! The generator over TLS with rustls's server: correct ones, and ones with one error each.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use load::{Error, ExpectedBody, Pace, Plan, Silent, run};
use record::{Arrivals, TlsOutcome};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use crate::support::{TIME_LIMIT, Test, assert_exact, echo, http, ok, plan, server};

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// The server's side of TLS with a new certificate.
fn config(
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version])?.with_no_client_auth();
    let mut config = builder.with_single_cert(vec![own.cert.der().clone()], key)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

/// Serves each connection over TLS, and ends it with close_notify.
fn tls_server<F>(config: ServerConfig, serve: F) -> io::Result<SocketAddr>
where
    F: Fn(u64, &mut Stream) -> io::Result<()> + Send + Sync + 'static,
{
    let config = Arc::new(config);
    server(move |number, socket| {
        let tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        serve(number, &mut stream)?;
        stream.conn.send_close_notify();
        stream.flush()
    })
}

/// Answers `hello`, or with long bodies.
fn hello(_: u64, stream: &mut Stream) -> io::Result<()> {
    http(stream, |_, head, body| {
        Some(match head.split(' ').nth(1) {
            Some("/large") => ok(&vec![b'x'; 300_000]),
            Some("/echo") => ok(body),
            _ => ok(b"Hello, world!"),
        })
    })
}

fn tls(outcome: &record::LoadOutcome) -> Result<&TlsOutcome, String> {
    outcome.tls.as_ref().ok_or_else(|| format!("no TLS: {outcome:?}"))
}

/// The content of the first DER element, and the rest.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (head, len) = match der[1] {
        short @ 0..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(der[2])),
        _ => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
    };
    (&der[head..head + len], &der[head + len..])
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u16).to_be_bytes();
    [&[0x30, 0x82], len.as_slice(), content].concat()
}

/// The same certificate in X.509 version 1, without version and extensions. (Its signature is that
/// of the other one.)
fn version_1(certificate: &[u8]) -> Vec<u8> {
    let (content, _) = element(certificate);
    let (signed, signature) = element(content);
    let (_, mut rest) = element(signed);
    let fields = rest;
    // Serial number, algorithm, issuer, validity, subject, key.
    (0..6).for_each(|_| rest = element(rest).1);
    let fields = &fields[..fields.len() - rest.len()];
    sequence(&[sequence(fields).as_slice(), signature].concat())
}

/// Sends one certificate to all clients.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// The server's side with a certificate of version 1 for one key, and the other key if `wrong`.
fn old_config(
    version: &'static SupportedProtocolVersion,
    wrong: bool,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let signing = if wrong { &other } else { &own };
    let key = PrivateKeyDer::Pkcs8(signing.signing_key.serialize_der().into());
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let certificate = version_1(own.cert.der()).into();
    let shown = Shows(Arc::new(CertifiedKey::new(vec![certificate], key)));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version])?.with_no_client_auth();
    Ok(builder.with_cert_resolver(Arc::new(shown)))
}

#[test]
fn a_certificate_is_not_read_beyond_its_key_which_the_server_must_have() -> Test {
    for version in [&TLS12, &TLS13] {
        let address = tls_server(old_config(version, false)?, hello)?;
        assert_exact(&run(&plan("https", address, "/", 20)?, &mut Silent)?, 20);
        let address = tls_server(old_config(version, true)?, hello)?;
        let refused = run(&plan("https", address, "/", 20)?, &mut Silent);
        let Err(Error::Probe { reason, .. }) = refused else {
            return Err(format!("another's certificate was taken: {refused:?}").into());
        };
        assert!(reason.contains("BadSignature"), "{reason}");
    }
    Ok(())
}

#[test]
fn requests_of_all_kinds_in_both_versions() -> Test {
    for (version, name) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        let address = tls_server(config(version, &["h2", "http/1.1"])?, hello)?;
        for path in ["/", "/large"] {
            for (pipelining, threads) in [(1, 1), (4, 1), (1, 3)] {
                let plan = Plan { pipelining, threads, ..plan("https", address, path, 40)? };
                let outcome = run(&plan, &mut Silent)?;
                assert_exact(&outcome, 40);
                let tls = tls(&outcome)?;
                assert_eq!((tls.version.as_str(), tls.alpn.as_deref()), (name, Some("http/1.1")));
                assert!(tls.cipher_suite.contains("GCM") || tls.cipher_suite.contains("CHACHA"));
                // They were complete before the window.
                assert_eq!((tls.handshakes_full, tls.handshakes_resumed), (0, 0));
            }
        }
        let post = Plan { method: load::Method::Post, payload_bytes: 100_000, ..plan_of(address)? };
        let post =
            Plan { target: load::Target::parse(&format!("https://{address}/echo"))?, ..post };
        let outcome = run(&post, &mut Silent)?;
        assert_exact(&outcome, 40);
        assert!(outcome.bytes_sent > 40 * 100_000, "{outcome:?}");
    }
    Ok(())
}

/// 40 requests on 8 connections.
fn plan_of(address: SocketAddr) -> Result<Plan, Error> {
    plan("https", address, "/", 40)
}

#[test]
fn handshakes_are_counted_and_timed() -> Test {
    for version in [&TLS12, &TLS13] {
        let address = tls_server(config(version, &["http/1.1"])?, hello)?;
        for (tls_resume, expected) in [(false, (40, 0)), (true, (1, 39))] {
            // One connection after the other: each but the first can resume the one before.
            let plan = Plan { connections: 1, reconnect: true, tls_resume, ..plan_of(address)? };
            let outcome = run(&plan, &mut Silent)?;
            assert_exact(&outcome, 40);
            assert_eq!(outcome.connects, 40);
            let tls = tls(&outcome)?;
            assert_eq!((tls.handshakes_full, tls.handshakes_resumed), expected, "{version:?}");
            assert_eq!(tls.handshake.samples, 40);
            // The latency of a request begins at connect(2), so it includes the handshake.
            assert!(outcome.latency.min_us >= tls.handshake.min_us, "{outcome:?}");
            assert!(outcome.latency.mean_us >= tls.handshake.mean_us, "{outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn many_connections_resume_at_once() -> Test {
    let address = tls_server(config(&TLS13, &[])?, hello)?;
    let plan = Plan { reconnect: true, tls_resume: true, ..plan("https", address, "/", 200)? };
    let plan = Plan { threads: 2, ..plan };
    let outcome = run(&plan, &mut Silent)?;
    assert_exact(&outcome, 200);
    let tls = tls(&outcome)?;
    // Each of the eight connections has at most one handshake without a ticket.
    assert_eq!(tls.handshakes_full + tls.handshakes_resumed, 200);
    assert!((2..=8).contains(&tls.handshakes_full), "{tls:?}");
    assert_eq!(tls.alpn, None);
    Ok(())
}

#[test]
fn an_open_loop_over_tls_sends_what_is_due() -> Test {
    let address = tls_server(config(&TLS13, &[])?, hello)?;
    for reconnect in [false, true] {
        let pace = Pace::Open { rate_per_s: 1_000.0, arrivals: Arrivals::Poisson, seed: 3 };
        let plan = Plan { pace, reconnect, ..plan("https", address, "/", 100)? };
        let outcome = run(&plan, &mut Silent)?;
        assert_exact(&outcome, 100);
    }
    Ok(())
}

#[test]
fn a_server_that_agrees_to_nothing_is_refused_in_a_sentence() -> Test {
    let only_h2 = tls_server(config(&TLS13, &["h2"])?, hello)?;
    let refused = run(&plan_of(only_h2)?, &mut Silent);
    assert!(matches!(&refused, Err(Error::Probe { reason, .. }) if reason.contains("ALPN")));
    let plain = server(|_, stream| http(stream, |_, _, _| Some(ok(b"hi"))))?;
    // It waits for the end of a head.
    let refused = run(&Plan { request_timeout: TIME_LIMIT, ..plan_of(plain)? }, &mut Silent);
    assert!(
        matches!(&refused, Err(Error::NoReply { missing, .. }) if missing.contains("TLS")),
        "{refused:?}"
    );
    // The bytes come back: a ClientHello does not answer a ClientHello.
    let refused = run(&plan_of(server(echo)?)?, &mut Silent);
    assert!(
        matches!(&refused, Err(Error::Probe { reason, .. }) if reason.contains("TLS")),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn a_handshake_that_is_never_answered_runs_into_the_time_limit() -> Test {
    let config = Arc::new(config(&TLS13, &[])?);
    let address = server(move |number, mut socket| {
        // The first is the probe's: there is no body to learn.
        if number > 0 {
            return io::copy(&mut socket, &mut io::sink()).map(drop);
        }
        let tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        hello(number, &mut StreamOwned::new(tls, socket))
    })?;
    let expected_body = ExpectedBody::Any;
    let plan = Plan { request_timeout: TIME_LIMIT, expected_body, ..plan_of(address)? };
    let refused = run(&plan, &mut Silent);
    assert!(
        matches!(&refused, Err(Error::Ramp { opened: 0, reason, .. }) if reason.contains("TLS")),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn an_end_without_close_notify_does_not_complete_a_body() -> Test {
    let reply = b"HTTP/1.0 200 OK\r\n\r\nuntil the end";
    let cut = Arc::new(AtomicU64::new(0));
    let config = Arc::new(config(&TLS13, &[])?);
    let address = server(move |number, socket| {
        let tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        let count = stream.read(&mut [0; 4096])?;
        stream.write_all(if count > 0 { reply } else { b"" })?;
        if number > 2 && cut.fetch_add(1, SeqCst) % 10 == 9 {
            return Ok(());
        }
        stream.conn.send_close_notify();
        stream.flush()
    })?;
    let plan = Plan { reconnect: true, ..plan_of(address)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors_by_kind.closed), (36, 4), "{outcome:?}");
    Ok(())
}

#[test]
fn wrong_bytes_are_counted_over_tls() -> Test {
    let replies = AtomicU64::new(0);
    let address = tls_server(config(&TLS13, &[])?, move |number, stream| {
        http(stream, |_, _, _| {
            let wrong = number > 2 && replies.fetch_add(1, SeqCst) % 10 == 9;
            Some(ok(if wrong { b"Hello, worlD!" } else { b"Hello, world!" }))
        })
    })?;
    let outcome = run(&plan("https", address, "/", 100)?, &mut Silent)?;
    assert_eq!((outcome.requests, outcome.errors_by_kind.wrong, outcome.errors), (90, 10, 10));
    Ok(())
}

#[test]
fn idle_connections_have_completed_their_handshake() -> Test {
    let idle = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&idle);
    let address = tls_server(config(&TLS13, &[])?, move |number, stream| {
        if number == 0 || number > 300 {
            return hello(number, stream);
        }
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        seen.fetch_add(1, SeqCst);
        // Every hundredth is closed.
        if number % 100 == 0 { Ok(()) } else { stream.read(&mut [0; 1]).map(drop) }
    })?;
    // There is no body to learn, so there is only one probe.
    let expected_body = ExpectedBody::Any;
    let plan = Plan { idle_connections: 300, expected_body, ..plan_of(address)? };
    let outcome = run(&plan, &mut Silent)?;
    assert_exact(&outcome, 40);
    assert_eq!(idle.load(SeqCst), 300);
    assert_eq!((outcome.idle_connections, outcome.idle_connections_asked), (297, 300));
    Ok(())
}
