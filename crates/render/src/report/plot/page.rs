//! The page of all plots, with the width of a README and a style sheet for light and dark pages.

use svg::node::element::{Circle, Description, Group, Path, Pattern, Polyline, Rectangle, Style};
use svg::node::element::{Text, Title};
use svg::{Document, Node};

use crate::text::{figure, lines_of};

use super::Plot;
use super::colour::{self, GRID, Ink, PAGE, TEXT};
use super::scale::Scale;

/// Width of a README on a code host, in pixels.
pub const WIDTH: i32 = 900;
/// Distance of texts from the edge of the page.
pub const EDGE: i32 = 16;
/// Size of text, in pixels: above 12 if the page is shown only 830 pixels wide.
const TEXT_PX: f64 = 14.0;
/// Size of the finding above a plot.
const TITLE_PX: f64 = 17.0;
/// Height of a line of the finding.
const TITLE_LINE: i32 = 23;
/// Mean width of a sans-serif letter, as a share of its size.
const LETTER: f64 = 0.54;
/// Height of a horizontal axis.
pub const AXIS: i32 = 56;
/// Width and height of a box of the key.
const BOX: i32 = 14;
/// Distance of its meaning from it.
const BESIDE: i32 = 7;

/// Dots in a row, and from one to the next.
pub const DOTS_IN_ROW: i32 = 90;
pub const DOT_APART: i32 = 3;

/// A point, in pixels from the upper left corner.
pub type Point = (i32, i32);

/// Position of a text relative to its point.
#[derive(Clone, Copy)]
pub enum Side {
    /// To the right of it.
    Right,
    /// To the left of it.
    Left,
    /// Around it.
    Middle,
}

/// What stands above a plot.
#[derive(Default)]
pub struct Head<'a> {
    /// Name of the file without `.svg`.
    pub name: String,
    /// The finding: the title.
    pub finding: String,
    /// What is drawn, in a line below the finding.
    pub subject: String,
    /// A description in sentences, for readers who do not see it.
    pub told: String,
    /// Boxes with their meaning: colour and opacity.
    pub key: Vec<(&'a str, Ink, f64)>,
}

impl Head<'_> {
    /// The page, `height` pixels high below the head. `draw` is given the lower edge of the head.
    pub fn plot(self, height: i32, draw: impl FnOnce(&mut Page, i32)) -> Plot {
        let columns = f64::from(WIDTH - 2 * EDGE) / (TITLE_PX * LETTER);
        let lines = lines_of(&self.finding, columns as usize);
        let mut page = Page(Group::new());
        let mut y = 22;
        for line in &lines {
            page.add(words(line, (EDGE, y), Side::Right, TEXT).set("font-size", TITLE_PX));
            y += TITLE_LINE;
        }
        page.text(&self.subject, (EDGE, y), Side::Right, TEXT);
        let key = self.key.iter().map(|(word, ..)| key_width(word)).sum::<i32>();
        if EDGE + width_of(&self.subject) + key > WIDTH - EDGE {
            y += TITLE_LINE;
        }
        page.key(&self.key, (WIDTH - key, y));
        let top = y + 20;
        draw(&mut page, top);
        let title = format!("{}: {}", self.subject, self.finding);
        let title = title.trim_end_matches(": ").to_owned();
        let svg = page.document(&title, &self.told, top + height);
        Plot { name: self.name, title, svg }
    }
}

/// The page while it is drawn.
pub struct Page(Group);

/// A text that is centred vertically at `at`.
fn words(text: &str, (x, y): Point, side: Side, ink: Ink) -> Text {
    let anchor = match side {
        Side::Right => "start",
        Side::Left => "end",
        Side::Middle => "middle",
    };
    let text = Text::new(text).set("x", x).set("y", y).set("dy", "0.35em");
    text.set("text-anchor", anchor).set("fill", ink.light)
}

