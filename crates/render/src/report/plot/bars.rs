//! Bar plots: one bar per model, in parts, with intervals. CPU and requests/s by workload, memory.

use record::Results;

use crate::report::table::found;
use crate::text::{figure, thousands};
use verdict::statistics::Interval;
use verdict::summary::{Cell, Cost, Figure, Figures, Memory, Summary, WorkloadSummary};

use super::Plot;
use super::colour::{Ink, PAGE, TEXT, of_model};
use super::data;
use super::page::{AXIS, EDGE, Head, Page, Side, WIDTH, tick, width_of};
use super::scale::Scale;

/// Height of a bar with the space around it.
const ROW: i32 = 34;
/// Start of the bars, after the names.
const LEFT: i32 = 150;
/// End of the longest bar, before the figures.
const RIGHT: i32 = WIDTH - 210;
/// Height of the floor's label.
const FLOOR: i32 = 24;
/// The axis is at most this factor longer than the longest bar. A longer interval is cut off,
/// because it would make the bars too short.
const BEYOND_MAX: f64 = 1.25;
/// Opacities of a bar's first and second part.
const TONES: [f64; 2] = [1.0, 0.45];

/// One part of a bar.
pub struct Part {
    /// Its name, which is drawn in it if it fits.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// Its colour.
    pub ink: Ink,
    /// Its opacity; `None`: hatched, because the figure is a bound.
    pub opacity: Option<f64>,
}

/// One bar.
pub struct Bar {
    /// The model.
    pub name: String,
    /// The parts, from left to right.
    pub parts: Vec<Part>,
    /// The interval of each part, at its end.
    pub intervals: Vec<Interval>,
    /// The figures in words.
    pub label: String,
}

impl Bar {
    /// The length of the whole bar.
    pub fn sum(&self) -> f64 {
        self.parts.iter().map(|part| part.value).sum()
    }

    fn reaches(&self) -> f64 {
        self.intervals.iter().map(|interval| interval.high).fold(self.sum(), f64::max)
    }

    fn told(&self) -> String {
        let named = self.parts.iter().filter(|part| !part.name.is_empty());
        let parts = named.map(|part| format!("{} {}", part.name, figure(part.value)));
        let parts: Vec<String> = parts.collect();
        let parts = if parts.is_empty() { ".".into() } else { format!(" ({}).", parts.join(", ")) };
        format!("{}: {}{parts}", self.name, self.label)
    }
}

/// Bars without names in their parts, in the tones of the model's colour.
pub(crate) fn parts(ink: Ink, values: &[f64]) -> Vec<Part> {
    let part = |(value, tone): (&f64, f64)| Part {
        name: String::new(),
        value: *value,
        ink,
        opacity: Some(tone),
    };
    values.iter().zip(TONES).map(part).collect()
}

/// A bar plot.
#[derive(Default)]
pub struct Chart<'a> {
    /// What stands above it.
    pub head: Head<'a>,
    /// Meaning of the axis.
    pub axis: String,
    /// The floor's figure and its label.
    pub floor: Option<(f64, String)>,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// Requests per second of a closed loop. In an open loop the client sets the rate.
pub fn rate(results: &Results, workload: &WorkloadSummary) -> Option<Plot> {
    let bar = |cell: &Cell| {
        let figures = cell.state.as_ref().ok()?;
        let bound = client_bound(figures);
        let served = figures.stuck().map_or(String::new(), |(stuck, of)| {
            format!(" (serves {} of {of})", of - stuck.min(of))
        });
        let least = if bound { ">= " } else { "" };
        let rate = figures.rate().median;
        let mut parts = parts(of_model(results, &cell.model), &[rate]);
        parts[0].opacity = parts[0].opacity.filter(|_| !bound);
        Some(Bar {
            name: cell.model.clone(),
            parts,
            intervals: data::interval(figures, Figure::Rate).into_iter().collect(),
            label: format!("{least}{}{served}", thousands(rate)),
        })
    };
    let floor = floor(workload).map(|figures| {
        let least = if client_bound(figures) { ">= " } else { "" };
        let rate = figures.rate().median;
        (rate, format!("no parsing at all: {least}{}", thousands(rate)))
    });
    let bars = workload.cells.iter().filter_map(bar).collect::<Vec<_>>();
    let bound = bars.iter().any(|bar| bar.parts[0].opacity.is_none());
    let bound = if bound { " (hatched: at least so many, the client was the limit)" } else { "" };
    let name = &workload.workload.name;
    let head = Head {
        name: format!("rate-{name}"),
        finding: found::of(workload, Figure::Rate).unwrap_or_default(),
        subject: format!("requests per second, {name}{bound}"),
        ..Head::default()
    };
    let chart = Chart { head, axis: "requests/s".to_owned(), floor, bars };
    chart.plot().filter(|_| !workload.is_open())
}

