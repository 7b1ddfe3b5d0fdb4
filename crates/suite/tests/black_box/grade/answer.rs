//! What a grading says: points by topic, then what failed, then the answer.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{Failure, Mark, Marked, TOPICS, module};

/// Columns of a terminal of the usual width.
const WIDTH: usize = 80;

/// Characters of a sentence: three lines, in which the counters of a server are cut off.
const SENTENCE_CHARS_MAX: usize = 225;

/// Bytes of a message that hardly is a sentence.
const SHORT_BYTES: usize = 40;

/// Bytes of a body that are shown.
const TEXT_BYTES: usize = 32;

/// Points and the rest of one topic.
#[derive(Clone, Copy, Default)]
struct Count {
    passed: usize,
    failed: usize,
    not_offered: usize,
    skipped: usize,
}

impl Count {
    fn of<'m>(marked: impl IntoIterator<Item = &'m Marked>) -> Count {
        let mut count = Count::default();
        for case in marked {
            *match case.mark {
                Mark::Passed => &mut count.passed,
                Mark::Failed(_) => &mut count.failed,
                Mark::NotOffered(_) => &mut count.not_offered,
                Mark::Skipped(_) => &mut count.skipped,
            } += 1;
        }
        count
    }

    /// Cases that could have been a point.
    fn all(self) -> usize {
        self.passed + self.failed + self.not_offered
    }

    fn row(self, topic: &str) -> Vec<String> {
        let numbers = [self.passed, self.all(), self.failed, self.not_offered, self.skipped];
        [topic.to_owned()].into_iter().chain(numbers.map(|n| n.to_string())).collect()
    }
}

/// All of it. `whole`: messages are not cut.
pub fn text(path: &str, marked: &[Marked], whole: bool) -> String {
    let mut text = format!("{}\n\n", table(marked));
    let count = Count::of(marked);
    failures(&mut text, marked, whole);
    list(&mut text, "Not offered", marked, |mark| match mark {
        Mark::NotOffered(what) => Some(what),
        _ => None,
    });
    list(&mut text, "Skipped", marked, |mark| match mark {
        Mark::Skipped(reason) => Some(reason),
        _ => None,
    });
    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
    let (points, of) = (count.passed, count.all());
    let verdict = format!(
        "{name} has {points} of {of} points: {} failed, {} not offered.",
        cases(count.failed),
        cases(count.not_offered)
    );
    text += &wrapped(&verdict, 0);
    let failed = marked.iter().find(|case| matches!(case.mark, Mark::Failed(_)));
    if let Some(failed) = failed.filter(|_| !whole) {
        let again = format!("One of them again: make grade SERVER={path} CASE={}", failed.name);
        let _ = write!(text, "\n{again}");
    }
    text
}

fn cases(n: usize) -> String {
    if n == 1 { "1 case".to_owned() } else { format!("{n} cases") }
}

fn table(marked: &[Marked]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH as u16);
    table.set_header(["topic", "points", "of", "failed", "not offered", "skipped"]);
    for (topic, modules) in TOPICS {
        let cases = marked.iter().filter(|case| modules.contains(&module(&case.name)));
        let count = Count::of(cases);
        if count.all() + count.skipped > 0 {
            table.add_row(count.row(topic));
        }
    }
    table.add_row(Count::of(marked).row("all"));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn failures(text: &mut String, marked: &[Marked], whole: bool) {
    let failed = marked.iter().filter_map(|case| match &case.mark {
        Mark::Failed(failure) => Some((&case.name, failure)),
        _ => None,
    });
    for (number, (name, failure)) in failed.enumerate() {
        if number == 0 {
            text.push_str("What failed:\n");
        }
        let _ = writeln!(text, "  {name}");
        let said = if whole { failure.message.clone() } else { sentence(failure) };
        let _ = writeln!(text, "{}", wrapped(&said, 4));
        if let Some((file, line)) = &failure.place {
            let _ = writeln!(text, "    {file}:{line}");
        }
    }
    if marked.iter().any(|case| matches!(case.mark, Mark::Failed(_))) {
        text.push('\n');
    }
}

