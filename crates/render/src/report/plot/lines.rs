//! Line plots: a figure of each model along an axis, with markers, intervals, and the model's name
//! at the end of the line.

use record::Results;

use crate::report::table::found;
use crate::text::{figure, thousands};
use verdict::summary::{Figure, Summary};

use super::Plot;
use super::colour::{Ink, TEXT, of_model};
use super::data::{self, Value};
use super::page::{AXIS, Head, Page, Point, Side, WIDTH, width_of};
use super::scale::{Scale, spread};

/// Height of the plane.
const HEIGHT: i32 = 380;
/// Width of the vertical axis.
const LEFT: i32 = 84;
/// Width of the names at the ends of the lines.
const NAMES: i32 = 160;
/// Smallest distance of two names.
const NAME_GAP: i32 = 18;

/// One line.
pub(crate) struct Line {
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
    /// A line of another source than a result file; `None` without points.
    pub(crate) fn new(
        name: &str,
        ink: Ink,
        marker: usize,
        dashed: bool,
        points: Vec<(f64, Value)>,
    ) -> Option<Line> {
        let name = name.to_owned();
        let line = Line { name, ink, marker, dashed, points, beside: None };
        (!line.points.is_empty()).then_some(line)
    }

    fn of(results: &Results, model: &str, points: Vec<(f64, Value)>) -> Option<Line> {
        let marker = results.models.iter().position(|m| m.label == model)?;
        let dashed = results.floor.as_deref() == Some(model);
        Line::new(model, of_model(results, model), marker, dashed, points)
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
pub fn by_idle(results: &Results, summary: &Summary) -> Option<Plot> {
    let axis = data::idle_axis(results);
    let open = |workload: &record::Workload| workload.idle_connections + workload.connections;
    let line = |model: &record::Model| {
        let point = |workload: &&record::Workload| {
            let figures = data::figures(summary, &workload.name, &model.label)?;
            let served = figures.stuck().is_none();
            served.then(|| (f64::from(open(workload)), Value::of(figures, Figure::Server)))
        };
        Line::of(results, &model.label, axis.iter().filter_map(point).collect())
    };
    let (first, last) = (axis.first()?, axis.last()?);
    let lines: Vec<Line> = results.models.iter().filter_map(line).collect();
    let place = format!("among {} idle connections", thousands(f64::from(last.idle_connections)));
    let floor = results.floor.as_deref().filter(|floor| lines.iter().any(|l| l.name == *floor));
    let floor = floor.map_or(String::new(), |of| format!(" (dashed: {of}, which parses nothing)"));
    let head = Head {
        name: "cpu-by-idle".to_owned(),
        finding: found_at(summary, last, &place),
        subject: format!("server CPU per request{floor}"),
        ..Head::default()
    };
    let x_axis = format!("open connections, {} of them active", first.connections);
    let ticks: Vec<f64> = axis.iter().map(|w| f64::from(open(w))).collect();
    plot(head, &x_axis, &ticks, &lines).filter(|_| axis.len() > 1)
}

/// Server CPU per request at the rates that a server sustains, and at its capacity. A loop that is
/// woken for a single request cannot share the cost among several. Needs two rates.
pub fn by_rate(results: &Results, summary: &Summary) -> Option<Plot> {
    let (axis, closed) = data::rate_axis(results);
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
    let first = axis.first()?;
    let lines: Vec<Line> = results.models.iter().filter_map(line).collect();
    let note = if closed.is_some() { " (dotted: to the capacity, in a closed loop)" } else { "" };
    let rate = thousands(f64::from(first.rate_per_s?));
    let head = Head {
        name: "cpu-by-rate".to_owned(),
        finding: found_at(summary, first, &format!("at {rate} requests/s")),
        subject: format!("server CPU per request at fixed rates{note}"),
        ..Head::default()
    };
    let ticks: Vec<f64> = axis.iter().filter_map(|w| w.rate_per_s).map(f64::from).collect();
    plot(head, "requests per second", &ticks, &lines).filter(|_| axis.len() > 1)
}

/// The findings under one workload of the axis.
fn found_at(summary: &Summary, workload: &record::Workload, place: &str) -> String {
    let mut all = summary.workloads.iter();
    let found = all.find(|of| of.workload.name == workload.name);
    let found = found.and_then(|workload| found::of(workload, Figure::Server));
    found.map_or(String::new(), |found| format!("{place} {found}"))
}

const RIGHT: i32 = WIDTH - NAMES;

/// A logarithmic axis extends this factor beyond the values.
const MARGIN: f64 = 1.3;

/// A plot with logarithmic axes; `None` without data. `ticks`: the measured values of the
/// horizontal axis.
pub(crate) fn plot(head: Head, x_axis: &str, ticks: &[f64], lines: &[Line]) -> Option<Plot> {
    plot_above(head, x_axis, ticks, lines, (0, |_: &mut Page, _| {}))
}

/// As [`plot`], and below it something of this height, drawn from its upper edge.
pub(crate) fn plot_above(
    head: Head,
    x_axis: &str,
    ticks: &[f64],
    lines: &[Line],
    (height, draw): (i32, impl FnOnce(&mut Page, i32)),
) -> Option<Plot> {
    let all = || lines.iter().flat_map(Line::all);
    let heights = all().flat_map(|(_, value)| value.heights());
    let places = all().map(|(x, _)| *x).chain(ticks.iter().copied());
    let x = Scale::logarithmic(places, 1.15, (LEFT, RIGHT))?;
    let y = Scale::logarithmic(heights, MARGIN, (HEIGHT, 0))?;
    let told: Vec<String> = lines.iter().map(Line::told).collect();
    let told = format!("{Y_AXIS} ({x_axis}). {}", told.join(" "));
    let told = format!("{told} {}", head.told).trim_end().to_owned();
    Some(Head { told, ..head }.plot(HEIGHT + AXIS + height, |page, top| {
        let (y, bottom) = (y.moved(top), top + HEIGHT);
        page.axis_below(&x, &labelled(&x, ticks), &thousands, (top, bottom), x_axis);
        page.axis_left(&y, (LEFT, RIGHT), Y_AXIS);
        lines.iter().for_each(|line| draw_line(page, &x, &y, line));
        draw_names(page, &x, &y, lines);
        draw(page, bottom + AXIS);
    }))
}

const Y_AXIS: &str = "microseconds of server CPU per request";

/// The values whose labels fit, beginning with the largest.
fn labelled(x: &Scale, open: &[f64]) -> Vec<f64> {
    let mut free = i32::MAX;
    let fits = |value: &f64| {
        let half = width_of(&thousands(*value)) / 2 + 5;
        let fits = x.at(*value) + half <= free;
        if fits {
            free = x.at(*value) - half;
        }
        fits
    };
    open.iter().rev().copied().filter(fits).collect()
}

fn draw_line(page: &mut Page, x: &Scale, y: &Scale, line: &Line) {
    let at = |(open, value): (f64, f64)| (x.at(open), y.at(value));
    let points: Vec<Point> = line.points.iter().map(|(open, v)| at((*open, v.at))).collect();
    match line.dashed {
        true => page.dashed(&points, line.ink, "6 5"),
        false => page.line(&points, line.ink, 2),
    }
    let beside = line.beside.as_ref().map(|(rate, v)| at((*rate, v.at)));
    if let (Some(last), Some(beside)) = (points.last(), beside) {
        page.dashed(&[*last, beside], line.ink, "2 4");
    }
    for (open, interval) in line.all().filter_map(|(x, v)| Some((*x, v.interval?))) {
        page.line(&[at((open, interval.low)), at((open, interval.high))], line.ink, 2);
    }
    points.into_iter().chain(beside).for_each(|at| page.marker(line.marker, at, line.ink));
}

/// Names with markers at the ends of the lines, moved apart if they would overlap. A line that ends
/// early says at which value.
fn draw_names(page: &mut Page, x: &Scale, y: &Scale, lines: &[Line]) {
    let (bottom, top) = y.ends();
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
        let leader = [(end.0 + 8, end.1), (RIGHT + 2, end.1), (RIGHT + 12, place)];
        if to >= last || line.beside.is_some() {
            page.line(&leader, line.ink, 1);
        }
        page.marker(line.marker, (RIGHT + 20, place), line.ink);
        page.text(&name, (RIGHT + 30, place), Side::Right, TEXT);
    }
}
