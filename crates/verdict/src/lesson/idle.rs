//! Who uses CPU while no client sends, by the recording of the experiment `idle`.

use record::{Recording, Run};

use super::{Answer, Lesson, Sentence};

/// A loop that does not sleep has a core, or its part of one that it shares with other processes.
const SPINS_MIN_PERCENT: f64 = 20.0;
/// A model that sleeps uses less: it wakes up for timers alone.
const SLEEPS_MAX_PERCENT: f64 = 2.0;
/// The same in wake-ups: timers of a server are tens of milliseconds apart, or more.
const WAKE_UPS_MAX_PER_S: f64 = 50.0;

struct Seen<'a> {
    model: &'a str,
    percent: f64,
    wake_ups_per_s: f64,
}

fn seen(recording: &Recording) -> Vec<Seen<'_>> {
    let one = |run: &'_ Run| -> Option<(f64, f64)> {
        let of = |name: &str| recording.figure(&run.run, name);
        Some((of("cpu_share_percent")?, of("wake_ups_per_s")?))
    };
    let all = recording.runs.iter();
    all.filter_map(|run| {
        let (percent, wake_ups_per_s) = one(run)?;
        Some(Seen { model: &run.model, percent, wake_ups_per_s })
    })
    .collect()
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let seen = seen(recording);
    let most = seen.iter().max_by(|a, b| a.percent.total_cmp(&b.percent));
    let Some(most) = most else {
        let finding = Sentence { text: "no model was run".to_owned(), holds: false };
        return Lesson { finding, sentences: Vec::new(), answer: None };
    };
    let (busy, others): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|one| one.model == "busy");
    let mut sentences: Vec<Sentence> = busy.iter().map(|busy| spins(busy)).collect();
    sentences.extend((!others.is_empty()).then(|| sleep(&others)));
    sentences.extend((!others.is_empty()).then(|| wake_ups(&others)));
    let alone = most.model == "busy"
        && most.percent >= SPINS_MIN_PERCENT
        && others.iter().all(|one| one.percent < SLEEPS_MAX_PERCENT);
    let finding = Sentence::new(
        alone,
        format!("While no client sends, only busy uses CPU: {:.0} % of a core", most.percent),
        format!("While no client sends, {} uses {:.1} % of a core", most.model, most.percent),
    );
    Lesson { finding, sentences, answer: Some(Answer::Choice(most.model.to_owned())) }
}

fn spins(busy: &Seen) -> Sentence {
    let Seen { percent, wake_ups_per_s, .. } = busy;
    Sentence::new(
        *percent >= SPINS_MIN_PERCENT,
        format!(
            "busy used {percent:.0} % of a core: it asks every socket again and again, and each \
             answer is EAGAIN."
        ),
        format!(
            "busy used {percent:.1} % of a core and woke up {wake_ups_per_s:.0} times a second: \
             that is not a loop that asks without a pause."
        ),
    )
}

fn sleep(others: &[&Seen]) -> Sentence {
    let awake: Vec<String> = others
        .iter()
        .filter(|one| one.percent >= SLEEPS_MAX_PERCENT)
        .map(|one| format!("{} {:.1} %", one.model, one.percent))
        .collect();
    let names: Vec<&str> = others.iter().map(|one| one.model).collect();
    Sentence::new(
        awake.is_empty(),
        format!(
            "{} used less than {SLEEPS_MAX_PERCENT} % of a core each: their threads sleep in a \
             call that ends when a descriptor is ready.",
            names.join(", ")
        ),
        format!("These used a core although they could sleep: {}.", awake.join(", ")),
    )
}

fn wake_ups(others: &[&Seen]) -> Sentence {
    let often: Vec<String> = others
        .iter()
        .filter(|one| one.wake_ups_per_s > WAKE_UPS_MAX_PER_S)
        .map(|one| format!("{} {:.0}", one.model, one.wake_ups_per_s))
        .collect();
    let most = others.iter().map(|one| one.wake_ups_per_s).fold(0.0, f64::max);
    Sentence::new(
        often.is_empty(),
        format!("None of them woke up more than {most:.0} times in a second."),
        format!("These woke up often, in times a second: {}.", often.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use record::{Environment, Figure, Heading, RECORDING_VERSION};

    use super::*;

    fn recording(shares: &[(&str, f64, f64)]) -> Recording {
        let mut recording = Recording::new(Heading {
            recording_version: RECORDING_VERSION,
            experiment: "idle".into(),
            command: String::new(),
            prediction: None,
            environment: Environment::default(),
        });
        for (model, percent, wake_ups) in shares {
            let run = (*model).to_owned();
            recording.runs.push(Run { run: run.clone(), model: run.clone(), ..Run::default() });
            for (name, value) in [("cpu_share_percent", *percent), ("wake_ups_per_s", *wake_ups)] {
                let (run, name) = (run.clone(), name.to_owned());
                recording.figures.push(Figure { run, name, value, ..Figure::default() });
            }
        }
        recording
    }

    fn holds(shares: &[(&str, f64, f64)]) -> (bool, Vec<bool>) {
        let lesson = lesson(&recording(shares));
        (lesson.finding.holds, lesson.sentences.iter().map(|one| one.holds).collect())
    }

    #[test]
    fn one_model_spins_and_the_others_sleep() {
        let shares = [("threads", 0.0, 0.0), ("busy", 99.1, 3.0), ("epoll", 0.1, 2.0)];
        assert_eq!(holds(&shares), (true, vec![true, true, true]));
        let lesson = lesson(&recording(&shares));
        assert!(lesson.finding.text.ends_with("only busy uses CPU: 99 % of a core"));
        assert_eq!(lesson.answer, Some(Answer::Choice("busy".to_owned())));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // epoll in the place of busy.
        let slept = [("busy", 0.1, 4.0), ("epoll", 0.0, 2.0)];
        assert_eq!(holds(&slept), (false, vec![false, true, true]));
        // busy in the place of epoll.
        let spins = [("busy", 60.0, 4.0), ("epoll", 61.0, 2.0)];
        assert_eq!(holds(&spins), (false, vec![true, false, true]));
        let polls = [("busy", 60.0, 4.0), ("epoll", 1.0, 900.0)];
        assert_eq!(holds(&polls), (true, vec![true, true, false]));
        assert_eq!(holds(&[]), (false, vec![]));
    }
}
