//! After how many steps each file is complete, by the recording of `staircase`.

use record::Recording;

use super::{Answer, Lesson, Sentence};

/// A file is complete after N steps if it took less than this share of a step more or less: half
/// way to another whole number.
const OFF_MAX: f64 = 0.5;

/// One way of fetching the files.
struct Way {
    title: String,
    /// Connections that the server accepted.
    connections: f64,
    /// When each file was complete, in steps.
    steps: Vec<f64>,
}

impl Way {
    fn of(recording: &Recording, run: &str) -> Option<Way> {
        let title = recording.runs.iter().find(|one| one.run == run)?.title.clone();
        let step_us = recording.figure(run, "step_ms")? * 1e3;
        let transfers = recording.spans_of(run).filter(|span| span.kind == "transfer");
        let mut ends: Vec<_> = transfers.map(|span| (span.request, span.to_us / step_us)).collect();
        ends.sort_by_key(|end| end.0);
        let steps: Vec<f64> = ends.into_iter().map(|end| end.1).collect();
        let connections = recording.figure(run, "connections_accepted")?;
        (steps.len() >= 2).then_some(Way { title, connections, steps })
    }

    /// Whether the files are complete after so many steps.
    fn is(&self, expected: impl Fn(usize) -> f64) -> bool {
        let mut each = self.steps.iter().enumerate();
        each.all(|(file, steps)| (steps - expected(file)).abs() < OFF_MAX)
    }

    fn last(&self) -> f64 {
        self.steps.iter().copied().fold(0.0, f64::max)
    }

    /// `a after 3.0 steps, b after 6.0, g after 21.1`.
    fn told(&self) -> String {
        let file = |at: usize| char::from(b'a' + at as u8);
        let shown = [0, 1, self.steps.len() - 1];
        let parts = shown.map(|at| format!("{} after {:.1}", file(at), self.steps[at]));
        let [first, rest @ ..] = &parts;
        format!("{first} steps, {}", rest.join(", "))
    }
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let way = |run: &str| Way::of(recording, run);
    let [close, kept, pipelined, six, h2] =
        ["close", "keep-alive", "pipelined", "six", "h2"].map(way);
    let ways: Vec<&Way> =
        [&close, &kept, &pipelined, &six, &h2].into_iter().filter_map(Option::as_ref).collect();
    let mut sentences = Vec::new();
    sentences.extend(close.as_ref().map(without));
    sentences.extend(kept.as_ref().map(with));
    sentences.extend(pipelined.as_ref().map(in_order));
    sentences.extend(six.as_ref().map(browser));
    sentences.extend(h2.as_ref().map(streams));
    let answer = kept.as_ref().map(|way| Answer::Number(way.steps[1]));
    Lesson { finding: finding(&ways), sentences, answer }
}

fn finding(ways: &[&Way]) -> Sentence {
    let Some(first) = ways.first() else {
        return Sentence { text: "no run was made".to_owned(), holds: false };
    };
    let each = ways.iter().map(|way| format!("{:.0} steps {}", way.last(), way.title));
    let each: Vec<String> = each.collect();
    let text = format!("{} files take {}", first.steps.len(), each.join("; "));
    Sentence { text, holds: ways.windows(2).all(|pair| pair[0].last() > pair[1].last()) }
}

fn without(way: &Way) -> Sentence {
    let told = way.told();
    Sentence::new(
        way.is(|file| 3.0 * (file as f64 + 1.0)) && way.connections == way.steps.len() as f64,
        format!("Without keep-alive each file takes all three steps after the one before: {told}."),
        format!("Without keep-alive: {told}. It is not three steps a file."),
    )
}

fn with(way: &Way) -> Sentence {
    let told = way.told();
    Sentence::new(
        way.is(|file| 3.0 + 2.0 * file as f64) && way.connections == 1.0,
        format!("With keep-alive only the first file connects: {told}."),
        format!("With keep-alive as asked for: {told}, over {} connections.", way.connections),
    )
}

