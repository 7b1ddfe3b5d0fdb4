//! The picture of an experiment, as SVG and as text for a terminal: a function of its recording.
//!
//! `lanes` draws any spans over time. An experiment chooses rows, kinds and colours, in a module of
//! its name.

mod bars;
mod cold_file;
mod crowd;
mod edge;
mod idle;
mod lanes;
mod memory;
mod news;
mod request;
mod sleep;
mod slow_reader;
mod staircase;
mod stall;
mod streams;
mod teacher;
mod visitors;

use record::Recording;
use verdict::lesson::Lesson;

/// A picture.
pub struct Picture {
    /// The SVG document.
    pub svg: String,
    /// The same for a terminal, in lines of at most the given width.
    pub text: String,
}

/// The picture of this recording, `columns` wide in text; `None` if there is no experiment of its
/// name.
pub fn picture(recording: &Recording, lesson: &Lesson, columns: usize) -> Option<Picture> {
    match recording.heading.experiment.as_str() {
        "request" => Some(request::picture(recording, lesson, columns)),
        "staircase" => Some(staircase::picture(recording, lesson, columns)),
        "visitors" => Some(visitors::picture(recording, lesson, columns)),
        "teacher" => Some(teacher::picture(recording, lesson, columns)),
        "stall" => Some(stall::picture(recording, lesson, columns)),
        "news" => Some(news::picture(recording, lesson, columns)),
        "streams" => Some(streams::picture(recording, lesson, columns)),
        "crowd" => Some(crowd::picture(recording, lesson, columns)),
        "idle" => Some(idle::picture(recording, lesson, columns)),
        "memory" => Some(memory::picture(recording, lesson, columns)),
        "edge" => Some(edge::picture(recording, lesson, columns)),
        "slow-reader" => Some(slow_reader::picture(recording, lesson, columns)),
        "sleep" => Some(sleep::picture(recording, lesson, columns)),
        "cold-file" => Some(cold_file::picture(recording, lesson, columns)),
        _ => None,
    }
}
