//! The figure as text, of at most 100 columns. As in Stevens' figures (UNP section 6.2), time runs
//! down, and application and kernel are columns.

use record::{Recording, Run};
use verdict::trace::place;

use super::rows::{What, note, rows};

/// Widths of the columns.
const CLIENT: usize = 15;
const APPLICATION: usize = 26;

/// The figure of one run, below its finding.
pub fn text(recording: &Recording, run: &Run) -> String {
    let (rows, _) = rows(recording, run);
    let finding = place(recording, &run.run).finding(run);
    let mut lines = vec![crate::text::wrap(&finding, 0), "\n".to_owned()];
    lines.push(line("ms", "client", "application", "kernel"));
    lines.extend(rows.iter().map(|row| {
        let at_ms = format!("{:.2}", row.at_us.max(0.0) / 1e3);
        match row.what {
            What::Client(..) => line(&at_ms, &row.does, "", ""),
            _ => line(&at_ms, "", &row.does, &row.kernel),
        }
    }));
    lines.extend(note(recording, run).map(|note| format!("          {note}\n")));
    lines.concat()
}

fn line(at: &str, client: &str, application: &str, kernel: &str) -> String {
    let line = format!("{at:>8}  {client:CLIENT$} {application:APPLICATION$} {kernel}");
    line.trim_end().to_owned() + "\n"
}
