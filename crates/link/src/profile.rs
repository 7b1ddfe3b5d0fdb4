//! What a link is asked for: `rtt=40ms,rate=10mbit,loss=1%`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use humantime::{format_duration, parse_duration};

/// A satellite's round trip takes 0.6 s. A longer one than this is a typing error.
const RTT_MAX: Duration = Duration::from_secs(10);
/// At a lower rate a packet of 1,500 bytes takes more than a second.
const RATE_MIN_BITS_PER_S: u64 = 10_000;
/// More than one thread can move in packets of 1,500 bytes.
const RATE_MAX_BITS_PER_S: u64 = 100_000_000_000;
/// The shortest default queue. A TCP connection begins with 10 packets at once (RFC 6928), so two
/// connections may begin together without loss.
const QUEUE_BYTES_MIN: u64 = 20 * super::MTU_BYTES as u64;
/// The longest queue: what a machine can hold beside the servers that are measured.
const QUEUE_BYTES_MAX: u64 = 1 << 30;
const SEED: u64 = 1;

/// The properties of a link. Both directions have the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Round-trip time of a small packet: each direction takes half of it.
    pub rtt: Duration,
    /// Bits per second of each direction, counted in IP packets. `None`: not limited.
    pub rate_bits_per_s: Option<u64>,
    /// Probability that a packet is lost, in each direction: 0.01 for `1%`.
    pub loss: f64,
    /// Length of the queue before each direction. `None`: [`Profile::queue`] chooses.
    pub queue: Option<Queue>,
    /// Seed of the losses: the same packets are lost with the same seed.
    pub seed: u64,
}

/// The most that may wait for its transmission. A packet that finds the queue full is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// So many packets.
    Packets(u64),
    /// So many bytes of packets.
    Bytes(u64),
}

impl Default for Profile {
    fn default() -> Profile {
        Profile { rtt: Duration::ZERO, rate_bits_per_s: None, loss: 0.0, queue: None, seed: SEED }
    }
}

impl Profile {
    /// The queue as asked for, or the bandwidth-delay product: with it one TCP connection keeps
    /// the link busy although it halves its window at a loss. Without a rate no packet waits.
    pub fn queue(&self) -> Queue {
        let product = |rate: u64| (u128::from(rate) * self.rtt.as_nanos() / 8_000_000_000) as u64;
        self.queue.unwrap_or(match self.rate_bits_per_s {
            Some(rate) => Queue::Bytes(product(rate).clamp(QUEUE_BYTES_MIN, QUEUE_BYTES_MAX)),
            None => Queue::Bytes(QUEUE_BYTES_MAX),
        })
    }

    /// The time that so many bytes take at the rate.
    pub fn transmission(&self, bytes: u64) -> Duration {
        let nanos = |rate| (u128::from(bytes) * 8_000_000_000 / u128::from(rate)) as u64;
        Duration::from_nanos(self.rate_bits_per_s.map_or(0, nanos))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "rtt" => self.rtt = rtt(value)?,
            "rate" => self.rate_bits_per_s = Some(rate(value)?),
            "loss" => self.loss = loss(value)?,
            "queue" => self.queue = Some(queue(value)?),
            "seed" => {
                self.seed = value.parse().map_err(|_| "write a whole number, such as seed=1")?;
            }
            _ => return Err("known are rtt, rate, loss, queue and seed".to_owned()),
        }
        Ok(())
    }
}

impl FromStr for Profile {
    type Err = String;

    /// Parses `NAME=VALUE,...`; each name at most once, in any order.
    fn from_str(text: &str) -> Result<Profile, String> {
        const USAGE: &str = "write a link as rtt=40ms,rate=10mbit,loss=1%";
        let mut profile = Profile::default();
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("{part:?} has no value: {USAGE}"))?;
            if seen.contains(&name) {
                return Err(format!("{part:?}: {name} is named twice"));
            }
            seen.push(name);
            profile.set(name, value).map_err(|why| format!("{part:?}: {why}"))?;
        }
        if profile.rate_bits_per_s.is_none() && profile.queue.is_some() {
            return Err(
                "queue needs rate: without a rate no packet waits for its transmission".to_owned()
            );
        }
        Ok(profile)
    }
}

