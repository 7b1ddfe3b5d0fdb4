//! What a crowd costs, by the recording of the experiment `crowd`.

use record::Recording;

use super::{Answer, Lesson, Sentence};

/// From the fewest to the most silent connections the cost has grown if it is this many times as
/// much. A model whose cost does not depend on them stays below it, although caches are colder.
const GROWN_MIN: f64 = 2.0;
/// poll and epoll differ by an order of magnitude among the largest crowd.
const APART_MIN: f64 = 10.0;

/// One connection is active. A wake-up for something else may come beside it.
const RETURNED_MAX: f64 = 3.0;

/// Server CPU per request of one model, by the number of silent connections, ascending.
fn costs(recording: &Recording, model: &str) -> Vec<(f64, f64)> {
    let runs = recording.runs.iter().filter(|run| run.model == model);
    let point = |run: &record::Run| {
        let of = |name: &str| recording.figure(&run.run, name);
        Some((of("silent_connections")?, of("server_cpu_per_request_us")?))
    };
    runs.filter_map(point).collect()
}

/// What the waits of a model gave to the kernel and got back, among one crowd.
struct Looked<'a> {
    model: &'a str,
    silent: f64,
    watched: f64,
    given: f64,
    returned: f64,
}

impl Looked<'_> {
    fn told(&self) -> String {
        let Looked { model, watched, given, returned, .. } = self;
        let given = match *given > 0.0 {
            true => format!("{model} gave the kernel {given:.0} descriptors"),
            false => format!("{model} gave it none of the {watched:.0} that it watches"),
        };
        format!("{given} and got {returned:.1} back")
    }

    /// Whether each wait gave all.
    fn gives_all(&self) -> bool {
        self.given >= self.silent
    }

    /// Whether the kernel keeps the list.
    fn gives_none(&self) -> bool {
        self.given == 0.0 && self.watched >= self.silent
    }

    /// One client asks, so hardly more than its connection is ready.
    fn gets_few(&self) -> bool {
        self.returned < RETURNED_MAX
    }
}

/// Of the largest crowd of a model.
fn looked<'a>(recording: &Recording, model: &'a str) -> Option<Looked<'a>> {
    let runs = recording.runs.iter().filter(|run| run.model == model);
    let of = |run: &record::Run| {
        let of = |name: &str| recording.figure(&run.run, name);
        Some(Looked {
            model,
            silent: of("silent_connections")?,
            watched: of("descriptors_watched")?,
            given: of("descriptors_given_per_wait")?,
            returned: of("descriptors_returned_per_wait")?,
        })
    };
    runs.filter_map(of).max_by(|a, b| a.silent.total_cmp(&b.silent))
}

fn returned(recording: &Recording) -> Option<Sentence> {
    let [select, poll, epoll] = ["select", "poll", "epoll"].map(|model| looked(recording, model));
    let (poll, epoll) = (poll?, epoll?);
    let all: Vec<&Looked> = select.iter().chain([&poll, &epoll]).collect();
    let each: Vec<String> = all.iter().map(|one| one.told()).collect();
    let seen = format!("In each wait {}", each.join(", "));
    let lists = select.iter().chain([&poll]).all(Looked::gives_all);
    Some(Sentence::new(
        lists && epoll.gives_none() && all.iter().all(|one| one.gets_few()),
        format!("{seen}: who gives a list in each call has all of it looked at in each call."),
        format!("{seen}."),
    ))
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let grown = ["poll", "select"].map(|model| growth(recording, model));
    let mut sentences: Vec<Sentence> = grown.into_iter().flatten().collect();
    sentences.extend(flat(recording));
    sentences.extend(returned(recording));
    let last = |model: &str| costs(recording, model).last().copied();
    let (Some((silent, poll)), Some((_, epoll))) = (last("poll"), last("epoll")) else {
        let finding = Sentence { text: "poll and epoll were not both run".into(), holds: false };
        return Lesson { finding, sentences, answer: None };
    };
    let times = poll / epoll;
    let finding = Sentence::new(
        times >= APART_MIN,
        format!(
            "Among {silent} silent connections a request costs poll {times:.0} times as much CPU \
             as epoll"
        ),
        format!(
            "Among {silent} silent connections a request costs poll {poll:.1} us of CPU and epoll \
             {epoll:.1} us"
        ),
    );
    Lesson { finding, sentences, answer: Some(Answer::Number(times)) }
}

/// The ends of a model's line, in words, and how many times the last is the first.
fn ends(recording: &Recording, model: &str) -> Option<(String, f64)> {
    let costs = costs(recording, model);
    let (few, first) = costs.first().copied()?;
    let (many, last) = costs.last().copied()?;
    let told = format!(
        "With {model} a request costs {first:.1} us of the server's CPU among {few} silent \
         connections and {last:.1} us among {many}"
    );
    Some((told, last / first))
}

