//! SIGTERM on connections of HTTP/2: GOAWAY, what is under way is finished, exit code 0.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use suite::http2::setting::INITIAL_WINDOW_SIZE;
use suite::http2::{Http2, WINDOW_MAX, code};
use suite::{Server, Variant, pattern};

/// Longer than the suite's guard: whoever waited for this instead of stopping fails.
const NEVER: [&str; 2] = ["--drain-timeout", "300s"];

pub fn idle_connections_are_told(variant: &Variant) {
    let server = Server::start(variant, &NEVER);
    let several = if variant.model.one_at_a_time() { 1 } else { 10 };
    let mut clients: Vec<Http2> = (0..several).map(|_| Http2::open(server.address)).collect();
    for c in &mut clients {
        c.still_serves();
    }
    server.signal(Signal::SIGTERM);
    for c in &mut clients {
        c.farewell_without_error();
        // The highest possible one is what RFC 9113 section 6.8 has a server say first.
        let last = c.goaway.map_or(0, |goaway| goaway.last_stream);
        assert!(last == 1 || last == WINDOW_MAX, "{}", c.seen());
    }
    drop(clients);
    let counters = server.wait().counters();
    assert_eq!(counters["connections_open"], 0, "{counters}");
    assert_eq!(counters["connections_ended"]["retired"], several, "{counters}");
}

pub fn open_streams_are_finished(variant: &Variant) {
    const LEN: usize = 5_000_000;
    let server = Server::start(variant, &NEVER);
    let mut c = Http2::open(server.address);
    let delayed = c.get("/delay/400");
    let large = c.get(&format!("/bytes/{LEN}"));
    let upload = c.post(&[]);
    let events = c.get("/events/1");
    c.until("an event", |c| !c.streams[&events].body.is_empty());
    server.signal(Signal::SIGTERM);
    c.until("GOAWAY", |c| c.goaway.is_some());
    // GOAWAY does not wait for the streams: this one is open until its client has sent all, which
    // it still may, because the stream was accepted.
    c.send_body(upload, &pattern(0, 100_000), 10_000);
    assert!(c.reply(large).body == pattern(0, LEN), "the body was cut or changed");
    assert!(c.reply(upload).body == pattern(0, 100_000), "the upload was cut or changed");
    assert_eq!(c.reply(delayed).body, b"waited for 400 ms\n");
    c.farewell_without_error();
    assert!(c.reply(events).body.ends_with(b"\n\n"), "an event was cut");
    assert_eq!(c.goaway.map(|goaway| goaway.last_stream), Some(events));
    drop(c);
    let counters = server.wait().counters();
    assert_eq!(counters["connections_open"], 0, "{counters}");
    assert_eq!(counters["requests"], 4, "{counters}");
}

/// Streams that nobody will ever read do not keep the server.
pub fn stuck_stream_is_cut(variant: &Variant) {
    const DRAIN: Duration = Duration::from_millis(300);
    let server = Server::start(variant, &["--drain-timeout", "300ms"]);
    let mut c = Http2::open(server.address);
    c.set(&[(INITIAL_WINDOW_SIZE, 0)]);
    let stuck = c.get("/bytes/1000");
    c.head(stuck);
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    c.until_end();
    assert!(begun.elapsed() >= DRAIN, "early: {:?}", begun.elapsed());
    assert_eq!(c.goaway.map(|goaway| goaway.code), Some(code::NO_ERROR), "{}", c.seen());
    let counters = server.wait().counters();
    assert_eq!(counters["connections_ended"]["drain_timeout"], 1, "{counters}");
}
