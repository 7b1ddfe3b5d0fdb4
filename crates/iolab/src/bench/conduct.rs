//! The run itself: trial after trial, the file written after every round.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use record::{Measured, Model, Outcome, Results, Role, Slot, Trial, Workload};
use tempfile::TempDir;

use crate::text::thousands;

use super::keep::Keeper;
use super::progress::Progress;
use super::{INTERRUPTED, plan, trial, workload};
use rig::calibrate;
use rig::executable::Watched;

/// A cell that failed so often is not tried again: every failure may cost its whole time limit.
const FAILURES_MAX: usize = 2;

/// A cell that was overloaded so often is not tried again: it says nothing new, and takes longest.
const OVERLOADS_MAX: usize = 2;

/// From this share of its requests unanswered on, an open loop is far beyond what a server can do:
/// a short stop of the machine leaves fewer.
const UNANSWERED_MAX: f64 = 0.1;

/// So is one whose 99th percentile is above one second, in microseconds.
const OVERLOAD_P99_US: f64 = 1e6;

/// A run that is going on.
pub struct Run {
    /// What is known so far.
    pub results: Results,
    /// Label -> executable.
    pub executables: BTreeMap<String, Watched>,
    /// Where the result is written.
    pub keeper: Keeper,
    /// The document root is in it.
    pub place: TempDir,
}

impl Run {
    /// Seconds that each slot of the schedule should take.
    pub fn expected_s(&self) -> Vec<f64> {
        let Results { schedule, workloads, settings, .. } = &self.results;
        schedule.iter().map(|slot| plan::expected_s(slot, workloads, settings)).collect()
    }

    /// Runs what is left of the schedule, until it is done or interrupted. The error is a sentence:
    /// why the rest would be of another server than what was measured so far.
    pub fn measure(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        let before_s = self.results.trials.last().map_or(0.0, |t| t.started_s + t.took_s);
        let first = self.results.trials.len();
        let mut progress = Progress::new(self.expected_s(), first);
        let mut at = first;
        let mut result = Ok(());
        while at < self.results.schedule.len() && !INTERRUPTED.load(Ordering::SeqCst) {
            if at == first || is_border(&self.results.schedule, at) {
                let so_far_s = before_s + begin.elapsed().as_secs_f64();
                self.begin_round(at, at > first, so_far_s, &mut progress);
            }
            let slot = self.results.schedule[at].clone();
            result = self.executables.get_mut(&slot.model).map_or(Ok(()), Watched::look);
            if result.is_err() {
                break;
            }
            progress.show(at, &slot, self.results.settings.rounds);
            let started = Instant::now();
            let outcome = self.outcome_of(&slot);
            self.results.trials.push(Trial {
                slot,
                started_s: before_s + (started - begin).as_secs_f64(),
                took_s: started.elapsed().as_secs_f64(),
                outcome,
            });
            at += 1;
        }
        progress.finish();
        result
    }

    /// What is done between two rounds: the file is written, the time left is looked at, and the
    /// machine's own costs are measured.
    fn begin_round(&mut self, at: usize, save: bool, so_far_s: f64, progress: &mut Progress) {
        if save {
            self.keeper.save(&self.results);
        }
        if at > 0 && self.is_over_budget(at, so_far_s, progress) {
            let planned = self.results.settings.rounds;
            let Results { schedule, settings, .. } = &mut self.results;
            plan::drop_rounds(schedule, settings, at);
            progress.replan(self.expected_s());
            eprintln!(
                "budget: the machine is slower than expected, so {} rounds of {planned} are made",
                self.results.settings.rounds
            );
        }
        self.read_gauge(at);
    }

    /// The machine's own costs, before the first trial of a round; a counting pass, whose times are
    /// not used, needs none. A gauge that cannot be read is told of and missing: the round is not.
    fn read_gauge(&mut self, at: usize) {
        let Results { schedule, gauges, settings, .. } = &mut self.results;
        let Slot { round, role, .. } = schedule[at];
        if role == Role::Counting || gauges.iter().any(|gauge| gauge.round == round) {
            return;
        }
        match calibrate::gauge(round, settings.server_cores.first().copied()) {
            Ok(gauge) => gauges.push(gauge),
            Err(why) => eprintln!("{why}"),
        }
    }

    /// Whether the next round, and the counting passes that follow it, would end after the budget.
    fn is_over_budget(&self, at: usize, so_far_s: f64, progress: &Progress) -> bool {
        let Results { schedule, settings, .. } = &self.results;
        let next = &schedule[at];
        let Some(budget_s) = settings.budget_s.filter(|_| next.role != Role::Counting) else {
            return false;
        };
        let needed = |slot: &&Slot| slot.role == Role::Counting || slot.round == next.round;
        let needed_s: f64 = schedule[at..]
            .iter()
            .filter(needed)
            .map(|slot| plan::expected_s(slot, &self.results.workloads, settings))
            .sum();
        so_far_s + needed_s * progress.pace(at) > budget_s
    }

