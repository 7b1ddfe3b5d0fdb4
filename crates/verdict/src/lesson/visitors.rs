//! How long the 51st visitor waits, by the recording of `visitors`.

use std::collections::BTreeMap;

use record::Recording;

use super::{Answer, Lesson, Sentence, time};

/// Who is the first that has no seat: 300 / 6 + 1.
const FIRST_WITHOUT: u32 = 51;
/// A visitor waited for a seat if it waited for this share of the time that a seat is kept.
const SHARE_MIN: f64 = 0.25;

/// One visitor, all connections together, in microseconds.
struct Visitor {
    arrives: f64,
    /// The last of its replies is complete.
    served: f64,
    /// The first of its connections is closed.
    leaves: f64,
}

impl Visitor {
    fn waited(&self) -> f64 {
        self.served - self.arrives
    }
}

struct Room {
    title: String,
    kept_us: f64,
    threads: f64,
    visitors: BTreeMap<u32, Visitor>,
}

impl Room {
    fn of(recording: &Recording, run: &str) -> Option<Room> {
        let title = recording.runs.iter().find(|one| one.run == run)?.title.clone();
        let mut visitors: BTreeMap<u32, Visitor> = BTreeMap::new();
        for span in recording.spans_of(run) {
            let visitor = visitors.entry(span.lane.parse().ok()?).or_insert(Visitor {
                arrives: f64::MAX,
                served: 0.0,
                leaves: f64::MAX,
            });
            visitor.arrives = visitor.arrives.min(span.from_us);
            match span.kind.as_str() {
                "transfer" => visitor.served = visitor.served.max(span.to_us),
                "kept" => visitor.leaves = visitor.leaves.min(span.to_us),
                _ => {}
            }
        }
        let kept_us = recording.figure(run, "idle_timeout_ms")? * 1e3;
        let threads = recording.figure(run, "server_threads")?;
        Some(Room { title, kept_us, threads, visitors })
    }

    fn waits(&self, visitor: &Visitor) -> bool {
        visitor.waited() >= SHARE_MIN * self.kept_us
    }

    /// The first who waited for a seat.
    fn first_without(&self) -> Option<u32> {
        let mut all = self.visitors.iter();
        all.find(|(_, visitor)| self.waits(visitor)).map(|(number, _)| *number)
    }

    fn waited_us(&self, number: u32) -> f64 {
        self.visitors.get(&number).map_or(0.0, Visitor::waited)
    }

    /// The longest that one of the first 50 waited.
    fn seated_us(&self) -> f64 {
        let seated = self.visitors.range(..FIRST_WITHOUT);
        seated.map(|(_, visitor)| visitor.waited()).fold(0.0, f64::max)
    }
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let room = |run: &str| Room::of(recording, run);
    let Some(pool) = room("pool") else {
        let finding = Sentence { text: "no run was made".to_owned(), holds: false };
        return Lesson { finding, sentences: Vec::new(), answer: None };
    };
    let mut sentences = vec![who(&pool), until_when(&pool)];
    for run in ["shorter", "more", "loop"] {
        sentences.extend(room(run).map(|other| remedy(&pool, &other)));
    }
    sentences.extend(room("loop").map(|other| threads(&pool, &other)));
    Lesson { finding: finding(&pool), answer: Some(answer(&pool)), sentences }
}

fn finding(pool: &Room) -> Sentence {
    let waited = time(pool.waited_us(FIRST_WITHOUT));
    let instead = match pool.first_without() {
        None => format!("No visitor waits for a seat: the 51st waits {waited}"),
        Some(first) => format!("The first visitor who waits for a seat is number {first}"),
    };
    Sentence::new(
        pool.first_without() == Some(FIRST_WITHOUT),
        format!(
            "With 300 workers the first 50 visitors wait at most {}, the 51st {waited}",
            time(pool.seated_us())
        ),
        instead,
    )
}

fn who(pool: &Room) -> Sentence {
    let (waited, seated) = (time(pool.waited_us(FIRST_WITHOUT)), time(pool.seated_us()));
    let instead = format!("{}.", finding(pool).text);
    Sentence::new(
        pool.first_without() == Some(FIRST_WITHOUT),
        format!(
            "300 workers are 50 visitors with 6 connections each. They waited at most {seated}; \
             the 51st was the first without a seat and waited {waited}."
        ),
        instead,
    )
}

/// Whether the 51st was served only after a connection had been given up.
fn after_a_closing(pool: &Room) -> bool {
    let seated = || pool.visitors.range(..FIRST_WITHOUT).map(|(_, visitor)| visitor);
    let first_left = seated().map(|visitor| visitor.leaves).fold(f64::MAX, f64::min);
    let waiting = pool.visitors.get(&FIRST_WITHOUT);
    waiting.is_some_and(|visitor| visitor.served >= first_left && pool.waits(visitor))
}

