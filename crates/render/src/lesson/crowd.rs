//! The picture of `crowd`: server CPU per request against silent connections, with the points of a
//! book in grey.

use record::{Recording, Run};
use verdict::lesson::Lesson;

use crate::report::plot::colour::{self, MUTED, TEXT};
use crate::report::plot::data::Value;
use crate::report::plot::lines::{Line, plot};
use crate::report::plot::page::Head;
use crate::text::{figure, lines_of, thousands};

use super::Picture;

const MODELS: [&str; 3] = ["select", "poll", "epoll"];
/// Microseconds for each wait among so many descriptors, on Linux 2.6.25: M. Kerrisk, The Linux
/// Programming Interface, 2010, table 63-9 (which has seconds for 100,000 waits).
const BOOK: [(&str, [(f64, f64); 4]); 2] = [
    ("poll, TLPI", [(10.0, 6.1), (100.0, 29.0), (1_000.0, 350.0), (10_000.0, 9_900.0)]),
    ("epoll, TLPI", [(10.0, 4.1), (100.0, 4.2), (1_000.0, 5.3), (10_000.0, 6.6)]),
];
const COST: &str = "server_cpu_per_request_us";

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let book = BOOK.iter().zip(MODELS.len()..).map(|((name, points), marker)| {
        let points = points.iter().map(|(x, at)| (*x, Value { at: *at, interval: None }));
        Line::new(name, MUTED, marker, true, points.collect())
    });
    let own = MODELS.iter().enumerate().filter_map(|(marker, model)| {
        let points = points(recording, model);
        let points = points.into_iter().map(|(x, at)| (x, Value { at, interval: None })).collect();
        Line::new(model, colour::of_name(model).unwrap_or(TEXT), marker, false, points)
    });
    let lines: Vec<Line> = own.chain(book.flatten()).collect();
    let ticks: Vec<f64> = points(recording, "epoll").iter().map(|(silent, _)| *silent).collect();
    let head = Head {
        name: "crowd".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: "server CPU per request (grey: a wait alone on Linux 2.6.25, TLPI table 63-9)"
            .into(),
        ..Head::default()
    };
    let drawn = plot(head, "silent connections beside the one that asks", &ticks, &lines);
    let svg = drawn.map_or_else(String::new, |plot| plot.svg);
    Picture { svg, text: text(recording, lesson, columns) }
}

/// Silent connections and cost of the runs of a model.
fn points(recording: &Recording, model: &str) -> Vec<(f64, f64)> {
    let point = |run: &Run| {
        let of = |name: &str| recording.figure(&run.run, name);
        Some((of("silent_connections")?, of(COST)?))
    };
    recording.runs.iter().filter(|run| run.model == model).filter_map(point).collect()
}

fn text(recording: &Recording, lesson: &Lesson, columns: usize) -> String {
    let mut text = lines_of(&lesson.finding.text, columns).join("\n") + "\n";
    let all: Vec<f64> = points(recording, "epoll").iter().map(|(silent, _)| *silent).collect();
    let row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
        format!("{name:<20}{cells}").trim_end().to_owned() + "\n"
    };
    text += &row("silent connections", all.iter().map(|silent| thousands(*silent)).collect());
    for model in MODELS {
        let points = points(recording, model);
        let cell = |silent: &f64| {
            let at = points.iter().find(|(of, _)| of == silent);
            at.map_or_else(|| "-".to_owned(), |(_, us)| figure(*us))
        };
        text += &row(&format!("{model}, us/request"), all.iter().map(cell).collect());
    }
    text
}
