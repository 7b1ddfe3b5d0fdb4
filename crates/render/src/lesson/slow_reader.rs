//! The picture of `slow-reader`: where the bytes of a client that does not read are, per model.

use record::Recording;
use verdict::lesson::Lesson;
use verdict::lesson::slow_reader::{Model, size};

use crate::report::plot::colour::{CALL_FAMILIES, Ink, MUTED};
use crate::text::lines_of;

use super::Picture;
use super::bars::{Bars, part};

/// The places of a byte: name, colour, opacity.
const PLACES: [(&str, Ink, f64); 3] = [
    ("client's receive buffer", CALL_FAMILIES[1].1, 1.0),
    ("server's send buffer", CALL_FAMILIES[2].1, 1.0),
    ("not given to the kernel", MUTED, 0.35),
];
const MIB: f64 = 1_048_576.0;

fn parts(model: &Model) -> [f64; 3] {
    [model.receive_buffer, model.send_buffer, model.unsent()].map(|bytes| bytes / MIB)
}

fn note(model: &Model) -> String {
    let third = if model.served { "third served" } else { "third waits" };
    format!("{}; {third}", model.last.words())
}

pub(super) fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Picture {
    let models: Vec<Model> =
        recording.runs.iter().filter_map(|run| Model::of(recording, run)).collect();
    let bar = |model: &Model| {
        let parts = PLACES.iter().zip(parts(model));
        let parts = parts.map(|(&(_, ink, opacity), value)| part(value, ink, opacity));
        (model.name.clone(), parts.collect(), note(model))
    };
    let bars = Bars {
        name: "slow-reader",
        subject: "where the bytes of one of the two are, and what send(2) did".to_owned(),
        key: PLACES.to_vec(),
        axis: "MiB of the body",
    };
    let svg = bars.svg(lesson, models.iter().map(bar));
    Picture { svg, text: text(&models, lesson, columns) }
}

fn text(models: &[Model], lesson: &Lesson, columns: usize) -> String {
    let mut text = lines_of(&lesson.finding.text, columns).join("\n") + "\n";
    let row = |cells: [&str; 5]| {
        let [name, receive, send, left, note] = cells;
        format!("{name:<9}{receive:>10}{send:>10}{left:>10}  {note}").trim_end().to_owned() + "\n"
    };
    text += &row(["", "receive", "send", "not yet", ""]);
    text += &row(["", "buffer", "buffer", "sent", "send; the third client"]);
    for model in models {
        let bytes = [model.receive_buffer, model.send_buffer, model.unsent()].map(size);
        text += &row([&model.name, &bytes[0], &bytes[1], &bytes[2], &note(model)]);
    }
    text
}
