//! A connection without a socket, and what a model does with it: for the benchmarks of the core.

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conn::{Address, Clock, Common, Conn, Counters, Limits, Protocol, Service};
use criterion::Criterion;
use rustls::ServerConfig;

/// Short, because there are many benchmarks and their spread is some percent of a small number.
pub fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
}

/// A connection without TLS that was just accepted.
pub fn connection(protocol: Protocol, now: Instant) -> Conn {
    Conn::new(&service(protocol, None, now), Address::alone(), now)
}

/// What a server's connections share; `tls`: they begin with a handshake.
pub fn service(protocol: Protocol, tls: Option<Arc<ServerConfig>>, now: Instant) -> Arc<Service> {
    let clock = Clock { started: now, started_unix: Duration::from_secs(1_000_000_000) };
    let counters: &Counters = Box::leak(Box::default());
    let common = Common { tls, ..Common::new(Arc::new(()), clock) };
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
