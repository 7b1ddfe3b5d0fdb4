//! `iolab load A B C`: loads servers in slices in alternation and compares them with the first.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use load::{Live, Plan};
use nix::unistd::Pid;
use record::SplitMix64;
use rig::sample;
use serde::Serialize;

use crate::slices::standing;
use render::text;
use rig::slices::{self, Entrant, Epoch};
use verdict::statistics::MARGIN;

use super::LoadArguments;
use super::live::INTERRUPTED;

/// Number of epochs, each with new connections. How requests fall into batches differs from one set
/// of connections to the next and changes a figure by some percent. So many short epochs are more
/// precise than a few long ones.
const EPOCHS: usize = 18;

const SEED: u64 = 1;

/// Label of the second set of connections to the first server.
const CONTROL: &str = "again (control)";

#[derive(Serialize)]
struct Output<'a> {
    servers: &'a [standing::Standing],
    epochs: usize,
    discarded_blocks: u32,
    /// The processors were held awake.
    awake: bool,
}

/// Measures the servers and prints the comparison.
///
/// # Errors
/// One sentence: bad input, or a server that cannot be reached.
pub fn run(arguments: &LoadArguments, live: &Arc<Live>) -> Result<ExitCode, Box<dyn Error>> {
    let plans = plans(arguments)?;
    let processes = processes(arguments, plans.len())?;
    let awake = arguments.awake.hold()?;
    let time = arguments.duration().unwrap_or(DURATION) / EPOCHS as u32;
    let mut random = SplitMix64::new(SEED);
    let mut epochs: Vec<Epoch> = Vec::new();
    while epochs.len() < EPOCHS && !live.is_stopped() {
        progress(epochs.len() + 1);
        match one_epoch(&plans, &processes, time, &mut random, live) {
            Ok(epoch) => {
                let ended = epoch.ended.iter().any(Option::is_some);
                epochs.push(epoch);
                if ended {
                    break;
                }
            }
            Err(error) if epochs.is_empty() => return Err(error.into()),
            // The epochs so far are printed nevertheless.
            Err(error) => {
                eprintln!("iolab: the figures are of {} epochs: {error}", epochs.len());
                break;
            }
        }
    }
    let name = |plan: &Plan| plan.target.authority.clone() + &plan.target.path;
    let mut labels: Vec<String> = plans.iter().map(name).collect();
    labels[1] = CONTROL.to_owned();
    let standings = standing::standings(&labels, &epochs, MARGIN);
    let discarded = epochs.iter().map(|epoch| epoch.discarded).sum();
    super::tell(&match arguments.json {
        true => serde_json::to_string(&Output {
            servers: &standings,
            epochs: epochs.len(),
            discarded_blocks: discarded,
            awake: awake.is_some(),
        })?,
        false => told(&standings, epochs.len(), discarded, awake.is_some()),
    })?;
    for (at, label) in labels.iter().enumerate() {
        if at != 1 && epochs.iter().any(|epoch| epoch.disturbs.get(at) == Some(&true)) {
            eprintln!(
                "iolab: note: {label} uses CPU while it has no requests, and takes it from the \
                 others: compare it with one other server at a time, each on its own core"
            );
        }
    }
    let whole = epochs.len() == EPOCHS || live.is_stopped();
    let measured = whole && standings.iter().all(|one| one.ended.is_none() && one.blocks > 0);
    if !measured {
        eprintln!("iolab: not all servers were measured to the end");
    }
    Ok(match (live.is_stopped(), measured) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (_, false) => ExitCode::FAILURE,
        (_, true) => ExitCode::SUCCESS,
    })
}

/// The default for one server.
const DURATION: Duration = Duration::from_secs(10);

/// One plan for each server; the first server has two.
fn plans(arguments: &LoadArguments) -> Result<Vec<Plan>, Box<dyn Error>> {
    let mut plans = arguments.plans()?;
    plans.insert(1, plans[0].clone());
    for plan in &plans {
        plan.check()?;
    }
    Ok(plans)
}

/// The processes of each server; empty without --pid.
fn processes(arguments: &LoadArguments, plans: usize) -> Result<Vec<Vec<Pid>>, Box<dyn Error>> {
    let mut named: Vec<Vec<Pid>> =
        arguments.pid.iter().map(|&pid| sample::process_tree(Pid::from_raw(pid))).collect();
    if named.is_empty() {
        return Ok(vec![Vec::new(); plans]);
    }
    if named.len() + 1 != plans {
        return Err(format!(
            "--pid names {} processes for {} servers: name one for each server, in their order, \
             separated by commas",
            named.len(),
            plans - 1
        )
        .into());
    }
    named.insert(1, named[0].clone());
    Ok(named)
}

fn progress(epoch: usize) {
    if io::stderr().is_terminal() {
        let end = if epoch == EPOCHS { "\n" } else { "" };
        eprint!("\repoch {epoch} of {EPOCHS}{end}");
    }
}

/// Opens connections to all servers and measures them in one epoch.
fn one_epoch(
    plans: &[Plan],
    processes: &[Vec<Pid>],
    time: Duration,
    random: &mut SplitMix64,
    live: &Live,
) -> Result<Epoch, load::Error> {
    // Not stopped by SIGSTOP between slices: these servers are the user's.
    let open =
        |(plan, processes): (&Plan, &Vec<Pid>)| Entrant::open(plan.clone(), processes, false);
    let mut entrants = plans.iter().zip(processes).map(open).collect::<Result<Vec<_>, _>>()?;
    slices::epoch(&mut entrants, time, random, &|| live.is_stopped())
}

/// The table, notes, and the comparison in words.
fn told(standings: &[standing::Standing], epochs: usize, discarded: u32, awake: bool) -> String {
    let blocks = standings.iter().map(|one| one.blocks).max().unwrap_or(0);
    let power = if awake { "kept awake" } else { "allowed to sleep" };
    let mut note = format!(
        "CPU time of server and client per request, and ratios to the first \
         server: medians over {blocks} blocks in {epochs} epochs; processors {power}. \"equal\" \
         means within {:.0} %, \"~\" means undecided. The intervals below are 99 % intervals.",
        100.0 * MARGIN
    );
    if discarded > 0 {
        note.push_str(&format!(
            " {discarded} blocks were discarded: in one slice a server sent no reply or a wrong \
             one."
        ));
    }
    if standings.iter().skip(1).any(|one| one.rate.is_none()) {
        note.push_str(" The time was too short: give a longer --duration.");
    }
    format!(
        "{}\n{}\n\n{}",
        standing::table(standings),
        text::wrap(&note, 0),
        standing::answer(&standings[..1].iter().chain(&standings[2..]).collect::<Vec<_>>())
            .trim_end()
    )
}
