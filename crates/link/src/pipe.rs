//! One direction of a link, as a state machine: packets and a clock in, packets out. It does no
//! I/O and reads no clock.
//!
//! A packet waits in the queue, is transmitted at the rate, one after another, and then travels
//! for half a round trip. A queue that is full drops the packet that arrives (drop-tail). A packet
//! that is lost is lost on its way: it took its time of transmission.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use record::SplitMix64;
use serde::Serialize;

use crate::{Profile, Queue};

/// Distance of the seeds of the two directions, so that neighbouring seeds share no sequence
/// (SplitMix64 begins another sequence at each number).
const DIRECTION_SEED: u64 = 0xD1B5_4A32_D192_ED03;

/// Bytes of packets on their way in one direction, so that a long and fast link does not use up
/// the machine's memory. What arrives beyond it is dropped as by a full queue.
const HELD_BYTES_MAX: u64 = 1 << 30;

const NANOS_PER_S: u128 = 1_000_000_000;

/// What one direction has done with its packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets that arrived at this end: the sum of the three below and of those on their way.
    pub sent: u64,
    /// Packets that came out at the other end.
    pub delivered: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets that found the queue full.
    pub dropped: u64,
    /// Bytes of the delivered packets.
    pub delivered_bytes: u64,
}

impl Counters {
    /// What was added since `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        Counters {
            sent: self.sent - before.sent,
            delivered: self.delivered - before.delivered,
            lost: self.lost - before.lost,
            dropped: self.dropped - before.dropped,
            delivered_bytes: self.delivered_bytes - before.delivered_bytes,
        }
    }
}

/// Where a direction leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Pipe {
    delay: Duration,
    line: Option<Line>,
    queue: Queue,
    loss: f64,
    random: SplitMix64,
    /// Packets whose transmission has not begun: its beginning, and their bytes.
    waiting: VecDeque<(Instant, u64)>,
    waiting_bytes: u64,
    /// Packets that were accepted and not lost, with their arrival at the other end, in order.
    travelling: VecDeque<(Instant, Vec<u8>)>,
    travelling_bytes: u64,
    counters: Counters,
}

impl Pipe {
    /// An empty one.
    pub fn new(profile: &Profile, direction: Direction) -> Pipe {
        let half = profile.rtt / 2;
        let (delay, seed) = match direction {
            Direction::ToServer => (half, profile.seed),
            // Both halves are a round trip, to the nanosecond.
            Direction::ToClient => (profile.rtt - half, profile.seed.wrapping_add(DIRECTION_SEED)),
        };
        Pipe {
            delay,
            line: profile.rate_bits_per_s.map(Line::new),
            queue: profile.queue(),
            loss: profile.loss,
            random: SplitMix64::new(seed),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            travelling: VecDeque::new(),
            travelling_bytes: 0,
            counters: Counters::default(),
        }
    }

    /// A packet arrives at this end. `now` must not decrease from call to call.
    pub fn send(&mut self, packet: Vec<u8>, now: Instant) {
        self.counters.sent += 1;
        let bytes = packet.len() as u64;
        if self.travelling_bytes + bytes > HELD_BYTES_MAX || !self.has_room(bytes, now) {
            self.counters.dropped += 1;
            return;
        }
        let sent = self.line.as_mut().map_or(now, |line| line.transmit(bytes));
        if self.random.unit() < self.loss {
            self.counters.lost += 1;
            return;
        }
        self.travelling.push_back((sent + self.delay, packet));
        self.travelling_bytes += bytes;
    }

    /// Whether the packet can be transmitted at once, or else finds room in the queue.
    fn has_room(&mut self, bytes: u64, now: Instant) -> bool {
        let Some(line) = &mut self.line else { return true };
        while let Some((_, begun)) = self.waiting.pop_front_if(|(begins, _)| *begins <= now) {
            self.waiting_bytes -= begun;
        }
        let begins = line.free_at(now);
        if begins <= now {
            return true;
        }
        let has_room = match self.queue {
            Queue::Packets(packets) => (self.waiting.len() as u64) < packets,
            Queue::Bytes(most) => self.waiting_bytes + bytes <= most,
        };
        if has_room {
            self.waiting.push_back((begins, bytes));
            self.waiting_bytes += bytes;
        }
        has_room
    }

    /// Packets that have arrived at the other end, in order.
    pub fn due(&mut self, now: Instant) -> impl Iterator<Item = Vec<u8>> {
        std::iter::from_fn(move || {
            let (_, packet) = self.travelling.pop_front_if(|(arrives, _)| *arrives <= now)?;
            self.counters.delivered += 1;
            self.counters.delivered_bytes += packet.len() as u64;
            self.travelling_bytes -= packet.len() as u64;
            Some(packet)
        })
    }

