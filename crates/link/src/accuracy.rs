//! What a link does, measured before it is used: UDP packets through both namespaces.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::Serialize;
use socket2::SockRef;

use crate::{Counters, Direction, Link, MTU_BYTES};

/// Headers of IPv4 and UDP, without options.
const HEADER_BYTES: usize = 28;
/// A ping: its number, and no more.
const PING_BYTES: usize = 8;
/// Enough for a median that one late wake-up does not move.
const PINGS: usize = 50;
/// Between two pings, so that they do not wait for each other.
const PING_GAP: Duration = Duration::from_millis(5);
/// How much faster than the rate the burst is sent: the line then never idles, and few packets are
/// dropped.
const BURST_SPEED: f64 = 1.2;
/// Length of the burst, unless so many packets take longer. A wake-up that is late by a
/// millisecond changes the rate by half a per cent.
const BURST: Duration = Duration::from_millis(250);
/// Packets per second without a rate: what one core sends and receives easily.
const BURST_PACKETS_PER_S: f64 = 20_000.0;
/// The time beyond the last arrival: for a machine that is loaded.
const GRACE: Duration = Duration::from_millis(500);
/// Room for packets of a burst that arrive while this thread has no core.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// What was asked of a link, and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    /// The profile in words.
    pub asked: String,
    /// The round trip asked for, in milliseconds.
    pub rtt_asked_ms: f64,
    /// Median of the pings, without the time that their own bytes take at the rate; `None` if all
    /// were lost.
    pub rtt_ms: Option<f64>,
    /// The rate asked for, in Mbit/s.
    pub rate_asked_mbit_s: Option<f64>,
    /// That of a burst to the server, counted in IP packets; `None` if no rate was asked for, or
    /// if too little arrived.
    pub rate_mbit_s: Option<f64>,
    /// The loss asked for, in per cent.
    pub loss_asked_percent: f64,
    /// Packets that were sent and found room in the queue.
    pub packets: u64,
    /// Those of them that did not arrive.
    pub lost: u64,
}

impl Accuracy {
    /// Measures for about a second: pings, and a burst of `packets` packets to the server. The
    /// link must not carry anything else.
    ///
    /// # Errors
    /// One sentence: sockets that cannot be used, or a link that carries nothing.
    pub fn measure(link: &Link, packets: u64) -> Result<Accuracy, String> {
        let probe =
            Probe::new(link).map_err(|error| format!("cannot measure the link: {error}"))?;
        let failed = |error| match link.failure() {
            Some(why) => why,
            None => format!("cannot measure the link: {error}"),
        };
        let pings = probe.pings().map_err(failed)?;
        let burst = probe.burst(packets).map_err(failed)?;
        let profile = link.profile();
        let own = 2 * profile.transmission((PING_BYTES + HEADER_BYTES) as u64);
        let rtt = pings.median.map(|rtt| rtt.saturating_sub(own).as_secs_f64() * 1e3);
        let mbit = |bits: f64| bits / 1e6;
        Ok(Accuracy {
            asked: profile.to_string(),
            rtt_asked_ms: profile.rtt.as_secs_f64() * 1e3,
            rtt_ms: rtt,
            rate_asked_mbit_s: profile.rate_bits_per_s.map(|rate| mbit(rate as f64)),
            rate_mbit_s: burst.bits_per_s.filter(|_| profile.rate_bits_per_s.is_some()).map(mbit),
            loss_asked_percent: 100.0 * profile.loss,
            packets: pings.packets + burst.packets,
            lost: pings.lost + burst.lost,
        })
    }

    /// The loss that was measured, in per cent.
    pub fn loss_percent(&self) -> f64 {
        100.0 * self.lost as f64 / self.packets.max(1) as f64
    }
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asked {}; measured ", self.asked)?;
        match self.rtt_ms {
            Some(ms) => write!(f, "round trip {ms:.2} ms")?,
            None => write!(f, "no round trip (all pings were lost)")?,
        }
        if let Some(rate) = self.rate_mbit_s {
            write!(f, ", rate {rate:.3} Mbit/s")?;
        }
        let (lost, packets, percent) = (self.lost, self.packets, self.loss_percent());
        write!(f, ", {lost} of {packets} packets lost ({percent:.2} %)")
    }
}

struct Pings {
    median: Option<Duration>,
    packets: u64,
    lost: u64,
}

struct Burst {
    bits_per_s: Option<f64>,
    packets: u64,
    lost: u64,
}

/// A socket at each end. A socket stays in the namespace in which it was opened, so one thread can
/// use both.
struct Probe<'a> {
    link: &'a Link,
    client: UdpSocket,
    server: UdpSocket,
    to: SocketAddr,
}

