//! Deadlines of whole connections, over every protocol, with TLS and without, under a clock that
//! is moved by hand: after one `timeout(now)` nothing is due at `now`, whatever has happened before
//! it; whoever waits has a deadline; and every connection ends.
//!
//! [`support::fuzz::play`] checks all of that after every event.

mod support;

use rand::SeedableRng;
use rand::rngs::StdRng;
use support::fuzz::hold;
use support::fuzz::make::{self, SECURITIES, SPEECHES};
use support::fuzz::play::play;

/// Cases for each protocol and layer: seconds in a debug build.
const SEEDS: u64 = 15;

/// Events of one case, besides its opening.
const EVENTS: usize = 30;

#[test]
fn nothing_is_due_after_a_timeout_and_every_connection_ends() {
    for speech in SPEECHES {
        for tls in SECURITIES {
            for seed in 0..SEEDS {
                let mut rng = StdRng::seed_from_u64(seed);
                let case = make::case(&mut rng, speech, tls, EVENTS);
                hold(&case, seed, &play);
            }
        }
    }
}
