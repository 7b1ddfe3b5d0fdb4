//! Trials, rounds, verdicts, percentiles: whether the instrument calls different what is different,
//! and nothing else.

use record::{Results, Role, SplitMix64, Workload};

use super::lab::{Lab, SHORT, Subject, Times, go_on};
use super::loops::{figures_of, measured, open};
use super::{Seen, Stop, Trap};
use crate::doubt::Doubt;
use crate::statistics::{Contrast, Match, Verdict, estimate, median, verdicts};
use crate::summary::summarise;
use crate::text::figure;

/// The checks of this file.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "aa-sentinel",
        rule: 3,
        claim: "Two identical servers are not called different: in 20 small benches of 6 rounds, \
                real trials, real verdicts.",
        expected: "`~` for requests/s and for CPU per request in >= 19 of 20",
        takes_s: 115.0,
        check: identical_servers,
    },
    Trap {
        name: "verdict-slow",
        rule: 10,
        claim: "A server that needs 10 us of CPU per request more than the reference, which is \
                more than the noise floor of such a machine, is called slower, in 10 rounds.",
        expected: "verdict `less` for requests/s (none only where the client is the limit), and \
                   `more` for CPU per request",
        takes_s: 17.0,
        check: slower,
    },
    Trap {
        name: "verdict-fast",
        rule: 10,
        claim: "A server that needs 6 us of CPU per request less than the reference, which is \
                more than the noise floor of such a machine, is called faster, in 10 rounds.",
        expected: "verdict `more` for requests/s (none only where the client is the limit), and \
                   `less` for CPU per request",
        takes_s: 17.0,
        check: faster,
    },
    Trap {
        name: "multiple-comparisons",
        rule: 10,
        claim: "With nine identical models, some interval of 95 % leaves 1 by chance; the \
                verdicts' family (Holm) allows that in one run of twenty.",
        expected: "false winners with the family <= 6.5 % of 1,000 simulated runs (5 % and two \
                   standard errors)",
        takes_s: 2.0,
        check: comparisons,
    },
    Trap {
        name: "percentile-merge",
        rule: 11,
        claim: "The mean of the rounds' 99th percentiles is no 99th percentile; that of the merged \
                histograms is.",
        expected: "0.8-1.2 % of all requests lie beyond the merged p99",
        takes_s: 6.0,
        check: percentiles,
    },
];

/// CPU that each request costs the servers on top of the floor (6-9 us), in microseconds. The
/// noise floor of requests/s in ten short rounds is 8-20 % here, so the steps are larger: about
/// two thirds up from the reference, and about two fifths down.
const REFERENCE_US: u32 = 6;
const SLOWER_US: u32 = 16;
const FASTER_US: u32 = 0;
/// A step that is real and that single windows do not show, in microseconds.
const SMALL_US: u32 = 1;
/// The same for the server that is compared with itself: enough for the server to be the limit, so
/// that its rate is its own.
const IDENTICAL_US: u32 = 4;

fn slowed(lab: &Lab, us: u32) -> Result<Subject, Stop> {
    lab.subject(&format!("faulty+fault=slow+fault-ns={}", 1_000 * us))
}

fn slower(lab: &mut Lab) -> Result<Seen, Stop> {
    let costs_us = [REFERENCE_US, SLOWER_US, REFERENCE_US + SMALL_US];
    compared(lab, costs_us, Verdict::Less, Verdict::More)
}

fn faster(lab: &mut Lab) -> Result<Seen, Stop> {
    let costs_us = [REFERENCE_US, FASTER_US, REFERENCE_US - SMALL_US];
    compared(lab, costs_us, Verdict::More, Verdict::Less)
}

