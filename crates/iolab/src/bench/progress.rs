//! The progress line: what runs and how long is left. Drawn between trials only, never while
//! something is being timed, and never by a thread of its own.

use std::io::{IsTerminal, stderr};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use record::Slot;

/// Says how far a run has come.
pub struct Progress {
    bar: Option<ProgressBar>,
    expected_s: Vec<f64>,
    begin: Instant,
    done_before: usize,
    round_told: u32,
}

impl Progress {
    /// For trials expected to take so many seconds each, of which `done` are done already.
    pub fn new(expected_s: Vec<f64>, done: usize) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(u8::MAX);
            let bar = ProgressBar::with_draw_target(Some(expected_s.len() as u64), target);
            // No colour is asked for, so NO_COLOR has nothing to switch off.
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Progress { bar, expected_s, begin: Instant::now(), done_before: done, round_told: 0 }
    }

    /// A trial is about to begin: the `at`-th of all.
    pub fn show(&mut self, at: usize, slot: &Slot, rounds: u32) {
        let left = remaining(self.left_s(at));
        match &self.bar {
            Some(bar) => {
                bar.set_position(at as u64);
                let (round, workload, model) = (slot.round, &slot.workload, &slot.model);
                bar.set_message(format!("round {round}/{rounds}  {workload}  {model}  {left}"));
                bar.tick();
            }
            None if slot.round > self.round_told => {
                self.round_told = slot.round;
                let trials = self.expected_s.len();
                eprintln!("round {} of {rounds}, trial {} of {trials}, {left}", slot.round, at + 1);
            }
            None => {}
        }
    }

    /// Removes the line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// What the plan expects for the rest, corrected by the pace so far.
    fn left_s(&self, at: usize) -> f64 {
        let sum = |range: &[f64]| range.iter().sum::<f64>();
        let planned = sum(&self.expected_s[self.done_before..at]);
        let pace = if planned > 0.0 { self.begin.elapsed().as_secs_f64() / planned } else { 1.0 };
        sum(&self.expected_s[at..]) * pace
    }
}

/// Seconds as people say them.
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
    fn before_the_first_trial_the_plan_decides() {
        let progress = Progress::new(vec![1.0, 2.0, 3.0], 1);
        assert!((progress.left_s(1) - 5.0).abs() < 1e-9);
        assert_eq!(progress.left_s(3), 0.0);
    }
}
