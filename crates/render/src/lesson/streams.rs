//! The picture of `streams`: the tiles over time, a row for each connection, and below it the
//! frames of HTTP/2 as they came from the wire, coloured by their streams.

use record::{Frame, Recording, Run, Span};
use verdict::lesson::Lesson;

use crate::report::plot::colour::{CALL_FAMILIES, Ink, MUTED, TEXT};
use crate::report::plot::page::{AXIS, EDGE, Head, Page, Side, WIDTH, tick, width_of};
use crate::report::plot::scale::Scale;

use super::Picture;
use super::lanes::{Kind, Lanes, Row};

const KINDS: [Kind; 2] = [
    Kind { name: "wait", ink: CALL_FAMILIES[0].1, opacity: 0.55, letter: 'w' },
    Kind { name: "transfer", ink: CALL_FAMILIES[1].1, opacity: 1.0, letter: '=' },
];

/// The run whose frames are shown.
const RAIL: &str = "tiles-h2x1";
/// Height of a row, of a bar and of the rail.
const ROW: i32 = 20;
const BAR: i32 = 12;
const RAIL_HEIGHT: i32 = 40;
/// Distance between the two parts.
const BETWEEN: i32 = 40;

/// Frames of streams whose identifiers are next to each other have different colours.
const INKS: [Ink; 5] = [
    CALL_FAMILIES[0].1,
    CALL_FAMILIES[2].1,
    CALL_FAMILIES[1].1,
    CALL_FAMILIES[3].1,
    CALL_FAMILIES[5].1,
];

/// What is drawn, without its ink.
struct Drawn<'a> {
    rows: Vec<(String, Vec<&'a Span>)>,
    rail: Vec<&'a Frame>,
}

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let shown = |run: &&Run| run.run.starts_with("tiles-");
    let mut runs: Vec<&Run> = recording.runs.iter().filter(shown).collect();
    if runs.is_empty() {
        // Without a link, the runs on loopback.
        runs = recording.runs.iter().filter(|run| run.run.starts_with("slow-")).collect();
    }
    let in_text = Lanes {
        name: "streams".to_owned(),
        finding: lesson.finding.text.clone(),
        subject: String::new(),
        axis: String::new(),
        row: 0,
        kinds: KINDS.to_vec(),
        rows: Vec::new(),
        text_rows: runs.iter().map(|run| text_row(recording, run)).collect(),
    };
    let rows = runs.iter().flat_map(|run| rows(recording, run)).collect();
    let of_replies = |frame: &&Frame| frame.run == RAIL && frame.from_server && frame.stream > 0;
    let rail = recording.frames.iter().filter(of_replies).collect();
    let svg = Drawn { rows, rail }.svg(lesson);
    Picture { svg, text: in_text.picture(columns).text }
}

fn text_row<'a>(recording: &'a Recording, run: &'a Run) -> Row<'a> {
    let spans: Vec<&Span> = recording.spans_of(&run.run).collect();
    let last = spans.iter().map(|span| span.to_us / 1e3).fold(0.0, f64::max);
    Row { heading: None, name: run.title.clone(), spans, note: format!("{last:.0} ms") }
}

/// A row for each connection.
fn rows<'a>(recording: &'a Recording, run: &'a Run) -> Vec<(String, Vec<&'a Span>)> {
    let count = recording.spans_of(&run.run).filter_map(|span| span.connection).max();
    let row = |connection: u32| {
        let of = recording.spans_of(&run.run).filter(|span| span.connection == Some(connection));
        let name = if connection == 0 { run.title.clone() } else { String::new() };
        (name, of.collect())
    };
    (0..=count.unwrap_or(0)).map(row).collect()
}

