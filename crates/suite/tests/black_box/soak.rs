//! `iolab soak`, shortened to one turn: its mechanics, and that both sides count alike.

use std::process::Command;

use suite::{Variant, run_to_end};

use crate::Outcome;

pub fn both_sides_count_alike(variant: &Variant) -> Outcome {
    let servers = variant.model.executable.parent().expect("an executable is in a directory");
    let iolab = servers.join("iolab");
    if !iolab.is_file() {
        return Outcome::Skipped(format!("{} is not built", iolab.display()));
    }
    let mut soak = Command::new(iolab);
    soak.args(["soak", "--time", "1ms", "--models", &variant.model.name]);
    let output = run_to_end(soak.arg("--servers").arg(servers));
    let (told, wrong) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{wrong}");
    let line = told.lines().find(|line| line.contains(&variant.model.name)).unwrap_or_default();
    assert!(line.starts_with("HOLDS") && line.contains(" 1 turn, "), "{told}");
    // A verdict on memory takes minutes.
    assert!(told.contains("memory was not checked"), "{told}");
    Outcome::Passed
}
