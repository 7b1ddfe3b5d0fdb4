//! The protocols over TLS: the same replies as without it, however the ciphertext is split; both
//! ends of a session in order; failures reported by alerts; all memory bounded.

mod support;

use std::sync::Arc;
use std::time::Duration;

use conn::{Limits, Outcome, Protocol};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind, ServerConfig};
use support::driver::{Driver, Habits};
use support::tls::{Client, VERSIONS, client_config, server_config};
use support::world::{FakeFile, World};

const BOTH: [&str; 2] = ["h2", "http/1.1"];

/// Ciphertext that may wait in a connection, in bytes: `ENCRYPTED_BYTES_MAX` of the core, and what
/// encryption adds to its records.
const ENCRYPTED_MAX: usize = (64 << 10) + 5 * 64;

#[derive(Debug, Clone, Copy)]
enum Cut {
    Nowhere,
    EveryByte,
    At(usize),
}

struct Pair {
    client: Client,
    server: Driver,
    cut: Cut,
    sent: usize,
}

impl Pair {
    fn new(world: &World, config: &Arc<ClientConfig>, cut: Cut, habits: Habits) -> Pair {
        let (client, server) = (Client::new(config), Driver::new(world, habits));
        Pair { client, server, cut, sent: 0 }
    }

    fn established(world: &World, config: &Arc<ClientConfig>) -> Pair {
        let mut pair = Pair::new(world, config, Cut::Nowhere, Habits::default());
        pair.run();
        assert!(!pair.client.session.is_handshaking(), "{:?}", pair.client.error);
        pair
    }

    fn run(&mut self) {
        loop {
            let encrypted = self.client.take_encrypted();
            let at = match self.cut {
                Cut::At(at) => at.saturating_sub(self.sent).min(encrypted.len()),
                Cut::Nowhere | Cut::EveryByte => encrypted.len(),
            };
            self.sent += encrypted.len();
            for part in [&encrypted[..at], &encrypted[at..]] {
                let step = if matches!(self.cut, Cut::EveryByte) { 1 } else { part.len().max(1) };
                part.chunks(step).for_each(|piece| self.server.arrive(piece));
            }
            let back = self.server.take_output();
            self.client.arrive(&back);
            if encrypted.is_empty() && back.is_empty() {
                return;
            }
        }
    }

    fn send(&mut self, plaintext: &[u8]) {
        self.client.send(plaintext);
        self.run();
    }

    fn close(&mut self) {
        self.client.session.send_close_notify();
        self.run();
        self.server.arrive_eof();
        self.run();
    }
}

fn files() -> Vec<FakeFile> {
    vec![FakeFile {
        path: "letters".to_owned(),
        len: 200_000,
        modified_unix_s: 1,
        content_type: "text/plain".to_owned(),
    }]
}

fn world(protocol: Protocol, tls: Option<Arc<ServerConfig>>) -> World {
    World::secure(protocol, Limits::default(), &files(), tls)
}

fn conversations() -> Vec<(Protocol, Vec<u8>)> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello there";
    vec![
        (Protocol::Http, get("/").into_bytes()),
        (Protocol::Http, [&get("/").repeat(3), post, last].concat().into_bytes()),
        (Protocol::Http, (get("/bytes/100000") + last).into_bytes()),
        (Protocol::Http, (get("/files/letters") + last).into_bytes()),
        (Protocol::Http, b"this is no request, nor the head of one\r\n\r\n".to_vec()),
        (Protocol::Echo, b"whatever is said".to_vec()),
        (Protocol::Echo, b"0123456789".repeat(3_000)),
    ]
}

fn without_tls(protocol: Protocol, said: &[u8]) -> (Vec<u8>, Option<Outcome>) {
    let mut server = Driver::new(&world(protocol, None), Habits::default());
    server.arrive(said);
    server.arrive_eof();
    (server.take_output(), server.ended())
}

fn exchange(
    world: &World,
    config: &Arc<ClientConfig>,
    said: &[u8],
    cut: Cut,
    habits: Habits,
) -> (Pair, Option<Outcome>) {
    let mut pair = Pair::new(world, config, cut, habits);
    pair.send(said);
    pair.close();
    let ended = pair.server.ended();
    (pair, ended)
}