fn in_order(way: &Way) -> Sentence {
    let told = way.told();
    Sentence::new(
        way.is(|file| 3.0 + file as f64) && way.connections == 1.0,
        format!(
            "Pipelined, the requests travel together, but the server answers them in order, one \
             after the other: {told}."
        ),
        format!("Pipelined: {told}. The server did not take one step for each file in order."),
    )
}

fn browser(way: &Way) -> Sentence {
    let told = way.told();
    let six = way.connections as usize;
    Sentence::new(
        six > 1 && way.is(|file| 3.0 + 2.0 * (file / six) as f64),
        format!(
            "Over {six} connections, {six} files are complete at the same time; the next one waits \
             for a connection: {told}."
        ),
        format!("Over {six} connections: {told}. The files were not complete {six} at a time."),
    )
}

fn streams(way: &Way) -> Sentence {
    let told = way.told();
    Sentence::new(
        way.is(|_| 3.0) && way.connections == 1.0,
        format!("Over HTTP/2 all files share one connection and none waits for another: {told}."),
        format!("Over HTTP/2, with {} connections: {told}.", way.connections),
    )
}

#[cfg(test)]
mod tests {
    use record::{Figure, Run, Span};

    use super::*;

    /// Seven files in each way, complete after these steps.
    fn recording(connections: [f64; 5], steps: [fn(usize) -> f64; 5]) -> Recording {
        let mut recording = super::super::tests::recording("staircase");
        let runs = ["close", "keep-alive", "pipelined", "six", "h2"];
        for ((run, connections), steps) in runs.into_iter().zip(connections).zip(steps) {
            recording.runs.push(Run { run: run.into(), ..Run::default() });
            for file in 0..7 {
                let to_us = steps(file as usize) * 1e5;
                let (kind, request) = ("transfer".to_owned(), Some(file));
                let span = Span { run: run.into(), kind, request, to_us, ..Span::default() };
                recording.spans.push(span);
            }
            for (name, value) in [("step_ms", 100.0), ("connections_accepted", connections)] {
                let (run, name) = (run.to_owned(), name.to_owned());
                recording.figures.push(Figure { run, name, value, ..Figure::default() });
            }
        }
        recording
    }

    const STAIRS: [fn(usize) -> f64; 5] = [
        |file| 3.02 * (file as f64 + 1.0),
        |file| 3.1 + 2.01 * file as f64,
        |file| 3.1 + file as f64,
        |file| if file < 6 { 3.1 } else { 5.1 },
        |_| 3.1,
    ];
    const CONNECTIONS: [f64; 5] = [7.0, 1.0, 1.0, 6.0, 1.0];

    fn holds(recording: &Recording) -> Vec<bool> {
        lesson(recording).sentences.iter().map(|sentence| sentence.holds).collect()
    }

    #[test]
    fn the_arithmetic_of_the_notes_holds() {
        let seen = recording(CONNECTIONS, STAIRS);
        assert_eq!(holds(&seen), [true; 5]);
        let lesson = lesson(&seen);
        assert!(lesson.finding.holds, "{:?}", lesson.finding);
        assert_eq!(lesson.answer, Some(Answer::Number(3.1 + 2.01)));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // A link without a delay: only the server's step is left.
        let flat: [fn(usize) -> f64; 5] = [
            |file| 1.0 + file as f64,
            |file| 1.0 + file as f64,
            |file| 1.0 + file as f64,
            |file| if file < 6 { 1.0 } else { 2.0 },
            |_| 1.0,
        ];
        assert_eq!(holds(&recording(CONNECTIONS, flat)), [false; 5]);
        // A server that does not keep the connection.
        assert!(!holds(&recording([7.0, 7.0, 1.0, 6.0, 1.0], STAIRS))[1]);
        // HTTP/2 that answers in order.
        let mut ordered = STAIRS;
        ordered[4] = STAIRS[2];
        assert_eq!(holds(&recording(CONNECTIONS, ordered)), [true, true, true, true, false]);
    }
}
