//! `iolab report`: tables, REPORT.md and plots, rendered from a result file only.

mod book;
mod lessons;
mod listing;
mod map;
pub(crate) mod plot;
mod table;
mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use record::{Instrument, Outcome, Results, Role, Trial};

use crate::failure::{Failure, because};
use crate::{packed, text};
use verdict::summary::summarise;

use book::{Book, Language};
use template::Context;

/// Name of the raw data in a result folder.
pub const RESULTS_FILE: &str = "results.json";

/// Name of the rendered report.
const REPORT_FILE: &str = "REPORT.md";

/// Name, in a result folder, of the file with the tables of all workloads.
const TABLES_FILE: &str = "TABLES.md";

/// Name, in a result folder, of the file that `iolab check-instrument` wrote. The report shows it.
pub const INSTRUMENT_FILE: &str = "instrument.json";

/// Exit code of `--check` when a file is stale.
const EXIT_STALE: u8 = 1;

/// Arguments of `iolab report`.
#[derive(Args)]
pub struct Arguments {
    /// A result folder, or the results.json in it.
    results: PathBuf,
    /// Write the report to this file, and the plots to the result folder. Without --output the
    /// tables are printed.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The language of the report.
    #[arg(long, value_enum, default_value_t = Language::En, requires = "output")]
    language: Language,
    /// Render this template instead of the report.
    #[arg(long, value_name = "FILE", requires = "output")]
    template: Option<PathBuf>,
    /// Also render the parts of this file between `<!-- rendered: TEMPLATE -->` and
    /// `<!-- end rendered -->`. A claim of a template that the result contradicts is then an error.
    #[arg(long, value_name = "FILE", requires = "output")]
    fill: Option<PathBuf>,
    /// Also print the details of each request's cost, such as system calls by name.
    #[arg(long, conflicts_with = "output")]
    full: bool,
    /// Write nothing; check that the report and the plots are up to date. Exit code 0: they are, 1:
    /// they are not.
    #[arg(long, requires = "output")]
    check: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let results = read(&arguments.results)?;
    let Some(output) = &arguments.output else {
        return measured_or_failure(&results, text::print(&terminal(&results, arguments.full))?);
    };
    let template = arguments.template.as_deref().map(text_of).transpose()?;
    let page = Page {
        output,
        template: template.as_deref(),
        language: arguments.language,
        fill: arguments.fill.as_deref(),
    };
    let files = rendered(&results, &folder_of(&arguments.results), &page)?;
    if arguments.check {
        return check(&files);
    }
    write(&files)?;
    let printed = text::print(&format!(
        "wrote {}: {} files with its plots\n",
        output.display(),
        files.len()
    ))?;
    measured_or_failure(&results, printed)
}

/// What is rendered beside the tables and the plots.
struct Page<'a> {
    /// The file of the report.
    output: &'a Path,
    /// Its template; `None`: the book.
    template: Option<&'a str>,
    language: Language,
    /// A file with regions that are rendered in place.
    fill: Option<&'a Path>,
}

fn text_of(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(because(format!("cannot read {}", path.display())))
}

/// `done` if the results hold a measurement; otherwise a failure, which is printed.
pub fn measured_or_failure(results: &Results, done: ExitCode) -> Result<ExitCode, Failure> {
    let is_missing = |missing: &Unmeasured| missing.pairs == missing.of;
    let Some(missing) = unmeasured(results).filter(is_missing) else { return Ok(done) };
    eprintln!("iolab: {missing}");
    Ok(ExitCode::FAILURE)
}

/// Pairs of model and workload without a measurement.
pub struct Unmeasured {
    pairs: usize,
    /// Number of pairs that were tried.
    of: usize,
    /// Reason of the first failure.
    first: String,
}

impl fmt::Display for Unmeasured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unmeasured { pairs, of, first } = self;
        match pairs == of {
            true => write!(f, "nothing was measured at all: {first}"),
            false => write!(
                f,
                "nothing was measured of {pairs} of {of} pairs of model and workload, the first: \
                 {first}"
            ),
        }
    }
}

/// Pairs that were tried but not measured; `None` if there are none.
pub fn unmeasured(results: &Results) -> Option<Unmeasured> {
    let answered = |trial: &Trial| match &trial.outcome {
        Outcome::Measured(measured) => measured.load.requests > 0,
        Outcome::Failed { .. } => false,
    };
    let mut cells: BTreeMap<_, (bool, Option<&Trial>)> = BTreeMap::new();
    for trial in results.trials.iter().filter(|trial| trial.slot.role == Role::Timed) {
        let (measured, first) = cells.entry((&trial.slot.workload, &trial.slot.model)).or_default();
        *measured |= answered(trial);
        first.get_or_insert(trial);
    }
    let (of, mut missing) = (cells.len(), cells.values().filter(|(measured, _)| !measured));
    let pairs = missing.clone().count();
    let first = match missing.next().and_then(|(_, first)| *first) {
        None if of == 0 => "no trial was made".to_owned(),
        None => return None,
        Some(Trial { slot, outcome, .. }) => {
            let reason = match outcome {
                Outcome::Failed { reason } => reason.as_str(),
                Outcome::Measured(_) => "no request was answered",
            };
            format!("{} with {}: {reason}", slot.model, slot.workload)
        }
    };
    Some(Unmeasured { pairs, of, first })
}

