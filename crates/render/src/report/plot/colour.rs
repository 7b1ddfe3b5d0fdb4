//! Colours, each with a tone for light and one for dark pages.
//!
//! Colours alone do not distinguish a dozen lines, in particular for colour-blind readers. So lines
//! also have markers and names at their ends, and bars have names.

use record::Results;

/// One colour on both kinds of page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink {
    /// For light pages; the attributes of the elements have this tone.
    pub light: &'static str,
    /// For dark pages; the style sheet replaces the light tone by it.
    pub dark: &'static str,
}

const fn ink(light: &'static str, dark: &'static str) -> Ink {
    Ink { light, dark }
}

/// The background. Plots have their own, because the theme of the site and of the user may differ.
pub const PAGE: Ink = ink("#FAFAF8", "#161B22");
/// Text, axes and intervals.
pub const TEXT: Ink = ink("#2D333B", "#E6EDF3");
/// Grid lines.
pub const GRID: Ink = ink("#DEDEDA", "#30363D");
/// Undecided results.
pub const MUTED: Ink = ink("#68707A", "#9AA4AF");

/// A client that waits.
pub const WAITS: Ink = ink("#D1242F", "#FF6B63");

/// The known models, with similar colours for similar mechanisms: blocking brown, spinning red,
/// readiness violet to blue, a runtime green, completion teal.
const MODELS: [(&str, Ink); 11] = [
    ("serial", ink("#6E7781", "#AAB4BE")),
    ("prefork", ink("#5C4033", "#B89B8A")),
    ("threads", ink("#9A5B13", "#D9944A")),
    ("pool", ink("#A88400", "#E3C04B")),
    ("busy", ink("#CF222E", "#FF7B72")),
    ("select", ink("#8250DF", "#BC8CFF")),
    ("poll", ink("#BF3989", "#F778BA")),
    ("epoll", ink("#0550AE", "#79B8FF")),
    ("sigio", ink("#6B6B00", "#C9C95A")),
    ("tokio", ink("#1A7F37", "#56D364")),
    ("uring", ink("#07868B", "#39C5CF")),
];

/// Other models, in the order of the result file.
const OTHERS: [Ink; 6] = [
    ink("#4D6A0F", "#A3D977"),
    ink("#7C2D12", "#FF9E80"),
    ink("#5B4B8A", "#9D8CD6"),
    ink("#3B6B8C", "#8FC1E3"),
    ink("#8A4B6B", "#E0A0C0"),
    ink("#53604F", "#B5C4B0"),
];

/// Purposes of system calls: waiting, receiving, sending, and others.
pub const CALL_FAMILIES: [(&str, Ink); 6] = [
    ("waiting", ink("#0A5FB8", "#6CB2F7")),
    ("input", ink("#1F8040", "#57D068")),
    ("output", ink("#A06410", "#E0A050")),
    ("connections", ink("#8554DC", "#BA90FC")),
    ("the rest", ink("#707882", "#A8B2BC")),
    ("ring operations", ink("#08888E", "#3CC8D2")),
];

/// The colour of a known model, or of its flavour.
pub fn of_name(label: &str) -> Option<Ink> {
    let name = label.split('+').next().unwrap_or(label);
    MODELS.iter().find(|(known, _)| *known == name).map(|(_, ink)| *ink)
}

/// A model's colour, the same in all plots. A flavour (`epoll+trigger=edge`) has its model's; the
/// floor has that of the axes.
pub fn of_model(results: &Results, label: &str) -> Ink {
    if results.floor.as_deref() == Some(label) {
        return TEXT;
    }
    if let Some(ink) = of_name(label) {
        return ink;
    }
    let others = results.models.iter().filter(|model| of_name(&model.label).is_none());
    let place = others.into_iter().position(|model| model.label == label).unwrap_or(0);
    OTHERS[place % OTHERS.len()]
}

/// All colours that a plot may use.
pub fn all() -> impl Iterator<Item = Ink> {
    let named = MODELS.iter().chain(&CALL_FAMILIES).map(|(_, ink)| *ink);
    [PAGE, TEXT, GRID, MUTED, WAITS].into_iter().chain(named).chain(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance and contrast as WCAG 2.2 defines them.
    fn contrast(a: &str, b: &str) -> f64 {
        let linear = |hex: &str| match f64::from(u8::from_str_radix(hex, 16).unwrap()) / 255.0 {
            part if part <= 0.04045 => part / 12.92,
            part => ((part + 0.055) / 1.055).powf(2.4),
        };
        let luminance = |c: &str| {
            0.2126 * linear(&c[1..3]) + 0.7152 * linear(&c[3..5]) + 0.0722 * linear(&c[5..7])
        };
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    /// WCAG 2.2: 4.5 for text (1.4.3), 3 for graphics (1.4.11).
    #[test]
    fn everything_can_be_seen_on_both_pages() {
        assert!((contrast("#000000", "#FFFFFF") - 21.0).abs() < 1e-9);
        for ink in all().filter(|ink| ![PAGE, GRID].contains(ink)) {
            let least = if [TEXT, MUTED].contains(&ink) { 4.5 } else { 3.0 };
            assert!(contrast(ink.light, PAGE.light) >= least, "{ink:?} on a light page");
            assert!(contrast(ink.dark, PAGE.dark) >= least, "{ink:?} on a dark page");
        }
    }

    /// The style sheet finds a colour by its light tone, so each light tone must have one dark tone
    /// only.
    #[test]
    fn light_tones_are_unique() {
        let all: Vec<Ink> = all().collect();
        for (i, ink) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other.light != ink.light), "{ink:?}");
        }
    }

    #[test]
    fn a_flavour_has_its_models_colour_and_strangers_have_their_own() {
        let mut results = fixture::results();
        assert_eq!(of_model(&results, "epoll+trigger=edge"), of_model(&results, "epoll"));
        results.models.extend(["nginx", "h2o"].map(fixture::model));
        assert_ne!(of_model(&results, "nginx"), of_model(&results, "h2o"));
    }
}