/// A bench of the reference, one other, whose verdicts must be these, and one that differs a
/// little in the same direction. The rate of a cell whose client was the limit is no figure of
/// the server's and has no verdict, which is an answer too.
fn compared(lab: &Lab, costs_us: [u32; 3], rate: Verdict, cpu: Verdict) -> Result<Seen, Stop> {
    const ROUNDS: u32 = 10;
    let subjects = costs_us.map(|us| slowed(lab, us));
    let subjects = subjects.into_iter().collect::<Result<Vec<_>, _>>()?;
    let workload = lab.workload("http-keepalive")?;
    let results = lab.bench(&subjects, &workload, ROUNDS, SHORT, lab.seed())?;
    let summary = summarise(&results);
    let other = figures_of(&summary, &subjects[1].model.label)?;
    let name = |verdict: Option<Verdict>| verdict.map_or("none", Verdict::name);
    let unranking = || other.doubts.iter().filter(|doubt| doubt.unranks());
    let client_bound = unranking().any(|doubt| matches!(doubt, Doubt::ClientBound(_)));
    let rate_is_right =
        other.rate_verdict == Some(rate) || (other.rate_verdict.is_none() && client_bound);
    let holds = rate_is_right && other.cpu_verdict == Some(cpu);
    let why = unranking().next().map_or(String::new(), |doubt| format!(" ({})", doubt.sentence()));
    let middle = |ratio: Option<crate::statistics::Estimate>| ratio.map_or(0.0, |r| r.median);
    let (rate_ratio, cpu_ratio) = (middle(other.rate_ratio), middle(other.cpu_ratio));
    let wrong_share = wrong_orders(&results, &subjects[2].model.label, rate);
    Ok(Seen::new(
        holds,
        format!(
            "requests/s {} x: `{}`{why}; CPU per request {} x: `{}`; noise floor of requests/s \
             {:.0} %",
            figure(rate_ratio),
            name(other.rate_verdict),
            figure(cpu_ratio),
            name(other.cpu_verdict),
            summary.workloads[0].rate_noise.threshold * 100.0
        ),
    )
    .figure("rate_ratio", rate_ratio)
    .figure("cpu_ratio", cpu_ratio)
    .figure("noise_floor_share", summary.workloads[0].rate_noise.threshold)
    .figure("single_runs_in_wrong_order_share", wrong_share)
    .wrong(
        "one window of each, for servers that are 1 us apart",
        format!("wrong order of requests/s in {:.0} % of the pairs", wrong_share * 100.0),
    )
    .right(
        "10 interleaved rounds, paired, for the known difference",
        format!("`{}`, and `{}` CPU", name(other.rate_verdict), name(other.cpu_verdict)),
    ))
}

/// Share of the pairs of one window of each, from different rounds, whose rates are in the wrong
/// order: what somebody sees who measures each once.
fn wrong_orders(results: &Results, other: &str, truth: Verdict) -> f64 {
    let rates = |label: &str| -> Vec<(u32, f64)> {
        let timed =
            |trial: &&record::Trial| trial.slot.model == label && trial.slot.role == Role::Timed;
        let of = results.trials.iter().filter(timed);
        let rate = |trial: &record::Trial| match &trial.outcome {
            record::Outcome::Measured(m) => Some((trial.slot.round, m.load.requests_per_s)),
            record::Outcome::Failed { .. } => None,
        };
        of.filter_map(rate).collect()
    };
    let (reference, other) = (rates(&results.reference), rates(other));
    let (mut wrong, mut all) = (0, 0);
    for &(round, mine) in &other {
        for &(_, theirs) in reference.iter().filter(|pair| pair.0 != round) {
            let right = if truth == Verdict::More { mine > theirs } else { mine < theirs };
            all += 1;
            wrong += u32::from(!right);
        }
    }
    f64::from(wrong) / f64::from(all.max(1))
}

/// Small benches of one server under two names.
fn identical(lab: &Lab) -> Result<Vec<Results>, Stop> {
    const BENCHES: u64 = 20;
    const ROUNDS: u32 = 6;
    let one = slowed(lab, IDENTICAL_US)?;
    let subjects = [one.called("one"), one.called("other")];
    let workload = lab.workload("http-keepalive")?;
    let bench = |at: u64| lab.bench(&subjects, &workload, ROUNDS, SHORT, lab.seed() + at);
    (0..BENCHES).map(bench).collect()
}

