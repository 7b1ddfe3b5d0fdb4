//! Spans over time: a row for each lane, a colour and a letter for each kind.

use record::{Recording, Run, Span};

use crate::report::plot::colour::{Ink, MUTED, TEXT};
use crate::report::plot::page::{AXIS, EDGE, Head, Page, Side, WIDTH, tick, width_of};
use crate::report::plot::scale::Scale;
use crate::text::lines_of;

use super::Picture;

/// Space between two bars, of rows that are high enough for it.
const GAP: i32 = 6;
/// Height of a row that has room for text.
pub(super) const ROW: i32 = 22;
/// Height of a heading above rows.
const HEADING: i32 = 28;
/// Most spans of a row that the description tells one by one.
const TOLD_MAX: usize = 8;
/// Most columns of the names in text.
const NAME_COLUMNS_MAX: usize = 34;

/// One kind of span.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// [`Span::kind`].
    pub name: &'static str,
    /// Its colour.
    pub ink: Ink,
    /// Its opacity.
    pub opacity: f64,
    /// What fills its bar in text.
    pub letter: char,
}

/// One row.
pub(super) struct Row<'a> {
    /// A heading above it, where a group of rows begins.
    pub heading: Option<String>,
    /// Its name.
    pub name: String,
    /// What lasted, in order of time.
    pub spans: Vec<&'a Span>,
    /// Text behind the last bar.
    pub note: String,
}

impl<'a> Row<'a> {
    fn of_kind(&self, kind: &Kind) -> impl Iterator<Item = &'a Span> + Clone {
        self.spans.iter().copied().filter(move |span| span.kind == kind.name)
    }
}

/// The picture.
pub(super) struct Lanes<'a> {
    /// Name of the experiment.
    pub name: String,
    /// The finding.
    pub finding: String,
    /// What is drawn.
    pub subject: String,
    /// What the axis means; its unit is the millisecond.
    pub axis: String,
    /// Height of a row, in pixels. Names need 16 of them.
    pub row: i32,
    /// The kinds, in the order of the legend.
    pub kinds: Vec<Kind>,
    /// The rows of the SVG.
    pub rows: Vec<Row<'a>>,
    /// The rows in text, which has less room.
    pub text_rows: Vec<Row<'a>>,
}

/// A row for each lane of a run, below the title of the run.
pub(super) fn by_lane<'a>(recording: &'a Recording, run: &'a Run) -> Vec<Row<'a>> {
    let mut rows: Vec<Row> = Vec::new();
    for span in recording.spans_of(&run.run) {
        let known = rows.iter().position(|row| row.name == span.lane);
        let at = known.unwrap_or_else(|| {
            let heading = rows.is_empty().then(|| run.title.clone());
            let name = span.lane.clone();
            rows.push(Row { heading, name, spans: Vec::new(), note: String::new() });
            rows.len() - 1
        });
        rows[at].spans.push(span);
    }
    rows
}

