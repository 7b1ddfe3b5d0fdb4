//! Plots, as SVG. One colour per model, the same in every plot; a solid background, so that they
//! read on light and dark pages; intervals drawn, because a bar without one says too much.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use record::Results;

use crate::doubt::Doubt;
use crate::statistics::Estimate;
use crate::summary::{Figures, Summary, WorkloadSummary};
use crate::text::{figure, thousands};

/// Width of a README on a code host, in pixels.
const WIDTH: u32 = 900;
/// Height of one bar with the space around it.
const BAR_HEIGHT: u32 = 34;
/// Room for title and axis.
const FRAME_HEIGHT: u32 = 110;
/// Room for model names on the left.
const NAMES_WIDTH: u32 = 170;
/// Room for figures or the key on the right.
const RIGHT_WIDTH: u32 = 150;
/// Height of the plot of lines.
const LINES_HEIGHT: u32 = 460;

const BACKGROUND: RGBColor = RGBColor(250, 250, 248);
const INK: RGBColor = RGBColor(45, 51, 59);
const GRID: RGBColor = RGBColor(222, 222, 218);

/// A plot: the name of its file without `.svg`, and its text.
pub struct Plot {
    /// For instance `rate-http-keepalive`.
    pub name: String,
    /// The title, for readers who do not see it.
    pub title: String,
    /// The SVG document.
    pub svg: String,
}

/// All plots that the result has data for.
pub fn all(results: &Results, summary: &Summary) -> Result<Vec<Plot>, String> {
    let mut plots = Vec::new();
    for workload in &summary.workloads {
        let name = &workload.workload.name;
        let (rate, cpu) = (rate_bars(results, workload), cpu_bars(results, workload));
        let titled = |what: &str| format!("{what}: {name}");
        plots.push(bars(
            format!("rate-{name}"),
            titled("requests per second"),
            "requests/s",
            &rate,
        )?);
        let title = titled("server CPU per request");
        plots.push(bars(format!("cpu-{name}"), title, "microseconds of CPU per request", &cpu)?);
    }
    let title = "server memory per idle connection".to_owned();
    let axis = "KiB per connection (pale: kernel stacks of threads)";
    plots.push(bars("memory".into(), title, axis, &memory_bars(results, summary))?);
    plots.push(by_idle(results, summary)?);
    Ok(plots.into_iter().flatten().collect())
}

/// One bar.
struct Bar {
    name: String,
    colour: RGBColor,
    value: f64,
    /// Added to the value in a paler tone.
    pale: f64,
    interval: Option<(f64, f64)>,
    label: String,
}

fn rate_bars(results: &Results, workload: &WorkloadSummary) -> Vec<Bar> {
    bars_of(results, workload, |figures| {
        let bound = figures.doubts.iter().any(|doubt| matches!(doubt, Doubt::ClientBound(_)));
        let least = if bound { ">= " } else { "" };
        let served = figures.stuck().map_or(String::new(), |(stuck, of)| {
            format!(" (serves {} of {of})", of - stuck.min(of))
        });
        (figures.rate, format!("{least}{}{served}", thousands(figures.rate.median)))
    })
}

fn cpu_bars(results: &Results, workload: &WorkloadSummary) -> Vec<Bar> {
    bars_of(results, workload, |figures| (figures.server_us, figure(figures.server_us.median)))
}

fn bars_of(
    results: &Results,
    workload: &WorkloadSummary,
    value: impl Fn(&Figures) -> (Estimate, String),
) -> Vec<Bar> {
    let bar = |cell: &crate::summary::Cell| {
        let (estimate, label) = value(cell.state.as_ref().ok()?);
        Some(Bar {
            name: cell.model.clone(),
            colour: colour(results, &cell.model),
            value: estimate.median,
            pale: 0.0,
            interval: estimate.interval.map(|i| (i.low, i.high)),
            label,
        })
    };
    workload.cells.iter().filter_map(bar).collect()
}

fn memory_bars(results: &Results, summary: &Summary) -> Vec<Bar> {
    let bar = |model: &record::Model| {
        let cost = summary.costs.get(&model.label)?;
        let value = cost.own_kib.max(0.0);
        let pale = cost.kernel_stacks_kib.max(0.0);
        Some(Bar {
            name: model.label.clone(),
            colour: colour(results, &model.label),
            value,
            pale,
            interval: None,
            label: format!(
                "{} ({} connections)",
                figure(value + pale),
                thousands(f64::from(cost.connections))
            ),
        })
    };
    results.models.iter().filter_map(bar).collect()
}