fn rtt(value: &str) -> Result<Duration, String> {
    let rtt = parse_duration(value)
        .map_err(|error| format!("{error}; write a time with its unit, such as rtt=40ms"))?;
    match rtt > RTT_MAX {
        true => Err(format!("at most rtt={}", format_duration(RTT_MAX))),
        false => Ok(rtt),
    }
}

/// Units of a rate, as of tc(8); the largest first.
const RATE_UNITS: [(&str, u64); 4] =
    [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

fn rate(value: &str) -> Result<u64, String> {
    let usage = "write bits per second with kbit, mbit or gbit, such as rate=10mbit";
    let parse = |(unit, bits): &(&str, u64)| {
        let number: f64 = value.strip_suffix(unit)?.trim().parse().ok()?;
        Some(number * *bits as f64)
    };
    let rate = RATE_UNITS.iter().find_map(parse).ok_or(usage)?;
    if !(RATE_MIN_BITS_PER_S as f64..=RATE_MAX_BITS_PER_S as f64).contains(&rate) {
        return Err(format!(
            "{} to {}",
            show_rate(RATE_MIN_BITS_PER_S),
            show_rate(RATE_MAX_BITS_PER_S)
        ));
    }
    Ok(rate.round() as u64)
}

fn show_rate(rate: u64) -> String {
    let fits = |(_, bits): &&(&str, u64)| rate.is_multiple_of(*bits);
    let (unit, bits) = RATE_UNITS.iter().find(fits).unwrap_or(&("bit", 1));
    format!("{}{unit}", rate / bits)
}

fn loss(value: &str) -> Result<f64, String> {
    let usage = "write per cent of the packets, 0 or more and below 100, such as loss=1%";
    let percent: f64 =
        value.strip_suffix('%').and_then(|number| number.trim().parse().ok()).ok_or(usage)?;
    if (0.0..100.0).contains(&percent) { Ok(percent / 100.0) } else { Err(usage.to_owned()) }
}

/// Units of a queue in bytes; the largest first.
const BYTE_UNITS: [(&str, u64); 3] = [("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn queue(value: &str) -> Result<Queue, String> {
    let usage = "write packets (queue=100p) or bytes (queue=50000B, queue=64KiB)";
    let number = |unit: &str| value.strip_suffix(unit).and_then(|n| n.trim().parse::<u64>().ok());
    let queue = match number("p") {
        Some(packets) => Queue::Packets(packets),
        None => {
            let parse = |(unit, bytes): &(&str, u64)| number(unit)?.checked_mul(*bytes);
            Queue::Bytes(BYTE_UNITS.iter().find_map(parse).ok_or(usage)?)
        }
    };
    let bytes_min = match queue {
        Queue::Packets(packets) => packets.saturating_mul(super::MTU_BYTES as u64),
        Queue::Bytes(bytes) => bytes,
    };
    // A shorter queue holds no packet, and a burst of two packets would always lose one.
    match (super::MTU_BYTES as u64..=QUEUE_BYTES_MAX).contains(&bytes_min) {
        true => Ok(queue),
        false => Err(format!("at least a packet ({} B), at most 1024MiB", super::MTU_BYTES)),
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Queue::Packets(packets) => write!(f, "{packets}p"),
            Queue::Bytes(bytes) => {
                let fits = |(_, size): &&(&str, u64)| bytes.is_multiple_of(*size);
                let (unit, size) = BYTE_UNITS.iter().find(fits).unwrap_or(&("B", 1));
                write!(f, "{}{unit}", bytes / size)
            }
        }
    }
}

/// As [`Profile::from_str`] reads it.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rtt={}", format_duration(self.rtt))?;
        if let Some(rate) = self.rate_bits_per_s {
            write!(f, ",rate={}", show_rate(rate))?;
        }
        write!(f, ",loss={}%", (self.loss * 1e8).round() / 1e6)?;
        if self.rate_bits_per_s.is_some() {
            write!(f, ",queue={}", self.queue())?;
        }
        write!(f, ",seed={}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_with_its_units() {
        let read = |text: &str| text.parse::<Profile>().unwrap();
        let asked = read("rtt=40ms,rate=10mbit,loss=1%");
        assert_eq!(
            (asked.rtt, asked.rate_bits_per_s, asked.loss, asked.queue, asked.seed),
            (Duration::from_millis(40), Some(10_000_000), 0.01, None, 1)
        );
        assert_eq!(read("rate=1.5mbit").rate_bits_per_s, Some(1_500_000));
        assert_eq!(read("rate=64kbit, seed=7").seed, 7);
        assert_eq!(read("rtt=0s"), Profile::default());
        assert_eq!(read("loss=0.25%").loss, 0.0025);
        assert_eq!(read("rate=1gbit,queue=100p").queue, Some(Queue::Packets(100)));
        assert_eq!(read("rate=1gbit,queue=64KiB").queue, Some(Queue::Bytes(65_536)));
    }

    #[test]
    fn the_default_queue_is_the_bandwidth_delay_product() {
        let queue = |text: &str| text.parse::<Profile>().unwrap().queue();
        assert_eq!(queue("rtt=40ms,rate=10mbit"), Queue::Bytes(50_000));
        assert_eq!(queue("rtt=100ms,rate=1gbit"), Queue::Bytes(12_500_000));
        // Two initial windows of TCP, if the product is less.
        assert_eq!(queue("rtt=1ms,rate=1mbit"), Queue::Bytes(30_000));
        assert_eq!(queue("rtt=40ms,rate=10mbit,queue=5p"), Queue::Packets(5));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for (text, shown) in [
            ("rtt=40ms,rate=10mbit,loss=1%", "rtt=40ms,rate=10mbit,loss=1%,queue=50000B,seed=1"),
            ("loss=0.1%,rtt=1s", "rtt=1s,loss=0.1%,seed=1"),
            ("rate=1500kbit,queue=64KiB", "rtt=0s,rate=1500kbit,loss=0%,queue=64KiB,seed=1"),
            ("rate=56001bit,queue=9p", "rtt=0s,rate=56001bit,loss=0%,queue=9p,seed=1"),
            ("loss=33.333%,seed=9", "rtt=0s,loss=33.333%,seed=9"),
        ] {
            let profile: Profile = text.parse().unwrap();
            assert_eq!(profile.to_string(), shown);
            let again: Profile = shown.parse().unwrap();
            assert_eq!(again.to_string(), shown);
        }
    }

    #[test]
    fn the_bad_part_is_named() {
        for (text, part, hint) in [
            ("rtt=40ms,rate=10", "\"rate=10\"", "rate=10mbit"),
            ("rate=10mbps", "\"rate=10mbps\"", "rate=10mbit"),
            ("rate=1bit", "\"rate=1bit\"", "10kbit to 100gbit"),
            ("rate=-1mbit", "\"rate=-1mbit\"", "10kbit"),
            ("rate=NaNmbit", "\"rate=NaNmbit\"", "10kbit"),
            ("rtt=40", "\"rtt=40\"", "rtt=40ms"),
            ("rtt=1h", "\"rtt=1h\"", "rtt=10s"),
            ("loss=1", "\"loss=1\"", "loss=1%"),
            ("loss=100%", "\"loss=100%\"", "below 100"),
            ("loss=-1%", "\"loss=-1%\"", "0 or more"),
            ("loss=NaN%", "\"loss=NaN%\"", "0 or more"),
            ("rate=1mbit,queue=10", "\"queue=10\"", "queue=100p"),
            ("rate=1mbit,queue=0p", "\"queue=0p\"", "at least a packet"),
            ("rate=1mbit,queue=9999999MiB", "\"queue=9999999MiB\"", "at most"),
            ("queue=10p", "queue needs rate", "no packet waits"),
            ("seed=x", "\"seed=x\"", "seed=1"),
            ("jitter=1ms", "\"jitter=1ms\"", "rtt, rate, loss, queue and seed"),
            ("rtt=1ms,rtt=2ms", "\"rtt=2ms\"", "twice"),
            ("40ms", "\"40ms\"", "rtt=40ms"),
            ("", "\"\"", "rtt=40ms"),
            ("rtt=1ms,", "\"\"", "rtt=40ms"),
        ] {
            let told = text.parse::<Profile>().unwrap_err();
            assert!(told.contains(part) && told.contains(hint), "{text}: {told}");
        }
    }
}
