//! Line plots: a figure of each model along an axis, with markers, intervals, and the model's name
//! at the end of the line.

use record::Results;

use crate::text::{figure, thousands};
use verdict::summary::{Figure, Summary};

use super::Plot;
use super::colour::{Ink, TEXT, of_model};
use super::data::{self, Value};
use super::page::{self, Drawn, Page, Point, SMALL_PX, Side, TEXT_PX, WIDTH, tick, width_of};
use super::scale::{Scale, spread};

const HEIGHT: i32 = 480;
/// Height of the horizontal axis.
const AXIS: i32 = 56;
/// Below the title.
const TOP: i32 = 52;
/// Width of the vertical axis.
const LEFT: i32 = 84;
/// Width of the names at the ends of the lines.
const NAMES: i32 = 160;
/// Smallest distance of two names.
const NAME_GAP: i32 = 18;

struct Line {
    name: String,
    ink: Ink,
    marker: usize,
    /// Whether the line is dashed: the floor.
    dashed: bool,
    points: Vec<(f64, Value)>,
    /// A separate point beside the line: the capacity.
    beside: Option<(f64, Value)>,
}

impl Line {
    fn of(results: &Results, model: &str, points: Vec<(f64, Value)>) -> Option<Line> {
        let marker = results.models.iter().position(|m| m.label == model)?;
        let (name, ink) = (model.to_owned(), of_model(results, model));
        let dashed = results.floor.as_deref() == Some(model);
        let line = Line { name, ink, marker, dashed, points, beside: None };
        (!line.points.is_empty()).then_some(line)
    }

    fn all(&self) -> impl Iterator<Item = &(f64, Value)> {
        self.points.iter().chain(&self.beside)
    }

    fn told(&self) -> String {
        let point = |(x, y): &(f64, Value)| format!("{} at {}", figure(y.at), thousands(*x));
        let points: Vec<String> = self.points.iter().map(point).collect();
        let beside = self.beside.as_ref();
        let beside = beside.map_or(String::new(), |one| format!("; capacity: {}", point(one)));
        format!("{}: {}{beside}.", self.name, points.join(", "))
    }
}

/// Server CPU per request against the number of open connections. Needs two numbers.
pub fn by_idle(results: &Results, summary: &Summary) -> Result<Option<Plot>, String> {
    let axis = data::idle_axis(results);
    if axis.len() < 2 {
        return Ok(None);
    }
    let line = |model: &record::Model| {
        let point = |workload: &&record::Workload| {
            let figures = data::figures(summary, &workload.name, &model.label)?;
            let open = f64::from(workload.idle_connections + workload.connections);
            figures.stuck().is_none().then(|| (open, Value::of(figures, Figure::Server)))
        };
        Line::of(results, &model.label, axis.iter().filter_map(point).collect())
    };
    let lines: Vec<Line> = results.models.iter().filter_map(line).collect();
    let active = axis.first().map_or(0, |w| w.connections);
    let ticks: Vec<f64> =
        axis.iter().map(|w| f64::from(w.idle_connections + w.connections)).collect();
    let x_axis = format!("connections open, of which {active} are active");
    let plane = Plane { x_axis: &x_axis, note: floor_note(results, &lines), ticks: &ticks };
    let title = "server CPU per request among idle connections";
    plane.plot("cpu-by-idle", title, &lines)
}

/// Server CPU per request at the rates that a server sustains, and at its capacity. A loop that is
/// woken for a single request cannot share the cost among several. Needs two rates.
pub fn by_rate(results: &Results, summary: &Summary) -> Result<Option<Plot>, String> {
    let (axis, closed) = data::rate_axis(results);
    if axis.len() < 2 {
        return Ok(None);
    }
    let line = |model: &record::Model| {
        let point = |workload: &&record::Workload| {
            let figures = data::figures(summary, &workload.name, &model.label)?;
            let value = || Value::of(figures, Figure::Server);
            data::keeps(figures).then(|| Some((f64::from(workload.rate_per_s?), value())))?
        };
        let mut line = Line::of(results, &model.label, axis.iter().filter_map(point).collect())?;
        let capacity = closed.and_then(|w| data::figures(summary, &w.name, &model.label));
        let capacity = capacity.filter(|figures| figures.stuck().is_none());
        line.beside = capacity.map(|f| (f.rate().median, Value::of(f, Figure::Server)));
        Some(line)
    };
    let lines: Vec<Line> = results.models.iter().filter_map(line).collect();
    let ticks: Vec<f64> = axis.iter().filter_map(|w| w.rate_per_s).map(f64::from).collect();
    let note = closed.map(|_| "dotted: to the capacity, in a closed loop".to_owned());
    let plane = Plane { x_axis: "requests per second", note, ticks: &ticks };
    plane.plot("cpu-by-rate", "server CPU per request at fixed rates, and at capacity", &lines)
}

fn floor_note(results: &Results, lines: &[Line]) -> Option<String> {
    let floor = results.floor.as_deref()?;
    let drawn = lines.iter().any(|line| line.name == floor);
    drawn.then(|| format!("{floor} parses nothing: the physical line"))
}

/// A plot with logarithmic axes.
struct Plane<'a> {
    x_axis: &'a str,
    note: Option<String>,
    /// The measured values: the ticks of the horizontal axis.
    ticks: &'a [f64],
}