#[test]
fn the_replies_are_those_without_tls_wherever_the_ciphertext_is_cut() {
    for (protocol, said) in conversations() {
        let wanted = without_tls(protocol, &said);
        for version in VERSIONS {
            let world = world(protocol, Some(server_config(&["http/1.1"])));
            let config = client_config(version, &["http/1.1"], true);
            let check = |cut: Cut, habits: Habits| {
                let (pair, ended) = exchange(&world, &config, &said, cut, habits);
                let about = format!("{version:?} {cut:?} {habits:?} {}", said.escape_ascii());
                assert_eq!(pair.client.error, None, "{about}");
                assert!(pair.client.received == wanted.0, "another reply: {about}");
                assert!(pair.client.close_notify_received, "no close_notify: {about}");
                assert_eq!(ended, wanted.1, "{about}");
                pair.sent
            };
            let len = check(Cut::Nowhere, Habits::default());
            check(Cut::EveryByte, Habits::default());
            // A short one is split at every position, also within the handshake; the others at
            // some.
            let step = if said.len() < 30 { 1 } else { len / 50 };
            let places = (0..len).step_by(step);
            places.for_each(|at| {
                check(Cut::At(at), Habits::default());
            });
            for habits in [
                Habits { write_max: 1, ..Habits::default() },
                Habits { write_max: 7, by_chunks: true, ..Habits::default() },
                Habits { by_chunks: true, read_first: true, ..Habits::default() },
                Habits { early_timeouts: true, write_max: 1_000, ..Habits::default() },
            ] {
                check(Cut::Nowhere, habits);
            }
            check(Cut::EveryByte, Habits { write_max: 1, by_chunks: true, ..Habits::default() });
        }
    }
}

#[test]
fn nothing_of_a_reply_is_on_the_wire_in_the_clear() {
    let world = world(Protocol::Http, Some(server_config(&BOTH)));
    let mut pair = Pair::established(&world, &client_config(&TLS13, &[], true));
    pair.client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let encrypted = pair.client.take_encrypted();
    pair.server.arrive(&encrypted);
    let back = pair.server.take_output();
    assert!(!back.windows(5).any(|five| five == b"Hello"), "{}", back.escape_ascii());
    pair.client.arrive(&back);
    assert!(pair.client.received.ends_with(b"\r\n\r\nHello, world!"));
}

#[test]
fn a_client_that_does_not_read_is_neither_read_nor_served_without_bound() {
    let long = b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n";
    let said = [&long[..], &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5_000)].concat();
    let (wanted, _) = without_tls(Protocol::Http, &said);
    for version in VERSIONS {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let mut pair = Pair::established(&world, &client_config(version, &[], true));
        pair.server.peer_reads(Some(0));
        pair.client.send(&said);
        let encrypted = pair.client.take_encrypted();
        encrypted.chunks(16 << 10).for_each(|piece| pair.server.arrive(piece));
        let (unread, all) = (pair.server.unread(), encrypted.len());
        assert!(unread > all / 2, "{unread} of {all} bytes are not read");
        let wants = pair.server.conn.wants().expect("it is open");
        assert!(wants.write && !wants.read, "{wants:?}");
        let peak = pair.server.output_peak;
        assert!(peak <= ENCRYPTED_MAX, "{peak} bytes of ciphertext");
        // Nothing is lost for a client that reads late and first only a little.
        pair.server.peer_reads(Some(100_000));
        pair.server.peer_reads(None);
        pair.run();
        assert!(pair.client.received == wanted, "other replies");
        assert!(pair.server.output_peak <= ENCRYPTED_MAX);
    }
}

#[test]
fn a_client_that_sent_close_notify_still_gets_its_answer() {
    for version in VERSIONS {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let mut pair = Pair::established(&world, &client_config(version, &[], true));
        pair.client.send(b"GET /delay/1000 HTTP/1.1\r\nHost: a\r\n\r\n");
        pair.client.session.send_close_notify();
        pair.run();
        assert!(pair.client.received.is_empty() && !pair.client.close_notify_received);
        pair.server.pass(Duration::from_secs(1));
        pair.run();
        assert!(pair.client.received.ends_with(b"waited for 1000 ms\n"));
        assert!(pair.client.close_notify_received, "close_notify comes before FIN");
        assert_eq!(pair.server.ended(), Some(Outcome::Completed));
    }
}

#[test]
fn a_fin_alone_is_the_end_where_the_protocol_needs_no_other() {
    for (protocol, said, wanted) in [
        (Protocol::Http, &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Outcome::Completed),
        (Protocol::Http, b"GET / HTTP/1.1\r\nHo", Outcome::Truncated),
        // It is not known whether this was all: a FIN can be forged.
        (Protocol::Echo, b"hello", Outcome::Truncated),
    ] {
        for version in VERSIONS {
            let world = world(protocol, Some(server_config(&[])));
            let mut pair = Pair::established(&world, &client_config(version, &[], true));
            pair.send(said);
            pair.server.arrive_eof();
            pair.run();
            assert_eq!(pair.server.ended(), Some(wanted), "{}", said.escape_ascii());
            assert!(pair.client.close_notify_received);
        }
    }
}

