//! The cost of protocols: a band for each protocol with a marker for each model on a logarithmic
//! axis, and intervals. Two plots: server CPU per request, and memory of idle connections.

use record::Results;

use crate::report::table::found;
use crate::text::{figure, thousands};
use verdict::summary::{Figure, IDLE_CONNECTIONS, Summary, WorkloadSummary, idle_prices, steps};

use super::Plot;
use super::colour::{GRID, Ink, TEXT, of_model};
use super::data::{self, Value};
use super::page::{AXIS, Head, Page, Side, WIDTH, tick, width_of};
use super::scale::Scale;

/// Width of the names of protocols.
const LEFT: i32 = 130;
/// End of the axis.
const RIGHT: i32 = WIDTH - 24;
/// Height of a line of the key.
const KEY_LINE: i32 = 22;
/// Height of a model in a band, so that markers do not touch.
const MODEL: i32 = 13;
/// Space between two bands.
const GAP: i32 = 12;
/// The axis extends this factor beyond the values.
const MARGIN: f64 = 1.25;

/// One model: its entry in the key, and its figure in each band.
struct Series {
    name: String,
    ink: Ink,
    marker: usize,
    values: Vec<Option<Value>>,
}

/// Server CPU per request by protocol; `None` with fewer than two protocols.
pub fn cpu(results: &Results, summary: &Summary) -> Option<Plot> {
    let served = |w: &WorkloadSummary| {
        let mut states = w.cells.iter().filter_map(|cell| cell.state.as_ref().ok());
        states.any(|figures| figures.stuck().is_none())
    };
    let steps: Vec<_> = steps(summary).into_iter().filter(|(_, w)| served(w)).collect();
    let bands: Vec<&str> = steps.iter().map(|(step, _)| step.name).collect();
    let value = |model: &str, band: usize| {
        let figures = data::figures(summary, &steps.get(band)?.1.workload.name, model)?;
        figures.stuck().is_none().then(|| Value::of(figures, Figure::Server))
    };
    let all = series(results, bands.len(), &value);
    let head = Head {
        name: "cpu-by-protocol".to_owned(),
        finding: range("a request takes", "us", &bands, &all),
        subject: "server CPU per request by protocol".to_owned(),
        ..Head::default()
    };
    let axis = "microseconds of server CPU per request (in a chat, per delivery)";
    plot(head, axis, &bands, &all)
}

/// Memory of idle connections by protocol: process and kernel together.
pub fn memory(results: &Results, summary: &Summary) -> Option<Plot> {
    let mut bands: Vec<&str> = Vec::new();
    for price in results.models.iter().flat_map(|model| idle_prices(results, &model.label)) {
        if !bands.contains(&price.protocol) {
            bands.push(price.protocol);
        }
    }
    let value = |model: &str, band: usize| {
        let prices = idle_prices(results, model);
        let price = prices.iter().find(|price| Some(&price.protocol) == bands.get(band))?;
        let (own, kernel) = price.mib();
        Some(Value { at: own + kernel, interval: None })
    };
    let all = series(results, bands.len(), &value);
    let of_kernel = match summary.kernel_is_counted() {
        true => "the kernel's part included",
        false => "without sockets",
    };
    let many = thousands(IDLE_CONNECTIONS);
    let head = Head {
        name: "memory-by-protocol".to_owned(),
        finding: range(&format!("{many} idle connections take"), "MiB", &bands, &all),
        subject: "server memory of idle connections by protocol".to_owned(),
        ..Head::default()
    };
    plot(head, &format!("MiB for {many} idle connections, {of_kernel}"), &bands, &all)
}

/// The least and the most of all figures.
fn range(what: &str, unit: &str, bands: &[&str], all: &[Series]) -> String {
    let figures = all.iter().flat_map(|series| {
        let at = |(band, value): (&&str, &Option<Value>)| {
            Some((format!("{}, {band}", series.name), (*value)?.at))
        };
        bands.iter().zip(&series.values).filter_map(at)
    });
    found::range(what, unit, figures)
}

fn series(
    results: &Results,
    bands: usize,
    value: &dyn Fn(&str, usize) -> Option<Value>,
) -> Vec<Series> {
    let one = |(marker, model): (usize, &record::Model)| {
        let values: Vec<_> = (0..bands).map(|band| value(&model.label, band)).collect();
        let (name, ink) = (model.label.clone(), of_model(results, &model.label));
        values.iter().any(Option::is_some).then_some(Series { name, ink, marker, values })
    };
    results.models.iter().enumerate().filter_map(one).collect()
}

