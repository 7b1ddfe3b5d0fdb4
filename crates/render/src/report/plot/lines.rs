//! Lines: a figure of each model along an axis, with a marker at each measured place, the interval
//! over the rounds, and the model's name at the line's end.

use record::Results;

use crate::statistics::Estimate;
use crate::summary::Summary;
use crate::text::{figure, thousands};

use super::Plot;
use super::bars::kernel_part;
use super::colour::{Ink, TEXT, of_model};
use super::data;
use super::page::{self, Drawn, Page, Point, SMALL_PX, Side, TEXT_PX, WIDTH, tick, width_of};
use super::scale::{Scale, spread};

/// Height of a plot of lines.
const HEIGHT: i32 = 480;
/// Room for the axis below.
const AXIS: i32 = 56;
/// Below the title.
const TOP: i32 = 52;
/// Room for the upright axis.
const LEFT: i32 = 84;
/// Room for the names at the lines' ends.
const NAMES: i32 = 160;
/// Names are at least so far apart.
pub const NAME_GAP: i32 = 18;

/// One model's line.
struct Line {
    name: String,
    ink: Ink,
    marker: usize,
    /// The floor: no competitor.
    dashed: bool,
    points: Vec<(f64, Estimate)>,
}

impl Line {
    fn of(results: &Results, model: &str, points: Vec<(f64, Estimate)>) -> Option<Line> {
        let marker = results.models.iter().position(|m| m.label == model)?;
        let (name, ink) = (model.to_owned(), of_model(results, model));
        let dashed = results.floor.as_deref() == Some(model);
        (!points.is_empty()).then_some(Line { name, ink, marker, dashed, points })
    }

    fn told(&self) -> String {
        let point = |(x, y): &(f64, Estimate)| format!("{} at {}", figure(y.median), thousands(*x));
        let points: Vec<String> = self.points.iter().map(point).collect();
        format!("{}: {}.", self.name, points.join(", "))
    }
}

/// Server CPU per request against the connections open: the axis that decides. Needs two places.
pub fn by_idle(results: &Results, summary: &Summary) -> Result<Option<Plot>, String> {
    let axis = data::idle_axis(results);
    if axis.len() < 2 {
        return Ok(None);
    }
    let line = |model: &record::Model| {
        let point = |workload: &&record::Workload| {
            let cell = data::cell(summary, &workload.name, &model.label)?;
            let figures = cell.state.as_ref().ok().filter(|figures| figures.stuck().is_none())?;
            let open = workload.idle_connections + workload.connections;
            Some((f64::from(open), figures.server_us))
        };
        Line::of(results, &model.label, axis.iter().filter_map(point).collect())
    };
    let lines: Vec<Line> = results.models.iter().filter_map(line).collect();
    let active = axis.first().map_or(0, |w| w.connections);
    let open: Vec<f64> =
        axis.iter().map(|w| f64::from(w.idle_connections + w.connections)).collect();
    let plane = Plane {
        corners: ((LEFT, TOP), (WIDTH - NAMES, HEIGHT - AXIS)),
        x_axis: format!("connections open, of which {active} are active"),
        y_axis: "microseconds of server CPU per request".into(),
        heading: None,
        open: &open,
    };
    let title = "server CPU per request among idle connections";
    one_plane("cpu-by-idle", title, results, &plane, &lines)
}

/// Growth of a server's memory against connections: its own pages, and the kernel's part.
pub fn memory(results: &Results) -> Result<Option<Plot>, String> {
    let lines = |part: &dyn Fn(&data::Growth) -> Estimate| -> Vec<Line> {
        let line = |model: &record::Model| {
            let grown = data::growth(results, &model.label);
            // A logarithmic axis has no place for what did not grow.
            let points = grown.iter().map(|g| (f64::from(g.connections), part(g)));
            let points = points.filter(|(_, e)| e.median > 0.0).collect();
            Line::of(results, &model.label, points)
        };
        results.models.iter().filter_map(line).collect()
    };
    let (user, kernel) = (lines(&|g| g.user), lines(&|g| g.kernel));
    let mut open: Vec<f64> =
        user.iter().chain(&kernel).flat_map(|l| &l.points).map(|p| p.0).collect();
    open.sort_by(f64::total_cmp);
    open.dedup();
    if open.len() < 2 {
        return Ok(None);
    }
    let plane = |(left, right): (i32, i32), heading: &'static str, y_axis: &str| Plane {
        corners: ((left, TOP + 26), (right, HEIGHT - AXIS)),
        x_axis: "connections open and silent".into(),
        y_axis: y_axis.into(),
        heading: Some(heading),
        open: &open,
    };
    let middle = (WIDTH + LEFT) / 2;
    let planes = [
        (plane((LEFT, middle - NAMES), "its own pages", "KiB grown since the start"), user),
        (plane((middle + 24, WIDTH - NAMES), kernel_part(results), ""), kernel),
    ];
    let values = planes.iter().flat_map(|(_, lines)| heights(lines));
    let pixels = (HEIGHT - AXIS, TOP + 26);
    let Some(y) = Scale::logarithmic(values, MARGIN, pixels) else { return Ok(None) };
    let told = |(plane, lines): &(Plane, Vec<Line>)| {
        let lines: Vec<_> = lines.iter().map(Line::told).collect();
        format!("{}, KiB: {}", plane.heading.unwrap_or_default(), lines.join(" "))
    };
    let told: Vec<String> = planes.iter().map(told).collect();
    let title = "server memory against connections";
    let draw = |page: &Page| {
        planes.iter().try_for_each(|(plane, lines)| draw_plane(page, plane, &y, lines))
    };
    page::plot("memory-by-connections", title, &told.join(" "), HEIGHT, draw).map(Some)
}

