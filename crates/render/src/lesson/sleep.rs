//! The picture of `sleep`: the time of a request, in parts.

use record::{Recording, Run};
use verdict::lesson::Lesson;
use verdict::statistics::median;

use crate::report::plot::colour::{CALL_FAMILIES, Ink, MUTED};
use crate::text::lines_of;

use super::Picture;
use super::bars::{Bars, part};

/// The parts of a request: name, colour, opacity, and its letter in text. What is no CPU of either
/// end is a wait: for a processor to wake up, or for one that does something else.
const PARTS: [(&str, Ink, f64, char); 3] = [
    ("CPU of the server", CALL_FAMILIES[0].1, 1.0, 'S'),
    ("CPU of the client", CALL_FAMILIES[1].1, 1.0, 'C'),
    ("neither computes", MUTED, 0.45, '.'),
];

struct Row {
    name: String,
    /// Microseconds of each of [`PARTS`].
    parts: [f64; 3],
    note: String,
}

fn row(recording: &Recording, run: &Run) -> Option<Row> {
    let points = |name: &str| {
        let figures = recording.figures.iter();
        let of = figures.filter(|figure| figure.run == run.run && figure.name == name);
        median(&of.map(|figure| figure.value).collect::<Vec<_>>())
    };
    let (server, client) = (points("server_cpu_us")?, points("client_cpu_us")?);
    let whole = points("round_trip_us")?;
    let p99 = recording.figure(&run.run, "latency_p99_us");
    let p99 = p99.map_or(String::new(), |us| format!(", p99 {us:.0} us"));
    Some(Row {
        name: run.run.clone(),
        parts: [server, client, (whole - server - client).max(0.0)],
        note: format!("{whole:.0} us{p99}"),
    })
}

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let rows: Vec<Row> = recording.runs.iter().filter_map(|run| row(recording, run)).collect();
    let bar = |row: &Row| {
        let parts = PARTS.iter().zip(row.parts);
        let parts = parts.map(|(&(_, ink, opacity, _), value)| part(value, ink, opacity));
        (row.name.clone(), parts.collect(), row.note.clone())
    };
    let subject = recording.runs.first().map_or_else(String::new, |run| {
        format!("where the time of a request goes, {}, one connection", run.model)
    });
    let bars = Bars {
        name: "sleep",
        subject,
        key: PARTS.iter().map(|&(name, ink, opacity, _)| (name, ink, opacity)).collect(),
        axis: "microseconds for a request",
    };
    let svg = bars.svg(lesson, rows.iter().map(bar));
    Picture { svg, text: text(&rows, lesson, columns) }
}

fn text(rows: &[Row], lesson: &Lesson, columns: usize) -> String {
    let mut text = lines_of(&lesson.finding.text, columns).join("\n") + "\n";
    let names = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let notes = rows.iter().map(|row| row.note.len()).max().unwrap_or(0);
    let cells = columns.saturating_sub(names + notes + 2).max(10);
    let most = rows.iter().map(|row| row.parts.iter().sum()).fold(1.0, f64::max);
    for row in rows {
        let mut bar = String::new();
        let mut upto = 0.0;
        for ((.., letter), part) in PARTS.iter().zip(row.parts) {
            upto += part;
            let end = (upto / most * cells as f64).round() as usize;
            bar += &letter.to_string().repeat(end.saturating_sub(bar.len()));
        }
        text += &format!("{:<names$} {bar} {}\n", row.name, row.note);
    }
    let legend: Vec<String> =
        PARTS.iter().map(|(name, .., letter)| format!("{letter} {name}")).collect();
    text + &format!("{:<names$} {}\n", "", legend.join("   "))
}
