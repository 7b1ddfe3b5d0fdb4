//! Bar plots: one bar per model, with intervals.

use std::collections::BTreeSet;

use record::Results;

use crate::text::{figure, thousands};
use verdict::statistics::Interval;
use verdict::summary::{Cell, Figure, Figures, WorkloadSummary};

use super::Plot;
use super::colour::{Ink, TEXT, of_model};
use super::data;
use super::page::{self, Drawn, Page, SMALL_PX, Side, TEXT_PX, WIDTH, tick, width_of};
use super::scale::Scale;

/// Height of a bar with the space around it.
const ROW: i32 = 34;
/// Start of the bars, after the names.
const LEFT: i32 = 150;
/// End of the longest bar, before the figures.
const RIGHT: i32 = WIDTH - 210;
/// Below the title and the key.
const TOP: i32 = 76;
/// Height of the axis.
const AXIS: i32 = 52;
/// The axis is at most this factor longer than the longest bar. A longer interval is cut off,
/// because it would make the bars too short.
const BEYOND_MAX: f64 = 1.25;
/// Tones of a bar's first and second part.
const TONES: [f64; 2] = [1.0, 0.45];

/// One bar.
struct Bar {
    name: String,
    ink: Ink,
    /// One or two parts, in the two tones.
    parts: Vec<f64>,
    /// The interval of each part, at its end.
    intervals: Vec<Interval>,
    /// Whether the figure is a lower bound.
    bound: bool,
    label: String,
}

impl Bar {
    fn sum(&self) -> f64 {
        self.parts.iter().sum()
    }

    fn reaches(&self) -> f64 {
        self.intervals.iter().map(|interval| interval.high).fold(self.sum(), f64::max)
    }
}

/// The common parts of a plot.
struct Frame<'a> {
    /// Meaning of the parts.
    key: &'a [&'a str],
    axis: &'a str,
    /// The floor's figure and its label.
    floor: Option<(f64, String)>,
}

/// Requests per second of a closed loop. In an open loop the client sets the rate.
pub fn rate(results: &Results, workload: &WorkloadSummary) -> Result<Option<Plot>, String> {
    if workload.is_open() {
        return Ok(None);
    }
    let bar = |cell: &Cell| {
        let figures = cell.state.as_ref().ok()?;
        let bound = client_bound(figures);
        let served = figures.stuck().map_or(String::new(), |(stuck, of)| {
            format!(" (serves {} of {of})", of - stuck.min(of))
        });
        let least = if bound { ">= " } else { "" };
        Some(Bar {
            name: cell.model.clone(),
            ink: of_model(results, &cell.model),
            parts: vec![figures.rate().median],
            intervals: data::interval(figures, Figure::Rate).into_iter().collect(),
            bound,
            label: format!("{least}{}{served}", thousands(figures.rate().median)),
        })
    };
    let floor = floor(workload).map(|figures| {
        let least = if client_bound(figures) { ">= " } else { "" };
        let rate = figures.rate().median;
        (rate, format!("no parsing at all: {least}{}", thousands(rate)))
    });
    let bars = workload.cells.iter().filter_map(bar).collect::<Vec<_>>();
    let bound = bars.iter().any(|bar| bar.bound);
    let key = ["hatched: at least so many, the client was the limit"];
    let key = if bound { &key[..] } else { &[] };
    let frame = Frame { key, axis: "requests/s", floor };
    let name = &workload.workload.name;
    draw(&format!("rate-{name}"), &format!("requests per second: {name}"), &frame, &bars)
}

/// CPU per request of server and client.
pub fn cpu(results: &Results, workload: &WorkloadSummary) -> Result<Option<Plot>, String> {
    let name = &workload.workload.name;
    let bar = |cell: &Cell| {
        let figures = cell.state.as_ref().ok()?;
        let (first, sum) = (figures.server_us().median, figures.sum_us().median);
        let intervals = [Figure::Server, Figure::Sum].map(|of| data::interval(figures, of));
        Some(Bar {
            name: cell.model.clone(),
            ink: of_model(results, &cell.model),
            parts: vec![first, (sum - first).max(0.0)],
            intervals: intervals.into_iter().flatten().collect(),
            bound: false,
            label: format!(
                "{} + {} = {}",
                figure(first),
                figure(figures.client_us.median),
                figure(sum)
            ),
        })
    };
    let floor = floor(workload).map(|figures| {
        let server = figures.server_us().median;
        (server, format!("server that parses nothing: {}", figure(server)))
    });
    let bars = workload.cells.iter().filter_map(bar).collect::<Vec<_>>();
    let axis = "microseconds of CPU per request";
    let frame = Frame { key: &["server", "client"], axis, floor };
    draw(&format!("cpu-{name}"), &format!("CPU per request: {name}"), &frame, &bars)
}

