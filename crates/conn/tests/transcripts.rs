//! Transcripts (`transcripts/*.txt`). Each is played with one read per block, with a read for each
//! byte, split once at every position, split at random, with writes of one byte, with handles
//! instead of slices, with reads first, and with a timeout call on every turn. Output and outcome
//! must be the same each time: they must not depend on where a read or a write ends.
//!
//! To add one, write a text file; `support/transcript.rs` describes the format.

mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use support::driver::Habits;
use support::transcript::{Case, Cuts, parse};

/// Seeds of the random splits. A failure names its seed.
const SEEDS: std::ops::Range<u64> = 0..20;

/// A transcript of at most so many bytes is split once at every position; a longer one at this
/// many.
const CUTS_MAX: usize = 600;

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let entries = fs::read_dir(&directory).expect("the transcripts are beside this file");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        cases.extend(parse(&name, &fs::read_to_string(&path).expect("a readable transcript")));
    }
    assert!(!cases.is_empty(), "no transcripts in {}", directory.display());
    cases
}

/// Plays every case, so that one failure does not hide the others.
fn each(replay: impl Fn(&Case)) {
    let cases = cases();
    let failed = |case: &&Case| catch_unwind(AssertUnwindSafe(|| replay(case))).is_err();
    let failed: Vec<_> = cases.iter().filter(failed).map(|case| &case.name).collect();
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}", failed.len(), cases.len());
}

#[test]
fn whole() {
    each(|case| case.replay(Cuts::Whole, Habits::default()));
}

#[test]
fn every_byte_alone() {
    each(|case| case.replay(Cuts::EveryByte, Habits::default()));
}

#[test]
fn one_cut_at_every_place() {
    each(|case| {
        let len = case.sent_len();
        for at in (0..len).step_by(len.div_ceil(CUTS_MAX).max(1)) {
            case.replay(Cuts::At(at), Habits::default());
        }
    });
}

#[test]
fn random_cuts() {
    each(|case| SEEDS.for_each(|seed| case.replay(Cuts::Random(seed), Habits::default())));
}

#[test]
fn output_taken_a_byte_at_a_time() {
    each(|case| {
        for by_chunks in [false, true] {
            let habits = Habits { write_max: 1, by_chunks, ..Habits::default() };
            case.replay(Cuts::Whole, habits);
            case.replay(Cuts::EveryByte, habits);
        }
    });
}

#[test]
fn output_taken_by_handles() {
    let habits = Habits { by_chunks: true, ..Habits::default() };
    each(|case| case.replay(Cuts::Whole, habits));
}

#[test]
fn reading_before_writing() {
    let habits = Habits { read_first: true, ..Habits::default() };
    each(|case| {
        case.replay(Cuts::EveryByte, habits);
        SEEDS.for_each(|seed| case.replay(Cuts::Random(seed), habits));
    });
}

#[test]
fn early_timeouts_change_nothing() {
    let habits = Habits { early_timeouts: true, write_max: 7, ..Habits::default() };
    each(|case| {
        case.replay(Cuts::Whole, habits);
        case.replay(Cuts::EveryByte, habits);
    });
}