/// Colours of the known models; mid-tones that differ in lightness too.
fn colour(results: &Results, label: &str) -> RGBColor {
    let model = results.models.iter().position(|model| model.label == label).unwrap_or(0);
    let name = label.split('+').next().unwrap_or(label);
    let base = match name {
        "serial" => RGBColor(140, 140, 140),
        "threads" => RGBColor(176, 122, 60),
        "pool" => RGBColor(205, 170, 70),
        "busy" => RGBColor(200, 75, 75),
        "select" => RGBColor(125, 105, 190),
        "poll" => RGBColor(85, 130, 205),
        "epoll" => RGBColor(30, 90, 160),
        "sigio" => RGBColor(190, 100, 165),
        "tokio" => RGBColor(60, 150, 105),
        "uring" => RGBColor(20, 150, 165),
        _ => {
            const OTHERS: [RGBColor; 3] =
                [RGBColor(110, 120, 90), RGBColor(150, 95, 95), RGBColor(95, 110, 120)];
            OTHERS[model % OTHERS.len()]
        }
    };
    // A flavour is a lighter tone of its model.
    let lighter = |part: u8| part + (255 - part) / 3;
    match label.contains('+') {
        true => RGBColor(lighter(base.0), lighter(base.1), lighter(base.2)),
        false => base,
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Horizontal bars with intervals; `None` when there is nothing to draw.
fn bars(name: String, title: String, axis: &str, bars: &[Bar]) -> Result<Option<Plot>, String> {
    if bars.is_empty() {
        return Ok(None);
    }
    let height = FRAME_HEIGHT + BAR_HEIGHT * bars.len() as u32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw_bars(&area, &title, axis, bars).map_err(|e| format!("cannot draw {name}: {e}"))?;
    }
    Ok(Some(Plot { name, title, svg }))
}

fn draw_bars(area: &Area, title: &str, axis: &str, bars: &[Bar]) -> Drawn {
    area.fill(&BACKGROUND)?;
    let top = |bar: &Bar| (bar.value + bar.pale).max(bar.interval.map_or(0.0, |i| i.1));
    let largest = bars.iter().map(top).fold(0.0, f64::max);
    let largest = if largest > 0.0 { largest } else { 1.0 };
    let count = bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20).into_font().color(&INK))
        .margin(14)
        .margin_right(RIGHT_WIDTH)
        .x_label_area_size(46)
        .y_label_area_size(NAMES_WIDTH)
        .build_cartesian_2d(0.0..largest * 1.02, count..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(8)
        .x_label_formatter(&|value| {
            if largest >= 100.0 { thousands(*value) } else { figure(*value) }
        })
        .x_desc(axis)
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .draw()?;
    for (i, bar) in bars.iter().enumerate() {
        let (upper, middle, lower) = (i as f64 + 0.2, i as f64 + 0.5, i as f64 + 0.8);
        let box_of = |from: f64, to: f64, style: ShapeStyle| {
            Rectangle::new([(from, upper), (to, lower)], style)
        };
        chart.draw_series([
            box_of(0.0, bar.value, bar.colour.filled()),
            box_of(bar.value, bar.value + bar.pale, bar.colour.mix(0.45).filled()),
        ])?;
        if let Some((low, high)) = bar.interval {
            let (cap_up, cap_down) = (i as f64 + 0.38, i as f64 + 0.62);
            chart.draw_series([
                PathElement::new(vec![(low, middle), (high, middle)], INK.stroke_width(2)),
                PathElement::new(vec![(low, cap_up), (low, cap_down)], INK.stroke_width(2)),
                PathElement::new(vec![(high, cap_up), (high, cap_down)], INK.stroke_width(2)),
            ])?;
        }
        let at = chart.backend_coord(&(top(bar), middle));
        write(area, &bar.label, (at.0 + 8, at.1), HPos::Left)?;
        let zero = chart.backend_coord(&(0.0, middle));
        write(area, &bar.name, (zero.0 - 8, zero.1), HPos::Right)?;
    }
    area.present()?;
    Ok(())
}

