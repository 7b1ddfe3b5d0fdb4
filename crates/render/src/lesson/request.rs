//! The picture of `request`: a waterfall, a row for each file.

use record::{Recording, Run, Span};
use verdict::lesson::Lesson;

use crate::report::plot::colour::{CALL_FAMILIES, MUTED};

use super::Picture;
use super::lanes::{Kind, Lanes, ROW, Row, by_lane};

/// The phases in the colours of the calls that make them.
const KINDS: [Kind; 6] = [
    Kind { name: "name", ink: CALL_FAMILIES[2].1, opacity: 1.0, letter: 'n' },
    Kind { name: "connect", ink: CALL_FAMILIES[3].1, opacity: 1.0, letter: 'c' },
    Kind { name: "wait", ink: CALL_FAMILIES[0].1, opacity: 1.0, letter: 'w' },
    Kind { name: "transfer", ink: CALL_FAMILIES[1].1, opacity: 1.0, letter: '=' },
    Kind { name: "close", ink: MUTED, opacity: 1.0, letter: '|' },
    Kind { name: "idle", ink: MUTED, opacity: 0.3, letter: '.' },
];

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let lanes = Lanes {
        name: "request".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "three files, one after the other".to_owned(),
        axis: "milliseconds".to_owned(),
        row: ROW,
        kinds: KINDS.to_vec(),
        rows: recording.runs.iter().flat_map(|run| files(recording, run)).collect(),
        text_rows: recording.runs.iter().map(|run| whole(recording, run)).collect(),
    };
    lanes.picture(columns)
}

/// A row for each file of a run.
fn files<'a>(recording: &'a Recording, run: &'a Run) -> Vec<Row<'a>> {
    let mut rows = by_lane(recording, run);
    if let Some(last) = rows.last_mut() {
        last.note = total(recording, run);
    }
    rows
}

/// One row for a run: its files follow each other.
fn whole<'a>(recording: &'a Recording, run: &'a Run) -> Row<'a> {
    let spans: Vec<&Span> = recording.spans_of(&run.run).collect();
    let note = total(recording, run);
    let name = run.title.replace(" of round trip", "");
    Row { heading: None, name, spans, note }
}

/// When the last byte arrived.
fn total(recording: &Recording, run: &Run) -> String {
    let transfers = recording.spans_of(&run.run).filter(|span| span.kind == "transfer");
    let last = transfers.map(|span| span.to_us / 1e3).fold(0.0, f64::max);
    let ms = if last < 10.0 { format!("{last:.1}") } else { format!("{last:.0}") };
    format!("last byte: {ms} ms")
}
