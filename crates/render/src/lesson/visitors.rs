//! The picture of `visitors`: a row for each visitor, red from its arrival until it has a seat.

use std::collections::BTreeMap;

use record::{Recording, Run, Span};
use verdict::lesson::Lesson;

use crate::report::plot::colour::{CALL_FAMILIES, WAITS};

use super::Picture;
use super::lanes::{Kind, Lanes, Row};

/// Height of a row: 60 of them are drawn four times.
const ROW: i32 = 3;
/// The visitors who have a row in text.
const NAMED: [u32; 4] = [1, 25, 51, 60];

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let visits: Vec<(&Run, Vec<Span>)> =
        recording.runs.iter().map(|run| (run, visits(recording, run))).collect();
    let rows = visits.iter().flat_map(|(run, spans)| of_visitors(run, spans, None)).collect();
    let text_rows =
        visits.iter().flat_map(|(run, spans)| of_visitors(run, spans, Some(&NAMED))).collect();
    let kinds = [
        Kind { name: "waits", ink: WAITS, opacity: 1.0, letter: 'W' },
        Kind { name: "has seats", ink: CALL_FAMILIES[0].1, opacity: 0.6, letter: '=' },
    ];
    let lanes = Lanes {
        name: "visitors".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "a row for each of 60 visitors".to_owned(),
        axis: "milliseconds since the first visitor".to_owned(),
        row: ROW,
        kinds: kinds.to_vec(),
        rows,
        text_rows,
    };
    lanes.picture(columns)
}

/// Each visitor in two spans: until the last of its replies, and until the last of its connections
/// is closed.
fn visits(recording: &Recording, run: &Run) -> Vec<Span> {
    let mut visitors: BTreeMap<u32, [f64; 3]> = BTreeMap::new();
    for span in recording.spans_of(&run.run) {
        let number = span.lane.parse().unwrap_or(0);
        let [arrives, served, leaves] = visitors.entry(number).or_insert([f64::MAX, 0.0, 0.0]);
        *arrives = arrives.min(span.from_us);
        *leaves = leaves.max(span.to_us);
        if span.kind == "transfer" {
            *served = served.max(span.to_us);
        }
    }
    let spans = visitors.into_iter().flat_map(|(number, [arrives, served, leaves])| {
        let span = |kind: &str, from_us, to_us| Span {
            lane: number.to_string(),
            kind: kind.to_owned(),
            from_us,
            to_us,
            ..Span::default()
        };
        [span("waits", arrives, served), span("has seats", served, leaves)]
    });
    spans.collect()
}

/// Rows of all visitors, or of those with these numbers.
fn of_visitors<'a>(run: &Run, spans: &'a [Span], only: Option<&[u32]>) -> Vec<Row<'a>> {
    let chosen = spans.chunks(2).filter(|pair| {
        let number = pair[0].lane.parse().unwrap_or(0);
        only.is_none_or(|only| only.contains(&number))
    });
    let row = |(at, pair): (usize, &'a [Span])| {
        let waited_ms = (pair[0].to_us - pair[0].from_us) / 1e3;
        let number = &pair[0].lane;
        let named = only.is_some() || number == "51";
        Row {
            heading: (at == 0).then(|| run.title.clone()),
            name: if named { number.clone() } else { String::new() },
            spans: pair.iter().collect(),
            note: if named { format!("waits {waited_ms:.0} ms") } else { String::new() },
        }
    };
    chosen.enumerate().map(row).collect()
}