/// A figure beside an axis, without trailing zeros.
pub fn tick(value: f64) -> String {
    let text = figure(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Approximate width of a text.
pub fn width_of(text: &str) -> i32 {
    (text.chars().count() as f64 * TEXT_PX * LETTER).ceil() as i32
}

impl Page {
    fn add(&mut self, node: impl Node) {
        self.0.append(node);
    }

    /// With title, description and style sheet.
    fn document(self, title: &str, told: &str, height: i32) -> String {
        let body = self.0.set("font-family", "sans-serif").set("font-size", TEXT_PX);
        let drawn = body.to_string();
        let mut rules = String::new();
        for Ink { light, dark } in colour::all() {
            for attribute in ["fill", "stroke"] {
                if light == PAGE.light || drawn.contains(&format!("{attribute}=\"{light}\"")) {
                    rules += &format!("[{attribute}=\"{light}\"]{{{attribute}:{dark}}}\n");
                }
            }
        }
        // Each text has an outline in the page's colour, so that lines behind it do not cross it.
        let halo = |ink: &str| format!("text:not([fill=\"{}\"]){{stroke:{ink}}}", PAGE.light);
        let style = format!(
            "text{{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}}\n{}\n\
             @media (prefers-color-scheme: dark) {{\n{rules}{}\n}}",
            halo(PAGE.light),
            halo(PAGE.dark)
        );
        let page = Rectangle::new().set("width", WIDTH).set("height", height);
        Document::new()
            .set("width", WIDTH)
            .set("height", height)
            .set("viewBox", (0, 0, WIDTH, height))
            .set("role", "img")
            .set("aria-labelledby", "title desc")
            .add(Title::new(title).set("id", "title"))
            .add(Description::new().set("id", "desc").add(svg::node::Text::new(told)))
            .add(Style::new(style))
            .add(page.set("fill", PAGE.light))
            .add(body)
            .to_string()
            + "\n"
    }

    /// Text that is centred vertically at `at`.
    pub fn text(&mut self, text: &str, at: Point, side: Side, ink: Ink) {
        if text.is_empty() {
            return;
        }
        self.add(words(text, at, side, ink));
    }

    /// A line through points.
    pub fn line(&mut self, points: &[Point], ink: Ink, width: u32) {
        self.add(polyline(points, ink, width));
    }

    /// A line of dashes: the floor, or, dotted, between two values without measurements in between.
    pub fn dashed(&mut self, points: &[Point], ink: Ink, dashes: &str) {
        self.add(polyline(points, ink, 2).set("stroke-dasharray", dashes));
    }

    /// A box between two corners.
    pub fn area(&mut self, from: Point, to: Point, ink: Ink, opacity: f64) {
        self.add(rectangle(from, to).set("fill", ink.light).set("fill-opacity", opacity));
    }

    /// Boxes of one kind, as one element: a picture may have thousands.
    pub fn areas(&mut self, boxes: &[(Point, Point)], ink: Ink, opacity: f64) {
        if boxes.is_empty() {
            return;
        }
        let outline = |((left, top), (right, bottom)): &(Point, Point)| {
            let width = right - left;
            format!("M{left} {top}h{width}v{}h-{width}z", bottom - top)
        };
        let path = Path::new().set("d", boxes.iter().map(outline).collect::<String>());
        self.add(path.set("fill", ink.light).set("fill-opacity", opacity));
    }

    /// A hatched box: a figure that is a bound.
    pub fn hatched(&mut self, from: Point, to: Point, ink: Ink) {
        const APART: i32 = 7;
        let name = format!("hatch-{}-{}", from.0, from.1);
        let pattern = Pattern::new().set("id", &*name).set("patternUnits", "userSpaceOnUse");
        let pattern = pattern.set("width", APART).set("height", APART);
        let stripe = polyline(&[(0, 0), (0, APART)], ink, 4);
        self.add(pattern.set("patternTransform", "rotate(45)").add(stripe));
        self.area(from, to, ink, 0.25);
        self.add(rectangle(from, to).set("fill", format!("url(#{name})")));
    }

    /// So many dots, in rows of [`DOTS_IN_ROW`], from this corner; `small` for those that are only
    /// there.
    pub fn dots(&mut self, (x, y): Point, count: i32, ink: Ink, small: bool) {
        let name = format!("dots-{x}-{y}");
        let pattern = Pattern::new().set("id", &*name).set("patternUnits", "userSpaceOnUse");
        let pattern = pattern.set("width", DOT_APART).set("height", DOT_APART);
        let centre = f64::from(DOT_APART) / 2.0;
        let dot = Circle::new().set("cx", centre).set("cy", centre);
        let dot = dot.set("r", if small { 0.6 } else { 1.1 }).set("fill", ink.light);
        // The pattern begins where the dots begin.
        let pattern = pattern.set("patternTransform", format!("translate({x} {y})"));
        self.add(pattern.add(dot));
        let (rows, rest) = (count / DOTS_IN_ROW, count % DOTS_IN_ROW);
        for (row, columns, high) in [(0, DOTS_IN_ROW, rows), (rows, rest, 1)] {
            if columns > 0 && high > 0 {
                let from = (x, y + row * DOT_APART);
                let to = (x + columns * DOT_APART, from.1 + high * DOT_APART);
                self.add(rectangle(from, to).set("fill", format!("url(#{name})")));
            }
        }
    }

    /// A whisker along a bar at height `y`, with an outline in the page's colour. An end that is
    /// cut off has no cap.
    pub fn whisker(&mut self, low: i32, high: i32, y: i32, cut: bool) {
        let cap = |x: i32| format!("M{x} {}v10", y - 5);
        let end = if cut { String::new() } else { cap(high) };
        let path = format!("M{low} {y}H{high}{}{end}", cap(low));
        for (ink, width) in [(PAGE, 4), (TEXT, 2)] {
            let path = Path::new().set("d", &*path).set("fill", "none");
            self.add(path.set("stroke", ink.light).set("stroke-width", width));
        }
    }

    /// The marker with this number: six shapes, filled and hollow.
    pub fn marker(&mut self, number: usize, (x, y): Point, ink: Ink) {
        let hollow = number / SHAPES.len() % 2 == 1;
        let inside = if hollow { PAGE } else { ink };
        let path = Path::new().set("d", SHAPES[number % SHAPES.len()]);
        let path = path.set("transform", format!("translate({x} {y})"));
        let path = path.set("fill", inside.light).set("stroke", ink.light);
        self.add(path.set("stroke-width", 2));
    }

    /// A horizontal axis at `bottom`: grid lines from `top` at the ticks, their labels, and the
    /// meaning of the axis.
    pub fn axis_below(
        &mut self,
        x: &Scale,
        ticks: &[f64],
        label: &dyn Fn(f64) -> String,
        (top, bottom): (i32, i32),
        meaning: &str,
    ) {
        for &tick in ticks {
            let at = x.at(tick);
            self.line(&[(at, top), (at, bottom)], GRID, 1);
            self.line(&[(at, bottom), (at, bottom + 4)], TEXT, 1);
            self.text(&label(tick), (at, bottom + 15), Side::Middle, TEXT);
        }
        let (left, right) = x.ends();
        self.line(&[(left, top), (left, bottom), (right, bottom)], TEXT, 1);
        self.text(meaning, ((left + right) / 2, bottom + 37), Side::Middle, TEXT);
    }

    /// A vertical axis at `left`: grid lines up to `right`, and labels.
    pub fn axis_left(&mut self, y: &Scale, (left, right): (i32, i32), meaning: &str) {
        const GAP: i32 = 24;
        for tick_at in y.ticks(GAP) {
            let at = y.at(tick_at);
            self.line(&[(left, at), (right, at)], GRID, 1);
            self.text(&tick(tick_at), (left - 7, at), Side::Left, TEXT);
        }
        let (bottom, top) = y.ends();
        let (x, y) = (left - 66, (top + bottom) / 2);
        let turned = words(meaning, (x, y), Side::Middle, TEXT);
        self.add(turned.set("transform", format!("rotate(-90 {x} {y})")));
    }

    fn key(&mut self, entries: &[(&str, Ink, f64)], (mut left, y): Point) {
        for (word, ink, opacity) in entries {
            self.area((left, y - BOX / 2), (left + BOX, y + BOX / 2), *ink, *opacity);
            self.text(word, (left + BOX + BESIDE, y), Side::Right, TEXT);
            left += key_width(word);
        }
    }
}

fn key_width(word: &str) -> i32 {
    BOX + BESIDE + width_of(word) + EDGE
}

fn polyline(points: &[Point], ink: Ink, width: u32) -> Polyline {
    let line = Polyline::new().set("points", points.to_vec()).set("fill", "none");
    line.set("stroke", ink.light).set("stroke-width", width)
}

fn rectangle(from: Point, to: Point) -> Rectangle {
    let corner = Rectangle::new().set("x", from.0).set("y", from.1);
    corner.set("width", to.0 - from.0).set("height", to.1 - from.1)
}

/// Outlines of markers: disc, square, triangle, diamond, triangle upside down, plus sign.
const SHAPES: [&str; 6] = [
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "M-4 -4h8v8h-8z",
    "M0 -6l6 10h-12z",
    "M0 -6l6 6l-6 6l-6 -6z",
    "M-6 -4h12l-6 10z",
    "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_description_and_follows_the_theme() {
        let head = |finding: String| {
            let (subject, told) = ("of c".to_owned(), "d & e".to_owned());
            Head { finding, subject, told, ..Head::default() }.plot(80, |page, top| {
                page.hatched((50, top), (90, top + 20), TEXT);
            })
        };
        let svg = head("b < c".to_owned()).svg;
        assert!(svg.contains("<title id=\"title\">of c: b &lt; c</title>"), "{svg}");
        assert!(svg.contains("d &amp; e"), "{svg}");
        let style = &svg[svg.find("<style>").unwrap()..svg.find("</style>").unwrap()];
        assert!(style.contains("prefers-color-scheme: dark"), "{style}");
        assert!(style.contains("[fill=\"#2D333B\"]{fill:#E6EDF3}"), "{style}");
        // Only colours that are used have a rule.
        assert!(!style.contains("#CF222E"), "{style}");
        // A long finding takes lines of its own, and the plot begins below them.
        let height = |svg: &str| {
            let rest = svg.split("viewBox=\"0 0 900 ").nth(1).unwrap();
            rest.split('"').next().unwrap().parse::<i32>().unwrap()
        };
        let tall = head("word ".repeat(40)).svg;
        assert_eq!(height(&tall) - height(&svg), 2 * TITLE_LINE);
    }
}
