//! The picture of `memory`: a bar in two parts for each model.

use record::Recording;
use verdict::lesson::Lesson;

use crate::report::plot::bars::{parts, tones};
use crate::report::plot::colour::{self, TEXT};
use crate::text::{figure, lines_of};

use super::Picture;
use super::bars::Bars;

/// Columns of the names in text, and of what is behind the bars.
const NAMES: usize = 9;
const NOTES: usize = 20;

struct Row<'a> {
    model: &'a str,
    /// Of the process, and of the kernel. A part that shrank is drawn as nothing.
    kib: [f64; 2],
    note: String,
}

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let rows = rows(recording);
    let bar = |row: &Row| {
        let ink = colour::of_name(row.model).unwrap_or(TEXT);
        (row.model.to_owned(), parts(ink, &row.kib), row.note.clone())
    };
    let bars = Bars {
        name: "memory",
        subject: "memory of a silent connection".to_owned(),
        key: tones("the process", "the kernel"),
        axis: "KiB for each connection",
    };
    let svg = bars.svg(lesson, rows.iter().map(bar));
    let mut text = lines_of(&lesson.finding.text, columns).join("\n") + "\n";
    let most = rows.iter().map(|row| row.kib.iter().sum()).fold(1.0, f64::max);
    let cells = columns.saturating_sub(NAMES + NOTES).max(10) as f64;
    for Row { model, kib, note } in &rows {
        let [own, kernel] = kib.map(|kib| (kib / most * cells).round() as usize);
        let bar = "#".repeat(own) + &"=".repeat(kernel);
        text += &format!("{model:<NAMES$}{bar} {note}\n");
    }
    text += &format!("{:<NAMES$}# the process   = the kernel   KiB for each connection\n", "");
    Picture { svg, text }
}

fn rows(recording: &Recording) -> Vec<Row<'_>> {
    let of = |run: &str, name: &str| recording.figure(run, name);
    let runs = recording.runs.iter();
    runs.filter_map(|run| {
        let own = of(&run.run, "own_per_connection_kib")?;
        let kernel = of(&run.run, "kernel_per_connection_kib");
        let kernel_note = kernel.map_or_else(|| "n/a".to_owned(), figure);
        let note = format!("{} + {kernel_note}", figure(own));
        let kib = [own, kernel.unwrap_or(0.0)].map(|kib| kib.max(0.0));
        Some(Row { model: &run.model, kib, note })
    })
    .collect()
}
