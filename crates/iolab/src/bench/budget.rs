//! `--budget`: as many rounds as fit into a given time, with shorter windows where there would be
//! too few to rank.

use record::Settings;

use crate::failure::Failure;
use crate::summary::ROUNDS_MIN;

use super::plan::{Cells, WARM_UP_MIN_S, WINDOW_MIN_S, expected_s, schedule};

/// Most rounds that a budget buys: with so many, intervals hardly narrow any more (they do with the
/// square root), and `--rounds` takes what is asked for.
const ROUNDS_MAX: u32 = 100;

/// Calibration, description of the servers and rendering, in seconds.
const FIXED_S: f64 = 3.0;

/// Share of a budget that is planned for; the rest is for a machine that is slower than expected.
const PLANNED: f64 = 0.95;

/// Steps in which windows are shortened.
const WINDOW_STEPS: u32 = 20;

/// How long a run with these settings should take, in seconds.
pub fn total_s(cells: Cells, settings: &Settings) -> f64 {
    let trials = schedule(cells, settings);
    let trials_s: f64 = trials.iter().map(|slot| expected_s(slot, cells.workloads, settings)).sum();
    FIXED_S + trials_s
}

/// Chooses rounds and windows so that the run fits into `budget_s` seconds.
///
/// # Errors
/// One sentence when not even one round fits.
pub fn fit(cells: Cells, preset: Settings, budget_s: f64) -> Result<Settings, Failure> {
    let preset = Settings { budget_s: Some(budget_s), ..preset };
    let fits = |settings: &Settings| total_s(cells, settings) <= budget_s * PLANNED;
    // From the preset's windows down to the shortest; the first that leave enough rounds are taken.
    let windows = (0..=WINDOW_STEPS).map(|step| shortened(&preset, step));
    let ranked = windows.map(|s| Settings { rounds: ROUNDS_MIN, ..s }).find(fits);
    let shortest = shortened(&preset, WINDOW_STEPS);
    let windows = ranked.unwrap_or_else(|| shortest.clone());
    let with = |rounds| Settings { rounds, ..windows.clone() };
    // Every round takes the same or more time, so the first that does not fit ends the search.
    let rounds = (1..=ROUNDS_MAX).take_while(|&rounds| fits(&with(rounds))).last();
    rounds.map(with).ok_or_else(|| {
        let needed = total_s(cells, &Settings { rounds: 1, ..shortest }) / PLANNED;
        Failure(format!(
            "--budget: one round of everything takes about {needed:.0} s and {budget_s:.0} s are \
             given: give more, or name fewer --models or --workloads"
        ))
    })
}

/// The preset's windows, shortened by so many of [`WINDOW_STEPS`] steps.
fn shortened(preset: &Settings, step: u32) -> Settings {
    let share = f64::from(step) / f64::from(WINDOW_STEPS);
    let between = |longest: f64, shortest: f64| longest - (longest - shortest).max(0.0) * share;
    Settings {
        window_s: between(preset.window_s, WINDOW_MIN_S),
        warm_up_s: between(preset.warm_up_s, WARM_UP_MIN_S),
        ..preset.clone()
    }
}

/// What was chosen, and what it costs, for people.
pub fn explain(chosen: &Settings, preset: &Settings, total_s: f64) -> String {
    let mut told = format!(
        "budget: {} round{} with windows of {:.2} s, about {total_s:.0} s in all",
        chosen.rounds,
        if chosen.rounds == 1 { "" } else { "s" },
        chosen.window_s
    );
    if chosen.window_s < preset.window_s {
        told += &format!(" (shortened from {:.2} s: wider intervals)", preset.window_s);
    }
    if chosen.rounds < ROUNDS_MIN {
        told += &format!("; nothing is ranked with fewer than {ROUNDS_MIN} rounds");
    }
    told
}

#[cfg(test)]
mod tests {
    use record::{Preset, Workload};

    use super::super::{plan, workload};
    use super::*;

    fn with_cells<T>(work: impl FnOnce(Cells) -> T) -> T {
        let models = [fixture::model("epoll"), fixture::model("poll")];
        let workloads: Vec<Workload> = workload::all().unwrap();
        work(Cells { models: &models, workloads: &workloads, skips: &[], reference: "epoll" })
    }

    #[test]
    fn a_budget_is_used_and_kept() {
        with_cells(|cells| {
            let preset = plan::settings(Preset::Default, 1);
            for budget_s in [60.0, 300.0, 1_000.0] {
                let chosen = fit(cells, preset.clone(), budget_s).unwrap();
                assert!(total_s(cells, &chosen) <= budget_s * PLANNED);
                let more = Settings { rounds: chosen.rounds + 1, ..chosen };
                assert!(total_s(cells, &more) > budget_s * PLANNED);
            }
        });
    }

    #[test]
    fn windows_are_shortened_before_the_ranking_is_given_up() {
        with_cells(|cells| {
            let preset = plan::settings(Preset::Thorough, 1);
            let six = |window_s, warm_up_s| {
                total_s(cells, &Settings { rounds: 6, window_s, warm_up_s, ..preset.clone() })
            };
            let (short, long) =
                (six(WINDOW_MIN_S, WARM_UP_MIN_S), six(preset.window_s, preset.warm_up_s));
            let chosen = fit(cells, preset.clone(), (long + 0.5) / PLANNED).unwrap();
            assert_eq!((chosen.rounds, chosen.window_s), (6, preset.window_s));
            let chosen = fit(cells, preset.clone(), (short + long) / 2.0 / PLANNED).unwrap();
            assert_eq!(chosen.rounds, 6);
            assert!(chosen.window_s > WINDOW_MIN_S && chosen.window_s < preset.window_s);
            let told = explain(&chosen, &preset, 1.0);
            assert!(told.contains("shortened from") && !told.contains("ranked"), "{told}");
            let chosen = fit(cells, preset.clone(), short * 0.6).unwrap();
            assert!(chosen.rounds < 6 && chosen.window_s == WINDOW_MIN_S);
            assert!(explain(&chosen, &preset, 1.0).contains("nothing is ranked"));
        });
    }

    #[test]
    fn what_cannot_fit_is_refused_with_what_would() {
        with_cells(|cells| {
            let preset = plan::settings(Preset::Default, 1);
            let refused = fit(cells, preset.clone(), 5.0).unwrap_err().0;
            assert!(refused.contains("one round of everything takes about"), "{refused}");
            let needed: f64 = refused.split(' ').find_map(|word| word.parse().ok()).unwrap();
            assert_eq!(fit(cells, preset, needed + 1.0).unwrap().rounds, 1);
        });
    }
}
