//! `iolab trace`: three clients, a few requests, and the figure that Stevens drew by hand (UNP
//! section 6.2), from the real system calls of a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use record::{Heading, RECORDING_VERSION, Recording, Run};

use crate::load_command::program;
use render::failure::{Failure, because};
use render::{packed, text, trace};
use rig::{discover, environment};
use verdict::trace::place;

/// Arguments of `iolab trace`.
#[derive(Args)]
pub struct Arguments {
    /// Servers to trace, each with its own flags if wanted: epoll 'epoll --trigger edge'; `all` for
    /// all models. With --from: which runs of the recording to show.
    #[arg(value_name = "MODEL", required_unless_present_any = ["from", "explain"])]
    models: Vec<String>,
    /// Write the recording (trace.jsonl) and a picture of each run to this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the recording (JSON lines) and no figure.
    #[arg(long)]
    json: bool,
    /// Print what the two questions mean, in three definitions, and the answers to what everybody
    /// asks: is epoll asynchronous? Traces nothing.
    #[arg(long, conflicts_with_all = ["models", "from", "out", "json"])]
    explain: bool,
    /// Show a recording that was written before, and trace nothing.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    from: Option<PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// One sentence: an unknown server, ptrace(2) is refused, a server or a file failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.explain {
        return text::print(&trace::explanation());
    }
    let recording = match &arguments.from {
        Some(file) => read(file, &arguments.models)?,
        None => record(&arguments.models)?,
    };
    let lines = recording.to_json_lines().map_err(because("the recording cannot be written"))?;
    if let Some(place) = &arguments.out {
        let file = place.join("trace.jsonl");
        let written = std::fs::create_dir_all(place).and_then(|()| std::fs::write(&file, &lines));
        written.map_err(because(format!("cannot write {}", file.display())))?;
        for run in &recording.runs {
            let plot = trace::picture(&recording, run);
            let file = place.join(format!("{}.svg", plot.name));
            let written = std::fs::write(&file, plot.svg);
            written.map_err(because(format!("cannot write {}", file.display())))?;
        }
    }
    if arguments.json {
        return text::print(&lines);
    }
    let mut parts: Vec<_> = recording.runs.iter().map(|run| trace::text(&recording, run)).collect();
    if recording.runs.len() > 1 {
        parts.push(trace::matrix(&recording));
    }
    text::print(&parts.join("\n"))
}

/// A recording from a file, with the runs that are asked for.
fn read(file: &Path, wanted: &[String]) -> Result<Recording, Failure> {
    let shown = file.display();
    let mut recording =
        Recording::from_json_lines(&packed::read(file)?).map_err(because(&shown))?;
    let known: Vec<String> = recording.runs.iter().map(|run| run.run.clone()).collect();
    if let Some(stranger) = wanted.iter().find(|name| *name != "all" && !known.contains(name)) {
        let known = known.join(", ");
        return Err(Failure(format!("{shown} has no run {stranger:?}; it has: {known}")));
    }
    if !wanted.is_empty() && !wanted.contains(&"all".to_owned()) {
        recording.runs.retain(|run| wanted.contains(&run.run));
    }
    Ok(recording)
}

/// Traces the servers, one after the other.
fn record(wanted: &[String]) -> Result<Recording, Failure> {
    let mut recording = Recording::new(Heading {
        recording_version: RECORDING_VERSION,
        experiment: "trace".to_owned(),
        command: format!("iolab trace {}", wanted.join(" ")),
        prediction: None,
        environment: environment::read(None, None),
    });
    for (label, executable, flags) in servers(wanted)? {
        let failed = |why| Failure(format!("{label}: {why}"));
        let trace = rig::trace::run(&executable, &flags, &label).map_err(failed)?;
        recording.runs.push(Run {
            run: label.clone(),
            title: "three clients, one request each".to_owned(),
            model: label.split([' ', '+']).next().unwrap_or_default().to_owned(),
            arguments: flags,
            link: None,
        });
        recording.calls.extend(trace.calls);
        recording.spans.extend(trace.spans);
        if let Some(what) = contradiction(&recording, &label, &executable) {
            eprintln!("iolab: note: the trace of {label} contradicts its --describe: {what}");
        }
    }
    Ok(recording)
}

/// In what the trace contradicts what the server says of itself. A server that says nothing of its
/// place is not contradicted.
fn contradiction(recording: &Recording, run: &str, executable: &Path) -> Option<String> {
    let said = discover::describe(executable).ok()?.model.describe;
    let said = &said["place"];
    let blocks_in: Option<Vec<&str>> =
        said["blocks_in"].as_array()?.iter().map(|call| call.as_str()).collect();
    place(recording, run).contradicts(&blocks_in?, said["copied_by"].as_str()?)
}

/// Label, program and flags of each server.
type Server = (String, PathBuf, Vec<String>);

fn servers(wanted: &[String]) -> Result<Vec<Server>, Failure> {
    let mut servers: Vec<Server> = Vec::new();
    for name in wanted {
        if name == "all" {
            let (found, skips) = discover::servers(&discover::directories(None), &[])?;
            for skip in skips {
                eprintln!("iolab: SKIP {}: {}", skip.model, skip.reason);
            }
            let plain = found.into_iter().filter(|server| server.model.arguments.is_empty());
            servers.extend(plain.map(|s| (s.model.label, s.executable, Vec::new())));
            continue;
        }
        let (executable, flags) = program(name, "MODEL")?;
        // A path is named by its file.
        let label = name.rsplit_once("/serve-").map_or(name.as_str(), |(_, label)| label);
        servers.push((label.to_owned(), executable, flags));
    }
    for (place, (label, ..)) in servers.iter().enumerate() {
        if servers[..place].iter().any(|(other, ..)| other == label) {
            return Err(Failure(format!("{label} is named twice")));
        }
    }
    Ok(servers)
}
