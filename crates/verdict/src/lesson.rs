//! What an experiment shows: sentences whose truth is computed from its recording.
//!
//! Each sentence has a predicate and two texts. Where the predicate does not hold, the second text
//! says what was seen instead, so a conclusion changes with its cause.

mod cold_file;
mod crowd;
pub mod edge;
mod idle;
mod memory;
mod news;
mod request;
mod sleep;
pub mod slow_reader;
mod staircase;
mod stall;
mod streams;
mod teacher;
mod visitors;

use record::Recording;

use super::list;

/// One sentence of a conclusion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The sentence.
    pub text: String,
    /// Whether it is what the experiment is there to show; otherwise it says what was seen instead.
    pub holds: bool,
}

impl Sentence {
    /// `shown` if `holds`, else `instead`.
    pub fn new(holds: bool, shown: String, instead: String) -> Sentence {
        Sentence { text: if holds { shown } else { instead }, holds }
    }
}

/// The answer to the question that the reader is asked before the run.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// One of the choices.
    Choice(String),
    /// A number.
    Number(f64),
}

/// All that is said of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// The finding, for the title of the picture.
    pub finding: Sentence,
    /// The conclusion.
    pub sentences: Vec<Sentence>,
    /// The answer; `None` if what was asked could not be measured.
    pub answer: Option<Answer>,
}

/// What this recording shows; `None` if there is no experiment of its name.
pub fn of(recording: &Recording) -> Option<Lesson> {
    match recording.heading.experiment.as_str() {
        "request" => Some(request::lesson(recording)),
        "staircase" => Some(staircase::lesson(recording)),
        "visitors" => Some(visitors::lesson(recording)),
        "teacher" => Some(teacher::lesson(recording)),
        "stall" => Some(stall::lesson(recording)),
        "news" => Some(news::lesson(recording)),
        "streams" => Some(streams::lesson(recording)),
        "crowd" => Some(crowd::lesson(recording)),
        "idle" => Some(idle::lesson(recording)),
        "memory" => Some(memory::lesson(recording)),
        "edge" => Some(edge::lesson(recording)),
        "slow-reader" => Some(slow_reader::lesson(recording)),
        "sleep" => Some(sleep::lesson(recording)),
        "cold-file" => Some(cold_file::lesson(recording)),
        _ => None,
    }
}

/// What is said of a prediction: how near it was.
pub fn compare(predicted: &str, answer: Option<&Answer>, unit: &str) -> String {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    match (answer, number(predicted)) {
        (None, _) => format!("You predicted {predicted}; it could not be measured here."),
        (Some(Answer::Choice(seen)), _) if seen == predicted => {
            format!("You predicted {predicted}, and so it was.")
        }
        (Some(Answer::Choice(seen)), _) => format!("You predicted {predicted}; it was {seen}."),
        (Some(Answer::Number(seen)), Some(said)) if *seen != 0.0 && said != 0.0 => {
            let factor = if said > *seen { said / seen } else { seen / said };
            let far = if said > *seen { "too high" } else { "too low" };
            let seen = rounded(*seen);
            match factor {
                // A guess from arithmetic leaves out slow start and the server's own time.
                1.0..1.25 => format!("You predicted {said} {unit}; it was {seen}: close."),
                _ => {
                    format!("You predicted {said} {unit}; it was {seen}: {factor:.1} times {far}.")
                }
            }
        }
        (Some(Answer::Number(seen)), _) => {
            format!("You predicted {predicted} {unit}; it was {}.", rounded(*seen))
        }
    }
}

/// Two or three digits, as far as they mean something.
fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// These models, for a sentence.
fn names<'a>(models: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = models.collect();
    if names.is_empty() { "no model".to_owned() } else { list(&names) }
}

/// Whose clients wait while one request takes long: those of the loops, of the models with a thread
/// for each client, of both or of none. The majority of each group decides. `None` without a model.
fn who_waits([loops, each]: [Vec<bool>; 2], of_loops: &str, is_empty: bool) -> Option<Answer> {
    let most =
        |stalls: Vec<bool>| stalls.iter().filter(|stalls| **stalls).count() * 2 > stalls.len();
    let choice = match (most(loops), most(each)) {
        _ if is_empty => return None,
        (true, true) => "those of all models",
        (true, false) => of_loops,
        (false, true) => "those of models with a thread for each client",
        (false, false) => "those of no model",
    };
    Some(Answer::Choice(choice.to_owned()))
}

/// `1.04 s`, `218 ms`, `0.42 ms`.
fn time(us: f64) -> String {
    match us {
        us if us >= 999_500.0 => format!("{:.2} s", us / 1e6),
        us if us >= 9_950.0 => format!("{:.0} ms", us / 1e3),
        us if us >= 995.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} ms", us / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) use fixture::recording;

    #[test]
    fn a_prediction_is_compared_with_what_was_seen() {
        let number = Answer::Number(410.0);
        assert!(compare("400", Some(&number), "ms").ends_with("it was 410: close."));
        assert!(compare("100", Some(&number), "ms").ends_with("4.1 times too low."));
        assert!(compare("4100", Some(&number), "ms").ends_with("10.0 times too high."));
        assert!(compare("much", Some(&number), "ms").ends_with("it was 410."));
        let choice = Answer::Choice("threads".to_owned());
        assert!(compare("threads", Some(&choice), "").ends_with("so it was."));
        assert!(compare("epoll", Some(&choice), "").ends_with("it was threads."));
        assert!(compare("1", None, "ms").contains("could not be measured"));
    }
}
