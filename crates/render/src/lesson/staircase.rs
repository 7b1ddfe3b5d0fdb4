//! The picture of `staircase`: a row for each file in each way, on one axis.

use record::{Recording, Run};
use verdict::lesson::Lesson;

use crate::report::plot::colour::{CALL_FAMILIES, MUTED};
use crate::text::lines_of;

use super::Picture;
use super::lanes::{Kind, Lanes, Row, by_lane};

/// A reply has one packet, so its transfer has no width.
const KINDS: [Kind; 3] = [
    Kind { name: "queued", ink: MUTED, opacity: 0.15, letter: ' ' },
    Kind { name: "connect", ink: CALL_FAMILIES[3].1, opacity: 1.0, letter: 'c' },
    Kind { name: "wait", ink: CALL_FAMILIES[0].1, opacity: 1.0, letter: 'w' },
];

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let rows: Vec<Row> = recording.runs.iter().flat_map(|run| by_lane(recording, run)).collect();
    let lanes = Lanes {
        name: "staircase".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "seven files".to_owned(),
        axis: "milliseconds (a step is 100 ms)".to_owned(),
        row: 17,
        kinds: KINDS.to_vec(),
        rows,
        text_rows: Vec::new(),
    };
    Picture { svg: lanes.svg(), text: text(recording, lesson, columns) }
}

/// A line for each way, with the letter of each file where it is complete.
fn text(recording: &Recording, lesson: &Lesson, columns: usize) -> String {
    let names = recording.runs.iter().map(|run| run.title.chars().count()).max().unwrap_or(0);
    let ends = |run: &Run| {
        let transfers = recording.spans_of(&run.run).filter(|span| span.kind == "transfer");
        transfers.map(|span| (span.to_us / 1e3, span.lane.clone())).collect::<Vec<_>>()
    };
    let all: Vec<_> = recording.runs.iter().map(|run| (run, ends(run))).collect();
    let last_ms = all.iter().flat_map(|(_, ends)| ends).map(|end| end.0).fold(1.0, f64::max);
    // Letters of files that are complete together stand beside each other.
    let room = columns.saturating_sub(names + 2 + 8).max(20);
    let at = |ms: f64| (ms / last_ms * room as f64) as usize;
    let mut text = lines_of(&lesson.finding.text, columns).join("\n") + "\n";
    for (run, ends) in &all {
        let mut line = String::new();
        let mut letters: Vec<_> = ends.iter().map(|(ms, letter)| (at(*ms), letter)).collect();
        letters.sort();
        for (at, letter) in letters {
            line += &"-".repeat(at.saturating_sub(line.chars().count()));
            line += letter;
        }
        text += &format!("{:<names$} |{line}\n", run.title);
    }
    let scale = format!("{:<names$} 0{last_ms:>room$.0} ms", "");
    text + &format!("{scale}\n{:<names$} a letter stands where its file is complete\n", "")
}
