//! A fuzz target for whole connections, on stable Rust. Cases are made from a seed and from other
//! cases, among them those of `tests/corpus`. Each is played with checks after every event
//! (`support/fuzz`).
//!
//! ```text
//! cargo test -p conn --test fuzz                        as many cases as CI has time for
//! FUZZ_CASES=100000 FUZZ_SEED=7 cargo test ...          more cases, with another seed
//! FUZZ_SECONDS=3600 cargo test --profile fuzz ...       for an hour (`make fuzz`)
//! FUZZ_CASE=file cargo test -p conn --test fuzz replay  one case again
//! ```
//!
//! A case that fails is reduced to the smallest that fails, and written to a file.

mod support;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use support::fuzz::case::{Case, Event, Security};
use support::fuzz::hold;
use support::fuzz::make::{self, CASE_KINDS, CaseKind, SECURITIES, kind_of};
use support::fuzz::play::play;
use support::transcript::merge_chunks;

/// Cases if no variable sets another number: about a minute in a debug build on two busy
/// processors.
const CASES: u64 = 800;

/// Cases of a run that are kept to make others from: those that reached something new.
const KEPT_MAX: usize = 5_000;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("tests/corpus")
        .map(|entry| entry.expect("an entry of tests/corpus").path())
        .collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Case {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Plays a case. In addition, HTTP/1.1 and WebSockets must send the same however the client's bytes
/// are split into reads, except for 100 (Continue), which is sent only to a client that waits.
fn check(case: &Case, rng: &mut StdRng) -> u64 {
    let played = play(case);
    let lines = matches!(kind_of(case), CaseKind::Http1 | CaseKind::WebSocket);
    let waits = case
        .events
        .iter()
        .filter_map(Event::bytes)
        .any(|bytes| bytes.to_ascii_lowercase().windows(8).any(|word| word == b"continue"));
    if lines && !waits && case.setting.tls == Security::Plain {
        let cuts = [usize::MAX, 1, rng.random_range(2..100)];
        let [whole, others @ ..] = cuts.map(|cut| play(&cut_into(case, cut)));
        for other in others {
            assert_eq!(other.outcome, whole.outcome, "the end depends on cuts");
            // A chunk of /echo ends where a read ended.
            let same =
                other.said == whole.said || merge_chunks(&other.said) == merge_chunks(&whole.said);
            assert!(same, "the replies depend on cuts");
        }
    }
    played.seen
}

/// The same bytes without other events, in reads of `len` bytes.
fn cut_into(case: &Case, len: usize) -> Case {
    let bytes: Vec<u8> = case.events.iter().filter_map(Event::bytes).flatten().collect();
    let events = vec![Event::Reads(len), Event::Say(bytes), Event::Run];
    Case { setting: case.setting, events }
}

#[test]
fn whatever_happens_the_contract_holds() {
    let seed = variable("FUZZ_SEED").unwrap_or(1);
    let until = variable("FUZZ_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let cases = variable("FUZZ_CASES").unwrap_or(if until.is_some() { u64::MAX } else { CASES });
    let goes_on = |n: u64| n < cases && until.is_none_or(|until| Instant::now() < until);
    let mut kept = corpus();
    let mut seen: HashSet<(bool, u64)> = HashSet::new();
    for case in &kept {
        run(case, 0);
    }
    let mut n = 0;
    while goes_on(n) {
        let number = seed << 40 | n;
        let mut rng = StdRng::seed_from_u64(number);
        let case = next(&mut rng, &kept);
        let new = seen.insert((case.setting.small, run(&case, number)));
        if new && kept.len() < KEPT_MAX {
            kept.push(case);
        }
        n += 1;
    }
    println!("seed {seed}: {n} cases, {} kinds, {} kept", seen.len(), kept.len());
}

fn next(rng: &mut StdRng, kept: &[Case]) -> Case {
    match (kept.choose(rng), kept.choose(rng)) {
        (Some(base), Some(other)) if rng.random_ratio(2, 3) => make::mutate(rng, base, other),
        _ => {
            // TLS takes most of the time, so one case in three has it.
            let secure = rng.random_ratio(1, 3);
            let tls = if secure { SECURITIES.choose(rng) } else { None };
            let case_kind = CASE_KINDS.choose(rng).copied().unwrap_or(CaseKind::Http2);
            let count = rng.random_range(1..40);
            make::case(rng, case_kind, *tls.unwrap_or(&Security::Plain), count)
        }
    }
}

/// One case; its checks use random numbers seeded with `number`.
fn run(case: &Case, number: u64) -> u64 {
    hold(case, number, &|case| check(case, &mut StdRng::seed_from_u64(number)))
}

#[test]
fn replay() {
    if let Some(file) = variable::<PathBuf>("FUZZ_CASE") {
        run(&read(&file), 0);
    }
}
