//! A connection without a socket, and what a model does with it: for the benchmarks of the core.

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Address, Clock, Common, Conn, Counters, Limits, Program, Protocol, Service};
use rustls::ServerConfig;

struct Silent;

impl Program for Silent {
    fn burn(&self, _duration: Duration) {}

    fn stats_json(&self) -> String {
        String::new()
    }
}

/// A connection without TLS that was just accepted.
pub fn connection(protocol: Protocol, now: Instant) -> Conn {
    Conn::new(&service(protocol, None, now), Address::alone(), now)
}

/// What a server's connections share; `tls`: they begin with a handshake.
pub fn service(protocol: Protocol, tls: Option<Arc<ServerConfig>>, now: Instant) -> Arc<Service> {
    let clock = Clock { started: now, started_unix: Duration::from_secs(1_000_000_000) };
    let counters = Arc::new(Counters::default());
    let common = Common { tls, ..Common::new(Arc::new(Silent), clock) };
    Arc::new(Service::new(protocol, Limits::default(), counters, common))
}

/// One read and the writes that it leads to; returns the bytes written.
pub fn serve(conn: &mut Conn, bytes: &[u8], now: Instant) -> usize {
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
