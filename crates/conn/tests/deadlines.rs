//! Deadlines of whole connections, for each protocol, with TLS and without, with a clock moved by
//! hand. After `timeout(now)` no deadline is due at `now`. A connection that waits has a deadline.
//! Each connection ends.
//!
//! [`support::fuzz::play`] checks this after every event.

mod support;

use rand::SeedableRng;
use rand::rngs::StdRng;
use support::fuzz::hold;
use support::fuzz::make::{self, CASE_KINDS, SECURITIES};
use support::fuzz::play::play;

/// Cases for each protocol and layer: seconds in a debug build.
const SEEDS: u64 = 15;

/// Events of one case, besides its opening.
const EVENTS: usize = 30;

#[test]
fn nothing_is_due_after_a_timeout_and_every_connection_ends() {
    for case_kind in CASE_KINDS {
        for tls in SECURITIES {
            for seed in 0..SEEDS {
                let mut rng = StdRng::seed_from_u64(seed);
                let case = make::case(&mut rng, case_kind, tls, EVENTS);
                hold(&case, seed, &play);
            }
        }
    }
}
