//! Latency against offered rate, one small panel per model: equal axes, so that panels can be
//! compared, and the reference's line pale behind each.

use record::{Results, Workload};

use crate::summary::Summary;
use crate::text::{figure, thousands};

use super::Plot;
use super::colour::{Ink, PALE, TEXT, of_model};
use super::data::{self, AtRate};
use super::page::{self, Drawn, Page, Point, SMALL_PX, Side, TEXT_PX, WIDTH};
use super::scale::Scale;

/// Panels beside each other.
const COLUMNS: i32 = 3;
/// Room for the labels of the upright axis.
const LEFT: i32 = 84;
/// Between panels.
const GUTTER: i32 = 18;
/// Height of a panel's plane.
const PLANE: i32 = 150;
/// Height of a panel's heading.
const HEADING: i32 = 30;
/// Below title and key.
const TOP: i32 = 74;
/// Room for the axis below the last row.
const AXIS: i32 = 50;

/// One model.
struct Panel {
    model: String,
    ink: Ink,
    marker: usize,
    /// Offered rate, median and 99th percentile where the model kept the rate.
    kept: Vec<(f64, f64, Option<f64>)>,
    /// The first rate that it did not keep, and the share that it answered.
    knee: Option<(f64, f64)>,
    /// The first rate at which the client was the limit.
    client_behind: Option<f64>,
}

/// One plot per family of open loops that differ in their rate only.
pub fn all(results: &Results, summary: &Summary) -> Result<Vec<Plot>, String> {
    let mut plots = Vec::new();
    for (i, axis) in data::rate_axes(results).iter().enumerate() {
        let name = match i {
            0 => "latency-by-rate".to_owned(),
            _ => format!("latency-by-rate-of-{}", axis[0].name),
        };
        plots.extend(family(results, summary, &name, axis)?);
    }
    Ok(plots)
}

fn family(
    results: &Results,
    summary: &Summary,
    name: &str,
    axis: &[&Workload],
) -> Result<Option<Plot>, String> {
    let panel = |(marker, model): (usize, &record::Model)| {
        let mut panel = Panel::of(results, &model.label, marker);
        panel.fill(axis, |workload| data::at_rate(results, summary, workload, &model.label));
        (!panel.kept.is_empty() || end_of(&panel).is_some()).then_some(panel)
    };
    let panels: Vec<Panel> = results.models.iter().enumerate().filter_map(panel).collect();
    let rates: Vec<f64> = axis.iter().filter_map(|w| w.rate_per_s).map(f64::from).collect();
    let values = panels.iter().flat_map(|panel| &panel.kept);
    let values = values.flat_map(|(_, p50, p99)| std::iter::once(*p50).chain(*p99));
    let Some(y) = Scale::logarithmic(values, 1.4, (PLANE, 0)) else { return Ok(None) };
    let rows = (panels.len() as i32 + COLUMNS - 1) / COLUMNS;
    let height = TOP + rows * (HEADING + PLANE) + (rows - 1) * GUTTER + AXIS;
    let told: Vec<String> = panels.iter().map(told).collect();
    let told = format!("Microseconds at the rate offered per second. {}", told.join(" "));
    let drawing = Drawing { panels: &panels, rates: &rates, y, reference: &results.reference };
    let title = "latency against offered rate";
    page::plot(name, title, &told, height, |page| drawing.draw(page)).map(Some)
}

impl Panel {
    fn of(results: &Results, model: &str, marker: usize) -> Panel {
        Panel {
            model: model.to_owned(),
            ink: of_model(results, model),
            marker,
            kept: Vec::new(),
            knee: None,
            client_behind: None,
        }
    }

    /// Follows the axis up to the knee: faster rates say nothing more.
    fn fill(&mut self, axis: &[&Workload], at_rate: impl Fn(&str) -> Option<AtRate>) {
        for workload in axis {
            let Some(rate) = workload.rate_per_s.map(f64::from) else { continue };
            match at_rate(&workload.name) {
                Some(AtRate::Kept { p50_us, p99_us }) => self.kept.push((rate, p50_us, p99_us)),
                Some(AtRate::Behind(share)) => {
                    self.knee = Some((rate, share));
                    return;
                }
                Some(AtRate::ClientBehind) => {
                    self.client_behind = Some(rate);
                    return;
                }
                None => {}
            }
        }
    }
}

fn told(panel: &Panel) -> String {
    let point = |(rate, p50, p99): &(f64, f64, Option<f64>)| {
        let p99 = p99.map_or(String::new(), |p99| format!(", p99 {}", figure(p99)));
        format!("{}: p50 {}{p99}", thousands(*rate), figure(*p50))
    };
    let points: Vec<String> = panel.kept.iter().map(point).collect();
    let end =
        end_of(panel).map_or(String::new(), |(rate, why)| format!("; {} {why}", thousands(rate)));
    format!("{}: {}{end}.", panel.model, points.join("; "))
}

