//! `iolab experiment`: asks, runs, draws and concludes.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use lesson::{Answer, EXPERIMENTS, Experiment, Links, Predict, Refused, Setting, Stage};
use record::{Heading, RECORDING_VERSION, Recording};
use render::failure::{Failure, because};
use render::lesson::Picture;
use render::{packed, text};
use rig::{discover, environment};
use serde_json::json;
use verdict::lesson::Lesson;

use crate::bench::{EXIT_INTERRUPTED, handle_interrupts, interrupted};

/// Where the files of an experiment go, in a folder of its name.
const OUT: &str = "results/lessons";

/// Arguments of `iolab experiment`.
#[derive(Args)]
pub struct Arguments {
    /// The experiments to run, or `all`. Without a name they are listed.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Ask for a prediction before each run, and compare it with what was seen.
    #[arg(long, conflicts_with = "from")]
    predict: bool,
    /// Folder of recording.jsonl and picture.svg; with several experiments, of a folder for each
    /// [default: results/lessons/NAME].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Draw and conclude from this recording again, without a run.
    #[arg(long, value_name = "RECORDING", conflicts_with_all = ["names", "model"])]
    from: Option<PathBuf>,
    /// Run another model where the experiment has one server.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Further directories with servers (executables named serve-NAME), separated by colons.
    #[arg(long, value_name = "DIRS")]
    servers: Option<String>,
    /// Print one line of JSON for each experiment.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(file) = &arguments.from {
        return again(arguments, file);
    }
    if arguments.names.is_empty() {
        return list(arguments.json);
    }
    let chosen = chosen(&arguments.names)?;
    if let Some(none) = chosen.iter().find(|one| arguments.model.is_some() && one.model.is_none()) {
        return Err(Failure(format!(
            "--model: {} compares fixed models; leave --model out for it",
            none.name
        )));
    }
    let links = match link::prepare() {
        Ok(()) => Links::Made,
        Err(refused) => Links::Refused(refused.to_string()),
    };
    environment::raise_descriptor_limit();
    handle_interrupts()?;
    for (index, experiment) in chosen.iter().enumerate() {
        if index > 0 && !arguments.json {
            text::print("\n")?;
        }
        match one(arguments, experiment, links.clone(), chosen.len() > 1) {
            Ok(()) => {}
            Err(Stopped::Interrupted) => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
            Err(Stopped::Failed(failure)) => return Err(failure),
        }
    }
    Ok(ExitCode::SUCCESS)
}