/// CPU per request of server and client.
pub fn cpu(results: &Results, workload: &WorkloadSummary) -> Option<Plot> {
    let bar = |cell: &Cell| {
        let figures = cell.state.as_ref().ok()?;
        let (first, sum) = (figures.server_us().median, figures.sum_us().median);
        let intervals = [Figure::Server, Figure::Sum].map(|of| data::interval(figures, of));
        let client = figure(figures.client_us.median);
        Some(Bar {
            name: cell.model.clone(),
            parts: parts(of_model(results, &cell.model), &[first, (sum - first).max(0.0)]),
            intervals: intervals.into_iter().flatten().collect(),
            label: format!("{} + {client} = {}", figure(first), figure(sum)),
        })
    };
    let floor = floor(workload).map(|figures| {
        let server = figures.server_us().median;
        (server, format!("server that parses nothing: {}", figure(server)))
    });
    let name = &workload.workload.name;
    let head = Head {
        name: format!("cpu-{name}"),
        finding: found::of(workload, Figure::Server).unwrap_or_default(),
        subject: format!("CPU per request, {name}"),
        key: tones("server", "client"),
        ..Head::default()
    };
    let axis = "microseconds of CPU per request".to_owned();
    Chart { head, axis, floor, bars: workload.cells.iter().filter_map(bar).collect() }.plot()
}

/// Memory of an idle connection, with the most connections that were sampled.
pub fn memory(results: &Results, summary: &Summary) -> Option<Plot> {
    let models = results.models.iter().filter(|m| Some(&m.label) != results.floor.as_ref());
    let costs: Vec<(&String, &Cost)> =
        models.filter_map(|m| Some((&m.label, summary.costs.get(&m.label)?))).collect();
    let counted = summary.kernel_is_counted();
    let parts_of = |memory: &Memory| [memory.user_kib, memory.kernel_part_kib(counted)];
    let most = costs.iter().map(|(_, cost)| cost.connections).max()?;
    let same = costs.iter().all(|(_, cost)| cost.connections == most);
    let bar = |(model, cost): &(&String, &Cost)| {
        let [own, kernel] = parts_of(&cost.memory);
        // If the numbers differ each model shows its own.
        let open = thousands(f64::from(cost.connections));
        let open = if same { String::new() } else { format!(" (of {open})") };
        // A negative part has no length, so only the sum is drawn.
        let lengths =
            if own.min(kernel) < 0.0 { [0.0, (own + kernel).max(0.0)] } else { [own, kernel] };
        Bar {
            name: (*model).clone(),
            parts: parts(of_model(results, model), &lengths),
            intervals: Vec::new(),
            label: format!("{} + {}{open}", figure(own), figure(kernel)),
        }
    };
    let shrank = costs.iter().flat_map(|(_, cost)| parts_of(&cost.memory)).any(|kib| kib < 0.0);
    let shrank = if shrank { "; below 0: it shrank, and the bar is the sum" } else { "" };
    // Samples of other numbers of connections are not compared.
    let compared = costs.iter().filter(|(_, cost)| cost.connections == most);
    let sums = compared.map(|(m, cost)| ((*m).clone(), parts_of(&cost.memory).iter().sum()));
    let kernel =
        if counted { "the kernel's memory for it" } else { "page tables and kernel stacks" };
    let head = Head {
        name: "memory".to_owned(),
        finding: found::range("an idle connection takes", "KiB", sums),
        subject: format!("memory per idle connection{shrank}"),
        key: tones("its own pages", kernel),
        ..Head::default()
    };
    let open = if same { thousands(f64::from(most)) + " " } else { String::new() };
    let axis = format!("KiB per connection, {open}open and silent");
    Chart { head, axis, bars: costs.iter().map(bar).collect(), floor: None }.plot()
}

