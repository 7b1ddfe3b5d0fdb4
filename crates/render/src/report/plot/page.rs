//! The page of all plots, with the width of a README and a style sheet for light and dark pages.

use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::text::figure;

use super::Plot;
use super::colour::{self, GRID, Ink, PAGE, TEXT};
use super::scale::Scale;

/// Width of a README on a code host, in pixels.
pub const WIDTH: i32 = 900;
/// Size of text, in pixels: above 12 if the page is shown only 830 pixels wide.
pub const TEXT_PX: f64 = 14.0;
/// Size of labels of an axis.
pub const SMALL_PX: f64 = 13.5;
/// Size of a title.
pub const TITLE_PX: f64 = 18.0;
/// Mean width of a sans-serif letter, as a share of its size.
const LETTER: f64 = 0.54;

/// plotters divides sizes by this before it writes them (plotters-svg, `draw_text`).
const PLOTTERS_SIZE: f64 = 1.24;

/// The result of drawing.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

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

/// The page while it is drawn.
pub struct Page<'a>(DrawingArea<SVGBackend<'a>, plotters::coord::Shift>);

/// Draws a plot. `told`: a description in sentences, for readers who do not see it.
pub fn plot(
    name: &str,
    title: &str,
    told: &str,
    height: i32,
    draw: impl FnOnce(&Page) -> Drawn,
) -> Result<Plot, String> {
    let mut svg = String::new();
    let drawn = || -> Drawn {
        let size = (WIDTH as u32, height as u32);
        let page = Page(SVGBackend::with_string(&mut svg, size).into_drawing_area());
        page.0.fill(&PAGE.light)?;
        let style = page.style(TITLE_PX, TEXT).pos(Pos::new(HPos::Left, VPos::Center));
        page.0.draw(&Text::new(title.to_owned(), (16, 22), style))?;
        draw(&page)?;
        page.0.present()?;
        Ok(())
    };
    drawn().map_err(|error| format!("cannot draw {name}: {error}"))?;
    let svg = dressed(&svg, title, told).ok_or_else(|| format!("cannot draw {name}: no <svg>"))?;
    Ok(Plot { name: name.to_owned(), title: title.to_owned(), svg })
}

