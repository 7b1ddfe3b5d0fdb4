//! Laws of the kernel: whom it wakes, and when it makes a caller wait.

use std::time::Duration;

use record::SplitMix64;
use verdict::statistics::median;

use crate::probe::{self, Sharing};
use crate::{Bound, Lab, Law, Measured, Reason};

pub const LAWS: &[Law] = &[
    Law {
        id: "L15",
        claim: "Of several waiting threads, blocking accept is round-robin, EPOLLEXCLUSIVE is \
                last-in-first-out.",
        expected: "of 200 connections to 4 workers, blocking accept gives the busiest at most \
                   0.35 and hardly ever two in a row (0.1); EPOLLEXCLUSIVE gives one at least 0.9.",
        source: "Cloudflare 2017, \"Why does one NGINX worker take all the load?\"",
        shown_by: "iolab laws L15",
        takes_s: 2.0,
        bounds: &[
            Bound::at_most("accept: share of the busiest worker", 0.35),
            Bound::at_most("accept: share of two in a row", 0.1),
            Bound::at_least("EPOLLEXCLUSIVE: share of the busiest worker", 0.9),
        ],
        measure: who_is_woken,
    },
    Law {
        id: "L16",
        claim: "SO_REUSEPORT balances, with a worse tail under uneven work.",
        expected: "of 4 workers with a listener each the busiest gets at most 0.35; where one \
                   request in ten takes 20 times as long, the waits deviate at least twice as much \
                   as with one shared listener.",
        source: "Cloudflare 2017 (deviation 1.58 ms and 25.27 ms)",
        shown_by: "iolab laws L16",
        takes_s: 3.0,
        bounds: &[
            Bound::at_most("SO_REUSEPORT: share of the busiest worker", 0.35),
            Bound::at_least("deviation of the waits: SO_REUSEPORT / shared", 2.0),
        ],
        measure: listeners,
    },
];

const WORKERS: usize = 4;

/// The share of the worker with the most connections.
fn busiest(order: &[usize]) -> f64 {
    let count = |worker| order.iter().filter(|one| **one == worker).count();
    let most = (0..WORKERS).map(count).max().unwrap_or(0);
    most as f64 / order.len() as f64
}

fn who_is_woken(lab: &Lab) -> Result<Measured, Reason> {
    const CONNECTIONS: usize = 200;
    lab.go_on()?;
    let blocking = probe::accept_order(Sharing::Accept, WORKERS, CONNECTIONS)?;
    let exclusive = probe::accept_order(Sharing::Exclusive, WORKERS, CONNECTIONS)?;
    let repeats = blocking.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let first = |order: &[usize]| {
        let digits = order.iter().take(12).map(|worker| worker.to_string());
        digits.collect::<Vec<_>>().concat()
    };
    Ok(Measured::default()
        .figure("accept: share of the busiest worker", busiest(&blocking), "")
        .figure("accept: share of two in a row", repeats as f64 / CONNECTIONS as f64, "")
        .figure("EPOLLEXCLUSIVE: share of the busiest worker", busiest(&exclusive), "")
        .note(format!(
            "each connection comes when all workers sleep; accept {}..., EPOLLEXCLUSIVE {}...",
            first(&blocking),
            first(&exclusive)
        )))
}

/// A tenth of the requests takes 20 times as long as the others; they come evenly.
fn listeners(lab: &Lab) -> Result<Measured, Reason> {
    const REQUESTS: usize = 400;
    const GAP: Duration = Duration::from_micros(1_500);
    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_millis(20);
    let mut random = SplitMix64::new(lab.seed());
    let work: Vec<_> =
        (0..REQUESTS).map(|_| if random.below(10) == 0 { LONG } else { SHORT }).collect();
    lab.go_on()?;
    let shared = probe::serve(Sharing::Accept, WORKERS, &work, GAP)?;
    let split = probe::serve(Sharing::ReusePort, WORKERS, &work, GAP)?;
    let deviation = |served: &probe::Served| deviation_ms(&served.waits);
    let (one, each) = (deviation(&shared), deviation(&split));
    let typical = |served: &probe::Served| {
        let waits: Vec<_> = served.waits.iter().map(|wait| wait.as_secs_f64() * 1e3).collect();
        median(&waits).unwrap_or(f64::NAN)
    };
    Ok(Measured::default()
        .figure("SO_REUSEPORT: share of the busiest worker", busiest(&split.workers), "")
        .figure("deviation of the waits: SO_REUSEPORT / shared", each / one, "")
        .figure("deviation of the waits, shared", one, "ms")
        .figure("deviation of the waits, SO_REUSEPORT", each, "ms")
        .figure("median of the waits, shared", typical(&shared), "ms")
        .figure("median of the waits, SO_REUSEPORT", typical(&split), "ms")
        .note(
            "threads of iolab, which sleep instead of working; a wait is what a request takes \
               beyond its work",
        ))
}

/// Standard deviation, in milliseconds.
fn deviation_ms(waits: &[Duration]) -> f64 {
    let ms: Vec<_> = waits.iter().map(|wait| wait.as_secs_f64() * 1e3).collect();
    let mean = ms.iter().sum::<f64>() / ms.len() as f64;
    (ms.iter().map(|wait| (wait - mean).powi(2)).sum::<f64>() / ms.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_deviations_are_those_of_the_definition() {
        assert_eq!(busiest(&[0, 1, 2, 3]), 0.25);
        assert_eq!(busiest(&[3, 3, 3, 1]), 0.75);
        let ms = Duration::from_millis;
        assert!(
            (deviation_ms(&[ms(2), ms(4), ms(4), ms(4), ms(5), ms(5), ms(7), ms(9)]) - 2.0).abs()
                < 1e-9
        );
    }
}