fn growth(recording: &Recording, model: &str) -> Option<Sentence> {
    let (told, times) = ends(recording, model)?;
    Some(Sentence::new(
        times >= GROWN_MIN,
        format!(
            "{told}, {times:.1} times as much: the kernel looks at each descriptor in each call."
        ),
        format!("{told}: the number of descriptors hardly mattered."),
    ))
}

fn flat(recording: &Recording) -> Option<Sentence> {
    let (told, times) = ends(recording, "epoll")?;
    Some(Sentence::new(
        times < GROWN_MIN,
        format!("{told}: epoll_wait(2) looks only at what is ready."),
        format!("{told}, {times:.1} times as much: it grew with those who are silent."),
    ))
}

#[cfg(test)]
mod tests {
    use record::{Environment, Figure, Heading, RECORDING_VERSION, Run};

    use super::*;

    /// `each_us`: what a silent connection adds to a request, for select, poll and epoll.
    fn recording(each_us: [f64; 3]) -> Recording {
        let mut recording = Recording::new(Heading {
            recording_version: RECORDING_VERSION,
            experiment: "crowd".into(),
            command: String::new(),
            prediction: None,
            environment: Environment::default(),
        });
        for (model, each_us) in ["select", "poll", "epoll"].iter().zip(each_us) {
            for silent in [10.0, 900.0, 10_000.0] {
                if *model == "select" && silent > 900.0 {
                    continue;
                }
                let run = format!("{model}-{silent}");
                let model = (*model).to_owned();
                recording.runs.push(Run { run: run.clone(), model, ..Run::default() });
                let cost = 20.0 + silent * each_us;
                for (name, value) in
                    [("silent_connections", silent), ("server_cpu_per_request_us", cost)]
                {
                    let (run, name) = (run.clone(), name.to_owned());
                    recording.figures.push(Figure { run, name, value, ..Figure::default() });
                }
            }
        }
        recording
    }

    fn holds(recording: &Recording) -> (bool, Vec<bool>) {
        let lesson = lesson(recording);
        (lesson.finding.holds, lesson.sentences.iter().map(|one| one.holds).collect())
    }

    #[test]
    fn what_is_looked_at_at_each_call_costs_at_each_call() {
        let seen = recording([0.03, 0.05, 0.0]);
        assert_eq!(holds(&seen), (true, vec![true, true, true]));
        let lesson = lesson(&seen);
        assert!(lesson.finding.text.contains("poll 26 times as much"), "{}", lesson.finding.text);
        assert_eq!(lesson.answer, Some(Answer::Number(26.0)));
    }

    /// Watched, given and returned descriptors of each model.
    fn with_waits(mut recording: Recording, waits: [[f64; 3]; 3]) -> Recording {
        for (model, values) in ["select", "poll", "epoll"].iter().zip(waits) {
            let runs = recording.runs.iter().filter(|run| run.model == *model);
            let runs: Vec<String> = runs.map(|run| run.run.clone()).collect();
            for run in runs {
                let names = [
                    "descriptors_watched",
                    "descriptors_given_per_wait",
                    "descriptors_returned_per_wait",
                ];
                for (name, value) in names.into_iter().zip(values) {
                    let (run, name) = (run.clone(), name.to_owned());
                    recording.figures.push(Figure { run, name, value, ..Figure::default() });
                }
            }
        }
        recording
    }

    #[test]
    fn what_is_given_is_looked_at_and_little_comes_back() {
        let (select, poll, epoll) =
            ([904.0, 904.0, 1.0], [10_004.0, 10_004.0, 1.1], [10_004.0, 0.0, 1.0]);
        let said = |waits: [[f64; 3]; 3]| {
            let lesson = lesson(&with_waits(recording([0.03, 0.05, 0.0]), waits));
            lesson.sentences.last().unwrap().clone()
        };
        let seen = said([select, poll, epoll]);
        assert!(seen.holds, "{}", seen.text);
        let told = "poll gave the kernel 10004 descriptors and got 1.1 back, epoll gave it none of \
                    the 10004 that it watches and got 1.0 back";
        assert!(seen.text.contains(told), "{}", seen.text);
        // epoll in the place of poll, poll in that of epoll, and a crowd that is not silent.
        assert!(!said([select, epoll, epoll]).holds && !said([select, poll, poll]).holds);
        assert!(!said([select, poll, [10_004.0, 0.0, 400.0]]).holds);
        // epoll that watches hardly anything.
        assert!(!said([select, poll, [4.0, 0.0, 1.0]]).holds);
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // epoll in the place of all three.
        assert_eq!(holds(&recording([0.0; 3])), (false, vec![false, false, true]));
        // poll in the place of epoll.
        assert_eq!(holds(&recording([0.03, 0.05, 0.05])), (false, vec![true, true, false]));
        let mut nothing = recording([0.0; 3]);
        nothing.figures.clear();
        assert_eq!(holds(&nothing), (false, vec![]));
    }
}