    fn outcome_of(&self, slot: &Slot) -> Outcome {
        let results = &self.results;
        if let Some(reason) = given_up(results, slot) {
            return Outcome::Failed { reason };
        }
        let model = results.models.iter().find(|m| m.label == slot.model);
        let workload = results.workloads.iter().find(|w| w.name == slot.workload);
        let (Some(model), Some(workload), Some(executable)) =
            (model, workload, self.executables.get(&slot.model))
        else {
            let reason = "the schedule names a model or workload that the file does not hold";
            return Outcome::Failed { reason: reason.into() };
        };
        run_trial(
            slot,
            model,
            workload,
            &executable.path,
            results,
            &self.place.path().join(workload::DOCUMENTS),
        )
        .map_or_else(|reason| Outcome::Failed { reason }, |m| Outcome::Measured(Box::new(m)))
    }
}

fn run_trial(
    slot: &Slot,
    model: &Model,
    workload: &Workload,
    executable: &Path,
    results: &Results,
    root: &Path,
) -> Result<Measured, String> {
    let idle_sample = plan::takes_idle_sample(slot, workload, &results.settings);
    // A server that holds fewer is sampled with what it holds: it must not be failed for that.
    let most = model.connections_max.map_or(u32::MAX, |most| most.try_into().unwrap_or(u32::MAX));
    let workload = Workload {
        idle_sample_connections: workload.idle_sample_connections.min(most),
        ..workload.clone()
    };
    trial::run(&trial::Setting {
        executable,
        model,
        workload: &workload,
        settings: &plan::settings_of_trial(&results.settings, slot),
        root,
        idle_sample,
        role: slot.role,
    })
}

/// Whether a round or a counting pass begins at this place.
fn is_border(schedule: &[Slot], at: usize) -> bool {
    let block = |slot: &Slot| (slot.role == Role::Counting, slot.round);
    at > 0 && block(&schedule[at]) != block(&schedule[at - 1])
}

/// Why this cell is not tried again, if it is not. The reference is tried in every round, however
/// overloaded: all others are compared with it.
fn given_up(results: &Results, slot: &Slot) -> Option<String> {
    let same_cell = |t: &&Trial| t.slot.model == slot.model && t.slot.workload == slot.workload;
    let cell = || results.trials.iter().filter(same_cell);
    let overloads: Vec<_> = cell().filter_map(overload).take(OVERLOADS_MAX).collect();
    if overloads.len() == OVERLOADS_MAX && slot.model != results.reference {
        return Some(format!("not tried again after overload: {}", overloads.join("; ")));
    }
    let mut failures = cell().filter_map(|t| match &t.outcome {
        Outcome::Failed { reason } => Some(reason.clone()),
        Outcome::Measured(_) => None,
    });
    failures.nth(FAILURES_MAX - 1)
}

/// What shows that a trial was far beyond what its server can do; `None` if nothing does.
fn overload(trial: &Trial) -> Option<String> {
    let Outcome::Measured(measured) = &trial.outcome else { return None };
    let open = measured.load.open_loop.as_ref().filter(|open| open.invalid.is_none())?;
    let unanswered = open.unanswered as f64 / open.due.max(1) as f64;
    let p99_us = measured.load.latency.p99_us.unwrap_or(0.0);
    let told = if unanswered > UNANSWERED_MAX {
        let count = |number: u64| thousands(number as f64);
        format!("{} of {} requests unanswered", count(open.unanswered), count(open.due))
    } else if p99_us > OVERLOAD_P99_US {
        format!("a 99th percentile of {:.1} s", p99_us / 1e6)
    } else {
        return None;
    };
    Some(format!("{told} in round {}", trial.slot.round))
}

#[cfg(test)]
mod tests {
    use record::OpenLoop;

    use super::*;

    /// The results of the fixture, its trials made those of an open loop with so many requests
    /// unanswered of 1,000 due.
    fn open_loop(unanswered: u64) -> Results {
        let mut results = fixture::results();
        for trial in &mut results.trials {
            if let Outcome::Measured(measured) = &mut trial.outcome {
                let open = OpenLoop { due: 1_000, unanswered, ..OpenLoop::default() };
                measured.load.open_loop = Some(open);
            }
        }
        results
    }

    fn slot(results: &Results, model: &str) -> Slot {
        let of_model = |slot: &&Slot| slot.model == model && slot.role == Role::Timed;
        results.schedule.iter().find(of_model).unwrap().clone()
    }

    #[test]
    fn what_was_clearly_overloaded_twice_is_not_tried_again() {
        let results = open_loop(101);
        let reason = given_up(&results, &slot(&results, "poll")).unwrap();
        assert!(reason.starts_with("not tried again after overload: 101 of 1,000"), "{reason}");
        assert!(reason.contains("in round 1; ") && reason.contains("in round 2"), "{reason}");
        assert_eq!(given_up(&results, &slot(&results, "epoll")), None, "the reference goes on");
        let results = open_loop(99);
        assert_eq!(given_up(&results, &slot(&results, "poll")), None);
        let mut once = open_loop(101);
        once.trials.retain(|trial| trial.slot.round == 1);
        assert_eq!(given_up(&once, &slot(&once, "poll")), None);
    }

    #[test]
    fn a_round_or_a_pass_begins_where_the_one_before_ends() {
        let slot = |round, role| Slot {
            round,
            position: 0,
            workload: String::new(),
            model: String::new(),
            role,
        };
        let schedule = [
            slot(1, Role::Timed),
            slot(1, Role::Sentinel),
            slot(2, Role::Timed),
            slot(2, Role::Counting),
        ];
        let borders = (0..4).map(|at| is_border(&schedule, at));
        assert_eq!(borders.collect::<Vec<_>>(), [false, false, true, true]);
    }
}
