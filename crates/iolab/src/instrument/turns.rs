//! Slices: whether servers that take turns are told apart where they differ, and only there.

use std::hint::black_box;
use std::time::{Duration, Instant};

use record::Workload;
use rig::discover::Found;

use super::lab::{Lab, go_on};
use super::{Seen, Stop, Trap};
use crate::bench::contest::{self, Rules};
use crate::slices::Awake;
use crate::slices::standing::{self, MARGIN, Standing};
use crate::statistics::{Finding, median};

/// The checks of this file.
pub const TRAPS: &[Trap] = &[Trap {
    name: "slices",
    rule: 3,
    claim: "Servers that take turns in slices are told apart to 3 %: of three processes, two are \
            the same server and one needs 3 % more CPU for each request, 20 times.",
    expected: "the same: `equal` in >= 15 of 20, `more` or `less` in <= 1, ratio 1.00 +- 0.01 in \
               >= 19; the dearer: `more` in >= 19",
    takes_s: 140.0,
    check: turns,
}];

/// Comparisons, each with the time of a cell of a short bench.
const RUNS: u64 = 20;
const EPOCHS: usize = 18;
const EPOCH: Duration = Duration::from_millis(300);

/// What the dearer server needs more.
const DEARER: f64 = 0.03;

/// Readings of the clock by which a spin is longer than it is told: one before it begins, one that
/// ends it, and on the average half of one that has begun.
const SPIN_READINGS: f64 = 2.5;

/// How far the ratio of equal servers may be from 1, and in how many of the runs it is not asked.
const CONTROL_MAX: f64 = 0.01;

fn turns(lab: &mut Lab) -> Result<Seen, Stop> {
    let workload = lab.workload("http-keepalive")?;
    // Where that is not allowed the intervals are wider, and the bounds decide all the same.
    let _awake = Awake::hold().ok();
    // The same executable: the other one differs in its spin alone, which reads the clock.
    let plain = lab.found("faulty+fault=none")?;
    let base = compare(lab, [&plain, &plain, &plain], &workload, 0)?;
    let nothing = || Stop::Wrong("a comparison came to nothing".to_owned());
    let base_us = base[0].server_us.ok_or_else(nothing)?;
    let more_ns = DEARER * base_us * 1e3 - SPIN_READINGS * reading_ns();
    let dearer = lab.found(&format!("faulty+fault=slow+fault-ns={:.0}", more_ns.max(0.0)))?;
    let (mut control, mut other) = (Vec::new(), Vec::new());
    for run in 1..=RUNS {
        go_on()?;
        let mut standings = compare(lab, [&plain, &plain, &dearer], &workload, run)?;
        let mut told = || standings.pop().and_then(|one| one.cpu);
        other.push(told().ok_or_else(nothing)?);
        control.push(told().ok_or_else(nothing)?);
    }
    let count = |list: &[standing::Told], finding| list.iter().filter(|t| t.is(finding)).count();
    let equal = count(&control, Finding::Equal);
    let different = count(&control, Finding::More) + count(&control, Finding::Less);
    let near = control.iter().filter(|told| (told.ratio - 1.0).abs() <= CONTROL_MAX).count();
    let more = count(&other, Finding::More);
    let middle = |list: &[standing::Told], figure: fn(&standing::Told) -> f64| {
        median(&list.iter().map(figure).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let half_width = middle(&control, |told| (told.high / told.low).sqrt() - 1.0);
    let ratio = middle(&other, |told| told.ratio);
    Ok(Seen::new(
        equal >= 15 && different <= 1 && near >= 19 && more >= 19,
        format!(
            "the same: `equal` in {equal}, `more` or `less` in {different}, within 1 % of 1 in \
             {near} of {RUNS}, intervals +- {:.1} %; a spin of {more_ns:.0} ns: `more` in {more}, \
             ratio {ratio:.3} in the median",
            100.0 * half_width
        ),
    )
    .figure("equal", equal as f64)
    .figure("different", different as f64)
    .figure("near", near as f64)
    .figure("dearer_is_more", more as f64)
    .figure("dearer_ratio", ratio)
    .figure("control_half_width_share", half_width))
}

/// What one reading of the clock takes, in nanoseconds.
fn reading_ns() -> f64 {
    const READINGS: u32 = 10_000;
    let begin = Instant::now();
    for _ in 0..READINGS {
        black_box(Instant::now());
    }
    begin.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

/// One comparison, with the first.
fn compare(
    lab: &Lab,
    servers: [&Found; 3],
    workload: &Workload,
    run: u64,
) -> Result<Vec<Standing>, Stop> {
    let rules = Rules { epochs: EPOCHS, epoch: EPOCH, seed: lab.seed() + run };
    let epochs = contest::run(&servers, workload, lab.folder(), &rules)?;
    go_on()?;
    Ok(standing::standings(&["one", "same", "other"].map(str::to_owned), &epochs, MARGIN))
}
