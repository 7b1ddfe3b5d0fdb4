//! Output for the terminal: printing, wrapping lines, formatting figures.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::failure::{Failure, because};

/// Maximum width of a printed line, in columns: longer lines are hard to read.
pub const COLUMNS_MAX: usize = 100;

/// Minimum width, in columns: a narrower line does not fit a name and a figure.
const COLUMNS_MIN: usize = 40;

/// The width of the terminal. If stdout is not a terminal, the value of COLUMNS (environ(7)).
pub fn columns() -> usize {
    let terminal = terminal_size::terminal_size_of(io::stdout());
    let terminal = terminal.map(|(width, _)| usize::from(width.0));
    let told = || std::env::var("COLUMNS").ok()?.trim().parse().ok();
    terminal.or_else(told).unwrap_or(COLUMNS_MAX).clamp(COLUMNS_MIN, COLUMNS_MAX)
}

/// Writes to stdout. EPIPE is no failure: the reader (`| head`) needed no more.
pub fn print(text: &str) -> Result<ExitCode, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(because("cannot write to stdout")(error)),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// Breaks `text` at blanks into lines of at most [`columns`]; lines after the first are indented by
/// `indent`. A word longer than a line is not broken.
pub fn wrap(text: &str, indent: usize) -> String {
    wrap_at(text, indent, columns())
}

/// Width of the first column of [`labelled`].
const LABEL: usize = 12;

/// A paragraph beside a word: `  measured  text`, with its further lines below the text.
pub fn labelled(label: &str, text: &str) -> String {
    let body = wrap(&format!("{}{text}", ".".repeat(LABEL)), LABEL);
    format!("{label:LABEL$}{}\n", &body[LABEL..])
}

/// Lines of at most `columns` letters.
pub fn lines_of(text: &str, columns: usize) -> Vec<String> {
    wrap_at(text, 0, columns).lines().map(str::to_owned).collect()
}

fn wrap_at(text: &str, indent: usize, columns: usize) -> String {
    let mut lines = vec![String::new()];
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > columns {
            lines.push(" ".repeat(indent));
            width = indent;
        }
        let line = lines.last_mut().expect("the list starts with one line");
        if !line.trim().is_empty() {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += length;
    }
    lines.join("\n")
}

/// `1 round`, `2 rounds`.
pub fn count(number: impl Into<u64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        many => format!("{many} {noun}s"),
    }
}

/// `1234567` -> `1,234,567`.
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 && digits != "0" { format!("-{out}") } else { out }
}

/// About three significant digits, without an exponent: `0.123`, `1.23`, `12.3`, `1,234`.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => thousands(value),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_agrees_with_its_number() {
        assert_eq!([0_u32, 1, 2].map(|n| count(n, "model")), ["0 models", "1 model", "2 models"]);
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(-999.6), "-1,000");
        assert_eq!(thousands(-0.2), "0");
        assert_eq!(figure(0.0123), "0.012");
        assert_eq!(figure(1.234), "1.23");
        assert_eq!(figure(12.34), "12.3");
        assert_eq!(figure(1234.5), "1,234");
    }

    #[test]
    fn wrapping_keeps_every_word_and_the_width() {
        let text = "word ".repeat(60);
        for columns in [60, 80, COLUMNS_MAX] {
            let wrapped = wrap_at(&text, 3, columns);
            assert!(wrapped.lines().all(|line| line.len() <= columns));
            assert!(wrapped.lines().skip(1).all(|line| line.starts_with("   word")));
            assert_eq!(wrapped.split_whitespace().count(), 60);
        }
        assert_eq!(wrap("", 2), "");
    }
}
