//! Listings: lines of a source file between `// ANCHOR: name` and `// ANCHOR_END: name`. Code in
//! the report is included, so that it is always up to date.

/// The lines between the two marks, without common indentation.
pub fn between_anchors(source: &str, anchor: &str) -> Result<String, String> {
    let mark = |line: &str, word: &str| {
        line.trim().strip_prefix("// ").and_then(|l| l.strip_prefix(word)).map(str::trim)
            == Some(anchor)
    };
    let place = |word| {
        let mut places = source.lines().enumerate().filter(|(_, line)| mark(line, word));
        match (places.next(), places.next()) {
            (Some((at, _)), None) => Ok(at),
            (Some(_), Some(_)) => Err(format!("has more than one line `// {word} {anchor}`")),
            (None, _) => Err(format!("has no line `// {word} {anchor}`")),
        }
    };
    let (begin, end) = (place("ANCHOR:")?, place("ANCHOR_END:")?);
    if end <= begin + 1 {
        return Err(format!("has nothing between the anchors {anchor}"));
    }
    let lines: Vec<&str> = source
        .lines()
        .take(end)
        .skip(begin + 1)
        .filter(|line| !line.trim().starts_with("// ANCHOR"))
        .collect();
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let shared = lines.iter().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    Ok(lines
        .iter()
        .map(|line| line.get(shared..).unwrap_or("").trim_end().to_owned() + "\n")
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
fn f() {
    // ANCHOR: wait
    loop {
        // ANCHOR: inner

        wait();
        // ANCHOR_END: inner
    }
    // ANCHOR_END: wait
}
// ANCHOR: empty
// ANCHOR_END: empty
// ANCHOR: open
";

    #[test]
    fn lines_come_without_shared_indentation_and_other_marks() {
        assert_eq!(between_anchors(SOURCE, "wait"), Ok("loop {\n\n    wait();\n}\n".into()));
        assert_eq!(between_anchors(SOURCE, "inner"), Ok("\nwait();\n".into()));
    }

    #[test]
    fn broken_anchors_are_errors() {
        assert!(between_anchors(SOURCE, "none").unwrap_err().contains("ANCHOR: none"));
        assert!(between_anchors(SOURCE, "open").unwrap_err().contains("ANCHOR_END: open"));
        assert!(between_anchors(SOURCE, "empty").unwrap_err().contains("nothing"));
        let twice = SOURCE.repeat(2);
        assert!(between_anchors(&twice, "wait").unwrap_err().contains("more than one"));
    }
}
