//! The Markdown files of the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Templates: what is rendered from them is looked at in their place.
const TEMPLATES: &[&str] = &["book/en/", "book/zh/", "crates/render/report/"];

/// The directory of the workspace.
///
/// # Panics
/// When this crate is not two levels below it.
pub fn root() -> PathBuf {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR"));
    suite.ancestors().nth(2).expect("the suite is two levels below the workspace").to_path_buf()
}

/// The Markdown files that are committed or will be, from the workspace's directory on, without
/// templates.
///
/// # Panics
/// When git cannot be run.
#[track_caller]
pub fn texts() -> Vec<PathBuf> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"];
    let output = Command::new("git").args(arguments).current_dir(root()).output();
    let output = output.expect("git can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names in UTF-8");
    let files = text.lines().filter(|name| !TEMPLATES.iter().any(|start| name.starts_with(start)));
    files.map(PathBuf::from).filter(|file| root().join(file).exists()).collect()
}
