//! Cases for whole connections: a text form ([`case`]), playing one with checks after every event
//! ([`play`]), and making new ones ([`make`]).

pub mod case;
pub mod make;
pub mod play;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;

use case::Case;
use play::guard;

/// Runs `check` on a case. If it fails, writes the smallest case that fails to a file with `number`
/// in its name.
pub fn hold<T>(case: &Case, number: u64, check: &dyn Fn(&Case) -> T) -> T {
    let run = |case: &Case| catch_unwind(AssertUnwindSafe(|| guard(case, || check(case))));
    if let Ok(came) = run(case) {
        return came;
    }
    let hook = take_hook();
    // Each smaller case that fails would print its panic too.
    set_hook(Box::new(|_| {}));
    let smallest = minimise(case, &|case| run(case).is_err());
    set_hook(hook);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{number}.txt"));
    fs::write(&file, smallest.to_string()).expect("the case is written");
    panic!(
        "a case fails; again: FUZZ_CASE={} cargo test -p conn --test fuzz replay\n{smallest}",
        file.display()
    );
}

/// Removes what is not needed to fail: events, then parts of them.
fn minimise(case: &Case, fails: &dyn Fn(&Case) -> bool) -> Case {
    let mut case = case.clone();
    let mut step = case.events.len().div_ceil(2);
    while step > 0 {
        let mut at = 0;
        while at < case.events.len() {
            let mut less = case.clone();
            less.events.drain(at..(at + step).min(less.events.len()));
            if fails(&less) { case = less } else { at += step }
        }
        step /= 2;
    }
    for at in 0..case.events.len() {
        let len =
            |case: &mut Case| case.events[at].payload_mut().map_or(0, |payload| payload.len());
        let mut step = len(&mut case).div_ceil(2);
        while step > 0 {
            let mut less = case.clone();
            if let Some(payload) = less.events[at].payload_mut() {
                let keep = payload.len().saturating_sub(step);
                payload.truncate(keep);
            }
            if len(&mut case) > 0 && fails(&less) { case = less } else { step /= 2 }
        }
    }
    case
}
