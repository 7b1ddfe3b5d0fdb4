//! `iolab check-instrument`: the instrument tested on itself.
//!
//! Each check makes a situation whose truth is known (a server with one known fault, two identical
//! servers, a client that is too slow) and looks whether the instrument says so. Where a usual way
//! of measuring goes wrong there, its figure stands beside the right one. The bounds are fixed in
//! this source before anything is measured. What does not hold fails, and says what was seen; where
//! others were busy on the machine meanwhile, nothing can be told, and that is said (`quiet`).
//!
//! What is tested is what measures: [`crate::bench`]'s trials, the load generator, and the summary
//! with its verdicts. Reading order: `lab` (how a situation is made), then one file per theme.

mod agreement;
mod costs;
mod lab;
mod loops;
mod own_count;
pub mod quiet;
mod sockets;
mod verdicts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use record::{Check, Instrument, SCHEMA_VERSION, Verdict, Way};

use crate::bench;
use render::failure::{Failure, because};
use render::report::write_safely;
use render::text;
use rig::environment;

use lab::Lab;
use quiet::{Others, Watch};

/// Name of the file, in the folder that is given with --out: beside a result file, the report finds
/// it.
pub const INSTRUMENT_FILE: &str = "instrument.json";

/// Exit code when a check fails.
const EXIT_FAILS: u8 = 1;

/// Exit code when no check fails, but of some nothing can be told.
const EXIT_CANNOT_TELL: u8 = 3;

/// Exit code after Ctrl-C: 128 + SIGINT, as shells report it.
const EXIT_INTERRUPTED: u8 = 130;

/// Seed when none is given: the same simulations and orders in every run.
const SEED: u64 = 2026;

/// Arguments of `iolab check-instrument`.
#[derive(Args)]
pub struct Arguments {
    /// Checks to make, by name; all by default.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Folder to write instrument.json to, beside a result file; nothing is written by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of the orders and of the simulation.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Print names, claims and bounds, and measure nothing.
    #[arg(long)]
    list: bool,
}

/// One thing that an instrument can get wrong.
struct Trap {
    name: &'static str,
    /// The rule of measuring that it belongs to.
    rule: u32,
    claim: &'static str,
    expected: &'static str,
    /// What an instrument has that does not pass.
    fails_if: &'static str,
    /// About how long it takes, in seconds.
    takes_s: f64,
    check: fn(&mut Lab) -> Result<Seen, Stop>,
}

/// What was seen, and whether it is within the bounds.
struct Seen {
    holds: bool,
    measured: String,
    figures: BTreeMap<String, f64>,
    wrong: Option<Way>,
    right: Option<Way>,
}

impl Seen {
    fn new(holds: bool, measured: impl Into<String>) -> Seen {
        let (figures, wrong, right) = (BTreeMap::new(), None, None);
        Seen { holds, measured: measured.into(), figures, wrong, right }
    }

    /// JSON knows no infinity and no NaN: such a figure is left out.
    fn figure(mut self, name: &str, value: f64) -> Seen {
        if value.is_finite() {
            self.figures.insert(name.to_owned(), value);
        }
        self
    }

    fn wrong(mut self, how: &str, figure: impl Into<String>) -> Seen {
        self.wrong = Some(Way { how: how.to_owned(), figure: figure.into() });
        self
    }

    fn right(mut self, how: &str, figure: impl Into<String>) -> Seen {
        self.right = Some(Way { how: how.to_owned(), figure: figure.into() });
        self
    }
}

/// Why nothing was seen.
#[derive(Debug)]
enum Stop {
    /// This machine lacks something; the sentence says what, with the remedy.
    Skip(String),
    /// It went wrong, which is a failure of the check.
    Wrong(String),
    /// Ctrl-C.
    Interrupted,
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Wrong(why)
    }
}

impl From<load::Error> for Stop {
    fn from(error: load::Error) -> Stop {
        Stop::Wrong(error.to_string())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Wrong(failure.0)
    }
}

