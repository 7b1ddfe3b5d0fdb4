//! The rules of ARCHITECTURE.md as tests: what must never depend on what, and how the sources are
//! written. Each test names every place that breaks its rule, as `file:line: what`.
//!
//! Sources are parsed (syn), not searched: a word in a comment breaks no rule, and one in a macro
//! or behind a renamed import does.

mod architecture;
mod dependencies;
mod links;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use suite::root;

/// Every file below `directory` whose name ends in `suffix`, but for what the build makes.
fn files_below(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if path.is_file() && name.ends_with(suffix) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A path as it is read in a message: from the workspace's directory on.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[track_caller]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with one line for each place that breaks the rule.
#[track_caller]
fn assert_kept(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}\n", broken.join("\n  "));
}
