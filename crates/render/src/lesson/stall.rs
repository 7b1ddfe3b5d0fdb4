//! The picture of `stall`: a row for each client of each model.

use record::Recording;
use verdict::lesson::Lesson;

use crate::report::plot::colour::{CALL_FAMILIES, WAITS};

use super::Picture;
use super::lanes::{Kind, Lanes, by_lane};

/// Height of a row: 4 of them are drawn for each model.
const ROW: i32 = 8;
/// A wait that is at least so long is drawn as one.
const LONG_US: f64 = 50_000.0;

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    // The spans have one kind in the recording. Here a short wait is seen as served.
    let mut shown = recording.clone();
    for span in &mut shown.spans {
        let kind = match span.lane.as_str() {
            "computes" => "computes",
            _ if span.to_us - span.from_us >= LONG_US => "waits",
            _ => "served",
        };
        span.kind = kind.to_owned();
    }
    let rows = || shown.runs.iter().flat_map(|run| by_lane(&shown, run));
    let models = || rows().map(|row| super::lanes::Row { name: String::new(), ..row });
    let kinds = vec![
        Kind { name: "served", ink: CALL_FAMILIES[1].1, opacity: 1.0, letter: '-' },
        Kind { name: "waits", ink: WAITS, opacity: 1.0, letter: 'W' },
        Kind { name: "computes", ink: CALL_FAMILIES[0].1, opacity: 1.0, letter: '#' },
    ];
    let text_rows = shown.runs.iter().map(|run| {
        let spans = shown.spans_of(&run.run).filter(|span| span.lane != "computes").collect();
        let longest = shown.spans_of(&run.run).filter(|span| span.lane != "computes");
        let longest = longest.map(|span| (span.to_us - span.from_us) / 1e3).fold(0.0, f64::max);
        let note = format!("{longest:.0} ms");
        super::lanes::Row { heading: None, name: run.title.clone(), spans, note }
    });
    let lanes = Lanes {
        name: "stall".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "three clients, and one that computes".to_owned(),
        axis: "milliseconds".to_owned(),
        row: ROW,
        kinds,
        rows: models().collect(),
        text_rows: text_rows.collect(),
    };
    lanes.picture(columns)
}
