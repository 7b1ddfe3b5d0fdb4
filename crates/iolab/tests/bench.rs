//! `iolab bench` from outside: a server of the tests' own (examples/serve-example.rs), real
//! sockets, real processes; and the sentences that bad input gets.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use record::{Outcome, Results};
use tempfile::TempDir;

/// A directory that holds the example server, which cargo builds beside the tests.
fn servers() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let examples = test.parent().unwrap().parent().unwrap().join("examples");
    assert!(
        examples.join("serve-example").is_file(),
        "{} is missing: cargo build -p iolab --examples",
        examples.join("serve-example").display()
    );
    examples
}

/// Runs iolab in an empty directory, outside of any checkout.
fn iolab(place: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iolab")).args(arguments).current_dir(place).output().unwrap()
}

fn bench(place: &Path, more: &[&str]) -> Output {
    let servers = servers();
    let mut arguments = vec!["bench", "--preset", "quick", "--servers", servers.to_str().unwrap()];
    arguments.extend(["--rounds", "1", "--out", "out"]);
    arguments.extend(more);
    iolab(place, &arguments)
}

fn written(place: &Path) -> Results {
    Results::from_json(&std::fs::read_to_string(place.join("out/results.json")).unwrap()).unwrap()
}

/// The reasons of the failed trials of a run with this fault.
fn failures(fault: &str, workload: &str) -> Vec<String> {
    let place = TempDir::new().unwrap();
    let model = format!("example+fault={fault}");
    let output = bench(place.path(), &["--models", &model, "--workloads", workload]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let reason = |trial: record::Trial| match trial.outcome {
        Outcome::Failed { reason } => reason,
        Outcome::Measured(measured) => panic!("measured: {measured:?}"),
    };
    written(place.path()).trials.into_iter().map(reason).collect()
}

#[test]
fn a_run_measures_writes_and_renders() {
    let place = TempDir::new().unwrap();
    let workloads = "echo-64,http-keepalive,http-connect,idle-0,file-100k,idle-1000";
    let output = bench(place.path(), &["--models", "example", "--workloads", workloads]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let results = written(place.path());
    assert!(results.is_complete() && results.trials.len() == 5 * 2);
    for trial in &results.trials {
        let Outcome::Measured(measured) = &trial.outcome else { panic!("{trial:?}") };
        assert!(measured.load.requests > 0 && measured.load.errors == 0, "{trial:?}");
        assert!(measured.server.cpu_us > 0 && measured.server.memory.pss_kib > 0);
        assert_eq!(measured.exit.code, Some(0));
        assert!(measured.exit.counters.as_ref().unwrap()["requests"].as_u64().unwrap() > 0);
        assert_eq!(measured.idle.is_some(), trial.slot.workload == "idle-0");
    }
    assert!(results.skips[0].reason.contains("holds 500 connections at once (an example)"));
    let report = std::fs::read_to_string(place.path().join("out/REPORT.md")).unwrap();
    assert!(report.contains("| example") && place.path().join("out/rate-echo-64.svg").is_file());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("example") && table.contains("not for ranking"));
    assert!(table.lines().all(|line| line.chars().count() <= 100));

    // What is rendered later is what was printed.
    let again = iolab(place.path(), &["report", "out"]);
    assert!(table.contains(std::str::from_utf8(&again.stdout).unwrap()));
    let check = ["report", "out", "--output", "out/REPORT.md", "--check"];
    assert_eq!(iolab(place.path(), &check).status.code(), Some(0));
    std::fs::write(place.path().join("out/REPORT.md"), "stale").unwrap();
    assert_eq!(iolab(place.path(), &check).status.code(), Some(1));
}

#[test]
fn an_interrupted_run_is_resumed_where_it_stopped() {
    let place = TempDir::new().unwrap();
    let output = bench(place.path(), &["--models", "example", "--workloads", "echo-64"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut results = written(place.path());
    let first = results.trials[0].clone();
    results.trials.truncate(1);
    std::fs::write(place.path().join("out/results.json"), results.to_json().unwrap()).unwrap();
    let resume = ["bench", "--resume", "out", "--servers"];
    let servers = servers();
    let arguments = [&resume[..], &[servers.to_str().unwrap()]].concat();
    assert_eq!(iolab(place.path(), &arguments).status.code(), Some(0));
    let resumed = written(place.path());
    assert!(resumed.is_complete() && resumed.trials[0] == first);
    let output = iolab(place.path(), &arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing to resume"));
}

/// Ctrl-C in the middle: what was measured is written and can be resumed.
#[test]
fn ctrl_c_keeps_what_was_measured() {
    let place = TempDir::new().unwrap();
    let servers = servers();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_iolab"))
        .args([
            "bench", "--preset", "quick", "--rounds", "500", "--models", "example", "--out", "out",
        ])
        .args(["--workloads", "echo-64", "--servers", servers.to_str().unwrap()])
        .current_dir(place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(bench.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.starts_with("round 2 of 500")));
    let pid = nix::unistd::Pid::from_raw(bench.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(told.any(|line| line.contains("--resume out")));
    assert_eq!(bench.wait().unwrap().code(), Some(130));
    let results = written(place.path());
    assert!(results.trials.len() >= 2 && !results.is_complete());
}

#[test]
fn a_server_that_breaks_the_contract_fails_its_cell_with_the_reason() {
    assert!(failures("start", "echo-64")[0].contains("ended at once: serve-example: the fault"));
    assert!(failures("silent", "echo-64")[0].contains("its first line is \"hello\""));
    assert!(failures("wrong", "echo-64")[0].contains("verification: the echo differs"));
    assert!(failures("wrong", "http-keepalive")[0].contains("12 bytes, not 13"));
    assert!(failures("mute", "http-keepalive")[0].contains("verification"));
}

#[test]
fn a_bad_end_is_kept_with_the_figures() {
    let place = TempDir::new().unwrap();
    let arguments = ["--models", "example+fault=exit", "--workloads", "echo-64"];
    let output = bench(place.path(), &arguments);
    let results = written(place.path());
    let Outcome::Measured(measured) = &results.trials[0].outcome else { panic!("{results:?}") };
    assert_eq!((measured.exit.code, &measured.exit.counters), (Some(7), &None));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("did not end cleanly"), "{table}");
}

#[test]
fn bad_input_gets_one_sentence_and_exit_code_2() {
    let place = TempDir::new().unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&["bench", "--models", "none"], "no server serve-none"),
        (&["bench", "--workloads", "none"], "no workload is called"),
        (&["bench", "--servers", "/no/such/directory"], "/no/such/directory"),
        (&["report", "/no/such/file"], "/no/such/file"),
        (&["bench", "--resume", "nothing"], "cannot read nothing"),
    ];
    for (arguments, word) in cases {
        let servers = servers();
        let mut arguments = arguments.to_vec();
        if arguments[0] == "bench" && !arguments.contains(&"--servers") {
            arguments.extend(["--servers", servers.to_str().unwrap()]);
        }
        let output = iolab(place.path(), &arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(word) && told.trim_end().lines().count() == 1, "{told}");
    }
    assert!(!place.path().join("results").exists(), "bad input leaves nothing behind");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = TempDir::new().unwrap();
    let shell = format!("{} schema | true; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_iolab"));
    let output =
        Command::new("bash").args(["-c", &shell]).current_dir(place.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_doctor_answers_in_json_too() {
    let place = TempDir::new().unwrap();
    let output = iolab(place.path(), &["doctor", "--json"]);
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(checks.as_array().unwrap().iter().any(|check| check["name"] == "io_uring"));
}

/// The committed report is what its result file says.
#[test]
fn the_committed_report_is_up_to_date() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let git =
        Command::new("git").args(["ls-files", "results/*/results.json"]).current_dir(&top).output();
    let listed = git.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let Some(results) = listed.ok().and_then(|list| list.lines().next().map(str::to_owned)) else {
        eprintln!("SKIP no result folder is committed");
        return;
    };
    let output = iolab(
        &top,
        &["report", &results, "--output", "REPORT.md", "--fill", "README.md", "--check"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
