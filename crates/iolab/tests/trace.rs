//! Tests of `iolab trace` as a process, on the servers of the workspace.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use record::Recording;
use serde_json::Value;
use support::iolab;
use tempfile::TempDir;
use verdict::trace::{Blocks, CopiedBy, Place, place};

/// A guard against hanging, and no measurement.
const GUARD: Duration = Duration::from_secs(60);

fn trace(arguments: &[&str]) -> Output {
    let place = TempDir::new().unwrap();
    iolab(place.path(), &[&["trace"], arguments].concat())
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Whether this server was built beside iolab.
fn server(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_iolab")).with_file_name(format!("serve-{name}"));
    if !path.is_file() {
        eprintln!("SKIP serve-{name} was not built: cargo build --workspace");
    }
    path.is_file().then_some(path)
}

/// What `--describe` prints.
fn said(server: &Path) -> Value {
    let said = Command::new(server).arg("--describe").output().unwrap();
    serde_json::from_slice(&said.stdout).unwrap()
}

/// A recording of this server; `None` if it cannot run here.
fn recorded(name: &str) -> Option<Recording> {
    let path = server(name.split(' ').next().unwrap())?;
    if let Some(reason) = said(&path)["unavailable"].as_str() {
        eprintln!("SKIP {name}: {reason}");
        return None;
    }
    let output = trace(&[name, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(Recording::from_json_lines(&lines).unwrap())
}

/// What is known of these models, from their man pages.
#[test]
fn every_model_is_placed_by_its_trace() {
    use {Blocks::*, CopiedBy::*};
    for (name, blocks, calls, copied_by) in [
        ("serial", InIo, "accept, recv", Thread),
        ("threads", InIo, "accept, recv", Thread),
        ("pool", InIo, "accept, recv", Thread),
        ("busy", Never, "nothing", Thread),
        ("select", InWait, "select", Thread),
        ("poll", InWait, "poll", Thread),
        ("epoll", InWait, "epoll_wait", Thread),
        ("epoll --trigger edge", InWait, "epoll_wait", Thread),
        ("sigio", InWait, "sigtimedwait", Thread),
        ("tokio", InWait, "epoll_wait", Thread),
        ("uring", InWait, "io_uring_enter", Kernel),
        ("uring --receive oneshot", InWait, "io_uring_enter", Kernel),
    ] {
        let Some(recording) = recorded(name) else { continue };
        let seen = place(&recording, name);
        assert_eq!((seen.blocks, seen.copied_by), (blocks, Some(copied_by)), "{name}: {seen:?}");
        let expected: BTreeSet<_> = calls.split(", ").collect();
        let found: BTreeSet<_> = seen.blocks_in.iter().map(String::as_str).collect();
        let expected = if calls == "nothing" { BTreeSet::new() } else { expected };
        assert_eq!(found, expected, "{name}: {seen:?}");
        let told = contradiction(name, &seen);
        assert_eq!(told, None, "{name}: --describe and the trace differ: {seen:?}");
        let replies = recording.spans.iter().filter(|span| span.kind == "request");
        assert_eq!(replies.count(), 3, "{name}");
    }
}

/// In what the trace contradicts `--describe`.
fn contradiction(name: &str, seen: &Place) -> Option<String> {
    let said = said(&server(name.split(' ').next().unwrap()).unwrap());
    let calls = said["place"]["blocks_in"].as_array().unwrap();
    let calls: Vec<_> = calls.iter().map(|call| call.as_str().unwrap()).collect();
    seen.contradicts(&calls, said["place"]["copied_by"].as_str().unwrap())
}

/// Every model that was built, those that are not in the list above too.
#[test]
fn no_model_is_contradicted_by_its_trace() {
    let output = trace(&["all"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!told(&output).contains("contradicts"), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("\nCopied by: "), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
}

#[test]
fn a_recording_is_written_with_a_picture_and_shown_again() {
    let Some(_) = server("epoll") else { return };
    let place = TempDir::new().unwrap();
    let output = iolab(place.path(), &["trace", "epoll", "poll", "--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    assert!(shown.contains("Copied by: "), "{shown}");
    let again = iolab(place.path(), &["trace", "--from", "out/trace.jsonl"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), shown);
    let one = iolab(place.path(), &["trace", "--from", "out/trace.jsonl", "poll"]);
    let one = String::from_utf8(one.stdout).unwrap();
    assert!(one.starts_with("poll blocks in poll and nowhere else"), "{one}");
    let svg = std::fs::read_to_string(place.path().join("out/trace-epoll.svg")).unwrap();
    assert!(svg.contains("epoll blocks in epoll_wait and nowhere else"), "{svg}");
    assert!(svg.contains("recv(A) = 16"), "{svg}");
    let stranger = iolab(place.path(), &["trace", "--from", "out/trace.jsonl", "nope"]);
    assert_eq!(stranger.status.code(), Some(2));
    assert!(told(&stranger).contains("it has: epoll, poll"), "{stranger:?}");
}

#[test]
fn bad_input_is_one_sentence() {
    let Some(_) = server("epoll") else { return };
    for (arguments, expected) in [
        (&["nope"][..], "no server serve-nope was found; found were "),
        (&["epoll", "epoll"], "epoll is named twice"),
        (&["epoll --nope"], "epoll --nope: ended at once: error: unexpected argument '--nope'"),
        (&["--from", "nothing.jsonl"], "cannot read nothing.jsonl"),
    ] {
        let output = trace(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told = told(&output);
        assert!(told.contains(expected) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn the_definitions_are_explained() {
    let output = trace(&["--explain"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("Is epoll asynchronous? No."));
}

/// The children of a process, from proc_pid_task_children(5).
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")));
    let numbers = |list: String| list.split(' ').filter_map(|n| n.parse().ok()).collect::<Vec<_>>();
    lists.flatten().flat_map(numbers).collect()
}

/// Whether the process is there and is no zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn an_interrupt_leaves_no_server_behind() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iolab"));
    // It accepts and answers nothing, so the clients wait.
    let example = support::servers().join("serve-example");
    let server = format!("{} --fault mute", example.display());
    let mut child = command.args(["trace", &server]).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let is_server = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("serve-example")
    };
    let server = loop {
        if let Some(pid) = children(child.id()).into_iter().find(is_server) {
            break pid;
        }
        assert!(begun.elapsed() < GUARD && runs(child.id()), "no server was started");
        std::thread::yield_now();
    };
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert!(!child.wait().unwrap().success());
    while runs(server) {
        assert!(begun.elapsed() < GUARD, "the server {server} still runs");
        std::thread::yield_now();
    }
}
