//! The machine's own costs at the start of each round, relative to their medians: what no server
//! can be blamed for.

use record::{Gauge, Results};

use crate::statistics::median;
use crate::text::figure;

use super::Plot;
use super::colour::{CALL_FAMILIES, Ink, TEXT};
use super::lines::NAME_GAP;
use super::page::{self, Drawn, Page, Point, SMALL_PX, Side, TEXT_PX, WIDTH};
use super::scale::{Scale, spread};

/// Small: it is read in a glance.
const HEIGHT: i32 = 250;
/// Upper left corner of the plane.
const UPPER: Point = (84, 52);
/// Lower right corner.
const LOWER: Point = (WIDTH - 200, HEIGHT - 56);
/// The plane reaches at least so far from 1, so that small changes look small.
const REACH_MIN: f64 = 0.12;

/// One gauge over the rounds.
struct Course {
    name: String,
    ink: Ink,
    /// Round, and the cost as a multiple of its median.
    points: Vec<(f64, f64)>,
}

/// `None` with fewer than two rounds: nothing can have moved.
pub fn plot(results: &Results) -> Result<Option<Plot>, String> {
    let gauges = &results.gauges;
    if gauges.len() < 2 {
        return Ok(None);
    }
    let (call, echo) = (CALL_FAMILIES[0].1, CALL_FAMILIES[2].1);
    let courses = [
        course(gauges, "null call", "ns", call, |gauge| gauge.null_syscall_ns),
        course(gauges, "echo", "us", echo, |gauge| gauge.echo_one_thread_us),
    ];
    let courses: Vec<Course> = courses.into_iter().flatten().collect();
    if courses.is_empty() {
        return Ok(None);
    }
    let told = |course: &Course| {
        let shares: Vec<_> = course.points.iter().map(|(_, s)| format!("{s:.2}")).collect();
        format!("{}: {} times its median.", course.name, shares.join(", "))
    };
    let told: Vec<String> = courses.iter().map(told).collect();
    let title = "the machine itself, round by round";
    page::plot("gauges", title, &told.join(" "), HEIGHT, |page| draw(page, &courses)).map(Some)
}

fn course(
    gauges: &[Gauge],
    name: &str,
    unit: &str,
    ink: Ink,
    cost: impl Fn(&Gauge) -> f64,
) -> Option<Course> {
    let costs: Vec<f64> = gauges.iter().map(&cost).collect();
    let median = median(&costs).filter(|median| *median > 0.0)?;
    let point = |gauge: &Gauge| (f64::from(gauge.round), cost(gauge) / median);
    let name = format!("{name}, {} {unit}", figure(median));
    Some(Course { name, ink, points: gauges.iter().map(point).collect() })
}

fn draw(page: &Page, courses: &[Course]) -> Drawn {
    let ((left, top), (right, bottom)) = (UPPER, LOWER);
    let all = || courses.iter().flat_map(|course| &course.points);
    let (first, last) =
        all().fold((f64::MAX, 0.0), |(first, last), point| (point.0.min(first), point.0.max(last)));
    let (low, high) = all().fold((1.0 - REACH_MIN, 1.0 + REACH_MIN), |(low, high), point| {
        (point.1.min(low), point.1.max(high))
    });
    let x = Scale::linear(first - 0.5, last + 0.5, (left, right));
    let y = Scale::linear(low, high, (bottom, top));
    let rounds: Vec<f64> = x.ticks(40).into_iter().filter(|tick| tick.fract() == 0.0).collect();
    page.ticks_below(&x, &rounds, (top, bottom), &|round| format!("{round:.0}"))?;
    page.ticks_left(&y, (left, right), Some(&|share| format!("{share:.2}")))?;
    page.axes((left, top), (right, bottom))?;
    page.text("round", ((left + right) / 2, bottom + 38), Side::Middle, SMALL_PX, TEXT)?;
    page.upright("times its median", (left - 66, (top + bottom) / 2))?;
    let ends: Vec<i32> =
        courses.iter().filter_map(|c| c.points.last()).map(|point| y.at(point.1)).collect();
    let places = spread(&ends, NAME_GAP, (top, bottom));
    for (marker, (course, place)) in courses.iter().zip(places).enumerate() {
        let at = |(round, share): &(f64, f64)| (x.at(*round), y.at(*share));
        let points: Vec<Point> = course.points.iter().map(at).collect();
        page.line(points.clone(), course.ink, 2)?;
        points.into_iter().try_for_each(|point| page.marker(marker, point, course.ink))?;
        page.marker(marker, (right + 12, place), course.ink)?;
        page.text(&course.name, (right + 24, place), Side::Right, TEXT_PX, TEXT)?;
    }
    Ok(())
}