/// The key of bars in two parts.
pub(crate) fn tones<'a>(first: &'a str, second: &'a str) -> Vec<(&'a str, Ink, f64)> {
    vec![(first, TEXT, TONES[0]), (second, TEXT, TONES[1])]
}

fn client_bound(figures: &Figures) -> bool {
    figures.doubts.iter().any(|doubt| doubt.is_of_client())
}

fn floor(workload: &WorkloadSummary) -> Option<&Figures> {
    workload.floor.as_ref()?.state.as_deref().ok()
}

impl Chart<'_> {
    /// `None` without data.
    pub fn plot(self) -> Option<Plot> {
        if self.bars.is_empty() {
            return None;
        }
        let rows = ROW * self.bars.len() as i32;
        let over = if self.floor.is_some() { FLOOR } else { 0 };
        let told: Vec<_> = self.bars.iter().map(Bar::told).collect();
        let key: Vec<&str> = self.head.key.iter().map(|(word, ..)| *word).collect();
        let told = format!("{} ({}). {}", self.axis, key.join(", "), told.join(" "));
        let head = Head { told, ..self.head };
        Some(head.plot(over + rows + AXIS, |page, top| {
            let top = top + over;
            draw(page, &self.axis, self.floor.as_ref(), &self.bars, (top, top + rows));
        }))
    }
}

fn draw(
    page: &mut Page,
    axis: &str,
    floor: Option<&(f64, String)>,
    bars: &[Bar],
    (top, bottom): (i32, i32),
) {
    let longest = bars.iter().map(Bar::sum).fold(floor.map_or(0.0, |of| of.0), f64::max);
    let most = bars.iter().map(Bar::reaches).fold(longest, f64::max).min(longest * BEYOND_MAX);
    let x = Scale::from_zero(most, (LEFT, RIGHT));
    let ticks = x.ticks(width_of(&tick(most.ceil())) + 24);
    page.axis_below(&x, &ticks, &tick, (top, bottom), axis);
    let edges = |at: usize| (top + ROW * at as i32 + 6, top + ROW * at as i32 + ROW - 6);
    for (at, bar) in bars.iter().enumerate() {
        draw_parts(page, &x, &bar.parts, edges(at));
    }
    if let Some((value, label)) = floor {
        let at = x.at(*value);
        page.dashed(&[(at, top - 6), (at, bottom)], TEXT, "6 5");
        let middle = at.max(EDGE + width_of(label) / 2);
        page.text(label, (middle, top - 16), Side::Middle, TEXT);
    }
    for (at, bar) in bars.iter().enumerate() {
        let middle = (edges(at).0 + edges(at).1) / 2;
        for interval in &bar.intervals {
            let cut = interval.high > most;
            page.whisker(x.at(interval.low), x.at(interval.high), middle, cut);
        }
        page.text(&bar.label, (x.at(bar.reaches()) + 9, middle), Side::Right, TEXT);
        page.text(&bar.name, (LEFT - 9, middle), Side::Left, TEXT);
    }
}

/// Boxes side by side, with those names that fit.
fn draw_parts(page: &mut Page, x: &Scale, parts: &[Part], (upper, lower): (i32, i32)) {
    let mut from = 0.0;
    for part in parts {
        let (left, right) = (x.at(from), x.at(from + part.value));
        from += part.value;
        if right <= left {
            continue;
        }
        match part.opacity {
            Some(opacity) => page.area((left, upper), (right, lower), part.ink, opacity),
            None => page.hatched((left, upper), (right, lower), part.ink),
        }
        if part.name.is_empty() {
            continue;
        }
        // A thin line in the page's colour separates neighbours of one colour.
        page.line(&[(right, upper), (right, lower)], PAGE, 1);
        let words = format!("{} {}", part.name, figure(part.value));
        let middle = ((left + right) / 2, (upper + lower) / 2);
        let fits = |text: &&&String| width_of(text) + 4 <= right - left;
        if let Some(text) = [&words, &part.name].iter().find(fits) {
            page.text(text, middle, Side::Middle, PAGE);
        }
    }
}