/// A band for each protocol, with the figures of all models; `None` with fewer than two bands.
fn plot(head: Head, axis: &str, bands: &[&str], all: &[Series]) -> Option<Plot> {
    let values = || all.iter().flat_map(|series| series.values.iter().flatten());
    let x = Scale::logarithmic(values().flat_map(Value::heights), MARGIN, (LEFT, RIGHT))?;
    let key = key(all);
    let lines = KEY_LINE * (key.last()?.0 + 1);
    let band = MODEL * all.len() as i32 + GAP;
    let height = lines + band * bands.len() as i32;
    let told: Vec<String> = bands.iter().enumerate().map(|(i, b)| told(i, b, all)).collect();
    let draw = |page: &mut Page, mut top: i32| {
        for (line, left, series) in &key {
            let at = (*left, top + 4 + KEY_LINE * line);
            page.marker(series.marker, at, series.ink);
            page.text(&series.name, (at.0 + 11, at.1), Side::Right, TEXT);
        }
        let bottom = top + height;
        top += lines;
        page.axis_below(&x, &x.ticks(60), &tick, (top, bottom), axis);
        for (i, name) in bands.iter().enumerate() {
            let upper = top + band * i as i32;
            page.line(&[(LEFT, upper), (RIGHT, upper)], GRID, 1);
            page.text(name, (LEFT - 9, upper + band / 2), Side::Left, TEXT);
            draw_band(page, &x, i, upper + GAP / 2, all);
        }
    };
    let head = Head { told: format!("{axis}. {}", told.join(" ")), ..head };
    (bands.len() > 1).then(|| head.plot(height + AXIS, draw))
}

fn draw_band(page: &mut Page, x: &Scale, band: usize, top: i32, all: &[Series]) {
    for (i, series) in all.iter().enumerate() {
        let Some(Some(value)) = series.values.get(band) else { continue };
        let y = top + MODEL * i as i32 + MODEL / 2;
        if let Some(interval) = value.interval {
            page.line(&[(x.at(interval.low), y), (x.at(interval.high), y)], series.ink, 2);
        }
        page.marker(series.marker, (x.at(value.at), y), series.ink);
    }
}

/// The key below the title: line, position in it, and model.
fn key(all: &[Series]) -> Vec<(i32, i32, &Series)> {
    let (mut line, mut left) = (0, 24);
    let mut places = Vec::new();
    for series in all {
        let width = 11 + width_of(&series.name) + 28;
        if left + width > WIDTH {
            (line, left) = (line + 1, 24);
        }
        places.push((line, left, series));
        left += width;
    }
    places
}

fn told(band: usize, name: &str, all: &[Series]) -> String {
    let one = |series: &Series| {
        let value = series.values.get(band).copied().flatten()?;
        Some(format!("{}: {}", series.name, figure(value.at)))
    };
    let all: Vec<String> = all.iter().filter_map(one).collect();
    format!("{name}: {}.", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use verdict::summary::summarise;

    #[test]
    fn protocols_have_a_band_each_and_models_a_marker() {
        let results = fixture::protocols();
        let plot = cpu(&results, &summarise(&results)).unwrap();
        for words in ["TCP echo: threads: 15.1", "HTTP/2 x 32: ", "epoll: 2.52", "TLS full: "] {
            assert!(plot.svg.contains(words), "{words}: {}", plot.svg);
        }
        let plot = memory(&results, &summarise(&results)).unwrap();
        assert!(plot.svg.contains("MiB for 10,000 idle connections, the kernel's part included"));
        assert!(plot.svg.contains("HTTP/1.1, TLS: threads: 137"), "{}", plot.svg);
    }

    #[test]
    fn one_protocol_alone_is_no_comparison() {
        let results = fixture::rich();
        assert!(cpu(&results, &summarise(&results)).is_none());
        assert!(memory(&results, &summarise(&results)).is_none());
    }

    #[test]
    fn a_long_key_goes_on_in_the_next_line() {
        let one = |i: usize| Series {
            name: format!("a-model-with-a-long-name-{i}"),
            ink: TEXT,
            marker: i,
            values: Vec::new(),
        };
        let all: Vec<Series> = (0..9).map(one).collect();
        let key = key(&all);
        assert!(key.iter().all(|(_, left, _)| *left < WIDTH - 100));
        assert_eq!(key.last().unwrap().0, 2);
    }
}
