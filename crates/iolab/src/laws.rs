//! `iolab laws`: for each law its claim, what was expected, what was measured, and whether it holds
//! here ([`law`]).

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use law::{Lab, Law, Pace, Reason, decide};
use record::{LawFigure, LawOutcome, Laws, Standing};
use render::failure::{Failure, because};
use render::text;
use rig::{counting, discover};

use crate::bench;
use crate::instrument::quiet::{OTHERS_MAX, Watch};

/// Exit code if a law could not be measured because of a fault of iolab.
const EXIT_FAULT: u8 = 1;

/// Exit code after Ctrl-C: 128 + SIGINT, as shells report it.
const EXIT_INTERRUPTED: u8 = 130;

/// Seed when none is given.
const SEED: u64 = 2026;

/// Arguments of `iolab laws`.
#[derive(Args)]
pub struct Arguments {
    /// Laws to measure, such as L1 L10; all by default.
    #[arg(value_name = "LAW")]
    laws: Vec<String>,
    /// Print numbers, claims and expectations, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Print one JSON object instead of text (`iolab schema --laws` describes it).
    #[arg(long)]
    json: bool,
    /// Directories to search for servers (serve-NAME) before iolab's own, separated by ':'.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
    /// Seed of all orders and of packet loss.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let laws = chosen(&arguments.laws)?;
    if arguments.list {
        return text::print(&laws.iter().map(|law| listed(law)).collect::<String>());
    }
    // Links need this before the first thread. Where it is refused, the laws that have one say so.
    let _refused = link::prepare();
    bench::handle_interrupts()?;
    let places = discover::directories(arguments.servers.as_deref());
    let lab = Lab::new(places, Pace::USUAL, arguments.seed, bench::interrupted);
    let lab = lab.map_err(|reason| Failure(format!("cannot measure: {reason:?}")))?;
    let mut outcomes = Vec::new();
    for (at, law) in laws.iter().enumerate() {
        announce(at, &laws);
        let Some(outcome) = measure(law, &lab) else { break };
        if !arguments.json {
            text::print(&told(&outcome))?;
        }
        outcomes.push(outcome);
    }
    // It waits until the kernel has let go of its tracepoints.
    counting::end_pass();
    match arguments.json {
        true => {
            let output = Laws { seed: arguments.seed, laws: outcomes.clone() };
            let json = serde_json::to_string(&output);
            text::print(&(json.map_err(because("cannot write the laws as JSON"))? + "\n"))?;
            eprint!("{}", summed_up(&outcomes, laws.len()));
        }
        false => drop(text::print(&summed_up(&outcomes, laws.len()))?),
    }
    let fault = outcomes.iter().any(|one| matches!(one.standing, Standing::Fault(_)));
    Ok(match (outcomes.len() < laws.len(), fault) {
        (true, _) => ExitCode::from(EXIT_INTERRUPTED),
        (false, true) => ExitCode::from(EXIT_FAULT),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn chosen(names: &[String]) -> Result<Vec<&'static Law>, Failure> {
    let all = law::all();
    let is = |law: &Law, name: &str| law.id.eq_ignore_ascii_case(name);
    if let Some(name) = names.iter().find(|name| all.iter().all(|law| !is(law, name))) {
        let known: Vec<_> = all.iter().map(|law| law.id).collect();
        return Err(Failure(format!("there is no law {name:?}; there are {}", known.join(", "))));
    }
    let wanted = |law: &&Law| names.is_empty() || names.iter().any(|name| is(law, name));
    Ok(all.into_iter().filter(wanted).collect())
}

/// A line of progress on stderr, written while nothing is timed.
fn announce(at: usize, laws: &[&Law]) {
    let left_s: f64 = laws[at..].iter().map(|law| law.takes_s).sum();
    let (id, number, of) = (laws[at].id, at + 1, laws.len());
    eprintln!("law {number} of {of}: {id}, {}", bench::remaining(left_s));
}

/// `None` when it was interrupted.
fn measure(law: &Law, lab: &Lab) -> Option<LawOutcome> {
    let (begun, watch) = (Instant::now(), Watch::begin());
    let measured = (law.measure)(lab);
    let others_cores = watch.end().map(|others| others.cores);
    let took_s = begun.elapsed().as_secs_f64();
    let (figures, note, standing) = match measured {
        Ok(mut measured) => {
            let standing = decide(law.bounds, &mut measured.figures);
            (measured.figures, measured.note, standing)
        }
        Err(Reason::Interrupted) => return None,
        Err(Reason::Skip(why)) => (Vec::new(), None, Standing::Skip(why)),
        Err(Reason::NotHere(why)) => (Vec::new(), None, Standing::NotHere(why)),
        Err(Reason::Fault(why)) => (Vec::new(), None, Standing::Fault(why)),
    };
    Some(LawOutcome {
        id: law.id.to_owned(),
        claim: law.claim.to_owned(),
        expected: law.expected.to_owned(),
        source: law.source.to_owned(),
        shown_by: law.shown_by.to_owned(),
        figures,
        note,
        standing,
        others_cores,
        took_s,
    })
}

fn listed(law: &Law) -> String {
    text::labelled(law.id, law.claim)
        + &text::labelled("  expected", law.expected)
        + &text::labelled("  source", law.source)
        + &text::labelled("  shown by", law.shown_by)
}

/// A law for people.
fn told(law: &LawOutcome) -> String {
    let (word, why) = match &law.standing {
        Standing::Holds => ("HOLDS", None),
        Standing::NotHere(why) => ("NOT HERE", Some(why)),
        Standing::Skip(why) => ("SKIP", Some(why)),
        Standing::Fault(why) => ("FAULT", Some(why)),
    };
    let mut text = text::labelled(&law.id, &format!("{word}: {}", law.claim));
    text += &text::labelled("  expected", &law.expected);
    if !law.figures.is_empty() {
        let figures: Vec<_> = law.figures.iter().map(figure).collect();
        text += &text::labelled("  measured", &figures.join("; "));
    }
    let busy = law.others_cores.filter(|cores| why.is_some() && *cores > OTHERS_MAX);
    let busy = busy.map(|cores| format!("others used {cores:.1} cores meanwhile"));
    let more = [
        ("  how", law.note.as_ref()),
        ("  why", why),
        ("  beside it", busy.as_ref()),
        ("  shown by", Some(&law.shown_by)),
    ];
    for (label, words) in more {
        text += &words.map(|words| text::labelled(label, words)).unwrap_or_default();
    }
    text + "\n"
}

/// `slope of poll 1.02 (0.98 to 1.05)`.
fn figure(figure: &LawFigure) -> String {
    let shown = |value: f64| match value.fract() == 0.0 {
        true => text::thousands(value),
        false => text::figure(value),
    };
    let LawFigure { name, value, unit, interval, .. } = figure;
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    let interval = interval.map(|(low, high)| format!(" ({} to {})", shown(low), shown(high)));
    format!("{name}: {}{unit}{}", shown(*value), interval.unwrap_or_default())
}

/// The last line: the answer.
fn summed_up(laws: &[LawOutcome], planned: usize) -> String {
    let count = |wanted: fn(&Standing) -> bool| laws.iter().filter(|l| wanted(&l.standing)).count();
    let hold = count(|standing| *standing == Standing::Holds);
    let not_here = count(|standing| matches!(standing, Standing::NotHere(_)));
    let skipped = count(|standing| matches!(standing, Standing::Skip(_)));
    let faults = count(|standing| matches!(standing, Standing::Fault(_)));
    let mut text = format!("{hold} hold, {not_here} not here, {skipped} skipped");
    for (number, what) in
        [(faults, "not measured (a fault)"), (planned - laws.len(), "not reached")]
    {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use lesson::EXPERIMENTS;

    use super::*;

    #[test]
    fn an_unknown_law_is_answered_with_those_that_there_are() {
        let told = chosen(&["L10".into(), "L99".into()]).err().unwrap().0;
        assert!(told.contains("\"L99\"") && told.contains("L10"), "{told}");
        let ids = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&names).unwrap().iter().map(|law| law.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&["l10", "L5"]), ["L5", "L10"]);
        assert_eq!(ids(&[]).len(), law::all().len());
    }

    #[test]
    fn what_shows_a_law_can_be_typed() {
        for law in law::all() {
            let name = law.shown_by.strip_prefix("iolab experiment ");
            assert!(name.is_none_or(|name| EXPERIMENTS.iter().any(|one| one.name == name)));
        }
    }

    #[test]
    fn the_last_line_counts_every_law() {
        let outcome = |standing| LawOutcome {
            id: "L1".into(),
            claim: "A claim.".into(),
            expected: "A figure.".into(),
            source: String::new(),
            shown_by: "iolab experiment idle".into(),
            figures: Vec::new(),
            note: None,
            standing,
            others_cores: Some(1.5),
            took_s: 1.0,
        };
        let laws = [
            outcome(Standing::Holds),
            outcome(Standing::NotHere("because".into())),
            outcome(Standing::Skip("no root".into())),
            outcome(Standing::Fault("broken".into())),
        ];
        let told_all = summed_up(&laws, 6);
        assert_eq!(
            told_all,
            "1 hold, 1 not here, 1 skipped, 1 not measured (a fault), 2 not reached\n"
        );
        assert!(told(&laws[1]).contains("NOT HERE") && told(&laws[1]).contains("because"));
        assert!(told(&laws[1]).contains("1.5 cores") && !told(&laws[0]).contains("cores"));
    }
}
