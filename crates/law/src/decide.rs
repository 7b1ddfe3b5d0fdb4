//! Whether figures are within the bounds of a law.

use record::{LawFigure, Standing};

/// The bounds of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// The name of the figure.
    pub figure: &'static str,
    at_least: f64,
    at_most: f64,
}

impl Bound {
    /// The figure must be in this range, both ends included.
    pub const fn between(figure: &'static str, at_least: f64, at_most: f64) -> Bound {
        Bound { figure, at_least, at_most }
    }

    /// The figure must not be less.
    pub const fn at_least(figure: &'static str, at_least: f64) -> Bound {
        Bound::between(figure, at_least, f64::INFINITY)
    }

    /// The figure must not be more.
    pub const fn at_most(figure: &'static str, at_most: f64) -> Bound {
        Bound::between(figure, f64::NEG_INFINITY, at_most)
    }

    /// The figure must have this value: it is counted.
    pub const fn exactly(figure: &'static str, value: f64) -> Bound {
        Bound::between(figure, value, value)
    }

    /// Whether there is a value that is out of the bounds.
    pub fn can_fail(&self) -> bool {
        self.at_least.is_finite() || self.at_most.is_finite()
    }

    /// Why this figure is out of the bounds, if it is.
    fn complaint(&self, figure: &LawFigure) -> Option<String> {
        let within = |value: f64| (self.at_least..=self.at_most).contains(&value);
        let (name, bounds) = (&figure.name, self.text(&figure.unit));
        if !within(figure.value) {
            let value = with_unit(figure.value, &figure.unit);
            return Some(format!("{name} is {value}, expected {bounds}"));
        }
        let (low, high) = figure.interval?;
        (!within(low) || !within(high)).then(|| {
            let (low, high) = (shown(low), with_unit(high, &figure.unit));
            format!("{name} is not shown to be {bounds}: it may be {low} to {high}")
        })
    }

    /// The bounds in words.
    fn text(&self, unit: &str) -> String {
        let end = |value| with_unit(value, unit);
        match (self.at_least.is_finite(), self.at_most.is_finite()) {
            (true, true) if self.at_least == self.at_most => end(self.at_least),
            (true, true) => format!("{} to {}", shown(self.at_least), end(self.at_most)),
            (true, false) => format!("at least {}", end(self.at_least)),
            (false, true) => format!("at most {}", end(self.at_most)),
            (false, false) => "anything".to_owned(),
        }
    }
}

/// About three significant digits.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    if unit.is_empty() { shown(value) } else { format!("{} {unit}", shown(value)) }
}

/// Holds if every bound has its figure and every figure is within its bounds, with its interval.
/// Writes the bounds into the figures and moves those that have bounds to the front.
pub fn decide(bounds: &[Bound], figures: &mut Vec<LawFigure>) -> Standing {
    let fault = bounds.iter().find_map(|bound| fault(bound, figures));
    // JSON has no infinity and no NaN.
    figures.retain(|figure| figure.value.is_finite());
    if let Some(fault) = fault {
        return Standing::Fault(fault);
    }
    let mut complaints = Vec::new();
    for bound in bounds {
        let Some(figure) = figures.iter_mut().find(|figure| figure.name == bound.figure) else {
            continue;
        };
        let finite = |end: f64| end.is_finite().then_some(end);
        (figure.at_least, figure.at_most) = (finite(bound.at_least), finite(bound.at_most));
        complaints.extend(bound.complaint(figure));
    }
    figures.sort_by_key(|figure| figure.at_least.or(figure.at_most).is_none());
    match complaints.is_empty() {
        true => Standing::Holds,
        false => Standing::NotHere(complaints.join("; ")),
    }
}

/// Why nothing can be said of a bound.
fn fault(bound: &Bound, figures: &[LawFigure]) -> Option<String> {
    match figures.iter().find(|figure| figure.name == bound.figure) {
        None => Some(format!("{} was not measured", bound.figure)),
        Some(figure) if figure.value.is_finite() => None,
        Some(figure) => Some(format!("{} is {}", figure.name, figure.value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Measured;

    const BOUNDS: &[Bound] = &[Bound::between("slope", 0.9, 1.5), Bound::at_most("threads", 1.0)];

    fn decided(slope: f64, interval: Option<(f64, f64)>, threads: f64) -> Standing {
        let measured = Measured::default()
            .figure("connections", 100.0, "")
            .figure_within("slope", slope, "", interval)
            .figure("threads", threads, "");
        let mut figures = measured.figures;
        let standing = decide(BOUNDS, &mut figures);
        assert_eq!(figures.last().unwrap().name, "connections");
        assert_eq!((figures[0].at_least, figures[0].at_most), (Some(0.9), Some(1.5)));
        assert_eq!((figures[1].at_least, figures[1].at_most), (None, Some(1.0)));
        standing
    }

    #[test]
    fn every_figure_must_be_within_its_bounds() {
        assert_eq!(decided(1.0, None, 1.0), Standing::Holds);
        let Standing::NotHere(why) = decided(1.51, None, 2.0) else { panic!("it holds") };
        assert_eq!(why, "slope is 1.51, expected 0.900 to 1.50; threads is 2, expected at most 1");
    }

    #[test]
    fn an_interval_must_be_within_the_bounds_too() {
        assert_eq!(decided(1.0, Some((0.95, 1.2)), 1.0), Standing::Holds);
        let Standing::NotHere(why) = decided(1.0, Some((0.7, 1.2)), 1.0) else {
            panic!("it holds")
        };
        assert!(why.contains("not shown") && why.contains("0.700 to 1.20"), "{why}");
    }

    #[test]
    fn a_law_without_its_figure_is_a_fault_and_not_a_pass() {
        let missing = decide(BOUNDS, &mut Measured::default().figure("slope", 1.0, "").figures);
        assert_eq!(missing, Standing::Fault("threads was not measured".into()));
        let none = Measured::default().figure("slope", f64::NAN, "").figure("threads", 1.0, "");
        let mut figures = none.figures;
        assert!(matches!(decide(BOUNDS, &mut figures), Standing::Fault(_)));
        assert!(figures.iter().all(|figure| figure.value.is_finite()), "{figures:?}");
    }

    #[test]
    fn bounds_are_told_with_their_unit() {
        assert_eq!(Bound::at_least("x", 95.0).text("%"), "at least 95 %");
        assert_eq!(Bound::exactly("x", 300.0).text(""), "300");
        assert_eq!(Bound::between("x", 10.0, 100.0).text("KiB"), "10 to 100 KiB");
        assert!(!Bound::at_most("x", f64::INFINITY).can_fail());
    }
}
