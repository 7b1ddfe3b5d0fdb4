//! The picture of `news`: for each way its requests, and how late each message is known.

use record::{Recording, Run, Span};
use verdict::lesson::Lesson;

use crate::report::plot::colour::CALL_FAMILIES;

use super::Picture;
use super::lanes::{Kind, Lanes, ROW, Row};

const KINDS: [Kind; 2] = [
    Kind { name: "request", ink: CALL_FAMILIES[0].1, opacity: 0.45, letter: '-' },
    Kind { name: "late", ink: CALL_FAMILIES[2].1, opacity: 1.0, letter: '#' },
];

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let ways = || recording.runs.iter().filter(|run| has_messages(recording, run));
    let lanes = Lanes {
        name: "news".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "requests, and messages from their due time to their arrival".to_owned(),
        axis: "milliseconds".to_owned(),
        row: ROW,
        kinds: KINDS.to_vec(),
        rows: ways().flat_map(|run| rows(recording, run)).collect(),
        text_rows: ways().map(|run| text_row(recording, run)).collect(),
    };
    lanes.picture(columns)
}

fn has_messages(recording: &Recording, run: &Run) -> bool {
    recording.spans_of(&run.run).any(|span| span.kind == "late")
}

fn rows<'a>(recording: &'a Recording, run: &'a Run) -> [Row<'a>; 2] {
    let of = |kind: &str| -> Vec<&Span> {
        recording.spans_of(&run.run).filter(|span| span.kind == kind).collect()
    };
    let (requests, late) = (of("request"), of("late"));
    let count = counted(requests.len(), "request");
    let mean = mean(&late);
    let row =
        |heading, name: &str, spans, note| Row { heading, name: name.to_owned(), spans, note };
    [row(Some(run.title.clone()), "requests", requests, count), row(None, "messages", late, mean)]
}

fn text_row<'a>(recording: &'a Recording, run: &'a Run) -> Row<'a> {
    let [requests, messages] = rows(recording, run);
    let note = format!("{}, {}", messages.note, requests.note);
    Row { heading: None, name: run.title.clone(), spans: messages.spans, note }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn mean(late: &[&Span]) -> String {
    let sum: f64 = late.iter().map(|span| span.to_us - span.from_us).sum();
    format!("{:.1} ms late", sum / 1e3 / late.len().max(1) as f64)
}
