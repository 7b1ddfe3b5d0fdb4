//! The picture of `teacher`: a row for each student.

use record::Recording;
use verdict::lesson::Lesson;

use crate::report::plot::colour::{CALL_FAMILIES, WAITS};

use super::Picture;
use super::lanes::{Kind, Lanes, Row, by_lane};

/// Height of a row: 30 of them are drawn five times.
const ROW: i32 = 5;
/// The students who have a row in text.
const NAMED: [&str; 3] = ["1", "15", "30"];

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let of_all = || recording.runs.iter().flat_map(|run| by_lane(recording, run));
    let lanes = Lanes {
        name: "teacher".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "a row for each of thirty students".to_owned(),
        axis: "milliseconds".to_owned(),
        row: ROW,
        kinds: vec![
            Kind { name: "thinks", ink: CALL_FAMILIES[1].1, opacity: 0.35, letter: '.' },
            Kind { name: "waits", ink: WAITS, opacity: 1.0, letter: 'W' },
        ],
        rows: of_all().map(|row| Row { name: String::new(), ..row }).collect(),
        text_rows: of_all().filter(|row| NAMED.contains(&row.name.as_str())).collect(),
    };
    lanes.picture(columns)
}
