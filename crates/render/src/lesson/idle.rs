//! The picture of `idle`: a bar for each model.

use record::Recording;
use verdict::lesson::Lesson;

use crate::report::plot::colour::{self, TEXT};
use crate::text::lines_of;

use super::Picture;
use super::bars::{Bars, part};

/// Columns of the names in text, and of what is behind the bars.
const NAMES: usize = 9;
const NOTES: usize = 30;

struct Row<'a> {
    model: &'a str,
    percent: f64,
    note: String,
}

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let rows = rows(recording);
    let bar = |row: &Row| {
        let ink = colour::of_name(row.model).unwrap_or(TEXT);
        (row.model.to_owned(), vec![part(row.percent, ink, 1.0)], row.note.clone())
    };
    let bars = Bars {
        name: "idle",
        subject: "CPU of the server, and its wake-ups, while all connections are silent".into(),
        key: Vec::new(),
        axis: "% of a core",
    };
    let svg = bars.svg(lesson, rows.iter().map(bar));
    let mut text = lines_of(&lesson.finding.text, columns).join("\n") + "\n";
    let cells = columns.saturating_sub(NAMES + NOTES + 2).max(10);
    let most = rows.iter().map(|row| row.percent).fold(1.0, f64::max);
    for Row { model, percent, note } in &rows {
        let bar = "#".repeat((percent / most * cells as f64).round() as usize);
        text += &format!("{model:<NAMES$}{bar} {note}\n");
    }
    Picture { svg, text }
}

fn rows(recording: &Recording) -> Vec<Row<'_>> {
    let row = |run: &'_ record::Run| {
        let percent = recording.figure(&run.run, "cpu_share_percent")?;
        let wake_ups = recording.figure(&run.run, "wake_ups_per_s")?;
        Some((percent, format!("{percent:.1} %, {wake_ups:.0} wake-ups/s")))
    };
    let runs = recording.runs.iter();
    runs.filter_map(|run| {
        let (percent, note) = row(run)?;
        Some(Row { model: &run.model, percent, note })
    })
    .collect()
}
