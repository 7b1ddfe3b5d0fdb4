//! The names in ARCHITECTURE.md exist.

use crate::sources::{Source, sources};
use suite::root;

use crate::{assert_kept, read};

/// Roots of paths that are not of this workspace.
const OTHERS: &[&str] = &["std", "Instant"];

/// Each `A::b` in backticks, with its line.
fn paths(text: &str) -> Vec<(usize, &str)> {
    let mut paths = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        let quoted = quoted.filter(|name| {
            name.contains("::") && name.chars().all(|c| c.is_alphanumeric() || "_:".contains(c))
        });
        paths.extend(quoted.map(|name| (number + 1, name)));
    }
    paths
}

/// Whether `source` declares `name`: an item, a method or a field.
fn declares(source: &Source, name: &str) -> bool {
    let words = ["fn", "mod", "const", "struct", "enum", "trait", "type"];
    words.iter().any(|word| !source.occurrences(&[word, name]).is_empty())
        || !source.occurrences(&[name, ":"]).is_empty()
}

#[test]
fn names_in_the_architecture_exist() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let paths = paths(&text);
    assert!(paths.len() > 20, "only {paths:?} were found");
    let mut broken = Vec::new();
    for (line, path) in paths {
        let (from, name) = path.rsplit_once("::").unwrap_or_default();
        let from = from.rsplit("::").next().unwrap_or_default();
        let knows = |source: &&Source| {
            let in_path = source.path.iter().any(|part| part.to_string_lossy() == from)
                || source.path.file_stem().is_some_and(|stem| stem.to_string_lossy() == from);
            in_path || !source.occurrences(&[from]).is_empty()
        };
        let mut sources = sources().iter().filter(|source| !source.is_test());
        if !OTHERS.contains(&from) && !sources.any(|s| knows(&s) && declares(s, name)) {
            broken.push(format!("ARCHITECTURE.md:{line}: {path}"));
        }
    }
    assert_kept("a name in ARCHITECTURE.md is a name in the sources", &broken);
}