impl Lanes<'_> {
    /// Draws it.
    pub fn picture(&self, columns: usize) -> Picture {
        Picture { svg: self.svg(), text: self.text(columns) }
    }

    fn kind(&self, span: &Span) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.name == span.kind)
    }

    /// The end of the axis, in milliseconds.
    fn end_ms(&self) -> f64 {
        let rows = self.rows.iter().chain(&self.text_rows);
        rows.flat_map(|row| &row.spans).map(|span| span.to_us / 1e3).fold(0.0, f64::max)
    }

    pub fn svg(&self) -> String {
        let widest = self.rows.iter().map(|row| width_of(&row.name)).max().unwrap_or(0);
        let notes = self.rows.iter().map(|row| width_of(&row.note)).max().unwrap_or(0);
        let (left, right) = (2 * EDGE + widest, WIDTH - 2 * EDGE - notes);
        let x = Scale::from_zero(self.end_ms(), (left, right));
        let headings = self.rows.iter().filter(|row| row.heading.is_some()).count() as i32;
        let height = self.row * self.rows.len() as i32 + HEADING * headings;
        let told = self.rows.iter().map(|row| self.told(row)).collect::<Vec<_>>();
        let head = Head {
            name: self.name.clone(),
            finding: self.finding.clone(),
            subject: self.subject.clone(),
            told: told.join(" "),
            key: self.kinds.iter().map(|kind| (kind.name, kind.ink, kind.opacity)).collect(),
        };
        let plot = head.plot(height + AXIS, |page, top| {
            page.axis_below(&x, &x.ticks(60), &tick, (top, top + height), &self.axis);
            let mut y = top;
            for row in &self.rows {
                if let Some(heading) = &row.heading {
                    page.text(heading, (EDGE, y + HEADING / 2 + 2), Side::Right, TEXT);
                    y += HEADING;
                }
                self.draw(page, &x, row, y);
                y += self.row;
            }
        });
        plot.svg
    }

    fn draw(&self, page: &mut Page, x: &Scale, row: &Row, y: i32) {
        let middle = y + self.row / 2;
        let bar = if self.row > 2 * GAP { self.row - GAP } else { (self.row - 1).max(1) };
        page.text(&row.name, (x.ends().0 - EDGE / 2, middle), Side::Left, TEXT);
        let corners = |span: &Span| {
            let (from, to) = (x.at(span.from_us / 1e3), x.at(span.to_us / 1e3));
            // A span of no width could not be seen.
            ((from, middle - bar / 2), (to.max(from + 1), middle - bar / 2 + bar))
        };
        for kind in &self.kinds {
            let bars: Vec<_> = row.of_kind(kind).map(corners).collect();
            page.areas(&bars, kind.ink, kind.opacity);
        }
        let end = row.spans.last().map_or(x.ends().0, |span| x.at(span.to_us / 1e3));
        page.text(&row.note, (end + 8, middle), Side::Right, MUTED);
    }

    /// The row in words: each span, or of many their number and the longest.
    fn told(&self, row: &Row) -> String {
        let shown = row.spans.iter().filter(|span| self.kind(span).is_some());
        let span = |span: &&Span| {
            let (from, to) = (span.from_us / 1e3, span.to_us / 1e3);
            format!("{} {from:.1} to {to:.1} ms", span.kind)
        };
        let mut spans: Vec<String> = shown.map(span).collect();
        if spans.len() > TOLD_MAX {
            let told = |kind: &Kind| {
                let lasted = row.of_kind(kind).map(|span| (span.to_us - span.from_us) / 1e3);
                let longest = lasted.clone().reduce(f64::max)?;
                Some(format!("{} {}, the longest {longest:.1} ms", lasted.count(), kind.name))
            };
            spans = self.kinds.iter().filter_map(told).collect();
        }
        let heading = row.heading.as_deref().map_or(String::new(), |text| format!("{text}. "));
        format!("{heading}{}: {}.", row.name, spans.join(", "))
    }

    fn text(&self, columns: usize) -> String {
        let names = self.text_rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let names = names.min(NAME_COLUMNS_MAX);
        let notes = self.text_rows.iter().map(|row| row.note.chars().count()).max().unwrap_or(0);
        let cells = columns.saturating_sub(names + notes + 2).max(10);
        let end_ms = self.end_ms();
        let legend = self.kinds.iter().map(|kind| format!("{} {}", kind.letter, kind.name));
        let legend = legend.collect::<Vec<_>>().join("   ");
        let mut text = lines_of(&self.finding, columns).join("\n") + "\n";
        for row in &self.text_rows {
            if let Some(heading) = &row.heading {
                text += &format!("{heading}\n");
            }
            let name: String = row.name.chars().take(names).collect();
            let bars = self.cells(row, cells, end_ms);
            let line = format!("{name:<names$} {} {}", bars.trim_end(), row.note);
            text += &line.chars().take(columns).collect::<String>();
            text = text.trim_end().to_owned() + "\n";
        }
        // The unit stands behind the end of the axis, within the line.
        let width = (cells - 1).min(columns.saturating_sub(names + 5));
        let scale = format!("{:<names$} 0{end_ms:>width$.0} ms", "");
        text + &format!("{scale}\n{:<names$} {legend}\n", "")
    }

    /// The letters of a row. A cell shows the kind that fills most of it.
    fn cells(&self, row: &Row, cells: usize, end_ms: f64) -> String {
        let mut line = vec![' '; cells];
        let cell_us = end_ms * 1e3 / cells as f64;
        for (at, letter) in line.iter_mut().enumerate() {
            let (from, to) = (at as f64 * cell_us, (at + 1) as f64 * cell_us);
            let covered = |span: &&&Span| (span.to_us.min(to) - span.from_us.max(from)).max(0.0);
            let shown = row.spans.iter().filter(|span| covered(span) > 0.0);
            let most = shown.max_by(|a, b| covered(a).total_cmp(&covered(b)));
            if let Some(kind) = most.and_then(|span| self.kind(span)) {
                *letter = kind.letter;
            }
        }
        line.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(kind: &str, from_ms: f64, to_ms: f64) -> Span {
        Span { kind: kind.into(), from_us: from_ms * 1e3, to_us: to_ms * 1e3, ..Span::default() }
    }

    #[test]
    fn a_row_fits_the_width_and_shows_each_kind_in_its_place() {
        let spans = [span("wait", 0.0, 50.0), span("transfer", 50.0, 99.0), span("?", 99.0, 100.0)];
        let row = |name: &str| Row {
            heading: None,
            name: name.to_owned(),
            spans: spans.iter().collect(),
            note: "done".to_owned(),
        };
        let kind = |name, letter| Kind { name, ink: TEXT, opacity: 1.0, letter };
        let lanes = Lanes {
            name: "x".into(),
            finding: "a waits".into(),
            subject: "s".into(),
            axis: "milliseconds".into(),
            row: ROW,
            kinds: vec![kind("wait", 'w'), kind("transfer", '=')],
            rows: vec![row("a")],
            text_rows: vec![row("a"), row(&"long".repeat(20))],
        };
        let picture = lanes.picture(60);
        assert!(picture.text.lines().all(|line| line.chars().count() <= 60), "{}", picture.text);
        let first = picture.text.lines().nth(1).unwrap();
        assert!(first.starts_with("a ") && first.ends_with(" done"), "{first}");
        let (waits, moves) = (first.matches('w').count(), first.matches('=').count());
        assert!(waits.abs_diff(moves) <= 1 && waits > 5, "{first}");
        assert!(picture.svg.contains("a: wait 0.0 to 50.0 ms, transfer 50.0 to 99.0 ms."));
        assert!(picture.svg.contains("<title id=\"title\">s: a waits</title>"));
    }
}