#[test]
fn what_is_no_tls_is_answered_with_an_alert() {
    for (said, protocol) in [
        (&b"\x00\x01\x02 no known protocol"[..], Protocol::Http),
        (b"\x16\x03\x01\xff\xff\x01\x00\x00\x00 a record that is too long", Protocol::Http),
        (b"hello", Protocol::Echo),
    ] {
        let world = world(protocol, Some(server_config(&BOTH)));
        let mut server = Driver::new(&world, Habits::default());
        server.arrive(said);
        let back = server.take_output();
        assert_eq!(back.len(), 7, "{}", back.escape_ascii());
        // A record of type alert (21) whose first byte is fatal (2): RFC 8446 section 6.
        assert_eq!((back[0], back[5]), (21, 2), "{}", back.escape_ascii());
        assert!(server.fin_sent(), "then FIN");
        server.arrive_eof();
        assert_eq!(server.ended(), Some(Outcome::HandshakeFailed));
        assert_eq!(world.totals().connections_ended.handshake_failed, 1);
    }
}

#[test]
fn plaintext_http_is_refused_in_plaintext() {
    for said in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"P", b"PRI * HTTP/2.0\r\n\r\n"] {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let mut server = Driver::new(&world, Habits::default());
        server.arrive(said);
        let back = String::from_utf8(server.take_output()).expect("text");
        assert!(back.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{back}");
        assert!(back.contains("https://") && back.contains("\r\nConnection: close\r\n"), "{back}");
        assert!(server.fin_sent());
        server.arrive_eof();
        assert_eq!(server.ended(), Some(Outcome::HandshakeFailed));
    }
}

#[test]
fn a_client_that_rejects_the_certificate_is_counted() {
    for version in VERSIONS {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let config = client_config(version, &[], false);
        let mut pair = Pair::new(&world, &config, Cut::EveryByte, Habits::default());
        pair.run();
        assert!(matches!(pair.client.error, Some(Error::InvalidCertificate(_))));
        pair.server.arrive_eof();
        assert_eq!(pair.server.ended(), Some(Outcome::HandshakeFailed));
        assert_eq!(world.totals().connections_ended.handshake_failed, 1);
    }
}

#[test]
fn nothing_in_common_is_told_by_its_alert() {
    for version in VERSIONS {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let config = client_config(version, &["gopher"], true);
        let mut pair = Pair::new(&world, &config, Cut::Nowhere, Habits::default());
        pair.run();
        let wanted = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(pair.client.error, Some(wanted));
        assert!(pair.server.fin_sent());
        pair.server.arrive_eof();
        assert_eq!(pair.server.ended(), Some(Outcome::HandshakeFailed));
    }
}

#[test]
fn a_record_that_was_touched_ends_the_session_with_its_alert() {
    for version in VERSIONS {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let mut pair = Pair::established(&world, &client_config(version, &[], true));
        pair.client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut encrypted = pair.client.take_encrypted();
        *encrypted.last_mut().expect("a record") ^= 1;
        pair.server.arrive(&encrypted);
        pair.run();
        let wanted = Error::AlertReceived(AlertDescription::BadRecordMac);
        assert_eq!(pair.client.error, Some(wanted));
        assert!(pair.client.received.is_empty());
        pair.server.arrive_eof();
        assert_eq!(pair.server.ended(), Some(Outcome::Rejected));
    }
}

#[test]
fn a_session_is_resumed_and_counted_as_such() {
    for version in VERSIONS {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let config = client_config(version, &["http/1.1"], true);
        for (kind, wanted) in [(HandshakeKind::Full, (1, 0)), (HandshakeKind::Resumed, (1, 1))] {
            let mut pair = Pair::new(&world, &config, Cut::EveryByte, Habits::default());
            pair.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(pair.client.session.handshake_kind(), Some(kind), "{version:?}");
            assert!(pair.client.received.ends_with(b"Hello, world!"));
            pair.close();
            let totals = world.totals();
            assert_eq!((totals.handshakes_full, totals.handshakes_resumed), wanted);
        }
    }
}

