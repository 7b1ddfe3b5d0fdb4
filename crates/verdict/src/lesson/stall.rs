//! Whose clients wait for a computation, by the recording of `stall`.

use record::Recording;

use super::{Answer, Lesson, Sentence, time, who_waits};

/// A client waited for the computation if it waited for this share of it: it may have come in the
/// middle.
const SHARE_MIN: f64 = 0.5;
/// The models that the notes are about: with one thread for all clients, and with a thread
/// or process each.
const ONE_THREAD: &[&str] = &["serial", "busy", "select", "poll", "epoll", "sigio", "uring"];
const THREAD_EACH: &[&str] = &["threads", "pool", "prefork"];

struct Model {
    name: String,
    longest_us: f64,
    stalls: bool,
}

fn models(recording: &Recording) -> Vec<Model> {
    let model = |run: &record::Run| {
        let others = recording.spans_of(&run.run).filter(|span| span.lane != "computes");
        let longest_us = others.map(|span| span.to_us - span.from_us).reduce(f64::max)?;
        // On a loaded machine 300 ms of CPU take longer.
        let computes = recording.spans_of(&run.run).find(|span| span.lane == "computes")?;
        let stalls = longest_us >= SHARE_MIN * (computes.to_us - computes.from_us);
        Some(Model { name: run.run.clone(), longest_us, stalls })
    };
    recording.runs.iter().filter_map(model).collect()
}

fn names(models: &[&Model]) -> String {
    super::names(models.iter().map(|model| model.name.as_str()))
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let models = models(recording);
    let (stalled, free): (Vec<&Model>, Vec<&Model>) = models.iter().partition(|model| model.stalls);
    let sentences = vec![loops(&models), threads(&models)].into_iter().flatten();
    let sentences = sentences.chain(others(&models)).collect();
    let text = match (stalled.is_empty(), free.is_empty()) {
        (true, true) => "no run was made".to_owned(),
        (true, false) => "While one request computes, the clients of no model wait".to_owned(),
        (false, _) => {
            format!("While one request computes, the clients of {} wait", names(&stalled))
        }
    };
    let holds = !stalled.is_empty() && !free.is_empty();
    Lesson { finding: Sentence { text, holds }, sentences, answer: answer(&models) }
}

fn of<'a>(models: &'a [Model], known: &[&str]) -> Vec<&'a Model> {
    models.iter().filter(|model| known.contains(&model.name.as_str())).collect()
}

/// The shortest and the longest of the longest waits.
fn range(models: &[&Model]) -> String {
    let waits = || models.iter().map(|model| model.longest_us);
    let (least, most) = (waits().fold(f64::MAX, f64::min), waits().fold(0.0, f64::max));
    match models {
        [_] => time(most),
        _ => format!("{} to {}", time(least), time(most)),
    }
}

fn loops(models: &[Model]) -> Option<Sentence> {
    let all = of(models, ONE_THREAD);
    let free: Vec<&Model> = all.iter().copied().filter(|model| !model.stalls).collect();
    (!all.is_empty()).then(|| {
        Sentence::new(
            free.is_empty(),
            format!(
                "{}: one thread serves all clients, so the others waited up to {}.",
                names(&all),
                range(&all)
            ),
            format!(
                "{}: one thread serves all clients, and yet no client waited for the computation.",
                names(&free)
            ),
        )
    })
}

fn threads(models: &[Model]) -> Option<Sentence> {
    let all = of(models, THREAD_EACH);
    let stalled: Vec<&Model> = all.iter().copied().filter(|model| model.stalls).collect();
    (!all.is_empty()).then(|| {
        Sentence::new(
            stalled.is_empty(),
            format!(
                "{}: another thread or process serves the others while one computes; they waited \
                 up to {}.",
                names(&all),
                range(&all)
            ),
            format!(
                "{}: a thread or process for each client, and yet the others waited up to {}.",
                names(&stalled),
                range(&stalled)
            ),
        )
    })
}

/// A runtime decides by itself which thread runs what.
fn others(models: &[Model]) -> Vec<Sentence> {
    let other = |model: &&Model| {
        let name = model.name.as_str();
        !ONE_THREAD.contains(&name) && !THREAD_EACH.contains(&name)
    };
    let sentence = |model: &Model| {
        let (name, waited) = (&model.name, time(model.longest_us));
        Sentence::new(
            model.stalls,
            format!(
                "{name}: the others waited up to {waited}: a task that computes lets no other run \
                 on its thread."
            ),
            format!("{name}: the others waited at most {waited}; another thread served them."),
        )
    };
    models.iter().filter(other).map(sentence).collect()
}

fn answer(models: &[Model]) -> Option<Answer> {
    let stalls = |known| of(models, known).iter().map(|model| model.stalls).collect();
    let of_loops = "those of models with one thread for all clients";
    who_waits([stalls(ONE_THREAD), stalls(THREAD_EACH)], of_loops, models.is_empty())
}

#[cfg(test)]
mod tests {
    use record::{Run, Span};

    use super::*;

    fn recording(runs: &[(&str, f64)]) -> Recording {
        let mut recording = super::super::tests::recording("stall");
        for &(run, longest_ms) in runs {
            recording.runs.push(Run { run: run.into(), ..Run::default() });
            for (lane, ms) in [("client 1", 1.0), ("client 2", longest_ms), ("computes", 300.0)] {
                let (run, lane, to_us) = (run.into(), lane.into(), ms * 1e3);
                recording.spans.push(Span { run, lane, to_us, ..Span::default() });
            }
        }
        recording
    }

    fn holds(recording: &Recording) -> Vec<bool> {
        lesson(recording).sentences.iter().map(|sentence| sentence.holds).collect()
    }

    #[test]
    fn a_loop_stalls_and_a_thread_each_does_not() {
        let seen =
            recording(&[("epoll", 298.0), ("poll", 300.0), ("threads", 2.0), ("tokio", 290.0)]);
        assert_eq!(holds(&seen), [true; 3]);
        let lesson = lesson(&seen);
        assert!(
            lesson.finding.text.contains("of epoll, poll and tokio wait") && lesson.finding.holds
        );
        let one = "those of models with one thread for all clients".to_owned();
        assert_eq!(lesson.answer, Some(Answer::Choice(one)));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // No computation.
        let seen = recording(&[("epoll", 2.0), ("threads", 2.0)]);
        assert_eq!(holds(&seen), [false, true]);
        assert!(lesson(&seen).finding.text.contains("of no model"));
        // A server with a thread each that is in truth a loop.
        let seen = recording(&[("epoll", 300.0), ("threads", 300.0)]);
        assert_eq!(holds(&seen), [true, false]);
        assert!(!lesson(&seen).finding.holds);
    }
}
