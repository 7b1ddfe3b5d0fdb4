//! How long students wait, by the recording of `teacher`.

use record::Recording;

use super::{Answer, Lesson, Sentence, time};

/// Two ways count as equally fast if the waits of one are at most this many times the other's: a
/// loaded machine makes some waits of a millisecond longer.
const ABOUT: f64 = 4.0;

struct Class {
    threads: f64,
    cpu_ms: f64,
    students: usize,
    /// From question to answer, sorted, in microseconds.
    waits_us: Vec<f64>,
    /// From the first thought to the last answer.
    lasts_us: f64,
}

impl Class {
    fn of(recording: &Recording, run: &str) -> Option<Class> {
        let waits = || recording.spans_of(run).filter(|span| span.kind == "waits");
        let mut waits_us: Vec<f64> = waits().map(|span| span.to_us - span.from_us).collect();
        waits_us.sort_by(f64::total_cmp);
        let mut students: Vec<&str> = waits().map(|span| span.lane.as_str()).collect();
        students.sort_unstable();
        students.dedup();
        let begins = recording.spans_of(run).map(|span| span.from_us).fold(f64::MAX, f64::min);
        let ends = waits().map(|span| span.to_us).fold(0.0, f64::max);
        Some(Class {
            threads: recording.figure(run, "server_threads")?,
            cpu_ms: recording.figure(run, "server_cpu_ms")?,
            students: students.len(),
            waits_us: Some(waits_us).filter(|waits| !waits.is_empty())?,
            lasts_us: ends - begins,
        })
    }

    fn mean_us(&self) -> f64 {
        self.waits_us.iter().sum::<f64>() / self.waits_us.len() as f64
    }

    fn longest_us(&self) -> f64 {
        self.waits_us.last().copied().unwrap_or(0.0)
    }

    /// `0.20 ms in the mean and at most 1.1 ms`.
    fn told(&self) -> String {
        format!("{} in the mean and at most {}", time(self.mean_us()), time(self.longest_us()))
    }
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let class = |run: &str| Class::of(recording, run);
    let (Some(serial), Some(threads), Some(epoll)) =
        (class("serial"), class("threads"), class("epoll"))
    else {
        let finding = Sentence { text: "a run is missing".to_owned(), holds: false };
        return Lesson { finding, sentences: Vec::new(), answer: None };
    };
    let mut sentences = vec![
        one_at_a_time(&serial, &threads),
        called(&epoll, &threads),
        teachers(&epoll, &threads),
    ];
    if let (Some(threads_work), Some(epoll_work)) = (class("threads-work"), class("epoll-work")) {
        sentences.push(work(&epoll, &epoll_work, &threads_work));
    }
    let ratio = epoll.mean_us() / threads.mean_us();
    let answer = match ratio {
        ratio if ratio <= ABOUT => "about as long",
        ratio if ratio <= 20.0 => "ten times as long",
        _ => "thirty times as long",
    };
    Lesson {
        finding: finding(&serial, &epoll, &threads),
        sentences,
        answer: Some(Answer::Choice(answer.to_owned())),
    }
}

fn finding(serial: &Class, epoll: &Class, threads: &Class) -> Sentence {
    let [one, each, called] = [serial, threads, epoll].map(|class| time(class.mean_us()));
    Sentence {
        holds: epoll.mean_us() <= ABOUT * threads.mean_us()
            && serial.mean_us() > ABOUT * threads.mean_us(),
        text: format!(
            "Mean wait for a short answer: {one} one at a time, {each} with a teacher each, \
             {called} with one who is called"
        ),
    }
}

fn one_at_a_time(serial: &Class, threads: &Class) -> Sentence {
    let (told, lasts) = (serial.told(), time(serial.lasts_us));
    Sentence::new(
        serial.mean_us() > ABOUT * threads.mean_us() && serial.lasts_us > ABOUT * threads.lasts_us,
        format!(
            "One student at a time: they wait {told}, because the teacher stays with a student who \
             thinks. The class lasts {lasts}."
        ),
        format!("One student at a time: they wait {told}, not longer than with a teacher each."),
    )
}