/// Reads a result file, or the one in a folder, plain or packed.
pub fn read(path: &Path) -> Result<Results, Failure> {
    let path = if path.is_dir() { path.join(RESULTS_FILE) } else { path.to_owned() };
    Results::from_json(&packed::read(&path)?).map_err(because(path.display()))
}

/// Reads instrument.json in a folder; `None` if there is none.
fn read_instrument(folder: &Path) -> Result<Option<Instrument>, Failure> {
    let path = folder.join(INSTRUMENT_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Instrument::from_json(&text).map(Some).map_err(because(path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(because(format!("cannot read {}", path.display()))(error)),
    }
}

/// The tables for a terminal. `full`: with the details of each request's cost.
pub fn terminal(results: &Results, full: bool) -> String {
    table::terminal(results, &summarise(results), full)
}

/// The summary at the end of a run. `folder`: that of the result, if it could be written.
pub fn terminal_end(results: &Results, folder: Option<&Path>) -> String {
    table::end::screen(results, &summarise(results), folder)
}

/// The tables in Markdown, without the report around them.
pub fn markdown(results: &Results) -> String {
    let summary = summarise(results);
    let doubts = table::doubts::of_run(&summary);
    let doubts: String = doubts.iter().map(|line| format!("\n{line}\n")).collect();
    format!("{}{}\n{doubts}", table::markdown(results, &summary), table::LEGEND)
}

/// Writes the report and the plots into a result folder.
pub fn write_folder(results: &Results, folder: &Path) -> Result<(), Failure> {
    let output = &folder.join(REPORT_FILE);
    write(&rendered(
        results,
        folder,
        &Page { output, template: None, language: Language::En, fill: None },
    )?)
}

/// The folder of a result file; for a folder, itself.
pub fn folder_of(results: &Path) -> PathBuf {
    match results.is_dir() {
        true => results.to_owned(),
        false => results.parent().unwrap_or(Path::new("")).to_owned(),
    }
}

/// The report, the file with rendered regions, the tables and the pictures that they show: name and
/// text of each.
fn rendered(
    results: &Results,
    folder: &Path,
    page: &Page,
) -> Result<Vec<(PathBuf, String)>, Failure> {
    let (summary, lessons) = (summarise(results), lessons::read(folder)?);
    let (plots, instrument) = (plot::all(results, &summary), read_instrument(folder)?);
    let sources = checkout();
    let book = Book::read(page.language, sources.as_deref())?;
    // The tables have one language, whatever that of the report is.
    let english = Book::read(Language::En, sources.as_deref())?;
    let render =
        |place: &Path, book: &Book, render: &dyn Fn(&Context) -> Result<String, Failure>| {
            let sources_prefix = sources.as_deref().and_then(|top| prefix_up(top, place));
            let context = Context {
                results,
                summary: &summary,
                plots: &plots,
                lessons: &lessons,
                book,
                plots_prefix: &link_prefix(folder, place),
                sources_prefix: sources_prefix.as_deref(),
                sources: sources.clone(),
                instrument: instrument.as_ref(),
                strict: page.fill.is_some(),
            };
            Ok::<_, Failure>((place.to_owned(), render(&context)?))
        };
    let report = |context: &Context| match page.template {
        Some(template) => template::render(template, context),
        None => book::render(context),
    };
    let mut files = vec![render(page.output, &book, &report)?];
    if let Some(path) = page.fill {
        let text = text_of(path)?;
        files.push(render(path, &book, &|context| template::fill(&text, context))?);
    }
    let tables = folder.join(TABLES_FILE);
    let of_tables = |context: &Context| template::render(template::TABLES, context);
    files.push(render(&tables, &english, &of_tables)?);
    let plots = plots.iter().map(|plot| (format!("{}.svg", plot.name).into(), plot.svg.clone()));
    // A picture that no page shows is not written: there are some for each workload.
    let is_shown = |(name, _): &(PathBuf, String)| {
        files.iter().any(|(_, text)| text.contains(&*name.to_string_lossy()))
    };
    let pictures: Vec<_> = plots.chain(lessons.pictures()).filter(is_shown).collect();
    files.extend(pictures.into_iter().map(|(name, svg)| (folder.join(name), svg)));
    Ok(files)
}

/// The prefix of links from a file of the checkout to its top: `../` for each directory between.
fn prefix_up(top: &Path, output: &Path) -> Option<String> {
    let place = std::path::absolute(output).ok()?;
    let below = place.parent()?.strip_prefix(top).ok()?;
    Some("../".repeat(below.components().count()))
}

/// The prefix of the report's links to files in `folder`: relative if the folder is at or below the
/// report's own, otherwise as given.
fn link_prefix(folder: &Path, output: &Path) -> String {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let place = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (folder, place) = (absolute(folder), absolute(place));
    match folder.strip_prefix(&place).unwrap_or(&folder) {
        same if same.as_os_str().is_empty() => String::new(),
        below => format!("{}/", below.display()),
    }
}

/// The top of the working directory's checkout, from which listings are included.
fn checkout() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let top = |place: &&Path| place.join("Cargo.lock").is_file() && place.join("crates").is_dir();
    here.ancestors().find(top).map(Path::to_owned)
}

fn write(files: &[(PathBuf, String)]) -> Result<(), Failure> {
    files.iter().try_for_each(|(path, text)| write_safely(path, text.as_bytes()))
}

/// Writes a file completely or not at all: first to a temporary file, so that a full disk or a kill
/// leaves the previous file.
pub fn write_safely(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map(drop).map_err(because(format!("cannot write {}", path.display())))
}

fn check(files: &[(PathBuf, String)]) -> Result<ExitCode, Failure> {
    let stale = |(path, text): &&(PathBuf, String)| {
        std::fs::read_to_string(path).is_ok_and(|present| present == *text).then_some(()).is_none()
    };
    let stale: Vec<_> = files.iter().filter(stale).map(|(p, _)| p.display().to_string()).collect();
    if stale.is_empty() {
        return text::print("up to date\n");
    }
    eprintln!("iolab: stale: {}; render again (make report)", stale.join(", "));
    Ok(ExitCode::from(EXIT_STALE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_where_they_can_be() {
        assert_eq!(link_prefix(Path::new("results/a"), Path::new("REPORT.md")), "results/a/");
        assert_eq!(link_prefix(Path::new("results/a"), Path::new("results/a/REPORT.md")), "");
        assert_eq!(link_prefix(Path::new("/r/a"), Path::new("/x/REPORT.md")), "/r/a/");
    }

    fn page<'a>(output: &'a Path, template: &'a str, fill: Option<&'a Path>) -> Page<'a> {
        Page { output, template: Some(template), language: Language::En, fill }
    }

    #[test]
    fn links_to_the_sources_go_up_to_the_top() {
        let up = |output: &str| prefix_up(Path::new("/a"), Path::new(output));
        assert_eq!(up("/a/REPORT.md").as_deref(), Some(""));
        assert_eq!(up("/a/results/b/REPORT.md").as_deref(), Some("../../"));
        assert_eq!(up("/b/REPORT.md"), None);
    }

    #[test]
    fn a_changed_report_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let results = fixture::results();
        let output = folder.path().join("REPORT.md");
        let page = page(&output, "{{env cores}} cores\n\n{{plot map}}\n", None);
        let files = rendered(&results, folder.path(), &page).unwrap();
        let pictures: Vec<_> = files
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "svg"))
            .collect();
        assert!(pictures.len() == 1 && pictures[0].0.ends_with("map.svg"), "{pictures:?}");
        let tables = files.iter().find(|(path, _)| path.ends_with(TABLES_FILE)).unwrap();
        assert!(tables.1.contains("## idle-10000"), "{}", tables.1);
        assert_eq!(check(&files), Ok(ExitCode::from(EXIT_STALE)));
        write(&files).unwrap();
        assert_eq!(check(&files), Ok(ExitCode::SUCCESS));
        std::fs::write(&output, "3 cores\n").unwrap();
        assert_eq!(check(&files), Ok(ExitCode::from(EXIT_STALE)));
    }

    #[test]
    fn a_sentence_that_does_not_hold_stops_the_filling_of_a_file_and_is_told_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let (results, readme) = (fixture::results(), folder.path().join("README.md"));
        std::fs::write(&readme, "no region").unwrap();
        let claim = "{{claim http-keepalive poll cpu less epoll}}Poll is cheap.{{end}}";
        let output = folder.path().join("R.md");
        let of = |fill| rendered(&results, folder.path(), &page(&output, claim, fill));
        assert!(
            of(None).unwrap()[0].1.starts_with("(Not so in this run: server CPU us/req of poll")
        );
        let why = of(Some(&readme)).unwrap_err().0;
        assert!(why.contains("line 1: \"Poll is cheap.\" does not hold"), "{why}");
    }

    #[test]
    fn the_file_about_the_instrument_may_be_missing_and_not_broken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_instrument(folder.path()), Ok(None));
        let path = folder.path().join(INSTRUMENT_FILE);
        std::fs::write(&path, r#"{"schema_version": 99}"#).unwrap();
        let why = read_instrument(folder.path()).unwrap_err().0;
        assert!(why.contains("instrument.json: its schema_version is 99"), "{why}");
    }

    #[test]
    fn what_cannot_be_read_gets_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let sentence = |text: &str| {
            std::fs::write(folder.path().join(RESULTS_FILE), text).unwrap();
            read(folder.path()).unwrap_err().0
        };
        assert!(sentence("{").contains("not a complete result file"));
        assert!(sentence(r#"{"schema_version": 99}"#).contains("schema_version is 99"));
        let whole = fixture::results().to_json().unwrap();
        assert!(sentence(&whole[..whole.len() / 2]).contains("not a complete result file"));
        assert!(read(Path::new("/no/such")).unwrap_err().0.contains("/no/such"));
    }
}