fn identical_servers(lab: &mut Lab) -> Result<Seen, Stop> {
    const SHARE_MIN: f64 = 0.95;
    let benches = &identical(lab)?;
    let (mut alike, mut worst, mut floors) = (0, 1.0_f64, Vec::new());
    for results in benches {
        let summary = summarise(results);
        let other = figures_of(&summary, "other")?;
        let called = [other.rate_verdict, other.cpu_verdict];
        let different = called.iter().any(|v| matches!(v, Some(Verdict::More | Verdict::Less)));
        alike += u32::from(!different);
        floors.push(summary.workloads[0].rate_noise.threshold);
        let ratio = other.rate_ratio.map_or(1.0, |ratio| ratio.median);
        worst = worst.max(ratio.max(1.0 / ratio));
    }
    let of = benches.len() as f64;
    let floor = median(&floors).unwrap_or(0.0);
    Ok(Seen::new(
        f64::from(alike) >= SHARE_MIN * of,
        format!(
            "`~` in {alike} of {of}; noise floor {:.1} % in the median; the largest ratio of two \
             equal medians was {worst:.2}",
            floor * 100.0
        ),
    )
    .figure("alike", f64::from(alike))
    .figure("benches", of)
    .figure("noise_floor_share", floor)
    .figure("largest_ratio", worst)
    .wrong("the larger median wins", format!("{:.0} % faster than itself", (worst - 1.0) * 100.0))
    .right("verdicts with the noise floor", format!("a tie in {alike} of {of} benches")))
}

/// Eight rounds at a known rate, in one of which the server stalls for a moment.
fn percentiles(lab: &mut Lab) -> Result<Seen, Stop> {
    const ROUNDS: usize = 8;
    const RATE_PER_S: u32 = 5_000;
    const STALL_NS: u32 = 60_000_000;
    let times = Times { warm_up_s: 0.1, window_s: 0.4 };
    let after = f64::from(RATE_PER_S) * (times.warm_up_s + times.window_s / 2.0);
    let label = format!("faulty+fault=stall+fault-after={after:.0}+fault-ns={STALL_NS}");
    let (good, stalls) = (lab.subject("floor")?, lab.subject(&label)?.called("floor"));
    let workload = open(lab.workload("http-keepalive")?, RATE_PER_S);
    let mut results = lab.bench(std::slice::from_ref(&good), &workload, 1, times, lab.seed())?;
    results.trials.clear();
    let mut means = Vec::new();
    for round in 0..ROUNDS {
        go_on()?;
        let subject = if round == ROUNDS / 2 { &stalls } else { &good };
        let one = lab.trial(subject, &workload, times)?;
        // The summary leaves invalid rounds out, so this side does too.
        if one.load.open_loop.as_ref().is_some_and(|open| open.invalid.is_none()) {
            means.push(one.load.latency.p99_us.unwrap_or(0.0));
            results.trials.push(trial_of(round as u32 + 1, &workload, one));
        }
    }
    if means.len() < ROUNDS / 2 {
        let valid = means.len();
        return Err(Stop::Wrong(format!("the client kept up in {valid} rounds of {ROUNDS} only")));
    }
    let mean_us = means.iter().sum::<f64>() / means.len() as f64;
    let summary = summarise(&results);
    let merged_us = figures_of(&summary, "floor")?.p99_us.unwrap_or(0.0);
    let histograms = measured(&results, "floor").map(|m| m.load.latency.histogram.as_str());
    let all = crate::summary::merged(histograms)
        .ok_or_else(|| Stop::Wrong("the histograms cannot be read".into()))?;
    let beyond = |us: f64| {
        let counted = all.count_between((us * 1e3) as u64 + 1, u64::MAX);
        counted as f64 / all.len().max(1) as f64
    };
    let (of_merged, of_mean) = (beyond(merged_us), beyond(mean_us));
    Ok(Seen::new(
        (0.008..=0.012).contains(&of_merged),
        format!(
            "beyond the merged p99 ({} us) lie {:.2} %, beyond the p99s' mean ({} us) {:.2} %",
            figure(merged_us),
            of_merged * 100.0,
            figure(mean_us),
            of_mean * 100.0
        ),
    )
    .figure("merged_p99_us", merged_us)
    .figure("mean_of_p99_us", mean_us)
    .figure("beyond_merged_share", of_merged)
    .figure("beyond_mean_share", of_mean)
    .wrong("mean of the rounds' p99s", format!("{} us", figure(mean_us)))
    .right("p99 of the merged histograms", format!("{} us", figure(merged_us))))
}