fn called(epoll: &Class, threads: &Class) -> Sentence {
    let (one, each) = (epoll.told(), threads.told());
    Sentence::new(
        epoll.mean_us() <= ABOUT * threads.mean_us(),
        format!("One teacher who is called: they wait {one}; with a teacher each {each}."),
        format!(
            "One teacher who is called: they wait {one}, which is much longer than with a teacher \
             each, {each}."
        ),
    )
}

fn teachers(epoll: &Class, threads: &Class) -> Sentence {
    let told = format!(
        "{} students took {} threads ({:.0} ms of CPU) with a teacher each, and {} ({:.0} ms) with \
         one who is called",
        threads.students, threads.threads, threads.cpu_ms, epoll.threads, epoll.cpu_ms
    );
    Sentence::new(
        threads.threads >= threads.students as f64 && epoll.threads * 4.0 <= threads.threads,
        format!("{told}: the state of a student is kept in a table, not in a thread."),
        format!("{told}. That is not a thread for each of them against a few."),
    )
}

fn work(short: &Class, long: &Class, threads: &Class) -> Sentence {
    let (one, each) = (long.told(), threads.told());
    Sentence::new(
        long.mean_us() > ABOUT * short.mean_us(),
        format!(
            "When an answer takes the teacher's own work, the one who is called is a queue: they \
             wait {one}. With a teacher each they wait {each}, as far as there are cores for them."
        ),
        format!("With answers that take work they wait {one}, hardly longer than for short ones."),
    )
}

#[cfg(test)]
mod tests {
    use record::{Figure, Run, Span};

    use super::*;

    /// Thirty students; the waits are the same for all, in milliseconds.
    fn recording(runs: &[(&str, f64, f64)]) -> Recording {
        let mut recording = super::super::tests::recording("teacher");
        for &(run, wait_ms, threads) in runs {
            recording.runs.push(Run { run: run.into(), ..Run::default() });
            for student in 1..=30 {
                let lane = f64::from(student).to_string();
                let (from_us, to_us) = (30e3, 30e3 + wait_ms * 1e3);
                for (kind, from_us, to_us) in [("thinks", 0.0, 30e3), ("waits", from_us, to_us)] {
                    let (run, lane, kind) = (run.into(), lane.clone(), kind.into());
                    let span = Span { run, lane, kind, from_us, to_us, ..Span::default() };
                    recording.spans.push(span);
                }
            }
            for (name, value) in [("server_threads", threads), ("server_cpu_ms", 9.0)] {
                let (run, name) = (run.to_owned(), name.to_owned());
                recording.figures.push(Figure { run, name, value, ..Figure::default() });
            }
        }
        recording
    }

    fn holds(recording: &Recording) -> Vec<bool> {
        lesson(recording).sentences.iter().map(|sentence| sentence.holds).collect()
    }

    #[test]
    fn one_who_is_called_is_as_fast_as_a_teacher_each() {
        let seen = recording(&[
            ("serial", 900.0, 2.0),
            ("threads", 0.3, 32.0),
            ("epoll", 0.4, 2.0),
            ("threads-work", 70.0, 32.0),
            ("epoll-work", 140.0, 2.0),
        ]);
        assert_eq!(holds(&seen), [true; 4]);
        let lesson = lesson(&seen);
        assert!(lesson.finding.holds);
        assert_eq!(lesson.answer, Some(Answer::Choice("about as long".to_owned())));
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // Servers that are all alike: nobody is served one at a time, each has a thread, and the
        // answers take no work.
        let seen = recording(&[
            ("serial", 0.3, 32.0),
            ("threads", 0.3, 32.0),
            ("epoll", 0.3, 32.0),
            ("threads-work", 0.3, 32.0),
            ("epoll-work", 0.3, 32.0),
        ]);
        assert_eq!(holds(&seen), [false, true, false, false]);
        // One who is called, and is slow.
        let slow = [("serial", 900.0, 2.0), ("threads", 0.3, 32.0), ("epoll", 30.0, 2.0)];
        assert!(!holds(&recording(&slow))[1]);
    }
}