impl<'a> Probe<'a> {
    fn new(link: &'a Link) -> io::Result<Probe<'a>> {
        let open = |namespace: &crate::Namespace| {
            let socket = namespace.run(|| UdpSocket::bind((namespace.address(), 0)))??;
            socket.set_nonblocking(true)?;
            SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
            io::Result::Ok(socket)
        };
        let (client, server) = (open(link.client())?, open(link.server())?);
        let to = server.local_addr()?;
        Ok(Probe { link, client, server, to })
    }

    fn counters(&self) -> [Counters; 2] {
        [Direction::ToServer, Direction::ToClient].map(|direction| self.link.counters(direction))
    }

    /// When the last of these bytes has left a queue that they fill, has made a round trip, and
    /// was seen on a loaded machine.
    fn last_arrival(&self, bytes: usize) -> Instant {
        let profile = self.link.profile();
        Instant::now() + profile.rtt + 2 * profile.transmission(bytes as u64) + GRACE
    }

    fn pings(&self) -> io::Result<Pings> {
        let before = self.counters();
        let gap = PING_GAP.max(3 * self.link.profile().transmission(64));
        let mut sent: Vec<Instant> = Vec::new();
        let mut round_trips = Vec::new();
        let mut end = Instant::now() + gap * PINGS as u32;
        let mut next = Instant::now();
        loop {
            let now = Instant::now();
            if sent.len() < PINGS && now >= next {
                self.client.send_to(&(sent.len() as u64).to_be_bytes(), self.to)?;
                sent.push(now);
                next += gap;
                if sent.len() == PINGS {
                    end = self.last_arrival(PINGS * 64);
                }
            }
            let mut ping = [0; PING_BYTES];
            while let Some(from) = received(self.server.recv_from(&mut ping))? {
                self.server.send_to(&ping, from.1)?;
            }
            while received(self.client.recv_from(&mut ping))?.is_some() {
                let number = u64::from_be_bytes(ping) as usize;
                round_trips.extend(sent.get(number).map(Instant::elapsed));
            }
            let all = round_trips.len() as u64 + self.gone(&before) >= PINGS as u64;
            if sent.len() == PINGS && (all || now >= end) {
                break;
            }
            self.wait(if sent.len() < PINGS { next } else { end })?;
        }
        let [there, back] = self.since(&before);
        let lost = PINGS as u64 - round_trips.len() as u64;
        round_trips.sort_unstable();
        let median = round_trips.get(round_trips.len() / 2).copied();
        Ok(Pings { median, packets: there.sent + back.sent, lost })
    }

    /// Sends faster than the rate, and counts what arrives per second.
    fn burst(&self, packets: u64) -> io::Result<Burst> {
        let before = self.counters();
        let (bytes, per_s) = self.shape(packets);
        let (mut message, mut buffer) = (vec![0; bytes - HEADER_BYTES], [0; MTU_BYTES]);
        let (mut sent, mut seen) = (0, 0);
        let (mut first, mut last) = (None, None);
        let start = Instant::now();
        let mut end = None;
        loop {
            let now = Instant::now();
            let due = ((now - start).as_secs_f64() * per_s * BURST_SPEED) as u64 + 1;
            // At most so many at once, because this thread also empties the receive buffer.
            for _ in 0..16 {
                if self.accepted(&before) >= packets || sent >= due || sent >= 2 * packets {
                    break;
                }
                message[..8].copy_from_slice(&u64::to_be_bytes(sent));
                match self.client.send_to(&message, self.to) {
                    Ok(_) => sent += 1,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            while received(self.server.recv_from(&mut buffer))?.is_some() {
                seen += 1;
                last = Some(Instant::now());
                first = first.or(last);
            }
            let done = self.accepted(&before) >= packets || sent >= 2 * packets;
            if done && end.is_none() {
                end = Some(self.last_arrival(self.queue_bytes()));
            }
            if let Some(end) = end
                && (seen + self.gone(&before) >= sent || now >= end)
            {
                break;
            }
            let next = start + Duration::from_secs_f64(sent as f64 / (per_s * BURST_SPEED));
            self.wait(end.unwrap_or(next))?;
        }
        let [there, _] = self.since(&before);
        let accepted = sent - there.dropped;
        let window = first.zip(last).map(|(first, last)| (last - first).as_secs_f64());
        // Lost packets took their time on the line.
        let crossed = accepted.saturating_sub(1) as f64 * bytes as f64 * 8.0;
        let bits_per_s = window.filter(|&window| window > 0.0).map(|window| crossed / window);
        Ok(Burst { bits_per_s, packets: accepted, lost: accepted.saturating_sub(seen) })
    }
}

impl Probe<'_> {
    /// Bytes of each packet of a burst, with headers, and packets per second at the rate.
    fn shape(&self, packets: u64) -> (usize, f64) {
        let smallest = HEADER_BYTES + PING_BYTES;
        let Some(rate) = self.link.profile().rate_bits_per_s else {
            return (smallest, BURST_PACKETS_PER_S);
        };
        let fitting = rate as f64 * BURST.as_secs_f64() / 8.0 / packets.max(1) as f64;
        let bytes = (fitting as usize).clamp(smallest, MTU_BYTES);
        (bytes, rate as f64 / 8.0 / bytes as f64)
    }

    fn queue_bytes(&self) -> usize {
        match self.link.profile().queue() {
            _ if self.link.profile().rate_bits_per_s.is_none() => 0,
            crate::Queue::Packets(packets) => packets as usize * MTU_BYTES,
            crate::Queue::Bytes(bytes) => bytes as usize,
        }
    }

    fn since(&self, before: &[Counters; 2]) -> [Counters; 2] {
        let now = self.counters();
        [now[0].since(&before[0]), now[1].since(&before[1])]
    }

    /// Packets that will not arrive, by what the emulator says: only to end a wait early.
    fn gone(&self, before: &[Counters; 2]) -> u64 {
        self.since(before).iter().map(|counters| counters.lost + counters.dropped).sum()
    }

    /// Packets to the server that found room.
    fn accepted(&self, before: &[Counters; 2]) -> u64 {
        let [there, _] = self.since(before);
        there.sent - there.dropped
    }

    /// Waits until a socket can be read, or until then.
    fn wait(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let mut watched = [self.client.as_fd(), self.server.as_fd()]
            .map(|socket| PollFd::new(socket, PollFlags::POLLIN));
        match ppoll(&mut watched, Some(TimeSpec::from_duration(left)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// `None` if nothing has arrived.
fn received<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(received) => Ok(Some(received)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
