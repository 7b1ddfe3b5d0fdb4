//! The run itself: epoch after epoch, the file written after every round.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use record::{Model, Outcome, Results, Role, Slot, Trial, Workload};
use tempfile::TempDir;

use render::text::thousands;

use super::keep::Keeper;
use super::progress::Progress;
use super::{interrupted, plan, workload};
use rig::epoch::{self, Entry, Part, Stop};
use rig::executable::Watched;
use rig::trial;

/// A cell with this number of failures is not measured again, to save time.
const FAILURES_MAX: usize = 2;

/// A cell with this number of overloads is not measured again: it takes longest and says nothing
/// new.
const OVERLOADS_MAX: usize = 2;

/// An open loop with a larger share of unanswered requests counts as overloaded. A short stop of
/// the machine leaves fewer unanswered.
const UNANSWERED_MAX: f64 = 0.1;

/// So does one with a higher 99th percentile, in microseconds.
const OVERLOAD_P99_US: f64 = 1e6;

pub struct Run {
    pub results: Results,
    pub executables: BTreeMap<String, Watched>,
    pub keeper: Keeper,
    /// The temporary directory with the document root.
    pub place: TempDir,
}

impl Run {
    /// The expected time of each slot of the schedule, in seconds.
    pub fn expected_s(&self) -> Vec<f64> {
        let Results { schedule, workloads, settings, .. } = &self.results;
        schedule.iter().map(|slot| plan::expected_s(slot, workloads, settings)).collect()
    }

    /// Measures the rest of the schedule, until it is done or interrupted.
    ///
    /// # Errors
    /// One sentence: why the rest cannot be measured, or that a server has changed.
    pub fn measure(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        let before_s = self.results.trials.last().map_or(0.0, |t| t.started_s + t.took_s);
        let first = self.results.trials.len();
        let mut progress = Progress::new(self.expected_s(), first);
        let mut at = first;
        let mut result = Ok(());
        while at < self.results.schedule.len() && !interrupted() {
            if at > first && is_border(&self.results.schedule, at) {
                let so_far_s = before_s + begin.elapsed().as_secs_f64();
                self.begin_round(at, so_far_s, &mut progress);
            }
            let Results { schedule, workloads, .. } = &self.results;
            let end = plan::end_of_epoch(schedule, at, workloads);
            let slots = schedule[at..end].to_vec();
            result = self.check_executables(&slots);
            if result.is_err() {
                break;
            }
            progress.show(at, &slots, self.results.settings.rounds);
            let started = Instant::now();
            let outcomes = match self.outcomes_of(&slots) {
                Ok(Some(outcomes)) => outcomes,
                Ok(None) => break,
                Err(why) => {
                    result = Err(why);
                    break;
                }
            };
            let started_s = before_s + (started - begin).as_secs_f64();
            // The trials of an epoch run together. Each gets an equal share of its time.
            let took_s = started.elapsed().as_secs_f64() / slots.len() as f64;
            let trials = slots.into_iter().zip(outcomes).zip(0_u32..);
            self.results.trials.extend(trials.map(|((slot, outcome), place)| {
                let started_s = started_s + took_s * f64::from(place);
                Trial { slot, started_s, took_s, outcome }
            }));
            at = end;
        }
        progress.finish();
        result
    }

    fn check_executables(&mut self, slots: &[Slot]) -> Result<(), String> {
        let checked =
            |slot: &Slot| self.executables.get_mut(&slot.model).map_or(Ok(()), Watched::check);
        slots.iter().try_for_each(checked)
    }

    /// Between two rounds: writes the file, and drops the rest of the rounds if the budget is too
    /// small.
    fn begin_round(&mut self, at: usize, so_far_s: f64, progress: &mut Progress) {
        self.keeper.save(&self.results);
        if self.is_over_budget(at, so_far_s, progress) {
            let planned = self.results.settings.rounds;
            let Results { schedule, settings, .. } = &mut self.results;
            plan::drop_rounds(schedule, settings, at);
            progress.replan(self.expected_s());
            eprintln!(
                "budget: the machine is slower than planned, so {} rounds of {planned} are made",
                self.results.settings.rounds
            );
        }
    }

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

    /// The outcomes of these slots: an epoch, or one counting trial. `None` after Ctrl-C: --resume
    /// measures the interrupted epoch again.
    fn outcomes_of(&self, slots: &[Slot]) -> Result<Option<Vec<Outcome>>, String> {
        let given_up: Vec<_> = slots.iter().map(|slot| given_up(&self.results, slot)).collect();
        let failed =
            |reason: &Option<String>| reason.clone().map(|reason| Outcome::Failed { reason });
        if let [slot] = slots
            && slot.role == Role::Counting
        {
            return Ok(Some(vec![failed(&given_up[0]).unwrap_or_else(|| self.counted(slot))]));
        }
        let live: Vec<&Slot> =
            slots.iter().zip(&given_up).filter(|(_, why)| why.is_none()).map(|one| one.0).collect();
        let Some(measured) = self.epoch(&live)? else { return Ok(None) };
        let mut measured = measured.into_iter();
        let missing = || Outcome::Failed { reason: "the epoch has no outcome for it".to_owned() };
        let of = |why| failed(why).or_else(|| measured.next()).unwrap_or_else(missing);
        Ok(Some(given_up.iter().map(of).collect()))
    }

