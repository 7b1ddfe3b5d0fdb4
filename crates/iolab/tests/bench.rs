//! Tests of `iolab bench` as a process, with a server for tests (examples/serve-example.rs), and of
//! its messages for bad input.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use record::{Outcome, Results, Role};
use tempfile::TempDir;

use support::{iolab, servers};

fn bench(place: &Path, more: &[&str]) -> Output {
    let servers = servers();
    let mut arguments = vec!["bench", "--servers", servers.to_str().unwrap(), "--out", "out"];
    let says = |flag: &str| more.contains(&flag);
    if !says("--rounds") && !says("--budget") {
        arguments.extend(["--rounds", "1"]);
    }
    // Most tests do not need the floor.
    if !says("--models") {
        arguments.extend(["--models", "example", "--no-floor"]);
    }
    arguments.extend(more);
    iolab(place, &arguments)
}

/// Keeps the first trials of a result, as if the run had been interrupted.
fn cut(place: &Path, trials: usize) -> Results {
    let mut results = written(place);
    results.trials.truncate(trials);
    std::fs::write(place.join("out/results.json"), results.to_json().unwrap()).unwrap();
    results
}

fn resume(place: &Path) -> Output {
    iolab(place, &["bench", "--resume", "out", "--servers", servers().to_str().unwrap()])
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn written(place: &Path) -> Results {
    Results::from_json(&std::fs::read_to_string(place.join("out/results.json")).unwrap()).unwrap()
}

/// The measurements of a trial, which has replies and no errors; a counting trial on a busy machine
/// may have none.
fn measured(trial: &record::Trial) -> &record::Measured {
    let Outcome::Measured(measured) = &trial.outcome else { panic!("{trial:?}") };
    let in_flight = measured.load.at_end.in_flight;
    assert!(measured.load.requests + in_flight > 0 && measured.load.errors == 0, "{trial:?}");
    measured
}

/// The reasons of the failed trials of a run with this fault.
fn failures(fault: &str, workload: &str) -> Vec<String> {
    let place = TempDir::new().unwrap();
    let model = format!("example+fault={fault}");
    let output = bench(place.path(), &["--models", &model, "--no-floor", "--workloads", workload]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(told(&output).contains("nothing was measured at all"), "{output:?}");
    let rendered = iolab(place.path(), &["report", "out"]);
    assert_eq!(rendered.status.code(), Some(1), "{rendered:?}");
    assert_eq!(iolab(place.path(), &["export", "--format", "csv", "out"]).status.code(), Some(1));
    let reason = |trial: record::Trial| match trial.outcome {
        Outcome::Failed { reason } => reason,
        Outcome::Measured(measured) => panic!("measured: {measured:?}"),
    };
    written(place.path()).trials.into_iter().map(reason).collect()
}

#[test]
fn a_run_measures_writes_and_renders() {
    let place = TempDir::new().unwrap();
    let workloads = "echo-64,http-keepalive,http-connect,idle-100,file-100k,idle-1000";
    let output = bench(place.path(), &["--workloads", workloads]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let results = written(place.path());
    let of_role = |role| results.trials.iter().filter(move |trial| trial.slot.role == role);
    assert!(results.is_complete() && of_role(Role::Timed).count() == 5);
    let answered = |trial: &record::Trial| measured(trial).load.requests > 0;
    assert!(results.trials.iter().any(answered), "{results:?}");
    assert_eq!(of_role(Role::Sentinel).count(), 5);
    let counts = results.environment.counting_unavailable.is_none();
    assert_eq!(of_role(Role::Counting).count(), if counts { 5 } else { 0 });
    for trial in &results.trials {
        let measured = measured(trial);
        assert!(measured.server.memory.pss_kib > 0);
        assert_eq!(measured.exit.code, Some(0));
        assert!(measured.exit.counters.as_ref().unwrap()["requests"].as_u64().unwrap() > 0);
        let samples = ["http-keepalive", "idle-100"].contains(&trial.slot.workload.as_str());
        assert_eq!(measured.idle.is_some(), samples && trial.slot.role != Role::Counting);
        assert_eq!(measured.calls.is_some(), trial.slot.role == Role::Counting);
    }
    assert!(results.skips[0].reason.contains("holds 500 connections at once (an example)"));
    for trial in of_role(Role::Timed) {
        let slices = &measured(trial).slices;
        assert!(!slices.requests.is_empty() && slices.requests.len() == slices.elapsed_ns.len());
    }
    let report = std::fs::read_to_string(place.path().join("out/REPORT.md")).unwrap();
    assert!(report.contains("# "), "{report}");
    let screen = String::from_utf8(output.stdout).unwrap();
    assert!(screen.contains("Report: out/REPORT.md"), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 100) && screen.lines().count() <= 24);

    let tables = iolab(place.path(), &["report", "out", "--full"]);
    let tables = String::from_utf8(tables.stdout).unwrap();
    assert!(tables.contains("example again") || tables.contains("example"), "{tables}");
    assert!(tables.lines().all(|line| line.chars().count() <= 100), "{tables}");
    let check = ["report", "out", "--output", "out/REPORT.md", "--check"];
    assert_eq!(iolab(place.path(), &check).status.code(), Some(0));
    std::fs::write(place.path().join("out/REPORT.md"), "stale").unwrap();
    assert_eq!(iolab(place.path(), &check).status.code(), Some(1));
}

/// The floor is measured too, in workloads that it supports, and is not the reference. It is
/// another crate's executable, which `cargo build --workspace` puts next to iolab.
#[test]
fn the_floor_joins_every_run() {
    let floor = Path::new(env!("CARGO_BIN_EXE_iolab")).with_file_name("serve-floor");
    assert!(floor.is_file(), "{} is missing: cargo build --workspace", floor.display());
    let place = TempDir::new().unwrap();
    let models = ["--models", "example", "--workloads", "echo-64,file-100k"];
    assert_eq!(bench(place.path(), &models).status.code(), Some(0));
    let results = written(place.path());
    assert_eq!((results.floor.as_deref(), results.reference.as_str()), (Some("floor"), "example"));
    let floor = |trial: &&record::Trial| trial.slot.model == "floor";
    for trial in results.trials.iter().filter(floor) {
        measured(trial);
        assert_eq!(trial.slot.workload, "echo-64");
    }
    assert!(results.trials.iter().any(|trial| floor(&trial)));
    let skip = results.skips.iter().find(|skip| skip.model == "floor").unwrap();
    assert_eq!(skip.workload.as_deref(), Some("file-100k"));
    assert!(skip.reason.contains("does not answer"), "{skip:?}");

    cut(place.path(), 1);
    assert_eq!(resume(place.path()).status.code(), Some(0));
    assert!(written(place.path()).is_complete());
}

#[test]
fn a_run_goes_on_without_the_floor_and_says_so() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // An iolab without servers in its directory.
    let alone = place.path().join("iolab");
    std::fs::hard_link(env!("CARGO_BIN_EXE_iolab"), &alone).unwrap();
    let output = Command::new(alone)
        .args(["bench", "--rounds", "1", "--out", "out", "--models", "example"])
        .args(["--workloads", "echo-64", "--servers", servers().to_str().unwrap()])
        .current_dir(place.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(told(&output).contains("SKIP floor: no server here has"), "{}", told(&output));
    assert_eq!(written(place.path()).floor, None);
}

/// A user's scenario is read from a file, run with the others or alone, and recorded in the result,
/// so that `--resume` does not need the file.
#[test]
fn a_scenario_of_ones_own_is_measured() {
    let place = TempDir::new().unwrap();
    let text = "description = \"three of them\"\nprotocol = \"echo\"\npayload_bytes = 100\n\
                connections = 3\npipelining = 2\nidle_connections = 5\n";
    std::fs::write(place.path().join("mine.toml"), text).unwrap();
    let output = bench(place.path(), &["--scenario", "mine.toml", "--workloads", "mine"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    std::fs::remove_file(place.path().join("mine.toml")).unwrap();
    let results = cut(place.path(), 2);
    assert_eq!(resume(place.path()).status.code(), Some(0));
    let resumed = written(place.path());
    assert!(resumed.is_complete() && resumed.workloads == results.workloads);
    let [mine] = &resumed.workloads[..] else { panic!("{:?}", resumed.workloads) };
    assert_eq!((mine.name.as_str(), mine.payload_bytes, mine.pipelining), ("mine", 100, 2));
    for trial in &resumed.trials {
        let load = &measured(trial).load;
        assert_eq!((load.connections, load.pipelining), (3, 2));
    }
}

/// In an open loop the due times are the same for all models of a round.
#[test]
fn a_rate_of_ones_own_falls_due_alike_for_all() {
    let place = TempDir::new().unwrap();
    let text = "description = \"slow\"\nprotocol = \"http\"\nrate_per_s = 200\nconnections = 4\n";
    std::fs::write(place.path().join("slow.toml"), text).unwrap();
    let arguments = ["--scenario", "slow.toml", "--workloads", "slow", "--rounds", "3"];
    let output = bench(place.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut seeds = std::collections::BTreeMap::new();
    for trial in written(place.path()).trials {
        if trial.slot.role == Role::Counting {
            continue;
        }
        let Outcome::Measured(measured) = &trial.outcome else { panic!("{trial:?}") };
        let open = measured.load.open_loop.as_ref().unwrap();
        assert!(open.rate_per_s == 200.0 && open.due > 0, "{open:?}");
        let of_round = seeds.entry(trial.slot.round).or_insert(open.seed);
        assert_eq!(*of_round, open.seed);
    }
    assert_eq!(seeds.len(), 3, "one epoch in each round");
    assert_ne!(seeds[&1], seeds[&3]);
}

#[test]
fn workloads_are_listed_and_shown() {
    let place = TempDir::new().unwrap();
    let shown = iolab(place.path(), &["bench", "--show", "idle-100"]);
    assert_eq!(shown.status.code(), Some(0));
    std::fs::write(place.path().join("mine.toml"), &shown.stdout).unwrap();
    let listed = iolab(place.path(), &["bench", "--list", "--scenario", "mine.toml"]);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let starts = |name: &str| listed.lines().any(|line| line.starts_with(name));
    assert!(starts("echo-64 ") && starts("idle-10000 ") && starts("mine "), "{listed}");
    assert!(listed.lines().all(|line| line.chars().count() <= 100), "{listed}");
}

#[test]
fn a_budget_chooses_the_rounds_and_says_so() {
    let place = TempDir::new().unwrap();
    let output = bench(place.path(), &["--budget", "7s", "--workloads", "echo-64"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (results, told) = (written(place.path()), told(&output));
    // On a slow machine fewer rounds are made than planned, which is printed.
    assert_eq!(results.settings.budget_s, Some(7.0));
    assert!(results.is_complete() && results.settings.rounds > 0);
    let timed = |trial: &&record::Trial| trial.slot.role == Role::Timed;
    let rounds = results.trials.iter().filter(timed).count();
    assert_eq!(rounds as u32, results.settings.rounds);
    let chosen = format!("budget: {rounds} round");
    assert!(told.contains(&chosen) || told.contains(&format!("so {rounds} rounds of")), "{told}");
}

/// An interrupted epoch is measured again, because its servers have ended. Complete epochs are
/// kept.
#[test]
fn an_interrupted_run_is_resumed_at_the_epoch_where_it_stopped() {
    let place = TempDir::new().unwrap();
    let output = bench(place.path(), &["--workloads", "echo-64,http-keepalive"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let cut = cut(place.path(), 3);
    assert_eq!(resume(place.path()).status.code(), Some(0));
    let resumed = written(place.path());
    assert!(resumed.is_complete() && resumed.trials[..2] == cut.trials[..2]);
    assert_ne!(resumed.trials[2], cut.trials[2]);
    let output = resume(place.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("nothing to resume"));
}

/// An interruption in a counting pass keeps the timed trials.
#[test]
fn a_counting_pass_is_resumed_where_it_stopped() {
    let place = TempDir::new().unwrap();
    let output = bench(place.path(), &["--workloads", "echo-64,http-keepalive"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let whole = written(place.path());
    if let Some(reason) = &whole.environment.counting_unavailable {
        eprintln!("SKIP {reason}");
        assert!(told(&output).contains("SKIP counting pass"), "{output:?}");
        return;
    }
    let cut = cut(place.path(), whole.trials.len() - 1);
    assert_eq!(cut.schedule[cut.trials.len() - 1].role, Role::Counting);
    assert_eq!(resume(place.path()).status.code(), Some(0));
    let resumed = written(place.path());
    assert!(resumed.is_complete() && resumed.trials[..cut.trials.len()] == cut.trials[..]);
    let last = &resumed.trials[cut.trials.len()];
    assert!(measured(last).calls.is_some(), "{last:?}");
}

/// Starts a run of very many rounds. Its stderr is read line by line.
fn long_run(
    place: &Path,
    servers: &Path,
) -> (std::process::Child, impl Iterator<Item = String> + use<>) {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_iolab"))
        .args(["bench", "--rounds", "500", "--models", "example"])
        .args(["--no-floor", "--out", "out", "--workloads", "echo-64"])
        .args(["--servers", servers.to_str().unwrap()])
        .env("TMPDIR", place)
        .current_dir(place)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(bench.stderr.take().unwrap()).lines().map_while(Result::ok);
    (bench, lines)
}

fn interrupt(bench: &std::process::Child) {
    let pid = nix::unistd::Pid::from_raw(bench.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
}

/// After Ctrl-C the measurements are written and the run can be resumed.
#[test]
fn ctrl_c_keeps_what_was_measured() {
    let place = TempDir::new().unwrap();
    let (mut bench, mut told) = long_run(place.path(), &servers());
    assert!(told.any(|line| line.starts_with("round 2 of 500")));
    interrupt(&bench);
    assert!(told.any(|line| line.contains("--resume out")));
    assert_eq!(bench.wait().unwrap().code(), Some(130));
    let results = written(place.path());
    assert!(results.trials.len() >= 2 && !results.is_complete());
}

/// A build during the run replaces the server. Then the run ends, keeps its measurements, and
/// cannot be resumed.
#[test]
fn a_server_that_is_replaced_ends_the_run() {
    let place = TempDir::new().unwrap();
    let own = place.path().join("servers");
    std::fs::create_dir(&own).unwrap();
    let (server, next) = (own.join("serve-example"), own.join("next"));
    for file in [&server, &next] {
        // Not in this process: see `fixture::script`.
        let example = servers().join("serve-example");
        assert!(Command::new("cp").args([&example, file]).status().unwrap().success());
    }
    let (mut bench, mut told) = long_run(place.path(), &own);
    assert!(told.any(|line| line.starts_with("round 2 of 500")));
    // Bytes after the end of an executable change only its hash.
    std::fs::OpenOptions::new().append(true).open(&next).unwrap().write_all(b"another").unwrap();
    std::fs::rename(&next, &server).unwrap();
    let last = told.last().unwrap();
    assert!(last.contains("serve-example has changed since the start"), "{last}");
    assert_eq!(bench.wait().unwrap().code(), Some(2));
    let results = written(place.path());
    assert!(!results.trials.is_empty() && !results.is_complete());
    let executable = results.models[0].executable.as_ref().unwrap();
    assert_eq!(executable.sha256.len(), 64, "{executable:?}");
    let resumed = ["bench", "--resume", "out", "--servers", own.to_str().unwrap()];
    let output = iolab(place.path(), &resumed);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(refused.contains("has changed since the run began"), "{refused}");
}

/// If the folder can no longer be written the run goes on, the result is written to another folder
/// and printed, and the exit code says so.
#[test]
fn a_folder_that_is_gone_loses_nothing() {
    let place = TempDir::new().unwrap();
    let (bench, mut told) = long_run(place.path(), &servers());
    assert!(told.any(|line| line.starts_with("round 2 of 500")));
    // A file in place of the folder prevents writing, also for root.
    std::fs::rename(place.path().join("out"), place.path().join("moved")).unwrap();
    std::fs::write(place.path().join("out"), "").unwrap();
    assert!(told.any(|line| line.contains("out") && line.contains("the run goes on")));
    // The message is printed once: the next round begins without it.
    assert!(told.next().unwrap().starts_with("round "));
    assert!(told.next().unwrap().starts_with("round "));
    interrupt(&bench);
    let last = told.last().unwrap();
    let (_, folder) = last.split_once("the result is in ").expect(&last);
    let folder = Path::new(folder.strip_suffix(" instead").unwrap());
    assert!(folder.starts_with(place.path()), "{last}");
    let text = std::fs::read_to_string(folder.join("results.json")).unwrap();
    assert!(Results::from_json(&text).unwrap().trials.len() >= 6);
    assert!(folder.join("REPORT.md").is_file());
    let output = bench.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("What this machine could tell"));
}

/// If no folder can be written (here because of a limit of 24 KiB per file, setrlimit(2), which
/// applies to root too) the result is printed nevertheless.
#[test]
fn a_full_disk_leaves_the_tables() {
    let place = TempDir::new().unwrap();
    let shell = format!(
        "ulimit -f 24; exec {} bench --rounds 5 --models example --no-floor \
         --workloads echo-64 --out out --servers {}",
        env!("CARGO_BIN_EXE_iolab"),
        servers().display()
    );
    let output =
        Command::new("bash").args(["-c", &shell]).current_dir(place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("What this machine could tell"));
    let told = told(&output);
    assert_eq!(told.matches("the run goes on").count(), 1, "{told}");
    assert!(told.trim_end().lines().last().unwrap().contains("nor to any other place"), "{told}");
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
    let arguments = ["--models", "example+fault=exit", "--no-floor", "--workloads", "echo-64"];
    let output = bench(place.path(), &arguments);
    let results = written(place.path());
    let Outcome::Measured(measured) = &results.trials[0].outcome else { panic!("{results:?}") };
    assert_eq!((measured.exit.code, &measured.exit.counters), (Some(7), &None));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("Report: out/REPORT.md"), "{table}");
    let tables = iolab(place.path(), &["report", "out"]);
    let tables = String::from_utf8(tables.stdout).unwrap();
    assert!(tables.contains("did not end cleanly"), "{tables}");
}

#[test]
fn bad_input_gets_one_sentence_and_exit_code_2() {
    let place = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    write("bad.toml", "description = \"d\"\nprotocol = \"http\"\nconections = 3\n");
    write("echo-64.toml", "description = \"d\"\nprotocol = \"echo\"\n");
    write("cut.json", "{\"schema_version\": 2, \"settings\": {");
    write("new.json", "{\"schema_version\": 99}");
    let cases: [(&[&str], &str); 15] = [
        (&["bench", "--models", "none"], "no server serve-none"),
        (&["bench", "--models", "floor"], "name a model too"),
        (&["bench", "--workloads", "none"], "unknown workload"),
        (&["bench", "--servers", "/no/such/directory"], "/no/such/directory"),
        (&["bench", "--scenario", "bad.toml"], "bad.toml, line 3: unknown field `conections`"),
        (&["bench", "--scenario", "echo-64.toml"], "itself has a workload echo-64"),
        (&["bench", "--scenario", "none.toml"], "cannot read none.toml"),
        (&["bench", "--list", "--scenario", "bad.toml"], "bad.toml, line 3"),
        (&["bench", "--show", "none"], "iolab has no workload"),
        (&["bench", "--budget", "1s", "--models", "example"], "one round of everything takes"),
        (&["bench", "--out", "bad.toml", "--models", "example"], "bad.toml"),
        (&["report", "/no/such/file"], "/no/such/file"),
        (&["bench", "--resume", "nothing"], "cannot read nothing"),
        (&["bench", "--resume", "cut.json"], "cut.json: not a complete result file"),
        (&["bench", "--resume", "new.json"], "new.json: its schema_version is 99"),
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

#[test]
fn the_committed_report_is_up_to_date() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let git = Command::new("git")
        .args(["ls-files", "results/*/results.json.gz"])
        .current_dir(&top)
        .output();
    let listed = git.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let Some(results) = listed.ok().and_then(|list| list.lines().next().map(str::to_owned)) else {
        eprintln!("SKIP no result folder is committed");
        return;
    };
    let up_to_date = |more: &[&str]| {
        let output = iolab(&top, &[&["report", &results, "--check", "--output"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    };
    // Short enough to be read to the end, and to be shown by GitHub in one piece.
    const REPORT_BYTES_MAX: u64 = 60 * 1024;
    let bytes = std::fs::metadata(top.join("REPORT.md")).unwrap().len();
    assert!(bytes <= REPORT_BYTES_MAX, "REPORT.md has {bytes} bytes");
    // What the result does not hold is said in its place, in both languages.
    for page in ["REPORT.md", "REPORT.zh.md", "README.md"] {
        let text = std::fs::read_to_string(top.join(page)).unwrap();
        for gap in ["ot measured in this run", "no recording of it", "未测", "没有它的录像"]
        {
            assert!(!text.contains(gap), "{page} has a gap: {gap}");
        }
    }
    up_to_date(&["REPORT.md", "--fill", "README.md"]);
    // A Chinese character has three bytes: here the limit is meant for the text.
    let chinese = std::fs::read_to_string(top.join("REPORT.zh.md")).unwrap();
    let characters = chinese.chars().count() as u64;
    assert!(characters <= REPORT_BYTES_MAX, "REPORT.zh.md has {characters} characters");
    up_to_date(&["REPORT.zh.md", "--language", "zh"]);
}

/// Errors are found before anything is built or measured.
#[test]
fn a_commit_that_is_not_there_is_told_in_a_sentence() {
    let place = TempDir::new().unwrap();
    let servers = servers();
    let against = |more: &[&str]| {
        let arguments = ["bench", "--servers", servers.to_str().unwrap(), "--models", "example"];
        iolab(place.path(), &[&arguments[..], more].concat())
    };
    let output = against(&["--against", "no-such-commit"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let words = told(&output);
    assert!(words.starts_with("iolab: --against: \"no-such-commit\" is no commit"), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    let output = against(&["--against", "HEAD", "--workloads", "rate-5000"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(told(&output).contains("has a fixed rate"), "{output:?}");
    assert_eq!(against(&["--margin", "2%"]).status.code(), Some(2));
}