#[test]
fn alpn_says_what_is_spoken() {
    /// Type of the first frame of an HTTP/2 server (RFC 9113 section 3.4).
    const SETTINGS: u8 = 4;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for version in VERSIONS {
        for (offered, said, http2) in [
            (&["h2"][..], &preface[..], true),
            (&["http/1.1", "h2"], preface, true),
            (&["http/1.1"], get, false),
            (&[], get, false),
            // With prior knowledge, as without TLS.
            (&[], preface, true),
        ] {
            let world = world(Protocol::Http, Some(server_config(&BOTH)));
            let mut pair = Pair::established(&world, &client_config(version, offered, true));
            pair.send(said);
            let received = &pair.client.received;
            assert_eq!(received.get(3) == Some(&SETTINGS), http2, "{offered:?}: {received:?}");
            assert_eq!(received.starts_with(b"HTTP/1.1 200 OK"), !http2, "{offered:?}");
        }
        // An echo server negotiates no protocol and accepts any offer.
        let world = world(Protocol::Echo, Some(server_config(&[])));
        let mut pair = Pair::established(&world, &client_config(version, &["h2"], true));
        pair.send(preface);
        assert_eq!(pair.client.received, preface);
    }
}

#[test]
fn http_1_after_choosing_h2_is_not_served() {
    let world = world(Protocol::Http, Some(server_config(&BOTH)));
    let mut pair = Pair::established(&world, &client_config(&TLS13, &["h2"], true));
    pair.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!pair.client.received.windows(5).any(|five| five == b"Hello"));
    assert!(pair.client.close_notify_received);
    pair.server.arrive_eof();
    assert_eq!(pair.server.ended(), Some(Outcome::Rejected));
}

#[test]
fn a_client_that_chose_h2_and_sends_nothing_is_idle() {
    for version in VERSIONS {
        for said in [&b""[..], b"PRI * HTTP"] {
            let world = world(Protocol::Http, Some(server_config(&BOTH)));
            let mut pair = Pair::established(&world, &client_config(version, &["h2"], true));
            pair.send(said);
            pair.server.pass(Duration::from_millis(Limits::default().idle_timeout_ms));
            pair.run();
            assert!(pair.client.close_notify_received);
            pair.server.arrive_eof();
            let late = if said.is_empty() { Outcome::IdleTimeout } else { Outcome::RequestTimeout };
            assert_eq!(pair.server.ended(), Some(late));
        }
    }
}

#[test]
fn a_handshake_has_its_time_and_no_more() {
    let limits = Limits::default();
    let time = Duration::from_millis(limits.handshake_timeout_ms);
    for bytes in [0, 1, 100] {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let mut server = Driver::new(&world, Habits::default());
        let hello = Client::new(&client_config(&TLS12, &[], true)).take_encrypted();
        // More bytes do not move the deadline.
        for piece in hello[..bytes].chunks(1) {
            server.pass(time / 200);
            server.arrive(piece);
        }
        server.pass(time - time / 200 * bytes as u32 - Duration::from_millis(1));
        assert_eq!(server.ended(), None);
        server.pass(Duration::from_millis(1));
        assert_eq!(server.ended(), Some(Outcome::HandshakeFailed));
    }
}

#[test]
fn an_end_within_the_handshake_differs_from_one_before_it() {
    let hello = Client::new(&client_config(&TLS13, &[], true)).take_encrypted();
    for (bytes, wanted) in [(0, Outcome::Completed), (50, Outcome::HandshakeFailed)] {
        let world = world(Protocol::Http, Some(server_config(&BOTH)));
        let mut server = Driver::new(&world, Habits::default());
        server.arrive(&hello[..bytes]);
        server.arrive_eof();
        assert_eq!(server.ended(), Some(wanted));
    }
}

#[test]
fn an_idle_session_is_ended_by_close_notify_and_so_is_a_drained_one() {
    for version in VERSIONS {
        for drained in [false, true] {
            let world = world(Protocol::Http, Some(server_config(&BOTH)));
            let mut pair = Pair::established(&world, &client_config(version, &[], true));
            pair.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(pair.server.conn.is_idle());
            if drained {
                pair.server.drain();
            } else {
                pair.server.pass(Duration::from_millis(Limits::default().idle_timeout_ms));
            }
            pair.run();
            assert!(pair.client.close_notify_received);
            pair.server.arrive_eof();
            let wanted = if drained { Outcome::Retired } else { Outcome::IdleTimeout };
            assert_eq!(pair.server.ended(), Some(wanted));
        }
    }
}
