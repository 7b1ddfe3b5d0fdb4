//! What the tests of the command have in common.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory that holds the example server, which cargo builds beside the tests.
pub fn servers() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let examples = test.parent().unwrap().parent().unwrap().join("examples");
    assert!(
        examples.join("serve-example").is_file(),
        "{} is missing: cargo build -p iolab --examples",
        examples.join("serve-example").display()
    );
    examples
}

/// Runs iolab in an empty directory, outside of any checkout.
pub fn iolab(place: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iolab")).args(arguments).current_dir(place).output().unwrap()
}
