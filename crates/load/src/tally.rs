//! The counters of one engine thread in a window.

use record::Errors;

use crate::Error;
use crate::histogram::Latencies;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// connect(2), the TLS handshake or the greeting failed.
    Connect,
    Closed,
    Wrong,
    Timeout,
}

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) errors: Errors,
    pub(crate) first_error: Option<String>,
    pub(crate) connects: u64,
    pub(crate) closed_by_server: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) latencies: Latencies,
    /// Messages of a fan-out that all members have received.
    pub(crate) messages: u64,
    pub(crate) handshakes_full: u64,
    pub(crate) handshakes_resumed: u64,
    /// Times of TLS handshakes, from connect(2) on.
    pub(crate) handshakes: Latencies,
    in_flight: u64,
    /// The sum of (requests in flight x nanoseconds). Its mean is L in Little's law, measured
    /// independently of the latencies.
    in_flight_ns: u128,
    since_ns: u64,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Tally {
            requests: 0,
            errors: Errors::default(),
            first_error: None,
            connects: 0,
            closed_by_server: 0,
            bytes_sent: 0,
            bytes_received: 0,
            latencies: Latencies::new()?,
            messages: 0,
            handshakes_full: 0,
            handshakes_resumed: 0,
            handshakes: Latencies::new()?,
            in_flight: 0,
            in_flight_ns: 0,
            since_ns: 0,
        })
    }

    /// Sets the counters to zero at the start of the window. Requests in flight stay in flight.
    pub(crate) fn start(&mut self, now_ns: u64) {
        self.requests = 0;
        self.errors = Errors::default();
        self.first_error = None;
        self.connects = 0;
        self.closed_by_server = 0;
        self.bytes_sent = 0;
        self.bytes_received = 0;
        self.latencies.reset();
        self.messages = 0;
        self.handshakes_full = 0;
        self.handshakes_resumed = 0;
        self.handshakes.reset();
        self.in_flight_ns = 0;
        self.since_ns = now_ns;
    }

    /// Keeps the requests in flight of `other`, and none of its counts.
    pub(crate) fn carrying(mut self, other: &Tally) -> Self {
        self.in_flight = other.in_flight;
        self.since_ns = other.since_ns;
        self
    }

    #[inline]
    pub(crate) fn admitted(&mut self, requests: u64, now_ns: u64) {
        self.integrate(now_ns);
        self.in_flight += requests;
    }

    #[inline]
    pub(crate) fn answered(&mut self, latency_ns: u64, now_ns: u64) {
        self.integrate(now_ns);
        self.in_flight -= 1;
        self.requests += 1;
        self.latencies.record(latency_ns);
    }

    /// A request of an open loop was answered; `counts` if it was due in the window. Its latency is
    /// recorded elsewhere.
    pub(crate) fn answered_open(&mut self, counts: bool, now_ns: u64) {
        self.integrate(now_ns);
        self.in_flight -= 1;
        self.requests += u64::from(counts);
    }

    /// A request waited so long between its due time and its sending. For Little's law it was in
    /// the system.
    pub(crate) fn waited(&mut self, wait_ns: u64) {
        self.in_flight_ns += u128::from(wait_ns);
    }

    pub(crate) fn lost(&mut self, requests: u64, now_ns: u64) {
        self.integrate(now_ns);
        self.in_flight -= requests;
    }

    /// A TLS handshake was completed, so long after connect(2).
    pub(crate) fn shaken(&mut self, resumed: bool, took_ns: u64) {
        match resumed {
            true => self.handshakes_resumed += 1,
            false => self.handshakes_full += 1,
        }
        self.handshakes.record(took_ns);
    }

    pub(crate) fn error(&mut self, fault: Fault, what: String) {
        match fault {
            Fault::Connect => self.errors.connect += 1,
            Fault::Closed => self.errors.closed += 1,
            Fault::Wrong => self.errors.wrong += 1,
            Fault::Timeout => self.errors.timeout += 1,
        }
        self.first_error.get_or_insert(what);
    }

    pub(crate) fn errors_sum(&self) -> u64 {
        self.errors.connect + self.errors.closed + self.errors.wrong + self.errors.timeout
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The mean number of requests in flight over `duration_ns`, until `now_ns`.
    pub(crate) fn mean_in_flight(&mut self, now_ns: u64, duration_ns: u64) -> f64 {
        self.integrate(now_ns);
        self.in_flight_ns as f64 / duration_ns.max(1) as f64
    }

    #[inline]
    fn integrate(&mut self, now_ns: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.since_ns);
        self.in_flight_ns += u128::from(self.in_flight) * u128::from(elapsed_ns);
        self.since_ns = self.since_ns.max(now_ns);
    }

    /// Adds the counters of another thread, without its requests in flight.
    pub(crate) fn merge(&mut self, other: Tally) -> Result<(), Error> {
        self.requests += other.requests;
        self.errors.connect += other.errors.connect;
        self.errors.closed += other.errors.closed;
        self.errors.wrong += other.errors.wrong;
        self.errors.timeout += other.errors.timeout;
        self.connects += other.connects;
        self.closed_by_server += other.closed_by_server;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.latencies.merge(&other.latencies)?;
        self.messages += other.messages;
        self.handshakes_full += other.handshakes_full;
        self.handshakes_resumed += other.handshakes_resumed;
        self.handshakes.merge(&other.handshakes)?;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_flight_are_averaged_over_time() -> Result<(), Error> {
        let mut tally = Tally::new()?;
        tally.admitted(2, 0);
        tally.start(100);
        tally.answered(150, 150);
        tally.lost(1, 175);
        // 2 for 50 ns, 1 for 25 ns, 0 for 25 ns.
        assert!((tally.mean_in_flight(200, 100) - 1.25).abs() < 1e-9);
        Ok(())
    }
}