/// One figure relative to another; a check whose figures are zero has measured nothing.
fn ratio(figure: f64, other: f64) -> Result<f64, Stop> {
    let ratio = figure / other;
    if ratio.is_finite() && ratio > 0.0 {
        return Ok(ratio);
    }
    Err(Stop::Wrong(format!("{figure} and {other} have no ratio: nothing was measured")))
}

/// All checks, in the order in which they are told: by rule.
fn traps() -> Vec<&'static Trap> {
    let all = [loops::TRAPS, verdicts::TRAPS, costs::TRAPS, sockets::TRAPS, agreement::TRAPS];
    let mut traps: Vec<_> = all.into_iter().flatten().collect();
    traps.sort_by_key(|trap| trap.rule);
    traps
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let traps = chosen(&arguments.only)?;
    if arguments.list {
        return text::print(&traps.iter().map(|trap| listed(trap)).collect::<String>());
    }
    bench::handle_interrupts()?;
    let mut lab = Lab::new(arguments.seed)?;
    let environment = environment::read(lab.server_core(), lab.client_core());
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder)
            .map_err(because(format!("cannot make the folder {}", folder.display())))?;
    }
    let mut checks = Vec::new();
    let mut interrupted = false;
    for (at, trap) in traps.iter().enumerate() {
        announce(at, &traps);
        let Some(check) = try_one(trap, &mut lab) else {
            interrupted = true;
            break;
        };
        text::print(&told(&check))?;
        checks.push(check);
    }
    text::print(&summed_up(&checks, traps.len()))?;
    let skipped = checks.iter().all(|check| matches!(check.verdict, Verdict::Skipped(_)));
    if skipped && !interrupted {
        eprintln!("iolab: nothing was tested: every check was skipped, for the reasons above");
    }
    let fails = skipped || checks.iter().any(|check| check.verdict == Verdict::Fails);
    let unknown = checks.iter().any(is_unknown);
    if let Some(folder) = &arguments.out {
        let schema_version = SCHEMA_VERSION;
        save(folder, &Instrument { schema_version, environment, seed: lab.seed(), checks })?;
    }
    Ok(match (interrupted, fails, unknown) {
        (true, ..) => ExitCode::from(EXIT_INTERRUPTED),
        (false, true, _) => ExitCode::from(EXIT_FAILS),
        (false, false, true) => ExitCode::from(EXIT_CANNOT_TELL),
        (false, false, false) => ExitCode::SUCCESS,
    })
}