fn until_when(pool: &Room) -> Sentence {
    let seated = pool.visitors.range(..FIRST_WITHOUT).map(|(_, visitor)| visitor.served);
    let done = seated.fold(0.0, f64::max);
    let served = pool.visitors.get(&FIRST_WITHOUT).map_or(0.0, |visitor| visitor.served);
    Sentence::new(
        after_a_closing(pool) && done < served,
        format!(
            "It was not served when the requests of the others were done (after {}), but when the \
             first of their connections had been closed (after {}): a kept connection holds a \
             worker without a request.",
            time(done),
            time(served)
        ),
        format!(
            "The 51st was served after {}; it did not have to wait until a connection was closed.",
            time(served)
        ),
    )
}

fn remedy(pool: &Room, other: &Room) -> Sentence {
    let (before, after) = (pool.waited_us(FIRST_WITHOUT), other.waited_us(FIRST_WITHOUT));
    let title = &other.title;
    let (then, now) = (time(before), time(after));
    Sentence::new(
        after < before / 2.0,
        format!("With {title}: the 51st waits {now} in place of {then}."),
        format!("With {title}: the 51st waits {now}, which is no remedy for {then}."),
    )
}

fn threads(pool: &Room, other: &Room) -> Sentence {
    let (many, few) = (pool.threads, other.threads);
    let visitors = other.visitors.len();
    Sentence::new(
        few * 10.0 < many,
        format!(
            "The event loop kept {visitors} visitors with {few} threads, the pool 50 with {many}."
        ),
        format!("The event loop had {few} threads, and the pool {many}."),
    )
}

fn answer(pool: &Room) -> Answer {
    let waits = pool.visitors.get(&FIRST_WITHOUT).is_some_and(|visitor| pool.waits(visitor));
    let choice = match (waits, after_a_closing(pool)) {
        (false, _) => "it does not wait",
        (true, true) => "until the connections of another visitor are closed",
        (true, false) => "until a request of another visitor is done",
    };
    Answer::Choice(choice.to_owned())
}

#[cfg(test)]
mod tests {
    use record::{Figure, Run, Span};

    use super::*;

    /// Runs of 60 visitors, of whom so many have a seat, which they keep for so long.
    fn recording(runs: &[(&str, u32, f64, f64)]) -> Recording {
        let mut recording = super::super::tests::recording("visitors");
        for &(run, seats, kept_ms, threads) in runs {
            recording.runs.push(Run { run: run.into(), title: run.into(), ..Run::default() });
            for visitor in 1..=60 {
                let arrives = f64::from(visitor) * 4e3;
                let waits = if visitor <= seats { 1e3 } else { kept_ms * 1e3 };
                let served = arrives + waits;
                let phases = [
                    ("connect", arrives, arrives + 100.0),
                    ("wait", arrives + 100.0, served - 10.0),
                    ("transfer", served - 10.0, served),
                    ("kept", served, served + kept_ms * 1e3),
                ];
                for (kind, from_us, to_us) in phases {
                    let (run, lane, kind) = (run.into(), visitor.to_string(), kind.into());
                    let span = Span { run, lane, kind, from_us, to_us, ..Span::default() };
                    recording.spans.push(span);
                }
            }
            for (name, value) in [("idle_timeout_ms", kept_ms), ("server_threads", threads)] {
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
    fn the_51st_waits_for_a_seat_and_remedies_help() {
        let seen = recording(&[
            ("pool", 50, 2_000.0, 302.0),
            ("shorter", 50, 200.0, 302.0),
            ("more", 60, 2_000.0, 402.0),
            ("loop", 60, 2_000.0, 2.0),
        ]);
        assert_eq!(holds(&seen), [true; 6]);
        let lesson = lesson(&seen);
        assert!(lesson.finding.holds && lesson.finding.text.contains("the 51st 2.00 s"));
        let closed = "until the connections of another visitor are closed".to_owned();
        assert_eq!(lesson.answer, Some(Answer::Choice(closed)));
    }

    #[test]
    fn with_a_seat_for_everybody_nobody_waits() {
        let seen = recording(&[("pool", 60, 2_000.0, 302.0), ("loop", 60, 2_000.0, 302.0)]);
        assert_eq!(holds(&seen), [false; 4]);
        let lesson = lesson(&seen);
        assert!(!lesson.finding.holds);
        assert_eq!(lesson.answer, Some(Answer::Choice("it does not wait".to_owned())));
        // With 40 seats somebody else is the first.
        let fewer = recording(&[("pool", 40, 2_000.0, 242.0)]);
        let text = super::lesson(&fewer).sentences[0].text.clone();
        assert!(text.contains("number 41"), "{text}");
    }
}
