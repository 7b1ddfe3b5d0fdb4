//! `--budget`: the number of rounds that fits into a given time.

use record::Settings;

use render::failure::Failure;
use render::text;
use verdict::statistics::EPOCHS_MIN;

use super::plan::{Cells, expected_s, schedule};

/// Maximum number of rounds. Intervals narrow with the square root of it, so more rounds are of
/// little use; `--rounds` has no such limit.
const ROUNDS_MAX: u32 = 100;

/// Time of calibration, `--describe` of the servers and rendering, in seconds.
const FIXED_S: f64 = 3.0;

/// Share of the budget that is planned; the rest is a reserve for a slower machine.
const PLANNED: f64 = 0.95;

/// The expected time of a run, in seconds.
pub fn total_s(cells: Cells, settings: &Settings) -> f64 {
    let slots = schedule(cells, settings);
    FIXED_S + slots.iter().map(|slot| expected_s(slot, cells.workloads, settings)).sum::<f64>()
}

/// Chooses the number of rounds for a run of `budget_s` seconds.
///
/// # Errors
/// One sentence if not even one round fits.
pub fn fit(cells: Cells, preset: Settings, budget_s: f64) -> Result<Settings, Failure> {
    let with = |rounds| Settings { rounds, budget_s: Some(budget_s), ..preset.clone() };
    let fits = |rounds: &u32| total_s(cells, &with(*rounds)) <= budget_s * PLANNED;
    // The time grows with the number of rounds, so the first that does not fit ends the search.
    (1..=ROUNDS_MAX).take_while(fits).last().map(with).ok_or_else(|| {
        let needed_s = total_s(cells, &with(1)) / PLANNED;
        Failure(format!(
            "--budget: one round of everything takes about {needed_s:.0} s, more than \
             {budget_s:.0} s: give more time, or fewer --models or --workloads"
        ))
    })
}

pub fn explain(chosen: &Settings, total_s: f64) -> String {
    let rounds = text::count(chosen.rounds, "round");
    let mut told = format!("budget: {rounds}, about {total_s:.0} s in total");
    if (chosen.rounds as usize) < EPOCHS_MIN {
        told += &format!("; no difference can be shown with fewer than {EPOCHS_MIN}");
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
            for budget_s in [120.0, 300.0, 600.0] {
                let chosen = fit(cells, preset.clone(), budget_s).unwrap();
                assert!(total_s(cells, &chosen) <= budget_s * PLANNED);
                let more = Settings { rounds: chosen.rounds + 1, ..chosen };
                assert!(total_s(cells, &more) > budget_s * PLANNED);
            }
        });
    }

    #[test]
    fn what_cannot_fit_is_refused_with_what_would() {
        with_cells(|cells| {
            let preset = plan::settings(Preset::Default, 1);
            let refused = fit(cells, preset.clone(), 5.0).unwrap_err().0;
            assert!(refused.contains("one round of everything takes about"), "{refused}");
            let needed: f64 = refused.split(' ').find_map(|word| word.parse().ok()).unwrap();
            let chosen = fit(cells, preset, needed + 1.0).unwrap();
            assert_eq!(chosen.rounds, 1);
            assert!(explain(&chosen, 1.0).contains("no difference can be shown with fewer than 3"));
        });
    }
}
