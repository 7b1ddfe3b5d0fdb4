//! Grading itself: the start that students are given, and what cannot be graded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};
use suite::run_to_end;

use super::{NEEDS, NOT_GRADED, TOPICS, module};
use crate::{http2, table};

/// Grading, as rows of the black-box tests.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("grade::each_case_has_a_topic", || {
            each_case_has_a_topic();
            Ok(())
        }),
        Trial::ignorable_test("grade::the_start_gets_few_points", the_start_gets_few_points),
        Trial::test("grade::what_cannot_be_graded", || {
            what_cannot_be_graded();
            Ok(())
        }),
    ]
}

fn each_case_has_a_topic() {
    let rows = http2::rows().into_iter().map(|(row, _)| format!("http2::{row}"));
    let names: Vec<_> = table().iter().map(|case| case.name.to_owned()).chain(rows).collect();
    for name in &names {
        let topics = TOPICS.iter().filter(|(_, modules)| modules.contains(&module(name)));
        let expected = usize::from(!NOT_GRADED.contains(&module(name)));
        assert_eq!(topics.count(), expected, "topics of {name}");
    }
    for (needed, _) in NEEDS {
        let is_there = names.iter().any(|name| name == needed || module(name) == *needed);
        assert!(is_there, "no case has the name {needed}");
    }
}

/// The start of the assignment.
fn start() -> PathBuf {
    suite::root().join("book/assignment/serve-mine")
}

/// Exit code, stdout and stderr of a grading.
fn graded(server: &Path, case: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(std::env::current_exe().expect("this executable"));
    let output = run_to_end(command.arg("--grade").arg(server).arg(case));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Some of its cases, each by its name: what it does is a point, what it does wrongly has failed,
/// and what it does not offer is neither.
fn the_start_gets_few_points() -> Result<Completion, Failed> {
    if Command::new("python3").arg("--version").output().is_err() {
        return Ok(Completion::ignored_with("python3 is not installed"));
    }
    for (case, code, says) in [
        ("contract::first_line_names_address_model_and_pid", 0, "1 of 1 points"),
        ("requests::post_by_length", 1, "0 of 1 points"),
        ("echo::bytes_come_back", 0, "0 of 1 points: 0 cases failed, 1 case not offered"),
        ("stop::request_in_flight_is_finished", 0, "--drain-timeout (1 case)"),
        ("requests::no_such_case", 2, "no case has the name requests::no_such_case"),
    ] {
        let (ended, told, wrong) = graded(&start(), case);
        assert_eq!(ended, Some(code), "{case}: {told}{wrong}");
        assert!(told.contains(says) || wrong.contains(says), "{case}: {told}{wrong}");
        let widest = told.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{case}: {told}");
    }
    Ok(Completion::Completed)
}

/// One sentence, and exit code 2.
fn what_cannot_be_graded() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let describes = r#"[ "$1" = --describe ] && echo '{"name":"x","protocols":["http"]}' && exit"#;
    let script = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writing a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod(2)");
        path
    };
    let plain = directory.path().join("serve-plain");
    fs::write(&plain, "no program").expect("writing a file");
    for (server, says) in [
        (directory.path().join("serve-none"), "No such file"),
        (directory.path().to_owned(), "no executable file"),
        (plain, "chmod +x"),
        (script("serve-mute", "exit 3"), "is no JSON"),
        (script("serve-hello", &format!("{describes}\necho hello")), "\"hello\" on stdout"),
        (script("serve-crash", &format!("{describes}\necho why >&2; exit 7")), "why"),
    ] {
        let (code, told, sentence) = graded(&server, "");
        assert_eq!((code, told.as_str()), (Some(2), ""), "{}: {sentence}", server.display());
        assert!(sentence.contains(says), "{says:?} is not in: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(!sentence.contains("panicked"), "{sentence}");
    }
}
