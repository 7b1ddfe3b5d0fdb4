//! The progress line. It is drawn between epochs only and without a thread of its own, so that it
//! does not disturb a measurement.

use std::io::{IsTerminal, stderr};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use record::{Role, Slot};

pub struct Progress {
    bar: Option<ProgressBar>,
    expected_s: Vec<f64>,
    begin: Instant,
    done_before: usize,
    block_told: Option<(bool, u32)>,
}

impl Progress {
    /// `expected_s`: the expected time of each slot, in seconds; `done` slots are done already.
    pub fn new(expected_s: Vec<f64>, done: usize) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(u8::MAX);
            let bar = ProgressBar::with_draw_target(Some(expected_s.len() as u64), target);
            // The template has no colour, so NO_COLOR has no effect.
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Progress { bar, expected_s, begin: Instant::now(), done_before: done, block_told: None }
    }

    /// Replaces the expected times after a change of the schedule.
    pub fn replan(&mut self, expected_s: Vec<f64>) {
        self.expected_s = expected_s;
        if let Some(bar) = &self.bar {
            bar.set_length(self.expected_s.len() as u64);
        }
    }

    /// Shows that these slots begin, an epoch or a counting trial; `at` is the place of the first.
    pub fn show(&mut self, at: usize, slots: &[Slot], rounds: u32) {
        let Some(slot) = slots.first() else { return };
        let left = remaining(self.left_s(at));
        let counting = slot.role == Role::Counting;
        match &self.bar {
            Some(bar) => {
                bar.set_position(at as u64);
                let block = match counting {
                    true => format!("counting system calls  {}  {}", slot.workload, slot.model),
                    false => format!("round {}/{rounds}  {}", slot.round, names(slots)),
                };
                bar.set_message(format!("{block}  {left}"));
                bar.tick();
            }
            None if self.block_told != Some((counting, slot.round)) => {
                self.block_told = Some((counting, slot.round));
                let block = match counting {
                    true => "counting system calls".to_owned(),
                    false => format!("round {} of {rounds}", slot.round),
                };
                eprintln!("{block}, {left}");
            }
            None => {}
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// The time that the trials before place `at` took, divided by the expected time.
    pub fn pace(&self, at: usize) -> f64 {
        let planned: f64 = self.expected_s[self.done_before..at].iter().sum();
        if planned > 0.0 { self.begin.elapsed().as_secs_f64() / planned } else { 1.0 }
    }

    /// The expected time of the rest, corrected by the pace so far.
    fn left_s(&self, at: usize) -> f64 {
        self.expected_s[at..].iter().sum::<f64>() * self.pace(at)
    }
}

fn names(slots: &[Slot]) -> String {
    let mut names: Vec<&str> = slots.iter().map(|slot| &*slot.workload).collect();
    names.dedup();
    match &names[..] {
        [only] => (*only).to_owned(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
        [] => String::new(),
    }
}

/// The time left, rounded.
pub fn remaining(seconds: f64) -> String {
    match seconds.round() as u64 {
        0..=1 => "nearly done".into(),
        s @ 2..=90 => format!("about {s} s left"),
        s => format!("about {} min left", s.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_reads_well() {
        assert_eq!(remaining(0.2), "nearly done");
        assert_eq!(remaining(42.4), "about 42 s left");
        assert_eq!(remaining(61.0 * 7.0), "about 8 min left");
    }

    #[test]
    fn an_epoch_is_named_by_its_workloads() {
        let slot = |workload: &str| Slot {
            round: 1,
            position: 0,
            workload: workload.to_owned(),
            model: "epoll".to_owned(),
            role: Role::Timed,
        };
        let slots = ["active-1", "active-1", "active-8", "active-512"].map(slot);
        assert_eq!(names(&slots), "active-1 and 2 more");
        assert_eq!(names(&slots[..2]), "active-1");
    }

    #[test]
    fn before_the_first_trial_the_plan_decides() {
        let mut progress = Progress::new(vec![1.0, 2.0, 3.0], 1);
        assert!((progress.left_s(1) - 5.0).abs() < 1e-9);
        assert_eq!(progress.left_s(3), 0.0);
        progress.replan(vec![1.0, 2.0]);
        assert!((progress.left_s(1) - 2.0).abs() < 1e-9);
    }
}