/// Whether nothing can be told of a check.
fn is_unknown(check: &Check) -> bool {
    matches!(check.verdict, Verdict::CannotTell(_))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Trap>, Failure> {
    let all = traps();
    if let Some(name) = names.iter().find(|name| all.iter().all(|trap| trap.name != **name)) {
        let known: Vec<_> = all.iter().map(|trap| trap.name).collect();
        return Err(Failure(format!(
            "--only: no check is called {name:?}; there are {}",
            known.join(", ")
        )));
    }
    let wanted = |trap: &&Trap| names.is_empty() || names.iter().any(|name| name == trap.name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// A line of progress on stderr, written while nothing is timed.
fn announce(at: usize, traps: &[&Trap]) {
    let left_s: f64 = traps[at..].iter().map(|trap| trap.takes_s).sum();
    let (name, of) = (traps[at].name, traps.len());
    eprintln!("check {} of {of}: {name}, {}", at + 1, bench::remaining(left_s));
}

/// `None` when it was interrupted.
fn try_one(trap: &Trap, lab: &mut Lab) -> Option<Check> {
    let (begin, watch) = (Instant::now(), Watch::begin());
    let seen = (trap.check)(lab);
    let others = watch.end();
    let mut check = Check {
        name: trap.name.to_owned(),
        rule: trap.rule,
        claim: trap.claim.to_owned(),
        expected: trap.expected.to_owned(),
        fails_if: trap.fails_if.to_owned(),
        measured: String::new(),
        figures: BTreeMap::new(),
        wrong: None,
        right: None,
        verdict: Verdict::Fails,
    };
    match seen {
        Ok(seen) => {
            check.verdict = if seen.holds { Verdict::Holds } else { Verdict::Fails };
            check.measured = seen.measured;
            (check.figures, check.wrong, check.right) = (seen.figures, seen.wrong, seen.right);
        }
        Err(Stop::Interrupted) => return None,
        Err(Stop::Skip(why)) => check.verdict = Verdict::Skipped(why),
        Err(Stop::Wrong(why)) => check.measured = format!("could not be measured: {why}"),
    }
    if check.verdict == Verdict::Fails {
        check.verdict = failed(trap.name, others);
    }
    check.figures.insert("took_s".to_owned(), begin.elapsed().as_secs_f64());
    Some(check)
}

/// What follows from bounds that did not hold.
fn failed(name: &str, others: Option<Others>) -> Verdict {
    match others.and_then(Others::complaint) {
        Some(why) if !quiet::EXACT.contains(&name) => Verdict::CannotTell(why),
        _ => Verdict::Fails,
    }
}

fn save(folder: &Path, instrument: &Instrument) -> Result<(), Failure> {
    let text = instrument.to_json().map_err(because("cannot write the checks as JSON"))?;
    let path = folder.join(INSTRUMENT_FILE);
    write_safely(&path, text.as_bytes())?;
    eprintln!("written to {}", path.display());
    Ok(())
}

fn listed(trap: &Trap) -> String {
    let head = format!("{} (rule {})\n", trap.name, trap.rule);
    let head = head
        + &text::labelled("  claim", trap.claim)
        + &text::labelled("  expected", trap.expected);
    head + &text::labelled("  fails if", trap.fails_if)
}

/// A check for people.
fn told(check: &Check) -> String {
    let verdict = match &check.verdict {
        Verdict::Holds => "HOLDS",
        Verdict::Fails => "FAILS",
        Verdict::Skipped(_) => "SKIP",
        Verdict::CannotTell(_) => "BUSY",
    };
    let mut text = format!("{verdict:5}  {} (rule {})\n", check.name, check.rule);
    text += &text::labelled("  claim", &check.claim);
    text += &text::labelled("  expected", &check.expected);
    text += &text::labelled("  fails if", &check.fails_if);
    match &check.verdict {
        Verdict::Skipped(why) => text += &text::labelled("  why not", why),
        Verdict::CannotTell(why) => {
            text += &text::labelled("  why not", why);
            text += &text::labelled("  measured", &check.measured);
        }
        Verdict::Holds | Verdict::Fails => text += &text::labelled("  measured", &check.measured),
    }
    for (head, way) in [("  wrong way", &check.wrong), ("  right way", &check.right)] {
        if let Some(way) = way {
            text += &text::labelled(head, &format!("{}: {}", way.how, way.figure));
        }
    }
    text + "\n"
}

fn summed_up(checks: &[Check], planned: usize) -> String {
    let count = |wanted: fn(&Verdict) -> bool| checks.iter().filter(|c| wanted(&c.verdict)).count();
    let holds = count(|verdict| *verdict == Verdict::Holds);
    let fails = count(|verdict| *verdict == Verdict::Fails);
    let skips = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
    let left = planned - checks.len();
    let unknown = checks.iter().filter(|check| is_unknown(check)).count();
    let mut text = format!("{holds} hold, {fails} fail, {skips} skipped");
    if unknown > 0 {
        text += &format!(", of {unknown} nothing can be told: the machine was busy");
    }
    if left > 0 {
        text += &format!(", {left} not reached");
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_busy_machine_is_an_excuse_and_only_for_what_is_timed() {
        let at_rest = Some(Others { cores: 0.01, waited: 0.0 });
        let busy = Some(Others { cores: 1.5, waited: 0.4 });
        assert_eq!(failed("littles-law", at_rest), Verdict::Fails);
        assert_eq!(failed("littles-law", None), Verdict::Fails);
        assert!(matches!(failed("littles-law", busy), Verdict::CannotTell(_)));
        for exact in quiet::EXACT {
            assert!(traps().iter().any(|trap| trap.name == exact), "{exact}");
            assert_eq!(failed(exact, busy), Verdict::Fails);
        }
    }
}
