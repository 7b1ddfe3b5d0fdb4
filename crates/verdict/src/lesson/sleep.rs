//! What the sleep of processors costs a request, by the recording of `sleep`.

use record::Recording;

use super::{Answer, Lesson, Sentence};
use crate::statistics::{MARGIN, median};

/// A request that waits for a sleeping processor wakes one for itself, or one for its reply. With
/// fewer sleeps than this for each request, other work keeps the processors awake.
const SLEEPS_MIN: f64 = 0.5;
/// Held awake they do not sleep, but for the moments at the borders of a slice.
const SLEEPS_MAX_AWAKE: f64 = 0.1;
/// In so large a share of the blocks the difference must have the same sign: of 24 fair coins, 21
/// fall to one side once in 3,600 times.
const AGREE_MIN: f64 = 0.85;

/// The points of one kind of slice, by block.
struct Kind {
    round_trip_us: Vec<f64>,
    client_cpu_us: Vec<f64>,
    server_cpu_us: Vec<f64>,
    sleeps: Vec<f64>,
    p99_us: Option<f64>,
}

impl Kind {
    fn of(recording: &Recording, run: &str) -> Option<Kind> {
        let points = |name: &str| {
            let figures = recording.figures.iter();
            let mut points: Vec<(f64, f64)> = figures
                .filter(|figure| figure.run == run && figure.name == name)
                .filter_map(|figure| Some((figure.x?, figure.value)))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points.into_iter().map(|(_, value)| value).collect::<Vec<f64>>()
        };
        Some(Kind {
            round_trip_us: Some(points("round_trip_us")).filter(|points| !points.is_empty())?,
            client_cpu_us: points("client_cpu_us"),
            server_cpu_us: points("server_cpu_us"),
            sleeps: points("processor_sleeps_per_request"),
            p99_us: recording.figure(run, "latency_p99_us"),
        })
    }

    fn cpu_us(&self) -> Vec<f64> {
        let sums = self.client_cpu_us.iter().zip(&self.server_cpu_us);
        sums.map(|(client, server)| client + server).collect()
    }
}

/// In which share of the blocks the first value is above the second.
fn share_above(one: &[f64], other: &[f64]) -> f64 {
    let pairs = one.len().min(other.len());
    let above = one.iter().zip(other).filter(|(one, other)| one > other).count();
    above as f64 / pairs.max(1) as f64
}

/// Whether the first value is above the second in nearly all blocks, and by enough to matter.
fn is_more(one: &[f64], other: &[f64]) -> bool {
    share_above(one, other) >= AGREE_MIN && middle(one) > (1.0 + MARGIN) * middle(other)
}

pub(super) fn lesson(recording: &Recording) -> Lesson {
    let kind = |run: &str| Kind::of(recording, run);
    let (Some(asleep), Some(awake)) = (kind("asleep"), kind("awake")) else {
        let text = "a run with sleeping and one with waking processors were not both made";
        let finding = Sentence { text: text.to_owned(), holds: false };
        return Lesson { finding, sentences: Vec::new(), answer: None };
    };
    let pairs = asleep.round_trip_us.iter().zip(&awake.round_trip_us);
    let times: Vec<f64> = pairs.map(|(asleep, awake)| asleep / awake).collect();
    let mut sentences = vec![longer(&asleep, &awake), cpu(&asleep, &awake)];
    sentences.splice(0..0, sleeps(&asleep, &awake));
    sentences.extend(tail(&asleep, &awake));
    Lesson {
        finding: finding(&asleep, &awake),
        sentences,
        answer: median(&times).map(Answer::Number),
    }
}

/// The median, of what was measured.
fn middle(values: &[f64]) -> f64 {
    median(values).unwrap_or(0.0)
}

fn finding(asleep: &Kind, awake: &Kind) -> Sentence {
    let [slow, quick] = [asleep, awake].map(|kind| middle(&kind.round_trip_us));
    Sentence::new(
        is_more(&asleep.round_trip_us, &awake.round_trip_us),
        format!(
            "A request takes {slow:.0} us if the processors may sleep, and {quick:.0} us if they \
             are held awake"
        ),
        format!(
            "A request takes {slow:.0} us if the processors may sleep and {quick:.0} us if they \
             are held awake: no difference that matters"
        ),
    )
}

/// `None` where the kernel does not count the sleeps.
fn sleeps(asleep: &Kind, awake: &Kind) -> Option<Sentence> {
    let often = median(&asleep.sleeps)?;
    let seldom = median(&awake.sleeps)?;
    Some(Sentence::new(
        often >= SLEEPS_MIN && seldom <= SLEEPS_MAX_AWAKE,
        format!(
            "A processor fell asleep {often:.1} times for each request: both ends wait in turn. \
             Held awake, {seldom:.2} times."
        ),
        format!(
            "A processor fell asleep {often:.2} times for each request, and {seldom:.2} times when \
             held awake: something else kept them from sleeping, or let them."
        ),
    ))
}

