//! The picture of `cold-file`: for each model, the other client over time, and the file.

use record::{Recording, Run, Span};
use verdict::lesson::Lesson;

use crate::report::plot::colour::{CALL_FAMILIES, WAITS};

use super::Picture;
use super::lanes::{Kind, Lanes, Row};

/// Height of a row: each model has two.
const ROW: i32 = 16;
/// A wait that is at least so long is drawn as one.
const LONG_US: f64 = 20_000.0;

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    // The spans have one kind in the recording. Here a short wait is seen as served.
    let mut shown = recording.clone();
    for span in &mut shown.spans {
        let kind = match span.kind.as_str() {
            "read" => "the file is read",
            _ if span.to_us - span.from_us >= LONG_US => "waits",
            _ => "served",
        };
        span.kind = kind.to_owned();
    }
    let runs = || shown.runs.iter().filter(|run| shown.spans_of(&run.run).next().is_some());
    let lanes = Lanes {
        name: "cold-file".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "another client, and the file below it".to_owned(),
        axis: "milliseconds".to_owned(),
        row: ROW,
        kinds: vec![
            Kind { name: "served", ink: CALL_FAMILIES[1].1, opacity: 1.0, letter: '-' },
            Kind { name: "waits", ink: WAITS, opacity: 1.0, letter: 'W' },
            Kind { name: "the file is read", ink: CALL_FAMILIES[0].1, opacity: 0.55, letter: '#' },
        ],
        rows: runs().flat_map(|run| [other(&shown, run), file(&shown, run)]).collect(),
        text_rows: runs().map(|run| other(&shown, run)).collect(),
    };
    lanes.picture(columns)
}

fn other<'a>(shown: &'a Recording, run: &'a Run) -> Row<'a> {
    let spans: Vec<&Span> =
        shown.spans_of(&run.run).filter(|span| span.lane != "the file").collect();
    let longest_us = spans.iter().map(|span| span.to_us - span.from_us).fold(0.0, f64::max);
    let replies = match spans.len() {
        1 => "1 reply".to_owned(),
        replies => format!("{replies} replies"),
    };
    let note = format!("{replies}, longest wait {:.0} ms", longest_us / 1e3);
    Row { heading: None, name: run.title.clone(), spans, note }
}

fn file<'a>(shown: &'a Recording, run: &'a Run) -> Row<'a> {
    let spans = shown.spans_of(&run.run).filter(|span| span.lane == "the file").collect();
    Row { heading: None, name: String::new(), spans, note: String::new() }
}