enum Stopped {
    Interrupted,
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Stopped {
        Stopped::Failed(failure)
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Experiment>, Failure> {
    if names.iter().any(|name| name == "all") {
        return Ok(EXPERIMENTS.iter().collect());
    }
    let find = |name: &String| {
        EXPERIMENTS.iter().find(|experiment| experiment.name == name).ok_or_else(|| {
            let known: Vec<&str> = EXPERIMENTS.iter().map(|one| one.name).collect();
            Failure(format!(
                "there is no experiment {name:?}; name one of {}, or all",
                known.join(", ")
            ))
        })
    };
    names.iter().map(find).collect()
}

fn list(as_json: bool) -> Result<ExitCode, Failure> {
    if as_json {
        let one =
            |e: &Experiment| json!({"name": e.name, "question": e.question, "takes_s": e.takes_s});
        let all: Vec<_> = EXPERIMENTS.iter().map(one).collect();
        return text::print(&format!("{}\n", json!(all)));
    }
    let mut listed = String::new();
    for Experiment { name, question, takes_s, .. } in EXPERIMENTS {
        let lines = text::lines_of(question, text::columns() - 2).join("\n  ");
        listed += &format!("{name} (about {takes_s} s)\n  {lines}\n\n");
    }
    text::print(&format!("{listed}Run one: iolab experiment {}\n", EXPERIMENTS[0].name))
}

/// Asks, runs, and tells.
fn one(
    arguments: &Arguments,
    experiment: &Experiment,
    links: Links,
    several: bool,
) -> Result<(), Stopped> {
    if !arguments.json {
        let title = format!("{}: ", experiment.name);
        text::print(&(text::wrap(&format!("{title}{}", experiment.question), 0) + "\n\n"))?;
    }
    let prediction = if arguments.predict { ask(&experiment.predict)? } else { None };
    let heading = Heading {
        recording_version: RECORDING_VERSION,
        experiment: experiment.name.to_owned(),
        command: command(arguments, experiment),
        prediction,
        environment: environment::read(None, None),
    };
    let recording = perform(arguments, experiment, links, Recording::new(heading))?;
    let folder = match (&arguments.out, several) {
        (Some(out), false) => out.clone(),
        (Some(out), true) => out.join(experiment.name),
        (None, _) => Path::new(OUT).join(experiment.name),
    };
    let text = recording.to_json_lines().map_err(because("cannot write the recording"))?;
    Ok(tell(arguments, &recording, Some((&folder, text)))?)
}

/// Runs the experiment, which adds to the recording.
fn perform(
    arguments: &Arguments,
    experiment: &Experiment,
    links: Links,
    recording: Recording,
) -> Result<Recording, Stopped> {
    let progress = Progress { name: experiment.name, is_terminal: io::stderr().is_terminal() };
    let show = |step: &str| progress.show(step);
    let setting = Setting {
        servers: discover::directories(arguments.servers.as_deref()),
        model: arguments.model.clone(),
        links,
        interrupted: &interrupted,
        progress: &show,
    };
    let mut stage = Stage::new(setting, recording);
    let done = (experiment.run)(&mut stage);
    progress.clear();
    match done {
        Ok(()) => Ok(stage.into_recording()),
        // What Ctrl-C cut short is no failure.
        Err(_) if interrupted() => Err(Stopped::Interrupted),
        Err(Refused::Interrupted) => Err(Stopped::Interrupted),
        Err(Refused::Because(why)) => Err(Failure(format!("{}: {why}", experiment.name)).into()),
    }
}

/// The command that repeats the experiment.
fn command(arguments: &Arguments, experiment: &Experiment) -> String {
    let model = arguments.model.as_ref().map(|model| format!(" --model {model}"));
    format!("iolab experiment {}{}", experiment.name, model.unwrap_or_default())
}

/// Asks for a prediction on stderr and reads it from stdin; `None` for an empty line, or if stdin
/// has ended.
fn ask(predict: &Predict) -> Result<Option<String>, Failure> {
    eprintln!("{}", text::wrap(predict.question, 0));
    loop {
        match &predict.answer {
            Answer::Choice(choices) => {
                for (number, choice) in (1..).zip(*choices) {
                    eprintln!("  {number}. {choice}");
                }
                eprint!("Your prediction (1 to {}): ", choices.len());
            }
            Answer::Number(unit) => eprint!("Your prediction, in {unit}: "),
        }
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        let read = read.map_err(because("cannot read the prediction from stdin"))?;
        let line = line.trim();
        if read == 0 || line.is_empty() {
            eprintln!("No prediction.\n");
            return Ok(None);
        }
        match predicted(&predict.answer, line) {
            Some(prediction) => {
                eprintln!();
                return Ok(Some(prediction));
            }
            None => eprintln!("{line:?} is no answer to this; an empty line skips the question."),
        }
    }
}

/// The prediction as it is recorded; `None` if the line is none.
fn predicted(answer: &Answer, line: &str) -> Option<String> {
    match answer {
        Answer::Choice(choices) => {
            let by_number = line.parse::<usize>().ok().and_then(|n| choices.get(n.checked_sub(1)?));
            let by_name = || choices.iter().find(|choice| choice.eq_ignore_ascii_case(line));
            by_number.or_else(by_name).map(|choice| (*choice).to_owned())
        }
        Answer::Number(unit) => {
            let number = line.strip_suffix(unit).unwrap_or(line).trim();
            number.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| n.to_string())
        }
    }
}

/// The line that says what is done now.
struct Progress {
    name: &'static str,
    is_terminal: bool,
}

impl Progress {
    fn show(&self, step: &str) {
        // Of a terminal the line is replaced: carriage return, and the rest is erased.
        let (begin, end) = if self.is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        eprint!("{begin}{}: {step} ...{end}", self.name);
        // Progress that cannot be shown is no failure of the experiment.
        let _ = io::stderr().flush();
    }

    fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// `--from`.
fn again(arguments: &Arguments, file: &Path) -> Result<ExitCode, Failure> {
    let name = file.display();
    let text = packed::read(file)?;
    let recording = Recording::from_json_lines(&text).map_err(because(name))?;
    tell(arguments, &recording, arguments.out.as_ref().map(|out| (out.as_path(), text)))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the files and prints picture and conclusion.
fn tell(
    arguments: &Arguments,
    recording: &Recording,
    files: Option<(&Path, String)>,
) -> Result<(), Failure> {
    let name = &recording.heading.experiment;
    let unknown = || Failure(format!("{name:?} is no experiment that this iolab knows"));
    let lesson = verdict::lesson::of(recording).ok_or_else(unknown)?;
    let picture = render::lesson::picture(recording, &lesson, text::columns());
    let picture = picture.ok_or_else(unknown)?;
    if let Some((folder, lines)) = &files {
        write(folder, lines, &picture)?;
    }
    let folder = files.map(|(folder, _)| folder);
    let told = match arguments.json {
        true => in_json(recording, &lesson, folder),
        false => in_words(recording, &lesson, &picture, folder),
    };
    text::print(&told)?;
    Ok(())
}

fn write(folder: &Path, recording: &str, picture: &Picture) -> Result<(), Failure> {
    let cannot = |path: &Path| because(format!("cannot write {}", path.display()));
    std::fs::create_dir_all(folder).map_err(cannot(folder))?;
    for (name, text) in [("recording.jsonl", recording), ("picture.svg", picture.svg.as_str())] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(cannot(&path))?;
    }
    Ok(())
}

/// What is said of the prediction.
fn compared(recording: &Recording, lesson: &Lesson) -> Option<String> {
    let predicted = recording.heading.prediction.as_deref()?;
    let experiment = EXPERIMENTS.iter().find(|one| one.name == recording.heading.experiment)?;
    let unit = match experiment.predict.answer {
        Answer::Number(unit) => unit,
        Answer::Choice(_) => "",
    };
    Some(verdict::lesson::compare(predicted, lesson.answer.as_ref(), unit))
}

fn in_words(
    recording: &Recording,
    lesson: &Lesson,
    picture: &Picture,
    folder: Option<&Path>,
) -> String {
    let mut told = picture.text.clone() + "\n";
    for skipped in &recording.skipped {
        told += &(text::wrap(&format!("SKIP {}: {}", skipped.what, skipped.why), 2) + "\n");
    }
    for sentence in &lesson.sentences {
        let mark = if sentence.holds { "+" } else { "-" };
        told += &(text::wrap(&format!("{mark} {}", sentence.text), 2) + "\n");
    }
    if let Some(compared) = compared(recording, lesson) {
        told += &format!("\n{}\n", text::wrap(&compared, 0));
    }
    if let Some(folder) = folder {
        told += &format!("\n{}: recording.jsonl, picture.svg\n", folder.display());
    }
    told
}

fn in_json(recording: &Recording, lesson: &Lesson, folder: Option<&Path>) -> String {
    let sentence = |s: &verdict::lesson::Sentence| json!({"text": s.text, "holds": s.holds});
    let sentences: Vec<_> = lesson.sentences.iter().map(sentence).collect();
    let answer = match &lesson.answer {
        Some(verdict::lesson::Answer::Choice(choice)) => json!(choice),
        Some(verdict::lesson::Answer::Number(number)) => json!(number),
        None => json!(null),
    };
    let value = json!({
        "experiment": recording.heading.experiment,
        "finding": sentence(&lesson.finding),
        "sentences": sentences,
        "skipped": recording.skipped,
        "prediction": recording.heading.prediction,
        "answer": answer,
        "figures": recording.figures,
        "folder": folder,
    });
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_a_choice_or_a_number() {
        let choice = Answer::Choice(&["threads", "epoll"]);
        for (line, read) in [("2", Some("epoll")), ("Threads", Some("threads")), ("3", None)] {
            assert_eq!(predicted(&choice, line).as_deref(), read, "{line}");
        }
        assert_eq!(predicted(&choice, "0"), None);
        let number = Answer::Number("ms");
        for (line, read) in [("40", Some("40")), ("40 ms", Some("40")), ("much", None)] {
            assert_eq!(predicted(&number, line).as_deref(), read, "{line}");
        }
    }
}
