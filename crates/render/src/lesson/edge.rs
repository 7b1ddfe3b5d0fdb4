//! The picture of `edge`: for each server, its calls for one message, in their order.

use record::{Call, Recording, Run};
use verdict::lesson::Lesson;
use verdict::lesson::edge::{Case, calls_for_message};
use verdict::trace::{EAGAIN, Kind};

use crate::report::plot::colour::{CALL_FAMILIES, Ink, MUTED, PAGE, TEXT, WAITS};
use crate::report::plot::page::{EDGE, Head, Page, Side, WIDTH, width_of};
use crate::text::{lines_of, thousands};

use super::Picture;

/// Width and height of a box, and the distance to the next.
const BOX: (i32, i32) = (46, 24);
const GAP: i32 = 4;
/// Height of a heading, and of a whole row.
const HEADING: i32 = 26;
const ROW: i32 = HEADING + BOX.1 + 14;
/// Boxes that fit, besides the words behind the last.
const BOXES_MAX: usize = 13;

/// Kinds of calls: name in the key, colour, opacity, and the letter in text.
const KINDS: [(&str, Ink, f64, &str); 4] = [
    ("epoll_wait returns", CALL_FAMILIES[0].1, 1.0, "W"),
    ("recv, bytes", CALL_FAMILIES[1].1, 1.0, "r"),
    ("recv finds nothing", MUTED, 0.8, "r-"),
    ("send, bytes", CALL_FAMILIES[2].1, 1.0, "s"),
];

/// One box: its kind and its bytes.
struct Step {
    kind: usize,
    bytes: Option<i64>,
}

struct Row {
    title: String,
    steps: Vec<Step>,
    /// Bytes that stay unread.
    unread: f64,
    end: String,
}

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let rows: Vec<Row> = recording.runs.iter().filter_map(|run| row(recording, run)).collect();
    let told: Vec<String> =
        rows.iter().map(|row| format!("{}: {}.", row.title, line(row))).collect();
    let head = Head {
        name: "edge".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "the server's calls for one message, in their order".to_owned(),
        told: told.join(" "),
        key: KINDS.iter().map(|&(name, ink, opacity, _)| (name, ink, opacity)).collect(),
    };
    let plot = head.plot(ROW * rows.len() as i32 + EDGE, |page, top| {
        for (at, row) in rows.iter().enumerate() {
            draw(page, row, top + ROW * at as i32);
        }
    });
    Picture { svg: plot.svg, text: text(&rows, lesson, columns) }
}

fn row(recording: &Recording, run: &Run) -> Option<Row> {
    let case = Case::of(recording, &run.run)?;
    let message = recording.figure(&run.run, "message_bytes")?;
    let unread = recording.figure(&run.run, "unread_bytes")?;
    let reports = case.reports;
    let steps = calls_for_message(recording, &run.run).into_iter().filter_map(step).collect();
    let end = match unread > 0.0 {
        true => format!("{unread:.0} bytes unread: the client waits"),
        false => "all is echoed".to_owned(),
    };
    let title = format!(
        "{}: {} bytes, reported {}",
        run.title,
        thousands(message),
        if reports == 1 { "once".to_owned() } else { format!("{reports} times") }
    );
    Some(Row { title, steps, unread, end })
}

fn step(call: &Call) -> Option<Step> {
    let bytes = call.result.filter(|&bytes| bytes > 0);
    match (Kind::of(call), call.result) {
        (Kind::Wait, Some(1..)) => Some(Step { kind: 0, bytes: None }),
        (Kind::Receive, Some(EAGAIN)) => Some(Step { kind: 2, bytes: None }),
        (Kind::Receive, Some(1..)) => Some(Step { kind: 1, bytes }),
        (Kind::Send, Some(1..)) => Some(Step { kind: 3, bytes }),
        _ => None,
    }
}

fn draw(page: &mut Page, row: &Row, top: i32) {
    page.text(&row.title, (EDGE, top + HEADING / 2), Side::Right, TEXT);
    let upper = top + HEADING;
    let middle = upper + BOX.1 / 2;
    let mut x = EDGE;
    for Step { kind, bytes } in row.steps.iter().take(BOXES_MAX) {
        let (_, ink, opacity, _) = KINDS[*kind];
        page.area((x, upper), (x + BOX.0, upper + BOX.1), ink, opacity);
        let label = match kind {
            0 => "wait".to_owned(),
            2 => "none".to_owned(),
            _ => bytes.map_or_else(String::new, |bytes| bytes.to_string()),
        };
        page.text(&label, (x + BOX.0 / 2, middle), Side::Middle, PAGE);
        x += BOX.0 + GAP;
    }
    let more = row.steps.len().saturating_sub(BOXES_MAX);
    if more > 0 {
        let more = format!("+{more}");
        page.text(&more, (x, middle), Side::Right, MUTED);
        x += width_of(&more) + GAP;
    }
    let ink = if row.unread > 0.0 { WAITS } else { MUTED };
    let end = lines_of(&row.end, ((WIDTH - EDGE - x - 8) / 8).max(12) as usize);
    for (line, words) in end.iter().enumerate() {
        page.text(words, (x + 8, middle + 18 * line as i32), Side::Right, ink);
    }
}

/// The calls in letters.
fn line(row: &Row) -> String {
    let letters = row.steps.iter().map(|Step { kind, bytes }| {
        let bytes = bytes.map_or_else(String::new, |bytes| bytes.to_string());
        format!("{}{bytes}", KINDS[*kind].3)
    });
    format!("{} ({})", letters.collect::<Vec<_>>().join(" "), row.end)
}

fn text(rows: &[Row], lesson: &Lesson, columns: usize) -> String {
    let mut text = lines_of(&lesson.finding.text, columns).join("\n") + "\n";
    for row in rows {
        text += &(lines_of(&row.title, columns).join("\n") + "\n");
        for line in lines_of(&line(row), columns.saturating_sub(2)) {
            text += &format!("  {line}\n");
        }
    }
    let legend: Vec<String> =
        KINDS.iter().map(|(name, .., letter)| format!("{letter} {name}")).collect();
    text + &(lines_of(&legend.join("   "), columns).join("\n") + "\n")
}
