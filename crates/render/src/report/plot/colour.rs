//! Colours, each with a tone for light and one for dark pages.
//!
//! Colours alone do not distinguish a dozen lines, in particular for colour-blind readers. So lines
//! also have markers and names at their ends, and bars have names.

use plotters::style::RGBColor;
use record::Results;

/// One colour on both kinds of page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink {
    /// For light pages; plotters writes this tone.
    pub light: RGBColor,
    /// For dark pages; the style sheet replaces the light tone by it.
    pub dark: RGBColor,
}

const fn ink(light: u32, dark: u32) -> Ink {
    const fn rgb(hex: u32) -> RGBColor {
        RGBColor((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
    }
    Ink { light: rgb(light), dark: rgb(dark) }
}

/// The background. Plots have their own, because the theme of the site and of the user may differ.
pub const PAGE: Ink = ink(0xFAFAF8, 0x161B22);
/// Text, axes and intervals.
pub const TEXT: Ink = ink(0x2D333B, 0xE6EDF3);
/// Grid lines.
pub const GRID: Ink = ink(0xDEDEDA, 0x30363D);
/// Undecided results.
pub const MUTED: Ink = ink(0x68707A, 0x9AA4AF);

/// The known models, with similar colours for similar mechanisms: blocking brown, spinning red,
/// readiness violet to blue, a runtime green, completion teal.
const MODELS: [(&str, Ink); 10] = [
    ("serial", ink(0x6E7781, 0xAAB4BE)),
    ("threads", ink(0x9A5B13, 0xD9944A)),
    ("pool", ink(0xA88400, 0xE3C04B)),
    ("busy", ink(0xCF222E, 0xFF7B72)),
    ("select", ink(0x8250DF, 0xBC8CFF)),
    ("poll", ink(0xBF3989, 0xF778BA)),
    ("epoll", ink(0x0550AE, 0x79B8FF)),
    ("sigio", ink(0x6B6B00, 0xC9C95A)),
    ("tokio", ink(0x1A7F37, 0x56D364)),
    ("uring", ink(0x07868B, 0x39C5CF)),
];

/// Other models, in the order of the result file.
const OTHERS: [Ink; 6] = [
    ink(0x4D6A0F, 0xA3D977),
    ink(0x7C2D12, 0xFF9E80),
    ink(0x5B4B8A, 0x9D8CD6),
    ink(0x3B6B8C, 0x8FC1E3),
    ink(0x8A4B6B, 0xE0A0C0),
    ink(0x53604F, 0xB5C4B0),
];

/// Purposes of system calls: waiting, receiving, sending, and others.
pub const CALL_FAMILIES: [(&str, Ink); 6] = [
    ("waiting", ink(0x0A5FB8, 0x6CB2F7)),
    ("input", ink(0x1F8040, 0x57D068)),
    ("output", ink(0xA06410, 0xE0A050)),
    ("connections", ink(0x8554DC, 0xBA90FC)),
    ("the rest", ink(0x707882, 0xA8B2BC)),
    ("ring operations", ink(0x08888E, 0x3CC8D2)),
];

/// A model's colour, the same in all plots. A flavour (`epoll+trigger=edge`) has its model's; the
/// floor has that of the axes.
pub fn of_model(results: &Results, label: &str) -> Ink {
    if results.floor.as_deref() == Some(label) {
        return TEXT;
    }
    let name = |label: &str| label.split('+').next().unwrap_or(label).to_owned();
    let known = |name: &str| MODELS.iter().find(|(known, _)| *known == name);
    if let Some((_, ink)) = known(&name(label)) {
        return *ink;
    }
    let others = results.models.iter().filter(|model| known(&name(&model.label)).is_none());
    let place = others.into_iter().position(|model| model.label == label).unwrap_or(0);
    OTHERS[place % OTHERS.len()]
}

/// All colours that a plot may use.
pub fn all() -> impl Iterator<Item = Ink> {
    let named = MODELS.iter().chain(&CALL_FAMILIES).map(|(_, ink)| *ink);
    [PAGE, TEXT, GRID, MUTED].into_iter().chain(named).chain(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance and contrast as WCAG 2.2 defines them.
    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let linear = |part: u8| match f64::from(part) / 255.0 {
            part if part <= 0.04045 => part / 12.92,
            part => ((part + 0.055) / 1.055).powf(2.4),
        };
        let luminance =
            |c: RGBColor| 0.2126 * linear(c.0) + 0.7152 * linear(c.1) + 0.0722 * linear(c.2);
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    /// WCAG 2.2: 4.5 for text (1.4.3), 3 for graphics (1.4.11).
    #[test]
    fn everything_can_be_seen_on_both_pages() {
        assert!((contrast(RGBColor(0, 0, 0), RGBColor(255, 255, 255)) - 21.0).abs() < 1e-9);
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