fn write(area: &Area, text: &str, at: (i32, i32), side: HPos) -> Drawn {
    let style = ("sans-serif", 14).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

/// One model's line: connections open, and the estimate there.
struct Line {
    name: String,
    colour: RGBColor,
    points: Vec<(f64, Estimate)>,
}

/// Server CPU per request against the connections open, both logarithmic; needs two idle workloads.
fn by_idle(results: &Results, summary: &Summary) -> Result<Option<Plot>, String> {
    let workloads: Vec<&WorkloadSummary> =
        summary.workloads.iter().filter(|w| w.workload.name.starts_with("idle-")).collect();
    if workloads.len() < 2 {
        return Ok(None);
    }
    let line = |model: &record::Model| {
        let point = |w: &&WorkloadSummary| {
            let cell = w.cells.iter().find(|cell| cell.model == model.label)?;
            let open = w.workload.idle_connections + w.workload.connections;
            let figures = cell.state.as_ref().ok().filter(|figures| figures.stuck().is_none())?;
            Some((f64::from(open), figures.server_us))
        };
        let points: Vec<_> = workloads.iter().filter_map(point).collect();
        let (name, colour) = (model.label.clone(), colour(results, &model.label));
        (!points.is_empty()).then_some(Line { name, colour, points })
    };
    let mut lines: Vec<Line> = results.models.iter().filter_map(line).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let last = |line: &Line| line.points.last().map_or(0.0, |point| point.1.median);
    lines.sort_by(|a, b| last(b).total_cmp(&last(a)));
    let title = "server CPU per request among idle connections".to_owned();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, LINES_HEIGHT)).into_drawing_area();
        draw_lines(&area, &title, &lines).map_err(|e| format!("cannot draw cpu-by-idle: {e}"))?;
    }
    Ok(Some(Plot { name: "cpu-by-idle".into(), title, svg }))
}

fn draw_lines(area: &Area, title: &str, lines: &[Line]) -> Drawn {
    area.fill(&BACKGROUND)?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let values = || points().map(|point| point.1.median).filter(|value| *value > 0.0);
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let most = points().map(|point| point.0).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20).into_font().color(&INK))
        .margin(14)
        .margin_right(RIGHT_WIDTH)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d((50.0..most * 1.1).log_scale(), (low * 0.7..high * 1.4).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_label_formatter(&|value| thousands(*value))
        .y_label_formatter(&|value| figure(*value))
        .x_desc("connections open, of which 64 are active")
        .y_desc("microseconds of CPU per request")
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .draw()?;
    for line in lines {
        draw_line(&mut chart, line)?;
    }
    // The key, in the order in which the lines end.
    for (i, line) in lines.iter().enumerate() {
        let (x, y) = (WIDTH as i32 - RIGHT_WIDTH as i32 + 8, 60 + 24 * i as i32);
        area.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], line.colour.filled()))?;
        write(area, &line.name, (x + 18, y), HPos::Left)?;
    }
    area.present()?;
    Ok(())
}

type LogPlane = Cartesian2d<LogCoord<f64>, LogCoord<f64>>;

fn draw_line(chart: &mut ChartContext<SVGBackend, LogPlane>, line: &Line) -> Drawn {
    let medians = || line.points.iter().map(|(open, estimate)| (*open, estimate.median));
    chart.draw_series(LineSeries::new(medians(), line.colour.stroke_width(3)))?;
    chart.draw_series(medians().map(|point| Circle::new(point, 4, line.colour.filled())))?;
    let intervals = line.points.iter().filter_map(|(open, e)| Some((*open, e.interval?)));
    chart.draw_series(intervals.map(|(open, interval)| {
        PathElement::new(
            vec![(open, interval.low), (open, interval.high)],
            line.colour.stroke_width(2),
        )
    }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, summary::summarise};

    #[test]
    fn each_workload_has_two_plots_and_the_result_two_more() {
        let results = fixture::results();
        let plots = all(&results, &summarise(&results)).unwrap();
        let names: Vec<_> = plots.iter().map(|plot| plot.name.as_str()).collect();
        // One idle workload only: no line to draw.
        let expected = [
            "rate-http-keepalive",
            "cpu-http-keepalive",
            "rate-idle-10000",
            "cpu-idle-10000",
            "memory",
        ];
        assert_eq!(names, expected);
        for plot in &plots {
            assert!(plot.svg.starts_with("<svg") && plot.svg.trim_end().ends_with("</svg>"));
            assert!(plot.svg.contains("epoll"));
        }
        let rate = &plots[0].svg;
        assert!(rate.contains("&gt;= ") || rate.contains(">= "), "the client-bound bar says so");
    }

    #[test]
    fn nothing_to_draw_is_no_plot() {
        let mut results = fixture::results();
        results.trials.clear();
        assert!(all(&results, &summarise(&results)).unwrap().is_empty());
    }

    #[test]
    fn lines_need_two_idle_workloads() {
        let mut results = fixture::results();
        let mut base = results.workloads[1].clone();
        (base.name, base.idle_connections) = ("idle-0".into(), 0);
        let more: Vec<_> = results
            .trials
            .iter()
            .filter(|t| t.slot.workload == "http-keepalive")
            .cloned()
            .map(|mut trial| {
                trial.slot.workload = "idle-0".into();
                trial
            })
            .collect();
        results.trials.extend(more);
        results.workloads.insert(1, base);
        let plots = all(&results, &summarise(&results)).unwrap();
        assert!(plots.iter().any(|plot| plot.name == "cpu-by-idle"));
    }
}
