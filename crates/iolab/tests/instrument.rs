//! Tests of `iolab check-instrument` as a process, with the only check that is no measurement: its
//! output, its file, and messages for bad input.

use std::process::{Command, Output};

use record::{Instrument, Verdict};
use tempfile::TempDir;

fn check(place: &TempDir, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iolab"));
    command.arg("check-instrument").args(flags).current_dir(place.path()).output().unwrap()
}

#[test]
fn what_was_found_is_printed_and_written() {
    let place = TempDir::new().unwrap();
    let output = check(&place, &["--only", "simulated-verdicts", "--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("HOLDS  simulated-verdicts (rule 10)"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let file = std::fs::read_to_string(place.path().join("out/instrument.json")).unwrap();
    let instrument = Instrument::from_json(&file).unwrap();
    let found = &instrument.checks[0];
    assert_eq!((found.name.as_str(), &found.verdict), ("simulated-verdicts", &Verdict::Holds));
    assert!(found.figures["naive_share"] > found.figures["family_share"]);
    assert!(found.wrong.is_some() && found.right.is_some());
}

#[test]
fn the_seed_decides() {
    let place = TempDir::new().unwrap();
    let printed = |seed| check(&place, &["--only", "simulated-verdicts", "--seed", seed]).stdout;
    assert_eq!(printed("7"), printed("7"));
    assert_ne!(printed("7"), printed("8"));
}

#[test]
fn the_list_measures_nothing() {
    let place = TempDir::new().unwrap();
    let output = check(&place, &["--list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for name in ["verify-wrong-bytes", "aa-tables", "wrk-agreement", "progress-cost"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let count = |head: &str| text.lines().filter(|line| line.starts_with(head)).count();
    assert_eq!(count("  fails if"), count("  claim"), "{text}");
    assert!(output.stderr.is_empty());
}

#[test]
fn an_unknown_check_gets_one_sentence() {
    let place = TempDir::new().unwrap();
    let output = check(&place, &["--only", "coordinated-emission"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("coordinated-omission") && told.trim_end().lines().count() == 1);
}