/// The document with title, description and style sheet after its opening tag.
fn dressed(svg: &str, title: &str, told: &str) -> Option<String> {
    let (open, body) = svg.split_once('>')?;
    let of = |colour: RGBColor| format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
    let mut rules = String::new();
    for ink in colour::all() {
        let (light, dark) = (of(ink.light), of(ink.dark));
        for attribute in ["fill", "stroke"] {
            if body.contains(&format!("{attribute}=\"{light}\"")) {
                rules += &format!("[{attribute}=\"{light}\"]{{{attribute}:{dark}}}\n");
            }
        }
    }
    let open = format!("{open} role=\"img\" aria-labelledby=\"title desc\">");
    let title = format!("<title id=\"title\">{}</title>", escaped(title));
    let told = format!("<desc id=\"desc\">{}</desc>", escaped(told));
    let style = format!("<style>\n@media (prefers-color-scheme: dark) {{\n{rules}}}\n</style>");
    Some(format!("{open}\n{title}\n{told}\n{style}{body}"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
pub fn width_of(text: &str, size_px: f64) -> i32 {
    (text.chars().count() as f64 * size_px * LETTER).ceil() as i32
}

impl Page<'_> {
    fn style(&self, size_px: f64, ink: Ink) -> TextStyle<'static> {
        ("sans-serif", size_px * PLOTTERS_SIZE).into_font().color(&ink.light)
    }

    /// Text that is centred vertically at `at`.
    pub fn text(&self, text: &str, at: Point, side: Side, size_px: f64, ink: Ink) -> Drawn {
        let side = match side {
            Side::Right => HPos::Left,
            Side::Left => HPos::Right,
            Side::Middle => HPos::Center,
        };
        let style = self.style(size_px, ink).pos(Pos::new(side, VPos::Center));
        Ok(self.0.draw(&Text::new(text.to_owned(), at, style))?)
    }

    /// Text that runs upwards, centred at `at`.
    pub fn upright(&self, text: &str, at: Point) -> Drawn {
        let font = ("sans-serif", SMALL_PX * PLOTTERS_SIZE).into_font();
        let font = font.transform(FontTransform::Rotate270);
        let style = font.color(&TEXT.light).pos(Pos::new(HPos::Center, VPos::Center));
        Ok(self.0.draw(&Text::new(text.to_owned(), at, style))?)
    }

    /// A line through points.
    pub fn line(&self, points: Vec<Point>, ink: Ink, width: u32) -> Drawn {
        Ok(self.0.draw(&PathElement::new(points, ink.light.stroke_width(width)))?)
    }

    /// A dashed line: a value that was measured elsewhere, or the floor.
    pub fn dashed(&self, from: Point, to: Point, ink: Ink) -> Drawn {
        let style = ink.light.stroke_width(2);
        Ok(self.0.draw(&DashedPathElement::new([from, to], 6, 5, style))?)
    }

    /// A dotted line: between two values without measurements in between.
    pub fn dotted(&self, from: Point, to: Point, ink: Ink) -> Drawn {
        Ok(self.0.draw(&DashedPathElement::new([from, to], 2, 4, ink.light.stroke_width(1)))?)
    }

    /// A box between two corners.
    pub fn area(&self, from: Point, to: Point, ink: Ink, opacity: f64) -> Drawn {
        let style = ink.light.mix(opacity).filled();
        Ok(self.0.draw(&Rectangle::new([from, to], style))?)
    }

    /// A hatched box: a figure that is a bound.
    pub fn hatched(&self, from: Point, to: Point, ink: Ink) -> Drawn {
        const APART: i32 = 9;
        self.area(from, to, ink, 0.25)?;
        let ((left, top), (right, bottom)) = (from, to);
        let height = bottom - top;
        // Each line rises from the lower edge to the right and is cut off at both sides.
        for start in (left - height..right).step_by(APART as usize) {
            let (low, high) = (start.max(left), (start + height).min(right));
            if low < high {
                let y = |x: i32| bottom - (x - start);
                self.line(vec![(low, y(low)), (high, y(high))], ink, 2)?;
            }
        }
        Ok(())
    }

    /// A whisker along a bar at height `y`, with an outline in the page's colour. An end that is
    /// cut off has no cap.
    pub fn whisker(&self, low: i32, high: i32, y: i32, cut: bool) -> Drawn {
        const CAP: i32 = 5;
        let ends = [Some(low), (!cut).then_some(high)];
        for (ink, width) in [(PAGE, 4), (TEXT, 2)] {
            self.line(vec![(low, y), (high, y)], ink, width)?;
            for x in ends.into_iter().flatten() {
                self.line(vec![(x, y - CAP), (x, y + CAP)], ink, width)?;
            }
        }
        Ok(())
    }

    /// The marker with this number: six shapes, filled and hollow.
    pub fn marker(&self, number: usize, (x, y): Point, ink: Ink) -> Drawn {
        const R: i32 = 5;
        let shape = |points: &[(i32, i32)]| -> Vec<Point> {
            points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect()
        };
        let (wide, flat) = (R + 1, R - 1);
        let points = match number % SHAPES {
            0 => return self.disc((x, y), R, ink, number >= SHAPES),
            1 => shape(&[(-flat, -flat), (flat, -flat), (flat, flat), (-flat, flat)]),
            2 => shape(&[(0, -wide), (wide, flat), (-wide, flat)]),
            3 => shape(&[(0, -wide), (wide, 0), (0, wide), (-wide, 0)]),
            4 => shape(&[(-wide, -flat), (wide, -flat), (0, wide)]),
            _ => shape(&PLUS),
        };
        let hollow = number / SHAPES % 2 == 1;
        let inside = if hollow { PAGE } else { ink };
        self.0.draw(&Polygon::new(points.clone(), inside.light.filled()))?;
        let closed = points.iter().chain(points.first()).copied().collect();
        self.line(closed, ink, 2)
    }

    fn disc(&self, at: Point, radius: i32, ink: Ink, hollow: bool) -> Drawn {
        if hollow {
            self.0.draw(&Circle::new(at, radius, PAGE.light.filled()))?;
            return Ok(self.0.draw(&Circle::new(at, radius, ink.light.stroke_width(2)))?);
        }
        Ok(self.0.draw(&Circle::new(at, radius, ink.light.filled()))?)
    }

    /// Grid lines across `x` with labels below, at the ticks given.
    pub fn ticks_below(
        &self,
        x: &Scale,
        ticks: &[f64],
        (top, bottom): (i32, i32),
        label: &dyn Fn(f64) -> String,
    ) -> Drawn {
        for &tick in ticks {
            let at = x.at(tick);
            self.line(vec![(at, top), (at, bottom)], GRID, 1)?;
            self.line(vec![(at, bottom), (at, bottom + 4)], TEXT, 1)?;
            self.text(&label(tick), (at, bottom + 15), Side::Middle, SMALL_PX, TEXT)?;
        }
        Ok(())
    }

    /// Grid lines across `y`, with labels on the left if wanted.
    pub fn ticks_left(
        &self,
        y: &Scale,
        (left, right): (i32, i32),
        label: Option<&dyn Fn(f64) -> String>,
    ) -> Drawn {
        const GAP: i32 = 24;
        for tick in y.ticks(GAP) {
            let at = y.at(tick);
            self.line(vec![(left, at), (right, at)], GRID, 1)?;
            if let Some(label) = label {
                self.text(&label(tick), (left - 7, at), Side::Left, SMALL_PX, TEXT)?;
            }
        }
        Ok(())
    }

    /// Both axes of a plot with the corners `(left, top)` and `(right, bottom)`.
    pub fn axes(&self, (left, top): Point, (right, bottom): Point) -> Drawn {
        self.line(vec![(left, top), (left, bottom), (right, bottom)], TEXT, 1)
    }
}

/// Shapes of markers.
const SHAPES: usize = 6;

/// The outline of a plus sign.
const PLUS: [Point; 12] = [
    (-2, -6),
    (2, -6),
    (2, -2),
    (6, -2),
    (6, 2),
    (2, 2),
    (2, 6),
    (-2, 6),
    (-2, 2),
    (-6, 2),
    (-6, -2),
    (-2, -2),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_description_and_follows_the_theme() {
        let plot = plot("a", "b < c", "d & e", 100, |page| {
            page.text("word", (5, 5), Side::Right, SMALL_PX, TEXT)
        });
        let svg = plot.unwrap().svg;
        assert!(svg.contains("<title id=\"title\">b &lt; c</title>"), "{svg}");
        assert!(svg.contains("<desc id=\"desc\">d &amp; e</desc>"), "{svg}");
        let style = &svg[svg.find("<style>").unwrap()..svg.find("</style>").unwrap()];
        assert!(style.contains("prefers-color-scheme: dark"), "{style}");
        assert!(style.contains("[fill=\"#2D333B\"]{fill:#E6EDF3}"), "{style}");
        // Only colours that are used have a rule.
        assert!(!style.contains("#CF222E"), "{style}");
        // The written sizes are those asked for.
        let sizes = svg.split("font-size=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let sizes: Vec<f64> = sizes.map(|size| size.parse().unwrap()).collect();
        assert!((sizes[1] - SMALL_PX).abs() < 1e-9, "{sizes:?}");
    }

    #[test]
    fn hatching_stays_in_its_box() {
        let plot = plot("a", "b", "", 200, |page| page.hatched((50, 50), (90, 70), TEXT)).unwrap();
        let points = plot.svg.split("points=\"").skip(1).flat_map(|rest| {
            let list = rest.split('"').next().unwrap_or("");
            list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        });
        let mut seen = 0;
        for point in points {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (i32, i32) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((50..=90).contains(&x) && (50..=70).contains(&y), "{point}");
            seen += 1;
        }
        assert!(seen >= 8, "{seen}");
    }
}