/// How far beyond the values a logarithmic axis goes.
const MARGIN: f64 = 1.3;

/// A logarithmic plane and what stands around it.
struct Plane<'a> {
    /// Upper left and lower right corner.
    corners: (Point, Point),
    x_axis: String,
    y_axis: String,
    heading: Option<&'static str>,
    /// Where something was measured: the ticks of the axis below.
    open: &'a [f64],
}

/// Medians and the ends of intervals.
fn heights(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| &line.points).flat_map(|(_, e)| {
        let ends = e.interval.map(|interval| [interval.low, interval.high]);
        std::iter::once(e.median).chain(ends.into_iter().flatten())
    })
}

fn one_plane(
    name: &str,
    title: &str,
    results: &Results,
    plane: &Plane,
    lines: &[Line],
) -> Result<Option<Plot>, String> {
    let ((_, top), (_, bottom)) = plane.corners;
    let Some(y) = Scale::logarithmic(heights(lines), MARGIN, (bottom, top)) else {
        return Ok(None);
    };
    let told: Vec<String> = lines.iter().map(Line::told).collect();
    let told = format!("{} ({}). {}", plane.y_axis, plane.x_axis, told.join(" "));
    let floor = results.floor.as_deref();
    let draw = |page: &Page| {
        draw_plane(page, plane, &y, lines)?;
        match floor {
            Some(floor) if lines.iter().any(|line| line.name == floor) => {
                let note = format!("{floor} parses nothing: the physical line");
                page.text(&note, (WIDTH - 16, 22), Side::Left, SMALL_PX, TEXT)
            }
            _ => Ok(()),
        }
    };
    page::plot(name, title, &told, HEIGHT, draw).map(Some)
}

fn draw_plane(page: &Page, plane: &Plane, y: &Scale, lines: &[Line]) -> Drawn {
    let ((left, top), (right, bottom)) = plane.corners;
    let Some(x) = Scale::logarithmic(plane.open.iter().copied(), 1.15, (left, right)) else {
        return Ok(());
    };
    let labelled = labelled(&x, plane.open);
    page.ticks_below(&x, &labelled, (top, bottom), &thousands)?;
    let label: &dyn Fn(f64) -> String = &tick;
    page.ticks_left(y, (left, right), (!plane.y_axis.is_empty()).then_some(label))?;
    page.axes((left, top), (right, bottom))?;
    page.text(&plane.x_axis, ((left + right) / 2, bottom + 38), Side::Middle, SMALL_PX, TEXT)?;
    page.upright(&plane.y_axis, (left - 66, (top + bottom) / 2))?;
    if let Some(heading) = plane.heading {
        page.text(heading, (left, top - 16), Side::Right, TEXT_PX, TEXT)?;
    }
    for line in lines {
        draw_line(page, &x, y, line)?;
    }
    draw_names(page, &x, y, lines, plane.corners)
}

/// The places whose labels fit, from the right: the largest is always there.
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
    let points: Vec<Point> = line.points.iter().map(|(open, e)| at((*open, e.median))).collect();
    for pair in points.windows(2) {
        match line.dashed {
            true => page.dashed(pair[0], pair[1], line.ink)?,
            false => page.line(pair.to_vec(), line.ink, 2)?,
        }
    }
    for (open, interval) in line.points.iter().filter_map(|(x, e)| Some((*x, e.interval?))) {
        page.line(vec![at((open, interval.low)), at((open, interval.high))], line.ink, 2)?;
    }
    points.into_iter().try_for_each(|point| page.marker(line.marker, point, line.ink))
}

/// Names with their markers on the right, each beside the end of its line, moved apart where they
/// would collide. A line that ends early says where.
fn draw_names(
    page: &Page,
    x: &Scale,
    y: &Scale,
    lines: &[Line],
    ((_, top), (right, bottom)): (Point, Point),
) -> Drawn {
    let last = lines.iter().filter_map(|line| line.points.last()).map(|point| point.0);
    let last = last.fold(0.0, f64::max);
    let ends: Vec<(f64, Point)> = lines
        .iter()
        .filter_map(|line| line.points.last())
        .map(|(open, e)| (*open, (x.at(*open), y.at(e.median))))
        .collect();
    let wanted: Vec<i32> = ends.iter().map(|(_, end)| end.1).collect();
    let places = spread(&wanted, NAME_GAP, (top + 4, bottom - 4));
    for ((line, (open, end)), place) in lines.iter().zip(&ends).zip(places) {
        let mut name = line.name.clone();
        if *open < last {
            name += &format!(" (to {})", thousands(*open));
        } else {
            // A thin line leads to a name that had to move.
            let leader = vec![(end.0 + 8, end.1), (right + 2, end.1), (right + 12, place)];
            page.line(leader, line.ink, 1)?;
        }
        page.marker(line.marker, (right + 20, place), line.ink)?;
        page.text(&name, (right + 30, place), Side::Right, TEXT_PX, TEXT)?;
    }
    Ok(())
}