/// Memory of an idle connection, with the most connections that were sampled.
pub fn memory(results: &Results) -> Result<Option<Plot>, String> {
    let models = results.models.iter().filter(|m| Some(&m.label) != results.floor.as_ref());
    let grown: Vec<(&str, data::Growth)> = models
        .filter_map(|m| Some((m.label.as_str(), data::growth(results, &m.label).pop()?)))
        .collect();
    let counts: BTreeSet<u32> = grown.iter().map(|(_, growth)| growth.connections).collect();
    let bar = |(model, growth): &(&str, data::Growth)| {
        let each = |kib: f64| (kib / f64::from(growth.connections)).max(0.0);
        let (user, kernel) = (each(growth.user_kib), each(growth.kernel_kib));
        // If the numbers differ each model shows its own.
        let open = match counts.len() {
            1 => String::new(),
            _ => format!(" (of {})", thousands(f64::from(growth.connections))),
        };
        Bar {
            name: (*model).to_owned(),
            ink: of_model(results, model),
            parts: vec![user, kernel],
            intervals: Vec::new(),
            bound: false,
            label: match user + kernel > 0.0 {
                true => format!("{} + {}{open}", figure(user), figure(kernel)),
                false => format!("below what can be told{open}"),
            },
        }
    };
    let bars: Vec<_> = grown.iter().map(bar).collect();
    let axis = match counts.first() {
        Some(count) if counts.len() == 1 => {
            format!("KiB per connection, {} open and silent", thousands(f64::from(*count)))
        }
        _ => "KiB per connection, open and silent".to_owned(),
    };
    let key = ["its own pages", kernel_part(results)];
    let frame = Frame { key: &key, axis: &axis, floor: None };
    draw("memory", "server memory per idle connection", &frame, &bars)
}

/// Meaning of the kernel's part of the memory on this machine.
fn kernel_part(results: &Results) -> &'static str {
    match data::kernel_is_counted(results) {
        true => "the kernel's memory for it",
        false => "page tables and kernel stacks",
    }
}

fn client_bound(figures: &Figures) -> bool {
    figures.doubts.iter().any(|doubt| doubt.is_of_client())
}

fn floor(workload: &WorkloadSummary) -> Option<&Figures> {
    workload.floor.as_ref()?.state.as_deref().ok()
}

/// `None` without data.
fn draw(name: &str, title: &str, frame: &Frame, bars: &[Bar]) -> Result<Option<Plot>, String> {
    if bars.is_empty() {
        return Ok(None);
    }
    let bottom = TOP + ROW * bars.len() as i32;
    let told: Vec<_> = bars.iter().map(|bar| format!("{}: {}.", bar.name, bar.label)).collect();
    let told = format!("{} ({}). {}", frame.axis, frame.key.join(", "), told.join(" "));
    page::plot(name, title, &told, bottom + AXIS, |page| draw_bars(page, frame, bars, bottom))
        .map(Some)
}

fn draw_bars(page: &Page, frame: &Frame, bars: &[Bar], bottom: i32) -> Drawn {
    let floor = frame.floor.as_ref().map_or(0.0, |floor| floor.0);
    let longest = bars.iter().map(Bar::sum).fold(floor, f64::max);
    let most = bars.iter().map(Bar::reaches).fold(longest, f64::max).min(longest * BEYOND_MAX);
    let x = Scale::from_zero(most, (LEFT, RIGHT));
    let widest = width_of(&tick(most.ceil()), SMALL_PX);
    page.ticks_below(&x, &x.ticks(widest + 24), (TOP, bottom), &tick)?;
    page.text(frame.axis, ((LEFT + RIGHT) / 2, bottom + 36), Side::Middle, SMALL_PX, TEXT)?;
    for (i, bar) in bars.iter().enumerate() {
        draw_bar(page, &x, most, bar, TOP + ROW * i as i32)?;
    }
    page.axes((LEFT, TOP), (RIGHT, bottom))?;
    if let Some((value, label)) = &frame.floor {
        let at = x.at(*value);
        page.dashed((at, TOP - 6), (at, bottom), TEXT)?;
        let middle = at.max(16 + width_of(label, SMALL_PX) / 2);
        page.text(label, (middle, TOP - 16), Side::Middle, SMALL_PX, TEXT)?;
    }
    draw_key(page, frame.key)
}

fn draw_bar(page: &Page, x: &Scale, most: f64, bar: &Bar, top: i32) -> Drawn {
    let (upper, middle, lower) = (top + 6, top + ROW / 2, top + ROW - 6);
    let mut from = 0.0;
    for (part, tone) in bar.parts.iter().zip(TONES) {
        let corners = ((x.at(from), upper), (x.at(from + part), lower));
        match bar.bound {
            true => page.hatched(corners.0, corners.1, bar.ink)?,
            false => page.area(corners.0, corners.1, bar.ink, tone)?,
        }
        from += part;
    }
    for interval in &bar.intervals {
        let cut = interval.high > most;
        page.whisker(x.at(interval.low), x.at(interval.high), middle, cut)?;
    }
    page.text(&bar.label, (x.at(bar.reaches()) + 9, middle), Side::Right, TEXT_PX, TEXT)?;
    page.text(&bar.name, (LEFT - 9, middle), Side::Left, TEXT_PX, TEXT)
}

/// The key, to the right of the title: boxes in the tones of the parts, or one sentence.
fn draw_key(page: &Page, key: &[&str]) -> Drawn {
    const BOX: i32 = 14;
    const Y: i32 = 22;
    if let [sentence] = key {
        return page.text(sentence, (WIDTH - 16, Y), Side::Left, SMALL_PX, TEXT);
    }
    let width = |word: &&str| BOX + 7 + width_of(word, SMALL_PX) + 16;
    let mut left = WIDTH - key.iter().map(width).sum::<i32>();
    for (word, tone) in key.iter().zip(TONES) {
        page.area((left, Y - 7), (left + BOX, Y + 7), TEXT, tone)?;
        page.text(word, (left + BOX + 7, Y), Side::Right, SMALL_PX, TEXT)?;
        left += width(word);
    }
    Ok(())
}