/// The upper left corner.
const UPPER: Point = (LEFT, TOP);
const LOWER: Point = (WIDTH - NAMES, HEIGHT - AXIS);

/// A logarithmic axis extends this factor beyond the values.
const MARGIN: f64 = 1.3;

impl Plane<'_> {
    /// `None` without data.
    fn plot(&self, name: &str, title: &str, lines: &[Line]) -> Result<Option<Plot>, String> {
        let all = || lines.iter().flat_map(Line::all);
        let heights = all().flat_map(|(_, value)| value.heights());
        let y = Scale::logarithmic(heights, MARGIN, (LOWER.1, UPPER.1));
        let places = all().map(|(x, _)| *x).chain(self.ticks.iter().copied());
        let x = Scale::logarithmic(places, 1.15, (UPPER.0, LOWER.0));
        let (Some(x), Some(y)) = (x, y) else { return Ok(None) };
        let told: Vec<String> = lines.iter().map(Line::told).collect();
        let told = format!("{Y_AXIS} ({}). {}", self.x_axis, told.join(" "));
        page::plot(name, title, &told, HEIGHT, |page| self.draw(page, &x, &y, lines)).map(Some)
    }

    fn draw(&self, page: &Page, x: &Scale, y: &Scale, lines: &[Line]) -> Drawn {
        let ((left, top), (right, bottom)) = (UPPER, LOWER);
        page.ticks_below(x, &labelled(x, self.ticks), (top, bottom), &thousands)?;
        page.ticks_left(y, (left, right), Some(&tick))?;
        page.axes((left, top), (right, bottom))?;
        page.text(self.x_axis, ((left + right) / 2, bottom + 38), Side::Middle, SMALL_PX, TEXT)?;
        page.upright(Y_AXIS, (left - 66, (top + bottom) / 2))?;
        if let Some(note) = &self.note {
            page.text(note, (WIDTH - 16, 22), Side::Left, SMALL_PX, TEXT)?;
        }
        lines.iter().try_for_each(|line| draw_line(page, x, y, line))?;
        draw_names(page, x, y, lines)
    }
}

const Y_AXIS: &str = "microseconds of server CPU per request";

/// The values whose labels fit, beginning with the largest.
fn labelled(x: &Scale, open: &[f64]) -> Vec<f64> {
    let mut free = i32::MAX;
    let fits = |value: &f64| {
        let half = width_of(&thousands(*value), SMALL_PX) / 2 + 5;
        let fits = x.at(*value) + half <= free;
        if fits {
            free = x.at(*value) - half;
        }
        fits
    };
    open.iter().rev().copied().filter(fits).collect()
}

fn draw_line(page: &Page, x: &Scale, y: &Scale, line: &Line) -> Drawn {
    let at = |(open, value): (f64, f64)| (x.at(open), y.at(value));
    let points: Vec<Point> = line.points.iter().map(|(open, v)| at((*open, v.at))).collect();
    for pair in points.windows(2) {
        match line.dashed {
            true => page.dashed(pair[0], pair[1], line.ink)?,
            false => page.line(pair.to_vec(), line.ink, 2)?,
        }
    }
    let beside = line.beside.as_ref().map(|(rate, v)| at((*rate, v.at)));
    if let (Some(last), Some(beside)) = (points.last(), beside) {
        page.dotted(*last, beside, line.ink)?;
    }
    for (open, interval) in line.all().filter_map(|(x, v)| Some((*x, v.interval?))) {
        page.line(vec![at((open, interval.low)), at((open, interval.high))], line.ink, 2)?;
    }
    points.into_iter().chain(beside).try_for_each(|at| page.marker(line.marker, at, line.ink))
}

/// Names with markers at the ends of the lines, moved apart if they would overlap. A line that ends
/// early says at which value.
fn draw_names(page: &Page, x: &Scale, y: &Scale, lines: &[Line]) -> Drawn {
    let ((_, top), (right, bottom)) = (UPPER, LOWER);
    let last = lines.iter().filter_map(|line| line.points.last()).map(|point| point.0);
    let last = last.fold(0.0, f64::max);
    let end = |line: &Line| {
        let (open, value) = line.all().last()?;
        Some((x.at(*open), y.at(value.at)))
    };
    let ends: Vec<Point> = lines.iter().filter_map(end).collect();
    let wanted: Vec<i32> = ends.iter().map(|end| end.1).collect();
    let places = spread(&wanted, NAME_GAP, (top + 4, bottom - 4));
    for ((line, end), place) in lines.iter().zip(&ends).zip(places) {
        let mut name = line.name.clone();
        let to = line.points.last().map_or(0.0, |point| point.0);
        if to < last {
            name += &format!(" (to {})", thousands(to));
        }
        // A thin line leads to a name that was moved.
        let leader = vec![(end.0 + 8, end.1), (right + 2, end.1), (right + 12, place)];
        if to >= last || line.beside.is_some() {
            page.line(leader, line.ink, 1)?;
        }
        page.marker(line.marker, (right + 20, place), line.ink)?;
        page.text(&name, (right + 30, place), Side::Right, TEXT_PX, TEXT)?;
    }
    Ok(())
}
