//! Common functions of the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The directory of the example server, which cargo builds for the tests.
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