fn longer(asleep: &Kind, awake: &Kind) -> Sentence {
    let share = share_above(&asleep.round_trip_us, &awake.round_trip_us);
    let blocks = asleep.round_trip_us.len();
    let [slow, quick] = [asleep, awake].map(|kind| middle(&kind.round_trip_us));
    Sentence::new(
        is_more(&asleep.round_trip_us, &awake.round_trip_us),
        format!(
            "With sleep a request took longer in {:.0} of {blocks} blocks: waking up took {:.0} us \
             of its {slow:.0} us, and the server and the client were the same.",
            share * blocks as f64,
            slow - quick
        ),
        format!(
            "A request took {slow:.1} us and {quick:.1} us, and longer with sleep in {:.0} of \
             {blocks} blocks: no difference that matters.",
            share * blocks as f64
        ),
    )
}

fn cpu(asleep: &Kind, awake: &Kind) -> Sentence {
    let (with, without) = (asleep.cpu_us(), awake.cpu_us());
    let told = |kind: &Kind| {
        let (server, client) = (middle(&kind.server_cpu_us), middle(&kind.client_cpu_us));
        format!("{server:.0} us of the server and {client:.0} us of the client")
    };
    let (one, other) = (told(asleep), told(awake));
    Sentence::new(
        is_more(&with, &without),
        format!(
            "It used more CPU too: {one} with sleep, {other} without. To wake a processor is work \
             for the one that wakes it, and after its sleep a processor is slower."
        ),
        match is_more(&without, &with) {
            true => format!("It used less CPU with sleep: {one}; without it {other}."),
            false => format!("CPU was about the same: {one} with sleep, {other} without."),
        },
    )
}

/// `None` where too few requests were seen.
fn tail(asleep: &Kind, awake: &Kind) -> Option<Sentence> {
    let (slow, quick) = (asleep.p99_us?, awake.p99_us?);
    Some(Sentence::new(
        slow > (1.0 + MARGIN) * quick,
        format!(
            "One in a hundred took longer than {slow:.0} us with sleep and {quick:.0} us without: \
             the longest waits are longer too."
        ),
        format!(
            "One in a hundred took longer than {slow:.0} us with sleep and {quick:.0} us without: \
             the longest waits have another cause."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use record::{Figure, Run};

    use super::*;

    /// Round trip, CPU of each end, sleeps for each request, and the 99th percentile.
    type Row<'a> = (&'a str, f64, f64, f64, f64);

    fn recording(rows: &[Row]) -> Recording {
        let mut recording = super::super::tests::recording("sleep");
        for &(run, round_trip_us, cpu_us, sleeps, p99_us) in rows {
            recording.runs.push(Run { run: run.into(), ..Run::default() });
            let mut add = |name: &str, x, value| {
                let (run, name) = (run.to_owned(), name.to_owned());
                recording.figures.push(Figure { run, name, x, value, interval: None });
            };
            for block in 0..24 {
                let x = Some(f64::from(block));
                add("round_trip_us", x, round_trip_us + f64::from(block % 5));
                add("client_cpu_us", x, cpu_us);
                add("server_cpu_us", x, cpu_us);
                add("processor_sleeps_per_request", x, sleeps);
            }
            add("latency_p99_us", None, p99_us);
        }
        recording
    }

    fn holds(recording: &Recording) -> (bool, Vec<bool>) {
        let lesson = lesson(recording);
        (lesson.finding.holds, lesson.sentences.iter().map(|one| one.holds).collect())
    }

    #[test]
    fn sleep_makes_a_request_longer_and_dearer() {
        let seen =
            recording(&[("asleep", 70.0, 12.0, 1.9, 150.0), ("awake", 25.0, 9.0, 0.0, 60.0)]);
        assert_eq!(holds(&seen), (true, vec![true; 4]));
        let Some(Answer::Number(times)) = lesson(&seen).answer else { panic!() };
        assert!((2.0..3.0).contains(&times), "{times}");
    }

    #[test]
    fn without_its_cause_each_sentence_says_something_else() {
        // The processors were awake in both runs.
        let same = ("asleep", 25.0, 9.0, 0.0, 60.0);
        let seen = recording(&[same, ("awake", 25.0, 9.0, 0.0, 60.0)]);
        assert_eq!(holds(&seen), (false, vec![false; 4]));
        assert_eq!(lesson(&recording(&[same])).answer, None);
    }
}
