//! The recordings of experiments and traces beside a result, in its directory `lessons`: one
//! directory for each experiment, as `iolab experiment all --out FOLDER/lessons` writes them, and
//! `trace`, as `iolab trace all --out FOLDER/lessons/trace` does.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use record::Recording;
use verdict::lesson::{self, Lesson, Sentence};
use verdict::trace::place;

use crate::failure::{Failure, because};
use crate::{lesson as pictures, packed, trace};

/// Name of the directory in that of a result.
const LESSONS: &str = "lessons";
/// The directory of the traces in it.
const TRACE: &str = "trace";
/// Width of the text of a picture; the report shows the SVG only.
const COLUMNS: usize = 80;

/// All recordings beside one result.
#[derive(Default)]
pub struct Lessons {
    experiments: BTreeMap<String, (Recording, Lesson)>,
    traces: Option<Recording>,
}

/// Reads the recordings; none is no error.
///
/// # Errors
/// A recording that cannot be read, with its path.
pub fn read(folder: &Path) -> Result<Lessons, Failure> {
    let mut lessons = Lessons::default();
    let lessons_folder = folder.join(LESSONS);
    let listed = match fs::read_dir(&lessons_folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(lessons),
        Err(error) => {
            return Err(because(format!("cannot read {}", lessons_folder.display()))(error));
        }
    };
    for entry in listed.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_trace = name == TRACE;
        let file = if is_trace { "trace.jsonl" } else { "recording.jsonl" };
        let path = entry.path().join(file);
        let Some(path) = packed::find(&path) else { continue };
        let recording =
            Recording::from_json_lines(&packed::read(&path)?).map_err(because(path.display()))?;
        if is_trace {
            lessons.traces = Some(recording);
        } else if let Some(lesson) = lesson::of(&recording) {
            lessons.experiments.insert(name, (recording, lesson));
        }
    }
    Ok(lessons)
}

impl Lessons {
    /// The pictures: the path of each, relative to the result's folder, and its text.
    pub fn pictures(&self) -> Vec<(PathBuf, String)> {
        let experiments = self.experiments.iter().filter_map(|(name, (recording, lesson))| {
            let svg = pictures::picture(recording, lesson, COLUMNS)?.svg;
            Some((Path::new(LESSONS).join(name).join("picture.svg"), svg))
        });
        let runs =
            self.traces.iter().flat_map(|traces| traces.runs.iter().map(move |r| (traces, r)));
        let traces = runs.map(|(traces, run)| {
            let plot = trace::picture(traces, run);
            (Path::new(LESSONS).join(TRACE).join(format!("{}.svg", plot.name)), plot.svg)
        });
        experiments.chain(traces).collect()
    }

    /// An experiment's picture as a link, with its finding as the text alternative; `None` here and
    /// below: it was not recorded.
    pub fn picture(&self, name: &str, prefix: &str) -> Option<String> {
        let (_, lesson) = self.experiments.get(name)?;
        Some(format!("![{}]({prefix}{LESSONS}/{name}/picture.svg)", lesson.finding.text))
    }

    /// What `iolab experiment` says below the picture, as a block of text.
    pub fn conclusion(&self, name: &str, columns: usize) -> Option<String> {
        let (recording, lesson) = self.experiments.get(name)?;
        let mut out = "```text\n".to_owned();
        for skipped in &recording.skipped {
            out += &lines(&format!("SKIP {}: {}", skipped.what, skipped.why), columns);
        }
        for Sentence { text, holds } in &lesson.sentences {
            out += &lines(&format!("{} {text}", if *holds { "+" } else { "-" }), columns);
        }
        Some(out + "```")
    }

    /// Whether all sentences of an experiment's conclusion with this word hold; `finding`: whether
    /// its finding does. `None` without a recording.
    pub fn holds(&self, name: &str, word: &str) -> Option<Result<(), String>> {
        let (_, lesson) = self.experiments.get(name)?;
        let with_word = lesson.sentences.iter().filter(|sentence| sentence.text.contains(word));
        let asked: Vec<&Sentence> = match word {
            "finding" => vec![&lesson.finding],
            _ => with_word.collect(),
        };
        if asked.is_empty() {
            return Some(Err(format!("{name} says nothing with the word {word:?}")));
        }
        let fails = asked.into_iter().find(|sentence| !sentence.holds);
        Some(fails.map_or(Ok(()), |sentence| Err(sentence.text.clone())))
    }

    /// The picture of a traced server as a link, with its place as the text alternative.
    pub fn trace_picture(&self, run: &str, prefix: &str) -> Option<String> {
        let traces = self.traces.as_ref()?;
        let run = traces.runs.iter().find(|one| one.run == run)?;
        let name = trace::picture(traces, run).name;
        let told = place(traces, &run.run).finding(run);
        Some(format!("![{told}]({prefix}{LESSONS}/{TRACE}/{name}.svg)"))
    }

    /// The tables in which every traced server has its place, as a block of text.
    pub fn matrix(&self) -> Option<String> {
        self.traces.as_ref().map(|traces| format!("```text\n{}```", trace::matrix(traces)))
    }
}

fn lines(text: &str, columns: usize) -> String {
    let indented = |(at, line): (usize, String)| match at {
        0 => format!("{line}\n"),
        _ => format!("  {line}\n"),
    };
    crate::text::lines_of(text, columns - 2).into_iter().enumerate().map(indented).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(recording: &Recording) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(LESSONS).join(&recording.heading.experiment);
        fs::create_dir_all(&place).unwrap();
        let file = place.join("recording.jsonl");
        fs::write(&file, recording.to_json_lines().unwrap()).unwrap();
        (folder, file)
    }

    #[test]
    fn a_recording_is_shown_with_its_finding() {
        let (folder, _) = beside(&fixture::recording("crowd"));
        let lessons = read(folder.path()).unwrap();
        let wanted = "![poll and epoll were not both run](p/lessons/crowd/picture.svg)";
        assert_eq!(lessons.picture("crowd", "p/").as_deref(), Some(wanted));
        assert_eq!(lessons.pictures()[0].0, Path::new("lessons/crowd/picture.svg"));
        assert_eq!(
            lessons.holds("crowd", "finding").unwrap().unwrap_err(),
            "poll and epoll were \
                                                                             not both run"
        );
        assert!(lessons.holds("crowd", "sheep").unwrap().unwrap_err().contains("sheep"));
    }

    #[test]
    fn a_recording_may_be_missing_and_not_broken() {
        let nothing = Lessons::default();
        assert_eq!(nothing.picture("crowd", ""), None);
        assert_eq!(nothing.trace_picture("epoll", ""), None);
        assert_eq!(nothing.matrix(), None);
        assert!(nothing.holds("crowd", "finding").is_none());
        let (folder, file) = beside(&fixture::recording("crowd"));
        fs::write(&file, "{").unwrap();
        let why = read(folder.path()).err().unwrap().0;
        assert!(why.contains("crowd/recording.jsonl"), "{why}");
    }
}