/// Where a line stops, and why.
fn end_of(panel: &Panel) -> Option<(f64, String)> {
    let knee = panel.knee.map(|(rate, share)| (rate, format!("answers {:.0} %", share * 100.0)));
    knee.or_else(|| Some((panel.client_behind?, "client too slow".to_owned())))
}

struct Drawing<'a> {
    panels: &'a [Panel],
    rates: &'a [f64],
    /// The upright axis, from the lower edge of a plane to its upper one.
    y: Scale,
    reference: &'a str,
}

impl Drawing<'_> {
    fn draw(&self, page: &Page) -> Drawn {
        let width = (WIDTH - LEFT - 16 - (COLUMNS - 1) * GUTTER) / COLUMNS;
        for (i, panel) in self.panels.iter().enumerate() {
            let (row, column) = (i as i32 / COLUMNS, i as i32 % COLUMNS);
            let left = LEFT + column * (width + GUTTER);
            let top = TOP + row * (HEADING + PLANE + GUTTER) + HEADING;
            let last = i + COLUMNS as usize >= self.panels.len();
            self.draw_panel(page, panel, (left, top, left + width), column == 0, last)?;
        }
        self.draw_key(page)
    }

    fn draw_panel(
        &self,
        page: &Page,
        panel: &Panel,
        (left, top, right): (i32, i32, i32),
        first: bool,
        last: bool,
    ) -> Drawn {
        let bottom = top + PLANE;
        let Some(x) = Scale::logarithmic(self.rates.iter().copied(), 1.2, (left, right)) else {
            return Ok(());
        };
        self.draw_grid(page, &x, (left, top, right), first, last)?;
        page.marker(panel.marker, (left + 7, top - 15), panel.ink)?;
        page.text(&panel.model, (left + 20, top - 15), Side::Right, TEXT_PX, TEXT)?;
        let at = |rate: f64, value: f64| (x.at(rate), top + self.y.at(value));
        if let Some(reference) = self.panels.iter().find(|p| p.model == self.reference)
            && reference.model != panel.model
        {
            draw_lines(page, reference, PALE, &at)?;
        }
        draw_lines(page, panel, panel.ink, &at)?;
        if let Some((rate, why)) = end_of(panel) {
            page.dashed((x.at(rate), top), (x.at(rate), bottom), panel.ink)?;
            let words = format!("{}: {why}", short(rate));
            page.text(&words, (right, top - 15), Side::Left, SMALL_PX, TEXT)?;
        }
        page.axes((left, top), (right, bottom))
    }

    fn draw_grid(
        &self,
        page: &Page,
        x: &Scale,
        (left, top, right): (i32, i32, i32),
        first: bool,
        last: bool,
    ) -> Drawn {
        let bottom = top + PLANE;
        let label = |value: f64| if last { short(value) } else { String::new() };
        page.ticks_below(x, self.rates, (top, bottom), &label)?;
        let y = self.y.moved(top);
        let label: &dyn Fn(f64) -> String = &thousands;
        page.ticks_left(&y, (left, right), first.then_some(label))?;
        if last {
            let at = ((left + right) / 2, bottom + 36);
            page.text("requests offered per second", at, Side::Middle, SMALL_PX, TEXT)?;
        }
        if first {
            page.upright("microseconds", (left - 66, (top + bottom) / 2))?;
        }
        Ok(())
    }

    fn draw_key(&self, page: &Page) -> Drawn {
        let key = format!(
            "upper line p99, lower line p50; pale: {}; dashed: the first rate that was not kept",
            self.reference
        );
        page.text(&key, (16, 48), Side::Right, SMALL_PX, TEXT)
    }
}

fn draw_lines(page: &Page, panel: &Panel, ink: Ink, at: &dyn Fn(f64, f64) -> Point) -> Drawn {
    let p50: Vec<Point> = panel.kept.iter().map(|(rate, p50, _)| at(*rate, *p50)).collect();
    let p99: Vec<Point> =
        panel.kept.iter().filter_map(|(rate, _, p99)| Some(at(*rate, (*p99)?))).collect();
    for (points, width) in [(p50, 2), (p99, 3)] {
        if points.len() > 1 {
            page.line(points.clone(), ink, width)?;
        }
        if ink != PALE {
            points.into_iter().try_for_each(|point| page.marker(panel.marker, point, ink))?;
        }
    }
    Ok(())
}

/// `40000` -> `40k`: five labels must fit under a third of the page.
fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1_000.0 => format!("{}k", rate / 1_000.0),
        rate => format!("{rate}"),
    }
}