fn trial_of(round: u32, workload: &Workload, measured: record::Measured) -> record::Trial {
    record::Trial {
        slot: record::Slot {
            round,
            position: round,
            workload: workload.name.clone(),
            model: "floor".into(),
            role: Role::Timed,
        },
        started_s: 0.0,
        took_s: 0.0,
        outcome: record::Outcome::Measured(Box::new(measured)),
    }
}

/// Simulated: nine models and a reference, all alike, with the rounds' noise of this machine.
fn comparisons(lab: &mut Lab) -> Result<Seen, Stop> {
    const RUNS: u32 = 1_000;
    const MODELS: usize = 9;
    const ROUNDS: usize = 10;
    const NOISE: f64 = 0.05;
    const SHARE_MAX: f64 = 0.065;
    let mut random = SplitMix64::new(lab.seed());
    let (mut naive, mut family) = (0, 0);
    for run in 0..RUNS {
        if run % 100 == 0 {
            go_on()?;
        }
        // Per round: the reference, its second run, and the models.
        let draw = |random: &mut SplitMix64| (0..ROUNDS).map(|_| NOISE * normal(random)).collect();
        let reference: Vec<f64> = draw(&mut random);
        let second: Vec<f64> = draw(&mut random);
        let models: Vec<Vec<f64>> = (0..MODELS).map(|_| draw(&mut random)).collect();
        let logs = |model: &[f64]| -> Vec<(f64, f64)> {
            (0..ROUNDS).map(|r| (model[r] - reference[r], second[r] - reference[r])).collect()
        };
        let leaves_one = |model: &Vec<f64>| {
            let ratios: Vec<f64> = logs(model).iter().map(|pair| pair.0.exp()).collect();
            let interval = estimate(&ratios).and_then(|estimate| estimate.interval);
            interval.is_some_and(|i| i.low > 1.0 || i.high < 1.0)
        };
        naive += u32::from(models.iter().any(leaves_one));
        let contrasts: Vec<Contrast> = models
            .iter()
            .map(|model| Contrast::paired(&logs(model), Match::WithReference, 0.0))
            .collect();
        family += u32::from(verdicts(&contrasts).iter().any(|v| *v != Verdict::Alike));
    }
    let share = |count: u32| f64::from(count) / f64::from(RUNS);
    let percent = |count| format!("a false winner in {:.1} % of the runs", share(count) * 100.0);
    Ok(Seen::new(
        share(family) <= SHARE_MAX,
        format!("{} with the family, in {:.1} % without", percent(family), share(naive) * 100.0),
    )
    .figure("family_share", share(family))
    .figure("naive_share", share(naive))
    .wrong("each model's own interval of 95 %", percent(naive))
    .right("one family of nine (Holm)", percent(family)))
}

/// A normal deviate (Box and Muller, 1958).
fn normal(random: &mut SplitMix64) -> f64 {
    /// 53 bits: what a double holds.
    const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) * SCALE;
    let (u, v) = (uniform(), uniform());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