    fn epoch(&self, slots: &[&Slot]) -> Result<Option<Vec<Outcome>>, String> {
        let Some(first) = slots.first() else { return Ok(Some(Vec::new())) };
        let mut seats: Vec<(&str, Role)> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for slot in slots {
            let seat = (slot.model.as_str(), slot.role);
            seats.extend((!seats.contains(&seat)).then_some(seat));
            names.extend((!names.contains(&slot.workload.as_str())).then_some(&*slot.workload));
        }
        let entries = seats.iter().map(|(label, _)| {
            let (model, executable) = self.server(label)?;
            Ok(Entry { executable, model })
        });
        let members: Vec<Entry> = entries.collect::<Result<_, String>>()?;
        let of_part = |name: &&str| {
            let workload = self.workload(name)?;
            let takes_part = |seat: &(&str, Role)| {
                let is_it =
                    |slot: &&&Slot| slot.workload == **name && (&*slot.model, slot.role) == *seat;
                slots.iter().any(|slot| is_it(&slot))
            };
            let members = (0..seats.len()).filter(|&at| takes_part(&seats[at])).collect();
            let settings = &self.results.settings;
            let idle_sample = plan::takes_idle_sample(first.round, workload, settings);
            Ok(Part { workload, members, idle_sample, doubled: plan::is_doubled(first.round) })
        };
        let workloads: Vec<Part> = names.iter().map(of_part).collect::<Result<_, String>>()?;
        let settings = plan::settings_of(&self.results.settings, first, workloads[0].workload);
        let setting = epoch::Setting {
            seed: settings.seed,
            settings: &settings,
            root: &self.place.path().join(workload::DOCUMENTS),
            interrupted: &interrupted,
            members,
            workloads,
        };
        let outcomes = match epoch::run(&setting) {
            Ok(outcomes) => outcomes,
            Err(Stop::Interrupted(_)) => return Ok(None),
            Err(Stop::Failed(reason)) => return Err(reason),
        };
        let mut cells = BTreeMap::new();
        for ((name, part), outcomes) in names.iter().zip(&setting.workloads).zip(outcomes) {
            for (&member, outcome) in part.members.iter().zip(outcomes) {
                cells.insert((*name, seats[member]), outcome);
            }
        }
        let mut of_slots = Vec::new();
        for slot in slots {
            let cell = cells.remove(&(&*slot.workload, (&*slot.model, slot.role)));
            let missing = || Err("the epoch has no outcome for it".to_owned());
            of_slots.push(match cell.unwrap_or_else(missing) {
                Ok(measured) => Outcome::Measured(Box::new(measured)),
                Err(reason) => Outcome::Failed { reason },
            });
        }
        Ok(Some(of_slots))
    }

    /// Measures a trial with system calls counted.
    fn counted(&self, slot: &Slot) -> Outcome {
        let measured = || {
            let (model, executable) = self.server(&slot.model)?;
            let workload = self.workload(&slot.workload)?;
            trial::run(&trial::Setting {
                executable,
                model,
                workload,
                settings: &plan::settings_of(&self.results.settings, slot, workload),
                root: &self.place.path().join(workload::DOCUMENTS),
            })
        };
        match measured() {
            Ok(measured) => Outcome::Measured(Box::new(measured)),
            Err(reason) => Outcome::Failed { reason },
        }
    }

    fn server(&self, label: &str) -> Result<(&Model, &Path), String> {
        let model = self.results.models.iter().find(|model| model.label == label);
        let executable = self.executables.get(label);
        let unknown = || format!("the schedule names the model {label}, which is not in the file");
        model.zip(executable).map(|(model, watched)| (model, &*watched.path)).ok_or_else(unknown)
    }

    fn workload(&self, name: &str) -> Result<&Workload, String> {
        let workload = self.results.workloads.iter().find(|workload| workload.name == name);
        workload.ok_or_else(|| {
            format!("the schedule names the workload {name}, which is not in the file")
        })
    }
}

fn is_border(schedule: &[Slot], at: usize) -> bool {
    let block = |slot: &Slot| (slot.role == Role::Counting, slot.round);
    at > 0 && block(&schedule[at]) != block(&schedule[at - 1])
}

/// Why this cell is not measured again, if that is so. The reference is measured even if it is
/// overloaded, because all other models are compared with it.
fn given_up(results: &Results, slot: &Slot) -> Option<String> {
    let same_cell = |t: &&Trial| t.slot.model == slot.model && t.slot.workload == slot.workload;
    let cell = || results.trials.iter().filter(same_cell);
    let overloads: Vec<_> = cell().filter_map(overload).take(OVERLOADS_MAX).collect();
    if overloads.len() == OVERLOADS_MAX && slot.model != results.reference {
        return Some(format!("not measured again after overload: {}", overloads.join("; ")));
    }
    let mut failures = cell().filter_map(|t| match &t.outcome {
        Outcome::Failed { reason } => Some(reason.clone()),
        Outcome::Measured(_) => None,
    });
    failures.nth(FAILURES_MAX - 1)
}

/// Evidence that a trial was overloaded.
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

    /// The results of the fixture as open loops with `unanswered` of 1,000 due requests.
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
    fn a_cell_that_was_overloaded_twice_is_not_measured_again() {
        let results = open_loop(101);
        let reason = given_up(&results, &slot(&results, "poll")).unwrap();
        assert!(reason.starts_with("not measured again after overload: 101 of 1,000"), "{reason}");
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
