//! A bar for each model or run, in parts.

use verdict::lesson::Lesson;

use crate::report::plot::bars::{Bar, Chart, Part};
use crate::report::plot::colour::Ink;
use crate::report::plot::page::Head;

/// What is said around the bars.
pub(super) struct Bars<'a> {
    /// Name of the experiment.
    pub name: &'a str,
    /// What is drawn.
    pub subject: String,
    /// The parts of a bar: name, colour, opacity.
    pub key: Vec<(&'static str, Ink, f64)>,
    /// What the axis means, with its unit.
    pub axis: &'a str,
}

/// A bar: its name, its parts from left to right, and its figures in words.
pub(super) type Named = (String, Vec<Part>, String);

impl Bars<'_> {
    /// The SVG; empty without bars.
    pub fn svg(self, lesson: &Lesson, bars: impl Iterator<Item = Named>) -> String {
        let bar = |(name, parts, label)| Bar { name, parts, intervals: Vec::new(), label };
        let chart = Chart {
            head: Head {
                name: self.name.to_owned(),
                finding: lesson.finding.text.clone(),
                subject: self.subject,
                key: self.key,
                ..Head::default()
            },
            axis: self.axis.to_owned(),
            floor: None,
            bars: bars.map(bar).collect(),
        };
        chart.plot().map_or_else(String::new, |plot| plot.svg)
    }
}

/// A part without a name of its own.
pub(super) fn part(value: f64, ink: Ink, opacity: f64) -> Part {
    Part { name: String::new(), value, ink, opacity: Some(opacity) }
}