/// Reasons, each with the number of cases that it concerns.
fn list<'m>(
    text: &mut String,
    title: &str,
    marked: &'m [Marked],
    reason: impl Fn(&'m Mark) -> Option<&'m String>,
) {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for reason in marked.iter().filter_map(|case| reason(&case.mark)) {
        *counts.entry(reason).or_default() += 1;
    }
    if counts.is_empty() {
        return;
    }
    let _ = writeln!(text, "{title}:");
    for (reason, count) in counts {
        let _ = writeln!(text, "{}", wrapped(&format!("{} ({})", reason, cases(count)), 2));
    }
    text.push('\n');
}

/// A failure as one sentence: of an assertion, what came, what was expected, and the line that
/// asked for it.
pub fn sentence(failure: &Failure) -> String {
    let message = &failure.message;
    let value = |name: &str| {
        let mut lines = message.lines();
        lines.find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(": "))
    };
    let about = message.lines().next().unwrap_or_default();
    let asked = asked(failure).map(|line| format!(", in {line}")).unwrap_or_default();
    let sentence = match (value("left"), value("right")) {
        (Some(came), Some(expected)) if about.starts_with("assertion `left == right`") => {
            let what = about.split_once("failed: ").map(|(_, what)| format!("; {what}"));
            let (came, expected) = (with_text(came), with_text(expected));
            format!("{came} came, and not {expected}{asked}{}", what.unwrap_or_default())
        }
        _ => match message.strip_prefix("assertion failed: ") {
            Some(condition) => format!("this does not hold: {condition}"),
            // The name of what is missing, without the line that looked for it.
            None if message.len() < SHORT_BYTES => format!("not as expected: {message}{asked}"),
            None => message.clone(),
        },
    };
    let words = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() <= SENTENCE_CHARS_MAX {
        return words;
    }
    words.chars().take(SENTENCE_CHARS_MAX - 4).chain(" ...".chars()).collect()
}

/// The line of the case that failed, where the sources are at hand.
fn asked(failure: &Failure) -> Option<String> {
    let (file, line) = failure.place.as_ref()?;
    let text = fs::read_to_string(suite::root().join(file)).ok()?;
    let line = text.lines().nth(usize::try_from(*line).ok()?.checked_sub(1)?)?;
    Some(line.trim().trim_end_matches(';').to_owned())
}

/// A value as Rust prints it, its lists of bytes as text.
fn with_text(value: &str) -> String {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, list)) = rest.split_once('[') {
        text.push_str(before);
        let Some((list, after)) = list.split_once(']') else {
            return format!("{text}[{list}");
        };
        let bytes: Result<Vec<u8>, _> = list.split(", ").map(str::parse).collect();
        match bytes {
            Ok(bytes) => text += &shortened(&bytes),
            Err(_) if list.is_empty() => text += "\"\"",
            Err(_) => text += &format!("[{list}]"),
        }
        rest = after;
    }
    text + rest
}

/// The first of many bytes, and how many there are.
fn shortened(bytes: &[u8]) -> String {
    let first = &bytes[..bytes.len().min(TEXT_BYTES)];
    let text = format!("\"{}\"", first.escape_ascii());
    if first.len() == bytes.len() {
        return text;
    }
    format!("{text} ... ({} bytes)", bytes.len())
}

/// Lines of at most [`WIDTH`] columns; a longer word has a line of its own.
fn wrapped(text: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = margin.clone();
        for word in paragraph.split_whitespace() {
            let is_first = line.len() == margin.len();
            if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::replace(&mut line, margin.clone()));
                line.push_str(word);
            } else {
                line.push_str(if is_first { "" } else { " " });
                line.push_str(word);
            }
        }
        lines.push(line);
    }
    lines.join("\n")
}
