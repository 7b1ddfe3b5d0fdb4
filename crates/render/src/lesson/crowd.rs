//! The picture of `crowd`: server CPU per request against silent connections, with the points of a
//! book in grey, and below it a dot for each descriptor: given to the kernel in each wait, or not.

use record::{Recording, Run};
use verdict::lesson::Lesson;

use crate::report::plot::colour::{self, MUTED, TEXT};
use crate::report::plot::data::Value;
use crate::report::plot::lines::{Line, plot_above};
use crate::report::plot::page::{DOT_APART, DOTS_IN_ROW, EDGE, Head, Page, Side};
use crate::text::{figure, lines_of, thousands};

use super::Picture;

const MODELS: [&str; 3] = ["select", "poll", "epoll"];
/// Microseconds for each wait among so many descriptors: M. Kerrisk, The Linux Programming
/// Interface, 2010, table 63-9 (seconds for 100,000 waits), as quoted in J. Evans, "Async IO on
/// Linux: select, poll, and epoll", jvns.ca, 2017.
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
    let waits: Vec<Waits> = MODELS.iter().filter_map(|model| largest(recording, model)).collect();
    let ticks: Vec<f64> = points(recording, "epoll").iter().map(|(silent, _)| *silent).collect();
    let head = Head {
        name: "crowd".to_owned(),
        finding: lesson.finding.text.clone(),
        subject:
            "server CPU per request (grey: a wait alone, TLPI table 63-9 as quoted by J. Evans)"
                .into(),
        told: waits.iter().map(|waits| waits.told() + ".").collect::<Vec<_>>().join(" "),
        ..Head::default()
    };
    let axis = "silent connections beside the one that asks";
    let below = (height(&waits), |page: &mut Page, top: i32| draw(page, top, &waits));
    let drawn = plot_above(head, axis, &ticks, &lines, below);
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

/// What each wait of a model gave to the kernel, and what came back, among one crowd.
struct Waits<'a> {
    model: &'a str,
    silent: f64,
    watched: f64,
    given: f64,
    returned: f64,
}

impl Waits<'_> {
    fn told(&self) -> String {
        let Waits { model, watched, given, returned, .. } = self;
        let [all, given] = [watched, given].map(|number| thousands(number.round()));
        let of = if all == given { String::new() } else { format!(" of {all}") };
        format!("{model}: gives {given}{of}, gets {returned:.1}")
    }
}

fn waits<'a>(recording: &Recording, model: &'a str) -> Vec<Waits<'a>> {
    let of = |run: &Run| {
        let of = |name: &str| recording.figure(&run.run, name);
        Some(Waits {
            model,
            silent: of("silent_connections")?,
            watched: of("descriptors_watched")?,
            given: of("descriptors_given_per_wait")?,
            returned: of("descriptors_returned_per_wait")?,
        })
    };
    recording.runs.iter().filter(|run| run.model == model).filter_map(of).collect()
}

fn largest<'a>(recording: &Recording, model: &'a str) -> Option<Waits<'a>> {
    waits(recording, model).into_iter().max_by(|a, b| a.silent.total_cmp(&b.silent))
}

/// Height of the line above the dots.
const LINE: i32 = 24;

fn height(waits: &[Waits]) -> i32 {
    let most = waits.iter().map(|waits| waits.watched).fold(0.0, f64::max) as i32;
    match most {
        0 => 0,
        most => 3 * LINE + (most / DOTS_IN_ROW + 1) * DOT_APART,
    }
}

/// A field of dots for each model, side by side.
fn draw(page: &mut Page, top: i32, waits: &[Waits]) {
    if waits.is_empty() {
        return;
    }
    let what = "A dot is a descriptor, large if each wait gives it to the kernel, which then looks \
                at it; a mark is one that came back.";
    page.text(what, (EDGE, top + LINE / 2), Side::Right, TEXT);
    for (place, one) in waits.iter().enumerate() {
        let left = EDGE + place as i32 * (DOTS_IN_ROW * DOT_APART + EDGE + 8);
        let (ink, y) = (colour::of_name(one.model).unwrap_or(TEXT), top + 2 * LINE);
        page.text(&one.told(), (left, top + LINE + LINE / 2), Side::Right, ink);
        let given = one.given.round() as i32;
        let (count, small) = if given > 0 { (given, false) } else { (one.watched as i32, true) };
        page.dots((left, y), count, ink, small);
        // Where they are among the others is not known: they are marked at the begin.
        for number in 0..one.returned.round() as i32 {
            let at = (left + number * 4 * DOT_APART + DOT_APART / 2, y + DOT_APART / 2);
            page.marker(place, at, ink);
        }
    }
}

fn text(recording: &Recording, lesson: &Lesson, columns: usize) -> String {
    let mut text = lines_of(&lesson.finding.text, columns).join("\n") + "\n";
    let all: Vec<f64> = points(recording, "epoll").iter().map(|(silent, _)| *silent).collect();
    let row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>12}")).collect();
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
    let traced: Vec<_> = MODELS.iter().map(|model| (model, waits(recording, model))).collect();
    if traced.iter().any(|(_, waits)| !waits.is_empty()) {
        text += "Descriptors that each wait gives to the kernel / that come back:\n";
    }
    for (model, waits) in traced.iter().filter(|(_, waits)| !waits.is_empty()) {
        let cell = |silent: &f64| {
            let at = waits.iter().find(|one| one.silent == *silent);
            at.map_or_else(
                || "-".to_owned(),
                |one| format!("{}/{:.1}", thousands(one.given.round()), one.returned),
            )
        };
        text += &row(model, all.iter().map(cell).collect());
    }
    text
}