impl Drawn<'_> {
    fn svg(&self, lesson: &Lesson) -> String {
        let left = 2 * EDGE + self.rows.iter().map(|(name, _)| width_of(name)).max().unwrap_or(0);
        let height = ROW * self.rows.len() as i32;
        let below = BETWEEN + RAIL_HEIGHT + AXIS;
        let head = Head {
            name: "streams".to_owned(),
            finding: lesson.finding.text.clone(),
            subject: "each reply, by connection".to_owned(),
            told: self.told(),
            key: KINDS.iter().map(|kind| (kind.name, kind.ink, kind.opacity)).collect(),
        };
        let rail = if self.rail.is_empty() { 0 } else { below };
        let plot = head.plot(height + AXIS + rail, |page, top| {
            self.draw_rows(page, left, (top, top + height));
            if rail > 0 {
                self.draw_rail(page, left, top + height + AXIS + BETWEEN);
            }
        });
        plot.svg
    }

    fn draw_rows(&self, page: &mut Page, left: i32, (top, bottom): (i32, i32)) {
        let spans = self.rows.iter().flat_map(|(_, spans)| spans);
        let end_ms = spans.map(|span| span.to_us / 1e3).fold(0.0, f64::max);
        let x = Scale::from_zero(end_ms, (left, WIDTH - 2 * EDGE));
        page.axis_below(&x, &x.ticks(60), &tick, (top, bottom), "milliseconds");
        for (place, (name, spans)) in self.rows.iter().enumerate() {
            let middle = top + ROW * place as i32 + ROW / 2;
            page.text(name, (left - EDGE / 2, middle), Side::Left, TEXT);
            // Of streams that overlap, the transfers are above the waits.
            for kind in &KINDS {
                let corners = |span: &Span| {
                    let (from, to) = (x.at(span.from_us / 1e3), x.at(span.to_us / 1e3));
                    ((from, middle - BAR / 2), (to.max(from + 1), middle + BAR / 2))
                };
                let of_kind = spans.iter().copied().filter(|span| span.kind == kind.name);
                let bars: Vec<_> = of_kind.map(corners).collect();
                page.areas(&bars, kind.ink, kind.opacity);
            }
        }
    }

    fn draw_rail(&self, page: &mut Page, left: i32, top: i32) {
        let end_ms = self.rail.last().map_or(1.0, |frame| frame.at_us / 1e3);
        let x = Scale::from_zero(end_ms, (left, WIDTH - 2 * EDGE));
        let title = "the frames of HTTP/2 from the server, as they came: a colour for each stream";
        page.text(title, (EDGE, top - 14), Side::Right, TEXT);
        page.text("HEADERS", (left - EDGE / 2, top + RAIL_HEIGHT / 4), Side::Left, MUTED);
        page.text("DATA", (left - EDGE / 2, top + RAIL_HEIGHT * 3 / 4), Side::Left, MUTED);
        let bottom = top + RAIL_HEIGHT;
        page.axis_below(&x, &x.ticks(60), &tick, (top, bottom), "milliseconds");
        for (number, ink) in INKS.into_iter().enumerate() {
            let mark = |frame: &Frame| {
                let at = x.at(frame.at_us / 1e3);
                let half = if frame.kind == "DATA" { top + RAIL_HEIGHT / 2 } else { top };
                ((at - 1, half + 2), (at + 1, half + RAIL_HEIGHT / 2 - 2))
            };
            let of_ink = |frame: &&Frame| (frame.stream / 2) as usize % INKS.len() == number;
            let marks: Vec<_> = self.rail.iter().copied().filter(of_ink).map(mark).collect();
            page.areas(&marks, ink, 1.0);
        }
    }

    fn told(&self) -> String {
        let row = |(name, spans): &(String, Vec<&Span>)| {
            let last = spans.iter().map(|span| span.to_us / 1e3).fold(0.0, f64::max);
            format!("{name}: {} replies until {last:.0} ms.", spans.len() / 2)
        };
        let rows: Vec<String> = self.rows.iter().map(row).collect();
        format!("{} {} frames came.", rows.join(" "), self.rail.len())
    }
}
