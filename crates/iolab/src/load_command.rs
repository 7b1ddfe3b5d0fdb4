//! `iolab load`: loads servers, verifies every reply, and reports.

mod arguments;
mod find_rate;
mod hgrm;
mod live;
mod over_link;
mod search;
mod several;
mod shortfall;
mod table;

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;

use load::{Live, Method, Plan, Silent};
use record::{LoadOutcome, ServerSample};
use serde::Serialize;

use rig::sample::{Borders, Process};

pub use arguments::LoadArguments;
use live::INTERRUPTED;
pub(crate) use over_link::program;

pub use live::Display;

#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    outcome: &'a LoadOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a ServerSample>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a link::Accuracy>,
}

/// Runs the load and prints the outcome.
///
/// # Errors
/// One sentence: bad input, a server that cannot be reached, or a file that cannot be written.
/// `main` then exits with code 2. What was measured is printed before.
pub fn run(arguments: LoadArguments) -> Result<ExitCode, Box<dyn Error>> {
    let live = Arc::new(Live::default());
    let is_over_link = arguments.over.prepare()?;
    live::stop_on_interrupt(&live)?;
    match is_over_link {
        true => over_link::run(arguments, &live),
        false => load(&arguments, &live),
    }
}

fn load(arguments: &LoadArguments, live: &Arc<Live>) -> Result<ExitCode, Box<dyn Error>> {
    if arguments.is_for_several() {
        return several::run(arguments, live);
    }
    let plan = arguments.plan()?;
    let ignored = plan.target.protocol.is_http() && plan.method != Method::Post;
    if ignored && arguments.has_payload() {
        let method = plan.method.as_str();
        eprintln!("iolab: note: --payload is ignored: a {method} has no body");
    }
    if let Some(budget) = arguments.budget() {
        return find_rate::run(arguments, &plan, budget, live);
    }
    let hgrm = arguments.hgrm.as_deref().map(hgrm::Output::open).transpose()?;
    let (outcome, server) = match measure(arguments, &plan, live) {
        Err(error) if matches!(error.downcast_ref(), Some(load::Error::Interrupted)) => {
            eprintln!("iolab: {error}");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        measured => measured?,
    };
    tell(&match arguments.json {
        true => serde_json::to_string(&Output {
            outcome: &outcome,
            server: server.as_ref(),
            link: arguments.over.accuracy.as_ref(),
        })?,
        false => table::outcome(&outcome, server.as_ref()),
    })?;
    if let Some(why) = &outcome.ended_early {
        eprintln!("iolab: the figures are of a shorter window: {why}");
    }
    outcome.notes.iter().for_each(|note| eprintln!("iolab: note: {note}"));
    let shortfalls = shortfall::of(&outcome);
    shortfalls.iter().for_each(|why| eprintln!("iolab: {why}"));
    if let Some(hgrm) = hgrm {
        hgrm.write(&outcome.latency)?;
    }
    Ok(status(&outcome, shortfalls.is_empty(), live))
}

/// One run; with --pid the server's process is sampled too.
fn measure(
    arguments: &LoadArguments,
    plan: &Plan,
    live: &Arc<Live>,
) -> Result<(LoadOutcome, Option<ServerSample>), Box<dyn Error>> {
    let server = arguments.pid.first().copied().map(Process::new).transpose()?;
    let _display = Display::start(live, !arguments.json);
    let Some(server) = server else { return Ok((load::run_live(plan, &mut Silent, live)?, None)) };
    let mut borders = Borders::new(&server);
    let outcome = load::run_live(plan, &mut borders, live)?;
    Ok((outcome, Some(borders.finish()?.server)))
}

/// Writes to stdout. If that fails, to stderr, so that no result is lost.
fn tell(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // The reader (`| head`) needed no more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            eprintln!("{text}");
            Err(format!(
                "cannot write to stdout ({error}); the result was printed to stderr instead"
            ))
        }
        Ok(()) => Ok(()),
    }
}

/// The exit code. `achieved`: there is no shortfall.
fn status(outcome: &LoadOutcome, achieved: bool, live: &Live) -> ExitCode {
    let early = outcome.ended_early.is_some();
    match outcome.errors > 0 || outcome.requests == 0 || early || !achieved {
        _ if early && live.is_stopped() => ExitCode::from(INTERRUPTED),
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_run_is_no_success() {
        let live = Live::default();
        let good = LoadOutcome { requests: 1, ..LoadOutcome::default() };
        let shown = |outcome: &LoadOutcome| {
            format!("{:?}", status(outcome, shortfall::of(outcome).is_empty(), &live))
        };
        assert_eq!(shown(&good), format!("{:?}", ExitCode::SUCCESS));
        let invalid = LoadOutcome { invalid: Some("slow".into()), ..good.clone() };
        let early = LoadOutcome { ended_early: Some("died".into()), ..good.clone() };
        let wrong = LoadOutcome { errors: 1, ..good.clone() };
        for bad in [&invalid, &early, &wrong, &LoadOutcome::default()] {
            assert_eq!(shown(bad), format!("{:?}", ExitCode::FAILURE));
        }
        live.stop();
        assert_eq!(
            format!("{:?}", status(&early, true, &live)),
            format!("{:?}", ExitCode::from(130))
        );
    }
}