    /// When the next packet arrives at the other end; `None`: none is on its way.
    pub fn next(&self) -> Option<Instant> {
        self.travelling.front().map(|(arrives, _)| *arrives)
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

/// The transmitter, which sends one packet after another. Time is counted from the beginning of a
/// busy period, so that no rounding adds up: its last bit leaves within a nanosecond of what the
/// rate says.
#[derive(Debug)]
struct Line {
    bits_per_s: u64,
    /// The beginning of the busy period, and the bits since then.
    busy: Option<(Instant, u128)>,
}

impl Line {
    fn new(bits_per_s: u64) -> Line {
        Line { bits_per_s, busy: None }
    }

    fn end(&self, since: Instant, bits: u128) -> Instant {
        let nanos = (bits * NANOS_PER_S).div_ceil(u128::from(self.bits_per_s));
        since + Duration::from_nanos(nanos as u64)
    }

    /// When the transmission of another packet begins. A line that is idle begins a busy period.
    fn free_at(&mut self, now: Instant) -> Instant {
        match self.busy {
            Some((since, bits)) if self.end(since, bits) > now => self.end(since, bits),
            _ => {
                self.busy = Some((now, 0));
                now
            }
        }
    }

    /// Transmits so many bytes after all others. Returns when the last bit leaves.
    fn transmit(&mut self, bytes: u64) -> Instant {
        let (since, bits) = self.busy.expect("free_at begins a busy period");
        let bits = bits + 8 * u128::from(bytes);
        self.busy = Some((since, bits));
        self.end(since, bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(profile: &str) -> Pipe {
        Pipe::new(&profile.parse().unwrap(), Direction::ToServer)
    }

    fn packet(bytes: usize) -> Vec<u8> {
        vec![0x45; bytes]
    }

    /// Takes all packets at the times that [`Pipe::next`] names.
    fn arrivals(pipe: &mut Pipe, start: Instant) -> Vec<(Duration, usize)> {
        let mut seen = Vec::new();
        while let Some(next) = pipe.next() {
            assert_eq!(pipe.due(next - Duration::from_nanos(1)).count(), 0, "early");
            seen.extend(pipe.due(next).map(|packet| (next - start, packet.len())));
        }
        seen
    }

    #[test]
    fn both_directions_take_a_round_trip() {
        let start = Instant::now();
        for rtt in ["0s", "1ns", "40ms", "41ms 1ns", "10s"] {
            let profile: Profile = format!("rtt={rtt}").parse().unwrap();
            let mut to_server = Pipe::new(&profile, Direction::ToServer);
            let mut to_client = Pipe::new(&profile, Direction::ToClient);
            to_server.send(packet(64), start);
            let there = to_server.next().unwrap();
            to_client.send(to_server.due(there).next().unwrap(), there);
            assert_eq!(to_client.next().unwrap() - start, profile.rtt, "{rtt}");
            assert_eq!(to_client.due(start + profile.rtt).next(), Some(packet(64)));
        }
    }

    #[test]
    fn a_packet_takes_its_time_at_the_rate_and_waits_for_those_before_it() {
        let start = Instant::now();
        let mut pipe = pipe("rtt=40ms,rate=10mbit");
        for bytes in [1_500, 1_500, 40] {
            pipe.send(packet(bytes), start);
        }
        // An idle line begins at once.
        let later = start + Duration::from_millis(5);
        pipe.send(packet(1_500), later);
        let micros = |micros| Duration::from_micros(micros);
        assert_eq!(
            arrivals(&mut pipe, start),
            [
                (micros(21_200), 1_500),
                (micros(22_400), 1_500),
                (micros(22_432), 40),
                (micros(26_200), 1_500),
            ]
        );
    }

    #[test]
    fn the_rate_is_kept_within_the_bit() {
        for rate in [10_000, 56_001, 10_000_000, 999_999_937, 100_000_000_000] {
            let mut pipe = pipe(&format!("rate={rate}bit,queue=1024MiB"));
            let start = Instant::now();
            let mut random = SplitMix64::new(rate);
            let mut bits = 0;
            for _ in 0..20_000 {
                let bytes = 20 + random.below(1_481);
                bits += 8 * bytes as u128;
                pipe.send(packet(bytes), start);
            }
            let (last, _) = *arrivals(&mut pipe, start).last().unwrap();
            let (nanos, rate) = (last.as_nanos(), u128::from(rate));
            // Not before the last bit, and less than a nanosecond after it.
            assert!(nanos * rate >= bits * NANOS_PER_S, "{rate}: {last:?}");
            assert!((nanos - 1) * rate < bits * NANOS_PER_S, "{rate}: {last:?}");
        }
    }

    /// In each period the line sends at most what the rate allows, and one packet that had begun.
    #[test]
    fn no_period_has_more_than_the_rate() {
        let rate = 8_000_000;
        let mut pipe = pipe(&format!("rate={rate}bit,queue=20p"));
        let (start, mut random) = (Instant::now(), SplitMix64::new(3));
        let mut now = start;
        for _ in 0..5_000 {
            pipe.send(packet(20 + random.below(1_481)), now);
            now += Duration::from_nanos(random.below(1_400_000) as u64);
        }
        let seen = arrivals(&mut pipe, start);
        for first in (0..seen.len()).step_by(97) {
            let mut bits = 0;
            for (arrived, bytes) in &seen[first..] {
                bits += 8 * *bytes as u128;
                let allowed = (*arrived - seen[first].0).as_nanos() * rate / NANOS_PER_S;
                assert!(bits <= allowed + 8 * 1_500 + 1, "{first} {arrived:?}");
            }
        }
        let counters = pipe.counters();
        assert!(counters.dropped > 100, "the queue was never full: {counters:?}");
        assert_eq!(counters.sent, counters.delivered + counters.dropped);
    }

    #[test]
    fn a_full_queue_drops_what_arrives_and_keeps_the_rest() {
        let start = Instant::now();
        let tick = Duration::from_millis(1);
        for (queue, kept) in [("3p", 3), ("3000B", 3), ("3999B", 3), ("4KiB", 4)] {
            // A packet of 1,000 bytes takes 1 ms.
            let mut pipe = pipe(&format!("rate=8mbit,queue={queue}"));
            for _ in 0..10 {
                pipe.send(packet(1_000), start);
            }
            // One is being transmitted, and does not wait.
            assert_eq!(pipe.counters().dropped, 9 - kept, "{queue}");
            // After 1 ms the first of those that wait begins, which leaves one place.
            pipe.send(packet(1_000), start + tick);
            pipe.send(packet(1_000), start + tick);
            assert_eq!(pipe.counters().dropped, 9 - kept + 1, "{queue}");
            let last = arrivals(&mut pipe, start).last().map(|(arrived, _)| *arrived);
            assert_eq!(last, Some(tick * (kept as u32 + 2)), "{queue}");
        }
    }

    #[test]
    fn a_lost_packet_took_its_time_on_the_line() {
        let start = Instant::now();
        let mut pipe = pipe("rate=8mbit,loss=50%,seed=4");
        for _ in 0..20 {
            pipe.send(packet(1_000), start);
        }
        let lost = pipe.counters().lost;
        assert!((1..20).contains(&lost), "{lost}");
        let seen = arrivals(&mut pipe, start);
        assert_eq!(seen.len() as u64, 20 - lost);
        let tick = Duration::from_millis(1).as_nanos();
        assert!(seen.iter().all(|(arrived, _)| arrived.as_nanos() % tick == 0), "{seen:?}");
        let expected = seen.last().unwrap().0.as_millis() - seen[0].0.as_millis() + 1;
        assert!(seen.len() < expected as usize, "no gap: {seen:?}");
    }

    #[test]
    fn loss_is_what_was_asked_for() {
        let start = Instant::now();
        for percent in [0.0_f64, 0.1, 1.0, 5.0, 50.0, 99.0] {
            for seed in 0..20 {
                let mut pipe = pipe(&format!("loss={percent}%,seed={seed}"));
                for _ in 0..10_000 {
                    pipe.send(packet(40), start);
                }
                let seen = pipe.counters().lost as f64 / 100.0;
                // Four standard deviations of a binomial distribution: 0.4 points at 1 %.
                let spread = (percent * (100.0 - percent) / 10_000.0).sqrt();
                assert!((seen - percent).abs() <= 4.0 * spread, "{percent} {seed}: {seen}");
                assert_eq!(pipe.due(start).count() as u64, 10_000 - pipe.counters().lost);
            }
        }
    }

    #[test]
    fn a_seed_decides_what_is_lost_and_the_directions_differ() {
        let start = Instant::now();
        let lost = |seed: u64, direction| {
            let profile: Profile = format!("loss=10%,seed={seed}").parse().unwrap();
            let mut pipe = Pipe::new(&profile, direction);
            let was_lost = |_| {
                let before = pipe.counters().lost;
                pipe.send(packet(40), start);
                pipe.counters().lost > before
            };
            (0..1_000).map(was_lost).collect::<Vec<_>>()
        };
        let first = lost(1, Direction::ToServer);
        assert_eq!(first, lost(1, Direction::ToServer));
        assert_ne!(first, lost(2, Direction::ToServer));
        assert_ne!(first, lost(1, Direction::ToClient));
    }
}
